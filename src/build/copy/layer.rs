//! The layer of a copy: the destination as it is in the base, and upon it what is copied, as a tar.
//!
//! Rules for what is where and whose are those of BuildKit (`tonistiigi/fsutil/copy`). Entries come in the order of the
//! sources, each source's sorted by name with directories before what is in them. A directory of the base that something is
//! put into is in the layer as the base has it.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::atomic::AtomicBool;

use super::Times;
use super::digest::Stamp;
use super::mode::Permissions;
use super::select::{Item, Match, reserved};
use crate::build::context::{Folder, Paths, View, check, parts};
use crate::error::{Error, ObjectKind, Result};
use crate::storage::layer::name::{join, show, split};
use crate::storage::layer::{Archive, Attributes, Head, Node, Type};

/// What goes to the layer together.
const BUFFER: usize = 256 << 10;
const SETGID: u32 = 0o2000;

/// How the copies are to be.
#[derive(Debug)]
pub(super) struct Look {
    /// Absolute; with a slash at its end where it is a directory in any case.
    pub(super) destination: String,
    pub(super) owner: Option<(u32, u32)>,
    pub(super) permissions: Option<Permissions>,
    pub(super) times: Times,
}

/// What this layer has made of a path.
#[derive(Debug, Clone)]
pub(super) enum Made {
    /// A directory, with its permissions and its owner.
    Directory(u32, u32, u32),
    Link(Vec<u8>),
    Other,
}

impl Made {
    pub(super) fn node(&self) -> Node {
        match self {
            Self::Directory(mode, uid, gid) => Node {
                uid: *uid,
                gid: *gid,
                ..plain(Type::Directory, *mode)
            },
            Self::Link(_) => plain(Type::Symlink, 0o777),
            Self::Other => plain(Type::File, 0o644),
        }
    }

    pub(super) fn is_dir(&self) -> bool {
        matches!(self, Self::Directory(..))
    }
}

/// A layer in the making.
pub(super) struct Layer<'a, W: Write> {
    pub(super) archive: Archive<BufWriter<W>>,
    base: Option<&'a View>,
    pub(super) look: &'a Look,
    /// What this layer has: only directories where one source is alone, since nothing else is asked for then.
    pub(super) made: BTreeMap<Vec<u8>, Made>,
    pub(super) remembers_all: bool,
    /// The directory of the base that was asked last.
    beside: Option<(Vec<u8>, Option<Folder<'a>>)>,
    pub(super) stop: &'a AtomicBool,
    /// Whether a file was not what it had been.
    pub(super) changed: bool,
}

/// What a match brings, and where from.
pub(super) struct Source<'a> {
    pub(super) found: &'a Match,
    pub(super) view: &'a View,
    /// Whether its files have dates that mean something.
    pub(super) is_dated: bool,
    pub(super) stamps: Option<&'a [Stamp]>,
}

/// What other sources of the same step do to a match: which of its files are copied over by a later one.
pub(super) type Overlaps = HashMap<Vec<u8>, (usize, usize)>;

impl<W: Write> Paths for Layer<'_, W> {
    fn at(&self, path: &[u8]) -> Result<Option<(Node, Option<Vec<u8>>)>> {
        if let Some(made) = self.made.get(path) {
            let link = match made {
                Made::Link(link) => Some(link.clone()),
                _ => None,
            };
            return Ok(Some((made.node(), link)));
        }
        if self.is_covered(path) {
            return Ok(None);
        }
        if path.is_empty() && self.base.is_none() {
            return Ok(Some((plain(Type::Directory, 0o755), None)));
        }
        match self.base {
            Some(base) => base.at(path),
            None => Ok(None),
        }
    }
}

impl<'a, W: Write> Layer<'a, W> {
    pub(super) fn new(
        out: W,
        base: Option<&'a View>,
        look: &'a Look,
        stop: &'a AtomicBool,
        remembers_all: bool,
    ) -> Self {
        Self {
            archive: Archive::new(BufWriter::with_capacity(BUFFER, out)),
            base,
            look,
            made: BTreeMap::new(),
            remembers_all,
            beside: None,
            stop,
            changed: false,
        }
    }

    pub(super) fn finish(self) -> Result<bool> {
        self.archive.finish()?;
        Ok(self.changed)
    }

