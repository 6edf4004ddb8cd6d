//! Decompression by what the bytes are, not by what a media type claims.

use std::io::{self, BufRead, Read};

#[cfg(feature = "build")]
use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;

use super::tar::read_error;
use crate::error::{Error, Result};
use crate::storage::files::read_buffered;
use crate::types::{Digest, Hasher};

/// The largest zstd window accepted, as a power of two: 128 MiB, which is what `zstd --long` writes and libzstd takes by
/// default. Levels up to 19 need 8 MiB; the window is only allocated as large as a frame asks for.
const WINDOW_LOG: u32 = 27;

/// What decompressing xz may take: twice what `xz -9` writes.
#[cfg(feature = "build")]
const XZ_KIB: u32 = 130 << 10;

/// How much is decompressed, hashed and written at a time.
pub(crate) const CHUNK: usize = 256 << 10;

/// Pieces of plain bytes that are handed on as they lie in the source.
const DIRECT: usize = 64 << 10;

enum Decoder<R: BufRead> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<R>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, R>>),
    #[cfg(feature = "build")]
    Xz(Box<lzma_rust2::XzReader<R>>),
    #[cfg(feature = "build")]
    Bzip2(Box<MultiBzDecoder<R>>),
}

/// A layer's uncompressed bytes, hashed as they pass by.
pub(crate) struct Uncompressed<R: BufRead> {
    decoder: Decoder<Sniffed<R>>,
    /// None where nobody wants the digest.
    hasher: Option<Hasher>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// How much is left of a piece that is handed on as it lies in the source.
    direct: usize,
}

impl<R: BufRead> std::fmt::Debug for Uncompressed<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uncompressed").finish_non_exhaustive()
    }
}

impl<R: BufRead> Uncompressed<R> {
    /// Looks at the first bytes and chooses.
    ///
    /// # Errors
    /// `Unsupported` for xz and bzip2; what the source says.
    pub(crate) fn new(source: R) -> Result<Self> {
        Self::open(source, false)
    }

    /// As [`Uncompressed::unhashed`], for archives that are no layers: xz and bzip2, too, are read.
    ///
    /// # Errors
    /// What the source says.
    #[cfg(feature = "build")]
    pub(crate) fn archive(source: R) -> Result<Self> {
        let mut out = Self::open(source, true)?;
        out.hasher = None;
        Ok(out)
    }

    #[cfg_attr(not(feature = "build"), allow(unused_variables, reason = "for archives of builds"))]
    fn open(mut source: R, any: bool) -> Result<Self> {
        let mut magic = [0u8; 6];
        let length = read_up_to(&mut source, &mut magic).map_err(read_error)?;
        let magic = &magic[..length];
        let sniffed = Sniffed {
            magic: magic.to_vec(),
            given: 0,
            source,
        };
        let decoder = match magic {
            [0x1f, 0x8b, ..] => Decoder::Gzip(Box::new(MultiGzDecoder::new(sniffed))),
            // A zstd frame, or a skippable one in front of it.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                Decoder::Zstd(Box::new(zstd_of(sniffed)?))
            }
            #[cfg(feature = "build")]
            [0xfd, b'7', b'z', b'X', b'Z', 0] if any => {
                Decoder::Xz(Box::new(lzma_rust2::XzReader::new_mem_limit(sniffed, true, XZ_KIB)))
            }
            [0xfd, b'7', b'z', b'X', b'Z', 0] => {
                return Err(Error::unsupported("an xz layer", "a layer in gzip, zstd or plain tar"));
            }
            #[cfg(feature = "build")]
            [b'B', b'Z', b'h', b'1'..=b'9', ..] if any => Decoder::Bzip2(Box::new(MultiBzDecoder::new(sniffed))),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => {
                return Err(Error::unsupported(
                    "a bzip2 layer",
                    "a layer in gzip, zstd or plain tar",
                ));
            }
            _ => Decoder::Plain(sniffed),
        };
        let buffer = vec![0; CHUNK].into_boxed_slice();
        Ok(Self {
            decoder,
            hasher: Some(Hasher::default()),
            buffer,
            start: 0,
            end: 0,
            direct: 0,
        })
    }

    /// As [`Uncompressed::new`], for bytes whose digest nobody wants: what [`Uncompressed::finish`] says of it means nothing.
    pub(crate) fn unhashed(source: R) -> Result<Self> {
        let mut out = Self::new(source)?;
        out.hasher = None;
        Ok(out)
    }

    /// Reads what is left and returns the digest of everything, and the source behind its last byte.
    pub(crate) fn finish(mut self) -> Result<(Digest, R)> {
        loop {
            let length = self.fill_buf().map_err(read_error)?.len();
            if length == 0 {
                break;
            }
            self.consume(length);
        }
        let sniffed = match self.decoder {
            Decoder::Plain(source) => source,
            Decoder::Gzip(decoder) => decoder.into_inner(),
            Decoder::Zstd(decoder) => decoder.finish(),
            #[cfg(feature = "build")]
            Decoder::Xz(decoder) => decoder.into_inner(),
            #[cfg(feature = "build")]
            Decoder::Bzip2(decoder) => decoder.into_inner(),
        };
        Ok((self.hasher.unwrap_or_default().finish(), sniffed.source))
    }
}

