//! Images on their way out and in: push, save, load, import. Requests that are futures.

use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use super::request::progress_and_deadline;
use super::{Engine, Image, Verb};
use crate::error::{ObjectKind, Result};
use crate::images::{ArchiveFormat, ByteStream, Credentials, ImportRequest, Loaded, PushRequest, Pushed};
use crate::progress::{Progress, ProgressEvent};
use crate::types::{Platform, Reference};

progress_and_deadline!(PushBuilder, LoadBuilder, ImportBuilder);

type Answer<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// A push about to be made. Awaiting it yields what the registry has now.
#[derive(Debug, Clone)]
#[must_use = "nothing is pushed until it is awaited"]
pub struct PushBuilder {
    engine: Engine,
    name: String,
    to: Option<String>,
    platform: Option<Platform>,
    credentials: Option<Credentials>,
    progress: Progress,
    deadline: Option<Duration>,
}

impl PushBuilder {
    pub(crate) fn new(engine: Engine, name: String) -> Self {
        Self {
            engine,
            name,
            to: None,
            platform: None,
            credentials: None,
            progress: Progress::default(),
            deadline: None,
        }
    }

    /// Where to, if not where its name says: `host/repository:tag`, `oci:DIR`, `oci:DIR:NAME`, `docker-archive:FILE` or
    /// `docker-archive:FILE:NAME`. See [`PushRequest::to`].
    pub fn to(mut self, place: impl Into<String>) -> Self {
        self.to = Some(place.into());
        self
    }

    /// Which platform's image to push. Default whatever is here.
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = Some(platform);
        self
    }

    /// Who is asking. Default nobody in particular.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    async fn push(self) -> Result<Pushed> {
        let mut request = PushRequest::new(self.name.parse()?);
        request.to = self.to.map(|place| place.parse()).transpose()?;
        request.platform = self.platform;
        request.credentials = self.credentials;
        self.engine.images().push(request, self.progress).await
    }
}

impl IntoFuture for PushBuilder {
    type Output = Result<Pushed>;
    type IntoFuture = Answer<Pushed>;

    fn into_future(self) -> Self::IntoFuture {
        let (engine, deadline, name) = (self.engine.clone(), self.deadline, self.name.clone());
        Box::pin(async move {
            let verb = Verb::of("image.push", ObjectKind::Image, &name);
            engine.within(verb, deadline, self.push()).await
        })
    }
}

/// An archive about to be written. Awaiting it yields its bytes as a stream.
#[derive(Debug, Clone)]
#[must_use = "nothing is saved until it is awaited"]
pub struct SaveBuilder {
    engine: Engine,
    images: Vec<String>,
    platform: Option<Platform>,
    format: ArchiveFormat,
}

impl SaveBuilder {
    pub(crate) fn new(engine: Engine, images: Vec<String>) -> Self {
        Self {
            engine,
            images,
            platform: None,
            format: ArchiveFormat::default(),
        }
    }

    /// Which platform's images to save. Default whatever is here.
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = Some(platform);
        self
    }

    /// The form of the archive. Default Docker's.
    pub fn format(mut self, format: ArchiveFormat) -> Self {
        self.format = format;
        self
    }
}

impl IntoFuture for SaveBuilder {
    type Output = Result<ByteStream>;
    type IntoFuture = Answer<ByteStream>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let images = self.engine.images();
            images.save(&self.images, self.platform, self.format).await
        })
    }
}

/// An archive about to be loaded. Awaiting it yields the images that were in it.
#[must_use = "nothing is loaded until it is awaited"]
pub struct LoadBuilder {
    engine: Engine,
    archive: ByteStream,
    platform: Option<Platform>,
    progress: Progress,
    deadline: Option<Duration>,
}

impl std::fmt::Debug for LoadBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadBuilder")
            .field("platform", &self.platform)
            .finish_non_exhaustive()
    }
}

impl LoadBuilder {
    pub(crate) fn new(engine: Engine, archive: ByteStream) -> Self {
        Self {
            engine,
            archive,
            platform: None,
            progress: Progress::default(),
            deadline: None,
        }
    }

    /// Which platform's images to load. Default the host's, or the only one there is.
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = Some(platform);
        self
    }
}

impl IntoFuture for LoadBuilder {
    type Output = Result<Vec<Loaded>>;
    type IntoFuture = Answer<Vec<Loaded>>;

    fn into_future(self) -> Self::IntoFuture {
        let (engine, deadline) = (self.engine.clone(), self.deadline);
        let load = async move {
            self.engine
                .images()
                .load(self.archive, self.platform, self.progress)
                .await
        };
        Box::pin(async move { engine.within(Verb::of_engine("image.load"), deadline, load).await })
    }
}

/// An import about to be made. Awaiting it yields the [`Image`].
#[must_use = "nothing is imported until it is awaited"]
pub struct ImportBuilder {
    engine: Engine,
    archive: ByteStream,
    request: ImportRequest,
    progress: Progress,
    deadline: Option<Duration>,
}

impl std::fmt::Debug for ImportBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImportBuilder")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

impl ImportBuilder {
    pub(crate) fn new(engine: Engine, archive: ByteStream) -> Self {
        Self {
            engine,
            archive,
            request: ImportRequest::new(),
            progress: Progress::default(),
            deadline: None,
        }
    }

    /// The image's name. Default none.
    pub fn name(mut self, name: Reference) -> Self {
        self.request = self.request.name(name);
        self
    }

    /// A remark in its history.
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.request = self.request.message(message);
        self
    }

    /// A Dockerfile instruction for its config: `CMD ["sh"]`, `ENV A=b`.
    pub fn change(mut self, change: impl Into<String>) -> Self {
        self.request = self.request.change(change);
        self
    }

    /// What it runs on. Default the host's platform.
    pub fn platform(mut self, platform: Platform) -> Self {
        self.request = self.request.platform(platform);
        self
    }
}

impl IntoFuture for ImportBuilder {
    type Output = Result<Image>;
    type IntoFuture = Answer<Image>;

    fn into_future(self) -> Self::IntoFuture {
        let (engine, deadline) = (self.engine.clone(), self.deadline);
        let import = async move {
            let id = self.engine.images().import(self.archive, self.request, self.progress);
            let id = id.await?;
            Ok(Image::new(self.engine, id))
        };
        Box::pin(async move { engine.within(Verb::of_engine("image.import"), deadline, import).await })
    }
}
