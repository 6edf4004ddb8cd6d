//! Containers that outlive their program: what a runtime is told of one, what its shim writes down, and the handle of whoever
//! has found it again.
//!
//! A detached container has a **shim**: a process of the runtime's that holds its streams, writes its log, reaps it, starts it
//! again as its policy says, and writes down how it ended. Any number of processes may be connected to a shim at once.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;

use super::{ExecLaunch, Exit, Task};
use crate::error::Result;
use crate::logs::LogStream;
use crate::types::{ExitStatus, Signal};

/// What a shim is told, once, beside what it is to start.
#[derive(Debug, Clone)]
pub struct Detach {
    /// A directory of the container's own, private to its owner; it exists, and is the shim's alone. What it holds is
    /// the runtime's business: a lock, a socket, the state, streams.
    pub dir: PathBuf,
    /// Where its output goes.
    pub log: DetachedLog,
    /// When it is started again.
    pub restart: Restart,
    /// How its health is looked after, if it is.
    pub check: Option<DetachedCheck>,
    /// Whether [`DetachedTask::output`] will be asked for: then it has everything from the first byte.
    pub attached: bool,
}

/// The log that a shim writes: the same files that the drivers of [`crate::logs`] write and read.
#[derive(Debug, Clone)]
pub struct DetachedLog {
    /// What is in the files; nothing is kept without one.
    pub format: Option<DetachedLogFormat>,
    /// Where they are; it exists.
    pub dir: PathBuf,
    /// A file that has as many bytes is full, and the next one begins.
    pub max_size_bytes: u64,
    /// How many files there are at most; at least 1.
    pub max_files: u32,
}

/// What is in the files of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DetachedLogFormat {
    /// Frames, as in [`crate::logs::Frame`], in files `log.N`.
    Frames,
    /// Docker's lines of JSON, in files `json.N`; the newest has this second name.
    Json {
        /// The second name: a file name without separators.
        known_as: String,
    },
}

/// When a shim starts its container again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Restart {
    /// Which ends are followed by a start.
    pub after: RestartAfter,
    /// At most so often in a row; `None` is no limit.
    pub max_retries: Option<u32>,
    /// The first pause; each is twice the one before, up to `longest`. Who ran for `steady` begins with the first again.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// See `first`.
    pub steady: Duration,
}

/// Which ends are followed by a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RestartAfter {
    /// None.
    #[default]
    Never,
    /// Those with another status than 0.
    Failure,
    /// All.
    Always,
}

/// What a shim does to see whether its container is well.
#[derive(Debug, Clone)]
pub struct DetachedCheck {
    /// What is run in the container: with status 0 it is well. Without streams of its own.
    pub probe: ExecLaunch,
    /// Time between probes.
    pub interval: Duration,
    /// Time that a probe may take before it is killed and has failed.
    pub timeout: Duration,
    /// Time after the start of a run in which failures do not count.
    pub start_period: Duration,
    /// Time between probes within the start period, until the first that succeeds.
    pub start_interval: Duration,
    /// So many failures in a row, and it is unhealthy.
    pub retries: u32,
    /// What happens then.
    pub on_unhealthy: DetachedAction,
}

/// What a shim does about a container that becomes unhealthy, once each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DetachedAction {
    /// It tells.
    Nothing,
    /// It kills it; the policy then does what it says.
    Kill,
    /// It sends a signal, kills what has not ended some time later, and does not start it again.
    Stop {
        /// The signal.
        signal: Signal,
        /// The time.
        patience: Duration,
    },
    /// As [`DetachedAction::Stop`], and starts it again at once, whatever its policy says.
    Restart {
        /// The signal.
        signal: Signal,
        /// The time.
        patience: Duration,
    },
}

/// What a shim knows of its container's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachedHealth {
    /// In a word.
    pub status: DetachedHealthStatus,
    /// How many probes in a row have failed, of those that count.
    pub failing_streak: u32,
    /// How often the status has changed in this run. The first change is one from `Starting`, and each that follows goes from one
    /// of the others to the other.
    pub changes: u32,
    /// When it did last, in nanoseconds since the epoch; 0 before.
    pub changed_ns: i64,
    /// The last five probes of the run, the oldest first.
    pub probes: Vec<DetachedProbe>,
}

/// See [`DetachedHealth`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DetachedHealthStatus {
    /// No probe has succeeded yet, and not enough have failed.
    Starting,
    /// The last probe that counted succeeded.
    Healthy,
    /// Too many failed in a row.
    Unhealthy,
}

/// How a probe went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachedProbe {
    /// When it began, in nanoseconds since the epoch.
    pub start_ns: i64,
    /// When it ended.
    pub end_ns: i64,
    /// What came of it.
    pub outcome: ProbeOutcome,
    /// The first 4096 bytes of what it printed; of one that could not be run, what that was about.
    pub output: Vec<u8>,
}

/// What came of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// It ended.
    Exited(ExitStatus),
    /// It took too long, and was killed.
    Overran,
    /// It could not be run.
    Failed {
        /// The step, in the runtime's words.
        step: &'static str,
        /// Why.
        errno: i32,
        /// The status that a shell has for that.
        code: Option<i32>,
    },
}

