//! Thin safe-looking wrappers around the system calls that the helper makes. Strings end with a NUL; errors are errnos.

use crate::arch::{nr, raw};

/// What a system call returns: with both sides of a size, so that it comes back in registers.
pub(crate) type Sys<T = u32> = Result<T, i32>;

// Numbers from 424 on are the same on every architecture.
const PIDFD_SEND_SIGNAL: usize = 424;
const OPEN_TREE: usize = 428;
const MOVE_MOUNT: usize = 429;
const FSOPEN: usize = 430;
const FSCONFIG: usize = 431;
const FSMOUNT: usize = 432;
const PIDFD_OPEN: usize = 434;
const CLONE3: usize = 435;
const CLOSE_RANGE: usize = 436;
const OPENAT2: usize = 437;
const FACCESSAT2: usize = 439;
const MOUNT_SETATTR: usize = 442;
const LANDLOCK_CREATE_RULESET: usize = 444;
const LANDLOCK_ADD_RULE: usize = 445;
const LANDLOCK_RESTRICT_SELF: usize = 446;

pub(crate) const AT_FDCWD: i32 = -100;
pub(crate) const AT_EMPTY_PATH: usize = 0x1000;
pub(crate) const AT_RECURSIVE: usize = 0x8000;
pub(crate) const AT_SYMLINK_NOFOLLOW: usize = 0x100;
pub(crate) const AT_REMOVEDIR: usize = 0x200;

pub(crate) const O_WRONLY: usize = 1;
pub(crate) const O_RDWR: usize = 2;
pub(crate) const O_CREAT: usize = 0o100;
pub(crate) const O_EXCL: usize = 0o200;
pub(crate) const O_NOCTTY: usize = 0o400;
pub(crate) const O_NONBLOCK: usize = 0o4000;
#[cfg(target_arch = "x86_64")]
pub(crate) const O_DIRECTORY: usize = 0o200000;
#[cfg(target_arch = "x86_64")]
pub(crate) const O_NOFOLLOW: usize = 0o400000;
#[cfg(target_arch = "aarch64")]
pub(crate) const O_DIRECTORY: usize = 0o40000;
#[cfg(target_arch = "aarch64")]
pub(crate) const O_NOFOLLOW: usize = 0o100000;
pub(crate) const O_CLOEXEC: usize = 0o2000000;
pub(crate) const O_PATH: usize = 0o10000000;

pub(crate) const RESOLVE_NO_XDEV: u64 = 1;
pub(crate) const RESOLVE_NO_MAGICLINKS: u64 = 2;
pub(crate) const RESOLVE_NO_SYMLINKS: u64 = 4;
pub(crate) const RESOLVE_BENEATH: u64 = 8;
pub(crate) const RESOLVE_IN_ROOT: u64 = 0x10;

pub(crate) const CLONE_NEWNS: u64 = 0x0002_0000;
pub(crate) const CLONE_NEWUTS: u64 = 0x0400_0000;
pub(crate) const CLONE_NEWIPC: u64 = 0x0800_0000;
pub(crate) const CLONE_NEWPID: u64 = 0x2000_0000;
pub(crate) const CLONE_NEWCGROUP: u64 = 0x0200_0000;
pub(crate) const CLONE_NEWUSER: u64 = 0x1000_0000;
pub(crate) const CLONE_NEWNET: u64 = 0x4000_0000;
pub(crate) const CLONE_PIDFD: u64 = 0x1000;
pub(crate) const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

pub(crate) const S_IFMT: u32 = 0o170000;
pub(crate) const S_IFDIR: u32 = 0o040000;
pub(crate) const S_IFREG: u32 = 0o100000;
pub(crate) const S_IFCHR: u32 = 0o020000;
pub(crate) const S_IFBLK: u32 = 0o060000;
pub(crate) const S_IFIFO: u32 = 0o010000;

pub(crate) const ATTR_RDONLY: u64 = 1;
pub(crate) const ATTR_NOSUID: u64 = 2;
pub(crate) const ATTR_NODEV: u64 = 4;
pub(crate) const ATTR_NOEXEC: u64 = 8;

pub(crate) const EPERM: i32 = 1;
pub(crate) const ENOENT: i32 = 2;
pub(crate) const ESRCH: i32 = 3;
pub(crate) const EINTR: i32 = 4;
pub(crate) const ECHILD: i32 = 10;
pub(crate) const EAGAIN: i32 = 11;
pub(crate) const ENOMEM: i32 = 12;
pub(crate) const EACCES: i32 = 13;
pub(crate) const EBUSY: i32 = 16;
pub(crate) const EEXIST: i32 = 17;
pub(crate) const ENOTDIR: i32 = 20;
pub(crate) const EISDIR: i32 = 21;
pub(crate) const EINVAL: i32 = 22;
pub(crate) const EMFILE: i32 = 24;
pub(crate) const ENOTTY: i32 = 25;
pub(crate) const EFBIG: i32 = 27;
pub(crate) const ENOSYS: i32 = 38;
pub(crate) const ENOTEMPTY: i32 = 39;
pub(crate) const ELOOP: i32 = 40;
pub(crate) const EPROTO: i32 = 71;
pub(crate) const EBADMSG: i32 = 74;

