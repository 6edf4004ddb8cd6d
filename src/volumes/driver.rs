//! Who keeps volumes: the [`VolumeDriver`] seam.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;

use async_trait::async_trait;

use crate::error::{Error, Result};
use crate::types::{Outcome, VolumeName};

/// What a driver is told of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VolumeContext {
    /// Its name.
    pub name: VolumeName,
    /// A directory of the volume's own below the root, for whatever the driver keeps; it is removed with the volume.
    pub dir: PathBuf,
    /// What the user told the driver.
    pub options: BTreeMap<String, String>,
}

/// What a volume shows in containers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum VolumeSource {
    /// A directory of the host.
    Directory(PathBuf),
    /// A file system, which is mounted for the first of the containers that use it at a time and shown to all of them. As an
    /// ordinary user, only those that a user namespace may mount.
    FileSystem {
        /// The kernel's name for it: `tmpfs`, `nfs`, `ext4`.
        kind: String,
        /// What it is on: a device, `:/exported`, or any word.
        source: String,
        /// Its options, `key=value` or `flag`.
        options: Vec<String>,
    },
}

/// Keeps volumes. For one volume, calls come one at a time; of different ones, side by side.
#[async_trait]
pub trait VolumeDriver: Debug + Send + Sync + 'static {
    /// Makes a volume, or finds it there: what was there before is never removed again because something else failed.
    ///
    /// # Errors
    /// `InvalidArgument` for options that cannot be; whatever else stands in the way. A call that fails leaves no volume.
    async fn create(&self, volume: &VolumeContext) -> Result<Outcome>;

    /// Removes a volume with all that is in it. One that is gone is success.
    ///
    /// # Errors
    /// What stands in the way; the volume then stays.
    async fn remove(&self, volume: &VolumeContext) -> Result<()>;

    /// Makes a volume's files ready, and says where they are. Called for the first container that starts to use it, and not
    /// again before [`VolumeDriver::unmount`].
    ///
    /// # Errors
    /// What stands in the way; the container does not start.
    async fn mount(&self, volume: &VolumeContext) -> Result<VolumeSource>;

    /// The last container that used a volume has ended. An engine whose process is killed calls nothing.
    ///
    /// # Errors
    /// They are logged.
    async fn unmount(&self, volume: &VolumeContext) -> Result<()> {
        let _ = volume;
        Ok(())
    }

    /// Where a volume's files are on the host at any time, if they are: what is shown of it, counted, filled with an image's
    /// content, and copied by snapshots.
    fn directory(&self, volume: &VolumeContext) -> Option<PathBuf> {
        let _ = volume;
        None
    }

    /// Makes `into` with what `volume` holds.
    ///
    /// # Errors
    /// `Unsupported` from a driver that cannot.
    async fn clone_volume(&self, volume: &VolumeContext, into: &VolumeContext) -> Result<()> {
        let _ = (volume, into);
        Err(Error::unsupported_verb("volumes.snapshot"))
    }
}
