//! A reader of tar streams that trusts nothing: ustar, GNU long names, GNU sparse files, PAX. No I/O but reading.
//!
//! Sources: POSIX.1-2017 pax(1) "ustar Interchange Format" and "pax Header Block"; GNU tar manual, "Basic Tar Format" and
//! "Storing Sparse Files". Two parsers that disagree on where a header is are an attack (CVE-2025-62518): there is
//! exactly one place here that decides how many bytes follow a header, after all extended headers were applied.

use std::io::{self, BufRead};

use super::limits::Limits;
use super::pax;
use crate::error::{Error, ErrorKind, Result};

pub(crate) const BLOCK: usize = 512;

/// An error of a malformed or malicious archive.
pub(crate) fn bad(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::UnsafeArchive, message)
}

/// What an error of the stream below means: our own errors travel inside `io::Error`, a short read is a short archive.
pub(crate) fn read_error(error: io::Error) -> Error {
    if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        return match error.downcast::<Error>() {
            Ok(ours) => ours,
            Err(error) => Error::os("read layer", error),
        };
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof => bad("the layer is truncated").with_source(error),
        _ if error.raw_os_error().is_some() => Error::os("read layer", error),
        _ => bad("the layer cannot be decompressed").with_source(error),
    }
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    Character,
    Block,
    Directory,
    Fifo,
}

/// An entry's metadata. Its data, if any, is read with [`Reader::data`].
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds since the epoch.
    pub(crate) mtime: (i64, u32),
    /// The file's size, holes included.
    pub(crate) size: u64,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where data goes: offset and length, in order. `None`: from 0 to `size`.
    pub(crate) sparse: Option<Vec<(u64, u64)>>,
}

/// Reads entries one by one.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    source: R,
    limits: Limits,
    taken: u64,
    entries: u64,
    /// Bytes of the present entry's data that were not read, and of the padding behind it.
    left: u64,
    padding: u64,
}

/// Headers that describe the entry behind them.
#[derive(Debug, Default)]
struct Extended {
    pax: pax::Records,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl<R: BufRead> Reader<R> {
    pub(crate) fn new(source: R, limits: Limits) -> Self {
        Self {
            source,
            limits,
            taken: 0,
            entries: 0,
            left: 0,
            padding: 0,
        }
    }

    /// The next entry, or `None` after the last; then nothing but zeros was left in the stream.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        self.skip_rest()?;
        let mut extended = Extended::default();
        loop {
            let Some(block) = self.header()? else {
                if extended.is_empty() {
                    return Ok(None);
                }
                return Err(bad("the layer ends after an extended header"));
            };
            self.count_entry()?;
            match block[156] {
                b'x' => extended.pax.parse(&self.extension(&block)?)?,
                b'L' => extended.name = Some(until_nul(&self.extension(&block)?)),
                b'K' => extended.link = Some(until_nul(&self.extension(&block)?)),
                b'g' => drop(self.extension(&block)?),
                _ => return self.entry(&block, extended).map(Some),
            }
        }
    }

