//! Opening an engine: the root, the databases, the backends by name, and the driver that holds it all.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::images::DriverImages;
use super::{Engine, Inner, Local};
use crate::containers::{Lifetime, LocalContainers, Parts};
use crate::driver::{Driver, Spawner};
use crate::error::{Error, ObjectKind, Result};
use crate::images::LocalImages;
use crate::registry::RegistryProvider;
use crate::runtime::Runtime;
use crate::runtime::cgroups::{CgroupDriver, NativeCgroups};
use crate::runtime::native::{IdMaps, NativeOptions, NativeRuntime};
use crate::storage::content::ContentStore;
use crate::storage::content::local::LocalContent;
use crate::storage::ownership::Ownership;
use crate::storage::snapshot::{self, Snapshotter};
use crate::storage::unpack::Unpacker;
use crate::store::{Owner, Root, Store};

/// What a constructor of a backend is told.
#[derive(Debug)]
#[non_exhaustive]
pub struct BackendContext<'a> {
    dir: &'a Path,
    ownership: &'a Ownership,
}

impl BackendContext<'_> {
    /// The directory that is the backend's alone.
    pub fn dir(&self) -> &Path {
        self.dir
    }

    /// How owners of files are kept.
    pub fn ownership(&self) -> &Ownership {
        self.ownership
    }
}

type SnapshotterMaker = Arc<dyn Fn(&BackendContext<'_>) -> Result<Arc<dyn Snapshotter>> + Send + Sync>;

/// An engine with choices of one's own. Every choice has a default.
#[must_use = "nothing is opened until `open`"]
pub struct EngineBuilder {
    root: PathBuf,
    snapshotter: Option<String>,
    snapshotters: BTreeMap<String, SnapshotterMaker>,
    runtime: Option<Arc<dyn Runtime>>,
    cgroups: Option<Arc<dyn CgroupDriver>>,
    registries: Option<Arc<dyn RegistryProvider>>,
    lifetime: Lifetime,
}

impl fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own: Vec<&String> = self.snapshotters.keys().collect();
        f.debug_struct("EngineBuilder")
            .field("root", &self.root)
            .field("snapshotter", &self.snapshotter)
            .field("own_snapshotters", &own)
            .finish_non_exhaustive()
    }
}
