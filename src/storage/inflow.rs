//! A stream as a blocking reader, on a thread of its own: archives are as slow as whoever sends them, and the threads of the
//! blocking pool are few.

use std::io::{self, BufRead, Read};

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, ErrorKind, Result};
use crate::storage::files::read_buffered;
use crate::types::ByteStream;

/// Pieces that wait for the reader.
const AHEAD: usize = 8;

enum Piece {
    Bytes(Result<Bytes>),
    /// The stream ended; a channel that closes without it means that the caller went away.
    End,
}

/// The bytes of a stream as they come. Blocking.
pub(crate) struct Inflow {
    pieces: mpsc::Receiver<Piece>,
    piece: Bytes,
    ended: bool,
}

/// Runs blocking work over a stream's bytes.
///
/// # Cancel safety
/// Dropping the future makes the reader fail with `Cancelled`; the work goes on to where it reads next.
pub(crate) async fn on_thread<T: Send + 'static>(
    mut stream: ByteStream,
    work: impl FnOnce(Inflow) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, pieces) = mpsc::channel(AHEAD);
    let (answer, mut wait) = oneshot::channel();
    let inflow = Inflow {
        pieces,
        piece: Bytes::new(),
        ended: false,
    };
    std::thread::Builder::new()
        .name("longshore-load".into())
        .spawn(move || {
            let _ = answer.send(work(inflow));
        })
        .map_err(|error| Error::os("start a thread for an archive", error))?;
    let feed = async move {
        while let Some(piece) = stream.next().await {
            let failed = piece.is_err();
            if sender.send(Piece::Bytes(piece)).await.is_err() || failed {
                return;
            }
        }
        let _ = sender.send(Piece::End).await;
    };
    let ended = tokio::select! {
        ended = &mut wait => ended,
        () = feed => wait.await,
    };
    ended.map_err(|error| Error::internal("reading an archive ended early").with_source(error))?
}

impl Read for Inflow {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, out)
    }
}

impl BufRead for Inflow {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(piece)) => self.piece = piece.map_err(io::Error::other)?,
                Some(Piece::End) => self.ended = true,
                None => return Err(io::Error::other(gone())),
            }
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, amount: usize) {
        self.piece.advance(amount.min(self.piece.len()));
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Cancelled, "the caller went away")
}
