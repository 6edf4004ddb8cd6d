//! Verbs across all objects: what the engine is, what happens, what it keeps on disk; clearing away what dead owners left,
//! and checking that nothing is left over.

mod audit;
mod events;
mod info;
mod local;
mod manager;
mod reconcile;
mod usage;

pub use self::audit::{Audit, Finding, FindingKind};
pub(crate) use self::local::{LocalSystem, Parts};
pub use self::manager::{
    ContainerCounts, ContainerUsage, DiskUsage, EventQuery, ImageUsage, SystemInfo, SystemManager,
};
pub use self::reconcile::Reconciled;
