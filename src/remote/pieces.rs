//! Answers that come in pieces: lines of JSON, and the frames of both outputs. Pure; the other end is not trusted with
//! memory.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::Incoming;
use serde_json::Value;

use super::client::{Client, broken};
use super::error::{nonsense, of_line};
use crate::error::Result;
use crate::images::ByteStream;
use crate::logs::{Chunk, LogStream};

/// More than any line of progress or event.
const MAX_LINE: usize = 4 << 20;
/// Length of a frame's head. Source: the Engine API's description, `ContainerAttach`, "Stream format".
const HEAD: usize = 8;

/// The bytes of an answer. The client stays as long as they are read.
pub(super) fn bytes(client: Client, answer: Response<Incoming>) -> ByteStream {
    let body = (client, answer.into_body());
    Box::pin(futures_util::stream::try_unfold(
        body,
        |(client, mut body)| async move {
            loop {
                let Some(frame) = body.frame().await else {
                    return Ok(None);
                };
                let frame = frame.map_err(|failed| broken("the answer broke off").with_source(failed))?;
                if let Ok(data) = frame.into_data() {
                    return Ok(Some((data, (client, body))));
                }
            }
        },
    ))
}

/// Lines of JSON, each told as soon as it is there.
pub(super) struct Lines {
    bytes: ByteStream,
    rest: BytesMut,
    /// How much of the rest has no end of a line in it.
    seen: usize,
    ended: bool,
}

impl Lines {
    pub(super) fn new(bytes: ByteStream) -> Self {
        Self {
            bytes,
            rest: BytesMut::new(),
            seen: 0,
            ended: false,
        }
    }

    /// The next line. One that tells of an error is that error.
    pub(super) async fn next(&mut self) -> Result<Option<Value>> {
        futures_util::future::poll_fn(|context| self.poll_line(context)).await
    }

    fn poll_line(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Value>>> {
        loop {
            if let Some(line) = self.cut() {
                match parse(&line) {
                    Ok(None) => continue,
                    line => return Poll::Ready(line),
                }
            }
            if self.ended {
                return Poll::Ready(Ok(None));
            }
            if self.rest.len() > MAX_LINE {
                return Poll::Ready(Err(nonsense(format_args!("a line of more than {MAX_LINE} bytes"))));
            }
            match self.bytes.as_mut().poll_next(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(Some(Ok(more))) => self.rest.extend_from_slice(&more),
                Poll::Ready(None) => self.ended = true,
            }
        }
    }

    /// A line, or at the end what is left.
    fn cut(&mut self) -> Option<BytesMut> {
        let fresh = self.rest.get(self.seen..).unwrap_or_default();
        match fresh.iter().position(|byte| *byte == b'\n') {
            Some(at) => {
                let line = self.rest.split_to(self.seen + at + 1);
                self.seen = 0;
                Some(line)
            }
            None if self.ended && !self.rest.is_empty() => {
                self.seen = 0;
                Some(self.rest.split())
            }
            None => {
                self.seen = self.rest.len();
                None
            }
        }
    }
}

/// Nothing for an empty line.
fn parse(line: &[u8]) -> Result<Option<Value>> {
    let line = line.trim_ascii();
    // What JSON text sequences begin with.
    let line = line.strip_prefix(b"\x1e").unwrap_or(line);
    if line.is_empty() {
        return Ok(None);
    }
    let value: Value =
        serde_json::from_slice(line).map_err(|failed| nonsense("a line that is no JSON").with_source(failed))?;
    match of_line(&value) {
        Some(error) => Err(error),
        None => Ok(Some(value)),
    }
}

/// Takes frames apart. What a frame says is told as it comes, for a frame may be longer than the memory.
#[derive(Debug)]
pub(super) struct Frames {
    raw: bool,
    head: BytesMut,
    stream: LogStream,
    left: usize,
}

/// A piece of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) chunk: Chunk,
    /// Whether it is the frame's last.
    pub(super) last: bool,
}

impl Frames {
    /// `raw`: of a terminal, whose bytes have no frames.
    pub(super) fn new(raw: bool) -> Self {
        Self {
            raw,
            head: BytesMut::new(),
            stream: LogStream::Stdout,
            left: 0,
        }
    }

