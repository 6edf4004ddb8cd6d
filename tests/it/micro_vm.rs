//! A runtime as somebody writes it who starts each container in a small virtual machine: the seam asks for nothing that only
//! processes of this host have. The monitor here is a thread, and the guest knows three programs; the rest is what such a
//! runtime has to do.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use longshore::error::{Error, Result};
use longshore::runtime::{
    ExecLaunch, ExecStarted, ExecTask, Exit, Launch, LaunchSource, Runtime, Started, StdioPlan, Task,
};
use longshore::types::{ExitStatus, MountSource, Signal};
use longshore::{ContainerState, Engine, ErrorKind, ExecSpec};
use oci_spec::runtime::{LinuxResources, Process};
use tokio::sync::watch;

use crate::frame::{Check, Stop, fail};
use crate::support::image;
use crate::support::root::TempRoot;
use crate::support::world::{FORCE, World, source, text};
use crate::tests;

tests! { "micro_vm":
    kernel_async [
        l7_the_runtime_seam_takes_a_micro_vm,
    ]
}

/// What a virtual machine is made with.
#[derive(Debug)]
struct Machine {
    memory_bytes: u64,
    cpus: u64,
    /// Directories of the host that the guest mounts, by virtio-fs.
    shares: Vec<PathBuf>,
}

impl Machine {
    /// Of a launch that says it: everything that the guest's kernel makes by itself is the guest's.
    fn of(launch: &Launch) -> Result<Self> {
        let mut shares = Vec::new();
        for root in &launch.rootfs {
            match &root.source {
                MountSource::Bind { path } => shares.push(path.clone()),
                MountSource::Overlay { lower, upper, .. } => shares.extend(lower.iter().chain(upper).cloned()),
                other => {
                    return Err(Error::unsupported(
                        format!("{other:?} in a virtual machine"),
                        "a directory",
                    ));
                }
            }
        }
        for mount in &launch.mounts {
            match &mount.source {
                LaunchSource::Host(path) => shares.push(path.clone()),
                _ => {
                    return Err(Error::unsupported(
                        "an open mount in a virtual machine",
                        "a directory of the host",
                    ));
                }
            }
        }
        let resources = launch
            .spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.resources().as_ref());
        let memory = resources
            .and_then(|all| all.memory().as_ref())
            .and_then(|memory| memory.limit());
        let quota = resources.and_then(|all| all.cpu().as_ref()).and_then(|cpu| cpu.quota());
        Ok(Self {
            memory_bytes: memory.map_or(128 << 20, |bytes| bytes.unsigned_abs()),
            cpus: quota.map_or(1, |quota| quota.unsigned_abs().div_ceil(100_000)),
            shares,
        })
    }

    /// How a monitor is told, in the words of cloud-hypervisor.
    fn arguments(&self) -> Vec<String> {
        let mut words = vec![
            "--memory".to_owned(),
            format!("size={},shared=on", self.memory_bytes),
            "--cpus".to_owned(),
            format!("boot={}", self.cpus),
        ];
        for (number, share) in self.shares.iter().enumerate() {
            words.push("--fs".to_owned());
            words.push(format!("tag=share{number},socket={}.sock", share.display()));
        }
        words
    }
}

/// The monitor of one machine, and the connection to the agent in it.
struct Monitor {
    arguments: Vec<String>,
    exit: watch::Sender<Option<ExitStatus>>,
    paused: watch::Sender<bool>,
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor")
            .field("arguments", &self.arguments)
            .finish_non_exhaustive()
    }
}

/// A process of the guest.
#[derive(Debug, Clone)]
struct Guest {
    monitor: Arc<Monitor>,
    exit: watch::Sender<Option<ExitStatus>>,
}

type Streams = [Option<OwnedFd>; 3];

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|errno| Error::os("make a pipe", errno))
}

impl Guest {
    fn run(&self, process: &Process, stdio: StdioPlan) -> Result<Streams> {
        let words = process.args().clone().unwrap_or_default();
        let known = words
            .first()
            .is_some_and(|name| matches!(name.as_str(), "echo" | "cat" | "sleep"));
        if !known {
            return Err(Error::new(
                ErrorKind::CommandNotFound,
                format!("the guest has no {words:?}"),
            ));
        }
        let ((stdout, out), (stderr, err), (input, stdin)) = (pipe()?, pipe()?, pipe()?);
        let exit = self.exit.clone();
        std::thread::spawn(move || {
            let (mut out, _err) = (std::fs::File::from(out), err);
            let mut text = Vec::new();
            let done = match words.first().map(String::as_str) {
                Some("echo") => writeln!(out, "{}", words[1..].join(" ")),
                Some("cat") => std::fs::File::from(input)
                    .read_to_end(&mut text)
                    .and_then(|_| out.write_all(&text)),
                _ => return,
            };
            drop(out);
            end(&exit, ExitStatus::exited(u8::from(done.is_err())));
        });
        Ok([stdio.stdin.then_some(stdin), Some(stdout), Some(stderr)])
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        if self.exit.borrow().is_some() {
            return Err(Error::new(ErrorKind::InvalidState, "it has ended"));
        }
        end(&self.exit, ExitStatus::signaled(signal.number() as u8));
        Ok(())
    }

