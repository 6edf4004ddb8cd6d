//! The tar of a layer or of a whole tree. Source: POSIX.1-2017 pax(1), "ustar Interchange Format" and "pax Extended Header";
//! OCI image-spec 1.1, layer.md (whiteouts, of which only explicit ones are written); GNU tar manual, "PAX Format,
//! Version 1.0" of sparse files.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use super::compare::Step;
use super::ground::{Dir, Ground, too_deep};
use super::node::{Attributes, Node, Type};
use super::{DEEPEST, LayerReader};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::layer::name::{join, split};
use crate::types::ChangeKind;

const BLOCK: usize = 512;
/// Holes that are worth a map.
const WORTH: u64 = 1 << 20;
/// Pieces of a sparse file, at most: beyond them, holes are written out.
const PIECES: usize = 64 << 10;

/// A tar in the making.
pub(crate) struct Archive<W> {
    out: W,
    /// Where files with several names were written first.
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
    /// What all paths begin with, but the root's without one.
    prefix: Vec<u8>,
    /// The latest time that is written, in seconds since the epoch.
    newest: Option<i64>,
}

/// An entry's header, but for the type's own part.
pub(crate) struct Head<'a> {
    pub(crate) kind: u8,
    pub(crate) path: &'a [u8],
    pub(crate) link: &'a [u8],
    pub(crate) size: u64,
    pub(crate) node: &'a Node,
    pub(crate) attributes: &'a Attributes,
    /// Further records.
    pub(crate) records: Vec<(Vec<u8>, Vec<u8>)>,
}

impl LayerReader {
    pub(super) fn write_steps<W: Write>(&self, steps: &[Step], archive: &mut Archive<W>) -> Result<()> {
        let mut open: Option<(Vec<u8>, Option<Dir<'_>>)> = None;
        for step in steps {
            let (parent, name) = split(&step.path);
            if step.path.is_empty() {
                if let Some(root) = self.new.dir(b"")? {
                    archive.root(&root)?;
                }
                continue;
            }
            // Such a name would mean something else in a layer.
            if step.path.split(|&b| b == b'/').any(|part| part.starts_with(b".wh.")) {
                continue;
            }
            if step.kind() == ChangeKind::Deleted {
                archive.whiteout(parent, name)?;
                continue;
            }
            if open.as_ref().is_none_or(|(path, _)| path != parent) {
                open = Some((parent.to_vec(), self.new.dir(parent)?));
            }
            let Some((_, Some(dir))) = &open else { continue };
            let written = archive.entry(dir, name, &step.path)?;
            if !written && step.kind() == ChangeKind::Modified {
                // What took its place cannot be in a layer; what the layers below have there is gone all the same.
                archive.whiteout(parent, name)?;
            }
        }
        Ok(())
    }

    pub(super) fn write_all<W: Write>(&self, archive: &mut Archive<W>) -> Result<()> {
        let Some(root) = self.new.dir(b"")? else {
            return Ok(());
        };
        archive.root(&root)?;
        drop(root);
        let layers: Vec<&Ground> = match self.merged {
            true => vec![&self.new],
            false => std::iter::once(&self.new).chain(&self.old).collect(),
        };
        self.write_directory(b"", &layers, archive, 0)
    }

    /// Writes what a stack of directories shows together.
    fn write_directory<W: Write>(
        &self,
        path: &[u8],
        layers: &[&Ground],
        archive: &mut Archive<W>,
        depth: usize,
    ) -> Result<()> {
        if depth > DEEPEST {
            return Err(too_deep(path));
        }
        let mut dirs = open_all(path, layers)?;
        let mut names = BTreeSet::new();
        for (_, dir) in &dirs {
            names.extend(dir.names()?);
        }
        for name in names {
            if dirs.is_empty() {
                dirs = open_all(path, layers)?;
            }
            let child = join(path, &name);
            let Some(inside) = write_shown(&dirs, &name, &child, archive)? else {
                continue;
            };
            // Descriptors are few.
            dirs.clear();
            self.write_directory(&child, &inside, archive, depth + 1)?;
        }
        Ok(())
    }
}

/// Directories of a path, the topmost first, as far as they show through each other.
fn open_all<'a>(path: &[u8], layers: &[&'a Ground]) -> Result<Vec<(&'a Ground, Dir<'a>)>> {
    let mut out = Vec::new();
    for ground in layers {
        let Some(dir) = ground.dir(path)? else { continue };
        let last = dir.is_opaque()?;
        out.push((*ground, dir));
        if last {
            break;
        }
    }
    Ok(out)
}

