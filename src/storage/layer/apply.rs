//! Writes a layer into a directory.
//!
//! The fast path of a file is open (exclusive, with its mode), write, set times, close: no look first, owners and modes
//! only where they differ from what the kernel gave. Directories get their owners, modes, attributes and times at the end,
//! so that neither a read-only nor a setgid directory disturbs what is put into it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::CString;
use std::fs::File;
use std::io::{BufRead, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fchmod, futimens, makedev, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, linkat, symlinkat};

use super::crew::{Crew, Fresh, Processors};
use super::decompress::Uncompressed;
use super::limits::Limits;
use super::name::{self, Target, join, show, split};
use super::notes::Notes;
use super::tar::{Entry, Kind, Reader, bad};
use super::tree::{Tree, clear_except, is_dir, remove_except, stat};
use crate::error::{Error, Result};
use crate::storage::ownership::{OwnerChange, Ownership};
use crate::storage::snapshot::{LayerTarget, Usage};
use crate::sys::xattr;
use crate::types::DiffId;

/// Where the owner is noted when everything belongs to one user: `uid:gid`.
pub(crate) const OWNER_XATTR: &std::ffi::CStr = c"user.longshore.owner";
pub(crate) const OPAQUE_USER: &std::ffi::CStr = c"user.overlay.opaque";
pub(crate) const OPAQUE_TRUSTED: &std::ffi::CStr = c"trusted.overlay.opaque";

/// What became of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Applied {
    /// Digest of the uncompressed tar. The caller compares it with what the image's config says.
    pub diff_id: DiffId,
    /// What the layer takes: file data in blocks of 4 KiB, and inodes.
    pub usage: Usage,
    /// Device nodes left out because this user may not make any.
    pub skipped_devices: u64,
    /// Extended attributes left out because this user or file system cannot keep them.
    pub skipped_xattrs: u64,
    /// Directories that the layer has files in but says nothing of (the root is the empty path); they should look as in the
    /// layers below. Only for [`LayerTarget::Overlay`].
    pub implied: Vec<PathBuf>,
}

/// Decompresses a layer and writes it into `target`. Blocking.
///
/// # Errors
/// `UnsafeArchive` for a layer that tries to leave the target, is malformed, truncated or beyond the limits;
/// `Unsupported` for a compression this crate does not know; `NoSpace`, `ReadOnly`, `Denied` or `Os`. What was written
/// before stays: the caller discards the target.
pub fn apply(source: impl BufRead, target: &LayerTarget, ownership: &Ownership, limits: &Limits) -> Result<Applied> {
    apply_with(source, target, ownership, limits, None)
}

/// As [`apply`], with the help of processors that are spare.
pub(crate) fn apply_with(
    source: impl BufRead,
    target: &LayerTarget,
    ownership: &Ownership,
    limits: &Limits,
    processors: Option<Processors>,
) -> Result<Applied> {
    let mut reader = Reader::new(Uncompressed::new(source)?, *limits);
    let mut extractor = Extractor::new(target, ownership, limits, processors)?;
    while let Some(entry) = reader.next()? {
        extractor
            .entry(&entry, &mut reader)
            .map_err(|e| e.context(format!("unpack {}", show(&entry.path))))?;
    }
    let mut applied = extractor.finish()?;
    let (diff_id, _) = reader.into_source().finish()?;
    applied.diff_id = diff_id;
    Ok(applied)
}

/// How owners, and modes that would lock us out, are kept.
#[derive(Debug)]
enum Keep {
    /// `chown`, at once.
    Chown,
    /// Noted, and given away at the end.
    Give(std::sync::Arc<dyn crate::storage::ownership::Privileged>),
    /// Noted in a table beside the tree.
    Table(PathBuf),
    /// An attribute on files and directories.
    Squash,
}

#[derive(Debug)]
enum Removals {
    Overlay { user_xattr: bool },
    Merged,
}

#[derive(Debug, Clone)]
struct DirMeta {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, u32),
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Mode that the directory has by now; `None` if it was there before.
    made: Option<u32>,
}

