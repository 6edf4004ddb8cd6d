//! Another root, which is only read: its images, blobs and layers stand beside those of the root that is open.
//!
//! Its database is never opened where it is: SQLite makes files beside one that it reads. A copy is read instead, and taken
//! again when the database has changed.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::unistd::geteuid;

use super::db::images::OtherImage;
use super::layout::{self, Root};
use crate::error::{Error, ErrorKind, ObjectKind, Result};

/// The database, and what was committed to it and not moved into it yet.
const FILES: [&str; 2] = ["store.db", "store.db-wal"];

/// How often the database is copied that is written meanwhile.
const TRIES: usize = 20;

/// Device, inode, size and time of a file, if it is there: what no change leaves as it was.
type Stamp = [Option<(u64, u64, u64, i64, i64)>; FILES.len()];

/// A root that is only read. Its owner may go on using it.
#[derive(Debug)]
pub struct OtherRoot {
    path: PathBuf,
    uid: u32,
    /// Where copies are put for a moment.
    own: Root,
    known: Mutex<(Stamp, Arc<Vec<OtherImage>>)>,
}

impl OtherRoot {
    /// Looks at another root, which is never written to. Blocking.
    ///
    /// # Errors
    /// - `NotFound`: nothing is there
    /// - `InvalidArgument`: it is no engine's root directory, or the one that is open
    /// - `NewerVersion`: a newer version of this crate made it
    /// - `Corrupt`: it is damaged
    /// - `Denied`, `Os`
    pub fn open(path: &Path, own: &Root) -> Result<Self> {
        let named = |error: Error| match error.object() {
            Some(_) => error,
            None => error.with_object(ObjectKind::Root, path.display().to_string()),
        };
        Self::open_named(path, own).map_err(|error| named(error).context("open an additional store"))
    }

    fn open_named(path: &Path, own: &Root) -> Result<Self> {
        let path = match fs::canonicalize(path) {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::not_found(ObjectKind::Root, path.display().to_string()));
            }
            Err(error) => return Err(Error::os(format!("resolve {}", path.display()), error)),
        };
        if path == own.path() {
            let message = format!("{} is the root directory itself", path.display());
            return Err(Error::invalid(message));
        }
        let uid = layout::check_other(&path)?;
        let (stamp, images) = read(&path, own)?;
        Ok(Self {
            path,
            uid,
            own: own.clone(),
            known: Mutex::new((stamp, images)),
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it belongs to this process's user.
    pub fn is_mine(&self) -> bool {
        self.uid == geteuid().as_raw()
    }

    /// Where its blobs are.
    pub fn content(&self) -> PathBuf {
        self.path.join("content")
    }

    /// Where its layers are.
    pub fn snapshots(&self) -> PathBuf {
        self.path.join("snapshots")
    }

    /// The backend that it was made with.
    ///
    /// # Errors
    /// `Os`.
    pub fn backend(&self, seam: &str) -> Result<Option<String>> {
        layout::backend_in(&self.path, seam)
    }

    /// Its images, as they are now. Where it can be read no more, those that were known last. Blocking.
    pub fn images(&self) -> Arc<Vec<OtherImage>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match stamp(&self.path) {
            Ok(now) if now == known.0 => return Arc::clone(&known.1),
            _ => {}
        }
        match read(&self.path, &self.own) {
            Ok(read) => *known = read,
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%path, error = error.report(), "an additional store cannot be read any more");
            }
        }
        Arc::clone(&known.1)
    }
}

/// Reads a copy that nobody wrote to while it was made.
fn read(path: &Path, own: &Root) -> Result<(Stamp, Arc<Vec<OtherImage>>)> {
    for _ in 0..TRIES {
        let before = stamp(path)?;
        let copy = Copy::of(path, own)?;
        if stamp(path)? == before {
            let images = super::db::images_of_copy(&copy.file, &path.join(FILES[0]))?;
            return Ok((before, Arc::new(images)));
        }
    }
    let message = format!("{} is being written all the time", path.join(FILES[0]).display());
    Err(Error::new(ErrorKind::Unavailable, message).with_object(ObjectKind::Root, path.display().to_string()))
}

fn stamp(path: &Path) -> Result<Stamp> {
    let mut stamp = Stamp::default();
    for (at, name) in FILES.iter().enumerate() {
        stamp[at] = match fs::metadata(path.join(name)) {
            Ok(meta) => Some((meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::os(format!("look at {name}"), error)),
        };
    }
    Ok(stamp)
}

/// A copy of the database in the root that is open. What a killed process leaves of it is tidied up with other temporary
/// files.
struct Copy {
    file: PathBuf,
}

impl Copy {
    fn of(path: &Path, own: &Root) -> Result<Self> {
        let copy = Self {
            file: layout::temporary_in(own.path())?,
        };
        for (name, suffix) in FILES.iter().zip(["", "-wal"]) {
            match fs::copy(path.join(name), with_suffix(&copy.file, suffix)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound && !suffix.is_empty() => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let message = format!("{} has no database", path.display());
                    return Err(Error::new(ErrorKind::Corrupt, message));
                }
                Err(error) => return Err(Error::os(format!("copy {name} of {}", path.display()), error)),
            }
        }
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(with_suffix(&self.file, suffix));
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
