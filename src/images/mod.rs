//! Images: pull, list, inspect, tag, remove.
mod config;
mod manifest;
mod resolve;
pub use self::config::{HealthConfig, HistoryEntry, ImageConfig, RootFs, RunConfig};
pub use self::manifest::{MAX_BLOB, MAX_CONFIG, MAX_LAYERS};
