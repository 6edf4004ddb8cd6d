//! What follows a start: pumps until the streams end, the exit, its record, and auto-removal.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use super::feed;
use super::local::{Shared, Slot};
use super::logs::pump_options;
use super::promote::{Ends, Handing};
use super::record::{ExitRecord, Record, now_ns};
use super::state::ContainerState;
use super::{ContainerExit, RemoveOptions, probe, revive};
use crate::error::{Error, Result};
use crate::events::{Event, EventKind};
use crate::logs::{self, LogSink, LogStream, PumpOptions, PumpReport, Tee};
use crate::runtime::{Exit, Task};
use crate::sys::blocking::{begin_blocking, blocking};
use crate::types::{ContainerId, ExitStatus};

/// How long output may take to drain once the first process has ended: only a process outside can hold a pipe open then.
pub(crate) const DRAIN: Duration = Duration::from_secs(2);

/// How long until an exit that could not be recorded is tried again: at first, and at most.
const RETRY: Duration = Duration::from_millis(200);
const RETRY_AT_MOST: Duration = Duration::from_secs(5);

/// Our ends of a running container's streams.
pub(crate) struct Streams {
    pub(crate) outputs: Vec<(OwnedFd, LogStream)>,
    pub(crate) feed: Option<(AsyncFd<OwnedFd>, mpsc::Receiver<Bytes>)>,
    /// Where its log goes, or why it goes nowhere.
    pub(crate) sink: Result<Arc<dyn LogSink>>,
    pub(crate) output: Tee,
    /// Whoever asks for them, since the container is to outlive this process.
    pub(crate) asked: mpsc::Receiver<Handing>,
}

/// What is known of a run before it is recorded.
pub(crate) struct Begun {
    id: ContainerId,
    tty: bool,
    options: PumpOptions,
}

impl Begun {
    pub(crate) fn of(record: &Record) -> Self {
        Self {
            id: record.id.clone(),
            tty: record.body.spec.tty,
            options: pump_options(record),
        }
    }
}

/// Where the output of a run goes.
struct Pumped<'a> {
    task: &'a dyn Task,
    sink: Arc<dyn LogSink>,
    output: Tee,
    options: PumpOptions,
    tty: bool,
    stdin: Weak<AsyncFd<OwnedFd>>,
    lost: &'a Mutex<Option<String>>,
}

impl Pumped<'_> {
    /// Reads until the run is over. False: the streams, and with them the end, have become somebody else's.
    async fn until_over(&self, mut outputs: Vec<(OwnedFd, LogStream)>, asked: &mut mpsc::Receiver<Handing>) -> bool {
        loop {
            let (stop, stopped) = watch::channel(false);
            let mut left = Vec::new();
            let handing = {
                let pumps = async {
                    let streams = std::mem::take(&mut outputs);
                    let (sink, output) = (Arc::clone(&self.sink), self.output.clone());
                    let (report, ends) = logs::pump_until(streams, sink, output, self.options, stopped).await;
                    left = ends;
                    if let Some(what) = lost_of(report) {
                        put(self.lost, what);
                    }
                };
                run_until_asked(self.task, pumps, &self.output, (asked, stop)).await
            };
            let Some(Handing { ends, back }) = handing else {
                return true;
            };
            let copy = self.stdin.upgrade().and_then(|fd| fd.get_ref().try_clone().ok());
            let given = Ends {
                outputs: left,
                stdin: copy.filter(|_| !self.tty),
            };
            match ends.send(given) {
                // Who asked is gone.
                Err(given) => outputs = given.outputs,
                Ok(()) => match back.await {
                    // It is a shim's from now on, and so is its end.
                    Ok(None) => return false,
                    Ok(Some(returned)) => outputs = returned.outputs,
                    Err(_) => {}
                },
            }
        }
    }
}

