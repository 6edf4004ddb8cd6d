//! What a build knows of its steps, for others: in a directory, in a registry, in its image.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, PoisonError};

use serde_json::Value;

use super::Work;
use super::import::LATEST;
use super::stage::Stage;
use crate::build::cache::{CONFIG, CacheManifest, CacheMode, CacheTarget, Document, KeptStep, MANIFEST};
use crate::error::{Error, Result};
use crate::images::making_cache::Repository;
use crate::registry::ManifestBlob;
use crate::types::{Descriptor, Digest, LayerRef};

impl Work<'_> {
    /// Notes a step that was done, or was known.
    pub(super) fn keep_for_others(&self, key: Digest, layer: Option<&LayerRef>) {
        if self.spec.cache_to.is_empty() {
            return;
        }
        let step = KeptStep {
            key,
            layer: layer.cloned(),
        };
        let mut kept = self.counts.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(key, step);
    }

    /// What the image's config says of its steps, where that is asked for.
    pub(super) fn inline_cache(&self, stage: &Stage) -> Result<Option<Value>> {
        if !self.spec.cache_to.contains(&CacheTarget::Inline) {
            return Ok(None);
        }
        let steps = self.kept(CacheMode::Min, std::slice::from_ref(&stage));
        Document::inline(&steps).map(Some)
    }

    /// Sends what is known to wherever it was asked for.
    ///
    /// # Errors
    /// Those of the places, and of the stores.
    pub(super) async fn share_cache(&self, stages: &[Arc<Stage>]) -> Result<()> {
        let stages: Vec<&Stage> = stages.iter().map(|stage| &**stage).collect();
        for target in &self.spec.cache_to {
            let (repository, tag, mode) = match target {
                CacheTarget::Inline => continue,
                CacheTarget::Directory(dir, tag, mode) => {
                    let tag = tag.clone().unwrap_or_else(|| LATEST.to_owned());
                    (Repository::to_directory(dir).await?, tag, *mode)
                }
                CacheTarget::Registry(name, mode) => {
                    let credentials = self.spec.credentials.get(name.host());
                    let tag = name.tag().unwrap_or(LATEST).to_owned();
                    (self.making.repository(name, credentials).await?, tag, *mode)
                }
            };
            self.send(&repository, &tag, &self.kept(mode, &stages))
                .await
                .map_err(|error| error.context("export the build cache"))?;
        }
        Ok(())
    }

    async fn send(&self, to: &Repository, tag: &str, steps: &[KeptStep]) -> Result<()> {
        let distinct: BTreeMap<Digest, LayerRef> = steps
            .iter()
            .filter_map(|step| step.layer.clone())
            .map(|layer| (layer.diff_id, layer))
            .collect();
        let plain: Vec<LayerRef> = distinct.into_values().collect();
        let layers = self.making.packed(&plain).await?;
        let config = document(CONFIG, &Document::new(steps, &layers))?;
        let manifest = document(MANIFEST, &CacheManifest::body(&config.descriptor, &layers))?;
        self.making.send_cache(to, tag, &layers, &config, &manifest).await
    }

    fn kept(&self, mode: CacheMode, stages: &[&Stage]) -> Vec<KeptStep> {
        let layers = stages.iter().flat_map(|stage| &stage.layers);
        let of_images: HashSet<Digest> = layers.map(|layer| layer.diff_id).collect();
        let wanted = |step: &&KeptStep| match (mode, &step.layer) {
            (CacheMode::Min, Some(layer)) => of_images.contains(&layer.diff_id),
            _ => true,
        };
        let kept = self.counts.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.values().filter(wanted).cloned().collect()
    }
}

fn document(media_type: &str, value: &impl serde::Serialize) -> Result<ManifestBlob> {
    let failed = |error| Error::internal("a cache cannot be written").with_source(error);
    let bytes = serde_json::to_vec(value).map_err(failed)?;
    Ok(ManifestBlob {
        descriptor: Descriptor::of(media_type, &bytes),
        bytes: bytes.into(),
    })
}
