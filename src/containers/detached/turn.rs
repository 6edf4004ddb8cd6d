//! Turns: verbs that change a container go one after the other, in all processes if it is detached.

use tokio::sync::MutexGuard;

use super::super::local::{Shared, Slot};
use crate::error::Result;
use crate::store::LockGuard;
use crate::types::ContainerId;

/// As long as it lives, nobody else changes the container.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    _here: MutexGuard<'a, ()>,
    _everywhere: Option<LockGuard>,
}

impl Shared {
    /// Waits for the turn of a container.
    ///
    /// # Errors
    /// `Os` where the lock of a detached container cannot be had.
    pub(crate) async fn turn<'a>(&self, id: &ContainerId, slot: &'a Slot) -> Result<Turn<'a>> {
        let here = slot.turn.lock().await;
        let everywhere = match slot.is_detached() {
            true => Some(self.parts.locks.lock(&key(id)).await?),
            false => None,
        };
        Ok(Turn {
            _here: here,
            _everywhere: everywhere,
        })
    }

    /// Waits until nobody has the turn of a detached container, which may be gone: whoever removes it goes on with what
    /// belonged to it when its record is no more.
    pub(crate) async fn until_no_turn(&self, id: &ContainerId) -> Result<()> {
        self.parts.locks.lock(&key(id)).await.map(drop)
    }

    /// The turn of a container, if nobody has it.
    pub(super) fn try_turn<'a>(&self, id: &ContainerId, slot: &'a Slot) -> Result<Option<Turn<'a>>> {
        let Ok(here) = slot.turn.try_lock() else {
            return Ok(None);
        };
        let everywhere = self.parts.locks.try_lock(&key(id))?;
        Ok(everywhere.map(|everywhere| Turn {
            _here: here,
            _everywhere: Some(everywhere),
        }))
    }
}

fn key(id: &ContainerId) -> String {
    format!("container-{id}")
}
