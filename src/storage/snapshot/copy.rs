//! Copies a tree with all that belongs to it: types, owners, modes, times, attributes, hard links, holes.

use std::collections::HashMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Whence, lseek};

use super::records::set_mode;
use crate::error::{Error, Result};
use crate::storage::layer::{Notes, OWNER_XATTR, Tree};
use crate::storage::ownership::Ownership;
use crate::sys::{reflink, xattr};

/// Copies what is in `from` into the empty directory `to`, and the looks of `from` itself. Both are ours alone; symlinks
/// are copied, never followed. With `owners`, owners are copied too, which needs root.
///
/// # Errors
/// `Os` with the errno; `ENAMETOOLONG` for a tree deeper than a path can say.
pub(crate) fn tree(from: &Path, to: &Path, owners: bool) -> Result<()> {
    let mut copier = Copier {
        owners,
        links: HashMap::new(),
        shares: true,
    };
    let mut dirs = vec![PathBuf::new()];
    let mut next = 0;
    while next < dirs.len() {
        let dir = dirs[next].clone();
        next += 1;
        for name in names(&from.join(&dir))? {
            let path = dir.join(name);
            let (source, target) = (from.join(&path), to.join(&path));
            if copier
                .entry(&source, &target)
                .map_err(|e| e.context(format!("copy {}", source.display())))?
            {
                dirs.push(path);
            }
        }
    }
    // Deepest first, so that neither modes nor times are disturbed by what is still to come.
    for dir in dirs.iter().rev() {
        let (source, target) = (from.join(dir), to.join(dir));
        let there = fs::symlink_metadata(&source).map_err(|e| Error::os("stat", e))?;
        copier.finish(&source, &target, &there)?;
    }
    Ok(())
}

/// Gives a copied tree the owners and modes of its table.
pub(crate) fn own(dir: &Path, mut notes: Notes, ownership: &Ownership) -> Result<()> {
    match ownership {
        Ownership::Direct => Ok(()),
        Ownership::Mapped(privileged) => notes.carry_out(&mut Tree::open(dir)?, &**privileged),
        Ownership::Squashed => squash(dir, &notes),
    }
}

fn squash(dir: &Path, notes: &Notes) -> Result<()> {
    use std::os::unix::ffi::OsStrExt;
    for (path, change) in notes.iter() {
        let path = dir.join(std::ffi::OsStr::from_bytes(path));
        let Some(there) =
            crate::storage::files::found(fs::symlink_metadata(&path)).map_err(|e| Error::os("stat", e))?
        else {
            continue;
        };
        if !(there.is_file() || there.is_dir()) {
            continue;
        }
        if change.uid != 0 || change.gid != 0 {
            keep(xattr::set_link(
                &path,
                OWNER_XATTR,
                format!("{}:{}", change.uid, change.gid).as_bytes(),
            ))?;
        }
        if let Some(mode) = change.mode {
            set_mode(&path, mode)?;
        }
    }
    Ok(())
}

fn names(dir: &Path) -> Result<Vec<std::ffi::OsString>> {
    let failed = |e| Error::os(format!("read {}", dir.display()), e);
    let entries = fs::read_dir(dir).map_err(failed)?;
    entries
        .map(|entry| entry.map(|entry| entry.file_name()).map_err(failed))
        .collect()
}

struct Copier {
    owners: bool,
    /// Where inodes with several names were copied to.
    links: HashMap<u64, PathBuf>,
    /// Whether the file system may be able to share blocks: asked once.
    shares: bool,
}

impl Copier {
    /// Copies one entry; returns whether it is a directory, whose looks come later.
    fn entry(&mut self, from: &Path, to: &Path) -> Result<bool> {
        let there = fs::symlink_metadata(from).map_err(|e| Error::os("stat", e))?;
        if there.is_dir() {
            fs::create_dir(to).map_err(|e| Error::os("mkdir", e))?;
            set_mode(to, 0o700)?;
            return Ok(true);
        }
        if there.nlink() > 1 {
            if let Some(first) = self.links.get(&there.ino()) {
                fs::hard_link(first, to).map_err(|e| Error::os("link", e))?;
                return Ok(false);
            }
            self.links.insert(there.ino(), to.to_owned());
        }
        if there.is_file() {
            self.file(from, to, there.len())?;
        } else if there.is_symlink() {
            let target = fs::read_link(from).map_err(|e| Error::os("readlink", e))?;
            std::os::unix::fs::symlink(target, to).map_err(|e| Error::os("symlink", e))?;
        } else {
            make_node(to, &there)?;
        }
        self.finish(from, to, &there)?;
        Ok(false)
    }

