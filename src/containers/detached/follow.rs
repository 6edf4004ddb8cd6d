//! Following a shim: what it tells is put down in the container's row, and told to those of this process who wait.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::super::RemoveOptions;
use super::super::local::{Shared, Slot, Told};
use super::super::peer;
use super::super::probe;
use super::super::record::{ExitRecord, ProcessIdentity, Record};
use super::super::state::ContainerState;
use super::Mark;
use super::settle::is_open;
use crate::error::{Error, Result};
use crate::runtime::Exit;
use crate::runtime::detached::{DetachedPhase, DetachedSeen, DetachedState, DetachedTask};
use crate::types::ContainerId;

/// How long until what could not be recorded is tried again: at first, and at most.
pub(super) const RETRY: Duration = Duration::from_millis(200);
pub(super) const RETRY_AT_MOST: Duration = Duration::from_secs(5);

impl Shared {
    /// Until the shim goes.
    pub(super) async fn follow(self: Arc<Self>, id: ContainerId, slot: Arc<Slot>, task: Arc<dyn DetachedTask>) {
        let mut state = task.state();
        loop {
            self.note_patiently(&id, &slot, &state).await;
            if state.phase == DetachedPhase::Ended {
                break;
            }
            match task.changed(state.change).await {
                Some(next) => state = next,
                None => {
                    slot.set_live(None);
                    // It may have written more down than it told, and another engine may have read that already.
                    match self.find(id.as_str()).await {
                        Ok(record) if is_open(&record) => self.stand_in(&record),
                        Ok(record) => slot.tell_row(&record),
                        Err(error) if error.is_not_found() => self.forget(&id),
                        Err(error) => {
                            tracing::warn!(container = %id, error = error.report(), "a container that lost its shim cannot be looked at");
                        }
                    }
                    break;
                }
            }
        }
        slot.end_connection(&task);
    }

    /// What cannot be recorded, for want of space, say, is told to those who wait, and tried again.
    async fn note_patiently(&self, id: &ContainerId, slot: &Arc<Slot>, state: &DetachedState) {
        let mut pause = RETRY;
        while let Err(error) = self.note(id, slot, state).await {
            tracing::warn!(container = %id, error = error.report(), "what a shim told could not be recorded");
            if state.phase == DetachedPhase::Ended {
                slot.tell_ended(Some(state.finished_ns), state.exit.map(exit_record), false);
            }
            if self.is_closing() {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_AT_MOST);
        }
    }

    /// Puts a state down, unless somebody has.
    pub(super) async fn note(&self, id: &ContainerId, slot: &Arc<Slot>, state: &DetachedState) -> Result<()> {
        let turn = self.turn(id, slot).await?;
        let record = match self.read(id).await {
            Err(error) if error.is_not_found() => {
                drop(turn);
                self.forget(id);
                return Ok(());
            }
            record => record?,
        };
        if self.is_of_former_shim(&record, state).await? {
            slot.tell_former_end(told_of(state), state.exit.map(exit_record));
            return Ok(());
        }
        let noted = self.note_in_turn(record, slot, state).await?;
        drop(turn);
        if let Some(record) = noted {
            self.remove_if_over(&record, slot).await;
        }
        Ok(())
    }

    /// Whether the container has been started anew since, under another shim: whoever follows may lag behind (a disk that takes
    /// its time is enough), and what is late would be put down over the run that goes on.
    async fn is_of_former_shim(&self, record: &Record, state: &DetachedState) -> Result<bool> {
        if record.body.mark.is_none_or(|mark| mark.shim == state.shim_pid) {
            return Ok(false);
        }
        // The row may be the one that lags behind: whoever started it may have been killed before it was written.
        Ok(match self.seen(record).await? {
            DetachedSeen::Alive(now) | DetachedSeen::Gone { state: now, .. } => now.shim_pid != state.shim_pid,
            DetachedSeen::Nothing | DetachedSeen::Damaged { .. } => false,
        })
    }

    /// As [`Shared::note`], by whoever has the turn. The record, if it was this call that put the last end down.
    pub(super) async fn note_in_turn(
        &self,
        mut record: Record,
        slot: &Arc<Slot>,
        state: &DetachedState,
    ) -> Result<Option<Record>> {
        let mark = record.body.mark.unwrap_or_default();
        let news = !mark.has(state);
        if news {
            self.put_down(&mut record, mark, state).await?;
        }
        let over = state.phase == DetachedPhase::Ended;
        if over {
            slot.set_live(None);
        }
        slot.tell_ends(told_of(state), state.exit.map(exit_record));
        if !(over && news) {
            return Ok(None);
        }
        self.leave_networks(&record.id).await;
        self.end_mounts(&record).await;
        Ok(Some(record))
    }

