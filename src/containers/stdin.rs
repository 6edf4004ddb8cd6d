//! The writers of a stdin. It is closed with the last of them; one that only lets go leaves it open for the next.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, Receiver, Sender, WeakSender};

/// Chunks that may wait.
const AHEAD: usize = 16;

/// This side of a stdin, of a container or a command, from before its start to its end.
#[derive(Debug, Default)]
pub(crate) struct Stdin(Mutex<Ends>, Notify);

#[derive(Debug, Default)]
struct Ends {
    /// Taken by the first writer, given back by one that lets go.
    kept: Option<Sender<Bytes>>,
    /// Leads to the writers, as long as there is one.
    writers: Option<WeakSender<Bytes>>,
    /// Until the start.
    receiver: Option<Receiver<Bytes>>,
}

impl Ends {
    fn open(&mut self) {
        let (sender, receiver) = mpsc::channel(AHEAD);
        self.writers = Some(sender.downgrade());
        self.kept = Some(sender);
        self.receiver = Some(receiver);
    }
}

/// What holds the lock cannot leave the ends half-changed.
fn lock(ends: &Mutex<Ends>) -> MutexGuard<'_, Ends> {
    ends.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stdin {
    /// One more writer. After the last has closed it, it is closed.
    pub(crate) fn writer(&self) -> Sender<Bytes> {
        let mut ends = lock(&self.0);
        if ends.writers.is_none() {
            ends.open();
        }
        let kept = ends.kept.take();
        kept.or_else(|| ends.writers.as_ref()?.upgrade())
            .unwrap_or_else(|| mpsc::channel(1).0)
    }

    /// A writer lets go, and stdin stays open.
    pub(crate) fn keep(&self, sender: Sender<Bytes>) {
        lock(&self.0).kept = Some(sender);
        self.1.notify_one();
    }

    /// Waits until a writer lets go. For whoever passes writers on: stdin stays open where it is then, and not here.
    #[cfg(feature = "engine")]
    pub(crate) async fn let_go(&self) {
        loop {
            if lock(&self.0).kept.take().is_some() {
                return;
            }
            self.1.notified().await;
        }
    }

    /// At the start: what writers send from before it, too.
    pub(crate) fn begin(&self) -> Receiver<Bytes> {
        let mut ends = lock(&self.0);
        if ends.receiver.is_none() {
            ends.open();
        }
        ends.receiver.take().unwrap_or_else(|| mpsc::channel(1).1)
    }

    /// Whether somebody writes already, before there is anything to write to.
    pub(crate) fn is_wanted(&self) -> bool {
        lock(&self.0).writers.is_some()
    }

    /// As [`Stdin::begin`], unless that was done since the last end.
    pub(crate) fn begin_once(&self) -> Option<Receiver<Bytes>> {
        let mut ends = lock(&self.0);
        if ends.writers.is_none() {
            ends.open();
        }
        ends.receiver.take()
    }

    /// The process has ended: writers from now on are those of the next start.
    pub(crate) fn end(&self) {
        *lock(&self.0) = Ends::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_closes_with_its_last_writer() {
        let stdin = Stdin::default();
        let (first, second) = (stdin.writer(), stdin.writer());
        first.send(Bytes::from("a")).await.unwrap();
        let mut receiver = stdin.begin();
        drop(first);
        second.send(Bytes::from("b")).await.unwrap();
        drop(second);
        assert_eq!(receiver.recv().await.unwrap(), "a");
        assert_eq!(receiver.recv().await.unwrap(), "b");
        assert_eq!(receiver.recv().await, None);
        assert!(stdin.writer().send(Bytes::from("c")).await.is_err(), "closed");
        stdin.end();
        let next = stdin.writer();
        let mut receiver = stdin.begin();
        next.send(Bytes::from("d")).await.unwrap();
        assert_eq!(receiver.recv().await.unwrap(), "d");
    }

    #[tokio::test]
    async fn it_stays_open_without_a_writer_and_after_one_that_lets_go() {
        let stdin = Stdin::default();
        let mut receiver = stdin.begin();
        let writer = stdin.writer();
        writer.send(Bytes::from("a")).await.unwrap();
        stdin.keep(writer);
        let writer = stdin.writer();
        writer.send(Bytes::from("b")).await.unwrap();
        drop(writer);
        let mut all = Vec::new();
        while let Some(chunk) = receiver.recv().await {
            all.push(chunk);
        }
        assert_eq!(all, ["a", "b"]);
    }
}
