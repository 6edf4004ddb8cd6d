//! The engine's one thread: a current-thread runtime that holds sockets, pumps, timers and the tails of cancelled work.
//!
//! Futures that users hold only wait for an answer from it, so they run on any executor, or none, and an engine in a
//! `static` outlives the runtime of the test that first used it.

#[cfg(feature = "conformance")]
mod abandon;
mod clock;

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::Stream;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tracing::Instrument as _;
use tracing::instrument::WithSubscriber as _;

#[cfg(feature = "conformance")]
pub use self::abandon::Abandon;
pub(crate) use self::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::blocking::{self, Polled};
use crate::sys::parcel::{Parcel, Parcelled, parcelled, unpack};
use crate::sys::signals;

/// How long the driver goes on for tails after the last handle went away.
const LINGER: Duration = Duration::from_secs(10);

/// Owns the thread. Dropping it asks the thread to finish its tails and end; it never blocks.
pub(crate) struct Driver {
    spawner: Spawner,
    ending: std::sync::Mutex<Ending>,
    /// Changes when the thread holds nothing any more.
    ended: watch::Receiver<bool>,
}

/// How the thread is told to end, once.
struct Ending {
    stop: Option<oneshot::Sender<Work>>,
    at_end: Work,
}

/// Work without a result.
type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Puts work on the driver's thread. Does not keep the driver alive.
#[derive(Debug, Clone)]
pub(crate) struct Spawner {
    handle: Handle,
    tails: Arc<Tails>,
    pid: u32,
    #[cfg(feature = "conformance")]
    abandon: Abandon,
}

/// Counts work that must not be cut off.
#[derive(Debug, Default)]
struct Tails {
    running: std::sync::atomic::AtomicUsize,
    idle: Notify,
}

impl Driver {
    /// Starts the thread.
    pub(crate) fn start() -> Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .thread_name("longshore-io")
            .max_blocking_threads(16)
            .thread_keep_alive(Duration::from_secs(2))
            .build()
            .map_err(|error| Error::os("start the driver's runtime", error))?;
        let tails = Arc::new(Tails::default());
        let spawner = Spawner {
            handle: runtime.handle().clone(),
            tails: Arc::clone(&tails),
            pid: std::process::id(),
            #[cfg(feature = "conformance")]
            abandon: Abandon::default(),
        };
        let (stop, stopped) = oneshot::channel::<Work>();
        let (end, ended) = watch::channel(false);
        thread::Builder::new()
            .name("longshore".into())
            .spawn(move || {
                signals::block_all();
                runtime.block_on(async move {
                    if let Ok(at_end) = stopped.await {
                        let _ = tokio::time::timeout(LINGER, at_end).await;
                    }
                    tails.finish(LINGER).await;
                });
                // What still blocks on the pool lets go of the root before anybody is told. This thread is nobody's to wait for.
                runtime.shutdown_timeout(LINGER);
                end.send_replace(true);
            })
            .map_err(|error| Error::os("start the driver's thread", error))?;
        Ok(Self {
            spawner,
            ending: std::sync::Mutex::new(Ending {
                stop: Some(stop),
                at_end: Box::pin(async {}),
            }),
            ended,
        })
    }

    pub(crate) fn spawner(&self) -> &Spawner {
        &self.spawner
    }

    /// What runs on the thread when the last handle is gone, before it ends.
    pub(crate) fn at_end(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.ending().at_end = Box::pin(work);
    }

    fn ending(&self) -> std::sync::MutexGuard<'_, Ending> {
        self.ending.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Asks the thread to finish its tails and end. What comes back changes when it has.
    pub(crate) fn end(&self) -> watch::Receiver<bool> {
        let mut ending = self.ending();
        if let Some(stop) = ending.stop.take() {
            let work = std::mem::replace(&mut ending.at_end, Box::pin(async {}));
            let _ = stop.send(work);
        }
        self.ended.clone()
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

impl Tails {
    /// Waits as long as a limit allows; whether all have come to their end.
    async fn finish(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.running.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            let wake = self.idle.notified();
            if self.running.load(Ordering::Acquire) == 0 {
                break;
            }
            let _ = tokio::time::timeout(Duration::from_millis(100), wake).await;
        }
        self.running.load(Ordering::Acquire) == 0
    }
}

struct TailGuard(Arc<Tails>);

