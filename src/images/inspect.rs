//! `inspect`: everything about an image.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, PoisonError};

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
        let (digest, configs) = (descriptor.digest, Arc::clone(&self.configs));
        blocking(move || configs.get(file, &digest)).await
    }
}

/// Configs that were read and checked, as long as their files are as they were.
#[derive(Debug, Default)]
pub(super) struct Configs(Mutex<HashMap<Digest, (Stamp, ImageConfig)>>);

/// How many configs are kept at most.
const KEPT: usize = 64;

/// What no change of a file leaves as it was: device, inode, size, and when it was written or changed otherwise.
type Stamp = [i64; 7];

impl Configs {
    fn get(&self, file: File, digest: &Digest) -> Result<ImageConfig> {
        let meta = file
            .metadata()
            .map_err(|error| Error::os("look at an image's config", error))?;
        let stamp = stamp(&meta);
        let kept = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, config)) = kept().get(digest).filter(|(of, _)| *of == stamp) {
            return Ok(config.clone());
        }
        let config = ImageConfig::parse(&read_small(file, meta.len(), digest)?)?;
        let mut kept = kept();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(*digest, (stamp, config.clone()));
        Ok(config)
    }
}

fn stamp(meta: &Metadata) -> Stamp {
    [
        meta.dev().cast_signed(),
        meta.ino().cast_signed(),
        meta.size().cast_signed(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec(),
    ]
}

fn read_small(file: File, size: u64, digest: &Digest) -> Result<Vec<u8>> {
    // One read for all of it, and one for the end.
    let mut bytes = Vec::with_capacity(size.min(MAX_CONFIG) as usize + 1);
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
