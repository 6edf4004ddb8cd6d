//! Opening an engine: the root, the databases, the backends by name, and the driver that holds it all.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::images::{DriverImages, settle};
use super::verbs::{Verb, Watch};
use super::{Engine, Local, Managers};
#[cfg(feature = "build")]
use crate::build::local::{LocalBuilder, Parts as BuildParts};
use crate::containers::runtimes::Runtimes;
use crate::containers::{Lifetime, LocalContainers, Parts, nobody_of};
use crate::driver::{Clock, Driver, Spawner};
use crate::error::{Error, ObjectKind, Result};
use crate::images::{AdditionalStore, ImageManager, LocalImages, LocalImagesParts};
use crate::logs::{LogDriver, LogDrivers};
#[cfg(feature = "network")]
use crate::networks::{Drivers, LocalNetworks, NetworkDriver, Own, Parts as NetworkParts};
use crate::registry::RegistryProvider;
use crate::runtime::Isolation;
use crate::runtime::Runtime;
use crate::runtime::cgroups::{CgroupDriver, NativeCgroups};
use crate::runtime::chroot;
use crate::runtime::native::seccomp::SeccompAgent;
use crate::runtime::native::{IdMapping, NativeOptions, NativeRuntime};
use crate::storage::content::local::LocalContent;
use crate::storage::ownership::{Ownership, Privileged};
use crate::storage::snapshot::overlayfs::Overlayfs;
use crate::storage::snapshot::vfs::Vfs;
use crate::storage::snapshot::{self, Snapshotter};
use crate::storage::unpack::Unpacker;
use crate::store::{OtherRoot, Owner, Root, Store};
use crate::system::{LocalSystem, Parts as SystemParts};
use crate::types::{IdRange, OwnerId};
use crate::volumes::{Finder, LocalVolumes, LocalVolumesParts, VolumeDriver};

/// The seam's name in the root.
const SNAPSHOTTER: &str = "snapshotter";
/// The seam's name in the root.
const OWNERSHIP: &str = "ownership";

/// When an engine looks for layers that no other has put on the disk: not at once, since who unpacks them is about to.
const SETTLE_LATER: Duration = Duration::from_secs(5);

/// What a constructor of a backend is told.
#[derive(Debug)]
#[non_exhaustive]
pub struct BackendContext<'a> {
    dir: &'a Path,
    ownership: &'a Ownership,
}

impl BackendContext<'_> {
    /// The directory that is the backend's alone.
    pub fn dir(&self) -> &Path {
        self.dir
    }

    /// How owners of files are kept.
    pub fn ownership(&self) -> &Ownership {
        self.ownership
    }
}

type SnapshotterMaker = Arc<dyn Fn(&BackendContext<'_>) -> Result<Arc<dyn Snapshotter>> + Send + Sync>;

/// What opening makes.
struct Opened {
    owner: Owner,
    native: Arc<NativeRuntime>,
    images: Arc<LocalImages>,
    containers: LocalContainers,
    volumes: LocalVolumes,
    system: LocalSystem,
    snapshotter: Arc<dyn Snapshotter>,
    /// Whether owners died and nobody cleared up after them.
    remains: bool,
    #[cfg(feature = "network")]
    networks: LocalNetworks,
    #[cfg(feature = "build")]
    builds: LocalBuilder,
}

impl Opened {
    /// Ends what nobody waits for any more.
    async fn close(self) {
        self.containers.0.close().await;
        self.native.close().await;
        drop(self.owner);
    }
}

/// An engine with choices of one's own. Every choice has a default.
#[must_use = "nothing is opened until `open`"]
pub struct EngineBuilder {
    root: PathBuf,
    snapshotter: Option<String>,
    snapshotters: Vec<(String, SnapshotterMaker)>,
    runtime: Option<Arc<dyn Runtime>>,
    default_runtime: Option<String>,
    oci_runtimes: Arc<BTreeMap<String, PathBuf>>,
    cgroups: Option<Arc<dyn CgroupDriver>>,
    container_ids: Option<IdRange>,
    isolation: Isolation,
    seccomp_agent: Option<Arc<dyn SeccompAgent>>,
    registries: Option<Arc<dyn RegistryProvider>>,
    publish_at: Option<IpAddr>,
    additional: Vec<PathBuf>,
    logs: LogDrivers,
    volume_drivers: Arc<BTreeMap<String, Arc<dyn VolumeDriver>>>,
    volume_finder: Option<Finder>,
    #[cfg(feature = "network")]
    network_drivers: Option<Box<Drivers>>,
    lifetime: Lifetime,
    /// Those of the specification, if nothing is said.
    cdi: Option<Arc<[PathBuf]>>,
    supervise: bool,
    deadline: Option<Duration>,
}

impl fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own: Vec<&String> = self.snapshotters.iter().map(|(name, _)| name).collect();
        f.debug_struct("EngineBuilder")
            .field("root", &self.root)
            .field("snapshotter", &self.snapshotter)
            .field("own_snapshotters", &own)
            .finish_non_exhaustive()
    }
}

