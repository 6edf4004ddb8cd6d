//! `extend`: an image of another one and a layer more, as `commit` makes it.
//!
//! The layer is kept plain. It is unpacked here anyway, and compressing it would be most of the work of a commit; Docker's
//! store does not either. A push to a registry compresses it, once (`pack`).

use std::sync::Arc;
use std::time::SystemTime;

use super::archive::{Held, Inflow, Taker, beside};
use super::assemble::{LAYER, Parts};
use super::load::{end, ended};
use super::local::LocalImages;
use super::{ByteStream, ExtendRequest, HistoryEntry, ImageConfig, when};
use crate::error::{Error, ObjectKind, Result};
use crate::progress::Progress;
use crate::storage::unpack::Ahead;
use crate::store::{ImageRecord, Node};
use crate::sys::blocking::onto_pool;
use crate::types::{Descriptor, Digest, ImageId, MediaType};

/// An archive with nothing in it: two blocks of zeros.
pub(super) const EMPTY: usize = 1024;

impl LocalImages {
    pub(super) async fn extend_image(&self, layer: ByteStream, request: ExtendRequest) -> Result<ImageId> {
        let held = Held::begin(self).await?;
        let ahead = self.ahead(None, &held)?;
        let made = self.extend_held(layer, &request, &held, ahead.as_ref()).await;
        end(ahead).await;
        held.settle().await?;
        made
    }

    async fn extend_held(
        &self,
        layer: ByteStream,
        request: &ExtendRequest,
        held: &Held,
        ahead: Option<&Ahead>,
    ) -> Result<ImageId> {
        let (base, nodes) = self.base(&request.base, held).await?;
        let mut config = self.read_config(&base.config).await?;
        let content = Arc::clone(&self.parts.content);
        let holder = held.holder().ok_or_else(ended)?;
        let follower = ahead.map(Ahead::follower);
        let layer = beside(layer, move |inflow| {
            take(&Taker::new(content, holder)?.followed(follower), inflow)
        });
        let layer = layer.await?;
        // From here on hardly anything waits for something else than a disk.
        onto_pool().await;
        let new = (layer.digest != Digest::of(&[0; EMPTY])).then_some(layer);
        add_step(&mut config, request, new.as_ref(), SystemTime::now())?;
        let below = base.layers.iter().map(|layer| in_oci_words(&layer.descriptor));
        let parts = Parts {
            config: &config,
            fresh: new.iter().map(|layer| layer.digest).collect(),
            offers: ahead.map(Ahead::offers),
            layers: below.chain(new).collect(),
            names: request.name.iter().cloned().collect(),
            shown: "the new image",
            action: if request.name.is_some() { "tag" } else { "create" },
        };
        Ok(self.assemble(parts, nodes, held, &Progress::default()).await?.id)
    }

    /// The image below, which cannot lose anything from here on.
    pub(super) async fn base(&self, image: &str, held: &Held) -> Result<(ImageRecord, Vec<Node>)> {
        let lease = held.lease().ok_or_else(ended)?;
        let record = self.find(image).await?.record;
        let layers = record.layers.iter().map(|layer| Node::blob(&layer.descriptor.digest));
        let mut nodes: Vec<Node> = layers.collect();
        nodes.push(Node::blob(&record.config.digest));
        nodes.extend(record.chain_ids().iter().map(Node::snapshot));
        self.hold(&lease, nodes.clone()).await?;
        // Leased first, and then looked for once more.
        let id = record.id;
        let there = self.parts.store.call(move |store| store.image(&id)).await?;
        let gone = || Error::not_found(ObjectKind::Image, image);
        Ok((there.ok_or_else(gone)?, nodes))
    }
}

/// Keeps the layer as it came. Blocking.
fn take(taker: &Taker, inflow: Inflow) -> Result<Descriptor> {
    let stored = taker.blob(inflow)?;
    Ok(Descriptor {
        media_type: MediaType(LAYER.to_owned()),
        digest: stored.digest,
        size: stored.size,
        platform: None,
        annotations: Default::default(),
    })
}

fn add_step(
    config: &mut ImageConfig,
    request: &ExtendRequest,
    layer: Option<&Descriptor>,
    now: SystemTime,
) -> Result<()> {
    let created = Some(when::written(now)?);
    let said = |text: &String| (!text.is_empty()).then(|| text.clone());
    config.history.push(HistoryEntry {
        created: created.clone(),
        author: said(&request.author),
        created_by: said(&request.created_by),
        comment: said(&request.message),
        empty_layer: layer.is_none(),
    });
    config.created = created;
    // It is of another image's making.
    config.build_cache = None;
    config.author = said(&request.author);
    config.config = request.config.clone();
    // Plain: the digest of the blob is that of the tar.
    config.rootfs.diff_ids.extend(layer.map(|layer| layer.digest));
    Ok(())
}

/// A manifest has one family of media types. Source: OCI image-spec 1.1, media-types.md#compatibility-matrix.
pub(super) fn in_oci_words(layer: &Descriptor) -> Descriptor {
    let kind = match layer.media_type.0.as_str() {
        "application/vnd.docker.image.rootfs.diff.tar" => LAYER,
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar" => {
            "application/vnd.oci.image.layer.nondistributable.v1.tar"
        }
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => {
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        }
        other => other,
    };
    Descriptor {
        media_type: MediaType(kind.to_owned()),
        ..layer.clone()
    }
}
