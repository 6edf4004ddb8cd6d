//! Packs: the objects of a repository as a server sends them. Every one is hashed, and found by its hash alone: nothing that
//! a pack says of itself is believed.
//!
//! Source: git's `gitformat-pack(5)`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek as _, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use flate2::bufread::ZlibDecoder;

use super::Id;
use crate::build::context::check;
use crate::error::{Error, ErrorKind, Result};

/// Objects of a pack.
const OBJECTS: u32 = 1_000_000;
/// Bytes of all objects, unpacked.
const BYTES: u64 = 64 << 30;
/// An object that must be in memory: all but whole files.
const MEMORY: u64 = 256 << 20;
/// Bases of deltas that are kept.
const KEPT: usize = 64 << 20;
/// Deltas upon each other.
const CHAIN: usize = 10_000;
const BUFFER: usize = 256 << 10;

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Commit,
    Tree,
    Blob,
    Tag,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Tree => "tree",
            Self::Blob => "blob",
            Self::Tag => "tag",
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Stored {
    Whole(Kind),
    /// Upon the object that begins there.
    At(u64),
    Upon(Id),
}

#[derive(Debug)]
struct Object {
    /// Where it begins, and where its compressed data does.
    start: u64,
    data: u64,
    size: u64,
    stored: Stored,
    /// What it is in the end, once that is known.
    kind: Option<Kind>,
}

/// An open pack.
#[derive(Debug)]
pub(super) struct Pack {
    file: BufReader<File>,
    objects: Vec<Object>,
    by_id: HashMap<Id, usize>,
    kept: HashMap<usize, Arc<Vec<u8>>>,
    kept_bytes: usize,
    /// What was unpacked to look through it.
    bytes: u64,
    stop: Arc<AtomicBool>,
}

impl Pack {
    /// Reads a pack through, and finds out what is in it. Blocking.
    ///
    /// # Errors
    /// `UnsafeArchive` for one that is malformed or beyond the limits; `Os`.
    pub(super) fn open(file: File, stop: Arc<AtomicBool>) -> Result<Self> {
        let mut pack = Self {
            file: BufReader::with_capacity(BUFFER, file),
            objects: Vec::new(),
            by_id: HashMap::new(),
            kept: HashMap::new(),
            kept_bytes: 0,
            bytes: 0,
            stop,
        };
        pack.scan()?;
        pack.resolve()?;
        Ok(pack)
    }

    fn scan(&mut self) -> Result<()> {
        let mut head = [0; 12];
        self.file.rewind().map_err(failed)?;
        self.file.read_exact(&mut head).map_err(failed)?;
        let number = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if &head[..4] != b"PACK" || !matches!(number(4), 2 | 3) {
            return Err(bad("it is no pack"));
        }
        if number(8) > OBJECTS {
            return Err(bad(format!(
                "it has {} objects, and at most {OBJECTS} are read",
                number(8)
            )));
        }
        let mut at = 12;
        for index in 0..number(8) as usize {
            at = self.scan_one(index, at)?;
        }
        Ok(())
    }

    /// Reads one object; returns where the next begins.
    fn scan_one(&mut self, index: usize, start: u64) -> Result<u64> {
        let mut source = Counted {
            inner: &mut self.file,
            taken: 0,
        };
        let (kind, size) = head(&mut source)?;
        let stored = match kind {
            1 => Stored::Whole(Kind::Commit),
            2 => Stored::Whole(Kind::Tree),
            3 => Stored::Whole(Kind::Blob),
            4 => Stored::Whole(Kind::Tag),
            6 => {
                let back = distance(&mut source)?;
                let base = start.checked_sub(back).filter(|base| back > 0 && *base >= 12);
                Stored::At(base.ok_or_else(|| bad("a delta upon nothing"))?)
            }
            7 => {
                let mut id = [0; 20];
                source.read_exact(&mut id).map_err(failed)?;
                Stored::Upon(Id(id))
            }
            _ => return Err(bad("an object of unknown type")),
        };
        let data = start + source.taken;
        let mut hash = match stored {
            Stored::Whole(kind) => Some(Id::hasher(kind.word(), size)),
            _ => None,
        };
        let mut inflated = ZlibDecoder::new(source);
        let mut piece = vec![0; 64 << 10];
        let mut read = 0;
        loop {
            let length = inflated.read(&mut piece).map_err(failed)?;
            if length == 0 {
                break;
            }
            read += length as u64;
            self.bytes += length as u64;
            check(&self.stop)?;
            if self.bytes > BYTES {
                return Err(bad(format!("its objects have more than {BYTES} bytes")));
            }
            if read > size {
                return Err(bad("an object that is longer than it says"));
            }
            if let Some(hash) = &mut hash {
                hash.update(&piece[..length]);
            }
        }
        if read != size {
            return Err(bad("an object that is shorter than it says"));
        }
        let end = start + inflated.into_inner().taken;
        let kind = match stored {
            Stored::Whole(kind) => Some(kind),
            _ => None,
        };
        if let Some(hash) = hash {
            self.by_id.insert(hash.finish(), index);
        }
        self.objects.push(Object {
            start,
            data,
            size,
            stored,
            kind,
        });
        Ok(end)
    }

