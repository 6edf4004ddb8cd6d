//! What verbs on containers answer.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::Stream;

use super::health::{Health, HealthCheck};
use super::mounts::MountPoint;
use super::options::ExecSpec;
use super::spec::{BindMount, ContainerSpec, NetworkMode};
use super::state::ContainerState;
use super::stdin::Stdin;
use crate::error::{Error, Result};
use crate::images::ByteStream;
use crate::logs::TeeItem;
use crate::types::{ContainerId, ExitStatus, IdRange, ImageId};

/// A stream that any executor can read.
pub type BoxStream<T> = Pin<Box<dyn Stream<Item = T> + Send + 'static>>;

/// What `create` made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// The new container.
    pub id: ContainerId,
    /// What was asked for and will not be, and why.
    pub warnings: Vec<String>,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContainerExit {
    /// Status of its first process.
    pub status: ExitStatus,
    /// Whether the kernel killed one of its processes for memory, by its counters; `None` where there are none.
    pub oom_killed: Option<bool>,
}

/// A connection to a container's standard streams.
pub struct Attached {
    /// What it writes from now on. Ends when the container does.
    pub output: BoxStream<TeeItem>,
    /// Its stdin, if it was created with one.
    pub input: Option<Input>,
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached")
            .field("input", &self.input)
            .finish_non_exhaustive()
    }
}

/// The writing end of a stdin. Dropping the last one closes stdin.
#[derive(Debug, Clone)]
pub struct Input {
    sender: tokio::sync::mpsc::Sender<Bytes>,
    home: Arc<Stdin>,
}

impl Input {
    /// One more writer of a stdin.
    pub(crate) fn new(home: &Arc<Stdin>) -> Self {
        Self {
            sender: home.writer(),
            home: Arc::clone(home),
        }
    }

    /// Writes bytes. Returns once they are queued; at most a few chunks wait.
    ///
    /// # Errors
    /// `InvalidState` once the container has closed its stdin or ended.
    ///
    /// # Cancel safety
    /// A dropped call has written all or nothing.
    pub async fn write(&self, bytes: impl Into<Bytes>) -> Result<()> {
        let closed = |_| Error::new(crate::error::ErrorKind::InvalidState, "the container's stdin is closed");
        self.sender.send(bytes.into()).await.map_err(closed)
    }

    /// Lets go without closing stdin: the container waits for the next writer that attaches.
    pub fn detach(self) {
        self.home.keep(self.sender);
    }
}

/// What is at a path in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathStat {
    /// The last part of the path.
    pub name: String,
    /// Bytes, as stat(2) counts them.
    pub size: u64,
    /// Type and permission bits, as stat(2) has them.
    pub mode: u32,
    /// When it was changed last.
    pub modified: SystemTime,
    /// Of a symbolic link: where it leads, from the container's root.
    pub link_target: Option<String>,
}

impl PathStat {
    /// Something of a name, of which nothing else is known.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            size: 0,
            mode: 0,
            modified: SystemTime::UNIX_EPOCH,
            link_target: None,
        }
    }

    /// Whether it is a directory.
    pub const fn is_dir(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }
}

/// A path that is copied out of a container.
pub struct CopiedOut {
    /// What is there.
    pub stat: PathStat,
    /// The tar.
    pub archive: ByteStream,
}

impl fmt::Debug for CopiedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopiedOut")
            .field("stat", &self.stat)
            .finish_non_exhaustive()
    }
}

/// A container as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContainerSummary {
    /// Its id.
    pub id: ContainerId,
    /// Its name, without a slash.
    pub name: String,
    /// The image as it was named at create.
    pub image: String,
    /// The image's id.
    pub image_id: ImageId,
    /// Program and arguments.
    pub command: Vec<String>,
    /// When it was created.
    pub created: SystemTime,
    /// Its state.
    pub state: ContainerState,
    /// The state in Docker's words: `Up 5 seconds`, `Exited (0) 2 minutes ago`.
    pub status: String,
    /// Its health, if it has a check and was started; without its probes, which `inspect` shows.
    pub health: Option<Health>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its network.
    pub network: NetworkMode,
    /// What it sees of the host.
    pub binds: Vec<BindMount>,
    /// What else is mounted: volumes, images.
    pub mounts: Vec<MountPoint>,
}

