//! The container engine that Rust programs embed.
#![deny(unsafe_code)]

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod error;
pub mod progress;
#[cfg(feature = "engine")]
pub mod registry;
pub mod runtime;
#[cfg(feature = "engine")]
pub mod storage;
#[allow(unsafe_code)]
pub(crate) mod sys;
pub mod types;

pub use self::error::{Error, ErrorKind, ObjectKind, Result};
