//! The native runtime: containers started by a small static helper, without any other program. `docs/process-model.md`
//! tells how the processes hang together.

#[cfg(feature = "engine")]
pub(crate) mod apart;
mod created;
#[cfg(feature = "engine")]
mod criu;
mod exec;
#[cfg(feature = "engine")]
mod fuse;
pub(crate) mod helper;
pub(crate) mod hidden;
pub(crate) mod hooks;
#[cfg(feature = "network")]
pub(crate) mod house;
pub(crate) mod hunt;
mod idmap;
mod options;
pub(crate) mod parent;
pub(crate) mod plan;
#[cfg(feature = "engine")]
mod privileged;
pub mod seccomp;
#[cfg(feature = "engine")]
mod shim;
#[cfg(feature = "engine")]
pub(crate) mod sight;
pub(crate) mod start;
mod step;
mod task;
#[cfg(test)]
mod tests;
#[cfg(feature = "engine")]
pub(crate) mod tool;
pub(crate) mod zygote;

#[cfg(feature = "engine")]
pub(crate) use self::step::words as step_name;

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
#[cfg(feature = "engine")]
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use async_trait::async_trait;

pub use self::created::Created;
use self::hidden::Hidden;
use self::idmap::ContainerIds;
pub use self::idmap::IdMapping;
use self::plan::Host;
#[cfg(feature = "engine")]
pub(crate) use self::step::copies_mounts;
use self::zygote::{Zygote, ZygoteOptions};
#[cfg(feature = "engine")]
use super::Restore;
use super::cgroups::CgroupDriver;
use super::{Isolation, Launch, Runtime, Started};
use oci_spec::runtime::LinuxResources;

use crate::error::{Error, Result};
use crate::sys::blocking::blocking;
use crate::types::{IdRange, Mount};

/// How the native runtime is set up.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct NativeOptions {
    /// Held open by the zygote until it has cleaned up after its owner: a lock on it says that the owner, or its clean-up,
    /// is alive.
    pub owner_lock: Option<OwnedFd>,
    /// Whether to make a user namespace. `None`: unless the process has `CAP_SYS_ADMIN`.
    pub user_namespace: Option<bool>,
    /// Where limits and accounting come from. Without it, a limit is an error unless best effort is asked for.
    pub cgroups: Option<Arc<dyn CgroupDriver>>,
    /// As `cgroups`, for detached containers, which are no owner's.
    #[cfg(feature = "engine")]
    pub detached_cgroups: Option<Arc<dyn CgroupDriver>>,
    /// Ids for containers that want a user namespace of their own, users and groups alike. Without it, root takes its
    /// ranges in `/etc/subuid` and `/etc/subgid`. An ordinary user has the ids of the engine's user namespace, always.
    pub container_ids: Option<IdRange>,
    /// Who answers the calls that seccomp profiles hand out (`SCMP_ACT_NOTIFY`). Without it, such a profile is `Unsupported`.
    pub seccomp_agent: Option<Arc<dyn seccomp::SeccompAgent>>,
    /// What becomes of containers where the host cannot keep them apart as they should be.
    pub isolation: Isolation,
    /// Which runtime, with I/O enabled, listens to the zygote. Without it, the one that is entered where the zygote is first
    /// needed, which must live as long as what is made of this.
    pub reactor: Option<tokio::runtime::Handle>,
    /// The helper makes no namespace: it only looks after what the runtime `chroot` starts.
    #[cfg(feature = "engine")]
    pub(crate) apart: bool,
}

/// Starts containers with the helper's zygote, which is spawned at the first use.
///
/// Its futures must be polled in a tokio runtime with I/O enabled; the first to use it must live as long as this, unless
/// [`NativeOptions::reactor`] names one.
#[derive(Debug)]
pub struct NativeRuntime {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: NativeOptions,
    /// That of the options, for as long as there may be a zygote.
    owner_lock: Mutex<Option<OwnedFd>>,
    userns: bool,
    initial_userns: bool,
    hidden: OnceLock<Hidden>,
    zygote: Mutex<Option<Arc<Zygote>>>,
    /// There is to be no other zygote. Set with the place of the zygote locked.
    #[cfg(feature = "engine")]
    ended: AtomicBool,
    /// What shims are, if not today's.
    #[cfg(feature = "engine")]
    shim: Option<OwnedFd>,
}

/// What an engine must know of its zygote.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NativeInfo {
    /// How ids are mapped.
    pub mapping: IdMapping,
    /// Why less is mapped than could be.
    pub warning: Option<String>,
    /// The zygote's pid.
    pub pid: u32,
}

