//! A container with a user namespace of its own. In it, its first process makes what belongs to its namespaces: proc, sysfs,
//! tmpfs and the like. What only the zygote's ids allow (overlays, binds, device nodes, the id maps themselves) is made by
//! a process beside it, the outfitter, and arrives over a socket: in the order of the
//! plan, but the root last.

use crate::dev::{self, Devices};
use crate::fail::{Done, at, at_index};
use crate::message::{self, Fds};
use crate::path::{self, terminate};
use crate::sys::{self, AT_FDCWD, Sys};
use crate::wire::{MountRecord, Plan, Section, Step, field, flag, mount};
use crate::{check, mounts, slim};

/// The socket between the two.
pub(crate) struct Line(Option<[i32; 2]>);

impl Line {
    pub(crate) fn new(wanted: bool) -> Done<Self> {
        if !wanted {
            return Ok(Self(None));
        }
        at(Step::Clone, sys::socket_pair()).map(|ends| Self(Some(ends)))
    }

    /// For the container's process: closes the other end.
    pub(crate) fn container_end(&self) -> Option<i32> {
        let [ours, theirs] = self.0?;
        sys::close(theirs);
        Some(ours)
    }

    /// For the outfitter: closes the other end.
    pub(crate) fn outfitter_end(&self) -> i32 {
        let Some([theirs, ours]) = self.0 else { return -1 };
        sys::close(theirs);
        ours
    }

    pub(crate) fn close(&self) {
        for end in self.0.into_iter().flatten() {
            sys::close(end);
        }
    }
}

/// Whether a mount is the outfitter's to make.
pub(crate) fn provides(record: &MountRecord<'_>) -> bool {
    record.kind != mount::FILESYSTEM
}

/// The container's side: waits for the id maps and takes the ids that they make of root.
pub(crate) fn become_root(socket: i32) -> Done {
    let mut fds = Fds::none();
    await_message(socket, &mut fds);
    at(Step::Identity, sys::setresgid(0))?;
    at(Step::Identity, sys::setresuid(0))?;
    Ok(())
}

/// The container's side: the next mount.
pub(crate) fn receive(socket: i32) -> Done<i32> {
    let mut fds = Fds::none();
    await_message(socket, &mut fds);
    at(Step::Outfit, fds.get(0).ok_or(sys::EBADMSG))
}

/// The outfitter's end means that it has failed, and has said why.
fn await_message(socket: i32, fds: &mut Fds) {
    let mut byte = [0u8; 1];
    match message::receive(socket, &mut byte, fds) {
        Ok(1..) => {}
        _ => sys::exit(125),
    }
}

/// The container's side: its own slim namespace, and its devices.
pub(crate) fn devices(socket: i32, plan: &Plan<'_>) -> Done<Devices> {
    let bound = plan.has(flag::BIND_DEVICES);
    let tree = if bound { -1 } else { receive(socket)? };
    sys::close(socket);
    slim::furnish(bound)?;
    if bound { Ok(Devices::bound()) } else { Devices::take(tree) }
}

/// The outfitter, in the zygote's namespaces.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn run(plan: &Plan<'_>, fds: &Fds, pid: i32, socket: i32) -> ! {
    if let Err(fail) = provide(plan, fds, pid, socket) {
        fail.report(fds.get(plan.field(field::FD_STATUS)).unwrap_or(-1));
    }
    sys::exit(0)
}

