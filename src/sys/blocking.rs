//! Work that blocks: on a thread of the pool, and as much of it as possible on one. A hop between threads costs as much as
//! several of the system calls that it is made for.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::sync::oneshot;

use super::parcel::{Parcel, Parcelled, Unpacking};
use crate::error::{Error, Result};

thread_local! {
    /// Whether this thread runs work that may block here and now.
    static MAY_BLOCK: Cell<bool> = const { Cell::new(false) };
    /// Whether what this thread polls can be moved to the pool, and has asked for that.
    static MOVABLE: Cell<Movable> = const { Cell::new(Movable::No) };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Movable {
    No,
    Yes,
    Asked,
}

/// Puts back whether this thread may block.
struct Back(bool);

impl Drop for Back {
    fn drop(&mut self) {
        MAY_BLOCK.set(self.0);
    }
}

/// Puts back whether what this thread polls can be moved.
struct Unmovable(Movable);

impl Drop for Unmovable {
    fn drop(&mut self) {
        MOVABLE.set(self.0);
    }
}

/// Whether what runs now runs on a thread of the pool, by [`poll_once`].
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
pub(crate) fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Unpacking<'static, T> {
    Unpacking::new(parcel_of(Box::new(move || Ok(Box::new(work()?) as Parcel)), true))
}

/// Runs blocking work on another thread of the pool, wherever this is: work that waits for what the caller does meanwhile.
///
/// # Errors
/// What the work returns.
///
/// # Cancel safety
/// The work runs to its end once it began.
pub(crate) fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Unpacking<'static, T> {
    Unpacking::new(parcel_of(Box::new(move || Ok(Box::new(work()?) as Parcel)), false))
}

fn parcel_of(work: Box<dyn FnOnce() -> Result<Parcel> + Send>, may_be_here: bool) -> Parcelled<'static> {
    Box::pin(async move {
        if may_be_here && may_block() {
            // Work that drives a future of its own on this thread (`block_on`) cannot block within it: tokio forbids that.
            let _back = Back(MAY_BLOCK.replace(false));
            return work();
        }
        let (answer, answered) = oneshot::channel();
        on_pool(Box::new(move || {
            let _ = answer.send(work());
        }));
        let ended = |error| Error::internal("a worker of the blocking pool ended early").with_source(error);
        answered.await.map_err(ended)?
    })
}

/// Work of one type only: what tokio makes of each type that it spawns is five kilobytes of code.
fn on_pool(work: Box<dyn FnOnce() + Send>) {
    tokio::task::spawn_blocking(work);
}

/// Polls a future once, on a thread of the pool: what it blocks for it does here, up to the first time that it has to wait.
/// Whoever gets it back polls it again with a waker.
pub(crate) fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    let _back = Back(MAY_BLOCK.replace(true));
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Waits for a future on a thread that may block, and has a runtime of its own for what the future leaves to one.
pub(crate) fn wait_for<T>(
    runtime: &tokio::runtime::Runtime,
    mut future: Pin<Box<dyn Future<Output = T> + Send + '_>>,
) -> T {
    let entered = runtime.enter();
    match poll_once(future.as_mut()) {
        Poll::Ready(output) => output,
        Poll::Pending => {
            drop(entered);
            runtime.block_on(future)
        }
    }
}

/// What became of a future that was polled with [`poll_movable`].
pub(crate) enum Polled<T> {
    Ready(T),
    Pending,
    /// It wants to be polled on a thread of the pool, with [`poll_once`].
    Move,
}

/// Polls a future that can be moved to the pool, and sees whether it wants to be.
pub(crate) fn poll_movable<F: Future + ?Sized>(future: Pin<&mut F>, context: &mut Context<'_>) -> Polled<F::Output> {
    let _back = Unmovable(MOVABLE.replace(Movable::Yes));
    match future.poll(context) {
        Poll::Ready(output) => Polled::Ready(output),
        Poll::Pending if MOVABLE.get() == Movable::Asked => Polled::Move,
        Poll::Pending => Polled::Pending,
    }
}

/// Goes on on a thread of the pool, if whoever polls this can bring that about: where several things that block follow each
/// other, and nothing waits in between. Elsewhere it does nothing.
pub(crate) async fn onto_pool() {
    let mut asked = false;
    poll_fn(|context| {
        if asked || may_block() || MOVABLE.get() == Movable::No {
            return Poll::Ready(());
        }
        asked = true;
        MOVABLE.set(Movable::Asked);
        // Whatever polls this in between looks again.
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Runs a future on the pool up to the first time that it has to wait, and from there on here.
///
/// # Cancel safety
/// As the future's own, but for the part that runs on the pool: that goes on to where the future first waits.
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
    async fn only_what_can_be_moved_asks_for_it() {
        // Nobody could move this.
        onto_pool().await;
        let mut context = Context::from_waker(Waker::noop());
        let mut work = Box::pin(async {
            let before = here();
            onto_pool().await;
            (before, here())
        });
        assert!(matches!(poll_movable(work.as_mut(), &mut context), Polled::Move));
        assert!(MOVABLE.get() == Movable::No);
        let moved = tokio::task::spawn_blocking(move || poll_once(work.as_mut())).await;
        let Ok(Poll::Ready((before, after))) = moved else {
            panic!("it waits for something");
        };
        assert_eq!(before, here());
        assert_ne!(after, here());
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
