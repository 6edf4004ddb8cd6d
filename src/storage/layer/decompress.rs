//! Decompression by what the bytes are, not by what a media type claims.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;

use super::tar::read_error;
use crate::error::{Error, Result};
use crate::types::{Digest, Hasher};

/// The largest zstd window accepted, as a power of two: 128 MiB, which is what `zstd --long` writes and libzstd takes by
/// default. Levels up to 19 need 8 MiB; the window is only allocated as large as a frame asks for.
const WINDOW_LOG: u32 = 27;

/// How much is decompressed, hashed and written at a time.
pub(crate) const CHUNK: usize = 256 << 10;

enum Decoder<R: BufRead> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<R>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, R>>),
}

/// A layer's uncompressed bytes, hashed as they pass by.
pub(crate) struct Uncompressed<R: BufRead> {
    decoder: Decoder<Sniffed<R>>,
    /// None where nobody wants the digest.
    hasher: Option<Hasher>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
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
    pub(crate) fn new(mut source: R) -> Result<Self> {
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
            [0xfd, b'7', b'z', b'X', b'Z', 0] => {
                return Err(Error::unsupported("an xz layer", "a layer in gzip, zstd or plain tar"));
            }
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
        };
        Ok((self.hasher.unwrap_or_default().finish(), sniffed.source))
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
        let piece = self.fill_buf()?;
        let length = piece.len().min(out.len());
        out[..length].copy_from_slice(&piece[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl<R: BufRead> BufRead for Uncompressed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            self.end = match &mut self.decoder {
                Decoder::Plain(source) => read_up_to(source, &mut self.buffer)?,
                Decoder::Gzip(decoder) => read_up_to(decoder, &mut self.buffer)?,
                Decoder::Zstd(decoder) => read_up_to(decoder, &mut self.buffer)?,
            };
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&self.buffer[..self.end]);
            }
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, amount: usize) {
        self.start = self.end.min(self.start + amount);
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
        let piece = self.fill_buf()?;
        let length = piece.len().min(out.len());
        out[..length].copy_from_slice(&piece[..length]);
        self.consume(length);
        Ok(length)
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::error::ErrorKind;

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
}
