//! What every verb goes through, whoever implements it: a `tracing` span with the object's id, the deadline of the handle,
//! and a note of its failure.
//!
//! The driver carries the span on to its thread (`Spawner::call`, `Spawner::tail`). Of an error only kind and step are
//! written down: a message may quote what the caller gave, and that may be a secret.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tracing::{Instrument as _, Span};

use super::Managers;
#[cfg(all(feature = "engine", feature = "build"))]
use crate::build::{BuildResult, BuildSpec, CachedMount, CachedStep, ImageBuilder, PruneCache, PrunedCache};
use crate::containers::{
    AttachOptions, Attached, BoxStream, CheckpointOptions, CommitOptions, ContainerExit, ContainerInfo,
    ContainerManager, ContainerSpec, ContainerSummary, CopiedOut, CopyInOptions, Created, Exec, ExecInfo, ExecSpec,
    Exiting, Limits, ListOptions, PathStat, Pruned, RemoveOptions, RestartPolicy, Stats, StatsOptions, StopOptions,
    Top, WaitCondition,
};
use crate::driver::Clock;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::events::EventStream;
use crate::images::{
    ArchiveFormat, ByteStream, Credentials, Distribution, ExtendRequest, HistoryLine, ImageDocument, ImageInfo,
    ImageManager, ImageSummary, ImportRequest, IndexRequest, Loaded, PrunedImages, PullRequest, PushRequest, Pushed,
    RemoveImageOptions, Removed,
};
use crate::logs::{LogEntries, LogQuery};
#[cfg(feature = "network")]
use crate::networks::{CreatedNetwork, NetworkInfo, NetworkManager, NetworkSpec};
use crate::progress::Progress;
use crate::sys::parcel::{Parcel, Parcelled, Unpacking, parcelled};
use crate::system::{DiskUsage, EventQuery, SystemInfo, SystemManager};
use crate::types::{
    Change, Descriptor, EndpointSpec, ExitStatus, Filter, ImageId, Outcome, Platform, Reference, Shaping, Signal,
};
use crate::volumes::{CreateVolume, PrunedVolumes, RemoveVolumeOptions, VolumeInfo, VolumeManager};

/// A manager whose verbs are watched.
#[derive(Debug)]
pub(super) struct Watched<M: ?Sized> {
    inner: Arc<M>,
    watch: Watch,
}

/// How long verbs may take, and who tells the time.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    pub(super) clock: Arc<Clock>,
    pub(super) limit: Option<Duration>,
}

/// A verb as it is named in spans and errors, and what it is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verb<'a> {
    pub(crate) name: &'static str,
    pub(crate) object: Option<(ObjectKind, &'a str)>,
}

impl<'a> Verb<'a> {
    /// A verb about one object.
    pub(crate) fn of(name: &'static str, kind: ObjectKind, object: &'a str) -> Self {
        let object = Some((kind, object));
        Self { name, object }
    }

    /// A verb about the engine as a whole.
    pub(crate) fn of_engine(name: &'static str) -> Self {
        Self { name, object: None }
    }

    /// The error of a deadline that has passed.
    fn late(&self, limit: Duration) -> Error {
        let what = match self.object {
            Some((kind, name)) => format!("{} of {kind} {name}", self.name),
            None => self.name.to_owned(),
        };
        let message = format!("no result of {what} within {limit:?}; what it began is undone or finished without you");
        let error = Error::new(ErrorKind::Timeout, message).with_step(self.name);
        match self.object {
            Some((kind, name)) => error.with_object(kind, name),
            None => error,
        }
    }
}

