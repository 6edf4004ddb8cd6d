//! Opening a database: pragmas, first creation, migrations, the boot that `run.db` belongs to.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::error::from_sqlite;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::store::layout::create_atomically;
use crate::store::{LockGuard, Root};
use crate::sys::boot;
use crate::sys::sqlite::without_lookaside;

/// How long a writer waits for writers of other processes. Transactions take microseconds; a disk that syncs slowly makes
/// it milliseconds, times the processes in the queue.
const BUSY: Duration = Duration::from_secs(30);

/// How many compiled statements are kept: all that a container's life needs.
const STATEMENTS: usize = 64;

/// Numbered files, in order. A migration is never edited once it was released.
const STORE_MIGRATIONS: [&str; 5] = [
    include_str!("migrations/store/0001_init.sql"),
    include_str!("migrations/store/0002_platforms.sql"),
    include_str!("migrations/store/0003_volumes.sql"),
    include_str!("migrations/store/0004_networks.sql"),
    include_str!("migrations/store/0005_builds.sql"),
];
const RUN_MIGRATIONS: [&str; 3] = [
    include_str!("migrations/run/0001_init.sql"),
    include_str!("migrations/run/0002_volumes.sql"),
    include_str!("migrations/run/0003_networks.sql"),
];

struct Schema {
    lock: &'static str,
    migrations: &'static [&'static str],
    /// Whether a commit returns only when it is on disk.
    durable: bool,
}

const STORE: Schema = Schema {
    lock: "store.db",
    migrations: &STORE_MIGRATIONS,
    durable: true,
};
const RUN: Schema = Schema {
    lock: "run.db",
    migrations: &RUN_MIGRATIONS,
    durable: false,
};

#[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
pub(super) fn open_store(root: &Root) -> Result<Connection> {
    refuse_lost_file(root)?;
    open(root, &root.store_db(), &STORE)
}

/// Makes an empty database, where the one that was there is lost.
pub(in crate::store) fn make_anew(root: &Root) -> Result<()> {
    let path = root.store_db();
    let named = |error| from_sqlite(&path, error);
    let mut connection = connect(&path, &STORE).map_err(named)?;
    let _lock = lock(root, STORE.lock)?;
    connection.pragma_update(None, "journal_mode", "wal").map_err(named)?;
    migrate(&mut connection, &path, &STORE)?;
    // The tables must be in the file itself: a shell with a journal is taken for a lost database.
    connection
        .pragma_update(None, "wal_checkpoint", "truncate")
        .map_err(named)?;
    connection.close().map_err(|(_, error)| named(error))
}