    /// The next piece of the present entry's data; empty at its end. Pair with [`Reader::consume`].
    pub(crate) fn data(&mut self) -> Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let piece = fill(&mut self.source)?;
        if piece.is_empty() {
            return Err(bad("the layer ends inside a file"));
        }
        Ok(&piece[..piece.len().min(left)])
    }

    /// Marks bytes of [`Reader::data`] as read.
    pub(crate) fn consume(&mut self, bytes: usize) -> Result<()> {
        self.source.consume(bytes);
        self.left = self.left.saturating_sub(bytes as u64);
        self.count_bytes(bytes as u64)
    }

    /// The stream below.
    pub(crate) fn into_source(self) -> R {
        self.source
    }

    fn count_bytes(&mut self, bytes: u64) -> Result<()> {
        self.taken = self.taken.saturating_add(bytes);
        if self.taken > self.limits.stream_bytes {
            return Err(bad(format!(
                "the layer is larger than {} bytes",
                self.limits.stream_bytes
            )));
        }
        Ok(())
    }

    fn count_entry(&mut self) -> Result<()> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(bad(format!("the layer has more than {} entries", self.limits.entries)));
        }
        Ok(())
    }

    fn skip_rest(&mut self) -> Result<()> {
        while self.left > 0 {
            let length = self.data()?.len();
            self.consume(length)?;
        }
        while self.padding > 0 {
            let piece = fill(&mut self.source)?.len();
            if piece == 0 {
                return Err(bad("the layer ends inside a block"));
            }
            let skip = piece.min(self.padding as usize);
            self.source.consume(skip);
            self.padding -= skip as u64;
            self.count_bytes(skip as u64)?;
        }
        Ok(())
    }

    /// A block, or `None` at the end of the stream.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let piece = fill(&mut self.source)?;
            if piece.is_empty() {
                break;
            }
            let take = piece.len().min(BLOCK - filled);
            block[filled..filled + take].copy_from_slice(&piece[..take]);
            self.source.consume(take);
            filled += take;
        }
        self.count_bytes(filled as u64)?;
        match filled {
            0 => Ok(None),
            BLOCK => Ok(Some(block)),
            _ => Err(bad("the layer ends inside a header")),
        }
    }

    /// A header whose checksum holds, or `None` at the end mark.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let Some(block) = self.block()? else {
            return Ok(None);
        };
        if block.iter().all(|&b| b == 0) {
            self.rest_is_zero()?;
            return Ok(None);
        }
        check_sum(&block)?;
        Ok(Some(block))
    }

    fn rest_is_zero(&mut self) -> Result<()> {
        loop {
            let piece = fill(&mut self.source)?;
            let length = piece.len();
            if length == 0 {
                return Ok(());
            }
            if piece.iter().any(|&b| b != 0) {
                return Err(bad("data follows the end of the layer"));
            }
            self.source.consume(length);
            self.count_bytes(length as u64)?;
        }
    }

    /// The whole data of an extended header.
    fn extension(&mut self, block: &[u8; BLOCK]) -> Result<Vec<u8>> {
        let size = number(&block[124..136])?;
        if size > self.limits.header_bytes {
            return Err(bad(format!(
                "an extended header of {size} bytes, {} are allowed",
                self.limits.header_bytes
            )));
        }
        self.begin_data(size);
        let mut bytes = Vec::new();
        while self.left > 0 {
            let piece = self.data()?;
            let length = piece.len();
            bytes.extend_from_slice(piece);
            self.consume(length)?;
        }
        self.skip_rest()?;
        Ok(bytes)
    }

    fn begin_data(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn entry(&mut self, block: &[u8; BLOCK], extended: Extended) -> Result<Entry> {
        let Extended { mut pax, name, link } = extended;
        let path = name.or(pax.path.take()).unwrap_or_else(|| path_of(block));
        let kind = kind_of(block[156], &path)?;
        let stored = match pax.size {
            Some(size) => size,
            None => number(&block[124..136])?,
        };
        let mut entry = Entry {
            kind,
            path,
            link: link.or(pax.link.take()).unwrap_or_else(|| until_nul(&block[157..257])),
            mode: (number(&block[100..108])? & 0o7777) as u32,
            uid: id(pax.uid, &block[108..116])?,
            gid: id(pax.gid, &block[116..124])?,
            mtime: match pax.mtime {
                Some(mtime) => mtime,
                None => (signed(&block[136..148])?, 0),
            },
            size: stored,
            device: device(kind, block)?,
            xattrs: std::mem::take(&mut pax.xattrs),
            sparse: None,
        };
        // Only files carry data: Go's archive/tar, which wrote most layers there are, reads none behind other headers.
        let stored = if kind == Kind::File { stored } else { 0 };
        self.begin_data(stored);
        if block[156] == b'S' {
            self.old_sparse(block, &mut entry)?;
        } else if let Some(sparse) = pax.sparse.take() {
            self.pax_sparse(sparse, &mut entry)?;
        }
        Ok(entry)
    }

    /// The old GNU format: four pieces in the header, 21 in each block that follows it.
    fn old_sparse(&mut self, block: &[u8; BLOCK], entry: &mut Entry) -> Result<()> {
        let mut map = Vec::new();
        old_pieces(&block[386..482], &mut map)?;
        let mut more = block[482] != 0;
        while more {
            let Some(next) = self.block()? else {
                return Err(bad("the layer ends inside a sparse map"));
            };
            old_pieces(&next[..504], &mut map)?;
            self.check_map_size(map.len())?;
            more = next[504] != 0;
        }
        entry.size = number(&block[483..495])?;
        self.set_map(entry, map)
    }

    fn pax_sparse(&mut self, sparse: pax::Sparse, entry: &mut Entry) -> Result<()> {
        if entry.kind != Kind::File {
            return Err(bad("a sparse entry that is not a file"));
        }
        if let Some(name) = sparse.name {
            entry.path = name;
        }
        let Some(size) = sparse.size else {
            return Err(bad("a sparse file without its size"));
        };
        entry.size = size;
        let map = if sparse.in_data {
            self.map_in_data()?
        } else {
            sparse.map
        };
        self.check_map_size(map.len())?;
        self.set_map(entry, map)
    }

    /// PAX sparse format 1.0: the map stands before the data as decimal lines, padded to a block.
    fn map_in_data(&mut self) -> Result<Vec<(u64, u64)>> {
        let mut used = 0usize;
        let count = self.line(&mut used)?;
        self.check_map_size(usize::try_from(count).unwrap_or(usize::MAX))?;
        let mut map = Vec::new();
        for _ in 0..count {
            map.push((self.line(&mut used)?, self.line(&mut used)?));
        }
        let mut pad = (BLOCK - used % BLOCK) % BLOCK;
        while pad > 0 {
            let take = self.data()?.len().min(pad);
            if take == 0 {
                return Err(bad("a sparse map without its padding"));
            }
            self.consume(take)?;
            pad -= take;
        }
        Ok(map)
    }

    fn line(&mut self, used: &mut usize) -> Result<u64> {
        let mut value: Option<u64> = None;
        loop {
            let Some(&byte) = self.data()?.first() else {
                return Err(bad("a sparse map that ends early"));
            };
            self.consume(1)?;
            *used += 1;
            match (byte, value) {
                (b'\n', Some(value)) => return Ok(value),
                (b'0'..=b'9', _) => {
                    let digit = u64::from(byte - b'0');
                    let next = value.unwrap_or(0).checked_mul(10).and_then(|v| v.checked_add(digit));
                    value = Some(next.ok_or_else(|| bad("a number in a sparse map that is too large"))?);
                }
                _ => return Err(bad("a sparse map that is not decimal")),
            }
        }
    }

    fn check_map_size(&self, pieces: usize) -> Result<()> {
        if pieces as u64 > self.limits.header_bytes / 16 {
            return Err(bad("a sparse map with too many pieces"));
        }
        Ok(())
    }

    /// Takes a map whose pieces are in order, apart, inside the file, and as long as the stored data.
    fn set_map(&mut self, entry: &mut Entry, map: Vec<(u64, u64)>) -> Result<()> {
        let (mut end, mut sum) = (0u64, 0u64);
        for (offset, length) in &map {
            let stop = offset
                .checked_add(*length)
                .filter(|stop| *offset >= end && *stop <= entry.size);
            end = stop.ok_or_else(|| bad("a sparse map with pieces out of order or beyond the file"))?;
            sum += length;
        }
        if sum != self.left || i64::try_from(entry.size).is_err() {
            return Err(bad("a sparse map that does not fit the data"));
        }
        entry.sparse = Some(map);
        Ok(())
    }
}

