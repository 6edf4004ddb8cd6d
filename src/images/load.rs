//! `load`: images from an archive.

use std::sync::Arc;

use async_trait::async_trait;

use super::archive::{Found, Held, Taker, find, on_thread};
use super::install::Arrival;
use super::local::LocalImages;
use super::pull::{Ending, blobs_of};
use super::{ByteStream, Loaded};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::progress::{Progress, ProgressEvent};
use crate::storage::unpack::{BlobBytes, BlobSource};
use crate::types::{Descriptor, Platform};

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
        let installed = self.install(&arrival, &lease, &mut nodes, progress).await;
        held.add(nodes);
        Ok(Loaded {
            id: installed?.id,
            tags: image.names.clone(),
        })
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
    async fn open(&self, descriptor: &Descriptor) -> Result<BlobBytes> {
        let digest = descriptor.digest.to_string();
        let message = format!("the blob {digest} came with the archive and is damaged or gone: load it again");
        Err(Error::new(ErrorKind::Corrupt, message).with_object(ObjectKind::Blob, digest))
    }
}
