//! Ending a detached container: the shim is told that it is meant, so that it does not start it again.

use super::super::local::Shared;
use super::super::peer;
use super::super::record::Record;
use super::super::revive::{ending_signals, has_policy};
use super::super::state::{ContainerState, Refusal, Verb, refuse};
use super::renew::{Need, PAUSE};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::events::Event;
use crate::runtime::detached::{DetachedPhase, DetachedSeen};
use crate::types::Signal;

impl Shared {
    /// A signal to its first process; one that is meant to end it ends its restarts too.
    pub(crate) async fn kill_under_shim(&self, record: &Record, signal: Signal, event: Event) -> Result<()> {
        let not_running = || refuse(&record.id, ContainerState::Exited, Verb::Kill, Refusal::NotRunning);
        let slot = self.slot_of(record);
        let ends = ending_signals(record).contains(&signal);
        if ends {
            self.halt_under_shim(record).await?;
        } else if record.state == ContainerState::Restarting {
            return Err(not_running());
        }
        // The end of its pause is the end of it.
        if ends && self.after_halt(record).await? == ContainerState::Exited {
            return Ok(());
        }
        // Told first: the end that it brings comes after it.
        self.tell(event).await;
        let live = self.live_if_any(record, &slot).await?;
        let sent = match &live {
            Some(live) => live.task.signal(signal, false).await,
            None => return self.signal_itself(record, signal),
        };
        let live = match (sent, live) {
            // Its shim was killed under it.
            (Err(error), _) if error.kind() == &ErrorKind::Unavailable => return self.signal_itself(record, signal),
            (sent, live) => sent.map(|()| live)?,
        };
        let Some(live) = live else { return Ok(()) };
        if record.state == ContainerState::Paused && ends {
            self.thaw(&slot, &live, record).await?;
        }
        Ok(())
    }

    /// Without its shim: what is written down says which process it is.
    fn signal_itself(&self, record: &Record, signal: Signal) -> Result<()> {
        let not_running = || refuse(&record.id, ContainerState::Exited, Verb::Kill, Refusal::NotRunning);
        peer::signal(record.body.process.ok_or_else(not_running)?, signal)
    }

    /// The state of a container whose shim has heard that it is not to be started again. One that was being started anew at that
    /// moment may come up still, and must be ended as any other.
    pub(crate) async fn after_halt(&self, record: &Record) -> Result<ContainerState> {
        if record.state != ContainerState::Restarting {
            return Ok(record.state);
        }
        loop {
            let now = match self.find(record.id.as_str()).await {
                // It went with its end.
                Err(error) if error.is_not_found() => return Ok(ContainerState::Exited),
                now => now?,
            };
            if now.state != ContainerState::Restarting {
                return Ok(now.state);
            }
            let live = self.live_if_any(&now, &self.slot_of(&now)).await?;
            match live.and_then(|live| live.detached) {
                Some(task) => {
                    let state = task.state();
                    if state.phase == DetachedPhase::Restarting {
                        task.changed(state.change).await;
                    }
                }
                // Its shim was killed, and somebody is about to put another there, or its end down.
                None => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Whether its shim heard that it is not to be started again.
    pub(crate) async fn halt_under_shim(&self, record: &Record) -> Result<bool> {
        let slot = self.slot_of(record);
        slot.halt();
        match self.live_anew(record, &slot, Need::Halt).await {
            Ok(Some(_)) => Ok(true),
            Ok(None) => Ok(false),
            Err(error) if error.kind() == &ErrorKind::Unavailable => self.cannot_be_told(record).await,
            Err(error) => Err(error),
        }
    }

    /// A shim that does not answer has gone, or would start again what is to end for good.
    async fn cannot_be_told(&self, record: &Record) -> Result<bool> {
        let pid = match self.seen(record).await? {
            DetachedSeen::Alive(state) => Some(state.shim_pid),
            DetachedSeen::Damaged { alive: true } => None,
            _ => return Ok(false),
        };
        if !has_policy(record) {
            return Ok(false);
        }
        let which = pid.map_or_else(String::new, |pid| format!(", process {pid},"));
        let message = format!(
            "the shim of container {}{which} cannot be reached, and would start it again",
            record.id.short()
        );
        Err(Error::new(ErrorKind::Unavailable, message).with_object(ObjectKind::Container, record.id.as_str()))
    }
}
