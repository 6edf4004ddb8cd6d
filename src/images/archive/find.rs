//! Which images an archive holds.
//!
//! Where there is an OCI index, it tells, since it keeps the manifests as they were; Docker's `manifest.json` beside it adds
//! names. Without an index `manifest.json` tells alone, and manifests are written for its images.
//! Sources: OCI image-spec 1.1, image-layout.md; Docker image spec 1.2, "Combined Image JSON + Filesystem Changeset Format".

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::contents::{Contents, Stored};
use super::take::Taker;
use super::{FULL_NAME, MAX_IMAGES};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::images::config::MAX_LAYERS;
use crate::images::index::{INDEX, index_blob};
use crate::images::manifest::{self, Document, MAX_CONFIG};
use crate::images::origin::Chosen;
use crate::images::resolve::choose;
use crate::registry::layout::REF_NAME;
use crate::registry::{MAX_MANIFEST, ManifestBlob, index};
use crate::sys::order;
use crate::types::{Descriptor, Digest, MediaType, Platform, Reference};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
/// Indexes in indexes: how deep an image is looked for.
const MAX_DEPTH: usize = 4;

/// An image of an archive, all of whose blobs are in the content store.
#[derive(Debug)]
pub(in crate::images) struct Found {
    pub(in crate::images) chosen: Chosen,
    pub(in crate::images) names: Vec<Reference>,
}

/// An entry of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The images of an archive, for a platform if one is given. Blocking.
///
/// # Errors
/// `InvalidArgument` for an archive that holds none or contradicts itself; `NotFound` for a platform that it lacks.
pub(in crate::images) fn find(taker: &Taker, contents: &Contents, platform: Option<&Platform>) -> Result<Vec<Found>> {
    let archive = Archive { taker, contents };
    let docker = archive.docker_entries()?;
    let found = if contents.has("index.json") {
        archive.of_layout(&docker, platform)?
    } else if docker.is_empty() {
        return Err(archive.nothing());
    } else {
        let images = docker.iter().map(|entry| archive.of_docker(entry));
        images.collect::<Result<Vec<_>>>()?
    };
    if found.is_empty() {
        return Err(Error::invalid("the archive holds no image"));
    }
    Ok(found)
}

struct Archive<'a> {
    taker: &'a Taker,
    contents: &'a Contents,
}

