//! Manifests, told apart and read. Pure.
//!
//! A document that could be read as two kinds is refused, and so is one whose inner media type is not the one it was
//! served as: two readers of the same bytes must not see two images (CVE-2021-41190).

use serde::Deserialize;

use super::config::{ImageConfig, MAX_LAYERS};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::registry::{ManifestBlob, index};
use crate::storage::unpack::LayerRef;
use crate::types::{Descriptor, MediaType};

/// The largest blob that is fetched, in bytes.
pub const MAX_BLOB: u64 = 1 << 40;
/// The largest config that is read, in bytes.
pub const MAX_CONFIG: u64 = 8 << 20;

const CONFIGS: &[&str] = &[
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
    // What Docker's registry wrote for images pushed by Docker 1.10.
    "application/octet-stream",
];

const LAYERS: &[&str] = &[
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

const MANIFESTS: &[&str] = &[
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// The manifest of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// The config's blob.
    pub(crate) config: Descriptor,
    /// The layers' blobs, the lowest first.
    pub(crate) layers: Vec<Descriptor>,
}

/// What a manifest's bytes turn out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    /// One image.
    Image(Manifest),
    /// A choice of images, by platform.
    Index(Vec<Descriptor>),
}

/// Reads a manifest or index.
///
/// # Errors
/// - `Unsupported` for Docker's schema 1, and for artifacts that are no images
/// - `InvalidArgument` for what is malformed, ambiguous or out of bounds
pub(crate) fn parse(blob: &ManifestBlob) -> Result<Document> {
    let shape: Shape =
        serde_json::from_slice(&blob.bytes).map_err(|error| bad("it is not a manifest").with_source(error))?;
    let served = blob.descriptor.media_type.0.as_str();
    if shape.schema_version == 1
        || shape.fs_layers.is_some()
        || served.contains("manifest.v1") && served.contains("docker")
    {
        return Err(Error::unsupported(
            "an image with a manifest of Docker's schema 1",
            "an image pushed by Docker 1.10 or newer: push it again",
        ));
    }
    let is_index = shape.manifests.is_some();
    if is_index && (shape.layers.is_some() || shape.config.is_some()) {
        return Err(bad("it is both a manifest and an index"));
    }
    check_media_type(served, shape.media_type.as_deref(), is_index)?;
    if is_index {
        return Ok(Document::Index(index::entries(&blob.bytes)?));
    }
    image(&blob.bytes).map(Document::Image)
}

/// Joins layers with the digests of their tars.
///
/// # Errors
/// `InvalidArgument` where there are not as many of one as of the other.
pub(crate) fn layers(manifest: &Manifest, config: &ImageConfig) -> Result<Vec<LayerRef>> {
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        let (layers, ids) = (manifest.layers.len(), diff_ids.len());
        return Err(bad(&format!("it has {layers} layers, its config {ids}")));
    }
    let pairs = manifest.layers.iter().zip(diff_ids);
    Ok(pairs
        .map(|(descriptor, diff_id)| LayerRef {
            descriptor: descriptor.clone(),
            diff_id: *diff_id,
        })
        .collect())
}

fn check_media_type(served: &str, inner: Option<&str>, is_index: bool) -> Result<()> {
    let of_index = |text: &str| index::is_index(text);
    let known = |text: &&str| of_index(text) || MANIFESTS.contains(text);
    let stated: Vec<&str> = [Some(served), inner].into_iter().flatten().filter(known).collect();
    if stated.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(bad("it says of itself to be of another type than the registry does"));
    }
    if stated.iter().any(|text| of_index(text) != is_index) {
        return Err(bad("it is not what its media type says"));
    }
    Ok(())
}

fn image(bytes: &[u8]) -> Result<Manifest> {
    let raw: RawImage =
        serde_json::from_slice(bytes).map_err(|error| bad("it is not a manifest").with_source(error))?;
    if raw.schema_version != 2 {
        return Err(bad("its schemaVersion is not 2"));
    }
    if !CONFIGS.contains(&raw.config.media_type.0.as_str()) {
        return Err(unsupported(
            "an artifact that is no container image",
            &raw.config.media_type,
            "an image",
        ));
    }
    if raw.layers.len() > MAX_LAYERS {
        return Err(bad(&format!("it has more than {MAX_LAYERS} layers")));
    }
    if raw.config.size > MAX_CONFIG || raw.layers.iter().any(|layer| layer.size > MAX_BLOB) {
        return Err(bad("a blob in it is larger than anything that is fetched"));
    }
    if let Some(layer) = raw
        .layers
        .iter()
        .find(|layer| !LAYERS.contains(&layer.media_type.0.as_str()))
    {
        return Err(unsupported(
            "a layer of this type",
            &layer.media_type,
            "a tar layer, plain, gzip or zstd",
        ));
    }
    Ok(Manifest {
        config: raw.config,
        layers: raw.layers,
    })
}

fn unsupported(what: &str, is: &MediaType, needs: &str) -> Error {
    let shown: String = is.0.chars().filter(|c| !c.is_control()).take(100).collect();
    Error::unsupported(format!("{what} ({shown})"), needs)
}

