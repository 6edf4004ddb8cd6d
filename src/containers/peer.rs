//! A container of another live process on the same root: what can be done through its pid alone.

use std::os::fd::{AsFd as _, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use tokio::io::Interest;

use super::record::ProcessIdentity;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::Task;
use crate::sys::{pidfd, poll};
use crate::types::Signal;

/// The identity of a process now.
pub(crate) fn identify(pid: u32) -> Option<ProcessIdentity> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may hold spaces and parentheses: fields count from the last one.
    let fields = stat.rsplit_once(')')?.1;
    let start_ticks = fields.split_ascii_whitespace().nth(19)?.parse().ok()?;
    Some(ProcessIdentity::here(pid, start_ticks))
}

/// The identity of a container's first process; `None` if nobody can look at it any more.
pub(crate) fn identity_of(task: &dyn Task) -> Option<ProcessIdentity> {
    let known = task.start_ticks().filter(|_| task.pid() != 0);
    known
        .map(|ticks| ProcessIdentity::here(task.pid(), ticks))
        .or_else(|| identify(task.pid()))
}

/// Opens a process and makes sure that it is the one that was recorded: the pid may have gone to another since.
pub(crate) fn open(process: ProcessIdentity) -> Result<OwnedFd> {
    let ended = || Error::new(ErrorKind::InvalidState, "the container's process has ended");
    let fd = pidfd::open(process.pid).map_err(|_| ended())?;
    if !identify(process.pid).is_some_and(|now| now.is(&process)) {
        return Err(ended());
    }
    Ok(fd)
}

/// Whether a recorded process lives. One that has ended and that nobody reaps does not: not every host's init does.
pub(crate) fn is_alive(process: ProcessIdentity) -> bool {
    let Ok(fd) = open(process) else { return false };
    let mut wanted = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    !nix::poll::poll(&mut wanted, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Sends a signal to a recorded process.
pub(crate) fn signal(process: ProcessIdentity, signal: Signal) -> Result<()> {
    let fd = open(process)?;
    pidfd::send_signal(fd.as_fd(), signal.number()).map_err(|error| Error::os("send a signal", error))
}

/// Waits until an opened process has ended.
pub(crate) async fn ended(process: OwnedFd) -> Result<()> {
    let fd = poll::watch(process, Interest::READABLE).map_err(|error| Error::os("poll a process", error))?;
    fd.readable()
        .await
        .map(|_| ())
        .map_err(|error| Error::os("poll a process", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_itself_and_a_reused_pid_is_not() {
        let me = identify(std::process::id()).unwrap();
        assert!(open(me).is_ok());
        let former = ProcessIdentity {
            start_ticks: me.start_ticks + 1,
            ..me
        };
        assert_eq!(open(former).unwrap_err().kind(), &ErrorKind::InvalidState);
        let of_another_boot = ProcessIdentity {
            boot: Some([1, 2]),
            ..me
        };
        assert_eq!(open(of_another_boot).unwrap_err().kind(), &ErrorKind::InvalidState);
        assert!(of_another_boot.is_of_former_boot() && !me.is_of_former_boot());
        // A record that an earlier version has written does not say.
        let unsaid = ProcessIdentity { boot: None, ..me };
        assert!(open(unsaid).is_ok() && !unsaid.is_of_former_boot());
    }
}
