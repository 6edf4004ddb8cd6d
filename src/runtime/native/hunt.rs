//! Finds and kills all that a command has started, wherever it went, as a shim does for its probes (`helper/shim/hunt.rs`): by the
//! UTS namespace of its own that the command was given.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
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

/// Kills every process of a UTS namespace, until there is none.
///
/// # Errors
/// `Os` where the processes of this machine cannot be looked at.
///
/// # Cancel safety
/// Those that were found have been killed.
pub(crate) async fn kill_all(namespace: &Arc<OwnedFd>) -> Result<()> {
    let mut pause = SOON;
    loop {
        // Open all the time: the number of one that is gone may be another's.
        let namespace = Arc::clone(namespace);
        let found = blocking(move || kill_all_in(namespace.as_fd()).map_err(unseen));
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
fn kill_all_in(namespace: BorrowedFd<'_>) -> io::Result<bool> {
    let wanted = fstat(namespace)?;
    let wanted = (wanted.st_dev, wanted.st_ino);
    let mut found = false;
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if name.as_bytes().first().is_some_and(u8::is_ascii_digit) {
            found |= kill_one(&name, wanted)?;
        }
    }
    Ok(found)
}

fn kill_one(name: &OsStr, wanted: Identity) -> io::Result<bool> {
    // From here on it is this process, whoever has its number next.
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let process = match open(&Path::new("/proc").join(name), flags, Mode::empty()) {
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EACCES) => return Ok(false),
        process => process?,
    };
    // One that is dead has none any more; one of somebody else's is not to be looked at.
    let Ok(seen) = fstatat(&process, "ns/uts", AtFlags::empty()) else {
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
