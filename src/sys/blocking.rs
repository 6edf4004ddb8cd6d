//! Work that blocks: on a thread of the pool, and as much of it as possible on one. A hop between threads costs as much as
//! several of the system calls that it is made for.

use std::cell::Cell;
#[cfg(any(feature = "engine", feature = "remote"))]
use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use crate::error::{Error, Result};

thread_local! {
    /// Whether this thread runs work that may block here and now.
    static MAY_BLOCK: Cell<bool> = const { Cell::new(false) };
}

/// Puts back whether this thread may block.
struct Back(bool);

impl Drop for Back {
    fn drop(&mut self) {
        MAY_BLOCK.set(self.0);
    }
}

/// Whether what runs now runs on a thread of the pool, by `poll_once`.
pub(crate) fn may_block() -> bool {
    MAY_BLOCK.get()
}

/// Runs blocking work on the pool; at once, where this is a thread of the pool.
///
/// # Errors
/// What the work returns.
///
/// # Cancel safety
/// The work runs to its end once it began.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    if may_block() {
        // Work that drives a future of its own on this thread (`block_on`) cannot block within it: tokio forbids that.
        let _back = Back(MAY_BLOCK.replace(false));
        return work();
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal("a worker of the blocking pool ended early").with_source(error))?
}

/// Polls a future once, on a thread of the pool: what it blocks for it does here, up to the first time that it has to wait.
/// Whoever gets it back polls it again with a waker.
#[cfg(any(feature = "engine", feature = "remote"))]
pub(crate) fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    let _back = Back(MAY_BLOCK.replace(true));
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs a future on the pool up to the first time that it has to wait, and from there on here.
///
/// # Cancel safety
/// As the future's own, but for the part that runs on the pool: that goes on to where the future first waits.
#[cfg(any(feature = "engine", feature = "remote"))]
pub(crate) async fn begin_blocking<F>(future: F) -> Result<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    if may_block() {
        return Ok(future.await);
    }
    let begun = tokio::task::spawn_blocking(move || {
        let mut future = Box::pin(future);
        match poll_once(future.as_mut()) {
            Poll::Ready(output) => Ok(output),
            Poll::Pending => Err(future),
        }
    });
    match begun.await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(rest)) => Ok(rest.await),
        Err(error) => Err(Error::internal("a worker of the blocking pool ended early").with_source(error)),
    }
}

#[cfg(all(test, feature = "engine"))]
mod tests {
    use super::*;

    fn here() -> std::thread::ThreadId {
        std::thread::current().id()
    }

    #[tokio::test]
    async fn all_up_to_the_first_wait_is_on_one_other_thread() {
        let work = async {
            let first = blocking(|| Ok(here())).await?;
            let second = blocking(|| Ok(here())).await?;
            tokio::task::yield_now().await;
            Ok::<_, Error>((first, second, here()))
        };
        let (first, second, last) = begin_blocking(work).await.unwrap().unwrap();
        assert_eq!(first, second);
        assert_ne!(first, last);
        assert_eq!(last, here());
        assert!(!may_block());
    }
}
