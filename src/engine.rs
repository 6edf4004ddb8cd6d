//! The engine: opens the root, starts the driver, picks backends, and hands out handles. The only place that knows all.

#[cfg(all(feature = "engine", feature = "build"))]
mod build;
#[cfg(feature = "engine")]
mod builder;
mod container;
mod ending;
mod exec;
mod fork;
mod image;
#[cfg(feature = "engine")]
mod images;
mod managers;
mod prune;
mod request;
mod run;
mod transfer;
mod verbs;
mod volume;

#[cfg(feature = "engine")]
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

#[cfg(all(feature = "engine", feature = "build"))]
pub use self::build::ImageBuild;
#[cfg(feature = "engine")]
pub use self::builder::{BackendContext, EngineBuilder};
pub use self::container::Container;
pub use self::exec::{ExecBuilder, RunningExec};
pub use self::fork::Template;
pub use self::image::{Image, PullBuilder};
pub use self::managers::Managers;
pub use self::run::{Output, RunBuilder};
pub use self::transfer::{ImportBuilder, LoadBuilder, PushBuilder, SaveBuilder};
pub(crate) use self::verbs::Verb;
use self::verbs::Watch;
pub use self::volume::Volume;
use crate::containers::{ContainerManager, ContainerSpec, ContainerSummary, ListOptions};
#[cfg(feature = "engine")]
use crate::driver::Driver;
use crate::driver::{Clock, Spawner};
#[cfg(feature = "engine")]
use crate::error::Error;
use crate::error::Result;
use crate::events::EventStream;
use crate::images::{ByteStream, ImageManager, ImageSummary, PrunedImages};
#[cfg(feature = "network")]
use crate::networks::NetworkManager;
use crate::probe::Probe;
#[cfg(feature = "engine")]
use crate::system::{Audit, Diagnosis, LocalSystem, Reconciled};
use crate::system::{EventQuery, SystemManager};
use crate::types::Filter;
use crate::volumes::{CreateVolume, VolumeManager};

/// A container engine in this process. Cheap to clone; every clone is a handle of the same engine.
///
/// Containers are bound to it: when the last handle of the engine (its containers' and images' handles count) is gone, or
/// the process ends in whatever way, they end and everything of theirs is removed.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
    /// The managers with what every verb goes through.
    verbs: Arc<Managers>,
    watch: Watch,
}

#[derive(Debug)]
struct Inner {
    managers: Managers,
    local: Option<Local>,
}

/// What only an in-process engine has.
#[cfg(feature = "engine")]
#[derive(Debug)]
struct Local {
    driver: Driver,
    system: LocalSystem,
    #[cfg(feature = "build")]
    builds: crate::build::local::LocalBuilder,
}

/// There is none: every engine stands on managers of another sort.
#[cfg(not(feature = "engine"))]
#[derive(Debug)]
enum Local {}

impl Local {
    #[cfg(feature = "engine")]
    fn spawner(&self) -> &Spawner {
        self.driver.spawner()
    }

    #[cfg(not(feature = "engine"))]
    fn spawner(&self) -> &Spawner {
        match *self {}
    }
}

impl Engine {
    /// Opens the root directory, making it if it is missing, with everything chosen automatically.
    ///
    /// ```no_run
    /// # async fn example() -> longshore::Result<()> {
    /// use longshore::{ContainerSpec, Engine};
    /// let engine = Engine::open(Engine::default_root()?).await?;
    /// let out = engine.run(ContainerSpec::image("busybox").command(["echo", "hello"])).output().await?;
    /// assert_eq!(out.stdout, b"hello\n");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Denied` (another user's root), `ReadOnly`, `NewerVersion`, `Unsupported` (a network file system), `Corrupt`.
    ///
    /// # Cancel safety
    /// A dropped call leaves an empty root at most.
    #[cfg(feature = "engine")]
    pub async fn open(root: impl Into<PathBuf>) -> Result<Self> {
        Self::builder(root).open().await
    }

    /// An engine with choices of one's own.
    #[cfg(feature = "engine")]
    pub fn builder(root: impl Into<PathBuf>) -> EngineBuilder {
        EngineBuilder::new(root.into())
    }

