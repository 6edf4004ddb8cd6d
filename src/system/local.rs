//! The in-process system manager: what its verbs share.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Audit, Diagnosis, DiskUsage, EventQuery, Reconciled, SystemInfo, SystemManager};
use crate::containers::LocalContainers;
use crate::driver::Spawner;
use crate::error::Result;
use crate::events::EventStream;
use crate::images::LocalImages;
use crate::runtime::cgroups::CgroupDriver;
use crate::storage::content::local::LocalContent;
use crate::storage::snapshot::Snapshotter;
use crate::store::{Owners, Root, Store};
use crate::types::OwnerId;
use crate::volumes::LocalVolumes;

/// Events that may wait for a reader before the driver stops fetching more.
const EVENTS_AHEAD: usize = 64;

/// What the engine hands the manager.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) spawner: Spawner,
    pub(crate) root: Root,
    pub(crate) owner: OwnerId,
    pub(crate) owners: Owners,
    pub(crate) store: Store,
    pub(crate) content: LocalContent,
    pub(crate) snapshotter: Arc<dyn Snapshotter>,
    #[cfg(feature = "network")]
    pub(crate) networks: crate::networks::LocalNetworks,
    /// Why that one.
    pub(crate) storage_reason: String,
    pub(crate) images: Arc<LocalImages>,
    pub(crate) containers: LocalContainers,
    pub(crate) volumes: LocalVolumes,
    pub(crate) runtime: String,
    pub(crate) logs: String,
    pub(crate) cgroups: Arc<dyn CgroupDriver>,
    /// `direct`, `mapped` or `squashed`.
    pub(crate) ownership: &'static str,
}

/// An engine of this process, as a whole.
#[derive(Clone)]
pub(crate) struct LocalSystem(pub(super) Arc<Parts>);

impl fmt::Debug for LocalSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalSystem")
            .field("root", &self.0.root.path())
            .finish_non_exhaustive()
    }
}

impl LocalSystem {
    #[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Removes everything that is left over.
    pub(crate) async fn reconcile(&self) -> Result<Reconciled> {
        let parts = Arc::clone(&self.0);
        self.0.spawner.call(async move { parts.reconcile().await }).await
    }

    /// Compares the records with what is really there.
    pub(crate) async fn audit(&self) -> Result<Audit> {
        let parts = Arc::clone(&self.0);
        self.0.spawner.call(async move { parts.audit().await }).await
    }

    /// Reads everything that images stand on.
    pub(crate) async fn doctor(&self, fix: bool) -> Result<Diagnosis> {
        let parts = Arc::clone(&self.0);
        self.0.spawner.call(async move { parts.doctor(fix).await }).await
    }

    /// What an engine does by itself after it was opened: no caller waits for it.
    pub(crate) async fn sweep_quietly(&self) {
        self.0.sweep_quietly().await;
    }

    /// What an engine does last.
    pub(crate) async fn forget_quietly(&self, owner: OwnerId) {
        self.0.forget_quietly(owner).await;
    }
}

#[async_trait]
impl SystemManager for LocalSystem {
    async fn info(&self) -> Result<SystemInfo> {
        let parts = Arc::clone(&self.0);
        self.0.spawner.call(async move { parts.info().await }).await
    }

    async fn events(&self, query: EventQuery) -> Result<EventStream> {
        let parts = Arc::clone(&self.0);
        let subscribed = self.0.spawner.call(async move { parts.events(query).await }).await?;
        Ok(self.0.spawner.stream(subscribed, EVENTS_AHEAD))
    }

    async fn disk_usage(&self) -> Result<DiskUsage> {
        let parts = Arc::clone(&self.0);
        self.0.spawner.call(async move { parts.disk_usage().await }).await
    }
}
