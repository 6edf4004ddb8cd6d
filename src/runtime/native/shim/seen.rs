//! What a shim has written down, and whether it lives, without asking it.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{LOCK, STATE, check, connect, place};
use crate::error::{Error, Result};
use crate::runtime::Exit;
use crate::runtime::detached::{DetachedPhase, DetachedSeen, DetachedState};
use crate::runtime::native::helper::record::{self, State, phase};
use crate::runtime::native::task;

pub(super) fn seen(dir: &Path) -> Result<DetachedSeen> {
    // In this order: of a shim that has gone, what is read then is the last.
    let alive = is_locked(dir)?;
    let bytes = match fs::read(dir.join(STATE)) {
        Ok(bytes) => bytes,
        // Somebody has removed what a shim writes to.
        Err(error) if error.kind() == io::ErrorKind::NotFound && alive => return Ok(DetachedSeen::Damaged { alive }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(DetachedSeen::Nothing),
        Err(error) => return Err(Error::os("read a shim's state", error)),
    };
    let Some(state) = record::newest(&bytes) else {
        return Ok(DetachedSeen::Damaged { alive });
    };
    if alive {
        return Ok(DetachedSeen::Alive(shown(&state, dir)));
    }
    let now = place::boot()? == state.boot;
    // An end that was written down holds in any boot. Where no shim has written anything, there was none.
    if state.shim_pid == 0 || !now && state.phase != phase::ENDED {
        return Ok(DetachedSeen::Nothing);
    }
    Ok(DetachedSeen::Gone {
        state: shown(&state, dir),
        process: now && state.phase != phase::ENDED && lives(&state),
    })
}

/// Whether somebody holds the lock. To ask takes a shared one for a moment.
fn is_locked(dir: &Path) -> Result<bool> {
    let step = |error: io::Error| Error::os("look at a shim's lock", error);
    let mut file = match File::open(dir.join(LOCK)) {
        Ok(file) => file,
        // There was no shim, or somebody has removed the lock under one.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(connect::is_heard(dir)),
        Err(error) => return Err(step(error)),
    };
    loop {
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_) => return Ok(false),
            Err((_, Errno::EWOULDBLOCK)) => return Ok(true),
            Err((again, Errno::EINTR)) => file = again,
            Err((_, errno)) => return Err(step(errno.into())),
        }
    }
}

/// Whether the first process lives: the number alone may be another's by now.
pub(super) fn lives(state: &State) -> bool {
    born(state.pid) == Some(state.start_ticks)
}

/// When a process that lives was made, in the kernel's ticks. Source: proc_pid_stat(5), field 22.
pub(super) fn born(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, also a parenthesis.
    let (_, rest) = text.rsplit_once(')')?;
    let mut words = rest.split_ascii_whitespace();
    let dead = matches!(words.next(), Some("Z" | "X") | None);
    words.nth(18)?.parse().ok().filter(|_| !dead)
}

/// As the library's users see it, with what lies beside it.
pub(super) fn shown(state: &State, dir: &Path) -> DetachedState {
    DetachedState {
        change: state.change,
        phase: match state.phase {
            phase::RUNNING => DetachedPhase::Running,
            phase::RESTARTING => DetachedPhase::Restarting,
            phase::ENDED => DetachedPhase::Ended,
            _ => DetachedPhase::Starting,
        },
        shim_pid: state.shim_pid,
        pid: state.pid,
        start_ticks: state.start_ticks,
        started_ns: state.started_ns,
        finished_ns: state.finished_ns,
        exit: state
            .exit
            .map(|status| Exit::new(task::status(status), state.oom_killed)),
        restarts: state.restarts,
        ends: state.ends,
        failure: state.failure,
        lost_entries: state.lost_entries,
        stdin_closed: state.stdin_closed,
        health: state.health.map(|health| check::shown(&health, state.started_ns, dir)),
    }
}
