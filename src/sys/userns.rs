//! User namespaces, and which is in which.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

/// The user namespace right below this process' own that a process lives in, or in one further below. `None`: it lives in this
/// process' own.
///
/// # Errors
/// `EPERM` where it is not below this process' own; what opening the process' namespace says.
pub(crate) fn below_own(pid: u32) -> io::Result<Option<OwnedFd>> {
    let own = fs::metadata("/proc/self/ns/user")?.ino();
    let mut here = File::open(format!("/proc/{pid}/ns/user"))?;
    if here.metadata()?.ino() == own {
        return Ok(None);
    }
    loop {
        let above = File::from(parent(std::os::fd::AsFd::as_fd(&here))?);
        if above.metadata()?.ino() == own {
            return Ok(Some(here.into()));
        }
        here = above;
    }
}

/// The user namespace that one was made in. Source: ioctl_ns(2), `NS_GET_PARENT`.
fn parent(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const NS_GET_PARENT: libc::Ioctl = 0xb702;
    // SAFETY: a live descriptor, and a request without an argument.
    let parent = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_PARENT) };
    if parent < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor; it closes on exec.
    Ok(unsafe { OwnedFd::from_raw_fd(parent) })
}
