//! Terminals.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

/// Both sides of a terminal.
pub(crate) struct Terminal {
    /// The side of whoever watches.
    pub(crate) master: OwnedFd,
    /// The side of the programs.
    pub(crate) peer: OwnedFd,
}

/// A new terminal of this process' own `/dev`, of this size in characters. It becomes nobody's controlling terminal by this.
pub(crate) fn open(rows: u16, columns: u16) -> io::Result<Terminal> {
    let master = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open("/dev/ptmx")?;
    let unlock: libc::c_int = 0;
    // SAFETY: a live descriptor and a live integer, which the request reads.
    if unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: a live descriptor and an integer.
    let peer = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    if peer < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    let peer = unsafe { OwnedFd::from_raw_fd(peer) };
    resize(master.as_fd(), rows, columns)?;
    Ok(Terminal {
        master: master.into(),
        peer,
    })
}

/// Sets the size in characters.
pub(crate) fn resize(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: a live descriptor and a live structure of the size that the request wants.
    match unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
