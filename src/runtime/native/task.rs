//! A running container.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use async_trait::async_trait;
use oci_spec::runtime::LinuxResources;
use tokio::sync::OnceCell;

#[cfg(feature = "engine")]
use super::criu;
use super::exec;
use super::helper::wire::op;
use super::hooks::Hooks;
use super::plan::Host;
use super::start::Pipes;

use super::zygote::{self, ExitWatch, Zygote};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
#[cfg(feature = "engine")]
use crate::runtime::Dump;
use crate::runtime::cgroups::Cgroup;
use crate::runtime::{ExecLaunch, ExecStarted, Exit, Task};
use crate::sys::blocking::blocking;
use crate::sys::pidfd;
use crate::types::{ContainerId, ExitStatus, Signal};

/// A container of the native runtime.
#[derive(Debug)]
pub(crate) struct NativeTask {
    id: ContainerId,
    pid: u32,
    zygote: Arc<Zygote>,
    req: u64,
    process: OwnedFd,
    exit: ExitWatch,
    terminal: Option<OwnedFd>,
    cgroup: Option<Arc<dyn Cgroup>>,
    inside: Inside,
    #[cfg_attr(not(feature = "engine"), allow(dead_code, reason = "for checkpoints"))]
    origin: Origin,
    hooks: Option<Arc<Hooks>>,
    ended: OnceCell<Exit>,
}

/// What must be known of a container's processes to write them down.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "engine"), allow(dead_code, reason = "for checkpoints"))]
pub(crate) struct Origin {
    /// The number of the first, as the zygote knows it.
    pub(crate) inner: i32,
    pub(crate) pipes: Pipes,
    /// When it was started, if that is known.
    pub(crate) start_ticks: Option<u64>,
}

/// A container that ends with its owner.
#[cfg(feature = "engine")]
#[derive(Debug)]
pub(crate) struct BoundTask {
    pub(crate) pid: u32,
    pub(crate) zygote: Arc<Zygote>,
    /// Of its start.
    pub(crate) req: u64,
    pub(crate) process: OwnedFd,
    pub(crate) cgroup: Option<Arc<dyn Cgroup>>,
    pub(crate) hooks: bool,
}

/// What a command in the container must know of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inside {
    pub(crate) host: Host,
    /// The container's namespaces, as flags of clone(2).
    pub(crate) namespaces: u32,
    /// Its processes are in a pid namespace that ends with the first of them.
    pub(crate) own_processes: bool,
    /// Its root's user and group as the zygote knows them.
    pub(crate) root: [u32; 2],
}

impl NativeTask {
    #[allow(clippy::too_many_arguments, reason = "called once, with named values")]
    pub(crate) fn new(
        id: ContainerId,
        pid: u32,
        zygote: Arc<Zygote>,
        req: u64,
        process: OwnedFd,
        exit: ExitWatch,
        terminal: Option<OwnedFd>,
        cgroup: Option<Arc<dyn Cgroup>>,
        inside: Inside,
        origin: Origin,
        hooks: Option<Arc<Hooks>>,
    ) -> Self {
        Self {
            id,
            pid,
            zygote,
            req,
            process,
            exit,
            terminal,
            cgroup,
            inside,
            origin,
            hooks,
            ended: OnceCell::new(),
        }
    }

    /// What must be known of it to make it outlive its owner.
    #[cfg(feature = "engine")]
    pub(crate) fn bound(&self) -> Result<BoundTask> {
        let process = self.process.try_clone();
        Ok(BoundTask {
            pid: self.pid,
            zygote: Arc::clone(&self.zygote),
            req: self.req,
            process: process.map_err(|error| Error::os("keep the container's process", error))?,
            cgroup: self.cgroup.clone(),
            hooks: self.hooks.is_some(),
        })
    }

    fn has_ended(&self) -> bool {
        self.exit.borrow().is_some()
    }

    /// Whether the first process is dead, told or not.
    fn is_dead(&self) -> bool {
        self.has_ended() || pidfd::has_ended(self.process.as_fd())
    }

    fn not_running(&self) -> Error {
        Error::new(
            ErrorKind::InvalidState,
            format!("container {} is not running", self.id.short()),
        )
        .with_object(ObjectKind::Container, self.id.as_str())
    }

    fn send(&self, signal: Signal) -> Result<()> {
        match pidfd::send_signal(self.process.as_fd(), signal.number()) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(self.not_running()),
            result => result.map_err(|error| Error::os("send a signal", error)),
        }
    }

    async fn freeze(&self, frozen: bool) -> Result<()> {
        let Some(cgroup) = self.cgroup.clone() else {
            return Err(Error::unsupported("pausing", "a cgroup driver"));
        };
        blocking(move || cgroup.freeze(frozen)).await
    }

    /// In another container's pid namespace, or in none: what is in the cgroup is the container's, and everything else there is not.
    async fn send_group(&self, signal: Signal) -> Result<()> {
        if signal == Signal::KILL {
            self.kill_group().await;
        }
        match self.send(signal) {
            // Killed with the others.
            Err(error) if signal == Signal::KILL && error.kind() == &ErrorKind::InvalidState => Ok(()),
            sent => sent,
        }
    }

    async fn kill_group(&self) {
        let Some(cgroup) = self.cgroup.clone() else { return };
        let killed = blocking(move || cgroup.kill()).await;
        // A warden ends them one by one.
        let killed = killed.or_else(|error| match self.inside.host.apart && error.is_unsupported() {
            true => Ok(()),
            false => Err(error),
        });
        if let Err(error) = killed {
            tracing::warn!(container = %self.id, error = error.report(), "processes in another's pid namespace may stay");
        }
    }

    /// Every process of the pid namespace. The others first: an end of the first process is the end of all.
    async fn send_all(&self, signal: Signal) -> Result<()> {
        let number = signal.number().to_ne_bytes();
        let req = self.zygote.request();
        let fds = [self.process.as_fd()];
        let reply = self.zygote.send(req, op::SIGNAL, &number, &fds).await?;
        let others = reply.await.map_err(|_| zygote::gone()).and_then(zygote::check);
        match (others, self.send(signal)) {
            (Ok(_), Err(error)) if error.kind() != &ErrorKind::InvalidState => Err(error),
            // The first process may end when it sees the others end.
            (Ok(_), _) => Ok(()),
            (Err(_), Err(error)) => Err(error),
            (Err(error), Ok(())) => Err(error),
        }
    }
}

