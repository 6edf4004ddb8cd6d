//! The pump: reads a container's streams on the engine's thread, hands the raw bytes to the tee and the lines to the sink.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, watch};

use super::lines::Splitter;
use super::{LogEntry, LogSink, LogStream, PartialWrite, Tee};
use crate::error::{Error, Result};
use crate::sys::blocking::blocking;
use crate::sys::poll;

/// Bytes asked for with one read: what a pipe holds.
const READ: usize = 64 << 10;

/// How long the beginning of a line waits for its end before it is written as it is (a prompt without a newline).
const LINGER: Duration = Duration::from_millis(200);

/// What happens when the sink is slower than the container for so long that the pump's buffer is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// The container waits, once its pipe is full too; nothing is lost. Docker's mode `blocking`.
    #[default]
    Wait,
    /// The container never waits; what the sink cannot take is counted and left out of the log. Docker's mode
    /// `non-blocking`.
    Drop,
}

/// How a pump works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PumpOptions {
    /// Bytes that may wait for the sink.
    pub buffer_bytes: usize,
    /// What happens beyond.
    pub overflow: Overflow,
}

impl Default for PumpOptions {
    /// One MiB, and the container waits.
    fn default() -> Self {
        Self {
            buffer_bytes: 1 << 20,
            overflow: Overflow::Wait,
        }
    }
}

/// What a pump did.
#[derive(Debug, Default)]
pub struct PumpReport {
    /// Bytes read from the container.
    pub bytes: u64,
    /// Entries that are missing in the log: the sink failed, or was too slow.
    pub lost_entries: u64,
    /// The sink's first error.
    pub first_error: Option<Error>,
}

/// Pumps all streams of a container to their ends. Neither sink nor tee is closed: see [`finish`]. A sink that fails is counted, never a reason
/// to stop reading: the container goes on.
///
/// # Errors
/// `Os` where a descriptor cannot be watched, or reading fails.
///
/// # Cancel safety
/// A dropped pump stops reading; what it read is in the tee, and in the sink as far as it was written.
pub async fn pump_all(
    streams: Vec<(OwnedFd, LogStream)>,
    sink: Arc<dyn LogSink>,
    tee: Tee,
    options: PumpOptions,
) -> Result<PumpReport> {
    // Nobody stops it.
    let (_never, stop) = watch::channel(false);
    pump_until(streams, sink, tee, options, stop).await.0
}

/// As [`pump_all`], or until it is told to stop: then what was read is in the sink, and those streams come back that have not ended.
/// The beginning of a line whose end has not come is written as it is.
///
/// # Cancel safety
/// As [`pump_all`].
pub(crate) async fn pump_until(
    streams: Vec<(OwnedFd, LogStream)>,
    sink: Arc<dyn LogSink>,
    tee: Tee,
    options: PumpOptions,
    stop: watch::Receiver<bool>,
) -> (Result<PumpReport>, Vec<(OwnedFd, LogStream)>) {
    let queue = Queue::new(options, tee);
    let read = async {
        let streams = streams
            .into_iter()
            .map(|(fd, stream)| read_all(fd, stream, &queue, stop.clone()));
        let outcomes = futures_util::future::join_all(streams).await;
        queue.end();
        outcomes
    };
    let (outcomes, report) = futures_util::join!(read, write_all(&queue, sink));
    let (mut bytes, mut left) = (Ok(0), Vec::new());
    for outcome in outcomes {
        match outcome {
            Ok((read, end)) => {
                bytes = bytes.map(|bytes| bytes + read);
                left.extend(end);
            }
            Err(error) => bytes = bytes.and(Err(error)),
        }
    }
    (bytes.map(|bytes| PumpReport { bytes, ..report }), left)
}

/// Closes tee and sink: attached readers and followers of the log come to their ends.
///
/// # Errors
/// What the sink says.
///
/// # Cancel safety
/// The tee is closed; the sink is closed nevertheless.
pub async fn finish(sink: Arc<dyn LogSink>, tee: &Tee) -> Result<()> {
    tee.close();
    blocking(move || sink.close()).await
}

