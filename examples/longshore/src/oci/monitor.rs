//! The process that has a container: it makes it, answers those who ask for it, and goes when it is deleted.
//!
//! Its standard streams are those that whoever created the container has given; they are the container's. If this process is killed,
//! its helper ends the container and takes away what was its own.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use longshore::runtime::cgroups::NativeCgroups;
use longshore::runtime::native::{Created, NativeOptions, NativeRuntime};
use longshore::runtime::{Runtime as _, Task, bundle};
use longshore::types::OwnerId;
use longshore::{Error, ErrorKind, Signal};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::ask::{Answer, Request, answer, hear};
use super::create::Args;
use super::place::{Place, Root, SOCKET, State, Status};
use super::report;
use super::streams::{self, Streams};

/// Has a container until it is deleted.
pub async fn run(root: &Root, args: &Args) -> Result<u8, Error> {
    let place = root.container(&args.id)?;
    let made = Monitor::make(&place, args).await;
    let told = report::tell(&place, made.as_ref().map(|(monitor, _)| monitor.state.pid)).await;
    let (mut monitor, listener) = match made {
        Ok(made) => made,
        // It is whoever creates the container that says why, unless nobody is there.
        Err(error) => return told.map(|()| 1).map_err(|_| error),
    };
    if let Err(error) = told {
        // Nobody knows of it.
        let _ = monitor.delete(true).await;
        return Err(error);
    }
    if args.console_socket.is_some() {
        // The terminal is all that the container has: whoever reads what these were is not to wait for its end.
        streams::let_go()?;
    }
    monitor.serve(&listener).await;
    Ok(0)
}

/// Removes what a process left that was killed together with its helper.
pub async fn clear(place: &Place, state: &State) -> Result<(), Error> {
    let runtime = runtime();
    let (dir, inner) = (place.dir.clone(), state.inner.clone());
    let cleared = tokio::task::spawn_blocking(move || runtime.forget(&inner, &dir)).await;
    cleared.map_err(|_| Error::internal("a thread that was to remove cgroups"))??;
    place.remove()
}

fn runtime() -> NativeRuntime {
    let mut options = NativeOptions::default();
    options.cgroups = Some(Arc::new(NativeCgroups::new(&OwnerId::random())));
    NativeRuntime::new(options)
}

/// How long a deletion waits for whoever reads what the container has printed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What there is of the container.
enum Phase {
    Created(Created),
    Running(Arc<dyn Task>, Streams),
    /// With what is still to be removed, and the exit code.
    Stopped(Option<Arc<dyn Task>>, i64),
}

struct Monitor {
    place: Place,
    runtime: NativeRuntime,
    state: State,
    /// `None` once it is deleted.
    phase: Option<Phase>,
    waiting: Vec<UnixStream>,
    /// Passes on what it has printed, after its end: whoever reads that may be slow.
    flushing: Option<JoinHandle<()>>,
    _lock: File,
}

impl Monitor {
    async fn make(place: &Place, args: &Args) -> Result<(Self, UnixListener), Error> {
        let lock = place.hold()?;
        leave_session()?;
        let (path, name) = (args.bundle.clone(), args.id.clone());
        let launched = tokio::task::spawn_blocking(move || bundle::launch(&path, &name)).await;
        let mut launch = launched.map_err(|_| Error::internal("a thread that was to read a bundle"))??;
        launch.notes = Some(place.dir.clone());
        let console = console(args, launch.stdio.terminal.is_some())?.map(Path::to_owned);
        let mut state = State {
            version: launch.spec.version().clone(),
            id: args.id.clone(),
            status: Status::Created,
            pid: 0,
            bundle: launch.bundle.clone().unwrap_or_default(),
            annotations: json!(launch.spec.annotations()),
            created: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
            inner: launch.id.clone(),
        };
        let (_dir, path) = place.short(SOCKET)?;
        let listener = UnixListener::bind(path).map_err(|error| Error::os("listen for requests", error))?;
        let runtime = runtime();
        let mut created = runtime.create(launch).await?;
        state.pid = created.pid();
        // Whatever fails from here on, the container goes with `created`.
        if let (Some(socket), Some(terminal)) = (console, created.take_terminal()) {
            give(terminal, socket).await?;
        }
        place.write(&state)?;
        let monitor = Self {
            place: place.clone(),
            runtime,
            state,
            phase: Some(Phase::Created(created)),
            waiting: Vec::new(),
            flushing: None,
            _lock: lock,
        };
        Ok((monitor, listener))
    }

    /// Answers until it is deleted, or nobody can ask any more.
    async fn serve(&mut self, listener: &UnixListener) {
        while self.phase.is_some() {
            tokio::select! {
                asked = listener.accept() => match asked {
                    Ok((stream, _)) => self.hear(stream).await,
                    // Too many files are open, say.
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                },
                code = ended(&mut self.phase) => self.end(code),
                () = flushed(&mut self.flushing) => self.tell_end().await,
            }
        }
    }

    async fn hear(&mut self, mut stream: UnixStream) {
        let done = match hear(&mut stream).await {
            None => Err(Error::invalid("no request")),
            Some(Request::Start) => self.start().await.map(|()| 0),
            Some(Request::Kill { signal, all }) => self.kill(signal, all).await.map(|()| 0),
            Some(Request::Delete { force }) => self.delete(force).await.map(|()| 0),
            Some(Request::Wait) => {
                self.waiting.push(stream);
                if matches!(self.phase, Some(Phase::Stopped(..))) && self.flushing.is_none() {
                    self.tell_end().await;
                }
                return;
            }
        };
        answer(stream, &Answer(done)).await;
    }

