//! A blob as a blocking worker reads it: from the network through a bounded channel, hashed and kept on the way, or from
//! the content store.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Progress, ProgressEvent};
use crate::storage::content::{Ingest, check_room, check_whole, mismatch};
use crate::storage::files::read_buffered;
use crate::storage::layer::Hashing;
use crate::types::{Descriptor, Digest, Hasher, LayerRef};

/// Progress is told at least this many bytes apart.
const TOLD: u64 = 256 << 10;
/// How much of what an earlier attempt left is read at a time.
const READ_BACK: usize = 256 << 10;

/// Said to workers whose caller went away.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.is_set() {
            return Err(cancelled());
        }
        Ok(())
    }
}

pub(super) fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "the caller went away")
}

/// Counts bytes and tells of them in pieces that add up to the size.
#[derive(Debug)]
pub(super) struct Teller {
    progress: Progress,
    digest: Digest,
    size: u64,
    untold: u64,
}

impl Teller {
    pub(super) fn new(progress: Progress, blob: &Descriptor) -> Self {
        Self {
            progress,
            digest: blob.digest,
            size: blob.size,
            untold: 0,
        }
    }

    pub(super) fn add(&mut self, bytes: u64) {
        self.untold += bytes;
        if self.untold >= TOLD {
            self.flush();
        }
    }

    pub(super) fn flush(&mut self) {
        if self.untold > 0 {
            let bytes = std::mem::take(&mut self.untold);
            self.progress.report(ProgressEvent::Downloaded {
                digest: self.digest,
                bytes,
                size: self.size,
            });
        }
    }
}

/// What a blob's bytes pass through.
pub(super) enum BlobReader {
    /// From the network: the ingest checks size and digest.
    Network {
        chunks: mpsc::Receiver<Result<Bytes>>,
        piece: Bytes,
        ingest: Box<dyn Ingest>,
        teller: Teller,
        stop: Stop,
    },
    /// From the store: hashed again, since a crash may have left it without its data; unless it is plain, and whoever unpacks
    /// it compares the very same bytes with the very same digest.
    Store {
        file: BufReader<File>,
        hasher: Option<Hasher>,
        read: u64,
        /// Whether it is known to unpack to what it should.
        known: bool,
        stop: Stop,
    },
}

impl BlobReader {
    pub(super) fn network(
        chunks: mpsc::Receiver<Result<Bytes>>,
        ingest: Box<dyn Ingest>,
        teller: Teller,
        stop: Stop,
    ) -> Self {
        Self::Network {
            chunks,
            piece: Bytes::new(),
            ingest,
            teller,
            stop,
        }
    }

    pub(super) fn store(file: File, stop: Stop) -> Self {
        Self::Store {
            file: BufReader::with_capacity(256 << 10, file),
            hasher: Some(Hasher::default()),
            read: 0,
            known: false,
            stop,
        }
    }

    /// As [`BlobReader::store`], for a layer to unpack, whose diff ID is checked at its end. One that is `fresh` was hashed
    /// a moment ago, by this process.
    pub(super) fn layer(file: File, layer: &LayerRef, fresh: bool, stop: Stop) -> Result<Self> {
        let mut reader = Self::store(file, stop);
        let Self::Store {
            file, hasher, known, ..
        } = &mut reader
        else {
            return Ok(reader);
        };
        let plain = layer.descriptor.digest == layer.diff_id && is_plain(file.fill_buf().map_err(ours)?);
        if plain || fresh {
            *hasher = None;
        }
        *known = plain && fresh;
        Ok(reader)
    }

    /// Who hashes what it unpacks to: nobody, where that is known.
    pub(super) fn hashing(&self) -> Hashing {
        match self {
            Self::Store { known: true, .. } => Hashing::Spared,
            _ => Hashing::Done,
        }
    }

    /// Reads the rest.
    pub(super) fn drain(&mut self) -> Result<()> {
        loop {
            let length = self.fill_buf().map_err(ours)?.len();
            if length == 0 {
                return Ok(());
            }
            self.consume(length);
        }
    }

