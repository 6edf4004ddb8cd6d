//! Ending a detached container: the shim is told that it is meant, so that it does not start it again.

use super::super::local::Shared;
use super::super::peer;
use super::super::record::Record;
use super::super::revive::ending_signals;
use super::super::state::{ContainerState, Refusal, Verb, refuse};
use crate::error::Result;
use crate::events::Event;
use crate::types::Signal;

impl Shared {
    /// A signal to its first process; one that is meant to end it ends its restarts too.
    pub(crate) async fn kill_under_shim(&self, record: &Record, signal: Signal, event: Event) -> Result<()> {
        let not_running = || refuse(&record.id, ContainerState::Exited, Verb::Kill, Refusal::NotRunning);
        let slot = self.slot_of(record);
        let ends = ending_signals(record).contains(&signal);
        let halted = ends && self.halt_under_shim(record).await?;
        if record.state == ContainerState::Restarting {
            // The end of its pause is the end of it.
            return if halted { Ok(()) } else { Err(not_running()) };
        }
        // Told first: the end that it brings comes after it.
        self.tell(event).await;
        let Some(live) = self.live_if_any(record, &slot).await? else {
            let process = record.body.process.ok_or_else(not_running)?;
            return peer::signal(process, signal);
        };
        live.task.signal(signal, false).await?;
        if record.state == ContainerState::Paused && ends {
            self.thaw(&slot, &live, record).await?;
        }
        Ok(())
    }

    /// Whether its shim heard that it is not to be started again.
    pub(crate) async fn halt_under_shim(&self, record: &Record) -> Result<bool> {
        let slot = self.slot_of(record);
        slot.halt();
        let live = self.live_if_any(record, &slot).await?;
        let Some(task) = live.and_then(|live| live.detached) else {
            return Ok(false);
        };
        task.halt().await.map(|()| true)
    }
}
