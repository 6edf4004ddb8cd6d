//! `wait`: until a container does not run, ends again, or is gone.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::detached::unknown_end;
use super::local::{Life, Shared, Slot, no_such};
use super::peer;
use super::record::{ExitRecord, Record};
use super::state::ContainerState;
use super::{ContainerExit, Exiting, WaitCondition};
use crate::driver::closed;
use crate::error::{Error, Result};
use crate::events::{Event, EventKind, History as _, RING};
use crate::types::{ContainerId, ExitStatus};

/// How often another process' container is looked at whose end cannot be seen from its process.
const POLL: Duration = Duration::from_millis(50);

/// What is waited for, and what was so when the wait began.
enum Waiting {
    /// It is so already.
    Over(ContainerExit),
    /// A container of ours.
    Own {
        life: watch::Receiver<Life>,
        /// The end that counts is a later one than this.
        mark: u64,
        id: ContainerId,
        /// How it ended before, if it did.
        exit: Option<ExitRecord>,
    },
    /// A container of another live process.
    Peer {
        record: Box<Record>,
        process: Option<OwnedFd>,
        /// The newest event when the wait began.
        events: u64,
    },
}

impl Shared {
    /// Registers a waiter; what comes back waits.
    pub(crate) async fn wait(self: &Arc<Self>, name: &str, condition: WaitCondition) -> Result<Exiting> {
        match self.registered(name, condition).await? {
            Waiting::Over(exit) => Ok(Box::pin(std::future::ready(Ok(exit)))),
            // It needs nothing of the driver: whoever waits is woken by whoever tells.
            Waiting::Own { life, mark, id, exit } => Ok(Box::pin(until_own(life, mark, id, exit, condition))),
            peer @ Waiting::Peer { .. } => {
                let shared = Arc::clone(self);
                let until = async move { shared.until(peer, condition).await };
                Ok(Box::pin(self.parts.spawner.call(until)))
            }
        }
    }

    /// Registers for the end of a container that runs here and now, of which nothing needs to be read. `None`: ask [`Shared::wait`].
    pub(crate) fn wait_for_running(&self, id: &str, condition: WaitCondition) -> Option<Exiting> {
        if !matches!(condition, WaitCondition::Exited | WaitCondition::NextExit) {
            return None;
        }
        let (id, slot) = self.known_slot(id).filter(|(_, slot)| !slot.is_detached())?;
        let life = slot.life.subscribe();
        let Life { ends: mark, exit, .. } = *life.borrow();
        // Whoever ends it takes this away before the end is told: what is here still has an end to come.
        slot.live()?;
        Some(Box::pin(until_own(life, mark, id, exit, condition)))
    }

    /// Has a container that runs here and now go with its end. What comes back waits for that, and says whether it is gone
    /// indeed. `None`: there is no such run.
    pub(crate) fn go_with_end(&self, id: &str) -> Option<impl Future<Output = Result<(ContainerExit, bool)>> + use<>> {
        let (id, slot) = self.known_slot(id).filter(|(_, slot)| !slot.is_detached())?;
        let life = slot.life.subscribe();
        let Life { ends: mark, exit, .. } = *life.borrow();
        if !slot.go_with_end() {
            return None;
        }
        Some(async move {
            let now = life.clone();
            let exit = until_own(life, mark, id, exit, WaitCondition::Exited).await?;
            Ok((exit, now.borrow().removed))
        })
    }

    /// Waits until a container has run and ended.
    pub(crate) async fn until_exited(&self, name: &str) -> Result<ContainerExit> {
        let waiting = self.registered(name, WaitCondition::Exited).await?;
        self.until(waiting, WaitCondition::Exited).await
    }

