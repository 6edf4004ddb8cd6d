//! Makes the plan's mounts as detached trees. Runs in the view namespace, where host paths mean what the owner meant, and
//! where a user namespace may mount `proc` and `sysfs` because the host's are to be seen.

use crate::path::terminate;
use crate::sys::{self, AT_FDCWD, Sys};
use crate::wire::{MountRecord, mount};

/// Makes one mount and returns it detached.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn make(record: &MountRecord<'_>) -> Sys<i32> {
    match record.kind {
        mount::BIND => bind(record),
        mount::OVERLAY => overlay(record),
        mount::FILESYSTEM => filesystem(record),
        _ => Err(sys::EINVAL),
    }
}

#[unsafe(link_section = "lhchild")]
fn bind(record: &MountRecord<'_>) -> Sys<i32> {
    let source = record.strings.clone().nth(1).ok_or(sys::EBADMSG)?;
    let recursive = record.flags & mount::RECURSIVE != 0;
    let tree = match sys::open_tree(AT_FDCWD, source, recursive) {
        // In a user namespace, mounts below cannot be left out: they hide what is under them.
        Err(sys::EINVAL) if !recursive => sys::open_tree(AT_FDCWD, source, true)?,
        result => result?,
    };
    let mut attributes = u64::from(record.attributes);
    // A single device is what the caller named; in a directory, the container could make others.
    if record.flags & mount::NO_DEVICES != 0 && sys::stat_fd(tree)?.mode & sys::S_IFMT == sys::S_IFDIR {
        attributes |= sys::ATTR_NODEV;
    }
    if attributes != 0 {
        sys::mount_setattr(tree, true, attributes)?;
    }
    Ok(tree)
}

#[unsafe(link_section = "lhchild")]
fn filesystem(record: &MountRecord<'_>) -> Sys<i32> {
    let mut strings = record.strings.clone().skip(1);
    let kind = strings.next().ok_or(sys::EBADMSG)?;
    let source = strings.next().ok_or(sys::EBADMSG)?;
    let context = sys::fsopen(kind)?;
    let _ = sys::fsconfig_set(context, b"source\0", Some(source));
    for option in strings {
        configure(context, option)?;
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

fn finish(context: i32, attributes: u64) -> Sys<i32> {
    sys::fsconfig_create(context)?;
    let mount = sys::fsmount(context, attributes)?;
    sys::close(context);
    Ok(mount)
}

#[unsafe(link_section = "lhchild")]
fn overlay(record: &MountRecord<'_>) -> Sys<i32> {
    let mut strings = record.strings.clone().skip(1);
    let upper = strings.next().ok_or(sys::EBADMSG)?;
    let work = strings.next().ok_or(sys::EBADMSG)?;
    let context = sys::fsopen(b"overlay\0")?;
    sys::fsconfig_set(context, b"source\0", Some(b"overlay\0"))?;
    for lower in strings {
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
    match finish(context, u64::from(record.attributes)) {
        // Before Linux 6.5, options are but collected, and refused now.
        Err(sys::EINVAL) => overlay_by_mount(record),
        result => result,
    }
}

/// Sets a directory. The call takes 255 bytes at most, so that a longer path goes by way of a descriptor.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
fn set_directory(context: i32, key: &[u8], path: &[u8]) -> Sys {
    if path.len() <= 255 {
        return sys::fsconfig_set(context, key, Some(path));
    }
    let directory = sys::openat(AT_FDCWD, path, sys::O_PATH | sys::O_DIRECTORY, 0)?;
    let mut name = Text::new();
    name.add(b"/proc/self/fd/")?;
    name.add_number(directory as u32)?;
    let result = sys::fsconfig_set(context, key, Some(name.finish()?));
    sys::close(directory);
    result
}

/// Before Linux 6.8: the older call, with all directories in one string of short names. It attaches, so that it needs a
/// namespace of its own.
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
    for (index, lower) in strings.enumerate() {
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
    let tree = sys::open_tree(AT_FDCWD, place, false)?;
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
        let directory = sys::openat(AT_FDCWD, path, sys::O_PATH | sys::O_DIRECTORY, 0)?;
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
    finish(context, sys::ATTR_NOSUID | sys::ATTR_NODEV | sys::ATTR_NOEXEC)
}
