//! From blobs to snapshots: one pass per layer, several layers at a time.
//!
//! Each layer is a task with a worker of the blocking pool: network → sha256 → content store → decompress → sha256 → write.
//! A processor that no layer needs writes small files for a layer that has many (`storage::layer`, the crew). When all is
//! done, every blob is in the content store too: a push or a save sends the very bytes that came, and layers that did not
//! reach the disk before a loss of power are made again from them.
//!
//! The work on a chain, and the download of a blob, is done once across tasks and processes (locks by name). Locks are
//! taken from the chain to the blob to the worker's permit, and a layer waits for its parent only after it gave its permit
//! back: so whoever waits, waits for someone who can go on.

mod ahead;
mod compare;
mod implied;
mod lock;
mod source;

use std::collections::HashSet;
use std::fmt::Debug;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt};
use tokio::sync::{mpsc, watch};

use self::ahead::Offer;
pub(crate) use self::ahead::{Ahead, Followed, Follower, Offers};
use self::lock::{Held, Locks};
use self::source::{BlobReader, Stop, Teller, cancelled, feed};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::progress::{Progress, ProgressEvent};
use crate::storage::content::ContentStore;
use crate::storage::files::{self, blocking, check_owner, random_name};
use crate::storage::layer::{Applied, Hashing, Limits, Processors, apply_with};
use crate::storage::ownership::Ownership;
use crate::storage::snapshot::{LayerTarget, SnapshotKey, Snapshotter};
use crate::sys::blocking::{begin_blocking, elsewhere, may_block};
use crate::sys::order;
pub use crate::types::LayerRef;
use crate::types::{ChainId, Descriptor, Digest};

/// Chunks of a blob between the network and a worker.
const CHUNKS: usize = 16;

/// A layer's work, of one type only: what is spawned is several kilobytes of code for each.
type Work = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// A blob's bytes as they arrive.
pub type BlobBytes = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send + 'static>>;

/// Where bytes of missing blobs come from.
#[async_trait]
pub trait BlobSource: Debug + Send + Sync + 'static {
    /// Opens a blob's bytes from an offset, which is at most its size.
    async fn open(&self, descriptor: &Descriptor, offset: u64) -> Result<BlobBytes>;
}

/// What is known before an image is unpacked.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// Blobs that are not fetched for their own sake: only where their layer is not here.
    pub(crate) unwanted: HashSet<Digest>,
    /// Layers that were unpacked while their blobs came in.
    pub(crate) offers: Option<Offers>,
    /// Blobs that this process hashed and kept a moment ago.
    pub(crate) fresh: HashSet<Digest>,
}

/// Puts blobs into the content store and layers into snapshots. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Unpacker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    content: Arc<dyn ContentStore>,
    snapshotter: Arc<dyn Snapshotter>,
    ownership: Ownership,
    locks: Locks,
    owner: String,
    limits: Limits,
    processors: Processors,
}

