//! Health checks of detached containers. The shim makes them, and this puts down what it tells. A shim that is older than that
//! leaves them to engines: of all that are connected to one, one probes.

use std::sync::Arc;
use std::time::Duration;

use super::super::ExecSpec;
use super::super::health::{Health, HealthStatus, OnUnhealthy, Plan, ProbeResult, overran};
use super::super::local::{Shared, Slot};
use super::super::plan;
use super::super::record::{Record, time_of};
use super::Mark;
use crate::error::{Error, Result};
use crate::events::Event;
use crate::runtime::Task;
use crate::runtime::detached::{
    DetachedAction, DetachedCheck, DetachedHealth, DetachedHealthStatus, DetachedPhase, DetachedProbe, DetachedState,
    DetachedTask, ProbeOutcome,
};
use crate::store::Store;
use crate::types::ContainerId;

/// Until it is looked again whether the next run of a container has begun.
const PAUSE: Duration = Duration::from_millis(100);
/// So many changes of a status are told one by one; of more that nobody has seen the last is.
const TOLD: u32 = 5;
/// What the events of such changes begin with.
const WORD: &str = "health_status: ";

impl Shared {
    /// Probes a container until its shim goes, as soon as no other engine does; not if the shim does.
    pub(super) fn probe_detached(self: &Arc<Self>, id: &ContainerId, slot: &Arc<Slot>, task: &Arc<dyn DetachedTask>) {
        if task.is_probed() {
            return;
        }
        let (me, id, slot) = (Arc::clone(self), id.clone(), Arc::clone(slot));
        let (task, watched) = (Arc::clone(task) as Arc<dyn Task>, Arc::clone(task));
        self.parts.spawner.background(async move {
            tokio::select! {
                () = until_gone(&*watched) => {}
                () = me.probe_every_run(&id, &slot, &*task) => {}
            }
        });
    }

