//! `pull`: fetches an image and unpacks it.
//!
//! Everything that is fetched is leased before it is looked for, so that a removal beside the pull cannot take it away in
//! between. The record comes last.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::local::{LocalImages, now_ns};
use super::lookup::by_name;
use super::manifest;
use super::origin::{Chosen, Origin};
use super::{ImageConfig, ImageInfo, Pull, PullRequest};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::progress::{Progress, ProgressEvent};
use crate::registry::ManifestBlob;
use crate::storage::unpack::LayerRef;
use crate::store::{ImageRecord, LayerRecord, Lease, Node, NodeKind, Store};
use crate::types::{ImageId, ImageSource, Platform, Reference};

impl LocalImages {
    pub(super) async fn pull_and_tell(&self, request: PullRequest, progress: Progress) -> Result<ImageInfo> {
        let mut ending = Ending {
            progress: Some(progress.clone()),
        };
        let result = self.pull_unless_here(&request, &progress).await;
        ending.tell(match &result {
            Ok(info) => ProgressEvent::Done { image: info.id },
            Err(error) => ProgressEvent::Failed {
                message: error.report(),
            },
        });
        result
    }

    async fn pull_unless_here(&self, request: &PullRequest, progress: &Progress) -> Result<ImageInfo> {
        if let ImageSource::Registry(reference) = &request.source
            && request.policy != Pull::Always
        {
            if let Some(record) = self.here(reference, request.platform.as_ref()).await? {
                return self.info_of(record).await;
            }
            if request.policy == Pull::Never {
                return Err(not_here(reference, request.platform.as_ref()));
            }
        }
        let origin = Origin::open(request, self.parts.registries.as_ref()).await?;
        self.fetch(&origin, request.platform.as_ref(), progress).await
    }

    /// The image of that name, if it is here for the platform.
    async fn here(&self, name: &Reference, platform: Option<&Platform>) -> Result<Option<ImageRecord>> {
        let name = name.clone();
        let found = self.parts.store.call(move |store| by_name(store, &name)).await?;
        let fits = |record: &ImageRecord| platform.is_none_or(|platform| platform.accepts(&record.platform));
        Ok(found.map(|found| found.record).filter(fits))
    }

    async fn fetch(&self, origin: &Origin, platform: Option<&Platform>, progress: &Progress) -> Result<ImageInfo> {
        let chosen = origin.choose(&platform.cloned().unwrap_or_else(Platform::host)).await?;
        let owner = self.parts.owner.clone();
        let lease = Arc::new(self.parts.store.call(move |store| store.lease(&owner)).await?);
        let mut held = blobs_of(&chosen);
        let result = self
            .fetch_leased(origin, &chosen, platform, &lease, &mut held, progress)
            .await;
        let left = match &result {
            Ok(info) => unneeded(held, info),
            Err(error) if is_final(error) => held,
            Err(_) => Vec::new(),
        };
        if let Err(error) = self.let_go(lease, left).await {
            // The image is here, or the pull has failed for a reason that says more: whoever clears up next has this too.
            tracing::warn!(error = error.report(), "what a pull held could not be let go");
        }
        result
    }

    async fn fetch_leased(
        &self,
        origin: &Origin,
        chosen: &Chosen,
        platform: Option<&Platform>,
        lease: &Arc<Lease>,
        held: &mut Vec<Node>,
        progress: &Progress,
    ) -> Result<ImageInfo> {
        self.hold(lease, held.clone()).await?;
        progress.report(resolved(chosen));
        self.keep_manifest(&chosen.blob).await?;
        let unpacker = &self.parts.unpacker;
        let config = unpacker
            .blob(&chosen.manifest.config, origin.blobs(), manifest::MAX_CONFIG, progress)
            .await?;
        let config = ImageConfig::parse(&config)?;
        check_platform(&config, platform, &origin.shown)?;
        let layers = manifest::layers(&chosen.manifest, &config)?;
        let mut record = record_of(chosen, &config, &layers);
        let snapshots: Vec<Node> = record.chain_ids().iter().map(Node::snapshot).collect();
        self.hold(lease, snapshots.clone()).await?;
        held.splice(0..0, snapshots);
        unpacker.image(&layers, origin.blobs(), progress).await?;
        record.size = self.size_of(&record).await?;
        unpacker.sync().await?;
        let id = record.id;
        let names = origin.names.clone();
        let record = self.parts.store.call(move |store| put(store, record, &names)).await?;
        self.tell("pull", id, origin.names.first()).await;
        self.info_of(record).await
    }

    async fn let_go(&self, lease: Arc<Lease>, unused: Vec<Node>) -> Result<()> {
        if let Ok(lease) = Arc::try_unwrap(lease) {
            self.parts.store.call(move |_| lease.release()).await?;
        }
        self.remove_unused(unused).await.map(drop)
    }

    async fn hold(&self, lease: &Arc<Lease>, nodes: Vec<Node>) -> Result<()> {
        let lease = Arc::clone(lease);
        self.parts.store.call(move |_| lease.add(&nodes)).await
    }

