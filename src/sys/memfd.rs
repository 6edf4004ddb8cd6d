//! Programs and messages in sealed memory files.

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

const SEALS: libc::c_int = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;

/// A file that nobody can change any more, open for reading.
pub(crate) fn sealed(name: &CStr, bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(create(name, libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)?);
    file.write_all(bytes)?;
    seal(&file)?;
    Ok(file.into())
}

/// A program that can be executed by way of its descriptor: a sealed memory file where the host allows it, else a file
/// without a name in the temporary directory. Never open for writing when this returns, which would be `ETXTBSY`.
pub(crate) fn program(name: &CStr, bytes: &[u8]) -> io::Result<OwnedFd> {
    match executable_memfd(name, bytes) {
        Ok(file) => Ok(file),
        Err(_) => unnamed_file(bytes),
    }
}

fn executable_memfd(name: &CStr, bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // MFD_EXEC came with Linux 6.3; before, every memfd could be executed.
    let created = create(name, flags | libc::MFD_EXEC).or_else(|_| create(name, flags))?;
    let mut file = File::from(created);
    file.write_all(bytes)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o500))?;
    if file.metadata()?.permissions().mode() & 0o100 == 0 {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    seal(&file)?;
    reopen(&file)
}

fn unnamed_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o500)
        .custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC)
        .open(std::env::temp_dir())?;
    file.write_all(bytes)?;
    reopen(&file)
}

/// The same file, for reading only.
fn reopen(file: &File) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(path)?
        .into())
}

fn create(name: &CStr, flags: libc::c_uint) -> io::Result<OwnedFd> {
    // SAFETY: the name ends with a NUL; the result is checked before it becomes a descriptor.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn seal(file: &File) -> io::Result<()> {
    // SAFETY: an operation on our own descriptor with an integer argument.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SEALS) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
