//! Deadlines for callers with any executor, or none.

use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use super::{Driver, Spawner};
use crate::error::Result;

/// Tells the time: by the engine's driver, or where managers of one's own bring none by a thread that the first deadline
/// starts.
#[derive(Debug)]
pub(crate) enum Clock {
    /// Of an engine in this process.
    Engine(Spawner),
    /// Started at the first need.
    Own(OnceLock<Driver>),
}

impl Clock {
    /// Where work that must not wait for a caller can go on.
    pub(crate) fn spawner(&self) -> Result<&Spawner> {
        match self {
            Self::Engine(spawner) => Ok(spawner),
            Self::Own(driver) => {
                if let Some(driver) = driver.get() {
                    return Ok(driver.spawner());
                }
                // One that another thread was quicker to start makes this one end at once.
                let started = Driver::start()?;
                Ok(driver.get_or_init(|| started).spawner())
            }
        }
    }

    /// The work's result, or `None` once it took longer than that: it is dropped then.
    pub(crate) async fn within<T>(&self, limit: Duration, work: impl Future<Output = Result<T>>) -> Option<Result<T>> {
        let alarm = match self.spawner() {
            Ok(spawner) => spawner.call(async move {
                tokio::time::sleep(limit).await;
                Ok(())
            }),
            Err(error) => return Some(Err(error)),
        };
        tokio::select! {
            biased;
            result = work => Some(result),
            rung = alarm => rung.err().map(Err),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_of_its_own_needs_no_runtime() {
        let clock = Clock::Own(OnceLock::new());
        let never = clock.within(Duration::from_millis(5), std::future::pending::<Result<()>>());
        assert!(super::super::tests::wait(never).is_none());
        let soon = clock.within(Duration::from_secs(60), async { Ok(7) });
        assert_eq!(super::super::tests::wait(soon).unwrap().unwrap(), 7);
    }
}
