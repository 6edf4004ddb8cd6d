//! The streams of a detached container in this process: only where somebody reads or writes them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;

use super::super::attach::{chunks, history, reader};
use super::super::feed;
use super::super::local::{Live, Shared, Slot};
use super::super::record::Record;
use super::super::state::{ContainerState, Refusal, Verb, refuse};
use super::super::{AttachOptions, Attached, Input};
use super::renew::{Need, PAUSE};
use crate::error::{ErrorKind, Result};
use crate::logs::{LogQuery, Tee};
use crate::runtime::detached::{DetachedOutput, DetachedPhase, DetachedTask};
use crate::types::ContainerId;

/// Between two attempts to find a shim for a container that cannot have one now.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Shared {
    /// Attaches to one that runs. With its log, everything comes by way of the log, which has every byte once.
    pub(crate) async fn attach_to_shim(
        &self,
        record: &Record,
        slot: &Arc<Slot>,
        options: AttachOptions,
    ) -> Result<Attached> {
        let gone = || refuse(&record.id, ContainerState::Exited, Verb::Attach, Refusal::NotRunning);
        let live = self.live_anew(record, slot, Need::Connection).await?.ok_or_else(gone)?;
        let output = match options.logs {
            false => chunks(reader(&slot.output(), options.slow)),
            true => {
                let query = LogQuery {
                    follow: true,
                    ..LogQuery::default()
                };
                let (driver, target) = self.log_of(record)?;
                self.parts.spawner.stream(history(driver.read(&target, query)?), 64)
            }
        };
        self.connect_streams(&record.id, slot, &live, options.logs).await?;
        let input = record.body.spec.open_stdin.then(|| Input::new(&slot.input));
        self.tell(self.event(record, "attach")).await;
        Ok(Attached { output, input })
    }

    /// Sees to it that whoever reads the output of an adopted container gets it, and whoever writes is heard.
    async fn connect_streams(&self, id: &ContainerId, slot: &Arc<Slot>, live: &Live, logged: bool) -> Result<()> {
        let Some(task) = &live.detached else { return Ok(()) };
        let _one = slot.adopting.lock().await;
        if !logged && !slot.is_relayed() {
            self.relay(id, slot, task, slot.output()).await?;
        }
        self.feed(slot, id, task).await
    }

    /// Hands on what the container prints, until it ends.
    pub(super) async fn relay(
        &self,
        id: &ContainerId,
        slot: &Arc<Slot>,
        task: &Arc<dyn DetachedTask>,
        tee: Tee,
    ) -> Result<()> {
        let output = task.output().await?;
        self.relay_from(id, slot, (Some(Arc::clone(task)), output), tee);
        Ok(())
    }

    /// As [`Shared::relay`], beginning with an output that is there, of a shim that is connected to or not.
    pub(crate) fn relay_from(
        &self,
        id: &ContainerId,
        slot: &Arc<Slot>,
        (mut task, mut output): (Option<Arc<dyn DetachedTask>>, DetachedOutput),
        tee: Tee,
    ) {
        slot.set_relayed(true);
        let (me, slot, id) = (self.me.clone(), Arc::clone(slot), id.clone());
        self.parts.spawner.background(async move {
            loop {
                while let Some((stream, bytes)) = output.next().await {
                    tee.room().await;
                    tee.write(stream, &bytes);
                }
                let next = next_shim(&me, &id, &slot, task.as_ref()).await;
                let Some((by, more)) = next else { break };
                (task, output) = (Some(by), more);
                tracing::warn!(container = %id, "some output was not seen live; the log has it");
            }
            slot.set_relayed(false);
            tee.close();
        });
    }

    /// Hands on what is written to its stdin. Both ends of that are the container's and this process': a shim that is killed
    /// meanwhile takes nothing with it, but for a terminal.
    pub(super) async fn feed(&self, slot: &Arc<Slot>, id: &ContainerId, task: &Arc<dyn DetachedTask>) -> Result<()> {
        let Some(chunks) = slot.input.begin_once() else {
            return Ok(());
        };
        let Some(fd) = task.input().await? else {
            return Ok(());
        };
        let fd = feed::writable(fd)?;
        let (me, id, slot, task) = (self.me.clone(), id.clone(), Arc::clone(slot), Arc::clone(task));
        self.parts.spawner.background(async move {
            tokio::select! {
                // The last writer has closed it.
                () = feed::feed(fd, chunks) => close_input(&me, &id, &slot).await,
                // Somebody has closed it elsewhere: it ends when nobody has it any more.
                () = until_closed(&me, &id, &slot, task) => {}
            }
        });
        Ok(())
    }
}

/// The last writer here has closed its stdin: so does the shim.
pub(crate) async fn close_input(me: &Weak<Shared>, id: &ContainerId, slot: &Arc<Slot>) {
    let _ = live_of(me, id, slot, Need::ClosedInput).await;
}

/// The shim of a container, or the one that comes when it was killed, with what is needed of it. `None`: there is none, and the
/// container has ended, or nobody can be told.
async fn live_of(
    me: &Weak<Shared>,
    id: &ContainerId,
    slot: &Arc<Slot>,
    need: Need,
) -> Result<Option<Arc<dyn DetachedTask>>> {
    let Some(me) = me.upgrade() else { return Ok(None) };
    let record = me.find(id.as_str()).await?;
    let live = me.live_anew(&record, slot, need).await?;
    Ok(live.and_then(|live| live.detached))
}

/// Where more of the output comes from when a reader here was too slow, or its shim was killed; `None` at the end of the container. A
/// shim may be killed just as it is asked, and another may take its time: the container goes on meanwhile, and so does who reads.
async fn next_shim(
    me: &Weak<Shared>,
    id: &ContainerId,
    slot: &Arc<Slot>,
    task: Option<&Arc<dyn DetachedTask>>,
) -> Option<(Arc<dyn DetachedTask>, DetachedOutput)> {
    let (mut task, mut pause) = (task.cloned(), PAUSE);
    loop {
        if let Some(task) = &task {
            if task.state().phase == DetachedPhase::Ended {
                return None;
            }
            if let (false, Ok(more)) = (task.is_gone(), task.output().await) {
                return Some((Arc::clone(task), more));
            }
        }
        task = match live_of(me, id, slot, Need::Connection).await {
            Ok(found) => Some(found?),
            Err(error) if error.kind() == &ErrorKind::Unavailable => None,
            Err(_) => return None,
        };
        if task.is_none() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

async fn until_closed(me: &Weak<Shared>, id: &ContainerId, slot: &Arc<Slot>, mut task: Arc<dyn DetachedTask>) {
    let mut state = task.state();
    while !state.stdin_closed {
        match task.changed(state.change).await {
            Some(next) => state = next,
            None => match live_of(me, id, slot, Need::Connection).await {
                Ok(Some(next)) => {
                    task = next;
                    state = task.state();
                }
                // Whoever writes learns of it by itself.
                _ => return std::future::pending().await,
            },
        }
    }
}
