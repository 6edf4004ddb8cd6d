//! Shims that this process has spawned are its children, without a signal at their end. Whoever watches one reaps it, and
//! nobody ends it: it outlives this process, and is init's then.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::Interest;
use tokio::runtime::Handle;

use crate::sys;
use crate::sys::{pidfd, socket};

/// Shims whose watcher went with its runtime, and what wakes the thread that has them instead.
#[derive(Debug)]
struct Left {
    shims: Vec<OwnedFd>,
    wake: Option<OwnedFd>,
}

static LEFT: Mutex<Left> = Mutex::new(Left {
    shims: Vec::new(),
    wake: None,
});

fn left() -> MutexGuard<'static, Left> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A shim that is not reaped yet.
struct Child(Option<OwnedFd>);

impl Drop for Child {
    /// The runtime is gone, and perhaps with it the last that this process has to do with containers. One thread waits for all
    /// such shims, and ends with the last of them.
    fn drop(&mut self) {
        let Some(shim) = self.0.take() else { return };
        let mut left = left();
        left.shims.push(shim);
        if let Some(wake) = &left.wake {
            let _ = socket::send(wake.as_fd(), [&[0], &[]], &[]);
            return;
        }
        // Without descriptors or threads they are reaped by whoever spawns the next, or by init after this process.
        if let Ok(wake) = wait_for_the_left() {
            left.wake = Some(wake);
        }
    }
}

/// Has a runtime reap a shim once it ends.
pub(super) fn watch(shim: OwnedFd, runtime: &Handle) {
    let mut child = Child(Some(shim));
    runtime.spawn(async move {
        let Some(copy) = child.0.as_ref().and_then(|shim| shim.try_clone().ok()) else {
            return;
        };
        let Ok(watched) = sys::poll::watch(copy, Interest::READABLE) else {
            return;
        };
        if watched.readable().await.is_ok()
            && let Some(shim) = child.0.take()
        {
            let _ = pidfd::reap(shim.as_fd());
        }
    });
}

/// Has one thread of this process' wait for it. A zygote whose containers have become detached, say.
pub(in crate::runtime::native) fn leave(shim: OwnedFd) {
    drop(Child(Some(shim)));
}

/// Reaps those that have ended of the shims that no runtime watches.
pub(super) fn sweep() {
    sweep_of(&mut left());
}

fn sweep_of(left: &mut Left) {
    left.shims.retain(|shim| {
        let ended = pidfd::has_ended(shim.as_fd());
        if ended {
            let _ = pidfd::reap(shim.as_fd());
        }
        !ended
    });
}

fn wait_for_the_left() -> io::Result<OwnedFd> {
    let (wake, woken) = socket::pair()?;
    let thread = std::thread::Builder::new().name("longshore-reap".into());
    thread.spawn(move || {
        crate::sys::signals::block_all();
        while let Some(copies) = next_round() {
            let mut wanted = vec![PollFd::new(woken.as_fd(), PollFlags::POLLIN)];
            wanted.extend(copies.iter().map(|shim| PollFd::new(shim.as_fd(), PollFlags::POLLIN)));
            if matches!(poll(&mut wanted, PollTimeout::NONE), Err(errno) if errno != Errno::EINTR) {
                left().wake = None;
                break;
            }
            if wanted[0].any() == Some(true) {
                let _ = socket::receive(woken.as_fd(), &mut [0u8; 1]);
            }
        }
    })?;
    Ok(wake)
}

/// Descriptors of those that are still to be waited for; `None` where there is no other, which the next to come must know.
fn next_round() -> Option<Vec<OwnedFd>> {
    let mut left = left();
    sweep_of(&mut left);
    let copies: io::Result<Vec<OwnedFd>> = left.shims.iter().map(OwnedFd::try_clone).collect();
    match copies {
        Ok(copies) if !copies.is_empty() => Some(copies),
        _ => {
            left.wake = None;
            None
        }
    }
}
