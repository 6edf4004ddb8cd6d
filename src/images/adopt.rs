//! Images out of what the content store holds, where their records are lost.

use std::io::Read as _;
use std::sync::Arc;

use super::ImageConfig;
use super::install::Arrival;
use super::load::Nowhere;
use super::local::LocalImages;
use super::manifest::{self, Document};
use super::origin::Chosen;
use super::pull::blobs_of;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::registry::{MAX_MANIFEST, ManifestBlob};
use crate::storage::content::BlobInfo;
use crate::storage::files::blocking;
use crate::types::{Descriptor, Digest, ImageId};

impl LocalImages {
    /// Makes images of all manifests in the content store whose blobs are all there. They have no names. Returns those that
    /// were not here.
    ///
    /// # Errors
    /// Those of the stores. What cannot become an image is passed over.
    ///
    /// # Cancel safety
    /// Images that were made stay.
    pub async fn adopt(&self) -> Result<Vec<ImageId>> {
        let mut adopted = Vec::new();
        for blob in self.parts.content.list().await? {
            if blob.size > MAX_MANIFEST {
                continue;
            }
            let Some(chosen) = self.image_in(&blob).await? else {
                continue;
            };
            let id = chosen.manifest.config.digest;
            if self.parts.store.call(move |store| store.image(&id)).await?.is_some() {
                continue;
            }
            match self.adopt_one(&chosen).await {
                Ok(()) => adopted.push(id),
                Err(error) => tracing::warn!(manifest = %blob.digest, error = error.report(), "not an image any more"),
            }
        }
        Ok(adopted)
    }

    async fn image_in(&self, blob: &BlobInfo) -> Result<Option<Chosen>> {
        let file = self.parts.content.open(&blob.digest).await?;
        let bytes = blocking(move || {
            let mut bytes = Vec::new();
            file.take(MAX_MANIFEST)
                .read_to_end(&mut bytes)
                .map_err(|error| Error::os("read a blob", error))?;
            Ok(bytes)
        })
        .await?;
        if bytes.first() != Some(&b'{') || Digest::of(&bytes) != blob.digest {
            return Ok(None);
        }
        let text: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let stated = text["mediaType"]
            .as_str()
            .unwrap_or("application/vnd.oci.image.manifest.v1+json");
        let blob = ManifestBlob {
            descriptor: Descriptor::of(stated, &bytes),
            bytes: bytes.into(),
        };
        let Ok(Document::Image(manifest)) = manifest::parse(&blob) else {
            return Ok(None);
        };
        for wanted in [&manifest.config].into_iter().chain(&manifest.layers) {
            let there = self.parts.content.info(&wanted.digest).await?;
            if there.is_none_or(|there| there.size != wanted.size) {
                return Ok(None);
            }
        }
        let config = self.read_config(&manifest.config).await;
        let is_one = |config: ImageConfig| manifest::layers(&manifest, &config).is_ok();
        if !config.is_ok_and(is_one) {
            return Ok(None);
        }
        Ok(Some(Chosen {
            blob,
            manifest,
            index: None,
            platform: None,
        }))
    }

    async fn adopt_one(&self, chosen: &Chosen) -> Result<()> {
        let owner = self.parts.owner.clone();
        let lease = Arc::new(self.parts.store.call(move |store| store.lease(&owner)).await?);
        let arrival = Arrival {
            chosen,
            source: Arc::new(Nowhere),
            offers: None,
            fresh: None,
            names: &[],
            shown: "an image without a record",
            platform: None,
            action: "load",
        };
        let mut nodes = blobs_of(chosen);
        let installed = self.install(&arrival, &lease, &mut nodes, &Progress::default()).await;
        if let Ok(lease) = Arc::try_unwrap(lease) {
            self.parts.store.call(move |_| lease.release()).await?;
        }
        installed.map(drop)
    }

    /// Compares a layer with its blob. See [`Unpacker::compare`](crate::storage::unpack::Unpacker::compare).
    pub(crate) async fn compare_layer(
        &self,
        layer: &crate::types::LayerRef,
        parent: Option<&Digest>,
    ) -> Result<Option<std::path::PathBuf>> {
        self.parts.unpacker.compare(layer, parent).await
    }
}
