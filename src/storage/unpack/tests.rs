//! Whole pulls from a source in memory, with everything that can go wrong on the way.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::conformance::layers::{LayerBuilder, Meta, gzip, zstd};
use crate::storage::content::Ingest;
use crate::storage::content::local::LocalContent;
use crate::storage::snapshot::overlayfs::Overlayfs;
use crate::storage::snapshot::vfs::Vfs;
use crate::storage::sweep::{Swept, sweep};
use crate::types::{MediaType, MountSource};

#[derive(Debug, Default)]
struct Source {
    blobs: Mutex<HashMap<Digest, Vec<u8>>>,
    opened: AtomicUsize,
    /// How many are being read now, and were at most.
    reading: Arc<(AtomicUsize, AtomicUsize)>,
    /// Wait before each chunk.
    slow: Option<Duration>,
    chunk: usize,
    /// Where each reader began.
    offsets: Mutex<Vec<u64>>,
    /// The next reader gets no more than this, and an error.
    breaks_after: Mutex<Option<usize>>,
}

#[async_trait]
impl BlobSource for Source {
    async fn open(&self, descriptor: &Descriptor, offset: u64) -> Result<BlobBytes> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        self.offsets.lock().unwrap().push(offset);
        let bytes = self.blobs.lock().unwrap().get(&descriptor.digest).cloned();
        let bytes =
            Bytes::from(bytes.ok_or_else(|| Error::not_found(ObjectKind::Blob, descriptor.digest.to_string()))?);
        let bytes = bytes.slice(usize::try_from(offset).unwrap()..);
        let breaks = self.breaks_after.lock().unwrap().take();
        let (chunk, slow) = (self.chunk.max(1000), self.slow);
        let reading = Reading::new(&self.reading);
        let pieces = futures_util::stream::unfold((bytes, reading), move |(mut rest, reading)| async move {
            if let Some(slow) = slow {
                tokio::time::sleep(slow).await;
            }
            let piece = rest.split_to(chunk.min(rest.len()));
            (!piece.is_empty()).then_some((Ok(piece), (rest, reading)))
        });
        if let Some(after) = breaks {
            let broken = Err(Error::new(ErrorKind::Unavailable, "the connection broke"));
            let end = futures_util::stream::once(async move { broken });
            return Ok(Box::pin(pieces.take(after.div_ceil(chunk)).chain(end)));
        }
        Ok(Box::pin(pieces))
    }
}

fn ownership() -> Ownership {
    if nix::unistd::geteuid().is_root() {
        Ownership::Direct
    } else {
        Ownership::Squashed
    }
}

/// Counts a stream as long as it is there.
struct Reading(Arc<(AtomicUsize, AtomicUsize)>);