fn provide(plan: &Plan<'_>, fds: &Fds, pid: i32, socket: i32) -> Done {
    // The container's first process says why there is none.
    if !check::is_whole(plan, &|position| fds.get(position).is_some()) {
        return Ok(());
    }
    sys::umask(0);
    let proc = at(Step::Proc, mounts::private_proc())?;
    write_maps(proc, plan, pid)?;
    own_pipes(plan, fds);
    at(Step::Outfit, message::send(socket, b"m", &[], None))?;
    let userns = at(Step::IdMaps, open_of(proc, pid, b"/ns/user"))?;
    // The root last: for its layers' sake, this process may see the host's files differently from then on.
    let others = plan.mounts().enumerate().skip(1).filter(|(_, record)| provides(record));
    for (index, record) in others.chain(plan.mounts().enumerate().take(1)) {
        let mapped = plan.has(flag::ID_MAPPED) && record.flags & mount::ID_MAP != 0;
        let tree = make(index, &record, fds, mapped.then_some(userns), root_of(plan))?;
        hand_over(socket, tree)?;
    }
    if !plan.has(flag::BIND_DEVICES) {
        hand_over(socket, dev::nodes(plan)?)?;
    }
    Ok(())
}

fn hand_over(socket: i32, tree: i32) -> Done {
    at(Step::Outfit, message::send(socket, b"t", &[], Some(tree)))?;
    sys::close(tree);
    Ok(())
}

/// `/proc/PID/…` of a private proc.
fn open_of(proc: i32, pid: i32, file: &[u8]) -> Sys<i32> {
    open_with(proc, pid, file, 0)
}

#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn open_with(proc: i32, pid: i32, file: &[u8], flags: usize) -> Sys<i32> {
    let mut name = [0u8; 64];
    sys::open(proc, path::numbered(&mut name, b"", u64::from(pid.unsigned_abs()), file)?, flags)
}

fn write_maps(proc: i32, plan: &Plan<'_>, pid: i32) -> Done {
    let mut texts = plan.strings(Section::IdMaps);
    for (index, name) in [b"/uid_map" as &[u8], b"/gid_map"].into_iter().enumerate() {
        let text = texts.next().and_then(|text| text.split_last()).map_or(&[] as &[u8], |(_, text)| text);
        let written = open_with(proc, pid, name, sys::O_WRONLY).and_then(|file| {
            let result = sys::write(file, text);
            sys::close(file);
            result
        });
        at_index(Step::IdMaps, index, written)?;
    }
    Ok(())
}

/// A user namespace with these maps, that nobody is in: what id-mapped mounts want.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn namespace_of_maps(uids: &[u8], gids: &[u8]) -> Sys<i32> {
    const SIGCHLD: u64 = 17;
    let proc = mounts::private_proc()?;
    let [ours, theirs] = sys::socket_pair()?;
    let args = sys::CloneArgs {
        flags: sys::CLONE_NEWUSER,
        exit_signal: SIGCHLD,
        ..sys::CloneArgs::default()
    };
    let child = sys::clone3(&args)?;
    if child == 0 {
        // Until it was looked at.
        sys::close(ours);
        let _ = message::receive(theirs, &mut [0u8; 1], &mut Fds::none());
        sys::exit(0);
    }
    sys::close(theirs);
    let bare = |text: &'_ [u8]| text.len().saturating_sub(1);
    let mapped = write_map(proc, child, b"/uid_map", uids.get(..bare(uids)).unwrap_or(&[]))
        .and_then(|()| write_map(proc, child, b"/gid_map", gids.get(..bare(gids)).unwrap_or(&[])))
        .and_then(|()| open_of(proc, child, b"/ns/user"));
    sys::close(ours);
    sys::close(proc);
    let _ = sys::wait(child, false);
    mapped
}

#[unsafe(link_section = "lhchild")]
fn write_map(proc: i32, pid: i32, name: &[u8], text: &[u8]) -> Sys<()> {
    let file = open_with(proc, pid, name, sys::O_WRONLY)?;
    let result = sys::write(file, text);
    sys::close(file);
    result.map(drop)
}

fn root_of(plan: &Plan<'_>) -> (u32, u32) {
    (plan.field(field::ROOT_UID), plan.field(field::ROOT_GID))
}

