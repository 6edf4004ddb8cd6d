//! Takes an archive in: every file into the content store, under its digest.

use std::fs::File;
use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};

use super::MAX_FILES;
use super::contents::{Contents, Stored, dir_of, inside, text, unsafe_name};
use super::held::Holder;
use crate::error::{Error, Result};
use crate::storage::content::{ContentStore, Ingest};
use crate::storage::inflow::Inflow;
use crate::storage::layer::Limits;
use crate::storage::layer::decompress::Uncompressed;
use crate::storage::layer::tar::{Entry, Kind, Reader};
use crate::storage::unpack::{Followed, Follower};
use crate::sys::blocking::wait_for;
use crate::types::Digest;

/// Writes what comes in into the content store. Blocking.
#[derive(Debug)]
pub(in crate::images) struct Taker {
    content: Arc<dyn ContentStore>,
    holder: Holder,
    /// Who unpacks layers as they come in.
    follower: Option<Follower>,
    /// The store is async, and this is a thread without a runtime.
    runtime: Runtime,
}

impl Taker {
    pub(in crate::images) fn new(content: Arc<dyn ContentStore>, holder: Holder) -> Result<Self> {
        let runtime = Builder::new_current_thread()
            .max_blocking_threads(1)
            .build()
            .map_err(|error| Error::os("start a runtime for an archive", error))?;
        Ok(Self {
            content,
            holder,
            follower: None,
            runtime,
        })
    }

    /// What the store does, here if it can be.
    fn wait<T>(&self, what: Pin<Box<dyn Future<Output = T> + Send + '_>>) -> T {
        wait_for(&self.runtime, what)
    }

    /// Has layers unpacked as they come in.
    pub(in crate::images) fn followed(self, follower: Option<Follower>) -> Self {
        Self { follower, ..self }
    }

    /// Reads a tar to its end.
    ///
    /// # Errors
    /// `UnsafeArchive`, `DigestMismatch`, `Unsupported` for what is in it; what the stream says; `NoSpace`, `Os`.
    pub(in crate::images) fn archive(&self, inflow: Inflow) -> Result<Contents> {
        let limits = Limits {
            entries: MAX_FILES,
            ..Limits::default()
        };
        let mut tar = Reader::new(Uncompressed::unhashed(inflow)?, limits);
        let mut contents = Contents::default();
        while let Some(entry) = tar.next()? {
            self.entry(&mut tar, &entry, &mut contents)?;
        }
        Ok(contents)
    }

    fn entry(&self, tar: &mut Reader<Uncompressed<Inflow>>, entry: &Entry, contents: &mut Contents) -> Result<()> {
        let path = inside("", text(&entry.path)?)?;
        match entry.kind {
            Kind::Directory => Ok(()),
            Kind::File if entry.sparse.is_some() => Err(Error::unsupported(
                "an archive of images with sparse files",
                "an archive without them (tar without --sparse)",
            )),
            Kind::File => {
                let stored = self.file(tar, entry, digest_in(&path)?)?;
                contents.add(path, stored);
                Ok(())
            }
            Kind::Symlink => {
                let target = inside(dir_of(&path), text(&entry.link)?)?;
                contents.add_link(path, target);
                Ok(())
            }
            Kind::HardLink => {
                let target = inside("", text(&entry.link)?)?;
                contents.add_link(path, target);
                Ok(())
            }
            Kind::Character | Kind::Block | Kind::Fifo => Err(unsafe_name("a device or a pipe", &path)),
        }
    }

