//! Sees files for the owner that only the user namespace's root may: opens them beneath a directory that comes along, and
//! reads their extended attributes. A process of its own, which ends with its socket.

use crate::message::{self, Fds};
use crate::sys::{self, Sys};
use crate::wire::{look, u32_at};

/// Longest request: a path and its head.
const REQUEST: usize = 4096 + look::HEAD + 1;
/// `XATTR_SIZE_MAX` of the kernel.
const VALUE: usize = 65536;
const EMFILE: i32 = 24;

#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn serve(socket: i32) -> ! {
    let Ok(value) = sys::map(VALUE) else { sys::exit(0) };
    let mut request = [0u8; REQUEST];
    loop {
        let mut fds = Fds::none();
        let len = match message::receive(socket, &mut request, &mut fds) {
            Ok(len @ 1..) => len,
            _ => sys::exit(0),
        };
        let sent = answer(socket, request.get(..len).unwrap_or(&[]), &fds, value);
        fds.close();
        if sent.is_err() {
            sys::exit(0);
        }
    }
}

#[unsafe(link_section = "lhchild")]
fn answer(socket: i32, request: &[u8], fds: &Fds, value: &mut [u8]) -> Sys<()> {
    match carry_out(request, fds, value) {
        Ok((length, None)) => {
            let bytes = value.get(..length).unwrap_or(&[]);
            message::send(socket, &0u32.to_ne_bytes(), bytes, None).map(drop)
        }
        Ok((_, Some(file))) => {
            let sent = message::send(socket, &0u32.to_ne_bytes(), &[], Some(file));
            sys::close(file);
            sent.map(drop)
        }
        Err(errno) => message::send(socket, &errno.to_ne_bytes(), &[], None).map(drop),
    }
}

/// What is asked for: the bytes of a value, or a descriptor.
#[unsafe(link_section = "lhchild")]
fn carry_out(request: &[u8], fds: &Fds, value: &mut [u8]) -> Sys<(usize, Option<i32>)> {
    let file = fds.get(0).ok_or(EMFILE)?;
    let name = request.get(look::HEAD..).ok_or(sys::EBADMSG)?;
    if name.last() != Some(&0) {
        return Err(sys::EBADMSG);
    }
    match u32_at(request, 0) {
        Some(look::OPEN) => {
            let flags = u32_at(request, 4).ok_or(sys::EBADMSG)? as usize;
            let resolve = sys::RESOLVE_BENEATH | sys::RESOLVE_NO_XDEV | sys::RESOLVE_NO_SYMLINKS;
            // To read, or not even that; but for the device of FUSE, which must be opened in the user namespace of its mount.
            if flags & 0o3 != 0 && name != b"fuse\0" {
                return Err(sys::EINVAL);
            }
            Ok((0, Some(sys::openat2(file, name, flags, resolve)?)))
        }
        Some(look::ATTRIBUTE) => Ok((sys::fgetxattr(file, name, value)?, None)),
        _ => Err(sys::EBADMSG),
    }
}
