//! `diff` and `export`: what a container wrote, and all that it shows. Read from its layers, mounted or not, so that they
//! need no process of the container, and work on containers of other processes too.

use std::sync::Arc;

use super::etc;
use super::local::{Shared, no_such};
use super::record::Record;
use super::state::{ContainerState, Refusal, Verb, refuse};
use crate::error::Result;
use crate::images::ByteStream;
use crate::runtime::native::sight::ZygoteSight;
use crate::storage::layer::{LayerReader, Sight};
use crate::storage::outflow::{Closing, on_driver, stream_of};
use crate::storage::snapshot::SnapshotKey;
use crate::sys::blocking::blocking;
use crate::types::Change;

/// Made by the runtime where an image lacks them: no change of the container's.
const PLACES: [&str; 4] = ["/dev", "/proc", "/sys", "/etc"];

impl Shared {
    pub(crate) async fn diff(&self, name: &str) -> Result<Vec<Change>> {
        let record = self.find(name).await?;
        let reader = self.reader(&record).await?;
        let changes = blocking(move || reader.changes()).await?;
        self.must_be_there(&record, Verb::Diff).await?;
        Ok(changes)
    }

    pub(crate) async fn export(self: &Arc<Self>, name: &str) -> Result<ByteStream> {
        let record = self.find(name).await?;
        self.must_be_there(&record, Verb::Export).await?;
        let reader = self.reader(&record).await?;
        let shared = Arc::clone(self);
        let closing = async move {
            // A container that is removed meanwhile has lost files that should be in the archive.
            shared.must_be_there(&record, Verb::Export).await?;
            shared.tell(shared.event(&record, "export")).await;
            Ok(())
        };
        let stream = stream_of(move |out| reader.write_tree(out), Box::pin(closing))?;
        Ok(on_driver(&self.parts.spawner, stream))
    }

    /// The layer that a container's changes make.
    pub(super) async fn layer(self: &Arc<Self>, record: &Record) -> Result<ByteStream> {
        let reader = self.reader(record).await?;
        let (shared, record) = (Arc::clone(self), record.clone());
        let closing: Closing = Box::pin(async move { shared.must_be_there(&record, Verb::Commit).await });
        stream_of(move |out| reader.write_layer(out).map(drop), closing)
    }

    async fn reader(&self, record: &Record) -> Result<LayerReader> {
        let read = self.reader_of(record.snapshot_key(), Vec::new()).await;
        read.map_err(|error| match error.is_not_found() {
            true => no_such(record.id.as_str()).with_source(error),
            false => error,
        })
    }

    /// What was written to a snapshot, without the places for mounts that were made for it.
    pub(super) async fn reader_of(&self, key: SnapshotKey, more: Vec<String>) -> Result<LayerReader> {
        let source = self.parts.snapshotter.source(&key).await?;
        let (ownership, native) = (self.parts.layers.clone(), self.parts.native.clone());
        let sight = native.map(|native| Arc::new(ZygoteSight::new(native)) as Arc<dyn Sight>);
        blocking(move || {
            let own = PLACES.into_iter().chain(etc::FILES.map(|(_, place)| place));
            let places: Vec<&str> = own.chain(more.iter().map(String::as_str)).collect();
            Ok(LayerReader::open(&source, &ownership, sight)?.without(&places))
        })
        .await
    }

    async fn must_be_there(&self, record: &Record, verb: Verb) -> Result<()> {
        let now = self.read(&record.id).await?;
        if now.state == ContainerState::Removing {
            return Err(refuse(&record.id, now.state, verb, Refusal::BeingRemoved));
        }
        Ok(())
    }
}