#[derive(Debug)]
struct Extractor {
    tree: Tree,
    keep: Keep,
    removals: Removals,
    limits: Limits,
    umask: u32,
    notes: Notes,
    crew: Crew,
    dirs: BTreeMap<Vec<u8>, DirMeta>,
    /// Directories that this layer made under their very path, with no symlink on the way.
    own_dirs: HashSet<Vec<u8>>,
    implied: BTreeSet<Vec<u8>>,
    /// Overlay: whiteouts made, to tell them from files.
    whiteouts: HashSet<Vec<u8>>,
    /// Merged: inodes that belong to this layer and survive its whiteouts.
    own: HashSet<u64>,
    usage: Usage,
    skipped_devices: u64,
    skipped_xattrs: u64,
}

impl Extractor {
    fn new(
        target: &LayerTarget,
        ownership: &Ownership,
        limits: &Limits,
        processors: Option<Processors>,
    ) -> Result<Self> {
        let (dir, removals, table) = match target {
            LayerTarget::Overlay { dir, user_xattr } => (
                dir,
                Removals::Overlay {
                    user_xattr: *user_xattr,
                },
                None,
            ),
            LayerTarget::Merged { dir, owners } => (dir, Removals::Merged, owners.clone()),
        };
        let notes = table.as_deref().map(Notes::load).transpose()?.unwrap_or_default();
        let keep = match (ownership, table) {
            (Ownership::Direct, _) => Keep::Chown,
            (_, Some(table)) => Keep::Table(table),
            (Ownership::Mapped(privileged), None) => Keep::Give(privileged.clone()),
            (Ownership::Squashed, None) => Keep::Squash,
        };
        // What a merged tree has from the layers below is in every file's way.
        let overlay = matches!(removals, Removals::Overlay { .. });
        Ok(Self {
            tree: Tree::open(dir)?,
            crew: Crew::new(processors.filter(|_| overlay)),
            own_dirs: HashSet::from([Vec::new()]),
            keep,
            removals,
            limits: *limits,
            umask: process_umask()?,
            notes,
            dirs: BTreeMap::new(),
            implied: BTreeSet::from([Vec::new()]),
            whiteouts: HashSet::new(),
            own: HashSet::new(),
            usage: Usage::default(),
            skipped_devices: 0,
            skipped_xattrs: 0,
        })
    }

    fn entry<R: BufRead>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<()> {
        match name::target(&entry.path, &self.limits)? {
            Target::Root if entry.kind == Kind::Directory => self.declare(Vec::new(), entry, None),
            Target::Root => return Err(bad("the root of a layer that is not a directory")),
            Target::Opaque { dir } => return self.opaque(&dir),
            Target::Whiteout { parent, name } => return self.whiteout(&parent, &name),
            // What overlay would take for a whiteout is one.
            Target::Path { parent, name } if entry.kind == Kind::Character && entry.device == (0, 0) => {
                return self.whiteout(&parent, &name);
            }
            Target::Path { parent, name } => {
                let path = join(&parent, &name);
                if self.is_fresh(&parent, &path, entry) {
                    return self.fresh_file(&parent, name, path, entry, reader);
                }
                self.see_written(&parent, &path, entry.kind == Kind::HardLink)?;
                let dir = self.parent(&parent)?;
                self.put(&dir, &name, &path, entry, reader)?;
                self.remember(&dir, &name)?;
            }
        }
        Ok(())
    }

