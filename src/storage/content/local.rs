//! Blobs as plain files: `blobs/sha256/<hex>`, written as `ingest/<owner>-<random>` and renamed into place.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::{BlobInfo, ContentStore, Ingest};
use crate::error::{Error, ObjectKind, Result};
use crate::storage::files::{self, blocking, check_owner, found, random_name};
use crate::types::{Digest, Hasher, Outcome};

/// When blobs reach the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// All at once, by [`ContentStore::sync`], before the record that names them is written. One wait per image.
    #[default]
    Lazy,
    /// Each blob's data and directory entry before its commit returns.
    EachBlob,
}

/// Blobs in a directory, shared by any number of processes.
#[derive(Debug, Clone)]
pub struct LocalContent {
    blobs: PathBuf,
    ingest: PathBuf,
    owner: String,
    durability: Durability,
}

impl LocalContent {
    /// Opens (and makes) a store under `dir`. `owner` marks unfinished files, so that a sweeper can tell whose they are.
    /// Blocking, but only for a few `mkdir` calls.
    ///
    /// # Errors
    /// `InvalidArgument` for an owner that is not `[a-zA-Z0-9]{1,64}`; `ReadOnly`, `Denied`, `NoSpace` or `Os`.
    pub fn open(dir: impl AsRef<Path>, owner: impl Into<String>) -> Result<Self> {
        let (dir, owner) = (dir.as_ref(), owner.into());
        check_owner(&owner)?;
        let store = Self {
            blobs: dir.join("blobs/sha256"),
            ingest: dir.join("ingest"),
            owner,
            durability: Durability::default(),
        };
        files::make_dirs(&store.blobs)?;
        files::make_dirs(&store.ingest)?;
        Ok(store)
    }

    /// Chooses when blobs reach the disk.
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Removes unfinished files whose owner is dead; returns how many. Blocking.
    ///
    /// # Errors
    /// `Os` if the directory cannot be listed or a file cannot be removed.
    pub fn sweep(&self, alive: &dyn Fn(&str) -> bool) -> Result<usize> {
        let mut removed = 0;
        for name in files::names(&self.ingest)? {
            let dead = name.split_once('-').is_none_or(|(owner, _)| !alive(owner));
            if !dead {
                continue;
            }
            let gone = found(fs::remove_file(self.ingest.join(&name)));
            removed += usize::from(gone.map_err(|e| Error::os(format!("remove {name}"), e))?.is_some());
        }
        Ok(removed)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    fn begin(&self, expected: Option<Digest>, size: Option<u64>) -> Result<LocalIngest> {
        let path = self.ingest.join(format!("{}-{}", self.owner, random_name(16)?));
        let file = File::options()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|e| Error::os("make ingest file", e))?;
        let (blobs, durability) = (self.blobs.clone(), self.durability);
        Ok(LocalIngest {
            file,
            path,
            blobs,
            hasher: Hasher::default(),
            written: 0,
            expected,
            size,
            durability,
        })
    }
}

/// A blob being written to its temporary file.
#[derive(Debug)]
struct LocalIngest {
    file: File,
    path: PathBuf,
    blobs: PathBuf,
    hasher: Hasher,
    written: u64,
    expected: Option<Digest>,
    size: Option<u64>,
    durability: Durability,
}

impl LocalIngest {
    fn publish(&self, digest: &Digest) -> Result<()> {
        let target = self.blobs.join(digest.hex());
        if self.durability == Durability::EachBlob {
            self.file.sync_data().map_err(|e| Error::os("fdatasync blob", e))?;
        }
        // Over what may be there: these bytes were checked a moment ago, those may have lost theirs with the power.
        fs::rename(&self.path, &target).map_err(|e| Error::os("rename blob into place", e))?;
        if self.durability == Durability::EachBlob {
            let dir = File::open(&self.blobs).map_err(|e| Error::os("open blobs", e))?;
            dir.sync_all().map_err(|e| Error::os("fsync blobs", e))?;
        }
        Ok(())
    }
}

