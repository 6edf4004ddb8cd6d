//! The `none` driver: keeps nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{LogDriver, LogEntry, LogFiles, LogSink, LogTarget};
use crate::error::Result;

/// Keeps nothing. Attached clients and `output()` still get everything.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct NoneDriver;

impl NoneDriver {
    /// The driver.
    pub fn new() -> Self {
        Self
    }
}

impl LogDriver for NoneDriver {
    fn name(&self) -> &str {
        "none"
    }

    fn open(&self, _target: &LogTarget) -> Result<Arc<dyn LogSink>> {
        Ok(Arc::new(Self))
    }

    fn files(&self, options: &BTreeMap<String, String>) -> Result<Option<LogFiles>> {
        self.check(options)?;
        Ok(Some(LogFiles {
            format: None,
            max_size_bytes: u64::MAX,
            max_files: 1,
            compress: false,
            attributes: false,
        }))
    }
}

impl LogSink for NoneDriver {
    fn write(&self, _entries: &[LogEntry]) -> Result<()> {
        Ok(())
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }
}
