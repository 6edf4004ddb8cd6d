//! Steps as they are recorded.

use serde::{Deserialize, Serialize};

use super::CachedStep;
use crate::build::local::{Shared, now_ns, time_of};
use crate::error::{Error, Result};
use crate::images::making::{Making, chain, chains};
use crate::store::{LayerRecord, Node, StepRow};
use crate::types::{ChainId, Digest, LayerRef};

/// The part of a row that only this module reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Body {
    text: String,
    /// None: the step changed nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    layer: Option<LayerRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chain: Option<ChainId>,
}

/// What an earlier build made of a step.
#[derive(Debug)]
pub(in crate::build) struct Found {
    /// None: it changed nothing.
    pub(in crate::build) layer: Option<LayerRef>,
}

impl Shared {
    /// What is known of a step, held by `making` and unpacked.
    ///
    /// # Errors
    /// Those of the stores. A record that makes no sense is passed over.
    pub(in crate::build) async fn find_step(
        &self,
        making: &Making,
        below: &[LayerRef],
        key: &Digest,
    ) -> Result<Option<Found>> {
        let wanted = key.to_string();
        let Some(row) = self.parts.store.call(move |store| store.step(&wanted)).await? else {
            return Ok(None);
        };
        let Ok(body) = serde_json::from_str::<Body>(&row.body) else {
            tracing::warn!(
                step = row.key,
                "the record of a build's step makes no sense; it is done anew"
            );
            return Ok(None);
        };
        let Some(layer) = body.layer else {
            return Ok(Some(Found { layer: None }));
        };
        let layer = LayerRef {
            descriptor: layer.descriptor,
            diff_id: layer.diff_id,
        };
        if !making.take(below, &layer).await? {
            return Ok(None);
        }
        Ok(Some(Found { layer: Some(layer) }))
    }

    /// Records what a step made.
    ///
    /// # Errors
    /// Those of the stores.
    pub(in crate::build) async fn keep_step(
        &self,
        key: &Digest,
        text: &str,
        below: &[LayerRef],
        layer: Option<&LayerRef>,
    ) -> Result<()> {
        let stack: Vec<LayerRef> = below.iter().chain(layer).cloned().collect();
        let chain = chain(&stack);
        let size = match (layer, &chain) {
            (Some(_), Some(chain)) => self.parts.snapshotter.layer_usage(chain).await?.bytes,
            _ => 0,
        };
        let body = Body {
            text: text.to_owned(),
            layer: layer.map(|layer| LayerRecord {
                descriptor: layer.descriptor.clone(),
                diff_id: layer.diff_id,
            }),
            chain,
        };
        let now = now_ns();
        let row = StepRow {
            key: key.to_string(),
            created_ns: now,
            used_ns: now,
            size,
            body: serde_json::to_string(&body)
                .map_err(|error| Error::internal("a step's record cannot be written").with_source(error))?,
        };
        // What lies below, too: the layer cannot be used without.
        let blobs = stack.iter().map(|layer| Node::blob(&layer.descriptor.digest));
        let needs: Vec<Node> = chains(&stack).iter().map(Node::snapshot).chain(blobs).collect();
        self.parts.store.call(move |store| store.put_step(&row, &needs)).await
    }

    /// Notes that steps were taken from the cache.
    pub(in crate::build) async fn note_use(&self, keys: Vec<Digest>) -> Result<()> {
        let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
        self.parts
            .store
            .call(move |store| store.use_steps(&keys, now_ns()))
            .await
    }
}

/// A row as users see it; a record that makes no sense is passed over.
pub(super) fn shown(row: &StepRow) -> Option<CachedStep> {
    let body: Body = serde_json::from_str(&row.body).ok()?;
    Some(CachedStep {
        key: row.key.parse().ok()?,
        text: body.text,
        chain: body.chain,
        size_bytes: row.size,
        created: time_of(row.created_ns),
        used: time_of(row.used_ns),
        shared: false,
    })
}
