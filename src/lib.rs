//! The container engine that Rust programs embed.
#![deny(unsafe_code)]

pub mod error;
#[cfg(feature = "engine")]
pub mod events;
#[cfg(feature = "engine")]
pub mod images;
#[cfg(feature = "engine")]
pub mod logs;
pub mod probe;
pub mod progress;
#[cfg(feature = "engine")]
pub mod registry;
pub mod runtime;
#[cfg(feature = "engine")]
pub mod storage;
#[cfg(feature = "engine")]
pub mod store;
#[allow(unsafe_code)]
pub(crate) mod sys;
pub mod types;

pub use self::error::{Error, ErrorKind, ObjectKind, Result};
