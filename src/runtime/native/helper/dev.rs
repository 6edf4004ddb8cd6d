//! Fills the container's `/dev`: the usual nodes and links, the plan's devices, and the terminal.

use crate::fail::{Done, at, at_index};
use crate::path;
use crate::slim::NODES;
use crate::sys::{self, AT_FDCWD, AT_SYMLINK_NOFOLLOW, Sys};
use crate::wire::{Plan, Section, Step, field, flag};

const LINKS: [(&[u8], &[u8]); 5] = [
    (b"/proc/self/fd\0", b"fd\0"),
    (b"/proc/self/fd/0\0", b"stdin\0"),
    (b"/proc/self/fd/1\0", b"stdout\0"),
    (b"/proc/self/fd/2\0", b"stderr\0"),
    (b"pts/ptmx\0", b"ptmx\0"),
];

/// Makes the nodes and links below a fresh `/dev`.
pub(crate) fn fill(root: i32, plan: &Plan<'_>) -> Done {
    let dev = at(Step::Devices, path::open(root, b"/dev\0", true))?;
    for (index, node) in NODES.iter().enumerate() {
        let made = if plan.has(flag::BIND_DEVICES) {
            bind(dev, node.name, node.place)
        } else {
            make(dev, node.name, sys::S_IFCHR | 0o666, node.device)
        };
        at_index(Step::Devices, index, made)?;
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

/// Makes the plan's own devices. In a user namespace they were opened as binds before, and are mounts of the plan.
pub(crate) fn extra(root: i32, plan: &Plan<'_>) -> Done {
    let words = plan.words(Section::Devices);
    for (index, name) in plan.strings(Section::DevicePaths).enumerate() {
        let word = |at: usize| words.get(index * 6 + at).unwrap_or(0);
        let place = at_index(Step::Device, index, parent(root, name))?;
        let (dir, base) = place;
        let kind = word(0) | word(3) & 0o777;
        let result = make(dir, base, kind, (word(1), word(2)))
            .and_then(|()| sys::fchownat(dir, base, word(4), word(5), AT_SYMLINK_NOFOLLOW));
        at_index(Step::Device, index, result)?;
        sys::close(dir);
    }
    Ok(())
}

/// The directory of a path, made if missing, and the last name in it.
fn parent(root: i32, name: &[u8]) -> Sys<(i32, &[u8])> {
    let slash = name.iter().rposition(|byte| *byte == b'/').ok_or(sys::EINVAL)?;
    let mut buffer = [0u8; path::LONGEST];
    let above = path::terminate(&mut buffer, name.get(..slash.max(1)).unwrap_or(b"/"))?;
    let dir = path::open_or_make(root, above, true, true)?;
    Ok((dir, name.get(slash + 1..).unwrap_or(b"\0")))
}

fn make(dir: i32, name: &[u8], mode: u32, device: (u32, u32)) -> Sys<()> {
    match sys::mknodat(dir, name, mode, number(device)) {
        Err(sys::EEXIST) => {
            sys::unlinkat(dir, name, 0)?;
            sys::mknodat(dir, name, mode, number(device))?;
        }
        result => {
            result?;
        }
    }
    // The umask took bits away.
    sys::fchmodat(dir, name, mode & 0o7777).map(|_| ())
}

/// The kernel's encoding of a device's number (`new_encode_dev`).
fn number((major, minor): (u32, u32)) -> u64 {
    u64::from(minor & 0xff | (major & 0xfff) << 8 | (minor & !0xff) << 12)
}

fn bind(dev: i32, name: &[u8], place: &[u8]) -> Sys<()> {
    let target = empty_file(dev, name)?;
    let tree = sys::open_tree(AT_FDCWD, place, false)?;
    sys::move_mount(tree, target)?;
    sys::close(tree);
    sys::close(target);
    Ok(())
}

fn empty_file(dev: i32, name: &[u8]) -> Sys<i32> {
    sys::close(sys::openat(
        dev,
        name,
        sys::O_CREAT | sys::O_EXCL | sys::O_NOFOLLOW,
        0o666,
    )?);
    sys::openat(dev, name, sys::O_PATH | sys::O_NOFOLLOW, 0)
}

/// A new terminal of the container's own devpts: the master and the container's side, which becomes `/dev/console` too
/// (CVE-2025-52565: descriptor to descriptor, before any program of the container runs).
pub(crate) fn terminal(root: i32, plan: &Plan<'_>) -> Done<(i32, i32)> {
    const TIOCSPTLCK: usize = 0x4004_5431;
    const TIOCGPTPEER: usize = 0x5441;
    const TIOCSWINSZ: usize = 0x5414;
    let step = Step::Terminal;
    let strict = sys::RESOLVE_IN_ROOT | sys::RESOLVE_NO_SYMLINKS;
    let flags = sys::O_RDWR | sys::O_NOCTTY;
    let master = at(step, sys::openat2(root, b"/dev/pts/ptmx\0", flags, strict))?;
    let unlock = 0i32;
    at(step, sys::ioctl(master, TIOCSPTLCK, &raw const unlock as usize))?;
    let size = [plan.field(field::ROWS) as u16, plan.field(field::COLUMNS) as u16, 0, 0];
    at(step, sys::ioctl(master, TIOCSWINSZ, size.as_ptr() as usize))?;
    let peer = at(step, sys::ioctl(master, TIOCGPTPEER, flags | sys::O_CLOEXEC))? as i32;
    let dev = at(step, path::open(root, b"/dev\0", true))?;
    let place = match empty_file(dev, b"console\0") {
        Err(sys::EEXIST) => sys::openat(dev, b"console\0", sys::O_PATH | sys::O_NOFOLLOW, 0),
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