    /// Puts a manifest, which is in memory as a whole, into the content store.
    async fn keep_manifest(&self, blob: &ManifestBlob) -> Result<()> {
        let descriptor = &blob.descriptor;
        if self.parts.content.info(&descriptor.digest).await?.is_some() {
            return Ok(());
        }
        let mut ingest = self
            .parts
            .content
            .ingest(Some(&descriptor.digest), Some(descriptor.size))
            .await?;
        let bytes = blob.bytes.clone();
        let written = tokio::task::spawn_blocking(move || {
            ingest.write(&bytes)?;
            ingest.commit().map(drop)
        });
        written
            .await
            .map_err(|error| Error::internal("writing a manifest ended early").with_source(error))?
    }

    /// What the layers take on disk. A layer that is there twice counts once.
    async fn size_of(&self, record: &ImageRecord) -> Result<u64> {
        let mut total = 0u64;
        for chain in record.chain_ids() {
            total = total.saturating_add(self.parts.snapshotter.layer_usage(&chain).await?.bytes);
        }
        Ok(total)
    }
}

/// Writes the record and points the names at it. An image that is here already stays as it is, with the blobs it came
/// with: the same config means the same layers, however they were compressed elsewhere. Blocking.
fn put(store: &Store, record: ImageRecord, names: &[Reference]) -> Result<ImageRecord> {
    if let Some(old) = store.image(&record.id)?
        && point_all(store, names, &record.id)?
    {
        return Ok(old);
    }
    store.put_image(&record, names)?;
    Ok(record)
}

/// Whether the image was there to point all the names at.
fn point_all(store: &Store, names: &[Reference], id: &ImageId) -> Result<bool> {
    for name in names {
        match store.tag(name, id) {
            Err(error) if error.is_not_found() => return Ok(false),
            other => other?,
        };
    }
    Ok(true)
}

/// What was held and is not needed, since the image was here with other blobs.
fn unneeded(mut held: Vec<Node>, info: &ImageInfo) -> Vec<Node> {
    let blobs = [&info.manifest.digest, &info.id]
        .into_iter()
        .chain(info.layers.iter().map(|layer| &layer.descriptor.digest));
    let needed: HashSet<Node> = blobs.map(Node::blob).collect();
    held.retain(|node| node.kind == NodeKind::Blob && !needed.contains(node));
    held
}

fn blobs_of(chosen: &Chosen) -> Vec<Node> {
    let descriptors = [&chosen.blob.descriptor, &chosen.manifest.config]
        .into_iter()
        .chain(&chosen.manifest.layers);
    descriptors.map(|descriptor| Node::blob(&descriptor.digest)).collect()
}

fn record_of(chosen: &Chosen, config: &ImageConfig, layers: &[LayerRef]) -> ImageRecord {
    let layer = |layer: &LayerRef| LayerRecord {
        descriptor: layer.descriptor.clone(),
        diff_id: layer.diff_id,
    };
    let mut manifest = chosen.blob.descriptor.clone();
    // The name in a layout is no property of the image.
    manifest.annotations.clear();
    ImageRecord {
        id: chosen.manifest.config.digest,
        manifest,
        config: chosen.manifest.config.clone(),
        layers: layers.iter().map(layer).collect(),
        platform: config.platform(),
        created: config.created.clone(),
        size: 0,
        pulled_at_ns: now_ns(),
    }
}

fn resolved(chosen: &Chosen) -> ProgressEvent {
    let blobs = [&chosen.manifest.config].into_iter().chain(&chosen.manifest.layers);
    // A blob that is named twice is fetched once.
    let sizes: BTreeMap<_, u64> = blobs.map(|descriptor| (descriptor.digest, descriptor.size)).collect();
    let total_bytes = sizes.values().fold(0u64, |sum, size| sum.saturating_add(*size));
    ProgressEvent::Resolved {
        manifest: chosen.blob.descriptor.digest,
        layers: chosen.manifest.layers.len(),
        total_bytes,
    }
}

/// The config has the last word on what an image runs on.
fn check_platform(config: &ImageConfig, wanted: Option<&Platform>, shown: &str) -> Result<()> {
    let is = config.platform();
    match wanted {
        Some(wanted) if !wanted.accepts(&is) => {
            let message = format!("{shown} is not there for {wanted}; available platforms: {is}");
            Err(Error::new(ErrorKind::NotFound, message).with_object(ObjectKind::Image, shown))
        }
        _ => Ok(()),
    }
}

fn not_here(reference: &Reference, platform: Option<&Platform>) -> Error {
    let name = reference.familiar();
    let platform = platform.map(|platform| format!(" for {platform}")).unwrap_or_default();
    let message = format!("the image {name} is not here{platform}, and the pull policy is never");
    Error::new(ErrorKind::NotFound, message).with_object(ObjectKind::Image, name)
}

/// Whether trying again cannot help, so that what was fetched is of no use.
fn is_final(error: &Error) -> bool {
    use ErrorKind::{DigestMismatch, InvalidArgument, NotFound, UnsafeArchive, Unsupported};
    matches!(
        error.kind(),
        DigestMismatch | InvalidArgument | NotFound | UnsafeArchive | Unsupported { .. }
    )
}

/// Sees to it that progress ends with one event, even where the pull is dropped.
struct Ending {
    progress: Option<Progress>,
}

impl Ending {
    fn tell(&mut self, event: ProgressEvent) {
        if let Some(progress) = self.progress.take() {
            progress.report(event);
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.tell(ProgressEvent::Failed {
            message: "cancelled".to_owned(),
        });
    }
}
