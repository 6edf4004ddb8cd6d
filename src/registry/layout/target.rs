//! A layout to push to. Several may push to one layout at a time: blobs get their names whole, and the index is changed under
//! a lock.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use nix::fcntl::{Flock, FlockArg};

use super::writer::LayoutWriter;
use super::{LayoutRegistry, blocking};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::registry::{BlobStream, ManifestBlob, ManifestKey, Registry, Upload};
use crate::types::{Descriptor, Digest, Hasher};

/// A layout that can be pushed to, and pulled from. Repositories play no part; a tag is the name of an image in it.
#[derive(Debug, Clone)]
pub struct LayoutTarget {
    writer: Arc<LayoutWriter>,
    registry: LayoutRegistry,
}

impl LayoutTarget {
    /// Opens a layout, and makes it where there is none.
    ///
    /// # Errors
    /// `UnsafeArchive` where a symbolic link stands in it for a directory; `Unsupported` for a layout of another version; what
    /// the file system says.
    ///
    /// # Cancel safety
    /// An empty layout may be left.
    pub async fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let path = dir.as_ref().to_owned();
        let writer = blocking(move || {
            for part in ["blobs", "blobs/sha256"] {
                let part = path.join(part);
                if fs::symlink_metadata(&part).is_ok_and(|metadata| metadata.is_symlink()) {
                    let message = format!("{} is a symbolic link", part.display());
                    return Err(Error::new(ErrorKind::UnsafeArchive, message));
                }
            }
            LayoutWriter::create(path)
        })
        .await?;
        let registry = LayoutRegistry::open(dir).await?;
        Ok(Self {
            writer: Arc::new(writer),
            registry,
        })
    }
}

impl LayoutTarget {
    /// Writes a manifest or index that has no name, and lists it.
    #[cfg(all(feature = "engine", feature = "build"))]
    pub(crate) async fn put_unnamed(&self, manifest: &ManifestBlob) -> Result<()> {
        let (writer, manifest) = (Arc::clone(&self.writer), manifest.clone());
        blocking(move || {
            let _held = locked(&writer)?;
            let media_type = &manifest.descriptor.media_type.0;
            writer.put_manifest(None, media_type, &manifest.bytes, None).map(drop)
        })
        .await
    }
}

/// Nobody else changes the index meanwhile. Blocking.
fn locked(writer: &LayoutWriter) -> Result<Flock<File>> {
    let dir = File::open(writer.dir()).map_err(|error| Error::os("open the image layout", error))?;
    Flock::lock(dir, FlockArg::LockExclusive).map_err(|(_, errno)| Error::os("lock the image layout", errno))
}

#[async_trait]
impl Registry for LayoutTarget {
    async fn manifest(&self, repository: &str, key: &ManifestKey) -> Result<ManifestBlob> {
        self.registry.manifest(repository, key).await
    }

    async fn blob(&self, repository: &str, descriptor: &Descriptor, offset: u64) -> Result<BlobStream> {
        self.registry.blob(repository, descriptor, offset).await
    }

    async fn has_blob(&self, _repository: &str, descriptor: &Descriptor) -> Result<bool> {
        let (dir, wanted) = (Arc::clone(&self.registry.dir), descriptor.clone());
        blocking(move || match dir.blob(&wanted.digest) {
            Ok((_, size)) => Ok(size == wanted.size),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        })
        .await
    }

    async fn upload(&self, _repository: &str, descriptor: &Descriptor, upload: Upload) -> Result<()> {
        let mut stream = upload.source.open(0).await?;
        let writer = Arc::clone(&self.writer);
        let mut arrival = blocking(move || Arrival::begin(&writer)).await?;
        while let Some(piece) = stream.next().await {
            let piece = piece?;
            arrival = blocking(move || arrival.add(&piece)).await?;
            (upload.reached)(arrival.size);
        }
        let (writer, wanted) = (Arc::clone(&self.writer), descriptor.clone());
        blocking(move || arrival.end(&writer, &wanted)).await
    }

    async fn put_manifest(&self, _repository: &str, key: &ManifestKey, manifest: &ManifestBlob) -> Result<()> {
        let (writer, key, manifest) = (Arc::clone(&self.writer), key.clone(), manifest.clone());
        blocking(move || {
            let media_type = &manifest.descriptor.media_type.0;
            let entry = writer.put_blob(media_type, &manifest.bytes)?;
            let ManifestKey::Tag(name) = key else { return Ok(()) };
            let _held = locked(&writer)?;
            writer.name(&name, entry)
        })
        .await
    }
}

/// A blob on its way, in a file that goes with it unless it ends well.
#[derive(Debug)]
struct Arrival {
    file: Temporary,
    hasher: Hasher,
    size: u64,
}

impl Arrival {
    fn begin(writer: &LayoutWriter) -> Result<Self> {
        Ok(Self {
            file: Temporary::make(writer.temporary())?,
            hasher: Hasher::default(),
            size: 0,
        })
    }

    fn add(mut self, bytes: &[u8]) -> Result<Self> {
        let written = (&self.file.file).write_all(bytes);
        written.map_err(failed)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(self)
    }

    fn end(self, writer: &LayoutWriter, wanted: &Descriptor) -> Result<()> {
        let is = self.hasher.finish();
        if is != wanted.digest || self.size != wanted.size {
            let message = format!("what was to be {} hashes to {is}", wanted.digest);
            let error = Error::new(ErrorKind::DigestMismatch, message);
            return Err(error.with_object(ObjectKind::Blob, wanted.digest.to_string()));
        }
        self.file.keep(&blob_path(writer.dir(), &wanted.digest))
    }
}

fn blob_path(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join("blobs/sha256").join(digest.hex())
}

/// A file that goes unless it is kept.
#[derive(Debug)]
struct Temporary {
    file: File,
    path: PathBuf,
}

impl Temporary {
    fn make(path: PathBuf) -> Result<Self> {
        let file = File::create_new(&path).map_err(failed)?;
        Ok(Self { file, path })
    }

    fn keep(self, name: &Path) -> Result<()> {
        fs::rename(&self.path, name).map_err(failed)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already where it was kept.
        let _ = fs::remove_file(&self.path);
    }
}

fn failed(error: io::Error) -> Error {
    Error::os("write to the image layout", error)
}