/// Where a detached container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DetachedPhase {
    /// Its first process is being set up for the first time.
    Starting,
    /// Its first process runs, or is paused.
    Running,
    /// Its first process has ended, and is about to be started again.
    Restarting,
    /// Its first process has ended for good.
    Ended,
}

/// What a shim has written down last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachedState {
    /// Grows with everything that is written down.
    pub change: u64,
    /// Where it is in its life.
    pub phase: DetachedPhase,
    /// Pid of the shim in the host's pid namespace.
    pub shim_pid: u32,
    /// Pid of the first process of the last run in the host's pid namespace; 0 before the first.
    pub pid: u32,
    /// When that process was made, in the kernel's ticks since boot (`proc_pid_stat(5)`, field 22).
    pub start_ticks: u64,
    /// When the last run began, in nanoseconds since the epoch; 0 before.
    pub started_ns: i64,
    /// When the last run that has ended did, in nanoseconds since the epoch; 0 before.
    pub finished_ns: i64,
    /// How that ended.
    pub exit: Option<Exit>,
    /// How often it was started again since it was started by hand.
    pub restarts: u32,
    /// How many runs have ended since it was started by hand.
    pub ends: u64,
    /// The errno and the step of a restart that failed, where the last one did.
    pub failure: Option<(u32, i32)>,
    /// Entries that its log lacks: the disk was full, say.
    pub lost_entries: u64,
    /// Whether somebody has closed the stdin of the present run ([`DetachedTask::close_input`]): whoever can write to it does
    /// well to close it too, or it does not come to its end.
    pub stdin_closed: bool,
    /// Its health in the present run, or the last; `None` where the shim probes nothing.
    pub health: Option<DetachedHealth>,
}

/// A detached container, seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DetachedSeen {
    /// It has no shim, and nothing was written down in this boot.
    Nothing,
    /// Its shim lives.
    Alive(DetachedState),
    /// Its shim has gone. In the phase `Ended` that is as it should be; in any other, the shim was killed, and `process`
    /// says whether the container's first process lives.
    Gone {
        /// What was written down last.
        state: DetachedState,
        /// Whether that first process lives.
        process: bool,
    },
    /// Its shim lives or not, and what was written down cannot be read: it is damaged, both copies of it.
    Damaged {
        /// Whether the shim lives: then it can be asked.
        alive: bool,
    },
}

/// Bytes of a detached container as they were read. The end of the stream without an end of the container: the reader was too
/// slow, or the shim was killed.
pub type DetachedOutput = Pin<Box<dyn Stream<Item = (LogStream, Bytes)> + Send + 'static>>;

/// A detached container that this process is connected to. [`Task`]'s methods are about its present run; dropping the handle
/// ends nothing.
#[async_trait]
pub trait DetachedTask: Task {
    /// What the shim has told last.
    fn state(&self) -> DetachedState;

    /// What was asked for and left out under [`super::Launch::best_effort_limits`], where this handle has started it.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether its shim looks after its health: an older one does not, nor one that was told of no check.
    fn is_probed(&self) -> bool {
        false
    }

    /// Whether the shim has hung up: nothing more can be asked of it by way of this handle.
    fn is_gone(&self) -> bool {
        false
    }

    /// Makes ready what the next command in it needs of its shim: that command starts even if the shim is killed meanwhile.
    ///
    /// # Errors
    /// `Unavailable` if the shim is gone; `InvalidState` if the container does not run.
    ///
    /// # Cancel safety
    /// A dropped call changes nothing.
    async fn prepare_exec(&self) -> Result<()> {
        Ok(())
    }

    /// Waits until the shim has told something newer than this, and says what. `None`: the shim is gone.
    ///
    /// # Cancel safety
    /// A dropped call changes nothing.
    async fn changed(&self, after: u64) -> Option<DetachedState>;

    /// What it prints from now on; at the first call after a start with [`Detach::attached`], from its first byte. Whoever takes
    /// nothing for a second is let go, so that nobody holds the container up.
    ///
    /// # Errors
    /// `Unavailable` if the shim is gone.
    async fn output(&self) -> Result<DetachedOutput>;

    /// Where its stdin, or its terminal, is written; `None` if it has neither.
    ///
    /// # Errors
    /// As [`DetachedTask::output`].
    async fn input(&self) -> Result<Option<OwnedFd>>;

    /// Nobody writes to its stdin any more: once all copies of the descriptor are closed it comes to its end.
    ///
    /// # Errors
    /// As [`DetachedTask::output`].
    async fn close_input(&self) -> Result<()>;

    /// Whoever ends it from now on means it: it is not started again. Ends a pause before a restart, too.
    ///
    /// # Errors
    /// As [`DetachedTask::output`].
    async fn halt(&self) -> Result<()>;

    /// Changes when it is started again.
    ///
    /// # Errors
    /// As [`DetachedTask::output`].
    async fn set_restart(&self, restart: Restart) -> Result<()>;
}

