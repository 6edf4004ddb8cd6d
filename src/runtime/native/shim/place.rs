//! What is in a shim's directory, made before the shim: the lock, the state in its full size, the streams, the socket.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::Mode;

use super::{HEALTH, LOCK, SOCKET, STATE, connect};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::native::helper::health;
use crate::runtime::native::helper::record::{self, State, phase};
use crate::runtime::native::parent;

/// How often a lock is asked for that somebody else looks at, and one that a shim has: it may be on its way out.
const TRIES: [u32; 2] = [100, 20];

/// The directory of a shim that is about to be.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    pub(super) dir: OwnedFd,
    pub(super) lock: OwnedFd,
    pub(super) state: File,
    pub(super) listener: OwnedFd,
    /// Where results of probes go, if there is a check.
    pub(super) results: Option<File>,
    /// The boot, and the change that the state's file has now.
    pub(super) boot: [u64; 2],
    pub(super) change: u64,
}

impl Place {
    /// Takes the lock and makes everything beneath it.
    ///
    /// # Errors
    /// `Conflict` if a shim has the lock.
    pub(super) fn make(path: &Path, stdin: bool, checked: bool) -> Result<Self> {
        let dir = open_dir(path)?;
        let lock = take_lock(path)?;
        let boot = boot()?;
        clear(path);
        let made = (|| {
            let (state, change) = first_state(path, boot)?;
            for name in ["out", "err"].into_iter().chain(stdin.then_some("in")) {
                nix::unistd::mkfifo(&path.join(name), Mode::S_IRUSR | Mode::S_IWUSR)
                    .map_err(|errno| Error::os("make a container's stream", errno))?;
            }
            let results = checked.then(|| make_results(path)).transpose()?;
            Ok((state, change, results, listen_at(path, &dir)?))
        })();
        match made {
            Ok((state, change, results, listener)) => Ok(Self {
                path: path.to_owned(),
                dir,
                lock,
                state,
                listener,
                results,
                boot,
                change,
            }),
            Err(error) => {
                clear(path);
                let _ = std::fs::remove_file(path.join(STATE));
                Err(error)
            }
        }
    }

    /// Takes everything back: there will be no shim.
    pub(super) fn undo(&self) {
        clear(&self.path);
        let _ = std::fs::remove_file(self.path.join(STATE));
        parent::forget(&self.path);
    }
}

pub(super) fn open_dir(path: &Path) -> Result<OwnedFd> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_DIRECTORY | libc::O_CLOEXEC);
    let dir = options.open(path);
    dir.map(OwnedFd::from)
        .map_err(|error| Error::os(format!("open {}", path.display()), error))
}

/// Removes what a shim leaves behind that is killed.
fn clear(path: &Path) {
    for name in [SOCKET, "out", "err", "in", "state.new", HEALTH] {
        let _ = std::fs::remove_file(path.join(name));
    }
}

/// Whoever looks whether a shim lives holds a shared lock for a moment: that is not a shim.
fn take_lock(path: &Path) -> Result<OwnedFd> {
    let step = |error: io::Error| Error::os("open a shim's lock", error);
    // Without its lock, which somebody has removed, a shim is still one.
    if !path.join(LOCK).exists() && connect::is_heard(path) {
        return Err(taken());
    }
    for attempt in 0..TRIES[0] {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600);
        let file = options.open(path.join(LOCK)).map_err(step)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return keep(locked),
            Err((file, Errno::EWOULDBLOCK)) => match Flock::lock(file, FlockArg::LockSharedNonblock) {
                Ok(_) | Err((_, Errno::EINTR)) => std::thread::sleep(Duration::from_millis(1)),
                Err((_, Errno::EWOULDBLOCK)) if attempt < TRIES[1] => std::thread::sleep(Duration::from_millis(1)),
                Err((_, Errno::EWOULDBLOCK)) => break,
                Err((_, errno)) => return Err(step(errno.into())),
            },
            Err((_, Errno::EINTR)) => {}
            Err((_, errno)) => return Err(step(errno.into())),
        }
    }
    Err(taken())
}

fn taken() -> Error {
    Error::new(ErrorKind::Conflict, "the container has a shim already")
}

/// The open file without what would unlock it at its end: its copies go to the shim, and with the last of them the lock goes.
fn keep(locked: Flock<File>) -> Result<OwnedFd> {
    let copy = locked.try_clone();
    // A forgotten guard unlocks nothing; its descriptor is closed by way of the number.
    let raw = locked.as_raw_fd();
    std::mem::forget(locked);
    let _ = nix::unistd::close(raw);
    copy.map(OwnedFd::from)
        .map_err(|error| Error::os("keep a shim's lock", error))
}

/// Writes down that a container is about to start; what is read from the file is that, or what was there before.
fn first_state(path: &Path, boot: [u64; 2]) -> Result<(File, u64)> {
    let step = |error: io::Error| Error::os("write a shim's state", error);
    let name = path.join(STATE);
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let mut old = Vec::new();
    let there = match options.open(&name) {
        Ok(mut file) => {
            file.read_to_end(&mut old).map_err(step)?;
            Some(file)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(step(error)),
    };
    let state = State {
        boot,
        change: record::newest(&old).map_or(0, |state| state.change) + 1,
        phase: phase::STARTING,
        ..State::default()
    };
    if let Some(file) = there.filter(|_| old.len() == record::FILE) {
        file.write_all_at(&state.encode(), state.place() as u64).map_err(step)?;
        return Ok((file, state.change));
    }
    let fresh = path.join("state.new");
    options.create(true).truncate(true).mode(0o600);
    let mut file = options.open(&fresh).map_err(step)?;
    let mut bytes = vec![0; record::FILE];
    bytes[state.place()..][..record::SLOT].copy_from_slice(&state.encode());
    file.write_all(&bytes).map_err(step)?;
    std::fs::rename(&fresh, &name).map_err(step)?;
    Ok((file, state.change))
}

/// The file of probes, in its full size: no later write needs room on the disk.
fn make_results(path: &Path) -> Result<File> {
    let step = |error: io::Error| Error::os("make the file of a container's probes", error);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(path.join(HEALTH)).map_err(step)?;
    file.write_all(&vec![0; health::FILE]).map_err(step)?;
    Ok(file)
}

pub(super) fn boot() -> Result<[u64; 2]> {
    crate::sys::boot::id().map_err(|error| Error::os("read the boot's id", error))
}

/// The socket's address: `sun_path` has room for 108 bytes, which a path may exceed.
pub(super) fn address(dir: &OwnedFd) -> nix::Result<UnixAddr> {
    UnixAddr::new(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()).as_str())
}

/// A socket as shims and their clients have it.
pub(super) fn seqpacket(flags: SockFlag) -> nix::Result<OwnedFd> {
    socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC | flags,
        None,
    )
}

fn listen_at(path: &Path, dir: &OwnedFd) -> Result<OwnedFd> {
    let step = |error: io::Error| Error::os("make a shim's socket", error);
    let listener = seqpacket(SockFlag::SOCK_NONBLOCK).map_err(|errno| step(errno.into()))?;
    let address = address(dir).map_err(|errno| step(errno.into()))?;
    bind(listener.as_raw_fd(), &address).map_err(|errno| step(errno.into()))?;
    std::fs::set_permissions(path.join(SOCKET), std::fs::Permissions::from_mode(0o600)).map_err(step)?;
    let backlog = Backlog::new(32).map_err(|errno| step(errno.into()))?;
    listen(&listener.as_fd(), backlog).map_err(|errno| step(errno.into()))?;
    Ok(listener)
}