    async fn ended(&self) -> Result<ExitStatus> {
        let mut exit = self.exit.subscribe();
        let gone = || Error::internal("the machine is gone");
        let status = exit.wait_for(Option::is_some).await.map_err(|_| gone())?;
        status.ok_or_else(gone)
    }
}

fn end(exit: &watch::Sender<Option<ExitStatus>>, status: ExitStatus) {
    exit.send_if_modified(|known| {
        let first = known.is_none();
        known.get_or_insert(status);
        first
    });
}

#[derive(Debug)]
struct MicroVms;

#[async_trait]
impl Runtime for MicroVms {
    fn name(&self) -> &str {
        "micro-vm"
    }

    async fn start(&self, launch: Launch) -> Result<Started> {
        let process = launch
            .spec
            .process()
            .as_ref()
            .ok_or_else(|| Error::invalid("no process"))?;
        let exit = watch::Sender::new(None);
        let monitor = Arc::new(Monitor {
            arguments: Machine::of(&launch)?.arguments(),
            exit: exit.clone(),
            paused: watch::Sender::new(false),
        });
        let first = Guest { monitor, exit };
        let [stdin, stdout, stderr] = first.run(process, launch.stdio)?;
        Ok(Started {
            task: Arc::new(first),
            stdin,
            stdout,
            stderr,
            terminal: None,
            warnings: Vec::new(),
        })
    }
}

#[async_trait]
impl Task for Guest {
    /// The monitor's: the guest's own numbers are nobody's here.
    fn pid(&self) -> u32 {
        std::process::id()
    }

    async fn signal(&self, signal: Signal, _all: bool) -> Result<()> {
        Guest::signal(self, signal)
    }

    async fn wait(&self) -> Result<Exit> {
        Ok(Exit::new(self.ended().await?, None))
    }

    async fn resize(&self, _rows: u16, _columns: u16) -> Result<()> {
        Err(Error::new(ErrorKind::InvalidState, "no terminal"))
    }

    async fn exec(&self, exec: ExecLaunch) -> Result<ExecStarted> {
        let command = Guest {
            monitor: Arc::clone(&self.monitor),
            exit: watch::Sender::new(None),
        };
        let [stdin, stdout, stderr] = command.run(&exec.process, exec.stdio)?;
        Ok(ExecStarted {
            task: Arc::new(command),
            stdin,
            stdout,
            stderr,
            terminal: None,
        })
    }

    async fn pause(&self) -> Result<()> {
        self.monitor.paused.send_replace(true);
        Ok(())
    }

    async fn resume(&self) -> Result<()> {
        self.monitor.paused.send_replace(false);
        Ok(())
    }

    async fn update(&self, _resources: &LinuxResources) -> Result<()> {
        Err(Error::unsupported("other limits of a machine that runs", "a new one"))
    }

    async fn remove(&self) -> Result<()> {
        match self.monitor.exit.borrow().is_some() {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::InvalidState, "the machine runs")),
        }
    }
}

#[async_trait]
impl ExecTask for Guest {
    fn pid(&self) -> Option<u32> {
        None
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        Guest::signal(self, signal)
    }

    async fn wait(&self) -> Result<ExitStatus> {
        self.ended().await
    }

    async fn resize(&self, _rows: u16, _columns: u16) -> Result<()> {
        Err(Error::new(ErrorKind::InvalidState, "no terminal"))
    }
}

async fn world() -> std::result::Result<World, Stop> {
    let root = TempRoot::new();
    let engine = Engine::builder(root.path()).runtime(Arc::new(MicroVms)).open().await?;
    let image = engine.pull(source(image::shared()?)).await?;
    Ok(World { engine, image, root })
}

async fn l7_the_runtime_seam_takes_a_micro_vm() -> Check {
    let world = world().await?;
    assert_eq!(world.engine.system().info().await?.runtime, "micro-vm");
    assert_eq!(
        world
            .says(world.spec().command(["echo", "from", "the", "guest"]))
            .await?,
        "from the guest"
    );
    let container = world.started(world.spec().command(["sleep", "1000"])).await?;
    let output = container.exec(ExecSpec::new(["echo", "beside"])).output().await?;
    assert_eq!(text(&output.stdout), "beside");
    container.pause().await?;
    assert_eq!(container.inspect().await?.state, ContainerState::Paused);
    container.unpause().await?;
    container.kill(Signal::KILL).await?;
    assert_eq!(container.wait().await?.status.signal(), Some(9));
    container.remove(FORCE).await?;
    match world.says(world.spec().command(["ls"])).await {
        Err(_) => Ok(()),
        Ok(said) => fail(said),
    }
}