fn check(result: isize) -> Sys {
    if result < 0 {
        Err(-result as i32)
    } else {
        Ok(result as u32)
    }
}

/// Every call of the helper goes through here, or through the one below: the arguments come in registers, which makes a call
/// half as long as with a list of six. Only a mapping needs the sixth.
#[inline(never)]
fn call5(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> Sys {
    // SAFETY: the wrappers below pass live pointers with their true lengths, and descriptors; the kernel checks the rest.
    check(unsafe { raw(number, [a, b, c, d, e, 0]) })
}

/// A call with three arguments or fewer.
#[inline(never)]
fn call3(number: usize, a: usize, b: usize, c: usize) -> Sys {
    call5(number, a, b, c, 0, 0)
}

fn length(result: u32) -> usize {
    result as usize
}

fn fd(number: i32) -> usize {
    number as isize as usize
}

fn ptr(bytes: &[u8]) -> usize {
    bytes.as_ptr() as usize
}

/// A path or name that ends with its NUL. Anything else becomes the empty string, which the kernel refuses.
#[inline(never)]
fn text(bytes: &[u8]) -> usize {
    if bytes.last() == Some(&0) {
        ptr(bytes)
    } else {
        ptr(b"\0")
    }
}

pub(crate) fn read(from: i32, into: &mut [u8]) -> Sys<usize> {
    call3(nr::READ, fd(from), into.as_mut_ptr() as usize, into.len()).map(length)
}

pub(crate) fn write(to: i32, bytes: &[u8]) -> Sys<usize> {
    call3(nr::WRITE, fd(to), ptr(bytes), bytes.len()).map(length)
}

pub(crate) fn pread(from: i32, into: &mut [u8], at: usize) -> Sys<usize> {
    call5(nr::PREAD64, fd(from), into.as_mut_ptr() as usize, into.len(), at, 0).map(length)
}

pub(crate) fn pwrite(to: i32, bytes: &[u8], at: usize) -> Sys<usize> {
    call5(nr::PWRITE64, fd(to), ptr(bytes), bytes.len(), at, 0).map(length)
}

pub(crate) fn fdatasync(file: i32) -> Sys {
    call3(nr::FDATASYNC, fd(file), 0, 0)
}

pub(crate) fn ftruncate(file: i32, len: u64) -> Sys {
    call3(nr::FTRUNCATE, fd(file), len as usize, 0)
}

/// Nanoseconds of a clock: 0 is that of the day, 1 one that never jumps.
pub(crate) fn clock(which: usize) -> i64 {
    let mut time = [0i64; 2];
    let _ = call3(nr::CLOCK_GETTIME, which, time.as_mut_ptr() as usize, 0);
    time[0].wrapping_mul(1_000_000_000).wrapping_add(time[1])
}

pub(crate) fn link(dir: i32, old: &[u8], new: &[u8]) -> Sys {
    call5(nr::LINKAT, fd(dir), text(old), fd(dir), text(new), 0)
}

pub(crate) fn rename(dir: i32, old: &[u8], new: &[u8]) -> Sys {
    call5(nr::RENAMEAT2, fd(dir), text(old), fd(dir), text(new), 0)
}

pub(crate) fn getuid() -> u32 {
    call3(nr::GETUID, 0, 0, 0).unwrap_or(0) as u32
}

/// The next connection, which never waits.
pub(crate) fn accept(listener: i32) -> Sys<i32> {
    call5(nr::ACCEPT4, fd(listener), 0, 0, O_CLOEXEC | O_NONBLOCK, 0).map(|new| new as i32)
}

/// Process and user at the other end of a connection.
pub(crate) fn peer(socket: i32) -> Sys<(i32, u32)> {
    const SOL_SOCKET: usize = 1;
    const SO_PEERCRED: usize = 17;
    let mut out = [0u32; 3];
    let mut len = 12u32;
    call5(nr::GETSOCKOPT, fd(socket), SOL_SOCKET, SO_PEERCRED, out.as_mut_ptr() as usize, &raw mut len as usize)?;
    Ok((out[0] as i32, out[1]))
}

/// Sets the flags of an open file: 0, or [`O_NONBLOCK`].
pub(crate) fn set_flags(number: i32, flags: usize) {
    let _ = call3(nr::FCNTL, fd(number), 4, flags);
}

pub(crate) fn close(number: i32) {
    let _ = call3(nr::CLOSE, fd(number), 0, 0);
}

/// Closes (or with `cloexec` marks) every descriptor from `first` on.
#[inline(never)]
pub(crate) fn close_range(first: u32, cloexec: bool) -> Sys {
    call3(CLOSE_RANGE, first as usize, u32::MAX as usize, if cloexec { 4 } else { 0 })
}

#[inline(never)]
pub(crate) fn dup3(from: i32, to: i32, flags: usize) -> Sys {
    call3(nr::DUP3, fd(from), fd(to), flags)
}

/// A copy above the numbers that are fixed, closed on exec.
pub(crate) fn duplicate(number: i32) -> Sys<i32> {
    const DUPFD_CLOEXEC: usize = 1030;
    call3(nr::FCNTL, fd(number), DUPFD_CLOEXEC, 6).map(|new| new as i32)
}

pub(crate) fn set_cloexec(number: i32) {
    let _ = call3(nr::FCNTL, fd(number), 2, 1);
}

/// The opposite of [`set_cloexec`].
pub(crate) fn keep_on_exec(number: i32) {
    let _ = call3(nr::FCNTL, fd(number), 2, 0);
}

pub(crate) fn openat(dir: i32, path: &[u8], flags: usize, mode: usize) -> Sys<i32> {
    call5(nr::OPENAT, fd(dir), text(path), flags | O_CLOEXEC, mode, 0).map(|new| new as i32)
}

/// Opens what is there.
#[inline(never)]
pub(crate) fn open(dir: i32, path: &[u8], flags: usize) -> Sys<i32> {
    openat(dir, path, flags, 0)
}

pub(crate) fn openat2(dir: i32, path: &[u8], flags: usize, resolve: u64) -> Sys<i32> {
    let how = [(flags | O_CLOEXEC) as u64, 0, resolve];
    loop {
        // EAGAIN: a rename raced with the look-up.
        match call5(OPENAT2, fd(dir), text(path), how.as_ptr() as usize, 24, 0) {
            Err(EAGAIN) => continue,
            result => return result.map(|new| new as i32),
        }
    }
}

pub(crate) fn mkdirat(dir: i32, path: &[u8], mode: usize) -> Sys {
    call3(nr::MKDIRAT, fd(dir), text(path), mode)
}

pub(crate) fn mknodat(dir: i32, path: &[u8], mode: u32, device: u64) -> Sys {
    call5(nr::MKNODAT, fd(dir), text(path), mode as usize, device as usize, 0)
}

pub(crate) fn symlinkat(target: &[u8], dir: i32, path: &[u8]) -> Sys {
    call3(nr::SYMLINKAT, text(target), fd(dir), text(path))
}

pub(crate) fn unlinkat(dir: i32, path: &[u8], flags: usize) -> Sys {
    call3(nr::UNLINKAT, fd(dir), text(path), flags)
}

pub(crate) fn fchownat(dir: i32, path: &[u8], uid: u32, gid: u32, flags: usize) -> Sys {
    call5(nr::FCHOWNAT, fd(dir), text(path), uid as usize, gid as usize, flags)
}

pub(crate) fn fchmodat(dir: i32, path: &[u8], mode: u32) -> Sys {
    call3(nr::FCHMODAT, fd(dir), text(path), mode as usize)
}

pub(crate) fn fchmod(file: i32, mode: u32) -> Sys {
    call3(nr::FCHMOD, fd(file), mode as usize, 0)
}

pub(crate) fn fsetxattr(file: i32, name: &[u8], value: &[u8]) -> Sys {
    call5(nr::FSETXATTR, fd(file), text(name), ptr(value), value.len(), 0)
}

pub(crate) fn fgetxattr(file: i32, name: &[u8], into: &mut [u8]) -> Sys<usize> {
    call5(nr::FGETXATTR, fd(file), text(name), into.as_mut_ptr() as usize, into.len(), 0).map(length)
}

/// Reads directory entries; 0 at the end.
pub(crate) fn getdents(dir: i32, into: &mut [u8]) -> Sys<usize> {
    call3(nr::GETDENTS64, fd(dir), into.as_mut_ptr() as usize, into.len()).map(length)
}

/// What `statx(2)` says, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) mode: u32,
    pub(crate) inode: u64,
    pub(crate) size: u64,
    pub(crate) rdev: (u32, u32),
    pub(crate) dev: (u32, u32),
}

