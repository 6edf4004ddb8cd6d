//! Locks by name across tasks and processes: an flock(2) on a small file, which is removed by its last holder.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::{Error, Result};
use crate::storage::files::{blocking, found};

/// How long another process may hold a lock unnoticed after it let go of it.
const POLL: Duration = Duration::from_millis(5);

/// The locks of one engine. Its tasks take their turns in the order they came; among processes, who looks first gets a free
/// lock, and all look equally often.
#[derive(Debug)]
pub(super) struct Locks {
    dir: PathBuf,
    turns: Arc<Turns>,
}

type Turns = Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>;

impl Locks {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            turns: Arc::default(),
        }
    }

    /// Waits for a lock without blocking the thread.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue.
    pub(super) async fn lock(&self, name: String) -> Result<Held> {
        let path = self.dir.join(&name);
        let mut turn = Turn::queue(&self.turns, name);
        turn.wait().await;
        loop {
            let attempt = path.clone();
            if let Some(file) = blocking(move || try_lock(&attempt)).await? {
                return Ok(Held {
                    file: Some(file),
                    _turn: turn,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// A place in the queue of this engine's tasks for a lock.
#[derive(Debug)]
struct Turn {
    turns: Arc<Turns>,
    name: String,
    queue: Arc<tokio::sync::Mutex<()>>,
    come: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Turn {
    fn queue(turns: &Arc<Turns>, name: String) -> Self {
        let mut known = turns.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = Arc::clone(known.entry(name.clone()).or_default());
        Self {
            turns: Arc::clone(turns),
            name,
            queue,
            come: None,
        }
    }

    async fn wait(&mut self) {
        // This mutex is fair: first come, first served.
        self.come = Some(Arc::clone(&self.queue).lock_owned().await);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.come = None;
        let mut known = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // The table's and ours: nobody else waits.
        if Arc::strong_count(&self.queue) == 2 {
            known.remove(&self.name);
        }
    }
}

/// A held lock. The kernel lets go of it with the process, however that ends.
#[derive(Debug)]
pub(super) struct Held {
    file: Option<LockFile>,
    _turn: Turn,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Before the next of our tasks has its turn.
        drop(self.file.take());
    }
}

#[derive(Debug)]
struct LockFile {
    _file: Flock<File>,
    path: PathBuf,
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // Removed while held: whoever opened the file before finds, once it has the lock, that the name leads elsewhere.
        let _ = fs::remove_file(&self.path);
    }
}

fn try_lock(path: &Path) -> Result<Option<LockFile>> {
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
            return Ok(Some(LockFile {
                _file: file,
                path: path.to_owned(),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_at_a_time_and_no_file_left() {
        let dir = tempfile::tempdir().unwrap();
        // Two engines, like two processes.
        let engines = [(); 2].map(|()| Arc::new(Locks::new(dir.path().to_owned())));
        let (inside, total) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = Vec::new();
        for number in 0..8 {
            let (locks, inside, total) = (engines[number % 2].clone(), inside.clone(), total.clone());
            tasks.push(tokio::spawn(async move {
                for _ in 0..10 {
                    let held = locks.lock("x".to_owned()).await.unwrap();
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
        assert!(engines.iter().all(|locks| locks.turns.lock().unwrap().is_empty()));
    }

    #[tokio::test]
    async fn tasks_take_turns_in_the_order_they_came() {
        let dir = tempfile::tempdir().unwrap();
        let locks = Arc::new(Locks::new(dir.path().to_owned()));
        let held = locks.lock("x".to_owned()).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for number in 0..6 {
            let (locks, order) = (locks.clone(), order.clone());
            tasks.push(tokio::spawn(async move {
                let _held = locks.lock("x".to_owned()).await.unwrap();
                order.lock().unwrap().push(number);
            }));
            tokio::task::yield_now().await;
        }
        // One gives up its place.
        tasks.remove(2).abort();
        tokio::task::yield_now().await;
        drop(held);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [0, 1, 3, 4, 5]);
        assert!(locks.turns.lock().unwrap().is_empty());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
