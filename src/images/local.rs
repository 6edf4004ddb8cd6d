//! The in-process image manager: what its verbs share.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tokio::runtime::Builder;

use super::inspect::Configs;
use super::{
    AdditionalStore, ArchiveFormat, ByteStream, Credentials, Distribution, ExtendRequest, HistoryLine, ImageDocument,
    ImageInfo, ImageManager, ImageSummary, ImportRequest, IndexRequest, Loaded, PrunedImages, PullRequest, PushRequest,
    Pushed, RemoveImageOptions, Removed,
};
use crate::error::{Error, Result};
use crate::events::{Event, EventKind};
use crate::progress::Progress;
use crate::registry::RegistryProvider;
use crate::storage::content::ContentStore;
use crate::storage::snapshot::Snapshotter;
use crate::storage::unpack::Unpacker;
use crate::store::{Node, NodeKind, Store};
use crate::types::{Descriptor, Digest, Filter, ImageId, Outcome, OwnerId, Platform, Reference};

/// What the engine hands the manager.
#[derive(Debug, Clone)]
pub struct LocalImagesParts {
    /// The records.
    pub store: Store,
    /// In whose name blobs and layers are held while they belong to no image yet.
    pub owner: OwnerId,
    /// The blobs.
    pub content: Arc<dyn ContentStore>,
    /// The layers.
    pub snapshotter: Arc<dyn Snapshotter>,
    /// Makes layers of blobs.
    pub unpacker: Unpacker,
    /// The registries.
    pub registries: Arc<dyn RegistryProvider>,
    /// Other roots, which are only read: what this one does not have is looked for there, in this order. `content` knows
    /// their blobs.
    pub additional: Arc<[AdditionalStore]>,
}

/// Images of a root. Cheap to clone. Its futures need a tokio runtime.
#[derive(Debug, Clone)]
pub struct LocalImages {
    pub(super) parts: Arc<LocalImagesParts>,
    pub(super) configs: Arc<Configs>,
}

impl LocalImages {
    /// A manager over these parts.
    #[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
    pub fn new(parts: LocalImagesParts) -> Self {
        Self {
            parts: Arc::new(parts),
            configs: Arc::default(),
        }
    }

    /// Removes blobs and layers that belong to no image and that nobody is fetching: what pulls that were cut off have left
    /// behind. Returns how many.
    ///
    /// # Errors
    /// Those of the stores.
    ///
    /// # Cancel safety
    /// What was removed stays removed.
    pub async fn sweep(&self) -> Result<usize> {
        let blobs = self.parts.content.list().await?;
        let chains = self.parts.snapshotter.list().await?;
        let mut nodes: Vec<Node> = chains.iter().map(Node::snapshot).collect();
        nodes.extend(blobs.iter().map(|blob| Node::blob(&blob.digest)));
        Ok(self.remove_unused(nodes).await?.len())
    }

    /// Removes those blobs and layers that nothing refers to, and says which.
    pub(super) async fn remove_unused(&self, nodes: Vec<Node>) -> Result<Vec<Node>> {
        if nodes.is_empty() {
            return Ok(nodes);
        }
        let parts = Arc::clone(&self.parts);
        self.parts
            .store
            .call(move |store| remove_unreferenced(store, &parts, nodes))
            .await
    }

    /// Tells of what happened. An event that cannot be written is not worth failing for: the work is done.
    pub(super) async fn tell(&self, action: &'static str, id: ImageId, name: Option<&Reference>) {
        let mut event = Event::now(EventKind::Image, action, id.to_string());
        if let Some(name) = name {
            event = event.with("name", name.familiar());
        }
        if let Err(error) = self.parts.store.call(move |store| store.record_event(&event)).await {
            tracing::warn!(error = %error.report(), action, "an event was lost");
        }
    }
}

