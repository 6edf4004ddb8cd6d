//! For callers without an async runtime.

use std::future::IntoFuture;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

/// Waits for a request here and now: for programs and tests without an async runtime.
///
/// An engine works on a thread of its own, and its futures only wait for that thread. So this needs no runtime, and also works
/// within one: it then blocks the thread it is called on, and whatever else would run there.
///
/// ```no_run
/// use longshore::{Blocking as _, ContainerSpec, Engine};
///
/// fn main() -> longshore::Result<()> {
///     let engine = Engine::open(Engine::default_root()?).block()?;
///     let out = engine.run(ContainerSpec::image("busybox").command(["echo", "hello"])).output().block()?;
///     assert_eq!(out.stdout, b"hello\n");
///     Ok(())
/// }
/// ```
pub trait Blocking: IntoFuture + Sized {
    /// Waits for the answer.
    fn block(self) -> Self::Output {
        struct Unpark(Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut future = pin!(self.into_future());
        loop {
            if let Poll::Ready(answer) = future.as_mut().poll(&mut context) {
                return answer;
            }
            thread::park();
        }
    }
}

impl<F: IntoFuture> Blocking for F {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a11_a_future_is_waited_for_without_a_runtime() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let thread = thread::spawn(move || sender.send(7));
        assert_eq!(receiver.block(), Ok(7));
        thread.join().unwrap().unwrap();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a11_within_a_runtime_too() {
        assert_eq!(std::future::ready(7).block(), 7);
    }
}
