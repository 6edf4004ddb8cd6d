//! A root of one's own with an image manager on it, and images made in code.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::{Value, json};

use super::super::*;
use crate::error::Result;
use crate::progress::ProgressEvent;
use crate::registry::memory::MemoryRegistry;
use crate::registry::{Credentials, Registry, RegistryProvider};
use crate::storage::content::ContentStore;
use crate::storage::content::local::LocalContent;
use crate::storage::ownership::Ownership;
use crate::storage::snapshot::Snapshotter;
use crate::storage::snapshot::overlayfs::Overlayfs;
use crate::storage::unpack::Unpacker;
use crate::store::{Owner, Root, Store};
use crate::types::{Digest, Platform};

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// One registry for every host; counts how often it is opened.
#[derive(Debug)]
pub(super) struct Everywhere {
    registry: Arc<dyn Registry>,
    pub(super) opened: Mutex<u32>,
}

#[async_trait]
impl RegistryProvider for Everywhere {
    async fn open(&self, _host: &str, _credentials: &Credentials) -> Result<Arc<dyn Registry>> {
        *self.opened.lock().unwrap() += 1;
        Ok(Arc::clone(&self.registry))
    }
}

pub(super) struct Fixture {
    pub(super) images: LocalImages,
    pub(super) registry: Arc<MemoryRegistry>,
    pub(super) provider: Arc<Everywhere>,
    pub(super) store: Store,
    pub(super) content: Arc<dyn ContentStore>,
    pub(super) snapshotter: Arc<dyn Snapshotter>,
    pub(super) dir: tempfile::TempDir,
    owner: Owner,
}

impl Fixture {
    pub(super) fn new() -> Self {
        let registry = Arc::new(MemoryRegistry::new());
        Self::over(Arc::clone(&registry) as Arc<dyn Registry>, registry)
    }

    pub(super) fn over(source: Arc<dyn Registry>, registry: Arc<MemoryRegistry>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(&dir.path().join("root")).unwrap();
        let owner = root.owners().register().unwrap();
        let store = Store::open(&root).unwrap();
        let is_root = nix::unistd::geteuid().is_root();
        let ownership = if is_root {
            Ownership::Direct
        } else {
            Ownership::Squashed
        };
        let content: Arc<dyn ContentStore> = Arc::new(LocalContent::open(root.content(), owner.id().as_str()).unwrap());
        let snapshots = root.snapshots().join("overlayfs");
        let snapshotter: Arc<dyn Snapshotter> =
            Arc::new(Overlayfs::open(snapshots, !is_root, ownership.clone()).unwrap());
        let locks = dir.path().join("locks");
        let unpacker = Unpacker::new(
            Arc::clone(&content),
            Arc::clone(&snapshotter),
            ownership,
            locks,
            owner.id().as_str(),
        )
        .unwrap();
        let provider = Arc::new(Everywhere {
            registry: source,
            opened: Mutex::default(),
        });
        let images = LocalImages::new(LocalImagesParts {
            store: store.clone(),
            owner: owner.id().clone(),
            content: Arc::clone(&content),
            snapshotter: Arc::clone(&snapshotter),
            unpacker,
            registries: Arc::clone(&provider) as Arc<dyn RegistryProvider>,
            additional: Arc::default(),
        });
        Self {
            images,
            registry,
            provider,
            store,
            content,
            snapshotter,
            dir,
            owner,
        }
    }

    pub(super) async fn pull(&self, source: &str) -> Result<ImageInfo> {
        self.images.pull(always(source), Progress::default()).await
    }

    /// Where overlayfs keeps its snapshots.
    pub(super) fn snapshots(&self) -> std::path::PathBuf {
        self.dir.path().join("root/snapshots/overlayfs")
    }

    /// What another process sees in the boot of that id, with its view of the blobs.
    pub(super) fn in_boot(&self, boot: &str, content: Arc<dyn ContentStore>) -> (LocalImages, Arc<dyn Snapshotter>) {
        let is_root = nix::unistd::geteuid().is_root();
        let ownership = if is_root {
            Ownership::Direct
        } else {
            Ownership::Squashed
        };
        let overlayfs = Overlayfs::open(self.snapshots(), !is_root, ownership.clone()).unwrap();
        let snapshotter: Arc<dyn Snapshotter> = Arc::new(overlayfs.in_boot(boot));
        let locks = self.dir.path().join("locks");
        let owner = self.owner.id().clone();
        let unpacker = Unpacker::new(
            Arc::clone(&content),
            Arc::clone(&snapshotter),
            ownership,
            locks,
            owner.as_str(),
        )
        .unwrap();
        let images = LocalImages::new(LocalImagesParts {
            store: self.store.clone(),
            owner,
            content,
            snapshotter: Arc::clone(&snapshotter),
            unpacker,
            registries: Arc::clone(&self.provider) as Arc<dyn RegistryProvider>,
            additional: Arc::default(),
        });
        (images, snapshotter)
    }

