//! What a build made, on its way to where it was asked for: under its names, into a registry, a layout or an archive.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::archive::stream;
use super::assemble::{CONFIG, chosen_of, written};
use super::extend::in_oci_words;
use super::index::{Whole, index_of_these};
use super::install::record_of;
use super::load::ended;
use super::making::Making;
use super::pack::packed_layers;
use super::push::{Delivery, all_blobs};
use super::push_archive::write_file;
use super::save::items_of;
use super::{ArchiveFormat, Credentials, ImageConfig, ImageManager as _, PushRequest, manifest};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::registry::layout::LayoutTarget;
use crate::registry::{ManifestBlob, ManifestKey, Registry as _};
use crate::store::{ImageRecord, LayerRecord, NamedImage, Node, Sign, Store};
use crate::types::{Descriptor, Digest, ImageId, LayerRef, Reference};

/// An image that no list shows: its blobs are here as long as the build holds them.
#[derive(Debug, Clone)]
pub(crate) struct Unlisted(ImageRecord);

impl Making {
    /// Writes the config and the manifest of an image that is not to be listed.
    ///
    /// # Errors
    /// Those of the stores.
    pub(crate) async fn unlisted(&self, config: &ImageConfig, layers: &[LayerRef]) -> Result<Unlisted> {
        let lease = self.held.lease().ok_or_else(ended)?;
        let document = written(CONFIG, config)?;
        let descriptors: Vec<Descriptor> = layers.iter().map(|layer| in_oci_words(&layer.descriptor)).collect();
        let chosen = chosen_of(&document.descriptor, &descriptors)?;
        let blobs = [&document.descriptor, &chosen.blob.descriptor];
        self.hold(blobs.map(|blob| Node::blob(&blob.digest)).into()).await?;
        self.images.keep_manifest(&document, &lease).await?;
        self.images.keep_manifest(&chosen.blob, &lease).await?;
        let layers = manifest::layers(&chosen.manifest, config)?;
        Ok(Unlisted(record_of(&chosen, config, &layers)))
    }

    /// The layers as a registry gets them: those that were made here compressed, always to the same bytes.
    ///
    /// # Errors
    /// `Corrupt`, and those of the stores.
    pub(crate) async fn packed(&self, layers: &[LayerRef]) -> Result<Vec<LayerRef>> {
        let known = self.images.parts.store.call(packed_layers).await?;
        let mut packed = Vec::with_capacity(layers.len());
        for layer in layers {
            let plain = LayerRecord {
                descriptor: in_oci_words(&layer.descriptor),
                diff_id: layer.diff_id,
            };
            let LayerRecord { descriptor, diff_id } = self.images.packed_layer(&plain, &known, &self.held).await?;
            packed.push(LayerRef { descriptor, diff_id });
        }
        Ok(packed)
    }

    /// Writes images of several platforms, or one, into one archive: a file that is there when it is whole.
    ///
    /// # Errors
    /// Those of the stores and of the file system.
    pub(crate) async fn archive(
        &self,
        images: &[Unlisted],
        names: &[Reference],
        file: &Path,
        format: ArchiveFormat,
    ) -> Result<Descriptor> {
        let whole = whole(images)?;
        let top = top_of(&whole)?;
        let items = items_of(whole, names, format)?;
        // What is in it is held by whoever waits here.
        let stream = stream(Arc::clone(&self.images.parts.content), items, ())?;
        write_file(stream, file).await?;
        Ok(top)
    }

    /// Writes images of several platforms, or one, into a layout, which is made where there is none.
    ///
    /// # Errors
    /// Those of the stores and of the file system.
    pub(crate) async fn layout(&self, images: &[Unlisted], names: &[Reference], dir: &Path) -> Result<Descriptor> {
        let whole = whole(images)?;
        let top = top_of(&whole)?;
        let target = LayoutTarget::open(dir).await?;
        let progress = Progress::default();
        let delivery = Delivery {
            content: &self.images.parts.content,
            registry: Arc::new(target.clone()),
            repository: "",
            elsewhere: HashMap::new(),
            progress: &progress,
        };
        delivery.blobs(all_blobs(&whole.images)).await?;
        let mut manifests = Vec::new();
        for one in &whole.images {
            manifests.push(self.images.kept_manifest(&one.record.manifest).await?);
        }
        manifests.extend(whole.index);
        let last = manifests.pop().ok_or_else(nothing)?;
        for manifest in &manifests {
            let key = ManifestKey::Digest(manifest.descriptor.digest);
            target.put_manifest("", &key, manifest).await?;
        }
        if names.is_empty() {
            target.put_unnamed(&last).await?;
        }
        for name in names {
            let key = ManifestKey::Tag(name.to_string());
            target.put_manifest("", &key, &last).await?;
        }
        Ok(top)
    }

    /// Points names at the index of images that are listed.
    ///
    /// # Errors
    /// `NotFound` where somebody removed one of them meanwhile; those of the stores.
    pub(crate) async fn index(&self, names: &[Reference], ids: &[ImageId]) -> Result<Descriptor> {
        let ids = ids.to_vec();
        let find = move |store: &Store| {
            let gone = |id: &Digest| super::lookup::missing(&id.to_string());
            let one = |id: &Digest| store.image(id)?.map(named).ok_or_else(|| gone(id));
            ids.iter().map(one).collect::<Result<Vec<_>>>()
        };
        let images = self.images.parts.store.call(find).await?;
        let blob = index_of_these(&images)?;
        for name in names {
            let whole = Whole {
                images: images.clone(),
                index: Some(blob.clone()),
            };
            self.images.name_index(name, whole).await?;
        }
        Ok(blob.descriptor)
    }

    /// Sends what a name stands for to the registry that it says.
    ///
    /// # Errors
    /// Those of a push.
    pub(crate) async fn push(
        &self,
        name: &Reference,
        credentials: Option<Credentials>,
        progress: Progress,
    ) -> Result<Descriptor> {
        let mut request = PushRequest::new(name.clone());
        request.credentials = credentials;
        Ok(self.images.push(request, progress).await?.manifest)
    }
}

fn named(record: ImageRecord) -> NamedImage {
    let sign = Sign::of(&record);
    NamedImage { record, sign }
}

fn whole(images: &[Unlisted]) -> Result<Whole> {
    let images: Vec<NamedImage> = images.iter().map(|one| named(one.0.clone())).collect();
    let index = match images.len() {
        0 | 1 => None,
        _ => Some(index_of_these(&images)?),
    };
    Ok(Whole { images, index })
}

/// What stands for all of it.
fn top_of(whole: &Whole) -> Result<Descriptor> {
    let index = whole
        .index
        .as_ref()
        .map(|index: &ManifestBlob| index.descriptor.clone());
    let alone = || whole.images.first().map(|one| one.record.manifest.clone());
    index.or_else(alone).ok_or_else(nothing)
}

fn nothing() -> Error {
    Error::internal("a build without an image")
}
