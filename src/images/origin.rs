//! Where an image comes from: an opened source, and what it has for a platform.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt as _;

use super::manifest::{self, Document, Manifest};
use super::resolve::choose;
use super::{Distribution, ImageConfig, PullRequest};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::registry::layout::{LayoutRegistry, REF_NAME};
use crate::registry::{BlobStream, Credentials, ManifestBlob, ManifestKey, Registry, RegistryProvider};
use crate::storage::unpack::BlobSource;
use crate::types::{Descriptor, Digest, ImageSource, Platform, Reference};

/// Indexes in indexes: how deep a platform is looked for.
const MAX_DEPTH: usize = 4;

/// An opened source with its top manifest or index.
#[derive(Debug)]
pub(super) struct Origin {
    source: Arc<Source>,
    top: ManifestBlob,
    /// The names that the image gets.
    pub(super) names: Vec<Reference>,
    /// What to call it in messages.
    pub(super) shown: String,
}

/// The image of one platform.
#[derive(Debug)]
pub(super) struct Chosen {
    /// The manifest as it was served.
    pub(super) blob: ManifestBlob,
    /// The manifest, read.
    pub(super) manifest: Manifest,
    /// The index that it was chosen from, the outermost.
    pub(super) index: Option<ManifestBlob>,
    /// The platform that the index gives it.
    pub(super) platform: Option<Platform>,
}

impl Origin {
    pub(super) async fn open(request: &PullRequest, registries: &dyn RegistryProvider) -> Result<Self> {
        match &request.source {
            ImageSource::Registry(reference) => {
                let credentials = request.credentials.as_ref().unwrap_or(&Credentials::Anonymous);
                let registry = registries.open(reference.host(), credentials).await?;
                let source = Source {
                    registry,
                    repository: reference.repository().to_owned(),
                };
                let top = source.manifest(&key_of(reference)).await?;
                let names = names_of(reference, &top.descriptor.digest);
                Ok(Self {
                    source: Arc::new(source),
                    top,
                    names,
                    shown: reference.familiar(),
                })
            }
            ImageSource::DockerArchive { .. } => Err(Error::internal("an archive is loaded, not opened as a source")),
            ImageSource::OciLayout { dir, name } => {
                let layout = LayoutRegistry::open(dir).await?;
                let top = layout.select(name.as_deref()).await?;
                let names = top
                    .descriptor
                    .annotations
                    .get(REF_NAME)
                    .and_then(|name| name.parse().ok());
                let source = Source {
                    registry: Arc::new(layout),
                    repository: String::new(),
                };
                Ok(Self {
                    source: Arc::new(source),
                    top,
                    names: names.into_iter().collect(),
                    shown: request.source.to_string(),
                })
            }
        }
    }

    /// The image for a platform.
    pub(super) async fn choose(&self, wanted: &Platform) -> Result<Chosen> {
        let mut blob = self.top.clone();
        let (mut index, mut platform) = (None, None);
        for _ in 0..MAX_DEPTH {
            match manifest::parse(&blob)? {
                Document::Image(manifest) => {
                    return Ok(Chosen {
                        blob,
                        manifest,
                        index,
                        platform,
                    });
                }
                Document::Index(entries) => {
                    let entry = choose(&entries, wanted, &self.shown)?;
                    index = Some(self.top.clone());
                    platform = entry.platform.clone();
                    blob = self.source.manifest(&ManifestKey::Digest(entry.digest)).await?;
                }
            }
        }
        let message = format!("{} has indexes nested more than {MAX_DEPTH} deep", self.shown);
        Err(Error::new(ErrorKind::InvalidArgument, message).with_object(ObjectKind::Image, self.shown.clone()))
    }

    /// What is there, for whom.
    pub(super) async fn distribution(&self) -> Result<Distribution> {
        let platforms = match manifest::parse(&self.top)? {
            Document::Index(entries) => entries.into_iter().filter_map(|entry| entry.platform).collect(),
            Document::Image(manifest) => {
                let config = self.source.small(&manifest.config).await?;
                vec![ImageConfig::parse(&config)?.platform()]
            }
        };
        Ok(Distribution::new(self.top.descriptor.clone(), platforms))
    }

    /// Where its blobs come from.
    pub(super) fn blobs(&self) -> Arc<dyn BlobSource> {
        Arc::clone(&self.source) as Arc<dyn BlobSource>
    }
}

/// A repository of a registry.
#[derive(Debug)]
struct Source {
    registry: Arc<dyn Registry>,
    repository: String,
}

impl Source {
    /// Backends check digests; one that forgets to must not be able to smuggle a manifest in.
    async fn manifest(&self, key: &ManifestKey) -> Result<ManifestBlob> {
        let blob = self.registry.manifest(&self.repository, key).await?;
        let is = Digest::of(&blob.bytes);
        let wanted = match key {
            ManifestKey::Digest(digest) => *digest,
            ManifestKey::Tag(_) => blob.descriptor.digest,
        };
        if is != wanted || blob.descriptor.digest != is {
            let message = format!("a manifest hashes to {is}, not to {wanted}");
            return Err(
                Error::new(ErrorKind::DigestMismatch, message).with_object(ObjectKind::Manifest, wanted.to_string())
            );
        }
        Ok(blob)
    }

    /// The bytes of a blob whose size was found to be sane, as it is said to be.
    async fn small(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let mut stream = self.registry.blob(&self.repository, descriptor, 0).await?;
        let mut bytes = Vec::new();
        while let Some(piece) = stream.next().await {
            bytes.extend_from_slice(&piece?);
            if bytes.len() as u64 > descriptor.size {
                break;
            }
        }
        if bytes.len() as u64 == descriptor.size && Digest::of(&bytes) == descriptor.digest {
            return Ok(bytes);
        }
        let message = format!("a blob is not the {} bytes that its manifest says", descriptor.size);
        Err(Error::new(ErrorKind::DigestMismatch, message).with_object(ObjectKind::Blob, descriptor.digest.to_string()))
    }
}

#[async_trait]
impl BlobSource for Source {
    async fn open(&self, descriptor: &Descriptor, offset: u64) -> Result<BlobStream> {
        self.registry.blob(&self.repository, descriptor, offset).await
    }
}

/// A digest counts for more than a tag beside it.
fn key_of(reference: &Reference) -> ManifestKey {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => ManifestKey::Digest(digest),
        (None, tag) => ManifestKey::Tag(tag.unwrap_or("latest").to_owned()),
    }
}

/// The tag, unless a digest was asked for, and the repository with the digest of what was found.
fn names_of(reference: &Reference, found: &Digest) -> Vec<Reference> {
    let tag = reference.digest().is_none().then(|| reference.clone());
    tag.into_iter().chain([reference.pinned(found)]).collect()
}
