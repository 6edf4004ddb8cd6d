//! `prune`: removes images that nobody uses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::local::{LocalImages, LocalImagesParts, remove_unreferenced, time_of};
use super::{PrunedImages, Removed, when};
use crate::error::{Error, Result};
use crate::events::{Event, EventKind};
use crate::store::{ImageEntry, Node, NodeKind, Store};
use crate::types::{Digest, Filter, ImageId, Reference};

const KEYS: &[&str] = &["dangling", "until", "label", "label!"];

/// What one image's removal came to.
struct Gone {
    id: ImageId,
    names: Vec<Reference>,
    freed: Vec<Node>,
}

impl LocalImages {
    pub(super) async fn prune_matching(&self, filter: Filter) -> Result<PrunedImages> {
        super::list::check_keys(&filter, KEYS)?;
        let dangling = super::list::dangling(&filter)?.unwrap_or(true);
        let until = until(&filter, SystemTime::now())?;
        let mut entries = self.parts.store.call(Store::images).await?;
        entries.retain(|entry| !dangling || entry.tags.is_empty());
        entries.retain(|entry| until.is_none_or(|until| created(entry) <= until));
        let entries = self.with_labels(entries, &filter).await?;
        let mut pruned = PrunedImages::default();
        for entry in entries {
            let sizes = self.sizes(&entry).await?;
            let (id, parts) = (entry.record.id, Arc::clone(&self.parts));
            let gone = self
                .parts
                .store
                .call(move |store| remove(store, &parts, id, dangling))
                .await?;
            let Some(gone) = gone else { continue };
            for name in &gone.names {
                self.tell("untag", gone.id, Some(name)).await;
            }
            self.tell("delete", gone.id, None).await;
            pruned.add(gone, &sizes);
        }
        self.tell_pruned(pruned.reclaimed_bytes).await;
        Ok(pruned)
    }

    /// What everything an image needs takes on disk. What cannot be told is not counted.
    async fn sizes(&self, entry: &ImageEntry) -> Result<BTreeMap<Node, u64>> {
        let mut sizes = BTreeMap::new();
        let id = entry.record.id;
        let indexes = self.parts.store.call(move |store| store.indexes_of(&id)).await?;
        for node in entry.record.needs().into_iter().chain(indexes) {
            let digest: Digest = node.id.parse()?;
            let size = match node.kind {
                NodeKind::Blob => self.parts.content.info(&digest).await?.map(|blob| blob.size),
                _ => self
                    .parts
                    .snapshotter
                    .layer_usage(&digest)
                    .await
                    .ok()
                    .map(|usage| usage.bytes),
            };
            sizes.insert(node, size.unwrap_or(0));
        }
        Ok(sizes)
    }

    async fn tell_pruned(&self, reclaimed: u64) {
        let event = Event::now(EventKind::Image, "prune", "").with("reclaimed", reclaimed.to_string());
        if let Err(error) = self.parts.store.call(move |store| store.record_event(&event)).await {
            tracing::warn!(error = %error.report(), "an event was lost");
        }
    }
}

impl PrunedImages {
    fn add(&mut self, gone: Gone, sizes: &BTreeMap<Node, u64>) {
        self.removed.extend(gone.names.into_iter().map(Removed::Untagged));
        self.removed.push(Removed::Deleted(gone.id));
        for node in gone.freed {
            self.reclaimed_bytes = self
                .reclaimed_bytes
                .saturating_add(sizes.get(&node).copied().unwrap_or(0));
            if node.kind == NodeKind::Snapshot
                && let Ok(chain) = node.id.parse()
            {
                self.removed.push(Removed::DeletedLayer(chain));
            }
        }
    }
}

/// Removes an image, unless somebody began to use it, or named it where it must have no name. Blocking.
fn remove(store: &Store, parts: &LocalImagesParts, id: ImageId, nameless: bool) -> Result<Option<Gone>> {
    let names = store.image_names(&id)?;
    if nameless && names.iter().any(|name| name.digest().is_none()) {
        return Ok(None);
    }
    let needs = match store.delete_image(&id) {
        Err(error) if error.is_conflict() || error.is_not_found() => return Ok(None),
        needs => needs?,
    };
    let freed = remove_unreferenced(store, parts, needs)?;
    Ok(Some(Gone { id, names, freed }))
}

/// When an image was built, or failing that, when it came here.
pub(super) fn created(entry: &ImageEntry) -> SystemTime {
    let said = entry.record.created.as_deref().and_then(when::date);
    said.unwrap_or_else(|| time_of(entry.record.pulled_at_ns))
}

fn until(filter: &Filter, now: SystemTime) -> Result<Option<SystemTime>> {
    match filter.values("until") {
        [] => Ok(None),
        [one] => when::moment(one, now).map(Some),
        _ => Err(Error::invalid("several until filters: give one")),
    }
}
