//! Shims that this process has spawned are its children, without a signal at their end. Whoever watches one reaps it, and
//! nobody ends it: it outlives this process, and is init's then.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::io::Interest;
use tokio::runtime::Handle;

use crate::sys;
use crate::sys::pidfd;

/// Shims whose watcher went with its runtime. They are looked at when the next shim is spawned.
static LEFT: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());

fn left() -> MutexGuard<'static, Vec<OwnedFd>> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A shim that is not reaped yet.
struct Child(Option<OwnedFd>);

impl Drop for Child {
    fn drop(&mut self) {
        left().extend(self.0.take());
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
        if watched.readable().await.is_ok() {
            if let Some(shim) = child.0.take() {
                let _ = pidfd::reap(shim.as_fd());
            }
        }
    });
}

/// Reaps those that have ended of the shims that nobody watches.
pub(super) fn sweep() {
    left().retain(|shim| {
        let ended = pidfd::has_ended(shim.as_fd());
        if ended {
            let _ = pidfd::reap(shim.as_fd());
        }
        !ended
    });
}
