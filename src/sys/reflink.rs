//! Copies that share their blocks. Source: ioctl_ficlone(2).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Makes `to` share all blocks of `from`. `EOPNOTSUPP`, `EXDEV` or `EINVAL` where the file system cannot.
pub(crate) fn clone(from: &File, to: &File) -> io::Result<()> {
    // SAFETY: both descriptors are open for the length of the call, which touches no memory of ours.
    let rc = unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE as _, from.as_raw_fd()) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Copies up to `length` bytes at `offset` of one file to the same offset of another, inside the kernel; returns how many.
/// Source: copy_file_range(2).
pub(crate) fn copy_range(from: &File, to: &File, offset: i64, length: usize) -> io::Result<usize> {
    let (mut here, mut there) = (offset, offset);
    // SAFETY: both descriptors are open and both offsets live for the length of the call.
    let rc = unsafe { libc::copy_file_range(from.as_raw_fd(), &mut here, to.as_raw_fd(), &mut there, length, 0) };
    usize::try_from(rc).map_err(|_| io::Error::last_os_error())
}
