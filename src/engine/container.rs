//! A handle on a container.

use std::path::PathBuf;
use std::sync::Arc;

use super::ending::Ending;
use super::exec::ExecBuilder;
use super::{Engine, Image, Verb};
use crate::containers::{
    AttachOptions, Attached, BoxStream, CheckpointOptions, CommitOptions, ContainerExit, ContainerInfo,
    ContainerManager, CopiedOut, CopyInOptions, ExecSpec, Exiting, Limits, PathStat, RemoveOptions, RestartPolicy,
    Stats, StatsOptions, StopOptions, Top, WaitCondition,
};
use crate::error::{ObjectKind, Result};
use crate::images::ByteStream;
use crate::logs::{LogEntries, LogQuery};
use crate::types::{Change, ContainerId, Outcome, Shaping, Signal};

/// A handle on a container. Cheap to clone; dropping it changes nothing, except that the last handle of an engine ends its
/// containers.
#[derive(Debug, Clone)]
pub struct Container {
    engine: Engine,
    id: ContainerId,
    warnings: Vec<String>,
    /// Of a run whose container goes with its end.
    ending: Option<Arc<Ending>>,
}

impl Container {
    pub(crate) fn new(engine: Engine, id: ContainerId, warnings: Vec<String>) -> Self {
        Self {
            engine,
            id,
            warnings,
            ending: None,
        }
    }

    /// Registers for its end before it is started: it goes with its end, which may be before anybody asks for it.
    pub(super) async fn expect_its_end(&mut self) -> Result<()> {
        self.ending = Ending::register(&self.engine, &self.id).await?;
        Ok(())
    }