impl Reading {
    fn new(counts: &Arc<(AtomicUsize, AtomicUsize)>) -> Self {
        let now = counts.0.fetch_add(1, Ordering::SeqCst) + 1;
        counts.1.fetch_max(now, Ordering::SeqCst);
        Self(Arc::clone(counts))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Bench {
    dir: tempfile::TempDir,
    content: LocalContent,
    snapshotter: Arc<dyn Snapshotter>,
    source: Arc<Source>,
}

impl Bench {
    fn new(source: Source) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let snapshotter = Arc::new(Overlayfs::open(dir.path().join("s"), true, ownership()).unwrap());
        Self {
            content: LocalContent::open(dir.path(), "me").unwrap(),
            snapshotter,
            source: Arc::new(source),
            dir,
        }
    }

    /// Each call is like another process on the same root.
    fn unpacker(&self) -> Unpacker {
        let content = Arc::new(self.content.clone());
        Unpacker::new(
            content,
            self.snapshotter.clone(),
            ownership(),
            self.dir.path().join("locks"),
            "me",
        )
        .unwrap()
    }

    fn layer(&self, tar: &[u8], packed: Vec<u8>) -> LayerRef {
        let descriptor = Descriptor {
            media_type: MediaType("application/octet-stream".into()),
            digest: Digest::of(&packed),
            size: packed.len() as u64,
            platform: None,
            annotations: BTreeMap::new(),
        };
        self.source.blobs.lock().unwrap().insert(descriptor.digest, packed);
        LayerRef {
            descriptor,
            diff_id: Digest::of(tar),
        }
    }

    fn image(&self) -> Vec<LayerRef> {
        let noise: Vec<u8> = (0..400_000u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        let one = LayerBuilder::new()
            .entry(b'5', "etc", "", &Meta::mode(0o711), b"")
            .file("etc/a", &noise)
            .build();
        let two = LayerBuilder::new().file("etc/b", b"implied directory").build();
        let three = LayerBuilder::new().whiteout("etc/a").file("big", &noise).build();
        vec![
            self.layer(&one, gzip(&one)),
            self.layer(&two, zstd(&two)),
            self.layer(&three, three.clone()),
        ]
    }

    async fn pull(&self, layers: &[LayerRef]) -> (Result<Option<ChainId>>, Vec<ProgressEvent>) {
        let events = Arc::new(Mutex::new(Vec::new()));
        let told = events.clone();
        let progress = Progress::new(move |event| told.lock().unwrap().push(event));
        let done = self.unpacker().image(layers, self.source.clone(), &progress).await;
        let events = events.lock().unwrap().clone();
        (done, events)
    }

    async fn assert_nothing_half_made(&self) {
        assert_eq!(count(&self.dir.path().join("ingest")), 0, "ingest files");
        assert_eq!(count(&self.dir.path().join("locks")), 0, "lock files");
        assert_eq!(self.snapshotter.active().await.unwrap(), Vec::<String>::new());
        let (trees, chains) = (
            count(&self.dir.path().join("s/l")),
            self.snapshotter.list().await.unwrap().len(),
        );
        assert_eq!(trees, chains, "every tree belongs to a committed snapshot");
        assert_eq!(count(&self.dir.path().join("s/trash")), 0);
    }
}

fn count(dir: &Path) -> usize {
    std::fs::read_dir(dir).map_or(0, Iterator::count)
}

fn bytes_told(events: &[ProgressEvent]) -> u64 {
    let bytes = events.iter().map(|event| match event {
        ProgressEvent::Downloaded { bytes, .. } => *bytes,
        ProgressEvent::Exists { size, .. } => *size,
        _ => 0,
    });
    bytes.sum()
}

fn size_of(layers: &[LayerRef]) -> u64 {
    layers.iter().map(|layer| layer.descriptor.size).sum()
}

#[tokio::test]
async fn an_image_is_unpacked_once_and_progress_adds_up() {
    let bench = Bench::new(Source::default());
    let layers = bench.image();
    let (done, events) = bench.pull(&layers).await;
    let top = done.unwrap().unwrap();
    assert_eq!(bytes_told(&events), size_of(&layers));
    assert_eq!(
        events
            .iter()
            .filter(|e| matches!(e, ProgressEvent::Unpacked { .. }))
            .count(),
        3
    );
    let MountSource::Overlay { lower, .. } = bench.snapshotter.view(&top).await.unwrap().remove(0).source else {
        panic!()
    };
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let implied = std::fs::metadata(lower[1].join("etc")).unwrap();
    assert_eq!(
        (implied.mode() & 0o777, implied.mtime()),
        (0o711, 1_600_000_000),
        "an implied directory looks as below"
    );
    assert!(
        std::fs::symlink_metadata(lower[0].join("etc/a"))
            .unwrap()
            .file_type()
            .is_char_device()
    );
    assert_eq!(bench.content.list().await.unwrap().len(), 3);
    let blobs: Vec<_> = layers.iter().map(|layer| layer.descriptor.digest).collect();
    bench.unpacker().sync(&blobs).await.unwrap();
    bench.snapshotter.sync().await.unwrap();
    bench.assert_nothing_half_made().await;

    let (again, events) = bench.pull(&layers).await;
    assert_eq!((again.unwrap(), bytes_told(&events)), (Some(top), size_of(&layers)));
    assert_eq!(bench.source.opened.load(Ordering::SeqCst), 3);
    assert_eq!(bench.pull(&[]).await.0.unwrap(), None);
}

#[tokio::test]
async fn a_backend_that_cannot_unpack_side_by_side_gets_layers_in_order() {
    let mut bench = Bench::new(Source::default());
    bench.snapshotter = Arc::new(Vfs::open(bench.dir.path().join("s"), ownership()).unwrap());
    let layers = bench.image();
    let top = bench.pull(&layers).await.0.unwrap().unwrap();
    let MountSource::Bind { path } = bench.snapshotter.view(&top).await.unwrap().remove(0).source else {
        panic!()
    };
    assert!(path.join("etc/b").exists() && !path.join("etc/a").exists());
    bench.assert_nothing_half_made().await;
}

#[tokio::test]
async fn twenty_pulls_fetch_each_blob_once() {
    let bench = Bench::new(Source {
        slow: Some(Duration::from_millis(1)),
        chunk: 50_000,
        ..Source::default()
    });
    let layers = bench.image();
    let pulls = (0..20).map(|_| bench.pull(&layers));
    for (done, events) in futures_util::future::join_all(pulls).await {
        done.unwrap();
        assert_eq!(bytes_told(&events), size_of(&layers));
    }
    assert_eq!(bench.source.opened.load(Ordering::SeqCst), 3);
    bench.assert_nothing_half_made().await;
}

#[tokio::test]
async fn the_same_blob_twice_in_an_image_is_fetched_once() {
    let bench = Bench::new(Source::default());
    let mut layers = bench.image();
    layers.push(layers[1].clone());
    let (done, events) = bench.pull(&layers).await;
    done.unwrap();
    assert_eq!(
        (bytes_told(&events), bench.source.opened.load(Ordering::SeqCst)),
        (size_of(&layers), 3)
    );
}

#[tokio::test]
async fn c5_no_more_blobs_are_fetched_at_once_than_there_are_processors() {
    let bench = Bench::new(Source {
        slow: Some(Duration::from_millis(2)),
        ..Source::default()
    });
    let layers: Vec<_> = (0..40)
        .map(|number| {
            let tar = LayerBuilder::new().file(&format!("f{number}"), &[b'x'; 5000]).build();
            bench.layer(&tar, gzip(&tar))
        })
        .collect();
    bench.pull(&layers).await.0.unwrap();
    let most = bench.source.reading.1.load(Ordering::SeqCst);
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    assert_eq!(bench.source.opened.load(Ordering::SeqCst), layers.len());
    assert!(
        (1..=processors).contains(&most),
        "{most} at once on {processors} processors"
    );
}

#[tokio::test]
async fn blobs_that_are_here_are_not_fetched_and_damaged_ones_are() {
    let bench = Bench::new(Source::default());
    let layers = bench.image();
    for layer in &layers[..2] {
        let bytes = bench.source.blobs.lock().unwrap()[&layer.descriptor.digest].clone();
        let mut ingest = bench.content.ingest(None, None).await.unwrap();
        ingest.write(&bytes).unwrap();
        ingest.commit().unwrap();
    }
    let damaged = bench
        .dir
        .path()
        .join("blobs/sha256")
        .join(layers[0].descriptor.digest.hex());
    std::fs::write(damaged, vec![0; layers[0].descriptor.size as usize]).unwrap();
    bench.pull(&layers).await.0.unwrap();
    assert_eq!(bench.source.opened.load(Ordering::SeqCst), 2);
    bench.assert_nothing_half_made().await;
}

#[tokio::test]
async fn wrong_bytes_leave_nothing() {
    let bench = Bench::new(Source::default());
    let layers = bench.image();
    let digest = layers[0].descriptor.digest;
    let good = bench.source.blobs.lock().unwrap()[&digest].clone();
    let mut flipped = good.clone();
    flipped[4] ^= 1; // the time in the gzip header: decompresses to the same
    for (bad, kind) in [
        (good[..good.len() - 9].to_vec(), ErrorKind::DigestMismatch),
        ([good.clone(), vec![0; 9]].concat(), ErrorKind::DigestMismatch),
        (flipped, ErrorKind::DigestMismatch),
    ] {
        bench.source.blobs.lock().unwrap().insert(digest, bad);
        let error = bench.pull(&layers).await.0.unwrap_err();
        assert_eq!(error.kind(), &kind, "{}", error.report());
        assert_eq!(bench.content.info(&digest).await.unwrap(), None);
        bench.assert_nothing_half_made().await;
    }
    bench.source.blobs.lock().unwrap().insert(digest, good);
    let mut lying = bench.image();
    lying[2].diff_id = Digest::of(b"another");
    assert_eq!(
        bench.pull(&lying).await.0.unwrap_err().kind(),
        &ErrorKind::DigestMismatch
    );
    let evil = LayerBuilder::new().file("../x", b"").build();
    let evil = [bench.layer(&evil, gzip(&evil))];
    assert_eq!(bench.pull(&evil).await.0.unwrap_err().kind(), &ErrorKind::UnsafeArchive);
    bench.source.blobs.lock().unwrap().remove(&evil[0].descriptor.digest);
    assert!(bench.pull(&evil).await.0.unwrap_err().is_not_found());
    bench.assert_nothing_half_made().await;
}

#[tokio::test]
async fn a_dropped_pull_leaves_nothing() {
    let bench = Bench::new(Source {
        slow: Some(Duration::from_millis(2)),
        chunk: 20_000,
        ..Source::default()
    });
    let layers = bench.image();
    for wait in [0, 1, 3, 7, 15, 30] {
        let pull = tokio::time::timeout(Duration::from_millis(wait), bench.pull(&layers)).await;
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while pull.is_err() && count(&bench.dir.path().join("locks")) > 0 && std::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bench.assert_nothing_half_made().await;
    }
    bench.pull(&layers).await.0.unwrap();
}

#[tokio::test]
async fn small_blobs_are_kept_and_bounded() {
    let bench = Bench::new(Source::default());
    let config = bench.layer(b"", b"{\"os\":\"linux\"}".to_vec()).descriptor;
    let unpacker = bench.unpacker();
    for _ in 0..2 {
        let bytes = unpacker
            .blob(&config, bench.source.clone(), 1 << 20, &Progress::default())
            .await
            .unwrap();
        assert_eq!(bytes, b"{\"os\":\"linux\"}");
    }
    assert_eq!(bench.source.opened.load(Ordering::SeqCst), 1);
    let error = unpacker
        .blob(&config, bench.source.clone(), 3, &Progress::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::InvalidArgument);
    bench.assert_nothing_half_made().await;
}

#[tokio::test]
async fn a_sweep_removes_what_the_dead_left() {
    let bench = Bench::new(Source::default());
    let dead = LocalContent::open(bench.dir.path(), "dead").unwrap();
    std::mem::forget(dead.ingest(None, None).await.unwrap());
    std::mem::forget(bench.content.ingest(None, None).await.unwrap());
    for key in ["unpack-dead-x", "unpack-me-x", "container"] {
        bench.snapshotter.begin_layer(&key.to_owned(), None).await.unwrap();
    }
    let swept = sweep(&bench.content, &*bench.snapshotter, |owner| owner == "me")
        .await
        .unwrap();
    assert_eq!(
        swept,
        Swept {
            ingests: 1,
            snapshots: 1,
            deletions: 0
        }
    );
    let mut left = bench.snapshotter.active().await.unwrap();
    left.sort();
    assert_eq!(left, ["container", "unpack-me-x"]);
}

#[tokio::test]
async fn a_damaged_layer_is_not_called_hostile() {
    let evil = LayerBuilder::new().file("../x", b"").file("big", &[7; 300_000]).build();
    let bench = Bench::new(Source {
        chunk: 10_000,
        ..Source::default()
    });
    let layers = [bench.layer(&evil, evil.clone())];
    let digest = layers[0].descriptor.digest;
    let error = bench.pull(&layers).await.0.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::UnsafeArchive, "{}", error.report());
    assert_eq!(bench.content.info(&digest).await.unwrap(), None);
    bench.assert_nothing_half_made().await;

    // The same bytes as what another layer became on its way; and one that makes no tar, no gzip and no known format.
    let good = LayerBuilder::new().file("x", &[7; 300_000]).build();
    let layers = [bench.layer(&good, good.clone())];
    let digest = layers[0].descriptor.digest;
    let mut flipped = good.clone();
    flipped[0] ^= 1;
    let mut xz = good.clone();
    xz[..6].copy_from_slice(b"\xfd7zXZ\0");
    for bad in [evil[..good.len()].to_vec(), flipped, xz, good[..1000].to_vec()] {
        bench.source.blobs.lock().unwrap().insert(digest, bad);
        let error = bench.pull(&layers).await.0.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::DigestMismatch, "{}", error.report());
        assert_eq!(bench.content.info(&digest).await.unwrap(), None);
        bench.assert_nothing_half_made().await;
    }
}