/// What a shim that was killed has left to whoever takes its place, while its container goes on.
#[derive(Debug)]
pub struct Bereft {
    /// The container's first process.
    pub process: OwnedFd,
    /// What it prints, from what waits in its pipes on.
    pub outputs: Vec<(OwnedFd, LogStream)>,
    /// Its number and its birth, by which what was written down is known to be about it.
    pub identity: (u32, u64),
}

/// What is handed on with a bound container that becomes detached.
#[derive(Debug)]
pub struct HandOn {
    /// This side of its output, as far as that is open still: of a terminal, the master as its stdout.
    pub outputs: Vec<(OwnedFd, LogStream)>,
    /// This side of its stdin, if that is a pipe and open still.
    pub stdin: Option<OwnedFd>,
    /// When its run began, in nanoseconds since the epoch.
    pub started_ns: i64,
    /// How often it was started again since it was started by hand.
    pub restarts: u32,
}

/// Starts and finds detached containers; a part of [`super::Runtime`] that a backend may lack.
#[async_trait]
pub trait DetachedRuntime: Send + Sync + 'static {
    /// Starts a container under a shim of its own: returns once its program has been executed. [`super::Launch::scratch`] is
    /// left alone whatever happens. The end of this process changes nothing for the container from the moment on that this
    /// returns; before, it may or may not be there, which [`DetachedRuntime::seen`] tells.
    ///
    /// # Errors
    /// As [`super::Runtime::start`]; `Conflict` if a shim is there already.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing behind: a container that starts nevertheless is killed, and its shim ends.
    async fn start_detached(&self, launch: super::Launch, detach: Detach) -> Result<Arc<dyn DetachedTask>>;

    /// Connects to the shim of a container.
    ///
    /// # Errors
    /// `Unavailable` if there is none, or it does not answer within a second; `Denied` if what listens there is not a shim
    /// of this user.
    ///
    /// # Cancel safety
    /// A dropped call changes nothing.
    async fn adopt(&self, id: &crate::types::ContainerId, dir: &Path) -> Result<Arc<dyn DetachedTask>>;

    /// Puts a new shim in the place of one that was killed, under a container that runs: it goes on with what that one had written
    /// down, and has from then on everything that a container has which was started by it. The container's process is not touched.
    /// `launch` and `detach` are as they would be for a start; by them it is started again where its policy says so.
    ///
    /// # Errors
    /// `Conflict` if there is a shim; `InvalidState` if the container has ended; `Unavailable` if what the former shim had written
    /// down cannot be read; `Unsupported` with a runtime that cannot do this; `Os` with the step that failed. The container goes
    /// on, whatever it is.
    ///
    /// # Cancel safety
    /// A dropped call leaves the container with a new shim, or as it was.
    async fn renew(&self, launch: super::Launch, _detach: Detach) -> Result<Arc<dyn DetachedTask>> {
        let what = format!("a new shim for container {}, which runs", launch.id.short());
        Err(crate::error::Error::unsupported(what, "its restart"))
    }

    /// Makes a container that this runtime runs, and that would end with this process, a detached one. Its process is not touched.
    /// `launch` and `detach` are as they would be for its start: by them it is started again where its policy says so. Nobody else
    /// reads what is handed on. The container keeps its parent, a helper of this process', which lives on for that. With
    /// [`Detach::attached`], what it prints from then on comes back.
    ///
    /// # Errors
    /// `Unsupported` with a task or a launch that cannot be detached; `InvalidState` if it has ended; `Os` with the step that
    /// failed. The container is bound then, as before.
    ///
    /// # Cancel safety
    /// None: whoever drops the call does not know what became of it.
    async fn promote(
        &self,
        _task: &dyn Task,
        launch: super::Launch,
        _detach: Detach,
        _streams: Arc<HandOn>,
    ) -> Result<Option<DetachedOutput>> {
        let what = format!("a longer life for container {}, which runs", launch.id.short());
        Err(crate::error::Error::unsupported(
            what,
            "a runtime that can do this, as \"native\" is",
        ))
    }

    /// Removes what a shim that was killed has left of a container that has ended: its cgroup, with whatever is in it. Blocking.
    ///
    /// # Errors
    /// `Os` where that cannot be done.
    fn clear(&self, id: &crate::types::ContainerId, dir: &Path) -> Result<()>;

    /// Looks at what a shim has written down, and whether it lives. Asks nobody: microseconds. Blocking.
    ///
    /// # Errors
    /// `Os` where files cannot be read.
    fn seen(&self, dir: &Path) -> Result<DetachedSeen>;

    /// What is left to somebody who takes the place of a shim; `None` where there is a shim, or no container that runs. The caller
    /// sees to it that nobody else does the same. Blocking.
    ///
    /// # Errors
    /// `Os` where files or the process cannot be opened.
    fn bereft(&self, _dir: &Path) -> Result<Option<Bereft>> {
        Ok(None)
    }

    /// Writes down how such a container has ended, as its shim would have. False where that cannot be known: the kernel does not
    /// say, or nobody has reaped the process for some seconds. Blocking.
    ///
    /// # Errors
    /// `Os` where it cannot be written.
    fn note_end(&self, _dir: &Path, _bereft: &Bereft) -> Result<bool> {
        Ok(false)
    }
}
