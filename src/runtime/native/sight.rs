//! Sees, for an ordinary user, files that belong to other ids of the engine's user namespace: by a process in it, which
//! lives as long as somebody looks.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nix::fcntl::OFlag;

use super::NativeRuntime;
use super::helper::wire::{look, op};
use crate::error::Result;
use crate::storage::layer::Sight;
use crate::sys::socket;
use crate::types::IdRange;

/// Ids that a namespace has none of its own for. Source: user_namespaces(7), `/proc/sys/kernel/overflowuid`.
const NOBODY: u32 = 65534;
/// `XATTR_SIZE_MAX` of the kernel, and the head.
const REPLY: usize = 65536 + 4;

/// The eyes of a runtime's zygote. Nothing is started before something is looked at.
#[derive(Debug)]
pub(crate) struct ZygoteSight {
    runtime: Arc<NativeRuntime>,
    socket: Mutex<Option<OwnedFd>>,
    maps: OnceLock<[Vec<IdRange>; 2]>,
}

impl ZygoteSight {
    pub(crate) fn new(runtime: Arc<NativeRuntime>) -> Self {
        Self {
            runtime,
            socket: Mutex::default(),
            maps: OnceLock::new(),
        }
    }

    fn ask(&self, request: &[&[u8]; 2], fd: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
        let mut slot = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let socket = match slot.take() {
            Some(socket) => socket,
            None => self.start().map_err(io::Error::other)?,
        };
        socket::send(socket.as_fd(), *request, &[fd])?;
        let mut reply = vec![0u8; REPLY];
        let received = socket::receive(socket.as_fd(), &mut reply)?;
        let gone = || {
            io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the process that looks at files for us has ended",
            )
        };
        let (head, value) = reply
            .get(..received.len)
            .and_then(|reply| reply.split_first_chunk::<4>())
            .ok_or_else(gone)?;
        *slot = Some(socket);
        if received.cut {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        match i32::from_ne_bytes(*head) {
            0 => Ok((value.to_vec(), received.fds.into_iter().next())),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    fn start(&self) -> Result<OwnedFd> {
        self.runtime.needs_namespaces("a look at files from within")?;
        let zygote = self.runtime.zygote()?;
        let (ours, theirs) = socket::pair().map_err(|e| crate::error::Error::os("socketpair", e))?;
        zygote.call_blocking(op::LOOK, &[], &[theirs.as_fd()])?;
        Ok(ours)
    }

    fn maps(&self) -> &[Vec<IdRange>; 2] {
        self.maps.get_or_init(|| maps_of(&self.runtime))
    }
}

/// Users and groups of the engine's user namespace.
pub(crate) fn maps_of(runtime: &NativeRuntime) -> [Vec<IdRange>; 2] {
    let pid = runtime.info().map(|info| info.pid);
    let read = |file: &str| {
        let text = pid
            .as_ref()
            .ok()
            .and_then(|pid| fs::read_to_string(format!("/proc/{pid}/{file}")).ok());
        IdRange::parse_map(&text.unwrap_or_default())
    };
    [read("uid_map"), read("gid_map")]
}

impl Sight for ZygoteSight {
    fn open(&self, dir: BorrowedFd<'_>, path: &CStr, flags: OFlag) -> io::Result<OwnedFd> {
        let head = head(look::OPEN, flags.bits().unsigned_abs());
        let (_, file) = self.ask(&[&head, path.to_bytes_with_nul()], dir)?;
        file.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADMSG))
    }

    fn attribute(&self, file: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<Vec<u8>>> {
        match self.ask(&[&head(look::ATTRIBUTE, 0), name.to_bytes_with_nul()], file) {
            Ok((value, _)) => Ok(Some(value)),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENODATA | libc::ENOTSUP)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn ids_inside(&self, uid: u32, gid: u32) -> (u32, u32) {
        let [uids, gids] = self.maps();
        (inside(uids, uid), inside(gids, gid))
    }
}

fn head(kind: u32, flags: u32) -> [u8; look::HEAD] {
    let mut head = [0u8; look::HEAD];
    head[..4].copy_from_slice(&kind.to_ne_bytes());
    head[4..].copy_from_slice(&flags.to_ne_bytes());
    head
}

/// What an id of the host is in a user namespace.
fn inside(ranges: &[IdRange], id: u32) -> u32 {
    let range = ranges
        .iter()
        .find(|range| id >= range.outside && id - range.outside < range.count);
    range.map_or(NOBODY, |range| range.inside + (id - range.outside))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_back_through_the_map() {
        let map = IdRange::parse_map("0 1000 1\n1 100000 65536\n");
        assert_eq!(
            [1000, 100_000, 165_535, 0, 165_536].map(|id| inside(&map, id)),
            [0, 1, 65_536, NOBODY, NOBODY]
        );
    }
}
