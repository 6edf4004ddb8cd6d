//! A container in the foreground: its output, our stdin, signals and the size of the window.

use std::future::{pending, poll_fn};
use std::io::Read as _;
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt as _;
use longshore::containers::{Attached, BoxStream, DetachKeys, Exiting, Input, KeyScanner, SlowReader};
use longshore::logs::{Chunk, LogStream, TeeItem};
use longshore::{AttachOptions, Container, ContainerState, ExitStatus, Signal, WaitCondition};
use tokio::io::{AsyncWrite, AsyncWriteExt as _, stderr, stdout};
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::mpsc;

use crate::failure::Failure;
use crate::terminal::{RawMode, window_size};

/// Bytes of stdin read at a time.
const CHUNK: usize = 64 << 10;
/// So many requests to end within one session, and the container is killed: it may be deaf to them.
const PATIENCE: u32 = 3;
/// How long what was typed before the keys to leave may take on its way.
const LEAVING: Duration = Duration::from_secs(2);
/// What is passed on to the container: everything that a user or a supervisor sends to end a program or to nudge it.
const FORWARDED: [&str; 6] = ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2"];

/// Starts a created container, connects it to our standard streams, and waits for its end.
///
/// The terminal, if `tty`, is restored when this returns, however it returns. `keys` leave a container, which goes on by itself:
/// then there is no status. One that `restarts` is followed until its policy has it stay ended.
pub async fn run(
    container: &Container,
    tty: bool,
    keys: Option<DetachKeys>,
    restarts: bool,
) -> Result<Option<ExitStatus>, Failure> {
    let (mut attached, mut exit) = register(container).await?;
    let mut signals = Signals::catch()?;
    container.start().await.map_err(|error| Failure::of_run(&error))?;
    loop {
        let ended = follow(container, attached, exit, tty, keys.clone(), &mut signals).await?;
        if !restarts || ended.is_none() {
            return Ok(ended);
        }
        (attached, exit) = register(container).await?;
        let state = container.inspect().await?.state;
        if state != ContainerState::Restarting && !state.is_alive() {
            return Ok(ended);
        }
    }
}

/// Its next output and its next end.
async fn register(container: &Container) -> Result<(Attached, Exiting), Failure> {
    let attached = container.attach(AttachOptions::slow(SlowReader::Keep)).await?;
    Ok((attached, container.wait_for(WaitCondition::NextExit).await?))
}

async fn follow(
    container: &Container,
    attached: Attached,
    exit: Exiting,
    tty: bool,
    keys: Option<DetachKeys>,
    signals: &mut Signals,
) -> Result<Option<ExitStatus>, Failure> {
    let Attached { output, input, .. } = attached;
    let _raw = if tty && input.is_some() {
        RawMode::enter()?
    } else {
        None
    };
    let ended = async {
        copy_output(output).await?;
        Ok(Some(exit.await?.status))
    };
    tokio::select! {
        status = ended => status,
        () = feed(input, keys) => Ok(None),
        never = signals.forward(container) => never,
        never = follow_size(container, tty) => never,
    }
}

/// Connects our standard streams to some that are attached, until their output ends. The terminal, if `tty`, is restored when
/// this returns; `resize` is told of the window's size, at first and whenever it changes. Whether the output has ended: `keys`
/// leave it before.
pub async fn join(
    attached: Attached,
    tty: bool,
    keys: Option<DetachKeys>,
    resize: impl AsyncFn(u16, u16),
) -> Result<bool, Failure> {
    let Attached { output, input, .. } = attached;
    let _raw = if tty && input.is_some() {
        RawMode::enter()?
    } else {
        None
    };
    let sizes = async {
        if tty && let Ok(mut changes) = unix::signal(SignalKind::window_change()) {
            loop {
                if let Some((rows, columns)) = window_size() {
                    resize(rows, columns).await;
                }
                if changes.recv().await.is_none() {
                    break;
                }
            }
        }
        pending().await
    };
    tokio::select! {
        ended = copy_output(output) => ended.map(|()| true),
        () = feed(input, keys) => Ok(false),
        never = sizes => never,
    }
}