    fn file(&self, tar: &mut Reader<Uncompressed<Inflow>>, entry: &Entry, expected: Option<Digest>) -> Result<Stored> {
        let mut here = false;
        if let Some(digest) = &expected {
            self.holder.blob(digest)?;
            here = self.is_here(digest)?;
        }
        let follower = self.follower.as_ref().filter(|_| !here);
        let mut followed = None;
        let mut begun = false;
        let mut ingest = self.wait(self.content.ingest(expected.as_ref(), Some(entry.size)))?;
        loop {
            let piece = tar.data()?;
            let length = piece.len();
            if length == 0 {
                break;
            }
            ingest.write(piece)?;
            if !std::mem::replace(&mut begun, true) {
                followed = follower.and_then(|follower| follower.follow(&*ingest, piece, entry.size));
            }
            if let Some(followed) = &followed {
                followed.wrote(length);
            }
            tar.consume(length)?;
        }
        self.keep(ingest, expected, followed)
    }

    fn is_here(&self, digest: &Digest) -> Result<bool> {
        Ok(self.wait(self.content.info(digest))?.is_some())
    }

    /// Takes a whole stream as one blob.
    ///
    /// # Errors
    /// As [`Taker::archive`].
    pub(in crate::images) fn blob(&self, mut inflow: Inflow) -> Result<Stored> {
        use std::io::BufRead as _;
        let mut ingest = self.wait(self.content.ingest(None, None))?;
        let mut followed = None;
        let mut begun = false;
        loop {
            let piece = inflow.fill_buf().map_err(crate::storage::layer::tar::read_error)?;
            let length = piece.len();
            if length == 0 {
                break;
            }
            ingest.write(piece)?;
            if !std::mem::replace(&mut begun, true) {
                let follower = self.follower.as_ref();
                followed = follower.and_then(|follower| follower.follow(&*ingest, piece, u64::MAX));
            }
            if let Some(followed) = &followed {
                followed.wrote(length);
            }
            inflow.consume(length);
        }
        self.keep(ingest, None, followed)
    }

    fn keep(&self, ingest: Box<dyn Ingest>, expected: Option<Digest>, followed: Option<Followed>) -> Result<Stored> {
        let known = expected.or_else(|| ingest.digest());
        if let Some(digest) = known.filter(|_| expected.is_none()) {
            self.holder.blob(&digest)?;
        }
        let mut followed = followed;
        if let (Some(digest), Some(follower), true) = (&known, &self.follower, followed.is_some())
            && self.is_here(digest)?
        {
            // A layer that is here already is most likely of an image that is: what is below and above it is here, too.
            followed = None;
            follower.close();
        }
        let info = ingest.commit()?;
        if known != Some(info.digest) {
            self.holder.blob(&info.digest)?;
        }
        if let Some(follower) = &self.follower {
            follower.kept(&info.digest);
        }
        if let Some(followed) = followed {
            followed.kept(&info.digest);
        }
        Ok(Stored {
            digest: info.digest,
            size: info.size,
        })
    }

    /// A file that was taken in.
    pub(in crate::images) fn open(&self, stored: &Stored) -> Result<File> {
        self.wait(self.content.open(&stored.digest))
    }

    /// The bytes of a small file.
    ///
    /// # Errors
    /// `InvalidArgument` where it is larger than `max`.
    pub(in crate::images) fn small(&self, stored: &Stored, max: u64) -> Result<Vec<u8>> {
        if stored.size > max {
            let message = format!(
                "the archive has metadata of {} bytes, where at most {max} are taken",
                stored.size
            );
            return Err(Error::invalid(message));
        }
        self.head(stored, max)
    }

    /// The first bytes of a file.
    pub(in crate::images) fn head(&self, stored: &Stored, length: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(stored)?
            .take(length)
            .read_to_end(&mut bytes)
            .map_err(|error| Error::os("read what an archive brought", error))?;
        Ok(bytes)
    }
}

/// The digest that a path of a layout promises.
fn digest_in(path: &str) -> Result<Option<Digest>> {
    let Some(hex) = path.strip_prefix("blobs/sha256/") else {
        return Ok(None);
    };
    let digest = format!("sha256:{hex}").parse();
    digest
        .map(Some)
        .map_err(|_| unsafe_name("a blob without a digest for its name", path))
}
