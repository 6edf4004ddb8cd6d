//! `stop`: ask, wait, kill.

use super::StopOptions;
use super::local::Shared;
use super::plan;
use super::state::{ContainerState, Move, Verb, decide};
use crate::error::{ErrorKind, Result};
use crate::types::{Outcome, Signal};

impl Shared {
    pub(crate) async fn stop(&self, name: &str, options: StopOptions) -> Result<Outcome> {
        let record = self.find(name).await?;
        if decide(&record.id, record.state, Verb::Stop)? == Move::Already {
            return Ok(Outcome::Already);
        }
        if record.is_detached() {
            self.halt_under_shim(&record).await?;
            if self.after_halt(&record).await? == ContainerState::Exited {
                self.tell(self.event(&record, "stop")).await;
                return Ok(Outcome::Done);
            }
        } else if self.is_ours(&record) {
            let slot = self.slot(&record.id);
            slot.halt();
            if record.state == ContainerState::Restarting && self.give_up_restart(&record.id, &slot).await? {
                self.tell(self.event(&record, "stop")).await;
                return Ok(Outcome::Done);
            }
        } else if let Some(elsewhere) = self
            .elsewhere(&record)
            .filter(|_| record.state == ContainerState::Restarting)
        {
            return elsewhere.stop(options).await;
        }
        let (signal, timeout) = plan::stop_plan(&record.body.spec, &record.body.image);
        let id = record.id.as_str();
        let first = options.signal.unwrap_or(signal);
        self.signal_if_running(id, first).await?;
        // A signal that is not its own stop signal would wait for the end of the pause.
        let may = self.is_ours(&record) || record.is_detached();
        if record.state == ContainerState::Paused && first != signal && may {
            let slot = self.slot_of(&record);
            if let Some(live) = self.live_if_any(&record, &slot).await? {
                self.thaw(&slot, &live, &record).await?;
            }
        }
        if tokio::time::timeout(options.timeout.unwrap_or(timeout), self.until_exited(id))
            .await
            .is_err()
        {
            self.signal_if_running(id, Signal::KILL).await?;
            ended(self.until_exited(id).await)?;
        }
        self.tell(self.event(&record, "stop")).await;
        Ok(Outcome::Done)
    }

    /// A container that ended in between needs no signal.
    pub(crate) async fn signal_if_running(&self, id: &str, signal: Signal) -> Result<()> {
        match self.kill(id, signal).await {
            Err(error) if matches!(error.kind(), ErrorKind::InvalidState | ErrorKind::NotFound) => Ok(()),
            other => other,
        }
    }
}

/// One that is gone has ended as well.
fn ended<T>(waited: Result<T>) -> Result<()> {
    match waited {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
