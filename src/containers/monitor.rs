//! What follows a start: pumps until the streams end, the exit, its record, and auto-removal.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::feed;
use super::local::{Shared, Slot};
use super::record::{ExitRecord, Record, now_ns};
use super::state::ContainerState;
use super::{ContainerExit, RemoveOptions};
use crate::error::{ErrorKind, Result};
use crate::events::{Event, EventKind};
use crate::logs::{self, LogSink, LogStream, PumpOptions, PumpReport, Tee};
use crate::runtime::{Exit, Task};
use crate::types::ExitStatus;

/// How long output may take to drain once the first process has ended: only a process outside can hold a pipe open then.
pub(crate) const DRAIN: Duration = Duration::from_secs(2);

/// How long until an exit that could not be recorded is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// Our ends of a running container's streams.
pub(crate) struct Streams {
    pub(crate) outputs: Vec<(OwnedFd, LogStream)>,
    pub(crate) feed: Option<(AsyncFd<OwnedFd>, mpsc::Receiver<Bytes>)>,
    pub(crate) output: Tee,
}

/// A container that has ended.
struct End {
    record: Record,
    /// Whether its record says so.
    recorded: bool,
}

impl Shared {
    pub(crate) async fn monitor(
        self: Arc<Self>,
        mut record: Record,
        slot: Arc<Slot>,
        task: Arc<dyn Task>,
        streams: Streams,
    ) {
        let Streams { outputs, feed, output } = streams;
        let feeding = feed.map(|(fd, chunks)| self.parts.spawner.background(feed::feed(fd, chunks)));
        let lost = Mutex::new(None);
        let sink = match self.open_log(&record.id) {
            Ok(sink) => sink,
            Err(error) => {
                // The container runs on.
                put(&lost, format!("its log could not be written: {}", error.report()));
                Arc::new(Discard)
            }
        };
        let pumps = async {
            let pumped = logs::pump_all(outputs, Arc::clone(&sink), output.clone(), PumpOptions::default()).await;
            if let Some(what) = lost_of(pumped) {
                put(&lost, what);
            }
        };
        let exit = run_to_end(&*task, pumps, &output).await;
        if let Some(feeding) = feeding {
            feeding.abort();
        }
        slot.input.end();
        if let Some(what) = lost.into_inner().unwrap_or_else(PoisonError::into_inner) {
            tracing::warn!(container = %record.id, what, "output was lost");
            record.body.error = Some(what);
        }
        let end = self.ended(record, &slot, &*task, exit).await;
        // Only now: whoever has read to the end finds a container that has ended.
        if let Err(error) = logs::finish(sink, &output).await {
            tracing::warn!(container = %end.record.id, error = error.report(), "a log could not be closed");
        }
        let record = match end.recorded {
            true => end.record,
            false => self.record_late(end.record, &slot).await,
        };
        self.remove_if_asked(&record, &slot).await;
    }

    /// Records the end, and lets go of the runtime's part.
    async fn ended(&self, record: Record, slot: &Slot, task: &dyn Task, exit: Exit) -> End {
        let exit = ContainerExit {
            status: exit.status,
            oom_killed: exit.oom_killed,
        };
        if let Err(error) = task.remove().await {
            tracing::warn!(container = %record.id, error = error.report(), "the runtime could not let go of a container");
        }
        self.record_end(record, slot, exit).await
    }

    /// Removes a container that was to go with its end.
    async fn remove_if_asked(&self, record: &Record, slot: &Slot) {
        if record.body.spec.auto_remove
            && slot.restarting.load(Ordering::Acquire) == 0
            && let Err(error) = self.remove(record.id.as_str(), RemoveOptions::default()).await
            && !error.is_not_found()
        {
            tracing::warn!(container = %record.id, error = error.report(), "a container could not be removed after its end");
        }
    }

    /// What was renamed or updated since the start stays so. Waiters learn of the end even where there is no space to
    /// record it.
    async fn record_end(&self, started: Record, slot: &Slot, exit: ContainerExit) -> End {
        let _turn = slot.turn.lock().await;
        slot.set_live(None);
        let lost = started.body.error.clone();
        let mut record = self.read(&started.id).await.unwrap_or(started);
        if exit.oom_killed == Some(true) {
            self.tell(self.event(&record, "oom")).await;
        }
        record.body.finished_ns = Some(now_ns());
        record.body.exit = Some(ExitRecord::from(exit));
        record.body.error = lost;
        let recorded = self.record_exit(&mut record).await;
        slot.tell_ended(record.body.finished_ns, record.body.exit, recorded);
        End { record, recorded }
    }

    /// Records an end as soon as there is space for it. Others have their turns in between: a removal makes space.
    async fn record_late(&self, ended: Record, slot: &Slot) -> Record {
        loop {
            tokio::time::sleep(RETRY).await;
            let _turn = slot.turn.lock().await;
            let mut record = match self.read(&ended.id).await {
                Err(error) if error.is_not_found() => return ended,
                Err(_) => continue,
                Ok(record) => record,
            };
            record.body.finished_ns = ended.body.finished_ns;
            record.body.exit = ended.body.exit;
            record.body.error.clone_from(&ended.body.error);
            if self.record_exit(&mut record).await {
                slot.tell_ended(record.body.finished_ns, record.body.exit, true);
                return record;
            }
        }
    }

    /// Whether an end is recorded, or trying again is of no use.
    async fn record_exit(&self, record: &mut Record) -> bool {
        let Err(error) = self.record_state(record, ContainerState::Exited, "die").await else {
            return true;
        };
        tracing::warn!(container = %record.id, error = error.report(), "an exit could not be recorded");
        !matches!(error.kind(), ErrorKind::NoSpace | ErrorKind::Unavailable)
    }

    /// Writes a record's state and body down, with an event.
    pub(crate) async fn record_state(&self, record: &mut Record, state: ContainerState, action: &str) -> Result<()> {
        let from = record.state.as_str();
        record.state = state;
        let (id, body, event) = (record.id.clone(), record.body.to_json()?, self.event(record, action));
        self.parts
            .store
            .call(move |store| {
                store
                    .update_container(&id, from, state.as_str(), &body, Some(&event))
                    .map(|_| ())
            })
            .await
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

async fn run_to_end(task: &dyn Task, pumps: impl Future<Output = ()>, output: &Tee) -> Exit {
    tokio::pin!(pumps);
    let mut drained = false;
    let exit = {
        let wait = task.wait();
        tokio::pin!(wait);
        loop {
            tokio::select! {
                exit = &mut wait => break exit,
                () = &mut pumps, if !drained => drained = true,
            }
        }
    };
    if !drained {
        // What the pipes hold is little: no reader may keep it from the log.
        output.release();
        let _ = tokio::time::timeout(DRAIN, &mut pumps).await;
    }
    exit.unwrap_or_else(|error| {
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
struct Discard;

impl LogSink for Discard {
    fn write(&self, _entries: &[logs::LogEntry]) -> Result<()> {
        Ok(())
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }
}
