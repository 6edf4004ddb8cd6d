//! Files, links and nodes.

use std::fs::File;
use std::io::{BufRead, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, futimens, makedev, mknodat};
use nix::sys::statfs::FsType;
use nix::unistd::{linkat, symlinkat};

use super::leftovers::Leftovers;
use super::{Extractor, Keep, mode_of, set_times_at, time_of, unresolved};
use crate::error::{Error, Result};
use crate::storage::layer::crew::Fresh;
use crate::storage::layer::name::{self, show, split};
use crate::storage::layer::tar::{Entry, Kind, Reader, bad};
use crate::storage::layer::tree::stat;
use crate::storage::room::Room;
use crate::sys::mode;

impl Extractor {
    pub(super) fn file<R: BufRead>(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<()> {
        let change = self.change_of(entry);
        let made = self.mode_to_make(entry, change.is_some());
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = match openat(dir, name, flags, mode_of(made)) {
            Err(Errno::EEXIST) => {
                let held = Leftovers::hold(dir, name, entry.size);
                self.replace(dir, name, path)?;
                if let Some(held) = held {
                    self.leftovers.free(held);
                }
                openat(dir, name, flags, mode_of(made))
            }
            other => other,
        };
        let file = File::from(opened.map_err(|e| Error::os("create file", e))?);
        let stored = match &entry.sparse {
            None => write_plain(&file, entry.size, self.upper, reader)?,
            Some(map) => write_sparse(&file, map, entry.size, reader)?,
        };
        self.count(stored);
        self.chown_file(&file, entry)?;
        self.file_xattrs(&file, entry)?;
        let last = if change.is_some() { made } else { entry.mode };
        if last != made & !self.umask {
            fchmod(&file, mode_of(last)).map_err(|e| Error::os("fchmod", e))?;
        }
        let time = time_of(entry.mtime);
        futimens(&file, &time, &time).map_err(|e| Error::os("futimens", e))?;
        self.note(path, change);
        Ok(())
    }

    /// Whether nothing of the layer can be in the way of a file, or it in the way of what is to come, but an entry of the
    /// same path: then it can be written by others, later.
    pub(super) fn is_fresh(&mut self, parent: &[u8], path: &[u8], entry: &Entry) -> bool {
        entry.kind == Kind::File
            && entry.sparse.is_none()
            && entry.xattrs.is_empty()
            && self.crew.takes(entry.size)
            && !self.crew.is_pending(path)
            && self.own_dirs.contains(parent)
            && !self.dirs.contains_key(path)
            && self.change_of(entry).is_none()
            && (!matches!(self.keep, Keep::Squash) || (entry.uid == 0 && entry.gid == 0))
    }

    pub(super) fn fresh_file<R: BufRead>(
        &mut self,
        parent: &[u8],
        name: Vec<u8>,
        path: Vec<u8>,
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<()> {
        let dir = self.tree.dir(parent).map_err(|e| unresolved(parent, e))?;
        let body = self.crew.body();
        let start = body.len();
        loop {
            let piece = reader.data()?;
            if piece.is_empty() {
                break;
            }
            body.extend_from_slice(piece);
            let length = piece.len();
            reader.consume(length)?;
        }
        let length = body.len() - start;
        let make = self.mode_to_make(entry, false);
        self.count(length as u64);
        let full = self.crew.push(Fresh {
            dir,
            name,
            path,
            make,
            set: (entry.mode != make & !self.umask).then_some(entry.mode),
            owner: self.must_chown(entry.uid, entry.gid).then_some((entry.uid, entry.gid)),
            time: time_of(entry.mtime),
            length,
        })?;
        if full {
            self.finish_files()?;
        }
        Ok(())
    }

    /// Before something is done under a path: sees the files written that it could meet.
    pub(super) fn see_written(&mut self, parent: &[u8], path: &[u8], anything: bool) -> Result<()> {
        if !self.crew.has_pending() {
            return Ok(());
        }
        // Behind a symlink, a path may be another one's.
        if anything || !self.own_dirs.contains(parent) || self.crew.is_pending(path) {
            self.finish_files()?;
        }
        Ok(())
    }

    /// Sees all files written that were handed to others.
    pub(super) fn finish_files(&mut self) -> Result<()> {
        for (fresh, body) in self.crew.finish()? {
            self.replace(&fresh.dir, &fresh.name, &fresh.path)?;
            if !fresh.write(&body)? {
                return Err(Error::os("create file", Errno::EEXIST).context(format!("unpack {}", show(&fresh.path))));
            }
        }
        Ok(())
    }

    pub(super) fn symlink(&mut self, dir: &OwnedFd, name: &[u8], path: &[u8], entry: &Entry) -> Result<()> {
        if entry.link.is_empty() || entry.link.len() > self.limits.path_bytes || entry.link.contains(&0) {
            return Err(bad("a symlink to nothing, or to more than a path can be"));
        }
        let made = match symlinkat(entry.link.as_slice(), dir, name) {
            Err(Errno::EEXIST) => {
                self.replace(dir, name, path)?;
                symlinkat(entry.link.as_slice(), dir, name)
            }
            other => other,
        };
        made.map_err(|e| Error::os("symlink", e))?;
        self.count(0);
        self.chown_at(dir, name, entry)?;
        self.skipped_xattrs += self.link_xattrs(dir, name, entry)?;
        set_times_at(dir, name, entry)?;
        self.note_owner(path, entry);
        Ok(())
    }

    /// Links to what an earlier entry made. The inode keeps what that entry said of it.
    pub(super) fn hard_link(&mut self, dir: &OwnedFd, name: &[u8], path: &[u8], entry: &Entry) -> Result<()> {
        let target = name::clean(&entry.link, &self.limits)?;
        let (above, last) = split(&target);
        if last.is_empty() || target == path {
            return Err(bad("a hard link to itself or to the root"));
        }
        let from = self.tree.dir(above).map_err(|e| unresolved(&target, e))?;
        let link = || linkat(&*from, last, dir, name, AtFlags::empty());
        let made = match link() {
            Err(Errno::EEXIST) => {
                stat(&*from, last).map_err(|e| unresolved(&target, e))?;
                self.replace(dir, name, path)?;
                link()
            }
            other => other,
        };
        made.map_err(|e| match e {
            Errno::ENOENT | Errno::EPERM => bad(format!(
                "a hard link to what the layer does not have: {}",
                show(&target)
            )),
            e => Error::os("link", e),
        })?;
        if let Some(change) = self.notes.get(&target).cloned() {
            self.notes.set(path.to_vec(), change);
        }
        Ok(())
    }

    pub(super) fn node(&mut self, dir: &OwnedFd, name: &[u8], path: &[u8], entry: &Entry, kind: SFlag) -> Result<()> {
        let device = kind != SFlag::S_IFIFO;
        if device && !matches!(self.keep, Keep::Chown) {
            self.skipped_devices += 1;
            return self.replace(dir, name, path);
        }
        let number = makedev(entry.device.0.into(), entry.device.1.into());
        let make = || mknodat(dir, name, kind, mode_of(entry.mode & 0o777), number);
        let made = match make() {
            Err(Errno::EEXIST) => {
                self.replace(dir, name, path)?;
                make()
            }
            other => other,
        };
        match made {
            Err(Errno::EPERM) if device => {
                self.skipped_devices += 1;
                return Ok(());
            }
            other => other.map_err(|e| Error::os("mknod", e))?,
        }
        self.count(0);
        self.chown_at(dir, name, entry)?;
        if entry.mode & (self.umask | 0o7000) != 0 {
            set_mode_of_node(dir, name, kind, entry.mode).map_err(|e| Error::os("fchmodat", e))?;
        }
        set_times_at(dir, name, entry)?;
        self.note_owner(path, entry);
        Ok(())
    }
}

/// Of what was made a moment ago. A program of the container may have put something else in its place since, a link that leads out of
/// the tree, say: that is left as it is.
fn set_mode_of_node(dir: &OwnedFd, name: &[u8], kind: SFlag, mode: u32) -> nix::Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let node = match openat(dir, name, flags, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(()),
        node => node?,
    };
    match fstat(&node)?.st_mode & libc::S_IFMT == kind.bits() {
        true => mode::set(node.as_fd(), mode & 0o7777),
        false => Ok(()),
    }
}

fn write_plain<R: BufRead>(file: &File, size: u64, upper: Option<FsType>, reader: &mut Reader<R>) -> Result<u64> {
    let mut room = Room::of(file, size, 0, upper);
    let mut stored = 0;
    let written = write_pieces(file, room.as_mut(), &mut stored, reader);
    if let Some(room) = room {
        room.end(file, stored);
    }
    written.map(|()| stored)
}

fn write_pieces<R: BufRead>(
    mut file: &File,
    mut room: Option<&mut Room>,
    stored: &mut u64,
    reader: &mut Reader<R>,
) -> Result<()> {
    loop {
        let piece = reader.data()?;
        if piece.is_empty() {
            return Ok(());
        }
        let length = piece.len();
        if let Some(room) = &mut room {
            room.before(file, *stored + length as u64);
        }
        file.write_all(piece).map_err(|e| Error::os("write file", e))?;
        reader.consume(length)?;
        *stored += length as u64;
    }
}

fn write_sparse<R: BufRead>(file: &File, map: &[(u64, u64)], size: u64, reader: &mut Reader<R>) -> Result<u64> {
    let mut stored = 0;
    for (offset, length) in map {
        let (mut at, mut left) = (*offset, *length);
        while left > 0 {
            let piece = reader.data()?;
            let take = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if take == 0 {
                return Err(bad("a sparse file with less data than its map says"));
            }
            file.write_all_at(&piece[..take], at)
                .map_err(|e| Error::os("write file", e))?;
            reader.consume(take)?;
            at += take as u64;
            left -= take as u64;
        }
        stored += length;
    }
    file.set_len(size).map_err(|e| match e.raw_os_error() {
        Some(libc::EFBIG) => bad("a sparse file larger than the file system takes"),
        _ => Error::os("ftruncate", e),
    })?;
    Ok(stored)
}
