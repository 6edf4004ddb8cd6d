//! What refers to a manifest, in registries that do not keep such a list: an index under a tag that is made of the digest.
//! Source: OCI distribution-spec 1.1, "Referrers Tag Schema".

use serde_json::{Value, json};

use super::HttpRegistry;
use super::lists::INDEX;
use crate::error::{Error, Result};
use crate::registry::{ManifestBlob, ManifestKey, Registry};
use crate::types::{Descriptor, Digest};

/// The tag of what refers to a manifest.
pub(super) fn tag_of(subject: &Digest) -> ManifestKey {
    ManifestKey::Tag(format!("sha256-{}", subject.hex()))
}

/// What a manifest refers to, if it does. What makes no sense is no reference; the registry has taken it all the same.
pub(super) fn subject_in(manifest: &ManifestBlob) -> Option<Digest> {
    let body: Value = serde_json::from_slice(&manifest.bytes).ok()?;
    body.get("subject")?.get("digest")?.as_str()?.parse().ok()
}

/// Adds a manifest to what refers to another. Of two that do so at once the list may lose one: registries offer nothing
/// against that.
pub(super) async fn add_to_tag(
    registry: &HttpRegistry,
    repository: &str,
    subject: &Digest,
    manifest: &ManifestBlob,
) -> Result<()> {
    let key = tag_of(subject);
    let mut listed = match registry.manifest(repository, &key).await {
        Ok(index) => listed(&index),
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => return Err(error),
    };
    let digest = manifest.descriptor.digest.to_string();
    if listed.iter().any(|entry| entry["digest"] == digest.as_str()) {
        return Ok(());
    }
    listed.push(entry(manifest));
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": listed });
    let bytes =
        serde_json::to_vec(&index).map_err(|error| Error::internal("JSON cannot be written").with_source(error))?;
    let index = ManifestBlob {
        descriptor: Descriptor::of(INDEX, &bytes),
        bytes: bytes.into(),
    };
    // An index without a subject: it ends there.
    Box::pin(super::upload::put_manifest(registry, repository, &key, &index)).await
}

fn listed(index: &ManifestBlob) -> Vec<Value> {
    let body: Value = serde_json::from_slice(&index.bytes).unwrap_or_default();
    body["manifests"].as_array().cloned().unwrap_or_default()
}

/// What the list says of a manifest. Its kind is that of its config where it does not say.
fn entry(manifest: &ManifestBlob) -> Value {
    let body: Value = serde_json::from_slice(&manifest.bytes).unwrap_or_default();
    let descriptor = &manifest.descriptor;
    let mut entry = json!({
        "mediaType": descriptor.media_type.0, "digest": descriptor.digest.to_string(), "size": descriptor.size,
    });
    let kind = body["artifactType"]
        .as_str()
        .or_else(|| body["config"]["mediaType"].as_str());
    if let Some(kind) = kind {
        entry["artifactType"] = kind.into();
    }
    if body["annotations"].is_object() {
        entry["annotations"] = body["annotations"].clone();
    }
    entry
}
