//! A command of a build. It runs like a container, with a container's isolation, on layers that may belong to no image yet;
//! but nobody knows it except the build: it has no record, tells no events and is in no list. Its files have a key that
//! names the owner, so that they are swept like half-made layers where it dies; its processes end with the zygote.

use std::path::PathBuf;
use std::sync::Arc;

use super::local::Shared;
use super::monitor::{exit_of, run_to_end};
use super::names;
use super::plan::{self, ImageDefaults};
use super::record::{Body, Record, now_ns};
use super::start::Ground;
use super::state::ContainerState;
use super::validate::validate;
use super::{ContainerExit, ContainerSpec};
use crate::driver::{Cancel, closed};
use crate::error::Result;
use crate::logs::{self, LogSink, LogStream, PumpOptions, Tee};
use crate::runtime::{Launch, LaunchMount, Started, Task};
use crate::storage::layer::LayerReader;
use crate::storage::snapshot::{SnapshotKey, WritableOptions};
use crate::sys::blocking::begin_blocking;
use crate::types::{ChainId, ContainerId, Digest, Signal};

/// A command to run.
#[derive(Debug)]
pub(crate) struct Step {
    id: ContainerId,
    /// What to run, and with what. Its image is only a word, and its mounts say nothing.
    pub(crate) spec: ContainerSpec,
    /// The layers that it runs on.
    pub(crate) chain: Option<ChainId>,
    /// A directory of its own, which goes with the build.
    pub(crate) dir: PathBuf,
    /// What is mounted while it runs.
    pub(crate) mounts: Vec<LaunchMount>,
    /// Where its output goes.
    pub(crate) output: Arc<dyn LogSink>,
}

impl Step {
    pub(crate) fn new(spec: ContainerSpec, chain: Option<ChainId>, dir: PathBuf, output: Arc<dyn LogSink>) -> Self {
        Self {
            id: ContainerId::random(),
            spec,
            chain,
            dir,
            mounts: Vec::new(),
            output,
        }
    }
}

impl Shared {
    /// Runs a command to its end. What it wrote stays until [`Shared::end_step`].
    ///
    /// # Errors
    /// Those of a start; `Cancelled`, once the command is gone.
    ///
    /// # Cancel safety
    /// None: the caller is work that is told by `cancel`.
    pub(crate) async fn run_step(self: &Arc<Self>, step: &Step, cancel: &Cancel) -> Result<ContainerExit> {
        let mut record = self.record_of(step)?;
        plan::check(&record.id, &record.body.spec, &record.body.image)?;
        self.name_networks(&mut record.body.spec).await?;
        let options = WritableOptions {
            volatile: true,
            ..WritableOptions::default()
        };
        let key = self.step_key(step);
        let chain = step.chain.as_ref();
        self.parts.snapshotter.create_writable(&key, chain, options).await?;
        cancel.check()?;
        let places = self.join_networks(&record).await?;
        let ground = Ground {
            key,
            dir: step.dir.clone(),
            tells_env: false,
            in_use: false,
        };
        let ran = match self.launch_on(&record, ground, &places, cancel).await {
            Ok(launch) => self.run_launched(step, launch, cancel).await,
            Err(error) => Err(error),
        };
        self.leave_networks(&step.id).await;
        ran
    }

    /// What a command changed.
    pub(crate) async fn read_step(&self, step: &Step) -> Result<LayerReader> {
        let mounted = step.mounts.iter().map(|mount| &mount.target);
        let targets = mounted.chain(step.spec.tmpfs.keys());
        let targets = targets.map(|target| target.to_string_lossy().into_owned());
        // Directories above them were made with them.
        let all = targets.flat_map(|target| {
            let above = target.match_indices('/').skip(1).map(|(at, _)| target[..at].to_owned());
            let mut all: Vec<String> = above.collect();
            all.push(target);
            all
        });
        self.reader_of(self.step_key(step), all.collect()).await
    }

    /// Throws away what a command wrote.
    pub(crate) async fn end_step(&self, step: &Step) {
        let key = self.step_key(step);
        if let Err(error) = self.parts.snapshotter.discard(&key).await {
            tracing::warn!(
                key,
                error = error.report(),
                "what a build's command wrote could not be discarded"
            );
        }
    }

    fn step_key(&self, step: &Step) -> SnapshotKey {
        let owner = self.parts.owner.as_str();
        let id = step.id.as_str();
        format!("build-{owner}-{}", id.get(..32).unwrap_or(id))
    }

    /// What a container of this kind would have as its record.
    fn record_of(&self, step: &Step) -> Result<Record> {
        validate(&step.spec)?;
        let body = Body::new(step.spec.clone(), Digest::of(b""), step.chain, ImageDefaults::default());
        Ok(Record {
            name: names::from_id(&step.id),
            id: step.id.clone(),
            owner: Some(self.parts.owner.clone()),
            state: ContainerState::Created,
            created_ns: now_ns(),
            body,
        })
    }

    async fn run_launched(&self, step: &Step, mut launch: Launch, cancel: &Cancel) -> Result<ContainerExit> {
        plan::make_room(&mut launch.spec, step.mounts.iter().map(|mount| mount.target.as_path()));
        launch.mounts.extend(step.mounts.iter().cloned());
        cancel.check()?;
        if self.is_closing() {
            return Err(closed());
        }
        let started = self.parts.runtimes.usual.start(launch).await?;
        let task = Arc::clone(&started.task);
        let followed = cancel.or(follow(started, Arc::clone(&step.output))).await;
        if followed.is_err() {
            let _ = task.signal(Signal::KILL, true).await;
        }
        let ended = begin_blocking(async move {
            let exit = exit_of(&*task).await;
            if let Err(error) = task.remove().await {
                tracing::warn!(
                    error = error.report(),
                    "the runtime could not let go of a build's command"
                );
            }
            exit
        });
        let exit = ended.await?;
        followed?;
        Ok(ContainerExit {
            status: exit.status,
            oom_killed: exit.oom_killed,
        })
    }
}

/// Reads a command's output until it has ended.
async fn follow(started: Started, output: Arc<dyn LogSink>) -> Result<()> {
    let (tee, task): (Tee, Arc<dyn Task>) = (Tee::new(), started.task);
    let stdout = started.stdout.map(|fd| (fd, LogStream::Stdout));
    let stderr = started.stderr.map(|fd| (fd, LogStream::Stderr));
    let streams = stdout.into_iter().chain(stderr).collect();
    let mut failed = None;
    let pumps = async {
        let pumped = logs::pump_all(streams, output, tee.clone(), PumpOptions::default()).await;
        failed = pumped.err();
    };
    run_to_end(&*task, pumps, &tee).await;
    failed.map_or(Ok(()), Err)
}