#[tokio::test]
async fn a_missing_blob_is_fetched_though_its_layer_is_here() {
    let bench = Bench::new(Source::default());
    let layers = bench.image();
    bench.pull(&layers).await.0.unwrap();
    let lost = layers[1].descriptor.digest;
    bench.content.remove(&lost).await.unwrap();

    // Not for an image that keeps others.
    let given = Given {
        unwanted: HashSet::from([lost]),
        ..Given::default()
    };
    let progress = Progress::default();
    let unpacker = bench.unpacker();
    unpacker
        .image_given(&layers, &given, bench.source.clone(), &progress)
        .await
        .unwrap();
    assert_eq!(bench.content.info(&lost).await.unwrap(), None);

    let (done, events) = bench.pull(&layers).await;
    done.unwrap();
    assert_eq!(bytes_told(&events), size_of(&layers));
    assert_eq!(bench.source.opened.load(Ordering::SeqCst), 4);
    assert!(bench.content.info(&lost).await.unwrap().is_some());

    // The same layer in other bytes, as another image may have it.
    let tar = LayerBuilder::new().file("etc/b", b"implied directory").build();
    let mut other = layers.clone();
    other[1] = bench.layer(&tar, gzip(&tar));
    bench.pull(&other).await.0.unwrap();
    for layer in layers.iter().chain(&other) {
        assert!(bench.content.info(&layer.descriptor.digest).await.unwrap().is_some());
    }
    // Damaged bytes are refused there too.
    let digest = other[1].descriptor.digest;
    bench.content.remove(&digest).await.unwrap();
    bench
        .source
        .blobs
        .lock()
        .unwrap()
        .insert(digest, vec![0; other[1].descriptor.size as usize]);
    let error = bench.pull(&other).await.0.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::DigestMismatch);
    assert_eq!(bench.content.info(&digest).await.unwrap(), None);
    bench.assert_nothing_half_made().await;
}