impl Shared {
    /// Follows a run from its first byte: `recorded` tells of its record, which is being written meanwhile. If that comes to
    /// nothing, whoever has started it ends it, too.
    pub(crate) async fn monitor(
        self: Arc<Self>,
        recorded: oneshot::Receiver<Record>,
        begun: Begun,
        slot: Arc<Slot>,
        task: Arc<dyn Task>,
        streams: Streams,
    ) {
        let Streams {
            outputs,
            feed,
            sink,
            output,
            mut asked,
        } = streams;
        let feed = feed.map(|(fd, chunks)| (Arc::new(fd), chunks));
        let stdin = feed.as_ref().map(|(fd, _)| Arc::downgrade(fd)).unwrap_or_default();
        let feeding = feed.map(|(fd, chunks)| self.feed_until_promoted(&begun.id, &slot, (fd, chunks)));
        let lost = Mutex::new(None);
        let sink = sink.unwrap_or_else(|error| {
            // The container runs on.
            put(&lost, format!("its log could not be written: {}", error.report()));
            Arc::new(Discard)
        });
        let pumped = Pumped {
            task: &*task,
            sink: Arc::clone(&sink),
            output: output.clone(),
            options: begun.options,
            tty: begun.tty,
            stdin,
            lost: &lost,
        };
        let recorded = {
            let running = pumped.until_over(outputs, &mut asked);
            tokio::pin!(running, recorded);
            tokio::select! {
                biased;
                recorded = &mut recorded => match recorded {
                    Ok(_) if !running.await => return,
                    recorded => recorded,
                },
                // Nobody has its turn to ask for its streams before it is recorded.
                _ = &mut running => recorded.await,
            }
        };
        // Whoever has asked too late waits for this with the turn that the end needs.
        drop(asked);
        if let Some(feeding) = feeding {
            feeding.abort();
        }
        slot.input.end();
        let Ok(mut record) = recorded else {
            return;
        };
        if let Some(what) = lost.into_inner().unwrap_or_else(PoisonError::into_inner) {
            tracing::warn!(container = %record.id, what, "output was lost");
            record.body.error = Some(what);
        }
        let ends = output.clone();
        let ended = begin_blocking(async move {
            let (id, exit) = (record.id.clone(), exit_of(&*task).await);
            // Readers come to the end only when it is told: whoever has read all finds a container that has ended.
            let (mut life, before) = (slot.life.subscribe(), slot.life.borrow().ends);
            let life_of = slot.life.subscribe();
            let closing = async {
                let _ = life.wait_for(|life| life.ends > before || life.removed).await;
                logs::finish(sink, &output).await
            };
            let (record, closed) = tokio::join!(self.ended(record, &slot, &*task, exit), closing);
            // One that is gone may have taken the files of its log along.
            let is_gone = life_of.borrow().removed;
            let is_missing = |error: &Error| is_gone && error.errno() == Some(libc::ENOENT);
            if let Some(error) = closed.err().filter(|error| !is_missing(error)) {
                tracing::warn!(container = %id, error = error.report(), "a log could not be closed");
            }
            let (record, comeback) = record;
            match comeback {
                Some(pause) => self.revive_later(&record, &slot, pause),
                None => self.remove_if_asked(&record, &slot).await,
            }
        });
        if let Err(error) = ended.await {
            ends.close();
            tracing::warn!(error = error.report(), "what follows a container's end was cut off");
        }
    }

    /// Feeds its stdin. That of one that has become detached is closed by its shim.
    fn feed_until_promoted(
        self: &Arc<Self>,
        id: &ContainerId,
        slot: &Arc<Slot>,
        (fd, chunks): (Arc<AsyncFd<OwnedFd>>, mpsc::Receiver<Bytes>),
    ) -> AbortHandle {
        let (me, id, slot) = (self.me.clone(), id.clone(), Arc::clone(slot));
        self.parts.spawner.background(async move {
            feed::feed(fd, chunks).await;
            if slot.is_detached() {
                super::detached::close_input(&me, &id, &slot).await;
            }
        })
    }

