//! Steps that caches elsewhere know of. What they say counts in this build alone.

use std::collections::HashMap;
use std::sync::PoisonError;

use super::Work;
use super::stage::Stage;
use crate::build::cache::{CacheManifest, CacheSource, Document, InlineConfig};
use crate::build::spec::Wish;
use crate::error::{ErrorKind, Result};
use crate::images::making::Making;
use crate::images::making_cache::Repository;
use crate::registry::{MAX_MANIFEST, ManifestBlob, ManifestKey, index};
use crate::types::{Digest, LayerRef, Platform, Reference};

/// The tag of a directory's cache that nobody named.
pub(super) const LATEST: &str = "latest";
/// As many images of one index are looked at.
const MAX_IMAGES: usize = 32;

/// What a cache says.
#[derive(Debug)]
pub(super) struct Known {
    shown: String,
    /// None: the layers are here.
    repository: Option<Repository>,
    steps: HashMap<Digest, Option<LayerRef>>,
}

/// Opens the caches that whoever builds names. Those that cannot be used come back as warnings.
pub(super) async fn open(wish: &Wish, making: &Making) -> (Vec<Known>, Vec<String>) {
    let (mut known, mut notes) = (Vec::new(), Vec::new());
    if wish.no_cache {
        return (known, notes);
    }
    for source in &wish.cache_from {
        let shown = shown(source);
        match read(wish, making, source).await {
            Ok(found) if found.is_empty() => notes.push(format!("{shown} has no build cache in it")),
            Ok(found) => known.extend(found.into_iter().map(|(repository, steps)| Known {
                shown: shown.clone(),
                repository,
                steps,
            })),
            Err(error) => notes.push(format!("{shown} is no help as a build cache: {}", error.report())),
        }
    }
    (known, notes)
}

type Found = (Option<Repository>, HashMap<Digest, Option<LayerRef>>);

async fn read(wish: &Wish, making: &Making, source: &CacheSource) -> Result<Vec<Found>> {
    match source {
        CacheSource::Directory(dir, tag) => {
            let repository = Repository::of_directory(dir).await?;
            let tag = tag.clone().unwrap_or_else(|| LATEST.to_owned());
            read_from(wish, repository, &ManifestKey::Tag(tag)).await
        }
        CacheSource::Registry(name) => read_registry(wish, making, name).await,
        CacheSource::Image(name) => match making.here(name).await? {
            Some(image) => {
                let Some(cache) = &image.config.build_cache else {
                    return Ok(Vec::new());
                };
                let steps = Document::of_value(cache)?.steps(&image.layers);
                Ok(vec![(None, steps)])
            }
            None => read_registry(wish, making, name).await,
        },
    }
}

async fn read_registry(wish: &Wish, making: &Making, name: &Reference) -> Result<Vec<Found>> {
    let repository = making.repository(name, wish.credentials.get(name.host())).await?;
    let key = match (name.digest(), name.tag()) {
        (Some(digest), _) => ManifestKey::Digest(digest),
        (None, tag) => ManifestKey::Tag(tag.unwrap_or(LATEST).to_owned()),
    };
    read_from(wish, repository, &key).await
}

async fn read_from(wish: &Wish, repository: Repository, key: &ManifestKey) -> Result<Vec<Found>> {
    let top = repository.manifest(key).await?;
    let mut manifests = Vec::new();
    match index::is_index(&top.descriptor.media_type.0) {
        false => manifests.push(top),
        true => {
            for entry in wanted_of(wish, &top)? {
                manifests.push(repository.manifest(&ManifestKey::Digest(entry)).await?);
            }
        }
    }
    let mut found = Vec::new();
    for blob in manifests {
        let manifest = CacheManifest::parse(&blob.bytes)?;
        let config = repository.document(&manifest.config).await?;
        let read = match manifest.is_cache() {
            true => {
                let document = Document::parse(&config)?;
                let layers = document.layers(&manifest)?;
                Some((document, layers))
            }
            false => InlineConfig::parse(&config, &manifest)?,
        };
        found.extend(read.map(|(document, layers)| (Some(repository.clone()), document.steps(&layers))));
    }
    Ok(found)
}

/// The images of an index that are for a platform of the build.
fn wanted_of(wish: &Wish, top: &ManifestBlob) -> Result<Vec<Digest>> {
    debug_assert!(top.bytes.len() as u64 <= MAX_MANIFEST);
    let own = [wish.plan.platform.clone()];
    let platforms: &[Platform] = match wish.platforms.is_empty() {
        true => &own,
        false => &wish.platforms,
    };
    let fits = |platform: &Platform| platforms.iter().any(|wanted| wanted.accepts(platform));
    let entries = index::entries(&top.bytes)?.into_iter();
    let fitting = entries.filter(|entry| entry.platform.as_ref().is_some_and(fits));
    Ok(fitting.map(|entry| entry.digest).take(MAX_IMAGES).collect())
}

fn shown(source: &CacheSource) -> String {
    match source {
        CacheSource::Directory(dir, _) => dir.display().to_string(),
        CacheSource::Registry(name) | CacheSource::Image(name) => name.familiar(),
    }
}

impl Work<'_> {
    /// What a cache elsewhere knows of a step: its layer, fetched, checked and unpacked. One that cannot be had is a warning.
    ///
    /// # Errors
    /// `Cancelled`.
    pub(super) async fn imported(&self, stage: &Stage, key: &Digest) -> Result<Option<Option<LayerRef>>> {
        for known in self.known {
            let Some(layer) = known.steps.get(key) else { continue };
            let Some(layer) = layer else { return Ok(Some(None)) };
            let taken = match &known.repository {
                Some(repository) => {
                    let fetched = self.making.fetched(repository, &stage.layers, layer, &self.cancel);
                    fetched.await.map(Some)
                }
                None => {
                    let taken = self.making.take(&stage.layers, layer).await;
                    taken.map(|taken| taken.then(|| layer.clone()))
                }
            };
            match taken {
                Ok(Some(layer)) => return Ok(Some(Some(layer))),
                Ok(None) => {}
                Err(error) if error.kind() == &ErrorKind::Cancelled => return Err(error),
                Err(error) => self.note(format!(
                    "a step is done anew, since its layer in the build cache {} cannot be used: {}",
                    known.shown,
                    error.report()
                )),
            }
        }
        Ok(None)
    }

    /// Something that whoever builds should know at the end.
    pub(super) fn note(&self, text: String) {
        let mut notes = self.counts.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.push(text);
    }
}
