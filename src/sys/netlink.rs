//! Netlink: messages with attributes, sent in batches, and their acknowledgements. Source: netlink(7), and the kernel's
//! `include/uapi/linux/netlink.h`.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBuf, ReceiveTimeout};
use nix::sys::socket::{MsgFlags, NetlinkAddr, recv, sendto, setsockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};

const HEADER: usize = 16;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const NESTED: u16 = 0x8000;

/// `NLM_F_CREATE | NLM_F_EXCL`: what is there already is an error.
pub(crate) const NEW: u16 = 0x400 | 0x200;
/// `NLM_F_REPLACE`: in the place of what is there.
pub(crate) const REPLACE: u16 = 0x100;
/// `NLM_F_CREATE`.
pub(crate) const CREATE: u16 = 0x400;
/// `NLM_F_CREATE | NLM_F_APPEND`: behind what is there.
pub(crate) const APPEND: u16 = 0x400 | 0x800;

/// A message in the making. Integers are in the byte order of the host, unless a protocol says otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    pub(crate) fn new(kind: u16, flags: u16) -> Self {
        let body = Vec::with_capacity(128);
        Self { kind, flags, body }
    }

    /// A protocol's own header.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.body.extend_from_slice(bytes);
        self.align();
        self
    }

    pub(crate) fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.body.extend_from_slice(&len.to_ne_bytes());
        self.body.extend_from_slice(&kind.to_ne_bytes());
        self.body.extend_from_slice(value);
        self.align();
        self
    }

    /// Text that ends with NUL.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        self.attr(kind, &[value.as_bytes(), b"\0"].concat())
    }

    pub(crate) fn u32(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// In network byte order, as nf_tables has all its integers.
    pub(crate) fn be32(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_be_bytes())
    }

    pub(crate) fn nest(mut self, kind: u16, inner: impl FnOnce(Self) -> Self) -> Self {
        let start = self.body.len();
        self.body.extend_from_slice(&[0; 4]);
        let mut filled = inner(self);
        let len = u16::try_from(filled.body.len() - start).unwrap_or(u16::MAX);
        let head = [len.to_ne_bytes(), (kind | NESTED).to_ne_bytes()].concat();
        if let Some(place) = filled.body.get_mut(start..start + 4) {
            place.copy_from_slice(&head);
        }
        filled
    }

    fn align(&mut self) {
        self.body.resize(self.body.len().next_multiple_of(4), 0);
    }

    fn write(&self, flags: u16, seq: u32, into: &mut Vec<u8>) {
        into.extend_from_slice(&((HEADER + self.body.len()) as u32).to_ne_bytes());
        into.extend_from_slice(&self.kind.to_ne_bytes());
        into.extend_from_slice(&(self.flags | flags | REQUEST).to_ne_bytes());
        into.extend_from_slice(&seq.to_ne_bytes());
        into.extend_from_slice(&[0; 4]);
        into.extend_from_slice(&self.body);
    }
}

/// A netlink socket. Every call blocks for as long as the kernel works.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    next: u32,
}

/// What the kernel refused: the place of the message among those sent, and why.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) index: usize,
    pub(crate) error: io::Error,
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self {
            index: usize::MAX,
            error,
        }
    }
}

