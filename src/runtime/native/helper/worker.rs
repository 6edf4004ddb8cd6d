//! Requests other than starts: owners, trees, mounts.

use crate::everyone::Below;
use crate::message::Fds;
use crate::sys::{self, Sys};
use crate::wire::{Mounts, Strings, u32_at};
use crate::{mounts, remove};

/// Applies owner, mode and attributes to each descriptor. A record is five words (uid, gid, mode or all ones, number of
/// attributes, bytes of attributes) and the attributes: a name as in lists, then the value's length and bytes.
///
/// It is gone through twice: a list that is cut short somewhere changes nothing.
pub(crate) fn change_owners(blob: &[u8], fds: &Fds) -> Sys<()> {
    for apply in [false, true] {
        change_each(blob, fds, apply)?;
    }
    Ok(())
}

#[inline(never)]
fn change_each(mut blob: &[u8], fds: &Fds, apply: bool) -> Sys<()> {
    let mut index = 0;
    while !blob.is_empty() {
        let word = |at: usize| u32_at(blob, at * 4).ok_or(sys::EBADMSG);
        let (uid, gid, mode, count, len) = (word(0)?, word(1)?, word(2)?, word(3)?, word(4)? as usize);
        let end = len.checked_add(20).ok_or(sys::EBADMSG)?;
        let attributes = blob.get(20..end).ok_or(sys::EBADMSG)?;
        let fd = fds.get(index).ok_or(sys::EBADMSG)?;
        if apply {
            sys::fchownat(fd, b"\0", uid, gid, sys::AT_EMPTY_PATH)?;
        }
        if apply && mode != u32::MAX {
            sys::fchmod(fd, mode)?;
        }
        each_attribute(fd, count, attributes, apply)?;
        blob = blob.get(end..).unwrap_or(&[]);
        index += 1;
    }
    Ok(())
}

fn each_attribute(fd: i32, count: u32, mut bytes: &[u8], apply: bool) -> Sys<()> {
    for _ in 0..count {
        let mut strings = Strings(bytes);
        let name = strings.next().ok_or(sys::EBADMSG)?;
        let rest = strings.0;
        let len = u32_at(rest, 0).ok_or(sys::EBADMSG)? as usize;
        let end = len.checked_add(4).ok_or(sys::EBADMSG)?;
        let value = rest.get(4..end).ok_or(sys::EBADMSG)?;
        if apply {
            sys::fsetxattr(fd, name, value)?;
        }
        bytes = rest.get(end..).unwrap_or(&[]);
    }
    if bytes.is_empty() { Ok(()) } else { Err(sys::EBADMSG) }
}

/// Sends a signal to every process of a container but its first, at one moment for all: from inside, where "all" is the
/// container.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn signal_all(blob: &[u8], fds: &Fds) -> Sys<()> {
    let signal = u32_at(blob, 0).ok_or(sys::EBADMSG)?;
    let container = fds.get(0).ok_or(sys::EBADMSG)?;
    // Its own mount namespace as well: whoever is inside for a moment leads nobody to the host's files (CVE-2016-9962).
    let inside = Below::enter(container)?;
    sys::setns(container, sys::CLONE_NEWNS)?;
    let child = sys::fork()?;
    if child != 0 {
        let (_, status) = sys::wait(child, false)?;
        return match status >> 8 & 0xff {
            // Killed on the way: the container is ending, and everything in it.
            0 => Ok(()),
            errno => Err(errno),
        };
    }
    sys::exit(signal_from_inside(inside, signal as i32))
}

/// With no descriptor and no capability but the one that it needs.
fn signal_from_inside(inside: Below, signal: i32) -> i32 {
    const CAP_KILL: u64 = 1 << 5;
    const ESRCH: i32 = 3;
    if sys::close_range(0, false).is_err() || sys::capset(CAP_KILL, CAP_KILL, 0).is_err() {
        return sys::EPERM;
    }
    match inside.signal(signal) {
        // The first process is alone.
        Ok(_) | Err(ESRCH) => 0,
        Err(errno) => errno,
    }
}

/// Removes every tree of a list; the first error, after all were tried. None of a list that is cut short.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn remove_trees(blob: &[u8]) -> Sys<()> {
    if !Strings(blob).well_formed() {
        return Err(sys::EBADMSG);
    }
    let mut first = Ok(());
    for path in Strings(blob) {
        let result = remove::tree(path);
        if first.is_ok() {
            first = result;
        }
    }
    first
}

/// Makes the one mount of a list; a descriptor that comes along is the device of FUSE.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn mount(blob: &[u8], fds: &Fds) -> Sys<i32> {
    let mut list = Mounts(blob);
    let record = list.next().ok_or(sys::EBADMSG)?;
    if !list.0.is_empty() {
        return Err(sys::EBADMSG);
    }
    mounts::make(&record, fds)
}
