//! The least a container start can cost: the same namespaces, overlay, mounts, cgroup, capabilities and filter as ours, done by
//! bare system calls from a child that shares our memory until it executes, and one journal write for the record.
//!
//! The floor of the jobs `start`, `start-parallel` and `run-cli`. What it does not do, because a container could do without:
//! pipes and a log, files of its own for `/etc` (the three binds show files that are there already), a look at the
//! container's own users, a way to say which step failed, and a process that outlives its owner to clean up.

use std::ffi::{CString, c_char, c_int, c_ulong, c_void};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::ptr::null;

const STACK: usize = 64 * 1024;

const CLONE_NEWCGROUP: u64 = 0x0200_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const FLAGS: u64 = (libc::CLONE_VM
    | libc::CLONE_VFORK
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWNET) as u64
    | CLONE_NEWCGROUP;

/// `struct clone_args` of clone3(2), version 2.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// What the child reads; all of it made before the clone.
struct Plan<'a> {
    overlay: CString,
    merged: &'a std::ffi::CStr,
    /// The files that are shown in `/etc`.
    etc: &'a [CString; 3],
    program: [*const c_char; 3],
    stdout: Option<RawFd>,
    filter: libc::sock_fprog,
    unified: bool,
    fault: c_int,
}

/// A place to start containers from: a lower directory with busybox in it.
#[derive(Debug)]
pub struct Starter {
    dir: PathBuf,
    lower: PathBuf,
    merged: CString,
    etc: [CString; 3],
    filter: Vec<u8>,
    cgroups: Option<PathBuf>,
    journal: fs::File,
}

