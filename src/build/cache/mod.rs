//! What is known from earlier builds: for each step, by a digest of all that it depends on, the layer that it made.
//!
//! The records survive power loss, and keep blobs and layers from being removed (`store::db::builds`). Who does a step holds
//! a lock on its key meanwhile: of several builds that need it, in whatever process, one does it, and the others find it.

mod document;
mod elsewhere;
mod key;
mod mounts;
mod prune;
mod records;

use std::time::SystemTime;

pub(crate) use self::document::{CONFIG, CacheManifest, Document, InlineConfig, KeptStep, MANIFEST};
pub use self::elsewhere::{CacheMode, CacheSource, CacheTarget};
pub(crate) use self::key::Key;
pub use self::mounts::CachedMount;
pub(in crate::build) use self::mounts::share;

use crate::types::{Bytes, ChainId, Digest};

/// A step that an earlier build did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CachedStep {
    /// Digest of all that it depends on.
    pub key: Digest,
    /// The instruction.
    pub text: String,
    /// The stack of layers that it led to; none where there is no layer at all.
    pub chain: Option<ChainId>,
    /// What its own layer takes on disk, in bytes.
    pub size_bytes: u64,
    /// When it was done.
    pub created: SystemTime,
    /// When a build last took it from the cache.
    pub used: SystemTime,
    /// Whether an image has its layers, too: then forgetting it gives nothing back.
    pub shared: bool,
}

/// Which steps of earlier builds to forget, and which caches that commands mounted. What a command has right now stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PruneCache {
    /// Keeps what was used last, as much of it as fits into so many bytes.
    pub keep: Option<Bytes>,
    /// Only what no build has used since then.
    pub unused_since: Option<SystemTime>,
    /// Only steps whose layers no image has.
    pub unshared: bool,
}

impl PruneCache {
    /// All of them.
    pub fn all() -> Self {
        Self::default()
    }

    /// Keeps what was used last, as much of it as fits.
    #[must_use]
    pub fn keep(mut self, bytes: Bytes) -> Self {
        self.keep = Some(bytes);
        self
    }

    /// Only what no build has used since then.
    #[must_use]
    pub fn unused_since(mut self, time: SystemTime) -> Self {
        self.unused_since = Some(time);
        self
    }

    /// Only those whose layers no image has: what goes then gives something back.
    #[must_use]
    pub fn unshared(mut self) -> Self {
        self.unshared = true;
        self
    }
}

/// What a prune forgot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrunedCache {
    /// The steps.
    pub steps: Vec<Digest>,
    /// The caches that commands mounted, by their names.
    pub mounts: Vec<String>,
    /// What was freed on disk, in bytes.
    pub freed_bytes: u64,
}
