//! The owner's side.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixDatagram, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::super::local::{LocalContainers, Shared};
use super::super::manager::ContainerManager as _;
use super::super::options::{AttachOptions, RemoveOptions, SlowReader, StopOptions};
use super::super::views::Attached;
use super::ask::{json, read};
use super::streams;
use super::wire::{self, Incoming, Kind};
use crate::error::wire::detail;
use crate::error::{Error, Result};
use crate::sys::socket;
use crate::types::{ContainerId, Outcome};

/// How many may ask at a time; more wait for their turn.
const MOST: usize = 256;
/// How long an asker may take to say what it wants, and to take what it got.
const PATIENCE: Duration = Duration::from_secs(10);
/// Until it is tried again to hear somebody, where there is no descriptor left, say.
const PAUSE: Duration = Duration::from_millis(100);

impl Shared {
    /// Lets the other engines on this root ask, from before there is a container that they may ask about. Where the file
    /// system has no sockets they are told that nobody answers.
    pub(crate) fn listen(&self) {
        self.listening.get_or_init(|| {
            if let Err(error) = self.listen_now() {
                tracing::warn!(
                    error = error.report(),
                    "other processes cannot ask for what is done here"
                );
            }
        });
    }

    fn listen_now(&self) -> Result<()> {
        let step = |error| Error::os("listen to other processes on this root", error);
        let spawner = &self.parts.spawner;
        let door = self.parts.owners.open_door(&self.parts.owner).map_err(step)?;
        let runtime = spawner.runtime();
        let entered = runtime.enter();
        let door = UnixDatagram::from_std(door).map_err(step)?;
        drop(entered);
        spawner.background(hear(door, Weak::clone(&self.me)));
        Ok(())
    }
}

async fn hear(door: UnixDatagram, shared: Weak<Shared>) {
    let places = Arc::new(Semaphore::new(MOST));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let knocked = door.async_io(Interest::READABLE, || socket::receive(door.as_fd(), &mut [0]));
        let message = match knocked.await {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(%error, "another process could not be heard");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(shared) = shared.upgrade() else { return };
        let Some(stream) = message.fds.into_iter().next() else {
            continue;
        };
        let spawner = shared.parts.spawner.clone();
        spawner.background(async move {
            let _place = place;
            if let Err(error) = answer(stream, shared).await {
                tracing::debug!(%error, "another process went away while it was answered");
            }
        });
    }
}

