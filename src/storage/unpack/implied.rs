//! Directories that a layer has files in but says nothing of: they take mode, owner and times of what the layers below
//! have there, so that the layer does not change them by being silent. Done when the parent is committed, since layers
//! are unpacked side by side.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown};

use crate::error::{Error, Result};
use crate::storage::layer::{OWNER_XATTR, Tree};
use crate::storage::ownership::{OwnerChange, Ownership};
use crate::sys::xattr;
use crate::types::{Mount, MountSource};

/// The directories behind a view, the topmost first.
pub(super) fn trees_of(mounts: &[Mount]) -> Vec<PathBuf> {
    match mounts.first().map(|mount| &mount.source) {
        Some(MountSource::Bind { path }) => vec![path.clone()],
        Some(MountSource::Overlay { lower, .. }) => lower.clone(),
        Some(MountSource::FileSystem { .. }) | None => Vec::new(),
    }
}

/// Makes the implied directories of `layer` look like those below. Blocking.
pub(super) fn copy_looks(layer: &Path, implied: &[PathBuf], below: &[PathBuf], ownership: &Ownership) -> Result<()> {
    let mut layer = Tree::open(layer)?;
    let mut below = below.iter().map(|dir| Tree::open(dir)).collect::<Result<Vec<_>>>()?;
    let own = fstat(layer.root()).map_err(|e| Error::os("stat layer", e))?;
    for path in implied.iter().rev() {
        let path = path.as_os_str().as_bytes();
        let Some((model, owner)) = find(&mut below, path, !matches!(ownership, Ownership::Direct))? else {
            continue;
        };
        let dir = layer.dir(path).map_err(|e| Error::os("open implied directory", e))?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = openat(&*dir, c".", flags, Mode::empty()).map_err(|e| Error::os("open implied directory", e))?;
        dress(dir, &model, owner, &own, ownership)?;
    }
    Ok(())
}

/// The topmost directory of that path; something else there, or a directory we may not look into, ends the search.
fn find(below: &mut [Tree], path: &[u8], noted: bool) -> Result<Option<(FileStat, Option<Vec<u8>>)>> {
    for tree in below {
        let found = match tree.dir(path) {
            Ok(found) => found,
            Err(Errno::ENOENT) => continue,
            Err(Errno::ENOTDIR | Errno::EACCES | Errno::ELOOP) => return Ok(None),
            Err(e) => return Err(Error::os("look for directory below", e)),
        };
        let there = fstat(&*found).map_err(|e| Error::os("stat directory below", e))?;
        let owner = if noted { owner_note(&found)? } else { None };
        return Ok(Some((there, owner)));
    }
    Ok(None)
}

fn owner_note(dir: &OwnedFd) -> Result<Option<Vec<u8>>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    match openat(dir, c".", flags, Mode::empty()) {
        Ok(dir) => xattr::get(&dir, OWNER_XATTR).map_err(|e| Error::os("get owner note", e)),
        Err(Errno::EACCES) => Ok(None),
        Err(e) => Err(Error::os("open directory below", e)),
    }
}

fn dress(dir: OwnedFd, model: &FileStat, note: Option<Vec<u8>>, own: &FileStat, ownership: &Ownership) -> Result<()> {
    if let Some(note) = &note {
        xattr::set(&dir, OWNER_XATTR, note).map_err(|e| Error::os("note owner", e))?;
    }
    let times = TimeSpec::new(model.st_mtime, model.st_mtime_nsec);
    futimens(&dir, &times, &times).map_err(|e| Error::os("futimens", e))?;
    let mode = Mode::from_bits_truncate(model.st_mode & !SFlag::S_IFMT.bits());
    let foreign = (model.st_uid, model.st_gid) != (own.st_uid, own.st_gid);
    if foreign && matches!(ownership, Ownership::Direct) {
        let (uid, gid) = (Uid::from_raw(model.st_uid), Gid::from_raw(model.st_gid));
        fchown(&dir, Some(uid), Some(gid)).map_err(|e| Error::os("fchown", e))?;
    }
    fchmod(&dir, mode).map_err(|e| Error::os("fchmod", e))?;
    let (Ownership::Mapped(privileged), Some((uid, gid))) = (ownership, note.as_deref().and_then(ids)) else {
        return Ok(());
    };
    privileged.change_owners(vec![(
        dir,
        OwnerChange {
            uid,
            gid,
            mode: Some(mode.bits()),
            xattrs: Vec::new(),
        },
    )])
}

/// `uid:gid`.
fn ids(note: &[u8]) -> Option<(u32, u32)> {
    let (uid, gid) = std::str::from_utf8(note).ok()?.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}
