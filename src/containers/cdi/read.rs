//! The files of a directory of specifications. Blocking.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::spec::CdiSpec;
use crate::sys::order;

/// Most files of one directory, and the longest file: far beyond what vendors write.
const MOST_FILES: usize = 1000;
const LONGEST: u64 = 4 << 20;

/// The files of a directory that are specifications by their names, in order, and what is wrong with it. One that is not there has
/// none.
pub(super) fn files(directory: &Path) -> (Vec<PathBuf>, Option<(PathBuf, String)>) {
    let fault = |why: String| Some((directory.to_owned(), why));
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return (Vec::new(), None),
        Err(error) => return (Vec::new(), fault(error.to_string())),
    };
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let named = paths.filter(|path| path.extension().is_some_and(|end| end == "json" || end == "yaml"));
    let mut found: Vec<PathBuf> = named.take(MOST_FILES + 1).collect();
    order::sort_by(&mut found, |one: &PathBuf, other| one.cmp(other));
    let too_many = found.len() > MOST_FILES;
    found.truncate(MOST_FILES);
    (
        found,
        too_many
            .then(|| fault(format!("more than {MOST_FILES} files")))
            .flatten(),
    )
}

/// A specification; the error says why it is none.
pub(super) fn file(path: &Path) -> Result<CdiSpec, String> {
    let bytes = bytes(path)?;
    let is_yaml = path.extension().is_some_and(|end| end == "yaml");
    // Every JSON is YAML.
    CdiSpec::read(&bytes).map_err(|why| match is_yaml {
        true => format!("only JSON is read here, not YAML; as JSON: {why}"),
        false => why,
    })
}

/// Of a plain file: a pipe could hold whoever opens it.
fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = opened.map_err(|error| error.to_string())?;
    if !file.metadata().is_ok_and(|seen| seen.is_file()) {
        return Err("no plain file".to_owned());
    }
    let mut bytes = Vec::new();
    let read = file.take(LONGEST + 1).read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > LONGEST {
        return Err(format!("more than {LONGEST} bytes"));
    }
    Ok(bytes)
}
