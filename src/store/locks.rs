//! Keyed locks that every process of a root sees: one unpack per layer, one pull per blob, one supervisor.
//!
//! flock(2) on a file per key. The kernel releases it with its holder, so nothing is ever stale. The file goes with the
//! lock; who waited for the old file finds it nameless and starts over.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tokio::sync::{Mutex as Queue, OwnedMutexGuard};

use crate::error::{Error, Result};
use crate::sys::blocking::blocking;
use crate::types::Digest;

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// Locks by key. Cheap to clone; clones share the queues of this process.
#[derive(Debug, Clone)]
pub struct Locks {
    dir: Arc<PathBuf>,
    queues: Arc<Mutex<HashMap<String, Weak<Queue<()>>>>>,
}

/// A held lock. Dropping it releases it (two short system calls).
#[derive(Debug)]
pub struct LockGuard {
    path: PathBuf,
    /// Dropped after the file's name is gone.
    _file: Flock<File>,
    _turn: Option<OwnedMutexGuard<()>>,
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        // Only tidiness: a file that stays is locked by nobody. Nobody else can have replaced it while we hold its lock.
        let _ = fs::remove_file(&self.path);
    }
}

impl Locks {
    #[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
    pub(super) fn new(dir: PathBuf) -> Self {
        Self {
            dir: Arc::new(dir),
            queues: Arc::default(),
        }
    }

    /// Waits for a lock: in order among this process's tasks, and by trying again every few milliseconds among
    /// processes. No thread is blocked while waiting.
    ///
    /// # Errors
    /// `Os` where the lock's file cannot be made.
    ///
    /// # Cancel safety
    /// A dropped call holds nothing.
    pub async fn lock(&self, key: &str) -> Result<LockGuard> {
        let turn = self.queue(key).lock_owned().await;
        let path = self.path(key);
        let mut pause = FIRST_PAUSE;
        loop {
            let trial = path.clone();
            let taken = blocking(move || take(&trial)).await?;
            if let Some(file) = taken {
                return Ok(LockGuard {
                    path,
                    _file: file,
                    _turn: Some(turn),
                });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Takes a lock if nobody holds it. Blocking: three short system calls.
    ///
    /// # Errors
    /// `Os` where the lock's file cannot be made.
    pub fn try_lock(&self, key: &str) -> Result<Option<LockGuard>> {
        let Ok(turn) = self.queue(key).try_lock_owned() else {
            return Ok(None);
        };
        let path = self.path(key);
        Ok(take(&path)?.map(|file| LockGuard {
            path,
            _file: file,
            _turn: Some(turn),
        }))
    }

    /// Removes files of locks that killed processes left; returns how many. Blocking.
    ///
    /// # Errors
    /// `Os` where the directory cannot be read.
    pub fn tidy(&self) -> Result<usize> {
        let entries = fs::read_dir(&*self.dir).map_err(|error| Error::os("list locks", error))?;
        let mut removed = 0;
        for entry in entries.flatten() {
            let path = entry.path();
            if let Ok(Some(_file)) = take(&path) {
                // Under its lock: who waits for it finds it nameless and starts over.
                removed += usize::from(fs::remove_file(&path).is_ok());
            }
        }
        Ok(removed)
    }

    /// Waits for a lock on this thread. Blocking.
    pub(crate) fn lock_blocking(&self, key: &str) -> Result<LockGuard> {
        let path = self.path(key);
        loop {
            let file = open_lock_file(&path)?;
            let file =
                Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| Error::os("wait for a lock", errno))?;
            if is_named(&file, &path)? {
                return Ok(LockGuard {
                    path,
                    _file: file,
                    _turn: None,
                });
            }
        }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.dir.join(file_name(key))
    }

    fn queue(&self, key: &str) -> Arc<Queue<()>> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(key).and_then(Weak::upgrade) {
            return queue;
        }
        queues.retain(|_, queue| queue.strong_count() > 0);
        let queue = Arc::new(Queue::new(()));
        queues.insert(key.to_owned(), Arc::downgrade(&queue));
        queue
    }
}

/// Plain keys are readable file names; anything else is hashed, so that no key can leave the directory.
fn file_name(key: &str) -> String {
    let plain = key
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':'));
    if plain && (1..=180).contains(&key.len()) {
        return format!("k.{key}");
    }
    format!("h.{}", Digest::of(key.as_bytes()).hex())
}

fn take(path: &Path) -> Result<Option<Flock<File>>> {
    let file = open_lock_file(path)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(file) if is_named(&file, path)? => Ok(Some(file)),
        Ok(_) | Err((_, Errno::EAGAIN)) => Ok(None),
        Err((_, errno)) => Err(Error::os("take a lock", errno)),
    }
}

fn open_lock_file(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
        .open(path)
        .map_err(|error| Error::os(format!("open lock {}", path.display()), error))
}

/// Whether the locked file still has its name: its last holder may have removed it meanwhile.
fn is_named(file: &File, path: &Path) -> Result<bool> {
    let step = |error| Error::os(format!("look at lock {}", path.display()), error);
    let held = file.metadata().map_err(step)?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (held.dev(), held.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(step(error)),
    }
}
