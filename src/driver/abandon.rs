//! Callers that go away, for tests: at a chosen await of the work itself.
//!
//! What a user drops is a future that waits for the driver, and it is suspended but once or twice; where the work on the
//! driver is at that moment is chance. Here it is chosen: the n-th time that any verb's work is suspended, its caller
//! is gone.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

/// Makes callers of an engine go away at an await of one's choice. Clones share the choice.
#[derive(Debug, Clone, Default)]
pub struct Abandon(Arc<AtomicU64>);

impl Abandon {
    /// At the `n`-th await from now on (the first is 1) that suspends the work of a verb, its caller goes away.
    /// It happens once.
    pub fn at(&self, n: u64) {
        self.0.store(n, Ordering::Release);
    }

    /// Lets callers stay. Whether one was still to go: the work had fewer awaits than that.
    pub fn stop(&self) -> bool {
        self.0.swap(0, Ordering::AcqRel) > 0
    }

    /// Counts a suspension. Whether this was the one.
    fn now(&self) -> bool {
        let count = |left: u64| left.checked_sub(1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, count) == Ok(1)
    }

    /// Work that is dropped at the chosen await, as a dropped call drops it: `None`.
    pub(super) fn dropping<W: Future>(&self, work: W) -> impl Future<Output = Option<W::Output>> + use<W> {
        let abandon = self.clone();
        let mut work = Some(Box::pin(work));
        std::future::poll_fn(move |context| {
            let Some(running) = &mut work else {
                return Poll::Ready(None);
            };
            match running.as_mut().poll(context) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending if abandon.now() => {
                    work = None;
                    Poll::Ready(None)
                }
                Poll::Pending => Poll::Pending,
            }
        })
    }

    /// Work that is told at the chosen await that its caller went away, and goes on. The second value: whether it was.
    pub(super) fn telling<W: Future, T: Fn()>(
        &self,
        work: W,
        tell: T,
    ) -> impl Future<Output = (W::Output, bool)> + use<W, T> {
        let abandon = self.clone();
        let (mut work, mut told) = (Box::pin(work), false);
        std::future::poll_fn(move |context: &mut Context<'_>| {
            let polled = Pin::new(&mut work).poll(context);
            if polled.is_pending() && abandon.now() {
                told = true;
                tell();
            }
            polled.map(|output| (output, told))
        })
    }
}
