//! A stream as a blocking reader, on a thread of its own: archives are as slow as whoever sends them, and the threads of the
//! blocking pool are few.

use std::future::poll_fn;
use std::io::{self, BufRead, Read};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, ErrorKind, Result};
use crate::storage::files::read_buffered;
use crate::types::{ByteStream, Next, poll_here, poll_movable};

/// Pieces that wait for the reader.
const AHEAD: usize = 8;

enum Piece {
    Bytes(Result<Bytes>),
    /// What is left of the stream is for the reader itself to poll.
    Rest(ByteStream),
    /// The stream ended; a channel that closes without it means that the caller went away.
    End,
}

/// The bytes of a stream as they come. Blocking.
pub(crate) struct Inflow {
    pieces: mpsc::Receiver<Piece>,
    rest: Option<ByteStream>,
    /// Where what is left of a stream waits, if it does.
    runtime: Option<Handle>,
    piece: Bytes,
    ended: bool,
}

/// Who reads what the stream is made of, if that is a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// The thread that works on the bytes.
    Here,
    /// Another, meanwhile.
    Beside,
}

/// Runs blocking work over a stream's bytes, where to take them in is most of the work: a file is read by the same thread.
///
/// # Cancel safety
/// Dropping the future makes the reader fail with `Cancelled`; the work goes on to where it reads next.
pub(crate) async fn on_thread<T: Send + 'static>(
    stream: ByteStream,
    work: impl FnOnce(Inflow) -> Result<T> + Send + 'static,
) -> Result<T> {
    run(stream, Reading::Here, work).await
}

/// As [`on_thread`], where the work keeps a processor busy: a file is read by a thread of its own.
///
/// # Cancel safety
/// As [`on_thread`].
pub(crate) async fn beside<T: Send + 'static>(
    stream: ByteStream,
    work: impl FnOnce(Inflow) -> Result<T> + Send + 'static,
) -> Result<T> {
    run(stream, Reading::Beside, work).await
}

async fn run<T: Send + 'static>(
    stream: ByteStream,
    reading: Reading,
    work: impl FnOnce(Inflow) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, pieces) = mpsc::channel(AHEAD);
    let (answer, mut wait) = oneshot::channel();
    let inflow = Inflow {
        pieces,
        rest: None,
        runtime: Handle::try_current().ok(),
        piece: Bytes::new(),
        ended: false,
    };
    std::thread::Builder::new()
        .name("longshore-load".into())
        .spawn(move || {
            let _ = answer.send(work(inflow));
        })
        .map_err(|error| Error::os("start a thread for an archive", error))?;
    let ended = tokio::select! {
        ended = &mut wait => ended,
        () = feed(stream, reading, sender) => wait.await,
    };
    ended.map_err(|error| Error::internal("reading an archive ended early").with_source(error))?
}

async fn feed(mut stream: ByteStream, reading: Reading, sender: mpsc::Sender<Piece>) {
    loop {
        let next = poll_fn(|context| match reading {
            Reading::Here => poll_movable(&mut stream, context),
            Reading::Beside => stream.as_mut().poll_next(context).map(Next::Piece),
        });
        let piece = match next.await {
            Next::Piece(Some(piece)) => piece,
            Next::Piece(None) => {
                let _ = sender.send(Piece::End).await;
                return;
            }
            Next::Move => {
                if sender.send(Piece::Rest(stream)).await.is_ok() {
                    // This end of the channel says that the caller is still there.
                    sender.closed().await;
                }
                return;
            }
        };
        let failed = piece.is_err();
        if sender.send(Piece::Bytes(piece)).await.is_err() || failed {
            return;
        }
    }
}

impl Inflow {
    /// The next piece, or none at the end.
    fn next(&mut self) -> Result<Option<Bytes>> {
        if self.rest.is_some() {
            return self.read();
        }
        match self.pieces.blocking_recv() {
            Some(Piece::Bytes(piece)) => piece.map(Some),
            Some(Piece::Rest(stream)) => {
                self.rest = Some(stream);
                self.read()
            }
            Some(Piece::End) => Ok(None),
            None => Err(gone()),
        }
    }