    /// Finds out what deltas are. One may stand upon another that comes later.
    fn resolve(&mut self) -> Result<()> {
        let mut left: Vec<usize> = (0..self.objects.len())
            .filter(|index| self.objects[*index].kind.is_none())
            .collect();
        while !left.is_empty() {
            let before = left.len();
            let mut later = Vec::new();
            for index in left {
                check(&self.stop)?;
                let Some((kind, data)) = self.content(index)? else {
                    later.push(index);
                    continue;
                };
                let mut hash = Id::hasher(kind.word(), data.len() as u64);
                hash.update(&data);
                self.by_id.insert(hash.finish(), index);
                self.objects[index].kind = Some(kind);
            }
            if later.len() == before {
                return Err(bad("deltas upon objects that are not in it"));
            }
            left = later;
        }
        Ok(())
    }

    /// An object of a type, in memory.
    ///
    /// # Errors
    /// `UnsafeArchive` where there is no such.
    pub(super) fn get(&mut self, id: &Id, wanted: Kind) -> Result<Arc<Vec<u8>>> {
        let index = self.find(id, wanted)?;
        match self.content(index)? {
            Some((_, data)) => Ok(data),
            None => Err(bad("a delta upon nothing")),
        }
    }

    /// Writes a file's content.
    ///
    /// # Errors
    /// Those of [`Pack::get`]; what `out` says.
    pub(super) fn write(&mut self, id: &Id, out: &mut impl Write) -> Result<u64> {
        let write_failed = |e| Error::os("write a file of the repository", e);
        let index = self.find(id, Kind::Blob)?;
        if !matches!(self.objects[index].stored, Stored::Whole(_)) {
            let data = self.get(id, Kind::Blob)?;
            out.write_all(&data).map_err(write_failed)?;
            return Ok(data.len() as u64);
        }
        self.file
            .seek(SeekFrom::Start(self.objects[index].data))
            .map_err(failed)?;
        io::copy(&mut ZlibDecoder::new(&mut self.file), out).map_err(write_failed)
    }

    /// All objects, by id.
    pub(super) fn ids(&self) -> Vec<(Id, Kind)> {
        let mut ids: Vec<(Id, Kind)> = self
            .by_id
            .iter()
            .filter_map(|(id, index)| Some((*id, self.objects[*index].kind?)))
            .collect();
        ids.sort_by_key(|(id, _)| *id);
        ids
    }

    fn find(&self, id: &Id, wanted: Kind) -> Result<usize> {
        let index = self.by_id.get(id).copied();
        let index = index.ok_or_else(|| bad(format!("the {} {id} is missing", wanted.word())))?;
        match self.objects[index].kind == Some(wanted) {
            true => Ok(index),
            false => Err(bad(format!("{id} is no {}", wanted.word()))),
        }
    }

    /// An object's type and bytes; `None` where the base of its delta is not known yet.
    fn content(&mut self, index: usize) -> Result<Option<(Kind, Arc<Vec<u8>>)>> {
        let mut chain = Vec::new();
        let mut at = index;
        let (kind, mut data) = loop {
            let stored = self.objects[at].stored;
            if let Some(kind) = self.objects[at].kind
                && let Some(data) = self.kept.get(&at)
            {
                break (kind, Arc::clone(data));
            }
            let base = match stored {
                Stored::Whole(kind) => break (kind, self.inflate(at)?),
                Stored::At(start) => self.objects.binary_search_by_key(&start, |object| object.start).ok(),
                Stored::Upon(id) => self.by_id.get(&id).copied(),
            };
            chain.push(at);
            match base {
                Some(base) if chain.len() <= CHAIN && !chain.contains(&base) => at = base,
                Some(_) => return Err(bad("deltas upon each other without end")),
                None if matches!(stored, Stored::At(_)) => return Err(bad("a delta upon nothing")),
                None => return Ok(None),
            }
        };
        self.keep(at, &data);
        for at in chain.into_iter().rev() {
            let delta = self.inflate(at)?;
            data = Arc::new(applied(&data, &delta)?);
            self.keep(at, &data);
        }
        Ok(Some((kind, data)))
    }

