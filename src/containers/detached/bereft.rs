//! A shim that was killed: the first engine that sees it puts a new one in its place. Where that cannot be, the engine takes the
//! place itself, one at a time and until a new one can be: what the container prints goes into its log, and how it ends is
//! written down where its shim would have.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::super::local::{Shared, Slot};
use super::super::logs::pump_options;
use super::super::monitor::{DRAIN, Discard};
use super::super::peer;
use super::super::record::Record;
use super::follow::{RETRY, RETRY_AT_MOST};
use super::renew::Renewal;
use super::settle::is_open;
use crate::error::{Error, ErrorKind, Result};
use crate::logs::{self, LogSink, Tee};
use crate::runtime::detached::Bereft;
use crate::store::LockGuard;
use crate::sys::blocking::blocking;
use crate::types::ContainerId;

/// How often a new shim is tried that ends before it has taken its container over.
const TRIES: u32 = 3;
/// How long an engine stands in before it tries again to put a new shim there: at first, and at most. Not for long: whoever kills
/// shims may have killed those that were tried as well.
const STANDING: Duration = Duration::from_secs(1);
const STANDING_AT_MOST: Duration = Duration::from_secs(10);

impl Shared {
    /// For whoever waits for the end of a container whose shim does not answer: another engine may be about to put one there, of
    /// which nobody else tells them.
    pub(crate) fn see_to(&self, record: &Record) {
        if is_open(record) {
            self.stand_in(record);
        }
    }