impl Socket {
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        // The kernel answers before `sendto` returns; this is for a kernel that does not.
        setsockopt(&fd, ReceiveTimeout, &TimeVal::seconds(10))?;
        // Room for the answers to a large batch. Where it cannot be had, a batch may be too large: `ENOBUFS`.
        let _ = setsockopt(&fd, RcvBuf, &(4 << 20));
        Ok(Self { fd, next: 1 })
    }

    /// Sends all, and waits until each is acknowledged: the first that is refused is the error. `around` are sent before
    /// and after without an acknowledgement of their own.
    pub(crate) fn send(&mut self, messages: &[Message], around: Option<[Message; 2]>) -> Result<(), Refused> {
        if messages.is_empty() {
            return Ok(());
        }
        let first = self.next.wrapping_add(1);
        let mut out = Vec::new();
        if let Some([before, _]) = &around {
            before.write(0, first.wrapping_sub(1), &mut out);
        }
        for (index, message) in messages.iter().enumerate() {
            message.write(ACK, first.wrapping_add(index as u32), &mut out);
        }
        let after = first.wrapping_add(messages.len() as u32);
        if let Some([_, after_all]) = &around {
            after_all.write(0, after, &mut out);
        }
        self.next = after.wrapping_add(1);
        sendto(self.fd.as_raw_fd(), &out, &NetlinkAddr::new(0, 0), MsgFlags::empty()).map_err(io::Error::from)?;
        self.acknowledged(first, messages.len())
    }

    fn acknowledged(&self, first: u32, count: usize) -> Result<(), Refused> {
        let mut buffer = vec![0u8; 64 * 1024];
        let mut left = count;
        let mut refused: Option<Refused> = None;
        while left > 0 {
            for (kind, seq, body) in parts(self.receive(&mut buffer)?) {
                let index = seq.wrapping_sub(first) as usize;
                let errno = (kind == ERROR).then(|| i32_at(body)).flatten();
                let Some(errno) = errno else { continue };
                match (index < count, errno) {
                    (true, 0) => left -= 1,
                    (true, errno) => {
                        left -= 1;
                        refused.get_or_insert(Refused {
                            index,
                            error: io::Error::from_raw_os_error(errno.wrapping_neg()),
                        });
                    }
                    // The batch itself: nothing else will come.
                    (false, errno) if errno != 0 && seq.wrapping_add(1) >= first => {
                        return Err(io::Error::from_raw_os_error(errno.wrapping_neg()).into());
                    }
                    _ => {}
                }
                // A batch that cannot even be begun is refused at its first message.
                if left == 0 {
                    break;
                }
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Everything of a kind: the bodies of the answers.
    pub(crate) fn dump(&mut self, message: &Message) -> io::Result<Vec<Vec<u8>>> {
        let seq = self.next;
        self.next = self.next.wrapping_add(1);
        let mut out = Vec::new();
        message.write(DUMP, seq, &mut out);
        sendto(self.fd.as_raw_fd(), &out, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut buffer = vec![0u8; 64 * 1024];
        let mut found = Vec::new();
        loop {
            for (kind, of, body) in parts(self.receive(&mut buffer)?) {
                match kind {
                    _ if of != seq => {}
                    DONE => return Ok(found),
                    ERROR => match i32_at(body) {
                        Some(0) | None => {}
                        Some(errno) => return Err(io::Error::from_raw_os_error(errno.wrapping_neg())),
                    },
                    _ => found.push(body.to_vec()),
                }
            }
        }
    }

    fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        loop {
            match recv(self.fd.as_raw_fd(), buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                result => {
                    let len = result?;
                    return Ok(buffer.get(..len).unwrap_or(&[]));
                }
            }
        }
    }
}

fn i32_at(bytes: &[u8]) -> Option<i32> {
    bytes.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes))
}

/// Kind, sequence number and body of each message. What is cut short is left out.
fn parts(mut bytes: &[u8]) -> Vec<(u16, u32, &[u8])> {
    let mut found = Vec::new();
    while let Some(head) = bytes.first_chunk::<HEADER>() {
        let len = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(body) = bytes.get(HEADER..len) else { break };
        let kind = u16::from_ne_bytes([head[4], head[5]]);
        let seq = u32::from_ne_bytes([head[8], head[9], head[10], head[11]]);
        found.push((kind, seq, body));
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    }
    found
}

/// The attributes of a body behind its protocol's header: kind (without flags) and value.
pub(crate) fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let Some(head) = bytes.first_chunk::<4>() {
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let Some(value) = bytes.get(4..len) else { break };
        found.push((u16::from_ne_bytes([head[2], head[3]]) & 0x3fff, value));
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let message = Message::new(16, NEW)
            .raw(&[1, 2, 3, 4])
            .text(3, "br0")
            .nest(18, |nest| nest.text(1, "bridge").nest(2, |nest| nest.u32(5, 7)));
        let mut bytes = Vec::new();
        message.write(ACK, 9, &mut bytes);
        let all = parts(&bytes);
        let [(16, 9, body)] = all.as_slice() else {
            panic!("{all:?}")
        };
        let attributes_found = attributes(&body[4..]);
        assert_eq!(attributes_found[0], (3, &b"br0\0"[..]));
        let inner = attributes(attributes_found[1].1);
        assert_eq!(inner[0], (1, &b"bridge\0"[..]));
        assert_eq!(attributes(inner[1].1), [(5, &7u32.to_ne_bytes()[..])]);
    }

    #[test]
    fn what_is_cut_short_ends_the_reading() {
        let mut bytes = Vec::new();
        Message::new(16, 0).text(3, "br0").write(0, 1, &mut bytes);
        for end in 0..bytes.len() {
            assert!(parts(&bytes[..end]).is_empty());
        }
        assert!(attributes(&[255, 255, 0, 0, 1]).is_empty());
        assert!(attributes(&[0, 0, 1, 0, 0, 0, 0, 0]).is_empty());
        // A length below that of the header must not loop.
        assert!(parts(&[3; 64]).is_empty());
    }
}
