//! What SQLite's errors mean for a caller.

use std::path::Path;

use nix::sys::statvfs::statvfs;
use rusqlite::ErrorCode;

use crate::error::{Error, ErrorKind, ObjectKind};

/// Converts an error of SQLite; the file is named. Result codes: <https://sqlite.org/rescode.html>.
pub(super) fn from_sqlite(path: &Path, error: rusqlite::Error) -> Error {
    let (kind, what) = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => (ErrorKind::Corrupt, "is damaged"),
        Some(ErrorCode::ReadOnly) => (ErrorKind::ReadOnly, "cannot be written"),
        Some(ErrorCode::DiskFull) => (ErrorKind::NoSpace, "has no space left to grow"),
        Some(ErrorCode::PermissionDenied) => (ErrorKind::Denied, "may not be accessed"),
        Some(ErrorCode::OutOfMemory) => (ErrorKind::Os, "got no memory"),
        Some(ErrorCode::TooBig) => (ErrorKind::InvalidArgument, "takes no record of that size"),
        Some(ErrorCode::FileLockingProtocolFailed) => (ErrorKind::Unavailable, "could not be locked; try again"),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (ErrorKind::Unavailable, "is held by another process for too long")
        }
        // SQLite says so where the file itself does not fit, and calls it a failed operation where its index does not.
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) if is_full(path) => {
            (ErrorKind::NoSpace, "has no space left to grow")
        }
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => (ErrorKind::Os, "cannot be read or written"),
        None if is_bad_value(&error) => (ErrorKind::Corrupt, "has a record that makes no sense"),
        _ => (ErrorKind::Internal, "refused a statement"),
    };
    let name = path.display().to_string();
    Error::new(kind, format!("the database {name} {what}"))
        .with_object(ObjectKind::Root, name)
        .with_step("use the records")
        .with_source(error)
}

/// Whether a connection may not know any more which locks it has: where the kernel did not take one back, SQLite has it for
/// ever and waits for itself, each time, until it says that another has it or that it cannot lock.
/// Source: <https://sqlite.org/rescode.html#protocol>; `unixShmLock` in SQLite's os_unix.c.
pub(super) fn may_have_lost_locks(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_BUSY, SQLITE_IOERR_LOCK, SQLITE_IOERR_RDLOCK, SQLITE_IOERR_UNLOCK, SQLITE_PROTOCOL};
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(
        code,
        Some(SQLITE_BUSY | SQLITE_PROTOCOL | SQLITE_IOERR_LOCK | SQLITE_IOERR_RDLOCK | SQLITE_IOERR_UNLOCK)
    )
}

/// Whether the file system has no room for the next piece of an index, or for another file.
fn is_full(path: &Path) -> bool {
    /// The index beside a journal grows by this. Source: WALINDEX_PGSZ in SQLite's wal.c.
    const PIECE: u64 = 32 << 10;
    let dir = path.parent().unwrap_or(path);
    statvfs(dir).is_ok_and(|found| {
        let room = found.blocks_available().saturating_mul(found.fragment_size());
        room < PIECE || (found.files() > 0 && found.files_available() == 0)
    })
}

fn is_bad_value(error: &rusqlite::Error) -> bool {
    use rusqlite::Error as E;
    matches!(
        error,
        E::FromSqlConversionFailure(..) | E::IntegralValueOutOfRange(..) | E::InvalidColumnType(..) | E::Utf8Error(..)
    )
}

/// A value of a row that does not parse: the record is damaged.
pub(super) fn bad_value(column: usize, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error.into())
}
