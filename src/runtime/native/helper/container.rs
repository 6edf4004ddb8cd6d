//! The first process of a container, from clone to exec. One thread, memory of its own, system calls only.

use core::convert::Infallible;

use crate::dev::Devices;
use crate::fail::{Done, Fail, at, at_index, hand, missing};
use crate::message::{self, Fds};
use crate::netns::loopback_up;
use crate::sys::{self, AT_FDCWD, Sys};
use crate::user::Identity;
use crate::wire::{MOST_MOUNTS, MountRecord, Plan, Record, Section, Step, aux, field, flag, mount};
use crate::{check, dev, exec, mounts, outfit, path, tool, user};

/// What a container gets from its zygote.
pub(crate) struct Context<'a> {
    pub(crate) plan: Plan<'a>,
    pub(crate) fds: &'a Fds,
    pub(crate) slim: i32,
    /// A network namespace made ahead.
    pub(crate) network: Option<i32>,
    /// With a user namespace of its own: the socket over which the mounts come that it may not make.
    pub(crate) outfit: Option<i32>,
}

impl Context<'_> {
    pub(crate) fn fd(&self, position: usize) -> Option<i32> {
        self.fds.get(self.plan.field(position))
    }

    /// Refuses a plan of which a part could not be done, before any of it is.
    #[unsafe(link_section = "lhchild")]
    pub(crate) fn whole(&self) -> Done {
        match check::is_whole(&self.plan, &|position| self.fds.get(position).is_some()) {
            true => Ok(()),
            false => Err(Fail::new(Step::Plan, sys::EBADMSG)),
        }
    }
}

/// Where the standard streams come from.
pub(crate) struct Streams {
    pub(crate) fds: [i32; 3],
    pub(crate) terminal: bool,
}

/// Runs the container; reports the step that failed.
///
/// It lies in a section of its own, with all that is inlined into it: see [`leave_to_children`].
#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn run(context: &Context<'_>) -> ! {
    let status = context.fd(field::FD_STATUS).unwrap_or(-1);
    match launch(context, status) {
        Ok(never) => match never {},
        Err(fail) => {
            fail.report(status);
            sys::exit(125)
        }
    }
}

/// Cuts the code that only children run, with the clean-up at the end, and what only a shim runs, where that is in the program,
/// out of its mapping as far as page faults go: the kernel maps pages around a fault up to the end of an area, and a flag
/// that differs makes several areas of one.
pub(crate) fn leave_to_children() {
    unsafe extern "C" {
        static __start_lhchild: u8;
        static __stop_lhchild: u8;
        #[cfg(shim)]
        static __start_lhshim: u8;
        #[cfg(shim)]
        static __stop_lhshim: u8;
    }
    // Two flags without a meaning here: neither area may be one with the other.
    const DONTDUMP: usize = 16;
    cut_out(&raw const __start_lhchild as usize, &raw const __stop_lhchild as usize, DONTDUMP);
    #[cfg(shim)]
    {
        const RANDOM: usize = 1;
        cut_out(&raw const __start_lhshim as usize, &raw const __stop_lhshim as usize, RANDOM);
    }
}

/// The whole pages between two addresses.
fn cut_out(start: usize, stop: usize, flag: usize) {
    const PAGE: usize = 4096;
    let start = start.next_multiple_of(PAGE);
    let len = (stop & !(PAGE - 1)).saturating_sub(start);
    sys::mark_text(start, len, flag);
    // The fault at the program's first instruction has mapped them already.
    sys::drop_text(start, len);
}

