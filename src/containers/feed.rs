//! The writing side of a container's stdin.

use std::borrow::Borrow;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use bytes::{Buf as _, Bytes};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::sys::poll;

/// Makes a descriptor ready to be written from the driver. Its file description is ours alone, so `O_NONBLOCK` touches
/// nobody else.
pub(crate) fn writable(fd: OwnedFd) -> Result<AsyncFd<OwnedFd>> {
    let flags = fcntl(fd.as_fd(), FcntlArg::F_GETFL).map_err(|error| Error::os("read the flags of stdin", error))?;
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(flags)).map_err(|error| Error::os("make stdin non-blocking", error))?;
    poll::watch(fd, Interest::WRITABLE).map_err(|error| Error::os("poll stdin", error))
}

/// Writes what arrives on a channel, until either end closes.
pub(crate) async fn feed(fd: impl Borrow<AsyncFd<OwnedFd>>, mut chunks: mpsc::Receiver<Bytes>) {
    let fd = fd.borrow();
    while let Some(mut chunk) = chunks.recv().await {
        while !chunk.is_empty() {
            let Ok(mut ready) = fd.writable().await else { return };
            match ready.try_io(|fd| nix::unistd::write(fd.get_ref(), &chunk).map_err(io::Error::from)) {
                Err(_would_block) => {}
                Ok(Ok(count)) => chunk.advance(count),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(_)) => return,
            }
        }
    }
}
