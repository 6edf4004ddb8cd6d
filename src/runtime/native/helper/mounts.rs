//! Makes the plan's mounts as detached trees. Runs in the view namespace, where host paths mean what the owner meant, and
//! where a user namespace may mount `proc` and `sysfs` because the host's are to be seen.

use crate::message::Fds;
use crate::outfit;
#[cfg(shim)]
use crate::path::numbered;
use crate::path::terminate;
use crate::sys::{self, AT_FDCWD, Sys};
use crate::wire::{MountRecord, Strings, mount};

/// Makes one mount and returns it detached.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn make(record: &MountRecord<'_>, fds: &Fds) -> Sys<i32> {
    match record.kind {
        mount::BIND => bind(record),
        mount::TREE => tree(record, fds),
        mount::OVERLAY => overlay(record),
        mount::FILESYSTEM => filesystem(record, fds),
        _ => Err(sys::EINVAL),
    }
}

/// The part that is asked for.
#[unsafe(link_section = "lhchild")]
fn subpath<'a>(record: &MountRecord<'a>) -> Option<&'a [u8]> {
    if record.flags & mount::SUBPATH == 0 {
        return None;
    }
    record.strings.clone().last()
}

/// A copy of the mount at a path beneath a directory. A link may lead about in it, and not out of it.
#[unsafe(link_section = "lhchild")]
fn part_of(directory: i32, path: &[u8], recursive: bool) -> Sys<i32> {
    let resolve = sys::RESOLVE_BENEATH | sys::RESOLVE_NO_MAGICLINKS;
    let place = sys::openat2(directory, path, sys::O_PATH, resolve)?;
    let copied = sys::open_tree(place, b"\0", recursive);
    sys::close(place);
    copied
}

/// A copy of a mount whose descriptor came along, or that mount itself.
#[unsafe(link_section = "lhchild")]
fn tree(record: &MountRecord<'_>, fds: &Fds) -> Sys<i32> {
    let whole = fds.get(record.flags >> mount::FD_SHIFT).ok_or(sys::EBADMSG)?;
    let tree = match subpath(record) {
        None if record.flags & mount::GIVEN != 0 => whole,
        Some(part) => part_of(whole, part, true)?,
        None => sys::open_tree(whole, b"\0", true)?,
    };
    dress(record, tree)
}

#[unsafe(link_section = "lhchild")]
fn bind(record: &MountRecord<'_>) -> Sys<i32> {
    let source = record.strings.clone().nth(1).ok_or(sys::EBADMSG)?;
    let recursive = record.flags & mount::RECURSIVE != 0;
    if let Some(part) = subpath(record) {
        let whole = sys::open(AT_FDCWD, source, sys::O_PATH | sys::O_DIRECTORY)?;
        let tree = part_of(whole, part, recursive);
        sys::close(whole);
        return dress(record, tree?);
    }
    let tree = match sys::open_tree(AT_FDCWD, source, recursive) {
        // In a user namespace, mounts below cannot be left out: they hide what is under them.
        Err(sys::EINVAL) if !recursive => sys::open_tree(AT_FDCWD, source, true)?,
        result => result?,
    };
    dress(record, tree)
}

/// Attributes, propagation and ids of a copied mount. A copy of a shared mount is shared with it until that is changed.
#[unsafe(link_section = "lhchild")]
fn dress(record: &MountRecord<'_>, tree: i32) -> Sys<i32> {
    const MS_PRIVATE: u64 = 1 << 18;
    const MS_SLAVE: u64 = 1 << 19;
    let mut attributes = u64::from(record.attributes);
    // A single device is what the caller named; in a directory, the container could make others.
    if record.flags & mount::NO_DEVICES != 0 && sys::stat_fd(tree)?.mode & sys::S_IFMT == sys::S_IFDIR {
        attributes |= sys::ATTR_NODEV;
    }
    let top = record.flags & mount::PROPAGATE_TOP != 0;
    let wanted = match record.flags & (mount::SLAVE | mount::SHARED) {
        0 => MS_PRIVATE,
        mount::SLAVE => MS_SLAVE,
        // It is shared with what it was copied from.
        _ => 0,
    };
    if attributes != 0 || wanted != 0 && !top {
        sys::mount_change(tree, true, attributes, if top { 0 } else { wanted })?;
    }
    if top && wanted != 0 {
        sys::mount_change(tree, false, 0, wanted)?;
    }
    if record.flags & mount::READ_ONLY_TOP != 0 {
        sys::mount_setattr(tree, false, sys::ATTR_RDONLY)?;
    }
    if record.flags & mount::OWN_MAP != 0 {
        let mut maps = record.strings.clone().skip(2);
        let (uids, gids) = (maps.next().ok_or(sys::EBADMSG)?, maps.next().ok_or(sys::EBADMSG)?);
        let userns = outfit::namespace_of_maps(uids, gids)?;
        let mapped = sys::map_ids(tree, userns);
        sys::close(userns);
        mapped?;
    }
    Ok(tree)
}