impl Starter {
    /// `filter` is a program for seccomp(2), compiled before.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn new(dir: &Path, lower: &Path, filter: Vec<u8>) -> io::Result<Self> {
        let merged = dir.join("merged");
        fs::create_dir_all(&merged)?;
        let stubs = dir.join("stubs");
        fs::create_dir_all(stubs.join("etc"))?;
        for part in ["dev", "proc", "sys"] {
            fs::create_dir_all(stubs.join(part))?;
        }
        let mut etc = Vec::new();
        for name in ["hosts", "hostname", "resolv.conf"] {
            fs::write(stubs.join("etc").join(name), "")?;
            fs::write(dir.join(name), "127.0.0.1 localhost\n")?;
            etc.push(CString::new(dir.join(name).display().to_string())?);
        }
        let journal = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join("journal"))?;
        Ok(Self {
            dir: dir.to_path_buf(),
            lower: lower.to_path_buf(),
            merged: CString::new(merged.display().to_string())?,
            etc: etc.try_into().expect("three names"),
            filter,
            cgroups: cgroups(),
            journal,
        })
    }

    /// From nothing to `true` having run and nothing left. `serial` keeps concurrent starts apart.
    ///
    /// # Errors
    /// The step that the kernel refused.
    pub fn once(&self, serial: usize) -> io::Result<()> {
        self.run(serial, [c"/bin/true".as_ptr(), null(), null()], None)
    }

    /// What a program in such a container sees mounted.
    ///
    /// # Errors
    /// As [`Self::once`].
    pub fn mounts(&self) -> io::Result<String> {
        let path = self.dir.join("mountinfo");
        let file = fs::File::create(&path)?;
        let program = [c"/bin/cat".as_ptr(), c"/proc/self/mountinfo".as_ptr(), null()];
        self.run(usize::MAX, program, Some(file.as_raw_fd()))?;
        fs::read_to_string(path)
    }

    fn run(&self, serial: usize, program: [*const c_char; 3], stdout: Option<RawFd>) -> io::Result<()> {
        let layer = self.dir.join(format!("layer-{}-{serial}", std::process::id()));
        fs::create_dir(&layer)?;
        for part in ["upper", "work"] {
            fs::create_dir(layer.join(part))?;
        }
        let cgroup = self.cgroups.as_ref().map(|dir| dir.join(format!("start-{serial}")));
        let cgroup_fd = cgroup.as_ref().map(|dir| make_cgroup(dir)).transpose()?;
        let outcome = self.start(&layer, cgroup_fd.as_ref(), program, stdout);
        drop(cgroup_fd);
        if let Some(cgroup) = cgroup {
            remove_cgroup(&cgroup)?;
        }
        fs::remove_dir_all(&layer)?;
        // A page, and what a write-ahead log puts before it; nothing waits for the disk, as with ours.
        self.journal.write_all_at(&[1; 4096 + 24], 0)?;
        outcome
    }

    fn start(
        &self,
        layer: &Path,
        cgroup: Option<&OwnedFd>,
        program: [*const c_char; 3],
        stdout: Option<RawFd>,
    ) -> io::Result<()> {
        let overlay = format!(
            "lowerdir={}:{},upperdir={},workdir={},volatile",
            self.lower.display(),
            self.dir.join("stubs").display(),
            layer.join("upper").display(),
            layer.join("work").display()
        );
        let mut plan = Plan {
            overlay: CString::new(overlay)?,
            merged: &self.merged,
            etc: &self.etc,
            program,
            stdout,
            filter: libc::sock_fprog {
                len: (self.filter.len() / size_of::<libc::sock_filter>()) as u16,
                // The kernel only reads it.
                filter: self.filter.as_ptr().cast_mut().cast(),
            },
            unified: Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
            fault: 0,
        };
        let mut stack = vec![0_u8; STACK];
        let mut arguments = CloneArgs {
            flags: FLAGS | if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 },
            exit_signal: libc::SIGCHLD as u64,
            stack: stack.as_mut_ptr() as u64,
            stack_size: STACK as u64,
            cgroup: cgroup.map_or(0, |fd| fd.as_raw_fd() as u64),
            ..CloneArgs::default()
        };
        // SAFETY: `arguments`, `stack` and `plan` outlive the call: with CLONE_VFORK this thread sleeps until the child
        // has executed another program or ended.
        let pid = unsafe { clone3(&mut arguments, child, (&raw mut plan).cast()) };
        if pid < 0 {
            return Err(io::Error::from_raw_os_error(-pid as i32));
        }
        let mut status = 0;
        // SAFETY: `status` is a valid place for the answer.
        if unsafe { libc::waitpid(pid as i32, &raw mut status, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
        match (plan.fault, status) {
            (0, 0) => Ok(()),
            (0, status) => Err(io::Error::other(format!("wait status {status:#x}"))),
            (line, _) => Err(io::Error::other(format!("the step at line {line} of the child failed"))),
        }
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        if let Some(dir) = &self.cgroups {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// A directory of the v2 hierarchy that is ours to fill; none without cgroup v2.
fn cgroups() -> Option<PathBuf> {
    let root = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].iter().map(Path::new);
    let dir = root
        .into_iter()
        .find(|dir| dir.join("cgroup.procs").exists() && dir.join("cgroup.controllers").exists())?;
    let ours = dir.join(format!("limit-{}", std::process::id()));
    fs::create_dir_all(&ours).ok().map(|()| ours)
}

fn make_cgroup(dir: &Path) -> io::Result<OwnedFd> {
    fs::create_dir(dir)?;
    Ok(fs::File::open(dir)?.into())
}

/// The kernel says "busy" for a moment after the last process was reaped.
fn remove_cgroup(dir: &Path) -> io::Result<()> {
    for _ in 0..1000 {
        match fs::remove_dir(dir) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                std::thread::sleep(std::time::Duration::from_micros(100));
            }
            other => return other,
        }
    }
    fs::remove_dir(dir)
}

/// clone3 onto a stack of its own, then `body(argument)`, which must not return.
///
/// # Safety
/// The stack named in `arguments` and what `argument` points to must stay until the child has gone on to another program.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(arguments: &mut CloneArgs, body: extern "C" fn(*mut c_void) -> !, argument: *mut c_void) -> i64 {
    let answer: i64;
    // SAFETY: the child has a fresh stack, and touches no register that the parent relies on after the call.
    unsafe {
        std::arch::asm!(
            "syscall", "test rax, rax", "jnz 2f", "xor ebp, ebp", "mov rdi, r12", "call r13", "ud2", "2:",
            inlateout("rax") libc::SYS_clone3 => answer,
            in("rdi") arguments as *mut CloneArgs, in("rsi") size_of::<CloneArgs>(), in("r12") argument, in("r13") body,
            out("rcx") _, out("r11") _,
        );
    }
    answer
}

/// As above.
///
/// # Safety
/// As above.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(arguments: &mut CloneArgs, body: extern "C" fn(*mut c_void) -> !, argument: *mut c_void) -> i64 {
    let answer: i64;
    // SAFETY: as above.
    unsafe {
        std::arch::asm!(
            "svc 0", "cbnz x0, 2f", "mov x29, xzr", "mov x0, x20", "blr x21", "brk 1", "2:",
            inlateout("x0") arguments as *mut CloneArgs as i64 => answer,
            in("x1") size_of::<CloneArgs>(), in("x8") libc::SYS_clone3, in("x20") argument, in("x21") body,
        );
    }
    answer
}

