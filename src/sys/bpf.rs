//! Programs that the kernel asks before a cgroup's processes open or make a device. Source: bpf(2), `linux/bpf.h`,
//! `BPF_PROG_TYPE_CGROUP_DEVICE`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `struct bpf_insn`: the code, the registers (destination in the low half), the jump, and the number.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u8,
    pub(crate) registers: u8,
    pub(crate) jump: i16,
    pub(crate) number: i32,
}

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Beside programs of the cgroup and of its parents: each must agree.
const ALLOW_MULTI: u32 = 2;

/// The part of `union bpf_attr` for `BPF_PROG_LOAD` that is used; the kernel takes the rest for zeros.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// For `BPF_PROG_ATTACH`.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Checks a program and hands it to the kernel.
pub(crate) fn load_device_filter(program: &[Instruction]) -> io::Result<OwnedFd> {
    let attr = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        instructions: program.as_ptr() as u64,
        // It calls nothing that asks for a licence.
        license: c"MIT OR Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the structure and all that it points to outlive the call, with the sizes that it names.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const attr, size_of::<Load>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else has; the kernel opens it close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// From now on the program is asked about the processes of a cgroup of version 2; it goes with the cgroup.
pub(crate) fn attach_device_filter(program: &OwnedFd, cgroup: BorrowedFd<'_>) -> io::Result<()> {
    let attr = Attach {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: the structure outlives the call, with the size that it names; both descriptors are live.
    let done = unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attr, size_of::<Attach>()) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
