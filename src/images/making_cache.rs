//! Layers and documents of build caches that are elsewhere: fetched, checked against their digests, and sent.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt as _;

use super::assemble::LAYER;
use super::load::ended;
use super::making::Making;
use super::manifest::{MAX_BLOB, MAX_CONFIG};
use super::push::Delivery;
use super::{ImageInfo, lookup};
use crate::driver::Cancel;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::progress::Progress;
use crate::registry::layout::{LayoutRegistry, LayoutTarget};
use crate::registry::{Credentials, ManifestBlob, ManifestKey, Registry};
use crate::storage::content::Ingest;
use crate::storage::inflow::on_thread;
use crate::storage::layer::Limits;
use crate::storage::layer::decompress::Uncompressed;
use crate::storage::layer::tar::read_error;
use crate::store::{Node, Store};
use crate::types::{Descriptor, Digest, LayerRef, MediaType, Reference};

/// How much of a layer is handed on at once.
const PIECE: usize = 256 << 10;

/// A repository that a cache comes from, or goes to.
#[derive(Debug, Clone)]
pub(crate) struct Repository {
    registry: Arc<dyn Registry>,
    /// Empty for a place on disk.
    name: String,
}

impl Making {
    /// The repository of a name.
    ///
    /// # Errors
    /// As opening the registry.
    pub(crate) async fn repository(&self, name: &Reference, credentials: Option<&Credentials>) -> Result<Repository> {
        let credentials = credentials.unwrap_or(&Credentials::Anonymous);
        Ok(Repository {
            registry: self.images.parts.registries.open(name.host(), credentials).await?,
            name: name.repository().to_owned(),
        })
    }

    /// An image that is here, held from now on; none where there is none of that name.
    ///
    /// # Errors
    /// Those of the stores.
    pub(crate) async fn here(&self, name: &Reference) -> Result<Option<ImageInfo>> {
        let wanted = name.clone();
        let find = move |store: &Store| Ok(lookup::by_name(store, &wanted)?.map(|found| found.record.id));
        match self.images.parts.store.call(find).await? {
            Some(id) => self.base(&id.to_string()).await.map(Some),
            None => Ok(None),
        }
    }

    /// Fetches a layer, and unpacks it upon others. It is kept plain, whatever it came as: so it is what its step would have
    /// made, to the byte.
    ///
    /// # Errors
    /// `DigestMismatch` where it is not what it was said to be; `NotFound`, `Unavailable` and what else the repository says;
    /// `UnsafeArchive`; those of the stores.
    pub(crate) async fn fetched(
        &self,
        from: &Repository,
        below: &[LayerRef],
        layer: &LayerRef,
        cancel: &Cancel,
    ) -> Result<LayerRef> {
        let digest = layer.diff_id;
        self.hold(vec![Node::blob(&digest)]).await?;
        let there = self.images.parts.content.info(&digest).await?;
        let size = match there {
            Some(blob) => blob.size,
            None => cancel.or(self.fetch(from, layer)).await?,
        };
        let plain = LayerRef {
            descriptor: Descriptor {
                media_type: MediaType(LAYER.to_owned()),
                digest,
                size,
                platform: None,
                annotations: Default::default(),
            },
            diff_id: digest,
        };
        if !self.take(below, &plain).await? {
            return Err(Error::not_found(ObjectKind::Blob, digest.to_string()));
        }
        Ok(plain)
    }

    async fn fetch(&self, from: &Repository, layer: &LayerRef) -> Result<u64> {
        if layer.descriptor.size > MAX_BLOB {
            return Err(Error::invalid("a layer that is larger than anything that is fetched"));
        }
        let holder = self.held.holder().ok_or_else(ended)?;
        let ingest = self.images.parts.content.ingest(Some(&layer.diff_id), None).await?;
        let stream = from.registry.blob(&from.name, &layer.descriptor, 0).await?;
        let limit = layer.descriptor.size;
        let mut left = limit;
        // What is longer than it was said to be is not read to its end.
        let bounded = stream.map(move |piece| {
            let piece = piece?;
            left = left.checked_sub(piece.len() as u64).ok_or_else(|| longer_than(limit))?;
            Ok(piece)
        });
        on_thread(bounded.boxed(), move |inflow| {
            let info = plain(Uncompressed::unhashed(inflow)?, ingest)?;
            holder.blob(&info.0)?;
            Ok(info.1)
        })
        .await
    }

