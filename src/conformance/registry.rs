//! The suite for [`Registry`]. It panics with what is wrong.

use bytes::Bytes;
use futures_util::TryStreamExt;

use crate::error::Error;
use crate::registry::{ManifestKey, Registry};
use crate::types::{Descriptor, Digest, MediaType};

/// What the registry under test has: one repository with one manifest and one blob.
#[derive(Debug, Clone, Copy)]
pub struct Content<'a> {
    /// The repository.
    pub repository: &'a str,
    /// The tag of the manifest.
    pub tag: &'a str,
    /// The manifest's bytes.
    pub manifest: &'a [u8],
    /// The blob's bytes, at least two.
    pub blob: &'a [u8],
}

/// What every registry does that has this content.
///
/// # Panics
/// Where the registry does not behave.
#[allow(clippy::missing_panics_doc)]
pub async fn registry(registry: &dyn Registry, content: Content<'_>) {
    manifests(registry, content).await;
    blobs(registry, content).await;
}

async fn manifests(registry: &dyn Registry, content: Content<'_>) {
    let digest = Digest::of(content.manifest);
    let by_tag = ManifestKey::Tag(content.tag.to_owned());
    for key in [by_tag, ManifestKey::Digest(digest)] {
        let manifest = registry
            .manifest(content.repository, &key)
            .await
            .expect("a manifest that is there");
        assert_eq!(
            manifest.bytes, content.manifest,
            "a manifest comes as it was written, byte by byte"
        );
        assert_eq!(
            manifest.descriptor.digest, digest,
            "a descriptor has the digest of the bytes"
        );
        assert_eq!(
            manifest.descriptor.size,
            content.manifest.len() as u64,
            "a descriptor has the size of the bytes"
        );
    }
    let absent = [
        ManifestKey::Tag("absent".to_owned()),
        ManifestKey::Digest(Digest::of(b"absent")),
    ];
    for key in absent {
        let error = registry
            .manifest(content.repository, &key)
            .await
            .expect_err("a manifest that is not there");
        assert!(error.is_not_found(), "an absent manifest is not found: {error:?}");
    }
}

async fn blobs(registry: &dyn Registry, content: Content<'_>) {
    let blob = descriptor(content.blob);
    for offset in [0, 1, content.blob.len() / 2, content.blob.len()] {
        let read = read(registry, content.repository, &blob, offset as u64)
            .await
            .expect("a blob that is there");
        assert!(
            read == content.blob[offset..],
            "a blob comes from the offset that was asked for ({offset})"
        );
    }
    let error = read(registry, content.repository, &descriptor(b"absent"), 0)
        .await
        .expect_err("an absent blob");
    assert!(error.is_not_found(), "an absent blob is not found: {error:?}");
}

async fn read(registry: &dyn Registry, repository: &str, blob: &Descriptor, offset: u64) -> Result<Vec<u8>, Error> {
    let chunks: Vec<Bytes> = registry.blob(repository, blob, offset).await?.try_collect().await?;
    Ok(chunks.concat())
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: MediaType("application/octet-stream".to_owned()),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        platform: None,
        annotations: Default::default(),
    }
}
