//! The records: `store.db` for what was acknowledged and survives power loss, `run.db` for what dies with the boot.
//!
//! Each has one connection per [`Store`], behind a mutex. Who writes to both, or must exclude a writer of the other, takes
//! `run.db`'s write lock first and `store.db`'s second; so names, edges and leases cannot change under a removal. A bound
//! container's start never touches `store.db`'s write lock, and so never waits for a disk.

pub mod builds;
pub mod containers;
mod error;
mod event_ring;
pub mod images;
pub mod leases;
pub mod networks;
mod open;
pub mod refs;
mod transaction;
pub mod volumes;

pub(super) use self::images::images_of_copy;
pub(super) use self::open::make_anew;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use tokio::sync::watch;

use self::error::{from_sqlite, may_have_lost_locks};
use self::transaction::Transaction;
use super::{Owners, Root};
use crate::error::{Error, Result};
use crate::events::Event;
use crate::sys::blocking::blocking;

/// The records of a root. Cheap to clone. All methods block for some microseconds, and as long as a writer of another
/// process holds the database; from async code go through [`Store::call`].
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Database,
    run: Database,
    owners: Owners,
    /// Ids of leases whose handle was dropped; the next writer of `run.db` deletes them.
    dropped_leases: Mutex<Vec<String>>,
    /// Number of the last event that this process wrote: wakes subscribers.
    newest_event: watch::Sender<u64>,
}

#[derive(Debug)]
struct Database {
    path: PathBuf,
    /// None where one was given up and another could not be had yet.
    connection: Mutex<Option<Connection>>,
    connect: fn(&Path) -> rusqlite::Result<Connection>,
}

impl Database {
    fn new(path: PathBuf, connection: Connection, connect: fn(&Path) -> rusqlite::Result<Connection>) -> Self {
        Self {
            path,
            connection: Mutex::new(Some(connection)),
            connect,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Connection>> {
        // A panic in between rolled its transaction back; the connection is as good as before.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads, without waiting for writers of other processes.
    fn read<T>(&self, query: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let mut held = self.lock();
        let mut read = query(self.connected(&mut held)?);
        if read.as_ref().is_err_and(may_have_lost_locks) {
            *held = None;
            read = query(self.connected(&mut held)?);
        }
        read.map_err(|error| from_sqlite(&self.path, error))
    }

    /// Runs a write transaction; it is committed if the work succeeds.
    fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure>) -> Result<T> {
        let mut held = self.lock();
        let sql = |error| from_sqlite(&self.path, error);
        let mut begun = Transaction::begin(self.connected(&mut held)?);
        if begun.as_ref().is_err_and(may_have_lost_locks) {
            drop(begun);
            *held = None;
            begun = Transaction::begin(self.connected(&mut held)?);
        }
        let transaction = begun.map_err(sql)?;
        let value = work(&transaction).map_err(|failure| failure.into_error(&self.path))?;
        transaction.commit().map_err(sql)?;
        Ok(value)
    }

    /// The connection; another one in the place of one that did not know any more which locks it had. That one has to be
    /// gone first, and its locks with it.
    fn connected<'a>(&self, held: &'a mut Option<Connection>) -> Result<&'a Connection> {
        let connection = match held.take() {
            Some(connection) => connection,
            None => (self.connect)(&self.path).map_err(|error| from_sqlite(&self.path, error))?,
        };
        Ok(held.insert(connection))
    }
}

/// Why the work of a transaction failed: the database, or the rules.
enum Failure {
    Sql(rusqlite::Error),
    Refused(Error),
}

impl Failure {
    fn into_error(self, path: &Path) -> Error {
        match self {
            Self::Sql(error) => from_sqlite(path, error),
            Self::Refused(error) => error,
        }
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl Store {
    /// Opens both databases of a root, and makes them where there are none. Blocking; takes as long with a million
    /// records as with none.
    ///
    /// # Errors
    /// - `NewerVersion`: a newer version of this crate wrote them
    /// - `Corrupt`: a file is damaged; the error names it
    /// - `NoSpace`, `ReadOnly`, `Os`
    #[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
    pub fn open(root: &Root) -> Result<Self> {
        let store = open::open_store(root)?;
        let run = open::open_run(root)?;
        let (newest_event, _) = watch::channel(0);
        let inner = Inner {
            store: Database::new(root.store_db(), store, open::store_again),
            run: Database::new(root.run_db(), run, open::run_again),
            owners: root.owners(),
            dropped_leases: Mutex::default(),
            newest_event,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Runs blocking work on these records on a thread that may block.
    ///
    /// # Errors
    /// What the work returns.
    ///
    /// # Cancel safety
    /// The work runs to its end once it began.
    pub async fn call<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> Result<T> + Send + 'static) -> Result<T> {
        let store = self.clone();
        blocking(move || work(&store)).await
    }

    /// Runs a write transaction of `run.db`, with an event in it, and wakes subscribers once it is committed.
    fn write_run<'e, T>(
        &self,
        events: impl IntoIterator<Item = &'e Event>,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T> {
        let dropped = self.take_dropped_leases();
        let done = self.inner.run.write(|run| {
            leases::delete(run, &dropped)?;
            let value = work(run)?;
            let mut last = None;
            for event in events {
                last = Some(event_ring::append(run, event)?);
            }
            Ok((value, last))
        });
        if done.is_err() {
            self.put_back_dropped_leases(dropped);
        }
        let (value, seq) = done?;
        if let Some(seq) = seq {
            self.wake(seq);
        }
        Ok(value)
    }

    /// Runs a write transaction of both databases. `store.db` is committed first: what is lost if power fails in between is
    /// an event.
    fn write_both<T>(
        &self,
        event: Option<&Event>,
        work: impl FnOnce(&Transaction<'_>, &Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T> {
        self.write_run(event, |run| Ok(self.inner.store.write(|store| work(run, store))?))
    }
}
