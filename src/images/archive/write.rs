//! An archive as a stream: nothing is read before somebody asks for it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::images::ByteStream;
use crate::storage::content::ContentStore;
use crate::storage::files::blocking;
use crate::types::{Descriptor, Digest, Hasher};

/// How much is read at a time.
const CHUNK: usize = 1 << 20;
const BLOCK: usize = 512;

/// An entry of an archive.
#[derive(Debug)]
pub(in crate::images) enum Item {
    /// A directory.
    Dir(&'static str),
    /// A file that is in memory.
    File(&'static str, Vec<u8>),
    /// A blob of the content store, as it is.
    Blob(Descriptor),
    /// A blob that is in memory.
    Bytes(Descriptor, Bytes),
}

/// What is still to come.
enum Part {
    Bytes(Bytes),
    Blob(Descriptor),
}

struct Writer<G> {
    content: Arc<dyn ContentStore>,
    parts: VecDeque<Part>,
    open: Option<Reading>,
    /// Kept until the stream is.
    _guard: G,
}

/// A blob being read. It is hashed: what left the disk since it came must not pass for an image.
struct Reading {
    file: File,
    blob: Descriptor,
    hasher: Hasher,
    read: u64,
}

/// The bytes of a tar with these entries. `guard` lives as long as the stream.
pub(in crate::images) fn stream<G: Send + 'static>(
    content: Arc<dyn ContentStore>,
    items: Vec<Item>,
    guard: G,
) -> Result<ByteStream> {
    let mut parts = VecDeque::new();
    for item in items {
        match item {
            Item::Dir(path) => parts.push_back(Part::Bytes(header(path, 0, true)?)),
            Item::File(path, bytes) => {
                let size = bytes.len() as u64;
                parts.push_back(Part::Bytes(header(path, size, false)?));
                parts.push_back(Part::Bytes(bytes.into()));
                parts.extend(padding(size).map(Part::Bytes));
            }
            Item::Bytes(blob, bytes) => {
                let path = format!("blobs/sha256/{}", blob.digest.hex());
                parts.push_back(Part::Bytes(header(&path, blob.size, false)?));
                parts.push_back(Part::Bytes(bytes));
                parts.extend(padding(blob.size).map(Part::Bytes));
            }
            Item::Blob(blob) => {
                let path = format!("blobs/sha256/{}", blob.digest.hex());
                parts.push_back(Part::Bytes(header(&path, blob.size, false)?));
                let end = padding(blob.size);
                parts.push_back(Part::Blob(blob));
                parts.extend(end.map(Part::Bytes));
            }
        }
    }
    parts.push_back(Part::Bytes(Bytes::from_static(&[0; 2 * BLOCK])));
    let writer = Writer {
        content,
        parts,
        open: None,
        _guard: guard,
    };
    Ok(stream::try_unfold(writer, |mut writer| async move {
        Ok(writer.next().await?.map(|bytes| (bytes, writer)))
    })
    .boxed())
}

impl<G> Writer<G> {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(reading) = self.open.take() {
                let (bytes, reading) = blocking(move || reading.next()).await?;
                self.open = reading;
                if !bytes.is_empty() {
                    return Ok(Some(bytes));
                }
                continue;
            }
            match self.parts.pop_front() {
                None => return Ok(None),
                Some(Part::Bytes(bytes)) => return Ok(Some(self.with_next(bytes))),
                Some(Part::Blob(blob)) => {
                    let file = self.content.open(&blob.digest).await?;
                    self.open = Some(Reading {
                        file,
                        blob,
                        hasher: Hasher::default(),
                        read: 0,
                    });
                }
            }
        }
    }

    /// Small pieces that follow each other go together.
    fn with_next(&mut self, first: Bytes) -> Bytes {
        let mut all = Vec::new();
        while let Some(Part::Bytes(_)) = self.parts.front() {
            if let Some(Part::Bytes(next)) = self.parts.pop_front() {
                if all.is_empty() {
                    all.extend_from_slice(&first);
                }
                all.extend_from_slice(&next);
            }
        }
        if all.is_empty() { first } else { all.into() }
    }
}

impl Reading {
    /// The next piece, and what is left. Blocking.
    fn next(mut self) -> Result<(Bytes, Option<Self>)> {
        let mut bytes = Vec::with_capacity(CHUNK);
        (&mut self.file)
            .take(CHUNK as u64)
            .read_to_end(&mut bytes)
            .map_err(|error| Error::os("read a blob", error))?;
        self.hasher.update(&bytes);
        self.read += bytes.len() as u64;
        if self.read > self.blob.size || bytes.is_empty() && self.read < self.blob.size {
            return Err(damaged(&self.blob.digest));
        }
        if self.read < self.blob.size {
            return Ok((bytes.into(), Some(self)));
        }
        if self.hasher.finish() != self.blob.digest {
            return Err(damaged(&self.blob.digest));
        }
        Ok((bytes.into(), None))
    }
}

fn damaged(digest: &Digest) -> Error {
    let message = format!(
        "the blob {} in the content store is damaged: remove the image and pull it again",
        digest.short()
    );
    Error::new(ErrorKind::Corrupt, message).with_object(ObjectKind::Blob, digest.to_string())
}

/// A ustar header. The time is always the same, so that an archive of the same images is the same.
fn header(path: &str, size: u64, is_dir: bool) -> Result<Bytes> {
    let mut header = tar::Header::new_ustar();
    header
        .set_path(path)
        .map_err(|error| Error::internal("a path that fits no header").with_source(error))?;
    header.set_entry_type(if is_dir {
        tar::EntryType::Directory
    } else {
        tar::EntryType::Regular
    });
    header.set_mode(if is_dir { 0o755 } else { 0o644 });
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    Ok(Bytes::copy_from_slice(header.as_bytes()))
}

fn padding(size: u64) -> Option<Bytes> {
    let over = (size % BLOCK as u64) as usize;
    (over > 0).then(|| Bytes::from_static(&[0; BLOCK]).slice(over..))
}
