//! `kill`: a signal to the first process, whoever's container it is.

use super::local::Shared;
use super::peer;
use super::state::{ContainerState, Refusal, Verb, decide, refuse};
use crate::error::Result;
use crate::types::Signal;

impl Shared {
    pub(crate) async fn kill(&self, name: &str, signal: Signal) -> Result<()> {
        let record = self.find(name).await?;
        decide(&record.id, record.state, Verb::Kill)?;
        let not_running = || refuse(&record.id, ContainerState::Exited, Verb::Kill, Refusal::NotRunning);
        if self.is_ours(&record) {
            let live = self.slot(&record.id).live().ok_or_else(not_running)?;
            return live.task.signal(signal, false).await;
        }
        let process = record.body.process.ok_or_else(not_running)?;
        peer::signal(process, signal)
    }
}