impl Unpacker {
    /// An unpacker for the engine `owner` (`[a-zA-Z0-9]{1,64}`), which names unfinished snapshots. `locks_dir` is made.
    ///
    /// # Errors
    /// `InvalidArgument` for another owner; `ReadOnly`, `Denied` or `Os` if the directory cannot be made.
    #[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
    pub fn new(
        content: Arc<dyn ContentStore>,
        snapshotter: Arc<dyn Snapshotter>,
        ownership: Ownership,
        locks_dir: PathBuf,
        owner: impl Into<String>,
    ) -> Result<Self> {
        let owner = owner.into();
        check_owner(&owner)?;
        files::make_dirs(&locks_dir)?;
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        let shared = Shared {
            content,
            snapshotter,
            ownership,
            locks: Locks::new(locks_dir),
            owner,
            limits: Limits::default(),
            processors: Processors::new(workers),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Makes all layers of an image into snapshots, keeps their blobs, and returns the chain id of the topmost; `None` without
    /// layers. The layers are lowest first, as in the image's config.
    ///
    /// # Errors
    /// `DigestMismatch` for bytes that are not what they should be, `UnsafeArchive` for hostile layers, what `source` says,
    /// `NoSpace`, `ReadOnly`, `Os`. Nothing half made is left; finished layers stay.
    ///
    /// # Cancel safety
    /// Dropping the future stops the workers at their next chunk; they remove what they began, on this runtime.
    pub async fn image(
        &self,
        layers: &[LayerRef],
        source: Arc<dyn BlobSource>,
        progress: &Progress,
    ) -> Result<Option<ChainId>> {
        self.image_given(layers, &Given::default(), source, progress).await
    }

    /// As [`Unpacker::image`], with what is known already.
    ///
    /// # Errors
    /// As [`Unpacker::image`].
    ///
    /// # Cancel safety
    /// As [`Unpacker::image`].
    pub(crate) async fn image_given(
        &self,
        layers: &[LayerRef],
        given: &Given,
        source: Arc<dyn BlobSource>,
        progress: &Progress,
    ) -> Result<Option<ChainId>> {
        let jobs = self.jobs(layers, given, &source, progress);
        let Some(top) = jobs.last().map(|job| job.chain) else {
            return Ok(None);
        };
        let jobs = missing(jobs).await?;
        let guard = StopOnDrop::default();
        if self.shared.snapshotter.unpacks_in_parallel() {
            self.side_by_side(jobs, &guard).await?;
        } else {
            for job in jobs {
                one(job.spawn(&guard)).await?;
            }
        }
        Ok(Some(top))
    }

    /// Fetches a small blob (an image's config) unless it is here, keeps it, and returns its bytes.
    ///
    /// # Errors
    /// `InvalidArgument` for one of more than `max_size` bytes; otherwise as [`Unpacker::image`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing.
    pub async fn blob(
        &self,
        descriptor: &Descriptor,
        source: Arc<dyn BlobSource>,
        max_size: u64,
        progress: &Progress,
    ) -> Result<Vec<u8>> {
        if descriptor.size > max_size {
            let message = format!(
                "a blob of {} bytes, where at most {max_size} are taken",
                descriptor.size
            );
            return Err(Error::invalid(message).with_object(ObjectKind::Blob, descriptor.digest.to_string()));
        }
        let _held = self.shared.lock("blob", &descriptor.digest).await?;
        if let Some(bytes) = self.small_blob(descriptor).await? {
            progress.report(ProgressEvent::Exists {
                digest: descriptor.digest,
                size: descriptor.size,
            });
            return Ok(bytes);
        }
        self.fetch_small(descriptor, source, progress).await
    }

    /// Makes the blobs of an image survive a loss of power. Once per image, before its record is written. What was unpacked
    /// can be made again from them; [`Snapshotter::sync`] spares one that.
    ///
    /// # Errors
    /// `Os` if the kernel could not write them out.
    ///
    /// # Cancel safety
    /// The kernel may write them out all the same.
    pub async fn sync(&self, blobs: &[Digest]) -> Result<()> {
        self.shared.content.sync(blobs).await
    }

    /// Compares a layer that is here with what its blob says: unpacks that once more, beside it. The first path that differs.
    ///
    /// # Errors
    /// `NotFound` without the blob or the layer, `DigestMismatch` where the blob is damaged; as [`Unpacker::image`].
    ///
    /// # Cancel safety
    /// What was unpacked for it is left to the sweeper.
    pub async fn compare(&self, layer: &LayerRef, parent: Option<&ChainId>) -> Result<Option<PathBuf>> {
        let shared = &self.shared;
        let chain = Digest::chain(parent, &layer.diff_id);
        let _held = shared.lock("chain", &chain).await?;
        let key = shared.new_key()?;
        let job = Job {
            shared: shared.clone(),
            layer: layer.clone(),
            blob_wanted: false,
            offers: None,
            fresh: false,
            chain,
            parent: parent.copied(),
            parent_ready: None,
            done: watch::channel(false).0,
            source: Arc::new(NoSource),
            progress: Progress::default(),
        };
        let compared = job.compare(&key).await;
        shared.snapshotter.discard(&key).await?;
        compared
    }

    async fn small_blob(&self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>> {
        if !self.shared.has_blob(descriptor).await? {
            return Ok(None);
        }
        let file = self.shared.content.open(&descriptor.digest).await?;
        let bytes = blocking(move || {
            use std::io::Read;
            let mut bytes = Vec::new();
            let mut file = file;
            file.read_to_end(&mut bytes).map_err(|e| Error::os("read blob", e))?;
            Ok(bytes)
        })
        .await?;
        if Digest::of(&bytes) == descriptor.digest {
            return Ok(Some(bytes));
        }
        self.shared.content.remove(&descriptor.digest).await?;
        Ok(None)
    }

    async fn fetch_small(
        &self,
        descriptor: &Descriptor,
        source: Arc<dyn BlobSource>,
        progress: &Progress,
    ) -> Result<Vec<u8>> {
        let mut stream = source.open(descriptor, 0).await?;
        let mut ingest = self
            .shared
            .content
            .ingest(Some(&descriptor.digest), Some(descriptor.size))
            .await?;
        let mut teller = Teller::new(progress.clone(), descriptor);
        let mut bytes = Vec::new();
        while let Some(piece) = stream.next().await {
            let piece = piece?;
            let kept = piece.clone();
            ingest = blocking(move || ingest.write(&kept).map(|()| ingest)).await?;
            teller.add(piece.len() as u64);
            bytes.extend_from_slice(&piece);
        }
        blocking(move || ingest.commit()).await?;
        teller.flush();
        Ok(bytes)
    }

    fn jobs(&self, layers: &[LayerRef], given: &Given, source: &Arc<dyn BlobSource>, progress: &Progress) -> Vec<Job> {
        let mut jobs: Vec<Job> = Vec::new();
        let mut below: Option<(ChainId, watch::Receiver<bool>)> = None;
        for layer in layers {
            let parent = below.as_ref().map(|(chain, _)| *chain);
            let chain = Digest::chain(parent.as_ref(), &layer.diff_id);
            let (done, ready) = watch::channel(false);
            jobs.push(Job {
                shared: self.shared.clone(),
                layer: layer.clone(),
                blob_wanted: !given.unwanted.contains(&layer.descriptor.digest),
                offers: given.offers.clone(),
                fresh: given.fresh.contains(&layer.descriptor.digest),
                chain,
                parent,
                parent_ready: below.take().map(|(_, ready)| ready),
                done,
                source: source.clone(),
                progress: progress.clone(),
            });
            below = Some((chain, ready));
        }
        jobs
    }

    /// Runs all jobs, the biggest first in the queue for workers; the first error stops the others, and is returned when
    /// all of them have cleaned up.
    async fn side_by_side(&self, mut jobs: Vec<Job>, guard: &StopOnDrop) -> Result<()> {
        order::sort_by_key(&mut jobs, |job| std::cmp::Reverse(job.layer.descriptor.size));
        let spawn = |job: Job| one(job.spawn(guard));
        let mut running: FuturesUnordered<_> = jobs.into_iter().map(spawn).collect();
        let mut first: Option<Error> = None;
        while let Some(ended) = running.next().await {
            let Err(error) = ended else { continue };
            guard.stop();
            let replaces = first
                .as_ref()
                .is_none_or(|known| matches!(known.kind(), ErrorKind::Cancelled));
            if replaces {
                first = Some(error);
            }
        }
        first.map_or(Ok(()), Err)
    }
}

/// Those that there is something to do for. Each can find that out for itself; but where this is a thread that may block, a
/// look costs less than a task.
async fn missing(jobs: Vec<Job>) -> Result<Vec<Job>> {
    if !may_block() {
        return Ok(jobs);
    }
    let mut rest = Vec::new();
    for job in jobs {
        if job.is_here().await? {
            job.exists()?;
            job.done.send_replace(true);
        } else {
            rest.push(job);
        }
    }
    Ok(rest)
}

async fn one(task: tokio::task::JoinHandle<Result<()>>) -> Result<()> {
    task.await
        .map_err(|e| Error::internal("an unpacking task ended early").with_source(e))?
}

/// Tells tasks to stop when the caller's future goes away. The tasks themselves are not aborted: they clean up.
#[derive(Debug)]
struct StopOnDrop {
    stop: Stop,
    signal: watch::Sender<bool>,
}

impl Default for StopOnDrop {
    fn default() -> Self {
        Self {
            stop: Stop::default(),
            signal: watch::channel(false).0,
        }
    }
}

impl StopOnDrop {
    fn stop(&self) {
        self.stop.set();
        self.signal.send_replace(true);
    }

    fn stopped(&self) -> watch::Receiver<bool> {
        self.signal.subscribe()
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn new_key(&self) -> Result<SnapshotKey> {
        Ok(format!("unpack-{}-{}", self.owner, random_name(16)?))
    }

    async fn lock(&self, what: &str, digest: &Digest) -> Result<Held> {
        self.locks.lock(format!("{what}-{}", digest.hex())).await
    }

    async fn has_blob(&self, blob: &Descriptor) -> Result<bool> {
        let Some(info) = self.content.info(&blob.digest).await? else {
            return Ok(false);
        };
        if info.size == blob.size {
            return Ok(true);
        }
        // What a power failure left of it.
        self.content.remove(&blob.digest).await?;
        Ok(false)
    }
}

/// One layer to unpack.
#[derive(Debug)]
struct Job {
    shared: Arc<Shared>,
    layer: LayerRef,
    /// Whether the blob must be here in the end, though its layer may be.
    blob_wanted: bool,
    offers: Option<Offers>,
    /// Whether its blob was hashed and kept a moment ago, by this process.
    fresh: bool,
    chain: ChainId,
    parent: Option<ChainId>,
    parent_ready: Option<watch::Receiver<bool>>,
    done: watch::Sender<bool>,
    source: Arc<dyn BlobSource>,
    progress: Progress,
}

impl Job {
    fn spawn(self, guard: &StopOnDrop) -> tokio::task::JoinHandle<Result<()>> {
        let fresh = self.fresh;
        let work: Work = Box::pin(self.run(guard.stop.clone(), guard.stopped()));
        match fresh {
            // Nothing has to come from elsewhere: all of it blocks.
            true => tokio::spawn(Box::pin(async move { begin_blocking(work).await? }) as Work),
            false => tokio::spawn(work),
        }
    }

    /// Whether there is nothing to do.
    async fn is_here(&self) -> Result<bool> {
        if !self.shared.snapshotter.exists(&self.chain).await? {
            return Ok(false);
        }
        Ok(!self.blob_wanted || self.shared.has_blob(&self.layer.descriptor).await?)
    }

    async fn run(mut self, stop: Stop, mut stopped: watch::Receiver<bool>) -> Result<()> {
        let digest = self.layer.descriptor.digest;
        let result = self.layer(&stop, &mut stopped).await;
        let result = result.map_err(|e| {
            e.context(format!("unpack layer {digest}"))
                .with_object(ObjectKind::Layer, digest.to_string())
        });
        if result.is_ok() {
            self.done.send_replace(true);
        }
        result
    }

    async fn layer(&mut self, stop: &Stop, stopped: &mut watch::Receiver<bool>) -> Result<()> {
        if self.shared.snapshotter.exists(&self.chain).await? {
            return self.keep_blob(stop, stopped).await;
        }
        let held = unless(stopped, self.shared.lock("chain", &self.chain)).await?;
        if self.shared.snapshotter.exists(&self.chain).await? {
            drop(held);
            return self.keep_blob(stop, stopped).await;
        }
        let (key, unpacked) = match self.offered(stopped).await? {
            Some(Offer { key, target, applied }) => {
                self.exists()?;
                let put = self.put(&key, &target, &applied, stop, stopped).await;
                (key, put)
            }
            None => {
                let key = self.shared.new_key()?;
                let unpacked = self.unpack(&key, stop, stopped).await;
                (key, unpacked)
            }
        };
        if unpacked.is_err()
            && let Err(error) = self.shared.snapshotter.discard(&key).await
        {
            // The first error says more; the key stays for the sweeper.
            tracing::warn!(key, error = error.report(), "could not discard an unfinished layer");
        }
        unpacked?;
        self.progress.report(ProgressEvent::Unpacked {
            digest: self.layer.descriptor.digest,
        });
        Ok(())
    }

    fn exists(&self) -> Result<()> {
        let Descriptor { digest, size, .. } = self.layer.descriptor;
        self.progress.report(ProgressEvent::Exists { digest, size });
        Ok(())
    }

    /// The layer is here. Its blob may not be, if it came with other bytes that unpack to the same, and is what a push or a
    /// save of this image must send.
    async fn keep_blob(&self, stop: &Stop, stopped: &mut watch::Receiver<bool>) -> Result<()> {
        let blob = &self.layer.descriptor;
        if !self.blob_wanted || self.shared.has_blob(blob).await? {
            return self.exists();
        }
        let _held = unless(stopped, self.shared.lock("blob", &blob.digest)).await?;
        if self.shared.has_blob(blob).await? {
            return self.exists();
        }
        loop {
            let kept = blob.clone();
            let keep = move |mut reader: BlobReader| {
                reader.drain()?;
                reader.commit(&kept)
            };
            let (received, resumed) = self.receive(stop, stopped, keep).await?;
            if received.as_ref().is_err_and(is_wrong) && resumed {
                self.shared.content.forget(&blob.digest).await?;
                continue;
            }
            return received;
        }
    }

    async fn unpack(&mut self, key: &SnapshotKey, stop: &Stop, stopped: &mut watch::Receiver<bool>) -> Result<()> {
        let (target, applied) = self.extract(key, stop, stopped).await?;
        self.put(key, &target, &applied, stop, stopped).await
    }

    /// What was unpacked while the blob came in, if it is what is wanted.
    async fn offered(&self, stopped: &mut watch::Receiver<bool>) -> Result<Option<Offer>> {
        let Some(offers) = &self.offers else { return Ok(None) };
        let blob = &self.layer.descriptor;
        let Some(offer) = unless(stopped, async { Ok(offers.take(&blob.digest).await) }).await? else {
            return Ok(None);
        };
        let kept = self.shared.has_blob(blob).await;
        if matches!(kept, Ok(true)) && offer.applied.diff_id == self.layer.diff_id {
            return Ok(Some(offer));
        }
        self.shared.snapshotter.discard(&offer.key).await?;
        kept.map(|_| None)
    }

    /// Puts what was written under `key` in its place.
    async fn put(
        &mut self,
        key: &SnapshotKey,
        target: &LayerTarget,
        applied: &Applied,
        stop: &Stop,
        stopped: &mut watch::Receiver<bool>,
    ) -> Result<()> {
        self.parent_is_ready(stopped).await?;
        stop.check()?;
        self.dress_implied(target, applied).await?;
        self.shared
            .snapshotter
            .commit_layer(key, &self.chain, self.parent.as_ref(), applied.usage)
            .await
    }

    async fn parent_is_ready(&mut self, stopped: &mut watch::Receiver<bool>) -> Result<()> {
        let Some(ready) = &mut self.parent_ready else {
            return Ok(());
        };
        let waited = unless(stopped, async { Ok(ready.wait_for(|done| *done).await.is_ok()) }).await?;
        if waited { Ok(()) } else { Err(cancelled()) }
    }

    async fn dress_implied(&self, target: &LayerTarget, applied: &Applied) -> Result<()> {
        let (LayerTarget::Overlay { dir, .. }, Some(parent)) = (target, &self.parent) else {
            return Ok(());
        };
        if applied.implied.is_empty() {
            return Ok(());
        }
        let below = implied::trees_of(&self.shared.snapshotter.view(parent).await?);
        let (dir, implied, ownership) = (dir.clone(), applied.implied.clone(), self.shared.ownership.clone());
        blocking(move || implied::copy_looks(&dir, &implied, &below, &ownership)).await
    }

    /// Writes the layer, from the store if its blob is there and whole, else from the source.
    async fn extract(
        &mut self,
        key: &SnapshotKey,
        stop: &Stop,
        stopped: &mut watch::Receiver<bool>,
    ) -> Result<(LayerTarget, Applied)> {
        let blob = self.layer.descriptor.clone();
        let _held = unless(stopped, self.shared.lock("blob", &blob.digest)).await?;
        let processors = self.shared.processors.clone();
        let permit = unless(stopped, async { processors.one().await.ok_or_else(cancelled) }).await?;
        if self.shared.has_blob(&blob).await? {
            let target = self.shared.snapshotter.begin_layer(key, self.parent.as_ref()).await?;
            let file = self.shared.content.open(&blob.digest).await?;
            let offers = self.offers.as_ref();
            let fresh = self.fresh || offers.is_some_and(|offers| offers.is_fresh(&blob.digest));
            let (layer, stop_reading) = (self.layer.clone(), stop.clone());
            let work = self.work(target.clone());
            let applied = blocking(move || work(BlobReader::layer(file, &layer, fresh, stop_reading)?)).await;
            if applied.is_ok() || stop.is_set() || self.is_whole().await? {
                drop(permit);
                return applied
                    .inspect(|_| drop(self.exists()))
                    .map(|applied| (target, applied));
            }
            // What a power failure left under this name: fetched anew.
            self.shared.content.remove(&blob.digest).await?;
            self.shared.snapshotter.discard(key).await?;
        }
        let (target, applied) = loop {
            let target = self.shared.snapshotter.begin_layer(key, self.parent.as_ref()).await?;
            let work = self.work(target.clone());
            let (applied, resumed) = self.receive(stop, stopped, work).await?;
            if !(resumed && applied.as_ref().is_err_and(is_wrong)) {
                break (target, applied);
            }
            // What an earlier attempt left was damaged, or the registry had other bytes then.
            self.shared.content.forget(&blob.digest).await?;
            self.shared.snapshotter.discard(key).await?;
        };
        drop(permit);
        if applied.as_ref().is_err_and(blames_the_layer) {
            // As announced, and of no use to anyone.
            self.shared.content.remove(&blob.digest).await?;
        }
        Ok((target, applied?))
    }

    /// Has a worker take a blob's bytes while they arrive: first those that an earlier attempt left, if any, and the rest
    /// from the source. Says whether there were any.
    async fn receive<T: Send + 'static>(
        &self,
        stop: &Stop,
        stopped: &mut watch::Receiver<bool>,
        work: impl FnOnce(BlobReader) -> Result<T> + Send + 'static,
    ) -> Result<(Result<T>, bool)> {
        let blob = &self.layer.descriptor;
        let ingest = self.shared.content.resume(&blob.digest, blob.size).await?;
        let left = ingest.left();
        let stream = unless(stopped, self.source.open(blob, left)).await?;
        let (sender, chunks) = mpsc::channel(CHUNKS);
        let teller = Teller::new(self.progress.clone(), blob);
        let reader = BlobReader::network(chunks, ingest, teller, stop.clone());
        let feeding = async {
            // Dropping the sender ends the worker's wait; it then finds that it was stopped.
            let fed = async {
                feed(stream, blob, left, sender).await;
                Ok(())
            };
            let _ = unless(stopped, fed).await;
        };
        // Not here, whatever this thread is: it waits for what is fed.
        let (worked, ()) = futures_util::join!(elsewhere(move || work(reader)), feeding);
        Ok((worked, left > 0))
    }

    async fn compare(&self, key: &SnapshotKey) -> Result<Option<PathBuf>> {
        let file = self.shared.content.open(&self.layer.descriptor.digest).await?;
        let target = self.shared.snapshotter.begin_layer(key, self.parent.as_ref()).await?;
        let (reader, work) = (BlobReader::store(file, Stop::default()), self.work(target.clone()));
        let applied = blocking(move || work(reader)).await?;
        self.dress_implied(&target, &applied).await?;
        let view = self.shared.snapshotter.view(&self.chain).await?;
        let Some(there) = implied::trees_of(&view).into_iter().next() else {
            return Ok(None);
        };
        let (LayerTarget::Overlay { dir, .. } | LayerTarget::Merged { dir, .. }) = target;
        blocking(move || compare::difference(&there, &dir)).await
    }

    fn work(&self, target: LayerTarget) -> impl FnOnce(BlobReader) -> Result<Applied> + Send + 'static {
        let (shared, layer) = (self.shared.clone(), self.layer.clone());
        move |reader| work(reader, &target, &layer, &shared)
    }

    /// Whether the blob in the store hashes to its name.
    async fn is_whole(&self) -> Result<bool> {
        let blob = self.layer.descriptor.clone();
        let file = self.shared.content.open(&blob.digest).await?;
        blocking(move || {
            let mut reader = BlobReader::store(file, Stop::default());
            reader.drain()?;
            Ok(reader.commit(&blob).is_ok())
        })
        .await
    }
}

/// Where nothing is to be fetched.
#[derive(Debug)]
struct NoSource;

#[async_trait]
impl BlobSource for NoSource {
    async fn open(&self, descriptor: &Descriptor, _offset: u64) -> Result<BlobBytes> {
        Err(Error::not_found(ObjectKind::Blob, descriptor.digest.to_string()))
    }
}

/// The worker's side: blocking, one pass.
fn work(mut reader: BlobReader, target: &LayerTarget, layer: &LayerRef, shared: &Shared) -> Result<Applied> {
    let processors = Some(shared.processors.clone());
    let hashing = reader.hashing();
    let limits = &shared.limits;
    let applied = match apply_with(&mut reader, target, &shared.ownership, limits, processors, hashing) {
        // Whether the layer is hostile, or was damaged on its way, only its digest tells: at the end.
        Err(error) if blames_the_layer(&error) => {
            reader.drain()?;
            reader.commit(&layer.descriptor)?;
            return Err(error);
        }
        other => other?,
    };
    if hashing == Hashing::Done && applied.diff_id != layer.diff_id {
        let message = format!(
            "the layer's content hashes to {}, the image says {}",
            applied.diff_id, layer.diff_id
        );
        return Err(Error::new(ErrorKind::DigestMismatch, message));
    }
    reader.drain()?;
    reader.commit(&layer.descriptor)?;
    if applied.skipped_devices + applied.skipped_xattrs > 0 {
        let (devices, xattrs) = (applied.skipped_devices, applied.skipped_xattrs);
        tracing::info!(layer = %layer.descriptor.digest, devices, xattrs, "left out what this user cannot make");
    }
    Ok(applied)
}

fn is_wrong(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::DigestMismatch)
}

fn blames_the_layer(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::UnsafeArchive | ErrorKind::Unsupported { .. })
}

/// Does something unless the caller goes away first.
async fn unless<T>(stopped: &mut watch::Receiver<bool>, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        biased;
        _ = stopped.wait_for(|stopped| *stopped) => Err(cancelled()),
        done = work => done,
    }
}

#[cfg(test)]
mod tests;
