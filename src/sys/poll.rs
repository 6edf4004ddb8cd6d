//! Descriptors that a tokio reactor watches.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has the runtime at hand watch a descriptor.
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by the `AsyncFd`, which deregisters it before it is closed, and nothing here takes it
    // out or closes it behind its back.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}
