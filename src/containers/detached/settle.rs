//! Looking at a detached container that nobody may have followed: what its shim has written down counts.

use std::sync::Arc;

use super::super::local::{Shared, Slot, Told, no_such};
use super::super::record::{Record, now_ns};
use super::super::state::ContainerState;
use super::Mark;
use crate::error::Result;
use crate::runtime::detached::DetachedSeen;
use crate::sys::blocking::blocking;
use crate::types::ContainerId;

impl Shared {
    /// A record as it is now. `None`: the container is gone, since it was to go with its end.
    pub(crate) async fn settled(&self, mut record: Record) -> Result<Option<Record>> {
        if !record.is_detached() || !is_open(&record) {
            return Ok(Some(record));
        }
        match self.seen(&record).await? {
            DetachedSeen::Alive(state) if record.state != ContainerState::Starting => {
                self.overlay(&mut record, &state);
                Ok(Some(record))
            }
            // Somebody starts it, or has been killed on the way.
            DetachedSeen::Damaged { alive: true } => Ok(Some(record)),
            DetachedSeen::Gone { state, process: true } => {
                self.overlay(&mut record, &state);
                record.forget_health();
                record.body.error = Some("its shim was killed: it is kept as long as an engine is open".into());
                self.stand_in(&record);
                Ok(Some(record))
            }
            _ => self.settle_now(record).await,
        }
    }

    pub(super) async fn seen(&self, record: &Record) -> Result<DetachedSeen> {
        let Some(me) = self.me.upgrade() else {
            return Ok(DetachedSeen::Nothing);
        };
        let dir = self.shim_dir(&record.id);
        blocking(move || me.shims()?.seen(&dir)).await
    }

    /// Puts down what nobody has.
    async fn settle_now(&self, mut record: Record) -> Result<Option<Record>> {
        let id = record.id.clone();
        let slot = self.slot(&id);
        slot.set_detached();
        let Some(turn) = self.try_turn(&id, &slot)? else {
            // Somebody is at it, and puts it down; its events may have been told already.
            if let DetachedSeen::Gone { state, .. } = self.seen(&record).await?
                && state.exit.is_some()
                && is_over(&state)
                && record.state != ContainerState::Starting
            {
                self.overlay(&mut record, &state);
                record.body.mark = Some(Mark::of(&state));
            }
            return Ok(Some(record));
        };
        let record = match self.read(&id).await {
            Err(error) if error.is_not_found() => return Ok(None),
            record => record?,
        };
        let over = self.settle_in_turn(record, &slot).await?;
        drop(turn);
        if let Some(record) = over {
            self.remove_if_over(&record, &slot).await;
        }
        match self.read(&id).await {
            Err(error) if error.is_not_found() => Ok(None),
            record => record.map(Some),
        }
    }

    /// As [`Shared::settled`], by whoever has the turn. The record, if its end was put down.
    pub(super) async fn settle_in_turn(&self, record: Record, slot: &Arc<Slot>) -> Result<Option<Record>> {
        let seen = self.seen(&record).await?;
        if !is_without_end(&seen) {
            return self.settle_as(seen, record, slot).await;
        }
        let Some(_place) = self.place_of_shim(&record.id)? else {
            // Somebody stands in for its shim, and puts its end down.
            return Ok(None);
        };
        // Who stood in for it until now has written down what the first look did not find yet.
        let seen = self.seen(&record).await?;
        self.settle_as(seen, record, slot).await
    }