    fn keep(&mut self, index: usize, data: &Arc<Vec<u8>>) {
        if data.len() > KEPT / 4 || self.kept.contains_key(&index) {
            return;
        }
        if self.kept_bytes + data.len() > KEPT {
            self.kept.clear();
            self.kept_bytes = 0;
        }
        self.kept_bytes += data.len();
        self.kept.insert(index, Arc::clone(data));
    }

    fn inflate(&mut self, index: usize) -> Result<Arc<Vec<u8>>> {
        let Object { data, size, .. } = self.objects[index];
        if size > MEMORY {
            return Err(bad(format!("an object of {size} bytes that is no whole file")));
        }
        self.file.seek(SeekFrom::Start(data)).map_err(failed)?;
        let mut out = Vec::new();
        let read = ZlibDecoder::new(&mut self.file).take(size + 1).read_to_end(&mut out);
        read.map_err(failed)?;
        match out.len() as u64 == size {
            true => Ok(Arc::new(out)),
            false => Err(bad("an object that changed")),
        }
    }
}

/// A source that counts what is taken of it.
struct Counted<R> {
    inner: R,
    taken: u64,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        self.taken += read as u64;
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.inner.consume(amount);
        self.taken += amount as u64;
    }
}

fn byte(source: &mut impl Read) -> Result<u8> {
    let mut byte = [0];
    source.read_exact(&mut byte).map_err(failed)?;
    Ok(byte[0])
}

/// An object's type and size.
fn head(source: &mut impl Read) -> Result<(u8, u64)> {
    let first = byte(source)?;
    let (kind, mut size) = (first >> 4 & 7, u64::from(first & 15));
    let (mut shift, mut more) = (4, first & 0x80 != 0);
    while more {
        let next = byte(source)?;
        if shift > 57 {
            return Err(bad("a size that is too large"));
        }
        size |= u64::from(next & 0x7f) << shift;
        shift += 7;
        more = next & 0x80 != 0;
    }
    Ok((kind, size))
}

/// How far back the base of a delta is.
fn distance(source: &mut impl Read) -> Result<u64> {
    let mut next = byte(source)?;
    let mut value = u64::from(next & 0x7f);
    while next & 0x80 != 0 {
        next = byte(source)?;
        let more = value.checked_add(1).and_then(|value| value.checked_mul(128));
        value = more.ok_or_else(|| bad("a distance that is too large"))? + u64::from(next & 0x7f);
    }
    Ok(value)
}

/// What a delta makes of its base.
fn applied(base: &[u8], delta: &[u8]) -> Result<Vec<u8>> {
    let cut = || bad("a delta that ends early");
    let mut delta = delta;
    let (from, to) = (size(&mut delta)?, size(&mut delta)?);
    if from != base.len() as u64 || to > MEMORY {
        return Err(bad("a delta that does not fit its base"));
    }
    let mut out = Vec::with_capacity(usize::try_from(to).unwrap_or(0).min(1 << 20));
    while let Some((command, rest)) = delta.split_first() {
        delta = rest;
        if *command == 0 {
            return Err(bad("a delta with an unknown command"));
        }
        if command & 0x80 == 0 {
            let length = usize::from(*command);
            out.extend_from_slice(delta.get(..length).ok_or_else(cut)?);
            delta = &delta[length..];
        } else {
            let (mut offset, mut length) = (0usize, 0usize);
            for bit in 0..7 {
                if command & 1 << bit == 0 {
                    continue;
                }
                let (next, rest) = delta.split_first().ok_or_else(cut)?;
                delta = rest;
                match bit {
                    0..4 => offset |= usize::from(*next) << (8 * bit),
                    _ => length |= usize::from(*next) << (8 * (bit - 4)),
                }
            }
            if length == 0 {
                length = 0x10000;
            }
            let piece = base.get(offset..).and_then(|rest| rest.get(..length));
            out.extend_from_slice(piece.ok_or_else(|| bad("a delta that copies what its base has not"))?);
        }
        if out.len() as u64 > to {
            return Err(bad("a delta that makes more than it says"));
        }
    }
    match out.len() as u64 == to {
        true => Ok(out),
        false => Err(cut()),
    }
}