impl EngineBuilder {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self {
            root,
            snapshotter: None,
            snapshotters: Vec::new(),
            runtime: None,
            default_runtime: None,
            oci_runtimes: Arc::default(),
            cgroups: None,
            container_ids: None,
            isolation: Isolation::default(),
            seccomp_agent: None,
            registries: None,
            publish_at: None,
            additional: Vec::new(),
            logs: LogDrivers::default(),
            volume_drivers: Arc::default(),
            volume_finder: None,
            #[cfg(feature = "network")]
            network_drivers: None,
            lifetime: Lifetime::Bound,
            cdi: None,
            supervise: false,
            deadline: None,
        }
    }

    /// Makes a storage driver of one's own known under a name. Choose it with [`EngineBuilder::snapshotter`].
    pub fn with_snapshotter<S: Snapshotter>(
        mut self,
        name: impl Into<String>,
        make: impl Fn(&BackendContext<'_>) -> Result<S> + Send + Sync + 'static,
    ) -> Self {
        let make: SnapshotterMaker = Arc::new(move |context| Ok(Arc::new(make(context)?)));
        self.snapshotters.push((name.into(), make));
        self
    }

    /// Chooses the storage driver: `overlayfs`, `vfs`, or one's own. The default is the one that the root was made with,
    /// and for a new root the best that works there. A root keeps its driver for life.
    pub fn snapshotter(mut self, name: impl Into<String>) -> Self {
        self.snapshotter = Some(name.into());
        self
    }

    /// Starts containers with a runtime of one's own.
    pub fn runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Chooses by name who starts containers that do not say it themselves
    /// ([`ContainerSpec::runtime`](crate::ContainerSpec::runtime)): `runc` or `crun` where the host has it, one of
    /// [`EngineBuilder::with_oci_runtime`], or `native`. Default what [`EngineBuilder::runtime`] says, else `native`. An external
    /// one needs [`Lifetime::Bound`]; [`OciRuntime`](crate::runtime::oci::OciRuntime) says what else. Builds have the native one.
    ///
    /// `chroot` is for root on hosts that grant no namespaces, within an ordinary container of Docker's, say, and is weak:
    /// [`ChrootRuntime`](crate::runtime::chroot::ChrootRuntime) says what is missing. An engine that is opened for it has no other
    /// runtime, runs no commands of builds, and a new root has the storage driver `vfs`; its containers name the host's network.
    ///
    /// [`EngineBuilder::open`] answers `InvalidArgument` for a name that nobody made known, and `Unsupported` for a program that
    /// is not installed.
    pub fn default_runtime(mut self, name: impl Into<String>) -> Self {
        self.default_runtime = Some(name.into());
        self
    }

    /// Makes an external OCI runtime known under a name: the absolute path of a program with runc's command line.
    pub fn with_oci_runtime(mut self, name: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        Arc::make_mut(&mut self.oci_runtimes).insert(name.into(), program.into());
        self
    }

    /// Limits containers with a cgroup driver of one's own.
    pub fn cgroups(mut self, driver: Arc<dyn CgroupDriver>) -> Self {
        self.cgroups = Some(driver);
        self
    }

    /// As root: the ids of containers that ask for a user namespace of their own, users and groups alike. Without it, root's
    /// ranges in `/etc/subuid` and `/etc/subgid`. An ordinary user's containers have the ids of the engine.
    pub fn container_ids(mut self, ids: IdRange) -> Self {
        self.container_ids = Some(ids);
        self
    }

    /// What becomes of containers where the host cannot keep them apart as they should be, within another container, say.
    /// Default [`Isolation::Strict`].
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// Who answers the system calls that seccomp profiles hand out (`SCMP_ACT_NOTIFY`). Without it, such a profile is an error of
    /// the start. [`SeccompAgent`] says what it may decide, and what not.
    pub fn seccomp_agent(mut self, agent: Arc<dyn SeccompAgent>) -> Self {
        self.seccomp_agent = Some(agent);
        self
    }

    /// Finds registries in a way of one's own: mirrors, credentials, certificates.
    pub fn registries(mut self, provider: Arc<dyn RegistryProvider>) -> Self {
        self.registries = Some(provider);
        self
    }

    /// Looks for images that the root does not have in another root, too, which is never written to: a cache that is mounted
    /// read-only, say, or the root of another engine. Its images are used where they are; what is made of them is of this root.
    /// Called again, it adds another one; they are asked in this order, after the root itself.
    ///
    /// Layers are used in place by `overlayfs`, where the other root was made with it, by the same user and for the same kind
    /// of ids. Otherwise they are unpacked into this root from the blobs of the other. What is removed there while it is used
    /// here is an error of the next start, and so is an image of a store that the next engine is not told of.
    ///
    /// [`ImageSummary::lent_by`](crate::images::ImageSummary::lent_by) says of which store an image is;
    /// removing one that is only there is `ReadOnly`. [`EngineBuilder::open`] answers `NotFound`, `InvalidArgument`, `Corrupt`
    /// or `NewerVersion` for a store that is missing, none, damaged or too new.
    pub fn additional_store(mut self, root: impl Into<PathBuf>) -> Self {
        self.additional.push(root.into());
        self
    }

    /// Keeps logs with a driver of one's own, or with one of ours that is told otherwise. Containers that name another have that
    /// one.
    pub fn logs(mut self, driver: Arc<dyn LogDriver>) -> Self {
        self.logs.set_usual(driver);
        self
    }

    /// Makes a log driver of one's own known under its name, for containers that name it
    /// ([`LogConfig`](crate::LogConfig)): journald, syslog, a service. There are `local`, `json-file` and `none` already.
    pub fn with_log_driver(mut self, driver: Arc<dyn LogDriver>) -> Self {
        self.logs.add(driver);
        self
    }

    /// The address of the host at which ports are published that name none: 127.0.0.1 keeps them from other machines.
    /// Without it, all addresses, as Docker.
    pub fn publish_at(mut self, address: IpAddr) -> Self {
        self.publish_at = Some(address);
        self
    }

    /// Makes a volume driver of one's own known under a name; in the place of ours, under `local` or `tmpfs`.
    pub fn with_volume_driver(mut self, name: impl Into<String>, driver: Arc<dyn VolumeDriver>) -> Self {
        Arc::make_mut(&mut self.volume_drivers).insert(name.into(), driver);
        self
    }

    /// Looks for volume drivers that nobody made known among the plugins of Docker's that are in these places, by name, when
    /// they are asked for.
    #[cfg(feature = "plugins")]
    pub fn with_volume_plugins(mut self, places: crate::volumes::PluginPlaces) -> Self {
        self.volume_finder = Some(crate::volumes::finder(places));
        self
    }

    /// Makes a network driver of one's own known under a name, for networks that name it
    /// ([`NetworkSpec::of_driver`](crate::networks::NetworkSpec::of_driver)). Those of ours keep their names.
    ///
    /// [`EngineBuilder::open`] answers `InvalidArgument` for a name that cannot be one.
    #[cfg(feature = "network")]
    pub fn with_network_driver(mut self, name: impl Into<String>, driver: Arc<dyn NetworkDriver>) -> Self {
        self.network_drivers.get_or_insert_default().insert(name.into(), driver);
        self
    }

    /// How long containers live that do not say so themselves; default [`Lifetime::Bound`].
    pub fn lifetime(mut self, lifetime: Lifetime) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Where specifications of the Container Device Interface are, JSON files; of two directories the later one counts. Default
    /// `/etc/cdi` and `/var/run/cdi`. None at all: there are no such devices.
    pub fn cdi_directories<P: Into<PathBuf>>(mut self, directories: impl IntoIterator<Item = P>) -> Self {
        self.cdi = Some(directories.into_iter().map(Into::into).collect());
        self
    }

    /// Whether this engine watches over detached containers where no other does: it records their ends as they come, removes
    /// those that go with their end, and starts again what a reboot ended and its policy wants. Of several engines that are to,
    /// one does, and another when that one is gone.
    pub fn supervise(mut self, supervise: bool) -> Self {
        self.supervise = supervise;
        self
    }

    /// How long opening may take. For the verbs of the engine see [`Engine::deadline`].
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.deadline = Some(limit);
        self
    }

    /// Opens the engine.
    ///
    /// # Errors
    /// As [`Engine::open`]; also `Conflict` if the root was made with another storage driver, and `NotFound` for a driver
    /// that nobody made known; `Unsupported` for what is not there yet; `Timeout`.
    ///
    /// # Cancel safety
    /// A dropped call leaves an empty root at most.
    pub async fn open(self) -> Result<Engine> {
        let driver = Driver::start()?;
        let watch = Watch {
            clock: Arc::new(Clock::Engine(driver.spawner().clone())),
            limit: self.deadline,
        };
        let root = self.root.display().to_string();
        let span = tracing::info_span!("engine.open", root);
        let verb = Verb::of("engine.open", ObjectKind::Root, &root);
        // Each layer around it would keep a place for it in the caller's future, and on its stack.
        watch.run(verb, span, Box::pin(self.open_on(driver))).await
    }

    async fn open_on(self, mut driver: Driver) -> Result<Engine> {
        let spawner = driver.spawner().clone();
        let own = spawner.clone();
        let supervise = self.supervise;
        #[cfg(feature = "network")]
        let has_drivers = self.network_drivers.is_some();
        let opened = spawner.tail(|_| self.open_on_driver(own), Opened::close).await?;
        let Opened {
            owner,
            native,
            images,
            containers,
            volumes,
            system,
            snapshotter,
            remains,
            #[cfg(feature = "network")]
            networks,
            #[cfg(feature = "build")]
            builds,
        } = opened;
        #[cfg(feature = "network")]
        let ending = networks.clone();
        #[cfg(feature = "network")]
        if has_drivers {
            networks.clear_left_later();
        }
        let own = containers.clone();
        let clearing = remains.then(|| {
            let first = system.clone();
            spawner.background(async move { first.sweep_quietly().await })
        });
        let (last, under_way) = (system.clone(), spawner.clone());
        driver.at_end(async move {
            if let Some(clearing) = clearing {
                // The next engine goes on with it.
                clearing.abort();
            }
            #[cfg(feature = "network")]
            ending.will_end();
            own.0.close().await;
            #[cfg(feature = "network")]
            ending.end().await;
            native.end().await;
            let gone = owner.id().clone();
            drop(owner);
            // What is under way may leave something still, which is found by its owner.
            if under_way.finish_tails().await {
                last.forget_quietly(gone).await;
            }
        });
        if supervise {
            let watching = Arc::clone(&containers.0);
            spawner.background(async move { watching.supervise().await });
        }
        let left = Arc::clone(&snapshotter);
        spawner.background(async move {
            tokio::time::sleep(SETTLE_LATER).await;
            settle(left.as_ref()).await;
        });
        let clock = spawner.clone();
        let local = Local {
            driver,
            system: system.clone(),
            #[cfg(feature = "build")]
            builds: builds.clone(),
        };
        let managers = Managers {
            #[cfg(feature = "network")]
            networks: Arc::new(networks),
            images: Arc::new(DriverImages {
                spawner,
                inner: images,
                snapshotter,
            }),
            containers: Arc::new(containers),
            volumes: Arc::new(volumes),
            system: Arc::new(system),
            #[cfg(feature = "build")]
            builds: Arc::new(builds),
        };
        Ok(Engine::new(managers, Some(local), Clock::Engine(clock)))
    }

    /// Opens; a helper process that an opening in vain has begun is ended and reaped.
    async fn open_on_driver(self, spawner: Spawner) -> Result<Opened> {
        let begun = Arc::<OnceLock<Arc<NativeRuntime>>>::default();
        let native = Arc::clone(&begun);
        let opened = tokio::task::spawn_blocking(move || self.open_now(spawner, &native)).await;
        let opened =
            opened.unwrap_or_else(|error| Err(Error::internal("opening the engine panicked").with_source(error)));
        if let (Err(_), Some(native)) = (&opened, begun.get()) {
            native.close().await;
        }
        opened
    }

    /// Everything that blocks.
    fn open_now(self, spawner: Spawner, begun: &OnceLock<Arc<NativeRuntime>>) -> Result<Opened> {
        let root = Root::open(&self.root)?;
        let (owners, owner) = (root.owners(), root.owners().register()?);
        let store = Store::open(&root)?;
        let cgroups = self
            .cgroups
            .clone()
            .unwrap_or_else(|| Arc::new(NativeCgroups::new(owner.id())));
        let apart = self.is_apart()?;
        let native = Arc::clone(begun.get_or_init({
            let native = Arc::new(native(
                &owner,
                Arc::clone(&cgroups),
                &nobody_of(root.path())?,
                NativeOptions {
                    container_ids: self.container_ids,
                    isolation: self.isolation,
                    seccomp_agent: self.seccomp_agent.clone(),
                    reactor: Some(spawner.runtime()),
                    user_namespace: apart.then_some(false),
                    apart,
                    ..NativeOptions::default()
                },
            )?);
            || native
        }));
        let ownership = choose_ownership(&root, &native)?;
        root.recorded_backend(OWNERSHIP, ownership_name(&ownership))?;
        let (snapshotter, storage_reason) = self.choose_snapshotter(&root, &ownership, &native)?;
        let additional = self.additional_stores(&root, snapshotter.name(), &ownership)?;
        let mut content = LocalContent::open(root.content(), owner.id().as_str())?;
        if !additional.is_empty() {
            content = content.with_more(additional.iter().map(|store| store.root.content()));
        }
        let parts = Storage {
            content: &content,
            snapshotter: &snapshotter,
            ownership: &ownership,
            additional,
        };
        let images = Arc::new(self.images(&root, &owner, &store, parts)?);
        let runtimes = self.runtimes(&native)?;
        let logs = self.logs.clone();
        #[cfg(feature = "network")]
        let own = match &self.network_drivers {
            None => None,
            Some(drivers) => Some(own_networks(drivers, &root, &owner)?),
        };
        #[cfg(feature = "network")]
        let networks = LocalNetworks::new(NetworkParts {
            spawner: spawner.clone(),
            store: store.clone(),
            owner: owner.id().clone(),
            native: Arc::clone(&native),
            publish_at: self.publish_at,
            own,
        });
        let volumes = LocalVolumes::open(LocalVolumesParts {
            spawner: spawner.clone(),
            store: store.clone(),
            owners: owners.clone(),
            owner: owner.id().clone(),
            locks: root.locks(),
            dir: root.volumes(),
            ownership: ownership.clone(),
            native: Arc::clone(&native),
            drivers: Arc::clone(&self.volume_drivers),
            finder: self.volume_finder.clone(),
        })?;
        let containers = LocalContainers::new(Parts {
            #[cfg(feature = "network")]
            networks: networks.clone(),
            spawner: spawner.clone(),
            store: store.clone(),
            owners: owners.clone(),
            owner: owner.id().clone(),
            images: Arc::clone(&images) as Arc<dyn ImageManager>,
            snapshotter: Arc::clone(&snapshotter),
            runtimes: Arc::clone(&runtimes),
            logs: logs.clone(),
            dir: root.containers(),
            ownership: ownership_name(&ownership),
            layers: ownership.clone(),
            native: native.uses_user_namespace().then(|| Arc::clone(&native)),
            root: Arc::clone(&native),
            volumes: volumes.clone(),
            locks: root.locks(),
            lifetime: self.lifetime,
            cdi: self.cdi.clone(),
        });
        #[cfg(feature = "build")]
        let builds = LocalBuilder::new(BuildParts {
            spawner: spawner.clone(),
            store: store.clone(),
            owner: owner.id().clone(),
            images: Arc::clone(&images),
            containers: containers.clone(),
            snapshotter: Arc::clone(&snapshotter),
            locks: root.locks(),
            dir: root.builds(),
            caches: root.caches(),
            layers: ownership.clone(),
            native: native.uses_user_namespace().then(|| Arc::clone(&native)),
            root: Arc::clone(&native),
        });
        // Mostly nobody has died. If it cannot be told, who sweeps says why.
        let remains = !owners.dead().is_ok_and(|dead| dead.is_empty());
        let system = LocalSystem::new(SystemParts {
            #[cfg(feature = "network")]
            networks: networks.clone(),
            spawner,
            root,
            owner: owner.id().clone(),
            owners,
            store,
            content,
            snapshotter: Arc::clone(&snapshotter),
            storage_reason,
            images: Arc::clone(&images),
            containers: containers.clone(),
            volumes: volumes.clone(),
            runtime: runtimes.default_name().to_owned(),
            logs: logs.usual().name().to_owned(),
            cgroups,
            ownership: ownership_name(&ownership),
        });
        Ok(Opened {
            owner,
            native,
            images,
            containers,
            volumes,
            system,
            snapshotter,
            remains,
            #[cfg(feature = "network")]
            networks,
            #[cfg(feature = "build")]
            builds,
        })
    }

    /// Whether it is opened for the runtime `chroot`, and this process may use that.
    #[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
    fn is_apart(&self) -> Result<bool> {
        match self.default_runtime.as_deref() {
            Some(chroot::NAME) => chroot::missing().map(|()| true),
            _ => Ok(false),
        }
    }

    /// Those that containers can have. A default that cannot be had is told of now.
    #[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
    fn runtimes(&self, native: &Arc<NativeRuntime>) -> Result<Arc<Runtimes>> {
        let usual = self.runtime.clone();
        let runtimes = Runtimes {
            native: Arc::clone(native),
            usual: usual.unwrap_or_else(|| Arc::clone(native) as Arc<dyn Runtime>),
            chosen: self.default_runtime.clone(),
            programs: Arc::clone(&self.oci_runtimes),
        };
        if self.default_runtime.is_some() {
            runtimes.named(None)?;
        }
        Ok(Arc::new(runtimes))
    }

    fn images(&self, root: &Root, owner: &Owner, store: &Store, storage: Storage<'_>) -> Result<LocalImages> {
        let Storage {
            content,
            snapshotter,
            ownership,
            additional,
        } = storage;
        let content = Arc::new(content.clone());
        let locks = root.path().join("locks");
        let owner = owner.id().clone();
        let unpacker = Unpacker::new(
            content.clone(),
            Arc::clone(snapshotter),
            ownership.clone(),
            locks,
            owner.as_str(),
        )?;
        Ok(LocalImages::new(LocalImagesParts {
            store: store.clone(),
            owner,
            content,
            snapshotter: Arc::clone(snapshotter),
            unpacker,
            registries: self.registries.clone().unwrap_or_else(registries),
            additional: additional.into(),
        }))
    }

    fn additional_stores(&self, root: &Root, snapshotter: &str, ownership: &Ownership) -> Result<Vec<AdditionalStore>> {
        if self.additional.is_empty() {
            return Ok(Vec::new());
        }
        let open = |path: &PathBuf| {
            let other = OtherRoot::open(path, root)?;
            let same_driver = other.backend(SNAPSHOTTER)?.as_deref() == Some(snapshotter);
            let same_ids = other.backend(OWNERSHIP)?.as_deref() == Some(ownership_name(ownership));
            let in_place = same_driver && same_ids && other.is_mine();
            Ok(AdditionalStore {
                layers: in_place.then(|| other.snapshots()),
                root: other,
            })
        };
        self.additional.iter().map(open).collect()
    }

    /// The driver asked for, else the root's, else the best that works; and why.
    fn choose_snapshotter(
        &self,
        root: &Root,
        ownership: &Ownership,
        native: &NativeRuntime,
    ) -> Result<(Arc<dyn Snapshotter>, String)> {
        let recorded = root.backend(SNAPSHOTTER)?;
        let (made, reason) = match (&self.snapshotter, recorded) {
            (Some(name), _) => (
                self.make_snapshotter(name, root, ownership)?,
                "it was asked for".to_owned(),
            ),
            (None, Some(name)) => (
                self.make_snapshotter(&name, root, ownership)?,
                "the root was made with it".to_owned(),
            ),
            (None, None) => {
                let probe = |mounts: &[_]| native.mount(mounts).map(drop);
                snapshot::auto(root.snapshots(), user_xattr(ownership), ownership.clone(), &probe)?
            }
        };
        root.recorded_backend(SNAPSHOTTER, made.name())?;
        Ok((made, reason))
    }

    fn make_snapshotter(&self, name: &str, root: &Root, ownership: &Ownership) -> Result<Arc<dyn Snapshotter>> {
        let dir = root.snapshots();
        // Of two with one name the later counts.
        if let Some((_, make)) = self.snapshotters.iter().rev().find(|(known, _)| known == name) {
            return make(&BackendContext { dir: &dir, ownership });
        }
        match name {
            "overlayfs" => Ok(Arc::new(Overlayfs::open(
                dir,
                user_xattr(ownership),
                ownership.clone(),
            )?)),
            "vfs" => Ok(Arc::new(Vfs::open(dir, ownership.clone())?)),
            _ => Err(Error::not_found(ObjectKind::Backend, name).context(format!(
                "no storage driver is called {name:?}; make it known with with_snapshotter"
            ))),
        }
    }
}