    async fn probe_every_run(self: &Arc<Self>, id: &ContainerId, slot: &Arc<Slot>, task: &dyn Task) {
        let checked = |record: &Record| record.health_check().plan(&record.body.image.shell);
        if !self.read(id).await.is_ok_and(|record| checked(&record).is_some()) {
            return;
        }
        let Ok(_one) = self.parts.locks.lock(&format!("probe-{id}")).await else {
            return;
        };
        while let Ok(record) = self.read(id).await {
            let Some(plan) = checked(&record) else { return };
            if record.state.is_alive() {
                self.probe_on(&record, slot, task, &plan).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The events of what has happened to a container's health since that was told, in their order.
    ///
    /// # Errors
    /// Those of the database.
    pub(super) async fn health_events(&self, record: &Record, mark: Mark, state: &DetachedState) -> Result<Vec<Event>> {
        let Some(health) = &state.health else {
            return Ok(Vec::new());
        };
        let (run, known) = mark.health;
        let same = mark.shim == state.shim_pid && run == run_of(state);
        let (known, since) = if same { (known, mark.health_ns) } else { (0, 0) };
        let mut new = health.changes.saturating_sub(known);
        if new > TOLD {
            new = 1;
        } else if new > 0 {
            // By an engine that was killed before the row said so.
            new = new.saturating_sub(self.told_of_health(record, since.max(state.started_ns)).await?);
        }
        let words = (health.changes - new + 1..=health.changes).map(|change| status_at(health, change));
        // Only the time of the last is known; no two of one status are at the same.
        let times = (0..i64::from(new)).rev().map(|before| health.changed_ns - before);
        let events = words
            .zip(times)
            .map(|(status, time)| self.event(record, &format!("{WORD}{status}")).at(time));
        Ok(events.collect())
    }

    /// How many changes of a container's health were told since a time.
    async fn told_of_health(&self, record: &Record, since_ns: i64) -> Result<u32> {
        let id = record.id.clone();
        let told = move |store: &Store| store.count_events(id.as_str(), WORD, since_ns);
        self.parts.store.call(told).await
    }
}

/// Which run a state tells the health of: the present, or the last.
pub(super) fn run_of(state: &DetachedState) -> u64 {
    let present = matches!(state.phase, DetachedPhase::Starting | DetachedPhase::Running);
    state.ends + u64::from(present)
}

/// The status after so many changes: the first leaves `Starting` for good, and each that follows goes to the other of two.
fn status_at(health: &DetachedHealth, change: u32) -> HealthStatus {
    match (status_of(health.status), (health.changes - change) % 2) {
        (HealthStatus::Healthy, 1) => HealthStatus::Unhealthy,
        (HealthStatus::Unhealthy, 1) => HealthStatus::Healthy,
        (status, _) => status,
    }
}

fn status_of(status: DetachedHealthStatus) -> HealthStatus {
    match status {
        DetachedHealthStatus::Starting => HealthStatus::Starting,
        DetachedHealthStatus::Healthy => HealthStatus::Healthy,
        DetachedHealthStatus::Unhealthy => HealthStatus::Unhealthy,
    }
}

impl Record {
    /// A run begins: nothing is known of its health.
    pub(crate) fn reset_health(&mut self) {
        let check = self.health_check().plan(&self.body.image.shell);
        self.body.health = check.map(|_| Health::default());
    }

    /// What a shim tells of the health. One that tells nothing leaves it to engines.
    pub(super) fn take_health(&mut self, state: &DetachedState) {
        let Some(told) = &state.health else { return };
        let limit = self.health_check().plan(&self.body.image.shell);
        let limit = limit.map_or(Duration::ZERO, |plan| plan.timeout);
        self.body.health = Some(Health {
            status: status_of(told.status),
            failing_streak: told.failing_streak,
            log: told.probes.iter().map(|probe| result_of(probe, limit)).collect(),
        });
    }

    /// Nobody probes it any more, and nobody can say how it is: as at the start of a run.
    pub(super) fn forget_health(&mut self) {
        if let Some(health) = &mut self.body.health {
            health.status = HealthStatus::Starting;
            health.failing_streak = 0;
        }
    }

    /// What its shim is told of its check.
    pub(super) fn check_of_shim(&self) -> Result<Option<DetachedCheck>> {
        let Some(check) = self.health_check().plan(&self.body.image.shell) else {
            return Ok(None);
        };
        let command = ExecSpec::new(check.command.clone());
        let probe = plan::exec(&self.id, &self.body.spec, &self.body.image, &command)?;
        let Plan {
            interval,
            timeout,
            start_period,
            start_interval,
            retries,
            command: _,
        } = check;
        Ok(Some(DetachedCheck {
            probe,
            interval,
            timeout,
            start_period,
            start_interval,
            retries,
            on_unhealthy: self.action_of_shim(),
        }))
    }

    fn action_of_shim(&self) -> DetachedAction {
        let (signal, patience) = plan::stop_plan(&self.body.spec, &self.body.image);
        match self.body.spec.on_unhealthy {
            OnUnhealthy::Nothing => DetachedAction::Nothing,
            OnUnhealthy::Kill => DetachedAction::Kill,
            OnUnhealthy::Stop => DetachedAction::Stop { signal, patience },
            OnUnhealthy::Restart => DetachedAction::Restart { signal, patience },
        }
    }
}

/// In the words of probes that an engine makes.
fn result_of(probe: &DetachedProbe, limit: Duration) -> ProbeResult {
    let text = String::from_utf8_lossy(&probe.output);
    let (exit_code, output) = match probe.outcome {
        ProbeOutcome::Exited(status) => (status.code(), text.into_owned()),
        ProbeOutcome::Overran => (-1, overran(limit)),
        ProbeOutcome::Failed { step, errno, code } => {
            let why = Error::os(step, std::io::Error::from_raw_os_error(errno)).report();
            let why = if text.is_empty() {
                why
            } else {
                format!("{why}: {text:?}")
            };
            (code.unwrap_or(-1), why)
        }
    };
    ProbeResult {
        start: time_of(probe.start_ns),
        end: time_of(probe.end_ns),
        exit_code,
        output,
    }
}

async fn until_gone(task: &dyn DetachedTask) {
    let mut seen = task.state().change;
    while let Some(state) = task.changed(seen).await {
        seen = state.change;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p39_changes_that_nobody_saw_are_told_in_their_order() {
        let health = |status, changes| DetachedHealth {
            status,
            failing_streak: 0,
            changes,
            changed_ns: 7,
            probes: Vec::new(),
        };
        let words = |health: &DetachedHealth| -> Vec<HealthStatus> {
            (1..=health.changes).map(|change| status_at(health, change)).collect()
        };
        use HealthStatus::{Healthy, Unhealthy};
        assert_eq!(words(&health(DetachedHealthStatus::Starting, 0)), []);
        assert_eq!(words(&health(DetachedHealthStatus::Unhealthy, 1)), [Unhealthy]);
        assert_eq!(
            words(&health(DetachedHealthStatus::Unhealthy, 4)),
            [Healthy, Unhealthy, Healthy, Unhealthy]
        );
    }

    #[test]
    fn g11_what_a_shim_writes_of_a_probe_is_told_in_words() {
        let told = |outcome, output: &[u8]| {
            let probe = DetachedProbe {
                start_ns: 1,
                end_ns: 2,
                outcome,
                output: output.to_vec(),
            };
            let result = result_of(&probe, Duration::from_millis(150));
            (result.exit_code, result.output)
        };
        let status = crate::types::ExitStatus::exited(3);
        assert_eq!(told(ProbeOutcome::Exited(status), b"a\xffb"), (3, "a\u{fffd}b".into()));
        let (code, why) = told(ProbeOutcome::Overran, b"so far");
        assert_eq!((code, why.contains("exceeded timeout (150ms)")), (-1, true), "{why}");
        let (code, why) = told(
            ProbeOutcome::Failed {
                step: "execute the program",
                errno: 2,
                code: Some(127),
            },
            b"/no/such/thing",
        );
        assert_eq!((code, why.contains("/no/such/thing")), (127, true), "{why}");
    }
}
