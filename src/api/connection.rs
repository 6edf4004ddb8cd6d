//! A connection of our own server, between the socket and hyper. It does what hyper has no word for:
//!
//! - A client may take over a connection without asking for an upgrade (`Upgrade: tcp` is missing): Docker then answers 200
//!   and goes on raw. hyper gives a connection away only where it was asked to, so the question is put into the head of
//!   such a request, and the 101 of the answer becomes a 200.
//! - A client may close its sending side together with its request to attach, before the answer is out. hyper would take
//!   that for the end, so it is not told until the stream is raw.
//! - A head must arrive within a time, while a connection may idle between requests for as long as it likes.
//!
//! Heads are looked at where one must begin: at the start, and after a request whose body and answer are through. What a
//! client sends ahead of an answer passes unseen, and is then served without the first two.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::reply::{Body, BodyError};
use super::server::Lives;

/// Longest head of a request. hyper refuses longer ones with 431.
pub(super) const MAX_HEAD: usize = 64 << 10;
/// Bytes read at once while a head is gathered.
const STEP: usize = 8 << 10;
/// What an unasked-for 101 becomes.
const OK: &[u8] = b"HTTP/1.1 200 OK\r\n";
/// What is put into a head.
const ASK: &[u8] = b"Upgrade: tcp\r\nConnection: Upgrade\r\n";

/// What a connection and the requests on it tell each other.
#[derive(Debug)]
struct Marks {
    /// The next bytes begin a head.
    between: AtomicBool,
    /// The request that is being served was made to ask for an upgrade.
    unasked: AtomicBool,
    /// The next line that is written is an answer's first, and its 101 becomes 200.
    rewrite: AtomicBool,
    /// The end of what the client sends is kept from hyper.
    hold_end: AtomicBool,
    /// The body of the request that is being served has been read to its end.
    body_read: AtomicBool,
}

impl Marks {
    fn set(flag: &AtomicBool, value: bool) {
        flag.store(value, Ordering::Release);
    }

    fn is(flag: &AtomicBool) -> bool {
        flag.load(Ordering::Acquire)
    }
}

/// A request's place in our server.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    marks: Arc<Marks>,
    /// The server, and with it the connection's place among its many.
    pub(super) lives: Arc<Lives>,
}

impl Turn {
    /// For a new connection.
    pub(super) fn new(lives: Arc<Lives>) -> Self {
        let flag = AtomicBool::new;
        let marks = Arc::new(Marks {
            between: flag(true),
            unasked: flag(false),
            rewrite: flag(false),
            hold_end: flag(false),
            body_read: flag(false),
        });
        Self { marks, lives }
    }

    /// The stream is raw from now on, and its end is the client's.
    pub(super) fn raw(&self) {
        Marks::set(&self.marks.hold_end, false);
        Marks::set(&self.marks.between, false);
    }

    /// Whether the client did not ask for the upgrade that it gets.
    pub(super) fn is_unasked(&self) -> bool {
        Marks::is(&self.marks.unasked)
    }

    /// Watches the body of a request.
    pub(super) fn request<B>(&self, body: B) -> Body
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BodyError>,
    {
        Marks::set(&self.marks.body_read, body.is_end_stream());
        let marks = Arc::clone(&self.marks);
        Body::new(Incoming { body, marks })
    }

    /// Watches the body of an answer.
    pub(super) fn answer(&self, body: Body, switches: bool) -> Body {
        if switches && Marks::is(&self.marks.unasked) {
            Marks::set(&self.marks.rewrite, true);
        }
        if switches {
            return body;
        }
        let marks = Arc::clone(&self.marks);
        Body::new(Outgoing { body, marks })
    }
}

/// The body of a request; says when it has been read.
struct Incoming<B> {
    body: B,
    marks: Arc<Marks>,
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Incoming<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() || self.body.is_end_stream() {
            Marks::set(&self.marks.body_read, true);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer; its end is the end of the request.
struct Outgoing {
    body: Body,
    marks: Arc<Marks>,
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        // A body that nobody read would be taken for a head.
        if Marks::is(&self.marks.body_read) {
            Marks::set(&self.marks.hold_end, false);
            Marks::set(&self.marks.unasked, false);
            Marks::set(&self.marks.between, true);
        }
    }
}

/// A connection, as hyper sees it.
#[derive(Debug)]
pub(super) struct Connection<T> {
    io: T,
    turn: Turn,
    /// What has been read and not been given to hyper.
    ready: Bytes,
    /// The beginning of a head.
    head: Vec<u8>,
    head_within: Duration,
    late: Option<Pin<Box<Sleep>>>,
    /// What is written in place of the first bytes of an answer, and how many those are.
    instead: &'static [u8],
    replaced: usize,
}

impl<T> Connection<T> {
    pub(super) fn new(io: T, turn: Turn, head_within: Duration) -> Self {
        Self {
            io,
            turn,
            ready: Bytes::new(),
            head: Vec::new(),
            head_within,
            late: None,
            instead: &[],
            replaced: 0,
        }
    }

    /// The socket.
    pub(super) fn io(&self) -> &T {
        &self.io
    }

