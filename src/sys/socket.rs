//! `SOCK_SEQPACKET` sockets that carry descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType, recvmsg, sendmsg,
    shutdown, socketpair,
};

/// Two connected ends, closed on exec.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?)
}

/// Makes a descriptor return `EAGAIN` instead of waiting.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Bytes sent that the peer has not read (a unix socket) or not acknowledged (TCP) yet. Source: unix(7), tcp(7), SIOCOUTQ.
#[cfg(feature = "api")]
pub(crate) fn unread(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the call writes one int, to which the pointer leads; the descriptor is borrowed for the call.
    let code = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if code < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Sends one message.
pub(crate) fn send(socket: BorrowedFd<'_>, parts: [&[u8]; 2], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let iov = parts.map(IoSlice::new);
    let raw: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[] } else { &rights[..] };
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &iov, control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            result => return Ok(result.map(|_| ())?),
        }
    }
}

/// Tells the peer that nothing more will come: it reads what was sent before, and then an end. Unlike a message, this finds
/// room in a socket that is full.
pub(crate) fn finish(socket: BorrowedFd<'_>) {
    let _ = shutdown(socket.as_raw_fd(), Shutdown::Write);
}

/// One message, and what came with it.
#[derive(Debug)]
pub(crate) struct Received {
    /// Bytes of it. Zero: the peer is gone.
    pub(crate) len: usize,
    pub(crate) fds: Vec<OwnedFd>,
    /// A descriptor came along, and this process had no place for it (`MSG_CTRUNC`, recvmsg(2)): it is lost.
    pub(crate) cut: bool,
}

/// Receives one message and its descriptor; the helper sends one at most.
pub(crate) fn receive(socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<Received> {
    let mut iov = [IoSliceMut::new(into)];
    let mut space = nix::cmsg_space!([RawFd; 4]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut space), flags) {
            Err(Errno::EINTR) => {}
            result => break result?,
        }
    };
    let mut fds = Vec::new();
    if message.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Ok(Received {
            len: message.bytes,
            fds,
            cut: true,
        });
    }
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel has just put these descriptors into our table; nobody else knows of them.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok(Received {
        len: message.bytes,
        fds,
        cut: false,
    })
}
