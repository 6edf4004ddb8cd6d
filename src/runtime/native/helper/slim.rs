//! The slim mount namespace: an empty root from which containers' namespaces are copied, so that a start costs the same on
//! a host with three mounts and with three thousand.
//!
//! It holds `/r`, where a container's root is attached; `/e`, an empty read-only tmpfs for masks (made here, before any
//! container's content can be seen: CVE-2025-31133); `/d`, where each container's own devices are made; and where they
//! cannot be made, `/d0` to `/d5`, the host's devices of [`NODES`].

use crate::fail::{Done, at};
use crate::sys::{self, AT_FDCWD, ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY};
use crate::wire::Step;

/// A device that every container has: the host's path, the name below `/dev`, its number, and its place in the slim root.
pub(crate) struct Node {
    pub(crate) host: &'static [u8],
    pub(crate) name: &'static [u8],
    pub(crate) device: (u32, u32),
    pub(crate) place: &'static [u8],
}

pub(crate) const NODES: [Node; 6] = [
    Node {
        host: b"/dev/null\0",
        name: b"null\0",
        device: (1, 3),
        place: b"/d0\0",
    },
    Node {
        host: b"/dev/zero\0",
        name: b"zero\0",
        device: (1, 5),
        place: b"/d1\0",
    },
    Node {
        host: b"/dev/full\0",
        name: b"full\0",
        device: (1, 7),
        place: b"/d2\0",
    },
    Node {
        host: b"/dev/random\0",
        name: b"random\0",
        device: (1, 8),
        place: b"/d3\0",
    },
    Node {
        host: b"/dev/urandom\0",
        name: b"urandom\0",
        device: (1, 9),
        place: b"/d4\0",
    },
    Node {
        host: b"/dev/tty\0",
        name: b"tty\0",
        device: (5, 0),
        place: b"/d5\0",
    },
];

/// Two namespaces: where host paths mean what they mean to the owner, and the slim one. The process stays in the view.
pub(crate) fn make(bind_devices: bool) -> Done<i32> {
    let root = at(
        Step::ViewNamespace,
        sys::open(AT_FDCWD, b"/\0", sys::O_PATH | sys::O_DIRECTORY),
    )?;
    let proc = at(
        Step::ViewNamespace,
        sys::open(AT_FDCWD, b"/proc\0", sys::O_PATH | sys::O_DIRECTORY),
    )?;
    let view = at(Step::ViewNamespace, sys::open(proc, b"self/ns/mnt\0", 0))?;
    let made = build(proc, bind_devices);
    at(Step::ViewNamespace, sys::setns(view, sys::CLONE_NEWNS))?;
    // The owner may live in a chroot; setns() went to the namespace's own root.
    at(
        Step::ViewNamespace,
        sys::fchdir(root)
            .and_then(|_| sys::chroot(b".\0"))
            .and_then(|_| sys::chdir(b"/\0")),
    )?;
    for fd in [root, proc, view] {
        sys::close(fd);
    }
    made
}

fn build(proc: i32, bind_devices: bool) -> Done<i32> {
    let step = Step::SlimNamespace;
    at(step, sys::unshare(sys::CLONE_NEWNS))?;
    furnish(bind_devices)?;
    at(step, sys::open(proc, b"self/ns/mnt\0", 0))
}

/// Makes the mount namespace of the caller, which is its own, a slim one.
pub(crate) fn furnish(bind_devices: bool) -> Done {
    let step = Step::SlimNamespace;
    at(step, sys::make_private())?;
    let count = if bind_devices { NODES.len() } else { 0 };
    let mut devices = [-1; NODES.len()];
    for (slot, node) in devices.iter_mut().zip(&NODES).take(count) {
        *slot = host_device(node)?;
    }
    let root = at(step, tmpfs(b"64k\0", ATTR_NOSUID | ATTR_NODEV))?;
    at(step, places(root))?;
    let old = at(step, sys::open(AT_FDCWD, b"/\0", sys::O_PATH | sys::O_DIRECTORY))?;
    at(step, sys::move_mount(root, old))?;
    at(step, sys::fchdir(root))?;
    at(step, sys::pivot_root(b".\0", b".\0"))?;
    at(step, sys::detach(b".\0"))?;
    at(step, sys::chdir(b"/\0"))?;
    for (device, node) in devices.iter().zip(&NODES).take(count) {
        at(step, attach(*device, node.place))?;
    }
    let empty = at(
        step,
        tmpfs(b"4k\0", ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC | ATTR_RDONLY),
    )?;
    at(step, attach(empty, b"/e\0"))?;
    sys::close(root);
    sys::close(old);
    Ok(())
}

/// A detached copy of the mount of a host's device, checked to be that device.
fn host_device(node: &Node) -> Done<i32> {
    let tree = at(Step::SlimNamespace, sys::open_tree(AT_FDCWD, node.host, false))?;
    let stat = at(Step::SlimNamespace, sys::stat_fd(tree))?;
    if stat.mode & sys::S_IFMT != sys::S_IFCHR || stat.rdev != node.device {
        return at(Step::SlimNamespace, Err(sys::EINVAL));
    }
    Ok(tree)
}

fn places(root: i32) -> sys::Sys<()> {
    sys::mkdirat(root, b"r\0", 0o755)?;
    sys::mkdirat(root, b"e\0", 0o755)?;
    sys::mkdirat(root, b"d\0", 0o755)?;
    for node in &NODES {
        let name = node.place.get(1..).unwrap_or(b"\0");
        sys::close(sys::openat(root, name, sys::O_CREAT | sys::O_EXCL, 0o644)?);
    }
    Ok(())
}

/// Attaches a detached mount.
pub(crate) fn attach(mount: i32, place: &[u8]) -> sys::Sys<()> {
    let target = sys::open(AT_FDCWD, place, sys::O_PATH)?;
    let result = sys::move_mount(mount, target);
    sys::close(target);
    sys::close(mount);
    result.map(|_| ())
}

pub(crate) fn tmpfs(size: &[u8], attributes: u64) -> sys::Sys<i32> {
    let context = sys::fsopen(b"tmpfs\0")?;
    sys::fsconfig_set(context, b"mode\0", Some(b"755\0"))?;
    sys::fsconfig_set(context, b"size\0", Some(size))?;
    sys::fsconfig_create(context)?;
    let mount = sys::fsmount(context, attributes)?;
    sys::close(context);
    Ok(mount)
}
