//! What a pull, a load and an import end with: blobs become layers, and layers an image with its names.
//!
//! The record comes last, after its blobs have reached the disk. Its layers need not have: should the power go first, they
//! are made again from the blobs (`restore`).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use super::local::{LocalImages, now_ns};
use super::manifest;
use super::origin::Chosen;
use super::{ImageConfig, ImageInfo};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::progress::{Progress, ProgressEvent};
use crate::registry::ManifestBlob;
use crate::storage::files::blocking;
use crate::storage::unpack::{BlobBytes, BlobSource, Given, LayerRef, Offers};
use crate::store::{ImageRecord, LayerRecord, Lease, Node, Sign, Store};
use crate::sys::blocking::onto_pool;
use crate::types::{Descriptor, Digest, ImageId, Platform, Reference};

/// An image about to be here.
pub(super) struct Arrival<'a> {
    /// Its manifest.
    pub(super) chosen: &'a Chosen,
    /// Where blobs come from that are not here.
    pub(super) source: Arc<dyn BlobSource>,
    /// Layers that were unpacked while their blobs came in.
    pub(super) offers: Option<Offers>,
    /// Where all its blobs are here already: its layers that were written a moment ago, by this process.
    pub(super) fresh: Option<Vec<Digest>>,
    /// The names it gets.
    pub(super) names: &'a [Reference],
    /// What to call it in messages.
    pub(super) shown: &'a str,
    /// The platform it must be for, if any.
    pub(super) platform: Option<&'a Platform>,
    /// The verb, for the event.
    pub(super) action: &'static str,
}

/// A source that holds a lease. Whoever unpacks has it to its end, also where the caller went away before: what it puts in
/// place is then seen by whoever waits for the lease, and taken away again.
#[derive(Debug)]
struct Leased {
    source: Arc<dyn BlobSource>,
    _lease: Arc<Lease>,
}

#[async_trait]
impl BlobSource for Leased {
    async fn open(&self, descriptor: &Descriptor, offset: u64) -> Result<BlobBytes> {
        self.source.open(descriptor, offset).await
    }
}