    /// Takes bytes as they came.
    pub(super) fn take(&mut self, mut bytes: Bytes) -> Result<VecDeque<Piece>> {
        let mut out = VecDeque::new();
        while !bytes.is_empty() {
            if self.raw {
                let chunk = Chunk {
                    stream: LogStream::Stdout,
                    bytes: bytes.split_off(0),
                };
                out.push_back(Piece { chunk, last: false });
                break;
            }
            if self.left == 0 {
                let wanted = (HEAD - self.head.len()).min(bytes.len());
                self.head.extend_from_slice(&bytes.split_to(wanted));
                if self.head.len() == HEAD {
                    self.begin()?;
                }
                continue;
            }
            let piece = bytes.split_to(self.left.min(bytes.len()));
            self.left -= piece.len();
            let chunk = Chunk {
                stream: self.stream,
                bytes: piece,
            };
            let last = self.left == 0;
            out.push_back(Piece { chunk, last });
        }
        Ok(out)
    }

    fn begin(&mut self) -> Result<()> {
        let number = self.head.get_u8();
        self.stream = match number {
            // What goes into stdin comes back as 0; no engine sends it.
            0 | 1 => LogStream::Stdout,
            2 => LogStream::Stderr,
            // The engine's own complaint takes the place of a stream.
            3 => LogStream::Stderr,
            _ => return Err(nonsense(format_args!("a frame of stream {number}"))),
        };
        self.head.advance(3);
        self.left = usize::try_from(self.head.get_u32()).unwrap_or(usize::MAX);
        self.head.clear();
        Ok(())
    }

    /// Whether what came ends with a whole frame.
    pub(super) fn is_whole(&self) -> bool {
        self.left == 0 && self.head.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use serde_json::json;

    use super::*;
    use crate::error::ErrorKind;

    /// A frame as Docker sends it.
    const GOLDEN: &[u8] = b"\x01\0\0\0\0\0\0\x06hello\n\x02\0\0\0\0\0\0\x02ab\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\x01x";

    fn joined(pieces: impl IntoIterator<Item = Piece>) -> (Vec<u8>, Vec<u8>, usize) {
        let (mut out, mut err, mut lasts) = (Vec::new(), Vec::new(), 0);
        for piece in pieces {
            lasts += usize::from(piece.last);
            match piece.chunk.stream {
                LogStream::Stdout => out.extend_from_slice(&piece.chunk.bytes),
                LogStream::Stderr => err.extend_from_slice(&piece.chunk.bytes),
            }
        }
        (out, err, lasts)
    }

    #[test]
    fn b6_frames_come_apart_however_they_are_cut() {
        for size in 1..=GOLDEN.len() {
            let mut frames = Frames::new(false);
            let mut all = Vec::new();
            for part in GOLDEN.chunks(size) {
                all.extend(frames.take(Bytes::copy_from_slice(part)).unwrap());
            }
            assert!(frames.is_whole());
            let (out, err, _) = joined(all);
            assert_eq!(
                (&out[..], &err[..]),
                (&b"hello\nx"[..], &b"ab"[..]),
                "in pieces of {size}"
            );
        }
        let whole = Frames::new(false).take(Bytes::from_static(GOLDEN)).unwrap();
        assert_eq!(joined(whole).2, 3);
    }

    #[test]
    fn a_terminal_has_no_frames_and_a_bad_one_is_refused() {
        let raw = Frames::new(true).take(Bytes::from_static(GOLDEN)).unwrap();
        assert_eq!(joined(raw).0, GOLDEN);
        let bad = Frames::new(false).take(Bytes::from_static(b"HTTP/1.1 200 OK"));
        assert_eq!(bad.unwrap_err().kind(), &ErrorKind::Unavailable);
        let mut cut = Frames::new(false);
        cut.take(Bytes::from_static(b"\x01\0\0\0\xff\xff\xff\xffabc")).unwrap();
        assert!(!cut.is_whole());
    }

    #[test]
    fn lines_however_they_come() {
        let parts = [&b"{\"a\":1}\r\n{\"a\""[..], b":2}\n\n", b"\x1e{\"a\":3}"];
        let bytes = futures_util::stream::iter(parts.map(|part| Ok(Bytes::from_static(part))));
        let mut lines = Lines::new(Box::pin(bytes));
        for expected in 1..=3 {
            let line = lines.next().now_or_never().unwrap().unwrap();
            assert_eq!(line, Some(json!({"a": expected})));
        }
        assert_eq!(lines.next().now_or_never().unwrap().unwrap(), None);
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let endless = futures_util::stream::repeat_with(|| Ok(Bytes::from(vec![b'x'; 1 << 20])));
        let mut lines = Lines::new(Box::pin(endless));
        let refused = lines.next().now_or_never().unwrap().unwrap_err();
        assert_eq!(refused.kind(), &ErrorKind::Unavailable);
    }
}
