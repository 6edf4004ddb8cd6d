//! A registry in memory, for tests: it counts what is asked of it and fails where it is told to.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::{BlobStream, ManifestBlob, ManifestKey, Registry, Upload};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::sys::order;
use crate::types::{Descriptor, Digest};

/// Bytes of one piece of a stream.
const CHUNK: usize = 64 << 10;

/// How a blob goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It cannot be opened.
    Refuse(ErrorKind),
    /// The stream breaks after so many bytes.
    BreakAfter(u64),
    /// Other bytes, as many.
    Corrupt,
    /// More bytes than announced.
    Overlong,
}

/// A registry whose repositories all hold the same content.
#[derive(Debug, Default)]
pub struct MemoryRegistry {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    blobs: HashMap<Digest, Bytes>,
    manifests: HashMap<Digest, ManifestBlob>,
    tags: HashMap<String, Digest>,
    faults: HashMap<Digest, Fault>,
    blob_requests: HashMap<Digest, u64>,
    manifest_requests: u64,
    uploaded_bytes: u64,
}

impl MemoryRegistry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a blob.
    pub fn put_blob(&self, media_type: &str, bytes: impl Into<Bytes>) -> Descriptor {
        let bytes = bytes.into();
        let descriptor = Descriptor::of(media_type, &bytes);
        self.state().blobs.insert(descriptor.digest, bytes);
        descriptor
    }

    /// Adds a manifest or index, under a tag if one is given.
    pub fn put_manifest(&self, tag: Option<&str>, media_type: &str, bytes: impl Into<Bytes>) -> Descriptor {
        let bytes = bytes.into();
        let descriptor = Descriptor::of(media_type, &bytes);
        let mut state = self.state();
        state.manifests.insert(
            descriptor.digest,
            ManifestBlob {
                descriptor: descriptor.clone(),
                bytes,
            },
        );
        if let Some(tag) = tag {
            state.tags.insert(tag.to_owned(), descriptor.digest);
        }
        descriptor
    }

    /// Makes every later request for a blob or manifest go wrong, until [`MemoryRegistry::heal`].
    pub fn fail(&self, digest: Digest, fault: Fault) {
        self.state().faults.insert(digest, fault);
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// How often a blob was opened.
    pub fn blob_requests(&self, digest: &Digest) -> u64 {
        self.state().blob_requests.get(digest).copied().unwrap_or(0)
    }

    /// How many manifests were asked for.
    pub fn manifest_requests(&self) -> u64 {
        self.state().manifest_requests
    }

    /// How many bytes of blobs were uploaded.
    pub fn uploaded_bytes(&self) -> u64 {
        self.state().uploaded_bytes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Registry for MemoryRegistry {
    async fn manifest(&self, repository: &str, key: &ManifestKey) -> Result<ManifestBlob> {
        let mut state = self.state();
        state.manifest_requests += 1;
        let digest = match key {
            ManifestKey::Tag(tag) => state.tags.get(tag).copied(),
            ManifestKey::Digest(digest) => Some(*digest),
        };
        let missing = || Error::not_found(ObjectKind::Image, format!("{repository} {key:?}"));
        let digest = digest.ok_or_else(missing)?;
        if let Some(Fault::Refuse(kind)) = state.faults.get(&digest) {
            return Err(told(kind.clone(), ObjectKind::Manifest, &digest));
        }
        state.manifests.get(&digest).cloned().ok_or_else(missing)
    }

    async fn blob(&self, _repository: &str, descriptor: &Descriptor, offset: u64) -> Result<BlobStream> {
        let digest = descriptor.digest;
        let mut state = self.state();
        *state.blob_requests.entry(digest).or_default() += 1;
        let bytes = state
            .blobs
            .get(&digest)
            .cloned()
            .ok_or_else(|| Error::not_found(ObjectKind::Blob, digest.to_string()))?;
        let rest = bytes.slice(bytes.len().min(usize::try_from(offset).unwrap_or(usize::MAX))..);
        faulty(rest, state.faults.get(&digest), &digest)
    }

    async fn has_blob(&self, _repository: &str, descriptor: &Descriptor) -> Result<bool> {
        Ok(self.state().blobs.contains_key(&descriptor.digest))
    }

    async fn upload(&self, _repository: &str, descriptor: &Descriptor, upload: Upload) -> Result<()> {
        let digest = descriptor.digest;
        if let Some(Fault::Refuse(kind)) = self.state().faults.get(&digest) {
            return Err(told(kind.clone(), ObjectKind::Blob, &digest));
        }
        let mut bytes = Vec::new();
        let mut stream = upload.source.open(0).await?;
        while let Some(piece) = stream.next().await {
            bytes.extend_from_slice(&piece?);
            (upload.reached)(bytes.len() as u64);
        }
        if Digest::of(&bytes) != digest {
            let message = format!("what was uploaded as {digest} has other bytes");
            return Err(
                Error::new(ErrorKind::DigestMismatch, message).with_object(ObjectKind::Blob, digest.to_string())
            );
        }
        let mut state = self.state();
        state.uploaded_bytes += bytes.len() as u64;
        state.blobs.insert(digest, bytes.into());
        Ok(())
    }

    async fn put_manifest(&self, _repository: &str, key: &ManifestKey, manifest: &ManifestBlob) -> Result<()> {
        let tag = match key {
            ManifestKey::Tag(tag) => Some(tag.as_str()),
            ManifestKey::Digest(_) => None,
        };
        self.put_manifest(tag, &manifest.descriptor.media_type.0, manifest.bytes.clone());
        Ok(())
    }

    async fn tags(&self, _repository: &str) -> Result<Vec<String>> {
        let mut tags: Vec<String> = self.state().tags.keys().cloned().collect();
        order::sort(&mut tags);
        Ok(tags)
    }
}

fn faulty(bytes: Bytes, fault: Option<&Fault>, digest: &Digest) -> Result<BlobStream> {
    match fault {
        None => Ok(chunks(bytes)),
        Some(Fault::Refuse(kind)) => Err(told(kind.clone(), ObjectKind::Blob, digest)),
        Some(Fault::Corrupt) => Ok(chunks(bytes.iter().map(|b| b ^ 1).collect())),
        Some(Fault::Overlong) => Ok(chunks([&bytes[..], &[0]].concat().into())),
        Some(Fault::BreakAfter(n)) => {
            let cut = bytes.len().min(usize::try_from(*n).unwrap_or(usize::MAX));
            let broken = Err(told(ErrorKind::Unavailable, ObjectKind::Blob, digest));
            Ok(chunks(bytes.slice(..cut)).chain(stream::iter([broken])).boxed())
        }
    }
}

fn chunks(bytes: Bytes) -> BlobStream {
    let starts = (0..bytes.len()).step_by(CHUNK);
    stream::iter(
        starts
            .map(move |at| Ok(bytes.slice(at..bytes.len().min(at + CHUNK))))
            .collect::<Vec<_>>(),
    )
    .boxed()
}

fn told(kind: ErrorKind, object: ObjectKind, digest: &Digest) -> Error {
    Error::new(kind, format!("{object} {digest} was told to fail")).with_object(object, digest.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(registry: &MemoryRegistry, descriptor: &Descriptor, offset: u64) -> Result<Vec<u8>> {
        let mut stream = registry.blob("app", descriptor, offset).await?;
        let mut out = Vec::new();
        while let Some(chunk) = stream.next().await {
            out.extend_from_slice(&chunk?);
        }
        Ok(out)
    }

    #[tokio::test]
    async fn serves_counts_and_fails() {
        let registry = MemoryRegistry::new();
        let bytes: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
        let blob = registry.put_blob("application/octet-stream", bytes.clone());
        assert_eq!(read(&registry, &blob, 0).await.unwrap(), bytes);
        assert_eq!(read(&registry, &blob, 199_999).await.unwrap(), bytes[199_999..]);
        assert_eq!(registry.blob_requests(&blob.digest), 2);
        registry.fail(blob.digest, Fault::BreakAfter(10));
        assert_eq!(
            read(&registry, &blob, 0).await.unwrap_err().kind(),
            &ErrorKind::Unavailable
        );
        registry.heal();
        let manifest = registry.put_manifest(Some("1"), "application/x", "{}");
        assert_eq!(
            registry
                .manifest("app", &ManifestKey::Tag("1".into()))
                .await
                .unwrap()
                .descriptor,
            manifest
        );
        assert!(
            registry
                .manifest("app", &ManifestKey::Tag("2".into()))
                .await
                .unwrap_err()
                .is_not_found()
        );
    }

    #[tokio::test]
    async fn conforms() {
        use crate::conformance::registry::{Content, registry};
        let memory = MemoryRegistry::new();
        memory.put_manifest(Some("1"), "application/x", "{}");
        memory.put_blob("application/x", vec![5; 200_000]);
        registry(
            &memory,
            Content {
                repository: "app",
                tag: "1",
                manifest: b"{}",
                blob: &[5; 200_000],
            },
        )
        .await;
    }
}
