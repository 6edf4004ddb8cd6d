//! `import`: an image of one layer from the tar of a root file system.

use std::io::{BufRead, BufReader};
use std::sync::Arc;
use std::time::SystemTime;

use super::archive::{Held, Inflow, Stored, Taker, beside};
use super::assemble::{LAYER, Parts};
use super::load::{end, ended};
use super::local::LocalImages;
use super::pull::Ending;
use super::{ByteStream, HistoryEntry, ImageConfig, ImportRequest, RootFs, RunConfig, changes, when};
use crate::error::{Error, Result};
use crate::progress::{Progress, ProgressEvent};
use crate::storage::layer::Limits;
use crate::storage::layer::decompress::Uncompressed;
use crate::storage::layer::tar::{bad, read_error};
use crate::storage::unpack::Ahead;
use crate::sys::blocking::onto_pool;
use crate::types::{Descriptor, DiffId, Digest, ImageId, MediaType, Platform};

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
        let ahead = self.ahead(None, &held)?;
        let imported = self
            .import_all(archive, request, run, progress, &held, ahead.as_ref())
            .await;
        end(ahead).await;
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
        ahead: Option<&Ahead>,
    ) -> Result<ImageId> {
        let content = Arc::clone(&self.parts.content);
        let holder = held.holder().ok_or_else(ended)?;
        let follower = ahead.map(Ahead::follower);
        let layer = beside(archive, move |inflow| {
            take(&Taker::new(content, holder)?.followed(follower), inflow)
        });
        let layer = layer.await?;
        onto_pool().await;
        let config = config_of(request, run, layer.diff_id, SystemTime::now())?;
        let parts = Parts {
            config: &config,
            fresh: vec![layer.descriptor.digest],
            offers: ahead.map(Ahead::offers),
            layers: vec![layer.descriptor],
            names: request.name.iter().cloned().collect(),
            shown: "the imported image",
            action: "import",
        };
        Ok(self.assemble(parts, Vec::new(), held, progress).await?.id)
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
        build_cache: None,
    })
}