/// A stream that has not ended.
type Left = Option<(OwnedFd, LogStream)>;

/// Reads one stream to its end, or until it is told to stop, and says how many bytes it was.
async fn read_all(
    fd: OwnedFd,
    stream: LogStream,
    queue: &Queue,
    mut stop: watch::Receiver<bool>,
) -> Result<(u64, Left)> {
    let fd = watch(fd)?;
    let tee = &queue.tee;
    let mut lines = Splitter::default();
    let (mut total, mut begun_at) = (0, None);
    loop {
        let chunk = tokio::select! {
            biased;
            () = told(&mut stop) => {
                queue.flush(stream, &mut lines);
                return Ok((total, Some((fd.into_inner(), stream))));
            }
            chunk = queue.read(&fd) => chunk.map_err(|error| Error::os("read a container's output", error))?,
            () = linger(begun_at), if begun_at.is_some() => {
                begun_at = None;
                queue.flush(stream, &mut lines);
                continue;
            }
        };
        if chunk.is_empty() {
            queue.flush(stream, &mut lines);
            return Ok((total, None));
        }
        total += chunk.len() as u64;
        tee.write(stream, &chunk);
        begun_at = (chunk.last() != Some(&b'\n')).then(|| tokio::time::Instant::now() + LINGER);
        queue.push(stream, |each| lines.push(chunk, each));
        tee.begun(stream, lines.begun());
        if queue.is_idle() {
            // What is there goes to the sink at once: the smaller a batch is, the more of it fits on a disk that is almost full.
            tokio::task::yield_now().await;
        }
    }
}

/// Writes what the streams put into the queue, a batch at a time, until they have ended.
async fn write_all(queue: &Queue, sink: Arc<dyn LogSink>) -> PumpReport {
    let mut report = PumpReport::default();
    while let Some(batch) = queue.batch().await {
        let (entries, sink) = (batch.len(), sink.clone());
        let done = blocking(move || Ok(sink.write_some(&batch))).await;
        queue.tee.took(entries);
        if let Err(partial) = done.unwrap_or_else(|error| Err(PartialWrite { kept: 0, error })) {
            report.lost_entries += entries.saturating_sub(partial.kept) as u64;
            report.first_error.get_or_insert(partial.error);
        }
    }
    report.lost_entries += queue.lock().lost;
    report
}

/// Reads a stream to its end for a tee alone: nothing is logged. The tee is not closed.
///
/// # Errors
/// `Os` where the descriptor cannot be watched, or reading fails.
///
/// # Cancel safety
/// As [`pump_all`].
pub async fn relay(fd: OwnedFd, stream: LogStream, tee: Tee) -> Result<u64> {
    let fd = watch(fd)?;
    let mut bytes = 0;
    loop {
        let chunk = read_with_room(&fd, &tee).await;
        let chunk = chunk.map_err(|error| Error::os("read a command's output", error))?;
        if chunk.is_empty() {
            return Ok(bytes);
        }
        bytes += chunk.len() as u64;
        tee.write(stream, &chunk);
    }
}

/// The next bytes, once no reader holds them up.
async fn read_with_room(fd: &AsyncFd<OwnedFd>, tee: &Tee) -> io::Result<Bytes> {
    tee.room().await;
    read(fd).await
}

async fn told(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending().await
    }
}

async fn linger(until: Option<tokio::time::Instant>) {
    if let Some(until) = until {
        tokio::time::sleep_until(until).await;
    }
}

/// Our end of a pipe or terminal has a file description of its own, so the container's end keeps blocking.
#[allow(
    deprecated,
    reason = "its successor is younger than the oldest tokio that is allowed; an `OwnedFd` is a sound source"
)]
fn watch(fd: OwnedFd) -> Result<AsyncFd<OwnedFd>> {
    let step = |errno: Errno| Error::os("make a container's stream non-blocking", errno);
    let flags = fcntl(&fd, FcntlArg::F_GETFL).map_err(step)?;
    fcntl(
        &fd,
        FcntlArg::F_SETFL(OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK),
    )
    .map_err(step)?;
    poll::watch(fd, Interest::READABLE).map_err(|error| Error::os("watch a container's stream", error))
}

