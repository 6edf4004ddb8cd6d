//! Suites that every backend of a seam passes, embedders' own included, and tiny images made in code.

mod differences;
pub mod layers;
pub mod logs;
pub mod registry;
pub mod snapshots;
pub mod storage;
pub mod volumes;

pub use crate::driver::Abandon;
