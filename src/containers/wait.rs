//! `wait`: until a container does not run.

use std::time::Duration;

use super::ContainerExit;
use super::local::{Shared, no_such};
use super::peer;
use super::record::Record;
use super::state::ContainerState;
use crate::error::Result;

/// How often another process' container that has not been started yet is looked at.
const POLL: Duration = Duration::from_millis(50);

impl Shared {
    pub(crate) async fn wait(&self, name: &str) -> Result<ContainerExit> {
        let record = self.find(name).await?;
        if self.is_ours(&record) {
            return self.wait_own(&record).await;
        }
        self.wait_peer(record).await
    }

    async fn wait_own(&self, record: &Record) -> Result<ContainerExit> {
        let slot = self.slot(&record.id);
        let mut changed = slot.changed.subscribe();
        let mut last = None;
        loop {
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
