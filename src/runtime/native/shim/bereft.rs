//! A container whose shim was killed: what is left of it to whoever takes the shim's place, and its end, which the kernel tells
//! those who have held its process.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::seen::lives;
use super::{LOCK, STATE};
use crate::error::{Error, Result};
use crate::logs::LogStream;
use crate::runtime::detached::Bereft;
use crate::runtime::native::helper::record::{self, State, phase};
use crate::sys::pidfd;

/// How long init may take to reap an orphan.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

pub(super) fn bereft(dir: &Path) -> Result<Option<Bereft>> {
    let Some(_no_shim) = without_shim(dir)? else {
        return Ok(None);
    };
    // Before: what it prints last would be gone with it.
    let outputs = outputs(dir)?;
    let Some((process, state)) = orphan(dir)? else {
        return Ok(None);
    };
    Ok(Some(Bereft {
        process,
        outputs,
        identity: (state.pid, state.start_ticks),
    }))
}

/// The first process of a container whose shim is gone, if it lives. The caller knows that there is no shim, and that none comes.
pub(super) fn orphan(dir: &Path) -> Result<Option<(OwnedFd, State)>> {
    let Some((_, state)) = read(dir)? else { return Ok(None) };
    if state.phase == phase::ENDED || super::place::boot()? != state.boot {
        return Ok(None);
    }
    let process = match pidfd::open(state.pid) {
        Ok(process) => process,
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
        Err(error) => return Err(Error::os("open a container's process", error)),
    };
    // After it was opened: the number alone may be another's.
    Ok(lives(&state).then_some((process, state)))
}

/// Readers of what it prints. As long as they are there, what nobody has read yet outlives the container.
pub(super) fn outputs(dir: &Path) -> Result<Vec<(OwnedFd, LogStream)>> {
    let mut outputs = Vec::new();
    for (name, stream) in [("out", LogStream::Stdout), ("err", LogStream::Stderr)] {
        outputs.extend(output(dir, name)?.map(|end| (end, stream)));
    }
    Ok(outputs)
}

fn output(dir: &Path, name: &str) -> Result<Option<OwnedFd>> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW);
    match options.open(dir.join(name)) {
        Ok(end) => Ok(Some(end.into())),
        // Somebody has removed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::os("open a container's stream", error)),
    }
}

pub(super) fn note_end(dir: &Path, bereft: &Bereft) -> Result<bool> {
    let Some(status) = status_of(bereft.process.as_fd()) else {
        return Ok(false);
    };
    let Some(_no_shim) = without_shim(dir)? else {
        return Ok(false);
    };
    let Some((file, state)) = read(dir)? else {
        return Ok(false);
    };
    // One that was setting itself up when its shim was killed may have ended before it came to its program, with a status that is
    // not the program's.
    if (state.pid, state.start_ticks) != bereft.identity || state.phase != phase::RUNNING {
        return Ok(false);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ended = State {
        change: state.change + 1,
        phase: phase::ENDED,
        finished_ns: i64::try_from(now.as_nanos()).unwrap_or(i64::MAX),
        exit: Some(status),
        // Its counter went with its shim.
        oom_killed: None,
        ends: state.ends + 1,
        ..state
    };
    let step = |error: io::Error| Error::os("write a shim's state", error);
    file.write_all_at(&ended.encode(), ended.place() as u64).map_err(step)?;
    file.sync_data().map_err(step)?;
    Ok(true)
}

/// As long as it is there, no shim comes: whoever starts one waits for a moment.
fn without_shim(dir: &Path) -> Result<Option<Flock<File>>> {
    let step = |error: io::Error| Error::os("look at a shim's lock", error);
    let mut file = match File::open(dir.join(LOCK)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(step(error)),
    };
    loop {
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(held) => return Ok(Some(held)),
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((again, Errno::EINTR)) => file = again,
            Err((_, errno)) => return Err(step(errno.into())),
        }
    }
}

pub(super) fn read(dir: &Path) -> Result<Option<(File, State)>> {
    let step = |error: io::Error| Error::os("read a shim's state", error);
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let file = match options.open(dir.join(STATE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(step(error)),
    };
    let mut bytes = vec![0; record::FILE];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => {}
        // Cut short: what is whole in it may be old.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(step(error)),
    }
    Ok(record::newest(&bytes).map(|state| (file, state)))
}

/// The wait status, once the process is reaped.
fn status_of(process: BorrowedFd<'_>) -> Option<i32> {
    let begun = Instant::now();
    loop {
        match pidfd::wait_status(process) {
            Ok(Some(status)) => return Some(status),
            Ok(None) if begun.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
            // An older kernel, or nobody reaps it.
            Ok(None) | Err(_) => return None,
        }
    }
}
