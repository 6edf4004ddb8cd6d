//! Removes trees and cgroups, without a heap and without recursion, however deep a tree is.

use crate::sys::{self, AT_FDCWD, AT_REMOVEDIR, Sys};
use crate::wire::put_words;

/// Deepest tree that is removed.
const DEEPEST: usize = 64 * 1024;
const ENTRIES: usize = 8 * 1024;

/// How often a walk begins anew because somebody else removes the same tree.
const WALKS: usize = 1000;

/// Removes what is at an absolute path, all of it. What is gone already is no error, nor what goes meanwhile: a sweeper may
/// be at the same tree.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn tree(path: &[u8]) -> Sys<()> {
    match sys::unlinkat(AT_FDCWD, path, 0) {
        Ok(_) | Err(sys::ENOENT) => return Ok(()),
        Err(_) => {}
    }
    for _ in 0..WALKS {
        // A directory that is removed under the walk has no entries to read and no way up.
        match empty(path) {
            Err(sys::ENOENT) => continue,
            result => result?,
        }
        return match sys::unlinkat(AT_FDCWD, path, AT_REMOVEDIR) {
            Ok(_) | Err(sys::ENOENT) => Ok(()),
            Err(errno) => Err(errno),
        };
    }
    Err(sys::ENOENT)
}

/// Walks down to the first directory that is not empty, empties it, and steps up again; the way back is checked against
/// the way down, so that a directory that somebody moves meanwhile cannot lead elsewhere.
#[unsafe(link_section = "lhchild")]
fn empty(path: &[u8]) -> Sys<()> {
    let flags = sys::O_DIRECTORY | sys::O_NOFOLLOW;
    let mut here = match sys::open(AT_FDCWD, path, flags) {
        Err(sys::ENOENT) => return Ok(()),
        result => result?,
    };
    let mut way = Way::new()?;
    let result = walk(&mut here, &mut way);
    sys::close(here);
    way.free();
    result
}

#[unsafe(link_section = "lhchild")]
fn walk(here: &mut i32, way: &mut Way) -> Sys<()> {
    loop {
        match clear(*here)? {
            Some(child) => {
                let noted = way.push(*here);
                sys::close(core::mem::replace(here, child));
                noted?;
            }
            None if way.depth == 0 => return Ok(()),
            None => {
                let above = sys::open(*here, b"..\0", sys::O_DIRECTORY | sys::O_NOFOLLOW)?;
                sys::close(core::mem::replace(here, above));
                way.pop(above)?;
            }
        }
    }
}

/// Inode and device of every directory above.
struct Way {
    memory: &'static mut [u8],
    depth: usize,
}

impl Way {
    fn new() -> Sys<Self> {
        Ok(Self {
            memory: sys::map(DEEPEST * 16)?,
            depth: 0,
        })
    }

    fn identity(fd: i32) -> Sys<[u8; 16]> {
        let stat = sys::stat_fd(fd)?;
        let mut out = [0u8; 16];
        let words = [stat.inode as u32, (stat.inode >> 32) as u32, stat.dev.0, stat.dev.1];
        put_words(&mut out, &words);
        Ok(out)
    }

    fn push(&mut self, fd: i32) -> Sys<()> {
        let slot = self
            .memory
            .get_mut(self.depth * 16..self.depth * 16 + 16)
            .ok_or(sys::ELOOP)?;
        slot.copy_from_slice(&Self::identity(fd)?);
        self.depth += 1;
        Ok(())
    }

    fn pop(&mut self, fd: i32) -> Sys<()> {
        self.depth -= 1;
        let slot = self
            .memory
            .get(self.depth * 16..self.depth * 16 + 16)
            .ok_or(sys::ELOOP)?;
        if slot != Self::identity(fd)? {
            Err(sys::ELOOP)
        } else {
            Ok(())
        }
    }

    fn free(self) {
        sys::unmap(self.memory);
    }
}

/// Removes the entries of a directory; stops at the first directory that is not empty, and opens it.
fn clear(dir: i32) -> Sys<Option<i32>> {
    let mut buffer = [0u64; ENTRIES / 8];
    loop {
        // SAFETY: the same memory as bytes; the kernel writes records aligned to eight.
        let bytes = unsafe { core::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast::<u8>(), ENTRIES) };
        let len = match sys::getdents(dir, bytes) {
            // Somebody else removes the same tree, and has removed this directory.
            Err(sys::ENOENT) => 0,
            result => result?,
        };
        if len == 0 {
            return Ok(None);
        }
        let mut records = bytes.get(..len).unwrap_or(&[]);
        while let Some((name, is_dir, rest)) = entry(records) {
            records = rest;
            if name == b".\0" || name == b"..\0" {
                continue;
            }
            if let Some(child) = remove_entry(dir, name, is_dir)? {
                return Ok(Some(child));
            }
        }
    }
}