/// An end of a connection that somebody has handed in.
fn connection(end: OwnedFd) -> io::Result<UnixStream> {
    let stream = std::os::unix::net::UnixStream::from(end);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Whether who made the connection is this user, or root. Of what is no such connection the kernel does not say so.
fn may_ask(stream: &UnixStream) -> io::Result<bool> {
    let uid = stream.peer_cred()?.uid();
    Ok(uid == 0 || uid == nix::unistd::geteuid().as_raw())
}

async fn answer(end: OwnedFd, shared: Arc<Shared>) -> io::Result<()> {
    let stream = connection(end)?;
    if !may_ask(&stream)? {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (from, mut to) = stream.into_split();
    let mut from = Incoming::new(from);
    wire::send(&mut to, Kind::Ready, &[]).await?;
    let Some(message) = timeout(PATIENCE, from.next()).await?? else {
        return Ok(());
    };
    let question = String::from_utf8(message.payload.into()).ok();
    let parts = question.as_deref().and_then(wire::parts);
    let (verb, about, with) = parts
        .filter(|_| message.kind == Kind::Question)
        .ok_or(io::ErrorKind::InvalidData)?;
    let manager = LocalContainers(shared);
    if matches!(verb, "attach" | "exec_start") {
        return converse(&manager, verb, about, with, &mut from, &mut to).await;
    }
    tokio::select! {
        biased;
        answer = done(&manager, verb, about, with) => match answer {
            Ok(text) => wire::send(&mut to, Kind::Answer, text.as_bytes()).await,
            Err(error) => fail(&mut to, &error).await,
        },
        // Nothing more is to come: the asker went away.
        _ = from.next() => Ok(()),
    }
}

async fn fail(to: &mut OwnedWriteHalf, error: &Error) -> io::Result<()> {
    wire::send(to, Kind::Failure, detail(error).to_string().as_bytes()).await
}

/// Does a verb, as for a caller in this process.
async fn done(manager: &LocalContainers, verb: &str, about: &str, with: &str) -> Result<String> {
    let done = String::new;
    match verb {
        "exec_wait" => return json(&manager.exec_wait(about).await?),
        "exec_inspect" => {
            let info = manager.exec_inspect(about).await?;
            return json(&(info.running, info.pid, info.status));
        }
        "exec_resize" => {
            let (rows, columns) = read(with)?;
            return manager.exec_resize(about, rows, columns).await.map(|()| done());
        }
        "exec_kill" => {
            manager.0.exec_kill(about).await;
            return Ok(done());
        }
        "exec_forget" => {
            manager.0.exec_forget(about).await;
            return Ok(done());
        }
        _ => {}
    }
    let id = own(manager, about).await?;
    let id = id.as_str();
    match verb {
        "start" => outcome(manager.start(id).await?),
        "restart" => manager.restart(id, stopping(with)?).await.map(|()| done()),
        "promote" => outcome(manager.promote(id).await?),
        "stop" => outcome(manager.stop(id, stopping(with)?).await?),
        "kill" => manager.kill(id, read(with)?).await.map(|()| done()),
        "pause" => manager.pause(id).await.map(|()| done()),
        "unpause" => manager.unpause(id).await.map(|()| done()),
        "rename" => manager.rename(id, with).await.map(|()| done()),
        "update" => json(&manager.update(id, read(with)?).await?),
        "set_restart" => manager.set_restart(id, read(with)?).await.map(|()| done()),
        "remove" => {
            let (force, volumes) = read(with)?;
            outcome(manager.remove(id, RemoveOptions { force, volumes }).await?)
        }
        "resize" => {
            let (rows, columns) = read(with)?;
            manager.resize(id, rows, columns).await.map(|()| done())
        }
        "exec_create" => Ok(manager.exec_create(id, read(with)?).await?.id),
        _ => Err(Error::unsupported(
            format!("{verb:?}, asked for by another process,"),
            "the same version of longshore in both",
        )),
    }
}

/// A question is never passed on: what is not this engine's is not there.
async fn own(manager: &LocalContainers, about: &str) -> Result<ContainerId> {
    let no_such = || super::super::local::no_such(about);
    let id: ContainerId = about.parse().map_err(|_| no_such())?;
    let record = manager.0.read(&id).await?;
    if !manager.0.is_ours(&record) {
        return Err(no_such());
    }
    Ok(id)
}

fn outcome(outcome: Outcome) -> Result<String> {
    json(&(outcome == Outcome::Done))
}

fn stopping(with: &str) -> Result<StopOptions> {
    let (signal, millis): (_, Option<u64>) = read(with)?;
    Ok(StopOptions {
        signal,
        timeout: millis.map(Duration::from_millis),
    })
}

/// Answers with streams. A command that was started for somebody who did not wait for it is ended.
async fn converse(
    manager: &LocalContainers,
    verb: &str,
    about: &str,
    with: &str,
    from: &mut Incoming,
    to: &mut OwnedWriteHalf,
) -> io::Result<()> {
    let is_exec = verb == "exec_start";
    let attached = tokio::select! {
        biased;
        attached = attach(manager, is_exec, about, with) => attached,
        _ = from.next() => return Ok(()),
    };
    let attached = match attached {
        Ok(attached) => attached,
        Err(error) => return fail(to, &error).await,
    };
    let stdin = if attached.input.is_some() { "stdin" } else { "" };
    let taken = async {
        wire::send(to, Kind::Answer, stdin.as_bytes()).await?;
        timeout(PATIENCE, from.next()).await?
    };
    let taken = taken.await;
    if !matches!(&taken, Ok(Some(message)) if message.kind == Kind::Taken) {
        if is_exec {
            manager.0.exec_kill(about).await;
        }
        return taken.map(drop);
    }
    streams::serve(attached, from, to, !is_exec).await
}

async fn attach(manager: &LocalContainers, is_exec: bool, about: &str, with: &str) -> Result<Attached> {
    let (slow, logs): (String, bool) = read(with)?;
    let slow = match slow.as_str() {
        "keep" => SlowReader::Keep,
        "wait" => SlowReader::Wait,
        _ => SlowReader::Skip,
    };
    let options = AttachOptions { slow, logs };
    match is_exec {
        true => manager.exec_start(about, options).await,
        false => manager.attach(own(manager, about).await?.as_str(), options).await,
    }
}
