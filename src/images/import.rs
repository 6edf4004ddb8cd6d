//! `import`: an image of one layer from the tar of a root file system.

use std::io::{BufRead, BufReader};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde_json::json;

use super::archive::{Held, Inflow, Stored, Taker, on_thread};
use super::install::Arrival;
use super::load::{Nowhere, ended};
use super::local::LocalImages;
use super::manifest::{self, Document};
use super::origin::Chosen;
use super::pull::Ending;
use super::{ByteStream, HistoryEntry, ImageConfig, ImportRequest, RootFs, RunConfig, changes, when};
use crate::error::{Error, Result};
use crate::progress::{Progress, ProgressEvent};
use crate::registry::ManifestBlob;
use crate::storage::layer::Limits;
use crate::storage::layer::decompress::Uncompressed;
use crate::storage::layer::tar::{bad, read_error};
use crate::store::Node;
use crate::types::{Descriptor, DiffId, Digest, ImageId, MediaType, Platform};

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The layer that came in.
struct Layer {
    descriptor: Descriptor,
    diff_id: DiffId,
}

impl LocalImages {
    pub(super) async fn import_and_tell(
        &self,
        archive: ByteStream,
        request: ImportRequest,
        progress: Progress,
    ) -> Result<ImageId> {
        let mut ending = Ending::new(&progress);
        let result = self.import_held(archive, &request, &progress).await;
        ending.tell(match &result {
            Ok(image) => ProgressEvent::Done { image: *image },
            Err(error) => ProgressEvent::Failed {
                message: error.report(),
            },
        });
        result
    }

    async fn import_held(&self, archive: ByteStream, request: &ImportRequest, progress: &Progress) -> Result<ImageId> {
        let mut run = RunConfig::default();
        for change in &request.changes {
            changes::apply(&mut run, change)?;
        }
        let held = Held::begin(self).await?;
        let imported = self.import_all(archive, request, run, progress, &held).await;
        held.settle().await?;
        imported
    }

    async fn import_all(
        &self,
        archive: ByteStream,
        request: &ImportRequest,
        run: RunConfig,
        progress: &Progress,
        held: &Held,
    ) -> Result<ImageId> {
        let content = Arc::clone(&self.parts.content);
        let holder = held.holder().ok_or_else(ended)?;
        let layer = on_thread(archive, move |inflow| take(&Taker::new(content, holder)?, inflow)).await?;
        let config = config_of(request, run, layer.diff_id, SystemTime::now())?;
        let bytes = json_bytes(&config)?;
        let described = Descriptor::of(CONFIG, &bytes);
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": [layer.descriptor] });
        let chosen = chosen_of(json_bytes(&manifest)?)?;
        let lease = held.lease().ok_or_else(ended)?;
        let mut nodes = [&described, &layer.descriptor, &chosen.blob.descriptor]
            .map(|descriptor| Node::blob(&descriptor.digest))
            .to_vec();
        self.hold(&lease, nodes.clone()).await?;
        let config = ManifestBlob {
            descriptor: described,
            bytes: bytes.into(),
        };
        self.keep_manifest(&config, &lease).await?;
        let names: Vec<_> = request.name.iter().cloned().collect();
        let arrival = Arrival {
            chosen: &chosen,
            source: Arc::new(Nowhere),
            names: &names,
            shown: "the imported image",
            platform: None,
            action: "import",
        };
        let installed = self.install(&arrival, &lease, &mut nodes, progress).await;
        held.add(nodes);
        Ok(installed?.id)
    }
}

/// Keeps the archive as it came, compressed or not. Blocking.
fn take(taker: &Taker, inflow: Inflow) -> Result<Layer> {
    let stored = taker.blob(inflow)?;
    if stored.size == 0 {
        return Err(Error::invalid("there is nothing to import: the archive is empty"));
    }
    let (suffix, diff_id) = match taker.head(&stored, 4)?.as_slice() {
        [0x1f, 0x8b, ..] => ("+gzip", uncompressed(taker, &stored)?),
        [0x28, 0xb5, 0x2f, 0xfd] => ("+zstd", uncompressed(taker, &stored)?),
        _ => ("", stored.digest),
    };
    let descriptor = Descriptor {
        media_type: MediaType(format!("{LAYER}{suffix}")),
        digest: stored.digest,
        size: stored.size,
        platform: None,
        annotations: Default::default(),
    };
    Ok(Layer { descriptor, diff_id })
}

/// What the archive's uncompressed bytes hash to.
fn uncompressed(taker: &Taker, stored: &Stored) -> Result<Digest> {
    let limit = Limits::default().stream_bytes;
    let mut reader = Uncompressed::new(BufReader::with_capacity(256 << 10, taker.open(stored)?))?;
    let mut seen = 0u64;
    loop {
        let length = reader.fill_buf().map_err(read_error)?.len();
        if length == 0 {
            return Ok(reader.finish()?.0);
        }
        seen = seen.saturating_add(length as u64);
        if seen > limit {
            return Err(bad(format!("the archive is larger than {limit} bytes")));
        }
        reader.consume(length);
    }
}

fn config_of(request: &ImportRequest, run: RunConfig, diff_id: DiffId, now: SystemTime) -> Result<ImageConfig> {
    let platform = request.platform.clone().unwrap_or_else(Platform::host);
    let created = Some(when::written(now)?);
    let step = HistoryEntry {
        created: created.clone(),
        comment: (!request.message.is_empty()).then(|| request.message.clone()),
        ..HistoryEntry::default()
    };
    Ok(ImageConfig {
        created,
        author: None,
        architecture: platform.architecture,
        variant: platform.variant,
        os: platform.os,
        config: run,
        rootfs: RootFs {
            kind: "layers".to_owned(),
            diff_ids: vec![diff_id],
        },
        history: vec![step],
    })
}

pub(super) fn chosen_of(manifest: Vec<u8>) -> Result<Chosen> {
    let blob = ManifestBlob {
        descriptor: Descriptor::of(MANIFEST, &manifest),
        bytes: Bytes::from(manifest),
    };
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

pub(super) fn json_bytes(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::internal("JSON cannot be written").with_source(error))
}
