//! The builder of this process: what its verbs share.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::cache::{CachedMount, CachedStep, PruneCache, PrunedCache};
use super::manager::ImageBuilder;
use super::output::BuildResult;
use super::spec::BuildSpec;
use crate::containers::LocalContainers;
use crate::driver::Spawner;
use crate::error::Result;
use crate::images::LocalImages;
use crate::progress::{Progress, ProgressEvent};
use crate::runtime::native::NativeRuntime;
use crate::storage::ownership::Ownership;
use crate::storage::snapshot::Snapshotter;
use crate::store::{Locks, Store};
use crate::types::OwnerId;

/// What the engine hands the builder.
pub(crate) struct Parts {
    pub(crate) spawner: Spawner,
    pub(crate) store: Store,
    pub(crate) owner: OwnerId,
    pub(crate) images: Arc<LocalImages>,
    pub(crate) containers: LocalContainers,
    pub(crate) snapshotter: Arc<dyn Snapshotter>,
    pub(crate) locks: Locks,
    /// Holds a directory per build that is under way.
    pub(crate) dir: PathBuf,
    /// Holds a directory per cache that commands mount.
    pub(crate) caches: PathBuf,
    /// How the owners of files are kept in layers.
    pub(crate) layers: Ownership,
    /// Where an ordinary user's files may belong to other ids: who sees them.
    pub(crate) native: Option<Arc<NativeRuntime>>,
    /// Who makes mounts to look at.
    pub(crate) root: Arc<NativeRuntime>,
}

/// Builds in this process, on one root.
#[derive(Clone)]
pub(crate) struct LocalBuilder(Arc<Shared>);

/// What all verbs share.
pub(crate) struct Shared {
    pub(super) parts: Parts,
}

impl fmt::Debug for LocalBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalBuilder")
            .field("owner", &self.0.parts.owner)
            .finish_non_exhaustive()
    }
}

impl LocalBuilder {
    #[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(Shared { parts }))
    }

    pub(super) fn images(&self) -> &LocalImages {
        &self.0.parts.images
    }
}

#[async_trait]
impl ImageBuilder for LocalBuilder {
    async fn build(&self, spec: BuildSpec, progress: Progress) -> Result<BuildResult> {
        let (shared, told) = (Arc::clone(&self.0), progress.clone());
        let work = |cancel| async move { shared.build(spec, &told, cancel).await };
        // What was built is here to stay, as what was pulled.
        let built = self.0.parts.spawner.tail(work, |_| async {}).await;
        progress.report(match &built {
            Ok(built) => ProgressEvent::Done { image: built.id },
            Err(error) => ProgressEvent::Failed {
                message: error.to_string(),
            },
        });
        built
    }

    async fn cache(&self) -> Result<Vec<CachedStep>> {
        let shared = Arc::clone(&self.0);
        let listed = async move { shared.cached_steps().await };
        self.0.parts.spawner.call_blocking(listed).await
    }

    async fn mounts(&self) -> Result<Vec<CachedMount>> {
        let shared = Arc::clone(&self.0);
        let listed = async move { shared.cached_mounts().await };
        self.0.parts.spawner.call_blocking(listed).await
    }

    async fn prune(&self, options: PruneCache) -> Result<PrunedCache> {
        let shared = Arc::clone(&self.0);
        let work = |_| async move { shared.prune_steps(&options).await };
        self.0.parts.spawner.tail(work, |_| async {}).await
    }
}

/// Nanoseconds since 1970, now.
pub(super) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// The time of nanoseconds since 1970.
pub(super) fn time_of(ns: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(ns.max(0).unsigned_abs())
}
