//! Running processes in containers: the [`Runtime`] seam and its backends.

pub mod bundle;
pub mod caps;
pub mod cgroups;
#[cfg(feature = "engine")]
pub mod chroot;
mod command;
pub mod defaults;
#[cfg(feature = "engine")]
pub mod detached;
pub mod devices;
#[cfg(any(test, feature = "conformance"))]
pub mod fake;
#[cfg(feature = "engine")]
pub(crate) mod foreign;
mod isolation;
pub mod native;
#[cfg(feature = "engine")]
pub mod oci;
pub mod sysctls;

use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use oci_spec::runtime::{LinuxNamespaceType, LinuxResources, LinuxSeccomp, Process, Spec};

pub use self::command::{Child, Command, Output};
pub use self::isolation::Isolation;
use crate::error::{Error, Result};
use crate::types::{ContainerId, ExitStatus, Mount, Propagation, Signal};

/// What the first process gets as its standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StdioPlan {
    /// Whether stdin is a pipe (or the terminal) rather than `/dev/null`.
    pub stdin: bool,
    /// A terminal of so many rows and columns instead of pipes.
    pub terminal: Option<(u16, u16)>,
}

/// A namespace that a container does not have for itself.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum SharedNamespace {
    /// The host's: the one that this process is in.
    Host(LinuxNamespaceType),
    /// An open one, of a container of the same runtime that runs.
    Of(LinuxNamespaceType, Arc<OwnedFd>),
    /// `/dev/shm` is that of the container whose mount namespace this is.
    SharedMemory(Arc<OwnedFd>),
}

/// A mount beside those of the specification, which cannot say all of this.
#[derive(Debug, Clone)]
pub struct LaunchMount {
    /// Where, in the container; made if it is missing.
    pub target: PathBuf,
    /// What it shows.
    pub source: LaunchSource,
    /// A part of it: relative, resolved by the kernel beneath the source when the mount is made. A link that leads out of it
    /// is an error.
    pub subpath: Option<PathBuf>,
    /// Whether nothing can be written through it.
    pub read_only: bool,
    /// Whether what is mounted below the source, too, is read-only then.
    pub read_only_below: bool,
    /// Whether what is mounted below the source comes along.
    pub recursive: bool,
    /// Whether setuid programs gain nothing.
    pub no_suid: bool,
    /// Whether device nodes work.
    pub devices: bool,
    /// What becomes of later mounts.
    pub propagation: Propagation,
    /// Ids that change places in it, users and groups: those on the disk with those that the container knows.
    pub swap: Option<IdSwap>,
}

/// What a [`LaunchMount`] shows.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum LaunchSource {
    /// A directory or file of the host.
    Host(PathBuf),
    /// A mount that is attached nowhere; it is copied.
    Tree(Arc<OwnedFd>),
    /// A mount that is attached nowhere, and becomes this container's own.
    Given(Arc<OwnedFd>),
    /// Whatever a storage driver describes.
    Mount(Mount),
}

/// Two users and two groups that change places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdSwap {
    /// User and group on the disk.
    pub outside: (u32, u32),
    /// User and group in the container.
    pub inside: (u32, u32),
}