    /// Ends and removes it without anybody waiting: for a caller that goes away.
    pub(crate) fn remove_in_background(&self) {
        let (engine, id) = (self.engine.unlimited(), self.id.clone());
        let remove = async move {
            let remove = || engine.containers().remove(id.as_str(), RemoveOptions::force());
            #[cfg(feature = "engine")]
            let removed = match engine.local("remove") {
                Ok(_) => crate::containers::patiently(remove).await,
                // Nobody says that the runtime at hand has timers.
                Err(_) => remove().await,
            };
            #[cfg(not(feature = "engine"))]
            let removed = remove().await;
            if let Err(error) = removed
                && !error.is_not_found()
            {
                tracing::warn!(container = %id, error = error.report(), "a container nobody waits for could not be removed");
            }
        };
        self.engine.detach(remove);
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Its id.
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// What was asked for at create and is not so.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The same container, each of whose verbs may take so long. See [`Engine::deadline`].
    #[must_use]
    pub fn within(&self, limit: std::time::Duration) -> Self {
        self.by(self.engine.deadline(limit))
    }

    /// The same container by another handle of its engine.
    pub(super) fn by(&self, engine: Engine) -> Self {
        Self { engine, ..self.clone() }
    }

    /// Starts it. See [`ContainerManager::start`](crate::ContainerManager::start).
    ///
    /// # Errors
    /// As there.
    pub async fn start(&self) -> Result<Outcome> {
        self.engine.containers().start(self.id.as_str()).await
    }

    /// Waits until it has run and ended. See [`ContainerManager::wait`]. A handle that [`Engine::run`] gave, or a clone of it,
    /// tells the end of a container that is gone with it, too ([`ContainerSpec::auto_remove`](crate::ContainerSpec::auto_remove)).
    ///
    /// # Errors
    /// As there.
    pub async fn wait(&self) -> Result<ContainerExit> {
        self.wait_for(WaitCondition::Exited).await?.await
    }

    /// Registers for its end. See [`ContainerManager::wait`]; of one that is gone already as [`Container::wait`], but for
    /// [`WaitCondition::NextExit`].
    ///
    /// # Errors
    /// As there.
    pub async fn wait_for(&self, condition: WaitCondition) -> Result<Exiting> {
        let exiting = self.engine.containers().wait(self.id.as_str(), condition).await;
        let Some(ending) = self.ending.clone().filter(|_| condition != WaitCondition::NextExit) else {
            return exiting;
        };
        let exiting = match exiting {
            Err(error) if !error.is_not_found() => return Err(error),
            other => other,
        };
        let (engine, id) = (self.engine.clone(), self.id.clone());
        Ok(Box::pin(async move {
            let gone = match exiting {
                Err(gone) => gone,
                Ok(exiting) => match exiting.await {
                    Err(gone) if gone.is_not_found() => gone,
                    other => return other,
                },
            };
            let verb = Verb::of("container.wait", ObjectKind::Container, id.as_str());
            engine
                .within(verb, None, async move { ending.of_gone(gone).await })
                .await
        }))
    }

    /// A command to run in it. Awaited, it yields the running command; with [`ExecBuilder::output`] it runs to its end.
    pub fn exec(&self, spec: ExecSpec) -> ExecBuilder {
        ExecBuilder::new(self.clone(), spec)
    }

    pub(crate) fn containers(&self) -> &Arc<dyn ContainerManager> {
        self.engine.containers()
    }

    /// Sends a signal to its first process.
    ///
    /// # Errors
    /// As [`ContainerManager::kill`](crate::ContainerManager::kill).
    pub async fn kill(&self, signal: Signal) -> Result<()> {
        self.engine.containers().kill(self.id.as_str(), signal).await
    }

    /// Asks it to end, and kills it if it does not in time.
    ///
    /// # Errors
    /// As [`ContainerManager::stop`](crate::ContainerManager::stop).
    pub async fn stop(&self, options: StopOptions) -> Result<Outcome> {
        self.engine.containers().stop(self.id.as_str(), options).await
    }

    /// Stops it, if it runs, and starts it.
    ///
    /// # Errors
    /// As [`ContainerManager::restart`].
    pub async fn restart(&self, options: StopOptions) -> Result<()> {
        self.engine.containers().restart(self.id.as_str(), options).await
    }

    /// Stops its processes where they are, until [`Container::unpause`].
    ///
    /// # Errors
    /// As [`ContainerManager::pause`].
    pub async fn pause(&self) -> Result<()> {
        self.engine.containers().pause(self.id.as_str()).await
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// As [`ContainerManager::unpause`].
    pub async fn unpause(&self) -> Result<()> {
        self.engine.containers().unpause(self.id.as_str()).await
    }

    /// Makes it a detached one while it runs, if it is bound to its engine: it outlives that from then on.
    ///
    /// # Errors
    /// As [`ContainerManager::promote`].
    pub async fn promote(&self) -> Result<Outcome> {
        self.engine.containers().promote(self.id.as_str()).await
    }

    /// Gives it another name.
    ///
    /// # Errors
    /// As [`ContainerManager::rename`].
    pub async fn rename(&self, new_name: &str) -> Result<()> {
        self.engine.containers().rename(self.id.as_str(), new_name).await
    }

    /// Changes limits; what is `None` stays.
    ///
    /// # Errors
    /// As [`ContainerManager::update`].
    pub async fn update(&self, limits: Limits) -> Result<Vec<String>> {
        self.engine.containers().update(self.id.as_str(), limits).await
    }

    /// Gives it another restart policy.
    ///
    /// # Errors
    /// As [`ContainerManager::set_restart`].
    pub async fn set_restart(&self, policy: RestartPolicy) -> Result<()> {
        self.engine.containers().set_restart(self.id.as_str(), policy).await
    }

    /// Does this to its packets in a network, on purpose: delays, losses, a rate.
    ///
    /// # Errors
    /// As [`ContainerManager::shape`].
    pub async fn shape(&self, network: &str, shaping: Shaping) -> Result<()> {
        self.engine.containers().shape(self.id.as_str(), network, shaping).await
    }

    /// Keeps it from another container: no packet goes from one to the other, until [`Container::heal_from`].
    ///
    /// # Errors
    /// As [`ContainerManager::partition`].
    pub async fn partition_from(&self, other: &Self) -> Result<()> {
        let containers = self.engine.containers();
        containers.partition(self.id.as_str(), other.id.as_str()).await
    }

    /// Has it reach another container again.
    ///
    /// # Errors
    /// As [`ContainerManager::heal`].
    pub async fn heal_from(&self, other: &Self) -> Result<()> {
        let containers = self.engine.containers();
        containers.heal(self.id.as_str(), other.id.as_str()).await
    }

    /// Writes its processes down, so that they can go on later.
    ///
    /// # Errors
    /// As [`ContainerManager::checkpoint`].
    pub async fn checkpoint(&self, checkpoint: &str, options: CheckpointOptions) -> Result<()> {
        let containers = self.engine.containers();
        containers.checkpoint(self.id.as_str(), checkpoint, options).await
    }

    /// The names of its checkpoints, or of those in a directory.
    ///
    /// # Errors
    /// As [`ContainerManager::checkpoints`].
    pub async fn checkpoints(&self, directory: Option<PathBuf>) -> Result<Vec<String>> {
        self.engine.containers().checkpoints(self.id.as_str(), directory).await
    }

    /// Removes a checkpoint.
    ///
    /// # Errors
    /// As [`ContainerManager::remove_checkpoint`].
    pub async fn remove_checkpoint(&self, checkpoint: &str, directory: Option<PathBuf>) -> Result<()> {
        let containers = self.engine.containers();
        containers
            .remove_checkpoint(self.id.as_str(), checkpoint, directory)
            .await
    }

    /// Starts it where a checkpoint of it was made.
    ///
    /// # Errors
    /// As [`ContainerManager::restore`].
    ///
    /// # Cancel safety
    /// As [`ContainerManager::restore`].
    pub async fn restore(&self, checkpoint: &str, directory: Option<PathBuf>) -> Result<Outcome> {
        let containers = self.engine.containers();
        containers.restore(self.id.as_str(), checkpoint, directory).await
    }

    /// Its processes, as `ps` shows them with these arguments; none are `-ef`.
    ///
    /// # Errors
    /// As [`ContainerManager::top`].
    pub async fn top(&self, arguments: &[String]) -> Result<Top> {
        self.engine.containers().top(self.id.as_str(), arguments).await
    }

    /// Readings of its counters.
    ///
    /// # Errors
    /// As [`ContainerManager::stats`].
    pub async fn stats(&self, options: StatsOptions) -> Result<BoxStream<Result<Stats>>> {
        self.engine.containers().stats(self.id.as_str(), options).await
    }

    /// What differs from its image, by path.
    ///
    /// # Errors
    /// As [`ContainerManager::diff`].
    pub async fn diff(&self) -> Result<Vec<Change>> {
        self.engine.containers().diff(self.id.as_str()).await
    }

    /// All that its root file system shows, as an uncompressed tar.
    ///
    /// # Errors
    /// As [`ContainerManager::export`].
    pub async fn export(&self) -> Result<ByteStream> {
        self.engine.containers().export(self.id.as_str()).await
    }

    /// What is at a path in it.
    ///
    /// # Errors
    /// As [`ContainerManager::stat_path`].
    pub async fn stat_path(&self, path: &str) -> Result<PathStat> {
        self.engine.containers().stat_path(self.id.as_str(), path).await
    }

    /// What is at a path in it, as a tar.
    ///
    /// # Errors
    /// As [`ContainerManager::copy_out`].
    pub async fn copy_out(&self, path: &str) -> Result<CopiedOut> {
        self.engine.containers().copy_out(self.id.as_str(), path).await
    }

    /// Puts what a tar holds into a directory of it.
    ///
    /// # Errors
    /// As [`ContainerManager::copy_in`].
    ///
    /// # Cancel safety
    /// As there.
    pub async fn copy_in(&self, path: &str, archive: ByteStream, options: CopyInOptions) -> Result<()> {
        let containers = self.engine.containers();
        containers.copy_in(self.id.as_str(), path, archive, options).await
    }

    /// Makes an image of it, which is paused meanwhile.
    ///
    /// # Errors
    /// As [`ContainerManager::commit`].
    ///
    /// # Cancel safety
    /// As there.
    pub async fn commit(&self, options: CommitOptions) -> Result<Image> {
        let id = self.engine.containers().commit(self.id.as_str(), options).await?;
        self.engine.image(&id.to_string()).await
    }

    /// Removes it.
    ///
    /// # Errors
    /// As [`ContainerManager::remove`](crate::ContainerManager::remove).
    pub async fn remove(&self, options: RemoveOptions) -> Result<Outcome> {
        self.engine.containers().remove(self.id.as_str(), options).await
    }

    /// Everything about it.
    ///
    /// # Errors
    /// `NotFound` once it is removed.
    pub async fn inspect(&self) -> Result<ContainerInfo> {
        self.engine.containers().inspect(self.id.as_str()).await
    }

    /// What it has written, and with `follow` what it will write.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn logs(&self, query: LogQuery) -> Result<LogEntries> {
        self.engine.containers().logs(self.id.as_str(), query).await
    }

    /// Connects to its standard streams.
    ///
    /// # Errors
    /// As [`ContainerManager::attach`](crate::ContainerManager::attach).
    pub async fn attach(&self, options: AttachOptions) -> Result<Attached> {
        self.engine.containers().attach(self.id.as_str(), options).await
    }

    /// Sets the size of its terminal.
    ///
    /// # Errors
    /// As [`ContainerManager::resize`](crate::ContainerManager::resize).
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        self.engine.containers().resize(self.id.as_str(), rows, columns).await
    }
}
