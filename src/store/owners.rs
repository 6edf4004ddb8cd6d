//! Owners: one per engine. An owner lives as long as anybody holds its lock, whatever became of the process that took it.
//!
//! The lock is an open file description lock (`F_OFD_SETLK`, fcntl(2)): it belongs to the open file, so it survives being
//! passed to another process, and goes when the last descriptor of it closes, `kill -9` included. Unlike flock(2) it can be
//! looked at without being taken, so that asking "is it alive?" never disturbs somebody who is about to sweep.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::layout::make_private_directory;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::boot;
use crate::types::OwnerId;

const LOCK: &str = "lock";
/// Where a living owner can be asked.
const DOOR: &str = "door";
const UNBORN: &str = ".new.";
const GONE: &str = ".gone.";

/// The directory of owners. Cheap to clone; every method blocks for a few system calls.
#[derive(Debug, Clone)]
pub struct Owners {
    dir: Arc<PathBuf>,
}

/// A living owner. It lives until every copy of its lock's descriptor is closed.
#[derive(Debug)]
pub struct Owner {
    id: OwnerId,
    lock: OwnedFd,
}

impl Owner {
    /// The owner's id.
    pub fn id(&self) -> &OwnerId {
        &self.id
    }

    /// The lock, to be passed to whoever shall keep the owner alive too (close-on-exec is set).
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// Another descriptor of the same lock.
    ///
    /// # Errors
    /// `Os` where the process has no descriptor left.
    pub fn dup_lock(&self) -> Result<OwnedFd> {
        self.lock
            .try_clone()
            .map_err(|error| Error::os("duplicate the owner's lock", error))
    }
}

/// A dead owner whose remains only the holder of this guard may sweep. Dropping it lets others try.
#[derive(Debug)]
pub struct DeadOwner {
    id: OwnerId,
    /// Keeps the lock.
    _lock: File,
}

impl DeadOwner {
    /// The owner's id.
    pub fn id(&self) -> &OwnerId {
        &self.id
    }
}

/// The socket of an owner, by a path that is short enough for one: those of roots need not be (unix(7): 108 bytes).
#[derive(Debug)]
pub(crate) struct Door {
    /// Keeps the path.
    _dir: File,
    path: PathBuf,
}

