//! `exec`: commands in running containers.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::attach;
use super::detached::Need;
use super::execs::{ExecSlot, Phase};
use super::feed;
use super::local::Shared;
use super::monitor::DRAIN;
use super::plan;
use super::record::Record;
use super::state::{ContainerState, Refusal, Verb, decide, refuse};
use super::validate;
use super::{AttachOptions, Attached, Exec, ExecSpec, Input};
use crate::driver::Cancel;
use crate::error::{Error, ErrorKind, Result};
use crate::events::Event;
use crate::logs::{self, LogStream, Tee};
use crate::runtime::{ExecStarted, ExecTask};
use crate::types::{ExitStatus, Signal};

impl Shared {
    pub(crate) async fn exec_create(&self, name: &str, spec: ExecSpec) -> Result<Exec> {
        validate::validate_exec(&spec)?;
        let record = self.find(name).await?;
        if let Some(elsewhere) = self.elsewhere(&record) {
            return self.far_exec_create(elsewhere, spec).await;
        }
        decide(&record.id, record.state, Verb::Exec)?;
        let slot = self.execs.add(record.id.clone(), spec);
        self.tell(self.exec_event(&record, &slot, "exec_create")).await;
        Ok(Exec {
            id: slot.id.clone(),
            container: record.id,
        })
    }

    pub(crate) async fn exec_start(
        self: &Arc<Self>,
        id: &str,
        options: AttachOptions,
        cancel: &Cancel,
    ) -> Result<Attached> {
        let near = self.execs.get(id);
        if let (Err(_), Some(far)) = (&near, self.far_execs.get(id)) {
            return cancel.or(far.start(options)).await;
        }
        let slot = near?;
        slot.begin()?;
        let started = self.exec_run(&slot, options, cancel).await;
        if let Err(error) = &started {
            slot.end(never_ran(error));
        }
        started
    }

    async fn exec_run(
        self: &Arc<Self>,
        slot: &Arc<ExecSlot>,
        options: AttachOptions,
        cancel: &Cancel,
    ) -> Result<Attached> {
        let record = self.read(&slot.container).await?;
        decide(&record.id, record.state, Verb::Exec)?;
        let slot_of = self.slot_of(&record);
        let live = self.live_anew(&record, &slot_of, Need::Commands).await?;
        let live = live.ok_or_else(|| refuse(&record.id, ContainerState::Exited, Verb::Exec, Refusal::NotRunning))?;
        let mut spec = record.body.spec.clone();
        // It may be gone by now, and this container runs all the same.
        if let Ok(Some(name)) = self.hostname_of_peer(&spec).await {
            spec.hostname = Some(name);
        }
        let launch = plan::exec(&record.id, &spec, &record.body.image, &slot.spec)?;
        let started = cancel.or(live.task.exec(launch)).await?;
        let (task, tee) = (Arc::clone(&started.task), Tee::new());
        let output = attach::chunks(attach::reader(&tee, options.slow));
        let streams = match connect(started, slot) {
            Ok(streams) => streams,
            Err(error) => {
                let _ = task.signal(Signal::KILL).await;
                return Err(error);
            }
        };
        slot.set(Phase::Running(Arc::clone(&task)));
        let input = slot.spec.stdin.then(|| Input::new(&slot.input));
        let (shared, slot) = (Arc::clone(self), Arc::clone(slot));
        let begun = self.exec_event(&record, &slot, "exec_start");
        self.parts.spawner.background(async move {
            shared.tell(begun).await;
            let status = follow(&*task, streams, &tee).await;
            slot.end(Some(status));
            shared.tell(shared.exec_ended(&record, &slot, status)).await;
            tee.close();
        });
        Ok(Attached { output, input })
    }

    pub(crate) async fn exec_wait(&self, id: &str) -> Result<ExitStatus> {
        let near = self.execs.get(id);
        if let (Err(_), Some(far)) = (&near, self.far_execs.get(id)) {
            return far.wait().await;
        }
        near?.wait().await
    }