    /// How many images, blobs and snapshots there are, and unfinished files.
    pub(super) async fn counts(&self) -> (usize, usize, usize) {
        let ingest = self.dir.path().join("root/content/ingest");
        assert_eq!(std::fs::read_dir(ingest).unwrap().count(), 0, "unfinished blobs");
        assert_eq!(
            self.snapshotter.active().await.unwrap(),
            Vec::<String>::new(),
            "unfinished snapshots"
        );
        let images = self.images.list(Filter::new()).await.unwrap().len();
        (
            images,
            self.content.list().await.unwrap().len(),
            self.snapshotter.list().await.unwrap().len(),
        )
    }
}

pub(super) fn request(source: &str) -> PullRequest {
    PullRequest::new(source.parse().unwrap())
}

pub(super) fn always(source: &str) -> PullRequest {
    request(source).policy(Pull::Always)
}

/// A tar with one file.
pub(super) fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_uid(nix::unistd::geteuid().as_raw().into());
    header.set_gid(nix::unistd::getegid().as_raw().into());
    out.append_data(&mut header, name, content).unwrap();
    out.into_inner().unwrap()
}

/// An image in a registry.
pub(super) struct Pushed {
    pub(super) manifest: Descriptor,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

impl Pushed {
    pub(super) fn total_bytes(&self) -> u64 {
        self.config.size + self.layers.iter().map(|layer| layer.size).sum::<u64>()
    }
}

pub(super) fn push(registry: &MemoryRegistry, tag: Option<&str>, platform: &Platform, tars: &[Vec<u8>]) -> Pushed {
    let diff_ids = tars.iter().map(|tar| Digest::of(tar)).collect();
    push_with(
        registry,
        tag,
        platform,
        tars,
        diff_ids,
        json!({ "Cmd": ["/bin/x"], "Labels": { "made": "here" } }),
    )
}

pub(super) fn push_with(
    registry: &MemoryRegistry,
    tag: Option<&str>,
    platform: &Platform,
    tars: &[Vec<u8>],
    diff_ids: Vec<Digest>,
    run: Value,
) -> Pushed {
    let config = json!({ "os": platform.os, "architecture": platform.architecture, "config": run,
                         "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let config = registry.put_blob(CONFIG, config.to_string());
    let layers: Vec<Descriptor> = tars.iter().map(|tar| registry.put_blob(LAYER, tar.clone())).collect();
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
    let manifest = registry.put_manifest(tag, MANIFEST, manifest.to_string());
    Pushed {
        manifest,
        config,
        layers,
    }
}

pub(super) fn push_index(registry: &MemoryRegistry, tag: &str, images: &[(&str, &Pushed)]) -> Descriptor {
    let entry = |(platform, image): &(&str, &Pushed)| {
        let platform: Platform = platform.parse().unwrap();
        Descriptor {
            platform: Some(platform),
            ..image.manifest.clone()
        }
    };
    let entries: Vec<Descriptor> = images.iter().map(entry).collect();
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
    registry.put_manifest(Some(tag), INDEX, index.to_string())
}

/// Collects progress.
#[derive(Clone, Default)]
pub(super) struct Events(Arc<Mutex<Vec<ProgressEvent>>>);

impl Events {
    pub(super) fn progress(&self) -> Progress {
        let events = Arc::clone(&self.0);
        Progress::new(move |event| events.lock().unwrap().push(event))
    }

    pub(super) fn all(&self) -> Vec<ProgressEvent> {
        self.0.lock().unwrap().clone()
    }

    /// Bytes that arrived or were there, by blob.
    pub(super) fn bytes(&self) -> BTreeMap<Digest, u64> {
        let mut out = BTreeMap::new();
        for event in self.all() {
            match event {
                ProgressEvent::Downloaded { digest, bytes, .. } => *out.entry(digest).or_default() += bytes,
                ProgressEvent::Exists { digest, size } => *out.entry(digest).or_default() += size,
                _ => {}
            }
        }
        out
    }

    pub(super) fn endings(&self) -> usize {
        let is_end = |event: &ProgressEvent| matches!(event, ProgressEvent::Done { .. } | ProgressEvent::Failed { .. });
        let all = self.all();
        assert!(all.last().is_some_and(is_end), "{all:?}");
        all.iter().filter(|event| is_end(event)).count()
    }
}
