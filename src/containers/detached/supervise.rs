//! Watching over the detached containers of a root: of all engines that are asked to, one does.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};

use super::super::local::{Shared, lock};
use super::super::policy::RestartPolicy;
use super::super::record::Record;
use super::super::state::ContainerState;
use crate::driver::Cancel;
use crate::error::Result;
use crate::types::ContainerId;

/// How often it is looked whether there are new ones.
const PERIOD: Duration = Duration::from_secs(1);
/// Shims that are asked at once.
const AT_ONCE: usize = 16;
/// The lock that says who watches.
const KEY: &str = "supervisor";

/// Those that were started since the host was, whatever came of it: once is enough.
type Tried = Mutex<HashSet<ContainerId>>;

impl Shared {
    /// As long as the engine is open. It waits for its turn while another does it.
    pub(crate) async fn supervise(self: Arc<Self>) {
        let _one = loop {
            match self.parts.locks.lock(KEY).await {
                Ok(guard) => break guard,
                Err(error) => {
                    tracing::warn!(error = error.report(), "the lock of the supervisor cannot be had");
                    tokio::time::sleep(PERIOD).await;
                }
            }
        };
        let tried = Tried::default();
        while !self.is_closing() {
            if let Err(error) = self.look_after_all(&tried).await {
                tracing::warn!(error = error.report(), "detached containers could not be looked after");
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Adopts what runs, puts down what has ended, and starts what was lost and should run.
    async fn look_after_all(self: &Arc<Self>, tried: &Tried) -> Result<()> {
        let rows = self.parts.store.call(|store| store.detached_containers()).await?;
        let looks = rows.into_iter().map(|row| async move {
            let id = row.id.clone();
            let looked = async { self.look_after(Record::from_row(row)?, tried).await };
            if let Err(error) = looked.await
                && !error.is_not_found()
            {
                tracing::warn!(container = %id, error = error.report(), "a detached container could not be looked after");
            }
        });
        stream::iter(looks).for_each_concurrent(AT_ONCE, |look| look).await;
        Ok(())
    }

    async fn look_after(self: &Arc<Self>, record: Record, tried: &Tried) -> Result<()> {
        let slot = self.slot(&record.id);
        slot.set_detached();
        if slot.live().is_some() {
            return Ok(());
        }
        let Some(record) = self.settled(record).await? else {
            return Ok(());
        };
        self.live_if_any(&record, &slot).await?;
        if record.state != ContainerState::Exited || slot.is_halted() {
            return Ok(());
        }
        let left_alone = was_lost(&record) || was_bereft(&record);
        let wanted = left_alone && !self.was_ended_by_hand(&record).await?;
        if wanted || (returns(&record) && lock(tried).insert(record.id.clone())) {
            self.start(record.id.as_str(), &Cancel::default()).await?;
        }
        Ok(())
    }
}

/// Whether it is to run again after it was lost: its status, which is not known, cannot matter.
fn was_lost(record: &Record) -> bool {
    let policy = record.body.spec.restart;
    let wants_back = matches!(policy, RestartPolicy::Always | RestartPolicy::UnlessStopped);
    wants_back && record.body.exit.is_none() && record.body.started_ns.is_some()
}

/// Whether its policy was nobody's business but an engine's when it ended.
fn was_bereft(record: &Record) -> bool {
    let wants = |code| record.body.spec.restart.wants(code, record.body.restarts);
    record.body.bereft && record.body.exit.is_some_and(|exit| wants(exit.status.code()))
}

/// Whether the host was restarted since it ran, and it comes back after that though somebody had ended it: as with Docker, whose
/// daemon starts these whenever it begins.
fn returns(record: &Record) -> bool {
    let ran_before = record.body.process.is_some_and(|process| process.is_of_former_boot());
    record.body.spec.restart == RestartPolicy::Always && ran_before
}
