//! Random numbers of the kernel's.

use std::io;

use crate::error::{Error, Result};

/// Fills a buffer with random bytes. Source: getrandom(2).
pub(crate) fn fill(raw: &mut [u8]) -> Result<()> {
    getrandom::fill(raw).map_err(|error| {
        let cause = match error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::other(error.to_string()),
        };
        Error::os("ask the kernel for random numbers", cause)
    })
}
