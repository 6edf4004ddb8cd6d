//! `remove`: the driver, the record, the files. Nobody can begin to use what is being removed.

use std::sync::{Arc, Mutex, PoisonError};

use super::RemoveVolumeOptions;
use super::local::{Shared, no_such};
use super::record::Record;
use crate::error::Result;
use crate::sys::blocking::blocking;
use crate::types::{Outcome, OwnerId, VolumeName};

impl Shared {
    pub(super) async fn remove(&self, name: &str, options: RemoveVolumeOptions) -> Result<Outcome> {
        let record = match self.find(name).await {
            Err(error) if error.is_not_found() && options.force => return Ok(Outcome::Already),
            Err(error) if error.is_not_found() => return Err(no_such(name)),
            other => other?,
        };
        self.remove_record(&record, options.force).await
    }

    /// Removes one that nothing uses.
    pub(crate) async fn remove_record(&self, record: &Record, force: bool) -> Result<Outcome> {
        let _held = self.parts.locks.lock(&Self::key(&record.name)).await?;
        let aside = Arc::new(Mutex::new(None));
        let (files, name, place) = (self.files.clone(), record.name.clone(), Arc::clone(&aside));
        let event = self.event(record, "destroy");
        let removed = self.parts.store.call(move |store| {
            store.remove_volume(&name, Some(&event), || {
                *place.lock().unwrap_or_else(PoisonError::into_inner) = files.put_aside(&name)?;
                Ok(())
            })
        });
        let removed = removed.await;
        let aside = aside.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (files, name) = (self.files.clone(), record.name.clone());
        if removed.is_err() {
            if let Some(aside) = aside {
                blocking(move || files.put_back(&aside, &name)).await?;
            }
            return removed;
        }
        // Its driver may have to look after what is elsewhere; what is here is gone for good by now.
        let told = match self.driver(&record.body.driver) {
            Ok(driver) => driver.remove(&self.context(record)).await,
            Err(error) => Err(error),
        };
        if let Some(aside) = aside {
            blocking(move || files.delete(&aside)).await?;
        }
        match told {
            Err(error) if force => {
                tracing::warn!(volume = %record.name, error = error.report(), "a driver could not remove a volume");
            }
            told => told?,
        }
        removed
    }

    /// Removes volumes of a container that is gone, as far as no other one uses them.
    pub(crate) async fn remove_bound(&self, names: &[VolumeName]) {
        for name in names {
            let removed = async {
                let record = match self.read(name).await {
                    Err(error) if error.is_not_found() => return Ok(()),
                    other => other?,
                };
                self.remove_record(&record, true).await.map(drop)
            };
            match removed.await {
                Err(error) if !error.is_conflict() => {
                    tracing::warn!(volume = %name, error = error.report(), "an anonymous volume could not be removed yet");
                }
                _ => {}
            }
        }
    }

    /// Removes what is left of a dead owner's volumes. Goes on past a failure and reports the first.
    pub(crate) async fn remove_all_of(&self, owner: &OwnerId) -> Result<usize> {
        let (wanted, mut removed, mut failure) = (owner.clone(), 0, None);
        for row in self.parts.store.call(move |store| store.volumes_of(&wanted)).await? {
            match self.remove_record(&Record::from_row(row)?, true).await {
                Ok(_) => removed += 1,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(removed), Err)
    }
}
