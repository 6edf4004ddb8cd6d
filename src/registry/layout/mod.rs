//! An OCI image layout on disk as a registry. Source: OCI image-spec 1.1, image-layout.md.
//!
//! A layout holds one repository, so the repository's name plays no part. Symbolic links inside a layout are refused,
//! wherever they lead. Digests are checked by whoever reads the bytes, as with any registry.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::json;

use self::dir::LayoutDir;
use super::index;
use super::{BlobStream, MAX_MANIFEST, ManifestBlob, ManifestKey, Registry};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::sys::blocking::blocking;
use crate::types::{Descriptor, Digest, MediaType};

mod dir;
mod target;
mod writer;

#[cfg(test)]
mod tests;

pub use self::target::LayoutTarget;
pub use self::writer::{Compression, LayoutWriter, NewLayer};

/// The annotation that names an image in a layout.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Indexes in indexes in indexes: how deep a name is looked for.
const MAX_DEPTH: usize = 4;
/// Bytes of one piece of a stream.
const CHUNK: usize = 256 << 10;

/// A layout that can be pulled from.
#[derive(Debug, Clone)]
pub struct LayoutRegistry {
    dir: Arc<LayoutDir>,
}

impl LayoutRegistry {
    /// Opens a layout.
    ///
    /// # Errors
    /// `NotFound` where there is no such directory or it is no layout; `Unsupported` for a layout of another version.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    pub async fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let path = dir.as_ref().to_owned();
        let dir = blocking(move || {
            let dir = LayoutDir::open(&path)?;
            check_version(&dir)?;
            Ok(dir)
        })
        .await?;
        Ok(Self { dir: Arc::new(dir) })
    }

    /// Finds an image: by its name in the layout, or the only one where no name is given. Several entries that differ in
    /// platform alone are one image, and come back as an index made of them. The descriptor carries the name it has in
    /// the layout.
    ///
    /// # Errors
    /// `NotFound` naming what is there; `InvalidArgument` where the choice is not clear.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    pub async fn select(&self, name: Option<&str>) -> Result<ManifestBlob> {
        let (dir, name) = (Arc::clone(&self.dir), name.map(str::to_owned));
        blocking(move || select(&dir, name.as_deref())).await
    }
}

#[async_trait]
impl Registry for LayoutRegistry {
    async fn manifest(&self, _repository: &str, key: &ManifestKey) -> Result<ManifestBlob> {
        match key {
            ManifestKey::Tag(name) => self.select(Some(name)).await,
            ManifestKey::Digest(digest) => {
                let (dir, digest) = (Arc::clone(&self.dir), *digest);
                blocking(move || read_manifest(&dir, &digest, None)).await
            }
        }
    }