/// Ends the child with the line of the step that failed.
macro_rules! step {
    ($plan:ident, $call:expr) => {
        // SAFETY: plain system calls on strings that are constants or in the plan.
        if unsafe { $call } < 0 {
            $plan.fault = line!() as c_int;
            // SAFETY: ends this process only.
            unsafe { libc::_exit(125) };
        }
    };
}

/// mount(2), with a string for the data.
///
/// # Safety
/// All strings end in NUL.
unsafe fn mount(
    source: *const c_char,
    target: *const c_char,
    kind: *const c_char,
    flags: c_ulong,
    data: *const c_char,
) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { libc::mount(source, target, kind, flags, data.cast()) }
}

const DEVICES: [(&std::ffi::CStr, &std::ffi::CStr); 6] = [
    (c"/dev/null", c"dev/null"),
    (c"/dev/zero", c"dev/zero"),
    (c"/dev/full", c"dev/full"),
    (c"/dev/random", c"dev/random"),
    (c"/dev/urandom", c"dev/urandom"),
    (c"/dev/tty", c"dev/tty"),
];

const LINKS: [(&std::ffi::CStr, &std::ffi::CStr); 5] = [
    (c"/proc/self/fd", c"dev/fd"),
    (c"/proc/self/fd/0", c"dev/stdin"),
    (c"/proc/self/fd/1", c"dev/stdout"),
    (c"/proc/self/fd/2", c"dev/stderr"),
    (c"pts/ptmx", c"dev/ptmx"),
];

const ETC: [&std::ffi::CStr; 3] = [c"etc/hosts", c"etc/hostname", c"etc/resolv.conf"];

/// Docker's: files get `/dev/null` over them, directories an empty file system.
const MASKED_FILES: [&std::ffi::CStr; 7] = [
    c"/proc/interrupts",
    c"/proc/kcore",
    c"/proc/keys",
    c"/proc/latency_stats",
    c"/proc/sched_debug",
    c"/proc/timer_list",
    c"/proc/timer_stats",
];
const MASKED_DIRECTORIES: [&std::ffi::CStr; 5] = [
    c"/proc/acpi",
    c"/proc/asound",
    c"/proc/scsi",
    c"/sys/devices/virtual/powercap",
    c"/sys/firmware",
];

const READ_ONLY: [&std::ffi::CStr; 5] = [
    c"/proc/bus",
    c"/proc/fs",
    c"/proc/irq",
    c"/proc/sys",
    c"/proc/sysrq-trigger",
];

/// Docker's default capabilities.
const CAPABILITIES: u64 = 0xa804_25fb;

