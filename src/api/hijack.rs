//! Connections that become raw streams: attach and exec.
//!
//! The answer is 101 to a client that asked for an upgrade, 200 to one that did not; then the connection carries output
//! one way, raw for a terminal and framed otherwise, and stdin the other. The client may close its side alone: that ends
//! stdin, while output goes on. Where there is no connection to be had (a server of somebody else's, without an upgrade),
//! output is the answer's body, and stdin the request's.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use hyper::StatusCode;
use hyper::ext::ReasonPhrase;
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::call::Call;
use super::connection::{Connection, Turn};
use super::frame::frame;
use super::reply::{self, Body, Reply};
use super::version::ApiVersion;
use crate::containers::{Attached, BoxStream, DetachKeys, Input, KeyScanner};
use crate::logs::{LogStream, TeeItem};

/// Bytes of stdin read at once.
const STEP: usize = 32 << 10;
/// How long a client that has all the output may take to close its side.
const LINGER: Duration = Duration::from_secs(1);
/// How often it is looked whether a client that closed its sending side is gone altogether.
const GONE_CHECK: Duration = Duration::from_secs(1);

/// How often, and how many times, it is looked whether the client has read the head of the answer.
const HEAD_LOOK: Duration = Duration::from_millis(1);
const HEAD_LOOKS: usize = 200;
/// How long output waits where that cannot be seen: over TCP.
const HEAD_UNKNOWN: Duration = Duration::from_millis(5);

/// What passes between a container and a client.
pub(super) struct Streams {
    /// What the container or exec writes.
    pub(super) output: BoxStream<TeeItem>,
    /// Which outputs the client wants.
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    /// Raw, not framed.
    pub(super) tty: bool,
    /// Where stdin goes, if the client gives any.
    pub(super) stdin: Option<Stdin>,
}

/// Where stdin goes.
pub(super) struct Stdin {
    pub(super) input: Input,
    /// Whether the end of the client's is the end of the container's.
    pub(super) ends: bool,
    /// What a client types to go away; none without a terminal.
    pub(super) keys: Option<DetachKeys>,
}

impl Streams {
    /// All of an attachment's output, without stdin.
    pub(super) fn of(attached: &mut Attached, tty: bool) -> Self {
        Self {
            output: std::mem::replace(&mut attached.output, Box::pin(futures_util::stream::empty())),
            stdout: true,
            stderr: true,
            tty,
            stdin: None,
        }
    }
}

/// `Content-Type` of a stream. Source: API 1.42, which tells framed streams from raw ones.
pub(super) fn content_type(version: ApiVersion, tty: bool) -> HeaderValue {
    HeaderValue::from_static(match tty {
        false if version.at_least(42) => "application/vnd.docker.multiplexed-stream",
        _ => "application/vnd.docker.raw-stream",
    })
}

/// Answers with streams: takes the connection over if there is one to be had.
pub(super) fn answer(call: &mut Call, streams: Streams) -> Reply {
    let kind = content_type(call.version, streams.tty);
    let Some(upgrade) = call.upgrade.take() else {
        return in_bodies(call, streams, kind);
    };
    let turn = call.turn.clone();
    let unasked = turn.as_ref().is_some_and(Turn::is_unasked);
    tokio::spawn(take_over(upgrade, turn, streams));
    let mut reply = reply::typed(StatusCode::SWITCHING_PROTOCOLS, kind, Body::whole(Bytes::new()));
    if !unasked {
        reply.extensions_mut().insert(ReasonPhrase::from_static(b"UPGRADED"));
        let headers = reply.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
    }
    reply
}

/// Output as a body, stdin from a body.
fn in_bodies(call: &mut Call, streams: Streams, kind: HeaderValue) -> Reply {
    let Streams {
        output,
        stdout,
        stderr,
        tty,
        stdin,
    } = streams;
    if let Some(Stdin { input, .. }) = stdin {
        let mut body = call.stream();
        tokio::spawn(async move {
            while let Some(Ok(bytes)) = body.next().await {
                if input.write(bytes).await.is_err() {
                    return;
                }
            }
        });
    }
    let bytes = output.filter_map(move |item| {
        let bytes = encode(item, stdout, stderr, tty);
        async move { bytes.map(Ok::<_, std::convert::Infallible>) }
    });
    reply::typed(StatusCode::OK, kind, Body::stream(bytes))
}

/// What goes over the wire for a piece of output.
fn encode(item: TeeItem, stdout: bool, stderr: bool, tty: bool) -> Option<Bytes> {
    let chunk = match item {
        TeeItem::Chunk(chunk) => chunk,
        TeeItem::Lagged { missed_bytes } => {
            tracing::warn!(missed_bytes, "an attached client missed output");
            return None;
        }
    };
    let wanted = match chunk.stream {
        LogStream::Stdout => stdout,
        LogStream::Stderr => stderr,
    };
    let bytes = || {
        if tty {
            chunk.bytes.clone()
        } else {
            frame(chunk.stream, &chunk.bytes)
        }
    };
    wanted.then(bytes).filter(|bytes| !bytes.is_empty())
}

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

