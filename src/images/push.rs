//! `push`: an image to the registry that its name says.
//!
//! Blobs go first, several at a time, then the manifest, so that a registry never has a manifest without its blobs. They go
//! as the very bytes they came as, so the digests stay, and a registry that has them is told nothing but the manifest.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::local::LocalImages;
use super::lookup::by_name;
use super::pull::Ending;
use super::{PushRequest, Pushed, lookup};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::progress::{Progress, ProgressEvent};
use crate::registry::{
    BlobStream, Credentials, MAX_MANIFEST, ManifestBlob, ManifestKey, Registry, Upload, UploadSource,
};
use crate::storage::content::ContentStore;
use crate::storage::files::blocking;
use crate::store::{ImageRecord, Lease, Node, Store};
use crate::types::{Descriptor, Digest, Platform, Reference};

/// Blobs that are sent at a time.
const AT_ONCE: usize = 4;
/// How much of a blob is read at a time.
const CHUNK: usize = 256 << 10;
/// Progress is told at least this many bytes apart.
const TOLD: u64 = 256 << 10;

/// A push on its way.
struct Delivery<'a> {
    content: &'a Arc<dyn ContentStore>,
    registry: Arc<dyn Registry>,
    repository: &'a str,
    /// Repositories of the same registry that are known to have had a blob.
    elsewhere: HashMap<Digest, String>,
    progress: &'a Progress,
}

impl LocalImages {
    pub(super) async fn push_and_tell(&self, request: PushRequest, progress: Progress) -> Result<Pushed> {
        let mut ending = Ending::new(&progress);
        let result = self.push_named(&request, &progress).await;
        ending.tell(match &result {
            Ok((_, record)) => ProgressEvent::Done { image: record.id },
            Err(error) => ProgressEvent::Failed {
                message: error.report(),
            },
        });
        result.map(|(pushed, _)| pushed)
    }

    async fn push_named(&self, request: &PushRequest, progress: &Progress) -> Result<(Pushed, ImageRecord)> {
        let (name, platform, owner) = (request.name.clone(), request.platform.clone(), self.parts.owner.clone());
        let (record, elsewhere, lease) = self
            .parts
            .store
            .call(move |store| {
                let (record, lease) = held(store, &name, platform.as_ref(), |nodes| {
                    let lease = store.lease(&owner)?;
                    lease.add(nodes)?;
                    Ok(lease)
                })?;
                let elsewhere = elsewhere(store, &name, &record)?;
                Ok((record, elsewhere, lease))
            })
            .await?;
        let result = self.deliver(request, &record, elsewhere, progress).await;
        self.parts.store.call(move |_| lease.release()).await?;
        let pushed = result?;
        // The image now has a name by digest in that repository.
        let (pinned, id) = (request.name.pinned(&pushed.manifest.digest), record.id);
        let named = self.parts.store.call(move |store| store.tag(&pinned, &id)).await;
        if let Err(error) = named
            .map(drop)
            .or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })
        {
            tracing::warn!(error = %error.report(), "the pushed image got no name by digest");
        }
        self.tell("push", record.id, Some(&request.name)).await;
        Ok((pushed, record))
    }

    async fn deliver(
        &self,
        request: &PushRequest,
        record: &ImageRecord,
        elsewhere: HashMap<Digest, String>,
        progress: &Progress,
    ) -> Result<Pushed> {
        let credentials = request.credentials.as_ref().unwrap_or(&Credentials::Anonymous);
        let registry = self.parts.registries.open(request.name.host(), credentials).await?;
        let manifest = self.manifest_of(record).await?;
        let blobs = blobs(record);
        progress.report(ProgressEvent::Resolved {
            manifest: manifest.descriptor.digest,
            layers: record.layers.len(),
            total_bytes: blobs.iter().fold(0u64, |sum, blob| sum.saturating_add(blob.size)),
        });
        let delivery = Delivery {
            content: &self.parts.content,
            registry,
            repository: request.name.repository(),
            elsewhere,
            progress,
        };
        let sent = stream::iter(blobs)
            .map(|blob| delivery.blob(blob))
            .buffer_unordered(AT_ONCE);
        sent.try_collect::<()>().await?;
        let key = key_of(&request.name, &manifest)?;
        delivery
            .registry
            .put_manifest(delivery.repository, &key, &manifest)
            .await?;
        Ok(Pushed {
            manifest: manifest.descriptor,
        })
    }

    /// The manifest as it came, or as it was made here.
    async fn manifest_of(&self, record: &ImageRecord) -> Result<ManifestBlob> {
        let digest = record.manifest.digest;
        let file = self.parts.content.open(&digest).await?;
        let bytes = blocking(move || {
            let mut bytes = Vec::new();
            file.take(MAX_MANIFEST + 1)
                .read_to_end(&mut bytes)
                .map_err(|error| Error::os("read a manifest", error))?;
            Ok(bytes)
        })
        .await?;
        if Digest::of(&bytes) != digest {
            let message = format!(
                "the manifest {} in the content store is damaged: pull the image again",
                digest.short()
            );
            return Err(Error::new(ErrorKind::Corrupt, message).with_object(ObjectKind::Manifest, digest.to_string()));
        }
        Ok(ManifestBlob {
            descriptor: record.manifest.clone(),
            bytes: bytes.into(),
        })
    }
}