/// The standard streams become the container's root's, who may give them to the program's user.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn own_pipes(plan: &Plan<'_>, fds: &Fds) {
    let owner = root_of(plan);
    for position in [field::FD_STDIN, field::FD_STDOUT, field::FD_STDERR] {
        let Some(fd) = fds.get(plan.field(position)) else { continue };
        if sys::stat_fd(fd).is_ok_and(|stat| stat.mode & sys::S_IFMT == sys::S_IFIFO) {
            let _ = sys::fchownat(fd, b"\0", owner.0, owner.1, sys::AT_EMPTY_PATH);
        }
    }
}

fn make(index: usize, record: &MountRecord<'_>, fds: &Fds, userns: Option<i32>, root: (u32, u32)) -> Done<i32> {
    let step = if index == 0 { Step::RootMount } else { Step::Mount };
    let Some(userns) = userns else {
        return at_index(step, index, mounts::make(record, fds));
    };
    if record.kind == mount::OVERLAY {
        at_index(Step::IdMappedMount, index, map_layers(record, userns))?;
        at(Step::Identity, become_owner(root))?;
        return at_index(Step::IdMappedMount, index, mounts::make(record, fds));
    }
    let tree = at_index(step, index, mounts::make(record, fds))?;
    let kind = at_index(step, index, sys::stat_fd(tree))?.mode & sys::S_IFMT;
    // A device that the caller named keeps its owner: the file systems that hold them know no maps.
    if kind != sys::S_IFCHR && kind != sys::S_IFBLK {
        at_index(Step::IdMappedMount, index, sys::map_ids(tree, userns))?;
    }
    Ok(tree)
}

/// Overlay makes its own files (work directories, copies, whiteouts) as whoever mounts it, and through the map only the
/// container's ids have a meaning: this process becomes the container's root, and keeps its capabilities.
fn become_owner(root: (u32, u32)) -> Sys<()> {
    const PR_SET_KEEPCAPS: usize = 8;
    sys::prctl(PR_SET_KEEPCAPS, 1, 0)?;
    sys::setresgid(root.1)?;
    sys::setresuid(root.0)?;
    sys::raise_capabilities()?;
    Ok(())
}

/// Overlay knows maps of its layers only, and wants the upper and the work directory on one mount: a mapped copy of the
/// mount below their common parent is attached over it, in a namespace of this process alone.
fn map_layers(record: &MountRecord<'_>, userns: i32) -> Sys<()> {
    let mut parent: &[u8] = b"";
    for directory in record.strings.clone().skip(1).filter(|directory| directory.len() > 1) {
        let bare = directory.get(..directory.len() - 1).unwrap_or(&[]);
        parent = if parent.is_empty() { bare } else { common(parent, bare) };
    }
    let mut buffer = [0u8; path::LONGEST];
    let place = terminate(&mut buffer, if parent.is_empty() { b"/" } else { parent })?;
    let device = sys::statx(AT_FDCWD, place, 0)?.dev;
    for directory in record.strings.clone().skip(1).filter(|directory| directory.len() > 1) {
        if sys::statx(AT_FDCWD, directory, 0)?.dev != device {
            const EXDEV: i32 = 18;
            return Err(EXDEV);
        }
    }
    sys::unshare(sys::CLONE_NEWNS)?;
    sys::make_private()?;
    let place = sys::open(AT_FDCWD, place, sys::O_PATH | sys::O_DIRECTORY)?;
    let tree = sys::open_tree(place, b"\0", false)?;
    sys::map_ids(tree, userns)?;
    sys::move_mount(tree, place)?;
    sys::close(tree);
    sys::close(place);
    Ok(())
}

/// The longest directory that is above (or is) both.
fn common<'a>(one: &'a [u8], other: &[u8]) -> &'a [u8] {
    let same = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    let ends = |text: &[u8]| text.len() == same || text.get(same) == Some(&b'/');
    let len = if ends(one) && ends(other) {
        same
    } else {
        one.get(..same).unwrap_or(&[]).iter().rposition(|byte| *byte == b'/').unwrap_or(0)
    };
    one.get(..len).unwrap_or(&[])
}