    async fn settle_as(&self, seen: DetachedSeen, record: Record, slot: &Arc<Slot>) -> Result<Option<Record>> {
        match (seen, record.state) {
            (DetachedSeen::Alive(state), _) => self.note_in_turn(record, slot, &state).await,
            // What is written down is of the run before: no shim has come to write of this one.
            (DetachedSeen::Gone { state, .. }, ContainerState::Starting)
                if is_over(&state) && record.body.mark.is_some_and(|mark| mark.has(&state)) =>
            {
                self.never_started(record).await.map(|()| None)
            }
            (DetachedSeen::Gone { state, .. }, _) if state.exit.is_some() && is_over(&state) => {
                self.note_in_turn(record, slot, &state).await
            }
            (DetachedSeen::Gone { process: true, .. } | DetachedSeen::Damaged { alive: true }, _) => Ok(None),
            // It never ran: whoever began to start it is gone.
            (DetachedSeen::Nothing, ContainerState::Starting) => self.never_started(record).await.map(|()| None),
            (DetachedSeen::Damaged { alive: false }, _) => {
                self.lost(record, slot, "what its shim had written down is damaged")
                    .await
            }
            (DetachedSeen::Nothing, _) => {
                let why = "the host was restarted, or its files were removed, while it ran";
                self.lost(record, slot, why).await
            }
            (DetachedSeen::Gone { .. }, _) => self.lost(record, slot, "it was killed together with its shim").await,
        }
    }

    /// Removes what a shim, or whoever was starting one, has left of a container that does not run.
    pub(crate) async fn clear(&self, id: &ContainerId) {
        let (me, of, dir) = (self.me.clone(), id.clone(), self.shim_dir(id));
        let cleared = blocking(move || me.upgrade().map_or(Ok(()), |me| me.shims()?.clear(&of, &dir)));
        if let Err(error) = cleared.await {
            tracing::warn!(container = %id, error = error.report(), "what a killed shim left could not be removed");
        }
    }

    async fn never_started(&self, mut record: Record) -> Result<()> {
        let state = match record.body.started_ns {
            Some(_) => ContainerState::Exited,
            None => ContainerState::Created,
        };
        record.body.error = Some("the process that was starting it ended on the way".into());
        self.write_state(&mut record, state, None).await
    }

    /// The record of a container whose turn the caller has, as it is now.
    pub(crate) async fn read_in_turn(&self, id: &ContainerId, slot: &Arc<Slot>) -> Result<Record> {
        let record = self.read(id).await?;
        if !record.is_detached() || !is_open(&record) {
            return Ok(record);
        }
        self.settle_in_turn(record, slot).await?;
        self.read(id).await
    }

    /// The record of a container, as it is now.
    pub(crate) async fn read_settled(&self, id: &ContainerId, slot: &Arc<Slot>) -> Result<Record> {
        let record = self.read(id).await?;
        if record.is_detached() {
            slot.set_detached();
        }
        self.settled(record).await?.ok_or_else(|| no_such(id.as_str()))
    }

    /// It has ended, and nobody can say how: no status is better than a wrong one.
    async fn lost(&self, mut record: Record, slot: &Arc<Slot>, why: &str) -> Result<Option<Record>> {
        if Self::has_process(&record) {
            return Ok(None);
        }
        record.body.exit = None;
        record.body.finished_ns = Some(now_ns());
        record.body.error = Some(why.to_owned());
        let mark = record.body.mark.get_or_insert_default();
        mark.ends = mark.ends.saturating_add(1);
        let (shim, ends) = (mark.shim, mark.ends);
        self.record_state(&mut record, ContainerState::Exited, "die").await?;
        slot.set_live(None);
        self.clear(&record.id).await;
        let told = Told {
            shim,
            ends,
            over: true,
            finished_ns: record.body.finished_ns,
        };
        slot.tell_ends(told, None);
        self.leave_networks(&record.id).await;
        self.end_mounts(&record).await;
        Ok(Some(record))
    }
}

/// Whether its state may have changed without anybody seeing it.
pub(super) fn is_open(record: &Record) -> bool {
    matches!(
        record.state,
        ContainerState::Running | ContainerState::Paused | ContainerState::Restarting | ContainerState::Starting
    )
}

/// Whether shim and process are gone, and neither the shim nor who stood in for it has written down how it ended.
fn is_without_end(seen: &DetachedSeen) -> bool {
    match seen {
        DetachedSeen::Gone { state, process: false } => state.exit.is_none() || !is_over(state),
        _ => false,
    }
}

fn is_over(state: &crate::runtime::detached::DetachedState) -> bool {
    state.phase == crate::runtime::detached::DetachedPhase::Ended
}