/// Nothing that an engine without such drivers runs.
#[cfg(feature = "network")]
#[cold]
#[inline(never)]
fn own_networks(drivers: &Drivers, root: &Root, owner: &Owner) -> Result<Arc<Own>> {
    let who = (root.locks(), root.owners(), owner.id().clone());
    Own::new(drivers.clone(), root.networks(), who)
}

/// Where images are put.
struct Storage<'a> {
    content: &'a LocalContent,
    snapshotter: &'a Arc<dyn Snapshotter>,
    ownership: &'a Ownership,
    additional: Vec<AdditionalStore>,
}

/// The zygote keeps the owner's lock until it has cleaned up.
fn native(
    owner: &Owner,
    cgroups: Arc<dyn CgroupDriver>,
    nobody: &OwnerId,
    chosen: NativeOptions,
) -> Result<NativeRuntime> {
    let options = NativeOptions {
        owner_lock: Some(owner.dup_lock()?),
        cgroups: Some(cgroups),
        // Those of containers that outlive this owner are nobody's.
        detached_cgroups: Some(Arc::new(NativeCgroups::new(nobody))),
        ..chosen
    };
    Ok(NativeRuntime::new(options))
}

/// Mounts of an ordinary user are made in a user namespace, where overlay cannot use `trusted.*`.
fn user_xattr(ownership: &Ownership) -> bool {
    !matches!(ownership, Ownership::Direct)
}

/// What the root was made with; a new root asks the host, which starts the zygote of an ordinary user.
fn choose_ownership(root: &Root, native: &Arc<NativeRuntime>) -> Result<Ownership> {
    let mapped = || Ownership::Mapped(Arc::clone(native) as Arc<dyn Privileged>);
    if !native.uses_user_namespace() {
        return Ok(Ownership::Direct);
    }
    match root.backend(OWNERSHIP)?.as_deref() {
        Some("mapped") => return Ok(mapped()),
        Some("squashed") => return Ok(Ownership::Squashed),
        _ => {}
    }
    Ok(match native.info()?.mapping {
        IdMapping::Single => Ownership::Squashed,
        _ => mapped(),
    })
}

fn ownership_name(ownership: &Ownership) -> &'static str {
    match ownership {
        Ownership::Direct => "direct",
        Ownership::Mapped(_) => "mapped",
        Ownership::Squashed => "squashed",
    }
}

#[cfg(feature = "registry")]
fn registries() -> Arc<dyn RegistryProvider> {
    Arc::new(crate::registry::http::HttpRegistries::default())
}

#[cfg(not(feature = "registry"))]
fn registries() -> Arc<dyn RegistryProvider> {
    Arc::new(crate::registry::NoRegistries)
}
