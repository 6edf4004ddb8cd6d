//! `promote`: a container that is bound to its engine becomes a detached one while it runs.
//!
//! Its log has one writer at any moment: first the pump of this engine, which stops and writes out what it has read, then the shim. From
//! the moment on at which the container's helper has given its word to the shim, the container is detached
//! (`src/runtime/native/shim/promote.rs`). The row follows: whoever finds one of a dead owner whose container has a shim that was given
//! that word writes it anew instead of removing the container (`sweep.rs`).

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::detached::{Mark, make_shim_dir};
use super::local::{Live, Shared, Slot};
use super::peer;
use super::record::Record;
use super::remove::patiently;
use super::spec::{Lifetime, NamespaceMode, NetworkMode};
use super::state::ContainerState;
use crate::driver::Cancel;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::logs::LogStream;
use crate::runtime::detached::{DetachedOutput, DetachedPhase, DetachedSeen, DetachedTask, HandOn};
use crate::types::{ContainerId, Outcome, Signal};

/// How often, and with what pause, is looked whether a shim knows already what its container is.
const LOOKS: u32 = 250;
const PAUSE: Duration = Duration::from_millis(20);
/// How long until a row that could not be written is tried again: at first, and at most.
const RETRY: Duration = Duration::from_millis(200);
const RETRY_AT_MOST: Duration = Duration::from_secs(5);
/// How often a shim is connected to that has to find its processor time first.
const CONNECTS: u32 = 3;

/// This side of a container's streams.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub(crate) outputs: Vec<(OwnedFd, LogStream)>,
    pub(crate) stdin: Option<OwnedFd>,
}

/// Whoever reads a container's streams is asked to let go of them.
#[derive(Debug)]
pub(crate) struct Handing {
    /// Where they go.
    pub(crate) ends: oneshot::Sender<Ends>,
    /// What becomes of them: they come back, or nothing does any more.
    pub(crate) back: oneshot::Receiver<Option<Ends>>,
}

impl Shared {
    pub(crate) async fn promote(self: &Arc<Self>, name: &str) -> Result<Outcome> {
        let record = self.find(name).await?;
        if record.is_detached() {
            return Ok(Outcome::Already);
        }
        if let Some(elsewhere) = self.elsewhere(&record) {
            return elsewhere.promote().await;
        }
        let slot = self.slot(&record.id);
        let _turn = self.turn(&record.id, &slot).await?;
        let record = self.read(&record.id).await?;
        if record.is_detached() {
            return Ok(Outcome::Already);
        }
        let next = self.promoted(&record)?;
        self.check_alone(&record).await?;
        let live = slot.live().ok_or_else(|| has_ended(&record))?;
        let output = self.promote_task(&record, &next, &slot, &live).await?;
        self.settle_promoted(next, &slot, output).await?;
        Ok(Outcome::Done)
    }

    /// The record as it is to be, of one that can be detached.
    fn promoted(&self, record: &Record) -> Result<Record> {
        if record.state != ContainerState::Running {
            return Err(not_running(record));
        }
        let next = detached_record(record);
        self.check_detached(&next.body.spec)?;
        Ok(next)
    }

