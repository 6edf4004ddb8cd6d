//! What tests stand on: fixtures that are made when needed and gone at the end of the test.

pub mod company;
pub mod disk;
pub mod embedder;
pub mod http;
pub mod image;
pub mod leaks;
pub mod mock;
pub mod patience;
pub mod plugin;
pub mod registry;
pub mod root;
pub mod runtime;
pub mod scratch;
pub mod warnings;
pub mod watch;
pub mod wire;
pub mod world;

use std::path::{Path, PathBuf};

/// Whether the tests run as root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether loops are to be as long as they can be: `LONGSHORE_KILL_LOOPS` has a number.
pub fn long_loops() -> bool {
    std::env::var_os("LONGSHORE_KILL_LOOPS").is_some_and(|loops| !loops.is_empty())
}

/// A program of the host, or why the test must be skipped.
pub fn program(name: &str) -> Result<PathBuf, crate::frame::Stop> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    let found = std::env::split_paths(&path)
        .chain(extra)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file());
    found.map_or_else(|| crate::frame::skip(format!("{name} is not installed")), Ok)
}

/// Names in a directory; none if it cannot be read.
pub fn names_in(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
