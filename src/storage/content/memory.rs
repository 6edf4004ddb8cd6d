//! Blobs in memory, for tests.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek, Write};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::{BlobInfo, ContentStore, Ingest};
use crate::error::{Error, ObjectKind, Result};
use crate::types::{Digest, Outcome};

type Blobs = Arc<Mutex<HashMap<Digest, Vec<u8>>>>;

/// A store that lives as long as its last handle.
#[derive(Debug, Clone, Default)]
pub struct MemoryContent(Blobs);

impl MemoryContent {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<Digest, Vec<u8>>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
struct MemoryIngest {
    store: MemoryContent,
    bytes: Vec<u8>,
    expected: Option<Digest>,
    size: Option<u64>,
}

impl Ingest for MemoryIngest {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        super::check_room(self.expected.as_ref(), self.size, self.bytes.len() as u64, bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn digest(&self) -> Option<Digest> {
        Some(Digest::of(&self.bytes))
    }

    fn commit(self: Box<Self>) -> Result<BlobInfo> {
        let (digest, size) = (Digest::of(&self.bytes), self.bytes.len() as u64);
        super::check_whole(self.expected.as_ref(), self.size, &digest, size)?;
        let Self { store, bytes, .. } = *self;
        store.with(|blobs| blobs.insert(digest, bytes));
        Ok(BlobInfo { digest, size })
    }
}

/// An unnamed file with these bytes, positioned at its start.
fn file_of(bytes: &[u8]) -> Result<File> {
    let fd = nix::sys::memfd::memfd_create(c"longshore-blob", nix::sys::memfd::MFdFlags::MFD_CLOEXEC);
    let mut file = File::from(fd.map_err(|e| Error::os("memfd_create", e))?);
    file.write_all(bytes)
        .and_then(|()| file.rewind())
        .map_err(|e| Error::os("write memfd", e))?;
    Ok(file)
}

#[async_trait]
impl ContentStore for MemoryContent {
    async fn info(&self, digest: &Digest) -> Result<Option<BlobInfo>> {
        let size = self.with(|blobs| blobs.get(digest).map(Vec::len));
        Ok(size.map(|size| BlobInfo {
            digest: *digest,
            size: size as u64,
        }))
    }

    async fn open(&self, digest: &Digest) -> Result<File> {
        let bytes = self.with(|blobs| blobs.get(digest).cloned());
        file_of(&bytes.ok_or_else(|| Error::not_found(ObjectKind::Blob, digest.to_string()))?)
    }

    async fn ingest(&self, digest: Option<&Digest>, size: Option<u64>) -> Result<Box<dyn Ingest>> {
        Ok(Box::new(MemoryIngest {
            store: self.clone(),
            bytes: Vec::new(),
            expected: digest.copied(),
            size,
        }))
    }

    async fn remove(&self, digest: &Digest) -> Result<Outcome> {
        let gone = self.with(|blobs| blobs.remove(digest));
        Ok(if gone.is_some() {
            Outcome::Done
        } else {
            Outcome::Already
        })
    }

    async fn list(&self) -> Result<Vec<BlobInfo>> {
        Ok(self.with(|blobs| {
            blobs
                .iter()
                .map(|(d, b)| BlobInfo {
                    digest: *d,
                    size: b.len() as u64,
                })
                .collect()
        }))
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn suite() {
        crate::conformance::storage::content(&super::MemoryContent::new()).await;
    }
}
