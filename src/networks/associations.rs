//! Associations of SCTP, passed on message by message: each stays one message, on its stream and with its payload protocol.
//! An association has no half: when one side ends it, both have ended.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::sys::{poll, sctp};

/// Streams in each direction of the association with the container.
const STREAMS: u16 = 1024;
/// Bytes of the longest message: more than the kernel's usual buffer takes.
const LONGEST: usize = 1 << 20;
/// How much is read at once.
const CHUNK: usize = 64 << 10;

/// Before it connects.
pub(super) fn prepare(socket: &OwnedFd) -> io::Result<()> {
    sctp::ask_for_streams(socket.as_fd(), STREAMS)
}

/// Passes messages on in both directions, until either side ends the association.
pub(super) async fn join(one: OwnedFd, other: OwnedFd) -> io::Result<()> {
    let both = Interest::READABLE | Interest::WRITABLE;
    for socket in [&one, &other] {
        sctp::tell_places(socket.as_fd())?;
    }
    let (one, other) = (poll::watch(one, both)?, poll::watch(other, both)?);
    tokio::select! {
        passed = pass(&one, &other) => passed,
        passed = pass(&other, &one) => passed,
    }
}

async fn pass(from: &AsyncFd<OwnedFd>, to: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let mut message = Vec::new();
    let mut buffer = vec![0u8; CHUNK];
    loop {
        let receive = |socket: &OwnedFd| sctp::receive(socket.as_fd(), &mut buffer);
        let part = from.async_io(Interest::READABLE, receive).await?;
        if part.told {
            continue;
        }
        if part.len == 0 {
            return Ok(());
        }
        message.extend_from_slice(buffer.get(..part.len).unwrap_or(&[]));
        if message.len() > LONGEST {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        if part.last {
            let send = |socket: &OwnedFd| sctp::send(socket.as_fd(), &message, part.place);
            to.async_io(Interest::WRITABLE, send).await?;
            message.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::os::fd::AsRawFd as _;

    use nix::errno::Errno;
    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrIn, bind, connect, getsockname, listen,
        socket,
    };

    use super::*;
    use crate::sys::sctp::{Part, Place};

    fn made() -> std::result::Result<OwnedFd, Errno> {
        socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::Sctp,
        )
    }

    /// An association with itself over loopback: who asked, and who was asked.
    fn pair() -> std::result::Result<[OwnedFd; 2], Errno> {
        let (asked, asking) = (made()?, made()?);
        let any = std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        bind(asked.as_raw_fd(), &SockaddrIn::from(any))?;
        listen(&asked, Backlog::new(1).unwrap())?;
        prepare(&asking).unwrap();
        connect(asking.as_raw_fd(), &getsockname::<SockaddrIn>(asked.as_raw_fd())?)?;
        let (accepted, _) = std::net::TcpListener::from(asked).accept().unwrap();
        let accepted = OwnedFd::from(accepted);
        Ok([asking, accepted])
    }

    async fn received(socket: &AsyncFd<OwnedFd>) -> (Part, Vec<u8>) {
        let mut buffer = vec![0u8; 1 << 17];
        let receive = |socket: &OwnedFd| sctp::receive(socket.as_fd(), &mut buffer);
        let part = socket.async_io(Interest::READABLE, receive).await.unwrap();
        buffer.truncate(part.len);
        (part, buffer)
    }

    #[tokio::test]
    async fn i4_messages_stay_what_they_are() {
        let pairs = pair().and_then(|one| Ok([one, pair()?]));
        let [[client, ours], [inside, server]] = match pairs {
            Err(Errno::EPROTONOSUPPORT) => return eprintln!("skipped: the kernel has no SCTP"),
            pairs => pairs.unwrap(),
        };
        for socket in [&client, &server, &ours, &inside] {
            crate::sys::socket::set_nonblocking(socket.as_fd()).unwrap();
            sctp::tell_places(socket.as_fd()).unwrap();
        }
        let joined = tokio::spawn(join(ours, inside));
        let both = Interest::READABLE | Interest::WRITABLE;
        let (client, server) = (poll::watch(client, both).unwrap(), poll::watch(server, both).unwrap());
        let place = |stream, unordered, payload| Place {
            stream,
            unordered,
            payload,
        };
        for (from, to) in [(&client, &server), (&server, &client)] {
            for (len, place) in [
                (1, place(0, false, 0)),
                (50_000, place(3, false, 0x0102_0304)),
                (2, place(1, true, 7)),
            ] {
                let message = vec![b'x'; len];
                let send = |socket: &OwnedFd| sctp::send(socket.as_fd(), &message, place);
                from.async_io(Interest::WRITABLE, send).await.unwrap();
                let (part, bytes) = received(to).await;
                assert_eq!((part.place, part.last, bytes.len()), (place, true, len));
            }
        }
        drop(client);
        assert_eq!(received(&server).await.0.len, 0);
        joined.await.unwrap().unwrap();
    }
}
