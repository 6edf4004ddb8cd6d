//! Renames that may fail or exchange, for which not every C library has a function. Source: rename(2).

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;

use nix::errno::Errno;

/// What is there is not replaced.
pub(crate) const NO_REPLACE: u32 = 1;
/// Both stay, with each other's names.
pub(crate) const EXCHANGE: u32 = 1 << 1;
/// A whiteout takes the place.
pub(crate) const WHITEOUT: u32 = 1 << 2;

/// Renames a name in a directory to another in another, or absolute paths.
///
/// # Errors
/// What the kernel says; `EINVAL` for a name with a NUL in it.
pub(crate) fn rename(
    from_dir: impl AsFd,
    from: impl AsRef<OsStr>,
    to_dir: impl AsFd,
    to: impl AsRef<OsStr>,
    flags: u32,
) -> nix::Result<()> {
    let name = |name: &OsStr| CString::new(name.as_bytes()).map_err(|_| Errno::EINVAL);
    let (from, to) = (name(from.as_ref())?, name(to.as_ref())?);
    // SAFETY: two live descriptors, two strings that end with NUL and live until the call returns, and an integer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            from_dir.as_fd().as_raw_fd(),
            from.as_ptr(),
            to_dir.as_fd().as_raw_fd(),
            to.as_ptr(),
            flags,
        )
    };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn names_are_kept_or_exchanged() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        fs::write(&one, "1").unwrap();
        fs::write(&two, "2").unwrap();
        let open = File::open(dir.path()).unwrap();
        assert_eq!(rename(&open, "one", &open, "two", NO_REPLACE), Err(Errno::EEXIST));
        rename(&open, "one", &open, "two", EXCHANGE).unwrap();
        assert_eq!(
            (fs::read(&one).unwrap(), fs::read(&two).unwrap()),
            (b"2".to_vec(), b"1".to_vec())
        );
        let cwd = nix::fcntl::AT_FDCWD;
        rename(cwd, &one, cwd, &two, 0).unwrap();
        assert!(!one.exists() && fs::read(&two).unwrap() == b"2");
        assert_eq!(rename(&open, "a\0b", &open, "two", 0), Err(Errno::EINVAL));
    }
}
