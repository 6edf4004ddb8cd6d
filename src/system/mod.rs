//! Verbs across all objects: what the engine is, what happens, what it keeps on disk; clearing away what dead owners left,
//! and checking that nothing is left over.

#[cfg(feature = "engine")]
mod audit;
#[cfg(feature = "engine")]
mod doctor;
#[cfg(feature = "engine")]
mod events;
#[cfg(feature = "engine")]
mod info;
#[cfg(feature = "engine")]
mod local;
mod manager;
mod prune;
#[cfg(feature = "engine")]
mod reconcile;
#[cfg(feature = "engine")]
mod usage;

#[cfg(feature = "engine")]
pub use self::audit::{Audit, Finding, FindingKind};
#[cfg(feature = "engine")]
pub use self::doctor::Diagnosis;
#[cfg(feature = "engine")]
pub(crate) use self::local::{LocalSystem, Parts};
pub use self::manager::{
    ContainerCounts, ContainerUsage, DiskUsage, EventQuery, ImageUsage, SystemInfo, SystemManager,
};
pub use self::prune::{PruneAll, PrunedAll};
#[cfg(feature = "engine")]
pub use self::reconcile::Reconciled;
