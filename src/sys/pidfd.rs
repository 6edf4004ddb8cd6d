//! Processes by descriptor.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Opens a process. The caller must know that the pid is still the one it means.
pub(crate) fn open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: integers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor; it closes on exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Whether the process has ended, reaped or not.
pub(crate) fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    let mut wanted = [PollFd::new(pidfd, PollFlags::POLLIN)];
    poll(&mut wanted, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Sends a signal. `ESRCH` once the process has been reaped.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    send(pidfd, signal, 0)
}

/// Kills the process group that the process leads. `EINVAL` where the kernel is older than 6.9. Source:
/// pidfd_send_signal(2), `PIDFD_SIGNAL_PROCESS_GROUP`.
pub(crate) fn kill_group(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    send(pidfd, libc::SIGKILL, 1 << 2)
}

fn send(pidfd: BorrowedFd<'_>, signal: i32, flags: u32) -> io::Result<()> {
    // SAFETY: a live descriptor, an integer, and no siginfo.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<u8>(),
            flags,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// How a process has ended, as a wait status: whoever had its descriptor when it was reaped may ask, its parent or not. `None` as
/// long as nobody has reaped it.
///
/// # Errors
/// `ENOTTY`, or `ESRCH` once it is reaped, where the kernel is older than 6.15. Source: linux/pidfd.h, `PIDFD_INFO_EXIT`.
#[cfg(feature = "engine")]
pub(crate) fn wait_status(pidfd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    match wait_status_now(pidfd) {
        // It was reaped between the kernel's look at its end and that at the process: now the end is there (fs/pidfs.c, `pidfd_info`).
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => wait_status_now(pidfd),
        asked => asked,
    }
}

#[cfg(feature = "engine")]
fn wait_status_now(pidfd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    const EXIT: u64 = 1 << 3;
    let info = Info::of(pidfd, EXIT)?;
    Ok((info.mask & EXIT != 0).then_some(info.status))
}

/// `struct pidfd_info` as the kernel had it first: mask, cgroup, eleven ids (the pid first), the status.
#[repr(C)]
#[cfg_attr(not(feature = "engine"), allow(dead_code, reason = "the status is for the engine"))]
struct Info {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    status: i32,
}

impl Info {
    /// `_IOWR(0xFF, 11, struct pidfd_info)`.
    const GET: u64 = 3 << 30 | (size_of::<Self>() as u64) << 16 | 0xff << 8 | 11;

    /// Source: linux/pidfd.h, `PIDFD_GET_INFO`, of Linux 6.13.
    fn of(pidfd: BorrowedFd<'_>, mask: u64) -> io::Result<Self> {
        let mut info = Self {
            mask,
            cgroup: 0,
            ids: [0; 11],
            status: 0,
        };
        // SAFETY: a live descriptor and a buffer of the size that the number of the call says.
        let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), Self::GET as libc::Ioctl, &raw mut info) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(info)
    }
}

/// Reaps a child, whatever its exit signal; waits for its end. The exit code, or 128 and the signal's number.
pub(crate) fn reap(pidfd: BorrowedFd<'_>) -> io::Result<i32> {
    // SAFETY: siginfo_t is plain data, for which zeroes are valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: a live descriptor and a live buffer.
        let result = unsafe {
            libc::waitid(
                libc::P_PIDFD,
                pidfd.as_raw_fd() as libc::id_t,
                &raw mut info,
                libc::WEXITED | libc::__WALL,
            )
        };
        if result == 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: waitid filled the fields of a SIGCHLD.
    let status = unsafe { info.si_status() };
    Ok(if info.si_code == libc::CLD_EXITED {
        status
    } else {
        128 + status
    })
}

/// The process's pid as this process sees it. `ESRCH` once it has been reaped.
pub(crate) fn pid(pidfd: BorrowedFd<'_>) -> io::Result<u32> {
    const PID: u64 = 1 << 0;
    match Info::of(pidfd, PID).map(|info| info.ids[0]) {
        Ok(pid) if pid > 0 => Ok(pid),
        // An older kernel, or one that knows no more than that it has ended.
        _ => pid_by_proc(pidfd),
    }
}

fn pid_by_proc(pidfd: BorrowedFd<'_>) -> io::Result<u32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let pid = info
        .lines()
        .find_map(|line| line.strip_prefix("Pid:"))
        .and_then(|pid| pid.trim().parse::<i32>().ok());
    match pid {
        Some(pid) if pid > 0 => Ok(pid as u32),
        _ => Err(io::Error::from_raw_os_error(libc::ESRCH)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_pid_is_the_same_by_both_ways_while_the_process_is_there() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let process = open(child.id()).unwrap();
        let both = || (pid(process.as_fd()), pid_by_proc(process.as_fd()));
        let (one, other) = both();
        assert_eq!((one.unwrap(), other.unwrap()), (child.id(), child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        let (one, other) = both();
        let gone = Some(libc::ESRCH);
        assert_eq!(
            (one.unwrap_err().raw_os_error(), other.unwrap_err().raw_os_error()),
            (gone, gone)
        );
    }
}