/// Writes what is to be seen of a name; of a directory, returns the layers that have it.
fn write_shown<'a, W: Write>(
    dirs: &[(&'a Ground, Dir<'a>)],
    name: &[u8],
    path: &[u8],
    archive: &mut Archive<W>,
) -> Result<Option<Vec<&'a Ground>>> {
    let mut inside: Vec<&Ground> = Vec::new();
    for (ground, dir) in dirs {
        let Some(node) = dir.node(name)? else { continue };
        if node.is_whiteout() && ground.has_marks() {
            break;
        }
        if !node.is_dir() {
            if inside.is_empty() {
                archive.entry(dir, name, path)?;
            }
            break;
        }
        if inside.is_empty() && !archive.entry(dir, name, path)? {
            break;
        }
        inside.push(ground);
    }
    Ok((!inside.is_empty()).then_some(inside))
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(out: W) -> Self {
        Self {
            out,
            links: HashMap::new(),
            buffer: Vec::new(),
            prefix: Vec::new(),
            newest: None,
        }
    }

    /// Writes no later time than this.
    pub(super) fn not_after(mut self, newest: Option<i64>) -> Self {
        self.newest = newest;
        self
    }

    fn time(&self, node: &Node) -> (i64, i64) {
        let newest = self.newest.map(|seconds| (seconds, 0));
        newest.map_or(node.mtime, |newest| node.mtime.min(newest))
    }

    /// Has all paths begin with a name.
    pub(super) fn below(mut self, prefix: &[u8]) -> Self {
        self.prefix = prefix.to_vec();
        self
    }

    pub(crate) fn finish(mut self) -> Result<()> {
        self.put(&[0; 2 * BLOCK])?;
        self.out.flush().map_err(write_failed)
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(write_failed)
    }

    pub(crate) fn pad(&mut self, size: u64) -> Result<()> {
        let over = (size % BLOCK as u64) as usize;
        if over == 0 {
            return Ok(());
        }
        self.put(&[0; BLOCK][over..])
    }

    fn root(&mut self, dir: &Dir<'_>) -> Result<()> {
        let (node, attributes) = dir.own_node()?;
        let own = match self.prefix.as_slice() {
            b"" => b"./".to_vec(),
            prefix => [prefix, b"/"].concat(),
        };
        self.head(&Head::of(b'5', &own, &node, &attributes))
    }

    /// An empty file whose name says what is gone.
    fn whiteout(&mut self, parent: &[u8], name: &[u8]) -> Result<()> {
        let path = join(parent, &[b".wh.", name].concat());
        let node = Node {
            kind: Type::File,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            blocks: 0,
            mtime: (0, 0),
            ctime: (0, 0),
            device: (0, 0),
            links: 1,
            identity: (0, 0),
        };
        self.head(&Head::of(b'0', &path, &node, &Attributes::new()))
    }

    /// Writes what is under a name now; returns whether an archive can hold it and it is still there.
    pub(super) fn entry(&mut self, dir: &Dir<'_>, name: &[u8], path: &[u8]) -> Result<bool> {
        let full = join(&self.prefix, path);
        let path = full.as_slice();
        // A file is opened before anything is written of it: it may be something else by now.
        let Some((mut node, file)) = dir.look(name)? else {
            return Ok(false);
        };
        if node.kind == Type::Socket || node.is_whiteout() {
            return Ok(false);
        }
        let attributes = dir.dress_open(name, &mut node, file.as_ref())?;
        if node.is_linked() {
            if let Some(first) = self.links.get(&node.identity).cloned() {
                self.head(&Head {
                    link: &first,
                    ..Head::of(b'1', path, &node, &Attributes::new())
                })?;
                return Ok(true);
            }
            self.links.insert(node.identity, path.to_vec());
        }
        match (node.kind, file) {
            (Type::Directory, _) => self.head(&Head::of(b'5', &[path, b"/"].concat(), &node, &attributes))?,
            (Type::Symlink, _) => {
                let Some(target) = dir.link(name)? else {
                    self.links.remove(&node.identity);
                    return Ok(false);
                };
                self.head(&Head {
                    link: &target,
                    ..Head::of(b'2', path, &node, &attributes)
                })?;
            }
            (Type::Fifo, _) => self.head(&Head::of(b'6', path, &node, &attributes))?,
            (Type::Character, _) => self.head(&Head::of(b'3', path, &node, &attributes))?,
            (Type::Block, _) => self.head(&Head::of(b'4', path, &node, &attributes))?,
            (_, Some(file)) => self.file(path, &node, &attributes, &file)?,
            (_, None) => return Ok(false),
        }
        Ok(true)
    }

    pub(crate) fn file(&mut self, path: &[u8], node: &Node, attributes: &Attributes, file: &File) -> Result<()> {
        // As it was when it was opened: what is written to it meanwhile may be missing, and what it loses is zero.
        let size = node.size;
        let pieces = match node.blocks.saturating_mul(512).saturating_add(WORTH) <= size {
            true => pieces(file, size)?,
            false => None,
        };
        let Some(pieces) = pieces else {
            self.head(&Head {
                size,
                ..Head::of(b'0', path, node, attributes)
            })?;
            self.copy(file, 0, size)?;
            return self.pad(size);
        };
        let stored = self.sparse(path, node, attributes, &pieces)?;
        for (offset, length) in pieces {
            self.copy(file, offset, length)?;
        }
        self.pad(stored)
    }

    /// The header of a file with holes, and the map of its pieces; returns how many bytes that makes with the pieces.
    pub(crate) fn sparse(
        &mut self,
        path: &[u8],
        node: &Node,
        attributes: &Attributes,
        pieces: &[(u64, u64)],
    ) -> Result<u64> {
        let mut map = format!("{}\n", pieces.len());
        for (offset, length) in pieces {
            map += &format!("{offset}\n{length}\n");
        }
        let mut map = map.into_bytes();
        map.resize(map.len().next_multiple_of(BLOCK), 0);
        let stored = pieces.iter().map(|(_, length)| length).sum::<u64>() + map.len() as u64;
        let record = |key: &str, value: Vec<u8>| (key.as_bytes().to_vec(), value);
        let (parent, name) = split(path);
        self.head(&Head {
            size: stored,
            records: vec![
                record("GNU.sparse.major", b"1".to_vec()),
                record("GNU.sparse.minor", b"0".to_vec()),
                record("GNU.sparse.name", path.to_vec()),
                record("GNU.sparse.realsize", node.size.to_string().into_bytes()),
            ],
            ..Head::of(b'0', &join(&join(parent, b"GNUSparseFile.0"), name), node, attributes)
        })?;
        self.put(&map)?;
        Ok(stored)
    }

    /// Copies as many bytes as were promised: what a file lost meanwhile is zero.
    pub(crate) fn copy(&mut self, file: &File, offset: u64, length: u64) -> Result<()> {
        let (mut at, end) = (offset, offset + length);
        self.buffer.resize(256 << 10, 0);
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(self.buffer.len());
            let part = &mut self.buffer[..want];
            let read = match file.read_at(part, at) {
                Ok(0) => {
                    part.fill(0);
                    want
                }
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::os("read a file to archive", e)),
            };
            self.out.write_all(&self.buffer[..read]).map_err(write_failed)?;
            at += read as u64;
        }
        Ok(())
    }

    pub(crate) fn head(&mut self, head: &Head<'_>) -> Result<()> {
        let node = head.node;
        let mut header = Header([0; BLOCK]);
        let mut records = head.records.clone();
        let mut record = |key: &str, value: &[u8]| records.push((key.as_bytes().to_vec(), value.to_vec()));
        if !header.text(0..100, head.path) {
            record("path", head.path);
        }
        if !header.text(157..257, head.link) {
            record("linkpath", head.link);
        }
        let decimal = |number: u64| number.to_string().into_bytes();
        for (field, key, value) in [
            (108..116, "uid", node.uid.into()),
            (116..124, "gid", node.gid.into()),
            (124..136, "size", head.size),
        ] {
            if !header.octal(field, value) {
                record(key, &decimal(value));
            }
        }
        let mtime = self.time(node);
        let seconds = u64::try_from(mtime.0).ok();
        let fits = seconds.is_some_and(|seconds| header.octal(136..148, seconds));
        if !fits || mtime.1 != 0 {
            record("mtime", pax_time(mtime).as_bytes());
        }
        if !fits {
            header.octal(136..148, 0);
        }
        for (name, value) in head.attributes {
            records.push(([b"SCHILY.xattr.", name.as_slice()].concat(), value.clone()));
        }
        header.octal(100..108, node.mode.into());
        let device = match head.kind {
            b'3' | b'4' => node.device,
            _ => (0, 0),
        };
        if !header.octal(329..337, device.0) || !header.octal(337..345, device.1) {
            let message = format!("a device number that no archive can say: {}:{}", device.0, device.1);
            return Err(Error::new(ErrorKind::InvalidState, message));
        }
        if !records.is_empty() {
            self.extended(head.path, &records)?;
        }
        let block = header.finish(head.kind);
        self.put(&block)
    }

    /// A header of records for the next entry.
    fn extended(&mut self, path: &[u8], records: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let body: Vec<u8> = records.iter().flat_map(|(key, value)| pax_record(key, value)).collect();
        let mut header = Header([0; BLOCK]);
        let last = split(path.strip_suffix(b"/").unwrap_or(path)).1;
        let name = [b"PaxHeaders.0/", &last[..last.len().min(80)]].concat();
        header.text(0..100, &name);
        header.octal(100..108, 0o644);
        for field in [108..116, 116..124, 136..148, 329..337, 337..345] {
            header.octal(field, 0);
        }
        header.octal(124..136, body.len() as u64);
        let block = header.finish(b'x');
        self.put(&block)?;
        self.put(&body)?;
        self.pad(body.len() as u64)
    }
}

