//! Processors that have no layer of their own write small files for one that has.
//!
//! Making a small file costs the kernel more than its bytes cost us, so one big layer would keep one processor busy while
//! the others wait. An extractor with a spare processor therefore collects fresh files into batches and hands these to
//! threads that end with the layer, or as soon as another layer wants their processor. Where all are busy, it writes the batch
//! itself.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fchmod, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::name::show;
use crate::error::{Error, Result};

/// A larger file is written as it is read: its bytes are what costs.
pub(super) const SMALL: u64 = 128 << 10;

/// A batch is handed over at this size,
const BATCH_BYTES: usize = 512 << 10;
/// with so many files,
const BATCH_FILES: usize = 128;
/// or when it holds so many directories open.
const BATCH_DIRS: usize = 16;

/// Threads that help one layer, at most: a file system takes turns at making files long before that.
const HANDS: usize = 3;

/// Files between looks for a spare processor.
const LOOK: usize = 64;

/// Files after which what is on its way is waited for, so that their names do not pile up.
const PENDING: usize = 8192;

/// The processors of the unpacking engine, shared by its layers.
#[derive(Debug, Clone)]
pub(crate) struct Processors {
    free: Arc<Semaphore>,
    wanted: Arc<AtomicUsize>,
}

impl Processors {
    #[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
    pub(crate) fn new(count: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(count)),
            wanted: Arc::new(AtomicUsize::new(0)),
        }
    }

    /// One for a layer. Who helps others makes room.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue.
    pub(crate) async fn one(&self) -> Option<OwnedSemaphorePermit> {
        struct Wanted<'a>(&'a AtomicUsize);
        impl Drop for Wanted<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::AcqRel);
            }
        }
        self.wanted.fetch_add(1, Ordering::AcqRel);
        let _wanted = Wanted(&self.wanted);
        self.free.clone().acquire_owned().await.ok()
    }

    /// One that nobody wants.
    fn spare(&self) -> Option<OwnedSemaphorePermit> {
        if self.are_wanted() {
            return None;
        }
        self.free.clone().try_acquire_owned().ok()
    }

    fn are_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire) > 0
    }
}

/// A file that no entry before it can be in the way of, as far as the layer's own directories tell.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) dir: Arc<OwnedFd>,
    pub(super) name: Vec<u8>,
    /// For messages.
    pub(super) path: Vec<u8>,
    /// The mode to make it with, and the one to set if that gives another.
    pub(super) make: u32,
    pub(super) set: Option<u32>,
    pub(super) owner: Option<(u32, u32)>,
    pub(super) time: TimeSpec,
    pub(super) length: usize,
}

impl Fresh {
    /// Makes the file; `false` if something of its name is there.
    pub(super) fn write(&self, body: &[u8]) -> Result<bool> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = match openat(
            &*self.dir,
            self.name.as_slice(),
            flags,
            Mode::from_bits_truncate(self.make),
        ) {
            Ok(file) => File::from(file),
            Err(Errno::EEXIST) => return Ok(false),
            Err(e) => return Err(Error::os("create file", e)),
        };
        if !body.is_empty() {
            file.write_all(body).map_err(|e| Error::os("write file", e))?;
        }
        if let Some((uid, gid)) = self.owner {
            fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(|e| Error::os("fchown", e))?;
        }
        if let Some(mode) = self.set {
            fchmod(&file, Mode::from_bits_truncate(mode)).map_err(|e| Error::os("fchmod", e))?;
        }
        futimens(&file, &self.time, &self.time).map_err(|e| Error::os("futimens", e))?;
        Ok(true)
    }
}

/// What an entry of the same name was in the way of: for the extractor, which knows what to do.
pub(super) type Refused = (Fresh, Vec<u8>);

#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    files: Vec<Fresh>,
    dirs: usize,
}

impl Batch {
    fn push(&mut self, fresh: Fresh) {
        let same = self.files.last().is_some_and(|last| Arc::ptr_eq(&last.dir, &fresh.dir));
        self.dirs += usize::from(!same);
        self.files.push(fresh);
    }

    fn is_full(&self) -> bool {
        self.bytes.len() >= BATCH_BYTES || self.files.len() >= BATCH_FILES || self.dirs >= BATCH_DIRS
    }

