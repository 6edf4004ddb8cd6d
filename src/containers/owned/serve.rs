//! What the kernel asks for, done by this process.
//!
//! Every call is made with the caller's own rights beneath the shown directory; whether the one who asks may do it by mode and
//! owner, the kernel has looked up before (`default_permissions`). Nothing is kept for later: what the host changes is seen in
//! the container at once, as with a bind mount.

use std::ffi::{CString, OsStr};
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    AccessFlags, BsdFileFlags, FileAttr, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, FallocateFlags, OFlag, fallocate, readlinkat};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mkdirat, mknodat, utimensat};
use nix::sys::statvfs::fstatvfs;
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, Whence, linkat, lseek, symlinkat, unlinkat};

use super::attributes::Ids;
use super::files::{Files, Open};
use super::nodes::{Nodes, key};
use super::place::{create_in, errno, look, open_in, shown_by_proc, walk};
use crate::sys::{mode, rename, xattr};

/// How long the kernel may believe what it was told: not at all, since the host's changes count at once.
const TTL: Duration = Duration::ZERO;
/// Most of a file in one answer.
const LARGEST: u32 = 1 << 20;

type Result<T> = std::result::Result<T, Errno>;

/// A directory or a file, with other owners.
#[derive(Debug)]
pub(super) struct Shown {
    root: File,
    ids: Ids,
    nodes: Mutex<Nodes>,
    files: Mutex<Files>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn told(error: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(error as i32)
}

impl Shown {
    pub(super) fn new(root: File, ids: Ids) -> io::Result<Self> {
        let nodes = Nodes::new(key(&root.metadata()?));
        Ok(Self {
            root,
            ids,
            nodes: Mutex::new(nodes),
            files: Mutex::default(),
        })
    }

    /// What stands for a file, and what is known of it. If another file has its name by now, it is gone.
    fn place(&self, number: INodeNo) -> Result<(File, Metadata)> {
        let (way, known) = {
            let nodes = lock(&self.nodes);
            (nodes.way(number.0), nodes.key_of(number.0))
        };
        let way = way.ok_or(Errno::ESTALE)?;
        let place = walk(&self.root, &way)?;
        let found = look(&place)?;
        match known == Some(key(&found)) {
            true => Ok((place, found)),
            false => Err(Errno::ESTALE),
        }
    }

    fn dir(&self, number: INodeNo) -> Result<File> {
        self.place(number).map(|(place, _)| place)
    }

    /// What is known of a file, by an open one if it has no name any more.
    fn stat(&self, number: INodeNo, handle: Option<FileHandle>) -> Result<Metadata> {
        let by_name = match handle {
            None => self.place(number).map(|(_, found)| found),
            Some(_) => Err(Errno::ESTALE),
        };
        match by_name {
            Err(error) => match self.opened(number, handle) {
                Some(open) => look(&open.file),
                None => Err(error),
            },
            found => found,
        }
    }

    fn opened(&self, number: INodeNo, handle: Option<FileHandle>) -> Option<Arc<Open>> {
        let handle = handle.map(|handle| handle.0);
        let handle = handle.or_else(|| lock(&self.nodes).any_open(number.0))?;
        lock(&self.files).get(handle)
    }

    fn handle(&self, handle: FileHandle) -> Result<Arc<Open>> {
        lock(&self.files).get(handle.0).ok_or(Errno::EBADF)
    }

    fn attributes(&self, number: INodeNo, found: &Metadata) -> FileAttr {
        self.ids.attributes(number, found)
    }

    /// Tells the kernel of what has that name in a directory.
    fn find(&self, parent: INodeNo, dir: &File, name: &OsStr) -> Result<FileAttr> {
        let place = File::from(open_in(dir, name, OFlag::O_PATH)?);
        let found = look(&place)?;
        let number = lock(&self.nodes).found(parent.0, name, key(&found));
        Ok(self.attributes(INodeNo(number), &found))
    }

    /// The file that has a name now.
    fn key_in(&self, dir: &File, name: &OsStr) -> Option<super::nodes::Key> {
        let place = File::from(open_in(dir, name, OFlag::O_PATH).ok()?);
        look(&place).ok().map(|found| key(&found))
    }

    fn keep(&self, number: u64, file: File) -> FileHandle {
        let handle = lock(&self.files).add(file);
        lock(&self.nodes).opened(number, handle);
        FileHandle(handle)
    }

    fn drop_open(&self, number: INodeNo, handle: FileHandle) {
        lock(&self.files).close(handle.0);
        lock(&self.nodes).closed(number.0, handle.0);
    }

