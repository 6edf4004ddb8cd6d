//! A runtime without a kernel: it plays a few programs itself. For tests of what stands above the [`Runtime`] seam, and the
//! shortest reading of what that seam asks for.
//!
//! It knows `echo WORDS…`, `fail CODE`, `cat` and `sleep` (until a signal); anything else is not found. Containers can be
//! paused, and run commands.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use async_trait::async_trait;
use oci_spec::runtime::{LinuxResources, Process};
use tokio::sync::watch;

use super::{ExecLaunch, ExecStarted, ExecTask, Exit, Launch, Runtime, Started, StdioPlan, Task};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::types::{ExitStatus, Signal};

/// The fake runtime.
#[derive(Debug, Default)]
pub struct FakeRuntime;

#[derive(Debug)]
struct FakeTask {
    exit: watch::Sender<Option<Exit>>,
}

enum Program {
    Echo(String),
    Fail(u8),
    Cat,
    Sleep,
}

fn program(process: Option<&Process>) -> Result<Program> {
    let words = process.and_then(|process| process.args().clone()).unwrap_or_default();
    let (name, rest) = words.split_first().ok_or_else(|| Error::invalid("no program"))?;
    match name.as_str() {
        "echo" => Ok(Program::Echo(rest.join(" ") + "\n")),
        "fail" => Ok(Program::Fail(
            rest.first().and_then(|code| code.parse().ok()).unwrap_or(1),
        )),
        "cat" => Ok(Program::Cat),
        "sleep" => Ok(Program::Sleep),
        other => Err(
            Error::new(ErrorKind::CommandNotFound, format!("no such program: {other}"))
                .with_object(ObjectKind::Command, other),
        ),
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|error| Error::os("make a pipe", error))
}

/// The caller's ends of a program that plays: stdin, stdout, stderr.
type Ends = (Option<OwnedFd>, Option<OwnedFd>, Option<OwnedFd>);

/// Plays a program on a thread.
fn perform(program: Program, stdio: StdioPlan) -> Result<(Arc<FakeTask>, Ends)> {
    let ((stdout, out), (stderr, err), (input, stdin)) = (pipe()?, pipe()?, pipe()?);
    let task = Arc::new(FakeTask {
        exit: watch::Sender::new(None),
    });
    let playing = Arc::clone(&task);
    tokio::task::spawn_blocking(move || {
        let _stderr = err;
        play(program, out, input, &playing);
    });
    let stdin = stdio.stdin.then_some(stdin);
    Ok((task, (stdin, Some(stdout), Some(stderr))))
}

#[async_trait]
impl Runtime for FakeRuntime {
    fn name(&self) -> &str {
        "fake"
    }

    async fn start(&self, launch: Launch) -> Result<Started> {
        let program = program(launch.spec.process().as_ref())?;
        let (task, (stdin, stdout, stderr)) = perform(program, launch.stdio)?;
        Ok(Started {
            task,
            stdin,
            stdout,
            stderr,
            terminal: None,
            warnings: Vec::new(),
        })
    }
}

fn play(program: Program, out: OwnedFd, input: OwnedFd, task: &FakeTask) {
    let mut out = std::fs::File::from(out);
    let code = match program {
        Program::Echo(line) => u8::from(out.write_all(line.as_bytes()).is_err()),
        Program::Fail(code) => code,
        Program::Cat => {
            let mut bytes = Vec::new();
            let read = std::fs::File::from(input).read_to_end(&mut bytes);
            u8::from(read.is_err() || out.write_all(&bytes).is_err())
        }
        Program::Sleep => return,
    };
    drop(out);
    task.end(ExitStatus::exited(code));
}

impl FakeTask {
    fn end(&self, status: ExitStatus) {
        self.exit.send_if_modified(|exit| {
            let first = exit.is_none();
            exit.get_or_insert(Exit::new(status, None));
            first
        });
    }

    fn kill(&self, signal: Signal) -> Result<()> {
        if self.exit.borrow().is_some() {
            return Err(Error::new(ErrorKind::InvalidState, "the process has ended"));
        }
        self.end(ExitStatus::signaled(signal.number() as u8));
        Ok(())
    }

    async fn ended(&self) -> Result<Exit> {
        let mut exit = self.exit.subscribe();
        let ended = exit
            .wait_for(Option::is_some)
            .await
            .map_err(|_| Error::internal("the fake runtime is gone"))?;
        ended.ok_or_else(|| Error::internal("the fake runtime is gone"))
    }
}

fn no_terminal() -> Error {
    Error::new(ErrorKind::InvalidState, "no terminal")
}

#[async_trait]
impl Task for FakeTask {
    fn pid(&self) -> u32 {
        std::process::id()
    }

    async fn signal(&self, signal: Signal, _all: bool) -> Result<()> {
        self.kill(signal)
    }

    async fn wait(&self) -> Result<Exit> {
        self.ended().await
    }

    async fn resize(&self, _rows: u16, _columns: u16) -> Result<()> {
        Err(no_terminal())
    }

    async fn exec(&self, exec: ExecLaunch) -> Result<ExecStarted> {
        if self.exit.borrow().is_some() {
            return Err(Error::new(ErrorKind::InvalidState, "the container has ended"));
        }
        let (task, (stdin, stdout, stderr)) = perform(program(Some(&exec.process))?, exec.stdio)?;
        let (mut container, dying) = (self.exit.subscribe(), Arc::clone(&task));
        tokio::spawn(async move {
            tokio::select! {
                _ = container.wait_for(Option::is_some) => dying.end(ExitStatus::signaled(9)),
                _ = dying.ended() => {}
            }
        });
        Ok(ExecStarted {
            task,
            stdin,
            stdout,
            stderr,
            terminal: None,
        })
    }

    async fn pause(&self) -> Result<()> {
        Ok(())
    }

    async fn resume(&self) -> Result<()> {
        Ok(())
    }

    async fn update(&self, _resources: &LinuxResources) -> Result<()> {
        Ok(())
    }

    async fn remove(&self) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl ExecTask for FakeTask {
    fn pid(&self) -> Option<u32> {
        Some(std::process::id())
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        self.kill(signal)
    }

    async fn wait(&self) -> Result<ExitStatus> {
        Ok(self.ended().await?.status)
    }

    async fn resize(&self, _rows: u16, _columns: u16) -> Result<()> {
        Err(no_terminal())
    }
}
