//! A runtime without a kernel: it plays a few programs itself. For tests of what stands above the [`Runtime`] seam, and the
//! shortest reading of what that seam asks for.
//!
//! It knows `echo WORDS…`, `fail CODE`, `cat` and `sleep` (until a signal); anything else is not found.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::{Exit, Launch, Runtime, Started, Task};
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

fn program(launch: &Launch) -> Result<Program> {
    let process = launch.spec.process().as_ref();
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

#[async_trait]
impl Runtime for FakeRuntime {
    fn name(&self) -> &str {
        "fake"
    }

    async fn start(&self, launch: Launch) -> Result<Started> {
        let program = program(&launch)?;
        let ((stdout, out), (stderr, err), (input, stdin)) = (pipe()?, pipe()?, pipe()?);
        let task = Arc::new(FakeTask {
            exit: watch::Sender::new(None),
        });
        let playing = Arc::clone(&task);
        tokio::task::spawn_blocking(move || {
            let _stderr = err;
            play(program, out, input, &playing);
        });
        let stdin = launch.stdio.stdin.then_some(stdin);
        let (stdout, stderr) = (Some(stdout), Some(stderr));
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
}

#[async_trait]
impl Task for FakeTask {
    fn pid(&self) -> u32 {
        std::process::id()
    }

    async fn signal(&self, signal: Signal, _all: bool) -> Result<()> {
        if self.exit.borrow().is_some() {
            return Err(Error::new(ErrorKind::InvalidState, "the process has ended"));
        }
        self.end(ExitStatus::signaled(signal.number() as u8));
        Ok(())
    }

    async fn wait(&self) -> Result<Exit> {
        let mut exit = self.exit.subscribe();
        let ended = exit
            .wait_for(Option::is_some)
            .await
            .map_err(|_| Error::internal("the fake runtime is gone"))?;
        ended.ok_or_else(|| Error::internal("the fake runtime is gone"))
    }

    async fn resize(&self, _rows: u16, _columns: u16) -> Result<()> {
        Err(Error::new(ErrorKind::InvalidState, "no terminal"))
    }

    async fn remove(&self) -> Result<()> {
        Ok(())
    }
}
