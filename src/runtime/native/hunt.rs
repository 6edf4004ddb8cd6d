//! Finds and kills all that a command has started, wherever it went, as a shim does for its probes (`helper/shim/hunt.rs`): by the
//! UTS namespace of its own that the command was given. So with a program of the host's, by its mount namespace.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::stat::{Mode, fstat, fstatat};

use crate::error::{Error, Result};
use crate::sys::blocking::blocking;
use crate::sys::pidfd;

/// How soon is looked again for what may be left, at first and at last.
const SOON: Duration = Duration::from_millis(5);
const LATE: Duration = Duration::from_secs(1);

/// Device and inode of a namespace.
type Identity = (u64, u64);

/// A namespace that nobody else is in, with what it is called below `/proc/PID`.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    kind: &'static str,
    namespace: Arc<OwnedFd>,
}

impl Mark {
    pub(crate) fn uts(namespace: OwnedFd) -> Self {
        Self {
            kind: "ns/uts",
            namespace: Arc::new(namespace),
        }
    }

    /// The mount namespace of a process that has its own.
    ///
    /// # Errors
    /// `EINVAL` if it is this process's, too.
    #[cfg(feature = "engine")]
    pub(crate) fn mounts_of(pid: u32) -> io::Result<Self> {
        let kind = "ns/mnt";
        let namespace = fs::File::open(format!("/proc/{pid}/{kind}"))?;
        let (its, own) = (
            fstat(&namespace)?,
            nix::sys::stat::stat(&Path::new("/proc/self").join(kind))?,
        );
        if (its.st_dev, its.st_ino) == (own.st_dev, own.st_ino) {
            return Err(Errno::EINVAL.into());
        }
        Ok(Self {
            kind,
            namespace: Arc::new(namespace.into()),
        })
    }
}

/// Kills every process in a namespace, until there is none.
///
/// # Errors
/// `Os` where the processes of this machine cannot be looked at.
///
/// # Cancel safety
/// Those that were found have been killed.
pub(crate) async fn kill_all(mark: &Mark) -> Result<()> {
    let mut pause = SOON;
    loop {
        // Open all the time: the number of one that is gone may be another's.
        let mark = mark.clone();
        let found = blocking(move || kill_all_in(&mark).map_err(unseen));
        if !found.await? {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LATE);
    }
}

fn unseen(error: io::Error) -> Error {
    Error::os("look for what a command has started", error)
}

/// Whether there may be one still, which is on its way out perhaps, or was forked meanwhile.
fn kill_all_in(mark: &Mark) -> io::Result<bool> {
    let wanted = fstat(mark.namespace.as_fd())?;
    let wanted = (wanted.st_dev, wanted.st_ino);
    let mut found = false;
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if name.as_bytes().first().is_some_and(u8::is_ascii_digit) {
            found |= kill_one(&name, mark.kind, wanted)?;
        }
    }
    Ok(found)
}

fn kill_one(name: &OsStr, kind: &str, wanted: Identity) -> io::Result<bool> {
    // From here on it is this process, whoever has its number next.
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let process = match open(&Path::new("/proc").join(name), flags, Mode::empty()) {
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EACCES) => return Ok(false),
        process => process?,
    };
    // One that is dead has none any more; one of somebody else's is not to be looked at.
    let Ok(seen) = fstatat(&process, kind, AtFlags::empty()) else {
        return Ok(false);
    };
    if (seen.st_dev, seen.st_ino) != wanted {
        return Ok(false);
    }
    match pidfd::send_signal(process.as_fd(), libc::SIGKILL) {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
        _ => Ok(true),
    }
}
