//! A build from its beginning to its end: contexts, plans, stages, outputs.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Semaphore, watch};

use super::contexts::{self, Contexts};
use super::import::{self, Known};
use super::mounts::AGENT;
use super::place::Place;
use super::stage::Stage;
use super::{Counts, Work};
use crate::build::context::{Services, Ssh};
use crate::build::dockerfile::Dockerfile;
use crate::build::local::Shared;
use crate::build::output::{BuildOutput, BuildResult};
use crate::build::plan::Plan;
use crate::build::spec::{BuildSpec, Recipe, Wish};
use crate::driver::Cancel;
use crate::error::{Error, ErrorKind, Result};
use crate::images::making::Making;
use crate::progress::Progress;
use crate::sys::blocking::blocking;
use crate::types::{Platform, Reference};

/// What is asked for, for one platform.
struct Task {
    wish: Wish,
    plan: Plan,
}

/// What a build has, whatever its platforms.
struct Site<'a> {
    file: Option<Dockerfile>,
    contexts: Contexts,
    services: Services,
    place: &'a Arc<Place>,
    permits: Semaphore,
    counts: Counts,
    known: Vec<Known>,
}

impl Shared {
    /// Builds an image.
    pub(in crate::build) async fn build(
        self: &Arc<Self>,
        spec: BuildSpec,
        progress: &Progress,
        cancel: Cancel,
    ) -> Result<BuildResult> {
        let names = names_of(&spec.wish)?;
        check_platforms(&spec.wish)?;
        let (dir, owner) = (self.parts.dir.clone(), self.parts.owner.clone());
        let place = Arc::new(blocking(move || Place::make(&dir, &owner)).await?);
        let built = self.build_at(spec, names, &place, progress, cancel).await;
        let removed = blocking(move || place.remove()).await;
        let built = built?;
        removed?;
        Ok(built)
    }

    async fn build_at(
        self: &Arc<Self>,
        spec: BuildSpec,
        names: Vec<Reference>,
        place: &Arc<Place>,
        progress: &Progress,
        cancel: Cancel,
    ) -> Result<BuildResult> {
        let own = Arc::clone(place);
        let mut services = Services::new(blocking(move || own.dir("context")).await?);
        services.ssh = Ssh {
            agent: spec.wish.agents.get(AGENT).cloned(),
            known_hosts: spec.wish.known_hosts.clone(),
        };
        let opening = contexts::open(spec, &services);
        let (contexts, file, wish) = cancel.or(opening).await?;
        let file = file
            .map(|(name, text)| Dockerfile::parse_named(&name, text))
            .transpose()?;
        let tasks = tasks(&wish, file.as_ref())?;
        let jobs = wish.jobs.or_else(processors).unwrap_or(2).max(1);
        let making = self.parts.images.making().await?;
        let (known, mut notes) = cancel.or(async { Ok(import::open(&wish, &making).await) }).await?;
        let site = Site {
            file,
            contexts,
            services,
            place,
            permits: Semaphore::new(jobs.min(Semaphore::MAX_PERMITS)),
            counts: Counts::default(),
            known,
        };
        let built = self.built(&site, &tasks, &names, &making, progress, &cancel).await;
        let used = site.counts.used.into_inner().unwrap_or_else(PoisonError::into_inner);
        let noted = self.note_use(used).await;
        // After an error this removes what no step that was done needs.
        let ended = making.end().await;
        let mut built = built?;
        noted?;
        ended?;
        self.settle();
        let warnings = site.file.iter().flat_map(|file| file.warnings());
        let warnings: Vec<String> = warnings.map(|warning| warning.to_string()).collect();
        built.warnings.extend(warnings);
        let unmade = |kind: &String| format!("no attestation is made ({kind}): the image comes without one");
        built.warnings.extend(wish.attestations.iter().map(unmade));
        built.warnings.append(&mut notes);
        built
            .warnings
            .extend(site.counts.notes.into_inner().unwrap_or_else(PoisonError::into_inner));
        built.trace = site.counts.trace.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(built)
    }

    async fn built(
        self: &Arc<Self>,
        site: &Site<'_>,
        tasks: &[Task],
        names: &[Reference],
        making: &Making,
        progress: &Progress,
        cancel: &Cancel,
    ) -> Result<BuildResult> {
        let several = tasks.len() > 1;
        let work = |task| self.work(site, task, several, making, progress, cancel);
        let works: Vec<Work<'_>> = tasks.iter().map(work).collect();
        for (work, task) in works.iter().zip(tasks) {
            work.refuse_foreign_plan(&task.plan)?;
        }
        let stages = targets(&works, tasks).await?;
        let (images, descriptor) = super::finish::finish(&works, &stages, names).await?;
        let first = images.first().map(|image| image.id);
        Ok(BuildResult {
            id: first.ok_or_else(|| Error::internal("a build for no platform"))?,
            images,
            descriptor,
            names: names.to_vec(),
            steps: site.counts.counted.load(Ordering::Relaxed),
            cached: site.counts.hits.load(Ordering::Relaxed),
            warnings: Vec::new(),
            trace: Vec::new(),
        })
    }