#[unsafe(link_section = "lhchild")]
fn launch(context: &Context<'_>, status: i32) -> Done<Infallible> {
    let plan = &context.plan;
    context.whole()?;
    sys::umask(0);
    if let Some(outfit) = context.outfit {
        outfit::become_root(outfit)?;
    }
    join_cgroups(context)?;
    if !plan.has(flag::HOST_CGROUP) {
        at(Step::CgroupNamespace, sys::unshare(sys::CLONE_NEWCGROUP))?;
    }
    let memory = at(Step::Join, join_others(context))?;
    at(Step::Loopback, network(context))?;
    let proc = at(Step::Proc, private_proc(plan))?;
    let mut trees = [-1; MOST_MOUNTS];
    make_mounts(context, memory, &mut trees)?;
    if plan.has(flag::TOOL) {
        return tool::run(context, &trees, status);
    }
    let devices = match context.outfit {
        None => {
            at(
                Step::MountNamespace,
                sys::setns(context.slim, sys::CLONE_NEWNS).and_then(|_| sys::unshare(sys::CLONE_NEWNS)),
            )?;
            dev::Devices::make(plan)?
        }
        Some(outfit) => outfit::devices(outfit, plan)?,
    };
    let null = at(Step::Stdio, devices.open_null())?;
    let root = attach_root(trees[0])?;
    attach_mounts(root, plan, &trees)?;
    if plan.has(flag::FILL_DEV) {
        devices.fill(root)?;
    }
    devices.extra(root, plan)?;
    let streams = streams(context, root, null, status)?;
    restrict_paths(root, plan, &devices)?;
    devices.close();
    pivot(root)?;
    if plan.has(flag::HOLD) {
        return hold(status);
    }
    if plan.has(flag::HOOKS) {
        wait_for_hooks(status)?;
    }
    names(plan)?;
    sysctls(proc, plan)?;
    limits(proc, plan, status)?;
    // Old kernels and filters around us may lack keyrings; then there is none to inherit either.
    let _ = sys::new_session_keyring();
    let identity = user::resolve(plan, proc)?;
    make_working_directory(plan)?;
    own_streams(&streams, &identity)?;
    sys::umask(plan.field(field::UMASK));
    exec::become_program(context, &streams, &identity, status)
}

/// Keeps the container's mounts, until it is killed: somebody looks at its files by way of this process.
#[unsafe(link_section = "lhchild")]
fn hold(status: i32) -> Done<Infallible> {
    exec::ready(status)?;
    let _ = sys::close_range(0, false);
    loop {
        let _ = sys::poll(&mut [], None);
    }
}

/// Says that the container is set up, and waits until its hooks have run. Without whoever runs them there is no start.
#[unsafe(link_section = "lhchild")]
fn wait_for_hooks(status: i32) -> Done {
    at(Step::Hooks, Fail::new(Step::Hooks, 0).send(status, None))?;
    match sys::read(status, &mut [0u8; 1]) {
        Ok(1) => Ok(()),
        _ => Err(Fail::new(Step::Hooks, sys::EPROTO)),
    }
}

/// Version 1: the move into each hierarchy costs milliseconds, and must come before the cgroup namespace.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn join_cgroups(context: &Context<'_>) -> Done {
    let first = context.plan.field(field::FD_V1_FIRST);
    for index in 0..context.plan.field(field::V1_COUNT) {
        let procs = context
            .fds
            .get(first + index)
            .ok_or(Fail::new(Step::Cgroup, sys::EBADMSG))?;
        at_index(Step::Cgroup, index as usize, sys::write(procs, b"0"))?;
        sys::close(procs);
    }
    Ok(())
}

/// Enters namespaces of other containers, but for that of processes, in which this process was made. Returns the tree of
/// their `/dev/shm`, or -1.
#[unsafe(link_section = "lhchild")]
fn join_others(context: &Context<'_>) -> Sys<i32> {
    if let Some(processes) = context.fd(field::FD_JOIN_PID) {
        sys::close(processes);
    }
    if let Some(ipc) = context.fd(field::FD_JOIN_IPC) {
        sys::setns(ipc, sys::CLONE_NEWIPC)?;
        sys::close(ipc);
    }
    let Some(mounts) = context.fd(field::FD_JOIN_SHM) else { return Ok(-1) };
    let tree = shared_memory(mounts)?;
    sys::close(mounts);
    Ok(tree)
}

/// A mount can be copied only from within its own namespace, from which this process would not come back: a child goes there.
#[unsafe(link_section = "lhchild")]
#[inline(never)]
fn shared_memory(mounts: i32) -> Sys<i32> {
    let [ours, theirs] = sys::socket_pair()?;
    let child = sys::fork()?;
    if child == 0 {
        let sent = copy_of_shm(mounts).and_then(|tree| message::send(theirs, b"t", &[], Some(tree)));
        sys::exit(sent.err().unwrap_or(0));
    }
    sys::close(theirs);
    let mut fds = Fds::none();
    let received = message::receive(ours, &mut [0u8; 1], &mut fds);
    sys::close(ours);
    let (_, status) = sys::wait(child, false)?;
    match (status >> 8 & 0xff, received) {
        (0, Ok(1..)) => fds.get(0).ok_or(sys::EBADMSG),
        (0, _) => Err(sys::EPROTO),
        (errno, _) => Err(errno),
    }
}

