//! Holds the network of the engine: bridges, and one end of each container's link. A process of its own, which ends with its
//! socket; with it, and with the last descriptor of the owner's, goes everything in that network.

use crate::message::{self, Fds};
use crate::netns::loopback_up;
use crate::sys::{self, AT_FDCWD, CLONE_NEWNET, Sys};
use crate::wire::{Strings, house, u32_at};

/// Longest request.
const REQUEST: usize = 512;
const OWN: &[u8] = b"/proc/self/ns/net\0";

#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn serve(socket: i32) -> ! {
    let home = make();
    let mut request = [0u8; REQUEST];
    loop {
        let mut fds = Fds::none();
        let len = match message::receive(socket, &mut request, &mut fds) {
            Ok(len @ 1..) => len,
            _ => sys::exit(0),
        };
        let done = home.and_then(|home| carry_out(home, request.get(..len).unwrap_or(&[]), &fds));
        fds.close();
        if !answer(socket, done) {
            sys::exit(0);
        }
    }
}

#[unsafe(link_section = "lhchild")]
fn answer(socket: i32, done: Sys<Option<i32>>) -> bool {
    let (errno, fd) = match done {
        Ok(fd) => (0, fd),
        Err(errno) => (errno, None),
    };
    let sent = message::send(socket, &errno.to_ne_bytes(), &[], fd);
    if let Some(fd) = fd {
        sys::close(fd);
    }
    sent.is_ok()
}

/// A network namespace of this process's own from here on.
#[unsafe(link_section = "lhchild")]
fn make() -> Sys<i32> {
    sys::unshare(CLONE_NEWNET)?;
    loopback_up()?;
    sys::open(AT_FDCWD, OWN, 0)
}

#[unsafe(link_section = "lhchild")]
fn carry_out(home: i32, request: &[u8], fds: &Fds) -> Sys<Option<i32>> {
    let word = |at: usize| u32_at(request, at * 4).ok_or(sys::EBADMSG);
    if word(0)? == house::HOME {
        return sys::open(AT_FDCWD, OWN, 0).map(Some);
    }
    if let Some(other) = fds.get(0) {
        sys::setns(other, CLONE_NEWNET)?;
    }
    let done = match word(0)? {
        house::MAKE => make().map(Some),
        house::SOCKET => sys::socket_of(word(1)?, word(2)?, word(3)?).map(Some),
        house::SYSCTL => set(request.get(house::HEAD..).unwrap_or(&[])).map(|()| None),
        _ => Err(sys::EBADMSG),
    };
    // It must be at home for the next request.
    if sys::setns(home, CLONE_NEWNET).is_err() {
        sys::exit(0);
    }
    done
}

/// A list of two strings: the file, and what is written to it.
#[unsafe(link_section = "lhchild")]
fn set(list: &[u8]) -> Sys<()> {
    const O_WRONLY: usize = 1;
    let mut strings = Strings(list);
    let path = strings.next().ok_or(sys::EBADMSG)?;
    let value = strings.next().ok_or(sys::EBADMSG)?;
    if !path.starts_with(b"/proc/sys/net/") || path.windows(2).any(|two| two == b"..") {
        return Err(sys::EINVAL);
    }
    let file = sys::open(AT_FDCWD, path, O_WRONLY)?;
    let written = sys::write(file, value.get(..value.len().saturating_sub(1)).unwrap_or(&[]));
    sys::close(file);
    written.map(|_| ())
}