impl Extended {
    fn is_empty(&self) -> bool {
        self.pax.is_empty() && self.name.is_none() && self.link.is_none()
    }
}

fn fill(source: &mut impl BufRead) -> Result<&[u8]> {
    // Asked for twice since the first borrow could not be returned from a loop: filled bytes stay filled.
    loop {
        match source.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read_error(error)),
        }
    }
    source.fill_buf().map_err(read_error)
}

fn until_nul(field: &[u8]) -> Vec<u8> {
    field.split(|&b| b == 0).next().unwrap_or_default().to_vec()
}

/// The path in the header; POSIX archives have a prefix field, old GNU ones keep times there.
fn path_of(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&block[..100]);
    let posix = &block[257..263] == b"ustar\0";
    let prefix = if posix { until_nul(&block[345..500]) } else { Vec::new() };
    if prefix.is_empty() {
        return name;
    }
    [prefix, name].join(&b'/')
}

fn kind_of(flag: u8, path: &[u8]) -> Result<Kind> {
    match flag {
        b'0' | 0 | b'7' if path.ends_with(b"/") => Ok(Kind::Directory),
        b'0' | 0 | b'7' | b'S' => Ok(Kind::File),
        b'1' => Ok(Kind::HardLink),
        b'2' => Ok(Kind::Symlink),
        b'3' => Ok(Kind::Character),
        b'4' => Ok(Kind::Block),
        b'5' => Ok(Kind::Directory),
        b'6' => Ok(Kind::Fifo),
        other => Err(bad(format!("an entry of unknown type {:?}", char::from(other)))),
    }
}