    fn work<'a>(
        self: &'a Arc<Self>,
        site: &'a Site<'_>,
        task: &'a Task,
        several: bool,
        making: &'a Making,
        progress: &Progress,
        cancel: &Cancel,
    ) -> Work<'a> {
        let stages = task.plan.order().iter().copied();
        Work {
            shared: self,
            spec: &task.wish,
            among: several.then_some(&task.wish.plan.platform),
            file: site.file.as_ref().map_or("", |file| file.file()),
            progress: progress.clone(),
            cancel: cancel.clone(),
            making,
            contexts: &site.contexts,
            place: Arc::clone(site.place),
            services: site.services.clone(),
            permits: &site.permits,
            counts: &site.counts,
            known: &site.known,
            done: stages.map(|stage| (stage, watch::Sender::new(None))).collect(),
        }
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

/// The target of each platform, in their order. One that fails stops the others.
async fn targets(works: &[Work<'_>], tasks: &[Task]) -> Result<Vec<Arc<Stage>>> {
    let one = async |number: usize, work: &Work<'_>, task: &Task| (number, work.target(&task.plan).await);
    let all = works.iter().zip(tasks).enumerate();
    let mut running: FuturesUnordered<_> = all.map(|(number, (work, task))| one(number, work, task)).collect();
    let mut done: Vec<Option<Arc<Stage>>> = vec![None; works.len()];
    let mut failed: Option<Error> = None;
    while let Some((number, ended)) = running.next().await {
        match ended {
            Ok(stage) => done[number] = Some(stage),
            Err(error) => {
                // Those that are stopped for it say so, too.
                let first = |known: &Error| known.kind() == &ErrorKind::Cancelled;
                if failed.as_ref().is_none_or(first) {
                    failed = Some(error);
                }
                works.iter().for_each(|work| work.cancel.set());
            }
        }
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(done.into_iter().flatten().collect()),
    }
}

fn tasks(wish: &Wish, file: Option<&Dockerfile>) -> Result<Vec<Task>> {
    let task = |platform: Platform| {
        let mut wish = wish.clone();
        wish.plan = wish.plan.platform(platform);
        let plan = match (file, &wish.recipe) {
            (Some(file), _) => Plan::new(file, &wish.plan)?,
            (None, Recipe::Stages(stages)) => Plan::made(stages.iter().cloned(), &wish.plan)?,
            (None, _) => return Err(Error::internal("a build without a plan")),
        };
        Ok(Task { wish, plan })
    };
    match wish.platforms.as_slice() {
        [] => Ok(vec![task(wish.plan.platform.clone())?]),
        several => several.iter().cloned().map(task).collect(),
    }
}

/// The names, which must be for something.
fn names_of(wish: &Wish) -> Result<Vec<Reference>> {
    let names = wish.tags.iter().map(|tag| tag.parse());
    let names = names.collect::<Result<Vec<Reference>>>()?;
    let is_image = wish.outputs.is_empty() || wish.outputs.iter().any(BuildOutput::is_image);
    if !is_image && !names.is_empty() {
        return Err(Error::invalid(
            "a name for files: leave the names away, or build an image",
        ));
    }
    if names.is_empty() && wish.outputs.contains(&BuildOutput::Push) {
        return Err(Error::invalid(
            "an image to push needs a name, which says where it goes: name one with BuildSpec::tag",
        ));
    }
    Ok(names)
}

fn check_platforms(wish: &Wish) -> Result<()> {
    let mut seen = BTreeSet::new();
    if let Some(twice) = wish
        .platforms
        .iter()
        .find(|platform| !seen.insert(platform.to_string()))
    {
        return Err(Error::invalid(format!("the platform {twice} is asked for twice")));
    }
    let is_tar = |output: &BuildOutput| matches!(output, BuildOutput::Tar(_));
    if seen.len() > 1 && wish.outputs.iter().any(is_tar) {
        return Err(Error::invalid(
            "a tar has the files of one platform: ask for a directory, or for one platform at a time",
        ));
    }
    Ok(())
}

fn processors() -> Option<usize> {
    std::thread::available_parallelism().ok().map(usize::from)
}