extern "C" fn child(plan: *mut c_void) -> ! {
    // SAFETY: the parent keeps the plan and sleeps.
    let plan = unsafe { &mut *plan.cast::<Plan<'_>>() };
    let safe = libc::MS_NOSUID | libc::MS_NOEXEC | libc::MS_NODEV;
    step!(
        plan,
        mount(null(), c"/".as_ptr(), null(), libc::MS_REC | libc::MS_PRIVATE, null())
    );
    step!(
        plan,
        mount(
            c"overlay".as_ptr(),
            plan.merged.as_ptr(),
            c"overlay".as_ptr(),
            0,
            plan.overlay.as_ptr()
        )
    );
    step!(plan, libc::chdir(plan.merged.as_ptr()));
    step!(
        plan,
        mount(c"proc".as_ptr(), c"proc".as_ptr(), c"proc".as_ptr(), safe, null())
    );
    step!(
        plan,
        mount(
            c"tmpfs".as_ptr(),
            c"dev".as_ptr(),
            c"tmpfs".as_ptr(),
            libc::MS_NOSUID,
            c"mode=755,size=65536k".as_ptr()
        )
    );
    for (host, path) in DEVICES {
        step!(plan, empty_file(path));
        step!(plan, bind(host.as_ptr(), path.as_ptr(), false));
    }
    for (target, path) in LINKS {
        step!(plan, libc::symlink(target.as_ptr(), path.as_ptr()));
    }
    for (file, place) in plan.etc.iter().zip(ETC) {
        step!(plan, bind(file.as_ptr(), place.as_ptr(), false));
    }
    step!(plan, libc::mkdir(c"dev/pts".as_ptr(), 0o755));
    step!(plan, libc::mkdir(c"dev/shm".as_ptr(), 0o1777));
    step!(plan, libc::mkdir(c"dev/mqueue".as_ptr(), 0o755));
    let pts = c"newinstance,ptmxmode=0666,mode=0620,gid=5".as_ptr();
    step!(
        plan,
        mount(
            c"devpts".as_ptr(),
            c"dev/pts".as_ptr(),
            c"devpts".as_ptr(),
            libc::MS_NOSUID | libc::MS_NOEXEC,
            pts
        )
    );
    step!(
        plan,
        mount(
            c"shm".as_ptr(),
            c"dev/shm".as_ptr(),
            c"tmpfs".as_ptr(),
            safe,
            c"mode=1777,size=64m".as_ptr()
        )
    );
    step!(
        plan,
        mount(
            c"mqueue".as_ptr(),
            c"dev/mqueue".as_ptr(),
            c"mqueue".as_ptr(),
            safe,
            null()
        )
    );
    step!(
        plan,
        mount(
            c"sysfs".as_ptr(),
            c"sys".as_ptr(),
            c"sysfs".as_ptr(),
            safe | libc::MS_RDONLY,
            null()
        )
    );
    let cgroup = if plan.unified { c"cgroup2" } else { c"tmpfs" };
    step!(
        plan,
        mount(
            c"cgroup".as_ptr(),
            c"sys/fs/cgroup".as_ptr(),
            cgroup.as_ptr(),
            safe | libc::MS_RDONLY,
            null()
        )
    );
    step!(plan, libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()));
    step!(plan, libc::umount2(c".".as_ptr(), libc::MNT_DETACH));
    for path in READ_ONLY {
        // A kernel need not have each of these, nor of the next.
        // SAFETY: constants.
        unsafe { bind(path.as_ptr(), path.as_ptr(), true) };
    }
    for path in MASKED_FILES {
        // SAFETY: constants.
        unsafe { bind(c"/dev/null".as_ptr(), path.as_ptr(), false) };
    }
    for path in MASKED_DIRECTORIES {
        let flags = safe | libc::MS_RDONLY;
        // SAFETY: constants.
        unsafe {
            mount(
                c"tmpfs".as_ptr(),
                path.as_ptr(),
                c"tmpfs".as_ptr(),
                flags,
                c"size=4k".as_ptr(),
            )
        };
    }
    step!(plan, libc::sethostname(c"limit".as_ptr(), 5));
    loopback_up();
    for capability in (0..=40).filter(|capability| CAPABILITIES & 1 << capability == 0) {
        // SAFETY: changes this process only.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
    step!(plan, set_capabilities());
    if let Some(stdout) = plan.stdout {
        step!(plan, libc::dup2(stdout, 1));
    }
    step!(plan, libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    step!(
        plan,
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const plan.filter
        ) as c_int
    );
    step!(
        plan,
        libc::execve(plan.program[0], plan.program.as_ptr(), [null::<c_char>()].as_ptr())
    );
    unreachable!("execve returns errors only, and those end the child")
}

/// A file for a bind to lie on.
///
/// # Safety
/// None; it calls the kernel with a constant.
unsafe fn empty_file(path: &std::ffi::CStr) -> c_int {
    // SAFETY: a string that ends in NUL.
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC, 0o666);
        if file < 0 { file } else { libc::close(file) }
    }
}

/// A bind mount, read-only if asked for.
///
/// # Safety
/// Both strings end in NUL.
unsafe fn bind(source: *const c_char, target: *const c_char, read_only: bool) -> c_int {
    // SAFETY: as the caller promises.
    unsafe {
        let done = mount(source, target, null(), libc::MS_BIND, null());
        if done < 0 || !read_only {
            return done;
        }
        let safe = libc::MS_NOSUID | libc::MS_NOEXEC | libc::MS_NODEV;
        let flags = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | safe;
        mount(null(), target, null(), flags, null())
    }
}

/// # Safety
/// Changes this process for good.
unsafe fn set_capabilities() -> c_int {
    // `struct __user_cap_header_struct`, version 3, and two `struct __user_cap_data_struct`. Source: capget(2).
    let header = [0x2008_0522_u32, 0];
    let keep = CAPABILITIES as u32;
    let data = [keep, keep, 0, 0, 0, 0];
    // SAFETY: both are as long as the version says.
    unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) as c_int }
}

fn loopback_up() {
    // SAFETY: an all-zero ifreq is valid, and the name fits.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as c_char;
        request.ifr_name[1] = b'o' as c_char;
        request.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
        libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw mut request);
        libc::close(socket);
    }
}
