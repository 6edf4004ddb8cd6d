//! The documents that a cache elsewhere consists of: which step made which layer. Pure.
//!
//! Such a cache is an OCI manifest whose config is a [`Document`], and whose layers are those of the steps. An image that has
//! its cache in it has the same in its own config.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::types::{Descriptor, DiffId, Digest, LayerRef};

/// What the config of a cache says of itself.
pub(crate) const CONFIG: &str = "application/vnd.longshore.build.cache.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Changes when documents come to mean something else.
const VERSION: u32 = 1;
/// More steps than any build has.
const MAX_STEPS: usize = 100_000;
/// More layers than fit into a manifest.
const MAX_LAYERS: usize = 20_000;

/// A step of a build, as others may want to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptStep {
    pub(crate) key: Digest,
    /// None: it changed nothing.
    pub(crate) layer: Option<LayerRef>,
}

/// Which steps led to which layers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Document {
    version: u32,
    /// What the layers of the manifest unpack to, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    layers: Vec<DiffId>,
    /// Steps by their keys; none made no layer.
    steps: BTreeMap<Digest, Option<DiffId>>,
}

impl Document {
    /// Of these steps, and the layers as the manifest has them.
    pub(crate) fn new<'a>(steps: impl IntoIterator<Item = &'a KeptStep>, layers: &[LayerRef]) -> Self {
        let step = |step: &KeptStep| (step.key, step.layer.as_ref().map(|layer| layer.diff_id));
        Self {
            version: VERSION,
            layers: layers.iter().map(|layer| layer.diff_id).collect(),
            steps: steps.into_iter().map(step).collect(),
        }
    }

    /// As the config of an image holds it, whose layers it lists itself.
    pub(crate) fn inline<'a>(steps: impl IntoIterator<Item = &'a KeptStep>) -> Result<Value> {
        let failed = |error| Error::internal("a cache cannot be written").with_source(error);
        serde_json::to_value(Self::new(steps, &[])).map_err(failed)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let read = serde_json::from_slice(bytes).map_err(|error| bad("it is no cache").with_source(error))?;
        Self::checked(read)
    }

    pub(crate) fn of_value(value: &Value) -> Result<Self> {
        let read = Self::deserialize(value).map_err(|error| bad("it is no cache").with_source(error))?;
        Self::checked(read)
    }

    fn checked(self) -> Result<Self> {
        if self.version != VERSION {
            return Err(Error::unsupported(
                format!("a build cache of version {}", self.version),
                format!("a cache of version {VERSION}: export it anew"),
            ));
        }
        if self.steps.len() > MAX_STEPS || self.layers.len() > MAX_LAYERS {
            return Err(bad("it has more steps than any build"));
        }
        Ok(self)
    }

    /// Each step with its layer, where the layers that are to be had are these. What has no layer among them is left out.
    pub(crate) fn steps(&self, layers: &[LayerRef]) -> HashMap<Digest, Option<LayerRef>> {
        let by_content: HashMap<DiffId, &LayerRef> = layers.iter().map(|layer| (layer.diff_id, layer)).collect();
        let step = |(key, layer): (&Digest, &Option<DiffId>)| match layer {
            None => Some((*key, None)),
            Some(diff_id) => by_content.get(diff_id).map(|layer| (*key, Some((*layer).clone()))),
        };
        self.steps.iter().filter_map(step).collect()
    }

    /// The layers of the manifest that the document belongs to.
    ///
    /// # Errors
    /// `InvalidArgument` where there are not as many of one as of the other.
    pub(crate) fn layers(&self, manifest: &CacheManifest) -> Result<Vec<LayerRef>> {
        if self.layers.len() != manifest.layers.len() {
            return Err(bad("it has not as many layers as its manifest"));
        }
        let pairs = manifest.layers.iter().zip(&self.layers);
        Ok(pairs
            .map(|(descriptor, diff_id)| LayerRef {
                descriptor: descriptor.clone(),
                diff_id: *diff_id,
            })
            .collect())
    }
}

/// The manifest of a cache, or of an image.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct CacheManifest {
    pub(crate) config: Descriptor,
    #[serde(default)]
    pub(crate) layers: Vec<Descriptor>,
}

impl CacheManifest {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let read: Self = serde_json::from_slice(bytes).map_err(|error| bad("it has no manifest").with_source(error))?;
        if read.layers.len() > MAX_LAYERS {
            return Err(bad("it has more layers than any build"));
        }
        Ok(read)
    }

    /// Whether it is of a cache; else it is of an image.
    pub(crate) fn is_cache(&self) -> bool {
        self.config.media_type.0 == CONFIG
    }

    /// The body of a manifest.
    pub(crate) fn body(config: &Descriptor, layers: &[LayerRef]) -> Value {
        let layers: Vec<&Descriptor> = layers.iter().map(|layer| &layer.descriptor).collect();
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers })
    }
}

