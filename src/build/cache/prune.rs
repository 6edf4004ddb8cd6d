//! `cache` and `prune`: what is known from earlier builds, and forgetting it.

use std::collections::HashSet;

use super::records::shown;
use super::{CachedStep, PruneCache, PrunedCache};
use crate::build::local::{Shared, time_of};
use crate::error::Result;
use crate::store::{StepRow, Store};
use crate::types::{ChainId, Digest};

impl Shared {
    pub(in crate::build) async fn cached_steps(&self) -> Result<Vec<CachedStep>> {
        let rows = self.parts.store.call(|store| store.steps()).await?;
        Ok(rows.iter().filter_map(shown).collect())
    }

    pub(in crate::build) async fn prune_steps(&self, options: &PruneCache) -> Result<PrunedCache> {
        let mut rows = self.parts.store.call(|store| store.steps()).await?;
        if options.unshared {
            let images = self.parts.store.call(Store::images).await?;
            let chains: HashSet<ChainId> = images.iter().flat_map(|image| image.record.chain_ids()).collect();
            rows.retain(|row| !is_in(row, &chains));
        }
        let keys = unwanted(&rows, options);
        if keys.is_empty() {
            return Ok(PrunedCache::default());
        }
        let steps: Vec<Digest> = keys.iter().filter_map(|key| key.parse().ok()).collect();
        let freed = self.parts.store.call(move |store| store.forget_steps(&keys)).await?;
        let freed_bytes = self.parts.images.remove_freed(freed).await?;
        Ok(PrunedCache { steps, freed_bytes })
    }
}

/// Whether an image has the layers that a step led to. Pure.
fn is_in(row: &StepRow, chains: &HashSet<ChainId>) -> bool {
    let chain = shown(row).and_then(|step| step.chain);
    chain.is_some_and(|chain| chains.contains(&chain))
}

/// What is to be forgotten of rows that come in the order of their use. Pure.
fn unwanted(rows: &[StepRow], options: &PruneCache) -> Vec<String> {
    let mut kept = 0u64;
    let mut keys = Vec::new();
    for row in rows.iter().rev() {
        let young = options.unused_since.is_some_and(|since| time_of(row.used_ns) >= since);
        let total = kept.saturating_add(row.size);
        let fits = options.keep.is_some_and(|keep| total <= keep.get());
        if young || fits {
            kept = total;
        } else {
            keys.push(row.key.clone());
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::types::Bytes;

    fn rows() -> Vec<StepRow> {
        let row = |n: i64| StepRow {
            key: n.to_string(),
            created_ns: 0,
            used_ns: n * 1_000_000_000,
            size: 100,
            body: String::new(),
        };
        (1..=5).map(row).collect()
    }

    #[test]
    fn f10_what_was_used_last_is_kept_as_far_as_it_fits() {
        let left_out = |options: PruneCache| unwanted(&rows(), &options);
        assert_eq!(left_out(PruneCache::all()), ["5", "4", "3", "2", "1"]);
        assert_eq!(left_out(PruneCache::all().keep(Bytes::new(250))), ["3", "2", "1"]);
        assert_eq!(left_out(PruneCache::all().keep(Bytes::new(500))), [""; 0]);
        assert_eq!(left_out(PruneCache::all().keep(Bytes::new(0))).len(), 5);
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(4);
        assert_eq!(left_out(PruneCache::all().unused_since(since)), ["3", "2", "1"]);
    }
}
