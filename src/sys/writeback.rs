//! Writes a file out ahead of its sync. Source: sync_file_range(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Begins to write these bytes of a file to the disk, without waiting; all behind the offset, where the length is 0. No
/// promise: fdatasync(2) still has to follow.
pub(crate) fn begin(file: impl AsFd, offset: u64, length: u64) -> io::Result<()> {
    range(file, offset, length, libc::SYNC_FILE_RANGE_WRITE)
}

/// Waits for what was begun, where the kernel can. No promise either: what the disk has in a cache of its own may still be
/// lost, and so may what the file system knows of the file.
///
/// # Errors
/// What went wrong with the writing, which no later call on this descriptor tells.
pub(crate) fn wait(file: impl AsFd) -> io::Result<()> {
    match range(file, 0, 0, libc::SYNC_FILE_RANGE_WAIT_BEFORE) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::ESPIPE)) => Ok(()),
        other => other,
    }
}

fn range(file: impl AsFd, offset: u64, length: u64, flags: libc::c_uint) -> io::Result<()> {
    let number = |value: u64| libc::off64_t::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let (offset, length) = (number(offset)?, number(length)?);
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open for as long as `file` is borrowed; the other arguments are numbers.
    let rc = unsafe { libc::sync_file_range(fd, offset, length, flags) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