/// Everything about a container.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ContainerInfo {
    /// Its id.
    pub id: ContainerId,
    /// Its name, without a slash.
    pub name: String,
    /// The image's id.
    pub image_id: ImageId,
    /// What was asked for.
    pub spec: ContainerSpec,
    /// Mounts as they are, beside `binds` and `tmpfs` of what was asked for: every volume has its name, those too that the
    /// image asks for.
    pub mounts: Vec<MountPoint>,
    /// Program and arguments in effect.
    pub command: Vec<String>,
    /// Labels in effect.
    pub labels: BTreeMap<String, String>,
    /// Its state.
    pub state: ContainerState,
    /// Pid of its first process on the host, while it runs.
    pub pid: Option<u32>,
    /// When it was created.
    pub created: SystemTime,
    /// When its first process was started last.
    pub started: Option<SystemTime>,
    /// When its first process ended.
    pub finished: Option<SystemTime>,
    /// How it ended.
    pub exit: Option<ContainerExit>,
    /// Why it did not start, or what of its output was lost.
    pub error: Option<String>,
    /// How often its restart policy has started it again since somebody started it.
    pub restart_count: u32,
    /// Its health, if it has a check and was started.
    pub health: Option<Health>,
    /// The check in effect: what was asked for, over the image's.
    pub health_check: HealthCheck,
    /// The file of its log that other programs may read, where the driver has one.
    pub log_path: Option<PathBuf>,
    /// How owners of its files are kept: `direct`, `mapped` or `squashed`. [`Self::ownership_meaning`] says it in words.
    pub ownership: String,
    /// While it runs: how its user ids relate to the host's. Empty: they are the host's.
    pub uid_map: Vec<IdRange>,
    /// The same of its groups.
    pub gid_map: Vec<IdRange>,
    /// What was asked for and left out at its last start, because the host cannot do it.
    pub warnings: Vec<String>,
    /// Execs of it that this process started and that have not been forgotten.
    pub execs: Vec<String>,
}

impl ContainerInfo {
    /// What [`Self::ownership`] means for programs in the container, in a sentence.
    pub fn ownership_meaning(&self) -> &'static str {
        match self.ownership.as_str() {
            "direct" => "ids in the container are the host's",
            "mapped" => "ids in the container come from the caller's ranges",
            "squashed" => {
                "one id is mapped: every file has that owner, whatever the image says; for root in the container, chown and \
                 changes of user or group succeed without effect; another user is the same id under its name"
            }
            _ => "not known",
        }
    }
}

/// The end of a container, waited for. It is registered: an end after the call that gave this is not missed.
pub type Exiting = Pin<Box<dyn Future<Output = Result<ContainerExit>> + Send + 'static>>;

/// A command prepared in a container by `exec_create`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// Its id: 64 hexadecimal digits.
    pub id: String,
    /// The container.
    pub container: ContainerId,
}

/// Everything about an exec.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecInfo {
    /// Its id.
    pub id: String,
    /// The container.
    pub container: ContainerId,
    /// What was asked for.
    pub spec: ExecSpec,
    /// Whether it runs.
    pub running: bool,
    /// Pid of its process on the host, once it was started.
    pub pid: Option<u32>,
    /// How it ended.
    pub status: Option<ExitStatus>,
}

/// The processes of a container, as `ps` shows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Top {
    /// Titles of the columns.
    pub titles: Vec<String>,
    /// A row per process.
    pub processes: Vec<Vec<String>>,
}

/// What a prune removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Ids of what was removed.
    pub removed: Vec<String>,
    /// What that gave back, in bytes.
    pub reclaimed_bytes: u64,
}

/// A reading of a container's counters. A counter that the host does not keep is `None`.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// When it was read.
    pub read: Option<SystemTime>,
    /// The reading before it, to compare with.
    pub previous: Option<(SystemTime, CpuStats)>,
    /// CPU time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Processes.
    pub pids: PidsStats,
    /// Block devices.
    pub block: BlockStats,
}

/// CPU time used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CpuStats {
    /// By the container, in nanoseconds.
    pub total_ns: Option<u64>,
    /// Of that in the kernel, in nanoseconds.
    pub system_ns: Option<u64>,
    /// Of that in programs, in nanoseconds.
    pub user_ns: Option<u64>,
    /// By the whole host, all CPUs together, in nanoseconds.
    pub host_ns: Option<u64>,
    /// CPUs of the host.
    pub online_cpus: Option<u32>,
    /// Periods in which it was throttled.
    pub throttled_periods: Option<u64>,
    /// For how long, in nanoseconds.
    pub throttled_ns: Option<u64>,
}

/// Memory used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStats {
    /// In bytes, page cache included.
    pub usage_bytes: Option<u64>,
    /// The limit, or the host's memory without one, in bytes.
    pub limit_bytes: Option<u64>,
    /// The kernel's detailed counters (`memory.stat`), in its own words.
    pub detail: BTreeMap<String, u64>,
}

/// Processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PidsStats {
    /// How many there are.
    pub current: Option<u64>,
    /// How many there may be.
    pub limit: Option<u64>,
}

/// Block input and output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockStats {
    /// Bytes read.
    pub read_bytes: Option<u64>,
    /// Bytes written.
    pub written_bytes: Option<u64>,
}
