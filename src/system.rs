//! Verbs across all objects: clearing away what dead owners left, and checking that nothing is left over.

mod manager;

use std::collections::HashSet;
use std::sync::Arc;

use crate::containers::LocalContainers;
use crate::error::Result;
use crate::images::LocalImages;
use crate::storage::content::local::LocalContent;
use crate::storage::snapshot::Snapshotter;
use crate::storage::sweep::sweep;
use crate::store::{DeadOwner, Owners, Store};
use crate::types::OwnerId;

pub use self::manager::{
    ContainerCounts, ContainerUsage, DiskUsage, EventQuery, ImageUsage, SystemInfo, SystemManager,
};

/// Finds and removes what dead owners left behind, and what nothing refers to.
#[derive(Debug, Clone)]
pub(crate) struct Reconciler {
    pub(crate) owners: Owners,
    pub(crate) store: Store,
    pub(crate) content: LocalContent,
    pub(crate) snapshotter: Arc<dyn Snapshotter>,
    pub(crate) images: Arc<LocalImages>,
    pub(crate) containers: LocalContainers,
}

/// What [`Engine::reconcile`](crate::Engine::reconcile) removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reconciled {
    /// Owners that had died without anybody clearing up after them.
    pub owners: usize,
    /// Their containers.
    pub containers: usize,
    /// Half-made blobs and layers.
    pub unfinished: usize,
    /// Blobs and layers that belong to no image.
    pub unused: usize,
}

/// What [`Engine::audit`](crate::Engine::audit) found that should not be there. Empty is good.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Audit {
    /// Each thing that is left over, in words.
    pub findings: Vec<String>,
}

impl Audit {
    /// Whether nothing is left over.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

impl Reconciler {
    /// What an engine does by itself after it was opened: no caller waits for it.
    pub(crate) async fn sweep_quietly(&self) {
        if let Err(error) = self.dead_owners().await {
            tracing::warn!(error = error.report(), "remains of dead owners could not be removed");
        }
    }

    /// Removes everything that is left over.
    pub(crate) async fn reconcile(&self) -> Result<Reconciled> {
        let mut done = self.dead_owners().await?;
        let owners = self.owners.clone();
        let alive = move |owner: &str| match owner.parse::<OwnerId>() {
            Ok(id) => owners.is_alive(&id).unwrap_or(true),
            Err(_) => false,
        };
        let swept = sweep(&self.content, self.snapshotter.as_ref(), alive).await?;
        done.unfinished += swept.ingests + swept.snapshots + swept.deletions;
        done.unused += self.images.sweep().await?;
        Ok(done)
    }

    async fn dead_owners(&self) -> Result<Reconciled> {
        let mut done = Reconciled::default();
        let owners = self.owners.clone();
        let dead = blocking(move || owners.dead()).await?;
        for id in dead {
            let owners = self.owners.clone();
            let Some(taken) = blocking(move || owners.try_take(&id)).await? else {
                continue;
            };
            done.containers += self.clear(taken).await?;
            done.owners += 1;
        }
        Ok(done)
    }

    /// Removes one dead owner's containers and leases; then the owner is forgotten.
    async fn clear(&self, dead: DeadOwner) -> Result<usize> {
        let removed = self.containers.0.remove_all_of(dead.id()).await?;
        let (owners, store) = (self.owners.clone(), self.store.clone());
        blocking(move || {
            store.release_leases_of(dead.id())?;
            owners.forget(dead)
        })
        .await?;
        Ok(removed)
    }

    /// Compares what is recorded with what is on disk.
    pub(crate) async fn audit(&self) -> Result<Audit> {
        let mut findings = Vec::new();
        let owners = self.owners.clone();
        for id in blocking(move || owners.dead()).await? {
            findings.push(format!("owner {} is dead and not cleared", id.short()));
        }
        let rows = self.store.call(|store| store.containers()).await?;
        let known: HashSet<String> = rows.iter().map(|row| row.id.to_string()).collect();
        for key in self.snapshotter.active().await? {
            let container = key.strip_prefix("c-");
            if container.is_some_and(|id| !known.contains(id)) {
                findings.push(format!("writable layer {key} belongs to no container"));
            }
        }
        findings.extend(self.containers.0.stray_directories(&known)?);
        findings.extend(self.incomplete_images().await?);
        Ok(Audit { findings })
    }

    /// Images that are listed must be complete.
    async fn incomplete_images(&self) -> Result<Vec<String>> {
        use crate::storage::content::ContentStore as _;
        let mut findings = Vec::new();
        for entry in self.store.call(|store| store.images()).await? {
            let record = entry.record;
            for blob in [&record.manifest, &record.config]
                .into_iter()
                .chain(record.layers.iter().map(|layer| &layer.descriptor))
            {
                if self.content.info(&blob.digest).await?.is_none() {
                    findings.push(format!("image {} lacks blob {}", record.id.short(), blob.digest));
                }
            }
            for chain in record.chain_ids() {
                if !self.snapshotter.exists(&chain).await? {
                    findings.push(format!("image {} lacks layer {chain}", record.id.short()));
                }
            }
        }
        Ok(findings)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| crate::error::Error::internal("work on the blocking pool panicked").with_source(error))?
}