    pub(crate) async fn exec_resize(&self, id: &str, rows: u16, columns: u16) -> Result<()> {
        let near = self.execs.get(id);
        if let (Err(_), Some(far)) = (&near, self.far_execs.get(id)) {
            return far.resize(rows, columns).await;
        }
        let slot = near?;
        let state = |why: &str| Error::new(ErrorKind::InvalidState, format!("exec {} {why}", slot.id));
        if !slot.spec.tty {
            return Err(state("has no terminal"));
        }
        let task = slot.task().ok_or_else(|| state("does not run"))?;
        task.resize(rows, columns).await
    }

    /// Ends a command that nobody waits for.
    pub(crate) async fn exec_kill(&self, id: &str) {
        if let (Err(_), Some(far)) = (self.execs.get(id), self.far_execs.get(id)) {
            return far.kill().await;
        }
        if let Some(task) = self.execs.get(id).ok().and_then(|slot| slot.task()) {
            let _ = task.signal(Signal::KILL).await;
        }
    }

    /// Docker's form: the verb, a colon, and the command.
    fn exec_event(&self, record: &Record, slot: &ExecSlot, verb: &str) -> Event {
        let action = format!("{verb}: {}", slot.spec.command.join(" "));
        self.event(record, &action).with("execID", &slot.id)
    }

    fn exec_ended(&self, record: &Record, slot: &ExecSlot, status: ExitStatus) -> Event {
        let event = self.event(record, "exec_die").with("execID", &slot.id);
        event.with("exitCode", status.code().to_string())
    }

    /// Records an event that comes with no change of a record. The ring is history, not truth: what cannot be written there
    /// is reported and holds nothing up.
    pub(crate) fn tell<'a>(&'a self, event: Event) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if let Err(error) = self.parts.store.call(move |store| store.record_event(&event)).await {
                tracing::warn!(error = error.report(), "an event could not be recorded");
            }
        })
    }
}

/// The status of a command that is not there or not a program, as a shell has it. Source: POSIX, Shell Command Language, 2.8.2.
pub(super) fn never_ran(error: &Error) -> Option<ExitStatus> {
    match error.kind() {
        ErrorKind::CommandNotFound => Some(ExitStatus::exited(127)),
        ErrorKind::CommandNotExecutable => Some(ExitStatus::exited(126)),
        _ => None,
    }
}

/// Connects our ends, and begins to feed stdin.
fn connect(started: ExecStarted, slot: &ExecSlot) -> Result<Connected> {
    let mut outputs = Vec::new();
    let mut input = None;
    if let Some(terminal) = started.terminal {
        let writer = terminal
            .try_clone()
            .map_err(|error| Error::os("duplicate the terminal", error))?;
        input = Some(feed::writable(writer)?);
        outputs.push((terminal, LogStream::Stdout));
    }
    outputs.extend(started.stdout.map(|fd| (fd, LogStream::Stdout)));
    outputs.extend(started.stderr.map(|fd| (fd, LogStream::Stderr)));
    if let Some(fd) = started.stdin {
        input = Some(feed::writable(fd)?);
    }
    let feeding = input
        .filter(|_| slot.spec.stdin)
        .map(|fd| tokio::spawn(feed::feed(fd, slot.input.begin())));
    Ok(Connected { outputs, feeding })
}

pub(super) struct Connected {
    pub(super) outputs: Vec<(OwnedFd, LogStream)>,
    pub(super) feeding: Option<tokio::task::JoinHandle<()>>,
}

/// Passes its output on until it has ended and the pipes are empty. What it left running in the background may keep them
/// open: that is waited for as long as for a container's.
pub(super) async fn follow(task: &dyn ExecTask, streams: Connected, tee: &Tee) -> ExitStatus {
    let Connected { outputs, feeding } = streams;
    let relays = outputs
        .into_iter()
        .map(|(fd, stream)| logs::relay(fd, stream, tee.clone()));
    let relays = futures_util::future::join_all(relays);
    tokio::pin!(relays);
    let (mut drained, exit) = (false, task.wait());
    tokio::pin!(exit);
    let exit = loop {
        tokio::select! {
            exit = &mut exit => break exit,
            _ = &mut relays, if !drained => drained = true,
        }
    };
    if !drained {
        tee.release();
        let _ = tokio::time::timeout(DRAIN, &mut relays).await;
    }
    if let Some(feeding) = feeding {
        feeding.abort();
    }
    exit.unwrap_or_else(|error| {
        tracing::warn!(error = error.report(), "the runtime lost a command");
        ExitStatus::signaled(9)
    })
}