fn device(kind: Kind, block: &[u8; BLOCK]) -> Result<(u32, u32)> {
    if !matches!(kind, Kind::Character | Kind::Block) {
        return Ok((0, 0));
    }
    let part = |field| u32::try_from(number(field)?).map_err(|_| bad("a device number that is too large"));
    Ok((part(&block[329..337])?, part(&block[337..345])?))
}

fn id(pax: Option<u64>, field: &[u8]) -> Result<u32> {
    let id = match pax {
        Some(id) => id,
        None => number(field)?,
    };
    // The last one means "leave as is" to chown(2).
    u32::try_from(id)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| bad(format!("an owner id out of range: {id}")))
}

fn number(field: &[u8]) -> Result<u64> {
    u64::try_from(signed(field)?).map_err(|_| bad("a negative number in a header"))
}

/// Octal digits, or GNU's base 256 with the top bit set.
fn signed(field: &[u8]) -> Result<i64> {
    if field[0] & 0x80 != 0 {
        return base256(field);
    }
    let mut value: i64 = 0;
    let digits = field
        .iter()
        .skip_while(|&&b| b == b' ' || b == 0)
        .take_while(|&&b| b != b' ' && b != 0);
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            return Err(bad("a number in a header that is not octal"));
        }
        let next = value
            .checked_mul(8)
            .and_then(|v| v.checked_add(i64::from(digit - b'0')));
        value = next.ok_or_else(|| bad("a number in a header that is too large"))?;
    }
    Ok(value)
}

fn base256(field: &[u8]) -> Result<i64> {
    let negative = field[0] & 0x40 != 0;
    let mut value: i128 = if negative { -1 } else { 0 };
    for (index, byte) in field.iter().enumerate() {
        let byte = if index == 0 {
            byte & 0x3f | if negative { 0xc0 } else { 0 }
        } else {
            *byte
        };
        value = (value << 8) | i128::from(byte);
    }
    i64::try_from(value).map_err(|_| bad("a number in a header that is too large"))
}

/// The sum of the header's bytes with the checksum itself as spaces. Some old writers summed signed bytes.
fn check_sum(block: &[u8; BLOCK]) -> Result<()> {
    let stated = signed(&block[148..156])?;
    const SPACES: i64 = 8 * b' ' as i64;
    let unsigned = |bytes: &[u8]| i64::from(bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>());
    if stated == unsigned(block) - unsigned(&block[148..156]) + SPACES {
        return Ok(());
    }
    let with_sign = |bytes: &[u8]| bytes.iter().map(|&byte| i64::from(byte as i8)).sum::<i64>();
    if stated == with_sign(block) - with_sign(&block[148..156]) + SPACES {
        return Ok(());
    }
    Err(bad(
        "a header whose checksum is wrong: not a tar archive, or a damaged one",
    ))
}

fn old_pieces(field: &[u8], map: &mut Vec<(u64, u64)>) -> Result<()> {
    for piece in field.chunks_exact(24) {
        if piece[0] == 0 {
            return Ok(());
        }
        map.push((number(&piece[..12])?, number(&piece[12..])?));
    }
    Ok(())
}
