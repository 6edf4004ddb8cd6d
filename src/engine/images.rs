//! The image manager on the driver: its futures can be awaited anywhere.

use std::sync::Arc;

use async_trait::async_trait;

use crate::driver::Spawner;
use crate::error::Result;
use crate::images::{
    ArchiveFormat, ByteStream, Credentials, Distribution, ExtendRequest, HistoryLine, ImageDocument, ImageInfo,
    ImageManager, ImageSummary, ImportRequest, IndexRequest, Loaded, PrunedImages, PullRequest, PushRequest, Pushed,
    RemoveImageOptions, Removed,
};
use crate::progress::Progress;
use crate::storage::snapshot::Snapshotter;
use crate::types::{Descriptor, Filter, ImageId, Outcome, Platform, Reference};

/// Pieces of an archive that are read ahead of their reader.
const AHEAD: usize = 4;

/// Runs another manager's verbs on the driver. A dropped call drops the verb there.
#[derive(Debug)]
pub(crate) struct DriverImages {
    pub(crate) spawner: Spawner,
    pub(crate) inner: Arc<dyn ImageManager>,
    /// What has new layers when images came.
    pub(crate) snapshotter: Arc<dyn Snapshotter>,
}

impl DriverImages {
    /// Puts layers on the disk with nobody waiting; whoever opens the root next does so where this does not come to its
    /// end. Until then they can be made again from their blobs.
    fn settle_after<T>(&self, came: Result<T>) -> Result<T> {
        if came.is_ok() {
            let snapshotter = Arc::clone(&self.snapshotter);
            self.spawner.detach(async move { settle(snapshotter.as_ref()).await });
        }
        came
    }
}

/// Puts on the disk what was unpacked.
pub(crate) async fn settle(snapshotter: &dyn Snapshotter) {
    if let Err(error) = snapshotter.sync().await {
        tracing::warn!(
            error = error.report(),
            "layers could not be written to the disk; the next engine tries again"
        );
    }
}

#[async_trait]
impl ImageManager for DriverImages {
    async fn pull(&self, request: PullRequest, progress: Progress) -> Result<ImageInfo> {
        let inner = Arc::clone(&self.inner);
        let came = self
            .spawner
            .call(async move { inner.pull(request, progress).await })
            .await;
        self.settle_after(came)
    }

    async fn list(&self, filter: Filter) -> Result<Vec<ImageSummary>> {
        let inner = Arc::clone(&self.inner);
        self.spawner.call(async move { inner.list(filter).await }).await
    }

    async fn inspect(&self, image: &str) -> Result<ImageInfo> {
        let (inner, image) = (Arc::clone(&self.inner), image.to_owned());
        self.spawner
            .call_blocking(async move { inner.inspect(&image).await })
            .await
    }

    async fn variants(&self, image: &str) -> Result<Vec<ImageInfo>> {
        let (inner, image) = (Arc::clone(&self.inner), image.to_owned());
        self.spawner.call(async move { inner.variants(&image).await }).await
    }

    async fn document(&self, image: &str) -> Result<ImageDocument> {
        let (inner, image) = (Arc::clone(&self.inner), image.to_owned());
        self.spawner.call(async move { inner.document(&image).await }).await
    }

    async fn make_index(&self, request: IndexRequest) -> Result<Descriptor> {
        let inner = Arc::clone(&self.inner);
        self.spawner.call(async move { inner.make_index(request).await }).await
    }

    async fn tag(&self, image: &str, name: &Reference) -> Result<Outcome> {
        let (inner, image, name) = (Arc::clone(&self.inner), image.to_owned(), name.clone());
        self.spawner.call(async move { inner.tag(&image, &name).await }).await
    }

    async fn remove(&self, image: &str, options: RemoveImageOptions) -> Result<Vec<Removed>> {
        let (inner, image) = (Arc::clone(&self.inner), image.to_owned());
        self.spawner
            .tail(|_| async move { inner.remove(&image, options).await }, |_| async {})
            .await
    }

    async fn restore(&self, image: &str) -> Result<Outcome> {
        let (inner, image) = (Arc::clone(&self.inner), image.to_owned());
        let restored = self.spawner.call(async move { inner.restore(&image).await }).await;
        self.settle_after(restored)
    }

    async fn history(&self, image: &str) -> Result<Vec<HistoryLine>> {
        let (inner, image) = (Arc::clone(&self.inner), image.to_owned());
        self.spawner.call(async move { inner.history(&image).await }).await
    }

    async fn push(&self, request: PushRequest, progress: Progress) -> Result<Pushed> {
        let inner = Arc::clone(&self.inner);
        self.spawner
            .call(async move { inner.push(request, progress).await })
            .await
    }

    async fn login(&self, registry: &str, credentials: Credentials) -> Result<()> {
        let (inner, registry) = (Arc::clone(&self.inner), registry.to_owned());
        self.spawner
            .call(async move { inner.login(&registry, credentials).await })
            .await
    }

    async fn distribution(&self, image: &Reference, credentials: Credentials) -> Result<Distribution> {
        let (inner, image) = (Arc::clone(&self.inner), image.clone());
        self.spawner
            .call(async move { inner.distribution(&image, credentials).await })
            .await
    }

    async fn import(&self, archive: ByteStream, request: ImportRequest, progress: Progress) -> Result<ImageId> {
        let inner = Arc::clone(&self.inner);
        let came = self
            .spawner
            .call(async move { inner.import(archive, request, progress).await })
            .await;
        self.settle_after(came)
    }

    async fn extend(&self, layer: ByteStream, request: ExtendRequest) -> Result<ImageId> {
        let inner = Arc::clone(&self.inner);
        let made = self
            .spawner
            .call(async move { inner.extend(layer, request).await })
            .await;
        self.settle_after(made)
    }

    async fn prune(&self, filter: Filter) -> Result<PrunedImages> {
        let inner = Arc::clone(&self.inner);
        self.spawner
            .tail(|_| async move { inner.prune(filter).await }, |_| async {})
            .await
    }

    async fn save(&self, images: &[String], platform: Option<Platform>, format: ArchiveFormat) -> Result<ByteStream> {
        let (inner, images) = (Arc::clone(&self.inner), images.to_vec());
        let saving = self
            .spawner
            .call(async move { inner.save(&images, platform, format).await });
        Ok(self.spawner.stream(saving.await?, AHEAD))
    }

    async fn load(&self, archive: ByteStream, platform: Option<Platform>, progress: Progress) -> Result<Vec<Loaded>> {
        let inner = Arc::clone(&self.inner);
        let came = self
            .spawner
            .call(async move { inner.load(archive, platform, progress).await })
            .await;
        self.settle_after(came)
    }
}
