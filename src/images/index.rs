//! Images of several platforms under one name: what a name stands for, and making an index of images that are here.

use std::collections::HashSet;
use std::io::Read as _;
use std::sync::Arc;

use serde_json::json;

use super::local::LocalImages;
use super::lookup::{find, find_all, fitting};
use super::manifest::{self, Document};
use super::{ImageDocument, ImageInfo, IndexEntry, IndexRequest, ListedManifest};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::registry::{MAX_MANIFEST, ManifestBlob, index};
use crate::storage::files::blocking;
use crate::store::{ImageRecord, NamedImage, Node, Sign, Store};
use crate::sys::order;
use crate::types::{Descriptor, Digest, MediaType, Platform, Reference};

pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What goes out under a name: to a registry, or into an archive.
#[derive(Debug)]
pub(super) struct Whole {
    /// The images, the best for this host first.
    pub(super) images: Vec<NamedImage>,
    /// The index of them. None: a single image, by its own manifest.
    pub(super) index: Option<ManifestBlob>,
}

impl LocalImages {
    pub(super) async fn variants_of(&self, image: &str) -> Result<Vec<ImageInfo>> {
        let text = image.to_owned();
        let (all, _) = self.parts.store.call(move |store| find_all(store, &text)).await?;
        let mut out = Vec::new();
        for one in all {
            out.push(self.info_of(one.record).await?);
        }
        Ok(out)
    }

    pub(super) async fn document_of(&self, image: &str) -> Result<ImageDocument> {
        let text = image.to_owned();
        let (all, _) = self.parts.store.call(move |store| find_all(store, &text)).await?;
        let Some(first) = all.first() else {
            return Err(super::lookup::missing(image));
        };
        let mut descriptor = first.record.manifest.clone();
        if first.sign.top == descriptor.digest {
            let blob = self.kept_manifest(&descriptor).await?;
            descriptor.platform = Some(first.sign.platform.clone());
            let listed = ListedManifest {
                descriptor,
                image: Some(first.record.id),
            };
            return Ok(document(blob, vec![listed]));
        }
        let blob = self.kept_index(&first.sign.top).await?;
        let here = |entry: &Descriptor| {
            let same = |one: &&NamedImage| one.record.manifest.digest == entry.digest;
            all.iter().find(same).map(|one| one.record.id)
        };
        let entries = index::entries(&blob.bytes)?.into_iter();
        let manifests = entries.map(|descriptor| ListedManifest {
            image: here(&descriptor),
            descriptor,
        });
        let manifests = manifests.collect();
        Ok(document(blob, manifests))
    }

    pub(super) async fn index_of(&self, request: IndexRequest) -> Result<Descriptor> {
        let IndexRequest {
            name,
            entries,
            annotations,
        } = request;
        if name.tag().is_none() || name.digest().is_some() {
            return Err(Error::invalid(format!(
                "cannot name an index {name}: a name with a tag and without a digest is needed"
            )));
        }
        let images = self.parts.store.call(move |store| images_of(store, &entries)).await?;
        let mut body = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": listed(&images) });
        if !annotations.is_empty() {
            body["annotations"] = json!(annotations);
        }
        let blob = index_blob(&body)?;
        let descriptor = blob.descriptor.clone();
        let named = Whole {
            images: images.into_iter().map(|(image, _)| image).collect(),
            index: Some(blob),
        };
        self.name_index(&name, named).await?;
        Ok(descriptor)
    }

    /// Keeps an index and points a name at it, and at nothing else.
    pub(super) async fn name_index(&self, name: &Reference, whole: Whole) -> Result<()> {
        let Some(blob) = whole.index else { return Ok(()) };
        let owner = self.parts.owner.clone();
        let lease = Arc::new(self.parts.store.call(move |store| store.lease(&owner)).await?);
        let top = blob.descriptor.digest;
        self.hold(&lease, vec![Node::blob(&top)]).await?;
        self.keep_manifest(&blob, &lease).await?;
        self.parts.content.sync(&[top]).await?;
        let (target, images) = (name.clone(), whole.images);
        let kept = Arc::clone(&lease);
        let point = move |store: &Store| {
            let ids: Vec<_> = images
                .iter()
                .map(|one| {
                    let platform = one.sign.platform.clone();
                    (one.record.id, Sign { platform, top })
                })
                .collect();
            let freed = store.tag_all(&target, &ids)?;
            drop(kept);
            Ok((ids, freed))
        };
        let done = self.parts.store.call(point).await;
        if let Ok(lease) = Arc::try_unwrap(lease) {
            self.parts.store.call(move |_| lease.release()).await?;
        }
        let (ids, freed) = match done {
            Ok(done) => done,
            Err(error) => {
                self.remove_unused(vec![Node::blob(&top)]).await?;
                return Err(error);
            }
        };
        self.remove_unused(freed).await?;
        for (id, _) in ids {
            self.tell("tag", id, Some(name)).await;
        }
        Ok(())
    }

    /// What goes out for these images of one name: the index as it came, where all that it lists is here and no single
    /// platform is asked for; else one of those that are here.
    pub(super) async fn whole(
        &self,
        images: Vec<NamedImage>,
        platform: Option<&Platform>,
        shown: &str,
    ) -> Result<Whole> {
        let images = fitting(images, platform, shown)?;
        let index = match images.as_slice() {
            [first, ..] if platform.is_none() && first.sign.top != first.record.manifest.digest => {
                self.complete_index(&first.sign.top, &images).await?
            }
            _ => None,
        };
        let index = match (index, images.len()) {
            (Some(index), _) => Some(index),
            (None, 0 | 1) => None,
            (None, _) => Some(index_of_these(&images)?),
        };
        Ok(Whole { images, index })
    }

