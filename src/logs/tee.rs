//! Raw chunks for whoever watches a container live: attached clients, and collectors of whole outputs.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::LogStream;
use crate::events::now_ns;

/// Bytes exactly as the container wrote them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Where they were written.
    pub stream: LogStream,
    /// The bytes.
    pub bytes: Bytes,
}

/// What a reader of a tee gets.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TeeItem {
    /// Bytes.
    Chunk(Chunk),
    /// The reader was slower than its limit allows: so many bytes were left out here.
    Lagged {
        /// How many.
        missed_bytes: u64,
    },
}

/// Copies chunks to every reader. Writing never waits for any of them; who wants to wait for those that ask for it calls
/// [`Tee::room`] first. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tee {
    inner: Arc<Mutex<Inner>>,
    /// A reader that may hold the writer up has taken something, or is gone.
    drained: Arc<Notify>,
    /// How many entries the log has taken, or lost.
    logged: Arc<watch::Sender<u64>>,
}

impl Default for Tee {
    fn default() -> Self {
        Self {
            inner: Arc::default(),
            drained: Arc::default(),
            logged: Arc::new(watch::Sender::new(0)),
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    closed: bool,
    /// Nobody holds the writer up any more.
    released: bool,
    readers: Vec<Arc<Shared>>,
    /// Entries that are on their way to the log.
    pushed: u64,
    /// The least time of the next entry.
    floor_ns: i64,
    /// What was written and is in no entry yet: beginnings of lines.
    begun: Vec<Chunk>,
}

/// Where the log ends and a reader's chunks begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// No entry before the cut is younger, and every one after it is.
    pub until_ns: i64,
    /// How many entries must be in the log before it can be read up to the cut.
    entries: u64,
    /// What lies between the last entry and the first chunk: beginnings of lines.
    pub begun: Vec<Chunk>,
}

/// One reader's queue.
#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Notify,
    limit_bytes: usize,
    /// The writer waits at the limit.
    holds: bool,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<TeeItem>,
    bytes: usize,
    missed: u64,
    closed: bool,
}

/// A reader of a [`Tee`]: gets what is written from its making on. Dropping it unsubscribes.
#[derive(Debug)]
pub struct TeeReader {
    shared: Arc<Shared>,
    tee: Tee,
}

impl Tee {
    /// A tee that nobody reads yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A reader that loses nothing; what it does not take piles up in memory.
    pub fn collect(&self) -> TeeReader {
        self.subscribe(usize::MAX)
    }

    /// A reader for which at most so many bytes wait; beyond that it loses chunks, and is told so.
    pub fn subscribe(&self, limit_bytes: usize) -> TeeReader {
        self.add(&mut self.lock(), limit_bytes, false)
    }

    /// A reader that loses nothing: [`Tee::room`] waits for it once so many bytes do.
    pub fn subscribe_waiting(&self, limit_bytes: usize) -> TeeReader {
        self.add(&mut self.lock(), limit_bytes, true)
    }

    /// A reader made by `subscribe`, and where the log ends for it: together they have everything once. Not to be called
    /// while a pump may run on another thread.
    pub fn with_cut(&self, subscribe: impl FnOnce(&Self) -> TeeReader) -> (TeeReader, Cut) {
        let reader = subscribe(self);
        let mut inner = self.lock();
        let until_ns = now_ns().max(inner.floor_ns);
        inner.floor_ns = until_ns + 1;
        let cut = Cut {
            until_ns,
            entries: inner.pushed,
            begun: inner.begun.clone(),
        };
        (reader, cut)
    }

    /// Waits until the log has taken everything before a cut.
    pub async fn logged(&self, cut: &Cut) {
        let mut logged = self.logged.subscribe();
        // The sender lives as long as this.
        let _ = logged.wait_for(|logged| *logged >= cut.entries).await;
    }

