//! The network of an engine, seen from the engine: a process beside the zygote holds a network namespace, makes others, and
//! makes sockets in any of them. This process enters none of them, ever: a socket is of the namespace that it was made in,
//! whoever uses it (socket(7), network_namespaces(7)).

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use super::NativeRuntime;
use super::helper::wire::{house, op};
use super::plan::push_string;
use crate::error::{Error, Result};
use crate::sys::socket;

/// Holds one network namespace, as long as this is there and the zygote lives.
#[derive(Debug)]
pub(crate) struct House {
    socket: Mutex<OwnedFd>,
    /// Keeps it there until this is dropped, should the process end before.
    home: OwnedFd,
}

impl House {
    /// Starts the process. Blocks.
    ///
    /// # Errors
    /// `Unsupported` where the host forbids namespaces; `Os`.
    pub(crate) fn new(runtime: &NativeRuntime) -> Result<Self> {
        let zygote = runtime.zygote()?;
        let (ours, theirs) = socket::pair().map_err(|error| Error::os("make the network's socket", error))?;
        zygote.call_blocking(op::HOUSE, &[], &[theirs.as_fd()])?;
        drop(theirs);
        let socket = Mutex::new(ours);
        let home = ask(&socket, [house::HOME, 0, 0, 0], &[], None).and_then(needed);
        let home = home.map_err(|error| Error::os("make the engine's network namespace", error))?;
        Ok(Self { socket, home })
    }

    /// The namespace that is held.
    pub(crate) fn home(&self) -> BorrowedFd<'_> {
        self.home.as_fd()
    }

    /// A new namespace with nothing but loopback. It is there as long as somebody has it open, or is in it.
    pub(crate) fn make(&self) -> Result<OwnedFd> {
        ask(&self.socket, [house::MAKE, 0, 0, 0], &[], None)
            .and_then(needed)
            .map_err(|error| Error::os("make a network namespace", error))
    }

    /// A socket in a namespace; without one, in the one that is held.
    pub(crate) fn socket(
        &self,
        namespace: Option<BorrowedFd<'_>>,
        domain: i32,
        kind: i32,
        protocol: i32,
    ) -> Result<OwnedFd> {
        let words = [domain, kind, protocol].map(|word| word.unsigned_abs());
        ask(
            &self.socket,
            [house::SOCKET, words[0], words[1], words[2]],
            &[],
            namespace,
        )
        .and_then(needed)
        .map_err(|error| Error::os("make a socket in a network namespace", error))
    }

    /// Sets a parameter of a namespace: its name below `/proc/sys/net`.
    pub(crate) fn sysctl(&self, namespace: Option<BorrowedFd<'_>>, name: &str, value: &str) -> Result<()> {
        let mut list = Vec::new();
        push_string(&mut list, format!("/proc/sys/net/{name}").as_bytes())?;
        push_string(&mut list, value.as_bytes())?;
        ask(&self.socket, [house::SYSCTL, 0, 0, 0], &list, namespace)
            .map(drop)
            .map_err(|error| Error::os(format!("set net/{name} of a network namespace"), error))
    }
}

fn needed(fd: Option<OwnedFd>) -> io::Result<OwnedFd> {
    fd.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADMSG))
}

fn ask(
    socket: &Mutex<OwnedFd>,
    words: [u32; 4],
    text: &[u8],
    namespace: Option<BorrowedFd<'_>>,
) -> io::Result<Option<OwnedFd>> {
    let mut head = [0u8; house::HEAD];
    for (place, word) in head.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    let socket = socket.lock().unwrap_or_else(PoisonError::into_inner);
    socket::send(socket.as_fd(), [&head, text], namespace.as_slice())?;
    let mut reply = [0u8; 4];
    let received = socket::receive(socket.as_fd(), &mut reply)?;
    match received {
        _ if received.len < reply.len() => Err(io::Error::new(
            io::ErrorKind::BrokenPipe,
            "the process that holds the engine's network has ended",
        )),
        _ if received.cut => Err(io::Error::from_raw_os_error(libc::EMFILE)),
        _ => match i32::from_ne_bytes(reply) {
            0 => Ok(received.fds.into_iter().next()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        },
    }
}
