//! A command in a running container, from plan to running task.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::helper::wire::op;
use super::hunt::{self, Mark};
use super::plan::{Filters, Host, Plan};
use super::start::{self, Ends};
use super::task::{self, Inside};
use super::zygote::{self, ExitWatch, Zygote};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::cgroups::Cgroup;
use crate::runtime::{ExecLaunch, ExecStarted, ExecTask, StdioPlan};
use crate::sys::pidfd;
use crate::types::{ContainerId, ExitStatus, Signal};

/// What a command needs to know of its container.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) zygote: Arc<Zygote>,
    /// The container's.
    pub(crate) id: ContainerId,
    /// The container's first process.
    pub(crate) container: OwnedFd,
    pub(crate) cgroup: Option<Arc<dyn Cgroup>>,
    pub(crate) inside: Inside,
}

impl Job {
    /// Runs in a task of its own, so that a caller who goes away leaves nothing: a command that nobody takes is killed.
    pub(crate) async fn run_detached(self, exec: ExecLaunch) -> Result<ExecStarted> {
        let (sender, receiver) = oneshot::channel();
        tokio::spawn(async move {
            let marked = exec.marked;
            let result = self.run(exec).await;
            if let Err(Ok(unwanted)) = sender.send(result) {
                let _ = match marked {
                    true => unwanted.task.kill_all().await,
                    false => unwanted.task.signal(Signal::KILL).await,
                };
            }
        });
        receiver
            .await
            .map_err(|_| Error::new(ErrorKind::Cancelled, "the runtime of the engine was shut down"))?
    }

    async fn run(self, exec: ExecLaunch) -> Result<ExecStarted> {
        let host = self.inside.host;
        let filters = Filters::new(
            exec.seccomp.as_ref(),
            Some(&exec.process),
            host,
            self.zygote.agent().is_some(),
        )?;
        let mut plan = Plan::exec(&exec, host, self.inside.namespaces, filters)?;
        plan.set_root(self.inside.root);
        let mut ends = ends(exec.stdio, host)?;
        let names = plan.names.clone();
        let req = self.zygote.request();
        let exit = self.zygote.watch_exit(req);
        let reply = {
            let (mut positions, mut fds) = ends.positions(std::iter::empty(), self.cgroup.as_deref());
            positions.target = fds.len() as u32;
            fds.push(self.container.as_fd());
            self.zygote.send(req, op::EXEC, &plan.encode(positions), &fds).await
        };
        let reply = reply.inspect_err(|_| self.zygote.unwatch_exit(req))?;
        let terminal = ends.take_master();
        let (status, stdio) = ends.split();
        let outcome = start::outcome(status, &names, host, (self.zygote.agent(), &self.id), None).await;
        let reply = reply.await.map_err(|_| zygote::gone()).and_then(zygote::check);
        let process = match reply.and_then(|reply| reply.descriptor_if_any("take the command's process")) {
            Ok(process) => process,
            Err(error) => {
                // Without its descriptor a command that runs could not be ended.
                self.zygote.kill(req).await;
                self.zygote.unwatch_exit(req);
                return Err(outcome.err().unwrap_or(error));
            }
        };
        let command = Command {
            pid: process.as_ref().and_then(|process| pidfd::pid(process.as_fd()).ok()),
            process,
            exit,
            terminal: None,
            mark: None,
        };
        let copied = outcome
            .and_then(|setup| setup.ok_or_else(start::died_in_setup))
            .map(|setup| setup.with_terminal(terminal))
            .and_then(|setup| {
                let copy = setup.terminal.as_ref().map(OwnedFd::try_clone).transpose();
                let copy = copy.map_err(|error| Error::os("keep the terminal", error))?;
                Ok((setup, copy))
            });
        match copied {
            Ok((setup, copy)) => Ok(command.started(setup, copy, exec.stdio, stdio)),
            Err(error) => {
                let _ = command.signal(Signal::KILL).await;
                self.zygote.unwatch_exit(req);
                Err(error)
            }
        }
    }
}

/// A command always gets a pipe as its stdin: `/dev/null` would be the host's, and the container's own may be anything.
/// Nobody writes to one that was not asked for.
fn ends(stdio: StdioPlan, host: Host) -> Result<Ends> {
    Ends::of(StdioPlan { stdin: true, ..stdio }, host)
}

/// A command in a container of the native runtime.
#[derive(Debug)]
struct Command {
    pid: Option<u32>,
    process: Option<OwnedFd>,
    exit: ExitWatch,
    terminal: Option<OwnedFd>,
    /// The namespace by which all that it has started is known.
    mark: Option<Mark>,
}

impl Command {
    fn started(
        mut self,
        setup: start::Setup,
        copy: Option<OwnedFd>,
        wanted: StdioPlan,
        stdio: start::Stdio,
    ) -> ExecStarted {
        self.terminal = copy;
        self.mark = setup.mark.map(Mark::uts);
        let [stdin, stdout, stderr] = stdio;
        ExecStarted {
            task: Arc::new(self),
            stdin: stdin.filter(|_| wanted.stdin && wanted.terminal.is_none()),
            stdout,
            stderr,
            terminal: setup.terminal,
        }
    }

    fn kill_group(&self) -> Result<()> {
        let process = self.process.as_ref().ok_or_else(ended)?;
        let killed = match pidfd::kill_group(process.as_fd()) {
            // Before Linux 6.9.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                pidfd::send_signal(process.as_fd(), libc::SIGKILL)
            }
            killed => killed,
        };
        killed.map_err(|error| match error.raw_os_error() {
            Some(libc::ESRCH) => ended(),
            _ => Error::os("kill a command's processes", error),
        })
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::InvalidState, "the command has ended")
}

#[async_trait]
impl ExecTask for Command {
    fn pid(&self) -> Option<u32> {
        self.pid
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process.as_ref().ok_or_else(ended)?;
        match pidfd::send_signal(process.as_fd(), signal.number()) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(ended()),
            result => result.map_err(|error| Error::os("send a signal", error)),
        }
    }

    async fn kill_all(&self) -> Result<()> {
        let killed = self.kill_group();
        // What has left the group may be there when the command is not.
        if let Some(mark) = &self.mark {
            hunt::kill_all(mark).await?;
        }
        killed
    }

    async fn wait(&self) -> Result<ExitStatus> {
        let mut exit = self.exit.clone();
        let raw = match exit.wait_for(Option::is_some).await {
            Ok(raw) => raw.unwrap_or(libc::SIGKILL),
            Err(_) => (*self.exit.borrow()).unwrap_or(libc::SIGKILL),
        };
        Ok(task::status(raw))
    }

    async fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let Some(terminal) = &self.terminal else {
            return Err(Error::new(ErrorKind::InvalidState, "the command has no terminal"));
        };
        crate::sys::terminal::resize(terminal.as_fd(), rows, columns)
            .map_err(|error: io::Error| Error::os("set the terminal's size", error))
    }
}