    fn write(self) -> Result<Vec<Refused>> {
        let mut refused = Vec::new();
        let mut rest = self.bytes.as_slice();
        for fresh in self.files {
            let (body, behind) = rest.split_at_checked(fresh.length).unwrap_or((rest, &[]));
            rest = behind;
            let written = fresh
                .write(body)
                .map_err(|e| e.context(format!("unpack {}", show(&fresh.path))))?;
            if !written {
                refused.push((fresh, body.to_vec()));
            }
        }
        Ok(refused)
    }
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Batch>,
    /// Threads at work, and batches they are writing.
    hands: usize,
    writing: usize,
    refused: Vec<Refused>,
    failed: Option<Error>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A helping thread.
    fn help(&self, processors: &Processors) {
        let mut state = self.lock();
        while !state.closed && !processors.are_wanted() {
            let Some(batch) = state.queue.pop_front() else {
                // Not for ever: somebody may want the processor.
                let wait = self.changed.wait_timeout(state, Duration::from_millis(5));
                state = wait.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            };
            state.writing += 1;
            drop(state);
            let written = batch.write();
            state = self.lock();
            state.writing -= 1;
            match written {
                Ok(refused) => state.refused.extend(refused),
                Err(error) => state.failed = state.failed.take().or(Some(error)),
            }
            self.changed.notify_all();
        }
    }
}

/// Who writes the files of one layer.
#[derive(Debug)]
pub(super) struct Crew {
    processors: Option<Processors>,
    shared: Arc<Shared>,
    hands: Vec<JoinHandle<()>>,
    batch: Batch,
    pending: HashSet<Vec<u8>>,
    seen: usize,
}

impl Crew {
    /// A crew of whatever processors are spare; without any, of none.
    pub(super) fn new(processors: Option<Processors>) -> Self {
        Self {
            processors,
            shared: Arc::default(),
            hands: Vec::new(),
            batch: Batch::default(),
            pending: HashSet::new(),
            seen: 0,
        }
    }

    /// Whether the next file goes into a batch.
    pub(super) fn takes(&mut self, size: u64) -> bool {
        if self.processors.is_none() || size > SMALL {
            return false;
        }
        self.seen += 1;
        if self.seen % LOOK == 1 {
            self.hire();
        }
        !self.pending.is_empty() || self.shared.lock().hands > 0
    }

    /// Where the body of the next file is put.
    pub(super) fn body(&mut self) -> &mut Vec<u8> {
        if self.batch.bytes.capacity() == 0 {
            self.batch.bytes.reserve(BATCH_BYTES + SMALL as usize);
        }
        &mut self.batch.bytes
    }

    pub(super) fn is_pending(&self, path: &[u8]) -> bool {
        !self.pending.is_empty() && self.pending.contains(path)
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Takes a file whose body was put in place. Returns whether what is on its way should be waited for.
    pub(super) fn push(&mut self, fresh: Fresh) -> Result<bool> {
        self.pending.insert(fresh.path.clone());
        self.batch.push(fresh);
        if self.batch.is_full() {
            let batch = std::mem::take(&mut self.batch);
            self.pass(batch)?;
        }
        Ok(self.pending.len() >= PENDING)
    }

    /// Sees everything written. Returns the files that something was in the way of, which were not.
    pub(super) fn finish(&mut self) -> Result<Vec<Refused>> {
        if self.pending.is_empty() {
            return Ok(Vec::new());
        }
        let batch = std::mem::take(&mut self.batch);
        self.write(batch)?;
        loop {
            let mut state = self.shared.lock();
            if let Some(batch) = state.queue.pop_front() {
                drop(state);
                self.write(batch)?;
                continue;
            }
            while state.writing > 0 {
                state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if let Some(error) = state.failed.take() {
                return Err(error);
            }
            self.pending.clear();
            return Ok(std::mem::take(&mut state.refused));
        }
    }

    fn hire(&mut self) {
        let Some(processors) = &self.processors else { return };
        if self.shared.lock().hands >= HANDS {
            return;
        }
        let Some(permit) = processors.spare() else { return };
        let (shared, processors) = (Arc::clone(&self.shared), processors.clone());
        self.shared.lock().hands += 1;
        let hand = std::thread::Builder::new()
            .name("longshore-files".to_owned())
            .spawn(move || {
                shared.help(&processors);
                shared.lock().hands -= 1;
                drop(permit);
            });
        match hand {
            Ok(hand) => self.hands.push(hand),
            // No more threads to be had: the extractor writes the files itself.
            Err(_) => self.shared.lock().hands -= 1,
        }
        self.hands.retain(|hand| !hand.is_finished());
    }

    /// To whoever helps, if there is room.
    fn pass(&mut self, batch: Batch) -> Result<()> {
        let mut state = self.shared.lock();
        if let Some(error) = state.failed.take() {
            return Err(error);
        }
        if state.queue.len() < state.hands {
            state.queue.push_back(batch);
            self.shared.changed.notify_all();
            return Ok(());
        }
        drop(state);
        self.write(batch)
    }

    fn write(&self, batch: Batch) -> Result<()> {
        let refused = batch.write()?;
        if !refused.is_empty() {
            self.shared.lock().refused.extend(refused);
        }
        Ok(())
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        for hand in self.hands.drain(..) {
            // It was seen to end; a panic in it is no reason for another.
            let _ = hand.join();
        }
    }
}
