//! What SQLite's errors mean for a caller.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::error::{Error, ErrorKind, ObjectKind};

/// Converts an error of SQLite; the file is named. Result codes: <https://sqlite.org/rescode.html>.
pub(super) fn from_sqlite(path: &Path, error: rusqlite::Error) -> Error {
    let (kind, what) = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => (ErrorKind::Corrupt, "is damaged"),
        Some(ErrorCode::ReadOnly) => (ErrorKind::ReadOnly, "cannot be written"),
        Some(ErrorCode::DiskFull) => (ErrorKind::NoSpace, "has no space left to grow"),
        Some(ErrorCode::PermissionDenied) => (ErrorKind::Denied, "may not be accessed"),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (ErrorKind::Unavailable, "is held by another process for too long")
        }
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => (ErrorKind::Os, "cannot be read or written"),
        None if is_bad_value(&error) => (ErrorKind::Corrupt, "has a record that makes no sense"),
        _ => (ErrorKind::Internal, "refused a statement"),
    };
    let name = path.display().to_string();
    Error::new(kind, format!("the database {name} {what}"))
        .with_object(ObjectKind::Root, name)
        .with_source(error)
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
