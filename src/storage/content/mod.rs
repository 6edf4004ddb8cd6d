//! Blobs by digest.

use std::fmt::Debug;
use std::fs::File;

use async_trait::async_trait;

use crate::error::Result;
use crate::types::{Digest, Outcome};

/// A blob that is here, whole and verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobInfo {
    /// The blob's digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// A blob being written. Invisible until [`Ingest::commit`]; dropping it removes what was written. Blocking.
pub trait Ingest: Debug + Send {
    /// Appends bytes.
    ///
    /// # Errors
    /// `NoSpace`, `ReadOnly` or `Os`.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// Makes the blob visible under its digest. Finding it there already is success.
    ///
    /// # Errors
    /// `DigestMismatch` if the bytes are not the expected ones.
    fn commit(self: Box<Self>) -> Result<BlobInfo>;
}

/// Where blobs are kept.
#[async_trait]
pub trait ContentStore: Debug + Send + Sync + 'static {
    /// Looks a blob up.
    async fn info(&self, digest: &Digest) -> Result<Option<BlobInfo>>;

    /// Opens a blob for reading, positioned at its start.
    ///
    /// # Errors
    /// `NotFound`.
    async fn open(&self, digest: &Digest) -> Result<File>;

    /// Begins to write a blob that must turn out to have this digest and size, where they are known.
    async fn ingest(&self, digest: Option<&Digest>, size: Option<u64>) -> Result<Box<dyn Ingest>>;

    /// Removes a blob.
    async fn remove(&self, digest: &Digest) -> Result<Outcome>;

    /// All blobs, in no order.
    async fn list(&self) -> Result<Vec<BlobInfo>>;
}
