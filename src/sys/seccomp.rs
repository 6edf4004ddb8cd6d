//! A seccomp listener: receiving and answering the calls of others. Source: seccomp_unotify(2), `linux/seccomp.h`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct seccomp_notif` with its `struct seccomp_data`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Call {
    pub(crate) id: u64,
    pub(crate) pid: u32,
    pub(crate) flags: u32,
    pub(crate) number: i32,
    pub(crate) arch: u32,
    pub(crate) instruction_pointer: u64,
    pub(crate) arguments: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Answer {
    pub(crate) id: u64,
    pub(crate) value: i64,
    /// Negative, or 0.
    pub(crate) error: i32,
    pub(crate) flags: u32,
}

/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`.
pub(crate) const CONTINUE: u32 = 1;

/// `SECCOMP_IOCTL_NOTIF_RECV`.
const RECEIVE: u64 = request(3, 0, size_of::<Call>());
/// `SECCOMP_IOCTL_NOTIF_SEND`.
const SEND: u64 = request(3, 1, size_of::<Answer>());
/// `SECCOMP_IOCTL_NOTIF_ID_VALID`.
const IS_VALID: u64 = request(1, 2, size_of::<u64>());

/// `_IOC` with the type `!`.
const fn request(direction: u64, number: u64, size: usize) -> u64 {
    direction << 30 | (size as u64) << 16 | 0x21 << 8 | number
}

/// The next call that waits; blocks until there is one. `ENOENT`: its process was killed meanwhile.
pub(crate) fn receive(listener: BorrowedFd<'_>) -> io::Result<Call> {
    let mut call = Call::default();
    // SAFETY: a live descriptor, and zeroed memory of the size and layout that the request names.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE as _, &raw mut call) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(call)
    }
}

/// Lets a call return, or be made.
pub(crate) fn send(listener: BorrowedFd<'_>, answer: Answer) -> io::Result<()> {
    // SAFETY: a live descriptor, and memory of the size and layout that the request names.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), SEND as _, &raw const answer) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Whether a call waits still.
pub(crate) fn is_valid(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: a live descriptor, and the address of eight readable bytes.
    unsafe { libc::ioctl(listener.as_raw_fd(), IS_VALID as _, &raw const id) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_the_kernels() {
        assert_eq!((RECEIVE, SEND, IS_VALID), (0xc050_2100, 0xc018_2101, 0x4008_2102));
    }
}
