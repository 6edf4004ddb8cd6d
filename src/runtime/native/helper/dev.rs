//! Fills the container's `/dev`: the usual nodes and links, the plan's devices, and the terminal.

use crate::fail::{Done, at, at_index};
use crate::path;
use crate::slim::{self, NODES, Node};
use crate::sys::{self, AT_FDCWD, AT_SYMLINK_NOFOLLOW, Sys};
use crate::wire::{Plan, Section, Step, field, flag};

const LINKS: [(&[u8], &[u8]); 5] = [
    (b"/proc/self/fd\0", b"fd\0"),
    (b"/proc/self/fd/0\0", b"stdin\0"),
    (b"/proc/self/fd/1\0", b"stdout\0"),
    (b"/proc/self/fd/2\0", b"stderr\0"),
    (b"pts/ptmx\0", b"ptmx\0"),
];

/// Where a container's devices come from. Every other mount that it can write to is `nodev`, so that what it makes by
/// `mknod(2)` (Docker's default capabilities allow it) opens nothing; devices are mounts of single nodes.
///
/// The nodes are the container's own, on a tmpfs that is attached nowhere in its root: it may change their mode without
/// changing the host's. Where devices cannot be made they are the host's, which a user namespace cannot change.
pub(crate) struct Devices {
    made: Option<i32>,
}

impl Devices {
    /// Makes the usual nodes. To be called in the container's copy of the slim namespace, with an umask of 0.
    #[unsafe(link_section = "lhchild")]
    pub(crate) fn make(plan: &Plan<'_>) -> Done<Self> {
        if plan.has(flag::BIND_DEVICES) {
            return Ok(Self { made: None });
        }
        let tree = nodes(plan)?;
        Self::take(tree)
    }

    /// Takes the nodes that [`nodes`] has made.
    #[unsafe(link_section = "lhchild")]
    pub(crate) fn take(tree: i32) -> Done<Self> {
        // A tree that is attached nowhere cannot be the source of a bind, before Linux 6.15.
        at(Step::Devices, slim::attach(tree, b"/d\0"))?;
        let dir = sys::open(AT_FDCWD, b"/d\0", sys::O_PATH | sys::O_DIRECTORY);
        Ok(Self {
            made: Some(at(Step::Devices, dir)?),
        })
    }

    /// None are made; they are binds of the host's.
    pub(crate) fn bound() -> Self {
        Self { made: None }
    }

    pub(crate) fn close(self) {
        if let Some(dir) = self.made {
            sys::close(dir);
        }
    }

    /// A detached mount of a usual node.
    fn tree(&self, node: &Node) -> Sys<i32> {
        match self.made {
            Some(dir) => sys::open_tree(dir, node.name, false),
            None => sys::open_tree(AT_FDCWD, node.place, false),
        }
    }

    /// A detached mount of `null`.
    pub(crate) fn null(&self) -> Sys<i32> {
        self.tree(&NODES[0])
    }

    pub(crate) fn open_null(&self) -> Sys<i32> {
        match self.made {
            Some(dir) => sys::open(dir, NODES[0].name, sys::O_RDWR),
            None => sys::open(AT_FDCWD, NODES[0].place, sys::O_RDWR),
        }
    }

    /// Mounts the nodes, and makes the links, below a fresh `/dev`.
    #[unsafe(link_section = "lhchild")]
    pub(crate) fn fill(&self, root: i32) -> Done {
        let dev = at(Step::Devices, path::open(root, b"/dev\0", true))?;
        for (index, node) in NODES.iter().enumerate() {
            at_index(Step::Devices, index, self.bind(dev, node))?;
        }
        for (index, (target, name)) in LINKS.iter().enumerate() {
            match sys::symlinkat(target, dev, name) {
                Ok(_) | Err(sys::EEXIST) => {}
                Err(errno) => return at_index(Step::Devices, NODES.len() + index, Err(errno)),
            }
        }
        sys::close(dev);
        Ok(())
    }

    #[unsafe(link_section = "lhchild")]
    fn bind(&self, dev: i32, node: &Node) -> Sys<()> {
        let target = match empty_file(dev, node.name) {
            // One of the plan's mounts, which the caller prefers.
            Err(sys::EEXIST) => return Ok(()),
            result => result?,
        };
        let tree = self.tree(node)?;
        sys::move_mount(tree, target)?;
        sys::close(tree);
        sys::close(target);
        Ok(())
    }

    /// Mounts the plan's own devices. Where they cannot be made, they were opened as binds before, and are mounts of the
    /// plan.
    #[unsafe(link_section = "lhchild")]
    pub(crate) fn extra(&self, root: i32, plan: &Plan<'_>) -> Done {
        for (index, place) in plan.strings(Section::DevicePaths).enumerate() {
            at_index(Step::Device, index, self.bind_extra(root, place, &extra_name(index)))?;
        }
        Ok(())
    }

