//! What an engine says of itself as a whole.

use std::fmt::Debug;
use std::path::PathBuf;

use async_trait::async_trait;

use crate::error::{Error, Result};
use crate::events::EventStream;
use crate::types::{Filter, OwnerId};
use crate::volumes::VolumeUsage;

/// What an engine is, and on what host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SystemInfo {
    /// Names the root directory, in whichever process it is opened; empty where that is not known.
    pub id: String,
    /// The host's name.
    pub name: String,
    /// The engine's version.
    pub version: String,
    /// The root directory, of an engine in this process.
    pub root: Option<PathBuf>,
    /// The engine's id as an owner of containers, of an engine in this process.
    pub owner: Option<OwnerId>,
    /// The storage driver.
    pub storage_driver: String,
    /// Why that one.
    pub storage_reason: String,
    /// The log driver of containers that ask for none.
    pub log_driver: String,
    /// The cgroup driver: `native`, `cgroups-rs`, `none`.
    pub cgroup_driver: String,
    /// `1`, `2`, or `none`; a hybrid host counts as `1`.
    pub cgroup_version: String,
    /// The runtime.
    pub runtime: String,
    /// Containers that run, are paused, and do neither.
    pub containers: ContainerCounts,
    /// Images.
    pub images: usize,
    /// The kernel's release.
    pub kernel_version: String,
    /// The distribution, as `os-release` says it.
    pub operating_system: String,
    /// The architecture, in the kernel's word: `x86_64`, `aarch64`.
    pub architecture: String,
    /// CPUs that may be used.
    pub cpus: usize,
    /// Memory of the host, in bytes.
    pub memory_bytes: u64,
    /// Where specifications of the Container Device Interface are.
    pub cdi_directories: Vec<PathBuf>,
    /// The devices that these have, by their whole names.
    pub cdi_devices: Vec<String>,
    /// Whether the engine runs as an ordinary user.
    pub rootless: bool,
    /// What users should know: a limit that cannot be set, a feature that is missing, and the remedy.
    pub warnings: Vec<String>,
}

/// How many containers are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContainerCounts {
    /// They run.
    pub running: usize,
    /// They are paused.
    pub paused: usize,
    /// They do not run.
    pub stopped: usize,
}

/// Which events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventQuery {
    /// Those kept since then too, in nanoseconds since the epoch; otherwise only what happens from now on.
    pub since_ns: Option<i64>,
    /// The stream ends once that moment has come, in nanoseconds since the epoch; otherwise it never does.
    pub until_ns: Option<i64>,
    /// `type`, `event`, `label`, `container`, `image`, `network`, `volume`.
    pub filter: Filter,
}

/// What an engine keeps on disk, in blocks that are in use, as `du` counts them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskUsage {
    /// Images.
    pub images: Vec<ImageUsage>,
    /// Containers.
    pub containers: Vec<ContainerUsage>,
    /// Layers of all images, each counted once, in bytes.
    pub layers_bytes: u64,
    /// Blobs of all images, each counted once, in bytes.
    pub blobs_bytes: u64,
    /// Logs and other files of containers, beside their writable layers, in bytes.
    pub files_bytes: u64,
    /// The engine's own records, in bytes.
    pub records_bytes: u64,
    /// Volumes.
    pub volumes: Vec<VolumeUsage>,
    /// All volumes that are in the root directory, in bytes.
    pub volumes_bytes: u64,
    /// Caches that commands of builds mounted, in bytes. Steps of builds are layers and blobs, and counted there.
    pub caches_bytes: u64,
}

impl DiskUsage {
    /// Everything, in bytes: what `du` says of the root directory.
    pub fn total_bytes(&self) -> u64 {
        let writable: u64 = self.containers.iter().map(|container| container.writable_bytes).sum();
        let kept = self.layers_bytes + self.blobs_bytes + self.files_bytes + self.records_bytes;
        writable + kept + self.volumes_bytes + self.caches_bytes
    }
}

/// What an image keeps on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageUsage {
    /// The image's id.
    pub id: crate::types::ImageId,
    /// Its layers, in bytes.
    pub size_bytes: u64,
    /// Of that, layers that other images have too.
    pub shared_bytes: u64,
    /// Containers that use it.
    pub containers: usize,
}

/// What a container keeps on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContainerUsage {
    /// The container's id.
    pub id: crate::types::ContainerId,
    /// Its writable layer, in bytes.
    pub writable_bytes: u64,
    /// Its writable layer and its image's layers, in bytes.
    pub total_bytes: u64,
}

/// What an engine says of itself. Every verb has a default body, so a verb that is added breaks no implementation.
#[async_trait]
pub trait SystemManager: Debug + Send + Sync + 'static {
    /// What the engine is, and on what host.
    ///
    /// # Errors
    /// Those of the records.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    async fn info(&self) -> Result<SystemInfo> {
        Err(Error::unsupported_verb("system.info"))
    }

    /// What happens from now on, and with `since_ns` what happened and is still kept. Everything that is done after this
    /// call returned is seen.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown filter.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    async fn events(&self, query: EventQuery) -> Result<EventStream> {
        let _ = query;
        Err(Error::unsupported_verb("system.events"))
    }

    /// What is kept on disk. Reads every directory of the engine: it takes as long as `du`.
    ///
    /// # Errors
    /// `Os`.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    async fn disk_usage(&self) -> Result<DiskUsage> {
        Err(Error::unsupported_verb("system.disk_usage"))
    }
}
