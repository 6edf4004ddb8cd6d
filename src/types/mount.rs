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
    /// A file system of the kernel's.
    FileSystem {
        /// The kernel's name for it: `tmpfs`, `nfs`, `ext4`.
        kind: String,
        /// What it is on: a device, `host:/exported`, or any word.
        source: String,
        /// Its options, `key=value` or `flag`.
        options: Vec<String>,
    },
}

/// Whether mounts that are made later on one side are seen on the other. Source: mount_namespaces(7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Propagation {
    /// On neither.
    Private,
    /// On neither, nor below.
    #[default]
    Rprivate,
    /// Those of the host in the container.
    Slave,
    /// Those of the host in the container, and below.
    Rslave,
    /// On both.
    Shared,
    /// On both, and below.
    Rshared,
}

impl Propagation {
    /// Docker's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Rprivate => "rprivate",
            Self::Slave => "slave",
            Self::Rslave => "rslave",
            Self::Shared => "shared",
            Self::Rshared => "rshared",
        }
    }

    /// The one of Docker's word.
    pub fn parse(word: &str) -> Option<Self> {
        let all = [
            Self::Private,
            Self::Rprivate,
            Self::Slave,
            Self::Rslave,
            Self::Shared,
            Self::Rshared,
        ];
        all.into_iter().find(|one| one.as_str() == word)
    }

    /// Whether mounts of the container are seen on the host.
    pub const fn is_shared(self) -> bool {
        matches!(self, Self::Shared | Self::Rshared)
    }
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
    /// A file system of the kernel's.
    pub fn file_system(kind: impl Into<String>, source: impl Into<String>, options: Vec<String>) -> Self {
        Self {
            source: MountSource::FileSystem {
                kind: kind.into(),
                source: source.into(),
                options,
            },
            read_only: false,
        }
    }

    /// A directory of the host.
    pub fn bind(path: impl Into<PathBuf>, read_only: bool) -> Self {
        Self {
            source: MountSource::Bind { path: path.into() },
            read_only,
        }
    }
}