#[unsafe(link_section = "lhchild")]
fn filesystem(record: &MountRecord<'_>, fds: &Fds) -> Sys<i32> {
    let mut strings = record.strings.clone().skip(1);
    let kind = strings.next().ok_or(sys::EBADMSG)?;
    let source = strings.next().ok_or(sys::EBADMSG)?;
    let context = sys::fsopen(kind)?;
    let _ = sys::fsconfig_set(context, b"source\0", Some(source));
    for option in strings {
        configure(context, option)?;
    }
    if kind == b"fuse\0" {
        serve(context, fds.get(0).ok_or(sys::EBADMSG)?)?;
    }
    finish(context, u64::from(record.attributes))
}

/// Sets `key=value` or a flag.
#[unsafe(link_section = "lhchild")]
fn configure(context: i32, option: &[u8]) -> Sys {
    let Some(equals) = option.iter().position(|byte| *byte == b'=') else {
        return sys::fsconfig_set(context, option, None);
    };
    let mut key = [0u8; 64];
    let key = terminate(&mut key, option.get(..equals).unwrap_or(&[]))?;
    sys::fsconfig_set(context, key, option.get(equals + 1..))
}

/// Names the open device of a FUSE, by number: as a descriptor it is taken from Linux 6.8 on.
#[unsafe(link_section = "lhchild")]
fn serve(context: i32, device: i32) -> Sys {
    let digit = |unit: i32| b'0' + (device / unit % 10) as u8;
    sys::fsconfig_set(context, b"fd\0", Some(&[digit(1000), digit(100), digit(10), digit(1), 0]))
}

fn finish(context: i32, attributes: u64) -> Sys<i32> {
    sys::fsconfig_create(context)?;
    let mount = sys::fsmount(context, attributes)?;
    sys::close(context);
    Ok(mount)
}

/// The layers of an overlay, the topmost first: behind its place, upper and work directory, and before the part of it that may
/// be asked for.
#[unsafe(link_section = "lhchild")]
fn layers<'a>(record: &MountRecord<'a>) -> core::iter::Take<core::iter::Skip<Strings<'a>>> {
    let others = 3 + usize::from(record.flags & mount::SUBPATH != 0);
    let count = record.strings.clone().count().saturating_sub(others);
    record.strings.clone().skip(3).take(count)
}

#[unsafe(link_section = "lhchild")]
fn overlay(record: &MountRecord<'_>) -> Sys<i32> {
    let mut strings = record.strings.clone().skip(1);
    let upper = strings.next().ok_or(sys::EBADMSG)?;
    let work = strings.next().ok_or(sys::EBADMSG)?;
    let context = sys::fsopen(b"overlay\0")?;
    sys::fsconfig_set(context, b"source\0", Some(b"overlay\0"))?;
    for lower in layers(record) {
        match set_directory(context, b"lowerdir+\0", lower) {
            Ok(_) => {}
            // From Linux 6.5 to 6.7 there is no such key.
            Err(sys::EINVAL) => {
                sys::close(context);
                return overlay_by_mount(record);
            }
            Err(errno) => return Err(errno),
        }
    }
    if upper.len() > 1 {
        set_directory(context, b"upperdir\0", upper)?;
        set_directory(context, b"workdir\0", work)?;
    }
    if record.flags & mount::USER_XATTR != 0 {
        sys::fsconfig_set(context, b"userxattr\0", None)?;
    }
    if record.flags & mount::VOLATILE != 0 && upper.len() > 1 {
        sys::fsconfig_set(context, b"volatile\0", None)?;
    }
    // What these turn off may be compiled out, or off already.
    let _ = sys::fsconfig_set(context, b"index\0", Some(b"off\0"));
    let _ = sys::fsconfig_set(context, b"metacopy\0", Some(b"off\0"));
    // A renamed directory would only be known by an attribute, in a layer that others read.
    let _ = sys::fsconfig_set(context, b"redirect_dir\0", Some(b"nofollow\0"));
    let tree = match finish(context, u64::from(record.attributes)) {
        // Before Linux 6.5, options are but collected, and refused now.
        Err(sys::EINVAL) => return overlay_by_mount(record),
        result => result?,
    };
    let Some(part) = subpath(record) else { return Ok(tree) };
    let copied = part_of(tree, part, false);
    sys::close(tree);
    match copied {
        // Before Linux 6.15, what is attached nowhere is not copied.
        Err(sys::EINVAL) => overlay_by_mount(record),
        copied => copied,
    }
}

/// Sets a directory. The call takes 255 bytes at most, so that a longer path goes by way of a descriptor.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
fn set_directory(context: i32, key: &[u8], path: &[u8]) -> Sys {
    if path.len() <= 255 {
        return sys::fsconfig_set(context, key, Some(path));
    }
    let directory = sys::open(AT_FDCWD, path, sys::O_PATH | sys::O_DIRECTORY)?;
    let mut name = Text::new();
    name.add(b"/proc/self/fd/")?;
    name.add_number(directory as u32)?;
    let result = sys::fsconfig_set(context, key, Some(name.finish()?));
    sys::close(directory);
    result
}