impl Door {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Owners {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir: Arc::new(dir) }
    }

    /// Makes a new owner and takes its lock. It appears to others only with its lock held.
    ///
    /// # Errors
    /// `NoSpace`, `ReadOnly` or `Os`.
    #[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
    pub fn register(&self) -> Result<Owner> {
        let id = OwnerId::random();
        let unborn = self.dir.join(format!("{UNBORN}{id}"));
        make_private_directory(&unborn)?;
        let registered = self.bear(&id, &unborn);
        if registered.is_err() {
            // Best effort: without an owner's name the directory means nothing to anybody.
            let _ = fs::remove_dir_all(&unborn);
        }
        registered
    }

    fn bear(&self, id: &OwnerId, unborn: &Path) -> Result<Owner> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(unborn.join(LOCK))
            .map_err(|error| Error::os("make the owner's lock", error))?;
        if !try_lock(&file)? {
            let message = "another process holds the lock of an owner that is only being made; try again";
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        // For people who look: which process took the lock, and in which boot.
        let note = format!("boot {}\npid {}\n", boot::text()?.as_str(), std::process::id());
        (&file)
            .write_all(note.as_bytes())
            .map_err(|error| Error::os("write the owner's note", error))?;
        fs::rename(unborn, self.path(id)).map_err(|error| Error::os("register the owner", error))?;
        Ok(Owner {
            id: id.clone(),
            lock: file.into(),
        })
    }

    /// Whether somebody holds the owner's lock. An owner that nobody knows is dead.
    ///
    /// # Errors
    /// `Os` where the lock cannot be looked at.
    pub fn is_alive(&self, id: &OwnerId) -> Result<bool> {
        match self.open_lock(id)? {
            Some(file) => is_locked(&file),
            None => Ok(false),
        }
    }

    /// All owners whose lock nobody holds. Three system calls per owner.
    ///
    /// # Errors
    /// `Os` where the directory cannot be read.
    #[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
    pub fn dead(&self) -> Result<Vec<OwnerId>> {
        let mut dead = Vec::new();
        for id in self.list()? {
            if !self.is_alive(&id)? {
                dead.push(id);
            }
        }
        Ok(dead)
    }

    /// All owners, dead or alive.
    ///
    /// # Errors
    /// `Os` where the directory cannot be read.
    #[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
    pub fn list(&self) -> Result<Vec<OwnerId>> {
        let entries = fs::read_dir(&*self.dir).map_err(|error| Error::os("list owners", error))?;
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| Error::os("list owners", error))?;
            if let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    /// Takes a dead owner's lock: who gets it may sweep what the owner left. `None`: it lives, somebody else sweeps, or
    /// it is forgotten already.
    ///
    /// # Errors
    /// `Os` where the lock cannot be opened.
    pub fn try_take(&self, id: &OwnerId) -> Result<Option<DeadOwner>> {
        let Some(file) = self.open_lock(id)? else {
            return Ok(None);
        };
        if !try_lock(&file)? || !self.is_current(id, &file)? {
            return Ok(None);
        }
        Ok(Some(DeadOwner {
            id: id.clone(),
            _lock: file,
        }))
    }

    /// Forgets an owner that is swept. Nobody else can: the guard holds the lock, and whoever opened the same file
    /// before finds it nameless.
    ///
    /// # Errors
    /// `Os`; the owner stays dead and can be taken again.
    pub fn forget(&self, dead: DeadOwner) -> Result<()> {
        let gone = self.dir.join(format!("{GONE}{}", dead.id));
        fs::rename(self.path(&dead.id), &gone).map_err(|error| Error::os("forget an owner", error))?;
        fs::remove_dir_all(&gone).map_err(|error| Error::os("remove an owner's directory", error))
    }

    /// Removes what killed processes left between two steps of `register` or `forget`. Safe at any time.
    ///
    /// # Errors
    /// `Os` where the directory cannot be read.
    pub fn tidy(&self) -> Result<()> {
        let entries = fs::read_dir(&*self.dir).map_err(|error| Error::os("list owners", error))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let unborn = name.starts_with(UNBORN) && !is_file_locked(&entry.path().join(LOCK)) && is_old(&entry);
            if unborn || name.starts_with(GONE) {
                // Another process may be doing the same.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(())
    }

    /// Where an owner's socket is, if it has one.
    pub(crate) fn door(&self, id: &OwnerId) -> io::Result<Door> {
        let dir = OpenOptions::new()
            .read(true)
            .custom_flags((OFlag::O_PATH | OFlag::O_DIRECTORY).bits())
            .open(self.path(id))?;
        let path = format!("/proc/self/fd/{}/{DOOR}", dir.as_raw_fd()).into();
        Ok(Door { _dir: dir, path })
    }

    /// Makes the socket of a living owner; it goes with the owner's directory. Only this user gets into that. It takes
    /// messages, each with an end of a connection in it: nothing listens.
    pub(crate) fn open_door(&self, id: &OwnerId) -> io::Result<UnixDatagram> {
        let door = self.door(id)?;
        let socket = UnixDatagram::bind(door.path())?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    fn path(&self, id: &OwnerId) -> PathBuf {
        self.dir.join(id.as_str())
    }

    #[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
    fn open_lock(&self, id: &OwnerId) -> Result<Option<File>> {
        match OpenOptions::new().read(true).write(true).open(self.path(id).join(LOCK)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::os("open an owner's lock", error)),
        }
    }

    /// Whether the locked file still is the one that has the name.
    fn is_current(&self, id: &OwnerId, file: &File) -> Result<bool> {
        let held = file
            .metadata()
            .map_err(|error| Error::os("look at an owner's lock", error))?;
        match fs::metadata(self.path(id).join(LOCK)) {
            Ok(named) => Ok((named.dev(), named.ino()) == (held.dev(), held.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::os("look at an owner's lock", error)),
        }
    }
}

/// What is being made right now is seconds old at most.
pub(super) fn is_old(entry: &fs::DirEntry) -> bool {
    let age = entry
        .metadata()
        .ok()
        .and_then(|m| m.modified().ok())
        .and_then(|at| at.elapsed().ok());
    age.is_some_and(|age| age.as_secs() > 60)
}

fn is_file_locked(path: &Path) -> bool {
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.is_ok_and(|file| is_locked(&file).unwrap_or(true))
}

fn whole_file() -> libc::flock {
    // A write lock from the first byte to the end, whatever the length. `l_pid` must be 0 for F_OFD commands.
    libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn try_lock(file: &File) -> Result<bool> {
    match fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&whole_file())) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(Error::os(format!("lock descriptor {}", file.as_raw_fd()), errno)),
    }
}

fn is_locked(file: &File) -> Result<bool> {
    let mut lock = whole_file();
    fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut lock))
        .map_err(|errno| Error::os("look at an owner's lock", errno))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}