    /// Sends a cache: its layers first, and the manifest, under its tag, at the end.
    ///
    /// # Errors
    /// Those of the repository and of the stores.
    pub(crate) async fn send_cache(
        &self,
        to: &Repository,
        tag: &str,
        layers: &[LayerRef],
        config: &ManifestBlob,
        manifest: &ManifestBlob,
    ) -> Result<()> {
        let lease = self.held.lease().ok_or_else(ended)?;
        self.hold(vec![Node::blob(&config.descriptor.digest)]).await?;
        self.images.keep_manifest(config, &lease).await?;
        let progress = Progress::default();
        let delivery = Delivery {
            content: &self.images.parts.content,
            registry: Arc::clone(&to.registry),
            repository: &to.name,
            elsewhere: HashMap::new(),
            progress: &progress,
        };
        let mut blobs: Vec<Descriptor> = layers.iter().map(|layer| layer.descriptor.clone()).collect();
        blobs.push(config.descriptor.clone());
        delivery.blobs(blobs).await?;
        let key = ManifestKey::Tag(tag.to_owned());
        to.registry.put_manifest(&to.name, &key, manifest).await
    }
}

impl Repository {
    /// A directory that caches are in.
    ///
    /// # Errors
    /// `NotFound`, `Unsupported`, `UnsafeArchive`.
    pub(crate) async fn of_directory(dir: &Path) -> Result<Self> {
        Ok(Self {
            registry: Arc::new(LayoutRegistry::open(dir).await?),
            name: String::new(),
        })
    }

    /// A directory that caches go to, made if it is missing.
    ///
    /// # Errors
    /// `UnsafeArchive`, and what the file system says.
    pub(crate) async fn to_directory(dir: &Path) -> Result<Self> {
        Ok(Self {
            registry: Arc::new(LayoutTarget::open(dir).await?),
            name: String::new(),
        })
    }

    /// A manifest or an index.
    ///
    /// # Errors
    /// What the repository says; `DigestMismatch`.
    pub(crate) async fn manifest(&self, key: &ManifestKey) -> Result<ManifestBlob> {
        self.registry.manifest(&self.name, key).await
    }

    /// A small blob, checked.
    ///
    /// # Errors
    /// `DigestMismatch`; `InvalidArgument` for one that is too large; what the repository says.
    pub(crate) async fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        if descriptor.size > MAX_CONFIG {
            return Err(Error::invalid(format!("a document of {} bytes", descriptor.size)));
        }
        let mut stream = self.registry.blob(&self.name, descriptor, 0).await?;
        let mut bytes = Vec::new();
        while let Some(piece) = stream.next().await {
            bytes.extend_from_slice(&piece?);
            if bytes.len() as u64 > descriptor.size {
                return Err(longer_than(descriptor.size));
            }
        }
        let is = Digest::of(&bytes);
        if is != descriptor.digest {
            let message = format!("what was to be {} hashes to {is}", descriptor.digest);
            return Err(Error::new(ErrorKind::DigestMismatch, message));
        }
        Ok(bytes)
    }
}

/// Keeps what a layer unpacks to. The store refuses what is not what was expected. Blocking.
fn plain<R: std::io::BufRead>(mut from: Uncompressed<R>, mut ingest: Box<dyn Ingest>) -> Result<(Digest, u64)> {
    let most = Limits::default().stream_bytes;
    let mut buffer = vec![0; PIECE];
    let mut written = 0u64;
    loop {
        let length = from.read(&mut buffer).map_err(read_error)?;
        if length == 0 {
            break;
        }
        written += length as u64;
        if written > most {
            return Err(longer_than(most));
        }
        ingest.write(&buffer[..length])?;
    }
    let info = ingest.commit()?;
    Ok((info.digest, info.size))
}

fn longer_than(size: u64) -> Error {
    let message = format!("a blob of a build cache is longer than the {size} bytes that it may have");
    Error::new(ErrorKind::DigestMismatch, message)
}