/// Whatever the other container has put there, it is its own.
#[unsafe(link_section = "lhchild")]
fn copy_of_shm(mounts: i32) -> Sys<i32> {
    sys::setns(mounts, sys::CLONE_NEWNS)?;
    let root = sys::open(AT_FDCWD, b"/\0", sys::O_PATH | sys::O_DIRECTORY)?;
    let place = path::open(root, b"/dev/shm\0", true)?;
    sys::open_tree(place, b"\0", false)
}

/// Enters the network that was made ahead, or brings up the one that came with the process.
#[unsafe(link_section = "lhchild")]
fn network(context: &Context<'_>) -> Sys<()> {
    if let Some(other) = context.fd(field::FD_JOIN_NET) {
        sys::setns(other, sys::CLONE_NEWNET)?;
        sys::close(other);
        return Ok(());
    }
    if let Some(network) = context.network {
        sys::setns(network, sys::CLONE_NEWNET)?;
        sys::close(network);
        return Ok(());
    }
    if u64::from(context.plan.field(field::NAMESPACES)) & sys::CLONE_NEWNET != 0 {
        loopback_up()?;
    }
    Ok(())
}

/// Needed for some plans only.
#[unsafe(link_section = "lhchild")]
pub(crate) fn private_proc(plan: &Plan<'_>) -> Sys<i32> {
    let squashed = plan.has(flag::SINGLE_ID) && user::may_be_another(plan);
    if plan.section(Section::Sysctls).is_empty() && !plan.has(flag::HAS_OOM_SCORE_ADJ) && !squashed {
        return Ok(-1);
    }
    if plan.has(flag::BIND_PROC) {
        return sys::open(AT_FDCWD, b"/proc\0", sys::O_PATH | sys::O_DIRECTORY);
    }
    mounts::private_proc()
}

#[unsafe(link_section = "lhchild")]
#[inline(never)]
fn make_mounts(context: &Context<'_>, memory: i32, trees: &mut [i32; MOST_MOUNTS]) -> Done {
    let mut slots = trees.iter_mut();
    for (index, record) in context.plan.mounts().enumerate() {
        let step = if index == 0 { Step::RootMount } else { Step::Mount };
        let slot = slots.next().ok_or(Fail::new(step, sys::EINVAL).index(index))?;
        *slot = match context.outfit {
            None if record.kind == mount::SHARED_MEMORY => memory,
            Some(_) if index == 0 => -1,
            Some(outfit) if outfit::provides(&record) => outfit::receive(outfit)?,
            _ => at_index(step, index, mounts::make(&record, context.fds))?,
        };
    }
    if let Some(outfit) = context.outfit {
        trees[0] = outfit::receive(outfit)?;
    }
    Ok(())
}

/// Attaches the root in the slim tree and opens it there.
#[unsafe(link_section = "lhchild")]
fn attach_root(tree: i32) -> Done<i32> {
    let step = Step::AttachRoot;
    let place = at(step, sys::open(AT_FDCWD, b"/r\0", sys::O_PATH | sys::O_DIRECTORY))?;
    at(step, sys::move_mount(tree, place))?;
    sys::close(place);
    sys::close(tree);
    at(step, sys::open(AT_FDCWD, b"/r\0", sys::O_PATH | sys::O_DIRECTORY))
}

#[unsafe(link_section = "lhchild")]
fn attach_mounts(root: i32, plan: &Plan<'_>, trees: &[i32; MOST_MOUNTS]) -> Done {
    for (index, (record, tree)) in plan.mounts().zip(trees).enumerate().skip(1) {
        attach_mount(root, index, &record, *tree)?;
    }
    Ok(())
}

#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn attach_mount(root: i32, index: usize, record: &MountRecord<'_>, tree: i32) -> Done {
    let target = record.strings.clone().next().unwrap_or(b"\0");
    let stat = at_index(Step::MountTarget, index, sys::stat_fd(tree))?;
    let directory = stat.mode & sys::S_IFMT == sys::S_IFDIR;
    let strict = record.flags & mount::STRICT != 0;
    let place = at_index(
        Step::MountTarget,
        index,
        path::open_or_make(root, target, directory, strict),
    )?;
    at_index(Step::AttachMount, index, sys::move_mount(tree, place))?;
    // What is there now must be what was attached, whatever the path led to.
    let seen = at_index(
        Step::AttachMount,
        index,
        path::open(root, target, strict).and_then(same_as(stat)),
    )?;
    for fd in [seen, place, tree] {
        sys::close(fd);
    }
    Ok(())
}

