//! A new shim under a container that goes on since its own was killed: the container has everything again that a shim does for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::local::{Live, Shared, Slot};
use super::super::record::Record;
use super::super::state::ContainerState;
use super::bereft::key;
use super::settle::is_open;
use crate::driver::{Cancel, closed};
use crate::error::{ErrorKind, Result};
use crate::runtime::detached::{DetachedSeen, Restart};
use crate::types::ContainerId;

/// How long, and with what pause, is looked whether another has put a shim in its place, or one is about to be gone.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);

impl Shared {
    /// As [`Shared::live`]; one that has lost its shim gets a new one first. Not for whoever has the container's turn.
    pub(crate) async fn live_anew(&self, record: &Record, slot: &Arc<Slot>) -> Result<Option<Live>> {
        let begun = Instant::now();
        loop {
            let error = match self.live(record, slot).await {
                Err(error) if error.kind() == &ErrorKind::Unavailable => error,
                found => return found,
            };
            if begun.elapsed() >= PATIENCE {
                return Err(error);
            }
            // Without it, another is at it, or is itself in the shim's place.
            let one = self.parts.locks.try_lock(&key(&record.id))?;
            if let (Some(me), true) = (self.me.upgrade(), one.is_some()) {
                match me.renew(&record.id, slot).await {
                    Ok(true) => continue,
                    // One that is about to be gone, or to answer.
                    Ok(false) => {}
                    Err(why) if why.kind() == &ErrorKind::Unavailable => {}
                    Err(why) => {
                        tracing::warn!(container = %record.id, error = why.report(), "no new shim for a container");
                        return Err(error);
                    }
                }
            }
            drop(one);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether it runs, and its shim is gone.
    async fn is_bereft(&self, record: &Record) -> Result<bool> {
        Ok(matches!(
            self.seen(record).await?,
            DetachedSeen::Gone { process: true, .. }
        ))
    }

    /// Puts a shim there. False where there is one already, or nothing that runs. By whoever has the lock of [`key`].
    pub(super) async fn renew(self: &Arc<Self>, id: &ContainerId, slot: &Arc<Slot>) -> Result<bool> {
        let _turn = self.turn(id, slot).await?;
        if self.is_closing() {
            return Err(closed());
        }
        let mut record = self.read(id).await?;
        // One that is being started has a shim of its own on the way, or never ran.
        if !is_open(&record) || record.state == ContainerState::Starting {
            return Ok(false);
        }
        if !self.is_bereft(&record).await? {
            return Ok(false);
        }
        let launch = self.launch_in_use(&record, &Cancel::default()).await?;
        let mut detach = self.detach_of(&record, false)?;
        if slot.is_halted() {
            // Somebody ends it, and had no shim to tell.
            detach.restart = Restart::default();
        }
        // Nothing is told by way of this handle: whoever looks next adopts it, and puts down what has changed.
        drop(self.shims()?.renew(launch, detach).await?);
        if record.body.bereft {
            record.body.bereft = false;
            let state = record.state;
            self.write_state(&mut record, state, None).await?;
        }
        Ok(true)
    }
}
