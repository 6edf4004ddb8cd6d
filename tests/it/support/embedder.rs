//! This test binary as a child process in a role: an embedder that can be killed.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use super::runtime;
use crate::frame::{Stop, fail};

/// What a role does with its arguments; the number is the exit code.
pub type Role = fn(&[String]) -> i32;

const ROLE: &str = "LONGSHORE_IT_ROLE";
/// Roles that make no namespaces, with the library's own runtime or none.
const WITHOUT_NAMESPACES: [&str; 2] = ["echo", "chroot-forever"];

/// Runs the role that this process was started for, if any.
pub fn run_role(roles: &[(&str, Role)]) -> Option<i32> {
    let wanted = std::env::var(ROLE).ok()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let role = roles.iter().find(|(name, _)| *name == wanted);
    Some(role.map_or(125, |(_, role)| role(&arguments)))
}

/// A child in a role. Killed when dropped.
#[derive(Debug)]
pub struct Embedder {
    child: Child,
    lines: Receiver<String>,
}

impl Embedder {
    /// Starts a role.
    pub fn start(role: &str, arguments: &[&str]) -> Result<Self, Stop> {
        Self::spawn(Command::new("/proc/self/exe"), role, arguments)
    }

    /// Starts a role by way of another program, which is told what to execute with its last arguments.
    pub fn start_under(program: &[&str], role: &str, arguments: &[&str]) -> Result<Self, Stop> {
        let [name, rest @ ..] = program else {
            return fail("no program");
        };
        let mut command = Command::new(super::program(name)?);
        command.args(rest).arg(std::env::current_exe()?);
        Self::spawn(command, role, arguments)
    }

    fn spawn(mut command: Command, role: &str, arguments: &[&str]) -> Result<Self, Stop> {
        if !WITHOUT_NAMESPACES.contains(&role) && runtime::chosen().is_none() {
            runtime::namespaces()?;
        }
        command
            .env(ROLE, role)
            .envs(super::scratch::entered().map(|dir| ("TMPDIR", dir)))
            .args(arguments);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().expect("piped");
        Ok(Self {
            child,
            lines: read_lines(stdout),
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that the role prints.
    pub fn line(&self, patience: Duration) -> Result<String, Stop> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => fail(format!("the role said nothing for {patience:?}")),
            Err(RecvTimeoutError::Disconnected) => fail("the role ended early"),
        }
    }

    /// Everything that a role said and nobody asked for yet, once it has ended.
    pub fn rest(&self) -> Vec<String> {
        let patience = Duration::from_secs(5);
        std::iter::from_fn(|| self.lines.recv_timeout(patience).ok()).collect()
    }

    /// SIGKILL, and waits for the end of the process itself.
    pub fn kill(&mut self) -> Result<(), Stop> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for the role to end by itself.
    pub fn finish(mut self) -> Result<i32, Stop> {
        Ok(self.child.wait()?.code().unwrap_or(-1))
    }
}

impl Drop for Embedder {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn read_lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