    /// The events in their order, and then the row: whoever is killed in between leaves a row that says that they are to be told,
    /// and they bear the times that the shim has written down, by which the next one sees that they have been.
    async fn put_down(&self, record: &mut Record, mark: Mark, state: &DetachedState) -> Result<()> {
        let ended = state.ends > if mark.shim == state.shim_pid { mark.ends } else { 0 };
        let was_up = record.state.is_alive() || record.state == ContainerState::Starting;
        let health = self.health_events(record, mark, state).await?;
        let mut events = Vec::new();
        if ended {
            let oom = state.exit.is_some_and(|exit| exit.oom_killed == Some(true));
            events.extend(oom.then(|| self.event(record, "oom").at(state.finished_ns)));
            record.body.exit = state.exit.map(exit_record);
            record.body.finished_ns = Some(state.finished_ns);
            events.push(self.event(record, "die").at(state.finished_ns));
        }
        record.body.mark = Some(Mark::of(state));
        record.body.restarts = state.restarts;
        record.body.error = error_of(state);
        let next = match state.phase {
            DetachedPhase::Starting | DetachedPhase::Running => self.overlay_run(record, state),
            DetachedPhase::Restarting => ContainerState::Restarting,
            DetachedPhase::Ended => ContainerState::Exited,
        };
        if next.is_alive() && ended {
            record.reset_health();
        }
        record.take_health(state);
        if next.is_alive() {
            let again = ended || !was_up;
            events.extend(again.then(|| self.event(record, "start").at(state.started_ns)));
            events.extend(health);
        } else {
            // Of the run that has ended.
            events.splice(0..0, health);
            probe::ended(&mut record.body.health);
        }
        if !events.is_empty() {
            let told = self.parts.store.call(move |store| {
                let mut events = events.iter();
                events.try_for_each(|event| store.record_event_once(event))
            });
            told.await?;
        }
        self.write_state(record, next, None).await
    }

    /// The present run, in a record. A pause is not the shim's business, and stays.
    pub(super) fn overlay_run(&self, record: &mut Record, state: &DetachedState) -> ContainerState {
        let same = record.body.process.is_some_and(|process| process.pid == state.pid);
        record.body.process =
            Some(ProcessIdentity::here(state.pid, state.start_ticks)).filter(|process| process.pid != 0);
        record.body.started_ns = Some(state.started_ns);
        match record.state {
            ContainerState::Paused if same => ContainerState::Paused,
            _ => ContainerState::Running,
        }
    }

    /// What a record would say if it followed the shim; nothing is written.
    pub(super) fn overlay(&self, record: &mut Record, state: &DetachedState) {
        record.body.restarts = state.restarts;
        record.state = match state.phase {
            DetachedPhase::Starting | DetachedPhase::Running => self.overlay_run(record, state),
            DetachedPhase::Restarting => ContainerState::Restarting,
            DetachedPhase::Ended => ContainerState::Exited,
        };
        record.take_health(state);
        if !record.state.is_alive() {
            probe::ended(&mut record.body.health);
        }
        if state.ends > 0 {
            record.body.exit = state.exit.map(exit_record);
            record.body.finished_ns = Some(state.finished_ns);
        }
    }

    /// Removes a container that was to go with its end.
    pub(super) fn remove_if_over<'a>(&'a self, record: &'a Record, slot: &'a Slot) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if !record.body.spec.auto_remove || slot.is_restarted() {
                return;
            }
            let options = RemoveOptions {
                force: false,
                volumes: true,
            };
            if let Err(error) = self.remove(record.id.as_str(), options).await
                && !error.is_not_found()
            {
                tracing::warn!(container = %record.id, error = error.report(), "a container could not be removed after its end");
            }
        })
    }

    /// Whether a container's first process is there.
    pub(super) fn has_process(record: &Record) -> bool {
        record.body.process.is_some_and(peer::is_alive)
    }
}

pub(super) fn exit_record(exit: Exit) -> ExitRecord {
    ExitRecord {
        status: exit.status,
        oom_killed: exit.oom_killed,
    }
}

/// What waiters learn of a state.
fn told_of(state: &DetachedState) -> Told {
    Told {
        shim: state.shim_pid,
        ends: state.ends,
        over: state.phase == DetachedPhase::Ended,
        finished_ns: Some(state.finished_ns),
    }
}

/// What went wrong, in words.
fn error_of(state: &DetachedState) -> Option<String> {
    if let Some((step, errno)) = state.failure {
        let step = crate::runtime::native::step_name(step);
        return Some(Error::os(step, std::io::Error::from_raw_os_error(errno)).report());
    }
    (state.lost_entries > 0).then(|| format!("{} entries of its log were lost", state.lost_entries))
}
