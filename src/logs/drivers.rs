//! Log drivers by name.

use std::sync::Arc;

use super::{JsonFileDriver, LocalDriver, LogDriver, NoneDriver};
use crate::error::{Error, ObjectKind, Result};

/// The drivers that containers can name, and the one for those that name none.
#[derive(Debug, Clone)]
pub struct LogDrivers {
    usual: Arc<dyn LogDriver>,
    /// A handful, in the order of their names.
    known: Arc<Vec<Arc<dyn LogDriver>>>,
}

impl Default for LogDrivers {
    /// `local`, which is the usual one, `json-file` and `none`.
    #[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
    fn default() -> Self {
        let local: Arc<dyn LogDriver> = Arc::new(LocalDriver::default());
        Self {
            usual: Arc::clone(&local),
            known: Arc::new(vec![
                Arc::new(JsonFileDriver::default()),
                local,
                Arc::new(NoneDriver::new()),
            ]),
        }
    }
}

impl LogDrivers {
    /// Makes a driver known under its name, in the place of one of that name.
    pub fn add(&mut self, driver: Arc<dyn LogDriver>) {
        let place = self.known.partition_point(|known| known.name() < driver.name());
        let all = Arc::make_mut(&mut self.known);
        match all.get_mut(place) {
            Some(known) if known.name() == driver.name() => *known = driver,
            _ => all.insert(place, driver),
        }
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
        self.known.iter().find(|known| known.name() == name).ok_or_else(|| {
            let known: Vec<&str> = self.known.iter().map(|known| known.name()).collect();
            let message = format!(
                "logger: no log driver named '{name}' is registered; there are {}, and those that the engine is opened with",
                known.join(", ")
            );
            Error::invalid(message).with_object(ObjectKind::Option, "log driver")
        })
    }
}