impl Watch {
    /// Does a verb's work in its span and within the limit.
    pub(super) fn run<'a, T: Send + 'static>(
        &'a self,
        verb: Verb<'a>,
        span: Span,
        work: BoxFuture<'a, Result<T>>,
    ) -> Unpacking<'a, T> {
        Unpacking::new(self.run_parcelled(verb, span, parcelled(work)))
    }

    fn run_parcelled<'a>(&'a self, verb: Verb<'a>, span: Span, work: Parcelled<'a>) -> Parcelled<'a> {
        let watched = async move {
            let result = self.in_time_parcelled(verb, self.limit, work).await;
            if let Err(error) = &result {
                let (kind, step) = (error.kind().as_str(), error.step());
                tracing::debug!(verb = verb.name, kind, step, "failed");
            }
            result
        };
        Box::pin(watched.instrument(span))
    }

    /// The work's result, or `Timeout`.
    pub(super) fn in_time<'a, T: Send + 'static>(
        &'a self,
        verb: Verb<'a>,
        limit: Option<Duration>,
        work: BoxFuture<'a, Result<T>>,
    ) -> Unpacking<'a, T> {
        Unpacking::new(Box::pin(self.in_time_parcelled(verb, limit, parcelled(work))))
    }

    async fn in_time_parcelled(&self, verb: Verb<'_>, limit: Option<Duration>, work: Parcelled<'_>) -> Result<Parcel> {
        let Some(limit) = limit else { return work.await };
        let result = self.clock.within(limit, work).await;
        result.unwrap_or_else(|| Err(verb.late(limit)))
    }

    /// The same managers, watched.
    pub(super) fn all(&self, managers: &Managers) -> Managers {
        Managers {
            images: self.one(&managers.images),
            containers: self.one(&managers.containers),
            #[cfg(feature = "network")]
            networks: self.one(&managers.networks),
            volumes: self.one(&managers.volumes),
            system: self.one(&managers.system),
            #[cfg(all(feature = "engine", feature = "build"))]
            builds: self.one(&managers.builds),
        }
    }

    fn one<M: ?Sized>(&self, manager: &Arc<M>) -> Arc<Watched<M>> {
        Arc::new(Watched {
            inner: Arc::clone(manager),
            watch: self.clone(),
        })
    }
}

/// Implements a manager's trait: each verb with the field of its span and the sort of object that it is about.
macro_rules! watched {
    ($trait:ident $group:literal {
        $(fn $verb:ident($($arg:ident: $type:ty),*) -> $output:ty, $({ $field:ident = $kind:ident $object:expr })?;)*
        $(by hand { $($hand:tt)* })?
    }) => {
        #[async_trait]
        impl $trait for Watched<dyn $trait> {
            $(async fn $verb(&self, $($arg: $type),*) -> Result<$output> {
                let name = concat!($group, ".", stringify!($verb));
                $(let object = $object.to_string();)?
                let span = tracing::info_span!(concat!($group, ".", stringify!($verb)) $(, $field = object.as_str())?);
                let object = None$(.or(Some((ObjectKind::$kind, object.as_str()))))?;
                self.watch.run(Verb { name, object }, span, self.inner.$verb($($arg),*)).await
            })*
            $($($hand)*)?
        }
    };
}

