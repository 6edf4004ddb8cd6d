//! What is copied, as one digest for the cache: paths, types, permissions, owners, links, attributes and content. Times do not
//! count, as in BuildKit's `cache/contenthash`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::AtomicBool;

use super::select::Match;
use crate::build::context::{View, check};
use crate::error::{Error, Result};
use crate::storage::layer::name::split;
use crate::storage::layer::{Attributes, Node, Type};
use crate::types::{Digest, Hasher};

/// How much of a file is read at a time.
const PIECE: usize = 256 << 10;

/// Things of any length, one after the other: no two lists give the same bytes.
#[derive(Default)]
pub(super) struct Tally(Hasher);

impl Tally {
    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.0.update(&number.to_le_bytes());
        self
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64).0.update(bytes);
        self
    }

    pub(super) fn maybe(&mut self, bytes: Option<&[u8]>) -> &mut Self {
        match bytes {
            Some(bytes) => self.number(1).bytes(bytes),
            None => self.number(0),
        }
    }

    pub(super) fn finish(self) -> Digest {
        self.0.finish()
    }
}

/// What tells whether a file is still what was hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    size: u64,
    changed: (i64, i64),
    inode: u64,
}

impl Stamp {
    pub(super) fn of(node: &Node) -> Self {
        Self {
            size: node.size,
            changed: node.ctime,
            inode: node.identity.1,
        }
    }
}

/// Reads everything once, and returns what it looked like.
///
/// # Errors
/// `Denied`, `Os`, `Cancelled`.
pub(super) fn tally(
    matches: &[Match],
    views: &[View],
    tally: &mut Tally,
    stop: &AtomicBool,
) -> Result<Vec<Vec<Stamp>>> {
    let mut buffer = vec![0; PIECE];
    let mut stamps = Vec::with_capacity(matches.len());
    for found in matches {
        tally
            .bytes(&found.name)
            .number(found.is_dir.into())
            .number(found.unpack.into());
        tally.number(found.items.len() as u64);
        stamps.push(tally_match(found, &views[found.tree], tally, &mut buffer, stop)?);
    }
    Ok(stamps)
}

fn tally_match(
    found: &Match,
    view: &View,
    tally: &mut Tally,
    buffer: &mut [u8],
    stop: &AtomicBool,
) -> Result<Vec<Stamp>> {
    let mut stamps = Vec::with_capacity(found.items.len());
    let mut folder = None;
    for item in &found.items {
        let path = found.path_of(item);
        let (parent, name) = split(&path);
        if folder.as_ref().is_none_or(|(known, _)| known != parent) {
            check(stop)?;
            folder = Some((parent.to_vec(), view.folder(parent)?));
        }
        let Some((_, Some(opened))) = &folder else {
            tally.number(GONE);
            stamps.push(NOTHING);
            continue;
        };
        let Some((node, attributes, file)) = opened.open(name, item.kind)? else {
            tally.number(GONE);
            stamps.push(NOTHING);
            continue;
        };
        let link = match node.kind {
            Type::Symlink => opened.link(name)?,
            _ => None,
        };
        let content = match &file {
            Some(file) => Some(content(file, node.size, buffer, stop)?),
            None => None,
        };
        head(tally, &item.path, item.implied, &node, &attributes);
        tally.maybe(link.as_deref());
        tally.maybe(content.map(|digest| digest.hex()).as_deref().map(str::as_bytes));
        stamps.push(Stamp::of(&node));
    }
    Ok(stamps)
}

/// In place of what went away meanwhile.
const GONE: u64 = u64::MAX;
const NOTHING: Stamp = Stamp {
    size: u64::MAX,
    changed: (0, 0),
    inode: 0,
};

fn head(tally: &mut Tally, path: &[u8], implied: bool, node: &Node, attributes: &Attributes) {
    let kind = match node.kind {
        Type::File => b'f',
        Type::Directory => b'd',
        Type::Symlink => b'l',
        Type::Fifo => b'p',
        Type::Character => b'c',
        Type::Block => b'b',
        Type::Socket => b's',
    };
    let mode = if node.kind == Type::Symlink { 0o777 } else { node.mode };
    tally.number(kind.into()).bytes(path).number(implied.into());
    tally
        .number(mode.into())
        .number(node.uid.into())
        .number(node.gid.into());
    let device = match node.kind {
        Type::Character | Type::Block => node.device,
        _ => (0, 0),
    };
    tally.number(device.0).number(device.1).number(attributes.len() as u64);
    for (name, value) in attributes {
        tally.bytes(name).bytes(value);
    }
}

/// The digest of a file's first bytes; what it lost meanwhile counts as zeros, as it is copied.
fn content(file: &File, size: u64, buffer: &mut [u8], stop: &AtomicBool) -> Result<Digest> {
    let mut hasher = Hasher::default();
    let mut at = 0;
    while at < size {
        let want = usize::try_from(size - at).unwrap_or(usize::MAX).min(buffer.len());
        let read = match file.read_at(&mut buffer[..want], at) {
            Ok(0) => {
                buffer[..want].fill(0);
                want
            }
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Error::os("read a file to copy", e)),
        };
        hasher.update(&buffer[..read]);
        at += read as u64;
        check(stop)?;
    }
    Ok(hasher.finish())
}