impl<R: BufRead> Uncompressed<R> {
    fn piece(&mut self) -> io::Result<&[u8]> {
        match &mut self.decoder {
            Decoder::Plain(source) => source.fill_buf(),
            _ => Ok(&[]),
        }
    }

    /// No copy where plain bytes come in large pieces. Small ones are gathered: each would be written by itself.
    fn look_ahead(&mut self) -> io::Result<()> {
        if let (Decoder::Plain(source), 0) = (&mut self.decoder, self.direct) {
            let length = source.fill_buf()?.len();
            self.direct = if length < DIRECT { 0 } else { length };
        }
        Ok(())
    }
}

fn zstd_of<R: BufRead>(source: R) -> Result<zstd::stream::read::Decoder<'static, R>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(source).map_err(read_error)?;
    decoder.window_log_max(WINDOW_LOG).map_err(read_error)?;
    Ok(decoder)
}

fn read_up_to(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

impl<R: BufRead> Read for Uncompressed<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, out)
    }
}

impl<R: BufRead> BufRead for Uncompressed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.look_ahead()?;
            if self.direct > 0 {
                return self.piece();
            }
            self.start = 0;
            self.end = 0;
            self.end = match &mut self.decoder {
                Decoder::Plain(source) => read_up_to(source, &mut self.buffer)?,
                Decoder::Gzip(decoder) => read_up_to(decoder, &mut self.buffer)?,
                Decoder::Zstd(decoder) => read_up_to(decoder, &mut self.buffer)?,
                #[cfg(feature = "build")]
                Decoder::Xz(decoder) => read_up_to(decoder, &mut self.buffer)?,
                #[cfg(feature = "build")]
                Decoder::Bzip2(decoder) => read_up_to(decoder, &mut self.buffer)?,
            };
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&self.buffer[..self.end]);
            }
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, amount: usize) {
        let Decoder::Plain(source) = &mut self.decoder else {
            self.start = self.end.min(self.start + amount);
            return;
        };
        if self.direct == 0 {
            self.start = self.end.min(self.start + amount);
            return;
        }
        let amount = amount.min(self.direct);
        // What is consumed was filled before: this reads nothing.
        if let (Some(hasher), Ok(piece)) = (&mut self.hasher, source.fill_buf()) {
            hasher.update(&piece[..amount.min(piece.len())]);
        }
        source.consume(amount);
        self.direct -= amount;
    }
}

/// A source whose first bytes were looked at.
#[derive(Debug)]
struct Sniffed<R> {
    magic: Vec<u8>,
    given: usize,
    source: R,
}

impl<R: BufRead> Read for Sniffed<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, out)
    }
}

impl<R: BufRead> BufRead for Sniffed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.given < self.magic.len() {
            return Ok(&self.magic[self.given..]);
        }
        self.source.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        if self.given < self.magic.len() {
            self.given += amount;
            return;
        }
        self.source.consume(amount);
    }
}