impl Drop for TailGuard {
    fn drop(&mut self) {
        if self.0.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

/// Waits for work as long as a limit allows, if there is one. The work is dropped then.
pub(crate) async fn within<T>(limit: Option<Duration>, work: impl Future<Output = Result<T>>) -> Result<T> {
    let Some(limit) = limit else { return work.await };
    let timeout = |_| Error::new(ErrorKind::Timeout, format!("no result within {limit:?}"));
    tokio::time::timeout(limit, work).await.map_err(timeout)?
}

impl Spawner {
    /// A child of `fork` has no driver thread: its copy of the engine says so instead of hanging.
    pub(crate) fn check_fork(&self) -> Result<()> {
        if self.pid == std::process::id() {
            return Ok(());
        }
        let message = "the engine was opened before this process forked; open it anew in the child";
        Err(Error::new(ErrorKind::InvalidState, message).with_step("call the engine's driver"))
    }

    /// The driver's runtime, for what is to be on its thread though it begins elsewhere.
    pub(crate) fn runtime(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs a future on the driver, in the caller's `tracing` span. Dropping the call drops the future at its next await.
    pub(crate) fn call<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Call<T> {
        self.call_within(None, work)
    }

    /// As [`Spawner::call`], with a deadline after which the future is dropped and the answer is `Timeout`.
    pub(crate) fn call_within<T: Send + 'static>(
        &self,
        deadline: Option<Duration>,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Call<T> {
        let (wait, abort) = self.call_parcelled(deadline, parcelled(Box::pin(work)));
        let kind = PhantomData;
        Call { wait, abort, kind }
    }

    fn call_parcelled(&self, deadline: Option<Duration>, work: Parcelled<'static>) -> (Wait, Option<AbortHandle>) {
        let work = work.in_current_span().with_current_subscriber();
        let (answer, wait) = oneshot::channel();
        if let Err(error) = self.check_fork() {
            let _ = answer.send(Err(error));
            return (wait, None);
        }
        let work = self.abandonable(within(deadline, work));
        let task = self.spawn(Box::pin(async move {
            if let Some(result) = work.await {
                let _ = answer.send(result);
            }
        }));
        (wait, Some(task))
    }

    /// As [`Spawner::call`], for work that begins with something that blocks: up to where it first waits it runs on a thread
    /// of the pool.
    pub(crate) fn call_blocking<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Call<T> {
        let wait = self.call_blocking_parcelled(parcelled(Box::pin(work)));
        let (abort, kind) = (None, PhantomData);
        Call { wait, abort, kind }
    }

    fn call_blocking_parcelled(&self, work: Parcelled<'static>) -> Wait {
        let work = work.in_current_span().with_current_subscriber();
        let (mut answer, wait) = oneshot::channel();
        if let Err(error) = self.check_fork() {
            let _ = answer.send(Err(error));
            return wait;
        }
        let work = self.abandonable(work);
        self.begin(Box::pin(async move {
            let result = tokio::select! {
                biased;
                result = work => result,
                () = answer.closed() => None,
            };
            if let Some(result) = result {
                let _ = answer.send(result);
            }
        }));
        wait
    }

    /// Runs work that goes on when its caller goes away: it is told so by its [`Cancel`], and finishes or undoes itself.
    /// A good result that nobody takes any more goes to `undo`. Up to where it first waits, the work runs on a thread of
    /// the pool.
    pub(crate) fn tail<T, F, W, U, V>(&self, work: F, undo: U) -> Tail<T>
    where
        T: Send + 'static,
        F: FnOnce(Cancel) -> W,
        W: Future<Output = Result<T>> + Send + 'static,
        U: FnOnce(T) -> V + Send + 'static,
        V: Future<Output = ()> + Send + 'static,
    {
        let spawner = self.clone();
        let cancel = Cancel::default();
        let work = parcelled(Box::pin(work(cancel.clone())));
        let undo = move |parcel| {
            if let Ok(value) = unpack(parcel) {
                spawner.detach(undo(value));
            }
        };
        let wait = self.tail_parcelled(work, cancel.clone(), Box::new(undo));
        let kind = PhantomData;
        Tail { wait, cancel, kind }
    }

    fn tail_parcelled(&self, work: Parcelled<'static>, cancel: Cancel, undo: Undo) -> oneshot::Receiver<Answer> {
        let (sender, wait) = oneshot::channel();
        if let Err(error) = self.check_fork() {
            let _ = sender.send(Answer {
                result: Some(Err(error)),
                undo: None,
            });
            return wait;
        }
        let work = work.in_current_span().with_current_subscriber();
        let work = self.tellable(work, cancel);
        let guard = self.guard();
        self.begin(Box::pin(async move {
            let _guard = guard;
            let (result, abandoned) = work.await;
            let answer = Answer {
                result: Some(result),
                undo: Some(undo),
            };
            if !abandoned {
                let _ = sender.send(answer);
            }
        }));
        wait
    }

    /// Polls work on a thread of the pool, which may be this one, and hands it to the driver when it has to wait. From there
    /// it comes back here if it asks for that.
    fn begin(&self, mut work: Work) {
        let spawner = self.clone();
        let poll = move || {
            if blocking::poll_once(work.as_mut()).is_pending() {
                let handle = spawner.handle.clone();
                handle.spawn(Roaming {
                    work: Some(work),
                    spawner,
                });
            }
        };
        if blocking::may_block() {
            return poll();
        }
        self.handle.spawn_blocking(poll);
    }

    /// Work of one type only: what tokio makes of each type that it spawns is five kilobytes of code.
    fn spawn(&self, work: Work) -> AbortHandle {
        self.handle.spawn(work).abort_handle()
    }

    /// Waits for work that goes on without its caller, as long as an engine's end may take; whether all of it is done.
    pub(crate) async fn finish_tails(&self) -> bool {
        self.tails.finish(LINGER).await
    }

    fn guard(&self) -> TailGuard {
        self.tails.running.fetch_add(1, Ordering::AcqRel);
        TailGuard(Arc::clone(&self.tails))
    }

    /// Makes callers go away at an await of one's choice.
    #[cfg(feature = "conformance")]
    pub(crate) fn abandon(&self) -> &Abandon {
        &self.abandon
    }

    /// Work whose caller a test can make go away: then there is no result.
    #[cfg(feature = "conformance")]
    fn abandonable<W: Future>(&self, work: W) -> impl Future<Output = Option<W::Output>> + use<W> {
        self.abandon.dropping(work)
    }

    #[cfg(not(feature = "conformance"))]
    fn abandonable<W: Future>(&self, work: W) -> impl Future<Output = Option<W::Output>> + use<W> {
        async move { Some(work.await) }
    }

    /// Work that a test can tell that its caller went away: whether it was told is in the second value.
    #[cfg(feature = "conformance")]
    fn tellable<W: Future>(&self, work: W, cancel: Cancel) -> impl Future<Output = (W::Output, bool)> + use<W> {
        self.abandon.telling(work, move || cancel.set())
    }

    #[cfg(not(feature = "conformance"))]
    fn tellable<W: Future>(&self, work: W, _: Cancel) -> impl Future<Output = (W::Output, bool)> + use<W> {
        async move { (work.await, false) }
    }

    /// Runs work that nobody waits for and that must not be cut off.
    pub(crate) fn detach(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.detach_boxed(Box::pin(work));
    }

    fn detach_boxed(&self, work: Work) {
        let guard = self.guard();
        self.spawn(Box::pin(async move {
            let _guard = guard;
            work.await;
        }));
    }

    /// Runs work that ends with the driver.
    pub(crate) fn background(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.spawn(Box::pin(work))
    }

    /// Moves a stream onto the driver; what comes back can be read on any executor. At most `ahead` items wait.
    pub(crate) fn stream<T: Send + 'static>(
        &self,
        mut source: Pin<Box<dyn Stream<Item = T> + Send>>,
        ahead: usize,
    ) -> Pin<Box<dyn Stream<Item = T> + Send>> {
        let (sender, receiver) = mpsc::channel(ahead);
        self.spawn(Box::pin(async move {
            use futures_util::StreamExt as _;
            loop {
                let item = tokio::select! {
                    item = source.next() => item,
                    () = sender.closed() => None,
                };
                let Some(item) = item else { break };
                if sender.send(item).await.is_err() {
                    break;
                }
            }
        }));
        Box::pin(Received(receiver))
    }
}

/// Work on the driver that goes back to the pool when it wants to ([`blocking::onto_pool`]).
struct Roaming {
    work: Option<Work>,
    spawner: Spawner,
}

impl Future for Roaming {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(work) = &mut self.work else {
            return Poll::Ready(());
        };
        match blocking::poll_movable(work.as_mut(), context) {
            Polled::Ready(()) => Poll::Ready(()),
            Polled::Pending => Poll::Pending,
            Polled::Move => {
                if let Some(work) = self.work.take() {
                    self.spawner.begin(work);
                }
                Poll::Ready(())
            }
        }
    }
}

/// A channel's receiving end as a stream.
pub(crate) struct Received<T>(pub(crate) mpsc::Receiver<T>);

impl<T> Stream for Received<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_recv(cx)
    }
}

