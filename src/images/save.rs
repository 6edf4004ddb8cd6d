//! `save`: images as one archive.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::archive::{FULL_NAME, Item, stream};
use super::index::INDEX;
use super::local::LocalImages;
use super::lookup::{find_all, fitting};
use super::{ArchiveFormat, ByteStream};
use crate::error::{Error, ObjectKind, Result};
use crate::registry::ManifestBlob;
use crate::registry::layout::REF_NAME;
use crate::store::{ImageRecord, NamedImage, Node, Store};
use crate::types::{Descriptor, ImageId, Platform, Reference};

/// What to save, with the names it keeps.
#[derive(Debug)]
struct Wanted {
    images: Vec<NamedImage>,
    /// The index of the images, where there are several.
    index: Option<ManifestBlob>,
    names: Vec<Reference>,
}

/// An archive about to be written.
pub(super) struct Saving {
    /// What stands for each of the things that were named: its index or manifest.
    pub(super) tops: Vec<Descriptor>,
    /// All images in it.
    pub(super) records: Vec<ImageRecord>,
    pub(super) stream: ByteStream,
}

impl Wanted {
    fn top(&self) -> Option<Descriptor> {
        let own = || self.images.first().map(|one| one.record.manifest.clone());
        self.index.as_ref().map(|index| index.descriptor.clone()).or_else(own)
    }

    fn ids(&self) -> Vec<ImageId> {
        self.images.iter().map(|one| one.record.id).collect()
    }
}

impl LocalImages {
    pub(super) async fn save_named(
        &self,
        images: &[String],
        platform: Option<Platform>,
        format: ArchiveFormat,
    ) -> Result<ByteStream> {
        Ok(self.saving(images, platform, format, None).await?.stream)
    }

    /// As `save`. With a name, that is the name of each in the archive.
    pub(super) async fn saving(
        &self,
        images: &[String],
        platform: Option<Platform>,
        format: ArchiveFormat,
        rename: Option<&Reference>,
    ) -> Result<Saving> {
        if images.is_empty() {
            return Err(Error::invalid("no image to save: name one at least"));
        }
        let (images, owner) = (images.to_vec(), self.parts.owner.clone());
        let wished = platform.clone();
        let (mut wanted, lease) = self
            .parts
            .store
            .call(move |store| {
                let wanted = wanted(store, &images, wished.as_ref())?;
                let lease = store.lease(&owner)?;
                let all = || wanted.iter().flat_map(|one| &one.images);
                let tops = all().map(|one| Node::blob(&one.sign.top));
                let blobs = all()
                    .flat_map(|one| blobs(&one.record))
                    .map(|blob| Node::blob(&blob.digest));
                lease.add(&blobs.chain(tops).collect::<Vec<_>>())?;
                // Leased first, and then looked for once more: an image that is still here cannot lose its blobs now.
                for image in all() {
                    let gone = || Error::not_found(ObjectKind::Image, image.record.id.to_string());
                    store.image(&image.record.id)?.ok_or_else(gone)?;
                }
                Ok((wanted, lease))
            })
            .await?;
        for one in &mut wanted {
            let images = std::mem::take(&mut one.images);
            let whole = self.whole(images, platform.as_ref(), "the image").await?;
            (one.images, one.index) = (whole.images, whole.index);
            if let Some(name) = rename {
                one.names = vec![name.clone()];
            }
        }
        for one in &wanted {
            for id in one.ids() {
                if one.names.is_empty() {
                    self.tell("save", id, None).await;
                }
                for name in &one.names {
                    self.tell("save", id, Some(name)).await;
                }
            }
        }
        let items = items(&wanted, format)?;
        Ok(Saving {
            tops: wanted.iter().filter_map(Wanted::top).collect(),
            records: wanted
                .iter()
                .flat_map(|one| &one.images)
                .map(|one| one.record.clone())
                .collect(),
            stream: stream(Arc::clone(&self.parts.content), items, lease)?,
        })
    }
}