pub(crate) fn statx(dir: i32, path: &[u8], flags: usize) -> Sys<Stat> {
    let mut out = [0u64; 32];
    call5(nr::STATX, fd(dir), text(path), flags, 0x7ff, out.as_mut_ptr() as usize)?;
    // struct statx: mode is the u16 at 28, ino at 32, size at 40, rdev at 128 and 132, dev at 136 and 140.
    let half = |at: usize| (out[at / 8] >> ((at % 8) * 8)) as u32;
    Ok(Stat {
        mode: half(28) & 0xffff,
        inode: out[4],
        size: out[5],
        rdev: (half(128), half(132)),
        dev: (half(136), half(140)),
    })
}

pub(crate) fn stat_fd(file: i32) -> Sys<Stat> {
    statx(file, b"\0", AT_EMPTY_PATH)
}

/// May the caller's effective ids execute the file?
pub(crate) fn executable(path: &[u8]) -> Sys {
    const X_OK: usize = 1;
    const AT_EACCESS: usize = 0x200;
    call5(FACCESSAT2, fd(AT_FDCWD), text(path), X_OK, AT_EACCESS, 0)
}

/// A new ruleset of Landlock's: the rights that it is about, for files and networks, and the scopes. Source: linux/landlock.h,
/// `struct landlock_ruleset_attr`; a kernel that knows less of it takes zeros for the rest.
pub(crate) fn landlock_ruleset(attributes: &[u64; 3]) -> Sys<i32> {
    call3(LANDLOCK_CREATE_RULESET, attributes.as_ptr() as usize, 24, 0).map(|new| new as i32)
}

