//! `snapshot`: a new volume with what another holds.

use super::local::{Shared, now_ns};
use super::record::{Body, Record};
use super::{ANONYMOUS_LABEL, CreateVolume};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::storage::files::sync_file_system;
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
        self.copy_of(&from, record).await
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

    /// A new volume with another's content, recorded once it is whole.
    async fn copy_of(&self, from: &Record, record: Record) -> Result<Record> {
        let _held = self.parts.locks.lock(&Self::key(&record.name)).await?;
        if self.read(&record.name).await.is_ok() {
            return Err(taken(&record.name));
        }
        let (files, name) = (self.files.clone(), record.name.clone());
        blocking(move || {
            files.remove(&name)?;
            files.begin(&name)
        })
        .await?;
        let made = async {
            let driver = self.driver(&record.body.driver)?;
            driver.clone_volume(&self.context(from), &self.context(&record)).await?;
            let (files, settled) = (self.files.clone(), record.clone());
            blocking(move || {
                sync_file_system(&files.path(&settled.name))?;
                files.settle(&settled)
            })
            .await?;
            let (row, event) = (record.to_row()?, self.event(&record, "create"));
            match self
                .parts
                .store
                .call(move |store| store.insert_volume(&row, Some(&event)))
                .await?
            {
                None => Ok(()),
                Some(_) => Err(taken(&record.name)),
            }
        };
        match made.await {
            Ok(()) => Ok(record),
            Err(error) => {
                self.unmake(&record).await;
                Err(error)
            }
        }
    }
}

pub(super) fn taken(name: &VolumeName) -> Error {
    let message = format!("the volume {name} is there already; take another name, or remove it first");
    Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Volume, name.as_str())
}