/// Splits off one `struct linux_dirent64`.
pub(crate) fn entry(records: &[u8]) -> Option<(&[u8], bool, &[u8])> {
    const DT_DIR: u8 = 4;
    let len = usize::from(crate::wire::u16_at(records, 16)?);
    let record = records.get(..len)?;
    let name = record.get(19..)?;
    let end = name.iter().position(|byte| *byte == 0)?;
    Some((name.get(..=end)?, *record.get(18)? == DT_DIR, records.get(len..)?))
}

fn remove_entry(dir: i32, name: &[u8], is_dir: bool) -> Sys<Option<i32>> {
    if !is_dir {
        match sys::unlinkat(dir, name, 0) {
            Ok(_) | Err(sys::ENOENT) => return Ok(None),
            Err(sys::EISDIR) => {}
            Err(errno) => return Err(errno),
        }
    }
    match sys::unlinkat(dir, name, AT_REMOVEDIR) {
        Ok(_) | Err(sys::ENOENT) => Ok(None),
        Err(sys::ENOTEMPTY | sys::EEXIST) => match descend(dir, name) {
            Err(sys::ENOENT) => Ok(None),
            result => result.map(Some),
        },
        Err(errno) => Err(errno),
    }
}

/// Opens a directory below, never a mount or a link; makes it readable if it is not.
fn descend(dir: i32, name: &[u8]) -> Sys<i32> {
    let flags = sys::O_DIRECTORY | sys::O_NOFOLLOW;
    let resolve = sys::RESOLVE_BENEATH | sys::RESOLVE_NO_XDEV | sys::RESOLVE_NO_SYMLINKS;
    match sys::openat2(dir, name, flags, resolve) {
        Err(sys::EACCES) => {
            sys::fchmodat(dir, name, 0o700)?;
            sys::openat2(dir, name, flags, resolve)
        }
        result => {
            let child = result?;
            // Being able to read it is not being able to remove from it.
            let _ = sys::fchmod(child, 0o700);
            Ok(child)
        }
    }
}

/// Kills what is in a cgroup, of either version, frozen or not.
pub(crate) fn kill_cgroup(path: &[u8]) {
    let Ok(dir) = sys::open(AT_FDCWD, path, sys::O_PATH | sys::O_DIRECTORY | sys::O_NOFOLLOW) else {
        return;
    };
    for (name, value) in [
        (b"cgroup.kill\0" as &[u8], b"1" as &[u8]),
        (b"cgroup.freeze\0", b"0"),
        (b"freezer.state\0", b"THAWED"),
    ] {
        if let Ok(file) = sys::open(dir, name, sys::O_WRONLY) {
            let _ = sys::write(file, value);
            sys::close(file);
        }
    }
    sys::close(dir);
}

/// Removes a cgroup and the ones that the container made below it. Files of a cgroup go with it. `EBUSY` while a process
/// is still on its way out.
pub(crate) fn cgroup(path: &[u8]) -> Sys<()> {
    // Depth is bounded by trying again: every round removes at least the leaves.
    for _ in 0..64 {
        match sys::unlinkat(AT_FDCWD, path, AT_REMOVEDIR) {
            Ok(_) | Err(sys::ENOENT) => return Ok(()),
            Err(sys::EBUSY | sys::ENOTEMPTY) => {}
            Err(errno) => return Err(errno),
        }
        if !leaves(path)? {
            return Err(sys::EBUSY);
        }
    }
    Err(sys::EBUSY)
}

/// Removes the leaves below a cgroup; whether any went.
fn leaves(path: &[u8]) -> Sys<bool> {
    let flags = sys::O_DIRECTORY | sys::O_NOFOLLOW;
    let mut here = sys::open(AT_FDCWD, path, flags)?;
    let mut any = false;
    for _ in 0..64 {
        let (removed, deeper) = sweep_level(here)?;
        any |= removed;
        let Some(deeper) = deeper else { break };
        sys::close(here);
        here = deeper;
    }
    sys::close(here);
    Ok(any)
}

fn sweep_level(dir: i32) -> Sys<(bool, Option<i32>)> {
    let mut buffer = [0u8; ENTRIES];
    let mut removed = false;
    let mut deeper = None;
    loop {
        let len = sys::getdents(dir, &mut buffer)?;
        if len == 0 {
            return Ok((removed, deeper));
        }
        let mut records = buffer.get(..len).unwrap_or(&[]);
        while let Some((name, is_dir, rest)) = entry(records) {
            records = rest;
            if !is_dir || name == b".\0" || name == b"..\0" {
                continue;
            }
            if sys::unlinkat(dir, name, AT_REMOVEDIR).is_ok() {
                removed = true;
            } else if deeper.is_none() {
                deeper = sys::open(dir, name, sys::O_DIRECTORY | sys::O_NOFOLLOW).ok();
            }
        }
    }
}