    async fn blob(&self, _repository: &str, descriptor: &Descriptor, offset: u64) -> Result<BlobStream> {
        let (dir, wanted) = (Arc::clone(&self.dir), descriptor.clone());
        let file = blocking(move || open_blob(&dir, &wanted, offset)).await?;
        let digest = descriptor.digest;
        Ok(stream::try_unfold(file, move |file| read_chunk(file, digest)).boxed())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutFile {
    image_layout_version: String,
}

fn check_version(dir: &LayoutDir) -> Result<()> {
    let bytes = dir.read_top("oci-layout", 4096)?;
    let file: LayoutFile = serde_json::from_slice(&bytes).map_err(|error| {
        Error::invalid(format!(
            "{} is no image layout: its oci-layout file makes no sense",
            dir.shown()
        ))
        .with_source(error)
    })?;
    if file.image_layout_version.starts_with("1.") {
        return Ok(());
    }
    let what = format!("an image layout of version {:?}", file.image_layout_version);
    Err(Error::unsupported(what, "a layout of version 1.0.0"))
}

fn select(dir: &LayoutDir, name: Option<&str>) -> Result<ManifestBlob> {
    let top = index::entries(&dir.read_top("index.json", MAX_MANIFEST)?)?;
    let found = match name {
        Some(name) => named(dir, &top, name)?,
        None => top.clone(),
    };
    match found.as_slice() {
        [] => Err(nothing(dir, &top, name)),
        [only] => {
            let mut manifest = read_manifest(dir, &only.digest, Some(&only.media_type))?;
            manifest.descriptor.annotations = only.annotations.clone();
            Ok(manifest)
        }
        several if differ_in_platform_alone(several) => join(several),
        _ => {
            let message = format!(
                "the image layout {} holds several images ({}): name one",
                dir.shown(),
                names(&top)
            );
            Err(Error::invalid(message).with_object(ObjectKind::Image, dir.shown()))
        }
    }
}

/// The entries with a name, at the top or, failing that, in a nested index.
fn named(dir: &LayoutDir, top: &[Descriptor], name: &str) -> Result<Vec<Descriptor>> {
    let mut level = top.to_vec();
    for _ in 0..MAX_DEPTH {
        let found: Vec<Descriptor> = level
            .iter()
            .filter(|entry| ref_name(entry) == Some(name))
            .cloned()
            .collect();
        if !found.is_empty() {
            return Ok(found);
        }
        level = below(dir, &level)?;
    }
    Ok(Vec::new())
}

fn below(dir: &LayoutDir, level: &[Descriptor]) -> Result<Vec<Descriptor>> {
    let mut out = Vec::new();
    for entry in level.iter().filter(|entry| index::is_index(&entry.media_type.0)) {
        let nested = read_manifest(dir, &entry.digest, Some(&entry.media_type))?;
        out.extend(index::entries(&nested.bytes)?);
        if out.len() > index::MAX_ENTRIES {
            return Err(Error::invalid(format!(
                "the image layout {} has too many entries",
                dir.shown()
            )));
        }
    }
    Ok(out)
}

fn ref_name(entry: &Descriptor) -> Option<&str> {
    entry.annotations.get(REF_NAME).map(String::as_str)
}

fn differ_in_platform_alone(entries: &[Descriptor]) -> bool {
    let same_name = entries.windows(2).all(|pair| ref_name(&pair[0]) == ref_name(&pair[1]));
    let mut seen = Vec::new();
    let distinct = entries.iter().all(|entry| match &entry.platform {
        Some(platform) if !seen.contains(&platform) => {
            seen.push(platform);
            true
        }
        _ => false,
    });
    same_name && distinct
}

fn join(entries: &[Descriptor]) -> Result<ManifestBlob> {
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": entries });
    let bytes =
        serde_json::to_vec(&index).map_err(|error| Error::internal("an index cannot be written").with_source(error))?;
    let mut joined = blob_of(MediaType(media_type.to_owned()), bytes);
    joined.descriptor.annotations.extend(
        entries
            .first()
            .and_then(ref_name)
            .map(|name| (REF_NAME.to_owned(), name.to_owned())),
    );
    Ok(joined)
}

fn nothing(dir: &LayoutDir, top: &[Descriptor], name: Option<&str>) -> Error {
    let message = match name {
        Some(name) => format!(
            "there is no image {name:?} in the image layout {} (it has: {})",
            dir.shown(),
            names(top)
        ),
        None => format!("the image layout {} is empty", dir.shown()),
    };
    Error::new(ErrorKind::NotFound, message).with_object(ObjectKind::Image, name.unwrap_or(dir.shown()))
}

fn names(entries: &[Descriptor]) -> String {
    let mut names: Vec<&str> = entries.iter().filter_map(ref_name).take(20).collect();
    names.dedup();
    if names.is_empty() {
        "no names".to_owned()
    } else {
        names.join(", ")
    }
}

fn read_manifest(dir: &LayoutDir, digest: &Digest, stated: Option<&MediaType>) -> Result<ManifestBlob> {
    let bytes = dir.read_blob(digest, MAX_MANIFEST)?;
    let is = Digest::of(&bytes);
    if is != *digest {
        let message = format!(
            "a manifest in the image layout {} hashes to {is}, not to {digest}",
            dir.shown()
        );
        return Err(
            Error::new(ErrorKind::DigestMismatch, message).with_object(ObjectKind::Manifest, digest.to_string())
        );
    }
    let media_type = stated.cloned().or_else(|| inner_media_type(&bytes));
    Ok(blob_of(
        media_type.unwrap_or_else(|| MediaType("application/vnd.oci.image.manifest.v1+json".to_owned())),
        bytes,
    ))
}

fn inner_media_type(bytes: &[u8]) -> Option<MediaType> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: MediaType,
    }
    serde_json::from_slice::<Typed>(bytes)
        .ok()
        .map(|typed| typed.media_type)
}

fn blob_of(media_type: MediaType, bytes: Vec<u8>) -> ManifestBlob {
    let bytes = Bytes::from(bytes);
    let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
    ManifestBlob {
        descriptor: Descriptor {
            media_type,
            digest,
            size,
            platform: None,
            annotations: Default::default(),
        },
        bytes,
    }
}

fn open_blob(dir: &LayoutDir, descriptor: &Descriptor, offset: u64) -> Result<File> {
    let (mut file, size) = dir.blob(&descriptor.digest)?;
    if size != descriptor.size {
        let message = format!(
            "{} in the image layout {} has {size} bytes, not {}",
            descriptor.digest,
            dir.shown(),
            descriptor.size
        );
        return Err(
            Error::new(ErrorKind::DigestMismatch, message).with_object(ObjectKind::Blob, descriptor.digest.to_string())
        );
    }
    file.seek(SeekFrom::Start(offset))
        .map_err(|error| Error::os("seek in the image layout", error))?;
    Ok(file)
}

async fn read_chunk(mut file: File, digest: Digest) -> Result<Option<(Bytes, File)>> {
    blocking(move || {
        let mut chunk = vec![0; CHUNK];
        let read = file.read(&mut chunk).map_err(|error| {
            Error::os("read the image layout", error).with_object(ObjectKind::Blob, digest.to_string())
        })?;
        chunk.truncate(read);
        Ok((read > 0).then(|| (Bytes::from(chunk), file)))
    })
    .await
}