watched! { ContainerManager "container" {
    fn start(name: &str) -> Outcome, { container = Container name };
    fn kill(name: &str, signal: Signal) -> (), { container = Container name };
    fn stop(name: &str, options: StopOptions) -> Outcome, { container = Container name };
    fn restart(name: &str, options: StopOptions) -> (), { container = Container name };
    fn promote(name: &str) -> Outcome, { container = Container name };
    fn pause(name: &str) -> (), { container = Container name };
    fn unpause(name: &str) -> (), { container = Container name };
    fn remove(name: &str, options: RemoveOptions) -> Outcome, { container = Container name };
    fn start_attached(name: &str, options: AttachOptions) -> Attached, { container = Container name };
    fn wait_and_remove(name: &str) -> ContainerExit, { container = Container name };
    fn rename(name: &str, new_name: &str) -> (), { container = Container name };
    fn update(name: &str, limits: Limits) -> Vec<String>, { container = Container name };
    fn set_restart(name: &str, policy: RestartPolicy) -> (), { container = Container name };
    fn checkpoint(name: &str, checkpoint: &str, options: CheckpointOptions) -> (), { container = Container name };
    fn checkpoints(name: &str, directory: Option<PathBuf>) -> Vec<String>, { container = Container name };
    fn remove_checkpoint(name: &str, checkpoint: &str, directory: Option<PathBuf>) -> (), { container = Container name };
    fn restore(name: &str, checkpoint: &str, directory: Option<PathBuf>) -> Outcome, { container = Container name };
    fn inspect(name: &str) -> ContainerInfo, { container = Container name };
    fn top(name: &str, arguments: &[String]) -> Top, { container = Container name };
    fn stats(name: &str, options: StatsOptions) -> BoxStream<Result<Stats>>, { container = Container name };
    fn list(options: ListOptions) -> Vec<ContainerSummary>,;
    fn connect(name: &str, network: &str, endpoint: EndpointSpec) -> (), { container = Container name };
    fn disconnect(name: &str, network: &str) -> Outcome, { container = Container name };
    fn shape(name: &str, network: &str, shaping: Shaping) -> (), { container = Container name };
    fn partition(name: &str, other: &str) -> (), { container = Container name };
    fn heal(name: &str, other: &str) -> (), { container = Container name };
    fn prune(filter: Filter) -> Pruned,;
    fn diff(name: &str) -> Vec<Change>, { container = Container name };
    fn export(name: &str) -> ByteStream, { container = Container name };
    fn stat_path(name: &str, path: &str) -> PathStat, { container = Container name };
    fn copy_out(name: &str, path: &str) -> CopiedOut, { container = Container name };
    fn copy_in(name: &str, path: &str, archive: ByteStream, options: CopyInOptions) -> (), { container = Container name };
    fn commit(name: &str, options: CommitOptions) -> ImageId, { container = Container name };
    fn logs(name: &str, query: LogQuery) -> LogEntries, { container = Container name };
    fn attach(name: &str, options: AttachOptions) -> Attached, { container = Container name };
    fn resize(name: &str, rows: u16, columns: u16) -> (), { container = Container name };
    fn exec_create(name: &str, spec: ExecSpec) -> Exec, { container = Container name };
    fn exec_start(exec: &str, options: AttachOptions) -> Attached, { exec = Exec exec };
    fn exec_wait(exec: &str) -> ExitStatus, { exec = Exec exec };
    fn exec_inspect(exec: &str) -> ExecInfo, { exec = Exec exec };
    fn exec_resize(exec: &str, rows: u16, columns: u16) -> (), { exec = Exec exec };
    by hand {
        /// The id is known at the end.
        async fn create(&self, spec: ContainerSpec) -> Result<Created> {
            let image = spec.image.clone();
            let span = tracing::info_span!("container.create", container = tracing::field::Empty, image);
            let verb = Verb::of("container.create", ObjectKind::Image, &image);
            let work = Box::pin(async {
                let created = self.inner.create(spec).await?;
                Span::current().record("container", created.id.as_str());
                Ok(created)
            });
            self.watch.run(verb, span, work).await
        }

        /// The limit holds for the end, too.
        async fn wait(&self, name: &str, condition: WaitCondition) -> Result<Exiting> {
            let begun = Instant::now();
            let span = tracing::info_span!("container.wait", container = name);
            let verb = Verb::of("container.wait", ObjectKind::Container, name);
            let exiting = self.watch.run(verb, span.clone(), self.inner.wait(name, condition)).await?;
            let left = self.watch.limit.map(|limit| limit.saturating_sub(begun.elapsed()));
            let (watch, name) = (Watch { limit: left, clock: Arc::clone(&self.watch.clock) }, name.to_owned());
            Ok(Box::pin(async move {
                let verb = Verb::of("container.wait", ObjectKind::Container, &name);
                watch.run(verb, span, exiting).await
            }))
        }
    }
}}

watched! { ImageManager "image" {
    fn pull(request: PullRequest, progress: Progress) -> ImageInfo, { image = Image request.source };
    fn push(request: PushRequest, progress: Progress) -> Pushed, { image = Image request.name };
    fn login(registry: &str, credentials: Credentials) -> (), { registry = Registry registry };
    fn distribution(image: &Reference, credentials: Credentials) -> Distribution, { image = Image image };
    fn list(filter: Filter) -> Vec<ImageSummary>,;
    fn inspect(image: &str) -> ImageInfo, { image = Image image };
    fn variants(image: &str) -> Vec<ImageInfo>, { image = Image image };
    fn document(image: &str) -> ImageDocument, { image = Image image };
    fn make_index(request: IndexRequest) -> Descriptor, { image = Image request.name };
    fn history(image: &str) -> Vec<HistoryLine>, { image = Image image };
    fn tag(image: &str, name: &Reference) -> Outcome, { image = Image image };
    fn remove(image: &str, options: RemoveImageOptions) -> Vec<Removed>, { image = Image image };
    fn restore(image: &str) -> Outcome, { image = Image image };
    fn save(images: &[String], platform: Option<Platform>, format: ArchiveFormat) -> ByteStream,
        { image = Image images.join(" ") };
    fn load(archive: ByteStream, platform: Option<Platform>, progress: Progress) -> Vec<Loaded>,;
    fn import(archive: ByteStream, request: ImportRequest, progress: Progress) -> ImageId,;
    fn extend(layer: ByteStream, request: ExtendRequest) -> ImageId, { image = Image request.base };
    fn prune(filter: Filter) -> PrunedImages,;
}}

#[cfg(feature = "network")]
watched! { NetworkManager "network" {
    fn create(spec: NetworkSpec) -> CreatedNetwork, { network = Network spec.name };
    fn list() -> Vec<NetworkInfo>,;
    fn inspect(name: &str) -> NetworkInfo, { network = Network name };
    fn remove(name: &str) -> Outcome, { network = Network name };
    fn prune(filter: Filter) -> Vec<String>,;
}}

