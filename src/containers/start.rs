//! `start`: mounts from the storage driver, the process from the runtime, pumps and a monitor on the driver.

use std::sync::Arc;

use super::etc;
use super::feed;
use super::local::{Live, Shared, Slot};
use super::monitor::Streams;
use super::peer;
use super::plan;
use super::record::{Record, now_ns};
use super::state::{ContainerState, Move, Verb, decide};
use crate::driver::Cancel;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::logs::LogStream;
use crate::runtime::{Launch, Started};
use crate::types::{Outcome, Signal};

impl Shared {
    pub(crate) async fn start(self: &Arc<Self>, name: &str, cancel: &Cancel) -> Result<Outcome> {
        let record = self.find(name).await?;
        self.must_be_ours(&record, "start")?;
        let slot = self.slot(&record.id);
        let _turn = slot.turn.lock().await;
        let record = self.read(&record.id).await?;
        if decide(&record.id, record.state, Verb::Start)? == Move::Already {
            return Ok(Outcome::Already);
        }
        match self.start_now(record.clone(), &slot, cancel).await {
            Ok(()) => Ok(Outcome::Done),
            Err(error) => {
                self.note_failure(record, &error).await;
                Err(error)
            }
        }
    }

    async fn start_now(self: &Arc<Self>, mut record: Record, slot: &Arc<Slot>, cancel: &Cancel) -> Result<()> {
        cancel.check()?;
        let launch = self.launch(&record).await?;
        // Not dropped when the caller goes away: the container's files are in use until its process is gone, and the verb
        // that comes next removes them.
        let started = self.parts.runtime.start(launch).await;
        let started = started.map_err(|error| about(&record, error))?;
        let task = Arc::clone(&started.task);
        record.body.process = peer::identify(task.pid());
        record.body.started_ns = Some(now_ns());
        record.body.finished_ns = None;
        record.body.exit = None;
        record.body.error = None;
        let streams = match streams(started, slot).and_then(|streams| cancel.check().map(|()| streams)) {
            Ok(streams) => streams,
            Err(error) => return Err(abandon(&*task, error).await),
        };
        slot.set_live(Some(Live {
            task: Arc::clone(&task),
        }));
        if let Err(error) = self.record_state(&mut record, ContainerState::Running, "start").await {
            slot.set_live(None);
            return Err(abandon(&*task, error).await);
        }
        let shared = Arc::clone(self);
        let slot = Arc::clone(slot);
        self.parts
            .spawner
            .background(async move { shared.monitor(record, slot, task, streams).await });
        Ok(())
    }

    async fn launch(&self, record: &Record) -> Result<Launch> {
        let key = record.snapshot_key();
        let (spec, image) = (&record.body.spec, &record.body.image);
        let mut scratch = self.parts.snapshotter.directories(&key);
        scratch.push(self.dir_of(&record.id));
        let mut rootfs = self.parts.snapshotter.mounts(&key).await?;
        if let Some(root) = rootfs.first_mut() {
            root.read_only |= spec.read_only;
        }
        Ok(Launch {
            id: record.id.clone(),
            spec: self.oci_spec(record)?,
            user: plan::user(spec, image),
            extra_groups: spec.groups.clone(),
            rootfs,
            stdio: plan::stdio(spec),
            init: spec.init,
            scratch,
            best_effort_limits: spec.limits.best_effort,
        })
    }

    /// The plan, with the files for `/etc` shown over the image's.
    fn oci_spec(&self, record: &Record) -> Result<oci_spec::runtime::Spec> {
        let (spec, image) = (&record.body.spec, &record.body.image);
        let mut planned = plan::oci_spec(&record.id, spec, image)?;
        let hostname = plan::hostname(spec, &record.id);
        let files = etc::write(&self.dir_of(&record.id), spec, &hostname)?;
        let mut mounts = planned.mounts().clone().unwrap_or_default();
        for (file, place) in files {
            mounts.push(plan::bind_mount(&file, &place, false)?);
        }
        planned.set_mounts(Some(mounts));
        Ok(planned)
    }

    /// A container that could not be started stays as it was, with the reason noted.
    async fn note_failure(&self, mut record: Record, error: &Error) {
        record.body.error = Some(error.report());
        let state = record.state;
        if let Err(error) = self.record_state(&mut record, state, "die").await {
            tracing::warn!(container = %record.id, error = error.report(), "a failed start could not be noted");
        }
    }
}

/// The container that the error is about, unless it says already.
fn about(record: &Record, error: Error) -> Error {
    let short = record.id.short().to_owned();
    match (error.kind(), error.object()) {
        (ErrorKind::CommandNotFound | ErrorKind::CommandNotExecutable, _) => error,
        // The user that is missing, say: "not found" must not sound as if the container were.
        (_, Some((ObjectKind::User, _))) => error.context(format!("start container {short}")),
        _ => error
            .context(format!("start container {short}"))
            .with_object(ObjectKind::Container, record.id.as_str()),
    }
}

/// Ends what was started in vain.
async fn abandon(task: &dyn crate::runtime::Task, error: Error) -> Error {
    let _ = task.signal(Signal::KILL, true).await;
    let _ = task.wait().await;
    let _ = task.remove().await;
    error
}

/// Our ends of the standard streams.
fn streams(started: Started, slot: &Slot) -> Result<Streams> {
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
    let feed = input.map(|fd| (fd, slot.input.begin()));
    Ok(Streams {
        outputs,
        feed,
        output: slot.next_output(),
    })
}
