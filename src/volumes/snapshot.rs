//! `snapshot`: a new volume with what another holds.

use super::local::{Shared, now_ns};
use super::record::{Body, Record};
use super::{ANONYMOUS_LABEL, CreateVolume};
use crate::error::{Error, ObjectKind, Result};
use crate::sys::blocking::blocking;
use crate::types::VolumeName;

impl Shared {
    pub(crate) async fn snapshot(&self, name: &str, into: CreateVolume) -> Result<Record> {
        let from = self.find(name).await?;
        let asked = into.driver.as_ref().is_some_and(|driver| *driver != from.body.driver);
        if asked {
            let message = format!("a snapshot of {name} is kept by its driver, {:?}", from.body.driver);
            return Err(Error::invalid(message).with_object(ObjectKind::Option, "driver"));
        }
        let record = Record {
            name: match &into.name {
                Some(name) => name.parse()?,
                None => VolumeName::random(),
            },
            owner: None,
            created_ns: now_ns(),
            body: Body {
                anonymous: into.name.is_none(),
                labels: into.labels,
                options: into.options,
                driver: from.body.driver.clone(),
            },
        };
        self.make_whole(&record, Box::pin(self.copy(&from, &record))).await?;
        Ok(record)
    }

    /// A copy for a bound container, which has no record yet: it gets it with the container.
    pub(crate) async fn make_bound_copy(&self, name: &str) -> Result<Record> {
        let from = self.find(name).await?;
        let mut record = Record {
            name: VolumeName::random(),
            owner: Some(self.parts.owner.clone()),
            created_ns: now_ns(),
            body: from.body.clone(),
        };
        record.body.anonymous = true;
        record.body.labels.insert(ANONYMOUS_LABEL.to_owned(), String::new());
        let made = async {
            let (files, name) = (self.files.clone(), record.name.clone());
            blocking(move || files.begin(&name)).await?;
            let driver = self.driver(&record.body.driver)?;
            driver
                .clone_volume(&self.context(&from), &self.context(&record))
                .await?;
            let (files, settled) = (self.files.clone(), record.clone());
            blocking(move || files.settle(&settled)).await
        };
        match made.await {
            Ok(()) => Ok(record),
            Err(error) => {
                self.unmake(&record).await;
                Err(error)
            }
        }
    }

    /// Has a driver copy a volume; nothing is left of a copy that fails.
    async fn copy(&self, from: &Record, record: &Record) -> Result<()> {
        let driver = self.driver(&record.body.driver)?;
        let copied = driver.clone_volume(&self.context(from), &self.context(record)).await;
        if copied.is_err() {
            self.unmake_driven(record).await;
        }
        copied
    }
}
