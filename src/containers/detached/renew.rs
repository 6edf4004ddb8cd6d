//! A new shim under a container that goes on since its own was killed: the container has everything again that a shim does for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::local::{Live, Shared, Slot};
use super::super::record::Record;
use super::super::state::ContainerState;
use super::settle::is_open;
use crate::driver::{Cancel, closed};
use crate::error::{ErrorKind, Result};
use crate::runtime::detached::{DetachedPhase, DetachedSeen, Restart};
use crate::types::ContainerId;

/// How long, and with what pause, is looked whether another has put a shim in its place, or one is about to be gone.
const PATIENCE: Duration = Duration::from_secs(2);
pub(super) const PAUSE: Duration = Duration::from_millis(20);

/// What a shim is asked before anything else, by whoever needs it for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// To be there.
    Connection,
    /// What a command needs.
    Commands,
    /// Not to start the container again.
    Halt,
    /// To keep its stdin open no longer.
    ClosedInput,
}

impl Need {
    /// Twice does no harm.
    async fn ask(self, live: &Live) -> Result<()> {
        let Some(task) = &live.detached else { return Ok(()) };
        match self {
            Self::Connection => Ok(()),
            Self::Commands => task.prepare_exec().await,
            Self::Halt => task.halt().await,
            Self::ClosedInput => task.close_input().await,
        }
    }
}

/// What has come of an attempt to put a shim under a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renewal {
    Done,
    /// There is one, which does not answer yet or is about to be gone.
    Another,
    /// Its start has not been put down, and it may not have come to its program.
    Starting,
    /// There is nothing that runs.
    Over,
}

impl Shared {
    /// As [`Shared::live`], with what is needed of the shim; one that is gone, or is killed under it, is replaced first. Not for
    /// whoever has the container's turn.
    pub(crate) async fn live_anew(&self, record: &Record, slot: &Arc<Slot>, need: Need) -> Result<Option<Live>> {
        let (begun, mut held) = (Instant::now(), None);
        loop {
            let error = match self.live_with(record, slot, need).await {
                Err(error) if error.kind() == &ErrorKind::Unavailable => error,
                found => return found,
            };
            if begun.elapsed() >= PATIENCE {
                return Err(error);
            }
            // Without it, another is at it, or is itself in the shim's place.
            if let (Some(me), Some(one)) = (self.me.upgrade(), self.place_of_shim(&record.id)?) {
                // As whoever stands in: what ends while a new shim is on its way has been seen.
                held = me.bereft(&record.id).await?.or(held);
                match me.renew(&record.id, slot).await {
                    Ok(Renewal::Done) => continue,
                    Ok(Renewal::Over) => {
                        if let Some(held) = held {
                            me.see_end(&record.id, slot, (held, one));
                        }
                        return Ok(None);
                    }
                    Ok(Renewal::Another | Renewal::Starting) => {}
                    Err(why) if why.kind() == &ErrorKind::Unavailable => {}
                    Err(why) => {
                        tracing::warn!(container = %record.id, error = why.report(), "no new shim for a container");
                        return Err(error);
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn live_with(&self, record: &Record, slot: &Arc<Slot>, need: Need) -> Result<Option<Live>> {
        let Some(live) = self.live(record, slot).await? else {
            return Ok(None);
        };
        need.ask(&live).await.map(|()| Some(live))
    }

    /// For verbs that take the container's turn: sees to it that it has a shim before.
    pub(crate) async fn with_shim(&self, record: &Record, slot: &Arc<Slot>) -> Result<()> {
        match record.is_detached() {
            true => self.live_anew(record, slot, Need::Connection).await.map(drop),
            false => Ok(()),
        }
    }

    /// Puts a shim there, unless there is one already, or nothing that runs. By whoever has the lock of [`key`].
    pub(super) async fn renew(self: &Arc<Self>, id: &ContainerId, slot: &Arc<Slot>) -> Result<Renewal> {
        let _turn = self.turn(id, slot).await?;
        if self.is_closing() {
            return Err(closed());
        }
        let mut record = self.read(id).await?;
        if !is_open(&record) {
            return Ok(Renewal::Over);
        }
        let state = match self.seen(&record).await? {
            DetachedSeen::Gone { process: true, state } => state,
            // What becomes of its start is to be put down first, and it may never have run.
            _ if record.state == ContainerState::Starting => return Ok(Renewal::Starting),
            DetachedSeen::Alive(_) => return self.note_kept(record).await.map(|()| Renewal::Another),
            DetachedSeen::Damaged { .. } => return Ok(Renewal::Another),
            DetachedSeen::Gone { process: false, .. } | DetachedSeen::Nothing => return Ok(Renewal::Over),
        };
        if record.state == ContainerState::Starting {
            if state.phase == DetachedPhase::Starting {
                return Ok(Renewal::Starting);
            }
            // It runs, and whoever has started it, and would have the turn, was killed with its shim.
            self.note_in_turn(record, slot, &state).await?;
            record = self.read(id).await?;
        }
        let launch = self.launch_in_use(&record, &Cancel::default()).await?;
        let mut detach = self.detach_of(&record, false)?;
        if slot.is_halted() || self.is_ended_by_hand(&record, state.started_ns).await? {
            // Somebody ends it, and had no shim to tell, or has told the one that was killed.
            detach.restart = Restart::default();
        }
        // Nothing is told by way of this handle: whoever looks next adopts it, and puts down what has changed.
        match self.shims()?.renew(launch, detach).await {
            Ok(task) => drop(task),
            // Somebody's who has not waited for it to come, and holds no lock of the container's any more.
            Err(error) if error.is_conflict() => return Ok(Renewal::Another),
            Err(error) if error.kind() == &ErrorKind::InvalidState => return Ok(Renewal::Over),
            Err(error) => return Err(error),
        }
        self.note_kept(record).await.map(|()| Renewal::Done)
    }

    /// Whether somebody, in whatever process, has meant to end its present run, of which the row may not know yet.
    async fn is_ended_by_hand(&self, record: &Record, started_ns: i64) -> Result<bool> {
        let mut present = record.clone();
        present.body.started_ns = Some(started_ns);
        self.was_ended_by_hand(&present).await
    }

    /// Writes down that its restart policy is its shim's business again.
    async fn note_kept(&self, mut record: Record) -> Result<()> {
        if !record.body.bereft {
            return Ok(());
        }
        record.body.bereft = false;
        let state = record.state;
        self.write_state(&mut record, state, None).await
    }
}
