//! Archives as contexts: unpacked into a directory of the build, by the extractor that treats every layer as hostile.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Seek as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::unistd::{getegid, geteuid};

use super::{Tree, check};
use crate::error::{Error, Result};
use crate::storage::files::read_buffered;
use crate::storage::layer::decompress::Uncompressed;
use crate::storage::layer::tar::Reader;
use crate::storage::layer::{Limits, Plain, apply_plain};
use crate::storage::ownership::Ownership;

pub(crate) const BUFFER: usize = 256 << 10;

/// The entries of an archive in a file.
pub(crate) type Archive<'a> = Reader<Uncompressed<BufReader<&'a File>>>;

/// Whether a file is an archive, plain or compressed, by what is in it.
///
/// # Errors
/// `Unsupported` for what is compressed in a way that is not known here; `Os`.
pub(crate) fn is_archive(file: &File) -> Result<bool> {
    let mut reader = match archive(file, Limits::default()) {
        Ok(reader) => reader,
        Err(error) if error.is_unsupported() || error.errno().is_some() => return Err(error),
        Err(_) => return Ok(false),
    };
    Ok(matches!(reader.next(), Ok(Some(_))))
}

/// Reads an archive from its beginning.
///
/// # Errors
/// Those of [`is_archive`]; `UnsafeArchive`.
pub(crate) fn archive(mut file: &File, limits: Limits) -> Result<Archive<'_>> {
    file.rewind().map_err(|e| Error::os("read an archive", e))?;
    let source = Uncompressed::archive(BufReader::with_capacity(BUFFER, file))?;
    Ok(Reader::new(source, limits))
}

/// Unpacks an archive into a new directory, whose everything is the caller's. Owners do not count in contexts.
///
/// # Errors
/// `UnsafeArchive`, `Unsupported`, `NoSpace`, `Os`.
pub(super) fn unpack(source: impl BufRead, directory: &Path) -> Result<Tree> {
    std::fs::create_dir(directory).map_err(|e| Error::os("make a directory for the context", e))?;
    let tree = Tree::open(directory)?;
    let root = PathBuf::from(format!("/proc/self/fd/{}", tree.root.as_raw_fd()));
    let plain = Plain {
        owner: Some((geteuid().as_raw(), getegid().as_raw())),
        ..Plain::default()
    };
    let source = Uncompressed::archive(source)?;
    apply_plain(source, &root, plain, &Ownership::Direct, &Limits::default())
        .map_err(|error| error.context("unpack the build context"))?;
    Ok(tree)
}

/// Unpacks an archive in a file.
///
/// # Errors
/// Those of [`unpack`]; `Cancelled` once the flag is set.
pub(super) fn unpack_file(mut file: File, directory: &Path, stop: Arc<AtomicBool>) -> Result<Tree> {
    file.rewind().map_err(|e| Error::os("read an archive", e))?;
    let source = Stoppable {
        inner: BufReader::with_capacity(BUFFER, file),
        stop,
    };
    unpack(source, directory)
}

/// A source that ends with an error once a flag is set.
struct Stoppable<R> {
    inner: R,
    stop: Arc<AtomicBool>,
}

impl<R: BufRead> io::Read for Stoppable<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, out)
    }
}

impl<R: BufRead> BufRead for Stoppable<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        check(&self.stop).map_err(io::Error::other)?;
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.inner.consume(amount);
    }
}

/// A text that must not be larger than it may be.
///
/// # Errors
/// `InvalidArgument`, `Os`.
pub(super) fn read_text(file: impl std::io::Read, what: &str, most: usize) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let read = file.take(most as u64 + 1).read_to_end(&mut text);
    read.map_err(|e| Error::os(format!("read {what}"), e))?;
    match text.len() > most {
        true => Err(Error::invalid(format!("{what} has more than {most} bytes"))),
        false => Ok(text),
    }
}