    /// Ends the engine and waits until it holds nothing of its root any more: its containers are ended and removed, its helper and
    /// its thread are gone. Without it that happens when the last handle is dropped, and nobody waits for it. Handles that
    /// are still there answer `Cancelled` from now on. An engine elsewhere goes on; of that one, this handle is dropped.
    ///
    /// Files of the root stay open as long as other handles of the engine are there.
    ///
    /// # Cancel safety
    /// A dropped call ends the engine all the same.
    pub async fn close(self) {
        #[cfg(feature = "engine")]
        if let Some(mut ended) = self.inner.local.as_ref().map(|local| local.driver.end()) {
            drop(self);
            // The thread may have ended long ago.
            let _ = ended.wait_for(|ended| *ended).await;
        }
    }

    /// An engine over managers of one's own: a wrapper, a fake, another machine.
    pub fn from_managers(managers: Managers) -> Self {
        Self::new(managers, None, Clock::Own(OnceLock::new()))
    }

    #[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
    fn new(managers: Managers, local: Option<Local>, clock: Clock) -> Self {
        let watch = Watch {
            clock: Arc::new(clock),
            limit: None,
        };
        Self {
            verbs: Arc::new(watch.all(&managers)),
            inner: Arc::new(Inner { managers, local }),
            watch,
        }
    }

