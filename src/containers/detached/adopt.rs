//! Finding a detached container again: the connection to its shim, once per engine.

use std::sync::Arc;

use super::super::local::{Live, Shared, Slot};
use super::super::record::Record;
use super::super::state::ContainerState;
use super::follow::exit_record;
use crate::error::{ErrorKind, Result};
use crate::runtime::Task;
use crate::runtime::detached::DetachedTask;
use crate::types::ContainerId;

impl Shared {
    /// What acts on a container that runs; a detached one is adopted if need be. `None` if it does not run.
    pub(crate) async fn live(&self, record: &Record, slot: &Arc<Slot>) -> Result<Option<Live>> {
        if let Some(live) = slot.heard() {
            return Ok(Some(live));
        }
        let up = record.state.is_alive() || record.state == ContainerState::Restarting;
        if !record.is_detached() || !up {
            return Ok(None);
        }
        let _one = slot.adopting.lock().await;
        if let Some(live) = slot.heard() {
            return Ok(Some(live));
        }
        slot.set_detached();
        let task = self.shims()?.adopt(&record.id, &self.shim_dir(&record.id)).await?;
        let state = task.state();
        slot.adopt(
            state.shim_pid,
            state.ends,
            state.finished_ns,
            state.exit.map(exit_record),
        );
        slot.next_output();
        Ok(Some(self.keep(&record.id, slot, task)))
    }

    /// As [`Shared::live`]; `None` too where the shim does not answer any more.
    pub(crate) async fn live_if_any(&self, record: &Record, slot: &Arc<Slot>) -> Result<Option<Live>> {
        match self.live(record, slot).await {
            Err(error) if error.kind() == &ErrorKind::Unavailable => Ok(None),
            found => found,
        }
    }

    /// Keeps a connection, and follows what it tells.
    pub(super) fn keep(&self, id: &ContainerId, slot: &Arc<Slot>, task: Arc<dyn DetachedTask>) -> Live {
        let live = Live {
            task: Arc::clone(&task) as Arc<dyn Task>,
            detached: Some(Arc::clone(&task)),
        };
        slot.set_live(Some(live.clone()));
        if let Some(me) = self.me.upgrade() {
            me.probe_detached(id, slot, &task);
            let (id, slot) = (id.clone(), Arc::clone(slot));
            self.parts
                .spawner
                .background(async move { me.follow(id, slot, task).await });
        }
        live
    }
}
