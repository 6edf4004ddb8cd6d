//! `run`: pull if need be, create, start; with `output`, to the end.

use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::try_join;

use super::exec::collect;
use super::request::progress_and_deadline;
use super::{Container, Engine, Verb};
use crate::containers::{AttachOptions, ContainerSpec, SlowReader};
use crate::error::{Error, ObjectKind, Result};
use crate::images::Pull;
use crate::progress::{Progress, ProgressEvent};
use crate::types::{ExitStatus, ImageSource};

/// What a container wrote and how it ended, as [`std::process::Output`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// How its first process ended.
    pub status: ExitStatus,
    /// Everything it wrote to stdout.
    pub stdout: Vec<u8>,
    /// Everything it wrote to stderr.
    pub stderr: Vec<u8>,
    /// Whether the kernel killed one of its processes for memory, where there are counters.
    pub oom_killed: Option<bool>,
}

/// A container about to run. Awaiting it yields the started [`Container`].
#[derive(Debug, Clone)]
#[must_use = "nothing runs until it is awaited"]
pub struct RunBuilder {
    engine: Engine,
    spec: ContainerSpec,
    pull: Pull,
    progress: Progress,
    deadline: Option<Duration>,
}

progress_and_deadline!(RunBuilder);

impl RunBuilder {
    pub(crate) fn new(engine: Engine, spec: ContainerSpec) -> Self {
        Self {
            engine,
            spec,
            pull: Pull::Missing,
            progress: Progress::default(),
            deadline: None,
        }
    }

    /// When to pull the image. Default [`Pull::Missing`].
    pub fn pull(mut self, policy: Pull) -> Self {
        self.pull = policy;
        self
    }

    /// Runs the container to its end, collects what it wrote, and removes it.
    ///
    /// # Errors
    /// Those of pull, create and start; `Timeout` if the deadline passes. A program that fails is no error: see
    /// [`Output::status`].
    ///
    /// # Cancel safety
    /// A dropped call ends and removes the container.
    pub async fn output(mut self) -> Result<Output> {
        let (engine, deadline, image) = (self.engine.clone(), self.deadline, self.spec.image.clone());
        self.engine = engine.unlimited();
        // Each layer around it would keep a place for it in the caller's future, and on its stack.
        let work = Box::pin(self.output_now());
        engine
            .within(Verb::of("run", ObjectKind::Image, &image), deadline, work)
            .await
    }

    async fn output_now(mut self) -> Result<Output> {
        self.spec.auto_remove = false;
        let mut guard = Guard::new(self.create().await?);
        let (containers, id) = (self.engine.containers(), guard.container().id().clone());
        let options = AttachOptions::slow(SlowReader::Keep);
        let mut attached = containers.start_attached(id.as_str(), options).await?;
        drop(attached.input.take());
        let over = containers.wait_and_remove(id.as_str());
        let ((stdout, stderr), exit) = try_join(collect(&mut attached), over).await?;
        guard.disarm();
        Ok(Output {
            status: exit.status,
            stdout,
            stderr,
            oom_killed: exit.oom_killed,
        })
    }

    async fn create(&self) -> Result<Container> {
        if !self.must_pull() {
            match self.engine.create(self.spec.clone()).await {
                Err(error) if self.pull != Pull::Never && is_missing_image(&error) => {}
                made => return made,
            }
        }
        let mut spec = self.spec.clone();
        let pull = self
            .engine
            .pull(&spec.image)
            .policy(self.pull)
            .report_to(self.progress.clone());
        let image = pull.platform_of(&spec).await?;
        if ImageSource::is_on_disk(&spec.image) {
            spec.image = image.id().to_string();
        }
        self.engine.create(spec).await
    }

    /// Whether the image is asked for elsewhere even if it is here, under the name or id given.
    fn must_pull(&self) -> bool {
        matches!(self.pull, Pull::Always | Pull::Newer) || ImageSource::is_on_disk(&self.spec.image)
    }

    async fn start(self) -> Result<Guard> {
        let mut guard = Guard::new(self.create().await?);
        if self.spec.auto_remove {
            guard.container.expect_its_end().await?;
        }
        guard.container().start().await?;
        Ok(guard)
    }
}

/// Whether a container could not be made for want of its image.
fn is_missing_image(error: &Error) -> bool {
    error.is_not_found() && matches!(error.object(), Some((ObjectKind::Image, _)))
}

impl IntoFuture for RunBuilder {
    type Output = Result<Container>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Container>> + Send>>;

    fn into_future(mut self) -> Self::IntoFuture {
        let (engine, deadline, image) = (self.engine.clone(), self.deadline, self.spec.image.clone());
        self.engine = engine.unlimited();
        Box::pin(async move {
            let verb = Verb::of("run", ObjectKind::Image, &image);
            let work = Box::pin(self.start());
            let container = engine.within(verb, deadline, work).await?.disarm();
            Ok(container.by(engine))
        })
    }
}

/// Removes a container whose caller went away or whose start failed: on the driver, without blocking.
struct Guard {
    container: Container,
    armed: bool,
}

impl Guard {
    fn new(container: Container) -> Self {
        Self { container, armed: true }
    }

    fn container(&self) -> &Container {
        &self.container
    }

    fn disarm(&mut self) -> Container {
        self.armed = false;
        self.container.clone()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.armed {
            self.container.remove_in_background();
        }
    }
}
