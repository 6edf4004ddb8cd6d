//! A directory tree that nothing done through it can leave: every path is resolved by the kernel with the tree as its root
//! (openat2(2), `RESOLVE_IN_ROOT`), so that a symlink inside a layer leads where it would lead in the container.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::tar::bad;
use crate::error::{Error, Result};

/// Open directories kept: a layer's neighbours are mostly in the same few.
const KEPT: usize = 48;

/// How deep a walk inside the tree goes before it gives up: each level holds a descriptor.
const DEEPEST: usize = 256;

/// An open tree.
#[derive(Debug)]
pub(crate) struct Tree {
    root: Arc<OwnedFd>,
    known: HashMap<Vec<u8>, (Arc<OwnedFd>, u64)>,
    clock: u64,
    /// Whether no path leads through a symlink.
    no_links: bool,
}

impl Tree {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root =
            nix::fcntl::open(dir, flags, Mode::empty()).map_err(|e| Error::os(format!("open {}", dir.display()), e))?;
        Ok(Self {
            root: Arc::new(root),
            known: HashMap::new(),
            clock: 0,
            no_links: false,
        })
    }

    /// Follows no symlink from now on: where they would lead to something else than for those who made them.
    pub(crate) fn follow_no_links(&mut self) {
        self.no_links = true;
    }

    pub(crate) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// An `O_PATH` descriptor of a directory in the tree; symlinks in the path are followed inside it.
    pub(crate) fn dir(&mut self, path: &[u8]) -> Result<Arc<OwnedFd>, Errno> {
        if path.is_empty() {
            return Ok(Arc::clone(&self.root));
        }
        self.clock += 1;
        if let Some((fd, used)) = self.known.get_mut(path) {
            *used = self.clock;
            return Ok(Arc::clone(fd));
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = Arc::new(resolve(&self.root, path, flags, self.no_links)?);
        self.make_room();
        self.known.insert(path.to_vec(), (Arc::clone(&fd), self.clock));
        Ok(fd)
    }

    /// Forgets open directories: one of them, or a symlink on the way to one, was removed.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
    }

    fn make_room(&mut self) {
        if self.known.len() < KEPT {
            return;
        }
        let oldest = self
            .known
            .iter()
            .min_by_key(|(_, (_, used))| *used)
            .map(|(path, _)| path.clone());
        if let Some(oldest) = oldest {
            self.known.remove(&oldest);
        }
    }
}

/// Opens a path with `root` as its root directory, through symlinks or not.
pub(crate) fn resolve(root: &OwnedFd, path: &[u8], flags: OFlag, no_links: bool) -> Result<OwnedFd, Errno> {
    let mut limits = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    limits.set(ResolveFlag::RESOLVE_NO_SYMLINKS, no_links);
    let how = OpenHow::new().flags(flags).resolve(limits);
    let mut tries = 0;
    loop {
        match openat2(root, path, how) {
            // A rename or mount anywhere on the host raced with a "..": the kernel asks to try again.
            Err(Errno::EAGAIN) if tries < 1000 => tries += 1,
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

pub(crate) fn stat(dir: impl AsFd, name: &[u8]) -> Result<FileStat, Errno> {
    fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)
}

pub(crate) fn is_dir(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()
}

/// Removes an entry and all below it, except what `keep` says by inode number, and the directories that hold such.
/// Returns whether the entry itself is gone.
pub(crate) fn remove_except(dir: impl AsFd, name: &[u8], keep: &dyn Fn(u64) -> bool) -> Result<bool> {
    remove_at(dir.as_fd(), name, keep, 0)
}

fn remove_at(dir: std::os::fd::BorrowedFd<'_>, name: &[u8], keep: &dyn Fn(u64) -> bool, depth: usize) -> Result<bool> {
    let failed = |e| Error::os("remove what a layer replaces", e);
    let there = match stat(dir, name) {
        Ok(there) => there,
        Err(Errno::ENOENT) => return Ok(true),
        Err(e) => return Err(failed(e)),
    };
    if !is_dir(&there) {
        if keep(there.st_ino) {
            return Ok(false);
        }
        unlinkat(dir, name, UnlinkatFlags::NoRemoveDir).map_err(failed)?;
        return Ok(true);
    }
    let empty = clear_at(dir, name, keep, depth + 1)?;
    if !empty || keep(there.st_ino) {
        return Ok(false);
    }
    unlinkat(dir, name, UnlinkatFlags::RemoveDir).map_err(failed)?;
    Ok(true)
}

/// Removes what is in a directory, except what is kept; returns whether it is empty now.
pub(crate) fn clear_except(dir: impl AsFd, keep: &dyn Fn(u64) -> bool) -> Result<bool> {
    clear_at(dir.as_fd(), b".", keep, 0)
}

fn clear_at(dir: std::os::fd::BorrowedFd<'_>, name: &[u8], keep: &dyn Fn(u64) -> bool, depth: usize) -> Result<bool> {
    if depth > DEEPEST {
        return Err(bad("a removed directory that is too deep"));
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut opened = nix::dir::Dir::openat(dir, name, flags, Mode::empty())
        .map_err(|e| Error::os("open what a layer replaces", e))?;
    let mut names = Vec::new();
    for entry in opened.iter() {
        let entry = entry.map_err(|e| Error::os("read directory", e))?;
        names.push(entry.file_name().to_bytes().to_vec());
    }
    let mut empty = true;
    for name in names.iter().filter(|name| !matches!(name.as_slice(), b"." | b"..")) {
        empty &= remove_at(opened.as_fd(), name, keep, depth)?;
    }
    Ok(empty)
}
