//! The commands in containers that this process knows: prepared, running, and ended a short while ago.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::local::lock;
use super::options::ExecSpec;
use super::stdin::Stdin;
use super::views::ExecInfo;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::runtime::ExecTask;
use crate::sys::order;
use crate::types::{ContainerId, ExitStatus};

/// How long an ended command is known. Docker's is as long at least.
const KEPT: Duration = Duration::from_secs(300);

/// How many ended commands are known at most: of more, those that ended first are forgotten.
const MOST: usize = 1024;

/// All commands, by id.
#[derive(Debug, Default)]
pub(crate) struct Execs(Mutex<HashMap<String, Arc<ExecSlot>>>);

/// A command.
#[derive(Debug)]
pub(crate) struct ExecSlot {
    pub(crate) id: String,
    pub(crate) container: ContainerId,
    pub(crate) spec: ExecSpec,
    pub(crate) input: Arc<Stdin>,
    phase: watch::Sender<Phase>,
}

/// Where a command is in its life.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    Prepared,
    Starting,
    Running(Arc<dyn ExecTask>),
    Ended {
        status: Option<ExitStatus>,
        pid: Option<u32>,
        at: Instant,
    },
}

impl Execs {
    /// Prepares a command. Those that ended long ago are forgotten on the way.
    pub(crate) fn add(&self, container: ContainerId, spec: ExecSpec) -> Arc<ExecSlot> {
        let slot = Arc::new(ExecSlot {
            // Containers and commands have ids of the same form.
            id: ContainerId::random().as_str().to_owned(),
            container,
            spec,
            input: Arc::default(),
            phase: watch::Sender::new(Phase::Prepared),
        });
        let mut all = lock(&self.0);
        all.retain(|_, slot| !slot.is_stale());
        if all.len() > MOST {
            forget_first(&mut all);
        }
        all.insert(slot.id.clone(), Arc::clone(&slot));
        slot
    }

    /// A command by its id, or the first digits of it.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<ExecSlot>> {
        let no_such = || Error::not_found(ObjectKind::Exec, id);
        let all = lock(&self.0);
        if let Some(slot) = all.get(id) {
            return Ok(Arc::clone(slot));
        }
        let mut found = all.values().filter(|slot| !id.is_empty() && slot.id.starts_with(id));
        match (found.next(), found.next()) {
            (Some(slot), None) => Ok(Arc::clone(slot)),
            _ => Err(no_such()),
        }
    }

    pub(crate) fn forget(&self, id: &str) {
        lock(&self.0).remove(id);
    }

    pub(crate) fn forget_of(&self, container: &ContainerId) {
        lock(&self.0).retain(|_, slot| slot.container != *container);
    }

    /// Ids of a container's commands.
    pub(crate) fn of(&self, container: &ContainerId) -> Vec<String> {
        let all = lock(&self.0);
        let own = all
            .values()
            .filter(|slot| slot.container == *container && !slot.is_stale());
        let mut ids: Vec<_> = own.map(|slot| slot.id.clone()).collect();
        order::sort(&mut ids);
        ids
    }
}

/// Makes room where many have ended. One is added at a time, so one is enough.
fn forget_first(all: &mut HashMap<String, Arc<ExecSlot>>) {
    let ended = all.values().filter_map(|slot| Some((slot.ended_at()?, &slot.id)));
    let (mut count, mut first) = (0, None);
    for one in ended {
        count += 1;
        first = first.min(Some(one)).or(Some(one));
    }
    let first = first.filter(|_| count > MOST).map(|(_, id)| id.clone());
    if let Some(id) = first {
        all.remove(&id);
    }
}

impl ExecSlot {
    fn ended_at(&self) -> Option<Instant> {
        match *self.phase.borrow() {
            Phase::Ended { at, .. } => Some(at),
            _ => None,
        }
    }

    fn is_stale(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Ended { at, .. } if at.elapsed() > KEPT)
    }

    /// Takes the one start that there is.
    pub(crate) fn begin(&self) -> Result<()> {
        let began = self.phase.send_if_modified(|phase| {
            let first = matches!(phase, Phase::Prepared);
            if first {
                *phase = Phase::Starting;
            }
            first
        });
        if began {
            return Ok(());
        }
        let message = format!("exec {} has been started before", self.id);
        Err(Error::new(ErrorKind::Conflict, message))
    }

    pub(crate) fn set(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// It has ended; `None`: it never ran.
    pub(crate) fn end(&self, status: Option<ExitStatus>) {
        let pid = self.task().and_then(|task| task.pid());
        let at = Instant::now();
        self.set(Phase::Ended { status, pid, at });
        self.input.end();
    }

    /// While it runs.
    pub(crate) fn task(&self) -> Option<Arc<dyn ExecTask>> {
        match &*self.phase.borrow() {
            Phase::Running(task) => Some(Arc::clone(task)),
            _ => None,
        }
    }

    pub(crate) async fn wait(&self) -> Result<ExitStatus> {
        let never = |why: &str| Error::new(ErrorKind::InvalidState, format!("exec {} {why}", self.id));
        if matches!(*self.phase.borrow(), Phase::Prepared) {
            return Err(never("has not been started"));
        }
        let mut phase = self.phase.subscribe();
        let ended = phase.wait_for(|phase| matches!(phase, Phase::Ended { .. })).await;
        match ended.as_deref() {
            Ok(Phase::Ended {
                status: Some(status), ..
            }) => Ok(*status),
            _ => Err(never("could not be started")),
        }
    }

    pub(crate) fn info(&self) -> Result<ExecInfo> {
        let (running, pid, status) = match &*self.phase.borrow() {
            Phase::Prepared | Phase::Starting => (false, None, None),
            Phase::Running(task) => (true, task.pid(), None),
            Phase::Ended { status, pid, .. } => (false, *pid, *status),
        };
        Ok(ExecInfo {
            id: self.id.clone(),
            container: self.container.clone(),
            spec: self.spec.clone(),
            running,
            pid,
            status,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g3_so_many_ended_commands_are_known_and_all_that_run() {
        let (execs, container) = (Execs::default(), ContainerId::random());
        let add = || execs.add(container.clone(), ExecSpec::new(["true"]));
        let prepared = add();
        let first = add();
        first.end(Some(ExitStatus::exited(0)));
        for _ in 0..2 * MOST {
            add().end(Some(ExitStatus::exited(0)));
        }
        assert!(execs.get(&prepared.id).is_ok());
        assert!(execs.get(&first.id).is_err());
        assert!(execs.of(&container).len() <= MOST + 3);
    }
}
