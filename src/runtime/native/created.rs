//! A container that is set up, and whose program waits to be run: `create` and `start` of the OCI runtime specification, apart.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::pin::pin;

use futures_util::future::{Either, select};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::start;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::Started;
use crate::sys::{pidfd, socket};
use crate::types::Signal;

/// A container that waits for [`Self::start`]. Dropped, it is killed, and nothing of it is left.
#[derive(Debug)]
pub struct Created {
    reached: Reached,
    go: oneshot::Sender<()>,
    started: oneshot::Receiver<Result<Started>>,
}

impl Created {
    /// Pid of the first process in the host's pid namespace.
    pub fn pid(&self) -> u32 {
        self.reached.pid
    }

    /// Our side of its terminal, if it has one, once: what [`Self::start`] returns has another descriptor of it.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.reached.terminal.take()
    }

    /// Sends a signal to its first process, which has no handlers yet.
    ///
    /// # Errors
    /// `InvalidState` if it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let sent = pidfd::send_signal(self.reached.process.as_fd(), signal.number());
        sent.map_err(|error| match error.raw_os_error() {
            Some(libc::ESRCH) => Error::new(ErrorKind::InvalidState, "the container has ended"),
            _ => Error::os("send a signal", error),
        })
    }

    /// Waits until it has ended without having been started, and says why. Nothing of it is left then.
    ///
    /// # Cancel safety
    /// A dropped call changes nothing. After its end it is not to be called again.
    pub async fn until_ended(&mut self) -> Error {
        match (&mut self.started).await {
            Ok(Err(error)) => error,
            Ok(Ok(_)) => Error::internal("a container that began before it was started"),
            Err(_) => gone(),
        }
    }

    /// Runs the program: returns once it has been executed.
    ///
    /// # Errors
    /// As [`Runtime::start`](crate::runtime::Runtime::start); what held it up has killed it, and nothing of it is left.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing behind: a container that starts nevertheless is killed.
    pub async fn start(self) -> Result<Started> {
        // Where it has ended, the answer is there already.
        let _ = self.go.send(());
        self.started.await.map_err(|_| gone())?
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Cancelled, "the runtime of the engine was shut down")
}

/// What is known of a container that waits.
#[derive(Debug)]
struct Reached {
    pid: u32,
    process: OwnedFd,
    terminal: Option<OwnedFd>,
}

/// Where a start waits for somebody to say that it may go on.
#[derive(Debug)]
pub(crate) struct Gate {
    reached: oneshot::Sender<Reached>,
    go: oneshot::Receiver<()>,
}

/// The other side of a gate, before anybody has come to it.
#[derive(Debug)]
pub(crate) struct Keeper {
    reached: oneshot::Receiver<Reached>,
    go: oneshot::Sender<()>,
}

/// A gate, and who keeps it.
pub(crate) fn gate() -> (Gate, Keeper) {
    let ((reached, coming), (go, going)) = (oneshot::channel(), oneshot::channel());
    let keeper = Keeper { reached: coming, go };
    (Gate { reached, go: going }, keeper)
}

impl Keeper {
    /// Waits until a start has come to the gate, or has failed before.
    pub(crate) async fn created(self, started: oneshot::Receiver<Result<Started>>) -> Result<Created> {
        match self.reached.await {
            Ok(reached) => Ok(Created {
                reached,
                go: self.go,
                started,
            }),
            Err(_) => match started.await {
                Ok(Err(error)) => Err(error),
                Ok(Ok(_)) => Err(Error::internal("a container that did not wait for its start")),
                Err(_) => Err(gone()),
            },
        }
    }
}

impl Gate {
    /// Says that a container is set up, and waits until its program may run. Its status comes over a socket that is closed with
    /// its process.
    pub(crate) async fn pass(
        self,
        pid: u32,
        process: BorrowedFd<'_>,
        terminal: Option<&OwnedFd>,
        status: &AsyncFd<OwnedFd>,
    ) -> Result<()> {
        let keep = |error: std::io::Error| Error::os("keep a container's descriptors", error);
        let reached = Reached {
            pid,
            process: process.try_clone_to_owned().map_err(keep)?,
            terminal: terminal.map(OwnedFd::try_clone).transpose().map_err(keep)?,
        };
        if self.reached.send(reached).is_err() {
            return Err(nobody());
        }
        match select(self.go, pin!(until_closed(status))).await {
            Either::Left((go, _)) => go.map_err(|_| nobody()),
            Either::Right((Ok(()), _)) => Err(start::died_in_setup()),
            Either::Right((Err(error), _)) => Err(Error::os("read the start's status", error)),
        }
    }
}

fn nobody() -> Error {
    Error::new(ErrorKind::Cancelled, "nobody starts the container any more")
}

async fn until_closed(status: &AsyncFd<OwnedFd>) -> std::io::Result<()> {
    loop {
        let mut readable = status.readable().await?;
        match socket::receive(status.as_fd(), &mut [0u8; 1]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => readable.clear_ready(),
            Err(error) => return Err(error),
            Ok(received) if received.len == 0 => return Ok(()),
            // It has nothing to say while it waits.
            Ok(_) => return Err(std::io::Error::from_raw_os_error(libc::EPROTO)),
        }
    }
}
