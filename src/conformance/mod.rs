//! Suites that every backend of a seam passes, embedders' own included, and tiny images made in code.

mod differences;
pub mod layers;
pub mod logs;
#[cfg(feature = "network")]
pub mod networks;
pub mod registry;
pub mod snapshots;
pub mod storage;
pub mod volumes;

pub use crate::driver::Abandon;
