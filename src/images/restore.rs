//! `restore`: layers that did not reach the disk before power was lost are unpacked anew, from the image's blobs, which did.

use std::sync::Arc;

use async_trait::async_trait;

use super::local::LocalImages;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::progress::Progress;
use crate::storage::unpack::{BlobBytes, BlobSource, Given, LayerRef};
use crate::store::{ImageRecord, Node};
use crate::types::{Descriptor, Outcome};

impl LocalImages {
    pub(super) async fn restore_named(&self, image: &str) -> Result<Outcome> {
        let record = self.find(image).await?.record;
        self.restore_layers(&record).await
    }

    /// Unpacks those layers that cannot be relied on. The locks are a pull's: whoever comes second finds the work done.
    pub(super) async fn restore_layers(&self, record: &ImageRecord) -> Result<Outcome> {
        if self.is_whole(record).await? {
            return Ok(Outcome::Already);
        }
        tracing::info!(image = %record.id, "unpacking layers anew that were not on the disk when power was lost");
        let snapshots: Vec<Node> = record.chain_ids().iter().map(Node::snapshot).collect();
        let owner = self.parts.owner.clone();
        let lease = Arc::new(self.parts.store.call(move |store| store.lease(&owner)).await?);
        self.hold(&lease, snapshots.clone()).await?;
        let unpacked = self.unpack_from_blobs(record).await;
        if let Ok(lease) = Arc::try_unwrap(lease) {
            self.parts.store.call(move |_| lease.release()).await?;
        }
        // Of no use where the image was removed meanwhile.
        self.remove_unused(snapshots).await?;
        unpacked.map(|()| Outcome::Done)
    }

    async fn is_whole(&self, record: &ImageRecord) -> Result<bool> {
        for chain in record.chain_ids() {
            if !self.parts.snapshotter.exists(&chain).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn unpack_from_blobs(&self, record: &ImageRecord) -> Result<()> {
        let layers: Vec<LayerRef> = record
            .layers
            .iter()
            .map(|layer| LayerRef {
                descriptor: layer.descriptor.clone(),
                diff_id: layer.diff_id,
            })
            .collect();
        // A layer that is whole needs no blob.
        let given = Given {
            unwanted: layers.iter().map(|layer| layer.descriptor.digest).collect(),
            ..Given::default()
        };
        let source = Arc::new(Nowhere {
            image: record.id.to_string(),
        });
        let unpacker = &self.parts.unpacker;
        unpacker
            .image_given(&layers, &given, source, &Progress::default())
            .await
            .map(drop)
    }
}

/// Where a blob is missing, there is no other place to look.
#[derive(Debug)]
struct Nowhere {
    image: String,
}

#[async_trait]
impl BlobSource for Nowhere {
    async fn open(&self, descriptor: &Descriptor, _offset: u64) -> Result<BlobBytes> {
        let message = format!(
            "a layer of the image {} is lost, and its blob {} is missing or damaged; pull the image again",
            self.image, descriptor.digest
        );
        Err(Error::new(ErrorKind::Corrupt, message).with_object(ObjectKind::Image, self.image.clone()))
    }
}
