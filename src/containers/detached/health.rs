//! Health checks of detached containers: of all engines that are connected to one, one probes it.

use std::sync::Arc;
use std::time::Duration;

use super::super::health::Health;
use super::super::local::{Shared, Slot};
use super::super::record::Record;
use crate::runtime::Task;
use crate::runtime::detached::DetachedTask;
use crate::types::ContainerId;

/// Until it is looked again whether the next run of a container has begun.
const PAUSE: Duration = Duration::from_millis(100);

impl Shared {
    /// Probes a container until its shim goes, as soon as no other engine does.
    pub(super) fn probe_detached(self: &Arc<Self>, id: &ContainerId, slot: &Arc<Slot>, task: &Arc<dyn DetachedTask>) {
        let (me, id, slot) = (Arc::clone(self), id.clone(), Arc::clone(slot));
        let (task, watched) = (Arc::clone(task) as Arc<dyn Task>, Arc::clone(task));
        self.parts.spawner.background(async move {
            tokio::select! {
                () = until_gone(&*watched) => {}
                () = me.probe_every_run(&id, &slot, &*task) => {}
            }
        });
    }

    async fn probe_every_run(self: &Arc<Self>, id: &ContainerId, slot: &Arc<Slot>, task: &dyn Task) {
        let checked = |record: &Record| record.health_check().plan(&record.body.image.shell);
        if !self.read(id).await.is_ok_and(|record| checked(&record).is_some()) {
            return;
        }
        let Ok(_one) = self.parts.locks.lock(&format!("probe-{id}")).await else {
            return;
        };
        while let Ok(record) = self.read(id).await {
            let Some(plan) = checked(&record) else { return };
            if record.state.is_alive() {
                self.probe_on(&record, slot, task, &plan).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Record {
    /// A run begins: nothing is known of its health.
    pub(super) fn reset_health(&mut self) {
        let check = self.health_check().plan(&self.body.image.shell);
        self.body.health = check.map(|_| Health::default());
    }
}

async fn until_gone(task: &dyn DetachedTask) {
    let mut seen = task.state().change;
    while let Some(state) = task.changed(seen).await {
        seen = state.change;
    }
}