fn bad(why: &str) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("the image's manifest is unusable: {why}"),
    )
    .with_object(ObjectKind::Manifest, "manifest")
}

/// Which members a document has.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    schema_version: u64,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawImage {
    schema_version: u64,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::types::Digest;

    const OCI: &str = MANIFESTS[0];
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";

    fn blob(media_type: &str, body: &Value) -> ManifestBlob {
        let bytes = Bytes::from(serde_json::to_vec(body).unwrap());
        let descriptor = Descriptor {
            media_type: MediaType(media_type.into()),
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
            platform: None,
            annotations: Default::default(),
        };
        ManifestBlob { descriptor, bytes }
    }

    fn descriptor(media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": Digest::of(b"x"), "size": 1 })
    }

    fn manifest() -> Value {
        json!({ "schemaVersion": 2, "mediaType": OCI, "config": descriptor(CONFIGS[0]), "layers": [descriptor(LAYERS[1])] })
    }

    fn kind(media_type: &str, body: &Value) -> ErrorKind {
        parse(&blob(media_type, body)).unwrap_err().kind().clone()
    }

    #[test]
    fn tells_images_from_indexes() {
        assert!(matches!(parse(&blob(OCI, &manifest())).unwrap(), Document::Image(image) if image.layers.len() == 1));
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor(OCI)] });
        assert!(matches!(parse(&blob(INDEX, &index)).unwrap(), Document::Index(entries) if entries.len() == 1));
        let mut docker = manifest();
        docker["mediaType"] = json!(MANIFESTS[1]);
        docker["config"]["mediaType"] = json!(CONFIGS[1]);
        docker["layers"] = json!([descriptor(LAYERS[7])]);
        assert!(parse(&blob(MANIFESTS[1], &docker)).is_ok());
        assert!(parse(&blob("application/json", &docker)).is_ok());
    }

    #[test]
    fn two_faces_are_refused() {
        let mut both = manifest();
        both["manifests"] = json!([]);
        assert_eq!(kind(OCI, &both), ErrorKind::InvalidArgument);
        assert_eq!(kind(INDEX, &manifest()), ErrorKind::InvalidArgument);
        assert_eq!(kind(MANIFESTS[1], &manifest()), ErrorKind::InvalidArgument);
        let index = json!({ "schemaVersion": 2, "manifests": [] });
        assert_eq!(kind(OCI, &index), ErrorKind::InvalidArgument);
    }

    #[test]
    fn schema_1_says_what_to_do() {
        for (served, body) in [
            (
                "application/vnd.docker.distribution.manifest.v1+prettyjws",
                json!({ "schemaVersion": 1, "fsLayers": [] }),
            ),
            ("application/vnd.docker.distribution.manifest.v1+json", json!({})),
            ("application/json", json!({ "schemaVersion": 1 })),
        ] {
            let error = parse(&blob(served, &body)).unwrap_err();
            assert!(
                error.is_unsupported() && error.to_string().contains("push it again"),
                "{error}"
            );
        }
    }

    #[test]
    fn artifacts_and_strange_layers_are_unsupported() {
        let mut helm = manifest();
        helm["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json");
        assert!(matches!(kind(OCI, &helm), ErrorKind::Unsupported { .. }));
        let mut secret = manifest();
        secret["layers"] = json!([descriptor("application/vnd.oci.image.layer.v1.tar+gzip+encrypted")]);
        assert!(matches!(kind(OCI, &secret), ErrorKind::Unsupported { .. }));
    }

    #[test]
    fn bounds_hold() {
        let mut many = manifest();
        many["layers"] = Value::Array(vec![descriptor(LAYERS[0]); MAX_LAYERS + 1]);
        assert_eq!(kind(OCI, &many), ErrorKind::InvalidArgument);
        for (size, of) in [
            (json!(u64::MAX), "layers"),
            (json!(-1), "layers"),
            (json!(MAX_CONFIG + 1), "config"),
        ] {
            let mut huge = manifest();
            let entry = if of == "config" {
                &mut huge["config"]
            } else {
                &mut huge["layers"][0]
            };
            entry["size"] = size;
            assert_eq!(kind(OCI, &huge), ErrorKind::InvalidArgument);
        }
        for body in [
            json!([]),
            json!(7),
            json!({}),
            json!({ "schemaVersion": 2 }),
            json!({ "schemaVersion": 3, "config": {}, "layers": [] }),
        ] {
            assert_eq!(kind(OCI, &body), ErrorKind::InvalidArgument, "{body}");
        }
    }

    #[test]
    fn layers_and_diff_ids_go_in_pairs() {
        let config = |ids: usize| {
            let ids = vec![Digest::of(b"y"); ids];
            let text =
                json!({ "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": ids } });
            ImageConfig::parse(text.to_string().as_bytes()).unwrap()
        };
        let Document::Image(image) = parse(&blob(OCI, &manifest())).unwrap() else {
            panic!()
        };
        assert_eq!(layers(&image, &config(1)).unwrap()[0].diff_id, Digest::of(b"y"));
        for ids in [0, 2] {
            assert_eq!(
                layers(&image, &config(ids)).unwrap_err().kind(),
                &ErrorKind::InvalidArgument
            );
        }
    }
}
