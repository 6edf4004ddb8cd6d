//! One question to a driver: on the drivers' thread, and for a bounded time.

use std::future::Future;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::Driven;
use crate::error::{Error, ErrorKind, ObjectKind, Result};

/// How much longer than the driver's own time is waited for the thread, which a driver may block against all rules.
const GRACE: Duration = Duration::from_secs(5);

impl Driven {
    /// Asks the driver, and waits. Blocks.
    ///
    /// # Errors
    /// The driver's own; `Timeout`; `Unavailable` for one that panics.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        verb: &'static str,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let limit = self.driver.limit();
        let (sender, answer) = sync_channel(1);
        let task = self.own.spawner()?.background(async move {
            // Nobody waits any more where this cannot be sent.
            let _ = sender.send(tokio::time::timeout(limit, work).await);
        });
        let said = match answer.recv_timeout(limit.saturating_add(GRACE)) {
            Ok(Ok(said)) => said.map_err(|error| self.about(verb, error)),
            Ok(Err(_)) | Err(RecvTimeoutError::Timeout) => Err(self.late(verb, limit)),
            Err(RecvTimeoutError::Disconnected) => Err(self.fell(verb)),
        };
        task.abort();
        said
    }

    fn about(&self, verb: &'static str, error: Error) -> Error {
        match error.object() {
            Some(_) => error,
            None => error
                .context(format!("the network driver {:?}, asked to {verb}", self.driver()))
                .with_object(ObjectKind::Network, self.network.name.clone()),
        }
    }

    fn late(&self, verb: &'static str, limit: Duration) -> Error {
        let message = format!(
            "the network driver {:?} did not {verb} within {limit:?}; look after it, or have its limit say more",
            self.driver()
        );
        Error::new(ErrorKind::Timeout, message).with_object(ObjectKind::Network, self.network.name.clone())
    }

    fn fell(&self, verb: &'static str) -> Error {
        let message = format!(
            "the network driver {:?} gave no answer when it was asked to {verb}: it panicked, or the engine ended",
            self.driver()
        );
        Error::new(ErrorKind::Unavailable, message).with_object(ObjectKind::Network, self.network.name.clone())
    }
}
