//! Makes image layouts. Everything here blocks.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::REF_NAME;
use crate::error::{Error, Result};
use crate::types::{ContainerId, Descriptor, DiffId, Digest, Hasher, MediaType, Platform};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// How a layer's tar is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, which everything reads.
    #[default]
    Gzip,
    /// zstd.
    Zstd,
}

/// A layer that was written to a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewLayer {
    /// The compressed blob.
    pub descriptor: Descriptor,
    /// The digest of the tar itself.
    pub diff_id: DiffId,
}

/// Writes blobs and manifests to an image layout, and makes the layout where it is not there yet.
///
/// For one writer at a time. A reader beside it sees the old index or the new one, and never half a blob.
///
/// ```no_run
/// # use longshore::registry::layout::{Compression, LayoutWriter};
/// # use longshore::types::Platform;
/// # fn main() -> longshore::Result<()> {
/// # let tar: &[u8] = &[];
/// let writer = LayoutWriter::create("/tmp/layout")?;
/// let layer = writer.put_layer(tar, Compression::Gzip)?;
/// writer.put_image(Some("hello:1"), &Platform::host(), serde_json::json!({ "Cmd": ["/hello"] }), &[layer])?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct LayoutWriter {
    dir: PathBuf,
}

impl LayoutWriter {
    /// Opens a layout for writing; makes the directory and its files where they are missing.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(dir: impl Into<PathBuf>) -> Result<Self> {
        let writer = Self { dir: dir.into() };
        fs::create_dir_all(writer.dir.join("blobs/sha256"))
            .map_err(|error| Error::os("make the image layout", error))?;
        if !writer.dir.join("oci-layout").exists() {
            writer.replace("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        if !writer.dir.join("index.json").exists() {
            writer.write_index(&[])?;
        }
        Ok(writer)
    }

    /// Where the layout is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Adds a blob.
    ///
    /// # Errors
    /// What the file system says.
    pub fn put_blob(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let digest = Digest::of(bytes);
        self.replace(&format!("blobs/sha256/{}", digest.hex()), bytes)?;
        Ok(descriptor(media_type, digest, bytes.len() as u64))
    }

    /// Adds a layer: reads an uncompressed tar and writes it compressed.
    ///
    /// # Errors
    /// What the reader or the file system says.
    pub fn put_layer(&self, tar: impl Read, compression: Compression) -> Result<NewLayer> {
        let temporary = self.temporary();
        let written = write_layer(&temporary, tar, compression).and_then(|layer| {
            let name = self.dir.join("blobs/sha256").join(layer.descriptor.digest.hex());
            fs::rename(&temporary, name).map(|()| layer)
        });
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written.map_err(|error| Error::os("write a layer to the image layout", error))
    }

    /// Adds a manifest or index and puts it into the layout's index, under a name if one is given. The name is taken
    /// from what had it before, unless that is for another platform.
    ///
    /// # Errors
    /// `InvalidArgument` where the layout's index makes no sense; what the file system says.
    pub fn put_manifest(
        &self,
        name: Option<&str>,
        media_type: &str,
        bytes: &[u8],
        platform: Option<&Platform>,
    ) -> Result<Descriptor> {
        let mut entry = self.put_blob(media_type, bytes)?;
        entry.platform = platform.cloned();
        entry
            .annotations
            .extend(name.map(|name| (REF_NAME.to_owned(), name.to_owned())));
        let old = fs::read(self.dir.join("index.json")).map_err(|error| Error::os("read the layout's index", error))?;
        let mut entries = crate::registry::index::entries(&old)?;
        entries.retain(|old| old.digest != entry.digest || old.annotations != entry.annotations);
        entries.retain(|old| {
            name.is_none()
                || old.annotations.get(REF_NAME).map(String::as_str) != name
                || old.platform != entry.platform
        });
        entries.push(entry.clone());
        self.write_index(&entries)?;
        Ok(entry)
    }