/// Allows rights beneath a directory. Source: linux/landlock.h, `struct landlock_path_beneath_attr`, which is packed.
pub(crate) fn landlock_allow(rules: i32, rights: u64, directory: i32) -> Sys {
    const PATH_BENEATH: usize = 1;
    let attributes = [rights, u64::from(directory as u32)];
    // The second word's first half is the descriptor, where the least byte comes first: on all that this is written for.
    const { assert!(cfg!(target_endian = "little")) };
    call5(LANDLOCK_ADD_RULE, fd(rules), PATH_BENEATH, attributes.as_ptr() as usize, 0, 0)
}

/// Holds this process, and all that it starts, to a ruleset.
pub(crate) fn landlock_restrict(rules: i32) -> Sys {
    call3(LANDLOCK_RESTRICT_SELF, fd(rules), 0, 0)
}

pub(crate) fn ioctl(file: i32, request: usize, argument: usize) -> Sys {
    call3(nr::IOCTL, fd(file), request, argument)
}

pub(crate) fn socket(domain: usize, kind: usize) -> Sys<i32> {
    call3(nr::SOCKET, domain, kind | O_CLOEXEC, 0).map(|new| new as i32)
}

/// A socket of a protocol, closed on exec.
pub(crate) fn socket_of(domain: u32, kind: u32, protocol: u32) -> Sys<i32> {
    let kind = kind as usize | O_CLOEXEC;
    call3(nr::SOCKET, domain as usize, kind, protocol as usize).map(|new| new as i32)
}

/// Two connected `SOCK_SEQPACKET` ends.
pub(crate) fn socket_pair() -> Sys<[i32; 2]> {
    const AF_UNIX: usize = 1;
    const SEQPACKET: usize = 5;
    let mut ends = [-1i32; 2];
    call5(nr::SOCKETPAIR, AF_UNIX, SEQPACKET | O_CLOEXEC, 0, ends.as_mut_ptr() as usize, 0)?;
    Ok(ends)
}

/// A pipe: the end to read, the end to write.
pub(crate) fn pipe() -> Sys<[i32; 2]> {
    let mut ends = [-1i32; 2];
    call3(nr::PIPE2, ends.as_mut_ptr() as usize, O_CLOEXEC, 0)?;
    Ok(ends)
}

pub(crate) fn fsopen(kind: &[u8]) -> Sys<i32> {
    call3(FSOPEN, text(kind), 1, 0).map(|new| new as i32)
}

/// Sets `key` to `value`, or the flag `key` without one.
pub(crate) fn fsconfig_set(context: i32, key: &[u8], value: Option<&[u8]>) -> Sys {
    match value {
        Some(value) => call5(FSCONFIG, fd(context), 1, text(key), text(value), 0),
        None => call3(FSCONFIG, fd(context), 0, text(key)),
    }
}

pub(crate) fn fsconfig_create(context: i32) -> Sys {
    call3(FSCONFIG, fd(context), 6, 0)
}

pub(crate) fn fsmount(context: i32, attributes: u64) -> Sys<i32> {
    call3(FSMOUNT, fd(context), 1, attributes as usize).map(|new| new as i32)
}

/// A detached copy of the mount at a path, or with an empty path of the descriptor.
pub(crate) fn open_tree(dir: i32, path: &[u8], recursive: bool) -> Sys<i32> {
    let empty = if path.len() <= 1 { AT_EMPTY_PATH } else { 0 };
    let recursive = if recursive { AT_RECURSIVE } else { 0 };
    call3(OPEN_TREE, fd(dir), text(path), 1 | O_CLOEXEC | empty | recursive)
    .map(|new| new as i32)
}

