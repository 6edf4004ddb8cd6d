//! The kernel's name for the time since it was booted: random, and new at every boot. Source: random(4).

use std::io;
use std::sync::OnceLock;

use crate::error::{Error, Result};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// As two words. It is read once: no program outlives its boot.
pub(crate) fn id() -> io::Result<[u64; 2]> {
    static ID: OnceLock<[u64; 2]> = OnceLock::new();
    if let Some(id) = ID.get() {
        return Ok(*id);
    }
    let id = parse(&read()?).ok_or(io::ErrorKind::InvalidData)?;
    Ok(*ID.get_or_init(|| id))
}

/// As the kernel writes it, for files that people read.
///
/// # Errors
/// `Unsupported` where `/proc` is not mounted.
#[inline(always)] // To lie with its callers: docs/measuring.md, "Memory".
pub(crate) fn text() -> Result<String> {
    let text = read().map_err(|error| {
        Error::unsupported("reading the boot id", format!("a mounted /proc ({BOOT_ID})")).with_source(error)
    })?;
    Ok(text.trim_ascii().to_owned())
}

fn read() -> io::Result<String> {
    std::fs::read_to_string(BOOT_ID)
}

fn parse(text: &str) -> Option<[u64; 2]> {
    let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let word = |part: Option<&str>| u64::from_str_radix(part?, 16).ok();
    Some([word(hex.get(..16))?, word(hex.get(16..32))?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_two_words() {
        let text = "8d1e2f60-1234-5678-9abc-def012345678\n";
        assert_eq!(parse(text), Some([0x8d1e_2f60_1234_5678, 0x9abc_def0_1234_5678]));
        assert_eq!(parse("8d1e2f60-1234"), None);
        assert_eq!(id().unwrap(), id().unwrap());
    }
}
