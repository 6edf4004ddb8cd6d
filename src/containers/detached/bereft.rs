//! Taking the place of a shim that was killed: any engine that is open does it, one at a time, for as long as it is open. What the
//! container prints goes into its log, and how it ends is written down where its shim would have.

use std::sync::Arc;

use super::super::local::{Shared, Slot};
use super::super::logs::pump_options;
use super::super::monitor::{DRAIN, Discard};
use super::super::peer;
use super::super::record::Record;
use super::follow::{RETRY, RETRY_AT_MOST};
use super::settle::is_open;
use crate::error::{Error, Result};
use crate::logs::{self, LogSink, Tee};
use crate::runtime::detached::Bereft;
use crate::store::LockGuard;
use crate::sys::blocking::blocking;
use crate::types::ContainerId;

impl Shared {
    /// Begins to take the place of a container's shim, unless this engine does so already.
    pub(super) fn stand_in(&self, record: &Record) {
        let slot = self.slot_of(record);
        let Some(me) = self.me.upgrade().filter(|_| slot.begin_standing_in()) else {
            return;
        };
        let id = record.id.clone();
        self.parts.spawner.background(async move {
            me.stand_in_patiently(&id, &slot).await;
            slot.end_standing_in();
        });
    }

    /// Until its end is put down, by this engine or by another that was quicker: those who wait in this process hear of it from
    /// nobody else.
    async fn stand_in_patiently(self: &Arc<Self>, id: &ContainerId, slot: &Arc<Slot>) {
        let mut pause = RETRY;
        loop {
            match self.stand_in_once(id, slot).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) if error.is_not_found() => return self.forget(id),
                Err(error) => {
                    tracing::warn!(container = %id, error = error.report(), "nobody takes the place of a shim that was killed");
                }
            }
            if self.is_closing() {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_AT_MOST);
        }
    }

    /// Whether nothing is left to do.
    async fn stand_in_once(self: &Arc<Self>, id: &ContainerId, slot: &Arc<Slot>) -> Result<bool> {
        self.keep_until_end(id, slot).await?;
        // Whoever looks first puts it down.
        let record = self.find(id.as_str()).await?;
        if !is_open(&record) {
            slot.tell_row(&record);
            return Ok(true);
        }
        // Another engine may have started it again.
        Ok(self.live_if_any(&record, slot).await?.is_some())
    }

    /// Holds the place of the shim, unless there is nothing left to hold.
    async fn keep_until_end(self: &Arc<Self>, id: &ContainerId, slot: &Arc<Slot>) -> Result<()> {
        let _one = self.parts.locks.lock(&key(id)).await?;
        let (me, dir) = (Arc::clone(self), self.shim_dir(id));
        let place = dir.clone();
        let Some(bereft) = blocking(move || me.shims()?.bereft(&place)).await? else {
            return Ok(());
        };
        let record = self.note_bereft(id, slot).await?;
        let bereft = self.keep_log(&record, bereft).await?;
        let me = Arc::clone(self);
        blocking(move || me.shims()?.note_end(&dir, &bereft)).await.map(drop)
    }

    /// Writes down that its restart policy is nobody's business but an engine's from now on.
    async fn note_bereft(&self, id: &ContainerId, slot: &Arc<Slot>) -> Result<Record> {
        let _turn = self.turn(id, slot).await?;
        let mut record = self.read(id).await?;
        if !record.body.bereft {
            record.body.bereft = true;
            let state = record.state;
            self.write_state(&mut record, state, None).await?;
        }
        Ok(record)
    }

    /// Writes what it prints into its log, until it ends.
    async fn keep_log(self: &Arc<Self>, record: &Record, mut bereft: Bereft) -> Result<Bereft> {
        let copy = bereft.process.try_clone();
        let process = copy.map_err(|error| Error::os("keep a container's process", error))?;
        let sink = self.log_sink(record).await.unwrap_or_else(|error| {
            tracing::warn!(container = %record.id, error = error.report(), "a log could not be opened");
            Arc::new(Discard) as Arc<dyn LogSink>
        });
        let (tee, outputs) = (Tee::new(), std::mem::take(&mut bereft.outputs));
        let pumps = logs::pump_all(outputs, Arc::clone(&sink), tee.clone(), pump_options(record));
        tokio::pin!(pumps);
        tokio::select! {
            ended = peer::ended(process) => {
                ended?;
                let _ = tokio::time::timeout(DRAIN, &mut pumps).await;
            }
            // All of its streams are closed, or cannot be read; its end is to come.
            _ = &mut pumps => {
                let copy = bereft.process.try_clone();
                peer::ended(copy.map_err(|error| Error::os("keep a container's process", error))?).await?;
            }
        }
        if let Err(error) = logs::finish(sink, &tee).await {
            tracing::warn!(container = %record.id, error = error.report(), "a log could not be closed");
        }
        Ok(bereft)
    }

    /// The place of a container's shim, for as long as it is held. `None`: somebody stands in for it, and puts down its end.
    pub(super) fn place_of_shim(&self, id: &ContainerId) -> Result<Option<LockGuard>> {
        self.parts.locks.try_lock(&key(id))
    }
}

fn key(id: &ContainerId) -> String {
    format!("stand-in-{id}")
}
