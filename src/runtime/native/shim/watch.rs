//! A watcher's connection: what a shim tells of its container, and requests to it.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{oneshot, watch};

use super::connect::{self, Greeting, Message};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::native::helper::record::{SLOT, State};
use crate::runtime::native::helper::talk::{HEAD, Head, op};
use crate::sys;
use crate::sys::socket;

/// What is known of a shim.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) state: State,
    /// Nothing more will be told.
    pub(super) gone: bool,
}

type Answers = HashMap<u32, oneshot::Sender<Message>>;

/// The connection. It is closed when this is dropped.
#[derive(Debug)]
pub(super) struct Link {
    socket: OwnedFd,
    known: watch::Receiver<Known>,
    next: AtomicU32,
    answers: Arc<Mutex<Option<Answers>>>,
    pub(super) greeting: Greeting,
}

impl Drop for Link {
    /// The task that listens sees the end that this makes.
    fn drop(&mut self) {
        socket::finish(self.socket.as_fd());
    }
}

impl Link {
    /// Connects, and waits for the first that is told.
    pub(super) async fn new(dir: &Path) -> Result<Self> {
        let socket = connect::open(dir, op::WATCH)?;
        let copy = socket.try_clone().map_err(connect::lost)?;
        let listened = connect::watched(copy)?;
        let greeting = connect::greeted(&listened).await?;
        let first = tokio::time::timeout(connect::PATIENCE, first_state(&listened)).await;
        let state = first.map_err(|_| silent())??;
        let (sender, known) = watch::channel(Known { state, gone: false });
        let answers = Arc::new(Mutex::new(Some(Answers::new())));
        tokio::spawn(listen(listened, sender, Arc::clone(&answers)));
        Ok(Self {
            socket,
            known,
            next: AtomicU32::new(1),
            answers,
            greeting,
        })
    }

    pub(super) fn known(&self) -> Known {
        *self.known.borrow()
    }

    /// Waits until what is known is as wanted, or nothing more will be.
    pub(super) async fn until(&self, wanted: impl Fn(&State) -> bool) -> Known {
        let mut known = self.known.clone();
        let found = known.wait_for(|known| known.gone || wanted(&known.state)).await;
        let found = found.map(|known| *known);
        found.unwrap_or_else(|_| Known {
            gone: true,
            ..self.known()
        })
    }

    pub(super) async fn until_gone(&self) {
        self.until(|_| false).await;
    }

    /// Asks for something. The errno of a refusal is the error's.
    pub(super) async fn ask(&self, op: u32, body: &[u8]) -> Result<Option<OwnedFd>> {
        let req = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        match lock(&self.answers).as_mut() {
            Some(answers) => answers.insert(req, sender),
            None => return Err(silent()),
        };
        let head = Head { op, req, arg: 0 };
        loop {
            match socket::send(self.socket.as_fd(), [&head.encode(), body], &[]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let copy = self.socket.try_clone().map_err(connect::lost)?;
                    let room = sys::poll::watch(copy, Interest::WRITABLE).map_err(connect::lost)?;
                    room.writable().await.map_err(connect::lost)?.retain_ready();
                }
                result => break result.map_err(connect::lost)?,
            }
        }
        let answer = receiver.await.map_err(|_| silent())?;
        match answer.head.arg {
            0 if answer.cut => Err(Error::os(
                "take a descriptor from the shim",
                io::Error::from_raw_os_error(libc::EMFILE),
            )),
            0 => Ok(answer.fds.into_iter().next()),
            errno => Err(Error::os("ask the shim", io::Error::from_raw_os_error(errno as i32))),
        }
    }
}

fn silent() -> Error {
    Error::new(ErrorKind::Unavailable, "the container's shim says nothing more")
}

fn lock(answers: &Mutex<Option<Answers>>) -> MutexGuard<'_, Option<Answers>> {
    answers.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn first_state(socket: &AsyncFd<OwnedFd>) -> Result<State> {
    let mut room = [0u8; HEAD + SLOT];
    while let Some(message) = connect::next(socket, &mut room).await? {
        if let Some(state) = State::decode(&message.body).filter(|_| message.head.op == op::STATE) {
            return Ok(state);
        }
    }
    Err(silent())
}

async fn listen(socket: AsyncFd<OwnedFd>, known: watch::Sender<Known>, answers: Arc<Mutex<Option<Answers>>>) {
    let mut room = [0u8; HEAD + 2 * SLOT];
    loop {
        match connect::next(&socket, &mut room).await {
            Ok(Some(message)) if message.head.op == op::STATE => {
                if let Some(state) = State::decode(&message.body) {
                    known.send_replace(Known { state, gone: false });
                }
            }
            Ok(Some(message)) if message.head.op == op::ANSWER => {
                let waiting = lock(&answers).as_mut().and_then(|all| all.remove(&message.head.req));
                if let Some(waiting) = waiting {
                    let _ = waiting.send(message);
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(error = error.report(), "a shim cannot be listened to any more");
                break;
            }
        }
    }
    lock(&answers).take();
    known.send_modify(|known| known.gone = true);
}
