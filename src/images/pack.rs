//! Before a push: layers that were made here, and are kept as plain tars, are compressed, on all processors.
//!
//! Only of images that no registry knows: what was pulled or pushed stays the very bytes it was. The image keeps its id, and
//! gets another manifest; the plain blobs go. So the next push of it, or of what is made of it, has nothing to compress.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::archive::{Held, Holder};
use super::assemble::written;
use super::load::ended;
use super::local::LocalImages;
use super::lookup::{by_name, fitting};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::registry::ManifestBlob;
use crate::storage::content::Ingest;
use crate::storage::files::blocking;
use crate::storage::layer::compress;
use crate::store::{ImageRecord, LayerRecord, NamedImage, Node, Sign, Store};
use crate::types::{Descriptor, Digest, Hasher, MediaType, Platform, Reference};

/// Plain layers, and what they are called when they are packed.
const KINDS: [(&str, &str); 2] = [
    (
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
    ),
    (
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    ),
];

impl LocalImages {
    /// Compresses what a name stands for, where it was made here and no registry has it.
    pub(super) async fn pack_for_push(&self, name: &Reference, platform: Option<&Platform>) -> Result<()> {
        let (name, platform) = (name.clone(), platform.cloned());
        let plain = self
            .parts
            .store
            .call(move |store| made_here(store, &name, platform.as_ref()))
            .await?;
        for record in plain {
            let held = Held::begin(self).await?;
            let packed = self.pack_image(&record, &held).await;
            held.settle().await?;
            packed?;
        }
        Ok(())
    }

    async fn pack_image(&self, record: &ImageRecord, held: &Held) -> Result<()> {
        let lease = held.lease().ok_or_else(ended)?;
        let mut nodes = record.needs();
        self.hold(&lease, nodes.clone()).await?;
        let known = self.parts.store.call(packed_layers).await?;
        let mut layers = Vec::new();
        for layer in &record.layers {
            layers.push(self.packed_layer(layer, &known, held).await?);
        }
        let old = self.kept_manifest(&record.manifest).await?;
        let manifest = rewritten(&old, &layers)?;
        nodes.push(Node::blob(&manifest.descriptor.digest));
        // Whatever no image needs in the end goes: the plain blobs, or the packed ones if this future is dropped.
        held.add(nodes.clone());
        self.hold(&lease, nodes).await?;
        self.keep_manifest(&manifest, &lease).await?;
        let new = ImageRecord {
            manifest: manifest.descriptor,
            layers,
            ..record.clone()
        };
        let mut durable: Vec<Digest> = new.layers.iter().map(|layer| layer.descriptor.digest).collect();
        durable.push(new.manifest.digest);
        self.parts.content.sync(&durable).await?;
        let old = record.manifest.digest;
        self.parts.store.call(move |store| replace(store, &new, &old)).await
    }

    pub(super) async fn packed_layer(
        &self,
        layer: &LayerRecord,
        known: &HashMap<Digest, Descriptor>,
        held: &Held,
    ) -> Result<LayerRecord> {
        let Some(kind) = packed_kind(&layer.descriptor) else {
            return Ok(layer.clone());
        };
        if let Some(there) = known.get(&layer.diff_id) {
            let node = Node::blob(&there.digest);
            self.hold(&held.lease().ok_or_else(ended)?, vec![node.clone()]).await?;
            held.add(vec![node]);
            // Leased first, and then looked for: it may have gone in between.
            if self.parts.content.info(&there.digest).await?.is_some() {
                let descriptor = Descriptor {
                    media_type: MediaType(kind.to_owned()),
                    ..there.clone()
                };
                return Ok(LayerRecord {
                    descriptor,
                    ..layer.clone()
                });
            }
        }
        let file = self.parts.content.open(&layer.descriptor.digest).await?;
        let ingest = self.parts.content.ingest(None, None).await?;
        let (plain, holder) = (layer.descriptor.clone(), held.holder().ok_or_else(ended)?);
        let guard = StopOnDrop::default();
        let from = Hashed {
            from: file,
            hasher: Hasher::default(),
            stop: Arc::clone(&guard.0),
        };
        let (digest, size) = blocking(move || pack(from, ingest, &plain, &holder)).await?;
        let descriptor = Descriptor {
            media_type: MediaType(kind.to_owned()),
            digest,
            size,
            ..layer.descriptor.clone()
        };
        Ok(LayerRecord {
            descriptor,
            ..layer.clone()
        })
    }
}