impl NativeRuntime {
    /// Sets up, without starting anything.
    #[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
    pub fn new(mut options: NativeOptions) -> Self {
        let userns = options.user_namespace.unwrap_or_else(|| !has_admin());
        let shared = Arc::new(Shared {
            owner_lock: Mutex::new(options.owner_lock.take()),
            options,
            userns,
            initial_userns: in_initial_userns(),
            hidden: OnceLock::new(),
            zygote: Mutex::new(None),
            #[cfg(feature = "engine")]
            ended: AtomicBool::new(false),
            #[cfg(feature = "engine")]
            shim: None,
        });
        Self { shared }
    }

    /// Has an earlier version's program for shims.
    #[cfg(all(test, feature = "engine"))]
    fn with_shim(program: OwnedFd) -> Self {
        let mut runtime = Self::new(NativeOptions::default());
        let shared = Arc::get_mut(&mut runtime.shared).expect("nobody else has it");
        shared.shim = Some(program);
        runtime
    }

    fn zygote(&self) -> Result<Arc<Zygote>> {
        self.shared.zygote()
    }

    /// The zygote, which is spawned if need be.
    async fn awake(&self) -> Result<Arc<Zygote>> {
        if let Some(zygote) = self.shared.running() {
            return Ok(zygote);
        }
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.zygote()).await
    }

    /// Where programs of the host's work on containers.
    #[cfg(feature = "engine")]
    pub(crate) async fn bench(&self) -> Result<tool::Bench> {
        self.needs_namespaces("a program of the host beside a container")?;
        let zygote = self.awake().await?;
        Ok(tool::Bench {
            host: self.shared.host(zygote.mapping()),
            zygote,
            cgroups: self.shared.options.cgroups.clone(),
        })
    }

    /// Sets a container up as far as its program, which runs when [`Created::start`] says so.
    ///
    /// # Errors
    /// As [`Runtime::start`], but for those of the program.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing behind.
    pub async fn create(&self, launch: Launch) -> Result<Created> {
        if launch.hold {
            return Err(Error::invalid("a container that runs nothing has nothing to start"));
        }
        self.job(&launch).await?.create(launch).await
    }

    /// What a start needs.
    async fn job(&self, launch: &Launch) -> Result<start::Job> {
        #[cfg(feature = "engine")]
        self.needs_namespaces("the runtime \"native\"")?;
        let zygote = self.awake().await?;
        let ids = match wants_user_namespace(&launch.spec) {
            true => Some(self.shared.container_ids(zygote.pid(), &launch.spec)?),
            false => None,
        };
        Ok(start::Job {
            host: self.shared.host(zygote.mapping()),
            zygote,
            cgroups: self.shared.options.cgroups.clone().filter(|_| !launch.hold),
            ids,
        })
    }

    /// Spawns the zygote if need be and says how it came out. Blocks for a few milliseconds the first time.
    ///
    /// # Errors
    /// `Unsupported` where the host forbids namespaces, with the remedy.
    pub fn info(&self) -> Result<NativeInfo> {
        let zygote = self.zygote()?;
        Ok(NativeInfo {
            mapping: zygote.mapping(),
            warning: zygote.warning().map(str::to_owned),
            pid: zygote.pid(),
        })
    }

    /// Ends every container and the zygote, and waits until it is reaped. The next use spawns another.
    ///
    /// # Cancel safety
    /// A dropped call has asked for the end; only the reaping is left to whoever ends this process.
    pub async fn close(&self) {
        let slot = &self.shared.zygote;
        let zygote = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(zygote) = zygote {
            zygote.close().await;
        }
    }

    /// As [`Self::close`], and for good: whoever needs a zygote from now on is told that there is none. A thread that clears up
    /// while its engine ends would otherwise begin another, and wait for answers which nobody brings any more. The owner's lock is
    /// let go of.
    #[cfg(feature = "engine")]
    pub(crate) async fn end(&self) {
        {
            let _slot = self.shared.zygote.lock().unwrap_or_else(PoisonError::into_inner);
            self.shared.ended.store(true, Ordering::Release);
        }
        self.close().await;
        *self.shared.owner_lock() = None;
    }

    /// Whether a user namespace is, or will be, in use.
    pub fn uses_user_namespace(&self) -> bool {
        self.shared.userns
    }

    /// Carries out a description of a mount; the tree is attached nowhere. Blocks: for the blocking pool.
    ///
    /// # Errors
    /// `InvalidArgument` if it is not one mount, else `Os` with what the kernel says.
    pub fn mount(&self, mounts: &[Mount]) -> Result<OwnedFd> {
        let [mount] = mounts else {
            return Err(Error::invalid(format!("{} mounts; one is needed", mounts.len())));
        };
        #[cfg(feature = "engine")]
        if self.shared.apart() {
            return apart::directory(mount);
        }
        let mut record = plan::root_record(mount)?;
        if mount.read_only {
            record.attributes |= options::READ_ONLY;
        }
        let mut blob = Vec::new();
        record.write(&mut blob)?;
        let reply = self.zygote()?.call_blocking(helper::wire::op::MOUNT, &blob, &[])?;
        reply.descriptor("take a mount of the helper")
    }

    /// Removes a whole tree, whoever in the user namespace owns what is in it. What is gone is success. Blocks.
    ///
    /// # Errors
    /// `Os` with the errno of the first entry that would not go.
    pub fn remove_tree(&self, path: &Path) -> Result<()> {
        let mut blob = Vec::new();
        plan::push_string(&mut blob, plan::clean_absolute(path, "a tree to remove")?)?;
        self.zygote()?.call_blocking(helper::wire::op::REMOVE, &blob, &[])?;
        Ok(())
    }

    /// Hands the zygote directories to delete if this process dies; the returned number takes them back. Blocks.
    ///
    /// # Errors
    /// `Unavailable` if the zygote is gone.
    pub fn add_scratch(&self, directories: &[&Path]) -> Result<u64> {
        let mut blob = Vec::new();
        for directory in directories {
            let mut item = vec![b's'];
            item.extend_from_slice(plan::clean_absolute(directory, "a scratch directory")?);
            plan::push_string(&mut blob, &item)?;
        }
        Ok(self
            .zygote()?
            .call_blocking(helper::wire::op::SCRATCH, &blob, &[])?
            .header
            .req)
    }

    /// Takes back what [`Self::add_scratch`] handed over.
    ///
    /// # Errors
    /// As [`Self::info`].
    pub fn remove_scratch(&self, number: u64) -> Result<()> {
        self.zygote()?.tell(number, helper::wire::op::SCRATCH);
        Ok(())
    }
}

