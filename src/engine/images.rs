//! The image manager on the driver: its futures can be awaited anywhere.

use std::sync::Arc;

use async_trait::async_trait;

use crate::driver::Spawner;
use crate::error::Result;
use crate::images::{
    ArchiveFormat, ByteStream, HistoryLine, ImageInfo, ImageManager, ImageSummary, ImportRequest, Loaded, PrunedImages,
    PullRequest, PushRequest, Pushed, RemoveImageOptions, Removed,
};
use crate::progress::Progress;
use crate::types::{Filter, ImageId, Outcome, Platform, Reference};

/// Pieces of an archive that are read ahead of their reader.
const AHEAD: usize = 4;

/// Runs another manager's verbs on the driver. A dropped call drops the verb there.
#[derive(Debug)]
pub(crate) struct DriverImages {
    pub(crate) spawner: Spawner,
    pub(crate) inner: Arc<dyn ImageManager>,
}

#[async_trait]
impl ImageManager for DriverImages {
    async fn pull(&self, request: PullRequest, progress: Progress) -> Result<ImageInfo> {
        let inner = Arc::clone(&self.inner);
        self.spawner
            .call(async move { inner.pull(request, progress).await })
            .await
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

    async fn import(&self, archive: ByteStream, request: ImportRequest, progress: Progress) -> Result<ImageId> {
        let inner = Arc::clone(&self.inner);
        self.spawner
            .call(async move { inner.import(archive, request, progress).await })
            .await
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
        self.spawner
            .call(async move { inner.load(archive, platform, progress).await })
            .await
    }
}