    /// Where its log goes.
    pub(crate) async fn log_sink(self: &Arc<Self>, record: &Record) -> Result<Arc<dyn LogSink>> {
        let (shared, record) = (Arc::clone(self), record.clone());
        blocking(move || shared.open_log(&record)).await
    }

    /// Records the end, and lets go of the runtime's part. Says after what pause the container is to be started again, if it is.
    async fn ended(&self, record: Record, slot: &Slot, task: &dyn Task, exit: Exit) -> (Record, Option<Duration>) {
        let exit = ContainerExit {
            status: exit.status,
            oom_killed: exit.oom_killed,
        };
        if let Err(error) = task.remove().await {
            tracing::warn!(container = %record.id, error = error.report(), "the runtime could not let go of a container");
        }
        self.leave_networks(&record.id).await;
        self.end_mounts(&record).await;
        self.record_end(record, slot, exit).await
    }

    /// Removes a container that was to go with its end.
    pub(super) async fn remove_if_asked(&self, record: &Record, slot: &Slot) {
        if record.body.spec.auto_remove
            && !slot.is_restarted()
            && let Err(error) = self.remove(record.id.as_str(), RemoveOptions::default()).await
            && !error.is_not_found()
        {
            tracing::warn!(container = %record.id, error = error.report(), "a container could not be removed after its end");
        }
    }

    /// What was renamed or updated since the start stays so. An end is not lost where it cannot be recorded, for want of
    /// space or of descriptors, say: who waits learns of it at once, and it is recorded as soon as that can be.
    async fn record_end(&self, started: Record, slot: &Slot, exit: ContainerExit) -> (Record, Option<Duration>) {
        let mut turn = slot.turn.lock().await;
        let goes = slot.end_run();
        let mut record = self.read(&started.id).await.unwrap_or_else(|_| started.clone());
        if exit.oom_killed == Some(true) {
            self.tell(self.event(&record, "oom")).await;
        }
        if record.body.spec.storage_size.is_some()
            && matches!(self.parts.snapshotter.is_full(&record.snapshot_key()).await, Ok(true))
        {
            self.tell(self.event(&record, "storage-full")).await;
        }
        let (finished, exit) = (Some(now_ns()), Some(ExitRecord::from(exit)));
        record.body.exit = exit;
        if goes && !revive::has_policy(&record) && !slot.is_restarted() {
            record.body.finished_ns = finished;
            match self.delete_ended(&record, slot).await {
                Ok(()) => return (record, None),
                // Whoever wanted it to go removes it then, and is told why that cannot be.
                Err(error) => {
                    tracing::debug!(container = %record.id, error = error.report(), "a container could not go with its end")
                }
            }
        }
        let comeback = if revive::has_policy(&record) {
            self.comeback(&record, slot).await
        } else {
            None
        };
        let mut pause = RETRY;
        loop {
            record.body.endpoints.clear();
            record.body.ports.clear();
            record.body.finished_ns = finished;
            record.body.exit = exit;
            // What of its output was lost.
            record.body.error.clone_from(&started.body.error);
            probe::ended(&mut record.body.health);
            let Err(error) = self
                .record_state(&mut record, revive::state_after(comeback), "die")
                .await
            else {
                break;
            };
            tracing::warn!(container = %record.id, error = error.report(), "an exit could not be recorded");
            slot.tell_ended(finished, exit, false);
            // Others have their turn: a removal makes space.
            drop(turn);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_AT_MOST);
            turn = slot.turn.lock().await;
            record = match self.read(&started.id).await {
                Err(error) if error.is_not_found() => return (record, None),
                Err(_) => started.clone(),
                Ok(record) => record,
            };
        }
        slot.tell_ended(finished, exit, true);
        drop(turn);
        (record, comeback)
    }

    /// Writes a record's state and body down, with an event.
    pub(crate) async fn record_state(&self, record: &mut Record, state: ContainerState, action: &str) -> Result<()> {
        let event = self.event(record, action);
        self.write_state(record, state, Some(event)).await
    }

    /// As [`Shared::record_state`], with an event or without one.
    pub(crate) fn write_state<'a>(
        &'a self,
        record: &'a mut Record,
        state: ContainerState,
        event: Option<Event>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let from = record.state.as_str();
            record.state = state;
            let (id, body) = (record.id.clone(), record.body.to_json()?);
            self.parts
                .store
                .call(move |store| {
                    store
                        .update_container(&id, from, state.as_str(), &body, event.as_slice())
                        .map(|_| ())
                })
                .await
        })
    }

    /// An event about a container.
    pub(crate) fn event(&self, record: &Record, action: &str) -> Event {
        let mut event = Event::now(EventKind::Container, action, record.id.as_str());
        event.attributes = record.labels();
        let event = event
            .with("image", &record.body.spec.image)
            .with("name", record.name.as_str());
        match record.body.exit.filter(|_| action == "die") {
            Some(exit) => event.with("exitCode", exit.status.code().to_string()),
            None => event,
        }
    }
}