impl Shared {
    /// The zygote; spawned if there is none, or if the last one died. Blocks for milliseconds: for the blocking pool.
    fn zygote(&self) -> Result<Arc<Zygote>> {
        let mut slot = self.zygote.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(zygote) = slot.as_ref().filter(|zygote| !zygote.is_dead()) {
            return Ok(Arc::clone(zygote));
        }
        #[cfg(feature = "engine")]
        if self.ended.load(Ordering::Acquire) {
            return Err(zygote::gone());
        }
        let lock = self.owner_lock();
        let zygote = Arc::new(Zygote::start(&ZygoteOptions {
            lock: lock.as_ref().map(AsFd::as_fd),
            userns: self.userns,
            join_userns: None,
            bind_devices: self.bind_devices(),
            clean_up: &self.owner_directories()?,
            agent: self.options.seccomp_agent.as_ref(),
            shim: false,
            apart: self.apart(),
            program: None,
            reactor: self.options.reactor.as_ref(),
        })?);
        *slot = Some(Arc::clone(&zygote));
        Ok(zygote)
    }

    fn owner_lock(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        self.owner_lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cgroup driver's directories, as a list for the zygote's ledger.
    fn owner_directories(&self) -> Result<Vec<u8>> {
        let mut list = Vec::new();
        let driver = self.options.cgroups.as_ref();
        for directory in driver.map(|driver| driver.owner_directories()).unwrap_or_default() {
            let mut item = vec![b'c'];
            item.extend_from_slice(plan::clean_absolute(&directory, "a cgroup of the owner")?);
            plan::push_string(&mut list, &item)?;
        }
        Ok(list)
    }

    /// The zygote, if there is one and nobody is spawning another.
    fn running(&self) -> Option<Arc<Zygote>> {
        let slot = self.zygote.try_lock().ok()?;
        slot.as_ref().filter(|zygote| !zygote.is_dead()).map(Arc::clone)
    }

    /// Whether there are no namespaces.
    fn apart(&self) -> bool {
        #[cfg(feature = "engine")]
        let apart = self.options.apart;
        #[cfg(not(feature = "engine"))]
        let apart = false;
        apart
    }

    /// Whether devices cannot be made here, but only bound from the host.
    fn bind_devices(&self) -> bool {
        self.userns || !self.initial_userns
    }

    /// The ids of a container with a user namespace of its own below the helper's: those of the specification, which are the
    /// host's, else the engine's choice.
    fn container_ids(&self, helper: u32, spec: &oci_spec::runtime::Spec) -> Result<ContainerIds> {
        let linux = spec.linux().as_ref();
        let wanted = |maps: Option<&Option<Vec<oci_spec::runtime::LinuxIdMapping>>>| {
            let map =
                |map: &oci_spec::runtime::LinuxIdMapping| IdRange::new(map.container_id(), map.host_id(), map.size());
            maps.and_then(Option::as_ref)
                .map_or_else(Vec::new, |maps| maps.iter().map(map).collect())
        };
        let ids = ContainerIds {
            uids: wanted(linux.map(|linux| linux.uid_mappings())),
            gids: wanted(linux.map(|linux| linux.gid_mappings())),
        };
        if !ids.uids.is_empty() || !ids.gids.is_empty() {
            return if self.userns {
                ids.seen_by_zygote(helper)
            } else {
                Ok(ids)
            };
        }
        if self.userns {
            return ContainerIds::of_zygote(helper);
        }
        match self.options.container_ids {
            Some(range) => Ok(ContainerIds {
                uids: vec![range],
                gids: vec![range],
            }),
            None => ContainerIds::of_root(),
        }
    }

    fn host(&self, mapping: IdMapping) -> Host {
        Host {
            bind_devices: self.bind_devices(),
            single_id: mapping == IdMapping::Single,
            cgroup_v2: cgroup_v2(),
            host_pids: false,
            apart: self.apart(),
            hidden: self.hidden(),
        }
    }

    /// What of the host cannot be mounted anew, and is shared instead. The initial user namespace may mount all.
    fn hidden(&self) -> Hidden {
        match self.options.isolation {
            Isolation::BestAvailable if self.bind_devices() => *self.hidden.get_or_init(Hidden::here),
            _ => Hidden::default(),
        }
    }
}

#[async_trait]
impl Runtime for NativeRuntime {
    fn name(&self) -> &str {
        "native"
    }

