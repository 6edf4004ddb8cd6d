//! A build that runs: stages side by side, steps one after the other.
//!
//! All of it is one piece of work on the driver, which is told when its caller goes away ([`Cancel`]) and then ends what it
//! began. Whatever it makes is held by a lease until the image is written. A stage that fails stops the others.

mod agent;
mod base;
mod contexts;
mod devices;
mod export;
mod failure;
mod files;
mod finish;
mod foreign;
mod import;
mod leaks;
mod mounts;
mod output;
pub(super) mod place;
mod redact;
mod run;
mod scope;
mod share;
mod stage;
mod start;
mod times;

pub use self::failure::StepFailure;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Semaphore, watch};

use self::contexts::Contexts;
use self::import::Known;
use self::place::Place;
use self::stage::Stage;
use super::cache::KeptStep;
use super::context::Services;
use super::local::Shared;
use super::plan::Plan;
use super::spec::Wish;
use super::verify::TracedStep;
use crate::driver::Cancel;
use crate::error::{Error, ErrorKind, Result};
use crate::images::making::Making;
use crate::images::{ImageConfig, RootFs};
use crate::progress::{BuildEvent, Progress, ProgressEvent};
use crate::types::{Digest, Platform};

/// A build under way, for one platform: what its stages share.
struct Work<'a> {
    shared: &'a Arc<Shared>,
    spec: &'a Wish,
    /// The platform, where there are several.
    among: Option<&'a Platform>,
    /// How errors call the Dockerfile.
    file: &'a str,
    progress: Progress,
    cancel: Cancel,
    making: &'a Making,
    contexts: &'a Contexts,
    place: Arc<Place>,
    services: Services,
    /// For what takes a processor.
    permits: &'a Semaphore,
    counts: &'a Counts,
    /// What caches elsewhere say.
    known: &'a [Known],
    /// Stages that are done, by number.
    done: HashMap<usize, watch::Sender<Option<Arc<Stage>>>>,
}

/// What is counted in a build.
#[derive(Debug, Default)]
struct Counts {
    /// Steps that have begun.
    begun: AtomicU32,
    /// Steps that could be cached, and those of them that were.
    counted: AtomicU32,
    hits: AtomicU32,
    used: Mutex<Vec<Digest>>,
    /// Steps for a cache elsewhere.
    kept: Mutex<BTreeMap<Digest, KeptStep>>,
    /// Steps that are done, each after those that it needs.
    trace: Mutex<Vec<TracedStep>>,
    /// What whoever builds should know at the end.
    notes: Mutex<Vec<String>>,
}

impl Work<'_> {
    /// Does what the target needs, and returns it.
    async fn target(&self, plan: &Plan) -> Result<Arc<Stage>> {
        let stage = self.stages(plan).await?;
        self.cancel.check()?;
        Ok(stage)
    }

    /// Does all stages that the target needs, and returns the target.
    async fn stages(&self, plan: &Plan) -> Result<Arc<Stage>> {
        let mut running: FuturesUnordered<_> = plan.order().iter().map(|number| self.stage(plan, *number)).collect();
        let mut failed: Option<Error> = None;
        while let Some(ended) = running.next().await {
            let Err(error) = ended else { continue };
            // Those that are stopped for it say so, too.
            if failed
                .as_ref()
                .is_none_or(|known| known.kind() == &ErrorKind::Cancelled)
            {
                failed = Some(error);
            }
            self.cancel.set();
        }
        drop(running);
        if let Some(error) = failed {
            return Err(error);
        }
        let target = plan.order().last().copied().unwrap_or(0);
        self.stage_of(target).await
    }

    async fn stage(&self, plan: &Plan, number: usize) -> Result<()> {
        let planned = plan
            .stages()
            .get(number)
            .ok_or_else(|| Error::internal("a stage that is not there"))?;
        let mut stage = self.begin(planned).await?;
        let steps = plan.steps(number, stage.state.clone())?;
        self.refuse_foreign_commands(&stage, &steps.steps)?;
        for step in &steps.steps {
            self.step(&mut stage, step).await?;
        }
        stage.state = steps.after;
        if let Some(done) = self.done.get(&number) {
            done.send_replace(Some(Arc::new(stage)));
        }
        Ok(())
    }

    /// A stage that is needed, once it is done.
    async fn stage_of(&self, number: usize) -> Result<Arc<Stage>> {
        let missing = || Error::internal("a stage that was not planned for");
        let mut seen = self.done.get(&number).ok_or_else(missing)?.subscribe();
        self.cancel
            .or(async move {
                let stage = seen.wait_for(Option::is_some).await.map_err(|_| missing())?;
                stage.clone().ok_or_else(missing)
            })
            .await
    }

    fn config(&self, stage: &Stage) -> Result<ImageConfig> {
        let mut config = stage.image.config.clone();
        if !self.spec.labels.is_empty() {
            let labels = self.spec.labels.iter();
            let labels = labels.map(|(name, value)| (name.clone(), value.clone()));
            config.labels.get_or_insert_default().extend(labels);
        }
        let Platform {
            os,
            architecture,
            variant,
        } = stage.platform.clone();
        Ok(ImageConfig {
            created: Some(times::text(stage.times)?),
            author: stage.image.author.clone(),
            architecture,
            variant,
            os,
            config,
            rootfs: RootFs {
                kind: "layers".to_owned(),
                diff_ids: stage.layers.iter().map(|layer| layer.diff_id).collect(),
            },
            history: stage.image.history.clone(),
            build_cache: self.inline_cache(stage)?,
        })
    }

    fn tell_begun(&self, stage: &str, text: &str) -> u32 {
        let step = self.counts.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let stage = match self.among {
            Some(platform) => format!("{platform} {stage}"),
            None => stage.to_owned(),
        };
        self.progress.report(ProgressEvent::Build(BuildEvent::Begun {
            step,
            stage,
            text: text.to_owned(),
        }));
        step
    }

    fn tell_ended(&self, step: u32, cached: bool) {
        let event = BuildEvent::Ended { step, cached };
        self.progress.report(ProgressEvent::Build(event));
    }
}
