//! `save`: images as one archive.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::archive::{FULL_NAME, Item, stream};
use super::local::LocalImages;
use super::lookup::find;
use super::{ArchiveFormat, ByteStream};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::registry::layout::REF_NAME;
use crate::store::{ImageRecord, Node, Store};
use crate::types::{Descriptor, ImageId, Platform, Reference};

/// An image to save, with the names it keeps.
#[derive(Debug)]
struct Wanted {
    record: ImageRecord,
    names: Vec<Reference>,
}

impl LocalImages {
    pub(super) async fn save_named(
        &self,
        images: &[String],
        platform: Option<Platform>,
        format: ArchiveFormat,
    ) -> Result<ByteStream> {
        if images.is_empty() {
            return Err(Error::invalid("no image to save: name one at least"));
        }
        let (images, owner) = (images.to_vec(), self.parts.owner.clone());
        let (wanted, lease) = self
            .parts
            .store
            .call(move |store| {
                let wanted = wanted(store, &images, platform.as_ref())?;
                let lease = store.lease(&owner)?;
                lease.add(
                    &wanted
                        .iter()
                        .flat_map(|image| blobs(&image.record))
                        .map(|blob| Node::blob(&blob.digest))
                        .collect::<Vec<_>>(),
                )?;
                // Leased first, and then looked for once more: an image that is still here cannot lose its blobs now.
                for image in &wanted {
                    let gone = || Error::not_found(ObjectKind::Image, image.record.id.to_string());
                    store.image(&image.record.id)?.ok_or_else(gone)?;
                }
                Ok((wanted, lease))
            })
            .await?;
        for image in &wanted {
            if image.names.is_empty() {
                self.tell("save", image.record.id, None).await;
            }
            for name in &image.names {
                self.tell("save", image.record.id, Some(name)).await;
            }
        }
        let items = items(&wanted, format)?;
        stream(Arc::clone(&self.parts.content), items, lease)
    }
}

/// Looks images up, each once. Blocking.
fn wanted(store: &Store, images: &[String], platform: Option<&Platform>) -> Result<Vec<Wanted>> {
    let mut out: Vec<Wanted> = Vec::new();
    for text in images {
        for (record, name) in named(store, text)? {
            if let Some(platform) = platform.filter(|platform| !platform.accepts(&record.platform)) {
                let message = format!(
                    "{text} is not here for {platform}; available platforms: {}",
                    record.platform
                );
                return Err(Error::new(ErrorKind::NotFound, message).with_object(ObjectKind::Image, text.clone()));
            }
            let at = out.iter().position(|other| other.record.id == record.id);
            let at = at.unwrap_or_else(|| {
                out.push(Wanted {
                    record,
                    names: Vec::new(),
                });
                out.len() - 1
            });
            let known = name.as_ref().is_none_or(|name| out[at].names.contains(name));
            if !known {
                out[at].names.extend(name);
            }
        }
    }
    Ok(out)
}

/// What a text names. A repository without a tag means all its tags, as in Docker.
fn named(store: &Store, text: &str) -> Result<Vec<(ImageRecord, Option<Reference>)>> {
    if let Some(repository) = repository_of(text) {
        let same = |name: &&Reference| {
            name.host() == repository.host() && name.repository() == repository.repository() && name.tag().is_some()
        };
        let mut all = Vec::new();
        for entry in store.images()? {
            let names: Vec<Reference> = entry.tags.iter().filter(same).cloned().collect();
            all.extend(names.into_iter().map(|name| (entry.record.clone(), Some(name))));
        }
        if !all.is_empty() {
            return Ok(all);
        }
    }
    let found = find(store, text)?;
    let name = found.name.filter(|name| name.digest().is_none());
    Ok(vec![(found.record, name)])
}

/// The repository, where the text names nothing but one.
fn repository_of(text: &str) -> Option<Reference> {
    let last = text.rsplit('/').next().unwrap_or(text);
    (!last.contains([':', '@'])).then(|| text.parse().ok()).flatten()
}

fn blobs(record: &ImageRecord) -> Vec<Descriptor> {
    let layers = record.layers.iter().map(|layer| &layer.descriptor);
    let all = [&record.manifest, &record.config].into_iter().chain(layers);
    all.cloned().collect()
}

/// The entries: what tells of the images first, so that a reader knows early what it gets.
fn items(wanted: &[Wanted], format: ArchiveFormat) -> Result<Vec<Item>> {
    let mut items = vec![
        Item::File("oci-layout", json_bytes(&json!({ "imageLayoutVersion": "1.0.0" }))?),
        Item::File("index.json", json_bytes(&index(wanted, format))?),
    ];
    if format == ArchiveFormat::Docker {
        items.push(Item::File("manifest.json", json_bytes(&docker_manifest(wanted))?));
        items.push(Item::File("repositories", json_bytes(&repositories(wanted))?));
    }
    items.extend([Item::Dir("blobs/"), Item::Dir("blobs/sha256/")]);
    let mut seen = HashSet::new();
    let all = wanted.iter().flat_map(|image| blobs(&image.record));
    items.extend(all.filter(|blob| seen.insert(blob.digest)).map(Item::Blob));
    Ok(items)
}

fn index(wanted: &[Wanted], format: ArchiveFormat) -> Value {
    let mut entries: Vec<Descriptor> = Vec::new();
    for image in wanted {
        let mut entry = image.record.manifest.clone();
        entry.platform = Some(image.record.platform.clone());
        entry.annotations.clear();
        if image.names.is_empty() {
            entries.push(entry.clone());
        }
        for name in &image.names {
            let mut entry = entry.clone();
            entry.annotations = annotations(name, format);
            entries.push(entry);
        }
    }
    json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries })
}

/// Docker writes the tag under the specification's key; podman and skopeo, which read layouts by it, the name.
fn annotations(name: &Reference, format: ArchiveFormat) -> BTreeMap<String, String> {
    let short = match format {
        ArchiveFormat::Docker => name.tag().unwrap_or("latest").to_owned(),
        ArchiveFormat::Oci => name.to_string(),
    };
    BTreeMap::from([(FULL_NAME.to_owned(), name.to_string()), (REF_NAME.to_owned(), short)])
}

fn docker_manifest(wanted: &[Wanted]) -> Value {
    let path = |blob: &Descriptor| format!("blobs/sha256/{}", blob.digest.hex());
    let entry = |image: &Wanted| {
        let layers: Vec<String> = image
            .record
            .layers
            .iter()
            .map(|layer| path(&layer.descriptor))
            .collect();
        let tags: Vec<String> = image.names.iter().map(Reference::familiar).collect();
        let tags = if tags.is_empty() { Value::Null } else { json!(tags) };
        json!({ "Config": path(&image.record.config), "RepoTags": tags, "Layers": layers })
    };
    wanted.iter().map(entry).collect()
}

/// What Docker before 1.10 read, and every Docker still writes: the topmost layer by repository and tag.
fn repositories(wanted: &[Wanted]) -> Value {
    let mut out: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for image in wanted {
        let top = |id: &ImageId| image.record.chain_ids().last().unwrap_or(id).hex();
        for name in &image.names {
            let tags = out.entry(name.familiar_repository()).or_default();
            tags.insert(name.tag().unwrap_or("latest").to_owned(), top(&image.record.id));
        }
    }
    json!(out)
}

fn json_bytes(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::internal("JSON cannot be written").with_source(error))
}
