//! One directory for everything that a run of the tests writes.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;

static SCRATCH: OnceLock<PathBuf> = OnceLock::new();

/// Makes the directory; it is removed when the value is dropped.
pub fn enter() -> TempDir {
    let dir = tempfile::Builder::new()
        .prefix("longshore-it-")
        .tempdir()
        .expect("a temporary directory");
    SCRATCH.set(dir.path().to_path_buf()).expect("entered once");
    dir
}

/// The directory of this run.
pub fn dir() -> &'static Path {
    SCRATCH.get().expect("entered by main")
}

/// The same, where this process has entered it: a role has it from its parent.
pub fn entered() -> Option<&'static Path> {
    SCRATCH.get().map(PathBuf::as_path)
}

/// A fresh directory in it.
pub fn fresh(what: &str) -> TempDir {
    tempfile::Builder::new()
        .prefix(&format!("{what}-"))
        .tempdir_in(dir())
        .expect("a directory in the scratch directory")
}
