//! What an engine remembers: the root directory, its owners and locks, and the records in two databases.
//!
//! ```text
//! <root>/version          who made this directory, and for which schema
//! <root>/id               names this root, in whichever process it is opened
//! <root>/backend.<seam>   the backend chosen first for a seam
//! <root>/store.db         records that survive power loss: images, detached containers, and their edges
//! <root>/run.db           records that die with the boot: bound containers, leases, recent events
//! <root>/run.boot         boot id that `run.db` belongs to
//! <root>/content/         blobs, and copies of `backend.<seam>`        <root>/snapshots/   layers and writable layers
//! <root>/containers/      a directory per container: logs and other files
//! <root>/volumes/         a directory per volume
//! <root>/builds/          a directory per build that is under way
//! <root>/caches/          a directory per cache that commands of builds mount
//! <root>/stubs/           empty places for mounts, below every overlay
//! <root>/owners/<id>/     one per engine: `lock` is held as long as the owner lives
//! <root>/locks/           keyed locks across processes
//! ```
//!
//! Everything here blocks, except where a function is `async`. From async code go through [`Store::call`] or
//! `spawn_blocking`.

pub mod db;
mod layout;
mod locks;
mod other;
mod owners;
mod repair;
#[cfg(test)]
mod tests;

pub use self::db::Store;
pub use self::db::builds::StepRow;
pub use self::db::containers::{ContainerRow, Insert, StateCount};
pub use self::db::images::{ImageEntry, ImageRecord, LayerRecord, NamedImage, OtherImage, Sign};
pub use self::db::leases::Lease;
pub use self::db::networks::NetworkRow;
pub use self::db::refs::{Node, NodeKind};
pub use self::db::volumes::{Uses, VolumeRow};
pub use self::layout::Root;
pub use self::locks::{LockGuard, Locks};
pub use self::other::OtherRoot;
pub use self::owners::{DeadOwner, Owner, Owners};
pub(crate) use self::repair::repair;
