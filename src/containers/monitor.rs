//! What follows a start: pumps until the streams end, the exit, its record, and auto-removal.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::feed;
use super::local::{Shared, Slot};
use super::record::{ExitRecord, Record, now_ns};
use super::state::ContainerState;
use super::{ContainerExit, RemoveOptions};
use crate::error::Result;
use crate::events::{Event, EventKind};
use crate::logs::{self, LogSink, LogStream, PumpOptions, Tee};
use crate::runtime::{Exit, Task};
use crate::sys::blocking::{begin_blocking, blocking};
use crate::types::{ContainerId, ExitStatus};

/// How long output may take to drain once the first process has ended: only a process outside can hold a pipe open then.
pub(crate) const DRAIN: Duration = Duration::from_secs(2);

/// Our ends of a running container's streams.
pub(crate) struct Streams {
    pub(crate) outputs: Vec<(OwnedFd, LogStream)>,
    pub(crate) feed: Option<(AsyncFd<OwnedFd>, mpsc::Receiver<Bytes>)>,
    pub(crate) sink: Arc<dyn LogSink>,
    pub(crate) output: Tee,
}

impl Shared {
    pub(crate) async fn monitor(
        self: Arc<Self>,
        record: Record,
        slot: Arc<Slot>,
        task: Arc<dyn Task>,
        streams: Streams,
    ) {
        let Streams {
            outputs,
            feed,
            sink,
            output,
        } = streams;
        let feeding = feed.map(|(fd, chunks)| self.parts.spawner.background(feed::feed(fd, chunks)));
        let pumps = async {
            match logs::pump_all(outputs, Arc::clone(&sink), output.clone(), PumpOptions::default()).await {
                Ok(report) if report.lost_entries == 0 => {}
                Ok(report) => {
                    tracing::warn!(container = %record.id, lost = report.lost_entries, "lines could not be logged")
                }
                Err(error) => {
                    tracing::warn!(container = %record.id, error = error.report(), "output could not be read")
                }
            }
        };
        let exit = run_to_end(&*task, pumps, &output).await;
        if let Some(feeding) = feeding {
            feeding.abort();
        }
        slot.input.end();
        let ends = output.clone();
        let ended = begin_blocking(async move {
            let record = self.ended(record, &slot, &*task, exit).await;
            // Only now: whoever has read to the end finds a container that has ended.
            if let Err(error) = logs::finish(sink, &output).await {
                tracing::warn!(container = %record.id, error = error.report(), "a log could not be closed");
            }
            self.remove_if_asked(&record, &slot).await;
        });
        if let Err(error) = ended.await {
            ends.close();
            tracing::warn!(error = error.report(), "what follows a container's end was cut off");
        }
    }

    /// Where its log goes. A log that cannot be opened is reported and given up: the container runs on.
    pub(crate) async fn log_sink(self: &Arc<Self>, id: &ContainerId) -> Arc<dyn LogSink> {
        let (shared, wanted) = (Arc::clone(self), id.clone());
        match blocking(move || shared.open_log(&wanted)).await {
            Ok(sink) => sink,
            Err(error) => {
                tracing::warn!(container = %id, error = error.report(), "the log cannot be written");
                Arc::new(Discard)
            }
        }
    }

    /// Records the end, and lets go of the runtime's part.
    async fn ended(&self, record: Record, slot: &Slot, task: &dyn Task, exit: Exit) -> Record {
        let exit = ContainerExit {
            status: exit.status,
            oom_killed: exit.oom_killed,
        };
        if let Err(error) = task.remove().await {
            tracing::warn!(container = %record.id, error = error.report(), "the runtime could not let go of a container");
        }
        let record = self.record_end(record, slot, exit).await;
        slot.tell_ended(record.body.finished_ns, record.body.exit);
        record
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

    /// What was renamed or updated since the start stays so.
    async fn record_end(&self, started: Record, slot: &Slot, exit: ContainerExit) -> Record {
        let _turn = slot.turn.lock().await;
        slot.set_live(None);
        let mut record = self.read(&started.id).await.unwrap_or(started);
        record.body.finished_ns = Some(now_ns());
        record.body.exit = Some(ExitRecord::from(exit));
        if exit.oom_killed == Some(true) {
            self.tell(self.event(&record, "oom")).await;
        }
        if let Err(error) = self.record_state(&mut record, ContainerState::Exited, "die").await {
            tracing::warn!(container = %record.id, error = error.report(), "an exit could not be recorded");
        }
        record
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
