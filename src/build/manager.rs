//! What an engine (in-process, remote or fake) can do with builds.

use std::fmt::Debug;

use async_trait::async_trait;

use super::cache::{CachedMount, CachedStep, PruneCache, PrunedCache};
use super::output::BuildResult;
use super::spec::BuildSpec;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Builds images. Every verb has a default, so that a new one breaks nobody.
#[async_trait]
pub trait ImageBuilder: Debug + Send + Sync + 'static {
    /// Builds an image. What is known from earlier builds is not done again.
    ///
    /// # Errors
    /// `InvalidArgument` with file, line and column for what the Dockerfile says wrongly; `NotFound` for a missing image,
    /// stage or file; `BuildFailed` for a command that fails, with its exit code and the last lines it wrote in
    /// [`StepFailure`](super::StepFailure); `Denied` for what must be allowed and was not; `Unsupported` naming what is
    /// missing; those of a pull and of a start.
    ///
    /// # Cancel safety
    /// A dropped call ends what runs and leaves nothing but steps that were done: the next build finds them.
    async fn build(&self, spec: BuildSpec, progress: Progress) -> Result<BuildResult> {
        let _ = (spec, progress);
        Err(Error::unsupported_verb("builds.build"))
    }

    /// What is known from earlier builds, what was used last coming last.
    ///
    /// # Errors
    /// Those of the records.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    async fn cache(&self) -> Result<Vec<CachedStep>> {
        Err(Error::unsupported_verb("builds.cache"))
    }

    /// Directories that commands mounted as caches, what was used last coming last.
    ///
    /// # Errors
    /// Those of the disk.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    async fn mounts(&self) -> Result<Vec<CachedMount>> {
        Err(Error::unsupported_verb("builds.mounts"))
    }

    /// Forgets steps of earlier builds and caches that commands mounted, and removes what nothing else needs.
    ///
    /// # Errors
    /// Those of the records and of the disk.
    ///
    /// # Cancel safety
    /// It goes on to its end.
    async fn prune(&self, options: PruneCache) -> Result<PrunedCache> {
        let _ = options;
        Err(Error::unsupported_verb("builds.prune"))
    }
}