    /// Refuses one whose namespaces others have, which would end at its restart with nobody to see to them.
    async fn check_alone(&self, record: &Record) -> Result<()> {
        let owner = self.parts.owner.clone();
        for row in self.parts.store.call(move |store| store.containers_of(&owner)).await? {
            let other = Record::from_row(row)?;
            let spec = &other.body.spec;
            let in_it = |mode: &NamespaceMode| matches!(mode, NamespaceMode::Container(of) if of == record.id.as_str());
            let on_it = matches!(&spec.network, NetworkMode::Container(of) if of == record.id.as_str());
            if in_it(&spec.pid_mode) || in_it(&spec.ipc_mode) || on_it {
                let message = format!(
                    "container {} has a namespace of container {}, and is bound to this engine: remove it first",
                    other.id.short(),
                    record.id.short()
                );
                return Err(
                    Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Container, record.id.as_str())
                );
            }
        }
        Ok(())
    }

    /// Hands everything to a shim. What fails leaves it as it was.
    async fn promote_task(
        self: &Arc<Self>,
        record: &Record,
        next: &Record,
        slot: &Arc<Slot>,
        live: &Live,
    ) -> Result<Option<DetachedOutput>> {
        // Before: its next runs wait for the disk, as what outlives this process should.
        self.parts.snapshotter.keep(&record.snapshot_key()).await?;
        let detach = self.detach_of(next, true)?;
        make_shim_dir(detach.dir.clone()).await?;
        let launch = self.launch_in_use(next, &Cancel::default()).await?;
        let (ends, theirs) = oneshot::channel();
        let (back, coming) = oneshot::channel();
        let reader = slot.handing().ok_or_else(|| has_ended(record))?;
        let _ = reader.send(Handing { ends, back: coming }).await;
        // Nobody reads them any more.
        let ends = theirs.await.map_err(|_| has_ended(record))?;
        let streams = Arc::new(HandOn {
            outputs: ends.outputs,
            stdin: ends.stdin,
            started_ns: record.body.started_ns.unwrap_or_default(),
            restarts: record.body.restarts,
        });
        let promoted = self
            .shims()?
            .promote(&*live.task, launch, detach, Arc::clone(&streams))
            .await;
        let _ = back.send(promoted.is_err().then(|| ends_of(streams)));
        promoted
    }

    /// The shim has it: the row says so, and this engine is one of those that are connected.
    fn settle_promoted<'a>(
        self: &'a Arc<Self>,
        next: Record,
        slot: &'a Arc<Slot>,
        output: Option<DetachedOutput>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            slot.set_detached();
            slot.set_live(None);
            let row = self.write_promoted(&next).await;
            if row.is_err() {
                self.write_promoted_later(&next.id, slot);
            }
            // Before it is connected to: an end that has come since is one that those who wait here are told of.
            if let Ok(DetachedSeen::Alive(state) | DetachedSeen::Gone { state, .. }) = self.seen(&next).await {
                slot.begin_shim(state.shim_pid);
            }
            let tee = slot.output();
            // Nobody else begins to read it meanwhile.
            slot.set_relayed(output.is_some());
            let task = self.connected(&next, slot).await;
            if task.is_none() {
                self.see_to(&next);
            }
            match output {
                Some(output) => self.relay_from(&next.id, slot, (task, output), tee),
                None => tee.close(),
            }
            row
        })
    }

    /// Its disk did not take the row. As long as there is one, it is to say what is so.
    #[cold]
    fn write_promoted_later(self: &Arc<Self>, id: &ContainerId, slot: &Arc<Slot>) {
        let (me, id, slot) = (Arc::clone(self), id.clone(), Arc::clone(slot));
        self.parts.spawner.background(async move {
            let mut pause = RETRY;
            while !me.is_closing() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_AT_MOST);
                let Ok(_turn) = me.turn(&id, &slot).await else { continue };
                // As it is now: it may have ended, or have another name.
                let record = match me.read(&id).await {
                    Err(error) if error.is_not_found() => return,
                    Err(_) => continue,
                    Ok(record) => record,
                };
                match me.write_promoted(&detached_record(&record)).await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::warn!(container = %id, error = error.report(), "a promotion could not be recorded");
                    }
                }
            }
        });
    }

    /// A connection to its shim. Whoever looks at it next makes one, where there is none now.
    async fn connected(&self, next: &Record, slot: &Arc<Slot>) -> Option<Arc<dyn DetachedTask>> {
        for _ in 0..CONNECTS {
            match self.live(next, slot).await {
                Ok(live) => return live?.detached,
                Err(error) => {
                    tracing::warn!(container = %next.id, error = error.report(), "a new shim does not answer yet");
                }
            }
        }
        None
    }

    /// Whether a bound container whose owner is gone had become detached: its row follows, if whoever did that was killed before. One
    /// whose process lives though its shim was given no word, or was killed before it read it, is nobody's, and ends.
    pub(super) async fn keep_promoted(&self, record: &Record) -> Result<bool> {
        if self.parts.runtimes.usual.detached().is_none() {
            return Ok(false);
        }
        if !self.has_word(record).await? {
            if let Some(process) = record.body.process {
                // It has ended, unless all who had to see to that were killed at once.
                let _ = peer::signal(process, Signal::KILL);
            }
            return Ok(false);
        }
        self.write_promoted(&detached_record(record)).await?;
        Ok(true)
    }

    /// Whether its shim has read that it outlives its owner. That of a dead owner comes to know it, or ends, in a moment.
    async fn has_word(&self, record: &Record) -> Result<bool> {
        for _ in 0..LOOKS {
            let phase = match self.seen(record).await? {
                DetachedSeen::Nothing | DetachedSeen::Damaged { .. } => return Ok(false),
                DetachedSeen::Gone { state, .. } => return Ok(state.phase != DetachedPhase::Starting),
                DetachedSeen::Alive(state) => state.phase,
            };
            if phase != DetachedPhase::Starting {
                return Ok(true);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(false)
    }

    /// Moves the row. One that is there already, since whoever did this was killed, stays as it is.
    pub(super) async fn write_promoted(&self, next: &Record) -> Result<()> {
        patiently(|| async move {
            let (row, event) = (next.to_row()?, self.event(next, "promote"));
            let moved = self
                .parts
                .store
                .call(move |store| store.promote_container(&row, Some(&event)));
            moved.await
        })
        .await
    }
}

/// They come back: all of them, or, where somebody has them still, copies.
fn ends_of(streams: Arc<HandOn>) -> Ends {
    let shared = match Arc::try_unwrap(streams) {
        Ok(HandOn { outputs, stdin, .. }) => return Ends { outputs, stdin },
        Err(shared) => shared,
    };
    let copies = shared.outputs.iter();
    Ends {
        outputs: copies
            .filter_map(|(end, stream)| Some((end.try_clone().ok()?, *stream)))
            .collect(),
        stdin: None,
    }
}

/// As the record of a container is that is nobody's.
fn detached_record(record: &Record) -> Record {
    let mut next = record.clone();
    next.owner = None;
    next.body.spec.lifetime = Some(Lifetime::Detached);
    if next.body.mark.is_none() {
        // Nothing of what its shim tells is in the row.
        next.body.mark = Some(Mark::default());
        next.reset_health();
    }
    for point in next.body.mounts.iter_mut().filter(|point| point.bound) {
        (point.bound, point.anonymous) = (false, true);
    }
    next
}

fn has_ended(record: &Record) -> Error {
    let message = format!("cannot promote container {}: it has ended", record.id.short());
    Error::new(ErrorKind::InvalidState, message).with_object(ObjectKind::Container, record.id.as_str())
}

fn not_running(record: &Record) -> Error {
    let message = format!(
        "cannot promote container {}: it is {}, and only one that runs can be",
        record.id.short(),
        record.state
    );
    Error::new(ErrorKind::InvalidState, message).with_object(ObjectKind::Container, record.id.as_str())
}
