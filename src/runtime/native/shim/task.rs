//! A detached container that this process is connected to.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use oci_spec::runtime::LinuxResources;
use tokio::io::unix::AsyncFd;

use super::connect;
use super::seen::shown;
use super::watch::Link;
use super::{gone, inside_of, restart_words};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::logs::LogStream;
use crate::runtime::cgroups::Cgroup;
use crate::runtime::detached::{DetachedOutput, DetachedState, DetachedTask, Restart};
use crate::runtime::native::IdMapping;
use crate::runtime::native::exec;
use crate::runtime::native::helper::record::{State, phase};
use crate::runtime::native::helper::talk::{CHUNK, HEAD, config, greeting, op};
use crate::runtime::native::helper::wire;
use crate::runtime::native::task::Inside;
use crate::runtime::native::zygote::{self, Zygote};
use crate::runtime::{ExecLaunch, ExecStarted, ExecTask, Exit, Task};
use crate::sys::blocking::blocking;
use crate::sys::pidfd;
use crate::types::{ContainerId, ExitStatus, Signal};

/// How long a shim whose container has ended may take to go.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// The first process of a run, which its number and its birth tell from those of other runs.
type Process = (u32, u64, Arc<OwnedFd>);

#[derive(Debug)]
pub(super) struct ShimTask {
    id: ContainerId,
    dir: PathBuf,
    link: Link,
    inside: Inside,
    cgroup: Option<Arc<dyn Cgroup>>,
    /// The process that starts commands, while it lives.
    session: tokio::sync::Mutex<Option<Arc<Zygote>>>,
    output: Mutex<Option<OwnedFd>>,
    process: Mutex<Option<Process>>,
    warnings: Vec<String>,
}

impl ShimTask {
    pub(super) async fn connect(id: ContainerId, dir: PathBuf, cgroup: Option<Arc<dyn Cgroup>>) -> Result<Self> {
        let named = |error: Error| error.with_object(ObjectKind::Container, id.as_str());
        let link = Link::new(&dir).await.map_err(named)?;
        let inside = inside_of(link.greeting.inside()).ok_or_else(|| {
            Error::unsupported("a shim that says too little", "a shim of this version or a later one")
        })?;
        Ok(Self {
            id,
            dir,
            link,
            inside,
            cgroup,
            session: tokio::sync::Mutex::default(),
            output: Mutex::default(),
            process: Mutex::default(),
            warnings: Vec::new(),
        })
    }

    /// Takes what whoever starts it has: what the first reader gets, and warnings.
    pub(super) fn started(&mut self, output: Option<OwnedFd>, warnings: Vec<String>) {
        self.output = Mutex::new(output);
        self.warnings = warnings;
    }

    fn known(&self) -> State {
        self.link.known().state
    }

    fn error(&self, kind: ErrorKind, what: &str) -> Error {
        Error::new(kind, format!("container {} {what}", self.id.short()))
            .with_object(ObjectKind::Container, self.id.as_str())
    }

    fn not_running(&self) -> Error {
        self.error(ErrorKind::InvalidState, "is not running")
    }

    /// As far as the shim has told.
    fn is_running(&self) -> bool {
        matches!(self.known().phase, phase::STARTING | phase::RUNNING)
    }

    /// A request that a shim refuses because nothing runs, or because it is gone.
    async fn ask(&self, op: u32, body: &[u8]) -> Result<Option<OwnedFd>> {
        match self.link.ask(op, body).await {
            Err(error) if matches!(error.errno(), Some(libc::ESRCH | libc::ENXIO)) => {
                Err(self.not_running().with_source(error))
            }
            Err(error) if self.link.known().gone => Err(gone(&self.id).with_source(error)),
            answered => answered,
        }
    }

    /// The first process of the present run. One that was asked for before is known though the shim is gone.
    async fn process(&self) -> Result<Arc<OwnedFd>> {
        if !self.is_running() {
            return Err(self.not_running());
        }
        let state = self.known();
        let slot = || self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let cached = slot().clone();
        if let Some((pid, ticks, process)) = cached
            && (pid, ticks) == (state.pid, state.start_ticks)
        {
            return Ok(process);
        }
        let process = self.ask(op::PROCESS, &[]).await?;
        let process = Arc::new(process.ok_or_else(|| Error::internal("the shim sent no descriptor"))?);
        *slot() = Some((state.pid, state.start_ticks, Arc::clone(&process)));
        Ok(process)
    }