/// Where a result comes out.
type Wait = oneshot::Receiver<Result<Parcel>>;

/// An answer on its way. Dropping it drops the work.
#[derive(Debug)]
pub(crate) struct Call<T> {
    wait: Wait,
    abort: Option<AbortHandle>,
    kind: PhantomData<fn() -> T>,
}

impl<T: 'static> Future for Call<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let answer = Pin::new(&mut self.wait).poll(cx);
        answer.map(|answer| answer.unwrap_or_else(|_| Err(closed())).and_then(unpack))
    }
}

impl<T> Drop for Call<T> {
    fn drop(&mut self) {
        if let Some(abort) = &self.abort {
            abort.abort();
        }
    }
}

type Undo = Box<dyn FnOnce(Parcel) + Send>;

/// A result on its way; undone if it is dropped before somebody takes it.
struct Answer {
    result: Option<Result<Parcel>>,
    undo: Option<Undo>,
}

impl Answer {
    fn take(mut self) -> Result<Parcel> {
        self.result.take().unwrap_or_else(|| Err(closed()))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let (Some(Ok(value)), Some(undo)) = (self.result.take(), self.undo.take()) {
            undo(value);
        }
    }
}

/// An answer of work that finishes or undoes itself. Dropping it tells the work that nobody waits any more.
pub(crate) struct Tail<T> {
    wait: oneshot::Receiver<Answer>,
    cancel: Cancel,
    kind: PhantomData<fn() -> T>,
}

