//! Images of additional stores: other roots, which are only read. They are used where they are, under a record of this root,
//! which is made the first time that somebody wants one.
//!
//! No byte is copied: blobs are looked for in the other root, and layers are links to its trees. Where its layers cannot be
//! used in place (another storage driver, another user's ids) they are unpacked here, from its blobs. A record that was
//! made can be removed again; the image is then what it was before, one of the additional store.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::local::{LocalImages, LocalImagesParts};
use super::lookup;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::storage::files::random_name;
use crate::store::{ImageEntry, ImageRecord, Node, OtherImage, OtherRoot, Sign, Store};
use crate::types::{Digest, ImageId, Reference};

/// Another root, whose images can be used as if they were of this one.
#[derive(Debug)]
pub struct AdditionalStore {
    /// The root.
    pub root: OtherRoot,
    /// Where its layers are, if they can be used in place: the storage driver, the ids and the user are the same.
    pub layers: Option<PathBuf>,
}

/// An image that this root has not, and where it is.
struct Lent {
    image: OtherImage,
    by: PathBuf,
    layers: Option<PathBuf>,
}

impl LocalImages {
    /// Has what a text names be here, where only an additional store has it.
    pub(super) async fn bring(&self, text: &str) -> Result<()> {
        if self.parts.additional.is_empty() {
            return Ok(());
        }
        for lent in self.only_elsewhere(text).await? {
            let id = lent.image.record.id;
            let borrowed = self.borrow(lent).await;
            borrowed.map_err(|error| error.context(format!("use {} of an additional store", id.short())))?;
        }
        Ok(())
    }

    /// What to answer to who would remove an image of an additional store; none for any other image.
    pub(super) async fn refuse_lent(&self, text: &str) -> Result<()> {
        if self.parts.additional.is_empty() {
            return Ok(());
        }
        let Some(lent) = self.only_elsewhere(text).await?.into_iter().next() else {
            return Ok(());
        };
        let message = format!(
            "the image {text} is in the additional store {}, which is only read",
            lent.by.display()
        );
        Err(Error::new(ErrorKind::ReadOnly, message).with_object(ObjectKind::Image, text))
    }

    async fn only_elsewhere(&self, text: &str) -> Result<Vec<Lent>> {
        let (parts, text) = (Arc::clone(&self.parts), text.to_owned());
        self.parts
            .store
            .call(move |store| only_elsewhere(store, &parts, &text))
            .await
    }

    async fn borrow(&self, lent: Lent) -> Result<()> {
        let Lent { image, by, layers } = lent;
        let OtherImage { mut record, names } = image;
        if let Some(missing) = self.first_missing(&record, &names).await? {
            let (image, by) = (record.id.short(), by.display());
            tracing::warn!(%image, %by, blob = %missing, "an image of an additional store lacks a blob, and is left out");
            return Ok(());
        }
        let owner = self.parts.owner.clone();
        let lease = Arc::new(self.parts.store.call(move |store| store.lease(&owner)).await?);
        let mut nodes = record.needs();
        nodes.extend(names.iter().map(|(_, sign)| Node::blob(&sign.top)));
        self.hold(&lease, nodes).await?;
        if let Some(from) = layers {
            self.borrow_layers(&record, &from).await?;
        }
        // Whatever could not be borrowed.
        self.restore_layers(&record).await?;
        record.lent_by = Some(by);
        let kept = Arc::clone(&lease);
        let write = move |store: &Store| {
            let written = put(store, &record, names);
            drop(kept);
            written
        };
        self.parts.store.call(write).await?;
        if let Ok(lease) = Arc::try_unwrap(lease) {
            self.parts.store.call(move |_| lease.release()).await?;
        }
        Ok(())
    }

    /// The first blob that the image needs and nobody has.
    async fn first_missing(&self, record: &ImageRecord, names: &[(Reference, Sign)]) -> Result<Option<Digest>> {
        let blobs = [&record.manifest, &record.config]
            .into_iter()
            .chain(record.layers.iter().map(|layer| &layer.descriptor))
            .map(|blob| (blob.digest, Some(blob.size)));
        let indexes = names.iter().map(|(_, sign)| (sign.top, None));
        for (digest, size) in blobs.chain(indexes) {
            let there = self.parts.content.info(&digest).await?;
            if there.is_none_or(|there| size.is_some_and(|size| size != there.size)) {
                return Ok(Some(digest));
            }
        }
        Ok(None)
    }