impl Archive<'_> {
    fn nothing(&self) -> Error {
        if self.contents.has("repositories") {
            return Error::unsupported(
                "an archive of Docker before 1.10",
                "an archive saved by Docker 1.10 or newer, podman, skopeo or containerd",
            );
        }
        Error::invalid("this is no archive of images: it has neither an index.json nor a manifest.json")
    }

    fn docker_entries(&self) -> Result<Vec<DockerEntry>> {
        let Some(stored) = self.contents.file("manifest.json")? else {
            return Ok(Vec::new());
        };
        let bytes = self.taker.small(&stored, MAX_MANIFEST)?;
        let entries: Vec<DockerEntry> = serde_json::from_slice(&bytes)
            .map_err(|error| Error::invalid("the archive's manifest.json makes no sense").with_source(error))?;
        if entries.len() > MAX_IMAGES {
            return Err(Error::invalid(format!("the archive has more than {MAX_IMAGES} images")));
        }
        Ok(entries)
    }

    fn of_docker(&self, entry: &DockerEntry) -> Result<Found> {
        let config = self.named(&entry.config)?;
        if config.size > MAX_CONFIG {
            return Err(Error::invalid(
                "an image's config in the archive is larger than any that is read",
            ));
        }
        let layers = entry.layers.as_deref().unwrap_or_default();
        if layers.len() > MAX_LAYERS {
            return Err(Error::invalid(format!(
                "an image in the archive has more than {MAX_LAYERS} layers"
            )));
        }
        let layers = layers.iter().map(|path| self.layer(path)).collect::<Result<Vec<_>>>()?;
        let config = descriptor(OCI_CONFIG, config);
        let body = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers });
        let bytes =
            serde_json::to_vec(&body).map_err(|error| Error::internal("a manifest without JSON").with_source(error))?;
        let stored = Stored {
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
        };
        let blob = ManifestBlob {
            descriptor: descriptor(OCI_MANIFEST, stored),
            bytes: Bytes::from(bytes),
        };
        let chosen = image(blob)?.ok_or_else(|| Error::internal("a manifest that is an index"))?;
        let names = tags_of(entry)?;
        Ok(Found { chosen, names })
    }

    fn named(&self, path: &str) -> Result<Stored> {
        self.contents.file(path)?.ok_or_else(|| {
            let shown: String = path.chars().filter(|c| !c.is_control()).take(120).collect();
            Error::invalid(format!("the archive lacks {shown}, which its manifest.json names"))
        })
    }

    fn layer(&self, path: &str) -> Result<Descriptor> {
        let stored = self.named(path)?;
        let suffix = match self.taker.head(&stored, 4)?.as_slice() {
            [0x1f, 0x8b, ..] => "+gzip",
            [0x28, 0xb5, 0x2f, 0xfd] => "+zstd",
            _ => "",
        };
        Ok(descriptor(&format!("{PLAIN}{suffix}"), stored))
    }

    fn of_layout(&self, docker: &[DockerEntry], platform: Option<&Platform>) -> Result<Vec<Found>> {
        let stored = self.contents.file("index.json")?;
        let bytes = match stored {
            Some(stored) => self.taker.small(&stored, MAX_MANIFEST)?,
            None => return Err(self.nothing()),
        };
        let entries = index::entries(&bytes)?;
        if entries.len() > MAX_IMAGES {
            return Err(Error::invalid(format!("the archive has more than {MAX_IMAGES} images")));
        }
        let mut found: Vec<Found> = Vec::new();
        for group in groups(entries) {
            for chosen in self.of_group(&group, platform)? {
                let mut names = names_of(&group);
                if chosen.index.is_none() {
                    names.extend(self.names_beside(docker, &chosen.manifest.config.digest)?);
                }
                let same = |other: &&mut Found| {
                    let top = |chosen: &Chosen| chosen.index.as_ref().map(|index| index.descriptor.digest);
                    other.chosen.blob.descriptor.digest == chosen.blob.descriptor.digest
                        && top(&other.chosen) == top(&chosen)
                };
                match found.iter_mut().find(same) {
                    Some(other) => other.names.extend(names),
                    None => found.push(Found { chosen, names }),
                }
            }
        }
        for image in &mut found {
            order::sort_by_key(&mut image.names, ToString::to_string);
            image.names.dedup();
        }
        Ok(found)
    }

    /// The images of an entry, or of entries that differ in platform: the one for a platform, if one is asked for, and
    /// otherwise all that the archive has. Where those are several, the index of them comes along.
    fn of_group(&self, group: &[Descriptor], platform: Option<&Platform>) -> Result<Vec<Chosen>> {
        let top = match group {
            [only] if index::is_index(&only.media_type.0) => Some(self.manifest(only)?),
            _ => None,
        };
        let mut entries = match &top {
            Some(top) => index::entries(&top.bytes)?,
            None => group.to_vec(),
        };
        entries.retain(|entry| self.has(entry));
        let several = entries.len() > 1 && entries.iter().all(|entry| entry.platform.is_some());
        if platform.is_some() || !several {
            let entry = self.one_of(group, platform)?;
            let mut chosen = self.descend(entry, platform)?;
            if let Some(top) = top {
                let same = |entry: &&Descriptor| entry.digest == chosen.blob.descriptor.digest;
                chosen.platform = entries.iter().find(same).and_then(|entry| entry.platform.clone());
                chosen.index = Some(top);
            }
            return Ok(vec![chosen]);
        }
        let top = match top {
            Some(top) => top,
            None => index_blob(&json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": bare(&entries) }))?,
        };
        let mut all = Vec::new();
        for entry in entries.iter().filter(|entry| is_of_an_image(entry)) {
            let mut chosen = self.descend(entry.clone(), entry.platform.as_ref())?;
            (chosen.index, chosen.platform) = (Some(top.clone()), entry.platform.clone());
            all.push(chosen);
        }
        Ok(all)
    }

    fn has(&self, entry: &Descriptor) -> bool {
        let stored = self.contents.blob(&entry.digest);
        stored.is_some_and(|stored| stored.size == entry.size)
    }

    /// The entry for a platform, of those that the archive has. What it has for one platform alone is taken as it is,
    /// unless a platform is asked for.
    fn one_of(&self, entries: &[Descriptor], platform: Option<&Platform>) -> Result<Descriptor> {
        let shown = entries.iter().flat_map(|entry| entry.annotations.get(FULL_NAME)).next();
        let shown = shown.map_or("the image in the archive", String::as_str);
        let present: Vec<Descriptor> = entries.iter().filter(|entry| self.has(entry)).cloned().collect();
        if present.is_empty() && !entries.is_empty() {
            return Err(lacking(&entries[0].digest));
        }
        let chosen = choose(&present, &platform.cloned().unwrap_or_else(Platform::host), shown);
        match (chosen, platform, present.as_slice()) {
            (Err(_), None, [only]) => Ok(only.clone()),
            (chosen, ..) => chosen,
        }
    }

    fn descend(&self, mut entry: Descriptor, platform: Option<&Platform>) -> Result<Chosen> {
        for _ in 0..MAX_DEPTH {
            let blob = self.manifest(&entry)?;
            match manifest::parse(&blob)? {
                Document::Image(manifest) => {
                    let chosen = Chosen {
                        blob,
                        manifest,
                        index: None,
                        platform: None,
                    };
                    self.check_complete(&chosen)?;
                    return Ok(chosen);
                }
                Document::Index(entries) => entry = self.one_of(&entries, platform)?,
            }
        }
        Err(Error::invalid(format!(
            "the archive has indexes nested more than {MAX_DEPTH} deep"
        )))
    }

    fn manifest(&self, entry: &Descriptor) -> Result<ManifestBlob> {
        let stored = self
            .contents
            .blob(&entry.digest)
            .ok_or_else(|| lacking(&entry.digest))?;
        let bytes = self.taker.small(&stored, MAX_MANIFEST)?;
        Ok(ManifestBlob {
            descriptor: descriptor(&entry.media_type.0, stored),
            bytes: bytes.into(),
        })
    }

    fn check_complete(&self, chosen: &Chosen) -> Result<()> {
        let blobs = [&chosen.manifest.config].into_iter().chain(&chosen.manifest.layers);
        for blob in blobs {
            match self.contents.blob(&blob.digest) {
                Some(stored) if stored.size == blob.size => {}
                _ => return Err(lacking(&blob.digest)),
            }
        }
        Ok(())
    }

    /// The names that `manifest.json` gives the image with a config.
    fn names_beside(&self, docker: &[DockerEntry], config: &Digest) -> Result<Vec<Reference>> {
        let mut names = Vec::new();
        for entry in docker {
            if self
                .contents
                .file(&entry.config)?
                .is_some_and(|stored| stored.digest == *config)
            {
                names.extend(tags_of(entry)?);
            }
        }
        Ok(names)
    }
}