    fn open_file(&self, number: INodeNo, flags: OpenFlags) -> Result<FileHandle> {
        let (place, found) = self.place(number)?;
        // Nothing else is asked for; a pipe would keep us waiting.
        if !found.is_file() {
            return Err(Errno::ESTALE);
        }
        let flags = OFlag::from_bits_truncate(flags.0)
            & (OFlag::O_ACCMODE | OFlag::O_APPEND | OFlag::O_TRUNC | OFlag::O_NOATIME | OFlag::O_SYNC | OFlag::O_DSYNC);
        let path = shown_by_proc(&place);
        let file = nix::fcntl::open(
            path.as_str(),
            flags | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK,
            Mode::empty(),
        )?;
        Ok(self.keep(number.0, File::from(file)))
    }

    fn open_dir(&self, number: INodeNo) -> Result<FileHandle> {
        let place = self.dir(number)?;
        let dir = open_in(&place, OsStr::new("."), OFlag::O_DIRECTORY)?;
        Ok(self.keep(number.0, File::from(dir)))
    }

    fn make_file(&self, parent: INodeNo, name: &OsStr, mode: u32, flags: i32) -> Result<(FileAttr, FileHandle)> {
        let dir = self.dir(parent)?;
        let asked = OFlag::from_bits_truncate(flags);
        let flags = asked & (OFlag::O_ACCMODE | OFlag::O_APPEND | OFlag::O_TRUNC) | OFlag::O_NONBLOCK;
        let mode = Mode::from_bits_truncate(mode & 0o7777);
        let file = match create_in(&dir, name, flags | OFlag::O_EXCL, mode) {
            Ok(file) => {
                let file = File::from(file);
                // The mask of modes of this process has nothing to say: the container's was applied.
                set_mode(&file, mode)?;
                file
            }
            Err(Errno::EEXIST) if !asked.contains(OFlag::O_EXCL) => File::from(open_in(&dir, name, flags)?),
            Err(error) => return Err(error),
        };
        let found = look(&file)?;
        if !found.is_file() {
            return Err(Errno::ESTALE);
        }
        let number = lock(&self.nodes).found(parent.0, name, key(&found));
        let handle = self.keep(number, file);
        Ok((self.attributes(INodeNo(number), &found), handle))
    }

    fn make_dir(&self, parent: INodeNo, name: &OsStr, mode: u32) -> Result<FileAttr> {
        let dir = self.dir(parent)?;
        let mode = Mode::from_bits_truncate(mode & 0o7777);
        mkdirat(&dir, name, mode)?;
        let made = File::from(open_in(&dir, name, OFlag::O_DIRECTORY)?);
        let inherited = Mode::from_bits_truncate(look(&made)?.permissions().mode()) & Mode::S_ISGID;
        set_mode(&made, mode | inherited)?;
        self.find(parent, &dir, name)
    }

    fn make_node(&self, parent: INodeNo, name: &OsStr, mode: u32) -> Result<FileAttr> {
        let kind = SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits());
        // Devices are none in a container's mounts.
        if ![SFlag::S_IFREG, SFlag::S_IFIFO, SFlag::S_IFSOCK].contains(&kind) {
            return Err(Errno::EPERM);
        }
        let dir = self.dir(parent)?;
        let bits = Mode::from_bits_truncate(mode & 0o7777);
        mknodat(&dir, name, kind, bits, 0)?;
        // By another way to the directory a link can have its name by now: then it is the link that is meant, which has no mode.
        let made = open_in(&dir, name, OFlag::O_PATH)?;
        mode::set(made.as_fd(), bits.bits())?;
        self.find(parent, &dir, name)
    }

    fn make_symlink(&self, parent: INodeNo, name: &OsStr, target: &Path) -> Result<FileAttr> {
        let dir = self.dir(parent)?;
        symlinkat(target, &dir, name)?;
        self.find(parent, &dir, name)
    }

    fn make_link(&self, number: INodeNo, parent: INodeNo, name: &OsStr) -> Result<FileAttr> {
        let places = lock(&self.nodes).places(number.0);
        let (from, old) = places.into_iter().next().ok_or(Errno::ESTALE)?;
        // It is still the one that is meant.
        self.place(number)?;
        let (from, to) = (self.dir(INodeNo(from))?, self.dir(parent)?);
        linkat(&from, old.as_os_str(), &to, name, AtFlags::empty())?;
        self.find(parent, &to, name)
    }

