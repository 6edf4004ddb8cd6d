//! A build that runs: stages side by side, steps one after the other.
//!
//! All of it is one piece of work on the driver, which is told when its caller goes away ([`Cancel`]) and then ends what it
//! began. Whatever it makes is held by a lease until the image is written. A stage that fails stops the others.

mod base;
mod contexts;
mod export;
mod failure;
mod files;
mod mounts;
mod output;
pub(super) mod place;
mod run;
mod scope;
mod stage;
mod times;

pub use self::failure::StepFailure;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Semaphore, watch};

use self::contexts::Contexts;
use self::place::Place;
use self::stage::Stage;
use super::context::Services;
use super::dockerfile::Dockerfile;
use super::local::Shared;
use super::plan::{Plan, StageBuilder};
use super::spec::{BuildOutput, BuildResult, BuildSpec, Recipe, Wish};
use crate::driver::Cancel;
use crate::error::{Error, ErrorKind, Result};
use crate::images::making::Making;
use crate::images::{ImageConfig, RootFs};
use crate::progress::{BuildEvent, Progress, ProgressEvent};
use crate::sys::blocking::blocking;
use crate::types::{Digest, Platform, Reference};

/// A build under way: what its stages share.
struct Work<'a> {
    shared: &'a Arc<Shared>,
    spec: &'a Wish,
    /// How errors call the Dockerfile.
    file: String,
    progress: Progress,
    cancel: Cancel,
    making: Making,
    contexts: Contexts,
    place: Arc<Place>,
    services: Services,
    /// For what takes a processor.
    permits: Semaphore,
    /// Steps that have begun.
    begun: AtomicU32,
    /// Steps that could be cached, and those of them that were.
    counted: AtomicU32,
    hits: AtomicU32,
    used: Mutex<Vec<Digest>>,
    /// Stages that are done, by number.
    done: HashMap<usize, watch::Sender<Option<Arc<Stage>>>>,
}

impl Shared {
    /// Builds an image.
    pub(super) async fn build(
        self: &Arc<Self>,
        spec: BuildSpec,
        progress: &Progress,
        cancel: Cancel,
    ) -> Result<BuildResult> {
        let tags = spec
            .wish
            .tags
            .iter()
            .map(|tag| tag.parse())
            .collect::<Result<Vec<Reference>>>()?;
        if spec.wish.output != BuildOutput::Image && !tags.is_empty() {
            return Err(Error::invalid(
                "a name for files: leave the names away, or build an image",
            ));
        }
        let (dir, owner) = (self.parts.dir.clone(), self.parts.owner.clone());
        let place = Arc::new(blocking(move || Place::make(&dir, &owner)).await?);
        let built = self.build_at(spec, tags, &place, progress, cancel).await;
        let removed = blocking(move || place.remove()).await;
        let built = built?;
        removed?;
        Ok(built)
    }

    async fn build_at(
        self: &Arc<Self>,
        spec: BuildSpec,
        tags: Vec<Reference>,
        place: &Arc<Place>,
        progress: &Progress,
        cancel: Cancel,
    ) -> Result<BuildResult> {
        let own = Arc::clone(place);
        let services = Services::new(blocking(move || own.dir("context")).await?);
        let opening = contexts::open(spec, &services);
        let (contexts, file, wish) = cancel.or(opening).await?;
        let spec = &wish;
        let file = file
            .map(|(name, text)| Dockerfile::parse_named(&name, text))
            .transpose()?;
        let plan = file.as_ref().map(|file| Plan::new(file, &spec.plan)).transpose()?;
        let stages = plan.iter().flat_map(|plan| plan.order()).copied();
        let jobs = spec.jobs.or_else(processors).unwrap_or(2).max(1);
        let work = Work {
            shared: self,
            spec,
            file: file.as_ref().map(|file| file.file().to_owned()).unwrap_or_default(),
            progress: progress.clone(),
            cancel,
            making: self.parts.images.making().await?,
            contexts,
            place: Arc::clone(place),
            services,
            permits: Semaphore::new(jobs.min(Semaphore::MAX_PERMITS)),
            begun: AtomicU32::new(0),
            counted: AtomicU32::new(0),
            hits: AtomicU32::new(0),
            used: Mutex::default(),
            done: stages.map(|stage| (stage, watch::Sender::new(None))).collect(),
        };
        let built = work.image(plan.as_ref(), tags).await;
        let (used, making) = (work.used, work.making);
        let used = used.into_inner().unwrap_or_else(PoisonError::into_inner);
        let noted = self.note_use(used).await;
        // After an error this removes what no step that was done needs.
        let ended = making.end().await;
        let mut built = built?;
        noted?;
        ended?;
        self.settle();
        let warnings = file.iter().flat_map(|file| file.warnings());
        built.warnings = warnings.map(|warning| warning.to_string()).collect();
        Ok(built)
    }

    /// Puts layers on the disk with nobody waiting. Until then they can be made again from their blobs.
    fn settle(&self) {
        let snapshotter = Arc::clone(&self.parts.snapshotter);
        self.parts.spawner.detach(async move {
            if let Err(error) = snapshotter.sync().await {
                tracing::warn!(error = error.report(), "layers could not be written to the disk");
            }
        });
    }
}

fn processors() -> Option<usize> {
    std::thread::available_parallelism().ok().map(usize::from)
}

impl Work<'_> {
    async fn image(&self, plan: Option<&Plan>, tags: Vec<Reference>) -> Result<BuildResult> {
        let stage = match (&self.spec.recipe, plan) {
            (Recipe::Stage(base, make), _) => Arc::new(self.made(base, &**make).await?),
            (_, Some(plan)) => self.stages(plan).await?,
            (_, None) => return Err(Error::internal("a build without a plan")),
        };
        self.cancel.check()?;
        let config = self.config(&stage)?;
        let layers = &stage.layers;
        let id = match &self.spec.output {
            BuildOutput::Image => self.making.image(&config, layers, tags, &Progress::default()).await?,
            _ => {
                self.export(&stage).await?;
                Making::id_of(&config)?
            }
        };
        Ok(BuildResult {
            id,
            steps: self.counted.load(Ordering::Relaxed),
            cached: self.hits.load(Ordering::Relaxed),
            warnings: Vec::new(),
        })
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

    /// The only stage of a build without a Dockerfile.
    async fn made(&self, base: &str, make: &(dyn Fn(StageBuilder) -> StageBuilder + Send + Sync)) -> Result<Stage> {
        let mut stage = match base {
            "scratch" => self.scratch("0", &self.spec.plan.platform),
            image => {
                let info = self.pull(image.parse()?, None).await?;
                self.upon_image("0", info)?
            }
        };
        let steps = make(StageBuilder::new(stage.state.clone())).finish()?;
        self.refuse_foreign_commands(&stage, &steps.steps)?;
        for step in &steps.steps {
            self.step(&mut stage, step).await?;
        }
        Ok(stage)
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
        })
    }

    fn tell_begun(&self, stage: &str, text: &str) -> u32 {
        let step = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        self.progress.report(ProgressEvent::Build(BuildEvent::Begun {
            step,
            stage: stage.to_owned(),
            text: text.to_owned(),
        }));
        step
    }

    fn tell_ended(&self, step: u32, cached: bool) {
        let event = BuildEvent::Ended { step, cached };
        self.progress.report(ProgressEvent::Build(event));
    }
}