    fn send(&self, process: &OwnedFd, signal: Signal) -> Result<()> {
        match pidfd::send_signal(process.as_fd(), signal.number()) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(self.not_running()),
            result => result.map_err(|error| Error::os("send a signal", error)),
        }
    }

    async fn input_of_run(&self) -> Result<Option<OwnedFd>> {
        let terminal = self.link.greeting.word(greeting::FLAGS) & config::TERMINAL != 0;
        match self.ask(op::INPUT, &[]).await {
            // Of a run that another shim had begun: nobody else had its terminal.
            Err(error) if terminal && error.kind() == &ErrorKind::InvalidState && self.is_running() => {
                let what = "has lost its terminal with a shim that was killed; its next start has one";
                Err(self.error(ErrorKind::InvalidState, what).with_source(error))
            }
            asked => asked,
        }
    }

    async fn kill_group(&self) {
        let Some(cgroup) = self.cgroup.clone() else { return };
        if let Err(error) = blocking(move || cgroup.kill()).await {
            tracing::warn!(container = %self.id, error = error.report(), "processes in another's pid namespace may stay");
        }
    }

    /// The process that starts commands: one that serves this handle, and ends with it.
    async fn session(&self) -> Result<Arc<Zygote>> {
        let mut slot = self.session.lock().await;
        if let Some(session) = slot.as_ref().filter(|session| !session.is_dead()) {
            return Ok(Arc::clone(session));
        }
        let socket = connect::open(&self.dir, op::SESSION)?;
        let copy = socket.try_clone().map_err(connect::lost)?;
        let greeting = connect::greeted(&connect::watched(socket)?).await?;
        if greeting.word(greeting::PLANS) != u64::from(wire::VERSION) {
            return Err(Error::unsupported(
                "commands in a container that another version of this library has started",
                "the same version, or the container's restart",
            ));
        }
        let mapping = match self.inside.host.single_id {
            true => IdMapping::Single,
            false => IdMapping::Root,
        };
        let session = Arc::new(Zygote::over(copy, mapping, self.known().shim_pid)?);
        *slot = Some(Arc::clone(&session));
        Ok(session)
    }

    async fn freeze(&self, frozen: bool) -> Result<()> {
        let Some(cgroup) = self.cgroup.clone() else {
            return Err(Error::unsupported("pausing", "a cgroup driver"));
        };
        blocking(move || cgroup.freeze(frozen)).await
    }

    fn exit_of(&self, state: &State) -> Result<Exit> {
        let unknown = || self.error(ErrorKind::Unavailable, "has ended, and nobody knows how");
        shown(state, &self.dir).exit.ok_or_else(unknown)
    }
}

#[async_trait]
impl Task for ShimTask {
    fn pid(&self) -> u32 {
        self.known().pid
    }

    async fn signal(&self, signal: Signal, all: bool) -> Result<()> {
        let process = self.process().await?;
        if !all {
            return self.send(&process, signal);
        }
        if !self.inside.own_processes {
            if signal == Signal::KILL {
                self.kill_group().await;
            }
            return match self.send(&process, signal) {
                // Killed with the others.
                Err(error) if signal == Signal::KILL && error.kind() == &ErrorKind::InvalidState => Ok(()),
                sent => sent,
            };
        }
        // The death of pid 1 is the death of its whole pid namespace.
        if signal == Signal::KILL {
            return self.send(&process, signal);
        }
        let session = self.session().await?;
        let number = signal.number().to_ne_bytes();
        let reply = session
            .send(session.request(), wire::op::SIGNAL, &number, &[process.as_fd()])
            .await?;
        let others = reply.await.map_err(|_| gone(&self.id)).and_then(zygote::check);
        match (others, self.send(&process, signal)) {
            (Ok(_), Err(error)) if error.kind() != &ErrorKind::InvalidState => Err(error),
            // The first process may end when it sees the others end.
            (Ok(_), _) => Ok(()),
            (Err(_), Err(error)) => Err(error),
            (Err(error), Ok(())) => Err(error),
        }
    }

    async fn wait(&self) -> Result<Exit> {
        let now = self.known();
        if matches!(now.phase, phase::RESTARTING | phase::ENDED) && now.ends > 0 {
            return self.exit_of(&now);
        }
        let then = self.link.until(|state| state.ends > now.ends).await;
        match then.state.ends > now.ends {
            true => self.exit_of(&then.state),
            false => Err(gone(&self.id)),
        }
    }

