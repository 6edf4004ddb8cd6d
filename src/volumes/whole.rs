//! A new volume that begins with content, of another volume or of an archive: it is listed once it is whole.

use futures_util::future::BoxFuture;

use super::local::{DEFAULT_DRIVER, Shared};
use super::record::Record;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::storage::files::sync_file_system;
use crate::sys::blocking::blocking;
use crate::types::VolumeName;

impl Shared {
    /// Makes a volume of a name that is free. `filling` has its driver make and fill it, and has undone that if it fails.
    ///
    /// # Errors
    /// `Conflict` for a name that is taken; what the filling says.
    ///
    /// # Cancel safety
    /// What was begun is left for a sweep, and never believed.
    pub(super) fn make_whole<'a>(
        &'a self,
        record: &'a Record,
        filling: BoxFuture<'a, Result<()>>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
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
            if let Err(error) = filling.await {
                self.unmake_own(record).await;
                return Err(error);
            }
            let kept = self.keep(record).await;
            if kept.is_err() {
                self.unmake(record).await;
            }
            kept
        })
    }

    /// Writes the files to the disk, then says that they count.
    async fn keep(&self, record: &Record) -> Result<()> {
        let (files, settled) = (self.files.clone(), record.clone());
        blocking(move || {
            if settled.body.driver == DEFAULT_DRIVER {
                sync_file_system(&files.path(&settled.name))?;
            }
            files.settle(&settled)
        })
        .await?;
        let (row, event) = (record.to_row()?, self.event(record, "create"));
        let inserted = self
            .parts
            .store
            .call(move |store| store.insert_volume(&row, Some(&event)));
        match inserted.await? {
            None => Ok(()),
            Some(_) => Err(taken(&record.name)),
        }
    }

    /// Has a driver undo what it began.
    pub(super) async fn unmake_driven(&self, record: &Record) {
        let removed = match self.driver(&record.body.driver) {
            Ok(driver) => driver.remove(&self.context(record)).await,
            Err(error) => Err(error),
        };
        self.warn_of(record, removed);
    }

    /// Our own directory of what came to nothing.
    async fn unmake_own(&self, record: &Record) {
        let (files, name) = (self.files.clone(), record.name.clone());
        let removed = blocking(move || files.remove(&name)).await;
        self.warn_of(record, removed);
    }

    fn warn_of(&self, record: &Record, removed: Result<()>) {
        if let Err(error) = removed {
            tracing::warn!(volume = %record.name, error = error.report(), "a volume that nobody wants could not be removed");
        }
    }
}

pub(super) fn taken(name: &VolumeName) -> Error {
    let message = format!("the volume {name} is there already; take another name, or remove it first");
    Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Volume, name.as_str())
}