    /// From the lowest, as far as they can be relied on.
    async fn borrow_layers(&self, record: &ImageRecord, from: &Path) -> Result<()> {
        for chain in record.chain_ids() {
            let key = format!("unpack-{}-{}", self.parts.owner.as_str(), random_name(16)?);
            if !self.parts.snapshotter.borrow_layer(&key, &chain, from).await? {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The record, with those names that stand for nothing here. Blocking.
fn put(store: &Store, record: &ImageRecord, names: Vec<(Reference, Sign)>) -> Result<()> {
    let mut free = Vec::new();
    for (name, sign) in names {
        let taken = store.images_by_name(&name)?;
        if taken.iter().all(|one| one.sign.top == sign.top) {
            free.push((name, sign));
        }
    }
    store.put_image_as(record, &free).map(drop)
}

/// What a text names in the first additional store that has it, where this root has nothing of that name. Blocking.
fn only_elsewhere(store: &Store, parts: &LocalImagesParts, text: &str) -> Result<Vec<Lent>> {
    match lookup::find(store, text) {
        Err(error) if error.is_not_found() => {}
        // Here; or not to be told which, and then the verb itself says so.
        _ => return Ok(Vec::new()),
    }
    for other in parts.additional.iter() {
        let images = other.root.images();
        let lent: Vec<Lent> = meant(&images, text)
            .into_iter()
            .map(|image| Lent {
                image: image.clone(),
                by: other.root.path().to_owned(),
                layers: other.layers.clone(),
            })
            .collect();
        if !lent.is_empty() {
            return Ok(lent);
        }
    }
    Ok(Vec::new())
}

/// Those that a text means, by the rules of [`lookup::find`]. Pure.
fn meant<'a>(images: &'a [OtherImage], text: &str) -> Vec<&'a OtherImage> {
    // What that root has itself from another one is not in its place.
    let own = || images.iter().filter(|image| image.record.lent_by.is_none());
    if let Some(id) = lookup::whole_id(text) {
        return own().filter(|image| image.record.id == id).collect();
    }
    if let Ok(name) = text.parse::<Reference>() {
        let named: Vec<_> = own().filter(|image| is_called(image, &name)).collect();
        if !named.is_empty() {
            return named;
        }
    }
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let begins = |image: &&OtherImage| !digits.is_empty() && image.record.id.hex().starts_with(digits);
    let found: Vec<_> = own().filter(begins).collect();
    if found.len() == 1 { found } else { Vec::new() }
}

fn is_called(image: &OtherImage, name: &Reference) -> bool {
    let Some(digest) = name.digest() else {
        return image.names.iter().any(|(other, _)| other == name);
    };
    let pinned = name.pinned(&digest);
    let same_repository = |other: &Reference| other.host() == name.host() && other.repository() == name.repository();
    let by_manifest = image.record.manifest.digest == digest;
    let mut names = image.names.iter().map(|(other, _)| other);
    names.any(|other| *other == pinned || by_manifest && same_repository(other))
}

/// Images of additional stores that this root does not have, with the names that stand for nothing here. Blocking.
pub(super) fn entries(parts: &LocalImagesParts, own: &[ImageEntry]) -> Vec<ImageEntry> {
    let mut ids: HashSet<ImageId> = own.iter().map(|entry| entry.record.id).collect();
    let mut taken: HashSet<Reference> = own
        .iter()
        .flat_map(|entry| entry.tags.iter().chain(&entry.digests).cloned())
        .collect();
    let mut out = Vec::new();
    for other in parts.additional.iter() {
        let images = other.root.images();
        let mut names_here = Vec::new();
        for image in images.iter().filter(|image| image.record.lent_by.is_none()) {
            if !ids.insert(image.record.id) {
                continue;
            }
            let mut names: Vec<Reference> = image.names.iter().map(|(name, _)| name.clone()).collect();
            names.dedup();
            names.retain(|name| !taken.contains(name));
            names_here.extend(names.iter().cloned());
            let (digests, tags) = names.into_iter().partition(|name| name.digest().is_some());
            let record = ImageRecord {
                lent_by: Some(other.root.path().to_owned()),
                ..image.record.clone()
            };
            out.push(ImageEntry { record, tags, digests });
        }
        taken.extend(names_here);
    }
    out
}
