//! Where a build puts what it made, and what it tells of it.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::verify::TracedStep;
use crate::images::ArchiveFormat;
use crate::types::{Descriptor, ImageId, Platform, Reference};

/// Where goes what was built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildOutput {
    /// An image of the engine's, with the names that were asked for.
    #[default]
    Image,
    /// The same, sent to the registry that each of its names says, its layers compressed. Where that fails, the image is here
    /// all the same.
    Push,
    /// The files of the last stage, in a directory of the host, which is made if it is missing: all of them the caller's own. Files
    /// of the same names are replaced. Of several platforms each has a directory in it, `linux_arm64`.
    Directory(PathBuf),
    /// The files of the last stage as a tar on the host, with their owners.
    Tar(PathBuf),
    /// An OCI layout, a directory of the host that is made if it is missing. What it holds stays; a name in it goes to what is
    /// built now. The engine lists no image.
    Layout(PathBuf),
    /// An archive, as `save` writes it, in the place of a file of that name. The engine lists no image.
    Archive(PathBuf, ArchiveFormat),
}

impl BuildOutput {
    /// Whether an image comes of it, which can have names.
    pub(crate) fn is_image(&self) -> bool {
        !matches!(self, Self::Directory(_) | Self::Tar(_))
    }

    /// Whether the engine lists the image.
    pub(crate) fn is_listed(&self) -> bool {
        matches!(self, Self::Image | Self::Push)
    }
}

/// What was built for a platform.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BuiltImage {
    /// What it runs on.
    pub platform: Platform,
    /// The image's id: the digest of its config. Where files were asked for, what it would have been.
    pub id: ImageId,
}

/// What a build ended with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BuildResult {
    /// The image's id: the digest of its config. Where files were asked for, what it would have been. Of several platforms, the
    /// first that was asked for.
    pub id: ImageId,
    /// What was built for each platform, as they were asked for.
    pub images: Vec<BuiltImage>,
    /// The manifest of the image, or the index of several, as the first output has it that is made of one: as a registry has it,
    /// if it was pushed. None where nothing but files was asked for, and of several platforms without a name.
    pub descriptor: Option<Descriptor>,
    /// The names it got.
    pub names: Vec<Reference>,
    /// How many steps made files, or would have.
    pub steps: u32,
    /// How many of them were known from before.
    pub cached: u32,
    /// What looks wrong in the Dockerfile, and what else whoever builds should know, in words.
    pub warnings: Vec<String>,
    /// Its steps, each after those that it needs.
    pub(crate) trace: Vec<TracedStep>,
}

impl BuildResult {
    /// What `docker buildx build --metadata-file` writes of it.
    pub fn metadata(&self) -> Value {
        let mut all = json!({ "containerimage.config.digest": self.id });
        if let Some(descriptor) = &self.descriptor {
            all["containerimage.digest"] = json!(descriptor.digest);
            all["containerimage.descriptor"] = json!(descriptor);
        }
        if self.images.len() > 1 {
            // An index has no config.
            all.as_object_mut()
                .map(|all| all.remove("containerimage.config.digest"));
        }
        if !self.names.is_empty() {
            let names: Vec<String> = self.names.iter().map(ToString::to_string).collect();
            all["image.name"] = json!(names.join(","));
        }
        if !self.warnings.is_empty() {
            let warnings = self.warnings.iter().map(|text| json!({ "short": text }));
            all["buildx.build.warnings"] = warnings.collect();
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Digest, MediaType};

    #[test]
    fn f16_metadata_have_buildx_s_keys() {
        let image = |architecture: &str| BuiltImage {
            platform: format!("linux/{architecture}").parse().unwrap(),
            id: Digest::of(architecture.as_bytes()),
        };
        let descriptor = Descriptor {
            media_type: MediaType("application/vnd.oci.image.manifest.v1+json".into()),
            digest: Digest::of(b"manifest"),
            size: 8,
            platform: None,
            annotations: Default::default(),
        };
        let mut built = BuildResult {
            id: image("amd64").id,
            images: vec![image("amd64")],
            descriptor: Some(descriptor.clone()),
            names: vec!["a:1".parse().unwrap(), "example.com/b".parse().unwrap()],
            steps: 1,
            cached: 0,
            warnings: vec!["be careful".into()],
            trace: Vec::new(),
        };
        let told = built.metadata();
        assert_eq!(told["containerimage.config.digest"], json!(built.id));
        assert_eq!(told["containerimage.digest"], json!(descriptor.digest));
        assert_eq!(told["containerimage.descriptor"]["size"], 8);
        assert_eq!(told["image.name"], "docker.io/library/a:1,example.com/b:latest");
        assert_eq!(told["buildx.build.warnings"][0]["short"], "be careful");
        built.images.push(image("arm64"));
        built.names.clear();
        let told = built.metadata();
        assert_eq!(told.get("containerimage.config.digest"), None);
        assert_eq!(told.get("image.name"), None);
    }
}
