//! `logs`: what a container has written.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};

use super::local::Shared;
use super::plan;
use super::record::Record;
use super::spec::LogConfig;
use crate::error::{Error, Result};
use crate::logs::{LogDriver, LogEntries, LogQuery, LogSink, LogSubject, LogTarget, PumpOptions, split_options};

/// Entries that go together at most.
const BATCH: usize = 4096;

impl Shared {
    pub(crate) async fn logs(&self, name: &str, query: LogQuery) -> Result<LogEntries> {
        let record = self.find(name).await?;
        let (driver, target) = self.log_of(&record)?;
        let entries = driver.read(&target, query)?;
        // From thread to thread in batches: a hop for each line would cost more than reading it.
        let batches = Box::pin(entries.ready_chunks(BATCH));
        let moved = self.parts.spawner.stream(batches, 4);
        Ok(Box::pin(moved.flat_map(stream::iter)))
    }

    /// Refuses what no driver can do, before anything is made.
    pub(crate) fn check_log(&self, log: &LogConfig) -> Result<()> {
        let (_, options) = split_options(&log.options)?;
        self.parts.logs.get(log.driver.as_deref())?.check(&options)
    }

    /// Blocking.
    pub(crate) fn open_log(&self, record: &Record) -> Result<Arc<dyn LogSink>> {
        let (driver, target) = self.log_of(record)?;
        std::fs::create_dir_all(&target.dir).map_err(|error| Error::os("make the container's directory", error))?;
        driver.open(&target)
    }

    /// The driver that keeps a container's log, and what it is told of it.
    pub(crate) fn log_of(&self, record: &Record) -> Result<(Arc<dyn LogDriver>, LogTarget)> {
        let log = &record.body.spec.log;
        let driver = self.parts.logs.get(log.driver.as_deref())?;
        let (_, options) = split_options(&log.options)?;
        Ok((Arc::clone(driver), self.target(record, options)))
    }

    fn target(&self, record: &Record, options: BTreeMap<String, String>) -> LogTarget {
        LogTarget {
            id: record.id.clone(),
            dir: self.dir_of(&record.id),
            options,
            subject: subject(record),
        }
    }
}

/// What a driver may say of a container beside its lines.
fn subject(record: &Record) -> LogSubject {
    let (spec, image) = (&record.body.spec, &record.body.image);
    LogSubject {
        name: record.name.to_string(),
        image: spec.image.clone(),
        image_id: record.body.image_id.to_string(),
        command: record.command(),
        labels: record.labels(),
        env: plan::environment(spec, image, &plan::hostname(spec, &record.id)),
    }
}

/// How a container's output is pumped.
pub(crate) fn pump_options(record: &Record) -> PumpOptions {
    // They were understood at create.
    let split = split_options(&record.body.spec.log.options);
    split.map(|(options, _)| options).unwrap_or_default()
}
