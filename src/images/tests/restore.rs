//! What a loss of power leaves of layers, and what becomes of it.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;

use super::super::*;
use super::support::{Fixture, push, tar};
use crate::error::{ErrorKind, Result};
use crate::storage::content::{BlobInfo, ContentStore, Ingest};
use crate::storage::snapshot::Snapshotter;
use crate::types::{ChainId, Digest, MountSource, Platform};

/// Counts how often blobs are read.
#[derive(Debug)]
struct Counting {
    inner: Arc<dyn ContentStore>,
    opened: Arc<AtomicUsize>,
}

#[async_trait]
impl ContentStore for Counting {
    async fn info(&self, digest: &Digest) -> Result<Option<BlobInfo>> {
        self.inner.info(digest).await
    }

    async fn open(&self, digest: &Digest) -> Result<File> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        self.inner.open(digest).await
    }

    async fn ingest(&self, digest: Option<&Digest>, size: Option<u64>) -> Result<Box<dyn Ingest>> {
        self.inner.ingest(digest, size).await
    }

    async fn remove(&self, digest: &Digest) -> Result<Outcome> {
        self.inner.remove(digest).await
    }

    async fn list(&self) -> Result<Vec<BlobInfo>> {
        self.inner.list().await
    }
}

async fn pulled() -> (Fixture, ImageInfo) {
    let f = Fixture::new();
    let tars = [tar("a", b"lower"), tar("b", b"upper")];
    push(&f.registry, Some("1"), &Platform::host(), &tars);
    let info = f.pull("example.com/app:1").await.unwrap();
    (f, info)
}

/// The trees of a stack, the topmost first.
async fn trees(snapshotter: &dyn Snapshotter, chain: &ChainId) -> Vec<PathBuf> {
    match snapshotter.view(chain).await.unwrap().remove(0).source {
        MountSource::Overlay { lower, .. } => lower,
        other => panic!("{other:?}"),
    }
}

/// Data that never reached the disk.
fn tear(trees: &[PathBuf]) {
    File::create(trees[0].join("b")).unwrap();
    fs::remove_file(trees[1].join("a")).unwrap();
}

fn contents(trees: &[PathBuf]) -> [Vec<u8>; 2] {
    [
        fs::read(trees[0].join("b")).unwrap(),
        fs::read(trees[1].join("a")).unwrap(),
    ]
}

#[tokio::test]
async fn e9_layers_that_were_not_on_the_disk_when_power_was_lost_are_unpacked_anew() {
    let (f, info) = pulled().await;
    let chain = info.chain.unwrap();
    let before = trees(f.snapshotter.as_ref(), &chain).await;
    tear(&before);
    assert!(
        f.snapshotter.exists(&chain).await.unwrap(),
        "the page cache of this boot is whole"
    );

    let (images, snapshotter) = f.in_boot("next", Arc::clone(&f.content));
    assert!(!snapshotter.exists(&chain).await.unwrap());
    let refused = snapshotter
        .create_writable(&"c".to_owned(), Some(&chain), Default::default())
        .await;
    assert!(refused.unwrap_err().is_not_found());
    assert_eq!(images.inspect("example.com/app:1").await.unwrap().id, info.id);

    assert_eq!(images.restore("example.com/app:1").await.unwrap(), Outcome::Done);
    let after = trees(snapshotter.as_ref(), &chain).await;
    assert_eq!(after, before, "records above know the trees by their names");
    assert_eq!(contents(&after), [b"upper".to_vec(), b"lower".to_vec()]);
    assert_eq!(images.restore("example.com/app:1").await.unwrap(), Outcome::Already);
    assert_eq!(f.counts().await, (1, 4, 2));
    assert_eq!(fs::read_dir(f.snapshots().join("l")).unwrap().count(), 2);
}

#[tokio::test]
async fn e9_layers_that_were_on_the_disk_are_left_alone_after_a_reboot() {
    let (f, info) = pulled().await;
    let chain = info.chain.unwrap();
    f.snapshotter.sync().await.unwrap();
    tear(&trees(f.snapshotter.as_ref(), &chain).await);
    let (images, snapshotter) = f.in_boot("next", Arc::clone(&f.content));
    assert!(snapshotter.exists(&chain).await.unwrap());
    assert_eq!(images.restore("example.com/app:1").await.unwrap(), Outcome::Already);
    let after = trees(snapshotter.as_ref(), &chain).await;
    assert!(!after[1].join("a").exists(), "nobody touched it");
}

#[tokio::test]
async fn e9_a_lost_layer_whose_blob_is_lost_too_asks_for_a_pull() {
    let (f, info) = pulled().await;
    let blob = info.layers[0].descriptor.digest;
    f.content.remove(&blob).await.unwrap();
    let (images, snapshotter) = f.in_boot("next", Arc::clone(&f.content));
    let error = images.restore("example.com/app:1").await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Corrupt);
    assert!(error.report().contains("pull the image again"), "{}", error.report());
    assert_eq!(snapshotter.active().await.unwrap(), Vec::<String>::new());
    images
        .pull(super::support::always("example.com/app:1"), Default::default())
        .await
        .unwrap();
    let after = trees(snapshotter.as_ref(), &info.chain.unwrap()).await;
    assert_eq!(contents(&after), [b"upper".to_vec(), b"lower".to_vec()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e9_engines_that_race_for_lost_layers_unpack_them_once() {
    let (f, info) = pulled().await;
    tear(&trees(f.snapshotter.as_ref(), &info.chain.unwrap()).await);
    let opened = Arc::new(AtomicUsize::new(0));
    let engine = || {
        let content = Counting {
            inner: Arc::clone(&f.content),
            opened: Arc::clone(&opened),
        };
        f.in_boot("next", Arc::new(content))
    };
    // Each with locks of its own, as in processes of their own.
    let engines = [(); 4].map(|()| engine());
    let racing = engines.iter().map(|(images, _)| images.restore("example.com/app:1"));
    for restored in futures_util::future::join_all(racing).await {
        restored.unwrap();
    }
    assert_eq!(opened.load(Ordering::SeqCst), 2, "one read for each of two layers");
    let after = trees(engines[0].1.as_ref(), &info.chain.unwrap()).await;
    assert_eq!(contents(&after), [b"upper".to_vec(), b"lower".to_vec()]);
}
