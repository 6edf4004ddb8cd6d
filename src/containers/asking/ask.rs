//! The side that asks.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram;
use std::sync::Mutex;
use std::time::Duration;

use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;

use super::super::local::{Shared, lock};
use super::super::options::{AttachOptions, ExecSpec, SlowReader, StopOptions};
use super::super::policy::RestartPolicy;
use super::super::record::Record;
use super::super::spec::Limits;
use super::super::views::{Attached, Exec, ExecInfo};
use super::streams;
use super::wire::{self, Incoming, Kind};
use crate::driver::Spawner;
use crate::error::wire::of_detail;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::store::Owners;
use crate::sys::socket;
use crate::types::{ContainerId, ExitStatus, Outcome, OwnerId, Signal};

/// How long an owner may take to say that it listens. How long a verb takes is the caller's to limit.
const PATIENCE: Duration = Duration::from_secs(10);

/// Until it is tried again to get into an owner's queue.
const AGAIN: Duration = Duration::from_millis(50);

/// How many commands in containers of others are known: of more, those that were prepared first are forgotten.
const MOST_EXECS: usize = 4096;

/// A container of another live process.
#[derive(Debug, Clone)]
pub(crate) struct Elsewhere {
    owners: Owners,
    spawner: Spawner,
    owner: OwnerId,
    container: ContainerId,
}

/// A command in a container of another live process.
#[derive(Debug, Clone)]
pub(crate) struct FarExec {
    id: String,
    spec: ExecSpec,
    place: Elsewhere,
}

/// The commands that this process has asked for in containers of others.
#[derive(Debug, Default)]
pub(crate) struct FarExecs(Mutex<VecDeque<FarExec>>);

impl FarExecs {
    /// One more.
    fn add(&self, exec: FarExec) {
        let mut all = lock(&self.0);
        all.truncate(MOST_EXECS - 1);
        all.push_front(exec);
    }

    /// By its id, or the first digits of it.
    pub(crate) fn get(&self, id: &str) -> Option<FarExec> {
        let all = lock(&self.0);
        let mut found = all.iter().filter(|exec| !id.is_empty() && exec.id.starts_with(id));
        match (found.next(), found.next()) {
            (Some(exec), None) => Some(exec.clone()),
            _ => None,
        }
    }

    fn remove(&self, id: &str) -> Option<FarExec> {
        let mut all = lock(&self.0);
        let place = all.iter().position(|exec| exec.id == id)?;
        all.remove(place)
    }
}

impl Shared {
    /// Where the verbs on a container are done, if that is another live process.
    pub(crate) fn elsewhere(&self, record: &Record) -> Option<Elsewhere> {
        let owner = record.owner.as_ref().filter(|owner| **owner != self.parts.owner)?;
        Some(Elsewhere {
            owners: self.parts.owners.clone(),
            spawner: self.parts.spawner.clone(),
            owner: owner.clone(),
            container: record.id.clone(),
        })
    }

    /// Prepares a command in a container of another process.
    pub(crate) async fn far_exec_create(&self, place: Elsewhere, spec: ExecSpec) -> Result<Exec> {
        let id = place.ask("exec_create", &json(&spec)?).await?;
        let container = place.container.clone();
        self.far_execs.add(FarExec {
            id: id.clone(),
            spec,
            place,
        });
        Ok(Exec { id, container })
    }

    /// Forgets a command that nobody starts, here and there.
    pub(crate) async fn exec_forget(&self, id: &str) {
        self.execs.forget(id);
        if let Some(far) = self.far_execs.remove(id) {
            // Where nobody answers any more there is nothing to forget.
            let _ = far.ask("exec_forget", "").await;
        }
    }
}

impl Elsewhere {
    pub(crate) async fn start(&self) -> Result<Outcome> {
        self.ask("start", "").await.and_then(outcome)
    }

    pub(crate) async fn restart(&self, options: StopOptions) -> Result<()> {
        self.ask("restart", &stopping(options)?).await.map(drop)
    }

    pub(crate) async fn stop(&self, options: StopOptions) -> Result<Outcome> {
        self.ask("stop", &stopping(options)?).await.and_then(outcome)
    }

    pub(crate) async fn kill(&self, signal: Signal) -> Result<()> {
        self.ask("kill", &json(&signal)?).await.map(drop)
    }

    pub(crate) async fn promote(&self) -> Result<Outcome> {
        self.ask("promote", "").await.and_then(outcome)
    }

    /// A verb of which nothing more is to be said, and which says nothing more.
    pub(crate) async fn tell(&self, verb: &'static str) -> Result<()> {
        self.ask(verb, "").await.map(drop)
    }

    pub(crate) async fn rename(&self, new_name: &str) -> Result<()> {
        self.ask("rename", new_name).await.map(drop)
    }

    pub(crate) async fn update(&self, limits: &Limits) -> Result<Vec<String>> {
        read(&self.ask("update", &json(limits)?).await?)
    }

    pub(crate) async fn set_restart(&self, policy: RestartPolicy) -> Result<()> {
        self.ask("set_restart", &json(&policy)?).await.map(drop)
    }

    pub(crate) async fn remove(&self, force: bool, volumes: bool) -> Result<Outcome> {
        self.ask("remove", &json(&(force, volumes))?).await.and_then(outcome)
    }

