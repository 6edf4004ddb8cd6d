//! What a build makes: layers that belong to no image yet, and at its end an image of them.
//!
//! Layers are kept plain, as those of a commit are (`extend`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use super::archive::{Held, Holder};
use super::assemble::{CONFIG, LAYER, Parts, written};
use super::extend::{EMPTY, in_oci_words};
use super::load::{Nowhere, ended};
use super::local::LocalImages;
use super::{ImageConfig, ImageInfo};
use crate::driver::Cancel;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::storage::content::Ingest;
use crate::storage::unpack::Given;
use crate::store::{Node, NodeKind};
use crate::sys::blocking::elsewhere;
use crate::types::{ChainId, Descriptor, Digest, ImageId, LayerRef, MediaType, Reference};

/// How much of a layer is written at once.
const PIECE: usize = 256 << 10;

/// What a build has made, and what it stands on: none of it goes away before its end. What nothing needs then is removed,
/// also where this is dropped.
#[derive(Debug)]
pub(crate) struct Making {
    pub(super) images: LocalImages,
    pub(super) held: Held,
    /// Blobs that were written a moment ago, by this process.
    fresh: Mutex<Vec<Digest>>,
}

impl LocalImages {
    /// Begins to hold what a build makes.
    pub(crate) async fn making(&self) -> Result<Making> {
        Ok(Making {
            images: self.clone(),
            held: Held::begin(self).await?,
            fresh: Mutex::default(),
        })
    }

    /// A blob that is here.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) async fn blob(&self, digest: &Digest) -> Result<File> {
        self.parts.content.open(digest).await
    }

    /// Removes what nothing needs any more; returns how many bytes that freed.
    ///
    /// # Errors
    /// Those of the stores.
    pub(crate) async fn remove_freed(&self, nodes: Vec<Node>) -> Result<u64> {
        let mut sizes = BTreeMap::new();
        for node in &nodes {
            let digest: Digest = node.id.parse()?;
            let size = match node.kind {
                NodeKind::Blob => self.parts.content.info(&digest).await?.map(|blob| blob.size),
                _ => match self.parts.snapshotter.layer_usage(&digest).await {
                    Ok(usage) => Some(usage.bytes),
                    // It was lost with the power.
                    Err(_) => None,
                },
            };
            sizes.insert(node.clone(), size.unwrap_or(0));
        }
        let removed = self.remove_unused(nodes).await?;
        Ok(removed.iter().filter_map(|node| sizes.get(node)).sum())
    }
}

/// The names of the stacks that layers make, the lowest first.
pub(crate) fn chains(layers: &[LayerRef]) -> Vec<ChainId> {
    let mut below: Option<ChainId> = None;
    let chain = |layer: &LayerRef| {
        let chain = Digest::chain(below.as_ref(), &layer.diff_id);
        below = Some(chain);
        chain
    };
    layers.iter().map(chain).collect()
}

/// The name of the whole stack; none of no layers.
pub(crate) fn chain(layers: &[LayerRef]) -> Option<ChainId> {
    chains(layers).pop()
}