    fn remove(&self, parent: INodeNo, name: &OsStr, how: UnlinkatFlags) -> Result<()> {
        let dir = self.dir(parent)?;
        let gone = self.key_in(&dir, name);
        unlinkat(&dir, name, how)?;
        lock(&self.nodes).unname(parent.0, name, gone);
        Ok(())
    }

    fn move_to(&self, from: (INodeNo, &OsStr), to: (INodeNo, &OsStr), flags: RenameFlags) -> Result<()> {
        let (from_dir, to_dir) = (self.dir(from.0)?, self.dir(to.0)?);
        let (moved, gone) = (self.key_in(&from_dir, from.1), self.key_in(&to_dir, to.1));
        let flags = flags.bits() & (rename::NO_REPLACE | rename::EXCHANGE | rename::WHITEOUT);
        // A whiteout is a device.
        if flags & rename::WHITEOUT != 0 {
            return Err(Errno::EINVAL);
        }
        rename::rename(&from_dir, from.1, &to_dir, to.1, flags)?;
        let mut nodes = lock(&self.nodes);
        nodes.unname(to.0.0, to.1, gone);
        nodes.unname(from.0.0, from.1, moved);
        nodes.name_of(to.0.0, to.1, moved);
        if flags & rename::EXCHANGE != 0 {
            nodes.name_of(from.0.0, from.1, gone);
        }
        Ok(())
    }

    fn change(&self, number: INodeNo, handle: Option<FileHandle>, change: &Change) -> Result<FileAttr> {
        let open = self.opened(number, handle);
        let place = match &open {
            Some(open) if handle.is_some() => open.file.try_clone().map_err(|e| errno(&e))?,
            _ => match (self.dir(number), &open) {
                (Err(_), Some(open)) => open.file.try_clone().map_err(|e| errno(&e))?,
                (place, _) => place?,
            },
        };
        let found = look(&place)?;
        let (uid, gid) = self.ids.shown(&found);
        // All that is here is the caller's, and stays so.
        if change.uid.is_some_and(|wanted| wanted != uid) || change.gid.is_some_and(|wanted| wanted != gid) {
            return Err(Errno::EPERM);
        }
        if let Some(mode) = change.mode {
            let mode = Permissions::from_mode(mode & 0o7777);
            fs::set_permissions(shown_by_proc(&place), mode).map_err(|e| errno(&e))?;
        }
        if let Some(size) = change.size {
            self.resize(&place, open.as_deref().filter(|_| handle.is_some()), size)?;
        }
        if change.times.iter().any(Option::is_some) {
            self.set_times(number, &place, found.is_symlink(), change.times)?;
        }
        Ok(self.attributes(number, &look(&place)?))
    }

    fn resize(&self, place: &File, open: Option<&Open>, size: u64) -> Result<()> {
        let resized = match open {
            Some(open) => open.file.set_len(size),
            None => fs::OpenOptions::new()
                .write(true)
                .open(shown_by_proc(place))
                .and_then(|file| file.set_len(size)),
        };
        resized.map_err(|error| errno(&error))
    }

    fn set_times(&self, number: INodeNo, place: &File, is_symlink: bool, times: [Option<TimeOrNow>; 2]) -> Result<()> {
        let [accessed, modified] = times.map(spec);
        if !is_symlink {
            let path = shown_by_proc(place);
            return utimensat(
                nix::fcntl::AT_FDCWD,
                path.as_str(),
                &accessed,
                &modified,
                UtimensatFlags::FollowSymlink,
            );
        }
        let places = lock(&self.nodes).places(number.0);
        let (parent, name) = places.into_iter().next().ok_or(Errno::ESTALE)?;
        let dir = self.dir(INodeNo(parent))?;
        utimensat(
            &dir,
            name.as_os_str(),
            &accessed,
            &modified,
            UtimensatFlags::NoFollowSymlink,
        )
    }