impl Ingest for LocalIngest {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        super::check_room(self.expected.as_ref(), self.size, self.written, bytes.len())?;
        self.file.write_all(bytes).map_err(|e| Error::os("write blob", e))?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn digest(&self) -> Option<Digest> {
        Some(self.hasher.clone().finish())
    }

    fn commit(mut self: Box<Self>) -> Result<BlobInfo> {
        let digest = std::mem::take(&mut self.hasher).finish();
        super::check_whole(self.expected.as_ref(), self.size, &digest, self.written)?;
        self.publish(&digest)?;
        Ok(BlobInfo {
            digest,
            size: self.written,
        })
    }
}

impl Drop for LocalIngest {
    fn drop(&mut self) {
        // After a commit the name is gone already; after a kill the sweeper finds it by its owner.
        let _ = fs::remove_file(&self.path);
    }
}

#[async_trait]
impl ContentStore for LocalContent {
    async fn info(&self, digest: &Digest) -> Result<Option<BlobInfo>> {
        let (path, digest) = (self.path(digest), *digest);
        blocking(move || {
            let there = found(fs::metadata(path)).map_err(|e| Error::os("stat blob", e))?;
            Ok(there.map(|metadata| BlobInfo {
                digest,
                size: metadata.len(),
            }))
        })
        .await
    }

    async fn open(&self, digest: &Digest) -> Result<File> {
        let (path, name) = (self.path(digest), digest.to_string());
        blocking(move || {
            let file = found(File::open(path)).map_err(|e| Error::os("open blob", e))?;
            file.ok_or_else(|| Error::not_found(ObjectKind::Blob, name))
        })
        .await
    }

    async fn ingest(&self, digest: Option<&Digest>, size: Option<u64>) -> Result<Box<dyn Ingest>> {
        let (store, digest) = (self.clone(), digest.copied());
        blocking(move || Ok(Box::new(store.begin(digest, size)?) as Box<dyn Ingest>)).await
    }

    async fn remove(&self, digest: &Digest) -> Result<Outcome> {
        let path = self.path(digest);
        blocking(move || {
            let gone = found(fs::remove_file(path)).map_err(|e| Error::os("remove blob", e))?;
            Ok(if gone.is_some() {
                Outcome::Done
            } else {
                Outcome::Already
            })
        })
        .await
    }

    async fn list(&self) -> Result<Vec<BlobInfo>> {
        let blobs = self.blobs.clone();
        blocking(move || {
            let mut list = Vec::new();
            for name in files::names(&blobs)? {
                let Ok(digest) = format!("sha256:{name}").parse() else {
                    continue;
                };
                let there = found(fs::metadata(blobs.join(name))).map_err(|e| Error::os("stat blob", e))?;
                list.extend(there.map(|metadata| BlobInfo {
                    digest,
                    size: metadata.len(),
                }));
            }
            Ok(list)
        })
        .await
    }

    async fn sync(&self) -> Result<()> {
        let blobs = self.blobs.clone();
        blocking(move || files::sync_file_system(&blobs)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[tokio::test]
    async fn suite() {
        let dir = tempfile::tempdir().unwrap();
        crate::conformance::storage::content(&LocalContent::open(dir.path(), "me").unwrap()).await;
        assert_eq!(fs::read_dir(dir.path().join("ingest")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn sweep_removes_only_what_the_dead_left() {
        let dir = tempfile::tempdir().unwrap();
        let (mine, theirs) = (
            LocalContent::open(dir.path(), "me").unwrap(),
            LocalContent::open(dir.path(), "them").unwrap(),
        );
        let (_a, b) = (mine.begin(None, None).unwrap(), theirs.begin(None, None).unwrap());
        std::mem::forget(b);
        assert_eq!(mine.sweep(&|owner| owner == "me").unwrap(), 1);
        assert_eq!(mine.sweep(&|owner| owner == "me").unwrap(), 0);
        assert_eq!(fs::read_dir(dir.path().join("ingest")).unwrap().count(), 1);
    }

    #[test]
    fn owners_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["", "a-b", "../x", "a b"] {
            assert_eq!(
                LocalContent::open(dir.path(), bad).unwrap_err().kind(),
                &ErrorKind::InvalidArgument
            );
        }
    }
}