fn same_as(wanted: sys::Stat) -> impl Fn(i32) -> Sys<i32> {
    move |found| {
        let stat = sys::stat_fd(found)?;
        if stat.inode != wanted.inode || stat.dev != wanted.dev {
            Err(sys::ELOOP)
        } else {
            Ok(found)
        }
    }
}

/// The terminal (whose master goes to the owner), or pipes, or `/dev/null`.
#[unsafe(link_section = "lhchild")]
fn streams(context: &Context<'_>, root: i32, null: i32, status: i32) -> Done<Streams> {
    if context.plan.has(flag::TERMINAL) {
        let (master, peer) = dev::terminal(root, &context.plan)?;
        hand(status, Step::Terminal, master)?;
        return Ok(Streams {
            fds: [peer; 3],
            terminal: true,
        });
    }
    let fds =
        [field::FD_STDIN, field::FD_STDOUT, field::FD_STDERR].map(|position| context.fd(position).unwrap_or(null));
    Ok(Streams { fds, terminal: false })
}

/// Gives pipes and terminal to the container's user, who may re-open them by way of `/proc/self/fd`.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn own_streams(streams: &Streams, identity: &Identity) -> Done {
    for fd in streams.fds {
        let stat = at(Step::Stdio, sys::stat_fd(fd))?;
        // Never /dev/null: it is everybody's. What the kernel refuses (an id that is not mapped) fails later, as such.
        if stat.mode & sys::S_IFMT == sys::S_IFIFO || streams.terminal {
            let gid = if streams.terminal { u32::MAX } else { identity.gid };
            let _ = sys::fchownat(fd, b"\0", identity.uid, gid, sys::AT_EMPTY_PATH);
        }
    }
    Ok(())
}

#[unsafe(link_section = "lhchild")]
fn restrict_paths(root: i32, plan: &Plan<'_>, devices: &Devices) -> Done {
    for (index, target) in plan.strings(Section::Readonly).enumerate() {
        at_index(Step::ReadonlyPath, index, read_only(root, target))?;
    }
    for (index, target) in plan.strings(Section::Masked).enumerate() {
        at_index(Step::MaskedPath, index, mask(root, target, devices))?;
    }
    if plan.has(flag::READ_ONLY_ROOT) {
        at(Step::ReadonlyRoot, sys::mount_setattr(root, false, sys::ATTR_RDONLY))?;
    }
    Ok(())
}

/// Binds a path on itself, read-only. A path that is not there needs nothing.
#[unsafe(link_section = "lhchild")]
fn read_only(root: i32, target: &[u8]) -> Sys<()> {
    let place = match path::open(root, target, false) {
        Err(errno) if missing(errno) => return Ok(()),
        result => result?,
    };
    let tree = sys::open_tree(place, b"\0", true)?;
    sys::mount_setattr(tree, true, sys::ATTR_RDONLY)?;
    sys::move_mount(tree, place)?;
    sys::close(tree);
    sys::close(place);
    Ok(())
}

/// Hides a file behind `/dev/null`, a directory behind an empty one.
#[unsafe(link_section = "lhchild")]
fn mask(root: i32, target: &[u8], devices: &Devices) -> Sys<()> {
    let place = match path::open(root, target, false) {
        Err(errno) if missing(errno) => return Ok(()),
        result => result?,
    };
    let directory = sys::stat_fd(place)?.mode & sys::S_IFMT == sys::S_IFDIR;
    let tree = if directory {
        sys::open_tree(AT_FDCWD, b"/e\0", false)?
    } else {
        devices.null()?
    };
    sys::move_mount(tree, place)?;
    sys::close(tree);
    sys::close(place);
    Ok(())
}

#[unsafe(link_section = "lhchild")]
fn pivot(root: i32) -> Done {
    let step = Step::Pivot;
    at(step, sys::fchdir(root))?;
    at(step, sys::pivot_root(b".\0", b".\0"))?;
    at(step, sys::detach(b".\0"))?;
    at(step, sys::chdir(b"/\0"))?;
    sys::close(root);
    Ok(())
}

#[unsafe(link_section = "lhchild")]
fn names(plan: &Plan<'_>) -> Done {
    let bare = |text: &'_ [u8]| text.len().saturating_sub(1);
    let host = plan.text(1);
    if host.len() > 1 {
        at(Step::Hostname, sys::sethostname(host.get(..bare(host)).unwrap_or(&[])))?;
    }
    let domain = plan.text(2);
    if domain.len() > 1 {
        at_index(
            Step::Hostname,
            1,
            sys::setdomainname(domain.get(..bare(domain)).unwrap_or(&[])),
        )?;
    }
    Ok(())
}

