//! Directory trees in layers: the [`Snapshotter`] seam. Backends return descriptions of mounts and never mount.

mod auto;
mod copy;
mod delete;
mod limit;
pub mod overlayfs;
mod records;
#[cfg(test)]
mod tests;
mod usage;
pub mod vfs;

pub use self::auto::auto;
pub(crate) use self::copy::tree as copy_tree;
pub(crate) use self::delete::tree as delete_tree;
pub(crate) use self::records::set_mode as chmod;
pub(crate) use self::usage::usage_of;

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::error::{Error, Result};
use crate::types::{ChainId, Mount, Outcome};

/// Name of a snapshot that is being written: an unpack in progress, or a container's writable layer.
/// `[a-zA-Z0-9_.-]{1,128}`.
pub type SnapshotKey = String;

/// How a layer is put into a new snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayerTarget {
    /// Write the layer alone into this directory; removals become overlay whiteouts (character device 0:0) and opaque
    /// marks (`user.overlay.opaque` or `trusted.overlay.opaque`, as told).
    Overlay {
        /// Where the layer's own files go.
        dir: PathBuf,
        /// Whether marks are kept in `user.*`.
        user_xattr: bool,
    },
    /// The directory already shows the parent; write over it, and carry removals out.
    Merged {
        /// Where the whole tree is.
        dir: PathBuf,
        /// Where given, owners and modes that this process may not set, or that would lock it out, are noted in this
        /// file instead: the tree must stay writable for the layers above. The snapshotter applies them to copies.
        owners: Option<PathBuf>,
    },
}

/// How what was written to a writable snapshot is read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayerSource {
    /// A directory that holds the changes alone, with overlay's marks (see [`LayerTarget::Overlay`]). Overlay's other ways
    /// to say what changed do not occur: mounts are made without `redirect_dir` and `metacopy`, and whiteouts that are
    /// attributes only count below a layer that is marked for them, which none is.
    Overlay {
        /// Where the changes are.
        upper: PathBuf,
        /// The layers that it stands on, the topmost first.
        lower: Vec<PathBuf>,
        /// Whether marks are kept in `user.*`.
        user_xattr: bool,
    },
    /// A directory that shows the whole tree: it is compared with the tree that it began as.
    Merged {
        /// Where the whole tree is.
        dir: PathBuf,
        /// The tree that it began as, if there was any.
        parent: Option<PathBuf>,
        /// Owners and modes of `parent` that are kept in a file beside it.
        owners: Option<PathBuf>,
        /// When the backend had made the copy, on the clock of its file system: the content of a file that was not touched
        /// since need not be compared. Without it every file is.
        untouched: Option<std::time::SystemTime>,
    },
}

/// What a snapshot takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk, without the parents'.
    pub bytes: u64,
    /// Files and directories, without the parents'.
    pub inodes: u64,
}

/// Options of a container's writable layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WritableOptions {
    /// The layer is thrown away with its container: no need to ever wait for the disk.
    pub volatile: bool,
    /// How much may be written to it; a backend that cannot keep to that answers `Unsupported`.
    pub size_bytes: Option<u64>,
}

