//! Small helpers over plain files that several stores share.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use crate::error::{Error, Result};
pub(crate) use crate::sys::blocking::blocking;

/// A random name of so many characters of `[a-z2-7]`, five bits each.
pub(crate) fn random_name(length: usize) -> Result<String> {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut raw = vec![0u8; length];
    crate::sys::random::fill(&mut raw)?;
    Ok(raw.iter().map(|b| char::from(ALPHABET[usize::from(b & 31)])).collect())
}

/// Makes a directory and its parents, private to the user: images hold setuid programs, which no other user of the host
/// may reach by a path outside a container (CVE-2021-41091).
#[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
pub(crate) fn make_dirs(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|e| Error::os(format!("mkdir {}", path.display()), e))
}

/// Replaces a small file as a whole: readers see the old text or the new one.
pub(crate) fn replace(path: &Path, text: &str) -> Result<()> {
    let temporary = path.with_extension(format!("tmp-{}", random_name(8)?));
    let written = File::options()
        .write(true)
        .create_new(true)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            fs::rename(&temporary, path)
        });
    written.map_err(|e| {
        let _ = fs::remove_file(&temporary);
        Error::os(format!("write {}", path.display()), e)
    })
}

/// Reads a small file; `None` if it is not there.
pub(crate) fn read(path: &Path) -> Result<Option<String>> {
    found(fs::read_to_string(path)).map_err(|e| Error::os(format!("read {}", path.display()), e))
}

/// A read of what is buffered: for readers that are [`BufRead`](io::BufRead) in the first place.
pub(crate) fn read_buffered(reader: &mut impl io::BufRead, out: &mut [u8]) -> io::Result<usize> {
    let piece = reader.fill_buf()?;
    let length = piece.len().min(out.len());
    out[..length].copy_from_slice(&piece[..length]);
    reader.consume(length);
    Ok(length)
}

/// Turns "not there" into `None`.
pub(crate) fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes everything of the file system below `dir` to the disk, directory entries included. Blocking.
pub(crate) fn sync_file_system(dir: &Path) -> Result<()> {
    let dir = File::open(dir).map_err(|e| Error::os(format!("open {}", dir.display()), e))?;
    nix::unistd::syncfs(dir.as_fd()).map_err(|e| Error::os("syncfs", e))
}

/// Names in a directory; none if it is not there.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>> {
    let failed = |e: io::Error| Error::os(format!("list {}", dir.display()), e);
    let Some(entries) = found(fs::read_dir(dir)).map_err(failed)? else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(failed)?.file_name().into_string().ok());
    }
    Ok(names)
}

/// Whether an owner's id can stand in a file name: `[a-zA-Z0-9]{1,64}`.
#[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
pub(crate) fn check_owner(owner: &str) -> Result<()> {
    if (1..=64).contains(&owner.len()) && owner.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "invalid owner id {owner:?}: letters and digits, at most 64"
    )))
}
