//! `doctor`: reads everything that images stand on, and repairs what is damaged or missing.
//!
//! A damaged blob is fetched again where the image has a name in a registry that has it still. A damaged layer is unpacked
//! anew from its blob. An image that cannot be read any more, and cannot be fetched, is removed: what is left can be used, and
//! the image be pulled again.

use std::collections::HashSet;

use super::audit::{Finding, FindingKind};
use super::local::Parts;
use crate::containers::{ContainerState, Record};
use crate::error::{Error, ErrorKind, Result};
use crate::images::{ImageManager as _, Pull, PullRequest, RemoveImageOptions};
use crate::progress::Progress;
use crate::storage::content::ContentStore as _;
use crate::storage::files::blocking;
use crate::store::{ImageEntry, ImageRecord};
use crate::types::{Digest, Hasher, ImageId, ImageSource, LayerRef};

/// What [`Engine::doctor`](crate::Engine::doctor) found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnosis {
    /// What was damaged or missing, and is whole again or out of the way.
    pub repaired: Vec<Finding>,
    /// What is damaged or missing.
    pub left: Vec<Finding>,
}

impl Diagnosis {
    /// Whether nothing was found.
    pub fn is_healthy(&self) -> bool {
        self.repaired.is_empty() && self.left.is_empty()
    }
}

impl Parts {
    pub(super) async fn doctor(&self, fix: bool) -> Result<Diagnosis> {
        let mut found = Diagnosis::default();
        if fix {
            self.clear_remains().await?;
            self.adopt(&mut found).await?;
        }
        for entry in self.store.call(|store| store.images()).await? {
            self.check_blobs(&entry, fix, &mut found).await?;
            let id = entry.record.id;
            if self.store.call(move |store| store.image(&id)).await?.is_some() {
                self.check_layers(&entry.record, fix, &mut found).await?;
            }
        }
        if fix {
            self.snapshotter.sync().await?;
        }
        Ok(found)
    }

    /// Where the records were lost, and made anew.
    async fn adopt(&self, found: &mut Diagnosis) -> Result<()> {
        let root = self.root.clone();
        if !blocking(move || root.lacks_records()).await? {
            return Ok(());
        }
        for id in self.images.adopt().await? {
            let what = "its record was lost; it has no name now";
            found.repaired.push(Finding::new(FindingKind::Image, id.short(), what));
        }
        let root = self.root.clone();
        blocking(move || root.has_records()).await
    }