    fn foresee(&self, resources: &LinuxResources) -> Vec<String> {
        let driver = self.shared.options.cgroups.as_ref();
        driver.map(|driver| driver.foresee(resources)).unwrap_or_default()
    }

    async fn start(&self, launch: Launch) -> Result<Started> {
        self.job(&launch).await?.run_detached(launch).await
    }

    #[cfg(feature = "engine")]
    async fn restore(&self, launch: Launch, from: Restore) -> Result<Started> {
        criu::Job(self.bench().await?).run_detached(launch, from).await
    }

    #[cfg(feature = "engine")]
    fn forget(&self, id: &crate::types::ContainerId, dir: &Path) -> Result<()> {
        let driver = self.shared.options.cgroups.as_ref();
        driver.map_or(Ok(()), |driver| parent::clear(driver.as_ref(), id, dir))
    }

    #[cfg(feature = "engine")]
    fn detached(&self) -> Option<&dyn super::detached::DetachedRuntime> {
        match self.shared.apart() {
            true => None,
            false => Some(self),
        }
    }
}

fn wants_user_namespace(spec: &oci_spec::runtime::Spec) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    namespaces.is_some_and(|all| {
        all.iter()
            .any(|one| one.typ() == oci_spec::runtime::LinuxNamespaceType::User && one.path().is_none())
    })
}

/// Whether the process may make mounts as it is.
#[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
pub(crate) fn has_admin() -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    let status = std::fs::read("/proc/self/status").unwrap_or_default();
    let mut lines = status.split(|byte| *byte == b'\n');
    let effective = lines.find_map(|line| str::from_utf8(line.strip_prefix(b"CapEff:")?).ok());
    effective
        .and_then(|hex| u64::from_str_radix(hex.trim_ascii(), 16).ok())
        .is_some_and(|caps| caps & 1 << CAP_SYS_ADMIN != 0)
}

/// Whether ids are the host's own: only then can device nodes be made.
#[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
fn in_initial_userns() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mut words = map.split_ascii_whitespace();
    [words.next(), words.next(), words.next(), words.next()] == [Some("0"), Some("0"), Some("4294967295"), None]
}

fn cgroup_v2() -> bool {
    nix::sys::statfs::statfs("/sys/fs/cgroup")
        .is_ok_and(|stat| stat.filesystem_type() == nix::sys::statfs::CGROUP2_SUPER_MAGIC)
}
