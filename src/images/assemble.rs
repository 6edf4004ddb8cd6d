//! An image of a config and of layers that are here already: what `import` and `commit` end with.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use super::archive::Held;
use super::install::Arrival;
use super::load::{Nowhere, ended};
use super::local::LocalImages;
use super::manifest::{self, Document};
use super::origin::Chosen;
use super::{ImageConfig, ImageInfo};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::registry::ManifestBlob;
use crate::storage::unpack::Offers;
use crate::store::Node;
use crate::types::{Descriptor, Digest, Reference};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// A plain layer; `+gzip` and `+zstd` name the compressed ones.
pub(super) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What becomes an image.
pub(super) struct Parts<'a> {
    pub(super) config: &'a ImageConfig,
    /// From the lowest, in OCI's media types.
    pub(super) layers: Vec<Descriptor>,
    /// Those of them that this process wrote a moment ago.
    pub(super) fresh: Vec<Digest>,
    /// Those that were unpacked while they came in.
    pub(super) offers: Option<Offers>,
    pub(super) names: Vec<Reference>,
    /// How errors call the image.
    pub(super) shown: &'a str,
    /// What the event calls it.
    pub(super) action: &'static str,
}

impl LocalImages {
    /// Writes config and manifest, unpacks the layers that were not, and lists the image. `nodes` is what is held already.
    pub(super) async fn assemble(
        &self,
        parts: Parts<'_>,
        mut nodes: Vec<Node>,
        held: &Held,
        progress: &Progress,
    ) -> Result<ImageInfo> {
        let lease = held.lease().ok_or_else(ended)?;
        let config = written(CONFIG, parts.config)?;
        let chosen = chosen_of(&config.descriptor, &parts.layers)?;
        let all = [&config.descriptor, &chosen.blob.descriptor]
            .into_iter()
            .chain(&parts.layers);
        nodes.extend(all.map(|descriptor| Node::blob(&descriptor.digest)));
        let top = parts.config.chain().map(|chain| Node::snapshot(&chain));
        // From here on, so that nothing of it stays where this future is dropped.
        held.add(nodes.iter().cloned().chain(top).collect());
        self.hold(&lease, nodes.clone()).await?;
        self.keep_manifest(&config, &lease).await?;
        let arrival = Arrival {
            chosen: &chosen,
            source: Arc::new(Nowhere),
            offers: parts.offers,
            fresh: Some(parts.fresh),
            names: &parts.names,
            shown: parts.shown,
            platform: None,
            action: parts.action,
        };
        let installed = self.install(&arrival, &lease, &mut nodes, progress).await;
        held.add(nodes);
        installed
    }
}

pub(super) fn chosen_of(config: &Descriptor, layers: &[Descriptor]) -> Result<Chosen> {
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
    let blob = written(MANIFEST, &manifest)?;
    match manifest::parse(&blob)? {
        Document::Image(manifest) => Ok(Chosen {
            blob,
            manifest,
            index: None,
            platform: None,
        }),
        Document::Index(_) => Err(Error::internal("a manifest that is an index")),
    }
}

/// A document as JSON, with its descriptor.
pub(super) fn written(media_type: &str, value: &impl serde::Serialize) -> Result<ManifestBlob> {
    let failed = |error| Error::internal("JSON cannot be written").with_source(error);
    let bytes = serde_json::to_vec(value).map_err(failed)?;
    Ok(ManifestBlob {
        descriptor: Descriptor::of(media_type, &bytes),
        bytes: Bytes::from(bytes),
    })
}
