//! Extended attributes of open files. Source: xattr(7), fsetxattr(2), flistxattr(2).

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

/// The kernel's own bound on a value and on a list of names (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const MAX: usize = 65536;

/// Sets an attribute on an open file (not `O_PATH`).
pub(crate) fn set(fd: impl AsFd, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: the name is NUL-terminated, and pointer and length describe one live slice.
    let rc = unsafe {
        libc::fsetxattr(
            fd.as_fd().as_raw_fd(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Removes an attribute of an open file (not `O_PATH`).
pub(crate) fn remove(fd: impl AsFd, name: &CStr) -> io::Result<()> {
    // SAFETY: the name is NUL-terminated and outlives the call.
    let rc = unsafe { libc::fremovexattr(fd.as_fd().as_raw_fd(), name.as_ptr()) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sets an attribute by path, not following a last symlink.
pub(crate) fn set_link(path: &Path, name: &CStr, value: &[u8]) -> io::Result<()> {
    let path = path_of(path)?;
    // SAFETY: both strings are NUL-terminated, and pointer and length describe one live slice.
    let rc = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Reads an attribute of an open file; `None` where it is not set or the file system has no attributes.
pub(crate) fn get(fd: impl AsFd, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    let fd = fd.as_fd().as_raw_fd();
    read(|buffer| {
        // SAFETY: pointer and length describe one live, writable slice.
        unsafe { libc::fgetxattr(fd, name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    })
}

/// Reads an attribute by path, not following a last symlink.
pub(crate) fn get_link(path: &Path, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    let path = path_of(path)?;
    read(|buffer| {
        // SAFETY: pointer and length describe one live, writable slice.
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    })
}

/// The names of a file's attributes by path, not following a last symlink.
pub(crate) fn list_link(path: &Path) -> io::Result<Vec<CString>> {
    let path = path_of(path)?;
    let names = read(|buffer| {
        // SAFETY: pointer and length describe one live, writable slice.
        unsafe { libc::llistxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    })?;
    Ok(split(names))
}

/// The names of an open file's attributes.
pub(crate) fn list(fd: impl AsFd) -> io::Result<Vec<CString>> {
    let fd = fd.as_fd().as_raw_fd();
    let names = read(|buffer| {
        // SAFETY: pointer and length describe one live, writable slice.
        unsafe { libc::flistxattr(fd, buffer.as_mut_ptr().cast(), buffer.len()) }
    })?;
    Ok(split(names))
}

/// Calls with a small buffer, and once more with the largest if that was not enough.
fn read(call: impl Fn(&mut [u8]) -> isize) -> io::Result<Option<Vec<u8>>> {
    for size in [1024, MAX] {
        let mut buffer = vec![0u8; size];
        let rc = call(&mut buffer);
        if let Ok(length) = usize::try_from(rc) {
            buffer.truncate(length);
            return Ok(Some(buffer));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ERANGE) => {}
            Some(libc::ENODATA | libc::ENOTSUP) => return Ok(None),
            _ => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::E2BIG))
}

fn split(names: Option<Vec<u8>>) -> Vec<CString> {
    let names = names.unwrap_or_default();
    names
        .split(|&b| b == 0)
        .filter(|name| !name.is_empty())
        .filter_map(|name| CString::new(name).ok())
        .collect()
}

fn path_of(path: &Path) -> io::Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}