/// A container to start.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Names kernel objects and log lines.
    pub id: ContainerId,
    /// What to run and in what: process, user, capabilities, namespaces, mounts, masked paths, seccomp, host name,
    /// resources. `spec.root` is ignored; `rootfs` stands in its place. Bind sources are host paths. The last name of
    /// `linux.cgroupsPath`, where that is said, is [`Self::id`], and the rest of it a [`CgroupParent`](crate::types::CgroupParent).
    pub spec: Spec,
    /// The user as the caller wrote it (`name`, `uid`, `name:group`, `uid:gid`), resolved in the container's own
    /// `/etc/passwd` and `/etc/group` before the program runs. Without it, `spec.process.user` holds.
    pub user: Option<String>,
    /// Groups to add, by name or number, resolved in the same way.
    pub extra_groups: Vec<String>,
    /// Mounts that make the root file system; the first is the root itself.
    pub rootfs: Vec<Mount>,
    /// Standard streams.
    pub stdio: StdioPlan,
    /// Run the helper as pid 1, which starts the program as its child and reaps orphans.
    pub init: bool,
    /// Directories that the zygote deletes when its owner dies before the container is removed.
    pub scratch: Vec<PathBuf>,
    /// Limits are dropped with a warning where the host cannot set them, instead of refused.
    pub best_effort_limits: bool,
    /// Namespaces that are not its own; those that `spec` lists otherwise are.
    pub shared: Vec<SharedNamespace>,
    /// Device nodes work wherever the container makes or finds them; otherwise nothing that it can write to holds one.
    pub privileged: bool,
    /// Mounts beside those of `spec`. One at a place that is in one of another's comes after that.
    pub mounts: Vec<LaunchMount>,
    /// Nothing is run: the container is set up, and its first process waits to be killed.
    pub hold: bool,
    /// The directory that hooks of `spec` are told of as the bundle; without one, `/`.
    pub bundle: Option<PathBuf>,
    /// What hooks are told it is called; without one, `id`.
    pub name: Option<String>,
    /// A directory in which it is written down which cgroups are to be removed should this process and its helper be killed
    /// together: [`Runtime::forget`] reads it.
    pub notes: Option<PathBuf>,
}

/// How a container's processes are written down.
#[cfg(feature = "engine")]
#[derive(Debug, Clone)]
pub struct Dump {
    /// What the container was started with, as far as its mounts go.
    pub spec: Spec,
    /// Where the images go: an empty directory.
    pub directory: PathBuf,
    /// For what is needed meanwhile: a directory that is not there, or empty. It goes.
    pub work: PathBuf,
    /// Whether the processes go on.
    pub leave_running: bool,
}

/// What a container goes on from.
#[cfg(feature = "engine")]
#[derive(Debug, Clone)]
pub struct Restore {
    /// Where the images are that [`Task::checkpoint`] wrote. They are only read.
    pub directory: PathBuf,
    /// As [`Dump::work`].
    pub work: PathBuf,
}

/// A started container: its handle, and the caller's ends of its streams.
#[derive(Debug)]
pub struct Started {
    /// The running container.
    pub task: Arc<dyn Task>,
    /// Write end of stdin.
    pub stdin: Option<OwnedFd>,
    /// Read end of stdout.
    pub stdout: Option<OwnedFd>,
    /// Read end of stderr.
    pub stderr: Option<OwnedFd>,
    /// The terminal's master side; then the three above are `None`.
    pub terminal: Option<OwnedFd>,
    /// What was asked for and left out under `best_effort_limits`.
    pub warnings: Vec<String>,
}

/// A command to run in a running container.
#[derive(Debug, Clone)]
pub struct ExecLaunch {
    /// Arguments, environment, working directory, capabilities, limits, no-new-privileges.
    pub process: Process,
    /// As [`Launch::user`].
    pub user: Option<String>,
    /// As [`Launch::extra_groups`].
    pub extra_groups: Vec<String>,
    /// Which system calls it may make; `None` is all of them.
    pub seccomp: Option<LinuxSeccomp>,
    /// Standard streams.
    pub stdio: StdioPlan,
    /// All that it starts is to be found where it is killed ([`ExecTask::kill_all`]), wherever that goes: a host name that it sets is
    /// its own.
    pub marked: bool,
}

