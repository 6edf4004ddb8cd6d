//! The pump: reads a container's streams on the engine's thread, hands the raw bytes to the tee and the lines to the sink.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use super::lines::Splitter;
use super::{LogEntry, LogSink, LogStream, Tee};
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

impl PumpReport {
    fn merge(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.lost_entries += other.lost_entries;
        self.first_error = self.first_error.take().or(other.first_error);
    }
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
    let pumps = streams
        .into_iter()
        .map(|(fd, stream)| pump(fd, stream, sink.clone(), tee.clone(), options));
    let reports = futures_util::future::join_all(pumps).await;
    let mut total = PumpReport::default();
    for report in reports {
        total.merge(report?);
    }
    Ok(total)
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

/// Pumps one stream to its end. Neither sink nor tee is closed.
///
/// # Errors
/// `Os` where the descriptor cannot be watched, or reading fails.
///
/// # Cancel safety
/// As [`pump_all`].
pub async fn pump(
    fd: OwnedFd,
    stream: LogStream,
    sink: Arc<dyn LogSink>,
    tee: Tee,
    options: PumpOptions,
) -> Result<PumpReport> {
    let fd = watch(fd)?;
    let mut lines = Splitter::default();
    let mut feed = Feed::new(sink, options, tee.clone());
    let mut begun_at = None;
    let outcome = loop {
        let chunk = tokio::select! {
            biased;
            () = feed.room() => continue,
            chunk = read_with_room(&fd, &tee), if !feed.must_wait() => chunk,
            () = linger(begun_at), if begun_at.is_some() => {
                begun_at = None;
                if let Some(bytes) = lines.flush() {
                    feed.push(LogEntry { stream, time_ns: tee.entry_time(), bytes });
                    tee.begun(stream, &[]);
                }
                continue;
            }
        };
        match chunk {
            Ok(chunk) if chunk.is_empty() => break Ok(()),
            Ok(chunk) => {
                feed.report.bytes += chunk.len() as u64;
                tee.write(stream, &chunk);
                let time_ns = tee.entry_time();
                begun_at = (chunk.last() != Some(&b'\n')).then(|| tokio::time::Instant::now() + LINGER);
                lines.push(chunk, |bytes| feed.push(LogEntry { stream, time_ns, bytes }));
                tee.begun(stream, lines.begun());
            }
            Err(error) => break Err(Error::os("read a container's output", error)),
        }
    };
    if let Some(bytes) = lines.flush() {
        feed.push(LogEntry {
            stream,
            time_ns: tee.entry_time(),
            bytes,
        });
        tee.begun(stream, &[]);
    }
    let report = feed.finish().await;
    outcome.map(|()| report)
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

/// Entries on their way to the sink: one batch is being written, the next is filling.
struct Feed {
    sink: Arc<dyn LogSink>,
    options: PumpOptions,
    tee: Tee,
    pending: Vec<LogEntry>,
    pending_bytes: usize,
    writing: Option<(usize, JoinHandle<Result<()>>)>,
    report: PumpReport,
}

impl Feed {
    fn new(sink: Arc<dyn LogSink>, options: PumpOptions, tee: Tee) -> Self {
        Self {
            sink,
            options,
            tee,
            pending: Vec::new(),
            pending_bytes: 0,
            writing: None,
            report: PumpReport::default(),
        }
    }

    fn is_full(&self) -> bool {
        self.pending_bytes >= self.options.buffer_bytes
    }

    fn must_wait(&self) -> bool {
        self.options.overflow == Overflow::Wait && self.is_full()
    }

    fn push(&mut self, entry: LogEntry) {
        if self.options.overflow == Overflow::Drop && self.is_full() {
            self.report.lost_entries += 1;
            return;
        }
        self.pending_bytes += entry.bytes.len();
        self.pending.push(entry);
        self.tee.pushed();
    }

    /// Ends when a batch is written or handed over; never, while there is nothing to do.
    async fn room(&mut self) {
        if self.writing.is_none() {
            if self.pending.is_empty() {
                return std::future::pending().await;
            }
            self.hand_over();
        }
        if let Some((entries, write)) = &mut self.writing {
            let (entries, done) = (*entries, write.await);
            self.writing = None;
            self.count(
                entries,
                done.unwrap_or_else(|error| Err(Error::internal(format!("writing a log did not end: {error}")))),
            );
        }
    }

    fn hand_over(&mut self) {
        let batch = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let (entries, sink) = (batch.len(), self.sink.clone());
        self.writing = Some((entries, tokio::task::spawn_blocking(move || sink.write(&batch))));
    }

    fn count(&mut self, entries: usize, done: Result<()>) {
        self.tee.took(entries);
        if let Err(error) = done {
            self.report.lost_entries += entries as u64;
            self.report.first_error.get_or_insert(error);
        }
    }

    async fn finish(mut self) -> PumpReport {
        while self.writing.is_some() || !self.pending.is_empty() {
            self.room().await;
        }
        self.report
    }
}
