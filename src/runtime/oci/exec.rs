//! A command in a running container: `exec --detach`, whose process the helper takes over.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::bundle;
use super::call::{own, pid_in};
use super::console::Console;
use super::create::write;
use super::gone;
use super::identity::{self, Identity, Wanted};
use super::said::unless_ended;
use super::task::Parts;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::native::helper::wire::op;
use crate::runtime::native::hunt::{self, Mark};
use crate::runtime::native::start::{Ends, Stdio};
use crate::runtime::native::tool::{self, Adopted, DYING};
use crate::runtime::native::zygote::ExitWatch;
use crate::runtime::{ExecLaunch, ExecStarted, ExecTask, StdioPlan, Task};
use crate::sys::blocking::blocking;
use crate::sys::pidfd;
use crate::types::{ExitStatus, Signal};

/// In a task of its own, so that a caller who goes away leaves nothing: a command that nobody takes is killed.
pub(super) async fn run_detached(parts: Parts, container: Arc<dyn Task>, exec: ExecLaunch) -> Result<ExecStarted> {
    let (sender, receiver) = oneshot::channel();
    tokio::spawn(async move {
        let result = run(&parts, container.pid(), exec).await;
        let ended = futures_util::FutureExt::now_or_never(container.until_ended()).is_some();
        let result = unless_ended(result, ended, || parts.not_running());
        if let Err(Ok(unwanted)) = sender.send(result) {
            let _ = unwanted.task.kill_all().await;
        }
    });
    receiver.await.map_err(|_| gone())?
}

async fn run(parts: &Parts, pid: u32, exec: ExecLaunch) -> Result<ExecStarted> {
    if parts.seccomp && exec.seccomp.is_none() {
        let what = format!(
            "a command without the container's seccomp profile with the runtime {:?}",
            parts.job.name
        );
        return Err(Error::unsupported(what, "the native runtime"));
    }
    let bench = &parts.job.bench;
    let call = parts.call(bench);
    let name = parts.work.fresh("exec");
    let (making, wanted, file) = (parts.clone(), exec.clone(), name.clone());
    let console = blocking(move || making.prepare(pid, &wanted, &file)).await?;
    let (process, pid_file) = (own(&name), own(&format!("{name}.pid")));
    let mut verb = vec!["exec", "--detach", "--process", &process, "--pid-file", &pid_file];
    let socket = console.as_ref().map(Console::place);
    if let Some(socket) = &socket {
        verb.extend(["--console-socket", socket]);
    }
    verb.push(parts.id.as_str());
    let ends = Ends::new(StdioPlan {
        stdin: true,
        ..exec.stdio
    })?;
    let with = call.positions(&ends, Vec::new(), parts.cgroup.as_deref())?;
    let turn = bench.zygote.turns.acquire().await.map_err(|_| gone())?;
    let (run, stdio) = call.run("exec", call.plan(&verb)?, ends, with).await?;
    let left = parts.clone();
    let size = exec.stdio.terminal;
    let (inner, terminal) = blocking(move || {
        let terminal = console.zip(size).map(|(console, size)| console.take(size)).transpose();
        let inner = pid_in(&left.work.file(&format!("{name}.pid")))?;
        left.tidy(&name);
        Ok((inner, terminal))
    })
    .await?;
    let adopted = tool::adopt(&bench.zygote, inner, &[]).await?;
    drop((run, turn));
    Command::started(adopted, terminal, exec.stdio, stdio).await
}

impl Parts {
    /// Writes what is to be run, and makes the socket for its terminal. Blocking.
    fn prepare(&self, pid: u32, exec: &ExecLaunch, file: &str) -> Result<Option<Console>> {
        let wanted = Wanted {
            user: exec.user.as_deref(),
            extra: &exec.extra_groups,
            usual: exec.process.user(),
        };
        let root = match wanted.needs_files() {
            true => Some(self.root_of(pid)?),
            false => None,
        };
        let found = identity::look_up(wanted, root.as_ref().map(|root| root.as_fd()))?;
        let identity: Identity = if self.place.single_id { found.alone() } else { found };
        let process = bundle::process(&exec.process, exec.stdio, self.place, &identity)?;
        let text = serde_json::to_vec(&process).map_err(|error| Error::internal("a command").with_source(error))?;
        write(&self.work.file(file), &text)?;
        exec.stdio.terminal.map(|_| Console::listen(&self.work)).transpose()
    }