/// A started command: its handle, and the caller's ends of its streams.
#[derive(Debug)]
pub struct ExecStarted {
    /// The running command.
    pub task: Arc<dyn ExecTask>,
    /// Write end of stdin.
    pub stdin: Option<OwnedFd>,
    /// Read end of stdout.
    pub stdout: Option<OwnedFd>,
    /// Read end of stderr.
    pub stderr: Option<OwnedFd>,
    /// The terminal's master side; then the three above are `None`.
    pub terminal: Option<OwnedFd>,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exit {
    /// Status of the first process.
    pub status: ExitStatus,
    /// Whether the kernel's counters say that a process was killed for memory. `None`: no counter to ask.
    pub oom_killed: Option<bool>,
}

impl Exit {
    /// An exit with what the counters say of memory.
    pub const fn new(status: ExitStatus, oom_killed: Option<bool>) -> Self {
        Self { status, oom_killed }
    }
}

/// Starts containers.
#[async_trait]
pub trait Runtime: Debug + Send + Sync + 'static {
    /// The backend's name.
    fn name(&self) -> &str;

    /// Starts a container: returns once its program has been executed.
    ///
    /// # Errors
    /// `CommandNotFound`, `CommandNotExecutable`, `InvalidArgument`, `Unsupported`, or `Os` with the step that failed.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing behind: a container that starts nevertheless is killed.
    async fn start(&self, launch: Launch) -> Result<Started>;

    /// Starts a container that goes on from where [`Task::checkpoint`] wrote it down, with new streams.
    ///
    /// # Errors
    /// As [`Runtime::start`]; `Unsupported` where the backend or the host cannot, `Corrupt` for damaged images,
    /// `InvalidState` with what CRIU says.
    ///
    /// # Cancel safety
    /// As [`Runtime::start`].
    #[cfg(feature = "engine")]
    async fn restore(&self, _launch: Launch, _from: Restore) -> Result<Started> {
        Err(Error::unsupported("checkpoints", "the native runtime"))
    }

    /// What of these limits a start on this host would leave out, as far as that can be told before: for whoever creates a
    /// container. What it would refuse is not among them.
    fn foresee(&self, _resources: &LinuxResources) -> Vec<String> {
        Vec::new()
    }

    /// Whether it makes neither namespaces nor mounts: its containers have the host's network, and nothing is shown in them beside
    /// their own files. A container that asks for more is then refused when it is created.
    fn is_bare(&self) -> bool {
        false
    }

    /// Removes the cgroups that a start has noted in [`Launch::notes`], `dir`, as far as they are still there: those of a container
    /// whose processes are gone, and whoever would have removed them. Blocking.
    ///
    /// # Errors
    /// `Os` where that cannot be done.
    #[cfg(feature = "engine")]
    fn forget(&self, _id: &ContainerId, _dir: &std::path::Path) -> Result<()> {
        Ok(())
    }

    /// The part that starts containers which outlive this process; `None` where the backend has none.
    #[cfg(feature = "engine")]
    fn detached(&self) -> Option<&dyn detached::DetachedRuntime> {
        None
    }
}