pub(super) async fn run_to_end(task: &dyn Task, pumps: impl Future<Output = ()>, output: &Tee) {
    tokio::pin!(pumps);
    let mut drained = false;
    {
        let ended = task.until_ended();
        tokio::pin!(ended);
        loop {
            tokio::select! {
                () = &mut ended => break,
                () = &mut pumps, if !drained => drained = true,
            }
        }
    }
    if !drained {
        // What the pipes hold is little: no reader may keep it from the log.
        output.release();
        let _ = tokio::time::timeout(DRAIN, &mut pumps).await;
    }
}

/// As [`run_to_end`], or until somebody asks for the streams: then the pumps have stopped.
async fn run_until_asked(
    task: &dyn Task,
    pumps: impl Future<Output = ()>,
    output: &Tee,
    (asked, stop): (&mut mpsc::Receiver<Handing>, watch::Sender<bool>),
) -> Option<Handing> {
    tokio::pin!(pumps);
    let mut drained = false;
    let handing = {
        let ended = task.until_ended();
        tokio::pin!(ended);
        loop {
            tokio::select! {
                () = &mut ended => break None,
                () = &mut pumps, if !drained => drained = true,
                Some(handing) = asked.recv() => break Some(handing),
            }
        }
    };
    if handing.is_some() {
        stop.send_replace(true);
        if !drained {
            pumps.await;
        }
    } else if !drained {
        // What the pipes hold is little: no reader may keep it from the log.
        output.release();
        let _ = tokio::time::timeout(DRAIN, &mut pumps).await;
    }
    handing
}

/// How it ended. Blocks for the counters of its cgroup.
pub(super) async fn exit_of(task: &dyn Task) -> Exit {
    task.wait().await.unwrap_or_else(|error| {
        tracing::warn!(error = error.report(), "the runtime lost a container");
        Exit::new(ExitStatus::signaled(9), None)
    })
}

fn put(place: &Mutex<Option<String>>, what: String) {
    *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
}

/// What a container wrote and its log lacks, in words.
fn lost_of(pumped: Result<PumpReport>) -> Option<String> {
    match pumped {
        Ok(PumpReport { lost_entries: 0, .. }) => None,
        Ok(report) => {
            let why = report
                .first_error
                .map_or_else(|| "too slow".to_owned(), |error| error.report());
            Some(format!("{} entries of its log were lost: {why}", report.lost_entries))
        }
        Err(error) => Some(format!("its output could not be read: {}", error.report())),
    }
}

/// A log that takes everything and keeps nothing.
#[derive(Debug)]
pub(super) struct Discard;

impl LogSink for Discard {
    fn write(&self, _entries: &[logs::LogEntry]) -> Result<()> {
        Ok(())
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }
}
