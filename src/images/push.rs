//! `push`: what a name stands for, to the registry that it says.
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

use super::index::Whole;
use super::local::LocalImages;
use super::lookup::by_name;
use super::pull::Ending;
use super::{PushRequest, Pushed, lookup};
use crate::error::{Error, Result};
use crate::progress::{Progress, ProgressEvent};
use crate::registry::layout::LayoutTarget;
use crate::registry::{BlobStream, Credentials, ManifestBlob, ManifestKey, Registry, Upload, UploadSource};
use crate::storage::content::ContentStore;
use crate::storage::files::blocking;
use crate::store::{ImageRecord, Lease, NamedImage, Node, Sign, Store};
use crate::types::{Descriptor, Digest, ImageSource, Platform, Reference};

/// Blobs that are sent at a time.
const AT_ONCE: usize = 4;
/// How much of a blob is read at a time.
const CHUNK: usize = 256 << 10;
/// Progress is told at least this many bytes apart.
const TOLD: u64 = 256 << 10;

/// A push on its way.
pub(super) struct Delivery<'a> {
    pub(super) content: &'a Arc<dyn ContentStore>,
    pub(super) registry: Arc<dyn Registry>,
    /// Empty for a place on disk.
    pub(super) repository: &'a str,
    /// Repositories of the same registry that are known to have had a blob.
    pub(super) elsewhere: HashMap<Digest, String>,
    pub(super) progress: &'a Progress,
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
        if let Some(ImageSource::DockerArchive { file, name }) = &request.to {
            return self.push_archive(request, file, name.as_ref(), progress).await;
        }
        if target_of(request).is_some() {
            self.pack_for_push(&request.name, request.platform.as_ref()).await?;
        }
        let (name, platform, owner) = (request.name.clone(), request.platform.clone(), self.parts.owner.clone());
        let target = target_of(request);
        let place = target.clone();
        let (images, elsewhere, lease) = self
            .parts
            .store
            .call(move |store| {
                let (images, lease) = held(store, &name, platform.as_ref(), |nodes| {
                    let lease = store.lease(&owner)?;
                    lease.add(nodes)?;
                    Ok(lease)
                })?;
                let elsewhere = match &place {
                    Some(place) => elsewhere(store, place, &images)?,
                    None => HashMap::new(),
                };
                Ok((images, elsewhere, lease))
            })
            .await?;
        let result = self.deliver(request, images, elsewhere, progress).await;
        self.parts.store.call(move |_| lease.release()).await?;
        let (pushed, whole) = result?;
        if let Some(target) = &target {
            self.name_pushed(target, &pushed, &whole).await;
        }
        let first = whole.images.into_iter().next();
        let record = first
            .map(|one| one.record)
            .ok_or_else(|| lookup::missing(&request.name.familiar()))?;
        self.tell("push", record.id, Some(&request.name)).await;
        Ok((pushed, record))
    }

    async fn destination(&self, request: &PushRequest) -> Result<Arc<dyn Registry>> {
        if let Some(ImageSource::OciLayout { dir, .. }) = &request.to {
            return Ok(Arc::new(LayoutTarget::open(dir).await?));
        }
        let target = target_of(request).unwrap_or_else(|| request.name.clone());
        let credentials = request.credentials.as_ref().unwrap_or(&Credentials::Anonymous);
        self.parts.registries.open(target.host(), credentials).await
    }

    /// The images now have a name by digest in that repository.
    async fn name_pushed(&self, target: &Reference, pushed: &Pushed, whole: &Whole) {
        let pinned = target.pinned(&pushed.manifest.digest);
        let named = match &whole.index {
            None => {
                let ids: Vec<_> = whole.images.iter().map(|one| one.record.id).collect();
                let tag = move |store: &Store| ids.iter().try_for_each(|id| store.tag(&pinned, id).map(drop));
                self.parts.store.call(tag).await
            }
            Some(index) => {
                let copy = Whole {
                    images: whole.images.clone(),
                    index: Some(index.clone()),
                };
                self.name_index(&pinned, copy).await
            }
        };
        if let Err(error) = named.or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) }) {
            tracing::warn!(error = %error.report(), "the pushed image got no name by digest");
        }
    }

    async fn deliver(
        &self,
        request: &PushRequest,
        images: Vec<NamedImage>,
        elsewhere: HashMap<Digest, String>,
        progress: &Progress,
    ) -> Result<(Pushed, Whole)> {
        let registry = self.destination(request).await?;
        let whole = self
            .whole(images, request.platform.as_ref(), &request.name.familiar())
            .await?;
        let mut manifests = Vec::new();
        for one in &whole.images {
            manifests.push(self.kept_manifest(&one.record.manifest).await?);
        }
        // The name goes to what comes last.
        manifests.extend(whole.index.clone());
        let Some(top) = manifests.pop() else {
            return Err(lookup::missing(&request.name.familiar()));
        };
        let key = key_of(request, &top)?;
        let target = target_of(request);
        let blobs = all_blobs(&whole.images);
        progress.report(ProgressEvent::Resolved {
            manifest: top.descriptor.digest,
            layers: whole.images.iter().map(|one| one.record.layers.len()).sum(),
            total_bytes: blobs.iter().fold(0u64, |sum, blob| sum.saturating_add(blob.size)),
        });
        let delivery = Delivery {
            content: &self.parts.content,
            registry,
            repository: target.as_ref().map_or("", Reference::repository),
            elsewhere,
            progress,
        };
        delivery.blobs(blobs).await?;
        for manifest in &manifests {
            let key = ManifestKey::Digest(manifest.descriptor.digest);
            delivery
                .registry
                .put_manifest(delivery.repository, &key, manifest)
                .await?;
        }
        delivery.registry.put_manifest(delivery.repository, &key, &top).await?;
        let pushed = Pushed {
            manifest: top.descriptor,
        };
        Ok((pushed, whole))
    }
}

