//! `load`: images from an archive.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::archive::{Found, Held, Taker, find, on_thread};
use super::install::Arrival;
use super::local::LocalImages;
use super::pull::{Ending, blobs_of};
use super::{ByteStream, ImageInfo, Loaded};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::progress::{Progress, ProgressEvent};
use crate::storage::unpack::{BlobBytes, BlobSource};
use crate::store::Node;
use crate::types::{Descriptor, Platform, Reference};

/// How much of a file is read at once.
const PIECE: usize = 256 << 10;

impl LocalImages {
    pub(super) async fn load_and_tell(
        &self,
        archive: ByteStream,
        platform: Option<Platform>,
        progress: Progress,
    ) -> Result<Vec<Loaded>> {
        let mut ending = Ending::new(&progress);
        let held = Held::begin(self).await;
        let result = match held {
            Ok(held) => self.load_held(archive, platform.as_ref(), &progress, held).await,
            Err(error) => Err(error),
        };
        ending.tell(match &result {
            Ok(loaded) => match loaded.last() {
                Some(last) => ProgressEvent::Done { image: last.id },
                None => ProgressEvent::Failed {
                    message: "no image".to_owned(),
                },
            },
            Err(error) => ProgressEvent::Failed {
                message: error.report(),
            },
        });
        result
    }

    async fn load_held(
        &self,
        archive: ByteStream,
        platform: Option<&Platform>,
        progress: &Progress,
        held: Held,
    ) -> Result<Vec<Loaded>> {
        let loaded = self.load_all(archive, platform, progress, &held).await;
        held.settle().await?;
        loaded
    }

    async fn load_all(
        &self,
        archive: ByteStream,
        platform: Option<&Platform>,
        progress: &Progress,
        held: &Held,
    ) -> Result<Vec<Loaded>> {
        let found = self.take_in(archive, platform.cloned(), held).await?;
        let mut loaded = Vec::new();
        for image in &found {
            loaded.push(self.load_one(image, platform, progress, held).await?);
        }
        Ok(loaded)
    }

    async fn take_in(&self, archive: ByteStream, platform: Option<Platform>, held: &Held) -> Result<Vec<Found>> {
        let content = Arc::clone(&self.parts.content);
        let holder = held.holder().ok_or_else(ended)?;
        on_thread(archive, move |inflow| {
            let taker = Taker::new(content, holder)?;
            let contents = taker
                .archive(inflow)
                .map_err(|error| error.context("reading the archive failed"))?;
            find(&taker, &contents, platform.as_ref())
        })
        .await
    }

    async fn load_one(
        &self,
        image: &Found,
        platform: Option<&Platform>,
        progress: &Progress,
        held: &Held,
    ) -> Result<Loaded> {
        let lease = held.lease().ok_or_else(ended)?;
        let shown = match image.names.first() {
            Some(name) => name.familiar(),
            None => "the image in the archive".to_owned(),
        };
        let arrival = Arrival {
            chosen: &image.chosen,
            source: Arc::new(Nowhere),
            names: &image.names,
            shown: &shown,
            platform,
            action: "load",
        };
        let mut nodes = blobs_of(&image.chosen);
        nodes.extend(
            image
                .chosen
                .index
                .iter()
                .map(|index| Node::blob(&index.descriptor.digest)),
        );
        let installed = self.install(&arrival, &lease, &mut nodes, progress).await;
        held.add(nodes);
        Ok(Loaded {
            id: installed?.id,
            tags: image.names.clone(),
        })
    }
}

impl LocalImages {
    /// An image of an archive on disk, as a source of a pull. All of the archive is read; what belongs to no image that was
    /// asked for is removed again.
    pub(super) async fn pull_archive(
        &self,
        file: &Path,
        name: Option<&Reference>,
        platform: Option<&Platform>,
        progress: &Progress,
    ) -> Result<ImageInfo> {
        let archive = read_file(file.to_owned()).await?;
        let held = Held::begin(self).await?;
        let loaded = self.load_named(archive, file, name, platform, progress, &held).await;
        held.settle().await?;
        self.inspect_named(&loaded?.id.to_string()).await
    }

    async fn load_named(
        &self,
        archive: ByteStream,
        file: &Path,
        name: Option<&Reference>,
        platform: Option<&Platform>,
        progress: &Progress,
        held: &Held,
    ) -> Result<Loaded> {
        let found = self.take_in(archive, platform.cloned(), held).await?;
        let image = select(found, name, file)?;
        self.load_one(&image, platform, progress, held).await
    }
}

/// The image of that name, or the only one.
fn select(mut found: Vec<Found>, name: Option<&Reference>, file: &Path) -> Result<Found> {
    let names = || found.iter().flat_map(|image| &image.names).map(Reference::familiar);
    let there = names().collect::<Vec<_>>().join(", ");
    let shown = file.display().to_string();
    let Some(name) = name else {
        return match found.len() {
            1 => Ok(found.remove(0)),
            count => {
                let message = format!("the archive {shown} holds {count} images; name one of them: {there}");
                Err(Error::invalid(message).with_object(ObjectKind::Image, shown))
            }
        };
    };
    match found.into_iter().find(|image| image.names.contains(name)) {
        Some(image) => Ok(Found {
            names: vec![name.clone()],
            ..image
        }),
        None => {
            let message = format!("the archive {shown} has no image {}; it has: {there}", name.familiar());
            Err(Error::new(ErrorKind::NotFound, message).with_object(ObjectKind::Image, name.familiar()))
        }
    }
}

/// The bytes of a file. A pipe or a device, which might never end, is refused.
async fn read_file(path: PathBuf) -> Result<ByteStream> {
    let shown = path.display().to_string();
    let file = blocking(move || {
        let open = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
        let file = open.map_err(|error| Error::os("open the archive", error))?;
        let meta = file
            .metadata()
            .map_err(|error| Error::os("look at the archive", error))?;
        match meta.is_file() {
            true => Ok(file),
            false => Err(Error::invalid(format!("{} is not a file", path.display()))),
        }
    })
    .await
    .map_err(|error| error.with_object(ObjectKind::Image, shown))?;
    Ok(stream::try_unfold(file, read_piece).boxed())
}

async fn read_piece(mut file: File) -> Result<Option<(Bytes, File)>> {
    blocking(move || {
        let mut piece = vec![0; PIECE];
        let length = file
            .read(&mut piece)
            .map_err(|error| Error::os("read the archive", error))?;
        piece.truncate(length);
        Ok((length > 0).then(|| (Bytes::from(piece), file)))
    })
    .await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal("reading an archive ended early").with_source(error))?
}

pub(super) fn ended() -> Error {
    Error::internal("the lease of an archive ended early")
}

/// No source of blobs: all of them came with the archive.
#[derive(Debug)]
pub(super) struct Nowhere;

#[async_trait]
impl BlobSource for Nowhere {
    async fn open(&self, descriptor: &Descriptor, _offset: u64) -> Result<BlobBytes> {
        let digest = descriptor.digest.to_string();
        let message = format!("the blob {digest} came with the archive and is damaged or gone: load it again");
        Err(Error::new(ErrorKind::Corrupt, message).with_object(ObjectKind::Blob, digest))
    }
}
