//! `remove`: the driver, the record, the files. Nobody can begin to use what is being removed.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::RemoveVolumeOptions;
use super::local::{DEFAULT_DRIVER, Shared, no_such};
use super::record::Record;
use crate::driver::Cancel;
use crate::error::Result;
use crate::sys::blocking::blocking;
use crate::types::{Outcome, OwnerId, VolumeName};

/// How long a driver may take to remove a volume that goes with its container.
const PATIENCE: Duration = Duration::from_secs(8);

impl Shared {
    pub(super) async fn remove(&self, name: &str, options: RemoveVolumeOptions, cancel: &Cancel) -> Result<Outcome> {
        let record = match self.find(name).await {
            Err(error) if error.is_not_found() && options.force => return Ok(Outcome::Already),
            Err(error) if error.is_not_found() => return Err(no_such(name)),
            other => other?,
        };
        self.remove_record(&record, options.force, cancel).await
    }

    /// Removes one that nothing uses.
    pub(crate) fn remove_record<'a>(
        &'a self,
        record: &'a Record,
        force: bool,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async move {
            let _held = self.parts.locks.lock(&Self::key(&record.name)).await?;
            let aside = Arc::new(Mutex::new(None));
            let (files, name, place) = (self.files.clone(), record.name.clone(), Arc::clone(&aside));
            let event = self.event(record, "destroy");
            // What a driver can still refuse is told of when it has not.
            let (now, later) = match record.body.driver == DEFAULT_DRIVER {
                true => (Some(event), None),
                false => (None, Some(event)),
            };
            let removed = self.parts.store.call(move |store| {
                store.remove_volume(&name, now.as_ref(), || {
                    *place.lock().unwrap_or_else(PoisonError::into_inner) = files.put_aside(&name)?;
                    Ok(())
                })
            });
            let removed = removed.await;
            let aside = aside.lock().unwrap_or_else(PoisonError::into_inner).take();
            if !matches!(removed, Ok(Outcome::Done)) {
                self.put_back(record, aside).await?;
                return removed;
            }
            // From here on nobody can begin to use it: its driver may look after what is elsewhere.
            let told = match self.driver(&record.body.driver) {
                Ok(driver) => {
                    self.patiently(record, cancel, driver.remove(&self.context(record)))
                        .await
                }
                Err(error) => Err(error),
            };
            match told {
                Err(error) if force => {
                    tracing::warn!(volume = %record.name, error = error.report(), "a driver could not remove a volume");
                }
                Err(error) => {
                    self.put_back(record, aside).await?;
                    let row = record.to_row()?;
                    self.parts
                        .store
                        .call(move |store| store.insert_volume(&row, None))
                        .await?;
                    return Err(error);
                }
                Ok(()) => {}
            }
            if let Some(event) = later {
                self.tell(event).await;
            }
            let files = self.files.clone();
            if let Some(aside) = aside {
                blocking(move || files.delete(&aside)).await?;
            }
            removed
        })
    }

    fn put_back<'a>(&'a self, record: &'a Record, aside: Option<PathBuf>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let Some(aside) = aside else { return Ok(()) };
            let (files, name) = (self.files.clone(), record.name.clone());
            blocking(move || files.put_back(&aside, &name)).await
        })
    }

    /// Removes volumes of a container that is gone, as far as no other one uses them.
    pub(crate) async fn remove_bound(&self, names: &[VolumeName]) {
        for name in names {
            // Nobody waits for these: a driver that takes longer is left to itself.
            let cancel = Cancel::default();
            let late = cancel.clone();
            let ending = self.parts.spawner.background(async move {
                tokio::time::sleep(PATIENCE).await;
                late.set();
            });
            let removed = async {
                let record = match self.read(name).await {
                    Err(error) if error.is_not_found() => return Ok(()),
                    other => other?,
                };
                self.remove_record(&record, true, &cancel).await.map(drop)
            };
            match removed.await {
                Err(error) if !error.is_conflict() => {
                    tracing::warn!(volume = %name, error = error.report(), "an anonymous volume could not be removed yet");
                }
                _ => {}
            }
            ending.abort();
        }
    }

    /// Removes what is left of a dead owner's volumes. Goes on past a failure and reports the first.
    pub(crate) async fn remove_all_of(&self, owner: &OwnerId) -> Result<usize> {
        let (wanted, mut removed, mut failure) = (owner.clone(), 0, None);
        for row in self.parts.store.call(move |store| store.volumes_of(&wanted)).await? {
            match self
                .remove_record(&Record::from_row(row)?, true, &Cancel::default())
                .await
            {
                Ok(_) => removed += 1,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(removed), Err)
    }
}
