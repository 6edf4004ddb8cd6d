//! The id of the running boot.

use std::fs;

use crate::error::{Error, Result};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A random id that the kernel makes anew at every boot. Source: random(4).
///
/// # Errors
/// `Unsupported` where `/proc` is not mounted.
pub(super) fn boot_id() -> Result<String> {
    let text = fs::read_to_string(BOOT_ID).map_err(|error| {
        Error::unsupported("reading the boot id", format!("a mounted /proc ({BOOT_ID})")).with_source(error)
    })?;
    Ok(text.trim_ascii().to_owned())
}
