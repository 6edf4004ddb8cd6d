//! Paths inside a container's root, resolved by the kernel so that no link leads out of it, and made where they are
//! missing: one component at a time, on descriptors (CVE-2021-30465, CVE-2024-45310 and their kin).

use crate::fail::missing;
use crate::sys::{self, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, Sys};

/// Longest path, with its NUL.
pub(crate) const LONGEST: usize = 4096;

/// Opens what is at a path in the root, without following magic links; with `strict`, without any link.
#[inline(never)]
pub(crate) fn open(root: i32, path: &[u8], strict: bool) -> Sys<i32> {
    let no_links = if strict { RESOLVE_NO_SYMLINKS } else { 0 };
    sys::openat2(
        root,
        path,
        sys::O_PATH,
        RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | no_links,
    )
}

/// Opens the place of a mount, and makes it (and the directories above it) if it is missing.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn open_or_make(root: i32, path: &[u8], directory: bool, strict: bool) -> Sys<i32> {
    match open(root, path, strict) {
        Err(errno) if missing(errno) => make(root, path, directory, strict),
        result => result,
    }
}

/// Makes a path, from the first missing component on. A component that is a dangling link is an error (`EEXIST`).
#[unsafe(link_section = "lhchild")]
fn make(root: i32, path: &[u8], directory: bool, strict: bool) -> Sys<i32> {
    let mut buffer = [0u8; LONGEST];
    let mut parent = open(root, b".\0", strict)?;
    let mut end = 0;
    loop {
        let Some((start, stop)) = component(path, end) else {
            return Ok(parent);
        };
        end = stop;
        let last = component(path, stop).is_none();
        let prefix = terminate(&mut buffer, path.get(..stop).unwrap_or(&[]))?;
        let next = match open(root, prefix, strict) {
            Err(sys::ENOENT) => {
                let name = prefix.get(start..).unwrap_or(b"\0");
                make_one(parent, name, directory || !last)?
            }
            result => result?,
        };
        sys::close(parent);
        parent = next;
    }
}

#[unsafe(link_section = "lhchild")]
fn make_one(parent: i32, name: &[u8], directory: bool) -> Sys<i32> {
    if directory {
        sys::mkdirat(parent, name, 0o755)?;
        return sys::open(parent, name, sys::O_PATH | sys::O_DIRECTORY | sys::O_NOFOLLOW);
    }
    sys::close(sys::openat(
        parent,
        name,
        sys::O_CREAT | sys::O_EXCL | sys::O_NOFOLLOW,
        0o644,
    )?);
    sys::open(parent, name, sys::O_PATH | sys::O_NOFOLLOW)
}

/// The next component from `from` on: where it starts and ends.
#[unsafe(link_section = "lhchild")]
fn component(path: &[u8], from: usize) -> Option<(usize, usize)> {
    let is_end = |byte: &u8| *byte == b'/' || *byte == 0;
    let rest = path.get(from..)?;
    let start = from + rest.iter().position(|byte| !is_end(byte))?;
    let stop = start + path.get(start..)?.iter().position(is_end)?;
    Some((start, stop))
}

/// Copies a text and ends it with a NUL.
pub(crate) fn terminate<'a>(buffer: &'a mut [u8], text: &[u8]) -> Sys<&'a [u8]> {
    const ENAMETOOLONG: i32 = 36;
    let room = buffer.get_mut(..text.len() + 1).ok_or(ENAMETOOLONG)?;
    for (slot, byte) in room.iter_mut().zip(text.iter().chain(&[0])) {
        *slot = *byte;
    }
    Ok(room)
}

/// Writes a number in decimal behind a prefix, and what follows it, with a NUL.
#[inline(never)]
pub(crate) fn numbered<'a>(into: &'a mut [u8; 64], prefix: &[u8], number: u64, after: &[u8]) -> Sys<&'a [u8]> {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        *digits.get_mut(at).ok_or(sys::EINVAL)? = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let digits = digits.get(at..).unwrap_or(&[]);
    let mut len = 0;
    for byte in prefix.iter().chain(digits).chain(after).chain(b"\0") {
        *into.get_mut(len).ok_or(sys::EINVAL)? = *byte;
        len += 1;
    }
    into.get(..len).ok_or(sys::EINVAL)
}