    /// The same engine, each of whose verbs, and of the handles that it gives out, may take so long. One that takes longer
    /// is dropped, as its "Cancel safety" says, and the error is `Timeout` with the verb as its step and the object.
    ///
    /// The limit is for a verb to answer: a stream that it hands out goes on. `wait` answers with the container's end.
    ///
    /// ```no_run
    /// # async fn example(engine: longshore::Engine) -> longshore::Result<()> {
    /// use std::time::Duration;
    /// let images = engine.deadline(Duration::from_secs(2)).list_images(Default::default()).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn deadline(&self, limit: Duration) -> Self {
        self.limited(Some(limit))
    }

    /// The same engine without a limit: for the steps of work that has one as a whole, which must be what tells of it, and
    /// for cleaning up, which no caller waits for.
    pub(crate) fn unlimited(&self) -> Self {
        match self.watch.limit {
            Some(_) => self.limited(None),
            None => self.clone(),
        }
    }

    fn limited(&self, limit: Option<Duration>) -> Self {
        let watch = Watch {
            limit,
            ..self.watch.clone()
        };
        Self {
            verbs: Arc::new(watch.all(&self.inner.managers)),
            inner: Arc::clone(&self.inner),
            watch,
        }
    }

    /// Where an engine's root is by custom: `/var/lib/longshore` for root, else `$XDG_DATA_HOME/longshore` or
    /// `$HOME/.local/share/longshore`. Reads the environment.
    ///
    /// # Errors
    /// `InvalidArgument` if neither variable is set to an absolute path.
    #[cfg(feature = "engine")]
    pub fn default_root() -> Result<PathBuf> {
        if nix::unistd::geteuid().is_root() {
            return Ok("/var/lib/longshore".into());
        }
        let absolute = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let base = absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
        base.map(|base| base.join("longshore")).ok_or_else(|| {
            Error::invalid(
                "no default root: neither XDG_DATA_HOME nor HOME is set to an absolute path; name a directory",
            )
        })
    }

    /// What this host offers to containers, and for each thing it does not, how to get it.
    pub fn probe() -> Probe {
        crate::probe::probe()
    }

    /// What images can do.
    pub fn images(&self) -> &Arc<dyn ImageManager> {
        &self.verbs.images
    }

    /// What containers can do.
    pub fn containers(&self) -> &Arc<dyn ContainerManager> {
        &self.verbs.containers
    }

    /// What networks can do.
    #[cfg(feature = "network")]
    pub fn networks(&self) -> &Arc<dyn NetworkManager> {
        &self.verbs.networks
    }

    /// What volumes can do.
    pub fn volumes(&self) -> &Arc<dyn VolumeManager> {
        &self.verbs.volumes
    }

    /// Makes a volume, or finds the one of that name.
    ///
    /// # Errors
    /// As [`VolumeManager::create`].
    pub async fn create_volume(&self, request: CreateVolume) -> Result<Volume> {
        let info = self.volumes().create(request).await?;
        Ok(Volume::new(self.clone(), info.name))
    }

    /// Makes a volume with what a tar holds, as [`Volume::export`] writes it.
    ///
    /// # Errors
    /// As [`VolumeManager::import`].
    ///
    /// # Cancel safety
    /// As there.
    pub async fn import_volume(&self, into: CreateVolume, archive: ByteStream) -> Result<Volume> {
        let info = self.volumes().import(into, archive).await?;
        Ok(Volume::new(self.clone(), info.name))
    }

    /// A volume by name.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn volume(&self, name: &str) -> Result<Volume> {
        let info = self.volumes().inspect(name).await?;
        Ok(Volume::new(self.clone(), info.name))
    }

    /// What builds can do.
    #[cfg(all(feature = "engine", feature = "build"))]
    pub fn builds(&self) -> &Arc<dyn crate::build::ImageBuilder> {
        &self.verbs.builds
    }

    /// What the engine says of itself: info, events, disk usage.
    pub fn system(&self) -> &Arc<dyn SystemManager> {
        &self.verbs.system
    }

    /// What happens from now on, and with `since_ns` what happened and is still kept: here, and in other processes on the
    /// same root.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown filter.
    ///
    /// # Cancel safety
    /// Nothing is left behind; dropping the stream ends it.
    pub async fn events(&self, query: EventQuery) -> Result<EventStream> {
        self.system().events(query).await
    }

    /// Removes what dead owners left behind, and blobs and layers that belong to no image. What a live owner has is never
    /// touched. An engine clears up after dead owners by itself; this is for those who want it done now.
    ///
    /// # Errors
    /// `Unsupported` for an engine that is not in-process; `Os` for what could not be removed.
    ///
    /// # Cancel safety
    /// What was removed stays removed.
    #[cfg(feature = "engine")]
    pub async fn reconcile(&self) -> Result<Reconciled> {
        let (span, verb) = (
            tracing::info_span!("engine.reconcile"),
            Verb::of_engine("engine.reconcile"),
        );
        let system = &self.local("reconcile")?.system;
        self.watch.run(verb, span, Box::pin(system.reconcile())).await
    }

    /// Compares the records with what is really there: files, layers, locks, processes, cgroups, and mounts as far as this
    /// process can see them. What dead owners left is cleared away first, and counted in [`Audit::cleared`]; what belongs to
    /// a live owner is never touched, nor reported. Takes some milliseconds where all is well; what
    /// is found is looked at again for some two seconds, since verbs may be under way.
    ///
    /// # Errors
    /// `Unsupported` for an engine that is not in-process; those of the records.
    ///
    /// # Cancel safety
    /// What was removed stays removed.
    #[cfg(feature = "engine")]
    pub async fn audit(&self) -> Result<Audit> {
        let (span, verb) = (tracing::info_span!("engine.audit"), Verb::of_engine("engine.audit"));
        let system = &self.local("audit")?.system;
        self.watch.run(verb, span, Box::pin(system.audit())).await
    }

    /// Reads everything that images stand on: every blob is hashed, every layer compared with what its blob says. With `fix`
    /// what is damaged or missing is fetched again, where the image has a name in a registry; unpacked anew; and where
    /// neither can be, an image that cannot be read is removed. What running containers stand on is not touched. It takes
    /// as long as unpacking all images. For a root that cannot be opened see [`Engine::repair`].
    ///
    /// # Errors
    /// `Unsupported` for an engine that is not in-process; those of the records and of the disk.
    ///
    /// # Cancel safety
    /// What was repaired stays repaired.
    #[cfg(feature = "engine")]
    pub async fn doctor(&self, fix: bool) -> Result<Diagnosis> {
        let (span, verb) = (tracing::info_span!("engine.doctor"), Verb::of_engine("engine.doctor"));
        let system = &self.local("doctor")?.system;
        self.watch.run(verb, span, Box::pin(system.doctor(fix))).await
    }

    /// Makes a root that lost a file of its own, or has it damaged, one that can be opened: the file that says its version,
    /// the recorded choices of backends, the databases. A database that cannot be read is put aside, beside itself, and a new
    /// one is made; what it recorded of images is found again by [`Engine::doctor`]. Says what was done. Blocking.
    ///
    /// # Errors
    /// - `InvalidArgument` for a directory that is no root
    /// - `Conflict` while an engine has it open
    /// - `Denied`, `ReadOnly`, `NewerVersion`, `Os`
    #[cfg(feature = "engine")]
    pub fn repair(root: impl AsRef<std::path::Path>) -> Result<Vec<String>> {
        crate::store::repair(root.as_ref())
    }

    /// Makes callers of this engine go away at an await of a test's choice, to show that nothing is left then.
    ///
    /// # Errors
    /// `Unsupported` for an engine that is not in-process.
    #[cfg(feature = "conformance")]
    pub fn abandon(&self) -> Result<&crate::driver::Abandon> {
        Ok(self.local("abandon")?.spawner().abandon())
    }

    #[cfg(all(feature = "engine", feature = "build"))]
    pub(crate) fn local_builds(&self, verb: &'static str) -> Result<&crate::build::local::LocalBuilder> {
        Ok(&self.local(verb)?.builds)
    }

    #[cfg(feature = "engine")]
    fn local(&self, verb: &'static str) -> Result<&Local> {
        self.inner.local.as_ref().ok_or_else(|| Error::unsupported_verb(verb))
    }

    /// Builds an image. See [`BuildSpec`](crate::build::BuildSpec).
    #[cfg(all(feature = "engine", feature = "build"))]
    pub fn build(&self, spec: crate::build::BuildSpec) -> ImageBuild {
        ImageBuild::new(self.clone(), spec)
    }

    /// Pulls an image: `busybox`, `host/repo@sha256:…`, `oci:DIR:TAG`.
    pub fn pull(&self, source: impl Into<String>) -> PullBuilder {
        PullBuilder::new(self.clone(), source.into())
    }

    /// Pushes an image to the registry that its name says.
    pub fn push(&self, name: impl Into<String>) -> PushBuilder {
        PushBuilder::new(self.clone(), name.into())
    }

    /// Writes images into one archive. A repository without a tag means all its tags.
    pub fn save<I: Into<String>>(&self, images: impl IntoIterator<Item = I>) -> SaveBuilder {
        SaveBuilder::new(self.clone(), images.into_iter().map(Into::into).collect())
    }

    /// Takes images from an archive: Docker's or an OCI layout in a tar, plain or compressed.
    pub fn load(&self, archive: ByteStream) -> LoadBuilder {
        LoadBuilder::new(self.clone(), archive)
    }

    /// Makes an image of one layer from the tar of a root file system.
    pub fn import(&self, archive: ByteStream) -> ImportBuilder {
        ImportBuilder::new(self.clone(), archive)
    }

    /// Removes images that no container uses. See [`ImageManager::prune`].
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown filter.
    pub async fn prune_images(&self, filter: Filter) -> Result<PrunedImages> {
        self.images().prune(filter).await
    }

    /// An image that is here, by name, id or prefix.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn image(&self, name: &str) -> Result<Image> {
        let info = self.images().inspect(name).await?;
        Ok(Image::new(self.clone(), info.id))
    }

    /// Images that are here.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown filter.
    pub async fn list_images(&self, filter: Filter) -> Result<Vec<ImageSummary>> {
        self.images().list(filter).await
    }

    /// Creates a container and starts it when awaited; [`RunBuilder::output`] runs it to its end.
    pub fn run(&self, spec: ContainerSpec) -> RunBuilder {
        RunBuilder::new(self.clone(), spec)
    }

    /// Creates a container of an image that is here.
    ///
    /// # Errors
    /// As [`ContainerManager::create`].
    pub async fn create(&self, spec: ContainerSpec) -> Result<Container> {
        let created = self.containers().create(spec).await?;
        Ok(Container::new(self.clone(), created.id, created.warnings))
    }

    /// A container by name, id or prefix.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn container(&self, name: &str) -> Result<Container> {
        let info = self.containers().inspect(name).await?;
        Ok(Container::new(self.clone(), info.id, Vec::new()))
    }

    /// Containers, the newest first.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown filter.
    pub async fn list(&self, options: ListOptions) -> Result<Vec<ContainerSummary>> {
        self.containers().list(options).await
    }

    /// Runs work that nobody waits for: on the driver, or where there is none on the runtime at hand.
    pub(crate) fn detach(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let (None, Ok(runtime)) = (&self.inner.local, tokio::runtime::Handle::try_current()) {
            runtime.spawn(work);
            return;
        }
        match self.watch.clock.spawner() {
            Ok(spawner) => spawner.detach(work),
            Err(error) => tracing::warn!(error = error.report(), "no thread to finish abandoned work on"),
        }
    }

    /// Work of several verbs, with a limit of its own, else that of this handle. It runs on the driver where there is one, so
    /// that steps which follow each other there need no word from here. Dropping it drops the work.
    pub(crate) async fn within<T: Send + 'static>(
        &self,
        verb: Verb<'_>,
        limit: Option<Duration>,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let limit = limit.or(self.watch.limit);
        match &self.inner.local {
            Some(local) => {
                let work = local.spawner().call_blocking(work);
                self.watch.in_time(verb, limit, Box::pin(work)).await
            }
            None => self.watch.in_time(verb, limit, Box::pin(work)).await,
        }
    }
}