    /// Whether something above a path was made that is no directory.
    fn is_covered(&self, path: &[u8]) -> bool {
        let above = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        above
            .map(|(at, _)| &path[..at])
            .any(|above| self.made.get(above).is_some_and(|made| !made.is_dir()))
    }

    /// Whether a match is a file that becomes the destination itself, which is no directory.
    pub(super) fn takes_its_place(&self, source: &Source<'_>) -> Result<bool> {
        let destination = self.look.destination.as_bytes();
        Ok(!source.found.is_dir && destination.last() != Some(&b'/') && !self.follow(b"", destination, true)?.is_dir())
    }

    /// Where a match goes: the directory that holds the copies of a directory's content, or the file itself. Makes the
    /// directories on the way.
    pub(super) fn place(&mut self, source: &Source<'_>) -> Result<Vec<u8>> {
        let found = source.found;
        let time = match (found.is_dir, self.look.times) {
            (true, Times::Real) => source.view.at(&found.path)?.map(|(node, _)| node.mtime),
            _ => None,
        };
        let destination = self.look.destination.as_bytes();
        let ensured = match destination.last() {
            Some(b'/') => destination,
            _ => split(destination).0,
        };
        let ensured = self.follow(b"", ensured, true)?.path;
        self.make_dirs(&ensured, None)?;
        let led = self.follow(b"", destination, true)?;
        let target = match !found.is_dir && led.is_dir() {
            true => join(&led.path, &found.name),
            false => led.path.clone(),
        };
        match found.is_dir {
            true => self.make_dirs(&target, time)?,
            false => self.make_dirs(split(&target).0, None)?,
        }
        Ok(target)
    }

    /// Makes a directory with those above it, `perm` as in BuildKit. What is there stays as it is. A directory whose content
    /// is copied gives its time.
    pub(super) fn make_dirs(&mut self, path: &[u8], time: Option<(i64, i64)>) -> Result<()> {
        let mode = self.look.permissions.as_ref().map_or(0o755, Permissions::of_parents);
        self.make_dirs_as(path, time, mode, self.look.owner)
    }

