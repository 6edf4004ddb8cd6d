//! Restart policies at work: a container that has ended by itself is started again after a pause, for as long as the engine is
//! open.

use std::sync::Arc;
use std::time::Duration;

use super::local::{Shared, Slot};
use super::plan;
use super::policy::{self, RestartPolicy};
use super::record::{ExitRecord, Record, now_ns};
use super::start::exit_code;
use super::state::ContainerState;
use crate::driver::Cancel;
use crate::error::{Error, ErrorKind, Result};
use crate::events::{Event, EventKind, History as _, RING};
use crate::types::{ContainerId, ExitStatus, Signal};

impl Shared {
    /// The pause after which a container that has just ended is started again, if it is.
    pub(crate) async fn comeback(&self, record: &Record, slot: &Slot) -> Option<Duration> {
        let (body, exit) = (&record.body, record.body.exit?);
        let held = self.is_closing() || slot.is_halted() || slot.is_restarted();
        if held || !body.spec.restart.wants(exit.status.code(), body.restarts) {
            return None;
        }
        match self.was_ended_by_hand(record).await {
            Ok(false) => {}
            Ok(true) => return None,
            // Who was asked to stay must not stay away because nobody could look.
            Err(error) => {
                tracing::warn!(container = %record.id, error = error.report(), "it could not be seen who ended a container");
            }
        }
        let ran = now_ns().saturating_sub(body.started_ns.unwrap_or_else(now_ns));
        let ran = Duration::from_nanos(u64::try_from(ran).unwrap_or(0));
        Some(slot.next_pause(|last| policy::pause(last, ran)))
    }

    /// Whether somebody sent it a signal that is meant to end it since its start. Another process can do that, too: the
    /// events are what both see.
    pub(crate) async fn was_ended_by_hand(&self, record: &Record) -> Result<bool> {
        let (id, started) = (record.id.clone(), record.body.started_ns.unwrap_or(0));
        let ends = ending_signals(record).map(|signal| signal.number().to_string());
        let sent = move |event: &Event| {
            event.kind == EventKind::Container
                && event.action == "kill"
                && event.id == id.as_str()
                && event.time_ns >= started
                && event
                    .attributes
                    .get("signal")
                    .is_some_and(|signal| ends.contains(signal))
        };
        let events = self.parts.store.call(|store| store.after(0, RING)).await?;
        Ok(events.iter().any(|(_, event)| sent(event)))
    }

    /// Starts a container again after a pause, unless something else happens to it in the meantime.
    pub(crate) fn revive_later(self: &Arc<Self>, record: &Record, slot: &Arc<Slot>, pause: Duration) {
        let (shared, slot) = (Arc::clone(self), Arc::clone(slot));
        let (id, ended) = (record.id.clone(), record.body.finished_ns);
        self.parts.spawner.background(async move {
            tokio::time::sleep(pause).await;
            if let Err(error) = shared.revive(&id, &slot, ended).await {
                tracing::warn!(container = %id, error = error.report(), "a container could not be restarted");
            }
        });
    }

    async fn revive(self: &Arc<Self>, id: &ContainerId, slot: &Arc<Slot>, ended: Option<i64>) -> Result<()> {
        let _turn = slot.turn.lock().await;
        let mut record = match self.read(id).await {
            Err(error) if error.is_not_found() => return Ok(()),
            other => other?,
        };
        // Another end than ours has a restart of its own.
        let ours = record.state == ContainerState::Restarting && record.body.finished_ns == ended;
        if !ours || self.is_closing() {
            return Ok(());
        }
        record.body.restarts = record.body.restarts.saturating_add(1);
        match self.start_now(record.clone(), slot, &Cancel::default()).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == &ErrorKind::Cancelled => Ok(()),
            Err(error) => self.revive_failed(record, slot, &error).await,
        }
    }

    /// A start that fails is an end like others: the policy says whether it is tried again.
    async fn revive_failed(self: &Arc<Self>, mut record: Record, slot: &Arc<Slot>, error: &Error) -> Result<()> {
        record.body.error = Some(error.report());
        record.body.finished_ns = Some(now_ns());
        record.body.exit = Some(ExitRecord {
            status: ExitStatus::exited(exit_code(error)),
            oom_killed: None,
        });
        let (finished, exit) = (record.body.finished_ns, record.body.exit);
        let again = self.comeback(&record, slot).await;
        let state = state_after(again);
        self.record_state(&mut record, state, "die").await?;
        match again {
            Some(pause) => self.revive_later(&record, slot, pause),
            None => slot.tell_ended(finished, exit, true),
        }
        Ok(())
    }

    /// Leaves a container that waits for its restart as it is. `false`: it does not wait, or not any more.
    pub(crate) async fn give_up_restart(&self, id: &ContainerId, slot: &Slot) -> Result<bool> {
        slot.halt();
        let _turn = slot.turn.lock().await;
        let mut record = self.read(id).await?;
        if record.state != ContainerState::Restarting {
            return Ok(false);
        }
        self.write_state(&mut record, ContainerState::Exited, None).await?;
        slot.tell_ended(record.body.finished_ns, record.body.exit, true);
        Ok(true)
    }
}

/// What a container is after its end.
pub(crate) fn state_after(comeback: Option<Duration>) -> ContainerState {
    match comeback {
        Some(_) => ContainerState::Restarting,
        None => ContainerState::Exited,
    }
}

/// Signals after which a container is not started again: whoever sends them wants it to end.
pub(crate) fn ending_signals(record: &Record) -> [Signal; 2] {
    [Signal::KILL, plan::stop_plan(&record.body.spec, &record.body.image).0]
}

/// Whether anything has to be done for a container's policy.
pub(crate) fn has_policy(record: &Record) -> bool {
    record.body.spec.restart != RestartPolicy::No
}
