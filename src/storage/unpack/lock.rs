//! Locks by name across tasks and processes: an flock(2) on a small file, which is removed by its last holder.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::{Error, Result};
use crate::storage::files::{blocking, found};

/// A held lock. The kernel lets go of it with the process, however that ends.
#[derive(Debug)]
pub(super) struct Held {
    _file: Flock<File>,
    path: PathBuf,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Removed while held: whoever opened the file before finds, once it has the lock, that the name leads elsewhere.
        let _ = fs::remove_file(&self.path);
    }
}

/// Waits for a lock without blocking the thread.
///
/// # Cancel safety
/// Dropping the future gives up the wait.
pub(super) async fn lock(path: PathBuf) -> Result<Held> {
    let mut pause = Duration::from_millis(2);
    loop {
        let attempt = path.clone();
        if let Some(held) = blocking(move || try_lock(&attempt)).await? {
            return Ok(held);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(40));
    }
}

fn try_lock(path: &Path) -> Result<Option<Held>> {
    loop {
        let opened = File::options().create(true).truncate(false).write(true).open(path);
        let file = opened.map_err(|e| Error::os(format!("open {}", path.display()), e))?;
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, Errno::EINTR)) => continue,
            Err((_, e)) => return Err(Error::os("flock", e)),
        };
        let ours = file.metadata().map_err(|e| Error::os("stat lock file", e))?.ino();
        let named = found(fs::metadata(path)).map_err(|e| Error::os("stat lock file", e))?;
        if named.is_some_and(|there| there.ino() == ours) {
            return Ok(Some(Held {
                _file: file,
                path: path.to_owned(),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_at_a_time_and_no_file_left() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, total) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = Vec::new();
        for _ in 0..8 {
            let (path, inside, total) = (dir.path().join("x"), inside.clone(), total.clone());
            tasks.push(tokio::spawn(async move {
                for _ in 0..10 {
                    let held = lock(path.clone()).await.unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    total.fetch_add(1, Ordering::SeqCst);
                    drop(held);
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(total.load(Ordering::SeqCst), 80);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