    /// Without an owner they are root's, and of the group that a directory above with the set-group-id bit gives them.
    pub(super) fn make_dirs_as(
        &mut self,
        path: &[u8],
        time: Option<(i64, i64)>,
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> Result<()> {
        let mut above = self.at(b"")?.map(|(node, _)| node);
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let mut ends: Vec<usize> = ends.map(|(at, _)| at).collect();
        ends.push(path.len());
        for end in ends {
            let (whole, path) = (end == path.len(), &path[..end]);
            if path.is_empty() {
                continue;
            }
            let there = self.at(path)?.map(|(node, _)| node);
            let time = time.filter(|_| whole);
            match &there {
                Some(node) if !node.is_dir() => return Err(not_a_directory(path)),
                Some(_) if self.made.contains_key(path) => {}
                Some(_) => self.show_base(path, time)?,
                None => {
                    let given = above
                        .filter(|above| above.mode & SETGID != 0)
                        .map_or(0, |above| above.gid);
                    let mut node = plain(Type::Directory, mode);
                    (node.uid, node.gid) = owner.unwrap_or((0, given));
                    node.mtime = self.time_of(time, false);
                    self.directory(path, node.clone(), &Attributes::new())?;
                    above = Some(node);
                    continue;
                }
            }
            above = there;
        }
        Ok(())
    }

    /// Writes a directory of the base as it is there.
    fn show_base(&mut self, path: &[u8], time: Option<(i64, i64)>) -> Result<()> {
        let folder = match self.base {
            Some(base) => base.folder(path)?,
            None => None,
        };
        let Some(folder) = folder else {
            return Err(Error::internal("a directory of the base that went away"));
        };
        let (mut node, attributes) = folder.itself()?;
        node.mtime = match time {
            Some(time) => self.time_of(Some(time), false),
            None => self.time_of(Some(node.mtime), true),
        };
        self.directory(path, node, &attributes)
    }

    pub(super) fn directory(&mut self, path: &[u8], node: Node, attributes: &Attributes) -> Result<()> {
        check_name(path)?;
        self.archive
            .head(&Head::of(b'5', &[path, b"/"].concat(), &node, attributes))?;
        self.made
            .insert(path.to_vec(), Made::Directory(node.mode, node.uid, node.gid));
        Ok(())
    }

    /// The time that goes into the layer, in whole seconds.
    pub(super) fn time_of(&self, time: Option<(i64, i64)>, is_dated: bool) -> (i64, i64) {
        let own = time.map(|(seconds, _)| seconds);
        let seconds = match self.look.times {
            Times::Fixed(epoch) if is_dated => own.unwrap_or(epoch).min(epoch),
            Times::Fixed(epoch) => epoch,
            Times::Real => own.unwrap_or(0),
        };
        (seconds, 0)
    }

    /// Copies a match to where [`Layer::place`] put it. `skip` says which files a later source replaces.
    pub(super) fn copy(
        &mut self,
        source: &Source<'_>,
        target: &[u8],
        skip: &dyn Fn(&Item, &[u8]) -> bool,
    ) -> Result<()> {
        let mut reading = Reading {
            folder: None,
            links: HashMap::new(),
        };
        for (at, item) in source.found.items.iter().enumerate() {
            let to = match item.path.is_empty() {
                true => target.to_vec(),
                false => join(target, &item.path),
            };
            if skip(item, &to) {
                continue;
            }
            let stamp = source.stamps.and_then(|stamps| stamps.get(at));
            self.item(source, item, &to, stamp, &mut reading)?;
        }
        Ok(())
    }

    fn item<'s>(
        &mut self,
        source: &Source<'s>,
        item: &Item,
        target: &[u8],
        stamp: Option<&Stamp>,
        reading: &mut Reading<'s>,
    ) -> Result<()> {
        let path = source.found.path_of(item);
        let (parent, name) = split(&path);
        if reading.folder.as_ref().is_none_or(|(known, _)| known != parent) {
            check(self.stop)?;
            reading.folder = Some((parent.to_vec(), source.view.folder(parent)?));
        }
        let folder = reading.folder.as_ref().and_then(|(_, folder)| folder.as_ref());
        let opened = match folder {
            Some(folder) => folder.open(name, item.kind)?,
            None => None,
        };
        let Some((mut node, attributes, file)) = opened.filter(|(node, ..)| node.kind == item.kind) else {
            self.changed = true;
            return Ok(());
        };
        if node.is_whiteout() {
            // Nothing else could tell it from one.
            return Ok(());
        }
        let now = Stamp::of(&node);
        self.changed |= node.is_file() && stamp.is_some_and(|stamp| *stamp != now);
        self.adjust(&mut node, source.is_dated);
        check_name(target)?;
        let there = self.there(target)?;
        match (item.kind, there) {
            (Type::Directory, Some(there)) if !there.is_dir() => return Err(not_a_directory(target)),
            (Type::Directory, there) => {
                if let Some(there) = there.filter(|_| item.implied) {
                    (node.uid, node.gid) = (there.uid, there.gid);
                }
                return self.directory(target, node, &attributes);
            }
            (_, Some(there)) if there.is_dir() => return Err(is_a_directory(target)),
            _ => {}
        }
        if node.is_linked() {
            if let Some(first) = reading.links.get(&node.identity) {
                self.archive.head(&Head {
                    link: first,
                    ..Head::of(b'1', target, &node, &Attributes::new())
                })?;
                self.remember(target, None);
                return Ok(());
            }
            reading.links.insert(node.identity, target.to_vec());
        }
        let link = match (node.kind, folder) {
            (Type::Symlink, Some(folder)) => folder.link(name)?,
            _ => None,
        };
        if node.kind == Type::Symlink && link.is_none() {
            self.changed = true;
            return Ok(());
        }
        self.write(target, &node, &attributes, link.as_deref(), file.as_ref())?;
        self.changed |= match &file {
            Some(file) if stamp.is_some() => stamp_now(file)? != now,
            _ => false,
        };
        self.remember(target, link);
        Ok(())
    }

    fn write(
        &mut self,
        path: &[u8],
        node: &Node,
        attributes: &Attributes,
        link: Option<&[u8]>,
        file: Option<&File>,
    ) -> Result<()> {
        let kind = match node.kind {
            Type::Symlink => b'2',
            Type::Character => b'3',
            Type::Block => b'4',
            Type::Fifo => b'6',
            _ => b'0',
        };
        let size = if file.is_some() { node.size } else { 0 };
        self.archive.head(&Head {
            link: link.unwrap_or_default(),
            size,
            ..Head::of(kind, path, node, attributes)
        })?;
        let Some(file) = file else { return Ok(()) };
        // Holes are written out: where they are is the source's file system's business, and would make another layer there.
        self.archive.copy(file, 0, size)?;
        self.archive.pad(size)
    }