impl<T: 'static> Future for Tail<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let answer = Pin::new(&mut self.wait).poll(cx);
        answer.map(|answer| answer.map_or_else(|_| Err(closed()), Answer::take).and_then(unpack))
    }
}

impl<T> Drop for Tail<T> {
    fn drop(&mut self) {
        self.cancel.set();
    }
}

/// What becomes of work whose engine ends first.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Cancelled, "the engine was closed while this was under way")
}

/// Tells work that its caller went away.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cancel(Arc<CancelState>);

#[derive(Debug, Default)]
struct CancelState {
    set: AtomicBool,
    wake: Notify,
}

impl Cancel {
    pub(crate) fn set(&self) {
        self.0.set.store(true, Ordering::Release);
        self.0.wake.notify_waiters();
    }

    /// An error once the caller went away.
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.set.load(Ordering::Acquire) {
            return Err(Error::new(
                ErrorKind::Cancelled,
                "the caller went away; the work was undone",
            ));
        }
        Ok(())
    }

    /// Waits for a future, or for the caller to go away: then the future is dropped.
    pub(crate) async fn or<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let wake = self.0.wake.notified();
        tokio::pin!(wake);
        wake.as_mut().enable();
        self.check()?;
        tokio::select! {
            biased;
            result = work => result,
            () = wake => Err(Error::new(ErrorKind::Cancelled, "the caller went away; the work was undone")),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Waits without any runtime, as an embedder without one would.
    pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
        struct Unpark(thread::Thread);
        impl std::task::Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Arc::new(Unpark(thread::current())).into();
        let mut context = Context::from_waker(&waker);
        let mut future = std::pin::pin!(future);
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return value;
            }
            thread::park();
        }
    }

    #[test]
    fn answers_without_a_runtime() {
        let driver = Driver::start().unwrap();
        assert_eq!(wait(driver.spawner().call(async { Ok(7) })).unwrap(), 7);
    }

    #[test]
    fn a_deadline_drops_the_work() {
        let driver = Driver::start().unwrap();
        let call = driver
            .spawner()
            .call_within(Some(Duration::from_millis(5)), std::future::pending::<Result<()>>());
        assert_eq!(wait(call).unwrap_err().kind(), &ErrorKind::Timeout);
    }

    #[test]
    fn a_result_that_nobody_takes_is_undone() {
        let driver = Driver::start().unwrap();
        let (undone, seen) = std::sync::mpsc::channel();
        let tail = driver.spawner().tail(
            |_| async { Ok(7) },
            move |value| async move { undone.send(value).unwrap() },
        );
        std::thread::sleep(Duration::from_millis(20));
        drop(tail);
        assert_eq!(seen.recv_timeout(Duration::from_secs(5)).unwrap(), 7);
    }

    #[test]
    fn a_dropped_tail_is_told_and_finishes() {
        let driver = Driver::start().unwrap();
        let (done, seen) = std::sync::mpsc::channel();
        let work = move |cancel: Cancel| async move {
            let result = cancel.or(std::future::pending::<Result<()>>()).await;
            let _ = done.send(result.unwrap_err().kind().clone());
            Ok(())
        };
        drop(driver.spawner().tail(work, |()| async {}));
        assert_eq!(seen.recv_timeout(Duration::from_secs(5)).unwrap(), ErrorKind::Cancelled);
    }
}