    /// Has the stream read what it is made of, on this thread.
    fn read(&mut self) -> Result<Option<Bytes>> {
        let Self {
            pieces, rest, runtime, ..
        } = self;
        let Some(stream) = rest else { return Ok(None) };
        if pieces.is_closed() {
            return Err(gone());
        }
        // For what is around the file.
        let entered = runtime.as_ref().map(Handle::enter);
        if let Poll::Ready(piece) = poll_here(stream, &mut Context::from_waker(Waker::noop())) {
            return piece.transpose();
        }
        drop(entered);
        // It waits for something else.
        let next = poll_fn(|context| match pieces.poll_recv(context) {
            Poll::Ready(_) => Poll::Ready(Some(Err(gone()))),
            Poll::Pending => poll_here(stream, context),
        });
        let Some(runtime) = runtime else {
            return Err(Error::internal("an archive is read without a runtime"));
        };
        runtime.block_on(next).transpose()
    }
}

impl Read for Inflow {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, out)
    }
}

impl BufRead for Inflow {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() && !self.ended {
            // Given back first: the next is read into it again, while the processor still has it at hand.
            self.piece = Bytes::new();
            match self.next().map_err(io::Error::other)? {
                Some(piece) => self.piece = piece,
                None => self.ended = true,
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Seek as _, Write as _};
    use std::sync::Mutex;
    use std::time::Duration;

    use futures_util::{StreamExt as _, stream};

    use super::*;
    use crate::types::reader_stream;

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        file
    }

    fn all_of(mut inflow: Inflow) -> Result<(Vec<u8>, bool)> {
        let mut all = Vec::new();
        inflow
            .read_to_end(&mut all)
            .map_err(crate::storage::layer::tar::read_error)?;
        Ok((all, inflow.rest.is_some()))
    }

    #[tokio::test]
    async fn a_file_is_read_by_who_writes_unless_that_one_is_busy() {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
        let file = file_of(&bytes);
        let again = || {
            let mut file = file.try_clone().unwrap();
            file.rewind().unwrap();
            reader_stream(file).unwrap()
        };
        let (here, was_here) = on_thread(again(), all_of).await.unwrap();
        assert!(here == bytes && was_here);
        let (other, was_here) = beside(again(), all_of).await.unwrap();
        assert!(other == bytes && !was_here);
        let pieces = bytes.chunks(10_000).map(|piece| Ok(Bytes::copy_from_slice(piece)));
        let pieces: Vec<_> = pieces.collect();
        let (other, was_here) = on_thread(stream::iter(pieces).boxed(), all_of).await.unwrap();
        assert!(other == bytes && !was_here);
    }

    /// A stream may do more than the file that it is made of.
    #[tokio::test]
    async fn what_is_around_a_file_may_wait() {
        let bytes = vec![7; 5_000_000];
        let file = reader_stream(file_of(&bytes)).unwrap();
        let slow = file.then(|piece| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            piece
        });
        let (all, was_here) = on_thread(slow.boxed(), all_of).await.unwrap();
        assert!(all == bytes && was_here);
    }

    #[tokio::test]
    async fn who_reads_a_file_sees_the_caller_go() {
        let (told, hear) = std::sync::mpsc::channel();
        let (go, begun) = oneshot::channel();
        let go = Mutex::new(Some(go));
        let work = on_thread(reader_stream(file_of(&[1; 9_000_000])).unwrap(), move |mut inflow| {
            let first = inflow.fill_buf().map(<[u8]>::len);
            inflow.consume(first.unwrap());
            let _ = go.lock().unwrap().take().unwrap().send(());
            while !inflow.pieces.is_closed() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let error = inflow.fill_buf().unwrap_err();
            let error = crate::storage::layer::tar::read_error(error);
            told.send(error.kind().clone()).unwrap();
            Ok(())
        });
        tokio::select! {
            _ = work => panic!("it waits for the caller to go"),
            _ = begun => {}
        }
        assert_eq!(hear.recv().unwrap(), ErrorKind::Cancelled);
    }

    #[tokio::test]
    async fn an_error_is_not_an_end() {
        let pieces = vec![
            Ok(Bytes::from_static(b"some")),
            Err(Error::new(ErrorKind::Unavailable, "it went away")),
        ];
        let seen = on_thread(stream::iter(pieces).boxed(), |mut inflow| {
            let mut all = Vec::new();
            let first = inflow.read_to_end(&mut all).unwrap_err();
            let second = inflow.read_to_end(&mut all).unwrap_err();
            let kind = |error| crate::storage::layer::tar::read_error(error).kind().clone();
            Ok((kind(first), kind(second)))
        });
        assert_eq!(seen.await.unwrap(), (ErrorKind::Unavailable, ErrorKind::Cancelled));
    }
}