/// A root that was in use has a database with something in it: an empty one would be filled anew, and whatever it recorded
/// be lost without a word. SQLite must not open such a file: it would throw the journal beside it away.
fn refuse_lost_file(root: &Root) -> Result<()> {
    let path = root.store_db();
    match fs::metadata(&path) {
        Ok(found) if found.len() > 0 => Ok(()),
        Ok(_) => refuse_if_used(root, "is empty"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => refuse_if_used(root, "is missing"),
        Err(error) => Err(Error::os(format!("look at {}", path.display()), error)),
    }
}

/// An engine records its backends right after its databases, and puts nothing into them before: so nothing that was
/// acknowledged can be missing from a root without such a record.
fn refuse_if_used(root: &Root, what: &str) -> Result<()> {
    if !root.has_backends()? {
        return Ok(());
    }
    let (name, path) = (root.store_db().display().to_string(), root.path().display());
    let message = format!(
        "the database {name} {what}, though this root was in use: put it back (with {name}-wal, if there is one) from a \
         backup; or, to give up what it recorded, remove {path} and pull the images again"
    );
    Err(Error::new(ErrorKind::Corrupt, message).with_object(ObjectKind::Root, name))
}

/// A copy of another root's database, with this program's tables. Errors name the original.
pub(super) fn open_copy(copy: &Path, original: &Path) -> Result<Connection> {
    let named = |error| from_sqlite(original, error);
    let mut connection = connect(copy, &RUN).map_err(named)?;
    if user_version(&connection).map_err(named)? == 0 {
        let message = format!("{} has no tables", original.display());
        return Err(
            Error::new(ErrorKind::Corrupt, message).with_object(ObjectKind::Root, original.display().to_string())
        );
    }
    migrate(&mut connection, original, &STORE)?;
    Ok(connection)
}

#[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
pub(super) fn open_run(root: &Root) -> Result<Connection> {
    let boot = boot::text()?;
    if !belongs_to(root, &boot)? {
        begin_boot(root, &boot)?;
    }
    open(root, &root.run_db(), &RUN)
}

fn boot_file(root: &Root) -> PathBuf {
    root.path().join("run.boot")
}

/// The boot id stands beside the database, not in it: the file is never synced, so after power loss it may be damaged,
/// and must be thrown away without being read.
fn belongs_to(root: &Root, boot: &str) -> Result<bool> {
    match fs::read_to_string(boot_file(root)) {
        Ok(text) => Ok(text.trim_ascii() == boot),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => Ok(false),
        Err(error) => Err(Error::os("read the boot id of run.db", error)),
    }
}

/// Drops what another boot left. Nobody of this boot has the database open: each would have done this first.
fn begin_boot(root: &Root, boot: &str) -> Result<()> {
    let _lock = lock(root, RUN.lock)?;
    if belongs_to(root, boot)? {
        return Ok(());
    }
    for name in ["run.db", "run.db-wal", "run.db-shm", "run.boot"] {
        remove_if_there(&root.path().join(name))?;
    }
    create_atomically(&boot_file(root), boot.as_bytes())
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::os(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

fn lock(root: &Root, name: &str) -> Result<LockGuard> {
    root.locks().lock_blocking(name)
}

fn open(root: &Root, path: &Path, schema: &Schema) -> Result<Connection> {
    let named = |error| from_sqlite(path, error);
    let mut connection = connect(path, schema).map_err(named)?;
    let found = user_version(&connection).map_err(named)?;
    if found == 0 {
        // Only creation changes the journal's mode, and SQLite lets nobody wait for that: so it happens under a lock.
        let _lock = lock(root, schema.lock)?;
        if schema.durable && user_version(&connection).map_err(named)? == 0 {
            // The first commits live in the journal alone until they are copied: whoever deletes that leaves a shell.
            refuse_if_used(root, "lacks its tables")?;
        }
        connection.pragma_update(None, "journal_mode", "wal").map_err(named)?;
        migrate(&mut connection, path, schema)?;
        return Ok(connection);
    }
    if found != schema.migrations.len() {
        migrate(&mut connection, path, schema)?;
    }
    Ok(connection)
}

fn connect(path: &Path, schema: &Schema) -> rusqlite::Result<Connection> {
    connect_with(
        path,
        schema,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
    )
}

fn connect_with(path: &Path, schema: &Schema, flags: OpenFlags) -> rusqlite::Result<Connection> {
    // Our own mutex guards the connection, so SQLite's is left out.
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    without_lookaside(&connection);
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // A plan that might be better for this value is looked for each time else: a statement is prepared anew with each use.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.execute_batch(if schema.durable {
        "PRAGMA synchronous = full"
    } else {
        "PRAGMA synchronous = off"
    })?;
    Ok(connection)
}

/// Another connection to a database that is open here.
pub(super) fn store_again(path: &Path) -> rusqlite::Result<Connection> {
    connect_with(path, &STORE, OpenFlags::SQLITE_OPEN_READ_WRITE)
}

/// Another connection to a database that is open here.
pub(super) fn run_again(path: &Path) -> rusqlite::Result<Connection> {
    connect_with(path, &RUN, OpenFlags::SQLITE_OPEN_READ_WRITE)
}

fn user_version(connection: &Connection) -> rusqlite::Result<usize> {
    connection
        .query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0))
        .map(|version| version as usize)
}

fn migrate(connection: &mut Connection, path: &Path, schema: &Schema) -> Result<()> {
    let named = |error| from_sqlite(path, error);
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(named)?;
    let found = user_version(&transaction).map_err(named)?;
    let known = schema.migrations.len();
    if found > known {
        return Err(newer(path, found, known));
    }
    for (number, sql) in schema.migrations.iter().enumerate().skip(found) {
        transaction.execute_batch(sql).map_err(named)?;
        transaction
            .pragma_update(None, "user_version", (number + 1) as u32)
            .map_err(named)?;
    }
    transaction.commit().map_err(named)
}

fn newer(path: &Path, found: usize, known: usize) -> Error {
    let name = path.display().to_string();
    let message = format!("the database {name} has version {found}, and this program knows up to {known}");
    Error::new(ErrorKind::NewerVersion, message).with_object(ObjectKind::Root, name)
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    #[test]
    fn a_statement_that_is_kept_is_prepared_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let mut connection = connect(&path, &STORE).unwrap();
        migrate(&mut connection, &path, &STORE).unwrap();
        for name in ["one", "another", "a third"] {
            let mut query = connection.prepare_cached(super::super::images::BY_NAME).unwrap();
            assert!(query.query([name]).unwrap().next().unwrap().is_none());
        }
        let query = connection.prepare_cached(super::super::images::BY_NAME).unwrap();
        assert_eq!(query.get_status(StatementStatus::RePrepare), 0);
    }
}
