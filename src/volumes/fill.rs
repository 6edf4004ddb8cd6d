//! Copy-up: an empty volume begins with what the image has at its place.

use std::path::Path;

use super::files::is_empty;
use super::local::{DEFAULT_DRIVER, Shared};
use super::record::Record;
use crate::error::{Error, Result};
use crate::storage::files::sync_file_system;
use crate::store::{Node, NodeKind};
use crate::sys::blocking::blocking;
use crate::types::{ContainerId, VolumeName};

/// Writes an image's files into an empty directory.
pub(crate) type Content = Box<dyn FnOnce(&Path) -> Result<()> + Send>;

impl Shared {
    /// Fills a volume that is empty and that nobody uses at the moment but the container that is being made; whether it did.
    /// The content appears at once, when all of it is there.
    ///
    /// # Cancel safety
    /// What was begun is left for a sweep, and never believed.
    pub(crate) async fn fill(&self, name: &VolumeName, by: &ContainerId, content: Content) -> Result<bool> {
        let record = self.read(name).await?;
        // Others' files are others' to fill.
        let Some(data) = self.driver(&record.body.driver)?.directory(&self.context(&record)) else {
            return Ok(false);
        };
        if record.body.driver != DEFAULT_DRIVER {
            return Ok(false);
        }
        let _held = self.parts.locks.lock(&Self::key(name)).await?;
        let turn = self.turn(name);
        let users = turn.lock().await;
        if !users.users.is_empty() || self.used_elsewhere(&record, by).await? {
            return Ok(false);
        }
        let (files, durable, name) = (self.files.clone(), record.owner.is_none(), record.name.clone());
        blocking(move || {
            if !is_empty(&data)? {
                return Ok(false);
            }
            let new = files.begin_filling(&name)?;
            let filled = fill(&new, &data, durable, content);
            if filled.is_err() {
                files.delete(&new)?;
            }
            filled.map(|()| true)
        })
        .await
    }

    /// Whether a container of another process may have it mounted.
    async fn used_elsewhere(&self, record: &Record, by: &ContainerId) -> Result<bool> {
        let (node, by, own) = (Node::volume(&record.name), by.clone(), self.parts.owner.clone());
        self.parts
            .store
            .call(move |store| {
                for user in store.holders(&node)? {
                    let Ok(id) = user.id.parse::<ContainerId>() else {
                        continue;
                    };
                    if user.kind != NodeKind::Container || id == by {
                        continue;
                    }
                    let there = store.container(&id)?;
                    if there.is_some_and(|row| row.owner.as_ref() != Some(&own)) {
                        return Ok(true);
                    }
                }
                Ok(false)
            })
            .await
    }
}

fn fill(new: &Path, data: &Path, durable: bool, content: Content) -> Result<()> {
    content(new)?;
    if let Some(above) = data.parent().filter(|_| durable) {
        // A name that survives power loss must not lead to files that do not.
        sync_file_system(above)?;
    }
    // Takes the place of an empty directory, and of no other. Source: rename(2).
    std::fs::rename(new, data).map_err(|e| Error::os("show a volume's content", e))
}
