//! A handle on an image, and pulling one.

use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use super::request::progress_and_deadline;
use super::{Engine, SaveBuilder, Verb};
use crate::containers::ContainerSpec;
use crate::error::{ObjectKind, Result};
use crate::images::{Credentials, HistoryLine, ImageInfo, Pull, PullRequest, RemoveImageOptions, Removed};
use crate::progress::{Progress, ProgressEvent};
use crate::types::{ImageId, Outcome, Platform, Reference};

/// A handle on an image. Dropping it changes nothing.
#[derive(Debug, Clone)]
pub struct Image {
    engine: Engine,
    id: ImageId,
}

impl Image {
    pub(crate) fn new(engine: Engine, id: ImageId) -> Self {
        Self { engine, id }
    }

    /// Its id: the digest of its config.
    pub fn id(&self) -> &ImageId {
        &self.id
    }

    /// The same image, each of whose verbs may take so long. See [`Engine::deadline`].
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        Self::new(self.engine.deadline(limit), self.id)
    }

    /// Everything about it.
    ///
    /// # Errors
    /// `NotFound` once it is removed.
    pub async fn inspect(&self) -> Result<ImageInfo> {
        self.engine.images().inspect(&self.id.to_string()).await
    }

    /// Gives it another name.
    ///
    /// # Errors
    /// `NotFound` once it is removed.
    pub async fn tag(&self, name: &Reference) -> Result<Outcome> {
        self.engine.images().tag(&self.id.to_string(), name).await
    }

    /// The steps it was made in, the newest first.
    ///
    /// # Errors
    /// `NotFound` once it is removed.
    pub async fn history(&self) -> Result<Vec<HistoryLine>> {
        self.engine.images().history(&self.id.to_string()).await
    }

    /// Writes it into an archive, where it has no name.
    pub fn save(&self) -> SaveBuilder {
        self.engine.save([self.id.to_string()])
    }

    /// Removes it. See [`ImageManager::remove`](crate::ImageManager::remove).
    ///
    /// # Errors
    /// `Conflict` while a container uses it.
    pub async fn remove(&self, options: RemoveImageOptions) -> Result<Vec<Removed>> {
        self.engine.images().remove(&self.id.to_string(), options).await
    }
}

/// A pull about to be made. Awaiting it yields the [`Image`].
#[derive(Debug, Clone)]
#[must_use = "nothing is pulled until it is awaited"]
pub struct PullBuilder {
    engine: Engine,
    source: String,
    policy: Pull,
    platform: Option<Platform>,
    credentials: Option<Credentials>,
    progress: Progress,
    deadline: Option<Duration>,
}

progress_and_deadline!(PullBuilder);

impl PullBuilder {
    pub(crate) fn new(engine: Engine, source: String) -> Self {
        let (policy, progress) = (Pull::Always, Progress::default());
        Self {
            engine,
            source,
            policy,
            platform: None,
            credentials: None,
            progress,
            deadline: None,
        }
    }

    /// When to ask the registry. Default [`Pull::Always`]: a tag may have moved.
    pub fn policy(mut self, policy: Pull) -> Self {
        self.policy = policy;
        self
    }

    /// Which platform's image to take. Default the host's.
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = Some(platform);
        self
    }

    /// Who is asking. Default nobody in particular.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    pub(crate) fn report_to(mut self, progress: Progress) -> Self {
        self.progress = progress;
        self
    }

    pub(crate) fn platform_of(mut self, spec: &ContainerSpec) -> Self {
        self.platform = spec.platform.clone();
        self
    }

    async fn pull(self) -> Result<Image> {
        let mut request = PullRequest::new(self.source.parse()?).policy(self.policy);
        request.platform = self.platform;
        request.credentials = self.credentials;
        let info = self.engine.images().pull(request, self.progress).await?;
        Ok(Image::new(self.engine, info.id))
    }
}

impl IntoFuture for PullBuilder {
    type Output = Result<Image>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Image>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let (engine, deadline, source) = (self.engine.clone(), self.deadline, self.source.clone());
        Box::pin(async move {
            let verb = Verb::of("image.pull", ObjectKind::Image, &source);
            engine.within(verb, deadline, self.pull()).await
        })
    }
}
