//! A new shim under a container that goes on since its own was killed: the container has everything again that a shim does for it.

use std::sync::Arc;
use std::time::Duration;

use super::super::local::{Live, Shared, Slot};
use super::super::record::Record;
use super::super::state::ContainerState;
use super::bereft::key;
use super::settle::is_open;
use crate::driver::{Cancel, closed};
use crate::error::{ErrorKind, Result};
use crate::runtime::detached::{DetachedSeen, Restart};
use crate::types::ContainerId;

/// How often, and with what pause, is looked whether another has put a shim in its place.
const LOOKS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

impl Shared {
    /// As [`Shared::live`]; one that has lost its shim gets a new one first. Not for whoever has the container's turn.
    pub(crate) async fn live_anew(&self, record: &Record, slot: &Arc<Slot>) -> Result<Option<Live>> {
        for _ in 0..LOOKS {
            match self.live(record, slot).await {
                Err(error) if error.kind() == &ErrorKind::Unavailable => {}
                found => return found,
            }
            let (Some(me), Some(_one)) = (self.me.upgrade(), self.parts.locks.try_lock(&key(&record.id))?) else {
                // Another is at it, or is itself in the shim's place.
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            match me.renew(&record.id, slot).await {
                Ok(true) => {}
                // It has one, which answered too late, or has come since.
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(container = %record.id, error = error.report(), "no new shim for a container");
                    break;
                }
            }
        }
        self.live(record, slot).await
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