/// Attestations are listed beside images, for a platform that there is not. Source: BuildKit, attestation-storage.md.
fn is_of_an_image(entry: &Descriptor) -> bool {
    entry.platform.as_ref().is_none_or(|platform| platform.os != "unknown")
}

/// Entries without what a layout notes beside them.
fn bare(entries: &[Descriptor]) -> Vec<Descriptor> {
    let bare = |entry: &Descriptor| Descriptor {
        annotations: Default::default(),
        ..entry.clone()
    };
    entries.iter().map(bare).collect()
}

/// Entries of one name that differ in platform are one image; every other entry is one for itself.
fn groups(entries: Vec<Descriptor>) -> Vec<Vec<Descriptor>> {
    let name = |entry: &Descriptor| {
        let names = [FULL_NAME, REF_NAME].map(|key| entry.annotations.get(key).cloned());
        names.iter().any(Option::is_some).then_some(names)
    };
    let mut groups: Vec<Vec<Descriptor>> = Vec::new();
    for entry in entries {
        let fits = |group: &&mut Vec<Descriptor>| {
            name(&entry).is_some()
                && group.iter().all(|other| {
                    name(other) == name(&entry) && other.platform.is_some() && other.platform != entry.platform
                })
        };
        match groups.iter_mut().find(fits).filter(|_| entry.platform.is_some()) {
            Some(group) => group.push(entry),
            None => groups.push(vec![entry]),
        }
    }
    groups
}

/// Names that annotations give. A name in a layout is often a bare tag, which is no name of an image.
fn names_of(group: &[Descriptor]) -> Vec<Reference> {
    let mut names = Vec::new();
    for entry in group {
        let full = entry.annotations.get(FULL_NAME);
        let short = entry.annotations.get(REF_NAME).filter(|name| name.contains([':', '/']));
        let parsed = full.or(short).and_then(|name| name.parse::<Reference>().ok());
        names.extend(parsed.filter(|name| name.tag().is_some() && name.digest().is_none()));
    }
    names
}

fn tags_of(entry: &DockerEntry) -> Result<Vec<Reference>> {
    let tags = entry.repo_tags.as_deref().unwrap_or_default();
    let parse = |tag: &String| {
        tag.parse::<Reference>()
            .map_err(|error| Error::invalid("the archive gives an image a name that is none").with_source(error))
    };
    tags.iter().map(parse).collect()
}

fn image(blob: ManifestBlob) -> Result<Option<Chosen>> {
    Ok(match manifest::parse(&blob)? {
        Document::Image(manifest) => Some(Chosen {
            blob,
            manifest,
            index: None,
            platform: None,
        }),
        Document::Index(_) => None,
    })
}

fn descriptor(media_type: &str, stored: Stored) -> Descriptor {
    Descriptor {
        media_type: MediaType(media_type.to_owned()),
        digest: stored.digest,
        size: stored.size,
        platform: None,
        annotations: Default::default(),
    }
}

fn lacking(digest: &Digest) -> Error {
    let message = format!("the archive lacks the blob {digest}, or has another size of it");
    Error::new(ErrorKind::InvalidArgument, message).with_object(ObjectKind::Blob, digest.to_string())
}