/// The next bytes, none at the end.
async fn read(fd: &AsyncFd<OwnedFd>) -> io::Result<Bytes> {
    loop {
        let mut ready = fd.readable().await?;
        let mut buffer = BytesMut::zeroed(READ);
        match ready.try_io(|fd| read_once(fd.get_ref(), &mut buffer)) {
            Ok(Ok(count)) => {
                buffer.truncate(count);
                // A small chunk shall not keep 64 KiB alive in somebody's queue.
                return Ok(if count < READ / 4 {
                    Bytes::copy_from_slice(&buffer)
                } else {
                    buffer.freeze()
                });
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(error)) => return Err(error),
            Err(_would_block) => {}
        }
    }
}

fn read_once(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    match nix::unistd::read(fd, buffer) {
        Ok(count) => Ok(count),
        // A terminal whose last process is gone. Source: tty_io, pty(7).
        Err(Errno::EIO) => Ok(0),
        Err(errno) => Err(errno.into()),
    }
}

/// Entries on their way to the sink, of all streams in the order in which they were read.
struct Queue {
    options: PumpOptions,
    tee: Tee,
    waiting: Mutex<Waiting>,
    filled: Notify,
    drained: Notify,
}

#[derive(Default)]
struct Waiting {
    entries: Vec<LogEntry>,
    bytes: usize,
    /// Entries that found no room.
    lost: u64,
    /// Whether the sink has a batch.
    writing: bool,
    ended: bool,
}

impl Queue {
    fn new(options: PumpOptions, tee: Tee) -> Self {
        Self {
            options,
            tee,
            waiting: Mutex::default(),
            filled: Notify::new(),
            drained: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next bytes of a stream, once there is room for them here and no reader holds them up.
    async fn read(&self, fd: &AsyncFd<OwnedFd>) -> io::Result<Bytes> {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            if !self.must_wait() {
                return read_with_room(fd, &self.tee).await;
            }
            drained.await;
        }
    }

    fn must_wait(&self) -> bool {
        self.options.overflow == Overflow::Wait && self.lock().bytes >= self.options.buffer_bytes
    }

    fn is_idle(&self) -> bool {
        !self.lock().writing
    }

    /// Puts in the pieces that are handed out one by one.
    fn push(&self, stream: LogStream, pieces: impl FnOnce(&mut dyn FnMut(Bytes))) {
        let mut waiting = self.lock();
        let (mut time_ns, mut entries) = (self.tee.entry_time(), 0);
        pieces(&mut |bytes| {
            if self.options.overflow == Overflow::Drop && waiting.bytes >= self.options.buffer_bytes {
                waiting.lost += 1;
                return;
            }
            waiting.bytes += bytes.len();
            waiting.entries.push(LogEntry { stream, time_ns, bytes });
            time_ns += 1;
            entries += 1;
        });
        self.tee.pushed(entries, time_ns);
        self.filled.notify_one();
    }

    /// Puts in the beginning of a line whose end does not come, or not soon.
    fn flush(&self, stream: LogStream, lines: &mut Splitter) {
        if let Some(bytes) = lines.flush() {
            self.push(stream, |each| each(bytes));
            self.tee.begun(stream, &[]);
        }
    }

    /// Nothing more is put in.
    fn end(&self) {
        self.lock().ended = true;
        self.filled.notify_one();
    }

    /// All that waits; none at the end.
    async fn batch(&self) -> Option<Vec<LogEntry>> {
        loop {
            {
                let mut waiting = self.lock();
                waiting.writing = !waiting.entries.is_empty();
                if waiting.writing {
                    waiting.bytes = 0;
                    self.drained.notify_waiters();
                    return Some(std::mem::take(&mut waiting.entries));
                }
                if waiting.ended {
                    return None;
                }
            }
            self.filled.notified().await;
        }
    }
}
