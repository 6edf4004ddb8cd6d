//! `prune`: removes volumes that no container uses.

use super::PrunedVolumes;
use super::local::{DEFAULT_DRIVER, Shared, check_filter, has_labels, truth};
use super::record::Record;
use crate::driver::Cancel;
use crate::error::{ErrorKind, Result};
use crate::events::{Event, EventKind};
use crate::storage::snapshot::usage_of;
use crate::sys::blocking::blocking;
use crate::types::Filter;

const KNOWN_FILTERS: [&str; 3] = ["all", "label", "label!"];

impl Shared {
    pub(super) async fn prune(&self, filter: &Filter, cancel: &Cancel) -> Result<PrunedVolumes> {
        check_filter(filter, &KNOWN_FILTERS)?;
        let mut all = false;
        for word in filter.values("all") {
            all |= truth("all", word)?;
        }
        let mut pruned = PrunedVolumes::default();
        for row in self.parts.store.call(|store| store.volumes()).await? {
            let record = Record::from_row(row)?;
            // Those of bound containers go with these.
            let wanted = record.owner.is_none() && (all || record.body.anonymous);
            if wanted && has_labels(&record.body.labels, filter) {
                cancel.check()?;
                self.prune_one(&record, &mut pruned, cancel).await?;
            }
        }
        let event = Event::now(EventKind::Volume, "prune", "").with("reclaimed", pruned.reclaimed_bytes.to_string());
        self.tell(event).await;
        Ok(pruned)
    }

    /// One that somebody uses is none of ours.
    async fn prune_one(&self, record: &Record, pruned: &mut PrunedVolumes, cancel: &Cancel) -> Result<()> {
        if !self.info(record).await?.users.is_empty() {
            return Ok(());
        }
        let place = self.place(record);
        let bytes = blocking(move || {
            Ok(place
                .and_then(|place| usage_of(&place).ok())
                .map_or(0, |usage| usage.bytes))
        });
        let bytes = bytes.await?;
        match self.remove_record(record, false, cancel).await {
            Ok(_) => {
                pruned.removed.push(record.name.to_string());
                pruned.reclaimed_bytes += bytes;
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => Ok(()),
            // One whose driver cannot remove it keeps none of the others. Source: moby, `volume/service/service.go`, `Prune`.
            Err(error) if record.body.driver != DEFAULT_DRIVER && error.kind() != &ErrorKind::Cancelled => {
                tracing::warn!(volume = %record.name, error = error.report(), "a volume could not be pruned");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
