//! What a service manager hands in and wants to hear. Sources: sd_listen_fds(3), sd_notify(3).

use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::failure::Failure;

/// The first descriptor that a service manager hands in.
const FIRST: RawFd = 3;

/// Sockets that were handed in: `LISTEN_FDS` of them, if `LISTEN_PID` is this process.
pub fn sockets() -> Result<Vec<OwnedFd>, Failure> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<i64>().ok());
    let ours = number("LISTEN_PID").is_some_and(|pid| pid == i64::from(std::process::id()));
    let count = number("LISTEN_FDS").filter(|_| ours).unwrap_or(0);
    let count = RawFd::try_from(count.clamp(0, 1024)).unwrap_or(0);
    if count == 0 {
        return Err(Failure::new(
            "fd:// was asked for, but no socket was handed in (LISTEN_FDS and LISTEN_PID name none)",
        ));
    }
    Ok((FIRST..FIRST + count).map(take).collect())
}

#[allow(unsafe_code)]
fn take(fd: RawFd) -> OwnedFd {
    let _ = nix::fcntl::fcntl(
        // SAFETY: the descriptor was handed in for us to own; nothing else in this program knows its number.
        unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) },
        nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC),
    );
    // SAFETY: as above; it is taken once, before anything else opens descriptors.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Tells the service manager how things stand: `READY=1`, `STOPPING=1`. Nobody listening is fine.
pub fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let bytes = path.as_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let (Ok(address), Ok(socket)) = (address, UnixDatagram::unbound()) else {
        return;
    };
    let _ = socket.send_to_addr(state.as_bytes(), &address);
}
