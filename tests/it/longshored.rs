//! `longshored`, the real program, on a root with busybox in it.

use std::fs;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::faults;
use crate::frame::{Check, Stop, fail, skip};
use crate::support::root::TempRoot;
use crate::support::wire::{self, Answer};
use crate::support::{names_in, runtime};

/// The program: next to this one where it was copied for another user, else where cargo puts it.
pub fn program() -> Result<PathBuf, Stop> {
    let here = std::env::current_exe()?;
    let found = here
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("longshored"))
        .find(|file| file.is_file());
    found.map_or_else(|| skip("longshored is not built: cargo build --package longshored"), Ok)
}

fn command_on(root: &Path) -> Result<Command, Stop> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program()?);
    command.arg("--root").arg(root);
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    Ok(command)
}

/// A running daemon; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    /// Its unix socket.
    pub socket: PathBuf,
    pub root: TempRoot,
}

impl Daemon {
    /// Serves on a socket in its root, and on whatever else the options say.
    pub fn start(options: &[&str]) -> Result<Self, Stop> {
        Self::with(options, |_| {})
    }

    /// The same, with something done to the command first.
    pub fn with(options: &[&str], prepare: impl FnOnce(&mut Command)) -> Result<Self, Stop> {
        let (mut command, root, socket) = Self::command()?;
        command.arg("--host").arg(format!("unix://{}", socket.display()));
        command.args(options);
        prepare(&mut command);
        let mut daemon = Self {
            child: command.spawn()?,
            socket,
            root,
        };
        daemon.await_socket()?;
        Ok(daemon)
    }

    /// The command with its root alone; its root, and where its socket would be. It must not outlive the tests, however they
    /// end.
    pub fn command() -> Result<(Command, TempRoot, PathBuf), Stop> {
        runtime::namespaces()?;
        let root = faults::filled_root()?;
        let socket = root.path().join("d.sock");
        Ok((command_on(root.path())?, root, socket))
    }

    /// Kills it, and starts another in its place.
    pub fn replace(&mut self, options: &[&str]) -> Check {
        self.signal(Signal::SIGKILL)?;
        self.child.wait()?;
        let mut command = command_on(self.root.path())?;
        command.arg("--host").arg(format!("unix://{}", self.socket.display()));
        self.child = command.args(options).spawn()?;
        self.await_socket()
    }

    /// Takes a child that was started otherwise.
    pub fn adopt(child: Child, root: TempRoot, socket: PathBuf) -> Self {
        Self { child, socket, root }
    }

    /// Waits until it takes connections.
    pub fn await_socket(&mut self) -> Result<(), Stop> {
        let start = Instant::now();
        while UnixStream::connect(&self.socket).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return fail(format!("longshored ended early ({status}): {}", self.complaint()));
            }
            if start.elapsed() > wire::PATIENCE {
                return fail("longshored does not listen");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// What it printed, once it has ended.
    pub fn complaint(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = stderr.read_to_string(&mut text);
        }
        text
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn ask(&self, method: &str, target: &str, body: &str) -> Result<Answer, Stop> {
        wire::ask(&self.socket, method, target, body)
    }

    /// Creates a container of busybox that goes when it ends; its id. `more` is more of its config.
    pub fn create(&self, more: &str) -> Result<String, Stop> {
        let body =
            format!(r#"{{"Image": "busybox", {more}, "HostConfig": {{"NetworkMode": "none", "AutoRemove": true}}}}"#);
        let created = self.ask("POST", "/v1.44/containers/create", &body)?.expect(201)?;
        match created.json()?["Id"].as_str() {
            Some(id) => Ok(id.to_owned()),
            None => fail(format!("{created:?}")),
        }
    }

    /// Creates and starts one; its id and its process.
    pub fn run(&self, more: &str) -> Result<(String, u64), Stop> {
        let id = self.create(more)?;
        self.ask("POST", &format!("/containers/{id}/start"), "")?.expect(204)?;
        let inspected = self.ask("GET", &format!("/containers/{id}/json"), "")?.expect(200)?;
        Ok((id, inspected.json()?["State"]["Pid"].as_u64().unwrap_or(0)))
    }

    pub fn signal(&self, signal: Signal) -> Result<(), Stop> {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal)?;
        Ok(())
    }

    /// Waits until it ends by itself.
    pub fn ended(&mut self) -> Result<ExitStatus, Stop> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > wire::PATIENCE {
                return fail("longshored does not end");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it as a service manager does. It must end well.
    pub fn stop(&mut self) -> Result<(), Stop> {
        self.signal(Signal::SIGTERM)?;
        let status = self.ended()?;
        if status.success() {
            return Ok(());
        }
        fail(format!("{status}: {}", self.complaint()))
    }

    /// Its descriptors now.
    pub fn descriptors(&self) -> usize {
        names_in(Path::new(&format!("/proc/{}/fd", self.pid()))).len()
    }

    /// It and everything that descends from it, whoever is dead but not waited for left out.
    pub fn family(&self) -> Vec<u32> {
        let mut family = vec![self.pid()];
        let all = parents();
        while let Some((pid, _)) = all
            .iter()
            .find(|(pid, parent)| family.contains(parent) && !family.contains(pid))
        {
            family.push(*pid);
        }
        family
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Living processes and their parents.
fn parents() -> Vec<(u32, u32)> {
    let names = names_in(Path::new("/proc"));
    names.iter().filter_map(|name| parent(name)).collect()
}

fn parent(name: &str) -> Option<(u32, u32)> {
    let pid = name.parse().ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (state != "Z").then_some((pid, parent))
}

/// Waits until none of these processes lives.
pub fn await_gone(pids: &[u32]) -> Result<(), Stop> {
    let start = Instant::now();
    loop {
        let left: Vec<u32> = parents()
            .iter()
            .map(|(pid, _)| *pid)
            .filter(|pid| pids.contains(pid))
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        if start.elapsed() > Duration::from_secs(10) {
            return fail(format!("processes {left:?} are left"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