    /// The container's root as it is now. The number is its first process's, or nobody's if that has been reaped.
    fn root_of(&self, pid: u32) -> Result<OwnedFd> {
        let root = File::open(format!("/proc/{pid}/root")).map_err(|error| self.not_running().with_source(error))?;
        Ok(root.into())
    }

    /// Blocking.
    fn tidy(&self, name: &str) {
        for file in [name.to_owned(), format!("{name}.pid")] {
            let _ = std::fs::remove_file(self.work.file(&file));
        }
    }
}

/// A command in a container of an OCI runtime.
#[derive(Debug)]
struct Command {
    pid: Option<u32>,
    process: Option<OwnedFd>,
    /// Where its processes are found if it leads no session: crun lets a process lead it that ends before the command begins.
    session: Option<Mark>,
    exit: ExitWatch,
    terminal: Option<OwnedFd>,
}

impl Command {
    async fn started(
        adopted: Adopted,
        terminal: Result<Option<OwnedFd>>,
        wanted: StdioPlan,
        [stdin, stdout, stderr]: Stdio,
    ) -> Result<ExecStarted> {
        let Adopted {
            zygote,
            req,
            process,
            exit,
            ..
        } = adopted;
        let mut ending = exit.clone();
        // What has ended is nobody's any more.
        tokio::spawn(async move {
            let _ = ending.wait_for(Option::is_some).await;
            zygote.tell(req, op::FORGET);
        });
        let pid = process.as_ref().and_then(|process| pidfd::pid(process.as_fd()).ok());
        let session = pid.and_then(|pid| Mark::session_of(pid).ok().flatten());
        // Only if the number was its own all the while.
        let session = session.filter(|_| process.as_ref().and_then(|process| pidfd::pid(process.as_fd()).ok()) == pid);
        let mut command = Self {
            pid,
            process,
            session,
            exit,
            terminal: None,
        };
        let copy = |terminal: &OwnedFd| {
            terminal
                .try_clone()
                .map_err(|error| Error::os("keep the terminal", error))
        };
        let both = terminal.and_then(|terminal| Ok((terminal.as_ref().map(copy).transpose()?, terminal)));
        let (kept, terminal) = match both {
            Ok(both) => both,
            Err(error) => {
                let _ = command.kill_all().await;
                return Err(error);
            }
        };
        command.terminal = kept;
        Ok(ExecStarted {
            task: Arc::new(command),
            stdin: stdin.filter(|_| wanted.stdin),
            stdout,
            stderr,
            terminal,
        })
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::InvalidState, "the command has ended")
}

fn sent(result: std::io::Result<()>, what: &'static str) -> Result<()> {
    result.map_err(|error| match error.raw_os_error() {
        Some(libc::ESRCH) => ended(),
        _ => Error::os(what, error),
    })
}

#[async_trait]
impl ExecTask for Command {
    fn pid(&self) -> Option<u32> {
        self.pid
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process.as_ref().ok_or_else(ended)?;
        sent(pidfd::send_signal(process.as_fd(), signal.number()), "send a signal")
    }

    async fn kill_all(&self) -> Result<()> {
        let process = self.process.as_ref().ok_or_else(ended)?;
        if let Some(session) = &self.session {
            return hunt::kill_all_within(DYING, session).await;
        }
        // It leads a session: runtimes make one for each command.
        let killed = match pidfd::kill_group(process.as_fd()) {
            // Before Linux 6.9.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                pidfd::send_signal(process.as_fd(), libc::SIGKILL)
            }
            killed => killed,
        };
        sent(killed, "kill a command's processes")
    }

    async fn wait(&self) -> Result<ExitStatus> {
        let mut exit = self.exit.clone();
        let raw = match exit.wait_for(Option::is_some).await {
            Ok(raw) => raw.unwrap_or(libc::SIGKILL),
            Err(_) => (*self.exit.borrow()).unwrap_or(libc::SIGKILL),
        };
        Ok(tool::status(raw))
    }

    async fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let terminal = self.terminal.as_ref();
        let terminal = terminal.ok_or_else(|| Error::new(ErrorKind::InvalidState, "the command has no terminal"))?;
        crate::sys::terminal::resize(terminal.as_fd(), rows, columns)
            .map_err(|error| Error::os("set the terminal's size", error))
    }
}
