//! Descriptions of mounts. A snapshotter returns them, a runtime carries them out; nobody in between mounts anything.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MountSource {
    /// A directory (or file) of the host.
    Bind {
        /// Absolute path on the host.
        path: PathBuf,
    },
    /// An overlay of directories.
    Overlay {
        /// Read-only directories, the topmost first. At least one.
        lower: Vec<PathBuf>,
        /// The writable directory; without one the overlay is read-only.
        upper: Option<PathBuf>,
        /// The overlay's scratch directory on the file system of `upper`.
        work: Option<PathBuf>,
        /// Keep overlay's own attributes in `user.*` instead of `trusted.*` (a mount made in a user namespace).
        user_xattr: bool,
        /// Never wait for the disk (`volatile`): for writable layers that are thrown away.
        volatile: bool,
    },
}

/// A mount to make: a source and how to attach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What it shows.
    pub source: MountSource,
    /// Whether nothing can be written through it.
    pub read_only: bool,
}

impl Mount {
    /// A directory of the host.
    pub fn bind(path: impl Into<PathBuf>, read_only: bool) -> Self {
        Self {
            source: MountSource::Bind { path: path.into() },
            read_only,
        }
    }
}
