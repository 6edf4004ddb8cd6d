//! System calls made only to learn whether the kernel grants them. Nothing of the calling process changes.

use std::ffi::{CString, c_int, c_void};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use nix::sys::signal::{SigSet, SigmaskHow};

/// Makes new user, mount and pid namespaces for a child that ends at once.
///
/// With the mount namespace in the same call, a security module shows itself that grants the user namespace and then denies
/// the capabilities in it (AppArmor on Ubuntu).
pub(crate) fn namespaces() -> io::Result<()> {
    // The child shares this process's memory, so no signal handler may run in it: it is born with this mask.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let done = clone_and_reap(libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID);
    before.thread_set_mask()?;
    done
}

fn clone_and_reap(namespaces: c_int) -> io::Result<()> {
    const STACK: usize = 64 * 1024;
    let mut stack = vec![0u128; STACK / size_of::<u128>()];
    // CLONE_VFORK: this thread sleeps until the child has ended. No exit signal: the embedder's SIGCHLD stays quiet.
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | namespaces;
    // SAFETY: the stack is aligned, as long as `STACK`, grows down from its end, and outlives the child because of
    // CLONE_VFORK. The child runs `end`, which touches nothing.
    let pid = unsafe { libc::clone(end, stack.as_mut_ptr().add(stack.len()).cast(), flags, ptr::null_mut()) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: no status is asked for (null). __WALL, since there is no exit signal.
    unsafe { libc::waitpid(pid, ptr::null_mut(), libc::__WALL) };
    Ok(())
}

/// All that the child does: libc ends it with the returned status.
extern "C" fn end(_: *mut c_void) -> c_int {
    0
}

/// Calls `clone3` with a size that no kernel takes: `EINVAL` says that it is there.
pub(crate) fn clone3() -> io::Result<()> {
    // SAFETY: the size of 0 is refused before the null pointer is looked at.
    let result = unsafe { libc::syscall(libc::SYS_clone3, ptr::null::<c_void>(), 0usize) };
    match (result, io::Error::last_os_error()) {
        (0.., _) => Ok(()),
        (_, error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        (_, error) => Err(error),
    }
}

/// The version of Landlock's interface.
pub(crate) fn landlock() -> io::Result<u32> {
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    // SAFETY: with the version flag, the call takes no structure and only returns a number.
    let result = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::null::<c_void>(),
            0usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Whether seccomp filters can be loaded: a null program is refused with `EFAULT` by kernels that would look at it.
pub(crate) fn seccomp_filter() -> io::Result<()> {
    const SECCOMP_SET_MODE_FILTER: u32 = 1;
    // SAFETY: the null pointer is only ever read by the kernel, which answers EFAULT.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0u32, ptr::null::<c_void>()) };
    match (result, io::Error::last_os_error()) {
        (0.., _) => Ok(()),
        (_, error) if matches!(error.raw_os_error(), Some(libc::EFAULT | libc::EACCES)) => Ok(()),
        (_, error) => Err(error),
    }
}

/// Whether a file has file capabilities.
pub(crate) fn has_file_capabilities(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: both strings end with zero, and a length of 0 asks for the size only.
    unsafe { libc::getxattr(path.as_ptr(), c"security.capability".as_ptr(), ptr::null_mut(), 0) > 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_leave_this_process_as_it_is() {
        let view = || {
            let links = ["user", "mnt", "pid"].map(|name| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap());
            (links, SigSet::thread_get_mask().unwrap())
        };
        let before = view();
        let _ = namespaces();
        let _ = clone3();
        let _ = seccomp_filter();
        let _ = landlock();
        assert_eq!(before, view());
        let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        assert_eq!(children, "");
    }
}
