//! `longshore oci create` and `run`: a process that has the container, and word of how it did.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use clap::Args as ClapArgs;
use longshore::{Error, Signal};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::ask::Request;
use super::place::{Place, Root, write_whole};
use super::report;

/// Signals that `run` passes on to the container.
const FORWARDED: [&str; 6] = ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2"];

#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    /// Directory with config.json and the root file system
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// File for the pid of the container's first process
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Socket at which somebody takes the container's terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// What the container is to be called
    #[arg(value_name = "CONTAINER")]
    pub id: String,
}

#[derive(Debug, ClapArgs)]
pub struct RunArgs {
    #[command(flatten)]
    create: Args,
    /// Leave it running, and return
    #[arg(short, long)]
    detach: bool,
}

/// Creates a container: it is set up, and its program waits.
///
/// # Errors
/// Of the bundle, the host, or the container's set-up; nothing is left then.
pub async fn run(root: &Root, args: &Args) -> Result<Place, Error> {
    let place = root.place(&args.id)?;
    let absolute = |path: &Path| {
        let found = path.canonicalize();
        found.map_err(|error| Error::os(format!("find {}", path.display()), error))
    };
    let bundle = absolute(&args.bundle)?;
    let console = args.console_socket.as_deref().map(absolute).transpose()?;
    place.make()?;
    let made = made(root, &place, &bundle, console.as_deref(), args).await;
    if made.is_err() {
        // What is left of a container whose process was killed on the way is removed by its helper.
        let _ = place.remove();
    }
    made.map(|()| place)
}

async fn made(root: &Root, place: &Place, bundle: &Path, console: Option<&Path>, args: &Args) -> Result<(), Error> {
    let listener = report::listen(place)?;
    let mut child = spawn(root, bundle, console, &args.id)?;
    let told = report::take(listener, &mut child).await;
    report::forget(place);
    let pid = match told {
        Ok(pid) => pid,
        Err(error) => {
            // It ends by itself, and has cleaned up then.
            let _ = child.wait().await;
            return Err(error);
        }
    };
    let Some(file) = &args.pid_file else { return Ok(()) };
    let written = write_whole(file, pid.to_string().as_bytes());
    if written.is_err() {
        let _ = place.ask(&Request::Delete { force: true }).await;
    }
    written
}

/// This same program, as the process that has the container. Its standard streams are ours: the container's.
fn spawn(root: &Root, bundle: &Path, console: Option<&Path>, id: &str) -> Result<Child, Error> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("longshore").args(["oci", "--root"]).arg(root.path());
    command.arg("monitor").arg("--bundle").arg(bundle);
    if let Some(console) = console {
        // Its terminal is all that the container has.
        command.arg("--console-socket").arg(console);
        command.stdin(Stdio::null());
    }
    // It may begin with a dash.
    command.arg("--").arg(id);
    command
        .spawn()
        .map_err(|error| Error::os("start the container's process", error))
}

/// Creates a container, runs its program, and, unless it is left alone, waits for its end and deletes it.
pub async fn run_to_end(root: &Root, args: &RunArgs) -> Result<u8, Error> {
    let mut signals = Signals::catch()?;
    let place = run(root, &args.create).await?;
    let ended = match place.ask(&Request::Start).await {
        Ok(_) if args.detach => return Ok(0),
        Ok(_) => follow(&place, &mut signals).await,
        Err(error) => Err(error),
    };
    let deleted = place.ask(&Request::Delete { force: true }).await;
    let code = ended?;
    deleted?;
    Ok(code)
}

async fn follow(place: &Place, signals: &mut Signals) -> Result<u8, Error> {
    let waiting = place.ask(&Request::Wait);
    tokio::pin!(waiting);
    loop {
        tokio::select! {
            ended = &mut waiting => return Ok(u8::try_from(ended?).unwrap_or(u8::MAX)),
            signal = signals.next() => {
                // It fails when the container has just ended, which is heard anyway.
                let _ = place.ask(&Request::Kill { signal, all: false }).await;
            }
        }
    }
}

/// Signals that are passed on.
struct Signals(tokio::sync::mpsc::UnboundedReceiver<Signal>);

impl Signals {
    fn catch() -> Result<Self, Error> {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        for name in FORWARDED {
            let number: Signal = name.parse()?;
            let caught = signal(SignalKind::from_raw(number.number()));
            let mut caught = caught.map_err(|error| Error::os("catch signals", error))?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while caught.recv().await.is_some() {
                    let _ = sender.send(number);
                }
            });
        }
        Ok(Self(receiver))
    }

    async fn next(&mut self) -> Signal {
        match self.0.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }
}
