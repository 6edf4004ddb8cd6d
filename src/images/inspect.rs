//! `inspect`: everything about an image.

use super::local::{LocalImages, time_of};
use super::manifest::MAX_CONFIG;
use super::{ImageConfig, ImageInfo};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::storage::unpack::LayerRef;
use crate::store::ImageRecord;
use crate::sys::blocking::blocking;
use crate::types::{Descriptor, Digest, Reference};

impl LocalImages {
    pub(super) async fn inspect_named(&self, image: &str) -> Result<ImageInfo> {
        let found = self.find(image).await?;
        self.info_of(found.record).await
    }

    pub(super) async fn info_of(&self, record: ImageRecord) -> Result<ImageInfo> {
        let id = record.id;
        let names = self.parts.store.call(move |store| store.image_names(&id)).await?;
        let config = self.read_config(&record.config).await?;
        let (digests, tags): (Vec<Reference>, Vec<Reference>) =
            names.into_iter().partition(|name| name.digest().is_some());
        let layers = record.layers.into_iter().map(|layer| LayerRef {
            descriptor: layer.descriptor,
            diff_id: layer.diff_id,
        });
        Ok(ImageInfo {
            id,
            tags,
            digests,
            manifest: record.manifest,
            platform: record.platform,
            chain: config.chain(),
            config,
            layers: layers.collect(),
            size_bytes: record.size,
            pulled_at: time_of(record.pulled_at_ns),
        })
    }

    /// Reads a config from the content store, and checks that it is still what it was.
    pub(super) async fn read_config(&self, descriptor: &Descriptor) -> Result<ImageConfig> {
        let file = self.parts.content.open(&descriptor.digest).await?;
        let digest = descriptor.digest;
        let bytes = blocking(move || read_small(file, &digest)).await?;
        ImageConfig::parse(&bytes)
    }
}

fn read_small(file: std::fs::File, digest: &Digest) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    file.take(MAX_CONFIG + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::os("read an image's config", error))?;
    if Digest::of(&bytes) != *digest {
        let message = format!(
            "the config {} in the content store is damaged: remove the image and pull it again",
            digest.short()
        );
        return Err(Error::new(ErrorKind::Corrupt, message).with_object(ObjectKind::Blob, digest.to_string()));
    }
    Ok(bytes)
}
