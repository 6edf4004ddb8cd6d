//! `cache` and `prune`: what is known from earlier builds, and forgetting it.

use std::collections::HashSet;

use super::records::shown;
use super::{CachedMount, CachedStep, PruneCache, PrunedCache, mounts};
use crate::build::local::{Shared, time_of};
use crate::error::Result;
use crate::store::{StepRow, Store};
use crate::sys::blocking::blocking;
use crate::types::ChainId;

impl Shared {
    pub(in crate::build) async fn cached_steps(&self) -> Result<Vec<CachedStep>> {
        let rows = self.parts.store.call(|store| store.steps()).await?;
        let chains = self.chains_of_images().await?;
        let step = |row: &StepRow| {
            let step = shown(row)?;
            let shared = step.chain.is_some_and(|chain| chains.contains(&chain));
            Some(CachedStep { shared, ..step })
        };
        Ok(rows.iter().filter_map(step).collect())
    }

    async fn chains_of_images(&self) -> Result<HashSet<ChainId>> {
        let images = self.parts.store.call(Store::images).await?;
        Ok(images.iter().flat_map(|image| image.record.chain_ids()).collect())
    }

    pub(in crate::build) async fn prune_steps(&self, options: &PruneCache) -> Result<PrunedCache> {
        let mut rows = self.parts.store.call(|store| store.steps()).await?;
        if options.unshared {
            let chains = self.chains_of_images().await?;
            rows.retain(|row| !is_in(row, &chains));
        }
        let (caches, locks) = (self.parts.caches.clone(), self.parts.locks.clone());
        let place = caches.clone();
        let mounts = blocking(move || mounts::list(&place)).await?;
        let (keys, names) = unwanted(&rows, &mounts, options);
        let mut pruned = PrunedCache::default();
        if !keys.is_empty() {
            pruned.steps = keys.iter().filter_map(|key| key.parse().ok()).collect();
            let freed = self.parts.store.call(move |store| store.forget_steps(&keys)).await?;
            pruned.freed_bytes = self.parts.images.remove_freed(freed).await?;
        }
        let layers = self.parts.layers.clone();
        pruned.mounts = blocking(move || mounts::remove(&caches, &names, &locks, &layers)).await?;
        let gone = mounts.iter().filter(|mount| pruned.mounts.contains(&mount.name));
        pruned.freed_bytes += gone.map(|mount| mount.size_bytes).sum::<u64>();
        Ok(pruned)
    }

    pub(in crate::build) async fn cached_mounts(&self) -> Result<Vec<CachedMount>> {
        let caches = self.parts.caches.clone();
        blocking(move || mounts::list(&caches)).await
    }
}

/// Whether an image has the layers that a step led to. Pure.
fn is_in(row: &StepRow, chains: &HashSet<ChainId>) -> bool {
    let chain = shown(row).and_then(|step| step.chain);
    chain.is_some_and(|chain| chains.contains(&chain))
}

/// What is to be forgotten of rows and of mounts: the keys of those, and the names of these. What was used last is kept first.
/// Pure.
fn unwanted(rows: &[StepRow], mounts: &[CachedMount], options: &PruneCache) -> (Vec<String>, Vec<String>) {
    let steps = rows.iter().map(|row| (time_of(row.used_ns), row.size, Ok(&row.key)));
    let mounts = mounts
        .iter()
        .map(|mount| (mount.used, mount.size_bytes, Err(&mount.name)));
    let mut all: Vec<_> = steps.chain(mounts).collect();
    // Rows of one time stay in their order.
    all.sort_by_key(|(used, ..)| *used);
    let (mut kept, mut keys, mut names) = (0u64, Vec::new(), Vec::new());
    for (used, size, what) in all.into_iter().rev() {
        let young = options.unused_since.is_some_and(|since| used >= since);
        let total = kept.saturating_add(size);
        let fits = options.keep.is_some_and(|keep| total <= keep.get());
        match what {
            _ if young || fits => kept = total,
            Ok(key) => keys.push(key.clone()),
            Err(name) => names.push(name.clone()),
        }
    }
    (keys, names)
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
        let left_out = |options: PruneCache| unwanted(&rows(), &[], &options).0;
        assert_eq!(left_out(PruneCache::all()), ["5", "4", "3", "2", "1"]);
        assert_eq!(left_out(PruneCache::all().keep(Bytes::new(250))), ["3", "2", "1"]);
        assert_eq!(left_out(PruneCache::all().keep(Bytes::new(500))), [""; 0]);
        assert_eq!(left_out(PruneCache::all().keep(Bytes::new(0))).len(), 5);
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(4);
        assert_eq!(left_out(PruneCache::all().unused_since(since)), ["3", "2", "1"]);
    }

    #[test]
    fn f11_mounts_and_steps_are_forgotten_by_their_age_together() {
        let mount = |name: &str, seconds: u64| CachedMount {
            name: name.into(),
            size_bytes: 100,
            used: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        };
        let mounts = [mount("old", 1), mount("new", 9)];
        let of = |options: PruneCache| unwanted(&rows(), &mounts, &options);
        assert_eq!(of(PruneCache::all()).1, ["new", "old"]);
        let (keys, names) = of(PruneCache::all().keep(Bytes::new(250)));
        assert_eq!((keys.join(" "), names.join(" ")), ("4 3 2 1".into(), "old".into()));
    }
}
