//! Deletes trees that a hostile layer made: any depth, with few descriptors and no recursion beyond a bound.

use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::storage::files::{found, random_name};

/// Below this depth, directories are moved up before they are entered, so that paths stay short.
const FLAT: usize = 32;

/// Deletes a file or a tree. What is gone already is success.
pub(crate) fn tree(path: &Path) -> Result<()> {
    let failed = |e| Error::os(format!("delete {}", path.display()), e);
    // Most directories are empty, and then this is all.
    match fs::remove_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
            return found(fs::remove_file(path)).map(drop).map_err(failed);
        }
        Err(e) if e.raw_os_error() == Some(libc::ENOTEMPTY) => {}
        other => return found(other).map(drop).map_err(failed),
    }
    // Directories moved up appear behind the reader's back: again until nothing is left.
    loop {
        clear(path, path, 0).map_err(failed)?;
        match found(fs::remove_dir(path)) {
            Err(e) if e.raw_os_error() == Some(libc::ENOTEMPTY) => {}
            other => return other.map(drop).map_err(failed),
        }
    }
}

/// Deletes of overlay's scratch directory what the kernel makes there at a mount (a volatile one leaves a file in three
/// directories within each other), if it holds nothing else: without a look at what there is. The rest is for [`tree`].
pub(crate) fn scratch(work: &Path) {
    let _ = fs::remove_file(work.join("work/incompat/volatile/dirty"));
    for part in ["work/incompat/volatile", "work/incompat", "work", ""] {
        match fs::remove_dir(work.join(part)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return,
            _ => {}
        }
    }
}

fn clear(top: &Path, dir: &Path, depth: usize) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            // Ours, but locked by its mode.
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
            fs::read_dir(dir)?
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    // Only names are kept, so that no descriptor stays open on the way down.
    let entries = entries.collect::<io::Result<Vec<_>>>()?;
    entries.iter().try_for_each(|entry| remove(top, dir, entry, depth))
}

fn remove(top: &Path, dir: &Path, entry: &DirEntry, depth: usize) -> io::Result<()> {
    let path = entry.path();
    if !entry.file_type()?.is_dir() {
        return unlock(dir, || found(fs::remove_file(&path)).map(drop));
    }
    if depth < FLAT {
        match unlock(dir, || found(fs::remove_dir(&path)).map(drop)) {
            Err(e) if e.raw_os_error() == Some(libc::ENOTEMPTY) => {}
            other => return other,
        }
        clear(top, &path, depth + 1)?;
        return unlock(dir, || match found(fs::remove_dir(&path)) {
            Err(e) if e.raw_os_error() == Some(libc::ENOTEMPTY) => Ok(()),
            other => other.map(drop),
        });
    }
    let name = random_name(16).map_err(io::Error::other)?;
    let up: PathBuf = top.join(name);
    let _ = fs::set_permissions(&path, fs::Permissions::from_mode(0o700));
    unlock(dir, || found(fs::rename(&path, &up)).map(drop))
}

/// Tries again with the directory made writable.
fn unlock(dir: &Path, work: impl Fn() -> io::Result<()>) -> io::Result<()> {
    match work() {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
            work()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_of_an_overlay_goes_if_it_is_as_the_kernel_makes_it() {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path().join("w");
        for shape in ["w", "w/work", "w/work/incompat/volatile"] {
            fs::create_dir_all(dir.path().join(shape)).unwrap();
            if shape.ends_with("volatile") {
                fs::write(dir.path().join(shape).join("dirty"), "").unwrap();
            }
            scratch(&work);
            assert!(!work.exists(), "{shape}");
        }
        fs::create_dir_all(work.join("work/incompat/volatile")).unwrap();
        fs::write(work.join("work/#1"), "").unwrap();
        scratch(&work);
        assert!(work.join("work/#1").exists());
        tree(&work).unwrap();
        assert!(!work.exists());
    }

    #[test]
    fn deep_trees_go() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("t");
        fs::create_dir(&top).unwrap();
        // Deeper than PATH_MAX: built by moving what is there under a new directory.
        for _ in 0..1500 {
            let up = dir.path().join("up");
            fs::create_dir(&up).unwrap();
            fs::rename(&top, up.join("ddd")).unwrap();
            fs::rename(&up, &top).unwrap();
        }
        fs::write(top.join("file"), "").unwrap();
        tree(&top).unwrap();
        tree(&top).unwrap();
        assert!(!top.exists());
    }
}
