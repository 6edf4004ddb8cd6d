//! A container's standard streams inside its owner's driver: one pump per stream, the log, and any number of readers.
//!
//! The pump reads as fast as the container writes. Every chunk goes to the log first and then to each attached reader. A
//! reader that falls behind by more than [`READER_LIMIT`] bytes is cut off; the container never waits for one.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::{BoxStream, OutputChunk, OutputStream};
use crate::error::{Error, Result};

/// Bytes that may wait for one reader.
const READER_LIMIT: usize = 64 << 20;
/// Bytes read at a time: a pipe's default capacity. Source: pipe(7).
const CHUNK: usize = 64 << 10;

/// Where a container's output goes.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    readers: Mutex<Readers>,
}

#[derive(Debug, Default)]
struct Readers {
    open: Vec<Reader>,
    closed: bool,
}

#[derive(Debug)]
struct Reader {
    sender: mpsc::UnboundedSender<OutputChunk>,
    waiting: Arc<AtomicUsize>,
}

impl Hub {
    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the container writes from now on. `None` once it has ended.
    pub(crate) fn subscribe(&self) -> Option<BoxStream<OutputChunk>> {
        let mut readers = self.readers();
        if readers.closed {
            return None;
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        readers.open.push(Reader { sender, waiting: Arc::clone(&waiting) });
        Some(Box::pin(Subscription { receiver, waiting }))
    }

    /// Hands a chunk to every reader that keeps up.
    fn publish(&self, stream: OutputStream, bytes: &Bytes) {
        self.readers().open.retain(|reader| {
            if reader.waiting.fetch_add(bytes.len(), Ordering::AcqRel) > READER_LIMIT {
                return false;
            }
            reader.sender.send(OutputChunk { stream, bytes: bytes.clone() }).is_ok()
        });
    }

    /// Ends every reader's stream.
    pub(crate) fn close(&self) {
        let mut readers = self.readers();
        readers.closed = true;
        readers.open.clear();
    }
}

struct Subscription {
    receiver: mpsc::UnboundedReceiver<OutputChunk>,
    waiting: Arc<AtomicUsize>,
}

impl Stream for Subscription {
    type Item = OutputChunk;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<OutputChunk>> {
        let item = self.receiver.poll_recv(cx);
        if let Poll::Ready(Some(chunk)) = &item {
            self.waiting.fetch_sub(chunk.bytes.len(), Ordering::AcqRel);
        }
        item
    }
}

/// A descriptor that the driver polls. Its file description is ours alone, so `O_NONBLOCK` touches nobody else.
pub(crate) fn polled(fd: OwnedFd, interest: Interest) -> Result<AsyncFd<OwnedFd>> {
    let flags = fcntl(fd.as_fd(), FcntlArg::F_GETFL).map_err(|error| Error::os("read the flags of a stream", error))?;
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(flags)).map_err(|error| Error::os("make a stream non-blocking", error))?;
    AsyncFd::with_interest(fd, interest).map_err(|error| Error::os("poll a stream", error))
}

/// Reads a stream to its end: each chunk goes to `log`, then to the readers. A terminal's EIO is its end (tty_ioctl(4)).
pub(crate) async fn pump<L, F>(fd: &AsyncFd<OwnedFd>, stream: OutputStream, hub: &Hub, mut log: L)
where
    L: FnMut(OutputStream, Bytes) -> F,
    F: Future<Output = ()>,
{
    let mut buffer = BytesMut::with_capacity(CHUNK);
    while let Ok(mut ready) = fd.readable().await {
        buffer.reserve(CHUNK);
        buffer.resize(CHUNK, 0);
        let read = ready.try_io(|fd| nix::unistd::read(fd.get_ref(), &mut buffer[..]).map_err(io::Error::from));
        match read {
            Err(_would_block) => buffer.clear(),
            Ok(Ok(0)) => break,
            Ok(Ok(count)) => {
                buffer.truncate(count);
                let chunk = buffer.split().freeze();
                hub.publish(stream, &chunk);
                log(stream, chunk).await;
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => buffer.clear(),
            Ok(Err(_)) => break,
        }
    }
}

/// Writes what arrives on a channel to a descriptor, until either end closes.
pub(crate) async fn feed(fd: &AsyncFd<OwnedFd>, mut chunks: mpsc::Receiver<Bytes>) {
    while let Some(mut chunk) = chunks.recv().await {
        while !chunk.is_empty() {
            let Ok(mut ready) = fd.writable().await else { return };
            match ready.try_io(|fd| nix::unistd::write(fd.get_ref(), &chunk).map_err(io::Error::from)) {
                Err(_would_block) => {}
                Ok(Ok(count)) => bytes::Buf::advance(&mut chunk, count),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(_)) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt as _;

    #[tokio::test(flavor = "current_thread")]
    async fn every_byte_reaches_log_and_readers() {
        let (read, write) = nix::unistd::pipe().unwrap();
        let hub = Hub::default();
        let reader = hub.subscribe().unwrap();
        let writer = std::thread::spawn(move || {
            let data: Vec<u8> = (0..1 << 20).map(|n| n as u8).collect();
            io::Write::write_all(&mut std::fs::File::from(write), &data).unwrap();
        });
        let fd = polled(read, Interest::READABLE).unwrap();
        let logged = std::cell::Cell::new(0);
        pump(&fd, OutputStream::Stdout, &hub, |_, bytes| {
            logged.set(logged.get() + bytes.len());
            async {}
        })
        .await;
        hub.close();
        writer.join().unwrap();
        let seen: Vec<u8> = reader.map(|chunk| chunk.bytes).collect::<Vec<_>>().await.concat();
        assert_eq!((seen.len(), logged.get()), (1 << 20, 1 << 20));
        assert!(seen.iter().enumerate().all(|(n, byte)| *byte == n as u8));
        assert!(hub.subscribe().is_none());
    }
}