/// The name in a registry that the images go to; none where they go to a place on disk.
fn target_of(request: &PushRequest) -> Option<Reference> {
    match &request.to {
        None => Some(request.name.clone()),
        Some(ImageSource::Registry(name)) => Some(name.clone()),
        Some(_) => None,
    }
}

/// Looks the images up and leases their blobs; looks again, since they may have gone in between. Blocking.
fn held(
    store: &Store,
    name: &Reference,
    platform: Option<&Platform>,
    lease: impl FnOnce(&[Node]) -> Result<Lease>,
) -> Result<(Vec<NamedImage>, Lease)> {
    let missing = || lookup::missing(&name.familiar());
    let found = by_name(store, name)?.ok_or_else(missing)?;
    let all = match found.name {
        Some(name) => store.images_by_name(&name)?,
        None => {
            let sign = Sign::of(&found.record);
            let record = found.record;
            vec![NamedImage { record, sign }]
        }
    };
    let images = lookup::fitting(all, platform, &name.familiar())?;
    let mut nodes = Vec::new();
    for one in &images {
        nodes.extend(one.record.needs());
        nodes.push(Node::blob(&one.sign.top));
    }
    let lease = lease(&nodes)?;
    for one in &images {
        store.image(&one.record.id)?.ok_or_else(missing)?;
    }
    Ok((images, lease))
}

/// For each blob another repository of the same registry that some image here says has it. Blocking.
fn elsewhere(store: &Store, name: &Reference, images: &[NamedImage]) -> Result<HashMap<Digest, String>> {
    let wanted: Vec<Digest> = all_blobs(images).iter().map(|blob| blob.digest).collect();
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

/// What goes to the registry for several images, each once.
pub(super) fn all_blobs(images: &[NamedImage]) -> Vec<Descriptor> {
    let mut out: Vec<Descriptor> = Vec::new();
    for blob in images.iter().flat_map(|one| blobs(&one.record)) {
        if !out.iter().any(|known| known.digest == blob.digest) {
            out.push(blob);
        }
    }
    out
}

fn key_of(request: &PushRequest, manifest: &ManifestBlob) -> Result<ManifestKey> {
    let name = match (&request.to, target_of(request)) {
        (Some(ImageSource::OciLayout { name, .. }), _) => {
            let name = name.clone().unwrap_or_else(|| request.name.to_string());
            return Ok(ManifestKey::Tag(name));
        }
        (_, target) => target.unwrap_or_else(|| request.name.clone()),
    };
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
    /// Sends blobs, several at a time.
    pub(super) async fn blobs(&self, blobs: Vec<Descriptor>) -> Result<()> {
        let sent = stream::iter(blobs)
            .map(|blob| self.blob(blob))
            .buffer_unordered(AT_ONCE);
        sent.try_collect().await
    }

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
