//! The processes of a container without a namespace of them: all that descend from its warden.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use crate::sys::pidfd;

/// Signals all that descend from a process, but for one. Those that come while it looks may be missed.
///
/// # Errors
/// Where the processes of this machine cannot be looked at, or one cannot be signalled.
pub(super) fn signal_below(ancestor: u32, but: u32, signal: i32) -> io::Result<()> {
    let parents = parents()?;
    for process in parents.keys().filter(|process| **process != but) {
        if descends(*process, ancestor, &parents) {
            signal_one(*process, &parents, signal)?;
        }
    }
    Ok(())
}

/// Every process and its parent.
fn parents() -> io::Result<HashMap<u32, u32>> {
    let mut parents = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(process) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // One that is gone by now has no parent any more.
        if let Some(parent) = fs::read_to_string(format!("/proc/{process}/stat"))
            .ok()
            .as_deref()
            .and_then(parent_in)
        {
            parents.insert(process, parent);
        }
    }
    Ok(parents)
}

/// The name may hold spaces and parentheses: fields count from the last one. Source: proc_pid_stat(5).
fn parent_in(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn descends(process: u32, ancestor: u32, parents: &HashMap<u32, u32>) -> bool {
    let mut at = process;
    // A list that was read while it changed could have a circle in it.
    for _ in 0..parents.len() {
        match parents.get(&at) {
            Some(parent) if *parent == ancestor => return true,
            Some(parent) => at = *parent,
            None => return false,
        }
    }
    false
}

/// By its directory, which stays that process's: its number may be another's by now, with another parent.
fn signal_one(process: u32, parents: &HashMap<u32, u32>, signal: i32) -> io::Result<()> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = match open(format!("/proc/{process}").as_str(), flags, Mode::empty()) {
        Err(Errno::ENOENT | Errno::ESRCH) => return Ok(()),
        directory => directory?,
    };
    if parent_of(&directory) != parents.get(&process).copied() {
        return Ok(());
    }
    match pidfd::send_signal(directory.as_fd(), signal) {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
        _ => Ok(()),
    }
}

fn parent_of(directory: &OwnedFd) -> Option<u32> {
    let stat = openat(directory, "stat", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let mut text = String::new();
    File::from(stat).read_to_string(&mut text).ok()?;
    parent_in(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h21_descent_is_told_by_parents() {
        let parents = HashMap::from([(2, 1), (3, 2), (4, 3), (5, 1), (6, 7), (7, 6)]);
        let below: Vec<bool> = (1..=7).map(|process| descends(process, 2, &parents)).collect();
        assert_eq!(below, [false, false, true, true, false, false, false]);
    }

    #[test]
    fn h21_a_parent_behind_any_name() {
        assert_eq!(parent_in("12 (a) b (c) S 7 12 12"), Some(7));
        assert_eq!((parent_in("12"), parent_in("12 (x)")), (None, None));
    }
}
