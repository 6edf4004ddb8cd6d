//! One-to-one sockets of SCTP: messages with the stream and the payload protocol that they were sent with, which `recv` and
//! `send` do not tell. Source: RFC 6458, sections 5.3.4, 5.3.5, 8.1.3 and 8.1.29; linux/sctp.h.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd as _, BorrowedFd};

const INITMSG: libc::c_int = 2;
const RECVRCVINFO: libc::c_int = 32;
const SNDINFO: libc::c_int = 2;
const RCVINFO: libc::c_int = 3;
const UNORDERED: u16 = 1;
const NOTIFICATION: libc::c_int = 0x8000;

/// `struct sctp_initmsg`.
#[repr(C)]
struct InitMsg {
    num_ostreams: u16,
    max_instreams: u16,
    max_attempts: u16,
    max_init_timeo: u16,
}

/// `struct sctp_sndinfo`.
#[repr(C)]
#[derive(Clone, Copy)]
struct SndInfo {
    sid: u16,
    flags: u16,
    ppid: u32,
    context: u32,
    assoc_id: i32,
}

/// `struct sctp_rcvinfo`.
#[repr(C)]
#[derive(Clone, Copy)]
struct RcvInfo {
    sid: u16,
    ssn: u16,
    flags: u16,
    ppid: u32,
    tsn: u32,
    cumtsn: u32,
    context: u32,
    assoc_id: i32,
}

/// Room for one such message beside the bytes, aligned as its header must be.
type Control = [u64; 16];

/// Where a message belongs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) stream: u16,
    pub(crate) unordered: bool,
    /// As it is on the wire: nobody on the way reads it.
    pub(crate) payload: u32,
}

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// So many bytes.
    pub(crate) len: usize,
    pub(crate) place: Place,
    /// Whether the message ends with them.
    pub(crate) last: bool,
    /// They are none of the peer's, but something that the kernel tells.
    pub(crate) told: bool,
}

fn set<T>(socket: BorrowedFd<'_>, option: libc::c_int, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the kernel reads `len` bytes, which are those of the value that is borrowed for the call.
    let code = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_SCTP,
            option,
            std::ptr::from_ref(value).cast(),
            len,
        )
    };
    if code < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Has [`receive`] tell where messages belong.
pub(crate) fn tell_places(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, RECVRCVINFO, &1i32)
}

/// Asks for so many streams in each direction, before it connects.
pub(crate) fn ask_for_streams(socket: BorrowedFd<'_>, streams: u16) -> io::Result<()> {
    let wanted = InitMsg {
        num_ostreams: streams,
        max_instreams: streams,
        max_attempts: 0,
        max_init_timeo: 0,
    };
    set(socket, INITMSG, &wanted)
}

fn header(iov: &mut libc::iovec, control: &mut Control, len: usize) -> libc::msghdr {
    // SAFETY: a header of zeros is one: null pointers, no bytes.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = iov;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = len as _;
    header
}

/// Reads a message, or as much of one as there is room for; never waits. No bytes, and nothing told: the association has ended.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Part> {
    let mut control: Control = [0; 16];
    let mut iov = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut header = header(&mut iov, &mut control, size_of::<Control>());
    // SAFETY: the header leads to the buffer and to the room for what is told beside, both of which outlive the call, and says how large they are.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    Ok(Part {
        len,
        place: place_of(&header),
        last: header.msg_flags & libc::MSG_EOR != 0,
        told: header.msg_flags & NOTIFICATION != 0,
    })
}

/// Where the kernel says that a message belongs.
fn place_of(header: &libc::msghdr) -> Place {
    // SAFETY: the header is one that the kernel has filled in, whose room still lives; these walk along it and stay within.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !next.is_null() {
        // SAFETY: what the macros give is within the room, and a whole header.
        let found = unsafe { next.read_unaligned() };
        // SAFETY: the size is a number.
        let whole = found.cmsg_len as usize >= unsafe { libc::CMSG_LEN(size_of::<RcvInfo>() as u32) } as usize;
        if whole && (found.cmsg_level, found.cmsg_type) == (libc::IPPROTO_SCTP, RCVINFO) {
            // SAFETY: so many bytes follow the header, any of which make such numbers.
            let info = unsafe { libc::CMSG_DATA(next).cast::<RcvInfo>().read_unaligned() };
            return Place {
                stream: info.sid,
                unordered: info.flags & UNORDERED != 0,
                payload: info.ppid,
            };
        }
        // SAFETY: as above.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    Place::default()
}

/// Sends a whole message; never waits.
pub(crate) fn send(socket: BorrowedFd<'_>, message: &[u8], place: Place) -> io::Result<()> {
    let info = SndInfo {
        sid: place.stream,
        flags: if place.unordered { UNORDERED } else { 0 },
        ppid: place.payload,
        context: 0,
        assoc_id: 0,
    };
    let mut control: Control = [0; 16];
    let mut iov = libc::iovec {
        iov_base: message.as_ptr().cast_mut().cast(),
        iov_len: message.len(),
    };
    let size = size_of::<SndInfo>() as u32;
    // SAFETY: the size is a number.
    let room = unsafe { libc::CMSG_SPACE(size) } as usize;
    let header = header(&mut iov, &mut control, room);
    // SAFETY: the room is aligned, and larger than a header and such numbers (a test has the sizes).
    unsafe {
        let first = libc::CMSG_FIRSTHDR(&raw const header);
        (*first).cmsg_level = libc::IPPROTO_SCTP;
        (*first).cmsg_type = SNDINFO;
        (*first).cmsg_len = libc::CMSG_LEN(size) as _;
        libc::CMSG_DATA(first).cast::<SndInfo>().write_unaligned(info);
    }
    // SAFETY: the kernel reads the message and what is beside it, which are borrowed for the call; it writes to neither.
    let sent = unsafe {
        libc::sendmsg(
            socket.as_raw_fd(),
            &raw const header,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i4_numbers_are_those_of_the_kernel_s_headers() {
        assert_eq!(
            (size_of::<SndInfo>(), size_of::<RcvInfo>(), size_of::<InitMsg>()),
            (16, 28, 8)
        );
        // SAFETY: the size is a number.
        let room = unsafe { libc::CMSG_SPACE(size_of::<RcvInfo>() as u32) } as usize;
        assert!(room <= size_of::<Control>());
    }
}