impl Making {
    /// An image that is here, by name or id. From here on it can lose nothing.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) async fn base(&self, image: &str) -> Result<ImageInfo> {
        let (record, nodes) = self.images.base(image, &self.held).await?;
        self.held.add(nodes);
        let info = self.images.info_of(record).await?;
        if let Some(top) = &info.chain
            && !self.images.parts.snapshotter.exists(top).await?
        {
            // Its layers were not on the disk yet when power was lost.
            self.images.restore_named(image).await?;
        }
        Ok(info)
    }

    /// Keeps what `write` writes, the tar of a layer, and unpacks it upon others. `None` where there is nothing in it.
    ///
    /// # Errors
    /// What `write` says; `Cancelled` once the caller went away; those of the stores.
    pub(crate) async fn layer(
        &self,
        below: &[LayerRef],
        cancel: &Cancel,
        write: impl FnOnce(&mut dyn Write) -> Result<()> + Send + 'static,
    ) -> Result<Option<LayerRef>> {
        let holder = self.held.holder().ok_or_else(ended)?;
        let ingest = self.images.parts.content.ingest(None, None).await?;
        let mut writing = Writing {
            ingest,
            buffer: Vec::with_capacity(PIECE),
            cancel: cancel.clone(),
        };
        let layer = elsewhere(move || {
            write(&mut writing)?;
            writing.keep(&holder)
        })
        .await?;
        if layer.digest == Digest::of(&[0; EMPTY]) {
            return Ok(None);
        }
        self.fresh
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(layer.digest);
        let layer = LayerRef {
            // Plain: the digest of the blob is that of the tar.
            diff_id: layer.digest,
            descriptor: layer,
        };
        let stack: Vec<LayerRef> = below.iter().cloned().chain([layer.clone()]).collect();
        self.unpack(&stack).await?;
        Ok(Some(layer))
    }

    /// Takes a layer that is known from before; `false` where its blob is here no more.
    ///
    /// # Errors
    /// Those of the stores.
    pub(crate) async fn take(&self, below: &[LayerRef], layer: &LayerRef) -> Result<bool> {
        // Held first, and looked for then: so it cannot go in between.
        self.hold(vec![Node::blob(&layer.descriptor.digest)]).await?;
        let there = self.images.parts.content.info(&layer.descriptor.digest).await?;
        if there.is_none() {
            return Ok(false);
        }
        let stack: Vec<LayerRef> = below.iter().cloned().chain([layer.clone()]).collect();
        self.unpack(&stack).await?;
        Ok(true)
    }

    /// Makes an image of layers that this holds, with these names.
    ///
    /// # Errors
    /// Those of the stores.
    pub(crate) async fn image(
        &self,
        config: &ImageConfig,
        layers: &[LayerRef],
        names: Vec<Reference>,
        progress: &Progress,
    ) -> Result<ImageInfo> {
        let parts = Parts {
            config,
            layers: layers.iter().map(|layer| in_oci_words(&layer.descriptor)).collect(),
            fresh: self.fresh(),
            offers: None,
            action: if names.is_empty() { "create" } else { "tag" },
            names,
            shown: "the new image",
        };
        self.images.assemble(parts, Vec::new(), &self.held, progress).await
    }

    /// What the id of an image with this config is.
    ///
    /// # Errors
    /// None that is known of.
    pub(crate) fn id_of(config: &ImageConfig) -> Result<ImageId> {
        Ok(written(CONFIG, config)?.descriptor.digest)
    }

    /// Lets go of everything, and removes what nothing needs.
    ///
    /// # Errors
    /// Those of the stores.
    pub(crate) async fn end(self) -> Result<()> {
        self.held.settle().await
    }

    /// Unpacks the topmost layer of a stack, and any below it that was not on the disk yet when power was lost.
    async fn unpack(&self, stack: &[LayerRef]) -> Result<()> {
        self.hold(chain(stack).iter().map(Node::snapshot).collect()).await?;
        let below = stack.split_last().map_or(&[] as &[LayerRef], |(_, below)| below);
        let given = Given {
            // A layer that is here needs no blob.
            unwanted: below.iter().map(|layer| layer.descriptor.digest).collect(),
            fresh: self.fresh().into_iter().collect(),
            ..Given::default()
        };
        let unpacker = &self.images.parts.unpacker;
        unpacker
            .image_given(stack, &given, Arc::new(Nowhere), &Progress::default())
            .await
            .map(drop)
    }

    pub(super) async fn hold(&self, nodes: Vec<Node>) -> Result<()> {
        let lease = self.held.lease().ok_or_else(ended)?;
        self.held.add(nodes.clone());
        self.images.hold(&lease, nodes).await
    }

    fn fresh(&self) -> Vec<Digest> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A layer on its way into the content store. Blocking.
struct Writing {
    ingest: Box<dyn Ingest>,
    buffer: Vec<u8>,
    cancel: Cancel,
}

impl Writing {
    fn spill(&mut self) -> Result<()> {
        self.cancel.check()?;
        self.ingest.write(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    fn keep(mut self, holder: &Holder) -> Result<Descriptor> {
        self.spill()?;
        let known = self.ingest.digest();
        if let Some(digest) = &known {
            holder.blob(digest)?;
        }
        let info = self.ingest.commit()?;
        if known != Some(info.digest) {
            holder.blob(&info.digest)?;
        }
        Ok(Descriptor {
            media_type: MediaType(LAYER.to_owned()),
            digest: info.digest,
            size: info.size,
            platform: None,
            annotations: Default::default(),
        })
    }
}

impl Write for Writing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > PIECE {
            self.spill().map_err(as_io)?;
        }
        if bytes.len() >= PIECE {
            self.ingest.write(bytes).map_err(as_io)?;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// As readers of trees take it apart again.
fn as_io(error: Error) -> io::Error {
    io::Error::other(error)
}