    async fn start(&mut self) -> Result<(), Error> {
        let created = match self.phase.take() {
            Some(Phase::Created(created)) => created,
            other => {
                self.phase = other;
                let why = match self.state.status {
                    Status::Running => "cannot start an already running container",
                    _ => "cannot start a container that has stopped",
                };
                return Err(Error::new(ErrorKind::InvalidState, why));
            }
        };
        let connected = match created.start().await {
            Ok(mut started) => {
                for warning in &started.warnings {
                    eprintln!("longshore: warning: {warning}");
                }
                Streams::connect(&mut started).map(|streams| (started.task, streams))
            }
            Err(error) => Err(error),
        };
        match connected {
            Ok((task, streams)) => {
                self.phase = Some(Phase::Running(task, streams));
                self.state.status = Status::Running;
                self.place.write(&self.state)
            }
            // As with runc: a program that is not there leaves a container that has stopped.
            Err(error) => {
                self.stopped(None, None, 128);
                Err(error)
            }
        }
    }

    async fn kill(&mut self, signal: Signal, all: bool) -> Result<(), Error> {
        match &self.phase {
            Some(Phase::Created(created)) => created.signal(signal),
            Some(Phase::Running(task, _)) => task.signal(signal, all).await,
            _ => Err(Error::new(ErrorKind::InvalidState, "container not running")),
        }
    }

    /// It has ended by itself.
    fn end(&mut self, code: i64) {
        match self.phase.take() {
            Some(Phase::Running(task, streams)) => self.stopped(Some(task), Some(streams), code),
            _ => self.stopped(None, None, code),
        }
    }

    fn stopped(&mut self, task: Option<Arc<dyn Task>>, streams: Option<Streams>, code: i64) {
        self.phase = Some(Phase::Stopped(task, code));
        (self.state.status, self.state.pid) = (Status::Stopped, 0);
        if let Err(error) = self.place.write(&self.state) {
            // Whoever reads the state sees the one before, until this process has ended.
            eprintln!("longshore: {}", error.report());
        }
        self.flushing = Some(tokio::task::spawn_blocking(move || {
            if let Some(streams) = streams {
                streams.finish();
            }
            // Where that fails they are closed with this process.
            let _ = streams::let_go();
        }));
    }

    /// Tells those who wait for the end of all that it had to say.
    async fn tell_end(&mut self) {
        self.flushing = None;
        let Some(Phase::Stopped(_, code)) = &self.phase else {
            return;
        };
        for stream in self.waiting.drain(..) {
            answer(stream, &Answer(Ok(*code))).await;
        }
    }

    async fn delete(&mut self, force: bool) -> Result<(), Error> {
        if let Some(Phase::Running(task, _)) = &self.phase {
            if !force {
                let message = format!("cannot delete container {} that is not stopped: running", self.state.id);
                return Err(Error::new(ErrorKind::InvalidState, message));
            }
            // It may have ended just now.
            let _ = task.signal(Signal::KILL, true).await;
            let code = ended(&mut self.phase).await;
            self.end(code);
        }
        if let Some(Phase::Created(mut created)) = self.phase.take_if(|phase| matches!(phase, Phase::Created(_))) {
            let _ = created.signal(Signal::KILL);
            let _ = created.until_ended().await;
            self.stopped(None, None, 137);
        }
        if let Some(Phase::Stopped(Some(task), _)) = &self.phase {
            // Hooks of the end run now, too.
            task.remove().await?;
        }
        if let Some(flushing) = self.flushing.take() {
            let _ = tokio::time::timeout(PATIENCE, flushing).await;
        }
        self.tell_end().await;
        self.runtime.close().await;
        self.phase = None;
        self.place.remove()
    }
}

/// Waits for the end of what there is, and says with what code. One that has ended does not end again.
async fn ended(phase: &mut Option<Phase>) -> i64 {
    match phase {
        Some(Phase::Created(created)) => {
            let _ = created.until_ended().await;
            137
        }
        Some(Phase::Running(task, _)) => match task.wait().await {
            Ok(exit) => i64::from(exit.status.code()),
            // Its helper was killed: nobody can say how it ended.
            Err(_) => 255,
        },
        Some(Phase::Stopped(..)) | None => std::future::pending().await,
    }
}

async fn flushed(flushing: &mut Option<JoinHandle<()>>) {
    match flushing {
        Some(flushing) => {
            let _ = flushing.await;
        }
        None => std::future::pending().await,
    }
}

/// Where its terminal is handed over.
fn console(args: &Args, terminal: bool) -> Result<Option<&Path>, Error> {
    match (&args.console_socket, terminal) {
        (Some(socket), true) => Ok(Some(socket)),
        (None, false) => Ok(None),
        (None, true) => Err(Error::invalid(
            "the container has a terminal (process.terminal), and nobody takes it: say --console-socket",
        )),
        (Some(_), false) => Err(Error::invalid(
            "--console-socket is for a container with a terminal (process.terminal)",
        )),
    }
}

async fn give(terminal: OwnedFd, socket: std::path::PathBuf) -> Result<(), Error> {
    let given = tokio::task::spawn_blocking(move || streams::hand_over(terminal.as_fd(), &socket)).await;
    given.map_err(|_| Error::internal("a thread that was to hand a terminal over"))?
}

/// What ends whoever created the container does not end this, nor does it keep a directory busy.
fn leave_session() -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::os("leave the session", error);
    rustix::process::setsid().map_err(|errno| failed(errno.into()))?;
    std::env::set_current_dir("/").map_err(failed)
}
