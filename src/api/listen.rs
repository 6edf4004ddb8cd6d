//! Sockets that listen.

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net as unix;
use std::path::{Path, PathBuf};

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrLike as _, SockaddrStorage, UnixAddr};
use tokio::net::{TcpListener, UnixListener};

use crate::error::{Error, ErrorKind, ObjectKind, Result};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Permission bits of a socket's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode(pub u32);

/// A socket that listens.
#[derive(Debug)]
pub(super) enum Listener {
    Unix(
        UnixListener,
        #[allow(dead_code, reason = "dropped with the listener")] Option<SocketFile>,
    ),
    Tcp(TcpListener),
}

/// A socket's file of ours; removed with this value, unless another has taken its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "a socket's file stays behind");
        }
    }
}

/// Listens on a path. The file has its mode and group before anybody can connect.
pub(super) fn unix(path: &Path, mode: Mode, group: Option<u32>) -> Result<Listener> {
    let failed = |step: &'static str| {
        move |error: io::Error| Error::os(step, error).context(format!("cannot listen on {}", path.display()))
    };
    clear(path)?;
    let fd = nix::sys::socket::socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    );
    let fd = fd.map_err(|error| failed("making a socket")(error.into()))?;
    let address = UnixAddr::new(path).map_err(|error| failed("naming a socket")(error.into()))?;
    nix::sys::socket::bind(fd.as_raw_fd(), &address).map_err(|error| failed("binding a socket")(error.into()))?;
    let meta = fs::symlink_metadata(path).map_err(failed("looking at a socket"))?;
    let file = SocketFile {
        path: path.to_owned(),
        inode: (meta.dev(), meta.ino()),
    };
    if let Some(group) = group {
        std::os::unix::fs::chown(path, None, Some(group)).map_err(failed("giving a socket to its group"))?;
    }
    fs::set_permissions(path, Permissions::from_mode(mode.0)).map_err(failed("setting a socket's mode"))?;
    let backlog = Backlog::new(BACKLOG).unwrap_or(Backlog::MAXCONN);
    nix::sys::socket::listen(&fd, backlog).map_err(|error| failed("listening")(error.into()))?;
    let listener = UnixListener::from_std(unix::UnixListener::from(fd)).map_err(failed("listening"))?;
    Ok(Listener::Unix(listener, Some(file)))
}

/// Removes the socket of a server that is gone. Nothing else is ever removed.
fn clear(path: &Path) -> Result<()> {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    let taken = |why: &str| {
        let message = format!("cannot listen on {}: {why}", path.display());
        Error::new(ErrorKind::Conflict, message)
    };
    if !meta.file_type().is_socket() {
        return Err(taken(
            "there is a file that is no socket; remove it or choose another path",
        ));
    }
    match unix::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            let removed = fs::remove_file(path);
            removed.map_err(|error| Error::os("removing the socket of a server that is gone", error))
        }
        _ => Err(taken("another server listens there; stop it or choose another path")),
    }
}

/// Listens on an address.
pub(super) async fn tcp(address: SocketAddr) -> Result<Listener> {
    let listener = TcpListener::bind(address).await;
    listener
        .map(Listener::Tcp)
        .map_err(|error| Error::os("binding a socket", error).context(format!("cannot listen on {address}")))
}

/// Takes a socket that listens already: one that was passed to the process, say.
pub(super) fn given(fd: OwnedFd) -> Result<Listener> {
    let failed = |error: io::Error| Error::os("taking a socket that was passed", error);
    let family = nix::sys::socket::getsockname::<SockaddrStorage>(fd.as_raw_fd())
        .map_err(|error| failed(error.into()))?
        .family();
    match family {
        Some(AddressFamily::Unix) => {
            let listener = unix::UnixListener::from(fd);
            listener.set_nonblocking(true).map_err(failed)?;
            let listener = UnixListener::from_std(listener).map_err(failed)?;
            Ok(Listener::Unix(listener, None))
        }
        Some(AddressFamily::Inet | AddressFamily::Inet6) => {
            let listener = std::net::TcpListener::from(fd);
            listener.set_nonblocking(true).map_err(failed)?;
            Ok(Listener::Tcp(TcpListener::from_std(listener).map_err(failed)?))
        }
        other => {
            let message = format!("the socket that was passed is neither unix nor tcp ({other:?})");
            Err(Error::invalid(message).with_object(ObjectKind::Option, "listener"))
        }
    }
}
