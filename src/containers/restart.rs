//! `restart`: stop, if it runs, and start.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::StopOptions;
use super::local::{Shared, Slot};
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
        let id = record.id.as_str();
        let _kept = Restarting::new(self.slot_of(&record));
        self.stop(id, options).await?;
        self.start(id, cancel).await?;
        let record = self.read(&record.id).await?;
        self.tell(self.event(&record, "restart")).await;
        Ok(())
    }
}