fn size(delta: &mut &[u8]) -> Result<u64> {
    let (mut value, mut shift) = (0u64, 0);
    loop {
        let (next, rest) = delta.split_first().ok_or_else(|| bad("a delta that ends early"))?;
        *delta = rest;
        if shift > 56 {
            return Err(bad("a size that is too large"));
        }
        value |= u64::from(next & 0x7f) << shift;
        shift += 7;
        if next & 0x80 == 0 {
            return Ok(value);
        }
    }
}

fn failed(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(_) => Error::os("read the repository's pack", error),
        None => bad("it is cut off or damaged").with_source(error),
    }
}

/// What is wrong with a pack.
pub(super) fn bad(what: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::UnsafeArchive,
        format!("the repository cannot be read: {what}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pack of a file, a delta upon it by its place, and one by its id.
    fn packed() -> Vec<u8> {
        let zipped = |bytes: &[u8]| {
            let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        };
        let base = b"hello world";
        let mut hash = Id::hasher("blob", 11);
        hash.update(base);
        let first = [&[3 << 4 | 11][..], &zipped(base)].concat();
        let delta = [&[11, 11, 0x90, 5, 6][..], b" there"].concat();
        let second = [&[6 << 4 | 11, u8::try_from(first.len()).unwrap()][..], &zipped(&delta)].concat();
        let delta = [&[11, 5, 0x90, 5][..]].concat();
        let third = [&[7 << 4 | 4][..], &hash.finish().0, &zipped(&delta)].concat();
        let head = b"PACK\0\0\0\x02\0\0\0\x03";
        [&head[..], &first, &second, &third, &[0; 20]].concat()
    }

    fn open(bytes: &[u8]) -> Result<Pack> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Pack::open(file, Arc::default())
    }

    fn contents(pack: &mut Pack) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        for (id, kind) in pack.ids() {
            let mut written = Vec::new();
            pack.write(&id, &mut written).unwrap();
            assert_eq!(*pack.get(&id, kind).unwrap(), written);
            let mut hash = Id::hasher("blob", written.len() as u64);
            hash.update(&written);
            assert_eq!(hash.finish(), id);
            out.push(written);
        }
        out.sort();
        out
    }

    #[test]
    fn f4_packs_give_what_hashes_to_its_id_or_nothing() {
        let whole = packed();
        let expected = [&b"hello"[..], b"hello there", b"hello world"];
        assert_eq!(contents(&mut open(&whole).unwrap()), expected);
        for at in 0..whole.len() {
            for change in [0xff, 1, 0x80, 0x40] {
                let mut changed = whole.clone();
                changed[at] ^= change;
                // Whatever is left of it hashes to its id.
                if let Ok(mut pack) = open(&changed) {
                    contents(&mut pack);
                }
            }
            assert!(open(&whole[..at]).is_err() || at >= whole.len() - 20, "cut at {at}");
        }
        let stopped = Arc::new(AtomicBool::new(true));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&whole).unwrap();
        assert_eq!(Pack::open(file, stopped).unwrap_err().kind(), &ErrorKind::Cancelled);
    }

    #[test]
    fn f4_deltas_do_what_they_say_and_no_more() {
        let base = b"hello world";
        // "hello" from the base, then " there".
        let delta = [&[11, 11, 0x90, 5, 6][..], b" there"].concat();
        assert_eq!(applied(base, &delta).unwrap(), b"hello there");
        for (what, bad) in [
            ("base", &[10u8, 1, 1, b'x'][..]),
            ("beyond", &[11, 5, 0x91, 10, 5]),
            ("short", &[11, 9, 1, b'x']),
            ("long", &[11, 1, 2, b'x', b'y']),
            ("cut", &[11, 9, 5, b'x']),
            ("command", &[11, 1, 0]),
            ("size", &[0xff; 12]),
            ("empty", &[]),
        ] {
            assert!(applied(base, bad).is_err(), "{what}");
        }
    }
}
