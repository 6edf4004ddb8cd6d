//! Layers of an archive, unpacked while it is read: before anybody knows which image they belong to, and on what.
//!
//! Whoever takes the archive in hashes and keeps each blob; a second thread follows it through the blob's file and writes the
//! layer out. An image's layers are then ready when the archive's last byte is read. What was unpacked so is no more than an
//! offer: where it does not fit, or failed, the layer is unpacked as any other, and says then what is wrong with it.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{oneshot, watch};

use super::source::{Stop, cancelled, is_plain};
use super::{Shared, Unpacker, apply_with};
use crate::error::Result;
use crate::storage::content::Ingest;
use crate::storage::files::read_buffered;
use crate::storage::layer::{Applied, Hashing};
use crate::storage::snapshot::{LayerTarget, SnapshotKey};
use crate::types::Digest;

/// Layers that wait to be unpacked, each with an open file. What comes beyond them is unpacked afterwards.
const WAITING: usize = 16;
/// How much of a blob is read at a time.
const PIECE: usize = 256 << 10;
/// A smaller blob is unpacked as quickly afterwards.
const WORTH: u64 = 64 << 10;

/// The thread that unpacks, and what it has ready. Dropping it takes away whatever nobody took.
#[derive(Debug)]
pub(crate) struct Ahead {
    follower: Follower,
    stop: StopAtEnd,
    ended: oneshot::Receiver<()>,
}

#[derive(Debug)]
struct StopAtEnd(Stop);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// What whoever takes an archive in tells of.
#[derive(Debug, Clone)]
pub(crate) struct Follower {
    queue: SyncSender<Arc<Tail>>,
    offers: Offers,
}

/// Layers that are ready.
#[derive(Debug, Clone)]
pub(crate) struct Offers {
    known: Arc<Mutex<Known>>,
    changed: watch::Sender<()>,
    stop: Stop,
}

#[derive(Debug, Default)]
struct Known {
    /// By the blob.
    ready: HashMap<Digest, Offer>,
    /// The blob that is being unpacked.
    current: Option<Arc<Tail>>,
    /// Blobs that were hashed and kept a moment ago, by this process.
    fresh: HashSet<Digest>,
    /// No layer is begun any more.
    closed: bool,
}

/// A layer that was written out, under a key of the snapshotter's.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) key: SnapshotKey,
    pub(super) target: LayerTarget,
    pub(super) applied: Applied,
}

/// A blob that is being written, as its follower sees it.
#[derive(Debug)]
struct Tail {
    file: Mutex<Option<File>>,
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct State {
    written: u64,
    end: Option<End>,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Kept(Digest),
    GivenUp,
}

/// A blob that is being written and followed. Dropping it gives it up.
#[derive(Debug)]
pub(crate) struct Followed {
    tail: Arc<Tail>,
}

impl Unpacker {
    /// Begins to unpack ahead; `None` where layers can only be unpacked on what is below them, or there is no thread to be
    /// had. `keep` is dropped when nothing is written any more.
    pub(crate) fn ahead(&self, keep: impl Send + 'static) -> Option<Ahead> {
        if !self.shared.snapshotter.unpacks_in_parallel() {
            return None;
        }
        let (queue, waiting) = sync_channel(WAITING);
        let offers = Offers {
            known: Arc::default(),
            changed: watch::channel(()).0,
            stop: Stop::default(),
        };
        let (done, ended) = oneshot::channel();
        let (shared, made) = (self.shared.clone(), offers.clone());
        let runtime = Builder::new_current_thread().max_blocking_threads(1).build().ok()?;
        let thread = std::thread::Builder::new().name("longshore-ahead".into());
        let spawned = thread.spawn(move || {
            let worker = Worker {
                shared,
                offers: made,
                runtime,
            };
            worker.run(&waiting);
            drop(keep);
            let _ = done.send(());
        });
        spawned.ok()?;
        let stop = StopAtEnd(offers.stop.clone());
        let follower = Follower { queue, offers };
        Some(Ahead { follower, stop, ended })
    }
}

impl Ahead {
    pub(crate) fn follower(&self) -> Follower {
        self.follower.clone()
    }