/// Attaches a detached mount to the object behind a descriptor.
pub(crate) fn move_mount(from: i32, to: i32) -> Sys {
    const F_EMPTY_PATH: usize = 4;
    const T_EMPTY_PATH: usize = 0x40;
    call5(MOVE_MOUNT, fd(from), ptr(b"\0"), fd(to), ptr(b"\0"), F_EMPTY_PATH | T_EMPTY_PATH)
}

pub(crate) fn mount_setattr(mount: i32, recursive: bool, set: u64) -> Sys {
    mount_change(mount, recursive, set, 0)
}

/// Sets attributes, and the propagation where it is not 0.
pub(crate) fn mount_change(mount: i32, recursive: bool, set: u64, propagation: u64) -> Sys {
    let attributes = [set, 0, propagation, 0u64];
    let recursive = if recursive { AT_RECURSIVE } else { 0 };
    call5(MOUNT_SETATTR, fd(mount), ptr(b"\0"), AT_EMPTY_PATH | recursive, attributes.as_ptr() as usize, 32)
}

/// Has a detached mount, and the ones below it, show owners through the ids of a user namespace.
pub(crate) fn map_ids(mount: i32, userns: i32) -> Sys {
    const ATTR_IDMAP: u64 = 0x10_0000;
    let attributes = [ATTR_IDMAP, 0, 0, userns as u64];
    call5(MOUNT_SETATTR, fd(mount), ptr(b"\0"), AT_EMPTY_PATH | AT_RECURSIVE, attributes.as_ptr() as usize, 32)
}

pub(crate) fn mount(source: &[u8], target: &[u8], kind: &[u8], flags: usize, data: &[u8]) -> Sys {
    call5(nr::MOUNT, text(source), text(target), text(kind), flags, text(data))
}

/// Makes every mount of the namespace private.
pub(crate) fn make_private() -> Sys {
    const MS_REC_PRIVATE: usize = 0x4000 | 0x4_0000;
    call5(nr::MOUNT, ptr(b"none\0"), ptr(b"/\0"), 0, MS_REC_PRIVATE, 0)
}

pub(crate) fn detach(path: &[u8]) -> Sys {
    call3(nr::UMOUNT2, text(path), 2, 0)
}

pub(crate) fn pivot_root(new: &[u8], old: &[u8]) -> Sys {
    call3(nr::PIVOT_ROOT, text(new), text(old), 0)
}

pub(crate) fn unshare(flags: u64) -> Sys {
    call3(nr::UNSHARE, flags as usize, 0, 0)
}

pub(crate) fn setns(namespace: i32, kind: u64) -> Sys {
    call3(nr::SETNS, fd(namespace), kind as usize, 0)
}

pub(crate) fn chdir(path: &[u8]) -> Sys {
    call3(nr::CHDIR, text(path), 0, 0)
}

pub(crate) fn fchdir(dir: i32) -> Sys {
    call3(nr::FCHDIR, fd(dir), 0, 0)
}

pub(crate) fn chroot(path: &[u8]) -> Sys {
    call3(nr::CHROOT, text(path), 0, 0)
}

pub(crate) fn getcwd(into: &mut [u8]) -> Sys {
    call3(nr::GETCWD, into.as_mut_ptr() as usize, into.len(), 0)
}

pub(crate) fn umask(mask: u32) {
    let _ = call3(nr::UMASK, mask as usize, 0, 0);
}

pub(crate) fn setsid() -> Sys {
    call3(nr::SETSID, 0, 0, 0)
}

#[inline(never)]
pub(crate) fn prctl(option: usize, a: usize, b: usize) -> Sys {
    call3(nr::PRCTL, option, a, b)
}

pub(crate) fn set_dumpable(on: bool) {
    let _ = prctl(4, on as usize, 0);
}

pub(crate) fn setresuid(id: u32) -> Sys {
    call3(nr::SETRESUID, id as usize, id as usize, id as usize)
}

pub(crate) fn setresgid(id: u32) -> Sys {
    call3(nr::SETRESGID, id as usize, id as usize, id as usize)
}

pub(crate) fn setgroups(groups: &[u32]) -> Sys {
    call3(nr::SETGROUPS, groups.len(), groups.as_ptr() as usize, 0)
}

pub(crate) fn capset(effective: u64, permitted: u64, inheritable: u64) -> Sys {
    let header = [0x2008_0522u32, 0];
    let data = [
        effective as u32,
        permitted as u32,
        inheritable as u32,
        (effective >> 32) as u32,
        (permitted >> 32) as u32,
        (inheritable >> 32) as u32,
    ];
    call3(nr::CAPSET, header.as_ptr() as usize, data.as_ptr() as usize, 0)
}

