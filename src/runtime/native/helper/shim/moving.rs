//! The way of a shim into a user namespace that is there already.

use crate::fail::{Done, Fail, at};
use crate::message::Fds;
use crate::sys;
use crate::wire::Step;
use crate::zygote::{CONTROL, LOCK, OWNER};

/// Enters the user namespace that came along, with a mount namespace as comes with a new one, and executes the program anew there:
/// only from there can commands be led into its containers, and a process that was executed outside of it would be hidden from
/// its owner, who could not see its descriptors in `/proc` (`ptrace(2)`: memory belongs to the user namespace of its exec). The
/// next greeting is read by the program that comes then. Returns where that cannot be.
#[inline(never)]
#[unsafe(link_section = "lhshim")]
pub(crate) fn move_in(fds: &Fds) -> Fail {
    match enter(fds) {
        Err(fail) => fail,
        Ok(()) => execute(),
    }
}

#[unsafe(link_section = "lhshim")]
fn enter(fds: &Fds) -> Done {
    let userns = fds.get(0).ok_or(Fail::new(Step::Identity, sys::EBADMSG))?;
    at(Step::Identity, sys::setns(userns, sys::CLONE_NEWUSER))?;
    fds.close();
    at(Step::Identity, sys::unshare(sys::CLONE_NEWNS)).map(drop)
}

/// The rights in the namespace that was entered stay: its owner is its root.
#[unsafe(link_section = "lhshim")]
fn execute() -> Fail {
    for fd in [CONTROL, OWNER, LOCK] {
        sys::keep_on_exec(fd);
    }
    let argv = [b"longshore-shim\0".as_ptr() as usize, 0];
    Fail::new(Step::Exec, sys::execve(b"/proc/self/exe\0", &argv, &[0]))
}