    /// Takes a head that is whole, or too long, or was cut short.
    fn take_head(&mut self) {
        self.late = None;
        let marks = &self.turn.marks;
        Marks::set(&marks.between, false);
        let head = std::mem::take(&mut self.head);
        let plan = look(&head);
        Marks::set(&marks.unasked, plan == Plan::Ask);
        Marks::set(&marks.hold_end, plan != Plan::Pass);
        self.ready = match plan {
            Plan::Ask => ask(&head).into(),
            Plan::Pass | Plan::Hold => head.into(),
        };
    }
}

impl<T: AsyncRead + Unpin> Connection<T> {
    /// Gathers a head. `Ready` once there is one, or the end.
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut step = [0; STEP];
            let mut buffer = ReadBuf::new(&mut step);
            if Pin::new(&mut self.io).poll_read(context, &mut buffer)?.is_pending() {
                return self.poll_late(context);
            }
            let read = buffer.filled();
            self.head.extend_from_slice(read);
            if read.is_empty() || end_of_head(&self.head).is_some() || self.head.len() >= MAX_HEAD {
                self.take_head();
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// A head that was begun must come to its end.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.head.is_empty() {
            return Poll::Pending;
        }
        let within = self.head_within;
        let late = self.late.get_or_insert_with(|| Box::pin(sleep(within)));
        ready!(late.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Connection<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ready.is_empty() && Marks::is(&this.turn.marks.between) {
            ready!(this.poll_head(context))?;
            if this.ready.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        if !this.ready.is_empty() {
            let take = this.ready.len().min(out.remaining());
            out.put_slice(&this.ready.split_to(take));
            return Poll::Ready(Ok(()));
        }
        let before = out.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(context, out))?;
        if out.filled().len() == before && Marks::is(&this.turn.marks.hold_end) {
            // Asked again once the stream is raw, or the request is over.
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Connection<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if Marks::is(&this.turn.marks.rewrite) && !bytes.is_empty() {
            Marks::set(&this.turn.marks.rewrite, false);
            if let Some(line) = bytes.windows(2).position(|two| two == b"\r\n") {
                this.instead = OK;
                this.replaced = line + 2;
            }
        }
        while !this.instead.is_empty() {
            let written = ready!(Pin::new(&mut this.io).poll_write(context, this.instead))?;
            this.instead.advance(written);
        }
        if this.replaced > 0 {
            return Poll::Ready(Ok(std::mem::take(&mut this.replaced)));
        }
        Pin::new(&mut this.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// What becomes of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    /// Nothing.
    Pass,
    /// It asks for an upgrade: the end of what the client sends is held back.
    Hold,
    /// It is made to ask.
    Ask,
}

/// Where the head ends, behind its empty line.
fn end_of_head(head: &[u8]) -> Option<usize> {
    let crlf = head.windows(3).position(|three| three == b"\n\r\n").map(|at| at + 3);
    let lf = head.windows(2).position(|two| two == b"\n\n").map(|at| at + 2);
    match (crlf, lf) {
        (Some(crlf), Some(lf)) => Some(crlf.min(lf)),
        (crlf, lf) => crlf.or(lf),
    }
}

fn look(bytes: &[u8]) -> Plan {
    let Some(end) = end_of_head(bytes) else {
        return Plan::Pass;
    };
    let Ok(head) = std::str::from_utf8(&bytes[..end]) else {
        return Plan::Pass;
    };
    let mut lines = head.lines();
    let first: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let ["POST", target, "HTTP/1.1"] = first[..] else {
        return Plan::Pass;
    };
    let path = target.split('?').next().unwrap_or_default();
    let attach = path.contains("/containers/") && path.ends_with("/attach");
    let start = path.contains("/exec/") && path.ends_with("/start");
    if !attach && !start {
        return Plan::Pass;
    }
    let names = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim().to_ascii_lowercase());
    let names: Vec<String> = names.collect();
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    match () {
        () if has("upgrade") => Plan::Hold,
        // It sends stdin as an HTTP body, and so can be answered by one.
        () if has("transfer-encoding") => Plan::Pass,
        () => Plan::Ask,
    }
}

/// The head, asking for an upgrade.
fn ask(head: &[u8]) -> Vec<u8> {
    let line = head.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let (first, rest) = head.split_at(line);
    [first, ASK, rest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_that_take_the_connection_over() {
        let plan = |head: &str| look(head.as_bytes());
        assert_eq!(
            plan("POST /v1.41/containers/a/attach?stream=1 HTTP/1.1\r\nHost: x\r\n\r\n"),
            Plan::Ask
        );
        assert_eq!(
            plan("POST /exec/a/start HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"),
            Plan::Ask
        );
        assert_eq!(plan("POST /exec/a/start HTTP/1.1\nUPGRADE: tcp\n\n"), Plan::Hold);
        assert_eq!(
            plan("POST /exec/a/start HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Plan::Pass
        );
        assert_eq!(plan("POST /containers/a/start HTTP/1.1\r\n\r\n"), Plan::Pass);
        assert_eq!(plan("GET /containers/a/attach HTTP/1.1\r\n\r\n"), Plan::Pass);
        assert_eq!(plan("POST /containers/a/attach HTTP/1.0\r\n\r\n"), Plan::Pass);
        assert_eq!(plan("POST /containers/a/attach HTTP/1.1\r\n"), Plan::Pass);
    }

    #[test]
    fn a_head_is_made_to_ask() {
        let asked = ask(b"POST /x HTTP/1.1\r\nHost: y\r\n\r\nbody");
        let expected = b"POST /x HTTP/1.1\r\nUpgrade: tcp\r\nConnection: Upgrade\r\nHost: y\r\n\r\nbody";
        assert_eq!(asked, expected);
    }
}
