//! What an image came as: its manifest, or the list that its name stands for, with what of it is here. Source: API 1.47,
//! `ImageManifestSummary`.

use serde_json::{Value, json};

use super::super::call::Call;
use super::super::error::Failure;
use super::list::users;
use crate::containers::ContainerSummary;
use crate::error::ErrorKind;
use crate::images::{ImageInfo, ListedManifest};
use crate::types::Descriptor;

/// A descriptor in the words of the OCI specification.
pub(super) fn descriptor(of: &Descriptor) -> Value {
    json!({"mediaType": of.media_type, "digest": of.digest.to_string(), "size": of.size})
}

/// The manifest that an image came with, with its platform.
pub(in crate::api) fn manifest_of(image: &ImageInfo) -> Value {
    let mut value = descriptor(&image.manifest);
    value["platform"] = json!(image.platform);
    value
}

/// All manifests that an image's name stands for, those included that are not here.
pub(super) async fn of(call: &Call, image: &ImageInfo, containers: &[ContainerSummary]) -> Result<Value, Failure> {
    let name = image.tags.first().or_else(|| image.digests.first());
    let name = name.map_or_else(|| image.id.to_string(), ToString::to_string);
    let images = call.engine.images();
    let listed = match images.document(&name).await {
        Ok(document) => document.manifests,
        // An engine that cannot say, or an image that was renamed meanwhile.
        Err(error) if matches!(error.kind(), ErrorKind::Unsupported { .. } | ErrorKind::NotFound) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    if listed.len() < 2 {
        return Ok(Value::Array(vec![here(image, containers)]));
    }
    let variants = images.variants(&name).await?;
    let one = |entry: &ListedManifest| {
        let image = variants.iter().find(|variant| Some(variant.id) == entry.image);
        image.map_or_else(|| elsewhere(&entry.descriptor), |image| here(image, containers))
    };
    Ok(listed.iter().map(one).collect())
}

fn here(image: &ImageInfo, containers: &[ContainerSummary]) -> Value {
    let compressed: u64 = image.layers.iter().map(|layer| layer.descriptor.size).sum();
    let content = image.manifest.size.saturating_add(compressed);
    json!({
        "ID": image.manifest.digest.to_string(),
        "Descriptor": descriptor(&image.manifest),
        "Available": true,
        "Size": {"Content": content, "Total": content.saturating_add(image.size_bytes)},
        "Kind": "image",
        "ImageData": {
            "Platform": image.platform,
            "Size": {"Unpacked": image.size_bytes},
            "Containers": users(containers, &image.id),
        },
    })
}

fn elsewhere(entry: &Descriptor) -> Value {
    let mut value = json!({
        "ID": entry.digest.to_string(),
        "Descriptor": descriptor(entry),
        "Available": false,
        "Size": {"Content": 0, "Total": 0},
        "Kind": "unknown",
    });
    // What BuildKit writes beside an image. Source: attestation-storage.md there.
    let subject = entry.annotations.get("vnd.docker.reference.digest");
    match (&entry.platform, subject) {
        (_, Some(subject)) => {
            value["Kind"] = json!("attestation");
            value["AttestationData"] = json!({"For": subject});
        }
        (Some(platform), None) => {
            value["Kind"] = json!("image");
            value["ImageData"] = json!({"Platform": platform, "Size": {"Unpacked": 0}, "Containers": []});
        }
        (None, None) => {}
    }
    value
}
