//! Signals to everybody. In a process of the host's pid namespace, as a shim is, such a signal would reach every process of the
//! machine; so the call is made here and nowhere else, and each caller has to be where "everybody" is its own.

use crate::sys::{self, AT_FDCWD, CLONE_NEWPID, Sys};

/// To every process of the pid namespace whose pid 1 the caller is: all of them descend from it. Anybody else is refused.
#[inline(never)]
pub(crate) fn below_me(signal: i32) -> Sys {
    if sys::getpid() != 1 {
        return Err(sys::EPERM);
    }
    sys::kill_all_in_sight(signal)
}

/// To the process group that a child of the caller's leads. It is not reaped, so that its number is its own, and so is a group
/// with that number: there is none before it has made it (`ESRCH`).
#[cfg(shim)]
#[inline(never)]
#[unsafe(link_section = "lhshim")]
pub(crate) fn led_by(child: i32, signal: i32) -> Sys {
    // -1 would be everybody.
    if child <= 1 {
        return Err(sys::EPERM);
    }
    sys::kill_group(child, signal)
}

/// A pid namespace below the caller's own, that its next child will be in.
pub(crate) struct Below(());

impl Below {
    /// Enters it with a process as the guide; the caller's own, which is the host's perhaps, is refused.
    #[inline(never)]
    #[unsafe(link_section = "lhchild")]
    pub(crate) fn enter(process: i32) -> Sys<Self> {
        sys::setns(process, CLONE_NEWPID)?;
        let of = |path: &[u8]| sys::statx(AT_FDCWD, path, 0).map(|stat| (stat.inode, stat.dev));
        if of(b"/proc/self/ns/pid\0")? == of(b"/proc/self/ns/pid_for_children\0")? {
            return Err(sys::EPERM);
        }
        Ok(Self(()))
    }

    /// To every process of that namespace but its first, by the child that was forked after [`Self::enter`].
    pub(crate) fn signal(self, signal: i32) -> Sys {
        sys::kill_all_in_sight(signal)
    }
}
