//! Where images come from: the [`Registry`] seam and its backends.
//!
//! - `layout`: an OCI image layout on disk
//! - `http`: a registry over HTTP and TLS (feature `registry`)
//! - `memory`: a registry in memory, for tests

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;

use crate::error::{Error, Result};
use crate::types::{Descriptor, Digest};

mod credentials;
#[cfg(feature = "registry")]
pub mod http;
#[cfg(feature = "engine")]
pub(crate) mod index;
#[cfg(feature = "engine")]
pub mod layout;
#[cfg(feature = "engine")]
pub mod memory;
mod provider;

pub use self::credentials::{Credentials, CredentialsSource};
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

/// A blob's bytes for an upload, which may have to be sent again or from the middle.
#[async_trait]
pub trait UploadSource: Debug + Send + Sync + 'static {
    /// Opens the bytes from an offset.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt`, `Os`.
    async fn open(&self, offset: u64) -> Result<BlobStream>;
}

/// A blob to upload.
#[derive(Clone)]
pub struct Upload {
    /// Its bytes.
    pub source: Arc<dyn UploadSource>,
    /// Told how many bytes, from the first on, went out. Goes back where bytes are sent again.
    pub reached: Arc<dyn Fn(u64) + Send + Sync>,
}

impl Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// A manifest that refers to another as its subject: a signature, an attestation, an SBOM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referrer {
    /// The manifest.
    pub descriptor: Descriptor,
    /// What it is.
    pub artifact_type: Option<String>,
}

/// The repositories of a registry: manifests by tag or digest, blobs by digest. What only reads needs the first two verbs;
/// the others have a default body `Unsupported`.
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

    /// Whether the repository has a blob.
    ///
    /// # Errors
    /// `Denied`, `RateLimited`, `Unavailable`, `Timeout`.
    async fn has_blob(&self, repository: &str, descriptor: &Descriptor) -> Result<bool> {
        let _ = (repository, descriptor);
        Err(Error::unsupported_verb("registry.has_blob"))
    }

    /// Takes a blob over from another repository of the same registry. False: the registry wants its bytes.
    ///
    /// # Errors
    /// As [`Registry::has_blob`].
    async fn mount_blob(&self, repository: &str, descriptor: &Descriptor, from: &str) -> Result<bool> {
        let _ = (repository, descriptor, from);
        Ok(false)
    }

    /// Sends a blob.
    ///
    /// # Errors
    /// As [`Registry::has_blob`]; `DigestMismatch` where the registry says that the bytes are not the right ones; what the
    /// source says.
    ///
    /// # Cancel safety
    /// A dropped upload leaves no blob. The registry forgets what arrived after a while.
    async fn upload(&self, repository: &str, descriptor: &Descriptor, upload: Upload) -> Result<()> {
        let _ = (repository, descriptor, upload);
        Err(Error::unsupported_verb("registry.upload"))
    }

    /// Writes a manifest or index, whose blobs and manifests are there already.
    ///
    /// # Errors
    /// As [`Registry::has_blob`].
    async fn put_manifest(&self, repository: &str, key: &ManifestKey, manifest: &ManifestBlob) -> Result<()> {
        let _ = (repository, key, manifest);
        Err(Error::unsupported_verb("registry.put_manifest"))
    }

    /// The tags of a repository, in the registry's order.
    ///
    /// # Errors
    /// `NotFound`, and as [`Registry::has_blob`].
    async fn tags(&self, repository: &str) -> Result<Vec<String>> {
        let _ = repository;
        Err(Error::unsupported_verb("registry.tags"))
    }

    /// The repositories of the registry. Many registries refuse to tell.
    ///
    /// # Errors
    /// As [`Registry::tags`].
    async fn repositories(&self) -> Result<Vec<String>> {
        Err(Error::unsupported_verb("registry.repositories"))
    }

    /// The manifests that refer to another. Where the registry does not keep them itself, they are looked for under the tag
    /// that the specification gives them.
    ///
    /// # Errors
    /// As [`Registry::has_blob`].
    async fn referrers(&self, repository: &str, subject: &Digest) -> Result<Vec<Referrer>> {
        let _ = (repository, subject);
        Err(Error::unsupported_verb("registry.referrers"))
    }

    /// Asks whether the registry takes the credentials.
    ///
    /// # Errors
    /// `Denied` where it does not.
    async fn check_login(&self) -> Result<()> {
        Err(Error::unsupported_verb("registry.check_login"))
    }
}