    fn add(&self, inner: &mut Inner, limit_bytes: usize, holds: bool) -> TeeReader {
        let queue = Queue {
            closed: inner.closed,
            ..Queue::default()
        };
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            filled: Notify::new(),
            limit_bytes,
            holds,
        });
        inner.readers.push(shared.clone());
        TeeReader {
            shared,
            tee: self.clone(),
        }
    }

    /// Waits while a reader that is waited for has as much as it may have.
    ///
    /// # Cancel safety
    /// A dropped call changes nothing.
    pub async fn room(&self) {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            if !self.is_held() {
                return;
            }
            drained.await;
        }
    }

    fn is_held(&self) -> bool {
        let inner = self.lock();
        let full = |reader: &Arc<Shared>| reader.holds && reader.lock().bytes >= reader.limit_bytes;
        !inner.released && inner.readers.iter().any(full)
    }

    /// Nobody holds the writer up from now on: what is still to come is little.
    pub fn release(&self) {
        self.lock().released = true;
        self.drained.notify_waiters();
    }

    /// Whether anybody reads.
    pub(crate) fn has_readers(&self) -> bool {
        !self.lock().readers.is_empty()
    }

    /// Whether nothing more will be written.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// The time of an entry that is made now: later than all before, so that a reader can go on after the last it has.
    pub(crate) fn entry_time(&self) -> i64 {
        let mut inner = self.lock();
        let time_ns = now_ns().max(inner.floor_ns);
        inner.floor_ns = time_ns + 1;
        time_ns
    }

    /// So many entries are on their way to the log; times up to this, which follow one of [`Tee::entry_time`], are theirs.
    pub(crate) fn pushed(&self, entries: u64, until_ns: i64) {
        let mut inner = self.lock();
        inner.pushed += entries;
        inner.floor_ns = inner.floor_ns.max(until_ns);
    }

    /// So many entries have reached the log, or are lost.
    pub(crate) fn took(&self, entries: usize) {
        self.logged.send_modify(|logged| *logged += entries as u64);
    }

    /// What of a stream is in no entry yet.
    pub(crate) fn begun(&self, stream: LogStream, bytes: &[u8]) {
        let mut inner = self.lock();
        inner.begun.retain(|chunk| chunk.stream != stream);
        if !bytes.is_empty() {
            let bytes = Bytes::copy_from_slice(bytes);
            inner.begun.push(Chunk { stream, bytes });
        }
    }

    /// Hands a chunk to every reader.
    pub fn write(&self, stream: LogStream, bytes: &Bytes) {
        for reader in &self.lock().readers {
            reader.put(stream, bytes);
        }
    }

    /// So many bytes are missing here for every reader: they were lost on the way.
    pub(crate) fn missed(&self, bytes: u64) {
        for reader in &self.lock().readers {
            reader.lock().items.push_back(TeeItem::Lagged { missed_bytes: bytes });
            reader.filled.notify_one();
        }
    }

    /// Nothing more will be written: readers come to their end.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        for reader in &inner.readers {
            reader.lock().closed = true;
            reader.filled.notify_one();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, stream: LogStream, bytes: &Bytes) {
        let mut queue = self.lock();
        // A queue that lost something takes nothing until it is empty: one gap, not many.
        let over = queue.bytes > 0 && queue.bytes.saturating_add(bytes.len()) > self.limit_bytes;
        let full = queue.missed > 0 || (over && !self.holds);
        if full {
            queue.missed += bytes.len() as u64;
        } else {
            queue.bytes += bytes.len();
            queue.items.push_back(TeeItem::Chunk(Chunk {
                stream,
                bytes: bytes.clone(),
            }));
        }
        drop(queue);
        self.filled.notify_one();
    }

    /// The next item, or whether nothing more will come.
    fn take(&self) -> Result<TeeItem, bool> {
        let mut queue = self.lock();
        if let Some(item) = queue.items.pop_front() {
            if let TeeItem::Chunk(chunk) = &item {
                queue.bytes -= chunk.bytes.len();
            }
            return Ok(item);
        }
        match std::mem::take(&mut queue.missed) {
            0 => Err(queue.closed),
            missed_bytes => Ok(TeeItem::Lagged { missed_bytes }),
        }
    }
}

impl TeeReader {
    /// The next item; `None` at the end.
    ///
    /// # Cancel safety
    /// A dropped call loses nothing.
    pub async fn next(&mut self) -> Option<TeeItem> {
        loop {
            match self.shared.take() {
                Ok(item) => {
                    if self.shared.holds {
                        self.tee.drained.notify_waiters();
                    }
                    return Some(item);
                }
                Err(true) => return None,
                // A note left since the look is kept by `Notify`.
                Err(false) => self.shared.filled.notified().await,
            }
        }
    }
}

impl Drop for TeeReader {
    fn drop(&mut self) {
        self.tee
            .lock()
            .readers
            .retain(|reader| !Arc::ptr_eq(reader, &self.shared));
        self.tee.drained.notify_waiters();
    }
}
