//! Blobs by digest.

pub mod local;
pub mod memory;

use std::fmt::Debug;
use std::fs::File;

use async_trait::async_trait;

use crate::error::{Error, ErrorKind, ObjectKind, Result};
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
    /// `NoSpace`, `ReadOnly` or `Os`; `DigestMismatch` as soon as there are more bytes than expected.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// The digest of what was written so far, where it is known before the commit: whoever leases it first cannot lose the
    /// blob to a removal that comes between commit and lease.
    fn digest(&self) -> Option<Digest> {
        None
    }

    /// A second descriptor of what is being written, for reading it from its beginning; none where the store has none to give.
    ///
    /// # Errors
    /// `Os`.
    fn reader(&self) -> Result<Option<File>> {
        Ok(None)
    }

    /// How many bytes an earlier attempt left that were not read back yet. They come first: as long as there are any,
    /// nothing is written.
    fn left(&self) -> u64 {
        0
    }

    /// Reads the next of the bytes that an earlier attempt left; from then on they count as written. Nothing is read once
    /// none are left.
    ///
    /// # Errors
    /// `Os`, also where they are gone.
    fn read_back(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let _ = buffer;
        Ok(0)
    }

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

    /// As [`ContentStore::ingest`], going on where an attempt that was cut off (a broken connection, a dropped pull, a
    /// killed process) ended, if the store kept what that had written. Dropped before its commit it may be kept in turn.
    /// The kept bytes are no more than a hope: the digest at the end tells, and [`ContentStore::forget`] gives them up.
    async fn resume(&self, digest: &Digest, size: u64) -> Result<Box<dyn Ingest>> {
        self.ingest(Some(digest), Some(size)).await
    }

    /// Gives up what attempts at a blob that were cut off have left, unless somebody goes on with it right now.
    async fn forget(&self, digest: &Digest) -> Result<()> {
        let _ = digest;
        Ok(())
    }

    /// Removes a blob, and what unfinished attempts at it have left.
    async fn remove(&self, digest: &Digest) -> Result<Outcome>;

    /// All blobs, in no order.
    async fn list(&self) -> Result<Vec<BlobInfo>>;

    /// Makes these blobs, which were committed by whomever, survive a loss of power. Called once per image, before its
    /// record is written. A blob that is not here is passed over.
    async fn sync(&self, blobs: &[Digest]) -> Result<()> {
        let _ = blobs;
        Ok(())
    }
}

/// Refuses bytes beyond the expected size.
pub(crate) fn check_room(digest: Option<&Digest>, size: Option<u64>, written: u64, more: usize) -> Result<()> {
    let total = written.saturating_add(more as u64);
    match size {
        Some(size) if total > size => Err(mismatch(
            digest,
            format!("the blob is longer than the {size} bytes announced"),
        )),
        _ => Ok(()),
    }
}

/// Refuses a blob that is not the expected one.
pub(crate) fn check_whole(expected: Option<&Digest>, size: Option<u64>, digest: &Digest, written: u64) -> Result<()> {
    if let Some(size) = size.filter(|size| *size != written) {
        return Err(mismatch(
            expected,
            format!("the blob has {written} bytes, {size} were announced"),
        ));
    }
    match expected {
        Some(expected) if expected != digest => Err(mismatch(Some(expected), format!("the blob hashes to {digest}"))),
        _ => Ok(()),
    }
}

pub(crate) fn mismatch(digest: Option<&Digest>, message: String) -> Error {
    let error = Error::new(ErrorKind::DigestMismatch, message);
    match digest {
        Some(digest) => error.with_object(ObjectKind::Blob, digest.to_string()),
        None => error,
    }
}