    fn put<R: BufRead>(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<()> {
        match entry.kind {
            Kind::Directory => self.directory(dir, name, path, entry),
            Kind::File => self.file(dir, name, path, entry, reader),
            Kind::Symlink => self.symlink(dir, name, path, entry),
            Kind::HardLink => self.hard_link(dir, name, path, entry),
            Kind::Fifo => self.node(dir, name, path, entry, SFlag::S_IFIFO),
            Kind::Character => self.node(dir, name, path, entry, SFlag::S_IFCHR),
            Kind::Block => self.node(dir, name, path, entry, SFlag::S_IFBLK),
        }
    }

    /// The directory that an entry goes into, made where the layer did not mention it.
    fn parent(&mut self, path: &[u8]) -> Result<Arc<OwnedFd>> {
        match self.tree.dir(path) {
            Ok(dir) => return Ok(dir),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(e) => return Err(unresolved(path, e)),
        }
        let (above, name) = split(path);
        if name.is_empty() {
            return Err(unresolved(path, Errno::ENOENT));
        }
        self.finish_files()?;
        let dir = self.parent(above)?;
        let made = match mkdirat(&*dir, name, mode_of(0o755)) {
            Err(Errno::EEXIST) if self.whiteouts.contains(path) => {
                self.replace(&dir, name, path)?;
                mkdirat(&*dir, name, mode_of(0o755)).map_err(|e| Error::os("mkdir", e))?;
                self.mark_opaque(path)
            }
            Err(Errno::EEXIST) => Err(bad(format!(
                "a path through something that is no directory: {}",
                show(path)
            ))),
            other => other.map_err(|e| Error::os("mkdir", e)),
        };
        made?;
        self.count(0);
        self.made_dir(above, path);
        self.implied.insert(path.to_vec());
        let meta = DirMeta {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            xattrs: Vec::new(),
            made: Some(0o755 & !self.umask),
        };
        self.dirs.insert(path.to_vec(), meta);
        self.remember(&dir, name)?;
        self.tree.dir(path).map_err(|e| unresolved(path, e))
    }

    fn directory(&mut self, dir: &OwnedFd, name: &[u8], path: &[u8], entry: &Entry) -> Result<()> {
        let mode = entry.mode & 0o777 | 0o700;
        match mkdirat(dir, name, mode_of(mode)) {
            Ok(()) => {}
            Err(Errno::EEXIST) => {
                let there = stat(dir, name).map_err(|e| Error::os("stat", e))?;
                if is_dir(&there) {
                    self.declare(path.to_vec(), entry, None);
                    return Ok(());
                }
                self.replace(dir, name, path)?;
                mkdirat(dir, name, mode_of(mode)).map_err(|e| Error::os("mkdir", e))?;
                // What was there before hid the directory of the layers below: so must this one.
                self.mark_opaque(path)?;
            }
            Err(e) => return Err(Error::os("mkdir", e)),
        }
        self.count(0);
        self.made_dir(split(path).0, path);
        self.declare(path.to_vec(), entry, Some(mode & !self.umask));
        Ok(())
    }

    /// Notes what a directory is to look like in the end.
    fn declare(&mut self, path: Vec<u8>, entry: &Entry, made: Option<u32>) {
        self.implied.remove(&path);
        let made = made.or_else(|| self.dirs.get(&path).and_then(|known| known.made));
        let xattrs = entry.xattrs.clone();
        let meta = DirMeta {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            xattrs,
            made,
        };
        self.dirs.insert(path, meta);
    }

    fn file<R: BufRead>(
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
                self.replace(dir, name, path)?;
                openat(dir, name, flags, mode_of(made))
            }
            other => other,
        };
        let mut file = File::from(opened.map_err(|e| Error::os("create file", e))?);
        let stored = match &entry.sparse {
            None => write_plain(&mut file, reader)?,
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
    fn is_fresh(&mut self, parent: &[u8], path: &[u8], entry: &Entry) -> bool {
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

    fn fresh_file<R: BufRead>(
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
    fn see_written(&mut self, parent: &[u8], path: &[u8], anything: bool) -> Result<()> {
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
    fn finish_files(&mut self) -> Result<()> {
        for (fresh, body) in self.crew.finish()? {
            self.replace(&fresh.dir, &fresh.name, &fresh.path)?;
            if !fresh.write(&body)? {
                return Err(Error::os("create file", Errno::EEXIST).context(format!("unpack {}", show(&fresh.path))));
            }
        }
        Ok(())
    }

    /// Overlay: remembers a directory whose path leads to it without symlinks.
    fn made_dir(&mut self, parent: &[u8], path: &[u8]) {
        if self.own_dirs.contains(parent) {
            self.own_dirs.insert(path.to_vec());
        }
    }

    fn symlink(&mut self, dir: &OwnedFd, name: &[u8], path: &[u8], entry: &Entry) -> Result<()> {
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
    fn hard_link(&mut self, dir: &OwnedFd, name: &[u8], path: &[u8], entry: &Entry) -> Result<()> {
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

    fn node(&mut self, dir: &OwnedFd, name: &[u8], path: &[u8], entry: &Entry, kind: SFlag) -> Result<()> {
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
            // No symlink can be there: we made the node a moment ago, and nobody else writes here.
            nix::sys::stat::fchmodat(
                dir,
                name,
                mode_of(entry.mode),
                nix::sys::stat::FchmodatFlags::FollowSymlink,
            )
            .map_err(|e| Error::os("fchmodat", e))?;
        }
        set_times_at(dir, name, entry)?;
        self.note_owner(path, entry);
        Ok(())
    }

    fn whiteout(&mut self, parent: &[u8], name: &[u8]) -> Result<()> {
        let path = join(parent, name);
        self.see_written(parent, &path, false)?;
        let dir = self.parent(parent)?;
        if matches!(self.removals, Removals::Merged) {
            let own = std::mem::take(&mut self.own);
            let gone = remove_except(&*dir, name, &|inode| own.contains(&inode));
            self.own = own;
            self.tree.forget();
            if gone? {
                self.notes.forget(&path);
            }
            return Ok(());
        }
        match mknodat(&*dir, name, SFlag::S_IFCHR, Mode::empty(), 0) {
            Ok(()) => {
                self.count(0);
                self.whiteouts.insert(path);
                Ok(())
            }
            // This layer put something there itself: a file hides what is below anyway, a directory must be told to.
            Err(Errno::EEXIST) => self.opaque_if_directory(&dir, name, &path),
            Err(e) => Err(Error::os("make whiteout", e)),
        }
    }

    fn opaque_if_directory(&mut self, dir: &OwnedFd, name: &[u8], path: &[u8]) -> Result<()> {
        let there = stat(dir, name).map_err(|e| Error::os("stat", e))?;
        if !is_dir(&there) {
            return Ok(());
        }
        self.mark_opaque(path)
    }

    fn opaque(&mut self, path: &[u8]) -> Result<()> {
        let dir = self.parent(path)?;
        if !matches!(self.removals, Removals::Merged) {
            return self.mark_opaque(path);
        }
        let own = std::mem::take(&mut self.own);
        let cleared = clear_except(&*dir, &|inode| own.contains(&inode));
        self.own = own;
        self.tree.forget();
        cleared.map(drop)
    }

    /// Overlay: nothing of the layers below shows through this directory.
    fn mark_opaque(&mut self, path: &[u8]) -> Result<()> {
        let Removals::Overlay { user_xattr } = self.removals else {
            return Ok(());
        };
        let dir = self.tree.dir(path).map_err(|e| unresolved(path, e))?;
        let dir = reopen(&dir)?;
        let name = if user_xattr { OPAQUE_USER } else { OPAQUE_TRUSTED };
        xattr::set(&dir, name, b"y").map_err(|e| Error::os("mark directory opaque", e))
    }

    /// Removes what is in an entry's way: from a layer below, or from an earlier entry of the same name.
    fn replace(&mut self, dir: &OwnedFd, name: &[u8], path: &[u8]) -> Result<()> {
        self.finish_files()?;
        let there = match stat(dir, name) {
            Ok(there) => there,
            Err(Errno::ENOENT) => return Ok(()),
            Err(e) => return Err(Error::os("stat", e)),
        };
        let kind = there.st_mode & SFlag::S_IFMT.bits();
        if let Keep::Give(privileged) = &self.keep
            && there.st_nlink > 1
            && !is_dir(&there)
            && self.notes.get(path).is_some()
        {
            // The inode lives on under its other names: it gets its owner while this name still leads to it.
            self.notes.carry_out(&mut self.tree, &**privileged)?;
        }
        remove_except(dir, name, &|_| false)?;
        self.notes.forget(path);
        self.whiteouts.remove(path);
        if kind == SFlag::S_IFDIR.bits() || kind == SFlag::S_IFLNK.bits() {
            self.tree.forget();
            let below = [path, b"/"].concat();
            self.dirs.retain(|known, _| known != path && !known.starts_with(&below));
            self.own_dirs
                .retain(|known| known != path && !known.starts_with(&below));
            self.implied.retain(|known| known != path && !known.starts_with(&below));
            self.whiteouts.retain(|known| !known.starts_with(&below));
        }
        Ok(())
    }

    /// Merged: this inode is of this layer.
    fn remember(&mut self, dir: &OwnedFd, name: &[u8]) -> Result<()> {
        if !matches!(self.removals, Removals::Merged) {
            return Ok(());
        }
        match stat(dir, name) {
            Ok(there) => drop(self.own.insert(there.st_ino)),
            Err(Errno::ENOENT) => {}
            Err(e) => return Err(Error::os("stat", e)),
        }
        Ok(())
    }

    fn count(&mut self, stored: u64) {
        self.usage.inodes += 1;
        self.usage.bytes += stored.div_ceil(4096) * 4096;
    }

    /// What is to be noted of a file, if anything.
    fn change_of(&self, entry: &Entry) -> Option<OwnerChange> {
        let capabilities: Vec<_> = entry
            .xattrs
            .iter()
            .filter(|(name, _)| name == b"security.capability")
            .collect();
        let owned = entry.uid != 0 || entry.gid != 0 || !capabilities.is_empty();
        let locked = entry.mode & 0o7000 != 0 || entry.mode & 0o600 != 0o600;
        let (noted, mode) = match self.keep {
            Keep::Chown | Keep::Squash => return None,
            Keep::Give(_) => (owned, locked),
            Keep::Table(_) => (owned || locked, locked),
        };
        let xattrs = capabilities
            .into_iter()
            .map(|(_, value)| ("security.capability".to_owned(), value.clone()))
            .collect();
        noted.then(|| OwnerChange {
            uid: entry.uid,
            gid: entry.gid,
            mode: mode.then_some(entry.mode),
            xattrs,
        })
    }

    /// The mode to create a file with: its own, but writable and readable to us where something is still to be done.
    fn mode_to_make(&self, entry: &Entry, noted: bool) -> u32 {
        let ours = noted
            || (!matches!(self.keep, Keep::Chown) && (!entry.xattrs.is_empty() || entry.uid != 0 || entry.gid != 0));
        entry.mode & 0o777 | if ours { 0o600 } else { 0 }
    }

    fn note(&mut self, path: &[u8], change: Option<OwnerChange>) {
        match change {
            Some(change) => self.notes.set(path.to_vec(), change),
            // A table is carried over from the layer below: an old note must not outlive its file.
            None if matches!(self.keep, Keep::Table(_)) => self.notes.forget(path),
            None => {}
        }
    }

    /// Notes the owner alone: of what has no mode or attributes to set.
    fn note_owner(&mut self, path: &[u8], entry: &Entry) {
        let noted = matches!(self.keep, Keep::Give(_) | Keep::Table(_)) && (entry.uid != 0 || entry.gid != 0);
        let change = OwnerChange {
            uid: entry.uid,
            gid: entry.gid,
            ..OwnerChange::default()
        };
        self.note(path, noted.then_some(change));
    }

    /// Whether a fresh inode has the wrong owner. In a merged tree a setgid directory may have chosen the group.
    fn must_chown(&self, uid: u32, gid: u32) -> bool {
        matches!(self.keep, Keep::Chown) && (uid != 0 || gid != 0 || matches!(self.removals, Removals::Merged))
    }

    fn chown_file(&mut self, file: &File, entry: &Entry) -> Result<()> {
        if self.must_chown(entry.uid, entry.gid) {
            return fchown(file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
                .map_err(|e| Error::os("fchown", e));
        }
        self.squash(file, entry.uid, entry.gid)
    }

    fn squash(&mut self, file: &File, uid: u32, gid: u32) -> Result<()> {
        if !matches!(self.keep, Keep::Squash) {
            return Ok(());
        }
        self.note_on(file, uid, gid)
    }

    /// Notes the owner inside the image on the file itself.
    fn note_on(&mut self, file: &File, uid: u32, gid: u32) -> Result<()> {
        if uid == 0 && gid == 0 {
            return Ok(());
        }
        let noted = xattr::set(file, OWNER_XATTR, format!("{uid}:{gid}").as_bytes());
        self.skipped_xattrs += u64::from(skippable("note owner", noted)?);
        Ok(())
    }

    fn chown_at(&self, dir: &OwnedFd, name: &[u8], entry: &Entry) -> Result<()> {
        if !self.must_chown(entry.uid, entry.gid) {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        fchownat(dir, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(|e| Error::os("fchownat", e))
    }

    fn file_xattrs(&mut self, file: &File, entry: &Entry) -> Result<()> {
        self.set_xattrs(file, &entry.xattrs)
    }

    fn set_xattrs(&mut self, file: &File, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        for (name, value) in xattrs {
            match self.fate(name) {
                Fate::Set => {}
                Fate::Noted | Fate::Never => continue,
                Fate::Skipped => {
                    self.skipped_xattrs += 1;
                    continue;
                }
            }
            let set = xattr::set(file, &xattr_name(name)?, value);
            self.skipped_xattrs += u64::from(skippable("set extended attribute", set)?);
        }
        Ok(())
    }

    /// Symlinks take no `user.` attributes (xattr(7)); returns how many were left out.
    fn link_xattrs(&self, dir: &OwnedFd, name: &[u8], entry: &Entry) -> Result<u64> {
        let mut skipped = 0;
        for (key, value) in &entry.xattrs {
            if key.starts_with(b"user.") || !matches!(self.fate(key), Fate::Set) {
                skipped += 1;
                continue;
            }
            let path = proc_path(dir, name);
            skipped += u64::from(skippable(
                "set extended attribute",
                xattr::set_link(&path, &xattr_name(key)?, value),
            )?);
        }
        Ok(skipped)
    }

    fn fate(&self, name: &[u8]) -> Fate {
        let root = matches!(self.keep, Keep::Chown);
        match name {
            b"security.capability" if root => Fate::Set,
            b"security.capability" if !matches!(self.keep, Keep::Squash) => Fate::Noted,
            // Overlay's own marks and ours are for us to set: a layer could redirect lookups with them.
            _ if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") => Fate::Never,
            _ if name.starts_with(b"user.longshore.") => Fate::Never,
            _ if name.starts_with(b"user.") => Fate::Set,
            // Labels of another host's policy; ACLs name ids, which only hold where owners do.
            b"system.posix_acl_access" | b"system.posix_acl_default" if root => Fate::Set,
            _ if name.starts_with(b"trusted.") && root => Fate::Set,
            _ => Fate::Skipped,
        }
    }

    fn finish(mut self) -> Result<Applied> {
        self.finish_files()?;
        // Children before their directories: deeper paths sort behind the shorter ones they begin with.
        for (path, meta) in std::mem::take(&mut self.dirs).into_iter().rev() {
            self.finish_dir(&path, &meta)
                .map_err(|e| e.context(format!("finish directory {}", show(&path))))?;
        }
        match &self.keep {
            Keep::Give(privileged) => self.notes.carry_out(&mut self.tree, &**privileged)?,
            Keep::Table(path) => self.notes.save(path)?,
            Keep::Chown | Keep::Squash => {}
        }
        let overlay = matches!(self.removals, Removals::Overlay { .. });
        let implied = if overlay { self.implied } else { BTreeSet::new() };
        Ok(Applied {
            diff_id: DiffId::of(b""),
            usage: self.usage,
            skipped_devices: self.skipped_devices,
            skipped_xattrs: self.skipped_xattrs,
            implied: implied.into_iter().map(|path| PathBuf::from(os_string(path))).collect(),
        })
    }

    fn finish_dir(&mut self, path: &[u8], meta: &DirMeta) -> Result<()> {
        let dir = self.tree.dir(path).map_err(|e| unresolved(path, e))?;
        let dir = reopen(&dir)?;
        if self.must_chown(meta.uid, meta.gid) || (matches!(self.keep, Keep::Chown) && meta.made.is_none()) {
            fchown(&dir, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))
                .map_err(|e| Error::os("fchown", e))?;
        }
        if matches!(self.keep, Keep::Squash | Keep::Give(_)) {
            // Also where it is given away: a layer above that implies this directory must learn its owner.
            self.note_on(&dir, meta.uid, meta.gid)?;
        }
        self.set_xattrs(&dir, &meta.xattrs)?;
        let open = meta.mode & 0o777 | 0o700;
        let owned = meta.uid != 0 || meta.gid != 0;
        let special = open != meta.mode;
        let (now, noted) = match self.keep {
            Keep::Chown | Keep::Squash => (meta.mode, false),
            Keep::Give(_) => (if owned || special { open } else { meta.mode }, owned || special),
            Keep::Table(_) => (open, owned || special),
        };
        if meta.made != Some(now) {
            fchmod(&dir, mode_of(now)).map_err(|e| Error::os("fchmod", e))?;
        }
        let time = time_of(meta.mtime);
        if !self.implied.contains(path) {
            futimens(&dir, &time, &time).map_err(|e| Error::os("futimens", e))?;
        }
        let mode = special.then_some(meta.mode);
        if noted {
            self.notes.set(
                path.to_vec(),
                OwnerChange {
                    uid: meta.uid,
                    gid: meta.gid,
                    mode,
                    xattrs: Vec::new(),
                },
            );
        } else if matches!(self.keep, Keep::Table(_)) {
            self.notes.forget_one(path);
        }
        Ok(())
    }
}

enum Fate {
    Set,
    /// Set later, with privilege.
    Noted,
    /// Left out and counted.
    Skipped,
    /// Not for a layer to set.
    Never,
}

fn write_plain<R: BufRead>(file: &mut File, reader: &mut Reader<R>) -> Result<u64> {
    let mut stored = 0;
    loop {
        let piece = reader.data()?;
        if piece.is_empty() {
            return Ok(stored);
        }
        file.write_all(piece).map_err(|e| Error::os("write file", e))?;
        let length = piece.len();
        reader.consume(length)?;
        stored += length as u64;
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

fn set_times_at(dir: &OwnedFd, name: &[u8], entry: &Entry) -> Result<()> {
    let time = time_of(entry.mtime);
    utimensat(dir, name, &time, &time, UtimensatFlags::NoFollowSymlink).map_err(|e| Error::os("utimensat", e))
}

/// A descriptor that can be read and changed, of a directory known by an `O_PATH` one.
fn reopen(dir: &OwnedFd) -> Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    openat(dir, c".", flags, Mode::empty())
        .map(File::from)
        .map_err(|e| Error::os("open directory", e))
}

fn unresolved(path: &[u8], errno: Errno) -> Error {
    match errno {
        Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENAMETOOLONG | Errno::EXDEV => {
            bad(format!("a path that leads nowhere in the layer: {}", show(path)))
                .with_source(std::io::Error::from(errno))
        }
        errno => Error::os("resolve path in layer", errno),
    }
}

/// Whether an attribute was left out because it cannot be kept here.
fn skippable(step: &'static str, result: std::io::Result<()>) -> Result<bool> {
    match result {
        Ok(()) => Ok(false),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTSUP | libc::EPERM)) => Ok(true),
        Err(e) => Err(Error::os(step, e)),
    }
}

fn xattr_name(name: &[u8]) -> Result<CString> {
    CString::new(name).map_err(|_| bad("an extended attribute that no file can have"))
}

fn proc_path(dir: &OwnedFd, name: &[u8]) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd()));
    path.push(os_string(name.to_vec()));
    path
}

fn os_string(bytes: Vec<u8>) -> std::ffi::OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes)
}

fn mode_of(mode: u32) -> Mode {
    Mode::from_bits_truncate(mode)
}

fn time_of((seconds, nanos): (i64, u32)) -> TimeSpec {
    TimeSpec::new(seconds, nanos.into())
}

/// The process's umask, read without changing it: umask(2) can only be asked by setting it, for all threads.
fn process_umask() -> Result<u32> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|e| Error::os("read /proc/self/status", e))?;
    let field = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    // Without the field (before Linux 4.7) every mode is set again.
    Ok(field
        .and_then(|text| u32::from_str_radix(text.trim(), 8).ok())
        .unwrap_or(0o777))
}
