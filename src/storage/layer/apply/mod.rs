//! Writes a layer into a directory.
//!
//! The fast path of a file is open (exclusive, with its mode), write, set times, close: no look first, owners and modes
//! only where they differ from what the kernel gave. Directories get their owners, modes, attributes and times at the end,
//! so that neither a read-only nor a setgid directory disturbs what is put into it.

mod dirs;
mod files;
mod leftovers;
mod owners;
mod whiteouts;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::BufRead;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, utimensat};
use nix::sys::statfs::FsType;
use nix::sys::time::TimeSpec;

use self::leftovers::Leftovers;
use super::crew::{Crew, Processors};
use super::decompress::Uncompressed;
use super::limits::Limits;
use super::name::{self, Target, join, show};
use super::notes::Notes;
use super::tar::{Entry, Kind, Reader, bad};
use super::tree::Tree;
use crate::error::{Error, Result};
use crate::storage::ownership::Ownership;
use crate::storage::snapshot::{LayerTarget, Usage};
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
    apply_with(source, target, ownership, limits, None, Hashing::Done)
}

/// Whether a layer's uncompressed bytes are hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hashing {
    /// For [`Applied::diff_id`].
    Done,
    /// The caller knows what they hash to; [`Applied::diff_id`] says nothing.
    Spared,
}

/// As [`apply`], with the help of processors that are spare.
pub(crate) fn apply_with(
    source: impl BufRead,
    target: &LayerTarget,
    ownership: &Ownership,
    limits: &Limits,
    processors: Option<Processors>,
    hashing: Hashing,
) -> Result<Applied> {
    let source = match hashing {
        Hashing::Done => Uncompressed::new(source)?,
        Hashing::Spared => Uncompressed::unhashed(source)?,
    };
    let mut reader = Reader::new(source, *limits);
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

/// How a plain archive is written: names mean nothing but themselves, and what is there stays.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plain {
    /// The directory that the archive's paths begin at, in the tree.
    pub(crate) base: Vec<u8>,
    /// Whether a directory and something else never take each other's place.
    pub(crate) keep_kinds: bool,
    /// Whose everything is to be, instead of whom the archive names.
    pub(crate) owner: Option<(u32, u32)>,
    /// Whether what the archive says of its root is meant for the directory itself, which is left as it is otherwise.
    pub(crate) with_root: bool,
    /// Whether symlinks on the way are refused instead of followed.
    pub(crate) no_links: bool,
    /// Whether device nodes are refused: in a tree where nothing keeps them from working.
    pub(crate) no_devices: bool,
    /// The file system that the tree writes to, where the tree is an overlay, which does not tell.
    pub(crate) upper: Option<FsType>,
}

/// Writes a tar, plain or compressed, into a tree that others use. Symlinks lead where they lead in the tree. Blocking.
///
/// # Errors
/// As [`apply`]; `InvalidArgument` for what `keep_kinds` refuses. What was written before stays.
pub(crate) fn apply_plain(
    source: impl BufRead,
    root: &std::path::Path,
    plain: Plain,
    ownership: &Ownership,
    limits: &Limits,
) -> Result<()> {
    let mut reader = Reader::new(Uncompressed::unhashed(source)?, *limits);
    let target = LayerTarget::Merged {
        dir: root.to_owned(),
        owners: None,
    };
    let mut extractor = Extractor::new(&target, ownership, limits, None)?;
    extractor.upper = plain.upper;
    if plain.no_links {
        extractor.tree.follow_no_links();
    }
    while let Some(entry) = reader.next()? {
        extractor
            .plain_entry(entry, &plain, &mut reader)
            .map_err(|e| e.context("write what the archive holds"))?;
    }
    extractor.finish().map(drop)
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
    upper: Option<FsType>,
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
    leftovers: Leftovers,
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
            upper: None,
            umask: process_umask()?,
            notes,
            dirs: BTreeMap::new(),
            implied: BTreeSet::from([Vec::new()]),
            whiteouts: HashSet::new(),
            own: HashSet::new(),
            leftovers: Leftovers::default(),
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

    fn plain_entry<R: BufRead>(&mut self, mut entry: Entry, plain: &Plain, reader: &mut Reader<R>) -> Result<()> {
        let path = name::clean(&entry.path, &self.limits)?;
        if path.is_empty() {
            match (plain.with_root, entry.kind) {
                (true, Kind::Directory) => self.declare(Vec::new(), &entry, None),
                (true, _) => return Err(bad("a root that is not a directory")),
                (false, _) => {}
            }
            return Ok(());
        }
        let path = join(&plain.base, &path);
        if plain.no_devices && matches!(entry.kind, Kind::Character | Kind::Block) {
            return Err(no_devices(&path));
        }
        if entry.kind == Kind::HardLink {
            entry.link = join(&plain.base, &name::clean(&entry.link, &self.limits)?);
        }
        if let Some((uid, gid)) = plain.owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        let (parent, name) = name::split(&path);
        let dir = self.parent(parent)?;
        if plain.keep_kinds {
            keep_kinds(&dir, name, &path, &entry)?;
        }
        self.put(&dir, name, &path, &entry, reader)
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

    fn count(&mut self, stored: u64) {
        self.usage.inodes += 1;
        self.usage.bytes += stored.div_ceil(4096) * 4096;
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
}

#[cold]
fn no_devices(path: &[u8]) -> Error {
    Error::unsupported(
        format!("the device node {}, in a container without namespaces", show(path)),
        "an archive without it: nothing would keep it from working",
    )
}

/// Docker's words. Source: moby, `go-archive`, `Unpack`.
fn keep_kinds(dir: &OwnedFd, name: &[u8], path: &[u8], entry: &Entry) -> Result<()> {
    let there = match super::tree::stat(dir, name) {
        Ok(there) => super::tree::is_dir(&there),
        Err(Errno::ENOENT) => return Ok(()),
        Err(e) => return Err(Error::os("stat", e)),
    };
    let new = entry.kind == Kind::Directory;
    if there == new {
        return Ok(());
    }
    let words = |directory: bool| if directory { "directory" } else { "non-directory" };
    let message = format!(
        "cannot overwrite {} \"{}\" with {}",
        words(there),
        show(path),
        words(new)
    );
    Err(Error::invalid(message).with_object(crate::error::ObjectKind::Option, "noOverwriteDirNonDir"))
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