#[cfg(all(test, feature = "build"))]
mod archives;
#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::error::ErrorKind;

    #[cfg(feature = "build")]
    const XZ: &str = "fd377a585a000004e6d6b4460200210116000000742fe5a301000468656c6c6f00000000b137b9dbe5da1e9b00011d05b82d80af1fb6f37d010000000004595a";

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn all(bytes: &[u8]) -> Result<(Vec<u8>, Digest)> {
        let mut reader = Uncompressed::new(bytes)?;
        let mut out = Vec::new();
        reader.read_to_end(&mut out).map_err(read_error)?;
        Ok((out, reader.finish()?.0))
    }

    #[test]
    fn sniffs_and_hashes() {
        let text = b"hello layer ".repeat(50_000);
        let two = [gzip(&text[..1000]), gzip(&text[1000..])].concat();
        let zst = zstd::encode_all(&text[..], 3).unwrap();
        for packed in [text.clone(), two, zst] {
            let (out, digest) = all(&packed).unwrap();
            assert!(out == text && digest == Digest::of(&text));
        }
        assert_eq!(all(b"").unwrap().0, b"");
        assert_eq!(all(b"ab").unwrap().0, b"ab");
    }

    #[test]
    fn truncated_and_trailing_are_refused() {
        let packed = gzip(&b"hello".repeat(1000));
        let zst = zstd::encode_all(&b"hello".repeat(1000)[..], 3).unwrap();
        let trailing = [packed.clone(), b"garbage".to_vec()].concat();
        for bad in [&packed[..packed.len() - 4], &zst[..zst.len() - 2], &trailing] {
            assert_eq!(all(bad).unwrap_err().kind(), &ErrorKind::UnsafeArchive);
        }
        assert!(all(b"\xfd7zXZ\0....").unwrap_err().is_unsupported());
    }

    #[cfg(feature = "build")]
    #[test]
    fn f4_archives_may_be_in_xz() {
        // `printf hello | xz --check=crc64`
        let packed = hex::decode(XZ).unwrap();
        let mut out = Vec::new();
        Uncompressed::archive(packed.as_slice())
            .unwrap()
            .read_to_end(&mut out)
            .unwrap();
        assert_eq!(out, b"hello");
        let cut = &packed[..packed.len() - 20];
        let read = Uncompressed::archive(cut).unwrap().read_to_end(&mut Vec::new());
        assert_eq!(read_error(read.unwrap_err()).kind(), &ErrorKind::UnsafeArchive);
        let cut = Uncompressed::archive(&b"BZh91AY&SY"[..]).unwrap();
        assert!(cut.finish().is_err());
        assert!(
            all(b"BZh91AY&SY").unwrap_err().is_unsupported(),
            "layers are never in bzip2"
        );
    }

    /// Pieces as a stream brings them.
    struct Pieces {
        all: Vec<Vec<u8>>,
        at: usize,
    }

    impl Read for Pieces {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            read_buffered(self, out)
        }
    }

    impl BufRead for Pieces {
        fn fill_buf(&mut self) -> io::Result<&[u8]> {
            while self.all.first().is_some_and(|piece| piece.len() == self.at) {
                self.all.remove(0);
                self.at = 0;
            }
            Ok(self.all.first().map_or(&[], |piece| &piece[self.at..]))
        }

        fn consume(&mut self, amount: usize) {
            self.at += amount;
        }
    }

    #[test]
    fn plain_bytes_come_in_whatever_pieces() {
        let sizes = [3, DIRECT, 10, 0, DIRECT + 5, 1 << 20, 1, CHUNK + 1, DIRECT - 1, 7];
        let all: Vec<Vec<u8>> = sizes
            .iter()
            .enumerate()
            .map(|(number, size)| (0..*size).map(|at| (at * 31 + number) as u8).collect())
            .collect();
        let whole = all.concat();
        // Taken in steps that do not fit the pieces.
        for step in [1000, DIRECT, usize::MAX] {
            let source = Pieces {
                all: all.clone(),
                at: 0,
            };
            let mut reader = Uncompressed::new(source).unwrap();
            let (mut out, mut largest) = (Vec::new(), 0);
            loop {
                let piece = reader.fill_buf().unwrap();
                assert_eq!(piece.is_empty(), out.len() == whole.len());
                largest = largest.max(piece.len());
                let take = piece.len().min(step);
                out.extend_from_slice(&piece[..take]);
                reader.consume(take);
                if take == 0 {
                    break;
                }
            }
            assert!(out == whole);
            assert_eq!(reader.finish().unwrap().0, Digest::of(&whole));
            if step == usize::MAX {
                // More than is ever copied: it was handed on where it lay.
                assert!(largest > CHUNK, "{largest}");
            }
        }
    }
}
