//! One question to a driver: on the drivers' thread, and for a bounded time.

use std::future::Future;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::Driven;
use crate::error::{Error, ErrorKind, ObjectKind, Result};

/// How much longer than the driver's own time is waited for the thread, which a driver may block against all rules.
const GRACE: Duration = Duration::from_secs(5);

impl Driven {
    /// Asks the driver, and waits. At the engine's end a driver that does not answer is waited for once. Blocks.
    ///
    /// # Errors
    /// The driver's own; `Timeout`; `Unavailable` for one that panics.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        verb: &'static str,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let limit = self.driver.limit();
        if self.own.is_silent(self.driver()) {
            return Err(self.late(verb, limit));
        }
        let (sender, answer) = sync_channel(1);
        let task = self.own.spawner()?.background(async move {
            // Nobody waits any more where this cannot be sent.
            let _ = sender.send(tokio::time::timeout(limit, work).await);
        });
        let said = match answer.recv_timeout(limit.saturating_add(GRACE)) {
            Ok(Ok(said)) => said.map_err(|error| self.about(verb, error)),
            Ok(Err(_)) | Err(RecvTimeoutError::Timeout) => {
                self.own.note_silence(self.driver());
                Err(self.late(verb, limit))
            }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;

    use super::super::{Drivers, Own};
    use super::*;
    use crate::networks::driver::{EndpointContext, Joined, NetworkContext, NetworkDriver, NetworkSandbox};
    use crate::networks::spec::{NetworkRecord, NetworkSpec};
    use crate::store::Root;
    use crate::types::{NetworkId, Outcome, OwnerId};

    #[derive(Debug, Default)]
    struct Silent(AtomicUsize);

    impl Silent {
        async fn asked<T>(&self) -> Result<T> {
            self.0.fetch_add(1, Ordering::SeqCst);
            std::future::pending().await
        }
    }

    #[async_trait]
    impl NetworkDriver for Silent {
        fn limit(&self) -> Duration {
            Duration::from_millis(20)
        }

        async fn create(&self, _network: &NetworkContext) -> Result<Outcome> {
            self.asked().await
        }

        async fn remove(&self, _network: &NetworkContext) -> Result<()> {
            self.asked().await
        }

        async fn join(
            &self,
            _network: &NetworkContext,
            _endpoint: &EndpointContext,
            _sandbox: &NetworkSandbox,
        ) -> Result<Joined> {
            self.asked().await
        }

        async fn leave(
            &self,
            _network: &NetworkContext,
            _endpoint: &EndpointContext,
            _sandbox: Option<&NetworkSandbox>,
        ) -> Result<()> {
            self.asked().await
        }
    }

    #[test]
    fn k8_who_does_not_answer_is_waited_for_once_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let silent = Arc::new(Silent::default());
        let drivers = Drivers::from([("silent".to_owned(), Arc::clone(&silent) as Arc<dyn NetworkDriver>)]);
        let who = (root.locks(), root.owners(), OwnerId::random());
        let own = Own::new(drivers, root.networks(), who).unwrap();
        let record = NetworkRecord {
            id: NetworkId::random(),
            created_ns: 1,
            spec: NetworkSpec::of_driver("silent", "n"),
        };
        let driven = own.network(&record).unwrap().unwrap();
        let asked = || silent.0.load(Ordering::SeqCst);
        for times in [1, 2] {
            assert_eq!(driven.create().unwrap_err().kind(), &ErrorKind::Timeout);
            assert_eq!(asked(), times);
        }
        own.will_end();
        for _ in 0..3 {
            assert_eq!(driven.remove().unwrap_err().kind(), &ErrorKind::Timeout);
        }
        assert_eq!(asked(), 3);
    }
}
