//! The optional pid 1 of a container: starts the program as its child, forwards signals to it, reaps orphans, and ends as
//! the program ended. It has the program's ids and capabilities already.

use crate::exec;
use crate::fail::{Done, at};
use crate::sys;
use crate::user::Identity;
use crate::wire::{Plan, Step, flag};

const SIGCHLD: usize = 17;

/// Returns in the program's process; pid 1 stays here, under the same filter as the program: it must be no way around it
/// for a program that may trace it.
#[unsafe(link_section = "lhchild")]
pub(crate) fn split(plan: &Plan<'_>, identity: &Identity, status: i32) -> Done {
    sys::set_mask(u64::MAX);
    let child = at(Step::Init, sys::fork())?;
    if child == 0 {
        sys::set_mask(0);
        return Ok(());
    }
    if plan.has(flag::NO_NEW_PRIVILEGES) && exec::lock_down(plan, identity, status).is_err() {
        sys::exit(125);
    }
    // The status socket must have one holder; the rest is none of our business.
    let _ = sys::close_range(0, false);
    let _ = sys::chdir(b"/\0");
    tend(child)
}

#[inline(never)]
#[unsafe(link_section = "lhchild")]
fn tend(child: i32) -> ! {
    loop {
        match sys::sigwait(u64::MAX) {
            Ok(SIGCHLD) => reap(child),
            Ok(signal) => {
                let _ = sys::kill(child, signal as i32);
            }
            Err(sys::EINTR | sys::EAGAIN) => {}
            // A filter that forbids the wait.
            Err(_) => sys::exit(125),
        }
    }
}

/// Reaps whatever has ended; ends with the program.
fn reap(child: i32) {
    while let Ok((pid, status)) = sys::wait(-1, true) {
        if pid == 0 {
            return;
        }
        if pid == child {
            let signal = status & 0x7f;
            sys::exit(if signal != 0 { 128 + signal } else { status >> 8 & 0xff });
        }
    }
}