/// Removes those blobs and layers that nothing refers to, the upper layers first. Blocking.
///
/// That happens under the databases' locks, so that nobody begins to use what is being removed. The seams are async and
/// may want the blocking pool, all of whose threads may be waiting for those very locks; so they get a small runtime of
/// their own.
pub(super) fn remove_unreferenced(store: &Store, parts: &LocalImagesParts, mut nodes: Vec<Node>) -> Result<Vec<Node>> {
    // Chain ids come the lowest first.
    nodes.reverse();
    let runtime = Builder::new_current_thread()
        // For a request to the helper process, which an ordinary user's layers need.
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .map_err(|error| Error::os("start a runtime for removals", error))?;
    let removed = store.remove_unreferenced(&nodes, |node| {
        let digest: Digest = node.id.parse()?;
        match node.kind {
            NodeKind::Blob => runtime.block_on(parts.content.remove(&digest)).map(drop),
            NodeKind::Snapshot => runtime.block_on(parts.snapshotter.remove(&digest)).map(drop),
            kind => Err(Error::internal(format!("a {} among what images need", kind.as_str()))),
        }
    })?;
    // Trees were renamed aside; deleting them takes its time, and no lock.
    runtime.block_on(parts.snapshotter.empty_trash())?;
    Ok(removed)
}

#[async_trait]
impl ImageManager for LocalImages {
    async fn pull(&self, request: PullRequest, progress: Progress) -> Result<ImageInfo> {
        self.pull_and_tell(request, progress).await
    }

    async fn list(&self, filter: Filter) -> Result<Vec<ImageSummary>> {
        self.list_matching(filter).await
    }

    async fn inspect(&self, image: &str) -> Result<ImageInfo> {
        self.bring(image).await?;
        self.inspect_named(image).await
    }

    async fn variants(&self, image: &str) -> Result<Vec<ImageInfo>> {
        self.bring(image).await?;
        self.variants_of(image).await
    }

    async fn document(&self, image: &str) -> Result<ImageDocument> {
        self.bring(image).await?;
        self.document_of(image).await
    }

    async fn make_index(&self, request: IndexRequest) -> Result<Descriptor> {
        for entry in &request.entries {
            self.bring(&entry.image).await?;
        }
        self.index_of(request).await
    }

    async fn tag(&self, image: &str, name: &Reference) -> Result<Outcome> {
        self.bring(image).await?;
        self.tag_named(image, name).await
    }

    async fn remove(&self, image: &str, options: RemoveImageOptions) -> Result<Vec<Removed>> {
        self.refuse_lent(image).await?;
        self.remove_named(image, options).await
    }

    async fn restore(&self, image: &str) -> Result<Outcome> {
        self.bring(image).await?;
        self.restore_named(image).await
    }

    async fn history(&self, image: &str) -> Result<Vec<HistoryLine>> {
        self.bring(image).await?;
        self.history_of(image).await
    }

    async fn push(&self, request: PushRequest, progress: Progress) -> Result<Pushed> {
        self.bring(&request.name.to_string()).await?;
        self.push_and_tell(request, progress).await
    }

    async fn login(&self, registry: &str, credentials: Credentials) -> Result<()> {
        self.login_to(registry, credentials).await
    }

    async fn distribution(&self, image: &Reference, credentials: Credentials) -> Result<Distribution> {
        self.distribution_of(image, credentials).await
    }

    async fn import(&self, archive: ByteStream, request: ImportRequest, progress: Progress) -> Result<ImageId> {
        self.import_and_tell(archive, request, progress).await
    }

    async fn extend(&self, layer: ByteStream, request: ExtendRequest) -> Result<ImageId> {
        self.bring(&request.base).await?;
        self.extend_image(layer, request).await
    }

    async fn prune(&self, filter: Filter) -> Result<PrunedImages> {
        self.prune_matching(filter).await
    }

    async fn save(&self, images: &[String], platform: Option<Platform>, format: ArchiveFormat) -> Result<ByteStream> {
        for image in images {
            self.bring(image).await?;
        }
        self.save_named(images, platform, format).await
    }

    async fn load(&self, archive: ByteStream, platform: Option<Platform>, progress: Progress) -> Result<Vec<Loaded>> {
        self.load_and_tell(archive, platform, progress).await
    }
}

/// Nanoseconds since the epoch, now.
pub(super) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// The time of a record.
pub(super) fn time_of(ns: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(u64::try_from(ns).unwrap_or(0))
}
