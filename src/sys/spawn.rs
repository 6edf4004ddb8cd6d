//! Starts a program from a process of any size and with any number of threads, without fork: the child shares the memory
//! for the few system calls up to its exec, on a stack of its own, while the calling thread waits in the kernel
//! (`CLONE_VM | CLONE_VFORK`). Nothing of the process changes: the child has its own descriptors and signal mask, and ends
//! without a `SIGCHLD` (exit signal 0).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};

const STACK: usize = 64 * 1024;
const GUARD: usize = 64 * 1024;
/// Lowest number for the descriptors that wait to be put in their slots; slots are below.
const ABOVE_SLOTS: i32 = 32;

/// What to execute.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Program<'a> {
    /// A file by descriptor.
    Fd(BorrowedFd<'a>),
    /// A file by absolute path.
    Path(&'a CStr),
}

/// A program to start. Its environment is empty.
#[derive(Debug)]
pub(crate) struct Spawn<'a> {
    /// What to execute.
    pub(crate) program: Program<'a>,
    /// Arguments, the name first.
    pub(crate) argv: &'a [&'a CStr],
    /// Descriptors and the numbers that they get.
    pub(crate) slots: &'a [(BorrowedFd<'a>, i32)],
    /// `CLONE_NEW…` flags.
    pub(crate) namespaces: i32,
    /// Keep all capabilities over the exec. Needed in a new user namespace whose id map is not written yet.
    pub(crate) keep_capabilities: bool,
}

/// A started child. It must be reaped with [`super::pidfd::reap`].
#[derive(Debug)]
pub(crate) struct Child {
    /// Pid as this process sees it.
    pub(crate) pid: u32,
    /// The process.
    pub(crate) pidfd: OwnedFd,
}

impl Spawn<'_> {
    /// Starts the program; returns once it has been executed.
    pub(crate) fn run(&self) -> io::Result<Child> {
        // Another thread's fork may hold a writable descriptor of the program for a moment.
        for _ in 0..100 {
            match self.try_once() {
                Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                result => return result,
            }
        }
        Err(io::Error::from_raw_os_error(libc::ETXTBSY))
    }

    fn try_once(&self) -> io::Result<Child> {
        let held = self
            .slots
            .iter()
            .map(|(fd, _)| duplicate(*fd))
            .collect::<io::Result<Vec<_>>>()?;
        let slots: Vec<(RawFd, i32)> = held
            .iter()
            .zip(self.slots)
            .map(|(fd, (_, slot))| (fd.as_raw_fd(), *slot))
            .collect();
        let argv: Vec<*const libc::c_char> = self
            .argv
            .iter()
            .map(|text| text.as_ptr())
            .chain([std::ptr::null()])
            .collect();
        let env = [std::ptr::null()];
        // As the others: where hardly anything is open, its number may be a slot's.
        let lifted = match self.program {
            Program::Fd(fd) => Some(duplicate(fd)?),
            Program::Path(_) => None,
        };
        let (program, path) = match (&lifted, self.program) {
            (None, Program::Path(path)) => (libc::AT_FDCWD, path.as_ptr()),
            (lifted, _) => (lifted.as_ref().map_or(-1, AsRawFd::as_raw_fd), c"".as_ptr()),
        };
        let mut order = Order {
            program,
            path,
            argv: argv.as_ptr(),
            env: env.as_ptr(),
            slots: slots.as_ptr(),
            count: slots.len(),
            keep_capabilities: self.keep_capabilities,
            errno: 0,
        };
        let child = clone_with_signals_blocked(&mut order, self.namespaces)?;
        if order.errno == 0 {
            return Ok(child);
        }
        super::pidfd::reap(std::os::fd::AsFd::as_fd(&child.pidfd))?;
        Err(io::Error::from_raw_os_error(order.errno))
    }
}

fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let new = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(ABOVE_SLOTS))?;
    // SAFETY: the kernel has just made this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

