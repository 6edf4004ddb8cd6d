//! A root that cannot be opened, made one that can.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::layout::{self, Root};
use super::{Store, db};
use crate::error::{Error, ErrorKind, ObjectKind, Result};

/// How long an engine that ended may still be clearing up.
const LINGER: Duration = Duration::from_secs(3);

/// See [`Engine::repair`](crate::Engine::repair). Blocking.
pub(crate) fn repair(path: &Path) -> Result<Vec<String>> {
    let named = |error: Error| match error.object() {
        Some(_) => error,
        None => error.with_object(ObjectKind::Root, path.display().to_string()),
    };
    repair_root(path).map_err(named)
}

fn repair_root(path: &Path) -> Result<Vec<String>> {
    let mut done = Vec::new();
    if layout::repair_version(path)? {
        done.push("the file that says the root's version was written again".to_owned());
    }
    let root = Root::open(path)?;
    for name in root.repair_backends()? {
        done.push(format!("the recorded choice {name} was written again"));
    }
    let Err(error) = Store::open(&root) else {
        return Ok(done);
    };
    if is_of_the_host(&error) {
        return Err(error);
    }
    refuse_in_use(&root)?;
    // An index of a journal that is not there keeps the database from being read.
    if !root.path().join("store.db-wal").exists() {
        remove(&root.path().join("store.db-shm"))?;
    }
    // What dies with the boot anyway; nobody is there whose it could be.
    for name in ["run.db", "run.db-wal", "run.db-shm", "run.boot"] {
        remove(&root.path().join(name))?;
    }
    if let Err(error) = Store::open(&root) {
        if !matches!(error.kind(), ErrorKind::Corrupt) {
            return Err(error);
        }
        let aside = put_aside(&root)?;
        root.note_lost_records()?;
        db::make_anew(&root)?;
        let kept = aside.map_or_else(String::new, |aside| {
            format!(", and what was there put aside as {}", aside.display())
        });
        done.push(format!("the database of records was made anew{kept}"));
    } else {
        done.push("the database of this boot was made anew".to_owned());
    }
    Ok(done)
}

/// What no repair of a file changes.
fn is_of_the_host(error: &Error) -> bool {
    use ErrorKind::{Denied, NewerVersion, NoSpace, ReadOnly};
    matches!(error.kind(), Denied | NewerVersion | NoSpace | ReadOnly)
}

fn refuse_in_use(root: &Root) -> Result<()> {
    let begun = Instant::now();
    while is_in_use(root)? {
        if begun.elapsed() > LINGER {
            let message = format!(
                "the root {} is open in an engine: end that first",
                root.path().display()
            );
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn is_in_use(root: &Root) -> Result<bool> {
    let owners = root.owners();
    for owner in owners.list()? {
        if owners.is_alive(&owner)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::os(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// The database with its journal, under names that tell when: nothing is thrown away that somebody may still read.
fn put_aside(root: &Root) -> Result<Option<PathBuf>> {
    let from = root.store_db();
    let stamp = fs::metadata(&from).map_or(0, |metadata| metadata.ino());
    let to = from.with_file_name(format!("store.db.damaged-{stamp}"));
    let mut moved = false;
    for suffix in ["", "-wal", "-shm"] {
        let name = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        match fs::rename(name(&from), name(&to)) {
            Ok(()) => moved = true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::os("put the damaged database aside", error)),
        }
    }
    Ok(moved.then_some(to))
}
