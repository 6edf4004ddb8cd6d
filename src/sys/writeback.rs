//! Begins to write a file out. Source: sync_file_range(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Begins to write these bytes of a file to the disk, without waiting. No promise: fdatasync(2) still has to follow.
pub(crate) fn begin(file: impl AsFd, offset: u64, length: u64) -> io::Result<()> {
    let range = |value: u64| libc::off64_t::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let (offset, length) = (range(offset)?, range(length)?);
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open for as long as `file` is borrowed; the other arguments are numbers.
    let rc = unsafe { libc::sync_file_range(fd, offset, length, libc::SYNC_FILE_RANGE_WRITE) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