    /// Nothing that happens to the container after this is missed.
    async fn registered(&self, name: &str, condition: WaitCondition) -> Result<Waiting> {
        if let Some((id, slot)) = self.known_slot(name).filter(|(_, slot)| !slot.is_detached()) {
            return self.register_own(id, &slot, None, condition).await;
        }
        let record = self.find(name).await?;
        if record.is_detached() {
            let slot = self.slot_of(&record);
            if self.live_if_any(&record, &slot).await?.is_some() {
                return self.register_own(record.id, &slot, record.body.exit, condition).await;
            }
            if let Some(unknown) = unknown(&record, condition) {
                return Err(unknown);
            }
            self.see_to(&record);
        }
        if self.is_ours(&record) {
            let slot = self.slot(&record.id);
            return self.register_own(record.id, &slot, record.body.exit, condition).await;
        }
        if let Some(exit) = settled(&record, condition) {
            return Ok(Waiting::Over(exit));
        }
        let events = self.parts.store.call(|store| store.newest()).await?;
        Ok(Waiting::Peer {
            process: first_process(&record),
            record: Box::new(record),
            events,
        })
    }

    /// `known` is how it ended, as far as its record was read before.
    async fn register_own(
        &self,
        id: ContainerId,
        slot: &Slot,
        known: Option<ExitRecord>,
        condition: WaitCondition,
    ) -> Result<Waiting> {
        let life = slot.life.subscribe();
        // Before the record is read: an end that is told while it is read must count as one to come.
        let seen = *life.borrow();
        // What its shim has written down may be more than has been recorded.
        let read = match slot.is_detached() {
            true => self.find(id.as_str()).await,
            false => self.read(&id).await,
        };
        let record = match read {
            Err(error) if error.is_not_found() => {
                self.forget(&id);
                return match (condition, life.borrow().exit.or(known)) {
                    (WaitCondition::Exited | WaitCondition::NotRunning, Some(exit)) => Ok(Waiting::Over(exit.into())),
                    (WaitCondition::Removed, exit) => Ok(Waiting::Over(exit.map_or_else(never_ran, Into::into))),
                    _ => Err(error),
                };
            }
            other => other?,
        };
        if let Some(exit) = settled(&record, condition).or_else(|| unrecorded(&seen, condition)) {
            return Ok(Waiting::Over(exit));
        }
        // It has ended since it was looked at first, and nobody will tell of that end again.
        if let Some(unknown) = unknown(&record, condition).filter(|_| slot.is_detached()) {
            return Err(unknown);
        }
        // An end is recorded a moment before it is told: one that the record shows has been seen here. That of a detached container
        // may be running again by then.
        let has_ended = matches!(record.state, ContainerState::Exited | ContainerState::Restarting);
        let untold = match slot.is_detached() {
            true => seen.finished_ns < record.body.finished_ns,
            false => has_ended && seen.finished_ns != record.body.finished_ns,
        };
        let mark = seen.ends + u64::from(untold);
        let exit = record.body.exit;
        Ok(Waiting::Own { life, mark, id, exit })
    }

    async fn until(&self, waiting: Waiting, condition: WaitCondition) -> Result<ContainerExit> {
        match waiting {
            Waiting::Over(exit) => Ok(exit),
            Waiting::Own { life, mark, id, exit } => until_own(life, mark, id, exit, condition).await,
            Waiting::Peer {
                record,
                process,
                events,
            } => self.until_peer(*record, process, events, condition).await,
        }
    }

