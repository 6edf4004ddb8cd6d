//! Whose a file is, as the container sees it.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};

use crate::types::IdRange;

/// Ids that a namespace has none of its own for. Source: user_namespaces(7), `/proc/sys/kernel/overflowuid`.
const NOBODY: u32 = 65534;

/// The caller and the container's user change places; everybody else stays who they are in the engine's user namespace.
#[derive(Debug, Clone)]
pub(in crate::containers) struct Ids {
    uids: Swap,
    gids: Swap,
}

#[derive(Debug, Clone)]
struct Swap {
    /// The engine's user namespace: `outside` are the host's ids.
    map: Vec<IdRange>,
    caller: u32,
    user: u32,
}

impl Swap {
    fn shown(&self, host: u32) -> u32 {
        let range = self
            .map
            .iter()
            .find(|range| host >= range.outside && host - range.outside < range.count);
        let inside = range.map(|range| range.inside + (host - range.outside));
        match inside {
            None => NOBODY,
            Some(id) if id == self.caller => self.user,
            Some(id) if id == self.user => self.caller,
            Some(id) => id,
        }
    }
}

impl Ids {
    /// `uids` and `gids` are the maps of the engine's user namespace, `user` the container's user as known in it. There, the
    /// caller is root.
    pub(in crate::containers) fn new(uids: Vec<IdRange>, gids: Vec<IdRange>, user: (u32, u32)) -> Self {
        let swap = |map, user| Swap { map, caller: 0, user };
        Self {
            uids: swap(uids, user.0),
            gids: swap(gids, user.1),
        }
    }

    /// Owner and group that the container sees.
    pub(super) fn shown(&self, found: &Metadata) -> (u32, u32) {
        (self.uids.shown(found.uid()), self.gids.shown(found.gid()))
    }

    /// What the kernel is told of a file.
    pub(super) fn attributes(&self, number: INodeNo, found: &Metadata) -> FileAttr {
        let (uid, gid) = self.shown(found);
        FileAttr {
            ino: number,
            size: found.size(),
            blocks: found.blocks(),
            atime: time(found.atime(), found.atime_nsec()),
            mtime: time(found.mtime(), found.mtime_nsec()),
            ctime: time(found.ctime(), found.ctime_nsec()),
            crtime: UNIX_EPOCH,
            kind: kind(found.file_type()),
            perm: (found.mode() & 0o7777) as u16,
            nlink: u32::try_from(found.nlink()).unwrap_or(u32::MAX),
            uid,
            gid,
            // Devices do not work in a mount of a user namespace anyway.
            rdev: 0,
            blksize: u32::try_from(found.blksize()).unwrap_or(4096),
            flags: 0,
        }
    }
}

pub(super) fn kind(of: std::fs::FileType) -> FileType {
    match of {
        of if of.is_dir() => FileType::Directory,
        of if of.is_symlink() => FileType::Symlink,
        of if of.is_fifo() => FileType::NamedPipe,
        of if of.is_socket() => FileType::Socket,
        of if of.is_char_device() => FileType::CharDevice,
        of if of.is_block_device() => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

/// Times before 1970 are there too.
fn time(seconds: i64, nanos: i64) -> SystemTime {
    let nanos = Duration::from_nanos(nanos.unsigned_abs());
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let second = match seconds {
        ..0 => UNIX_EPOCH.checked_sub(whole),
        _ => UNIX_EPOCH.checked_add(whole),
    };
    second
        .and_then(|second| second.checked_add(nanos))
        .unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j7_the_caller_and_the_containers_user_change_places() {
        let map = IdRange::parse_map("0 1000 1\n1 100000 65536\n");
        let swap = Swap {
            map,
            caller: 0,
            user: 999,
        };
        // The caller, the container's user, its root as it is on the disk, another, and somebody from elsewhere.
        let shown = [1000, 100_998, 100_000, 0, 4321].map(|id| swap.shown(id));
        assert_eq!(shown, [999, 0, 1, NOBODY, NOBODY]);
    }

    #[test]
    fn j7_times_before_1970() {
        let second = Duration::from_secs(1);
        assert_eq!(time(-1, 500_000_000), UNIX_EPOCH - second / 2);
        assert_eq!(time(1, 5), UNIX_EPOCH + second + Duration::from_nanos(5));
    }
}
