//! Log drivers by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{JsonFileDriver, LocalDriver, LogDriver, NoneDriver};
use crate::error::{Error, ObjectKind, Result};

/// The drivers that containers can name, and the one for those that name none.
#[derive(Debug, Clone)]
pub struct LogDrivers {
    usual: Arc<dyn LogDriver>,
    by_name: BTreeMap<String, Arc<dyn LogDriver>>,
}

impl Default for LogDrivers {
    /// `local`, which is the usual one, `json-file` and `none`.
    fn default() -> Self {
        let local: Arc<dyn LogDriver> = Arc::new(LocalDriver::default());
        let mut drivers = Self {
            usual: Arc::clone(&local),
            by_name: BTreeMap::new(),
        };
        drivers.add(local);
        drivers.add(Arc::new(JsonFileDriver::default()));
        drivers.add(Arc::new(NoneDriver::new()));
        drivers
    }
}

impl LogDrivers {
    /// Makes a driver known under its name, in the place of one of that name.
    pub fn add(&mut self, driver: Arc<dyn LogDriver>) {
        self.by_name.insert(driver.name().to_owned(), driver);
    }

    /// Makes a driver the usual one, and known under its name.
    pub fn set_usual(&mut self, driver: Arc<dyn LogDriver>) {
        self.usual = Arc::clone(&driver);
        self.add(driver);
    }

    /// The driver for containers that name none.
    pub fn usual(&self) -> &Arc<dyn LogDriver> {
        &self.usual
    }

    /// The driver of a name.
    ///
    /// # Errors
    /// `InvalidArgument` for one that nobody made known.
    pub fn get(&self, name: Option<&str>) -> Result<&Arc<dyn LogDriver>> {
        let Some(name) = name else {
            return Ok(&self.usual);
        };
        self.by_name.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
            let message = format!(
                "logger: no log driver named '{name}' is registered; there are {}, and those that the engine is opened with",
                known.join(", ")
            );
            Error::invalid(message).with_object(ObjectKind::Option, "log driver")
        })
    }
}