/// What the child reads, and the one word that it writes.
struct Order {
    program: RawFd,
    path: *const libc::c_char,
    argv: *const *const libc::c_char,
    env: *const *const libc::c_char,
    slots: *const (RawFd, i32),
    count: usize,
    keep_capabilities: bool,
    errno: i32,
}

/// A signal that arrived in the child before its exec would run the process's handlers on memory shared with it.
fn clone_with_signals_blocked(order: &mut Order, namespaces: i32) -> io::Result<Child> {
    let stack = Stack::new()?;
    let mut before = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    let result = clone(order, &stack, namespaces);
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    result
}

fn clone(order: &mut Order, stack: &Stack, namespaces: i32) -> io::Result<Child> {
    let mut pidfd: RawFd = -1;
    // The low byte, the exit signal, is 0.
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | namespaces;
    // SAFETY: `in_child` touches nothing but `order`, its stack and the kernel; both outlive the child's use of this
    // memory, because CLONE_VFORK holds this thread until the exec or exit.
    let pid = unsafe {
        libc::clone(
            in_child,
            stack.top(),
            flags,
            std::ptr::from_mut(order).cast(),
            &raw mut pidfd,
        )
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: CLONE_PIDFD has stored a new descriptor there.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid: pid as u32, pidfd })
}

/// The child, up to its exec. No allocation, no lock, no panic: `libc::syscall` and integers.
extern "C" fn in_child(order: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the parent waits, so that the child is the only one to use `order`; all pointers in it are live, and the
    // arrays end as the kernel wants.
    unsafe {
        let order = order.cast::<Order>();
        for index in 0..(*order).count {
            let (from, to) = *(*order).slots.add(index);
            if libc::syscall(libc::SYS_dup3, from, to, 0) < 0 {
                (*order).errno = *libc::__errno_location();
                return 127;
            }
        }
        if (*order).keep_capabilities {
            keep_capabilities();
        }
        let (program, path) = ((*order).program, (*order).path);
        libc::syscall(
            libc::SYS_execveat,
            program,
            path,
            (*order).argv,
            (*order).env,
            libc::AT_EMPTY_PATH,
        );
        (*order).errno = *libc::__errno_location();
    }
    127
}

/// Makes every permitted capability inheritable and ambient. A user id that is not mapped is not root to `execve`, which
/// would otherwise take the capabilities of the new namespace away.
///
/// # Safety
/// To be called in the child of [`clone`] only.
unsafe fn keep_capabilities() {
    const VERSION: u32 = 0x2008_0522;
    const AMBIENT: libc::c_int = 47;
    const RAISE: libc::c_int = 2;
    let header = [VERSION, 0];
    let mut data = [0u32; 6];
    // SAFETY: buffers of the size that this version of the calls has.
    unsafe {
        libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr());
        let [_, permitted_low, inheritable_low, _, permitted_high, inheritable_high] = &mut data;
        *inheritable_low = *permitted_low;
        *inheritable_high = *permitted_high;
        libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr());
        let mut cap = 0;
        while cap < 64 {
            libc::syscall(libc::SYS_prctl, AMBIENT, RAISE, cap, 0, 0);
            cap += 1;
        }
    }
}

/// A private stack with a guard below.
struct Stack {
    base: *mut libc::c_void,
}

impl Stack {
    fn new() -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), STACK + GUARD, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self { base };
        // SAFETY: a part of our own mapping; 64 KiB is a multiple of every page size.
        let result = unsafe { libc::mprotect(base.byte_add(GUARD), STACK, libc::PROT_READ | libc::PROT_WRITE) };
        if result != 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(stack)
        }
    }

    fn top(&self) -> *mut libc::c_void {
        // SAFETY: one past the end of our own mapping, aligned to a page.
        unsafe { self.base.byte_add(STACK + GUARD) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nobody uses any more.
        unsafe { libc::munmap(self.base, STACK + GUARD) };
    }
}