    /// How many layers are ready.
    #[cfg(test)]
    pub(super) fn ready(&self) -> usize {
        self.follower.offers.lock().ready.len()
    }

    /// What is ready, once all of the archive is read: from now on no layer is begun.
    pub(crate) fn offers(&self) -> Offers {
        let offers = self.follower.offers.clone();
        offers.lock().closed = true;
        offers
    }

    /// Takes away what nobody took.
    ///
    /// # Cancel safety
    /// The thread does it all the same.
    pub(crate) async fn end(self) {
        let Self { follower, stop, ended } = self;
        drop(follower);
        drop(stop);
        let _ = ended.await;
    }
}

impl Follower {
    /// Has a blob followed that begins so, and will have so many bytes; nothing where that is of no use.
    pub(crate) fn follow(&self, ingest: &dyn Ingest, head: &[u8], size: u64) -> Option<Followed> {
        if size < WORTH || !is_layer(head) || self.offers.lock().closed {
            return None;
        }
        let file = ingest.reader().ok()??;
        let tail = Arc::new(Tail {
            file: Mutex::new(Some(file)),
            state: Mutex::default(),
            more: Condvar::new(),
        });
        match self.queue.try_send(Arc::clone(&tail)) {
            Ok(()) => Some(Followed { tail }),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => None,
        }
    }

    /// A blob was hashed and kept.
    pub(crate) fn kept(&self, digest: &Digest) {
        self.offers.lock().fresh.insert(*digest);
    }

    /// No layer is begun any more.
    pub(crate) fn close(&self) {
        self.offers.lock().closed = true;
    }
}

impl Followed {
    pub(crate) fn wrote(&self, bytes: usize) {
        self.tail.lock().written += bytes as u64;
        self.tail.more.notify_one();
    }

    /// The blob is there as a whole.
    pub(crate) fn kept(self, digest: &Digest) {
        self.tail.end(End::Kept(*digest));
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.tail.end(End::GivenUp);
    }
}

impl Tail {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first word counts.
    fn end(&self, end: End) {
        self.lock().end.get_or_insert(end);
        self.more.notify_one();
    }

    fn digest(&self) -> Option<Digest> {
        match self.lock().end {
            Some(End::Kept(digest)) => Some(digest),
            _ => None,
        }
    }

