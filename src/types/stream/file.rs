//! A plain file as a stream. Whoever may block and wants its bytes reads them itself: to hand each piece from one thread to
//! another costs more than to read it, and leaves it in the other processor's cache.
#![cfg_attr(
    not(feature = "engine"),
    allow(dead_code, reason = "only an engine reads streams on threads that may block")
)]

use std::cell::Cell;
use std::fs::File;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;

use super::{ByteStream, Filled, fill, read_ahead};
use crate::error::{Error, Result};

/// How much is read at once where it is needed.
const PIECE: usize = 1 << 20;

/// Who polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// Somebody who must not block.
    Waits,
    /// Somebody who can have this polled where it may block, and has been asked to.
    Movable,
    Asked,
    /// Somebody who may block.
    Blocks,
}

thread_local! {
    static WHO: Cell<Who> = const { Cell::new(Who::Waits) };
}

/// Puts back who polls on this thread.
struct Back(Who);

impl Drop for Back {
    fn drop(&mut self) {
        WHO.set(self.0);
    }
}

/// What a stream says that can be moved to another thread.
pub(crate) enum Next {
    Piece(Option<Result<Bytes>>),
    /// It is best polled where it may block, with [`poll_here`].
    Move,
}

/// Polls a stream that can be moved to a thread that may block.
pub(crate) fn poll_movable(stream: &mut ByteStream, context: &mut Context<'_>) -> Poll<Next> {
    let _back = Back(WHO.replace(Who::Movable));
    match stream.as_mut().poll_next(context) {
        Poll::Ready(piece) => Poll::Ready(Next::Piece(piece)),
        Poll::Pending if WHO.get() == Who::Asked => Poll::Ready(Next::Move),
        Poll::Pending => Poll::Pending,
    }
}

/// Polls a stream on a thread that may block.
pub(crate) fn poll_here(stream: &mut ByteStream, context: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
    let _back = Back(WHO.replace(Who::Blocks));
    stream.as_mut().poll_next(context)
}

/// A plain file from where it stands to its end.
pub(super) struct FileStream {
    state: State,
    /// Buffers that nobody has any more, and how they come back.
    returned: mpsc::Receiver<Vec<u8>>,
    spent: mpsc::Sender<Vec<u8>>,
}

enum State {
    /// Not begun, or read by whoever polls.
    Here(File),
    /// Read by a thread.
    Ahead(ByteStream),
    Ended,
}

impl FileStream {
    pub(super) fn of(file: File) -> Self {
        let (spent, returned) = mpsc::channel();
        Self {
            state: State::Here(file),
            returned,
            spent,
        }
    }

    /// Reads a piece. Blocking.
    fn read(&mut self) -> Option<Result<Bytes>> {
        let State::Here(file) = &mut self.state else {
            return None;
        };
        let mut buffer = self.returned.try_recv().unwrap_or_else(|_| vec![0; PIECE]);
        match fill(file, &mut buffer) {
            Ok(0) => {
                self.state = State::Ended;
                None
            }
            Ok(length) => Some(Ok(Bytes::from_owner(Filled {
                buffer,
                length,
                spent: self.spent.clone(),
            }))),
            Err(error) => {
                self.state = State::Ended;
                Some(Err(Error::os("read what was given", error)))
            }
        }
    }

    /// Has a thread read what is left.
    fn begin_ahead(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Here(file) => self.state = State::Ahead(read_ahead(file)?),
            other => self.state = other,
        }
        Ok(())
    }
}

impl Stream for FileStream {
    type Item = Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        let this = self.get_mut();
        if matches!(this.state, State::Here(_)) {
            match WHO.get() {
                Who::Blocks => return Poll::Ready(this.read()),
                Who::Movable | Who::Asked => {
                    WHO.set(Who::Asked);
                    return Poll::Pending;
                }
                Who::Waits => {
                    if let Err(error) = this.begin_ahead() {
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            }
        }
        match &mut this.state {
            State::Ahead(stream) => stream.as_mut().poll_next(context),
            State::Here(_) | State::Ended => Poll::Ready(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};
    use std::task::Waker;

    use futures_util::StreamExt as _;

    use super::super::reader_stream;
    use super::*;

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        file
    }

    fn bytes(count: u32) -> Vec<u8> {
        (0..count).map(|number| (number % 251) as u8).collect()
    }

    fn here(stream: &mut ByteStream) -> Option<Result<Bytes>> {
        let Poll::Ready(piece) = poll_here(stream, &mut Context::from_waker(Waker::noop())) else {
            panic!("a file waits for nobody");
        };
        piece
    }

    #[test]
    fn it_asks_to_be_moved_and_is_read_by_who_may_block() {
        let all = bytes(3_000_000);
        // Behind what wraps it, too.
        let mut stream: ByteStream = reader_stream(file_of(&all)).unwrap().map(|piece| piece).boxed();
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(
            poll_movable(&mut stream, &mut context),
            Poll::Ready(Next::Move)
        ));
        assert_eq!(WHO.get(), Who::Waits);
        let (mut seen, mut kept) = (Vec::new(), Vec::new());
        while let Some(piece) = here(&mut stream) {
            let piece = piece.unwrap();
            seen.extend_from_slice(&piece);
            // Pieces that are kept are not read over.
            kept.push(piece);
        }
        assert!(seen == all && kept.concat() == all);
        assert!(here(&mut stream).is_none());
    }

    #[tokio::test]
    async fn who_must_not_block_gets_the_rest_from_a_thread() {
        let all = bytes(3_000_000);
        let mut stream = reader_stream(file_of(&all)).unwrap();
        let first = here(&mut stream).unwrap().unwrap();
        assert_eq!(first.len(), PIECE);
        let mut seen = first.to_vec();
        while let Some(piece) = stream.next().await {
            seen.extend_from_slice(&piece.unwrap());
        }
        assert!(seen == all);
        assert!(stream.next().await.is_none());
    }
}
