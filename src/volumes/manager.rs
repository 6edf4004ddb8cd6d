//! What an engine can do with volumes.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::time::SystemTime;

use async_trait::async_trait;

use crate::error::{Error, Result};
use crate::types::{ByteStream, Filter, Outcome};

/// A volume to make. `CreateVolume::default()` is an anonymous one of the driver `local`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreateVolume {
    /// Its name; without one it is anonymous, and its name is random.
    pub name: Option<String>,
    /// Who keeps it; default `local`.
    pub driver: Option<String>,
    /// What the driver is told. `local` knows `type`, `o` and `device`, as mount(8) has them; `tmpfs` knows `size`, `mode`,
    /// `uid`, `gid` and `noexec`.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl CreateVolume {
    /// A volume with a name.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: Some(name.into()),
            ..Self::default()
        }
    }

    /// Chooses who keeps it.
    #[must_use]
    pub fn driver(mut self, driver: impl Into<String>) -> Self {
        self.driver = Some(driver.into());
        self
    }

    /// Tells the driver something.
    #[must_use]
    pub fn option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.insert(name.into(), value.into());
        self
    }

    /// Sets a label.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }
}

/// What `remove` may be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoveVolumeOptions {
    /// Find nothing wrong with a volume that is not there, and give up what a driver cannot remove.
    pub force: bool,
}

impl RemoveVolumeOptions {
    /// Removes also what is not there.
    pub const fn force() -> Self {
        Self { force: true }
    }
}

/// Everything about a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VolumeInfo {
    /// Its name.
    pub name: String,
    /// Who keeps it.
    pub driver: String,
    /// Where its files are on the host; `None` where they are nowhere, as those of a memory file system.
    pub mountpoint: Option<PathBuf>,
    /// When it was made.
    pub created: SystemTime,
    /// What the driver was told.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whether nobody named it.
    pub anonymous: bool,
    /// Containers that use it, by id.
    pub users: Vec<String>,
}

impl VolumeInfo {
    /// A volume of a name and a driver, with nothing else known of it.
    pub fn new(name: impl Into<String>, driver: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            driver: driver.into(),
            mountpoint: None,
            created: SystemTime::UNIX_EPOCH,
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            anonymous: false,
            users: Vec::new(),
        }
    }
}

/// What a volume keeps on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VolumeUsage {
    /// Its name.
    pub name: String,
    /// What it takes, in bytes; `None` where its driver cannot say.
    pub bytes: Option<u64>,
    /// Containers that use it.
    pub containers: usize,
}

impl VolumeUsage {
    /// What a volume takes.
    pub fn new(name: impl Into<String>, bytes: Option<u64>, containers: usize) -> Self {
        Self {
            name: name.into(),
            bytes,
            containers,
        }
    }
}

/// What a prune of volumes removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrunedVolumes {
    /// Names of what was removed.
    pub removed: Vec<String>,
    /// What that gave back on disk, in bytes.
    pub reclaimed_bytes: u64,
}

/// What can be done with volumes. Every verb has a default body, so a verb that is added breaks no implementation.
#[async_trait]
pub trait VolumeManager: Debug + Send + Sync + 'static {
    /// Makes a volume. One of that name and driver that is there already is the answer.
    ///
    /// # Errors
    /// `InvalidArgument` (a name or an option that cannot be), `NotFound` for a driver that nobody made known, `Conflict` if
    /// the name belongs to a volume of another driver, `Unsupported`, `NoSpace`, `ReadOnly`, `Os`.
    ///
    /// # Cancel safety
    /// A dropped call leaves a volume or none; asking again settles it.
    async fn create(&self, request: CreateVolume) -> Result<VolumeInfo> {
        let _ = request;
        Err(Error::unsupported_verb("volumes.create"))
    }

    /// Everything about one volume.
    ///
    /// # Errors
    /// `NotFound`.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    async fn inspect(&self, name: &str) -> Result<VolumeInfo> {
        let _ = name;
        Err(Error::unsupported_verb("volumes.inspect"))
    }

    /// Volumes, by name. Filters: `dangling`, `driver`, `label`, `label!`, `name` (an expression).
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown filter.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    async fn list(&self, filter: Filter) -> Result<Vec<VolumeInfo>> {
        let _ = filter;
        Err(Error::unsupported_verb("volumes.list"))
    }

    /// Removes a volume with all that is in it.
    ///
    /// # Errors
    /// `NotFound`, unless forced; `Conflict`, with the containers that use it.
    ///
    /// # Cancel safety
    /// A removal once begun is finished.
    async fn remove(&self, name: &str, options: RemoveVolumeOptions) -> Result<Outcome> {
        let _ = (name, options);
        Err(Error::unsupported_verb("volumes.remove"))
    }

    /// Removes volumes that no container uses: anonymous ones, with the filter `all=true` those with a name too. Further
    /// filters: `label`, `label!`.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown filter.
    ///
    /// # Cancel safety
    /// What was removed stays removed.
    async fn prune(&self, filter: Filter) -> Result<PrunedVolumes> {
        let _ = filter;
        Err(Error::unsupported_verb("volumes.prune"))
    }

    /// Makes a new volume with what another holds at this moment; both are independent from then on. Where the file system
    /// can share blocks (xfs, btrfs), they are shared until one of the two writes to them. A container that writes to the
    /// volume meanwhile may be caught half way: pause it for a snapshot of one moment.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if the new name is taken; `Unsupported` for a driver whose files are not at hand; `NoSpace`,
    /// `Os`.
    ///
    /// # Cancel safety
    /// A dropped call leaves no new volume, or a whole one.
    async fn snapshot(&self, name: &str, into: CreateVolume) -> Result<VolumeInfo> {
        let _ = (name, into);
        Err(Error::unsupported_verb("volumes.snapshot"))
    }
    /// All that a volume holds, as an uncompressed tar: owners, modes, times, links, devices, extended attributes. Sockets
    /// are left out, as no archive can hold one. A container that writes to the volume meanwhile may be caught half way.
    ///
    /// # Errors
    /// `NotFound`; what its driver says. An `Err` in the stream means that the archive is not whole.
    ///
    /// # Cancel safety
    /// Dropping the call or the stream ends the reading.
    async fn export(&self, name: &str) -> Result<ByteStream> {
        let _ = name;
        Err(Error::unsupported_verb("volumes.export"))
    }

    /// Makes a new volume with what a tar holds, plain or compressed with gzip, zstd or whatever layers may be. Nothing of
    /// the archive reaches a place outside of the volume.
    ///
    /// # Errors
    /// `Conflict` if the name is taken; `UnsafeArchive` for an archive that tries to leave the volume, is malformed or breaks
    /// off; `Unsupported` for a driver whose files are not at hand; those of [`VolumeManager::create`].
    ///
    /// # Cancel safety
    /// A dropped call leaves no new volume, or a whole one.
    async fn import(&self, into: CreateVolume, archive: ByteStream) -> Result<VolumeInfo> {
        let _ = (into, archive);
        Err(Error::unsupported_verb("volumes.import"))
    }
}
