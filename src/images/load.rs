//! `load`: images from an archive.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use super::archive::{Found, Held, Taker, beside, find};
use super::install::Arrival;
use super::local::LocalImages;
use super::pull::{Ending, blobs_of};
use super::{ByteStream, ImageInfo, Loaded};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::progress::{Progress, ProgressEvent};
use crate::storage::unpack::{Ahead, BlobBytes, BlobSource};
use crate::store::Node;
use crate::types::{Descriptor, Digest, Platform, Reference, reader_stream};

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
        let ahead = self.ahead(platform, &held)?;
        let loaded = self.load_all(archive, platform, progress, &held, ahead.as_ref()).await;
        end(ahead).await;
        held.settle().await?;
        loaded
    }

    async fn load_all(
        &self,
        archive: ByteStream,
        platform: Option<&Platform>,
        progress: &Progress,
        held: &Held,
        ahead: Option<&Ahead>,
    ) -> Result<Vec<Loaded>> {
        let found = self.take_in(archive, platform.cloned(), held, ahead).await?;
        let install = async {
            let mut loaded = Vec::new();
            for image in &found {
                loaded.push(self.load_one(image, platform, progress, held, ahead).await?);
            }
            Ok(loaded)
        };
        self.while_synced(&found, install).await
    }

    /// Writes the blobs of images out while these are installed: the last of the unpacking needs the processor, and this the
    /// disk. Each image waits for its own blobs once more before its record is written, which then takes no time.
    async fn while_synced<T>(&self, found: &[Found], install: impl Future<Output = Result<T>>) -> Result<T> {
        let layers = found.iter().flat_map(|image| &image.chosen.manifest.layers);
        let blobs: Vec<Digest> = layers.map(|layer| layer.digest).collect();
        let (installed, synced) = futures_util::join!(install, self.parts.content.sync(&blobs));
        let installed = installed?;
        // The kernel tells of a failed write once: it may have told this one.
        synced?;
        Ok(installed)
    }

    /// Unpacks layers while the archive is read. Where one platform of several is wanted, only the end of the archive tells
    /// whose layers those are.
    pub(super) fn ahead(&self, platform: Option<&Platform>, held: &Held) -> Result<Option<Ahead>> {
        if platform.is_some() {
            return Ok(None);
        }
        let lease = held.lease().ok_or_else(ended)?;
        Ok(self.parts.unpacker.ahead(lease))
    }

    async fn take_in(
        &self,
        archive: ByteStream,
        platform: Option<Platform>,
        held: &Held,
        ahead: Option<&Ahead>,
    ) -> Result<Vec<Found>> {
        let content = Arc::clone(&self.parts.content);
        let holder = held.holder().ok_or_else(ended)?;
        let follower = ahead.map(Ahead::follower);
        beside(archive, move |inflow| {
            let taker = Taker::new(content, holder)?.followed(follower);
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
        ahead: Option<&Ahead>,
    ) -> Result<Loaded> {
        let lease = held.lease().ok_or_else(ended)?;
        let shown = match image.names.first() {
            Some(name) => name.familiar(),
            None => "the image in the archive".to_owned(),
        };
        let arrival = Arrival {
            chosen: &image.chosen,
            source: Arc::new(Nowhere),
            offers: ahead.map(Ahead::offers),
            fresh: None,
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
        let ahead = self.ahead(platform, &held)?;
        let from = (file, name);
        let loaded = self
            .load_named(archive, from, platform, progress, &held, ahead.as_ref())
            .await;
        end(ahead).await;
        held.settle().await?;
        self.inspect_named(&loaded?.id.to_string()).await
    }

    async fn load_named(
        &self,
        archive: ByteStream,
        (file, name): (&Path, Option<&Reference>),
        platform: Option<&Platform>,
        progress: &Progress,
        held: &Held,
        ahead: Option<&Ahead>,
    ) -> Result<Loaded> {
        let found = self.take_in(archive, platform.cloned(), held, ahead).await?;
        let image = select(found, name, file)?;
        let install = self.load_one(&image, platform, progress, held, ahead);
        self.while_synced(std::slice::from_ref(&image), install).await
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
    reader_stream(file)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal("reading an archive ended early").with_source(error))?
}

/// Sees to it that nothing of what was unpacked ahead is left.
pub(super) async fn end(ahead: Option<Ahead>) {
    if let Some(ahead) = ahead {
        ahead.end().await;
    }
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