/// Looks the image up and leases its blobs; looks again, since it may have gone in between. Blocking.
fn held(
    store: &Store,
    name: &Reference,
    platform: Option<&Platform>,
    lease: impl FnOnce(&[Node]) -> Result<Lease>,
) -> Result<(ImageRecord, Lease)> {
    let missing = || lookup::missing(&name.familiar());
    let record = by_name(store, name)?.ok_or_else(missing)?.record;
    if let Some(platform) = platform.filter(|platform| !platform.accepts(&record.platform)) {
        let message = format!(
            "{} is not here for {platform}; available platforms: {}",
            name.familiar(),
            record.platform
        );
        return Err(Error::new(ErrorKind::NotFound, message).with_object(ObjectKind::Image, name.familiar()));
    }
    let lease = lease(&record.needs())?;
    store.image(&record.id)?.ok_or_else(missing)?;
    Ok((record, lease))
}

/// For each blob another repository of the same registry that some image here says has it. Blocking.
fn elsewhere(store: &Store, name: &Reference, record: &ImageRecord) -> Result<HashMap<Digest, String>> {
    let wanted: Vec<Digest> = blobs(record).iter().map(|blob| blob.digest).collect();
    let mut out = HashMap::new();
    for entry in store.images()? {
        // A name by digest is given by a pull or a push, so the registry had it; a tag may never have been there.
        let other = entry
            .digests
            .iter()
            .find(|other| other.host() == name.host() && other.repository() != name.repository());
        let Some(other) = other else { continue };
        for blob in blobs(&entry.record) {
            if wanted.contains(&blob.digest) {
                out.entry(blob.digest).or_insert_with(|| other.repository().to_owned());
            }
        }
    }
    Ok(out)
}

/// What goes to the registry beside the manifest, each once. Layers that may not be distributed stay where they came from.
fn blobs(record: &ImageRecord) -> Vec<Descriptor> {
    let layers = record.layers.iter().map(|layer| &layer.descriptor);
    let restricted = |blob: &&Descriptor| {
        let media_type = blob.media_type.0.as_str();
        media_type.contains(".nondistributable.") || media_type.contains(".foreign.")
    };
    let mut out: Vec<Descriptor> = Vec::new();
    for blob in layers.filter(|blob| !restricted(blob)).chain([&record.config]) {
        if !out.iter().any(|known| known.digest == blob.digest) {
            out.push(blob.clone());
        }
    }
    out
}

fn key_of(name: &Reference, manifest: &ManifestBlob) -> Result<ManifestKey> {
    match (name.digest(), name.tag()) {
        (Some(digest), _) if digest == manifest.descriptor.digest => Ok(ManifestKey::Digest(digest)),
        (Some(_), _) => Err(Error::invalid(format!(
            "cannot push {}: the image here has the manifest {}; push it by a tag",
            name.familiar(),
            manifest.descriptor.digest
        ))),
        (None, tag) => Ok(ManifestKey::Tag(tag.unwrap_or("latest").to_owned())),
    }
}

impl Delivery<'_> {
    async fn blob(&self, blob: Descriptor) -> Result<()> {
        let sent = self.blob_unless_there(&blob).await;
        sent.map_err(|error| error.context(format!("push blob {}", blob.digest)))
    }

    async fn blob_unless_there(&self, blob: &Descriptor) -> Result<()> {
        if self.registry.has_blob(self.repository, blob).await? || self.mounted(blob).await? {
            let Descriptor { digest, size, .. } = *blob;
            self.progress.report(ProgressEvent::Exists { digest, size });
            return Ok(());
        }
        let teller = Arc::new(Teller::new(self.progress.clone(), blob));
        let told = Arc::clone(&teller);
        let upload = Upload {
            source: Arc::new(Kept {
                content: Arc::clone(self.content),
                digest: blob.digest,
            }),
            reached: Arc::new(move |position| told.reached(position)),
        };
        self.registry.upload(self.repository, blob, upload).await?;
        teller.reached(blob.size);
        Ok(())
    }

    async fn mounted(&self, blob: &Descriptor) -> Result<bool> {
        match self.elsewhere.get(&blob.digest) {
            Some(from) => self.registry.mount_blob(self.repository, blob, from).await,
            None => Ok(false),
        }
    }
}

/// Tells of bytes once, however often they are sent.
struct Teller {
    progress: Progress,
    digest: Digest,
    size: u64,
    told: AtomicU64,
    /// Events of one blob come in order.
    turn: Mutex<()>,
}

impl Teller {
    fn new(progress: Progress, blob: &Descriptor) -> Self {
        Self {
            progress,
            digest: blob.digest,
            size: blob.size,
            told: AtomicU64::new(0),
            turn: Mutex::default(),
        }
    }

    fn reached(&self, position: u64) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let told = self.told.load(Ordering::Acquire);
        let position = position.min(self.size);
        let bytes = position.saturating_sub(told);
        if bytes == 0 || bytes < TOLD && position < self.size {
            return;
        }
        self.told.store(position, Ordering::Release);
        self.progress.report(ProgressEvent::Uploaded {
            digest: self.digest,
            bytes,
            size: self.size,
        });
    }
}

/// A blob of the content store.
#[derive(Debug)]
struct Kept {
    content: Arc<dyn ContentStore>,
    digest: Digest,
}

#[async_trait]
impl UploadSource for Kept {
    async fn open(&self, offset: u64) -> Result<BlobStream> {
        let mut file = self.content.open(&self.digest).await?;
        let file = blocking(move || {
            file.seek(SeekFrom::Start(offset))
                .map_err(|error| Error::os("seek in a blob", error))?;
            Ok(file)
        })
        .await?;
        let next = |mut file: std::fs::File| async move {
            blocking(move || {
                let mut bytes = Vec::with_capacity(CHUNK);
                (&mut file)
                    .take(CHUNK as u64)
                    .read_to_end(&mut bytes)
                    .map_err(|error| Error::os("read a blob", error))?;
                Ok((!bytes.is_empty()).then(|| (Bytes::from(bytes), file)))
            })
            .await
        };
        Ok(stream::try_unfold(file, next).boxed())
    }
}