watched! { VolumeManager "volume" {
    fn create(request: CreateVolume) -> VolumeInfo, { volume = Volume request.name.as_deref().unwrap_or_default() };
    fn inspect(name: &str) -> VolumeInfo, { volume = Volume name };
    fn list(filter: Filter) -> Vec<VolumeInfo>,;
    fn remove(name: &str, options: RemoveVolumeOptions) -> Outcome, { volume = Volume name };
    fn prune(filter: Filter) -> PrunedVolumes,;
    fn snapshot(name: &str, into: CreateVolume) -> VolumeInfo, { volume = Volume name };
    fn export(name: &str) -> ByteStream, { volume = Volume name };
    fn import(into: CreateVolume, archive: ByteStream) -> VolumeInfo,;
}}

#[cfg(all(feature = "engine", feature = "build"))]
watched! { ImageBuilder "build" {
    fn build(spec: BuildSpec, progress: Progress) -> BuildResult,;
    fn cache() -> Vec<CachedStep>,;
    fn mounts() -> Vec<CachedMount>,;
    fn prune(options: PruneCache) -> PrunedCache,;
}}

watched! { SystemManager "system" {
    fn info() -> SystemInfo,;
    fn events(query: EventQuery) -> EventStream,;
    fn disk_usage() -> DiskUsage,;
}}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;

    /// A verb that is not passed on would answer `Unsupported`, whatever the manager can.
    #[test]
    fn every_verb_of_every_trait_is_passed_on() {
        let names = |text: &str, start: &str| -> Vec<String> {
            let verbs = text.split(start).skip(1).filter_map(|rest| rest.split_once('('));
            verbs.map(|(name, _)| name.to_owned()).collect()
        };
        let here = include_str!("verbs.rs")
            .split("#[cfg(test)]\nmod tests")
            .next()
            .unwrap();
        let sections = |group: &str| {
            let section = here.split(&format!(" \"{group}\" {{")).nth(1).unwrap();
            let section = section.split("\n}}").next().unwrap();
            let mut all = names(section, "\n    fn ");
            all.extend(names(section, "async fn "));
            all.sort();
            all
        };
        for (group, text) in [
            ("container", include_str!("../containers/manager.rs")),
            ("image", include_str!("../images/mod.rs")),
            ("network", include_str!("../networks/mod.rs")),
            ("volume", include_str!("../volumes/manager.rs")),
            ("system", include_str!("../system/manager.rs")),
            #[cfg(feature = "build")]
            ("build", include_str!("../build/manager.rs")),
        ] {
            let text = text
                .split(": Debug + Send")
                .nth(1)
                .unwrap()
                .split("\n}\n")
                .next()
                .unwrap();
            let mut stated = names(text, "async fn ");
            stated.sort();
            assert!(!stated.is_empty());
            assert_eq!(sections(group), stated, "{group}");
        }
    }

    /// Never answers.
    #[derive(Debug)]
    struct Stuck;

    #[async_trait]
    impl ContainerManager for Stuck {
        async fn stop(&self, _name: &str, _options: StopOptions) -> Result<Outcome> {
            std::future::pending().await
        }

        async fn wait(&self, _name: &str, _condition: WaitCondition) -> Result<Exiting> {
            Ok(Box::pin(std::future::pending()))
        }
    }

    #[test]
    fn a10_a_deadline_works_over_any_managers_and_without_a_runtime() {
        let engine = Engine::from_managers(Managers::default().containers(Arc::new(Stuck)));
        let hasty = engine.deadline(Duration::from_millis(5));
        let stopped = hasty.containers().stop("web", StopOptions::default());
        let late = crate::driver::tests::wait(stopped).unwrap_err();
        assert_eq!(late.kind(), &ErrorKind::Timeout);
        assert_eq!(
            (late.object(), late.step()),
            (Some((ObjectKind::Container, "web")), Some("container.stop"))
        );
        assert!(
            late.to_string().contains("container.stop of container web within 5ms"),
            "{late}"
        );
        let waited = async { hasty.containers().wait("web", WaitCondition::Exited).await?.await };
        assert_eq!(
            crate::driver::tests::wait(waited).unwrap_err().kind(),
            &ErrorKind::Timeout
        );
        let unsupported = engine.containers().kill("web", Signal::KILL);
        assert!(crate::driver::tests::wait(unsupported).unwrap_err().is_unsupported());
    }
}
