//! `restart`: stop, if it runs, and start.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::StopOptions;
use super::local::{Shared, Slot};
use super::state::ContainerState;
use crate::driver::Cancel;
use crate::error::Result;

/// As long as it lives, the end of the container is no reason to remove it.
struct Restarting(Arc<Slot>);

impl Restarting {
    fn new(slot: Arc<Slot>) -> Self {
        slot.restarting.fetch_add(1, Ordering::AcqRel);
        Self(slot)
    }
}

impl Drop for Restarting {
    fn drop(&mut self) {
        self.0.restarting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Shared {
    pub(crate) async fn restart(self: &Arc<Self>, name: &str, options: StopOptions, cancel: &Cancel) -> Result<()> {
        let record = self.find(name).await?;
        if let Some(elsewhere) = self.elsewhere(&record) {
            return cancel.or(elsewhere.restart(options)).await;
        }
        let (id, slot) = (record.id.as_str(), self.slot_of(&record));
        let kept = Restarting::new(Arc::clone(&slot));
        self.stop(id, options).await?;
        self.start(id, cancel).await?;
        drop(kept);
        self.tell(self.event(&record, "restart")).await;
        // A run that has ended meanwhile was taken for the one that was stopped.
        match self.read(&record.id).await {
            Ok(now) if now.state == ContainerState::Exited => self.remove_if_asked(&now, &slot).await,
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
        Ok(())
    }
}