    fn read_at(&self, handle: FileHandle, offset: u64, size: u32) -> Result<Vec<u8>> {
        let open = self.handle(handle)?;
        let mut bytes = vec![0; size.min(LARGEST) as usize];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match open.file.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(errno(&error)),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// Attributes are read and written by open files; of a symlink none are kept.
    fn with_attributes<T>(&self, number: INodeNo, work: impl FnOnce(&File) -> io::Result<T>) -> Result<T> {
        let (place, found) = self.place(number)?;
        if !found.is_file() && !found.is_dir() {
            return Err(Errno::EOPNOTSUPP);
        }
        let open = fs::OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(shown_by_proc(&place));
        open.and_then(|file| work(&file)).map_err(|error| errno(&error))
    }

    fn attribute(&self, number: INodeNo, name: &OsStr) -> Result<Vec<u8>> {
        let name = CString::new(name.as_bytes()).map_err(|_| Errno::EINVAL)?;
        self.with_attributes(number, |file| xattr::get(file, &name))?
            .ok_or(Errno::ENODATA)
    }

    fn set_attribute(&self, number: INodeNo, name: &OsStr, value: &[u8], flags: i32) -> Result<()> {
        let name = CString::new(name.as_bytes()).map_err(|_| Errno::EINVAL)?;
        self.with_attributes(number, |file| {
            let is_there = flags != 0 && xattr::get(file, &name)?.is_some();
            let refused = match is_there {
                true if flags & libc::XATTR_CREATE != 0 => Some(libc::EEXIST),
                false if flags & libc::XATTR_REPLACE != 0 => Some(libc::ENODATA),
                _ => None,
            };
            match refused {
                Some(errno) => Err(io::Error::from_raw_os_error(errno)),
                None => xattr::set(file, &name, value),
            }
        })
    }

    fn remove_attribute(&self, number: INodeNo, name: &OsStr) -> Result<()> {
        let name = CString::new(name.as_bytes()).map_err(|_| Errno::EINVAL)?;
        self.with_attributes(number, |file| xattr::remove(file, &name))
    }

    fn attribute_names(&self, number: INodeNo) -> Result<Vec<u8>> {
        let names = match self.with_attributes(number, |file| xattr::list(file)) {
            Err(Errno::EOPNOTSUPP) => Vec::new(),
            names => names?,
        };
        Ok(names
            .iter()
            .flat_map(|name| name.to_bytes_with_nul())
            .copied()
            .collect())
    }
}

/// What `setattr` asks for.
#[derive(Debug, Default)]
struct Change {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    times: [Option<TimeOrNow>; 2],
}

/// Sets a mode that this process' own mask has changed.
fn set_mode(file: &File, mode: Mode) -> Result<()> {
    let is = look(file)?.permissions().mode() & 0o7777;
    match is == mode.bits() {
        true => Ok(()),
        false => nix::sys::stat::fchmod(file, mode),
    }
}

fn spec(time: Option<TimeOrNow>) -> TimeSpec {
    match time {
        None => TimeSpec::UTIME_OMIT,
        Some(TimeOrNow::Now) => TimeSpec::UTIME_NOW,
        Some(TimeOrNow::SpecificTime(time)) => match time.duration_since(UNIX_EPOCH) {
            Ok(since) => TimeSpec::from(since),
            Err(before) => before_1970(before.duration()),
        },
    }
}

fn before_1970(by: Duration) -> TimeSpec {
    let seconds = i64::try_from(by.as_secs()).unwrap_or(i64::MAX);
    match by.subsec_nanos() {
        0 => TimeSpec::new(-seconds, 0),
        nanos => TimeSpec::new(-seconds - 1, i64::from(1_000_000_000 - nanos)),
    }
}

fn entry(reply: ReplyEntry, made: Result<FileAttr>) {
    match made {
        Ok(made) => reply.entry(&TTL, &made, Generation(0)),
        Err(error) => reply.error(told(error)),
    }
}

fn attributes(reply: ReplyAttr, found: Result<FileAttr>) {
    match found {
        Ok(found) => reply.attr(&TTL, &found),
        Err(error) => reply.error(told(error)),
    }
}

fn done(reply: ReplyEmpty, done: Result<()>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(told(error)),
    }
}

fn opened(reply: ReplyOpen, handle: Result<FileHandle>) {
    match handle {
        Ok(handle) => reply.opened(handle, FopenFlags::empty()),
        Err(error) => reply.error(told(error)),
    }
}

fn value(reply: ReplyXattr, size: u32, value: Result<Vec<u8>>) {
    let value = match value {
        Ok(value) => value,
        Err(error) => return reply.error(told(error)),
    };
    match (size, u32::try_from(value.len())) {
        (0, Ok(length)) => reply.size(length),
        (room, Ok(length)) if length <= room => reply.data(&value),
        _ => reply.error(told(Errno::ERANGE)),
    }
}