/// Looks images up, each once. Blocking.
fn wanted(store: &Store, images: &[String], platform: Option<&Platform>) -> Result<Vec<Wanted>> {
    let mut out: Vec<Wanted> = Vec::new();
    for text in images {
        for (all, name) in named(store, text)? {
            let images = fitting(all, platform, text)?;
            let ids = |images: &[NamedImage]| {
                images
                    .iter()
                    .map(|one| (one.record.id, one.sign.top))
                    .collect::<Vec<_>>()
            };
            let at = out.iter().position(|other| ids(&other.images) == ids(&images));
            let at = at.unwrap_or_else(|| {
                out.push(Wanted {
                    images,
                    index: None,
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
fn named(store: &Store, text: &str) -> Result<Vec<(Vec<NamedImage>, Option<Reference>)>> {
    if let Some(repository) = repository_of(text) {
        let same = |name: &Reference| {
            name.host() == repository.host() && name.repository() == repository.repository() && name.tag().is_some()
        };
        let names: BTreeSet<String> = store
            .images()?
            .iter()
            .flat_map(|entry| &entry.tags)
            .filter(|name| same(name))
            .map(ToString::to_string)
            .collect();
        let mut all = Vec::new();
        for name in names {
            let name: Reference = name.parse()?;
            all.push((store.images_by_name(&name)?, Some(name)));
        }
        all.retain(|(images, _)| !images.is_empty());
        if !all.is_empty() {
            return Ok(all);
        }
    }
    let (all, name) = find_all(store, text)?;
    Ok(vec![(all, name.filter(|name| name.digest().is_none()))])
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

/// The entries of an archive of images that go together, each by these names.
#[cfg(feature = "build")]
pub(super) fn items_of(whole: super::index::Whole, names: &[Reference], format: ArchiveFormat) -> Result<Vec<Item>> {
    let wanted = Wanted {
        images: whole.images,
        index: whole.index,
        names: names.to_vec(),
    };
    items(&[wanted], format)
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
    for one in wanted {
        let blobs = one.images.iter().flat_map(|image| blobs(&image.record));
        items.extend(blobs.filter(|blob| seen.insert(blob.digest)).map(Item::Blob));
        if let Some(index) = one.index.as_ref().filter(|index| seen.insert(index.descriptor.digest)) {
            items.push(Item::Bytes(index.descriptor.clone(), index.bytes.clone()));
        }
    }
    Ok(items)
}

fn index(wanted: &[Wanted], format: ArchiveFormat) -> Value {
    let mut entries: Vec<Descriptor> = Vec::new();
    for one in wanted {
        let mut tops = Vec::new();
        match &one.index {
            Some(index) => tops.push(index.descriptor.clone()),
            None => tops.extend(one.images.iter().map(|image| Descriptor {
                platform: Some(image.sign.platform.clone()),
                ..image.record.manifest.clone()
            })),
        }
        for mut entry in tops {
            entry.annotations.clear();
            if one.names.is_empty() {
                entries.push(entry.clone());
            }
            for name in &one.names {
                let mut entry = entry.clone();
                entry.annotations = annotations(name, format);
                entries.push(entry);
            }
        }
    }
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries })
}

/// Docker writes the tag under the specification's key; podman and skopeo, which read layouts by it, the name.
fn annotations(name: &Reference, format: ArchiveFormat) -> BTreeMap<String, String> {
    let short = match format {
        ArchiveFormat::Docker => name.tag().unwrap_or("latest").to_owned(),
        ArchiveFormat::Oci => name.to_string(),
    };
    BTreeMap::from([(FULL_NAME.to_owned(), name.to_string()), (REF_NAME.to_owned(), short)])
}

/// What this form can say: one image has the names, the best for this host; those of other platforms have none.
fn docker_manifest(wanted: &[Wanted]) -> Value {
    let path = |blob: &Descriptor| format!("blobs/sha256/{}", blob.digest.hex());
    let entry = |image: &ImageRecord, names: &[Reference]| {
        let layers: Vec<String> = image.layers.iter().map(|layer| path(&layer.descriptor)).collect();
        let tags: Vec<String> = names.iter().map(Reference::familiar).collect();
        let tags = if tags.is_empty() { Value::Null } else { json!(tags) };
        json!({ "Config": path(&image.config), "RepoTags": tags, "Layers": layers })
    };
    let mut entries = Vec::new();
    for one in wanted {
        for (number, image) in one.images.iter().enumerate() {
            let names: &[Reference] = if number == 0 { &one.names } else { &[] };
            entries.push(entry(&image.record, names));
        }
    }
    Value::Array(entries)
}

/// What Docker before 1.10 read, and every Docker still writes: the topmost layer by repository and tag.
fn repositories(wanted: &[Wanted]) -> Value {
    let mut out: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for one in wanted {
        let Some(image) = one.images.first().map(|one| &one.record) else {
            continue;
        };
        for name in &one.names {
            let tags = out.entry(name.familiar_repository()).or_default();
            let top = image.chain_ids().last().unwrap_or(&image.id).hex();
            tags.insert(name.tag().unwrap_or("latest").to_owned(), top);
        }
    }
    json!(out)
}

fn json_bytes(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::internal("JSON cannot be written").with_source(error))
}
