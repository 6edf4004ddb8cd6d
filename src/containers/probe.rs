//! Health checks at work: probes of a running container, and what becomes of one that fails them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep, timeout_at};

use super::exec::{Connected, follow, never_ran};
use super::health::{Health, HealthStatus, OUTPUT, OnUnhealthy, Plan, ProbeResult, overran};
use super::local::{Shared, Slot};
use super::plan;
use super::record::{Record, time_of};
use super::state::ContainerState;
use super::{ExecSpec, StopOptions};
use crate::driver::Cancel;
use crate::error::Result;
use crate::logs::{LogStream, Tee, TeeItem};
use crate::runtime::{ExecLaunch, Task};
use crate::types::{ContainerId, Signal};

impl Shared {
    /// Probes a container that has just been started, until it ends, or becomes detached: then its shim does.
    pub(crate) fn watch_health(self: &Arc<Self>, record: &Record, slot: &Arc<Slot>, task: &Arc<dyn Task>) {
        let Some(plan) = record.health_check().plan(&record.body.image.shell) else {
            return;
        };
        let (shared, slot, task, record) = (Arc::clone(self), Arc::clone(slot), Arc::clone(task), record.clone());
        self.parts.spawner.background(async move {
            tokio::select! {
                () = task.until_ended() => {}
                () = shared.probe_on(&record, &slot, &*task, &plan) => {}
            }
        });
    }