/// Before Linux 6.8: the older call, with all directories in one string of short names. It attaches, so that it needs a
/// namespace of its own; and what is attached is copied by every kernel.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
fn overlay_by_mount(record: &MountRecord<'_>) -> Sys<i32> {
    let mut strings = record.strings.clone().skip(1);
    let upper = strings.next().ok_or(sys::EBADMSG)?;
    let work = strings.next().ok_or(sys::EBADMSG)?;
    // First of all: a directory opened before is one of another namespace, which the kernel does not take for a layer.
    sys::unshare(sys::CLONE_NEWNS)?;
    sys::make_private()?;
    let mut options = Text::new();
    options.add(b"index=off,metacopy=off,redirect_dir=nofollow")?;
    if record.flags & mount::USER_XATTR != 0 {
        options.add(b",userxattr")?;
    }
    let mut place = None;
    for (index, lower) in layers(record).enumerate() {
        options.add(if index == 0 { b",lowerdir=" } else { b":" })?;
        options.add_directory(lower)?;
        place = place.or(Some(lower));
    }
    if upper.len() > 1 {
        options.add(b",upperdir=")?;
        options.add_directory(upper)?;
        options.add(b",workdir=")?;
        options.add_directory(work)?;
        if record.flags & mount::VOLATILE != 0 {
            options.add(b",volatile")?;
        }
    }
    let place = place.ok_or(sys::EINVAL)?;
    sys::mount(b"overlay\0", place, b"overlay\0", 0, options.finish()?)?;
    let tree = match subpath(record) {
        Some(part) => {
            let whole = sys::open(AT_FDCWD, place, sys::O_PATH | sys::O_DIRECTORY)?;
            let copied = part_of(whole, part, false);
            sys::close(whole);
            copied?
        }
        None => sys::open_tree(AT_FDCWD, place, false)?,
    };
    // It covers a layer, which the next mount may be made of.
    sys::detach(place)?;
    if record.attributes != 0 {
        sys::mount_setattr(tree, false, u64::from(record.attributes))?;
    }
    Ok(tree)
}

/// A growing text of at most a page, as mount options are.
struct Text {
    bytes: [u8; 4096],
    len: usize,
}

impl Text {
    fn new() -> Self {
        Self {
            bytes: [0; 4096],
            len: 0,
        }
    }

    fn add(&mut self, text: &[u8]) -> Sys<()> {
        const E2BIG: i32 = 7;
        for byte in text {
            *self.bytes.get_mut(self.len).ok_or(E2BIG)? = *byte;
            self.len += 1;
        }
        Ok(())
    }

    fn add_number(&mut self, number: u32) -> Sys<()> {
        if number >= 10 {
            self.add_number(number / 10)?;
        }
        self.add(&[b'0' + (number % 10) as u8])
    }

    /// Adds a short name for a directory, which stays open.
    fn add_directory(&mut self, path: &[u8]) -> Sys<()> {
        let directory = sys::open(AT_FDCWD, path, sys::O_PATH | sys::O_DIRECTORY)?;
        self.add(b"/proc/self/fd/")?;
        self.add_number(directory as u32)
    }

    fn finish(&mut self) -> Sys<&[u8]> {
        self.add(&[0])?;
        Ok(self.bytes.get(..self.len).unwrap_or(b"\0"))
    }
}

/// A `proc` of the caller's own pid namespace that is attached nowhere: no content of a container can stand in its way
/// (CVE-2025-52881 and its kin).
#[unsafe(link_section = "lhchild")]
pub(crate) fn private_proc() -> Sys<i32> {
    let context = sys::fsopen(b"proc\0")?;
    let made = finish(context, sys::ATTR_NOSUID | sys::ATTR_NODEV | sys::ATTR_NOEXEC);
    #[cfg(shim)]
    if made == Err(sys::EPERM) {
        sys::close(context);
        return starters_proc();
    }
    made
}

/// An ordinary user's shim lives in a pid namespace of which it may mount no proc: the host's. There its starter's is the one; a
/// process of a container's, which is in another pid namespace, does not find itself in it and has none.
#[cfg(shim)]
#[unsafe(link_section = "lhchild")]
fn starters_proc() -> Sys<i32> {
    let proc = sys::open(AT_FDCWD, b"/proc\0", sys::O_PATH | sys::O_DIRECTORY)?;
    let mut own = [0u8; 64];
    let own = numbered(&mut own, b"", u64::from(sys::getpid().unsigned_abs()), b"")?;
    let found = |name: &[u8]| sys::statx(proc, name, 0).map(|stat| (stat.inode, stat.dev));
    if found(b"self\0").is_ok_and(|it| found(own) == Ok(it)) {
        return Ok(proc);
    }
    sys::close(proc);
    Err(sys::EPERM)
}
