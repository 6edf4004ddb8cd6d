//! Where images come from: the [`Registry`] seam and its backends.
//!
//! - `layout`: an OCI image layout on disk
//! - `http`: a registry over HTTP and TLS (feature `registry`)
//! - `memory`: a registry in memory, for tests

use std::fmt::Debug;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;

use crate::error::Result;
use crate::types::{Descriptor, Digest};

mod credentials;
#[cfg(feature = "registry")]
pub mod http;
pub(crate) mod index;
pub mod layout;
pub mod memory;
mod provider;

pub use self::credentials::Credentials;
pub use self::provider::{NoRegistries, RegistryProvider};

/// The largest manifest or index that is read, in bytes. Source: OCI distribution-spec 1.1, "Pushing Manifests".
pub const MAX_MANIFEST: u64 = 4 << 20;

/// The bytes of a blob as they arrive.
pub type BlobStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send + 'static>>;

/// What to look up in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestKey {
    /// What a tag points at now.
    Tag(String),
    /// Exactly these bytes.
    Digest(Digest),
}

/// A manifest or index as it was served. The bytes are kept: its digest covers them, so they are never written anew.
#[derive(Debug, Clone)]
pub struct ManifestBlob {
    /// Media type, digest (of `bytes`, checked) and size.
    pub descriptor: Descriptor,
    /// The exact bytes, at most 4 MiB.
    pub bytes: Bytes,
}

/// One repository of a registry: manifests by tag or digest, blobs by digest.
#[async_trait]
pub trait Registry: Debug + Send + Sync + 'static {
    /// Fetches a manifest or index.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, `RateLimited`, `Unavailable`, `DigestMismatch`, or `InvalidArgument` for one over 4 MiB.
    async fn manifest(&self, repository: &str, key: &ManifestKey) -> Result<ManifestBlob>;

    /// Opens a blob's bytes from `offset`. The reader checks size and digest, since only it sees every byte.
    ///
    /// # Errors
    /// As [`Registry::manifest`]; the stream itself yields `Unavailable` where a connection breaks.
    async fn blob(&self, repository: &str, descriptor: &Descriptor, offset: u64) -> Result<BlobStream>;
}
