//! Modes of what must not be opened, or what others may exchange for something else meanwhile.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};

/// Sets the mode of the very thing that a descriptor is of, which may be one of a path alone (`O_PATH`). A name could lead elsewhere by
/// now, and chmod(2) follows links. By way of proc: fchmod(2) takes no such descriptor, and fchmodat2(2) came with Linux 6.6.
pub(crate) fn set(opened: BorrowedFd<'_>, mode: u32) -> nix::Result<()> {
    let path = format!("/proc/self/fd/{}", opened.as_raw_fd());
    let follow = FchmodatFlags::FollowSymlink;
    fchmodat(AT_FDCWD, path.as_str(), Mode::from_bits_truncate(mode), follow)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn what_was_opened_is_meant_whatever_has_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let (name, other) = (dir.path().join("fifo"), dir.path().join("other"));
        nix::unistd::mkfifo(&name, Mode::from_bits_truncate(0o600)).unwrap();
        fs::write(&other, "").unwrap();
        fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
        let flags = libc::O_PATH | libc::O_NOFOLLOW;
        let opened = File::options().read(true).custom_flags(flags).open(&name).unwrap();
        fs::rename(&name, dir.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(&other, &name).unwrap();
        set(opened.as_fd(), 0o666).unwrap();
        let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("elsewhere"), mode("other")), (0o666, 0o600));
    }
}
