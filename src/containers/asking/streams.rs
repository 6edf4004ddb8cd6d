//! Streams over a connection between two engines: output this way, stdin that way.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{mpsc, oneshot};

use super::super::options::SlowReader;
use super::super::output::{chunks, reader};
use super::super::stdin::Stdin;
use super::super::views::{Attached, BoxStream, Input};
use super::wire::{self, Incoming, Kind, Message, PIECE};
use crate::driver::Spawner;
use crate::error::Result;
use crate::logs::{LogStream, Tee, TeeItem};

/// How often it is looked whether the asker is still there while a container does not read its stdin.
const LOOK: Duration = Duration::from_secs(1);

type Connection = (Incoming, OwnedWriteHalf);

/// The asker's side: what comes is what the container writes, and what is written goes there.
pub(super) fn carry(spawner: &Spawner, connection: Connection, has_stdin: bool, slow: SlowReader) -> Attached {
    let (from, to) = connection;
    let tee = Tee::new();
    let output = chunks(reader(&tee, slow));
    let home = Arc::new(Stdin::default());
    let input = has_stdin.then(|| Input::new(&home));
    let stdin = has_stdin.then(|| home.begin());
    let (held, gone) = oneshot::channel();
    let closing = Closing(tee.clone());
    spawner.background(async move {
        let _closing = closing;
        let passed = async {
            if let Err(error) = pass(from, &tee).await {
                tracing::warn!(%error, "the output of another process' container broke off");
            }
        };
        let fed = async {
            let _to = feed(to, stdin, &home).await;
            // Nobody reads any more, and nobody writes.
            let _ = gone.await;
        };
        tokio::select! {
            () = passed => {}
            () = fed => {}
        }
    });
    let output = Box::pin(Held { output, _held: held });
    Attached { output, input }
}

/// Brings readers to their end however this does, with the engine, say.
struct Closing(Tee);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Passes output on. The other end waits while a reader that asked for it does not read.
async fn pass(mut from: Incoming, tee: &Tee) -> io::Result<()> {
    while let Some(Message { kind, payload }) = from.next().await? {
        let stream = match kind {
            Kind::Stdout => LogStream::Stdout,
            Kind::Stderr => LogStream::Stderr,
            Kind::Lagged => {
                tee.missed(missed(&payload));
                continue;
            }
            Kind::End => return Ok(()),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        tee.room().await;
        tee.write(stream, &payload);
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

fn missed(payload: &[u8]) -> u64 {
    payload.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Passes stdin on, and says when its last writer has closed it, or let go of it.
async fn feed(mut to: OwnedWriteHalf, stdin: Option<mpsc::Receiver<Bytes>>, home: &Stdin) -> OwnedWriteHalf {
    let Some(mut stdin) = stdin else { return to };
    let mut end = Kind::Closed;
    loop {
        let bytes = tokio::select! {
            bytes = stdin.recv() => bytes,
            () = home.let_go(), if end == Kind::Closed => {
                end = Kind::LetGo;
                continue;
            }
        };
        let Some(bytes) = bytes else { break };
        for piece in bytes.chunks(PIECE) {
            if wire::send(&mut to, Kind::Stdin, piece).await.is_err() {
                return to;
            }
        }
    }
    let _ = wire::send(&mut to, end, &[]).await;
    to
}

/// Output, and the connection that it comes over.
struct Held {
    output: BoxStream<TeeItem>,
    _held: oneshot::Sender<()>,
}

impl Stream for Held {
    type Item = TeeItem;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<TeeItem>> {
        self.output.as_mut().poll_next(context)
    }
}

/// The owner's side, until the output has ended or the asker is gone. `keep`: a stdin whose writer is gone without having
/// closed it stays open for the next.
pub(super) async fn serve(
    attached: Attached,
    from: &mut Incoming,
    to: &mut OwnedWriteHalf,
    keep: bool,
) -> io::Result<()> {
    let Attached { output, mut input } = attached;
    let served = tokio::select! {
        sent = give(output, to) => sent,
        () = take(&mut input, from) => Ok(()),
    };
    // Whichever of both has seen first that the asker is gone.
    if let Some(input) = input.filter(|_| keep) {
        input.detach();
    }
    served
}

async fn give(mut output: BoxStream<TeeItem>, to: &mut OwnedWriteHalf) -> io::Result<()> {
    while let Some(item) = output.next().await {
        match item {
            TeeItem::Chunk(chunk) => {
                let kind = match chunk.stream {
                    LogStream::Stdout => Kind::Stdout,
                    LogStream::Stderr => Kind::Stderr,
                };
                for piece in chunk.bytes.chunks(PIECE) {
                    wire::send(to, kind, piece).await?;
                }
            }
            TeeItem::Lagged { missed_bytes } => wire::send(to, Kind::Lagged, &missed_bytes.to_le_bytes()).await?,
        }
    }
    wire::send(to, Kind::End, &[]).await
}

/// Writes to a stdin that nobody may ever read. False: the asker went away meanwhile.
async fn pass_on(writer: &Input, bytes: Bytes, from: &Incoming) -> Result<bool> {
    let mut writing = std::pin::pin!(writer.write(bytes));
    loop {
        tokio::select! {
            written = &mut writing => return written.map(|()| true),
            () = tokio::time::sleep(LOOK) => {
                if from.is_hung_up() {
                    return Ok(false);
                }
            }
        }
    }
}

/// Writes what comes to stdin. Ends when the asker is gone.
async fn take(input: &mut Option<Input>, from: &mut Incoming) {
    while let Ok(Some(message)) = from.next().await {
        match (message.kind, &*input) {
            (Kind::Stdin, Some(writer)) => match pass_on(writer, message.payload, from).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => *input = None,
            },
            // It was closed in the container already.
            (Kind::Stdin, None) => {}
            (Kind::Closed, _) => *input = None,
            (Kind::LetGo, _) => {
                if let Some(writer) = input.take() {
                    writer.detach();
                }
            }
            _ => break,
        }
    }
}
