//! Connections that become the streams of a container or a command.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use hyper::StatusCode;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};

use super::client::{Ask, Client, broken};
use super::pieces::Frames;
use crate::containers::{Attached, BoxStream, Input, SlowReader, Stdin, chunks, reader};
use crate::error::{Error, Result};
use crate::logs::{Tee, TeeItem};

/// Bytes read at once.
const STEP: usize = 32 << 10;

type Io = TokioIo<Upgraded>;

/// What a connection is to carry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// There is a terminal: its output has no frames.
    pub(super) tty: bool,
    pub(super) stdin: bool,
    pub(super) slow: SlowReader,
}

/// Takes a connection over. Everything that is written after the answer arrives.
pub(super) async fn take_over(client: &Client, ask: Ask, wanted: Wanted) -> Result<Attached> {
    let answer = client.send(ask.upgrade()).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let needs = "an endpoint that lets a connection be taken over; a proxy between may keep it from that";
        return Err(Error::unsupported("attaching", needs));
    }
    let upgraded = hyper::upgrade::on(answer).await;
    let upgraded = upgraded.map_err(|failed| broken("the connection broke off").with_source(failed))?;
    Ok(converse(client, upgraded, wanted))
}

fn converse(client: &Client, upgraded: Upgraded, wanted: Wanted) -> Attached {
    let (from, to) = tokio::io::split(TokioIo::new(upgraded));
    let tee = Tee::new();
    let output = chunks(reader(&tee, wanted.slow));
    let home = Arc::new(Stdin::default());
    let input = wanted.stdin.then(|| Input::new(&home));
    let stdin = wanted.stdin.then(|| home.begin());
    let (held, gone) = oneshot::channel();
    let frames = Frames::new(wanted.tty);
    client.spawner().background(async move {
        let passed = async {
            if let Err(error) = pass(from, frames, &tee).await {
                tracing::warn!(error = error.report(), "the output of a container broke off");
            }
        };
        let fed = async {
            feed(to, stdin).await;
            // Nobody reads any more, and nobody writes.
            let _ = gone.await;
        };
        tokio::select! {
            () = passed => {}
            () = fed => {}
        }
        tee.close();
        // Whoever lets go of stdin leaves it here, open for as long as the connection is.
        drop(home);
    });
    let output: BoxStream<TeeItem> = Box::pin(Held {
        output,
        _held: held,
        _client: client.clone(),
    });
    Attached { output, input }
}

/// Passes output on. The other end waits while a reader that asked for it does not read.
async fn pass(mut from: ReadHalf<Io>, mut frames: Frames, tee: &Tee) -> Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(STEP);
        let read = from.read_buf(&mut buffer).await;
        let read = read.map_err(|failed| broken("the connection broke off").with_source(failed))?;
        if read == 0 {
            return match frames.is_whole() {
                true => Ok(()),
                false => Err(broken("the connection ended within a frame")),
            };
        }
        for piece in frames.take(buffer.split().freeze())? {
            tee.room().await;
            tee.write(piece.chunk.stream, &piece.chunk.bytes);
        }
    }
}

/// Passes stdin on, and closes this side of the connection with it.
async fn feed(mut to: WriteHalf<Io>, stdin: Option<mpsc::Receiver<Bytes>>) {
    let Some(mut stdin) = stdin else { return };
    while let Some(bytes) = stdin.recv().await {
        let written = async {
            to.write_all(&bytes).await?;
            to.flush().await
        };
        if written.await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// Output, and the connection that it comes over.
struct Held {
    output: BoxStream<TeeItem>,
    _held: oneshot::Sender<()>,
    _client: Client,
}

impl Stream for Held {
    type Item = TeeItem;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<TeeItem>> {
        self.output.as_mut().poll_next(context)
    }
}