    fn file(&mut self, from: &Path, to: &Path, size: u64) -> Result<()> {
        let from = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(from)
            .map_err(|e| Error::os("open", e))?;
        let to = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to)
            .map_err(|e| Error::os("create", e))?;
        if size == 0 {
            return Ok(());
        }
        if self.shares {
            match reflink::clone(&from, &to) {
                Ok(()) => return Ok(()),
                Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EIO)) => {
                    return Err(Error::os("reflink", e));
                }
                Err(_) => self.shares = false,
            }
        }
        copy_data(&from, &to, size)?;
        to.set_len(size).map_err(|e| Error::os("ftruncate", e))
    }

    /// Owner, attributes, mode and times, in the order in which one does not undo another.
    fn finish(&self, from: &Path, to: &Path, there: &Metadata) -> Result<()> {
        if self.owners {
            std::os::unix::fs::lchown(to, Some(there.uid()), Some(there.gid())).map_err(|e| Error::os("lchown", e))?;
        }
        for name in xattr::list_link(from).map_err(|e| Error::os("list extended attributes", e))? {
            let value = xattr::get_link(from, &name).map_err(|e| Error::os("get extended attribute", e))?;
            let Some(value) = value else { continue };
            keep(xattr::set_link(to, &name, &value))?;
        }
        if !there.is_symlink() {
            set_mode(to, there.mode() & 0o7777)?;
        }
        let (atime, mtime) = (
            TimeSpec::new(there.atime(), there.atime_nsec()),
            TimeSpec::new(there.mtime(), there.mtime_nsec()),
        );
        utimensat(AT_FDCWD, to, &atime, &mtime, UtimensatFlags::NoFollowSymlink).map_err(|e| Error::os("utimensat", e))
    }
}

/// Labels that another policy module sets on its own are left to it.
fn keep(set: io::Result<()>) -> Result<()> {
    match set {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTSUP | libc::EPERM)) => Ok(()),
        other => other.map_err(|e| Error::os("set extended attribute", e)),
    }
}

fn make_node(to: &Path, there: &Metadata) -> Result<()> {
    let kind = there.file_type();
    let kind = match () {
        () if kind.is_fifo() => SFlag::S_IFIFO,
        () if kind.is_char_device() => SFlag::S_IFCHR,
        () if kind.is_block_device() => SFlag::S_IFBLK,
        () => SFlag::S_IFSOCK,
    };
    mknod(to, kind, Mode::from_bits_truncate(0o600), there.rdev()).map_err(|e| Error::os("mknod", e))
}

/// Copies the parts of a file that hold data.
fn copy_data(from: &File, to: &File, size: u64) -> Result<()> {
    let size = i64::try_from(size).map_err(|_| Error::internal("a file beyond what offsets can say"))?;
    let mut at = 0i64;
    while at < size {
        let start = match lseek(from, at, Whence::SeekData) {
            Ok(start) => start,
            Err(Errno::ENXIO) => return Ok(()),
            // A file system without holes: everything is data.
            Err(Errno::EINVAL) => at,
            Err(e) => return Err(Error::os("lseek", e)),
        };
        let end = lseek(from, start, Whence::SeekHole).unwrap_or(size).min(size);
        copy_range(from, to, start, end)?;
        at = end.max(start + 1);
    }
    Ok(())
}

fn copy_range(from: &File, to: &File, start: i64, end: i64) -> Result<()> {
    let mut at = start;
    while at < end {
        let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
        match reflink::copy_range(from, to, at, length) {
            Ok(0) => return Ok(()),
            Ok(copied) => at += copied as i64,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(libc::EXDEV | libc::ENOSYS | libc::EOPNOTSUPP | libc::EINVAL)
                ) =>
            {
                return copy_by_hand(from, to, at, end);
            }
            Err(e) => return Err(Error::os("copy_file_range", e)),
        }
    }
    Ok(())
}

fn copy_by_hand(from: &File, to: &File, start: i64, end: i64) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let (mut at, end) = (start.unsigned_abs(), end.unsigned_abs());
    let mut buffer = vec![0u8; 256 << 10];
    while at < end {
        let want = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
        let length = from
            .read_at(&mut buffer[..want], at)
            .map_err(|e| Error::os("read", e))?;
        if length == 0 {
            return Ok(());
        }
        to.write_all_at(&buffer[..length], at)
            .map_err(|e| Error::os("write", e))?;
        at += length as u64;
    }
    Ok(())
}