    fn bind_extra(&self, root: i32, place: &[u8], name: &[u8]) -> Sys<()> {
        let dir = self.made.ok_or(sys::EPERM)?;
        let tree = sys::open_tree(dir, name, false)?;
        let target = path::open_or_make(root, place, false, true)?;
        sys::move_mount(tree, target)?;
        sys::close(target);
        sys::close(tree);
        Ok(())
    }
}

/// The usual nodes and the plan's, on a tmpfs that is attached nowhere. To be called with an umask of 0.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn nodes(plan: &Plan<'_>) -> Done<i32> {
    let step = Step::Devices;
    let tree = at(step, slim::tmpfs(b"64k\0", sys::ATTR_NOSUID | sys::ATTR_NOEXEC))?;
    let root = (plan.field(field::ROOT_UID), plan.field(field::ROOT_GID));
    for (index, node) in NODES.iter().enumerate() {
        let made = make_node(tree, node.name, sys::S_IFCHR | 0o666, node.device, root);
        at_index(step, index, made)?;
    }
    let words = plan.words(Section::Devices);
    for index in 0..plan.strings(Section::DevicePaths).count() {
        let word = |at: usize| words.get(index * 6 + at).unwrap_or(0);
        let mode = word(0) | word(3) & 0o777;
        let made = make_node(tree, &extra_name(index), mode, (word(1), word(2)), (word(4), word(5)));
        at_index(Step::Device, index, made)?;
    }
    Ok(tree)
}

#[inline(never)]
#[unsafe(link_section = "lhchild")]
fn make_node(dir: i32, name: &[u8], mode: u32, device: (u32, u32), owner: (u32, u32)) -> Sys<()> {
    sys::mknodat(dir, name, mode, number(device))?;
    if owner != (0, 0) {
        sys::fchownat(dir, name, owner.0, owner.1, AT_SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// A name that none of [`NODES`] has.
fn extra_name(index: usize) -> [u8; 10] {
    let mut name = *b"x00000000\0";
    let mut rest = index;
    for digit in name[1..9].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    name
}

/// The kernel's encoding of a device's number (`new_encode_dev`).
fn number((major, minor): (u32, u32)) -> u64 {
    u64::from(minor & 0xff | (major & 0xfff) << 8 | (minor & !0xff) << 12)
}

fn empty_file(dev: i32, name: &[u8]) -> Sys<i32> {
    sys::close(sys::openat(
        dev,
        name,
        sys::O_CREAT | sys::O_EXCL | sys::O_NOFOLLOW,
        0o666,
    )?);
    sys::open(dev, name, sys::O_PATH | sys::O_NOFOLLOW)
}

/// A new terminal of the devpts below a root: the master and the other side. What lies in the master's place must be one,
/// as a running container may have put anything there.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn new_terminal(root: i32, plan: &Plan<'_>) -> Done<(i32, i32)> {
    const TIOCSPTLCK: usize = 0x4004_5431;
    const TIOCGPTPEER: usize = 0x5441;
    const TIOCSWINSZ: usize = 0x5414;
    const PTMX: (u32, u32) = (5, 2);
    let step = Step::Terminal;
    let strict = sys::RESOLVE_IN_ROOT | sys::RESOLVE_NO_SYMLINKS;
    let flags = sys::O_RDWR | sys::O_NOCTTY;
    let master = at(step, sys::openat2(root, b"/dev/pts/ptmx\0", flags, strict))?;
    let stat = at(step, sys::stat_fd(master))?;
    if stat.mode & sys::S_IFMT != sys::S_IFCHR || stat.rdev != PTMX {
        return at(step, Err(sys::ENOTTY));
    }
    let unlock = 0i32;
    at(step, sys::ioctl(master, TIOCSPTLCK, &raw const unlock as usize))?;
    let size = [plan.field(field::ROWS) as u16, plan.field(field::COLUMNS) as u16, 0, 0];
    at(step, sys::ioctl(master, TIOCSWINSZ, size.as_ptr() as usize))?;
    let peer = at(step, sys::ioctl(master, TIOCGPTPEER, flags | sys::O_CLOEXEC))? as i32;
    Ok((master, peer))
}

/// A new terminal of the container's own devpts: the master and the container's side, which becomes `/dev/console` too
/// (CVE-2025-52565: descriptor to descriptor, before any program of the container runs).
#[unsafe(link_section = "lhchild")]
pub(crate) fn terminal(root: i32, plan: &Plan<'_>) -> Done<(i32, i32)> {
    let step = Step::Terminal;
    let (master, peer) = new_terminal(root, plan)?;
    let dev = at(step, path::open(root, b"/dev\0", true))?;
    let place = match empty_file(dev, b"console\0") {
        Err(sys::EEXIST) => sys::open(dev, b"console\0", sys::O_PATH | sys::O_NOFOLLOW),
        result => result,
    };
    let place = at(step, place)?;
    let tree = at(step, sys::open_tree(peer, b"\0", false))?;
    at(step, sys::move_mount(tree, place))?;
    for fd in [dev, place, tree] {
        sys::close(fd);
    }
    Ok((master, peer))
}
