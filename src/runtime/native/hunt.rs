//! Finds and kills all that a command has started, wherever it went, as a shim does for its probes (`helper/shim/hunt.rs`): by the
//! UTS namespace of its own that the command was given. So with a program of the host's, by its mount namespace.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, fstat, fstatat};

#[cfg(feature = "engine")]
use crate::error::ErrorKind;
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
    /// Of those in it, the ones of this session alone.
    session: Option<i32>,
}

impl Mark {
    pub(crate) fn uts(namespace: OwnedFd) -> Self {
        Self {
            kind: "ns/uts",
            namespace: Arc::new(namespace),
            session: None,
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
            session: None,
        })
    }

    /// The session of a process that does not lead it, as far as it is in the process's mount namespace: the number of one that is over
    /// may be another's, and never in that container. `None` if the process leads it.
    ///
    /// # Errors
    /// As [`Mark::mounts_of`].
    #[cfg(feature = "engine")]
    pub(crate) fn session_of(pid: u32) -> io::Result<Option<Self>> {
        let session = session_in(&fs::read(format!("/proc/{pid}/stat"))?);
        if session.is_none_or(|session| session.unsigned_abs() == pid) {
            return Ok(None);
        }
        let mark = Self::mounts_of(pid)?;
        Ok(Some(Self { session, ..mark }))
    }
}

/// The session in a process' `stat`. Source: proc_pid_stat(5); the program's name may have any bytes.
fn session_in(stat: &[u8]) -> Option<i32> {
    let name = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(name + 1..)?).ok()?;
    // State, parent, group, session.
    rest.split_ascii_whitespace().nth(3)?.parse().ok()
}

/// The same, with a limit to how long those that were killed are waited for.
///
/// # Errors
/// As [`kill_all`], and `Timeout` after that.
///
/// # Cancel safety
/// As [`kill_all`].
#[cfg(feature = "engine")]
pub(crate) async fn kill_all_within(limit: Duration, mark: &Mark) -> Result<()> {
    let late = || Error::new(ErrorKind::Timeout, "what a command has started does not end");
    tokio::time::timeout(limit, kill_all(mark)).await.map_err(|_| late())?
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
            found |= kill_one(&name, mark, wanted)?;
        }
    }
    Ok(found)
}

/// The session of a process whose directory this is.
fn session_at(process: &OwnedFd) -> Option<i32> {
    let stat = openat(process, "stat", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let mut text = Vec::new();
    fs::File::from(stat).read_to_end(&mut text).ok()?;
    session_in(&text)
}

fn kill_one(name: &OsStr, mark: &Mark, wanted: Identity) -> io::Result<bool> {
    // From here on it is this process, whoever has its number next.
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let process = match open(&Path::new("/proc").join(name), flags, Mode::empty()) {
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EACCES) => return Ok(false),
        process => process?,
    };
    // One that is dead has none any more; one of somebody else's is not to be looked at.
    let Ok(seen) = fstatat(&process, mark.kind, AtFlags::empty()) else {
        return Ok(false);
    };
    if (seen.st_dev, seen.st_ino) != wanted
        || mark
            .session
            .is_some_and(|session| session_at(&process) != Some(session))
    {
        return Ok(false);
    }
    match pidfd::send_signal(process.as_fd(), libc::SIGKILL) {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
        _ => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_read_whatever_the_program_is_called() {
        assert_eq!(session_in(b"7 (sh) S 1 5 4 0 -1 4194560"), Some(4));
        assert_eq!(session_in(b"7 (a) R 9 9 9 (b\xff) S 1 5 4 0"), Some(4));
        assert_eq!(session_in(b"7 (sh) S 1 5"), None);
        assert_eq!(session_in(b""), None);
        let own = session_in(&fs::read("/proc/self/stat").unwrap()).unwrap();
        assert_eq!(own, nix::unistd::getsid(None).unwrap().as_raw());
    }
}
