//! The directories that commands mount as caches (`RUN --mount=type=cache`): shared by all builds of a root, and forgotten
//! when nobody uses them.
//!
//! Who uses one holds its file `lock` shared, and takes that under the lock `cache-made-NAME`. A prune takes both, so that
//! nothing goes that is in use, or is about to be.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::{Flock, FlockArg};

use crate::error::{Error, Result};
use crate::storage::files::random_name;
use crate::storage::ownership::Ownership;
use crate::storage::snapshot::{delete_tree, usage_of};
use crate::store::Locks;

/// What is about to go has such a name.
const GONE: &str = ".gone-";
const LOCK: &str = "lock";

/// A directory that commands of builds mount as a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CachedMount {
    /// Its name: the digest of its id, in hexadecimal digits.
    pub name: String,
    /// What is in it, in bytes.
    pub size_bytes: u64,
    /// When a command last had it.
    pub used: SystemTime,
}

/// Holds a cache for as long as a command has it. Under the lock `cache-made-NAME`. Blocking.
pub(in crate::build) fn share(dir: &Path) -> Result<Flock<File>> {
    let file = open_lock(dir)?;
    // It only says when that was.
    let _ = file.set_modified(SystemTime::now());
    Flock::lock(file, FlockArg::LockShared).map_err(|(_, errno)| Error::os("hold a cache", errno))
}

fn open_lock(dir: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let failed = |error| Error::os("open the lock of a cache", error);
    options.open(dir.join(LOCK)).map_err(failed)
}

/// All of them, what was used last coming last. Blocking.
pub(super) fn list(caches: &Path) -> Result<Vec<CachedMount>> {
    let mut found = Vec::new();
    for (name, dir) in entries(caches)? {
        if name.starts_with('.') {
            continue;
        }
        // It may go meanwhile.
        let Ok(usage) = usage_of(&dir) else { continue };
        let lock = fs::metadata(dir.join(LOCK)).or_else(|_| fs::metadata(&dir));
        let used = lock.and_then(|lock| lock.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        found.push(CachedMount {
            name,
            size_bytes: usage.bytes,
            used,
        });
    }
    found.sort_by(|one, other| (one.used, &one.name).cmp(&(other.used, &other.name)));
    Ok(found)
}

/// Removes those that nobody has now, and says which. What an earlier prune could not end goes, too. Blocking.
pub(super) fn remove(caches: &Path, names: &[String], locks: &Locks, layers: &Ownership) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for name in names {
        if take_away(caches, name, locks)? {
            removed.push(name.clone());
        }
    }
    for (_, dir) in entries(caches)?.into_iter().filter(|(name, _)| name.starts_with(GONE)) {
        match layers {
            Ownership::Mapped(privileged) => privileged.remove_tree(&dir)?,
            _ => delete_tree(&dir)?,
        }
    }
    Ok(removed)
}

/// Gives a cache a name that nobody looks for, unless somebody has it.
fn take_away(caches: &Path, name: &str, locks: &Locks) -> Result<bool> {
    let dir = caches.join(name);
    let Some(_making) = locks.try_lock(&format!("cache-made-{name}"))? else {
        return Ok(false);
    };
    if !dir.is_dir() {
        return Ok(false);
    }
    let Ok(_held) = Flock::lock(open_lock(&dir)?, FlockArg::LockExclusiveNonblock) else {
        return Ok(false);
    };
    let away = caches.join(format!("{GONE}{}", random_name(16)?));
    fs::rename(&dir, away).map_err(|error| Error::os("remove a cache of builds", error))?;
    Ok(true)
}

fn entries(caches: &Path) -> Result<Vec<(String, PathBuf)>> {
    let read = match fs::read_dir(caches) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(|error| Error::os("list the caches of builds", error))?,
    };
    let named = |entry: fs::DirEntry| Some((entry.file_name().into_string().ok()?, entry.path()));
    Ok(read.flatten().filter_map(named).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Root;

    fn cache(caches: &Path, name: &str) -> PathBuf {
        let dir = caches.join(name);
        fs::create_dir_all(dir.join("files")).unwrap();
        fs::write(dir.join("files/x"), vec![7; 100_000]).unwrap();
        dir
    }

    #[test]
    fn f11_what_somebody_has_stays_and_the_rest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(&dir.path().join("root")).unwrap();
        let (caches, locks) = (dir.path().join("caches"), root.locks());
        assert_eq!(list(&caches).unwrap(), [], "there are none at first");
        assert_eq!(
            remove(&caches, &["x".into()], &locks, &Ownership::Direct).unwrap(),
            [""; 0]
        );
        let (used, idle, making) = (cache(&caches, "used"), cache(&caches, "idle"), cache(&caches, "making"));
        // What a prune that was killed has left.
        cache(&caches, ".gone-before");
        let (share, again) = (share(&used).unwrap(), share(&used).unwrap());
        let made = locks.try_lock("cache-made-making").unwrap().unwrap();
        let found = list(&caches).unwrap();
        assert!(found.iter().all(|mount| mount.size_bytes >= 100_000), "{found:?}");
        let mut names: Vec<String> = found.into_iter().map(|mount| mount.name).collect();
        names.sort();
        assert_eq!(names, ["idle", "making", "used"]);
        let gone = |names: &[String]| remove(&caches, names, &locks, &Ownership::Direct).unwrap();
        assert_eq!(gone(&names), ["idle"]);
        assert!(!idle.exists() && !caches.join(".gone-before").exists());
        assert!(used.join("files/x").exists() && making.join("files/x").exists());
        drop((share, made));
        assert_eq!(gone(&names), ["making"], "of two that have it one still does");
        drop(again);
        assert_eq!(gone(&names), ["used"]);
        assert_eq!(fs::read_dir(&caches).unwrap().count(), 0);
    }

    #[test]
    fn f11_what_was_used_last_comes_last() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            cache(dir.path(), name);
        }
        for (number, name) in ["b", "c", "a"].into_iter().enumerate() {
            let held = share(&dir.path().join(name)).unwrap();
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000 + number as u64);
            held.set_modified(at).unwrap();
        }
        let names: Vec<String> = list(dir.path()).unwrap().into_iter().map(|mount| mount.name).collect();
        assert_eq!(names, ["b", "c", "a"]);
    }
}