async fn take_over(upgrade: OnUpgrade, turn: Option<Turn>, streams: Streams) {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => return tracing::debug!(%error, "a client went away before its stream began"),
    };
    if let Some(turn) = &turn {
        turn.raw();
    }
    let (reader, writer, socket) = open(upgraded);
    until_head_is_read(socket.as_ref()).await;
    let closed = async {
        match &turn {
            Some(turn) => turn.lives.closed().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = converse(reader, writer, socket, streams) => {}
        () = closed => {}
    }
}

/// Clients that read the head through a buffer (Python's `http.client`) and the stream from the socket lose what comes right
/// behind the head. Docker takes so long to start anything that they get away with it; here the output waits a moment.
async fn until_head_is_read(socket: Option<&OwnedFd>) {
    let Some(socket) = socket else {
        return tokio::time::sleep(HEAD_UNKNOWN).await;
    };
    for _ in 0..HEAD_LOOKS {
        match crate::sys::socket::unread(socket.as_fd()) {
            Ok(0) | Err(_) => return,
            Ok(_) => tokio::time::sleep(HEAD_LOOK).await,
        }
    }
}

/// Both sides of a connection, and where it can be had a socket that tells whether the client is gone.
fn open(upgraded: Upgraded) -> (Reader, Writer, Option<OwnedFd>) {
    match upgraded.downcast::<TokioIo<Connection<UnixStream>>>() {
        Ok(parts) => {
            let connection = parts.io.into_inner();
            let socket = connection.io().as_fd().try_clone_to_owned().ok();
            let (reader, writer) = tokio::io::split(connection);
            let before = std::io::Cursor::new(parts.read_buf);
            (Box::new(before.chain(reader)), Box::new(writer), socket)
        }
        Err(upgraded) => {
            let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
            (Box::new(reader), Box::new(writer), None)
        }
    }
}

/// Passes streams until the output ends, or the client has had enough.
async fn converse(mut reader: Reader, mut writer: Writer, socket: Option<OwnedFd>, streams: Streams) {
    let Streams {
        mut output,
        stdout,
        stderr,
        tty,
        stdin,
    } = streams;
    let out = async {
        while let Some(item) = output.next().await {
            let Some(bytes) = encode(item, stdout, stderr, tty) else {
                continue;
            };
            if writer.write_all(&bytes).await.is_err() {
                return Over::Gone;
            }
            if writer.flush().await.is_err() {
                return Over::Gone;
            }
        }
        Over::Output
    };
    let over = {
        let input = async {
            match feed(&mut reader, stdin).await {
                Over::Input => until_gone(socket).await,
                over => over,
            }
        };
        tokio::pin!(input);
        tokio::select! {
            over = out => {
                if over == Over::Gone {
                    // It reads no more, but what it had sent before counts: the last line before the keys that leave, say.
                    let _ = tokio::time::timeout(LINGER, &mut input).await;
                }
                over
            }
            over = &mut input => over,
        }
    };
    if over == Over::Gone {
        return;
    }
    let _ = writer.shutdown().await;
    // Bytes of the client's that nobody read would turn the end of the stream into an error at its side.
    let mut nowhere = tokio::io::sink();
    let rest = tokio::io::copy(&mut reader, &mut nowhere);
    let _ = tokio::time::timeout(LINGER, rest).await;
}

/// Why a conversation, or a part of it, is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// The output has ended.
    Output,
    /// The client has no more stdin.
    Input,
    /// The client leaves and the container goes on.
    Detached,
    /// The client is gone.
    Gone,
}

/// Passes stdin on. Without one, what the client sends is dropped.
async fn feed(reader: &mut Reader, stdin: Option<Stdin>) -> Over {
    let Some(Stdin { input, ends, keys }) = stdin else {
        return match tokio::io::copy(reader, &mut tokio::io::sink()).await {
            Ok(_) => Over::Input,
            Err(_) => Over::Gone,
        };
    };
    let mut scanner = keys.map(KeyScanner::new);
    let mut buffer = BytesMut::new();
    let mut open = true;
    loop {
        buffer.reserve(STEP);
        let read = reader.read_buf(&mut buffer).await;
        let over = match read {
            Err(_) => Some(Over::Gone),
            Ok(0) => Some(if ends { Over::Input } else { Over::Detached }),
            Ok(_) => None,
        };
        if let Some(over) = over {
            if !ends {
                input.detach();
            }
            return over;
        }
        let mut bytes = buffer.split().freeze();
        let mut leaves = false;
        if let Some(scanner) = &mut scanner {
            (bytes, leaves) = scanner.scan(&bytes);
        }
        // A container that has closed its stdin may still write; the client's bytes then go nowhere.
        open = open && (bytes.is_empty() || input.write(bytes).await.is_ok());
        if leaves {
            input.detach();
            return Over::Detached;
        }
    }
}

/// Ends once the client has closed both sides. Where that cannot be told, a write will.
async fn until_gone(socket: Option<OwnedFd>) -> Over {
    let Some(socket) = socket else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(GONE_CHECK).await;
        let mut asked = [PollFd::new(socket.as_fd(), PollFlags::empty())];
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
        let found = poll(&mut asked, PollTimeout::ZERO).is_ok();
        let events = asked.first().and_then(PollFd::revents);
        if found && events.is_some_and(|events| events.intersects(gone)) {
            return Over::Gone;
        }
    }
}