    /// Begins to see to it that somebody is in the place of a container's shim, unless this engine does so already.
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
                return slot.end_streams();
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
            slot.end_streams();
            return Ok(true);
        }
        // Another engine may have started it again.
        Ok(self.live_if_any(&record, slot).await?.is_some())
    }

    /// Puts a new shim in the place of the one that was killed, or holds the place, unless there is nothing left to hold.
    async fn keep_until_end(self: &Arc<Self>, id: &ContainerId, slot: &Arc<Slot>) -> Result<()> {
        let _one = self.parts.locks.lock(&key(id)).await?;
        let (mut held, mut patience) = (None, STANDING);
        loop {
            // First of all: what ends while a new shim is on its way has been seen, and what it has printed is held.
            held = self.bereft(id).await?.or(held);
            if self.has_shim(id, slot).await {
                return Ok(());
            }
            let Some(bereft) = held else { return Ok(()) };
            held = self.hold_place(id, slot, bereft, patience).await?;
            if held.is_none() {
                return Ok(());
            }
            patience = (patience * 2).min(STANDING_AT_MOST);
        }
    }

    /// What a killed shim has left, to be held until somebody else has it. By whoever has the lock of [`key`].
    pub(super) async fn bereft(self: &Arc<Self>, id: &ContainerId) -> Result<Option<Bereft>> {
        let (me, dir) = (Arc::clone(self), self.shim_dir(id));
        blocking(move || me.shims()?.bereft(&dir)).await
    }

    /// Is in the shim's place for so long. `None`: the container has ended, and that is written down where it could be seen.
    async fn hold_place(
        self: &Arc<Self>,
        id: &ContainerId,
        slot: &Arc<Slot>,
        mut bereft: Bereft,
        patience: Duration,
    ) -> Result<Option<Bereft>> {
        let Some(record) = self.note_bereft(id, slot).await? else {
            return Ok(None);
        };
        if !self.keep_log(&record, &mut bereft, patience).await? {
            return Ok(Some(bereft));
        }
        let (me, dir) = (Arc::clone(self), self.shim_dir(id));
        blocking(move || me.shims()?.note_end(&dir, &bereft)).await?;
        Ok(None)
    }

    /// Sees to the end of a container that has ended while a new shim was on its way, by whoever has seen it and has the lock of
    /// [`key`]: whoever has asked for the shim may go away.
    pub(super) fn see_end(self: &Arc<Self>, id: &ContainerId, slot: &Arc<Slot>, (held, one): (Bereft, LockGuard)) {
        let (me, id, slot) = (Arc::clone(self), id.clone(), Arc::clone(slot));
        self.parts.spawner.background(async move {
            if let Err(error) = me.hold_place(&id, &slot, held, STANDING).await {
                tracing::warn!(container = %id, error = error.report(), "an end could not be written down");
            }
            drop(one);
            // Whoever looks first puts it down, and tells those who wait here.
            let _ = me.find(id.as_str()).await;
        });
    }

    /// Whether there is a shim, or a new one is in the place of the one that was killed. By whoever has the lock of [`key`].
    async fn has_shim(self: &Arc<Self>, id: &ContainerId, slot: &Arc<Slot>) -> bool {
        for _ in 0..TRIES {
            match self.renew(id, slot).await {
                Ok(renewal) => return matches!(renewal, Renewal::Done | Renewal::Another),
                Err(error) => {
                    tracing::warn!(container = %id, error = error.report(), "no new shim for a container");
                    // That one was killed as well, perhaps.
                    if error.kind() != &ErrorKind::Unavailable {
                        return false;
                    }
                }
            }
        }
        false
    }

    /// Writes down that its restart policy is nobody's business but an engine's from now on. `None`: its end is put down.
    async fn note_bereft(&self, id: &ContainerId, slot: &Arc<Slot>) -> Result<Option<Record>> {
        let _turn = self.turn(id, slot).await?;
        let mut record = self.read(id).await?;
        if !is_open(&record) {
            return Ok(None);
        }
        if !record.body.bereft {
            record.body.bereft = true;
            let state = record.state;
            // Whatever the disk says to it, somebody has to hold what the container prints and how it ends; it is tried again.
            if let Err(error) = self.write_state(&mut record, state, None).await {
                tracing::warn!(container = %id, error = error.report(), "that a shim was killed could not be recorded");
            }
        }
        Ok(Some(record))
    }

    /// Writes what it prints into its log until it ends. False if it has not for so long: then its streams are held, and not read.
    async fn keep_log(self: &Arc<Self>, record: &Record, bereft: &mut Bereft, patience: Duration) -> Result<bool> {
        let copy = bereft.process.try_clone();
        let process = copy.map_err(|error| Error::os("keep a container's process", error))?;
        let sink = self.log_sink(record).await.unwrap_or_else(|error| {
            tracing::warn!(container = %record.id, error = error.report(), "a log could not be opened");
            Arc::new(Discard) as Arc<dyn LogSink>
        });
        let (tee, outputs) = (Tee::new(), std::mem::take(&mut bereft.outputs));
        let (stop, stopped) = watch::channel(false);
        let pumps = logs::pump_until(outputs, Arc::clone(&sink), tee.clone(), pump_options(record), stopped);
        let (ended, enough) = (peer::ended(process), tokio::time::sleep(patience));
        tokio::pin!(pumps, ended, enough);
        let mut pumping = true;
        loop {
            tokio::select! {
                ended = &mut ended => {
                    ended?;
                    break;
                }
                // All of its streams are closed, or cannot be read; its end is to come.
                _ = &mut pumps, if pumping => pumping = false,
                () = &mut enough => {
                    stop.send_replace(true);
                    if pumping {
                        bereft.outputs = pumps.await.1;
                    }
                    // The log goes on: it has no end yet.
                    return Ok(false);
                }
            }
        }
        if pumping {
            let _ = tokio::time::timeout(DRAIN, &mut pumps).await;
        }
        if let Err(error) = logs::finish(sink, &tee).await {
            tracing::warn!(container = %record.id, error = error.report(), "a log could not be closed");
        }
        Ok(true)
    }

    /// The place of a container's shim, for as long as it is held. `None`: somebody stands in for it, and puts down its end.
    pub(super) fn place_of_shim(&self, id: &ContainerId) -> Result<Option<LockGuard>> {
        self.parts.locks.try_lock(&key(id))
    }
}

/// The lock of whoever is about to put a shim in a place, or is in it.
pub(super) fn key(id: &ContainerId) -> String {
    format!("stand-in-{id}")
}