/// Keeps layers as snapshots and stacks them.
///
/// A committed snapshot is named by its chain id and never changes. An active one has a key and is written to.
#[async_trait]
pub trait Snapshotter: Debug + Send + Sync + 'static {
    /// The backend's name, recorded in the root.
    fn name(&self) -> &str;

    /// Whether layers may be unpacked side by side, before their parents are there.
    fn unpacks_in_parallel(&self) -> bool;

    /// Whether a layer stack is here.
    async fn exists(&self, chain: &ChainId) -> Result<bool>;

    /// Begins a snapshot for a layer on top of `parent` and says where and how to write it.
    /// With [`Snapshotter::unpacks_in_parallel`] the parent need not be there yet.
    async fn begin_layer(&self, key: &SnapshotKey, parent: Option<&ChainId>) -> Result<LayerTarget>;

    /// Makes the layer under `key` visible as `chain` on top of `parent`, which is committed by now. `usage` is what was
    /// counted while it was written. Finding the chain committed already is success, and `key` is discarded.
    ///
    /// # Errors
    /// `NotFound` without such a key or parent.
    async fn commit_layer(
        &self,
        key: &SnapshotKey,
        chain: &ChainId,
        parent: Option<&ChainId>,
        usage: Usage,
    ) -> Result<()>;

    /// Has a committed snapshot of another root stand for one of this: it is used where it is, and never written to. `from` is
    /// that root's directory of snapshots, which the same backend made for the same kind of [`Ownership`]. Its parent is here,
    /// or was borrowed before. `key` is free. `false`: there is none that can be relied on, or the backend cannot; the layer is
    /// then unpacked here.
    ///
    /// [`Ownership`]: crate::storage::ownership::Ownership
    async fn borrow_layer(&self, key: &SnapshotKey, chain: &ChainId, from: &Path) -> Result<bool> {
        let _ = (key, chain, from);
        Ok(false)
    }

    /// Makes a writable snapshot on top of a stack and returns the mounts that show it: the first is the root.
    async fn create_writable(
        &self,
        key: &SnapshotKey,
        parent: Option<&ChainId>,
        options: WritableOptions,
    ) -> Result<Vec<Mount>>;

    /// Mounts of an existing writable snapshot.
    async fn mounts(&self, key: &SnapshotKey) -> Result<Vec<Mount>>;

    /// A writable snapshot that was made to be thrown away ([`WritableOptions::volatile`]) is to last: its next mount waits for the
    /// disk where programs ask for it, and what was written before goes to the disk now. It may be mounted, and that mount stays as
    /// it is.
    ///
    /// # Errors
    /// `NotFound`.
    async fn keep(&self, key: &SnapshotKey) -> Result<()> {
        let _ = key;
        Ok(())
    }

    /// How to read what was written to a writable snapshot, mounted or not.
    ///
    /// # Errors
    /// `NotFound`; `Unsupported` from a backend that cannot say.
    async fn source(&self, _key: &SnapshotKey) -> Result<LayerSource> {
        Err(crate::error::Error::unsupported(
            "the difference of a writable layer",
            "a storage driver that can tell it: overlayfs or vfs",
        ))
    }

    /// Mounts that show a stack, read-only.
    async fn view(&self, chain: &ChainId) -> Result<Vec<Mount>>;

    /// Host directories to delete where the owner of a writable (or unfinished) snapshot died: what a cleaner without
    /// this backend needs to know.
    fn directories(&self, key: &SnapshotKey) -> Vec<PathBuf>;

    /// Removes an active snapshot.
    async fn discard(&self, key: &SnapshotKey) -> Result<Outcome>;

    /// Removes a committed snapshot. The caller knows that nothing stands on it.
    async fn remove(&self, chain: &ChainId) -> Result<Outcome>;

    /// Takes the trust away from a committed snapshot whose files were found damaged: it does not [exist](Self::exists) until
    /// it is unpacked anew, in the place of what is there. Nobody may have it mounted.
    async fn distrust(&self, chain: &ChainId) -> Result<Outcome> {
        let _ = chain;
        Err(Error::unsupported_verb("snapshotter.distrust"))
    }

    /// What an active snapshot takes.
    async fn usage(&self, key: &SnapshotKey) -> Result<Usage>;

    /// What a committed snapshot takes, or took before power was lost.
    async fn layer_usage(&self, chain: &ChainId) -> Result<Usage>;

    /// Whether an active snapshot has reached the limit that it was made with ([`WritableOptions::size_bytes`]), or nearly so.
    async fn is_full(&self, key: &SnapshotKey) -> Result<bool> {
        let _ = key;
        Ok(false)
    }

    /// All committed snapshots, in no order, with those of which only remains are left since power was lost.
    async fn list(&self) -> Result<Vec<ChainId>>;

    /// Keys of all active snapshots, in no order: what a sweeper compares with the living.
    async fn active(&self) -> Result<Vec<SnapshotKey>>;

    /// Finishes deletions that a killed process began; returns how many there were.
    async fn empty_trash(&self) -> Result<usize> {
        Ok(0)
    }

    /// Makes what was committed so far survive a loss of power. Called after an image is here, with nobody waiting. What
    /// was committed and not synced when the power went need not be whole, and must then not [exist](Self::exists): it is
    /// unpacked anew from its blobs, with [`Snapshotter::commit_layer`] in place of what is left of it. Cheap where there
    /// is nothing to do.
    async fn sync(&self) -> Result<()> {
        Ok(())
    }
}