/// Compresses a plain blob into the store. Blocking.
fn pack(mut from: Hashed, ingest: Box<dyn Ingest>, plain: &Descriptor, holder: &Holder) -> Result<(Digest, u64)> {
    let mut to = Sink { ingest, error: None };
    let packed = compress::gzip(&mut from, &mut to);
    let Sink { ingest, error } = to;
    if let Some(error) = error {
        return Err(error);
    }
    packed?;
    if from.hasher.finish() != plain.digest {
        let message = format!("the layer {} in the content store is damaged", plain.digest.short());
        return Err(Error::new(ErrorKind::Corrupt, message).with_object(ObjectKind::Blob, plain.digest.to_string()));
    }
    if let Some(digest) = ingest.digest() {
        holder.blob(&digest)?;
    }
    let info = ingest.commit()?;
    holder.blob(&info.digest)?;
    Ok((info.digest, info.size))
}

/// Bytes that are hashed as they are read.
struct Hashed {
    from: File,
    hasher: Hasher,
    stop: Arc<AtomicBool>,
}

/// Ends the work of a thread with the future that waits for it.
#[derive(Debug, Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl io::Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("nobody waits for it any more"));
        }
        let length = self.from.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        Ok(length)
    }
}

/// A blob that is written, and why that failed.
struct Sink {
    ingest: Box<dyn Ingest>,
    error: Option<Error>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.ingest.write(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.error = Some(error);
                Err(io::Error::other("the blob cannot be written"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn packed_kind(layer: &Descriptor) -> Option<&'static str> {
    let kind = KINDS.iter().find(|(plain, _)| *plain == layer.media_type.0)?;
    Some(kind.1)
}

/// Images of a name that no registry knows, and that have a plain layer. One that an index names by its manifest stays.
/// Blocking.
fn made_here(store: &Store, name: &Reference, platform: Option<&Platform>) -> Result<Vec<ImageRecord>> {
    let Some(found) = by_name(store, name)? else {
        return Ok(Vec::new());
    };
    let all = match found.name {
        Some(name) => store.images_by_name(&name)?,
        None => return Ok(Vec::new()),
    };
    let mut out = Vec::new();
    for NamedImage { record, sign } in fitting(all, platform, &name.familiar())? {
        let plain = record
            .layers
            .iter()
            .any(|layer| packed_kind(&layer.descriptor).is_some());
        let alone = sign.top == record.manifest.digest && record.lent_by.is_none();
        if plain
            && alone
            && store
                .image_names(&record.id)?
                .iter()
                .all(|name| name.digest().is_none())
            && store.indexes_of(&record.id)?.is_empty()
        {
            out.push(record);
        }
    }
    Ok(out)
}

/// Layers in gzip that some image here has, by what they unpack to. Blocking.
pub(super) fn packed_layers(store: &Store) -> Result<HashMap<Digest, Descriptor>> {
    let packed = |descriptor: &Descriptor| KINDS.iter().any(|(_, kind)| *kind == descriptor.media_type.0);
    // What another root has is not for good.
    let entries = store
        .images()?
        .into_iter()
        .filter(|entry| entry.record.lent_by.is_none());
    let layers = entries.flat_map(|entry| entry.record.layers);
    let packed = layers.filter(|layer| packed(&layer.descriptor));
    Ok(packed.map(|layer| (layer.diff_id, layer.descriptor)).collect())
}

/// The manifest with other layers. All else that it says stays.
fn rewritten(old: &ManifestBlob, layers: &[LayerRecord]) -> Result<ManifestBlob> {
    let damaged = || Error::internal("a manifest whose layers are not those of its image");
    let mut body: serde_json::Value = serde_json::from_slice(&old.bytes).map_err(|_| damaged())?;
    let listed = body.get_mut("layers").and_then(|layers| layers.as_array_mut());
    let listed = listed
        .filter(|listed| listed.len() == layers.len())
        .ok_or_else(damaged)?;
    for (entry, layer) in listed.iter_mut().zip(layers) {
        entry["mediaType"] = layer.descriptor.media_type.0.clone().into();
        entry["digest"] = layer.descriptor.digest.to_string().into();
        entry["size"] = layer.descriptor.size.into();
    }
    written(&old.descriptor.media_type.0, &body)
}

/// Puts the record in the place of the one that it was made of, with those names that stood for that. Blocking.
fn replace(store: &Store, new: &ImageRecord, old: &Digest) -> Result<()> {
    let Some(now) = store.image(&new.id)? else {
        return Err(Error::not_found(ObjectKind::Image, new.id.to_string()));
    };
    if now.manifest.digest != *old {
        // Somebody else was first.
        return Ok(());
    }
    let names = store.image_names(&new.id)?;
    let sign = Sign::of(new);
    let names: Vec<_> = names.into_iter().map(|name| (name, sign.clone())).collect();
    store.put_image_as(new, &names).map(drop)
}
