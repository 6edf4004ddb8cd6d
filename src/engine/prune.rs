//! `prune`: everything that nobody uses, of all managers.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{Engine, Verb};
use crate::error::Result;
use crate::system::{PruneAll, PrunedAll};
use crate::types::Filter;

impl Engine {
    /// Removes what nobody uses, of every sort: containers that do not run, networks that no container is on, volumes if that
    /// is asked for, images, steps of builds. In this order, since each may have kept the next in use. A sort of things that the
    /// engine has no manager for is passed over.
    ///
    /// ```no_run
    /// # async fn example(engine: longshore::Engine) -> longshore::Result<()> {
    /// use longshore::PruneAll;
    /// let pruned = engine.prune(PruneAll::new().all().volumes()).await?;
    /// assert!(pruned.reclaimed_bytes > 0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// - `InvalidArgument` for an unknown filter, a moment that is none, and `until` with volumes: nothing is removed then
    /// - those of the managers; what was removed before stays removed, and its events have been told
    ///
    /// # Cancel safety
    /// What was removed stays removed. The thing whose removal was under way is removed, or whole.
    pub async fn prune(&self, options: PruneAll) -> Result<PrunedAll> {
        let (span, verb) = (tracing::info_span!("engine.prune"), Verb::of_engine("engine.prune"));
        self.watch.run(verb, span, Box::pin(self.prune_each(options))).await
    }

    async fn prune_each(&self, options: PruneAll) -> Result<PrunedAll> {
        options.check(now_ns())?;
        let mut pruned = PrunedAll::default();
        self.prune_containers(&options.filter, &mut pruned).await?;
        #[cfg(feature = "network")]
        if let Some(removed) = if_kept(self.networks().prune(options.filter.clone()).await)? {
            pruned.networks = removed;
        }
        if options.volumes {
            self.prune_volumes(&options.filter, &mut pruned).await?;
        }
        self.prune_unused_images(&options, &mut pruned).await?;
        #[cfg(all(feature = "engine", feature = "build"))]
        self.prune_steps(&options, &mut pruned).await?;
        Ok(pruned)
    }

    async fn prune_containers(&self, filter: &Filter, pruned: &mut PrunedAll) -> Result<()> {
        if let Some(gone) = if_kept(self.containers().prune(filter.clone()).await)? {
            pruned.containers = gone.removed;
            pruned.add(gone.reclaimed_bytes);
        }
        Ok(())
    }

    async fn prune_volumes(&self, filter: &Filter, pruned: &mut PrunedAll) -> Result<()> {
        if let Some(gone) = if_kept(self.volumes().prune(filter.clone()).await)? {
            pruned.volumes = gone.removed;
            pruned.add(gone.reclaimed_bytes);
        }
        Ok(())
    }

    async fn prune_unused_images(&self, options: &PruneAll, pruned: &mut PrunedAll) -> Result<()> {
        let dangling = if options.all { "false" } else { "true" };
        let filter = options.filter.clone().with("dangling", dangling);
        if let Some(gone) = if_kept(self.images().prune(filter).await)? {
            pruned.images = gone.removed;
            pruned.add(gone.reclaimed_bytes);
        }
        Ok(())
    }

    #[cfg(all(feature = "engine", feature = "build"))]
    async fn prune_steps(&self, options: &PruneAll, pruned: &mut PrunedAll) -> Result<()> {
        use crate::build::PruneCache;
        use crate::types::until;

        if !options.takes_steps() {
            return Ok(());
        }
        let mut steps = if options.all {
            PruneCache::all()
        } else {
            PruneCache::all().unshared()
        };
        for text in options.filter.values("until") {
            let since = until::parse(text, now_ns())?;
            steps = steps.unused_since(UNIX_EPOCH + std::time::Duration::from_nanos(since.max(0).unsigned_abs()));
        }
        if let Some(gone) = if_kept(self.builds().prune(steps).await)? {
            pruned.steps = gone.steps;
            pruned.add(gone.freed_bytes);
        }
        Ok(())
    }
}

impl PrunedAll {
    fn add(&mut self, bytes: u64) {
        self.reclaimed_bytes = self.reclaimed_bytes.saturating_add(bytes);
    }
}

/// Nothing where the engine keeps no such things.
fn if_kept<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(error) if error.is_unsupported() => Ok(None),
        other => other.map(Some),
    }
}

fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
