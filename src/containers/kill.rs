//! `kill`: a signal to the first process, whoever's container it is.

use super::local::Shared;
use super::peer;
use super::revive::ending_signals;
use super::state::{ContainerState, Refusal, Verb, decide, refuse};
use crate::error::Result;
use crate::types::Signal;

impl Shared {
    /// A paused container sees the signal once it goes on. One that is meant to end it lets it go on, as with Docker.
    pub(crate) async fn kill(&self, name: &str, signal: Signal) -> Result<()> {
        let record = self.find(name).await?;
        decide(&record.id, record.state, Verb::Kill)?;
        let not_running = || refuse(&record.id, ContainerState::Exited, Verb::Kill, Refusal::NotRunning);
        let event = self.event(&record, "kill").with("signal", signal.number().to_string());
        if record.is_detached() {
            return self.kill_under_shim(&record, signal, event).await;
        }
        if !self.is_ours(&record) {
            // Nothing runs that could be sent a signal: it is its owner that is to give up.
            if let Some(elsewhere) = self
                .elsewhere(&record)
                .filter(|_| record.state == ContainerState::Restarting)
            {
                return elsewhere.kill(signal).await;
            }
            let process = record.body.process.ok_or_else(not_running)?;
            // Told first: its own process looks there before it starts it again.
            self.tell(event).await;
            return peer::signal(process, signal);
        }
        let slot = self.slot(&record.id);
        let ends = ending_signals(&record).contains(&signal);
        if ends {
            slot.halt();
        }
        if record.state == ContainerState::Restarting {
            if !ends {
                return Err(not_running());
            }
            if self.give_up_restart(&record.id, &slot).await? {
                return Ok(());
            }
        }
        let live = slot.live().ok_or_else(not_running)?;
        // Told first: the end that it brings comes after it.
        self.tell(event).await;
        live.task.signal(signal, false).await?;
        if record.state == ContainerState::Paused && ends {
            self.thaw(&slot, &live, &record).await?;
        }
        Ok(())
    }
}
