//! The least a container start can cost: the same namespaces, overlay, mounts, cgroup, capabilities and filter as ours, done by
//! bare system calls from a child that shares our memory until it executes, and one journal write for the record.
//!
//! The floor of the jobs `start`, `start-parallel` and `run-cli`.

use std::ffi::{CString, c_char, c_int, c_ulong, c_void};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
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
struct Plan {
    overlay: CString,
    merged: CString,
    fault: c_int,
}

/// A place to start containers from: a lower directory with busybox in it.
#[derive(Debug)]
pub struct Starter {
    dir: PathBuf,
    lower: PathBuf,
    cgroups: Option<PathBuf>,
    journal: fs::File,
}

impl Starter {
    /// # Errors
    /// Whatever the file system says.
    pub fn new(dir: &Path, lower: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let journal = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join("journal"))?;
        Ok(Self {
            dir: dir.to_path_buf(),
            lower: lower.to_path_buf(),
            cgroups: cgroups(),
            journal,
        })
    }

    /// From nothing to `true` having run and nothing left. `serial` keeps concurrent starts apart.
    ///
    /// # Errors
    /// The step that the kernel refused.
    pub fn once(&self, serial: usize) -> io::Result<()> {
        let layer = self.dir.join(format!("layer-{}-{serial}", std::process::id()));
        for part in ["upper", "work", "merged"] {
            fs::create_dir_all(layer.join(part))?;
        }
        self.journal.write_all_at(&[0; 4096], 0)?;
        let cgroup = self.cgroups.as_ref().map(|dir| dir.join(format!("start-{serial}")));
        let cgroup_fd = cgroup.as_ref().map(|dir| make_cgroup(dir)).transpose()?;
        let outcome = self.start(&layer, cgroup_fd.as_ref());
        drop(cgroup_fd);
        if let Some(cgroup) = cgroup {
            remove_cgroup(&cgroup)?;
        }
        fs::remove_dir_all(&layer)?;
        self.journal.write_all_at(&[1; 4096], 4096)?;
        outcome
    }

    fn start(&self, layer: &Path, cgroup: Option<&OwnedFd>) -> io::Result<()> {
        let overlay = format!(
            "lowerdir={},upperdir={},workdir={},volatile",
            self.lower.display(),
            layer.join("upper").display(),
            layer.join("work").display()
        );
        let merged = layer.join("merged").display().to_string();
        let mut plan = Plan {
            overlay: CString::new(overlay)?,
            merged: CString::new(merged)?,
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

const DEVICES: [(&std::ffi::CStr, u32, u32); 6] = [
    (c"dev/null", 1, 3),
    (c"dev/zero", 1, 5),
    (c"dev/full", 1, 7),
    (c"dev/random", 1, 8),
    (c"dev/urandom", 1, 9),
    (c"dev/tty", 5, 0),
];

const MASKED: [&std::ffi::CStr; 6] = [
    c"/proc/kcore",
    c"/proc/keys",
    c"/proc/timer_list",
    c"/proc/interrupts",
    c"/proc/sysrq-trigger",
    c"/proc/latency_stats",
];

const READ_ONLY: [&std::ffi::CStr; 5] = [c"/proc/bus", c"/proc/fs", c"/proc/irq", c"/proc/sys", c"/proc/acpi"];

extern "C" fn child(plan: *mut c_void) -> ! {
    // SAFETY: the parent keeps the plan and sleeps.
    let plan = unsafe { &mut *plan.cast::<Plan>() };
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
            c"mode=755,size=64k".as_ptr()
        )
    );
    for (path, major, minor) in DEVICES {
        step!(
            plan,
            libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(major, minor))
        );
    }
    step!(plan, libc::mkdir(c"dev/pts".as_ptr(), 0o755));
    step!(plan, libc::mkdir(c"dev/shm".as_ptr(), 0o1777));
    step!(plan, libc::mkdir(c"dev/mqueue".as_ptr(), 0o755));
    let pts = c"newinstance,ptmxmode=0666,mode=0620".as_ptr();
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
            c"size=64m".as_ptr()
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
    step!(plan, libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()));
    step!(plan, libc::umount2(c".".as_ptr(), libc::MNT_DETACH));
    for path in MASKED {
        // A kernel need not have each of these.
        // SAFETY: constants.
        unsafe { mount(c"/dev/null".as_ptr(), path.as_ptr(), null(), libc::MS_BIND, null()) };
    }
    for path in READ_ONLY {
        // SAFETY: constants.
        if unsafe {
            mount(
                path.as_ptr(),
                path.as_ptr(),
                null(),
                libc::MS_BIND | libc::MS_REC,
                null(),
            )
        } == 0
        {
            let flags = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | safe;
            step!(plan, mount(null(), path.as_ptr(), null(), flags, null()));
        }
    }
    step!(plan, libc::sethostname(c"limit".as_ptr(), 5));
    loopback_up();
    for capability in 0..=40 {
        // SAFETY: changes this process only.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
    step!(plan, libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    step!(plan, load_filter());
    let arguments = [c"true".as_ptr(), null()];
    step!(
        plan,
        libc::execve(c"/bin/true".as_ptr(), arguments.as_ptr(), [null::<c_char>()].as_ptr())
    );
    unreachable!("execve returns errors only, and those end the child")
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

/// A filter of 60 comparisons, as long as a range tree over Docker's default profile, that allows everything.
///
/// # Safety
/// Changes this process for good.
unsafe fn load_filter() -> c_int {
    const COMPARISONS: usize = 60;
    let load = libc::sock_filter {
        code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16,
        jt: 0,
        jf: 0,
        k: 0,
    };
    let allow = libc::sock_filter {
        code: libc::BPF_RET as u16,
        jt: 0,
        jf: 0,
        k: libc::SECCOMP_RET_ALLOW,
    };
    let mut program = [allow; COMPARISONS + 2];
    program[0] = load;
    for (number, line) in program[1..=COMPARISONS].iter_mut().enumerate() {
        *line = libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JEQ) as u16,
            jt: 0,
            jf: 0,
            k: 10_000 + number as u32,
        };
    }
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the program is on this stack during the call.
    unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) as c_int }
}