impl Filesystem for Shown {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // What the host writes is read anew.
        let _ = config.add_capabilities(InitFlags::FUSE_AUTO_INVAL_DATA);
        let _ = config.set_max_write(LARGEST);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(reply, self.dir(parent).and_then(|dir| self.find(parent, &dir, name)));
    }

    fn forget(&self, _: &Request, number: INodeNo, lookups: u64) {
        lock(&self.nodes).forget(number.0, lookups);
    }

    fn getattr(&self, _: &Request, number: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        let found = self.stat(number, handle);
        attributes(reply, found.map(|found| self.attributes(number, &found)));
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = Change {
            mode,
            uid,
            gid,
            size,
            times: [accessed, modified],
        };
        attributes(reply, self.change(number, handle, &change));
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        let target = self.dir(number).and_then(|place| readlinkat(&place, ""));
        match target {
            Ok(target) => reply.data(target.as_bytes()),
            Err(error) => reply.error(told(error)),
        }
    }

    fn mknod(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, _: u32, reply: ReplyEntry) {
        entry(reply, self.make_node(parent, name, mode));
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        entry(reply, self.make_dir(parent, name, mode));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(reply, self.remove(parent, name, UnlinkatFlags::NoRemoveDir));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(reply, self.remove(parent, name, UnlinkatFlags::RemoveDir));
    }

    fn symlink(&self, _: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        entry(reply, self.make_symlink(parent, name, target));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        new: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        done(reply, self.move_to((parent, name), (to, new), flags));
    }

    fn link(&self, _: &Request, number: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(reply, self.make_link(number, parent, name));
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        opened(reply, self.open_file(number, flags));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.read_at(handle, offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(told(error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self
            .handle(handle)
            .and_then(|open| open.file.write_at(data, offset).map_err(|error| errno(&error)));
        match written {
            Ok(written) => reply.written(u32::try_from(written).unwrap_or(u32::MAX)),
            Err(error) => reply.error(told(error)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Nothing is kept back.
        reply.error(told(Errno::ENOSYS));
    }

    fn release(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.drop_open(number, handle);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, only_data: bool, reply: ReplyEmpty) {
        let synced = self.handle(handle).and_then(|open| {
            let synced = match only_data {
                true => open.file.sync_data(),
                false => open.file.sync_all(),
            };
            synced.map_err(|error| errno(&error))
        });
        done(reply, synced);
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        opened(reply, self.open_dir(number));
    }

    fn readdir(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = self.handle(handle).and_then(|open| open.list(offset == 0));
        let listed = match listed {
            Ok(listed) => listed,
            Err(error) => return reply.error(told(error)),
        };
        let first = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, entry) in listed.iter().enumerate().skip(first) {
            if reply.add(INodeNo(entry.inode), index as u64 + 1, entry.kind, &entry.name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, number: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.drop_open(number, handle);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        let synced = self
            .handle(handle)
            .and_then(|open| open.file.sync_all().map_err(|error| errno(&error)));
        done(reply, synced);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match fstatvfs(&self.root) {
            Ok(found) => reply.statfs(
                found.blocks(),
                found.blocks_free(),
                found.blocks_available(),
                found.files(),
                found.files_free(),
                u32::try_from(found.block_size()).unwrap_or(4096),
                u32::try_from(found.name_max()).unwrap_or(255),
                u32::try_from(found.fragment_size()).unwrap_or(4096),
            ),
            Err(error) => reply.error(told(error)),
        }
    }

    fn setxattr(
        &self,
        _: &Request,
        number: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        done(reply, self.set_attribute(number, name, value, flags));
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        value(reply, size, self.attribute(number, name));
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        value(reply, size, self.attribute_names(number));
    }

    fn removexattr(&self, _: &Request, number: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(reply, self.remove_attribute(number, name));
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        // The kernel knows by mode and owner.
        reply.error(told(Errno::ENOSYS));
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, flags: i32, reply: ReplyCreate) {
        match self.make_file(parent, name, mode, flags) {
            Ok((made, handle)) => reply.created(&TTL, &made, Generation(0), handle, FopenFlags::empty()),
            Err(error) => reply.error(told(error)),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let made = self.handle(handle).and_then(|open| {
            let offset = i64::try_from(offset).map_err(|_| Errno::EFBIG)?;
            let length = i64::try_from(length).map_err(|_| Errno::EFBIG)?;
            fallocate(&open.file, FallocateFlags::from_bits_truncate(mode), offset, length)
        });
        done(reply, made);
    }

    fn lseek(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let whence = match whence {
            libc::SEEK_DATA => Whence::SeekData,
            libc::SEEK_HOLE => Whence::SeekHole,
            _ => return reply.error(told(Errno::EINVAL)),
        };
        match self.handle(handle).and_then(|open| lseek(&open.file, offset, whence)) {
            Ok(offset) => reply.offset(offset),
            Err(error) => reply.error(told(error)),
        }
    }
}