#[unsafe(link_section = "lhchild")]
fn sysctls(proc: i32, plan: &Plan<'_>) -> Done {
    let mut list = plan.strings(Section::Sysctls);
    let mut index = 0;
    while let (Some(name), Some(value)) = (list.next(), list.next()) {
        let value = value.get(..value.len() - 1).unwrap_or(&[]);
        at_index(Step::Sysctl, index, write_proc(proc, name, value))?;
        index += 1;
    }
    Ok(())
}

/// Writes a file of the private proc: no link, no other file system on the way.
#[unsafe(link_section = "lhchild")]
fn write_proc(proc: i32, name: &[u8], value: &[u8]) -> Sys<()> {
    let resolve = sys::RESOLVE_BENEATH | sys::RESOLVE_NO_SYMLINKS | sys::RESOLVE_NO_XDEV;
    let file = sys::openat2(proc, name, sys::O_WRONLY, resolve)?;
    let result = sys::write(file, value);
    sys::close(file);
    result.map(|_| ())
}

#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn limits(proc: i32, plan: &Plan<'_>, status: i32) -> Done {
    if plan.has(flag::HAS_OOM_SCORE_ADJ) {
        lower_oom_score(proc, plan.field(field::OOM_SCORE_ADJ) as i32);
    }
    let words = plan.words(Section::Rlimits);
    for index in 0..words.len() / 5 {
        let word = |at: usize| u64::from(words.get(index * 5 + at).unwrap_or(0));
        let (soft, hard) = (word(1) | word(2) << 32, word(3) | word(4) << 32);
        let highest = at_index(Step::Rlimit, index, rlimit(word(0) as u32, soft, hard))?;
        if let Some(highest) = highest {
            let record = Record {
                step: Step::Rlimit as u32,
                index: index as u32,
                errno: 0,
                aux: aux::CLAMPED,
            };
            at(
                Step::Rlimit,
                message::send(status, &record.encode(), &highest.to_ne_bytes(), None),
            )?;
        }
    }
    Ok(())
}

/// Sets a limit; where raising the hard limit is forbidden, sets as much as is allowed, and returns that.
#[unsafe(link_section = "lhchild")]
fn rlimit(resource: u32, soft: u64, hard: u64) -> Sys<Option<u64>> {
    let set = sys::setrlimit(resource, soft, hard);
    if let Err(sys::EPERM) = set {
        let (_, highest) = sys::getrlimit(resource)?;
        sys::setrlimit(resource, soft.min(highest), hard.min(highest))?;
        return Ok(Some(highest));
    }
    set.map(|_| None)
}

/// Best effort: lowering needs `CAP_SYS_RESOURCE` on the host. The file is root's while the process cannot be dumped; no
/// other process is in this pid namespace yet.
#[unsafe(link_section = "lhchild")]
fn lower_oom_score(proc: i32, score: i32) {
    let mut text = [0u8; 64];
    let sign: &[u8] = if score < 0 { b"-" } else { b"" };
    let text = path::numbered(&mut text, sign, u64::from(score.unsigned_abs().min(1000)), b"");
    let text = text.map_or(&[] as &[u8], |text| text.get(..text.len() - 1).unwrap_or(&[]));
    sys::set_dumpable(true);
    let self_score = if sys::getpid() == 1 {
        b"1/oom_score_adj\0" as &[u8]
    } else {
        b"self/oom_score_adj\0"
    };
    let file = sys::open(proc, self_score, sys::O_WRONLY);
    if let Ok(file) = file {
        let _ = sys::write(file, text);
        sys::close(file);
    }
    sys::set_dumpable(false);
}

/// Docker makes a missing working directory, as root. What cannot be made fails when it is entered.
#[unsafe(link_section = "lhchild")]
pub(crate) fn make_working_directory(plan: &Plan<'_>) -> Done {
    let root = at(
        Step::WorkingDirectory,
        sys::open(AT_FDCWD, b"/\0", sys::O_PATH | sys::O_DIRECTORY),
    )?;
    if let Ok(dir) = path::open_or_make(root, plan.text(0), true, false) {
        sys::close(dir);
    }
    sys::close(root);
    Ok(())
}