    pub(crate) async fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        self.ask("resize", &json(&(rows, columns))?).await.map(drop)
    }

    pub(crate) async fn attach(&self, options: AttachOptions) -> Result<Attached> {
        let about = self.container.as_str();
        self.converse("attach", about, options).await
    }

    async fn ask(&self, verb: &'static str, with: &str) -> Result<String> {
        self.ask_about(verb, self.container.as_str(), with).await
    }

    /// Asks, and waits for the answer.
    ///
    /// # Cancel safety
    /// The owner takes a dropped call for a caller that dropped its own.
    async fn ask_about(&self, verb: &'static str, about: &str, with: &str) -> Result<String> {
        let (mut from, mut to) = self.open().await?;
        self.answer(&mut from, &mut to, verb, about, with).await
    }

    /// Asks for streams.
    async fn converse(&self, verb: &'static str, about: &str, options: AttachOptions) -> Result<Attached> {
        let (mut from, mut to) = self.open().await?;
        let with = json(&(slow_word(options.slow), options.logs))?;
        let has_stdin = self.answer(&mut from, &mut to, verb, about, &with).await?;
        wire::send(&mut to, Kind::Taken, &[])
            .await
            .map_err(|error| self.silent(error))?;
        Ok(streams::carry(
            &self.spawner,
            (from, to),
            has_stdin == "stdin",
            options.slow,
        ))
    }

    async fn answer(
        &self,
        from: &mut Incoming,
        to: &mut OwnedWriteHalf,
        verb: &'static str,
        about: &str,
        with: &str,
    ) -> Result<String> {
        let question = wire::question(verb, about, with);
        let exchanged = async {
            wire::send(to, Kind::Question, question.as_bytes()).await?;
            from.next().await
        };
        let message = exchanged.await.map_err(|error| self.silent(error))?;
        let message = message.ok_or_else(|| self.silent(io::ErrorKind::UnexpectedEof.into()))?;
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        match message.kind {
            Kind::Answer => Ok(text),
            Kind::Failure => {
                let detail = serde_json::from_str(&text).unwrap_or_default();
                let unknown = || Error::new(ErrorKind::Unavailable, text.clone());
                Err(of_detail(&detail, &text).unwrap_or_else(unknown))
            }
            _ => Err(self.silent(io::ErrorKind::InvalidData.into())),
        }
    }

    /// A connection over which the owner listens.
    async fn open(&self) -> Result<(Incoming, OwnedWriteHalf)> {
        let opened = tokio::time::timeout(PATIENCE, async {
            let (from, to) = self.knock().await?.into_split();
            let mut from = Incoming::new(from);
            match from.next().await? {
                Some(message) if message.kind == Kind::Ready => Ok((from, to)),
                _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            }
        });
        let opened = opened.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        opened.map_err(|error| self.silent(error))
    }

    /// A connection whose other end is in the owner's hands, or on the way there.
    async fn knock(&self) -> io::Result<UnixStream> {
        let door = self.owners.door(&self.owner)?;
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(door.path())?;
        let (ours, theirs) = UnixStream::pair()?;
        loop {
            match socket::send(socket.as_fd(), [b"k", &[]], &[theirs.as_fd()]) {
                // So many knock that not even their queue has room.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(AGAIN).await,
                sent => break sent.map(|()| ours),
            }
        }
    }

    /// It is in use by somebody of whom no answer can be had.
    fn silent(&self, error: io::Error) -> Error {
        let message = format!(
            "container {} belongs to another live process, and that one gave no answer",
            self.container.short()
        );
        Error::new(ErrorKind::Unavailable, message)
            .with_object(ObjectKind::Container, self.container.as_str())
            .with_step("ask the container's owner")
            .with_source(error)
    }
}

impl FarExec {
    pub(crate) async fn start(&self, options: AttachOptions) -> Result<Attached> {
        self.place.converse("exec_start", &self.id, options).await
    }

    pub(crate) async fn wait(&self) -> Result<ExitStatus> {
        read(&self.ask("exec_wait", "").await?)
    }

    /// Ends it, wherever it is in its life.
    pub(crate) async fn kill(&self) {
        // Where nobody answers any more nothing runs.
        let _ = self.ask("exec_kill", "").await;
    }

    pub(crate) async fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        self.ask("exec_resize", &json(&(rows, columns))?).await.map(drop)
    }

    pub(crate) async fn inspect(&self) -> Result<ExecInfo> {
        let (running, pid, status) = read(&self.ask("exec_inspect", "").await?)?;
        Ok(ExecInfo {
            id: self.id.clone(),
            container: self.place.container.clone(),
            spec: self.spec.clone(),
            running,
            pid,
            status,
        })
    }

    async fn ask(&self, verb: &'static str, with: &str) -> Result<String> {
        self.place.ask_about(verb, &self.id, with).await
    }
}

pub(super) fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::internal("this cannot be asked for").with_source(error))
}

/// What an owner of another version may say differently.
pub(super) fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        let message = "the other process speaks in a way that this one does not understand: it has another version";
        Error::new(ErrorKind::Unavailable, message).with_source(error)
    })
}

fn outcome(text: String) -> Result<Outcome> {
    Ok(match read(&text)? {
        true => Outcome::Done,
        false => Outcome::Already,
    })
}

fn stopping(options: StopOptions) -> Result<String> {
    let millis = options
        .timeout
        .map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
    json(&(options.signal, millis))
}

fn slow_word(slow: SlowReader) -> &'static str {
    match slow {
        SlowReader::Skip => "skip",
        SlowReader::Keep => "keep",
        SlowReader::Wait => "wait",
    }
}
