//! The start of a container under a shim: the intent, the shim, what came of it.

use std::sync::Arc;

use super::super::local::{Shared, Slot};
use super::super::record::Record;
use super::super::state::ContainerState;
use super::Mark;
use crate::driver::{Cancel, closed};
use crate::error::{Error, Result};
use crate::runtime::detached::DetachedTask;
use crate::sys::blocking::blocking;
use crate::types::Signal;

impl Shared {
    /// Starts a detached container that does not run. Whoever calls this has its turn.
    pub(crate) async fn start_under_shim(
        self: &Arc<Self>,
        mut record: Record,
        slot: &Arc<Slot>,
        cancel: &Cancel,
    ) -> Result<()> {
        cancel.check()?;
        if self.is_closing() {
            return Err(closed());
        }
        let before = record.state;
        // Whoever finds it so later, and nobody at it, asks the shim whether there is one.
        self.write_state(&mut record, ContainerState::Starting, None).await?;
        let started = self.under_shim(&record, slot, cancel).await;
        let task = match started {
            Ok(task) => task,
            Err(error) => {
                self.end_mounts(&record).await;
                self.write_state(&mut record, before, None).await?;
                return Err(error);
            }
        };
        if let Err(error) = self.record_started(record.clone(), &*task).await {
            self.give_up(&*task).await;
            self.end_mounts(&record).await;
            let _ = self.write_state(&mut record, before, None).await;
            return Err(error);
        }
        self.keep(&record.id, slot, task);
        Ok(())
    }

    async fn under_shim(
        self: &Arc<Self>,
        record: &Record,
        slot: &Arc<Slot>,
        cancel: &Cancel,
    ) -> Result<Arc<dyn DetachedTask>> {
        let launch = self.launch(record, cancel).await?;
        let output = slot.next_output();
        let attached = output.has_readers();
        let detach = self.detach_of(record, attached)?;
        make_shim_dir(detach.dir.clone()).await?;
        let task = self.shims()?.start_detached(launch, detach).await?;
        if let Err(error) = cancel.check() {
            self.give_up(&*task).await;
            return Err(error);
        }
        if attached {
            self.relay(&record.id, slot, &task, output).await?;
        }
        if slot.input.is_wanted() {
            self.feed(slot, &record.id, &task).await?;
        }
        Ok(task)
    }

    /// Ends what was started in vain.
    async fn give_up(&self, task: &dyn DetachedTask) {
        let _ = task.halt().await;
        let _ = task.signal(Signal::KILL, true).await;
        let mut seen = task.state().change;
        // The shim goes when all is done.
        while let Some(state) = task.changed(seen).await {
            seen = state.change;
        }
    }

    async fn record_started(&self, mut record: Record, task: &dyn DetachedTask) -> Result<()> {
        let state = task.state();
        record.body.restarts = 0;
        record.body.bereft = false;
        record.body.mark = Some(Mark {
            // An end that came at once is told by whoever follows.
            ends: 0,
            change: 0,
            shim: state.shim_pid,
            health: (0, 0),
            health_ns: 0,
        });
        record.body.error = None;
        record.body.warnings = task.warnings();
        self.overlay_run(&mut record, &state);
        record.reset_health();
        record.body.finished_ns = None;
        record.body.exit = None;
        self.record_state(&mut record, ContainerState::Running, "start").await
    }
}

/// The directory of a shim that is about to be.
pub(crate) async fn make_shim_dir(dir: std::path::PathBuf) -> Result<()> {
    blocking(move || make_dir(&dir)).await
}

/// Private to the owner: a socket is in it over which the container is ruled.
fn make_dir(dir: &std::path::Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(dir)
        .map_err(|error| Error::os("make the directory of a container's shim", error))
}