    async fn until_peer(
        &self,
        first: Record,
        mut process: Option<OwnedFd>,
        events: u64,
        condition: WaitCondition,
    ) -> Result<ContainerExit> {
        let before = first.body.finished_ns;
        let mut exit = None;
        loop {
            let now = match self.find(first.id.as_str()).await {
                Err(error) if error.is_not_found() => {
                    if first.is_detached() {
                        self.until_no_turn(&first.id).await?;
                    }
                    let told = self.told_exit(&first.id, events).await?;
                    return match told.or(exit) {
                        Some(exit) => Ok(exit),
                        None if condition == WaitCondition::Removed => Ok(never_ran()),
                        None => Err(error),
                    };
                }
                other => other?,
            };
            let another = now.state == ContainerState::Exited && now.body.finished_ns != before;
            let unknown = match condition {
                WaitCondition::NextExit if another => unknown(&now, WaitCondition::Exited),
                _ => unknown(&now, condition),
            };
            if let Some(error) = unknown {
                return Err(error);
            }
            exit = now.body.exit.map(Into::into).or(exit);
            let ended = now.state == ContainerState::Exited
                && (condition != WaitCondition::NextExit || now.body.finished_ns != before);
            if let (true, Some(exit)) = (ended && condition != WaitCondition::Removed, exit) {
                return Ok(exit);
            }
            match process.take().or_else(|| first_process(&now)) {
                Some(process) => peer::ended(process).await?,
                None => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// How a container ended that is gone with its record: its last event says.
    async fn told_exit(&self, id: &ContainerId, since: u64) -> Result<Option<ContainerExit>> {
        let id = id.clone();
        let events = self.parts.store.call(move |store| store.after(since, RING)).await?;
        let died =
            |event: &Event| event.kind == EventKind::Container && event.action == "die" && event.id == id.as_str();
        let told = events.into_iter().rev().map(|(_, event)| event).find(died);
        let code = told.and_then(|event| event.attributes.get("exitCode")?.parse().ok());
        Ok(code.map(|code| ContainerExit {
            status: ExitStatus::exited(code),
            oom_killed: None,
        }))
    }
}

/// Its first process, while it runs.
fn first_process(record: &Record) -> Option<OwnedFd> {
    let running = matches!(record.state, ContainerState::Running | ContainerState::Paused);
    let process = record.body.process.filter(|_| running)?;
    peer::open(process).ok()
}

/// What a wait for a container gives that never ran, nor was tried to be started: Docker's zero.
fn never_ran() -> ContainerExit {
    ContainerExit {
        status: ExitStatus::exited(0),
        oom_killed: None,
    }
}

/// A detached container that has ended, and nobody knows how.
fn unknown(record: &Record, condition: WaitCondition) -> Option<Error> {
    let asked = matches!(condition, WaitCondition::Exited | WaitCondition::NotRunning);
    let unknown = record.state == ContainerState::Exited && record.body.exit.is_none();
    (asked && unknown).then(|| unknown_end(&record.id, record.body.error.as_deref()))
}

/// The answer where nothing needs to be waited for.
fn settled(record: &Record, condition: WaitCondition) -> Option<ContainerExit> {
    let exit = record.body.exit.map(ContainerExit::from);
    match (condition, record.state) {
        (WaitCondition::Exited | WaitCondition::NotRunning, ContainerState::Exited) => exit,
        (WaitCondition::NotRunning, ContainerState::Created) => exit.or_else(|| Some(never_ran())),
        _ => None,
    }
}

/// The answer where a container of ours has ended, and there is no space to record it.
fn unrecorded(life: &Life, condition: WaitCondition) -> Option<ContainerExit> {
    let asked = matches!(condition, WaitCondition::Exited | WaitCondition::NotRunning);
    life.exit.filter(|_| asked && life.unrecorded).map(Into::into)
}

async fn until_own(
    mut life: watch::Receiver<Life>,
    mark: u64,
    id: ContainerId,
    before: Option<ExitRecord>,
    condition: WaitCondition,
) -> Result<ContainerExit> {
    let over = |life: &Life| life.removed || (condition != WaitCondition::Removed && life.ends > mark);
    let gone = || no_such(id.as_str());
    let life = *life.wait_for(over).await.map_err(|_| closed())?;
    let exit = match life.ends > mark {
        true => life.exit,
        false => life.exit.or(before),
    };
    let exit = exit.map(ContainerExit::from);
    match condition {
        _ if life.ends > mark && exit.is_none() => Err(unknown_end(&id, None)),
        WaitCondition::Removed => Ok(exit.unwrap_or_else(never_ran)),
        WaitCondition::NextExit if life.ends <= mark => Err(gone()),
        _ => exit.ok_or_else(gone),
    }
}
