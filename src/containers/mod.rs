//! Containers: what callers ask for ([`ContainerSpec`]), what they hold, and the verbs, one file each.
//!
//! [`ContainerManager`] is what an engine (in-process, remote or fake) can do with containers. `LocalContainers` is the
//! in-process one: it takes an image's config and layer stack as data, records what it intends, lets the storage driver
//! and the runtime act, and records what came of it.

mod attach;
mod create;
mod etc;
mod feed;
mod inspect;
mod kill;
mod list;
mod local;
mod logs;
mod monitor;
mod names;
mod peer;
mod plan;
mod record;
mod remove;
mod spec;
mod start;
mod state;
mod stop;
mod sweep;
#[cfg(test)]
mod tests;
mod validate;
mod wait;

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;

use crate::error::{Error, Result};
use crate::logs::{LogEntries, LogQuery, TeeItem};
use crate::types::{ContainerId, ExitStatus, Filter, ImageId, Outcome, Signal};

pub(crate) use self::local::{LocalContainers, Parts};
pub use self::spec::{BindMount, ContainerSpec, Lifetime, Limits, NetworkMode, Seccomp, Tmpfs, Ulimit};
pub use self::state::ContainerState;

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

/// The writing end of a container's stdin. Dropping it closes stdin.
#[derive(Debug, Clone)]
pub struct Input {
    sender: tokio::sync::mpsc::Sender<Bytes>,
}

impl Input {
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
}

/// What `attach` may be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// Keep everything for the reader however slow it is, in memory. Otherwise at most 64 MiB wait for it, and what it
    /// misses beyond that is reported in its place.
    pub lossless: bool,
}

/// What `stop` may be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StopOptions {
    /// The first signal; default the container's own.
    pub signal: Option<Signal>,
    /// How long to wait before SIGKILL; default the container's own.
    pub timeout: Option<Duration>,
}

/// What `remove` may be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// Kill it first if it runs.
    pub force: bool,
}

/// What `list` may be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Also those that do not run.
    pub all: bool,
    /// `id`, `name`, `label`, `status`, `ancestor`, `exited`.
    pub filter: Filter,
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
    /// Its labels.
    pub labels: BTreeMap<String, String>,
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
    /// Why it did not start.
    pub error: Option<String>,
    /// How owners of its files are kept: `direct`, `mapped` or `squashed`.
    pub ownership: String,
}

/// What an engine can do with containers. Every verb has a default body that answers `Unsupported`, so that a new verb
/// breaks no implementation. `name` is a name, an id, or an unambiguous prefix of an id.
#[async_trait]
pub trait ContainerManager: Debug + Send + Sync + 'static {
    /// Makes a container of an image that is here.
    ///
    /// # Errors
    /// `NotFound` (image), `Conflict` (name taken), `InvalidArgument`, `Unsupported`, `NoSpace`.
    ///
    /// # Cancel safety
    /// A dropped call is undone.
    async fn create(&self, _spec: ContainerSpec) -> Result<Created> {
        Err(Error::unsupported_verb("container create"))
    }

    /// Starts a container. Returns once its program runs.
    ///
    /// # Errors
    /// `NotFound`, `CommandNotFound`, `CommandNotExecutable`, `InvalidArgument`, `Unsupported`, or `Os` with the step.
    ///
    /// # Cancel safety
    /// A dropped call is undone: what was started is killed.
    async fn start(&self, _name: &str) -> Result<Outcome> {
        Err(Error::unsupported_verb("container start"))
    }

    /// Waits until a container does not run. One that was never started counts as running.
    ///
    /// # Errors
    /// `NotFound`, also when it is removed without ever having run.
    ///
    /// # Cancel safety
    /// Dropping the call changes nothing.
    async fn wait(&self, _name: &str) -> Result<ContainerExit> {
        Err(Error::unsupported_verb("container wait"))
    }

    /// Sends a signal to the first process.
    ///
    /// # Errors
    /// `NotFound`, `InvalidState` if it does not run.
    async fn kill(&self, _name: &str, _signal: Signal) -> Result<()> {
        Err(Error::unsupported_verb("container kill"))
    }

    /// Asks the first process to end, and kills the container if it does not in time.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` while it is being removed.
    ///
    /// # Cancel safety
    /// The signals already sent stay sent.
    async fn stop(&self, _name: &str, _options: StopOptions) -> Result<Outcome> {
        Err(Error::unsupported_verb("container stop"))
    }

    /// Removes a container with its writable layer and logs.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` if it runs and `force` is not given.
    ///
    /// # Cancel safety
    /// A removal once begun is finished.
    async fn remove(&self, _name: &str, _options: RemoveOptions) -> Result<Outcome> {
        Err(Error::unsupported_verb("container remove"))
    }

    /// Everything about one container.
    ///
    /// # Errors
    /// `NotFound`, or `InvalidArgument` for an ambiguous prefix.
    async fn inspect(&self, _name: &str) -> Result<ContainerInfo> {
        Err(Error::unsupported_verb("container inspect"))
    }

    /// Containers, the newest first.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown filter.
    async fn list(&self, _options: ListOptions) -> Result<Vec<ContainerSummary>> {
        Err(Error::unsupported_verb("container list"))
    }

    /// What a container has written, and with `follow` what it will write.
    ///
    /// # Errors
    /// `NotFound`.
    async fn logs(&self, _name: &str, _query: LogQuery) -> Result<LogEntries> {
        Err(Error::unsupported_verb("container logs"))
    }

    /// Connects to standard streams. Attached before the start, no byte is missed.
    ///
    /// # Errors
    /// `NotFound`, `InvalidState` once it has ended.
    async fn attach(&self, _name: &str, _options: AttachOptions) -> Result<Attached> {
        Err(Error::unsupported_verb("container attach"))
    }

    /// Sets the size of its terminal.
    ///
    /// # Errors
    /// `NotFound`, `InvalidState` if it does not run or has no terminal.
    async fn resize(&self, _name: &str, _rows: u16, _columns: u16) -> Result<()> {
        Err(Error::unsupported_verb("container resize"))
    }
}
