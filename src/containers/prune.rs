//! `prune`: removes the containers of this process that do not run.

use super::local::Shared;
use super::record::{Record, now_ns};
use super::{Pruned, RemoveOptions};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::events::{Event, EventKind};
use crate::storage::snapshot::usage_of;
use crate::sys::blocking::blocking;
use crate::types::{Filter, until};

const KNOWN_FILTERS: [&str; 3] = ["until", "label", "label!"];

impl Shared {
    pub(crate) async fn prune(&self, filter: &Filter) -> Result<Pruned> {
        if let Some(key) = filter.keys().find(|key| !KNOWN_FILTERS.contains(key)) {
            let message = format!("invalid filter {key:?}; known are {}", KNOWN_FILTERS.join(", "));
            return Err(Error::invalid(message).with_object(ObjectKind::Option, "filter"));
        }
        let now = now_ns();
        let until: Vec<i64> = filter
            .values("until")
            .iter()
            .map(|text| until::parse(text, now))
            .collect::<Result<_>>()?;
        let mut pruned = Pruned::default();
        for row in self.parts.store.call(|store| store.containers()).await? {
            let record = Record::from_row(row)?;
            if self.sweep_if_dead(&record).await? || !(self.is_ours(&record) || record.is_detached()) {
                continue;
            }
            let Some(record) = self.settled(record).await? else {
                continue;
            };
            if record.state.is_alive() {
                continue;
            }
            let old = until.iter().all(|until| record.created_ns <= *until);
            if old && wanted(&record, filter) {
                self.prune_one(&record, &mut pruned).await?;
            }
        }
        let mut event = Event::now(EventKind::Container, "prune", "");
        event = event.with("reclaimed", pruned.reclaimed_bytes.to_string());
        self.tell(event).await;
        Ok(pruned)
    }

    /// One that was started or removed meanwhile is none of ours.
    async fn prune_one(&self, record: &Record, pruned: &mut Pruned) -> Result<()> {
        let bytes = self.bytes_of(record).await;
        match self.remove(record.id.as_str(), RemoveOptions::default()).await {
            Ok(_) => {
                pruned.removed.push(record.id.to_string());
                pruned.reclaimed_bytes += bytes;
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Its writable layer, its logs and other files on disk. What cannot be told is not counted.
    async fn bytes_of(&self, record: &Record) -> u64 {
        let layer = self.parts.snapshotter.usage(&record.snapshot_key()).await;
        let dir = self.dir_of(&record.id);
        let files = blocking(move || usage_of(&dir)).await;
        [layer, files].into_iter().flatten().map(|usage| usage.bytes).sum()
    }
}

fn wanted(record: &Record, filter: &Filter) -> bool {
    let labels = record.labels();
    let has = |wanted: &String| match wanted.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|known| known == value),
        None => labels.contains_key(wanted),
    };
    filter.values("label").iter().all(has) && !filter.values("label!").iter().any(has)
}
