//! Messages with descriptors over a `SOCK_SEQPACKET` socket.

use crate::sys::{self, Sys};
use crate::wire::MOST_FDS;

#[repr(C)]
struct MsgHdr {
    name: usize,
    name_len: usize,
    iov: usize,
    iov_len: usize,
    control: usize,
    control_len: usize,
    flags: usize,
}

const MSG_CMSG_CLOEXEC: usize = 0x4000_0000;
const MSG_NOSIGNAL: usize = 0x4000;
const MSG_TRUNC: usize = 0x20;
const MSG_CTRUNC: usize = 0x8;
const CONTROL: usize = 16 + MOST_FDS * 4;

/// Descriptors of one message. They are closed by [`Fds::close`] only.
pub(crate) struct Fds {
    list: [i32; MOST_FDS],
    count: usize,
}

impl Fds {
    #[inline(never)]
    pub(crate) fn none() -> Self {
        Self {
            list: [-1; MOST_FDS],
            count: 0,
        }
    }

    pub(crate) fn get(&self, index: u32) -> Option<i32> {
        self.list.get(index as usize).copied().filter(|fd| *fd >= 0)
    }

    /// Puts a descriptor in the place of another, which is whoever's it was.
    pub(crate) fn set(&mut self, index: u32, fd: i32) {
        if let Some(slot) = self.list.get_mut(index as usize) {
            *slot = fd;
        }
    }

    pub(crate) fn last(&self) -> Option<i32> {
        self.get((self.count as u32).checked_sub(1)?)
    }

    pub(crate) fn close(&self) {
        for fd in self.list.iter().take(self.count) {
            sys::close(*fd);
        }
    }
}

/// Receives one message. `Ok(0)`: the peer is gone. One that was cut short is `EBADMSG`; one whose descriptors found no
/// place here is `EMFILE`: its bytes are in the buffer, and none of its descriptors is open.
pub(crate) fn receive(socket: i32, into: &mut [u8], fds: &mut Fds) -> Sys<usize> {
    let mut control = [0u64; CONTROL / 8];
    let iov = [into.as_mut_ptr() as usize, into.len()];
    let mut header = MsgHdr {
        name: 0,
        name_len: 0,
        iov: iov.as_ptr() as usize,
        iov_len: 1,
        control: control.as_mut_ptr() as usize,
        control_len: CONTROL,
        flags: 0,
    };
    let len = loop {
        match sys::recvmsg(socket, &raw mut header as usize, MSG_CMSG_CLOEXEC) {
            Err(sys::EINTR) => continue,
            result => break result?,
        }
    };
    *fds = Fds::none();
    if header.control_len > 16 && control[1] == 1 | 1 << 32 {
        // One SCM_RIGHTS message: its length counts the 16 bytes of its own header.
        let count = (control[0] as usize).saturating_sub(16) / 4;
        for index in 0..count.min(MOST_FDS) {
            let word = control.get(2 + index / 2).copied().unwrap_or(u64::MAX);
            fds.list[index] = (word >> (index % 2 * 32)) as i32;
            fds.count = index + 1;
        }
    }
    if header.flags & (MSG_TRUNC | MSG_CTRUNC) != 0 {
        fds.close();
        *fds = Fds::none();
        return Err(if header.flags & MSG_CTRUNC != 0 { sys::EMFILE } else { sys::EBADMSG });
    }
    Ok(len)
}

/// Sends one message of two parts, and at most one descriptor.
pub(crate) fn send(socket: i32, head: &[u8], body: &[u8], fd: Option<i32>) -> Sys {
    let iov = [head.as_ptr() as usize, head.len(), body.as_ptr() as usize, body.len()];
    let control = [20u64, 1 | 1 << 32, fd.unwrap_or(-1) as u32 as u64];
    let header = MsgHdr {
        name: 0,
        name_len: 0,
        iov: iov.as_ptr() as usize,
        iov_len: 2,
        control: if fd.is_some() { control.as_ptr() as usize } else { 0 },
        control_len: if fd.is_some() { 24 } else { 0 },
        flags: 0,
    };
    loop {
        match sys::sendmsg(socket, &raw const header as usize, MSG_NOSIGNAL) {
            Err(sys::EINTR) => continue,
            result => return result,
        }
    }
}