    /// Adds an image: a config made of `config` (the `config` object of the image specification: `Cmd`, `Env`, …) and
    /// the layers, lowest first, and its manifest.
    ///
    /// # Errors
    /// As [`LayoutWriter::put_manifest`].
    pub fn put_image(
        &self,
        name: Option<&str>,
        platform: &Platform,
        config: Value,
        layers: &[NewLayer],
    ) -> Result<Descriptor> {
        let config = self.put_blob(CONFIG, &json_bytes(&image_config(platform, config, layers))?)?;
        let layers: Vec<&Descriptor> = layers.iter().map(|layer| &layer.descriptor).collect();
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
        self.put_manifest(name, MANIFEST, &json_bytes(&manifest)?, Some(platform))
    }

    /// Gives a name to what is in the layout, and to nothing else.
    pub(super) fn name(&self, name: &str, mut entry: Descriptor) -> Result<()> {
        entry.annotations.insert(REF_NAME.to_owned(), name.to_owned());
        let old = fs::read(self.dir.join("index.json")).map_err(|error| Error::os("read the layout's index", error))?;
        let mut entries = crate::registry::index::entries(&old)?;
        entries.retain(|old| old.annotations.get(REF_NAME).map(String::as_str) != Some(name));
        entries.push(entry);
        self.write_index(&entries)
    }

    fn write_index(&self, entries: &[Descriptor]) -> Result<()> {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
        self.replace("index.json", &json_bytes(&index)?)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let temporary = self.temporary();
        let written = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, self.dir.join(name)));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written.map_err(|error| Error::os("write to the image layout", error))
    }

    pub(super) fn temporary(&self) -> PathBuf {
        self.dir.join(format!(".new-{}", ContainerId::random().short()))
    }
}

fn image_config(platform: &Platform, config: Value, layers: &[NewLayer]) -> Value {
    let diff_ids: Vec<&DiffId> = layers.iter().map(|layer| &layer.diff_id).collect();
    let mut out = json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    if let Some(variant) = &platform.variant {
        out["variant"] = json!(variant);
    }
    out
}

fn write_layer(path: &Path, tar: impl Read, compression: Compression) -> io::Result<NewLayer> {
    let file = Hashing {
        inner: File::create_new(path)?,
        hasher: Hasher::default(),
        size: 0,
    };
    let (blob, diff_id, media_type) = match compression {
        Compression::None => {
            let mut file = file;
            let diff_id = copy(tar, &mut file)?;
            (file, diff_id, "application/vnd.oci.image.layer.v1.tar")
        }
        Compression::Gzip => {
            let mut out = GzEncoder::new(file, flate2::Compression::default());
            let diff_id = copy(tar, &mut out)?;
            (out.finish()?, diff_id, "application/vnd.oci.image.layer.v1.tar+gzip")
        }
        Compression::Zstd => {
            let mut out = zstd::Encoder::new(file, zstd::DEFAULT_COMPRESSION_LEVEL)?;
            let diff_id = copy(tar, &mut out)?;
            (out.finish()?, diff_id, "application/vnd.oci.image.layer.v1.tar+zstd")
        }
    };
    let descriptor = descriptor(media_type, blob.hasher.finish(), blob.size);
    Ok(NewLayer { descriptor, diff_id })
}

fn copy(mut from: impl Read, to: &mut impl Write) -> io::Result<Digest> {
    let mut to = Hashing {
        inner: to,
        hasher: Hasher::default(),
        size: 0,
    };
    io::copy(&mut from, &mut to)?;
    Ok(to.hasher.finish())
}

/// Hashes and counts what is written through it.
struct Hashing<W> {
    inner: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: MediaType(media_type.to_owned()),
        digest,
        size,
        platform: None,
        annotations: Default::default(),
    }
}

fn json_bytes(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::internal("JSON cannot be written").with_source(error))
}
