//! What rusqlite has no words for.

use std::ptr;

use rusqlite::{Connection, ffi};

/// Gives back the memory that a connection holds ready for small allocations (48 KB, whatever it is used for): compiled
/// statements are kept here, so little of it is ever asked for. Best effort: a connection that keeps it works as well.
/// Source: sqlite.org/malloc.html, section 3.4; `SQLITE_DBCONFIG_LOOKASIDE`.
pub(crate) fn without_lookaside(connection: &Connection) {
    // SAFETY: the handle is that of a living connection, which nothing else uses meanwhile (it is not `Sync`), and the three
    // arguments have the types that this operation takes: a pointer, which may be null, and two ints.
    unsafe {
        let none = ptr::null_mut::<std::ffi::c_void>();
        ffi::sqlite3_db_config(connection.handle(), ffi::SQLITE_DBCONFIG_LOOKASIDE, none, 0i32, 0i32);
    }
}