/// The part of an image's config that a cache is made of.
#[derive(Debug, Deserialize)]
pub(crate) struct InlineConfig {
    rootfs: InlineRootFs,
    #[serde(default, rename = "dev.longshore.build.cache")]
    cache: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct InlineRootFs {
    #[serde(default)]
    diff_ids: Vec<DiffId>,
}

impl InlineConfig {
    /// The document and the layers of an image; none where it has no cache in it.
    ///
    /// # Errors
    /// `InvalidArgument`, `Unsupported`.
    pub(crate) fn parse(bytes: &[u8], manifest: &CacheManifest) -> Result<Option<(Document, Vec<LayerRef>)>> {
        let read: Self = serde_json::from_slice(bytes).map_err(|error| bad("it has no config").with_source(error))?;
        let Some(cache) = &read.cache else { return Ok(None) };
        let document = Document {
            layers: read.rootfs.diff_ids,
            ..Document::of_value(cache)?
        };
        let layers = document.layers(manifest)?;
        Ok(Some((document, layers)))
    }
}

fn bad(why: &str) -> Error {
    Error::invalid(format!("the build cache is unusable: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn layer(text: &str) -> LayerRef {
        LayerRef {
            descriptor: Descriptor::of("application/vnd.oci.image.layer.v1.tar+gzip", text.as_bytes()),
            diff_id: Digest::of(format!("plain {text}").as_bytes()),
        }
    }

    fn step(name: &str, layer: Option<LayerRef>) -> KeptStep {
        KeptStep {
            key: Digest::of(name.as_bytes()),
            layer,
        }
    }

    #[test]
    fn f15_a_document_comes_back() {
        let layers = [layer("one"), layer("two")];
        let steps = [
            step("a", Some(layer("one"))),
            step("b", None),
            step("c", Some(layer("two"))),
            step("d", Some(layer("elsewhere"))),
        ];
        let document = Document::new(&steps, &layers);
        let bytes = serde_json::to_vec(&document).unwrap();
        let read = Document::parse(&bytes).unwrap();
        assert_eq!(read, document);
        let config = Descriptor::of(CONFIG, &bytes);
        let manifest = CacheManifest::body(&config, &layers).to_string();
        let manifest = CacheManifest::parse(manifest.as_bytes()).unwrap();
        assert!(manifest.is_cache());
        let found = read.steps(&read.layers(&manifest).unwrap());
        assert_eq!(found.len(), 3, "a layer that is not to be had is none");
        assert_eq!(found[&steps[0].key], steps[0].layer);
        assert_eq!(found[&steps[1].key], None);
    }

    #[test]
    fn f15_an_image_has_its_cache_in_it() {
        let layers = [layer("base"), layer("one")];
        let inline = Document::inline(&[step("a", Some(layer("one"))), step("b", None)]).unwrap();
        let diff_ids: Vec<DiffId> = layers.iter().map(|layer| layer.diff_id).collect();
        let config = json!({ "rootfs": { "diff_ids": diff_ids }, "dev.longshore.build.cache": inline }).to_string();
        let manifest = CacheManifest::body(&Descriptor::of("x", config.as_bytes()), &layers).to_string();
        let manifest = CacheManifest::parse(manifest.as_bytes()).unwrap();
        let (document, found) = InlineConfig::parse(config.as_bytes(), &manifest).unwrap().unwrap();
        assert_eq!(found, layers);
        assert_eq!(document.steps(&found)[&Digest::of(b"a")], Some(layer("one")));
        let plain = json!({ "rootfs": { "diff_ids": diff_ids } }).to_string();
        assert!(InlineConfig::parse(plain.as_bytes(), &manifest).unwrap().is_none());
    }

    #[test]
    fn f15_what_makes_no_sense_is_refused() {
        let kind = |text: &str| Document::parse(text.as_bytes()).unwrap_err().kind().clone();
        for text in [
            "",
            "[]",
            r#"{"version":1}"#,
            r#"{"version":1,"steps":{"x":null}}"#,
            r#"{"version":1,"steps":{},"layers":["y"]}"#,
        ] {
            assert_eq!(kind(text), ErrorKind::InvalidArgument, "{text}");
        }
        assert!(
            Document::parse(br#"{"version":2,"steps":{}}"#)
                .unwrap_err()
                .is_unsupported()
        );
        let one = Document::new(&[], &[layer("one")]);
        let manifest = CacheManifest::body(&Descriptor::of(CONFIG, b""), &[]).to_string();
        let manifest = CacheManifest::parse(manifest.as_bytes()).unwrap();
        assert!(one.layers(&manifest).is_err());
        assert!(CacheManifest::parse(b"{}").is_err());
    }
}
