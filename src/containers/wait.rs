//! `wait`: until a container does not run.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::local::{Shared, Slot, no_such};
use super::peer;
use super::record::Record;
use super::state::ContainerState;
use super::{ContainerExit, Exiting, WaitCondition};
use crate::error::{Error, Result};

/// How often another process' container that has not been started yet is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Somebody who waits for a container of ours.
struct Waiter {
    slot: Arc<Slot>,
    changed: watch::Receiver<u64>,
}

impl Shared {
    /// Registers a waiter; what comes back waits.
    pub(crate) async fn wait(self: &Arc<Self>, name: &str, condition: WaitCondition) -> Result<Exiting> {
        if condition != WaitCondition::Exited {
            return Err(Error::unsupported_verb("container wait with a condition"));
        }
        let record = self.find(name).await?;
        let (shared, waiter) = (Arc::clone(self), self.register(&record));
        Ok(Box::pin(self.parts.spawner.call(async move {
            match waiter {
                Some(waiter) => shared.wait_own(&record, waiter).await,
                None => shared.wait_peer(record).await,
            }
        })))
    }

    /// Waits until a container has run and ended.
    pub(crate) async fn until_exited(&self, name: &str) -> Result<ContainerExit> {
        let record = self.find(name).await?;
        match self.register(&record) {
            Some(waiter) => self.wait_own(&record, waiter).await,
            None => self.wait_peer(record).await,
        }
    }

    /// Nothing that happens to a container of ours after this is missed.
    fn register(&self, record: &Record) -> Option<Waiter> {
        if !self.is_ours(record) {
            return None;
        }
        let slot = self.slot(&record.id);
        let changed = slot.changed.subscribe();
        Some(Waiter { slot, changed })
    }

    async fn wait_own(&self, record: &Record, waiter: Waiter) -> Result<ContainerExit> {
        let Waiter { slot, mut changed } = waiter;
        let mut last = None;
        loop {
            // Its exit is recorded by now, and it was not started again.
            if let (None, Some(exit)) = (slot.live(), slot.last_exit()) {
                return Ok(exit.into());
            }
            if slot.live().is_some() {
                if changed.changed().await.is_err() {
                    return Err(no_such(record.id.as_str()));
                }
                continue;
            }
            match self.read(&record.id).await {
                Ok(now) => {
                    let ended = now.state == ContainerState::Exited;
                    last = now.body.exit.or(last);
                    if let (true, Some(exit)) = (ended, last) {
                        return Ok(exit.into());
                    }
                }
                Err(error) if error.is_not_found() => {
                    self.forget(&record.id);
                    return last
                        .or_else(|| slot.last_exit())
                        .map(Into::into)
                        .ok_or_else(|| no_such(record.id.as_str()));
                }
                Err(error) => return Err(error),
            }
            if changed.changed().await.is_err() {
                return Err(no_such(record.id.as_str()));
            }
        }
    }

    async fn wait_peer(&self, mut record: Record) -> Result<ContainerExit> {
        loop {
            if let (ContainerState::Exited, Some(exit)) = (record.state, record.body.exit) {
                return Ok(exit.into());
            }
            if let Some(process) = record.body.process.filter(|_| record.state == ContainerState::Running) {
                peer::ended(process).await?;
            }
            tokio::time::sleep(POLL).await;
            record = self.find(record.id.as_str()).await?;
        }
    }
}
