//! System calls that the runtime stands on.

use std::os::fd::AsFd;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{Feature, release, sysctl};
use crate::sys::{attempt, pidfd};

/// The oldest kernel that this crate supports: `cgroup.kill` and overlay in user namespaces.
const OLDEST: (u32, u32) = (5, 14);

const NEWER_KERNEL: &str = "boot Linux 5.14 or newer, as Debian 12, Ubuntu 22.04 and RHEL 9 have";

pub(super) fn features() -> Vec<Feature> {
    vec![
        kernel(),
        call(
            "pidfd",
            pidfd::open(std::process::id()).map(drop),
            "processes are held by descriptors",
        ),
        call("clone3", attempt::clone3(), "containers are born in their cgroup"),
        call("openat2", openat2(), "paths of images are resolved below their root"),
        seccomp(),
        landlock(),
        memfd_exec(),
    ]
}

fn kernel() -> Feature {
    let release = release();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0u32));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= OLDEST {
        return Feature::yes("kernel", release);
    }
    Feature::no("kernel", release, NEWER_KERNEL)
}

/// A call that either works or is missing; a security profile around this process shows as `EPERM`.
fn call(name: &'static str, done: std::io::Result<()>, use_of_it: &str) -> Feature {
    let Err(error) = done else {
        return Feature::yes(name, use_of_it);
    };
    let remedy = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => BLOCKED,
        _ => NEWER_KERNEL,
    };
    Feature::no(name, error.to_string(), remedy)
}

/// What to do when a call exists and is denied.
pub(super) const BLOCKED: &str = "a security profile blocks it: if this program runs in a container, start that with \
                                  `--security-opt seccomp=unconfined`; if in a systemd unit, lift `SystemCallFilter=` and \
                                  `RestrictNamespaces=`";

fn openat2() -> std::io::Result<()> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let root = std::fs::File::open("/")?;
    nix::fcntl::openat2(root.as_fd(), "/", how)?;
    Ok(())
}

fn seccomp() -> Feature {
    match attempt::seccomp_filter() {
        Ok(()) => Feature::yes("seccomp", "system calls can be filtered"),
        Err(error) => Feature::no(
            "seccomp",
            error.to_string(),
            "boot a kernel with CONFIG_SECCOMP_FILTER=y, as all distributions have",
        ),
    }
}

fn landlock() -> Feature {
    match attempt::landlock() {
        Ok(version) => Feature::yes("landlock", format!("version {version}")),
        Err(error) => Feature::no(
            "landlock",
            error.to_string(),
            "boot Linux 5.13 or newer with CONFIG_SECURITY_LANDLOCK=y, and with `landlock` in the boot option `lsm=`",
        ),
    }
}

/// The helper runs from a sealed file in memory.
fn memfd_exec() -> Feature {
    // MFD_EXEC came with Linux 6.3; older kernels do not know it and always allow.
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::from_bits_retain(libc::MFD_EXEC);
    let done = memfd_create(c"longshore-probe", flags).or_else(|errno| match errno {
        nix::errno::Errno::EINVAL => memfd_create(c"longshore-probe", MFdFlags::MFD_CLOEXEC),
        errno => Err(errno),
    });
    match done {
        Ok(_) => Feature::yes("memfd_exec", "the helper runs from sealed memory"),
        Err(errno) => Feature::no(
            "memfd_exec",
            format!("{errno}; vm.memfd_noexec is {}", sysctl("vm.memfd_noexec").unwrap_or(0)),
            "as root, `sysctl -w vm.memfd_noexec=1` (until then the helper runs from an unlinked file)",
        ),
    }
}
