//! `pause` and `unpause`: the freezer of the container's cgroup.

use super::local::{Live, Shared, Slot};
use super::record::Record;
use super::state::{ContainerState, Refusal, Verb, decide, refuse};
use crate::error::{Error, Result};

impl Shared {
    pub(crate) async fn pause(&self, name: &str) -> Result<()> {
        self.freeze(name, Verb::Pause).await
    }

    pub(crate) async fn unpause(&self, name: &str) -> Result<()> {
        self.freeze(name, Verb::Unpause).await
    }

    async fn freeze(&self, name: &str, verb: Verb) -> Result<()> {
        let record = self.find(name).await?;
        if let Some(elsewhere) = self.elsewhere(&record) {
            return elsewhere.tell(verb.as_str()).await;
        }
        let slot = self.slot_of(&record);
        self.with_shim(&record, &slot).await?;
        let _turn = self.turn(&record.id, &slot).await?;
        let mut record = self.read_in_turn(&record.id, &slot).await?;
        decide(&record.id, record.state, verb)?;
        let live = self.live(&record, &slot).await?;
        let live = live.ok_or_else(|| not_running(&record, verb))?;
        if verb == Verb::Unpause {
            live.task.resume().await?;
            return self.record_state(&mut record, ContainerState::Running, "unpause").await;
        }
        live.task.pause().await?;
        let recorded = self.record_state(&mut record, ContainerState::Paused, "pause").await;
        if recorded.is_err() {
            let _ = live.task.resume().await;
        }
        recorded
    }

    /// Lets a paused container go on to meet its end: a signal has been sent that it is to see.
    pub(crate) async fn thaw(&self, slot: &Slot, live: &Live, record: &Record) -> Result<()> {
        let _turn = self.turn(&record.id, slot).await?;
        live.task.resume().await?;
        let mut record = self.read(&record.id).await?;
        if record.state == ContainerState::Paused {
            self.record_state(&mut record, ContainerState::Running, "unpause")
                .await?;
        }
        Ok(())
    }
}

fn not_running(record: &Record, verb: Verb) -> Error {
    refuse(&record.id, ContainerState::Exited, verb, Refusal::NotRunning)
}
