//! What verbs on containers may be told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::images::RunConfig;
use crate::types::{Filter, Reference, Signal};

/// What becomes of output that an attached reader does not take in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlowReader {
    /// At most 64 MiB wait for it; what it misses beyond that is reported in its place. The container is never held up.
    #[default]
    Skip,
    /// Everything is kept for it, in memory.
    Keep,
    /// The container waits, once 1 MiB does: its writes block until the reader takes more or goes away. What Docker does.
    Wait,
}

/// What `attach` may be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// What becomes of output that the reader does not take in time.
    pub slow: SlowReader,
    /// First what the container has written so far, without a gap or a duplicate to what it writes from now on.
    pub logs: bool,
}

impl AttachOptions {
    /// What becomes of output that the reader does not take in time; the rest by default.
    pub const fn slow(slow: SlowReader) -> Self {
        Self { slow, logs: false }
    }
}

/// What `commit` may be told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommitOptions {
    /// The image's name; none without.
    pub name: Option<Reference>,
    /// Who made it.
    pub author: String,
    /// A remark in its history.
    pub message: String,
    /// Dockerfile instructions for its config, as in an import.
    pub changes: Vec<String>,
    /// Whether a running container stands still while it is read. Default true: otherwise files may be caught half
    /// written.
    pub pause: bool,
    /// What its containers run; what this does not say, and all of it where it is `None`, is as in the container.
    pub config: Option<RunConfig>,
}

impl Default for CommitOptions {
    fn default() -> Self {
        Self {
            name: None,
            author: String::new(),
            message: String::new(),
            changes: Vec::new(),
            pause: true,
            config: None,
        }
    }
}

impl CommitOptions {
    /// An image without a name, of a container that stands still.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the image.
    #[must_use]
    pub fn name(mut self, name: Reference) -> Self {
        self.name = Some(name);
        self
    }

    /// Says who made it.
    #[must_use]
    pub fn author(mut self, author: impl Into<String>) -> Self {
        self.author = author.into();
        self
    }

    /// Leaves a remark in its history.
    #[must_use]
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// Adds a Dockerfile instruction for its config.
    #[must_use]
    pub fn change(mut self, instruction: impl Into<String>) -> Self {
        self.changes.push(instruction.into());
        self
    }

    /// Whether a running container stands still while it is read.
    #[must_use]
    pub fn pause(mut self, pause: bool) -> Self {
        self.pause = pause;
        self
    }
}

/// What `copy_in` may be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyInOptions {
    /// Whether it is an error if a directory would take the place of something else, or the other way round.
    pub keep_kinds: bool,
    /// Whether everything is to belong to the container's user, instead of whom the archive names.
    pub own_by_user: bool,
}

impl CopyInOptions {
    /// Owners as the archive names them; the rest by default.
    pub const fn new() -> Self {
        Self {
            keep_kinds: false,
            own_by_user: false,
        }
    }

    /// Refuses that a directory takes the place of something else, or the other way round.
    #[must_use]
    pub const fn keep_kinds(mut self, keep: bool) -> Self {
        self.keep_kinds = keep;
        self
    }

    /// Gives everything to the container's user.
    #[must_use]
    pub const fn own_by_user(mut self, own: bool) -> Self {
        self.own_by_user = own;
        self
    }
}

/// What `stop` may be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StopOptions {
    /// The first signal; default the container's own.
    pub signal: Option<Signal>,
    /// How long to wait before SIGKILL; default the container's own.
    pub timeout: Option<Duration>,
}

/// What `checkpoint` may be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckpointOptions {
    /// Where checkpoints are kept: an absolute path. By default with the container, and then they go with it.
    pub directory: Option<PathBuf>,
    /// The container goes on after it. Without, it ends by SIGKILL.
    pub leave_running: bool,
}

/// What `remove` may be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// Kill it first if it runs.
    pub force: bool,
    /// Remove its anonymous volumes too. Those of a bound container go with it in any case: nobody could find them again.
    pub volumes: bool,
}

impl RemoveOptions {
    /// Kills it first if it runs; the rest by default.
    pub const fn force() -> Self {
        Self {
            force: true,
            volumes: false,
        }
    }
}

/// What `list` may be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Also those that do not run.
    pub all: bool,
    /// Docker's: `ancestor`, `before`, `exited`, `expose`, `health`, `id`, `is-task`, `label`, `name` (an expression),
    /// `network`, `publish`, `since`, `status`, `volume`; and `label!` for what must not be there.
    pub filter: Filter,
}

/// Until when `wait` waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitCondition {
    /// Until it has run and ended. A container that was never started is waited for.
    #[default]
    Exited,
    /// Until it does not run: at once with status 0 if it was never started. Docker's `not-running`.
    NotRunning,
    /// Until the next end, however often it has ended before. Docker's `next-exit`.
    NextExit,
    /// Until it is removed. Docker's `removed`.
    Removed,
}

/// A command to run in a running container. Every field has Docker's default unless it says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ExecSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment, over the container's.
    pub env: BTreeMap<String, String>,
    /// Working directory; default the container's.
    pub working_dir: Option<PathBuf>,
    /// `name`, `uid`, `name:group` or `uid:gid`; default the container's user.
    pub user: Option<String>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// The terminal's first size: rows and columns. Default 24 by 80.
    pub tty_size: Option<(u16, u16)>,
    /// Whether stdin stays open for a writer; otherwise it is empty.
    pub stdin: bool,
    /// All capabilities, and no seccomp filter.
    pub privileged: bool,
    /// What a client of the Engine API types to leave its terminal; see [`DetachKeys`](super::DetachKeys).
    pub detach_keys: Option<String>,
}

impl ExecSpec {
    /// Runs a program.
    pub fn new<S: Into<String>>(command: impl IntoIterator<Item = S>) -> Self {
        Self {
            command: command.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn working_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.working_dir = Some(dir.into());
        self
    }

    /// Sets the user: `name`, `uid`, `name:group` or `uid:gid`.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Gives it a terminal.
    #[must_use]
    pub fn tty(mut self, tty: bool) -> Self {
        self.tty = tty;
        self
    }

    /// Sets the terminal's first size.
    #[must_use]
    pub fn tty_size(mut self, rows: u16, columns: u16) -> Self {
        self.tty_size = Some((rows, columns));
        self
    }

    /// Keeps stdin open for a writer.
    #[must_use]
    pub fn stdin(mut self, open: bool) -> Self {
        self.stdin = open;
        self
    }

    /// Gives it all capabilities, and no seccomp filter.
    #[must_use]
    pub fn privileged(mut self, privileged: bool) -> Self {
        self.privileged = privileged;
        self
    }
}

/// What `stats` may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatsOptions {
    /// A reading each second, for as long as the container exists; otherwise one.
    pub stream: bool,
    /// Without `stream`: at once, without a second reading to compare with.
    pub one_shot: bool,
}
