//! What points at a blob: media type, digest, size.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{DiffId, Digest, Platform};

/// A media type, kept as the text it came as; unknown ones are carried, not refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MediaType(pub String);

/// A pointer to content: the OCI descriptor, with the fields an engine uses.
/// Source: OCI image-spec 1.1, descriptor.md.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    pub media_type: MediaType,
    /// The content's digest.
    pub digest: Digest,
    /// The content's size in bytes.
    pub size: u64,
    /// In an index: what the image runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free-form notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Describes bytes, and says nothing else of them.
    pub fn of(media_type: impl Into<String>, bytes: &[u8]) -> Self {
        Self {
            media_type: MediaType(media_type.into()),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// A layer of an image: its blob, and the digest of its uncompressed tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerRef {
    /// The compressed blob.
    pub descriptor: Descriptor,
    /// What its uncompressed bytes hash to.
    pub diff_id: DiffId,
}
