//! What an image came as: its manifest, and of a list of manifests the one that is here. Source: API 1.47, `ImageManifestSummary`.

use serde_json::{Value, json};

use crate::images::ImageInfo;
use crate::types::{ContainerId, Descriptor};

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

/// The manifests of an image. An image here is of one platform, so there is one.
pub(super) fn summaries(image: &ImageInfo, containers: &[ContainerId]) -> Value {
    let compressed: u64 = image.layers.iter().map(|layer| layer.descriptor.size).sum();
    let content = image.manifest.size.saturating_add(compressed);
    json!([{
        "ID": image.manifest.digest.to_string(),
        "Descriptor": descriptor(&image.manifest),
        "Available": true,
        "Size": {"Content": content, "Total": content.saturating_add(image.size_bytes)},
        "Kind": "image",
        "ImageData": {
            "Platform": image.platform,
            "Size": {"Unpacked": image.size_bytes},
            "Containers": containers,
        },
    }])
}
