//! Room for a large file, asked of the file system before the bytes come.
//!
//! ext4 looks up and reserves a block for each one that is written, unless the file has them already: so a file of some
//! megabytes is written in two thirds of the processor time. Elsewhere it is not done: xfs is as fast without, btrfs does not
//! compress what was given its place before, and in memory every page would be filled with zeros first.
//!
//! It is no promise. What cannot be had is asked for again by the writing, which says what is wrong.

use std::fs::File;
use std::os::fd::AsFd;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statfs::{EXT4_SUPER_MAGIC, FsType, OVERLAYFS_SUPER_MAGIC, fstatfs};

/// Smaller files are written as quickly without.
const LARGE: u64 = 1 << 20;
/// What is asked for at once, at most: an archive may say more of a file's size than it has bytes.
const STEP: u64 = 64 << 20;

/// Room behind the end of a file that is written from its beginning to its end.
#[derive(Debug)]
pub(crate) struct Room {
    size: u64,
    asked: u64,
}

impl Room {
    /// For a file that is to have so many bytes, and has some of them; none where it is of no use. `upper` is the file system
    /// that an overlay writes to, which the overlay itself does not tell.
    pub(crate) fn of(file: &File, size: u64, there: u64, upper: Option<FsType>) -> Option<Self> {
        if size.saturating_sub(there) < LARGE {
            return None;
        }
        let on = fstatfs(file).ok()?;
        let kind = match on.filesystem_type() {
            OVERLAYFS_SUPER_MAGIC => upper?,
            kind => kind,
        };
        // Never more than half of what is free: others need some, too.
        let free = on
            .blocks_available()
            .saturating_mul(u64::try_from(on.block_size()).ok()?);
        (kind == EXT4_SUPER_MAGIC && free / 2 > STEP.min(size)).then_some(Self { size, asked: there })
    }

    /// Before the bytes up to `end` are written.
    pub(crate) fn before(&mut self, file: &File, end: u64) {
        while self.asked < end.min(self.size) {
            let step = STEP.min(self.size - self.asked);
            // The file's size stays what was written: whoever finds it after a kill takes no zeros for bytes.
            match ask(file, self.asked, step) {
                Some(()) => self.asked += step,
                None => self.size = self.asked,
            }
        }
    }

    /// Gives back what was not written to.
    pub(crate) fn end(self, file: &File, written: u64) {
        if self.asked > written {
            // It stays as it is if that fails: blocks that are somebody's, and no bytes.
            let _ = file.set_len(written);
        }
    }
}

fn ask(file: &File, offset: u64, length: u64) -> Option<()> {
    let (offset, length) = (i64::try_from(offset).ok()?, i64::try_from(length).ok()?);
    fallocate(file.as_fd(), FallocateFlags::FALLOC_FL_KEEP_SIZE, offset, length).ok()
}

/// The file system of a directory, for [`Room::of`].
pub(crate) fn kind_of(dir: &std::path::Path) -> Option<FsType> {
    Some(nix::sys::statfs::statfs(dir).ok()?.filesystem_type())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    /// On whatever file system the tests are: with room or without, the file is the same.
    #[test]
    fn a_file_has_its_bytes_and_nothing_behind_them() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes = vec![7; 3 << 20];
        let mut room = Room::of(&file, 9 << 20, 0, None);
        if let Some(room) = &mut room {
            room.before(&file, bytes.len() as u64);
            assert_eq!(file.metadata().unwrap().len(), 0, "no zeros");
            assert!(file.metadata().unwrap().blocks() * 512 >= 9 << 20);
        }
        file.write_all(&bytes).unwrap();
        if let Some(room) = room {
            room.end(&file, bytes.len() as u64);
        }
        file.sync_all().unwrap();
        let there = file.metadata().unwrap();
        assert_eq!(there.len(), 3 << 20);
        assert!(there.blocks() * 512 < 4 << 20, "{} blocks", there.blocks());
    }

    #[test]
    fn what_is_small_or_too_large_is_not_asked_for() {
        let file = tempfile::tempfile().unwrap();
        assert!(Room::of(&file, LARGE - 1, 0, None).is_none());
        assert!(Room::of(&file, 5 << 20, (5 << 20) - 1, None).is_none());
        // No more than a step is asked for, whatever is promised.
        if let Some(mut room) = Room::of(&file, 1 << 60, 0, None) {
            room.before(&file, 1);
            assert!(file.metadata().unwrap().blocks() * 512 <= STEP + (1 << 20));
            room.end(&file, 0);
        }
    }
}
