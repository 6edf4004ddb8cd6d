//! Remains of owners that died with their zygote: whoever meets them clears them away.

use super::local::Shared;
use super::record::Record;
use crate::error::Result;
use crate::sys::blocking::blocking;
use crate::types::OwnerId;

/// What has become of a container whose owner may be dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Swept {
    /// Its owner lives, or it has none.
    Living,
    /// It is removed.
    Gone,
    /// It had become detached, and its row says so now.
    Kept,
}

impl Shared {
    /// Clears a container away whose owner is dead. `true` if it was one.
    pub(crate) async fn sweep_if_dead(&self, record: &Record) -> Result<bool> {
        Ok(self.sweep(record).await? == Swept::Gone)
    }

    /// As [`Shared::sweep_if_dead`].
    pub(crate) async fn sweep(&self, record: &Record) -> Result<Swept> {
        let Some(owner) = record.owner.clone().filter(|owner| *owner != self.parts.owner) else {
            return Ok(Swept::Living);
        };
        let owners = self.parts.owners.clone();
        if blocking(move || owners.is_alive(&owner)).await? {
            return Ok(Swept::Living);
        }
        self.end_bound(record).await
    }

    /// Removes a container of an owner that is dead or about to be, unless it has become detached.
    async fn end_bound(&self, record: &Record) -> Result<Swept> {
        if self.keep_promoted(record).await? {
            return Ok(Swept::Kept);
        }
        self.delete(record).await?;
        Ok(Swept::Gone)
    }

    /// Ends and removes every container of ours: the last handle of the engine is gone.
    pub(crate) async fn close(&self) {
        self.begin_to_close();
        // A start whose caller went away may still be under way.
        for slot in self.all_slots() {
            drop(slot.turn.lock().await);
        }
        // Detached ones go on; what of them is here goes with this engine.
        for live in self.all_bound() {
            let _ = live.task.signal(crate::types::Signal::KILL, true).await;
            let _ = live.task.wait().await;
            let _ = live.task.remove().await;
        }
        if let Err(error) = self.remove_all_of(&self.parts.owner).await {
            tracing::warn!(error = error.report(), "containers could not be removed at the end");
        }
    }

    /// Removes every container of an owner; the processes are gone by now. Goes on past a failure and reports the first.
    pub(crate) async fn remove_all_of(&self, owner: &OwnerId) -> Result<usize> {
        let (wanted, mut removed, mut failure) = (owner.clone(), 0, None);
        for row in self.parts.store.call(move |store| store.containers_of(&wanted)).await? {
            let record = Record::from_row(row)?;
            // A removal that nobody waits for may be at it.
            let slot = self.is_ours(&record).then(|| self.slot(&record.id));
            let _turn = match &slot {
                Some(slot) => Some(slot.turn.lock().await),
                None => None,
            };
            match self.end_bound(&record).await {
                Ok(Swept::Kept) => {}
                Ok(_) => removed += 1,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(removed), Err)
    }
}
