//! Raw chunks for whoever watches a container live: attached clients, and collectors of whole outputs.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::LogStream;

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

/// Copies chunks to every reader. Writing never waits for any of them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tee {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    closed: bool,
    readers: Vec<Arc<Shared>>,
}

/// One reader's queue.
#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Notify,
    limit_bytes: usize,
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
        let mut inner = self.lock();
        let queue = Queue {
            closed: inner.closed,
            ..Queue::default()
        };
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            filled: Notify::new(),
            limit_bytes,
        });
        inner.readers.push(shared.clone());
        TeeReader {
            shared,
            tee: self.clone(),
        }
    }

    /// Hands a chunk to every reader.
    pub fn write(&self, stream: LogStream, bytes: &Bytes) {
        for reader in &self.lock().readers {
            reader.put(stream, bytes);
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
        let full = queue.missed > 0 || (queue.bytes > 0 && queue.bytes.saturating_add(bytes.len()) > self.limit_bytes);
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
                Ok(item) => return Some(item),
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
    }
}