#[async_trait]
impl Task for NativeTask {
    fn pid(&self) -> u32 {
        self.pid
    }

    fn as_any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }

    fn start_ticks(&self) -> Option<u64> {
        self.origin.start_ticks
    }

    async fn signal(&self, signal: Signal, all: bool) -> Result<()> {
        if self.has_ended() {
            return Err(self.not_running());
        }
        if all && !self.inside.own_processes {
            return self.send_group(signal).await;
        }
        // The death of pid 1 is the death of its whole pid namespace.
        if all && signal != Signal::KILL {
            return self.send_all(signal).await;
        }
        self.send(signal)
    }

    async fn wait(&self) -> Result<Exit> {
        self.until_ended().await;
        let status = status((*self.exit.borrow()).unwrap_or(libc::SIGKILL));
        if !self.inside.own_processes && self.ended.get().is_none() {
            // No namespace ends with the first process.
            self.kill_group().await;
        }
        let cgroup = self.cgroup.clone();
        let ended = self.ended.get_or_try_init(|| async move {
            let kills = match cgroup {
                Some(cgroup) => blocking(move || cgroup.oom_kills()).await.unwrap_or(None),
                None => None,
            };
            Ok::<_, Error>(Exit::new(status, kills.map(|kills| kills > 0)))
        });
        ended.await.copied()
    }

    async fn until_ended(&self) {
        // A zygote that is gone tells nothing any more.
        let mut exit = self.exit.clone();
        let _ = exit.wait_for(Option::is_some).await;
    }

    async fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let Some(terminal) = &self.terminal else {
            return Err(Error::new(ErrorKind::InvalidState, "the container has no terminal"));
        };
        crate::sys::terminal::resize(terminal.as_fd(), rows, columns)
            .map_err(|error: io::Error| Error::os("set the terminal's size", error))
    }

    async fn exec(&self, exec: ExecLaunch) -> Result<ExecStarted> {
        if self.has_ended() {
            return Err(self.not_running());
        }
        let os = |error| Error::os("keep the container's process", error);
        let job = exec::Job {
            zygote: Arc::clone(&self.zygote),
            id: self.id.clone(),
            container: self.process.try_clone().map_err(os)?,
            cgroup: self.cgroup.clone(),
            inside: self.inside,
        };
        let started = job.run_detached(exec).await;
        started.map_err(|error| match error.kind() {
            // Whatever step failed: the container ended under it.
            ErrorKind::Os if self.is_dead() => self.not_running().with_source(error),
            // A warden goes with its container.
            ErrorKind::Unavailable if self.inside.host.apart && self.is_dead() => self.not_running().with_source(error),
            _ => error,
        })
    }

    async fn pause(&self) -> Result<()> {
        self.freeze(true).await
    }

    async fn resume(&self) -> Result<()> {
        self.freeze(false).await
    }

    #[cfg(feature = "engine")]
    async fn checkpoint(&self, wanted: Dump) -> Result<()> {
        if self.is_dead() {
            return Err(self.not_running());
        }
        let subject = criu::Subject {
            zygote: Arc::clone(&self.zygote),
            host: self.inside.host,
            id: self.id.clone(),
            pid: self.pid,
            inner: self.origin.inner,
            pipes: self.origin.pipes,
            own_network: self.inside.namespaces & libc::CLONE_NEWNET as u32 != 0,
        };
        criu::dump(subject, wanted).await
    }

    async fn update(&self, resources: &LinuxResources) -> Result<()> {
        let Some(cgroup) = self.cgroup.clone() else {
            return Err(Error::unsupported("changing limits", "a cgroup driver"));
        };
        let resources = resources.clone();
        blocking(move || cgroup.update(&resources)).await?;
        Ok(())
    }

    async fn remove(&self) -> Result<()> {
        if !self.has_ended() {
            return Err(Error::new(
                ErrorKind::InvalidState,
                format!("container {} is running", self.id.short()),
            )
            .with_object(ObjectKind::Container, self.id.as_str()));
        }
        // The counters go with the cgroup.
        self.wait().await?;
        if let Some(cgroup) = self.cgroup.clone() {
            blocking(move || cgroup.remove()).await?;
        }
        self.zygote.tell(self.req, op::FORGET);
        if let Some(hooks) = &self.hooks {
            hooks.stopped().await;
        }
        Ok(())
    }
}

/// What a wait status says.
pub(crate) fn status(raw: i32) -> ExitStatus {
    match raw & 0x7f {
        0 => ExitStatus::exited((raw >> 8) as u8),
        signal => ExitStatus::signaled(signal as u8),
    }
}