/// Makes every permitted capability effective.
#[inline(never)]
pub(crate) fn raise_capabilities() -> Sys {
    let header = [0x2008_0522u32, 0];
    let mut data = [0u32; 6];
    call3(nr::CAPGET, header.as_ptr() as usize, data.as_mut_ptr() as usize, 0)?;
    let permitted = u64::from(data[1]) | u64::from(data[4]) << 32;
    capset(permitted, permitted, 0)
}

pub(crate) fn sethostname(name: &[u8]) -> Sys {
    call3(nr::SETHOSTNAME, ptr(name), name.len(), 0)
}

pub(crate) fn setdomainname(name: &[u8]) -> Sys {
    call3(nr::SETDOMAINNAME, ptr(name), name.len(), 0)
}

/// Joins a new, anonymous session keyring.
pub(crate) fn new_session_keyring() -> Sys {
    call3(nr::KEYCTL, 1, 0, 0)
}

pub(crate) fn setrlimit(resource: u32, soft: u64, hard: u64) -> Sys {
    let limit = [soft, hard];
    call3(nr::PRLIMIT64, 0, resource as usize, limit.as_ptr() as usize)
}

pub(crate) fn getrlimit(resource: u32) -> Sys<(u64, u64)> {
    let mut limit = [0u64; 2];
    call5(nr::PRLIMIT64, 0, resource as usize, 0, limit.as_mut_ptr() as usize, 0)?;
    Ok((limit[0], limit[1]))
}

/// Loads a filter of `count` instructions at `program`.
/// Loads a filter; with `listener`, the result is a descriptor of its notifications, which closes on exec.
pub(crate) fn seccomp_filter(program: &[u8], listener: bool) -> Sys {
    const NEW_LISTENER: usize = 1 << 3;
    #[repr(C)]
    struct Program {
        count: u16,
        filter: usize,
    }
    let program = Program {
        count: (program.len() / 8) as u16,
        filter: ptr(program),
    };
    let flags = if listener { NEW_LISTENER } else { 0 };
    call3(nr::SECCOMP, 1, flags, &raw const program as usize)
}

/// Executes; returns only on failure.
pub(crate) fn execve(path: &[u8], argv: &[usize], env: &[usize]) -> i32 {
    match call3(nr::EXECVE, text(path), argv.as_ptr() as usize, env.as_ptr() as usize) {
        Err(errno) => errno,
        Ok(_) => 0,
    }
}

pub(crate) fn exit(code: i32) -> ! {
    loop {
        let _ = call3(nr::EXIT_GROUP, code as usize, 0, 0);
    }
}

pub(crate) fn getpid() -> i32 {
    call3(nr::GETPID, 0, 0, 0).unwrap_or(0) as i32
}

/// Signals one process. Whoever means more than one goes through `everyone.rs`.
pub(crate) fn kill(pid: i32, signal: i32) -> Sys {
    if pid <= 0 {
        return Err(EINVAL);
    }
    call3(nr::KILL, fd(pid), signal as usize, 0)
}

/// Signals the process group with this number, which is above 1: for `everyone.rs` alone.
pub(crate) fn kill_group(leader: i32, signal: i32) -> Sys {
    call3(nr::KILL, fd(-leader), signal as usize, 0)
}

/// Signals every process that this one can see, but itself and pid 1: for `everyone.rs` alone.
pub(crate) fn kill_all_in_sight(signal: i32) -> Sys {
    call3(nr::KILL, usize::MAX, signal as usize, 0)
}

