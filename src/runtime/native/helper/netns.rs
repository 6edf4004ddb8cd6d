//! A network namespace in reserve: to make one takes the kernel a third of a millisecond, to enter one that is there two
//! microseconds. It is never used twice.

use crate::sys::{self, AT_FDCWD, CLONE_NEWNET, CLONE_NEWUSER, Sys};

/// How long the zygote must have had nothing to do before it makes one.
const IDLE_MS: u64 = 10;

/// The reserve: one, once a container wanted one.
pub(crate) struct Networks {
    spare: Option<i32>,
    wanted: bool,
}

impl Networks {
    pub(crate) const fn none() -> Self {
        Self {
            spare: None,
            wanted: false,
        }
    }

    /// How long to wait for requests before [`Self::fill`]; for ever if there is nothing to fill.
    pub(crate) fn wait(&self) -> Option<u64> {
        if self.wanted && self.spare.is_none() {
            Some(IDLE_MS)
        } else {
            None
        }
    }

    /// Makes one, with its loopback interface up. An error means that this process is not in its own network any more.
    pub(crate) fn fill(&mut self) -> Sys<()> {
        if self.wait().is_none() {
            return Ok(());
        }
        // Whatever goes wrong is tried again with the next container, which tells.
        self.wanted = false;
        const OWN: &[u8] = b"/proc/self/ns/net\0";
        let Ok(home) = sys::open(AT_FDCWD, OWN, 0) else {
            return Ok(());
        };
        // An ordinary user's helper cannot enter the host's network again: it must not leave it then.
        if sys::setns(home, CLONE_NEWNET).is_ok() && sys::unshare(CLONE_NEWNET).is_ok() {
            self.spare = loopback_up().and_then(|()| sys::open(AT_FDCWD, OWN, 0)).ok();
            sys::setns(home, CLONE_NEWNET)?;
        }
        sys::close(home);
        Ok(())
    }

    /// For a child that shall have nothing of the zygote's.
    pub(crate) fn leave(&self) {
        if let Some(spare) = self.spare {
            sys::close(spare);
        }
    }

    /// The spare one for a container that shall have a network of its own, which it then need not make. A container with a
    /// user namespace of its own makes its own: that namespace must own it.
    pub(crate) fn take(&mut self, flags: &mut u64) -> Option<i32> {
        if *flags & CLONE_NEWNET == 0 || *flags & CLONE_NEWUSER != 0 {
            return None;
        }
        self.wanted = true;
        let spare = self.spare.take()?;
        *flags &= !CLONE_NEWNET;
        Some(spare)
    }
}

/// Brings the loopback interface of the network at hand up.
pub(crate) fn loopback_up() -> Sys<()> {
    const SIOCGIFFLAGS: usize = 0x8913;
    const SIOCSIFFLAGS: usize = 0x8914;
    const IFF_UP: u8 = 1;
    // AF_UNIX sockets know these requests too, and are there on every kernel.
    let socket = sys::socket(1, 2)?;
    let mut request = [0u8; 40];
    request[0] = b'l';
    request[1] = b'o';
    let up = sys::ioctl(socket, SIOCGIFFLAGS, request.as_mut_ptr() as usize).and_then(|_| {
        request[16] |= IFF_UP;
        sys::ioctl(socket, SIOCSIFFLAGS, request.as_ptr() as usize)
    });
    sys::close(socket);
    up.map(|_| ())
}
