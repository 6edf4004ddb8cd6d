//! Connections to a shim.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{SockFlag, connect, getsockopt, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::place;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::native::helper::talk::{HEAD, Head, greeting, op, u64_at};
use crate::sys;
use crate::sys::socket::{self, Received};

/// How long a shim may take to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// What a shim says first.
#[derive(Debug, Clone)]
pub(super) struct Greeting(Vec<u64>);

impl Greeting {
    /// A word; 0 where the shim is older than it.
    pub(super) fn word(&self, at: usize) -> u64 {
        self.0.get(at).copied().unwrap_or(0)
    }

    pub(super) fn inside(&self) -> &[u64] {
        self.0.get(greeting::INSIDE..).unwrap_or(&[])
    }
}

/// A message of a shim's.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) head: Head,
    pub(super) body: Vec<u8>,
    pub(super) fds: Vec<OwnedFd>,
    /// A descriptor came along, and this process had no place for it.
    pub(super) cut: bool,
}

/// A socket that says what it is for; the shim's greeting is still to come.
pub(super) fn open(dir: &Path, purpose: u32) -> Result<OwnedFd> {
    let dir = place::open_dir(dir).map_err(|error| unavailable("it has none").with_source(error))?;
    let step = |errno: Errno| match errno {
        Errno::ENOENT | Errno::ECONNREFUSED => unavailable("nobody listens").with_source(io::Error::from(errno)),
        Errno::EAGAIN => unavailable("it does not take connections").with_source(io::Error::from(errno)),
        Errno::EACCES | Errno::EPERM => {
            Error::new(ErrorKind::Denied, "the shim is another user's").with_source(io::Error::from(errno))
        }
        errno => Error::os("connect to the shim", errno),
    };
    let socket = place::seqpacket(SockFlag::SOCK_NONBLOCK).map_err(step)?;
    let address = place::address(&dir).map_err(step)?;
    connect(socket.as_raw_fd(), &address).map_err(step)?;
    let peer = getsockopt(&socket, sockopt::PeerCredentials).map_err(step)?;
    if peer.uid() != nix::unistd::geteuid().as_raw() {
        return Err(Error::new(
            ErrorKind::Denied,
            format!("what listens there is no shim of this user, but of user {}", peer.uid()),
        ));
    }
    let head = Head {
        op: purpose,
        req: 0,
        arg: 0,
    };
    socket::send(socket.as_fd(), [&head.encode(), &[]], &[]).map_err(lost)?;
    Ok(socket)
}

/// Whether somebody listens at a shim's socket.
pub(super) fn is_heard(dir: &Path) -> bool {
    let Ok(dir) = place::open_dir(dir) else { return false };
    let connected = || {
        let socket = place::seqpacket(SockFlag::SOCK_NONBLOCK)?;
        connect(socket.as_raw_fd(), &place::address(&dir)?)
    };
    matches!(connected(), Ok(()) | Err(Errno::EAGAIN))
}

fn unavailable(why: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, "the container's shim cannot be reached").with_step(why)
}

/// What a failed exchange means.
pub(super) fn lost(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EPIPE | libc::ECONNRESET | libc::EAGAIN) => unavailable("it has hung up").with_source(error),
        _ => Error::os("talk to the shim", error),
    }
}

/// Has the runtime at hand watch a socket.
pub(super) fn watched(socket: OwnedFd) -> Result<AsyncFd<OwnedFd>> {
    sys::poll::watch(socket, Interest::READABLE).map_err(|error| Error::os("watch the shim's socket", error))
}

/// The next message; `None` at the end.
pub(super) async fn next(socket: &AsyncFd<OwnedFd>, room: &mut [u8]) -> Result<Option<Message>> {
    loop {
        let mut ready = socket.readable().await.map_err(lost)?;
        let Received { len, fds, cut } = match socket::receive(socket.as_fd(), room) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                ready.clear_ready();
                continue;
            }
            // It is gone, and did not read what was last said to it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            result => result.map_err(lost)?,
        };
        if len == 0 {
            return Ok(None);
        }
        let bytes = room.get(..len).unwrap_or(&[]);
        let head = Head::decode(bytes).ok_or_else(|| unavailable("what listens there is not understood"))?;
        return Ok(Some(Message {
            head,
            body: bytes.get(HEAD..).unwrap_or(&[]).to_vec(),
            fds,
            cut,
        }));
    }
}

/// Waits for the greeting, and not for long.
pub(super) async fn greeted(socket: &AsyncFd<OwnedFd>) -> Result<Greeting> {
    let mut room = [0u8; 1024];
    let first = tokio::time::timeout(PATIENCE, next(socket, &mut room)).await;
    let first = first.map_err(|_| unavailable("it does not answer"))??;
    let message = first.filter(|message| message.head.op == op::GREETING);
    let body = message.ok_or_else(|| unavailable("it has hung up"))?.body;
    Ok(Greeting((0..).map_while(|at| u64_at(&body, at)).collect()))
}
