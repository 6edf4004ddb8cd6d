//! Building an image. A request that is a future.

use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use super::request::progress_and_deadline;
use super::{Engine, Image, Verb};
use crate::build::{BuildResult, BuildSpec, Verified};
use crate::error::Result;
use crate::progress::{Progress, ProgressEvent};

/// A build about to be done. Awaiting it yields the [`Image`].
#[derive(Debug)]
#[must_use = "nothing is built until it is awaited"]
pub struct ImageBuild {
    engine: Engine,
    spec: BuildSpec,
    progress: Progress,
    deadline: Option<Duration>,
}

progress_and_deadline!(ImageBuild);

impl ImageBuild {
    pub(crate) fn new(engine: Engine, spec: BuildSpec) -> Self {
        Self {
            engine,
            spec,
            progress: Progress::default(),
            deadline: None,
        }
    }

    /// Builds, and tells what came of it beside the image: how many steps were known from before, and what looks wrong in the
    /// Dockerfile.
    ///
    /// # Errors
    /// As [`ImageBuilder::build`](crate::build::ImageBuilder::build); `Timeout` if the deadline passes.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn result(self) -> Result<BuildResult> {
        let (engine, deadline) = (self.engine.clone(), self.deadline);
        let work = async move { self.engine.unlimited().builds().build(self.spec, self.progress).await };
        // Each layer around it would keep a place for it in the caller's future, and on its stack.
        engine.within(Verb::of_engine("build"), deadline, Box::pin(work)).await
    }
}

impl ImageBuild {
    /// Builds here and, with nothing known from before but what is known there, in another engine, and compares: names the first
    /// step and the first file that differ. The other engine's root should be a fresh one, with this one's as an
    /// [additional store](crate::EngineBuilder::additional_store) for images that no registry has. What was built stays in
    /// both.
    ///
    /// ```no_run
    /// # async fn example(engine: longshore::Engine, root: &std::path::Path) -> longshore::Result<()> {
    /// use longshore::Engine;
    /// use longshore::build::BuildSpec;
    /// let fresh = Engine::builder("/tmp/fresh").additional_store(root).open().await?;
    /// let verified = engine.build(BuildSpec::new("./app")).verify(&fresh).await?;
    /// assert!(verified.difference.is_none(), "{}", verified.difference.unwrap());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`ImageBuild::result`]; `InvalidArgument` for a context that can be read once only; `Unsupported` where one of the
    /// engines is not in this process.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn verify(self, fresh: &Engine) -> Result<Verified> {
        let again = self.spec.again()?;
        let (here, there) = (
            self.engine.local_builds("build.verify")?.clone(),
            fresh.local_builds("build.verify")?.clone(),
        );
        let mut second = Self::new(fresh.clone(), again);
        second.deadline = self.deadline;
        let result = self.result().await?;
        let other = second.result().await?;
        let difference = here.compare(&result, &there, &other).await?;
        Ok(Verified { result, difference })
    }
}

impl IntoFuture for ImageBuild {
    type Output = Result<Image>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Image>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let engine = self.engine.clone();
        Box::pin(async move {
            let built = self.result().await?;
            Ok(Image::new(engine, built.id))
        })
    }
}