    /// Checks that all bytes were the right ones, and keeps the blob.
    pub(super) fn commit(self, blob: &Descriptor) -> Result<()> {
        match self {
            Self::Network { ingest, mut teller, .. } => {
                teller.flush();
                ingest.commit().map(drop)
            }
            Self::Store { hasher, read, .. } => {
                let digest = hasher.map_or(blob.digest, Hasher::finish);
                check_whole(Some(&blob.digest), Some(blob.size), &digest, read)
            }
        }
    }
}

/// Whether these are the first bytes of a tar that nobody would take for a compressed one: gzip, zstd with or without a
/// skippable frame before it, xz.
pub(super) fn is_plain(head: &[u8]) -> bool {
    let compressed = head.starts_with(&[0x1f, 0x8b])
        || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
        || head.get(1..4) == Some(&[0x2a, 0x4d, 0x18])
        || head.starts_with(&[0xfd]);
    !compressed && head.get(257..262) == Some(b"ustar")
}

pub(super) fn ours(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::os("read blob", error),
    }
}

impl Read for BlobReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, out)
    }
}

impl BufRead for BlobReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self {
            Self::Network {
                chunks,
                piece,
                ingest,
                teller,
                stop,
            } => {
                while piece.is_empty() {
                    stop.check().map_err(io::Error::other)?;
                    if ingest.left() > 0 {
                        let mut back = vec![0; READ_BACK];
                        let length = ingest.read_back(&mut back).map_err(io::Error::other)?;
                        back.truncate(length);
                        teller.add(length as u64);
                        *piece = back.into();
                        continue;
                    }
                    let Some(next) = chunks.blocking_recv() else {
                        stop.check().map_err(io::Error::other)?;
                        break;
                    };
                    let next = next.map_err(io::Error::other)?;
                    ingest.write(&next).map_err(io::Error::other)?;
                    teller.add(next.len() as u64);
                    *piece = next;
                }
                Ok(piece)
            }
            Self::Store { file, stop, .. } => {
                stop.check().map_err(io::Error::other)?;
                file.fill_buf()
            }
        }
    }

    fn consume(&mut self, amount: usize) {
        match self {
            Self::Network { piece, .. } => piece.advance(amount.min(piece.len())),
            Self::Store { file, hasher, read, .. } => {
                // What is consumed was filled before: this reads nothing.
                let filled = file.buffer();
                let amount = amount.min(filled.len());
                if let Some(hasher) = hasher {
                    hasher.update(&filled[..amount]);
                }
                *read += amount as u64;
                file.consume(amount);
            }
        }
    }
}

/// Takes the bytes of a blob from an offset on, at most as many as announced, and hands them on. Ends with an error if they
/// are too few.
pub(super) async fn feed(
    mut stream: super::BlobBytes,
    blob: &Descriptor,
    offset: u64,
    chunks: mpsc::Sender<Result<Bytes>>,
) {
    use futures_util::StreamExt;
    let mut taken = offset;
    loop {
        let next = tokio::select! {
            next = stream.next() => next,
            // The worker failed: no use waiting for a slow peer.
            () = chunks.closed() => return,
        };
        let Some(next) = next else { break };
        let next = next.and_then(|bytes| {
            check_room(Some(&blob.digest), Some(blob.size), taken, bytes.len())?;
            Ok(bytes)
        });
        let failed = next.is_err();
        taken += next.as_ref().map_or(0, |bytes| bytes.len() as u64);
        // A closed channel: the worker failed and says why itself.
        if chunks.send(next).await.is_err() || failed {
            return;
        }
    }
    if taken < blob.size {
        let message = format!("the blob ended after {taken} of {} bytes", blob.size);
        let _ = chunks.send(Err(mismatch(Some(&blob.digest), message))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_taken_for_compressed_is_plain() {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        archive.append_data(&mut header, "(file", &b"x"[..]).unwrap();
        let tar = archive.into_inner().unwrap();
        assert!(is_plain(&tar));
        for magic in [
            &[0x1f, 0x8b][..],
            &[0x28, 0xb5, 0x2f, 0xfd],
            &[0x5a, 0x2a, 0x4d, 0x18],
            &[0xfd, b'7'],
        ] {
            let mut like = tar.clone();
            like[..magic.len()].copy_from_slice(magic);
            assert!(!is_plain(&like), "{magic:?}");
        }
        for short in [&[][..], &tar[..100], &[0; 512]] {
            assert!(!is_plain(short));
        }
    }
}