impl LocalImages {
    /// Makes it an image. Its blobs are leased with `lease`, and are in `held` with whatever else was leased for it.
    pub(super) fn install<'a>(
        &'a self,
        arrival: &'a Arrival<'_>,
        lease: &'a Arc<Lease>,
        held: &'a mut Vec<Node>,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Result<ImageInfo>> {
        Box::pin(async move {
            let chosen = arrival.chosen;
            self.hold(lease, held.clone()).await?;
            progress.report(resolved(chosen));
            self.keep_manifest(&chosen.blob, lease).await?;
            if let Some(index) = &chosen.index {
                self.keep_manifest(index, lease).await?;
            }
            let unpacker = &self.parts.unpacker;
            let source = || -> Arc<dyn BlobSource> {
                Arc::new(Leased {
                    source: Arc::clone(&arrival.source),
                    _lease: Arc::clone(lease),
                })
            };
            let config = unpacker
                .blob(&chosen.manifest.config, source(), manifest::MAX_CONFIG, progress)
                .await?;
            let config = ImageConfig::parse(&config)?;
            check_platform(&config, arrival.platform, arrival.shown)?;
            let layers = manifest::layers(&chosen.manifest, &config)?;
            let mut record = record_of(chosen, &config, &layers);
            let snapshots: Vec<Node> = record.chain_ids().iter().map(Node::snapshot).collect();
            self.hold(lease, snapshots.clone()).await?;
            held.splice(0..0, snapshots);
            let given = Given {
                unwanted: self.blobs_not_kept(&record).await?,
                offers: arrival.offers.clone(),
                fresh: arrival.fresh.iter().flatten().copied().collect(),
            };
            let unpacking = unpacker.image_given(&layers, &given, source(), progress);
            let mut durable = blobs_of(&record);
            durable.extend(chosen.index.iter().map(|index| index.descriptor.digest));
            if arrival.fresh.is_some() {
                // What unpacking writes need not be on the disk, and what must be is complete: neither waits for the other.
                let (unpacked, synced) = futures_util::join!(unpacking, unpacker.sync(&durable));
                unpacked.and(synced)?;
            } else {
                unpacking.await?;
                unpacker.sync(&durable).await?;
            }
            onto_pool().await;
            record.size = self.size_of(&record).await?;
            let id = record.id;
            let names = arrival.names.to_vec();
            let sign = chosen.index.as_ref().map(|index| Sign {
                platform: chosen.platform.clone().unwrap_or_else(|| record.platform.clone()),
                top: index.descriptor.digest,
            });
            // Written even if the caller goes away now: until then nobody may take the blobs for unneeded.
            let kept = Arc::clone(lease);
            let write = move |store: &Store| {
                let written = put(store, record, &names, sign.as_ref());
                drop(kept);
                written
            };
            let (record, freed) = self.parts.store.call(write).await?;
            self.remove_unused(freed).await?;
            self.tell(arrival.action, id, arrival.names.first()).await;
            self.info_of(record).await
        })
    }

    pub(super) async fn hold(&self, lease: &Arc<Lease>, nodes: Vec<Node>) -> Result<()> {
        let lease = Arc::clone(lease);
        self.parts.store.call(move |_| lease.add(&nodes)).await
    }

    /// Puts a manifest, which is in memory as a whole, into the content store. The lease is held until it is there, whatever
    /// becomes of the caller: whoever waits for the lease finds it then.
    pub(super) async fn keep_manifest(&self, blob: &ManifestBlob, lease: &Arc<Lease>) -> Result<()> {
        let descriptor = &blob.descriptor;
        if self.parts.content.info(&descriptor.digest).await?.is_some() {
            return Ok(());
        }
        let mut ingest = self
            .parts
            .content
            .ingest(Some(&descriptor.digest), Some(descriptor.size))
            .await?;
        let (bytes, kept) = (blob.bytes.clone(), Arc::clone(lease));
        blocking(move || {
            ingest.write(&bytes)?;
            let committed = ingest.commit().map(drop);
            drop(kept);
            committed
        })
        .await
    }

    /// Blobs that need not be fetched for their own sake, since the image is here, and stays as it came, with others that
    /// unpack to the same.
    async fn blobs_not_kept(&self, record: &ImageRecord) -> Result<HashSet<Digest>> {
        let id = record.id;
        let Some(known) = self.parts.store.call(move |store| store.image(&id)).await? else {
            return Ok(HashSet::new());
        };
        let kept: HashSet<Digest> = known.layers.iter().map(|layer| layer.descriptor.digest).collect();
        let blobs = record.layers.iter().map(|layer| layer.descriptor.digest);
        Ok(blobs.filter(|blob| !kept.contains(blob)).collect())
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
///
/// Returns indexes that nobody may need any more, too.
fn put(
    store: &Store,
    record: ImageRecord,
    names: &[Reference],
    sign: Option<&Sign>,
) -> Result<(ImageRecord, Vec<Node>)> {
    if let Some(old) = store.image(&record.id)?
        && let Some(freed) = point_all(store, names, &record.id, sign)?
    {
        return Ok((old, freed));
    }
    let sign = sign.cloned().unwrap_or_else(|| Sign::of(&record));
    let names: Vec<(Reference, Sign)> = names.iter().map(|name| (name.clone(), sign.clone())).collect();
    let freed = store.put_image_as(&record, &names)?;
    Ok((record, freed))
}

/// Points all the names at the image; nothing where it is not there.
fn point_all(store: &Store, names: &[Reference], id: &ImageId, sign: Option<&Sign>) -> Result<Option<Vec<Node>>> {
    let mut freed = Vec::new();
    for name in names {
        match store.tag_as(name, id, sign) {
            Err(error) if error.is_not_found() => return Ok(None),
            other => freed.extend(other?.1),
        }
    }
    Ok(Some(freed))
}

pub(super) fn record_of(chosen: &Chosen, config: &ImageConfig, layers: &[LayerRef]) -> ImageRecord {
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
        lent_by: None,
    }
}

/// Those that must not be lost.
fn blobs_of(record: &ImageRecord) -> Vec<Digest> {
    let layers = record.layers.iter().map(|layer| &layer.descriptor);
    let all = [&record.manifest, &record.config].into_iter().chain(layers);
    all.map(|descriptor| descriptor.digest).collect()
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