impl<'a> Head<'a> {
    pub(crate) fn of(kind: u8, path: &'a [u8], node: &'a Node, attributes: &'a Attributes) -> Self {
        Self {
            kind,
            path,
            link: b"",
            size: 0,
            node,
            attributes,
            records: Vec::new(),
        }
    }
}

/// One block of a ustar header.
struct Header([u8; BLOCK]);

impl Header {
    /// Writes text if there is room; else what fits.
    fn text(&mut self, field: std::ops::Range<usize>, text: &[u8]) -> bool {
        let room = field.len();
        let part = &text[..text.len().min(room)];
        self.0[field.start..field.start + part.len()].copy_from_slice(part);
        text.len() <= room
    }

    /// Writes a number with a NUL behind it; zero if there is no room.
    fn octal(&mut self, field: std::ops::Range<usize>, number: u64) -> bool {
        let digits = field.len() - 1;
        let fits = number < 1 << (3 * digits);
        let text = format!("{:0digits$o}", if fits { number } else { 0 });
        self.0[field.start..field.start + digits].copy_from_slice(text.as_bytes());
        fits
    }

    fn finish(mut self, kind: u8) -> [u8; BLOCK] {
        self.0[156] = kind;
        self.0[257..265].copy_from_slice(b"ustar\x0000");
        self.0[148..156].fill(b' ');
        let sum: u64 = self.0.iter().map(|&byte| u64::from(byte)).sum();
        self.0[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0
    }
}

/// `length key=value`, with the length of the whole in it.
fn pax_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while length != body + length.to_string().len() {
        length = body + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// Seconds with a fraction. Before 1970 both count backwards.
fn pax_time((seconds, nanos): (i64, i64)) -> String {
    let (sign, seconds, nanos) = match seconds {
        0.. => ("", seconds.unsigned_abs(), nanos),
        _ if nanos == 0 => ("-", seconds.unsigned_abs(), 0),
        _ => ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanos),
    };
    if nanos == 0 {
        return format!("{sign}{seconds}");
    }
    let text = format!("{sign}{seconds}.{nanos:09}");
    text.trim_end_matches('0').to_owned()
}

/// Where a file holds data; `None` where its file system does not say. The last piece reaches its end.
fn pieces(file: &File, size: u64) -> Result<Option<Vec<(u64, u64)>>> {
    let failed = |e: Errno| Error::os("lseek", e);
    let Ok(end) = i64::try_from(size) else {
        return Ok(None);
    };
    let mut out = Vec::new();
    let mut at = 0i64;
    while at < end {
        let start = match lseek(file.as_fd(), at, Whence::SeekData) {
            Ok(start) => start.min(end),
            Err(Errno::ENXIO) => end,
            Err(Errno::EINVAL) => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        if start >= end {
            break;
        }
        let stop = match out.len() {
            PIECES => end,
            _ => lseek(file.as_fd(), start, Whence::SeekHole).map_err(failed)?.min(end),
        };
        out.push((start.unsigned_abs(), (stop - start).max(0).unsigned_abs()));
        at = stop.max(start + 1);
    }
    // The map must say where the file ends.
    if out.last().is_none_or(|(start, length)| start + length < size) {
        out.push((size, 0));
    }
    Ok(Some(out))
}

fn write_failed(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::os("write an archive", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_themselves() {
        assert_eq!(pax_record(b"path", b"a/b"), b"12 path=a/b\n");
        for length in 0..1200 {
            let record = pax_record(b"k", &vec![b'v'; length]);
            let said: usize = std::str::from_utf8(&record[..record.iter().position(|b| *b == b' ').unwrap()])
                .unwrap()
                .parse()
                .unwrap();
            assert_eq!(said, record.len());
        }
    }

    #[test]
    fn times_are_as_the_parser_reads_them() {
        for time in [
            (0, 0),
            (1, 500),
            (-1, 0),
            (-2, 750_000_000),
            (1 << 40, 1),
            (-1, 999_999_999),
        ] {
            let mut records = crate::storage::layer::pax::Records::default();
            records.parse(&pax_record(b"mtime", pax_time(time).as_bytes())).unwrap();
            assert_eq!(
                records.mtime.map(|(s, n)| (s, i64::from(n))),
                Some(time),
                "{}",
                pax_time(time)
            );
        }
    }
}
