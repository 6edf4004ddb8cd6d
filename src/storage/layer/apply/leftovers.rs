//! Large files that were replaced, freed beside the work: to give a file's pages back takes a third of the time that it takes
//! to write as many.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag};
use nix::sys::statvfs::fstatvfs;

use crate::storage::layer::tree::stat;

/// Smaller ones are gone as quickly at once.
const LARGE: i64 = 1 << 20;

/// What holds the content of files that have no name any more. All of it is freed when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    /// Made for the first of them.
    freer: Option<Freer>,
}

#[derive(Debug)]
struct Freer {
    files: SyncSender<OwnedFd>,
    thread: JoinHandle<()>,
}

impl Leftovers {
    /// A handle of a file that is about to be replaced by one of so many bytes: it keeps the content, whoever removes the
    /// name. None where that is of no use, or where there might not be room for both.
    pub(super) fn hold(dir: &OwnedFd, name: &[u8], size: u64) -> Option<OwnedFd> {
        let there = stat(dir, name).ok()?;
        let file = SFlag::from_bits_truncate(there.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFREG;
        if !file || there.st_size < LARGE || there.st_nlink != 1 {
            return None;
        }
        let room = fstatvfs(dir).ok()?;
        if room.blocks_available().saturating_mul(room.fragment_size()) <= size {
            return None;
        }
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(dir, name, flags, Mode::empty()).ok()
    }

    /// Frees it: beside the work, unless that is still at the one before.
    pub(super) fn free(&mut self, held: OwnedFd) {
        if self.freer.is_none() {
            self.freer = Freer::start().ok();
        }
        if let Some(freer) = &self.freer {
            // Where it comes back, it is freed here.
            drop(freer.files.try_send(held));
        }
    }
}

impl Freer {
    fn start() -> Result<Self, Errno> {
        // No more than one waits, so that no more than two files' worth of space is held.
        let (files, waiting) = sync_channel::<OwnedFd>(1);
        let thread = std::thread::Builder::new().name("longshore-free".into());
        let thread = thread.spawn(move || waiting.iter().for_each(drop));
        let thread = thread.map_err(|_| Errno::EAGAIN)?;
        Ok(Self { files, thread })
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        let Some(Freer { files, thread }) = self.freer.take() else {
            return;
        };
        drop(files);
        // It does nothing that panics.
        let _ = thread.join();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn only_large_files_of_one_name_are_held_and_none_for_ever() {
        let there = tempfile::tempdir().unwrap();
        let dir: OwnedFd = File::open(there.path()).unwrap().into();
        let path = |name: &str| there.path().join(name);
        fs::write(path("small"), "x").unwrap();
        fs::write(path("large"), vec![1; LARGE as usize]).unwrap();
        fs::write(path("twice"), vec![1; LARGE as usize]).unwrap();
        fs::hard_link(path("twice"), path("again")).unwrap();
        std::os::unix::fs::symlink("large", path("link")).unwrap();
        for none in ["small", "twice", "link", "missing"] {
            assert!(Leftovers::hold(&dir, none.as_bytes(), 1).is_none(), "{none}");
        }
        assert!(
            Leftovers::hold(&dir, b"large", u64::MAX).is_none(),
            "there is no such room"
        );
        let mut leftovers = Leftovers::default();
        for _ in 0..20 {
            let held = Leftovers::hold(&dir, b"large", 1).unwrap();
            fs::remove_file(path("large")).unwrap();
            leftovers.free(held);
            fs::write(path("large"), vec![1; LARGE as usize]).unwrap();
        }
        drop(leftovers);
        // No descriptor holds what was removed.
        let deleted = fs::read_dir("/proc/self/fd").unwrap().flatten().filter(|fd| {
            let to = fs::read_link(fd.path()).unwrap_or_default();
            to.starts_with(there.path()) && to.to_string_lossy().ends_with("(deleted)")
        });
        assert_eq!(deleted.count(), 0);
    }
}
