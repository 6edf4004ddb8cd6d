//! The kernel's name for the time since it was booted: random, and new at every boot. Source: random(4).

use std::io;
use std::sync::OnceLock;

use nix::unistd::{SysconfVar, sysconf};

use crate::error::{Error, Result};

const NS_PER_SECOND: u64 = 1_000_000_000;
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

/// Clock ticks since the boot, as the kernel says when a process was started: proc_pid_stat(5), field 22.
pub(crate) fn ticks() -> Option<u64> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).ok()?;
    let per_second = sysconf(SysconfVar::CLK_TCK).ok()??.max(1).cast_unsigned();
    let ns = now.tv_sec().cast_unsigned() * NS_PER_SECOND + now.tv_nsec().cast_unsigned();
    // As the kernel divides: include/linux/jiffies.h, nsec_to_clock_t.
    Some(ns / (NS_PER_SECOND / per_second))
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

    #[test]
    fn ticks_are_those_of_a_process_that_starts_meanwhile() {
        let started = |pid: u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            let fields = stat.rsplit_once(')').unwrap().1.to_owned();
            fields.split_whitespace().nth(19).unwrap().parse::<u64>().unwrap()
        };
        for _ in 0..50 {
            let before = ticks().unwrap();
            let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
            let after = ticks().unwrap();
            let ticks = started(child.id());
            child.kill().unwrap();
            child.wait().unwrap();
            assert!((before..=after).contains(&ticks), "{before} {ticks} {after}");
        }
    }
}