    async fn check_blobs(&self, entry: &ImageEntry, fix: bool, found: &mut Diagnosis) -> Result<()> {
        let record = &entry.record;
        let bad = self.bad_blobs(record).await?;
        if bad.is_empty() {
            return Ok(());
        }
        let finding = |(blob, why): &(Digest, &str)| {
            let what = format!("its blob {blob} is {why}; pull it again");
            Finding::new(FindingKind::Image, record.id.short(), what)
        };
        if !fix {
            found.left.extend(bad.iter().map(finding));
            return Ok(());
        }
        for (blob, _) in &bad {
            self.content.remove(blob).await?;
        }
        self.fetch(entry).await;
        let still = self.bad_blobs(record).await?;
        let is_bad = |blob: &Digest| still.iter().any(|(other, _)| other == blob);
        found
            .repaired
            .extend(bad.iter().filter(|(blob, _)| !is_bad(blob)).map(finding));
        if !is_bad(&record.config.digest) {
            // It runs; it cannot be pushed or saved.
            found.left.extend(still.iter().map(finding));
            return Ok(());
        }
        let options = RemoveImageOptions::default().force(true);
        match self.images.remove(&record.id.to_string(), options).await {
            Ok(_) => {
                let what = "it could be neither read nor fetched, and was removed; pull it again";
                found
                    .repaired
                    .push(Finding::new(FindingKind::Image, record.id.short(), what));
            }
            Err(error) if error.is_conflict() => found.left.extend(still.iter().map(finding)),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Those that are missing or are not what their names say.
    async fn bad_blobs(&self, record: &ImageRecord) -> Result<Vec<(Digest, &'static str)>> {
        let id = record.id;
        let indexes = self.store.call(move |store| store.indexes_of(&id)).await?;
        let indexes = indexes.iter().filter_map(|node| node.id.parse::<Digest>().ok());
        let layers = record.layers.iter().map(|layer| layer.descriptor.digest);
        let own = [record.manifest.digest, record.config.digest];
        let all: Vec<Digest> = own.into_iter().chain(layers).chain(indexes).collect();
        let (mut bad, mut seen) = (Vec::new(), HashSet::new());
        for blob in all {
            if !seen.insert(blob) {
                continue;
            }
            match self.content.open(&blob).await {
                Err(error) if error.is_not_found() => bad.push((blob, "missing")),
                Err(error) => return Err(error),
                Ok(file) => {
                    if blocking(move || hash(file)).await? != blob {
                        bad.push((blob, "damaged"));
                    }
                }
            }
        }
        Ok(bad)
    }

    /// Pulls what is missing by the names that registries gave it. Where none can be asked, that is no reason to stop.
    async fn fetch(&self, entry: &ImageEntry) {
        for name in entry.digests.iter().chain(&entry.tags) {
            let request = PullRequest::new(ImageSource::Registry(name.clone()))
                .policy(Pull::Always)
                .platform(entry.record.platform.clone());
            match self.images.pull(request, Progress::default()).await {
                Ok(_) => return,
                Err(error) => tracing::info!(image = %name, error = error.report(), "could not be fetched again"),
            }
        }
    }

    async fn check_layers(&self, record: &ImageRecord, fix: bool, found: &mut Diagnosis) -> Result<()> {
        let mut findings = Vec::new();
        let mut parent: Option<Digest> = None;
        for (layer, chain) in record.layers.iter().zip(record.chain_ids()) {
            let layer = LayerRef {
                descriptor: layer.descriptor.clone(),
                diff_id: layer.diff_id,
            };
            if let Some(what) = self.check_layer(&layer, &chain, parent.as_ref()).await? {
                findings.push(Finding::new(FindingKind::Layer, chain.short(), what));
                if fix && self.user_of(&chain).await?.is_none() {
                    self.snapshotter.distrust(&chain).await?;
                }
            }
            parent = Some(chain);
        }
        if findings.is_empty() {
            return Ok(());
        }
        match fix {
            true => match self.images.restore(&record.id.to_string()).await {
                Ok(_) if self.is_mounted(record).await? => found.left.extend(findings),
                Ok(_) => found.repaired.extend(findings),
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt) => found.left.extend(findings),
                Err(error) => return Err(error),
            },
            false => found.left.extend(findings),
        }
        Ok(())
    }

    /// What is wrong with a layer.
    async fn check_layer(&self, layer: &LayerRef, chain: &Digest, parent: Option<&Digest>) -> Result<Option<String>> {
        if !self.snapshotter.exists(chain).await? {
            return Ok(Some("it is missing, or was lost with the power".to_owned()));
        }
        if let Some(parent) = parent
            && !self.snapshotter.exists(parent).await?
        {
            // It is unpacked anew with the one below.
            return Ok(None);
        }
        match self.images.compare_layer(layer, parent).await {
            Ok(None) => Ok(None),
            Ok(Some(path)) => Ok(Some(format!("{} in it is not what its blob says", path.display()))),
            // Nothing to compare with; the blob is a finding of its own.
            Err(error) if cannot_tell(&error) => Ok(None),
            // Its own directory is not there, say.
            Err(error) => Ok(Some(format!("it cannot be read: {}", error.report()))),
        }
    }

    /// A running container that stands on a layer, which must not be changed below it.
    async fn user_of(&self, chain: &Digest) -> Result<Option<ImageId>> {
        let rows = self.store.call(|store| store.containers()).await?;
        let records = rows.into_iter().map(Record::from_row).collect::<Result<Vec<_>>>()?;
        let runs = |record: &&Record| matches!(record.state, ContainerState::Running | ContainerState::Paused);
        for record in records.iter().filter(runs) {
            let id = record.body.image_id;
            let image = self.store.call(move |store| store.image(&id)).await?;
            if image.is_some_and(|image| image.chain_ids().contains(chain)) {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    async fn is_mounted(&self, record: &ImageRecord) -> Result<bool> {
        for chain in record.chain_ids() {
            if self.user_of(&chain).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn cannot_tell(error: &Error) -> bool {
    use ErrorKind::{DigestMismatch, NotFound, UnsafeArchive};
    matches!(error.kind(), NotFound | DigestMismatch | UnsafeArchive)
}

/// Blocking.
fn hash(mut file: std::fs::File) -> Result<Digest> {
    use std::io::Read as _;
    let (mut hasher, mut buffer) = (Hasher::default(), vec![0; 256 << 10]);
    loop {
        let length = file
            .read(&mut buffer)
            .map_err(|error| Error::os("read a blob", error))?;
        if length == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..length]);
    }
}