/// Reaps a child of any kind (`__WALL`). `Ok((0, _))`: none has ended, with `no_hang`.
pub(crate) fn wait(pid: i32, no_hang: bool) -> Sys<(i32, i32)> {
    const WALL: usize = 0x4000_0000;
    let mut status = 0i32;
    loop {
        match call3(nr::WAIT4, fd(pid), &raw mut status as usize, WALL | no_hang as usize) {
            Err(EINTR) => continue,
            result => return result.map(|pid| (pid as i32, status)),
        }
    }
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct CloneArgs {
    pub(crate) flags: u64,
    pub(crate) pidfd: u64,
    pub(crate) child_tid: u64,
    pub(crate) parent_tid: u64,
    pub(crate) exit_signal: u64,
    pub(crate) stack: u64,
    pub(crate) stack_size: u64,
    pub(crate) tls: u64,
    pub(crate) set_tid: u64,
    pub(crate) set_tid_size: u64,
    pub(crate) cgroup: u64,
}

/// Forks with flags; 0 in the child. No memory is shared, so that both sides go on with the same stack.
pub(crate) fn clone3(args: &CloneArgs) -> Sys<i32> {
    call3(CLONE3, args as *const CloneArgs as usize, size_of::<CloneArgs>(), 0)
    .map(|pid| pid as i32)
}

/// Forks a child that reports its end with `SIGCHLD`; 0 in the child. The older call: under a container's filter, Docker's
/// profile has none of the new one, whose flags a filter cannot see.
pub(crate) fn fork() -> Sys<i32> {
    const SIGCHLD: usize = 17;
    call3(nr::CLONE, SIGCHLD, 0, 0).map(|pid| pid as i32)
}

/// Forks a sibling: its parent is the caller's parent, and the kernel has written its number to `told` before it runs. 0 in
/// the sibling. The older call, as in [`fork`].
pub(crate) fn fork_sibling(told: usize) -> Sys<i32> {
    const SIGCHLD: usize = 17;
    const CLONE_PARENT: usize = 0x8000;
    const CLONE_PARENT_SETTID: usize = 0x10_0000;
    call3(nr::CLONE, CLONE_PARENT | CLONE_PARENT_SETTID | SIGCHLD, 0, told).map(|pid| pid as i32)
}

pub(crate) fn pidfd_open(pid: i32) -> Sys<i32> {
    call3(PIDFD_OPEN, fd(pid), 0, 0).map(|new| new as i32)
}

/// A signal to the process of a descriptor, which is a pidfd or its directory of a proc file system: never to another that has
/// come to its number.
#[cfg(shim)]
pub(crate) fn kill_at(process: i32, signal: i32) -> Sys {
    call5(PIDFD_SEND_SIGNAL, fd(process), signal as usize, 0, 0, 0)
}

/// How a process has ended, as a wait status, once somebody has reaped it; `None` before that. An errno where the kernel does not
/// say (before 6.15). Source: linux/pidfd.h, `PIDFD_INFO_EXIT`.
#[cfg(shim)]
#[inline(never)]
#[unsafe(link_section = "lhshim")]
pub(crate) fn pidfd_status(process: i32) -> Sys<Option<i32>> {
    match pidfd_status_now(process) {
        // It was reaped between the kernel's look at its end and that at the process: now the end is there (fs/pidfs.c, `pidfd_info`).
        Err(ESRCH) => pidfd_status_now(process),
        asked => asked,
    }
}

#[cfg(shim)]
#[inline(never)]
#[unsafe(link_section = "lhshim")]
fn pidfd_status_now(process: i32) -> Sys<Option<i32>> {
    const EXIT: u64 = 1 << 3;
    /// `struct pidfd_info` as the kernel had it first: mask, cgroup, eleven ids and the status in 64 bytes.
    const WORDS: usize = 8;
    /// `_IOWR(0xFF, 11, struct pidfd_info)`.
    const GET_INFO: usize = 3 << 30 | (WORDS * 8) << 16 | 0xff << 8 | 11;
    let mut info = [0u64; WORDS];
    info[0] = EXIT;
    ioctl(process, GET_INFO, info.as_mut_ptr() as usize)?;
    // The last of the words of 32 bits.
    let bytes = info[WORDS - 1].to_ne_bytes();
    let status = i32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    Ok((info[0] & EXIT != 0).then_some(status))
}

/// Resets every signal's disposition to the default: "ignored" survives an exec.
pub(crate) fn reset_signals() {
    let action = [0usize; 4];
    for signal in 1..=64usize {
        let _ = call5(nr::RT_SIGACTION, signal, action.as_ptr() as usize, 0, 8, 0);
    }
}

/// Replaces the signal mask.
pub(crate) fn set_mask(mask: u64) {
    const SIG_SETMASK: usize = 2;
    let _ = call5(nr::RT_SIGPROCMASK, SIG_SETMASK, &raw const mask as usize, 0, 8, 0);
}

/// Waits for a blocked signal of the set and takes it.
pub(crate) fn sigwait(mask: u64) -> Sys<usize> {
    call5(nr::RT_SIGTIMEDWAIT, &raw const mask as usize, 0, 0, 8, 0).map(length)
}

pub(crate) fn signalfd(mask: u64) -> Sys<i32> {
    call5(nr::SIGNALFD4, usize::MAX, &raw const mask as usize, 8, O_CLOEXEC | O_NONBLOCK, 0)
    .map(|new| new as i32)
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct PollFd {
    pub(crate) fd: i32,
    pub(crate) events: i16,
    pub(crate) revents: i16,
}

/// Waits without bound for one of the descriptors.
/// Waits for one of the descriptors, for so many milliseconds if told.
pub(crate) fn poll(fds: &mut [PollFd], milliseconds: Option<u64>) -> Sys {
    let time = milliseconds.map(|ms| [ms / 1000, ms % 1000 * 1_000_000]);
    let time = time.as_ref().map_or(0, |time| time.as_ptr() as usize);
    call5(nr::PPOLL, fds.as_mut_ptr() as usize, fds.len(), time, 0, 8)
}

pub(crate) fn sleep_ms(milliseconds: u64) {
    let time = [milliseconds / 1000, milliseconds % 1000 * 1_000_000];
    let _ = call3(nr::NANOSLEEP, time.as_ptr() as usize, 0, 0);
}

/// A mapping where the kernel has room: the one call whose result is no size but an address.
#[inline(never)]
fn mmap(len: usize, protection: usize, flags: usize, file: i32) -> Sys<usize> {
    // SAFETY: the kernel chooses the place, where nothing of this process is.
    let result = unsafe { raw(nr::MMAP, [0, len, protection, flags, fd(file), 0]) };
    check(result).map(|_| result as usize)
}

/// Fresh zeroed memory that lives as long as the process.
pub(crate) fn map(len: usize) -> Sys<&'static mut [u8]> {
    const READ_WRITE: usize = 3;
    const PRIVATE_ANONYMOUS_NORESERVE: usize = 0x4022;
    let at = mmap(len, READ_WRITE, PRIVATE_ANONYMOUS_NORESERVE, -1)?;
    // SAFETY: the kernel has just mapped `len` bytes there for us alone.
    Ok(unsafe { core::slice::from_raw_parts_mut(at as *mut u8, len) })
}

/// A word that this process shares with the children it forks from now on.
pub(crate) struct Shared(usize);

impl Shared {
    const SIZE: usize = 4096;

    pub(crate) fn new() -> Sys<Self> {
        const READ_WRITE: usize = 3;
        const SHARED_ANONYMOUS: usize = 0x21;
        mmap(Self::SIZE, READ_WRITE, SHARED_ANONYMOUS, -1).map(Self)
    }

    /// The word at an address that [`Shared::address`] gave in this process, or the one that it was forked from.
    pub(crate) fn at(address: usize) -> Self {
        Self(address)
    }

    pub(crate) fn address(&self) -> usize {
        self.0
    }

    fn word(&self) -> &core::sync::atomic::AtomicI32 {
        // SAFETY: the mapping is aligned to a page, was zero, and lives until `unmap`, which takes the value.
        unsafe { &*(self.0 as *const core::sync::atomic::AtomicI32) }
    }

    pub(crate) fn get(&self) -> i32 {
        self.word().load(core::sync::atomic::Ordering::Acquire)
    }

    pub(crate) fn set(&self, value: i32) {
        self.word().store(value, core::sync::atomic::Ordering::Release);
    }

    /// Children forked from now on do not have it.
    pub(crate) fn keep_from_children(&self) -> Sys {
        const MADV_DONTFORK: usize = 10;
        call3(nr::MADVISE, self.0, Self::SIZE, MADV_DONTFORK)
    }

    pub(crate) fn unmap(self) {
        let _ = call3(nr::MUNMAP, self.0, Self::SIZE, 0);
    }
}

/// A private view of a sealed file.
pub(crate) fn map_file(file: i32, len: usize) -> Sys<&'static [u8]> {
    let at = mmap(len, 1, 2, file)?;
    // SAFETY: as above; the file is sealed against shrinking by whoever sent it, else the helper dies of SIGBUS alone.
    Ok(unsafe { core::slice::from_raw_parts(at as *const u8, len) })
}

/// `MADV_DONTNEED`: of the program's own text, or a view of a file, pages that come back from the file when they are needed.
pub(crate) fn drop_text(start: usize, len: usize) {
    let _ = call3(nr::MADVISE, start, len, 4);
}

/// A flag of `madvise(2)`. A page size that does not fit is an error that does no harm.
pub(crate) fn mark_text(start: usize, len: usize, flag: usize) {
    let _ = call3(nr::MADVISE, start, len, flag);
}

pub(crate) fn unmap(memory: &[u8]) {
    let _ = call3(nr::MUNMAP, ptr(memory), memory.len(), 0);
}

pub(crate) fn recvmsg(socket: i32, message: usize, flags: usize) -> Sys<usize> {
    call3(nr::RECVMSG, fd(socket), message, flags).map(length)
}

pub(crate) fn sendmsg(socket: i32, message: usize, flags: usize) -> Sys {
    call3(nr::SENDMSG, fd(socket), message, flags)
}

/// Ends the conversation over a socket, both ways; whoever else holds an end of it sees that.
pub(crate) fn hang_up(socket: i32) {
    const SHUT_RDWR: usize = 2;
    let _ = call3(nr::SHUTDOWN, fd(socket), SHUT_RDWR, 0);
}
