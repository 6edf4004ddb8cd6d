//! Messages: `[u32 length][u8 kind][payload]`, little endian; the length is the payload's.

use std::io;
use std::os::fd::AsFd as _;

use bytes::{Buf, Bytes, BytesMut};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// The longest payload that is taken: more than the longest of a verb.
pub(super) const MOST: usize = 4 << 20;
/// Bytes of output in a message at most.
pub(super) const PIECE: usize = 64 << 10;
const HEADER: usize = 5;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The owner listens.
    Ready,
    /// A verb, what it is about, and what is said with it.
    Question,
    /// The verb has been done.
    Answer,
    /// It has failed.
    Failure,
    /// The answer has arrived, with the streams that it brought.
    Taken,
    Stdout,
    Stderr,
    /// So many bytes of output were left out here.
    Lagged,
    Stdin,
    /// The last writer has closed stdin.
    Closed,
    /// The last writer has let go of stdin, which stays open.
    LetGo,
    /// The output has come to its end.
    End,
}

const KINDS: [Kind; 12] = [
    Kind::Ready,
    Kind::Question,
    Kind::Answer,
    Kind::Failure,
    Kind::Taken,
    Kind::Stdout,
    Kind::Stderr,
    Kind::Lagged,
    Kind::Stdin,
    Kind::Closed,
    Kind::LetGo,
    Kind::End,
];

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        KINDS.get(usize::from(byte)).copied()
    }
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) payload: Bytes,
}

/// Messages as they come.
#[derive(Debug)]
pub(super) struct Incoming {
    from: OwnedReadHalf,
    buffer: BytesMut,
}

impl Incoming {
    pub(super) fn new(from: OwnedReadHalf) -> Self {
        let buffer = BytesMut::new();
        Self { from, buffer }
    }

    /// Whether the other end is gone, though there may be something of it to read still.
    pub(super) fn is_hung_up(&self) -> bool {
        let mut wanted = [PollFd::new(self.from.as_ref().as_fd(), PollFlags::empty())];
        let polled = nix::poll::poll(&mut wanted, PollTimeout::ZERO);
        polled.is_ok()
            && wanted[0]
                .revents()
                .is_some_and(|seen| seen.contains(PollFlags::POLLHUP))
    }

    /// The next message; `None` at the end.
    ///
    /// # Cancel safety
    /// A dropped call loses nothing.
    pub(super) async fn next(&mut self) -> io::Result<Option<Message>> {
        loop {
            if let Some(message) = decode(&mut self.buffer)? {
                return Ok(Some(message));
            }
            self.buffer.reserve(PIECE);
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }
}

/// The message at the start of a buffer, if it is there as a whole.
pub(super) fn decode(buffer: &mut BytesMut) -> io::Result<Option<Message>> {
    let Some([l0, l1, l2, l3, kind]) = buffer.first_chunk::<HEADER>().copied() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let kind = Kind::of(kind).filter(|_| length <= MOST);
    let kind = kind.ok_or(io::ErrorKind::InvalidData)?;
    if buffer.len() < HEADER + length {
        return Ok(None);
    }
    buffer.advance(HEADER);
    let payload = buffer.split_to(length).freeze();
    Ok(Some(Message { kind, payload }))
}

/// What stands before a payload.
pub(super) fn header(kind: Kind, length: usize) -> io::Result<[u8; HEADER]> {
    let length = u32::try_from(length).ok().filter(|length| *length as usize <= MOST);
    let [l0, l1, l2, l3] = length.ok_or(io::ErrorKind::InvalidInput)?.to_le_bytes();
    Ok([l0, l1, l2, l3, kind as u8])
}

/// Writes a message.
pub(super) async fn send(to: &mut OwnedWriteHalf, kind: Kind, payload: &[u8]) -> io::Result<()> {
    let header = header(kind, payload.len())?;
    to.write_all_buf(&mut Buf::chain(&header[..], payload)).await
}

/// Words that have no line breaks, and a rest that may have.
pub(super) fn question(verb: &str, about: &str, with: &str) -> String {
    format!("{verb}\n{about}\n{with}")
}

/// Verb, object and the rest of a question.
pub(super) fn parts(question: &str) -> Option<(&str, &str, &str)> {
    let (verb, rest) = question.split_once('\n')?;
    let (about, with) = rest.split_once('\n')?;
    Some((verb, about, with))
}
