//! What a thread writes as a stream: trees are read by blocking calls, as fast as somebody takes it.

use std::io::{self, Write};
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;

use crate::driver::{Spawner, closed};
use crate::error::{Error, ErrorKind, Result};
use crate::types::ByteStream;

/// How much goes together, and how many such pieces may wait.
const PIECE: usize = 256 << 10;
const AHEAD: usize = 4;

enum Piece {
    Bytes(Bytes),
    Failed(Error),
    /// The writer has written everything; a channel that closes without it means that it died.
    End,
}

/// Where the thread writes to.
pub(crate) struct Outflow {
    sender: mpsc::Sender<Piece>,
    buffer: BytesMut,
}

/// Work to be done when all was written: what it says ends the stream.
pub(crate) type Closing = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// The bytes that `work` writes on a thread of its own. Dropping the stream makes its next write fail.
pub(crate) fn stream_of(
    work: impl FnOnce(&mut Outflow) -> Result<()> + Send + 'static,
    closing: Closing,
) -> Result<ByteStream> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let write = move || {
        let mut out = Outflow {
            sender,
            buffer: BytesMut::new(),
        };
        let done = work(&mut out).and_then(|()| out.flush().map_err(|e| Error::os("write an archive", e)));
        let last = match done {
            Ok(()) => Piece::End,
            Err(error) => Piece::Failed(error),
        };
        let _ = out.sender.blocking_send(last);
    };
    std::thread::Builder::new()
        .name("longshore-read".into())
        .spawn(write)
        .map_err(|error| Error::os("start a thread to read files", error))?;
    let state = (receiver, Some(closing));
    let pieces = stream::try_unfold(state, |(mut receiver, closing)| async move {
        match receiver.recv().await {
            Some(Piece::Bytes(bytes)) => Ok(Some((bytes, (receiver, closing)))),
            Some(Piece::Failed(error)) => Err(error),
            Some(Piece::End) => {
                if let Some(closing) = closing {
                    closing.await?;
                }
                Ok(None)
            }
            None => Err(Error::internal("reading files ended early")),
        }
    });
    Ok(pieces.boxed())
}

/// The same bytes by way of the driver, so that any executor can take them. Where the driver ends first, the stream ends with
/// an error: what came of the archive must not pass for all of it.
pub(crate) fn on_driver(spawner: &Spawner, stream: ByteStream) -> ByteStream {
    let marked = stream.map(Some).chain(stream::once(async { None }));
    let moved = spawner.stream(Box::pin(marked), 1);
    let pieces = stream::try_unfold(moved, |mut moved| async move {
        match moved.next().await {
            Some(Some(piece)) => Ok(Some((piece?, moved))),
            Some(None) => Ok(None),
            None => Err(closed()),
        }
    });
    pieces.boxed()
}

impl Outflow {
    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let bytes = self.buffer.split().freeze();
        let sent = self.sender.blocking_send(Piece::Bytes(bytes));
        sent.map_err(|_| io::Error::other(Error::new(ErrorKind::Cancelled, "the caller went away")))
    }
}

impl Write for Outflow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > PIECE {
            self.send()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}
