//! `logs`: what a container has written.

use std::sync::Arc;

use super::local::Shared;
use crate::error::{Error, Result};
use crate::logs::{LogEntries, LogQuery, LogSink, LogTarget};
use crate::types::ContainerId;

impl Shared {
    pub(crate) async fn logs(&self, name: &str, query: LogQuery) -> Result<LogEntries> {
        let record = self.find(name).await?;
        let entries = self.parts.logs.read(&self.log_target(&record.id), query)?;
        Ok(self.parts.spawner.stream(entries, 64))
    }

    pub(crate) fn open_log(&self, id: &ContainerId) -> Result<Arc<dyn LogSink>> {
        let target = self.log_target(id);
        std::fs::create_dir_all(&target.dir).map_err(|error| Error::os("make the container's directory", error))?;
        self.parts.logs.open(&target)
    }

    pub(crate) fn log_target(&self, id: &ContainerId) -> LogTarget {
        LogTarget {
            id: id.clone(),
            dir: self.dir_of(id),
        }
    }
}
