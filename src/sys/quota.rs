//! Limits on what the files below a directory take: project quotas. Sources: quotactl(2), quotactl_fd(2), xfsctl(3),
//! include/uapi/linux/{fs,dqblk_xfs}.h of the kernel. XFS and ext4 take the same calls.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// `struct fsxattr`.
#[repr(C)]
#[derive(Default)]
struct FsXattr {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    projid: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

/// `struct fs_disk_quota`. Blocks are of 512 bytes.
#[repr(C)]
#[derive(Default)]
struct DiskQuota {
    version: i8,
    flags: i8,
    fieldmask: u16,
    id: u32,
    blk_hardlimit: u64,
    blk_softlimit: u64,
    ino_hardlimit: u64,
    ino_softlimit: u64,
    bcount: u64,
    icount: u64,
    itimer: i32,
    btimer: i32,
    iwarns: u16,
    bwarns: u16,
    itimer_hi: i8,
    btimer_hi: i8,
    rtbtimer_hi: i8,
    padding2: i8,
    rtb_hardlimit: u64,
    rtb_softlimit: u64,
    rtbcount: u64,
    rtbtimer: i32,
    rtbwarns: u16,
    padding3: i16,
    padding4: [u8; 8],
}

const FS_IOC_FSGETXATTR: u64 = 0x801c_581f;
const FS_IOC_FSSETXATTR: u64 = 0x401c_5820;
/// What is made in the directory belongs to its project.
const FS_XFLAG_PROJINHERIT: u32 = 0x200;
const FS_DQUOT_VERSION: i8 = 1;
const FS_PROJ_QUOTA: i8 = 2;
const FS_DQ_BSOFT: u16 = 1 << 2;
const FS_DQ_BHARD: u16 = 1 << 3;
const PRJQUOTA: u32 = 2;
const Q_XGETQUOTA: u32 = 0x5803;
const Q_XSETQLIM: u32 = 0x5804;
const BLOCK: u64 = 512;

/// What a project may take, and takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quota {
    /// 0: as much as there is.
    pub(crate) limit_bytes: u64,
    pub(crate) used_bytes: u64,
}

/// Has an open directory, which is empty, and all that will be made in it belong to a project.
pub(crate) fn set_project(directory: impl AsFd, project: u32) -> io::Result<()> {
    let fd = directory.as_fd().as_raw_fd();
    let mut attributes = FsXattr::default();
    // SAFETY: the descriptor is open while `directory` is borrowed; the kernel writes one `struct fsxattr`, which this is.
    let rc = unsafe { libc::ioctl(fd, FS_IOC_FSGETXATTR as _, &raw mut attributes) };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    attributes.projid = project;
    attributes.xflags |= FS_XFLAG_PROJINHERIT;
    // SAFETY: as above; the kernel reads it.
    let rc = unsafe { libc::ioctl(fd, FS_IOC_FSSETXATTR as _, &raw const attributes) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// What a project of the file system may take, and takes; `None` where nothing is known of it.
///
/// # Errors
/// What the kernel says of a file system without project quotas: `ENOSYS`, `ESRCH`, `EOPNOTSUPP`, `ENOTTY`, `EINVAL`.
pub(crate) fn of_project(directory: impl AsFd, project: u32) -> io::Result<Option<Quota>> {
    let mut quota = DiskQuota::default();
    match call(directory, Q_XGETQUOTA, project, &mut quota) {
        Ok(()) => Ok(Some(Quota {
            limit_bytes: quota.blk_hardlimit.saturating_mul(BLOCK),
            used_bytes: quota.bcount.saturating_mul(BLOCK),
        })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Limits what a project may take; 0 lifts the limit.
pub(crate) fn limit_project(directory: impl AsFd, project: u32, bytes: u64) -> io::Result<()> {
    let blocks = bytes.div_ceil(BLOCK);
    let mut quota = DiskQuota {
        version: FS_DQUOT_VERSION,
        flags: FS_PROJ_QUOTA,
        fieldmask: FS_DQ_BHARD | FS_DQ_BSOFT,
        id: project,
        blk_hardlimit: blocks,
        blk_softlimit: blocks,
        ..DiskQuota::default()
    };
    call(directory, Q_XSETQLIM, project, &mut quota)
}

fn call(directory: impl AsFd, what: u32, project: u32, quota: &mut DiskQuota) -> io::Result<()> {
    let fd = directory.as_fd().as_raw_fd();
    let command = (what << 8) | PRJQUOTA;
    // SAFETY: the descriptor is open while `directory` is borrowed; the last argument is one live, writable
    // `struct fs_disk_quota`, which both commands take.
    let rc = unsafe { libc::syscall(libc::SYS_quotactl_fd, fd, command, project, std::ptr::from_mut(quota)) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_structures() {
        assert_eq!(size_of::<FsXattr>(), 28);
        assert_eq!(size_of::<DiskQuota>(), 112);
        assert_eq!(std::mem::offset_of!(DiskQuota, bcount), 40);
        assert_eq!(std::mem::offset_of!(DiskQuota, rtb_hardlimit), 72);
    }
}
