//! Remains of owners that died with their zygote: whoever meets them clears them away.

use super::local::Shared;
use super::record::Record;
use crate::error::Result;

impl Shared {
    /// Clears a container away whose owner is dead. `true` if it was one.
    pub(crate) async fn sweep_if_dead(&self, record: &Record) -> Result<bool> {
        let Some(owner) = record.owner.clone().filter(|owner| *owner != self.parts.owner) else {
            return Ok(false);
        };
        let owners = self.parts.owners.clone();
        let alive = tokio::task::spawn_blocking(move || owners.is_alive(&owner)).await;
        if alive.unwrap_or(Ok(true))? {
            return Ok(false);
        }
        self.delete(record).await?;
        Ok(true)
    }

    /// Ends and removes every container of ours: the last handle of the engine is gone.
    pub(crate) async fn close(&self) {
        for live in self.all_live() {
            let _ = live.task.signal(crate::types::Signal::KILL, true).await;
            let _ = live.task.wait().await;
            let _ = live.task.remove().await;
        }
        let owner = self.parts.owner.clone();
        let rows = self.parts.store.call(move |store| store.containers_of(&owner)).await.unwrap_or_default();
        for row in rows {
            let Ok(record) = Record::from_row(row) else { continue };
            if let Err(error) = self.delete(&record).await {
                tracing::warn!(container = %record.id, error = error.report(), "a container could not be removed at the end");
            }
        }
    }
}