    /// Owner, permissions and time of a copy.
    fn adjust(&self, node: &mut Node, is_dated: bool) {
        if let Some((uid, gid)) = self.look.owner {
            (node.uid, node.gid) = (uid, gid);
        }
        match (&self.look.permissions, node.kind) {
            (_, Type::Symlink) => node.mode = 0o777,
            (Some(permissions), _) => node.mode = permissions.apply(node.mode, node.is_dir()),
            (None, _) => {}
        }
        node.mtime = self.time_of(Some(node.mtime), is_dated);
    }

    /// Something that is no directory, a symlink if it has a text.
    pub(super) fn remember(&mut self, path: &[u8], link: Option<Vec<u8>>) {
        if self.remembers_all {
            self.made.insert(path.to_vec(), link.map_or(Made::Other, Made::Link));
        }
    }

    /// What a copy replaces: asked for many files of one directory in a row.
    pub(super) fn there(&mut self, path: &[u8]) -> Result<Option<Node>> {
        if let Some(made) = self.made.get(path) {
            return Ok(Some(made.node()));
        }
        let Some(base) = self.base else { return Ok(None) };
        let (parent, name) = split(path);
        if self.beside.as_ref().is_none_or(|(known, _)| known != parent) {
            let covered = self.is_covered(path);
            let folder = if covered { None } else { base.folder(parent)? };
            self.beside = Some((parent.to_vec(), folder));
        }
        match &self.beside {
            Some((_, Some(folder))) => folder.look(name),
            _ => Ok(None),
        }
    }
}

/// A source that is being read.
struct Reading<'a> {
    folder: Option<(Vec<u8>, Option<Folder<'a>>)>,
    /// Where files with several names were put first.
    links: HashMap<(u64, u64), Vec<u8>>,
}

/// A file that nothing is known of but this.
pub(super) fn plain(kind: Type, mode: u32) -> Node {
    Node {
        kind,
        mode,
        uid: 0,
        gid: 0,
        size: 0,
        blocks: 0,
        mtime: (0, 0),
        ctime: (0, 0),
        device: (0, 0),
        links: 1,
        identity: (0, 0),
    }
}

fn stamp_now(file: &File) -> Result<Stamp> {
    let now = nix::sys::stat::fstat(file).map_err(|e| Error::os("stat", e))?;
    Ok(Stamp::of(&Node::of(&now)))
}

/// What no layer can hold.
fn check_name(path: &[u8]) -> Result<()> {
    match split(path).1.starts_with(b".wh.") {
        true => Err(reserved(path)),
        false => Ok(()),
    }
}

fn not_a_directory(path: &[u8]) -> Error {
    let shown = format!("/{}", show(path));
    let message = format!("cannot copy to non-directory: {shown} is there and no directory");
    Error::invalid(message).with_object(ObjectKind::Option, shown)
}

fn is_a_directory(path: &[u8]) -> Error {
    let shown = format!("/{}", show(path));
    let message = format!("cannot replace the directory {shown} with a file");
    Error::invalid(message).with_object(ObjectKind::Option, shown)
}

/// Which files of which match are copied last to each path, where several matches meet: `targets` says where each goes.
///
/// # Errors
/// `InvalidArgument` where a directory and something else would take each other's place.
pub(super) fn overlaps(matches: &[Match], targets: &[Vec<u8>]) -> Result<Overlaps> {
    let mut last: Overlaps = HashMap::new();
    for (number, (found, target)) in matches.iter().zip(targets).enumerate() {
        for (at, item) in found.items.iter().enumerate() {
            let to = parts(target).chain(parts(&item.path)).collect::<Vec<_>>().join(&b'/');
            let is_dir = item.kind == Type::Directory;
            if let Some((other, index)) = last.get(&to) {
                let was_dir = matches[*other].items[*index].kind == Type::Directory;
                match (was_dir, is_dir) {
                    (true, false) => return Err(is_a_directory(&to)),
                    (false, true) => return Err(not_a_directory(&to)),
                    _ => {}
                }
            }
            last.insert(to, (number, at));
        }
    }
    Ok(last)
}
