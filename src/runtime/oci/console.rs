//! The socket over which a runtime hands out a terminal. Source: runc's `docs/terminals.md`.

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use super::call::{Work, own};
use crate::error::{Error, Result};
use crate::sys::{socket, terminal};

/// A socket that waits for a terminal. It goes with this.
#[derive(Debug)]
pub(super) struct Console {
    listener: UnixListener,
    file: PathBuf,
    name: String,
}

impl Console {
    /// Blocking.
    pub(super) fn listen(work: &Work) -> Result<Self> {
        let name = work.fresh("tty");
        let os = |error| Error::os("make a socket for the terminal", error);
        // By descriptor: an address has room for a hundred bytes, and the directory may be anywhere.
        let dir = File::open(work.dir()).map_err(os)?;
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd())).map_err(os)?;
        listener.set_nonblocking(true).map_err(os)?;
        Ok(Self {
            listener,
            file: work.file(&name),
            name,
        })
    }

    /// Its place, as the runtime sees it.
    pub(super) fn place(&self) -> String {
        own(&self.name)
    }

    /// The terminal's master, once the run has ended well: it was sent before that. Blocking, but waits for nobody.
    pub(super) fn take(&self, (rows, columns): (u16, u16)) -> Result<OwnedFd> {
        let os = |error| Error::os("take the terminal of the runtime", error);
        let (stream, _) = self.listener.accept().map_err(os)?;
        stream.set_nonblocking(true).map_err(os)?;
        let received = socket::receive(stream.as_fd(), &mut [0u8; 4096]).map_err(os)?;
        let master = received.fds.into_iter().next();
        let master = master.ok_or_else(|| Error::internal("the runtime sent no terminal"))?;
        terminal::resize(master.as_fd(), rows, columns).map_err(|error| Error::os("set the terminal's size", error))?;
        Ok(master)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}
