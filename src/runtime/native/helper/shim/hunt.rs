//! Finds and kills all that a command has started, wherever it went. Whatever leaves its process group and its parents is a child
//! of the container's first process then, and nothing tells it from the container's own, but for the UTS namespace of its
//! own that the command was given.

use crate::fail::missing;
use crate::remove::entry;
use crate::sys::{self, AT_FDCWD, Stat};
use crate::zygote::SIGKILL;

/// Bytes of names that are read at once.
const NAMES: usize = 1024;

/// Sends SIGKILL to every process of a UTS namespace. Whether there may be one still, which is on its way out perhaps, or was
/// forked meanwhile. The namespace has to be open all the time: the number of one that is gone may be another's.
#[inline(never)]
#[unsafe(link_section = "lhshim")]
pub(super) fn kill_all_in(namespace: i32) -> bool {
    let Ok(wanted) = sys::stat_fd(namespace) else { return false };
    let proc = match sys::open(AT_FDCWD, b"/proc\0", sys::O_DIRECTORY) {
        Err(errno) => return !missing(errno),
        Ok(proc) => proc,
    };
    let mut found = false;
    let mut buffer = [0u8; NAMES];
    while let Ok(len @ 1..) = sys::getdents(proc, &mut buffer) {
        let mut records = buffer.get(..len).unwrap_or(&[]);
        while let Some((name, _, rest)) = entry(records) {
            records = rest;
            if name.first().is_some_and(u8::is_ascii_digit) {
                found |= kill_one(proc, name, &wanted);
            }
        }
    }
    sys::close(proc);
    found
}

/// Kills a process if it is in the namespace; whether it was, or could not be looked at for want of something.
#[inline(never)]
#[unsafe(link_section = "lhshim")]
fn kill_one(proc: i32, name: &[u8], wanted: &Stat) -> bool {
    // From here on it is this process, whoever has its number next.
    let process = match sys::open(proc, name, sys::O_DIRECTORY) {
        Err(errno) => return !(missing(errno) || errno == sys::ESRCH || errno == sys::EACCES),
        Ok(process) => process,
    };
    // One that is dead has none any more; one of somebody else's is not to be looked at.
    let seen = sys::statx(process, b"ns/uts\0", 0);
    let found = seen.is_ok_and(|seen| (seen.inode, seen.dev) == (wanted.inode, wanted.dev));
    if found {
        let _ = sys::kill_at(process, SIGKILL);
    }
    sys::close(process);
    found
}