    /// How many bytes there are behind `from`, waiting for some; none at the end.
    fn wait(&self, from: u64) -> Result<u64> {
        let mut state = self.lock();
        loop {
            match state.end {
                Some(End::GivenUp) => return Err(cancelled()),
                Some(End::Kept(_)) => return Ok(state.written.saturating_sub(from)),
                None if state.written > from => return Ok(state.written - from),
                None => state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// The digest of the whole, waiting for it.
    fn whole(&self) -> Result<Digest> {
        let mut state = self.lock();
        loop {
            match state.end {
                Some(End::GivenUp) => return Err(cancelled()),
                Some(End::Kept(digest)) => return Ok(digest),
                None => state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl Offers {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the blob was hashed and kept a moment ago, by this process: nothing can have lost its data since.
    pub(super) fn is_fresh(&self, blob: &Digest) -> bool {
        self.lock().fresh.contains(blob)
    }

    /// The layer of a blob, if it is ready; it is the caller's then. One that is being written is waited for.
    pub(super) async fn take(&self, blob: &Digest) -> Option<Offer> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            {
                let mut known = self.lock();
                if let Some(offer) = known.ready.remove(blob) {
                    return Some(offer);
                }
                let current = known.current.as_ref().and_then(|tail| tail.digest());
                if current.as_ref() != Some(blob) {
                    return None;
                }
            }
            changed.changed().await.ok()?;
        }
    }
}

/// The thread.
struct Worker {
    shared: Arc<Shared>,
    offers: Offers,
    /// The snapshotter is async, and this is a thread without a runtime.
    runtime: Runtime,
}

impl Worker {
    fn run(&self, waiting: &Receiver<Arc<Tail>>) {
        while let Ok(tail) = waiting.recv() {
            {
                let mut known = self.offers.lock();
                if known.closed || self.offers.stop.is_set() {
                    continue;
                }
                known.current = Some(Arc::clone(&tail));
            }
            let unpacked = self.layer(&tail);
            let mut known = self.offers.lock();
            known.current = None;
            match unpacked {
                Ok((blob, offer)) => {
                    if let Some(twice) = known.ready.insert(blob, offer) {
                        drop(known);
                        self.discard(&twice.key);
                    }
                }
                Err(error) => tracing::debug!(error = error.report(), "a layer was not unpacked ahead"),
            }
            self.offers.changed.send_replace(());
        }
        let left = std::mem::take(&mut self.offers.lock().ready);
        for offer in left.into_values() {
            self.discard(&offer.key);
        }
    }

    fn layer(&self, tail: &Arc<Tail>) -> Result<(Digest, Offer)> {
        let key = self.shared.new_key()?;
        let written = self.write(&key, tail);
        if written.is_err() {
            self.discard(&key);
        }
        let (blob, target, applied) = written?;
        Ok((blob, Offer { key, target, applied }))
    }

    fn write(&self, key: &SnapshotKey, tail: &Arc<Tail>) -> Result<(Digest, LayerTarget, Applied)> {
        let file = tail.file.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut reader = TailReader {
            file: file.ok_or_else(cancelled)?,
            tail: Arc::clone(tail),
            stop: self.offers.stop.clone(),
            buffer: vec![0; PIECE].into_boxed_slice(),
            start: 0,
            end: 0,
            read: 0,
        };
        let plain = is_plain(reader.fill_buf().map_err(super::source::ours)?);
        let hashing = if plain { Hashing::Spared } else { Hashing::Done };
        // The parent is nobody's business yet: with a snapshotter that unpacks in parallel it is said at the commit.
        let target = self.runtime.block_on(self.shared.snapshotter.begin_layer(key, None))?;
        let shared = &self.shared;
        let processors = Some(shared.processors.clone());
        let limits = &shared.limits;
        let mut applied = apply_with(&mut reader, &target, &shared.ownership, limits, processors, hashing)?;
        let blob = tail.whole()?;
        if plain {
            // The very bytes that were hashed for the blob.
            applied.diff_id = blob;
        }
        Ok((blob, target, applied))
    }

    fn discard(&self, key: &SnapshotKey) {
        if let Err(error) = self.runtime.block_on(self.shared.snapshotter.discard(key)) {
            tracing::warn!(
                key,
                error = error.report(),
                "could not discard a layer that was unpacked ahead"
            );
        }
    }
}

/// A blob's bytes as they are written.
struct TailReader {
    file: File,
    tail: Arc<Tail>,
    stop: Stop,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    read: u64,
}

impl Read for TailReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, out)
    }
}

impl BufRead for TailReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.stop.check().map_err(io::Error::other)?;
            let there = self.tail.wait(self.read).map_err(io::Error::other)?;
            let most = usize::try_from(there).unwrap_or(usize::MAX).min(self.buffer.len());
            let length = self.file.read(&mut self.buffer[..most])?;
            if length == 0 && most > 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.read += length as u64;
            (self.start, self.end) = (0, length);
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, amount: usize) {
        self.start = self.end.min(self.start + amount);
    }
}

/// Whether these may be the first bytes of a layer, of the kinds that most are of.
fn is_layer(head: &[u8]) -> bool {
    head.starts_with(&[0x1f, 0x8b]) || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || is_plain(head)
}