    pub(super) async fn probe_on(self: &Arc<Self>, record: &Record, slot: &Arc<Slot>, task: &dyn Task, plan: &Plan) {
        let mut status = HealthStatus::Starting;
        loop {
            sleep(pause(record, status, plan)).await;
            let result = match self.probe_now(record, task, plan).await {
                Ok(Now::Probed(result)) => result,
                Ok(Now::Paused) => continue,
                Ok(Now::Promoted) => return,
                Err(error) if error.is_not_found() => return,
                Err(error) => {
                    tracing::warn!(container = %record.id, error = error.report(), "a container could not be probed");
                    continue;
                }
            };
            match self.take_result(record, slot, result, plan).await {
                Ok(Some(now)) => {
                    let failed = now == HealthStatus::Unhealthy && status != now;
                    status = now;
                    if failed {
                        self.act_on_unhealthy(record, task).await;
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(container = %record.id, error = error.report(), "a container's health could not be recorded");
                }
            }
        }
    }

    async fn probe_now(&self, record: &Record, task: &dyn Task, plan: &Plan) -> Result<Now> {
        let now = self.read(&record.id).await?;
        if now.is_detached() != record.is_detached() {
            return Ok(Now::Promoted);
        }
        if now.state != ContainerState::Running {
            return Ok(Now::Paused);
        }
        let mut spec = record.body.spec.clone();
        if let Ok(Some(name)) = self.hostname_of_peer(&spec).await {
            spec.hostname = Some(name);
        }
        let command = ExecSpec::new(plan.command.clone());
        let mut launch = plan::exec(&record.id, &spec, &record.body.image, &command)?;
        launch.marked = true;
        Ok(Now::Probed(probe(task, launch, plan.timeout).await))
    }

    /// Writes a result down, with an event if the status changed by it. The status now; none if this run of the container is over, or
    /// is its shim's.
    async fn take_result(
        &self,
        probed: &Record,
        slot: &Slot,
        result: ProbeResult,
        plan: &Plan,
    ) -> Result<Option<HealthStatus>> {
        let _turn = self.turn(&probed.id, slot).await?;
        let mut record = self.read(&probed.id).await?;
        let promoted = record.is_detached() != probed.is_detached();
        if promoted || !record.state.is_alive() || record.body.started_ns != probed.body.started_ns {
            return Ok(None);
        }
        let mut health = record.body.health.take().unwrap_or_default();
        let counts = since_start(&record, result.start) >= plan.start_period;
        let changed = health.take(result, counts, plan.retries);
        let status = health.status;
        record.body.health = Some(health);
        let event = changed.then(|| self.event(&record, &format!("health_status: {status}")));
        let state = record.state;
        self.write_state(&mut record, state, event).await?;
        Ok(Some(status))
    }

    /// What was asked for goes on without the probes, which end with the container.
    async fn act_on_unhealthy(self: &Arc<Self>, record: &Record, task: &dyn Task) {
        let (shared, id) = (Arc::clone(self), record.id.clone());
        match record.body.spec.on_unhealthy {
            OnUnhealthy::Nothing => {}
            OnUnhealthy::Kill => {
                let _ = task.signal(Signal::KILL, false).await;
            }
            OnUnhealthy::Stop => drop(self.parts.spawner.background(async move {
                let stopped = shared.stop(id.as_str(), StopOptions::default()).await;
                note(&id, stopped.map(drop));
            })),
            OnUnhealthy::Restart => drop(self.parts.spawner.background(async move {
                let options = StopOptions::default();
                let restarted = shared.restart(id.as_str(), options, &Cancel::default()).await;
                note(&id, restarted);
            })),
        }
    }
}

fn note(id: &ContainerId, done: Result<()>) {
    if let Err(error) = done
        && !error.is_not_found()
    {
        tracing::warn!(container = %id, error = error.report(), "nothing could be done about an unhealthy container");
    }
}

/// A container's health once it does not run any more: Docker's word for it.
pub(crate) fn ended(health: &mut Option<Health>) {
    if let Some(health) = health {
        health.status = HealthStatus::Unhealthy;
    }
}

fn since_start(record: &Record, now: SystemTime) -> Duration {
    let start = record.body.started_ns.map_or(now, time_of);
    now.duration_since(start).unwrap_or_default()
}

fn pause(record: &Record, status: HealthStatus, plan: &Plan) -> Duration {
    let begins = status == HealthStatus::Starting && since_start(record, SystemTime::now()) < plan.start_period;
    if begins { plan.start_interval } else { plan.interval }
}

/// What has come of a turn to probe.
enum Now {
    Probed(ProbeResult),
    /// A probe would only wait.
    Paused,
    /// It has become detached, and its shim probes it.
    Promoted,
}

/// Runs a probe. One that takes too long is killed, with all that it has started.
async fn probe(task: &dyn Task, launch: ExecLaunch, limit: Duration) -> ProbeResult {
    let (start, deadline) = (SystemTime::now(), Instant::now() + limit);
    let (exit_code, output) = run(task, launch, limit, deadline).await;
    ProbeResult {
        start,
        end: SystemTime::now(),
        exit_code,
        output,
    }
}

async fn run(task: &dyn Task, launch: ExecLaunch, limit: Duration, deadline: Instant) -> (i32, String) {
    let started = match timeout_at(deadline, task.exec(launch)).await {
        Err(_) => return (-1, overran(limit)),
        Ok(Err(error)) => return (never_ran(&error).map_or(-1, |status| status.code()), error.report()),
        Ok(Ok(started)) => started,
    };
    let (command, tee) = (Arc::clone(&started.task), Tee::new());
    let mut printed = tee.subscribe(OUTPUT);
    let outputs = [(started.stdout, LogStream::Stdout), (started.stderr, LogStream::Stderr)];
    let outputs = outputs.into_iter().filter_map(|(fd, stream)| Some((fd?, stream)));
    let streams = Connected {
        outputs: outputs.collect(),
        feeding: None,
    };
    let status = timeout_at(deadline, follow(&*command, streams, &tee)).await;
    if status.is_err() {
        let _ = command.kill_all().await;
    }
    tee.close();
    let mut output = Vec::new();
    while let Some(TeeItem::Chunk(chunk)) = printed.next().await {
        output.extend_from_slice(&chunk.bytes);
    }
    output.truncate(OUTPUT);
    match status {
        Ok(status) => (status.code(), String::from_utf8_lossy(&output).into_owned()),
        Err(_) => (-1, overran(limit)),
    }
}