/// What a client says whose user has typed the keys to leave.
pub fn left() -> Result<u8, Failure> {
    eprintln!("read escape sequence");
    Ok(0)
}

/// The exit code of a client whose container or command ended so.
pub fn code(status: ExitStatus) -> u8 {
    u8::try_from(status.code()).unwrap_or(u8::MAX)
}

/// Copies what the container writes, stream by stream, byte by byte, until it ends.
async fn copy_output(mut output: BoxStream<TeeItem>) -> Result<(), Failure> {
    let (mut stdout, mut stderr) = (stdout(), stderr());
    while let Some(item) = output.next().await {
        match item {
            TeeItem::Chunk(Chunk {
                stream: LogStream::Stdout,
                bytes,
            }) => copy(&bytes, &mut stdout).await?,
            TeeItem::Chunk(Chunk {
                stream: LogStream::Stderr,
                bytes,
            }) => copy(&bytes, &mut stderr).await?,
            // Nothing is left out of what is attached to without loss.
            _ => {}
        }
    }
    Ok(())
}

async fn copy(bytes: &[u8], to: &mut (impl AsyncWrite + Unpin)) -> Result<(), Failure> {
    to.write_all(bytes).await?;
    Ok(to.flush().await?)
}

/// Copies our stdin to the container's, and closes that where ours ends. Returns once the keys to leave have been typed; then the
/// container's stays open.
async fn feed(input: Option<Input>, keys: Option<DetachKeys>) {
    let Some(input) = input else { return pending().await };
    let mut scanner = keys.map(KeyScanner::new);
    let mut chunks = read_stdin();
    while let Some(chunk) = chunks.recv().await {
        let (bytes, leaves) = match &mut scanner {
            Some(scanner) => scanner.scan(&chunk),
            None => (chunk.into(), false),
        };
        if !bytes.is_empty() && input.write(bytes).await.is_err() {
            return pending().await;
        }
        if leaves {
            // A container that reads nothing keeps nobody from leaving.
            let _ = tokio::time::timeout(LEAVING, input.flush()).await;
            return input.detach();
        }
    }
    drop(input);
    pending().await
}

/// Reads stdin on a thread of its own, which ends with the process: a blocked read cannot be called off, and stdin must not be
/// made non-blocking, since it may be shared with the shell.
fn read_stdin() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; CHUNK];
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) if sender.blocking_send(buffer[..count].to_vec()).is_err() => break,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    });
    receiver
}

/// Tells the container's terminal whenever the window changes its size. Does not return.
async fn follow_size<T>(container: &Container, tty: bool) -> T {
    if tty && let Ok(mut changes) = unix::signal(SignalKind::window_change()) {
        while changes.recv().await.is_some() {
            if let Some((rows, columns)) = window_size() {
                // It fails when the container has just ended, which the session learns anyway.
                let _ = container.resize(rows, columns).await;
            }
        }
    }
    pending().await
}

/// The signals that are passed on.
struct Signals {
    streams: Vec<(Signal, unix::Signal)>,
}

impl Signals {
    fn catch() -> Result<Self, Failure> {
        let catch = |name: &str| {
            let signal: Signal = name.parse()?;
            Ok::<_, Failure>((signal, unix::signal(SignalKind::from_raw(signal.number()))?))
        };
        Ok(Self {
            streams: FORWARDED.into_iter().map(catch).collect::<Result<_, _>>()?,
        })
    }

    async fn next(&mut self) -> Signal {
        poll_fn(|cx| {
            let ready = self
                .streams
                .iter_mut()
                .find_map(|(signal, stream)| stream.poll_recv(cx).is_ready().then_some(*signal));
            ready.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Passes signals on. Does not return.
    async fn forward<T>(&mut self, container: &Container) -> T {
        let mut requests = 0;
        loop {
            let signal = self.next().await;
            requests += u32::from([Signal::INT, Signal::TERM].contains(&signal));
            let signal = if requests < PATIENCE { signal } else { Signal::KILL };
            // It fails when the container has just ended, which the session learns anyway.
            let _ = container.kill(signal).await;
        }
    }
}