    async fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        if self.link.greeting.word(greeting::FLAGS) & config::TERMINAL == 0 {
            return Err(Error::new(ErrorKind::InvalidState, "the container has no terminal"));
        }
        let terminal = self.input_of_run().await?;
        let terminal = terminal.ok_or_else(|| self.not_running())?;
        crate::sys::terminal::resize(terminal.as_fd(), rows, columns)
            .map_err(|error: io::Error| Error::os("set the terminal's size", error))
    }

    async fn exec(&self, exec: ExecLaunch) -> Result<ExecStarted> {
        let process = self.process().await?;
        let session = self.session().await?;
        let os = |error| Error::os("keep the container's process", error);
        let job = exec::Job {
            zygote: Arc::clone(&session),
            id: self.id.clone(),
            container: process.try_clone().map_err(os)?,
            cgroup: self.cgroup.clone(),
            inside: self.inside,
        };
        let started = job.run_detached(exec).await;
        let mut started = started.map_err(|error| match error.kind() {
            // Whatever step failed: the container ended under it.
            ErrorKind::Os if pidfd::has_ended(process.as_fd()) => self.not_running().with_source(error),
            _ => error,
        })?;
        started.task = Arc::new(Command {
            inner: started.task,
            _session: session,
        });
        Ok(started)
    }

    async fn pause(&self) -> Result<()> {
        self.freeze(true).await
    }

    async fn resume(&self) -> Result<()> {
        self.freeze(false).await
    }

    async fn update(&self, resources: &LinuxResources) -> Result<()> {
        let Some(cgroup) = self.cgroup.clone() else {
            return Err(Error::unsupported("changing limits", "a cgroup driver"));
        };
        let resources = resources.clone();
        blocking(move || cgroup.update(&resources)).await?;
        Ok(())
    }

    /// The shim removes what there is of the container when it has ended; this waits for that.
    async fn remove(&self) -> Result<()> {
        let known = self.link.known();
        if !known.gone && known.state.phase != phase::ENDED {
            return Err(self.error(ErrorKind::InvalidState, "is running"));
        }
        let _ = tokio::time::timeout(PATIENCE, self.link.until_gone()).await;
        match self.cgroup.clone() {
            Some(cgroup) => blocking(move || cgroup.remove()).await,
            None => Ok(()),
        }
    }
}

#[async_trait]
impl DetachedTask for ShimTask {
    fn state(&self) -> DetachedState {
        shown(&self.known(), &self.dir)
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    fn is_probed(&self) -> bool {
        self.link.greeting.word(greeting::FLAGS) & config::HEALTH != 0
    }

    fn is_gone(&self) -> bool {
        self.link.known().gone
    }

    async fn prepare_exec(&self) -> Result<()> {
        self.process().await?;
        self.session().await.map(drop)
    }

    async fn changed(&self, after: u64) -> Option<DetachedState> {
        let known = self.link.until(|state| state.change > after).await;
        (known.state.change > after).then(|| shown(&known.state, &self.dir))
    }

    async fn output(&self) -> Result<DetachedOutput> {
        let first = self.output.lock().unwrap_or_else(PoisonError::into_inner).take();
        let socket = match first {
            Some(socket) => connect::watched(socket)?,
            None => {
                let socket = connect::watched(connect::open(&self.dir, op::OUTPUT)?)?;
                connect::greeted(&socket).await?;
                socket
            }
        };
        Ok(Box::pin(stream::unfold((socket, vec![0u8; HEAD + CHUNK]), read_chunk)))
    }

    async fn input(&self) -> Result<Option<OwnedFd>> {
        self.input_of_run().await
    }

    async fn close_input(&self) -> Result<()> {
        self.ask(op::CLOSE_INPUT, &[]).await.map(drop)
    }

    async fn halt(&self) -> Result<()> {
        self.ask(op::HALT, &[]).await.map(drop)
    }

    async fn set_restart(&self, restart: Restart) -> Result<()> {
        let words = restart_words(restart).words();
        let body: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.ask(op::RESTART, &body).await.map(drop)
    }
}

/// What comes over a connection for output.
pub(super) fn chunks_of(socket: OwnedFd) -> Result<DetachedOutput> {
    let socket = connect::watched(socket)?;
    Ok(Box::pin(stream::unfold((socket, vec![0u8; HEAD + CHUNK]), read_chunk)))
}

type Reading = (AsyncFd<OwnedFd>, Vec<u8>);

async fn read_chunk((socket, mut room): Reading) -> Option<((LogStream, Bytes), Reading)> {
    // A socket that fails is an end, as that of a shim that is gone.
    while let Ok(Some(message)) = connect::next(&socket, &mut room).await {
        let stream = match (message.head.op, message.head.arg) {
            (op::CHUNK, 1) => LogStream::Stdout,
            (op::CHUNK, 2) => LogStream::Stderr,
            _ => continue,
        };
        return Some(((stream, Bytes::from(message.body)), (socket, room)));
    }
    None
}

/// A command, which keeps the process that has started it: that one tells how it ends.
#[derive(Debug)]
struct Command {
    inner: Arc<dyn ExecTask>,
    _session: Arc<Zygote>,
}

#[async_trait]
impl ExecTask for Command {
    fn pid(&self) -> Option<u32> {
        self.inner.pid()
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        self.inner.signal(signal).await
    }

    async fn kill_all(&self) -> Result<()> {
        self.inner.kill_all().await
    }

    async fn wait(&self) -> Result<ExitStatus> {
        self.inner.wait().await
    }

    async fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        self.inner.resize(rows, columns).await
    }
}
