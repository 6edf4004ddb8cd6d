//! aarch64: system calls, numbers, entry, and the memory functions that the compiler calls.

use core::arch::{asm, global_asm};

global_asm!(
    ".globl _start", "_start:", "mov x29, #0", "mov x30, #0", "bl {entry}", "brk #1",
    entry = sym crate::entry
);

// The compiler emits calls to these; there is no C library to provide them.
global_asm!(
    ".globl memcpy",
    "memcpy:",
    "mov x3, x0",
    "2: cbz x2, 3f",
    "ldrb w4, [x1], #1",
    "strb w4, [x3], #1",
    "sub x2, x2, #1",
    "b 2b",
    "3: ret",
    ".globl memmove",
    "memmove:",
    "sub x5, x0, x1",
    "cmp x5, x2",
    "b.hs memcpy",
    "add x3, x0, x2",
    "add x1, x1, x2",
    "4: cbz x2, 5f",
    "ldrb w4, [x1, #-1]!",
    "strb w4, [x3, #-1]!",
    "sub x2, x2, #1",
    "b 4b",
    "5: ret",
    ".globl memset",
    "memset:",
    "mov x3, x0",
    "6: cbz x2, 7f",
    "strb w1, [x3], #1",
    "sub x2, x2, #1",
    "b 6b",
    "7: ret",
    ".globl bcmp",
    "bcmp:",
    ".globl memcmp",
    "memcmp:",
    "8: cbz x2, 9f",
    "ldrb w3, [x0], #1",
    "ldrb w4, [x1], #1",
    "sub x2, x2, #1",
    "subs w5, w3, w4",
    "b.eq 8b",
    "mov w0, w5",
    "ret",
    "9: mov w0, #0",
    "ret",
);

/// # Safety
/// As the system call itself.
pub(crate) unsafe fn raw(number: usize, a: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the kernel clobbers x0 only; the caller vouches for the arguments.
    unsafe {
        asm!("svc #0", in("x8") number, inlateout("x0") a[0] as isize => result, in("x1") a[1], in("x2") a[2],
             in("x3") a[3], in("x4") a[4], in("x5") a[5], options(nostack));
    }
    result
}

pub(crate) mod nr {
    pub(crate) const MADVISE: usize = 233;
    pub(crate) const CHROOT: usize = 51;
    pub(crate) const STATX: usize = 291;
    pub(crate) const FSETXATTR: usize = 7;
    pub(crate) const FGETXATTR: usize = 10;
    pub(crate) const GETCWD: usize = 17;
    pub(crate) const DUP3: usize = 24;
    pub(crate) const FCNTL: usize = 25;
    pub(crate) const IOCTL: usize = 29;
    pub(crate) const MKNODAT: usize = 33;
    pub(crate) const MKDIRAT: usize = 34;
    pub(crate) const UNLINKAT: usize = 35;
    pub(crate) const SYMLINKAT: usize = 36;
    pub(crate) const UMOUNT2: usize = 39;
    pub(crate) const MOUNT: usize = 40;
    pub(crate) const PIVOT_ROOT: usize = 41;
    pub(crate) const CHDIR: usize = 49;
    pub(crate) const FCHDIR: usize = 50;
    pub(crate) const FCHMOD: usize = 52;
    pub(crate) const FCHMODAT: usize = 53;
    pub(crate) const FCHOWNAT: usize = 54;
    pub(crate) const OPENAT: usize = 56;
    pub(crate) const CLOSE: usize = 57;
    pub(crate) const GETDENTS64: usize = 61;
    pub(crate) const READ: usize = 63;
    pub(crate) const WRITE: usize = 64;
    pub(crate) const PPOLL: usize = 73;
    pub(crate) const SIGNALFD4: usize = 74;
    pub(crate) const CAPGET: usize = 90;
    pub(crate) const CAPSET: usize = 91;
    pub(crate) const EXIT_GROUP: usize = 94;
    pub(crate) const UNSHARE: usize = 97;
    pub(crate) const NANOSLEEP: usize = 101;
    pub(crate) const KILL: usize = 129;
    pub(crate) const RT_SIGACTION: usize = 134;
    pub(crate) const RT_SIGPROCMASK: usize = 135;
    pub(crate) const RT_SIGTIMEDWAIT: usize = 137;
    pub(crate) const SETRESUID: usize = 147;
    pub(crate) const SETRESGID: usize = 149;
    pub(crate) const SETSID: usize = 157;
    pub(crate) const SETGROUPS: usize = 159;
    pub(crate) const SETHOSTNAME: usize = 161;
    pub(crate) const SETDOMAINNAME: usize = 162;
    pub(crate) const UMASK: usize = 166;
    pub(crate) const PRCTL: usize = 167;
    pub(crate) const GETPID: usize = 172;
    pub(crate) const PIPE2: usize = 59;
    pub(crate) const SOCKETPAIR: usize = 199;
    pub(crate) const SOCKET: usize = 198;
    pub(crate) const SENDMSG: usize = 211;
    pub(crate) const SHUTDOWN: usize = 210;
    pub(crate) const RECVMSG: usize = 212;
    pub(crate) const MUNMAP: usize = 215;
    pub(crate) const KEYCTL: usize = 219;
    pub(crate) const EXECVE: usize = 221;
    pub(crate) const MMAP: usize = 222;
    pub(crate) const CLONE: usize = 220;
    pub(crate) const WAIT4: usize = 260;
    pub(crate) const PRLIMIT64: usize = 261;
    pub(crate) const SETNS: usize = 268;
    pub(crate) const SECCOMP: usize = 277;
    pub(crate) const LINKAT: usize = 37;
    pub(crate) const FTRUNCATE: usize = 46;
    pub(crate) const PREAD64: usize = 67;
    pub(crate) const PWRITE64: usize = 68;
    pub(crate) const FDATASYNC: usize = 83;
    pub(crate) const CLOCK_GETTIME: usize = 113;
    pub(crate) const GETUID: usize = 174;
    pub(crate) const GETSOCKOPT: usize = 209;
    pub(crate) const ACCEPT4: usize = 242;
    pub(crate) const RENAMEAT2: usize = 276;
}