/// A layer that does not compress, so that its blob is worth going on with.
fn noise() -> (Vec<u8>, Vec<u8>) {
    let mut state = 1u64;
    let bytes: Vec<u8> = (0..600_000)
        .map(|_| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 56) as u8
        })
        .collect();
    let tar = LayerBuilder::new().file("noise", &bytes).build();
    let packed = gzip(&tar);
    (tar, packed)
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_a_pull_goes_on_where_the_last_one_ended() {
    let bench = Bench::new(Source {
        chunk: 10_000,
        ..Source::default()
    });
    let (tar, packed) = noise();
    let size = packed.len() as u64;
    let layer = bench.layer(&tar, packed);
    let partial = bench.dir.path().join("partial");
    *bench.source.breaks_after.lock().unwrap() = Some(400_000);
    let progress = Progress::default();
    let error = bench
        .unpacker()
        .image(std::slice::from_ref(&layer), bench.source.clone(), &progress)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unavailable);
    assert_eq!(count(&partial), 1);
    assert!(bench.content.list().await.unwrap().is_empty());
    let told = Arc::new(Mutex::new(0));
    let sum = Arc::clone(&told);
    let progress = Progress::new(move |event| {
        if let ProgressEvent::Downloaded { bytes, .. } = event {
            *sum.lock().unwrap() += bytes;
        }
    });
    bench
        .unpacker()
        .image(std::slice::from_ref(&layer), bench.source.clone(), &progress)
        .await
        .unwrap();
    assert_eq!(*bench.source.offsets.lock().unwrap(), [0, 400_000]);
    assert_eq!(*told.lock().unwrap(), size, "progress adds up to the whole");
    assert_eq!(count(&partial), 0);
    assert_eq!(bench.content.list().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_what_was_left_and_is_damaged_is_fetched_anew() {
    let (tar, packed) = noise();
    // As a power failure may leave it: zeros at the end, other bytes in front, everything there but wrong, the whole.
    let mut rotten = packed[..400_000].to_vec();
    rotten[300_000..].fill(0);
    let mut changed = packed[..400_000].to_vec();
    changed[2] ^= 0xff;
    let mut all = packed.clone();
    all[500_000] ^= 1;
    for (left, opened) in [(rotten, 2), (changed, 2), (all, 2), (packed.clone(), 1)] {
        let bench = Bench::new(Source::default());
        let layer = bench.layer(&tar, packed.clone());
        let file = bench.dir.path().join("partial").join(layer.descriptor.digest.hex());
        std::fs::write(&file, &left).unwrap();
        let image = bench
            .unpacker()
            .image(std::slice::from_ref(&layer), bench.source.clone(), &Progress::default())
            .await;
        image.unwrap();
        let offsets = bench.source.offsets.lock().unwrap().clone();
        assert_eq!(offsets.len(), opened, "{offsets:?}");
        assert_eq!(offsets[0], left.len() as u64);
        assert!(!file.exists() && bench.snapshotter.active().await.unwrap().is_empty());
        assert_eq!(bench.content.list().await.unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_a_dropped_pull_leaves_what_the_next_one_goes_on_with() {
    let bench = Bench::new(Source {
        chunk: 20_000,
        slow: Some(Duration::from_millis(10)),
        ..Source::default()
    });
    let (tar, packed) = noise();
    let layer = bench.layer(&tar, packed);
    let file = bench.dir.path().join("partial").join(layer.descriptor.digest.hex());
    let unpacker = bench.unpacker();
    let layers = [layer];
    let progress = Progress::default();
    let pull = unpacker.image(&layers, bench.source.clone(), &progress);
    let enough = async {
        while std::fs::metadata(&file).map_or(0, |file| file.len()) < 200_000 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        _ = pull => panic!("too fast"),
        () = enough => {}
    }
    bench
        .unpacker()
        .image(&layers, bench.source.clone(), &progress)
        .await
        .unwrap();
    let offsets = bench.source.offsets.lock().unwrap().clone();
    assert!(offsets.len() == 2 && offsets[1] >= 200_000, "{offsets:?}");
}

/// Writes a blob in pieces, followed, as whoever takes an archive in does; the end is left to the caller.
async fn written(bench: &Bench, follower: &Follower, bytes: &[u8]) -> (Box<dyn Ingest>, Option<Followed>) {
    let mut ingest = bench.content.ingest(None, None).await.unwrap();
    let mut followed = None;
    for (number, piece) in bytes.chunks(30_000).enumerate() {
        ingest.write(piece).unwrap();
        if number == 0 {
            followed = follower.follow(&*ingest, piece, bytes.len() as u64);
        }
        if let Some(followed) = &followed {
            followed.wrote(piece.len());
        }
    }
    (ingest, followed)
}

fn bytes_of(bench: &Bench, layer: &LayerRef) -> Vec<u8> {
    bench.source.blobs.lock().unwrap()[&layer.descriptor.digest].clone()
}

fn random(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..300_000).map(|_| byte()).collect()
}

/// Layers that are worth following: packed, plain, packed otherwise.
fn large_image(bench: &Bench) -> Vec<LayerRef> {
    let tar = |name: &str, seed| LayerBuilder::new().file(name, &random(seed)).build();
    let [one, two, three] = [tar("one", 1), tar("two", 2), tar("three", 3)];
    vec![
        bench.layer(&one, gzip(&one)),
        bench.layer(&two, two.clone()),
        bench.layer(&three, zstd(&three)),
    ]
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = std::time::Instant::now();
    while !holds().await {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn layers_are_unpacked_while_their_blobs_come_in() {
    let bench = Bench::new(Source::default());
    let layers = large_image(&bench);
    let unpacker = bench.unpacker();
    let (keep, kept) = tokio::sync::oneshot::channel::<()>();
    let ahead = unpacker.ahead(keep).unwrap();
    let follower = ahead.follower();
    for layer in &layers {
        let (ingest, followed) = written(&bench, &follower, &bytes_of(&bench, layer)).await;
        let followed = followed.expect("a layer is followed");
        // Before the blob is there as a whole.
        until("the layer is begun", async || {
            !bench.snapshotter.active().await.unwrap().is_empty()
        })
        .await;
        let digest = ingest.commit().unwrap().digest;
        follower.kept(&digest);
        followed.kept(&digest);
    }
    drop(follower);
    until("all are ready", async || ahead.ready() == layers.len()).await;
    // Nobody reads them again: not even the digest would be found wrong.
    for layer in &layers {
        let path = bench
            .dir
            .path()
            .join("blobs/sha256")
            .join(layer.descriptor.digest.hex());
        std::fs::write(path, vec![0; usize::try_from(layer.descriptor.size).unwrap()]).unwrap();
    }
    let given = Given {
        offers: Some(ahead.offers()),
        ..Given::default()
    };
    let progress = Progress::default();
    let done = unpacker.image_given(&layers, &given, bench.source.clone(), &progress);
    let top = done.await.unwrap().unwrap();
    assert!(bench.snapshotter.exists(&top).await.unwrap());
    assert_eq!(bench.source.opened.load(Ordering::SeqCst), 0);
    ahead.end().await;
    assert!(kept.await.is_err(), "what it was to keep is let go");
    bench.assert_nothing_half_made().await;
    let trees = implied::trees_of(&bench.snapshotter.view(&top).await.unwrap());
    for (tree, (name, seed)) in trees.iter().zip([("three", 3), ("two", 2), ("one", 1)]) {
        assert!(std::fs::read(tree.join(name)).unwrap() == random(seed), "{name}");
    }
}

#[tokio::test]
async fn what_was_unpacked_ahead_and_is_of_no_use_is_taken_away() {
    let bench = Bench::new(Source::default());
    let layers = large_image(&bench);
    let unpacker = bench.unpacker();
    let ahead = unpacker.ahead(()).unwrap();
    let follower = ahead.follower();
    // One that is given up, one that is hostile, one that nobody wants, one that is not what it is said to be.
    let (ingest, followed) = written(&bench, &follower, &bytes_of(&bench, &layers[0])).await;
    drop((ingest, followed));
    let hostile = LayerBuilder::new().file("big", &random(4)).file("../x", b"").build();
    for bytes in [hostile, bytes_of(&bench, &layers[1]), bytes_of(&bench, &layers[2])] {
        let (ingest, followed) = written(&bench, &follower, &bytes).await;
        let digest = ingest.commit().unwrap().digest;
        followed.expect("a layer is followed").kept(&digest);
    }
    // What is no layer, or too small for it, is not followed.
    let text = vec![b'{'; 300_000];
    assert!(written(&bench, &follower, &text).await.1.is_none());
    let small = LayerBuilder::new().file("small", b"small").build();
    assert!(written(&bench, &follower, &small).await.1.is_none());
    until("both are ready", async || ahead.ready() == 2).await;
    let mut lying = layers[1].clone();
    lying.diff_id = Digest::of(b"other");
    let given = Given {
        offers: Some(ahead.offers()),
        ..Given::default()
    };
    let (lying, progress) = ([lying], Progress::default());
    let done = unpacker.image_given(&lying, &given, bench.source.clone(), &progress);
    assert_eq!(done.await.unwrap_err().kind(), &ErrorKind::DigestMismatch);
    assert!(
        written(&bench, &follower, &bytes_of(&bench, &layers[0]))
            .await
            .1
            .is_none(),
        "closed"
    );
    drop(follower);
    ahead.end().await;
    bench.assert_nothing_half_made().await;
}

#[tokio::test]
async fn a_layer_that_is_followed_when_nobody_wants_it_any_more_is_taken_away() {
    let bench = Bench::new(Source::default());
    let layers = large_image(&bench);
    let ahead = bench.unpacker().ahead(()).unwrap();
    let follower = ahead.follower();
    let (ingest, followed) = written(&bench, &follower, &bytes_of(&bench, &layers[1])).await;
    until("the layer is begun", async || {
        !bench.snapshotter.active().await.unwrap().is_empty()
    })
    .await;
    drop((ahead, follower, ingest, followed));
    until("it is gone", async || {
        bench.snapshotter.active().await.unwrap().is_empty()
    })
    .await;
    until("all of it", async || {
        count(&bench.dir.path().join("s/l")) + count(&bench.dir.path().join("s/trash")) == 0
    })
    .await;
    bench.assert_nothing_half_made().await;
}
