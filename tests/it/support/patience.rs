//! Waiting for what is to come, however busy the machine is: a test never takes it that something was done within a time.

use std::time::{Duration, Instant};

use crate::frame::{Check, Stop, fail};

/// Long enough for anything that is to happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Returns as soon as it is `so`; fails with `what` was waited for.
pub async fn until(what: &str, mut so: impl AsyncFnMut() -> Result<bool, Stop>) -> Check {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if so().await? {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    fail(format!("not within {PATIENCE:?}: {what}"))
}

/// As [`until`], where nothing is asked of an engine of this process.
pub fn until_now(what: &str, mut so: impl FnMut() -> Result<bool, Stop>) -> Check {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if so()? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    fail(format!("not within {PATIENCE:?}: {what}"))
}