    async fn complete_index(&self, top: &Digest, images: &[NamedImage]) -> Result<Option<ManifestBlob>> {
        let blob = self.kept_index(top).await?;
        let here: HashSet<Digest> = images.iter().map(|one| one.record.manifest.digest).collect();
        let entries = index::entries(&blob.bytes)?;
        let complete = !entries.is_empty() && entries.iter().all(|entry| here.contains(&entry.digest));
        // What the reader of entries left out is for somebody else, and not here.
        let all = entries.len() == index::count(&blob.bytes)?;
        Ok((complete && all).then_some(blob))
    }

    /// An index that a name stands for.
    async fn kept_index(&self, digest: &Digest) -> Result<ManifestBlob> {
        let size = self.parts.content.info(digest).await?.map_or(0, |info| info.size);
        let mut blob = self
            .kept_manifest(&Descriptor {
                media_type: MediaType(INDEX.to_owned()),
                digest: *digest,
                size,
                platform: None,
                annotations: Default::default(),
            })
            .await?;
        if let Some(stated) = index::media_type(&blob.bytes) {
            blob.descriptor.media_type = MediaType(stated);
        }
        Ok(blob)
    }

    /// A manifest or index as it came, or as it was made here.
    pub(super) async fn kept_manifest(&self, descriptor: &Descriptor) -> Result<ManifestBlob> {
        let digest = descriptor.digest;
        let damaged = || {
            let message = format!(
                "the manifest {} in the content store is damaged or gone: pull the image again",
                digest.short()
            );
            Error::new(ErrorKind::Corrupt, message).with_object(ObjectKind::Manifest, digest.to_string())
        };
        let file = match self.parts.content.open(&digest).await {
            Err(error) if error.is_not_found() => return Err(damaged()),
            file => file?,
        };
        let bytes = blocking(move || {
            let mut bytes = Vec::new();
            file.take(MAX_MANIFEST + 1)
                .read_to_end(&mut bytes)
                .map_err(|error| Error::os("read a manifest", error))?;
            Ok(bytes)
        })
        .await?;
        if Digest::of(&bytes) != digest {
            return Err(damaged());
        }
        Ok(ManifestBlob {
            descriptor: descriptor.clone(),
            bytes: bytes.into(),
        })
    }
}

fn document(blob: ManifestBlob, manifests: Vec<ListedManifest>) -> ImageDocument {
    ImageDocument {
        descriptor: blob.descriptor,
        bytes: blob.bytes,
        manifests,
    }
}

/// The images of an index, with what it says of each. Blocking.
fn images_of(store: &Store, entries: &[IndexEntry]) -> Result<Vec<(NamedImage, IndexEntry)>> {
    let mut images: Vec<(NamedImage, IndexEntry)> = Vec::new();
    for entry in entries {
        let all = match &entry.platform {
            // What is said of it can only be meant of one.
            Some(_) => vec![alone(find(store, &entry.image)?.record)],
            None => find_all(store, &entry.image)?.0,
        };
        for mut image in all {
            if let Some(platform) = &entry.platform {
                image.sign.platform = platform.clone();
            }
            let platform = &image.sign.platform;
            if images.iter().any(|(other, _)| other.sign.platform == *platform) {
                let message = format!(
                    "an index cannot hold two images for {platform}: {} is the second",
                    entry.image
                );
                return Err(Error::invalid(message).with_object(ObjectKind::Image, entry.image.clone()));
            }
            images.push((image, entry.clone()));
        }
    }
    match images.len() {
        0 => Err(Error::invalid("an index needs an image at least")),
        many if many > index::MAX_ENTRIES => Err(Error::invalid("an index cannot hold so many images")),
        _ => Ok(images),
    }
}

fn alone(record: ImageRecord) -> NamedImage {
    let sign = Sign::of(&record);
    NamedImage { record, sign }
}

fn listed(images: &[(NamedImage, IndexEntry)]) -> Vec<Descriptor> {
    let entry = |(image, entry): &(NamedImage, IndexEntry)| Descriptor {
        platform: Some(image.sign.platform.clone()),
        annotations: entry.annotations.clone(),
        ..image.record.manifest.clone()
    };
    images.iter().map(entry).collect()
}

/// An index of images, in the order of their platforms: the same images always make the same index.
pub(super) fn index_of_these(images: &[NamedImage]) -> Result<ManifestBlob> {
    let mut images: Vec<&NamedImage> = images.iter().collect();
    order::sort_by_key(&mut images, |one| one.sign.platform.to_string());
    let entry = |one: &&NamedImage| Descriptor {
        platform: Some(one.sign.platform.clone()),
        ..one.record.manifest.clone()
    };
    let entries: Vec<Descriptor> = images.iter().map(entry).collect();
    index_blob(&json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries }))
}

pub(super) fn index_blob(body: &serde_json::Value) -> Result<ManifestBlob> {
    let bytes =
        serde_json::to_vec(body).map_err(|error| Error::internal("an index without JSON").with_source(error))?;
    let blob = ManifestBlob {
        descriptor: Descriptor::of(INDEX, &bytes),
        bytes: bytes.into(),
    };
    // What we write must be what we read.
    match manifest::parse(&blob)? {
        Document::Index(_) => Ok(blob),
        Document::Image(_) => Err(Error::internal("an index that is a manifest")),
    }
}