/// A running container. Dropping the handle does not end it.
#[async_trait]
pub trait Task: Debug + Send + Sync + 'static {
    /// Pid of the first process in the host's pid namespace; 0 if it had ended before anybody could look.
    fn pid(&self) -> u32;

    /// What its backend knows it by, where that must find it again among its own.
    fn as_any(&self) -> Option<&dyn std::any::Any> {
        None
    }

    /// When the first process was started, in clock ticks since the boot, where that is known without a look at it. Source:
    /// proc_pid_stat(5), field 22.
    fn start_ticks(&self) -> Option<u64> {
        None
    }

    /// Sends a signal to the first process, or with `all` to every process of the container.
    ///
    /// # Errors
    /// `InvalidState` if it has ended.
    async fn signal(&self, signal: Signal, all: bool) -> Result<()>;

    /// Waits for the end. Any number of callers may wait, before and after it.
    async fn wait(&self) -> Result<Exit>;

    /// Waits until [`Task::wait`] need not wait any more: for whoever must choose where it reads what it answers.
    async fn until_ended(&self) {
        let _ = self.wait().await;
    }

    /// Sets the terminal's size in rows and columns.
    ///
    /// # Errors
    /// `InvalidState` without a terminal.
    async fn resize(&self, rows: u16, columns: u16) -> Result<()>;

    /// Runs a command beside the first process: in the container's namespaces and cgroup. It dies with the container.
    /// Returns once the program has been executed.
    ///
    /// # Errors
    /// `CommandNotFound`, `CommandNotExecutable`, `InvalidArgument`, `InvalidState` if the container has ended, or `Os` with
    /// the step that failed; `Unsupported` where the backend cannot.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing behind: a command that starts nevertheless is killed.
    async fn exec(&self, _exec: ExecLaunch) -> Result<ExecStarted> {
        Err(Error::unsupported_verb("exec"))
    }

    /// Stops every process where it is, until [`Task::resume`]. Twice is no error.
    ///
    /// # Errors
    /// `Unsupported` where there is no freezer.
    async fn pause(&self) -> Result<()> {
        Err(Error::unsupported_verb("pause"))
    }

    /// Lets the processes go on. Without a pause before, it is no error.
    ///
    /// # Errors
    /// As [`Task::pause`].
    async fn resume(&self) -> Result<()> {
        Err(Error::unsupported_verb("unpause"))
    }

    /// Writes the processes down, so that [`Runtime::restore`] can make them again. They end with it by SIGKILL, unless they
    /// are to go on.
    ///
    /// # Errors
    /// `Unsupported` where the backend or the host cannot, and says what is missing; `InvalidState` with what CRIU says of
    /// processes that it cannot write down. They go on then.
    ///
    /// # Cancel safety
    /// Not to be dropped: what writes down is in the middle of the processes.
    #[cfg(feature = "engine")]
    async fn checkpoint(&self, _dump: Dump) -> Result<()> {
        Err(Error::unsupported("checkpoints", "the native runtime"))
    }

    /// Changes limits of the running container.
    ///
    /// # Errors
    /// `Unsupported` where the backend cannot.
    async fn update(&self, _resources: &LinuxResources) -> Result<()> {
        Err(Error::unsupported_verb("update"))
    }

    /// Forgets an ended container: its cgroup and whatever else the runtime keeps for it. The scratch directories are the
    /// caller's again.
    ///
    /// # Errors
    /// `InvalidState` while it runs.
    async fn remove(&self) -> Result<()>;
}

/// A command that runs in a container. Dropping the handle does not end it.
#[async_trait]
pub trait ExecTask: Debug + Send + Sync + 'static {
    /// Its pid in the host's pid namespace; `None` if it had ended before anybody could look.
    fn pid(&self) -> Option<u32>;

    /// Sends a signal to it.
    ///
    /// # Errors
    /// `InvalidState` if it has ended.
    async fn signal(&self, signal: Signal) -> Result<()>;

    /// Kills it, and where the backend can, what it has started: of one that is [`ExecLaunch::marked`] all of that, and returns when
    /// nothing is left; of another what is in its process group.
    ///
    /// # Errors
    /// As [`ExecTask::signal`].
    async fn kill_all(&self) -> Result<()> {
        self.signal(Signal::KILL).await
    }

    /// Waits for its end. Any number of callers may wait, before and after it. The end of the container is an end by
    /// SIGKILL.
    async fn wait(&self) -> Result<ExitStatus>;

    /// Sets the terminal's size in rows and columns.
    ///
    /// # Errors
    /// `InvalidState` without a terminal.
    async fn resize(&self, rows: u16, columns: u16) -> Result<()>;
}

/// Copies a program that a test is about to execute. Another process does it: a file that is open for writing here is inherited
/// by whatever another thread starts at that moment, and cannot be executed until that has executed its own (`ETXTBSY`).
#[cfg(test)]
pub(crate) fn copy_program(from: &std::path::Path, to: &std::path::Path) {
    let copied = std::process::Command::new("cp").arg(from).arg(to).status();
    assert!(copied.expect("cp").success(), "{} to {}", from.display(), to.display());
}
