//! `ADD` of an archive: what it holds becomes part of the layer.
//!
//! The rules are those of Docker's `go-archive`, which unpacks with the destination as the root: symlinks of the archive, and
//! of the base below the destination, are followed inside it; a directory over a directory takes its place with what is in
//! it, anything else replaces what is there; directories that are missing become root's.

use std::fs::File;
use std::io::Write;

use super::layer::{Layer, plain};
use super::select::reserved;
use crate::build::context::spool::{Archive, archive};
use crate::build::context::{Paths as _, check};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::layer::name::{clean, join, show, split};
use crate::storage::layer::tar::{Entry, Kind, bad};
use crate::storage::layer::{Attributes, Head, Limits, Node, Type, is_read};

/// What is remembered of an archive's entries is in memory.
const ENTRIES: u64 = 2_000_000;

impl<W: Write> Layer<'_, W> {
    /// Puts what an archive holds into the destination.
    ///
    /// # Errors
    /// `UnsafeArchive` for what leads out of the destination or is malformed; `InvalidArgument`, `Os`, `Cancelled`.
    pub(super) fn unpack(&mut self, file: &File) -> Result<()> {
        self.remembers_all = true;
        let root = self.follow(b"", self.look.destination.as_bytes(), true)?.path;
        self.make_dirs_as(&root, None, 0o755, self.look.owner)?;
        let limits = Limits {
            entries: ENTRIES,
            ..Limits::default()
        };
        let mut reader = archive(file, limits)?;
        while let Some(entry) = reader.next()? {
            check(self.stop)?;
            self.entry(&root, &entry, &mut reader)
                .map_err(|e| e.context(format!("unpack {}", show(&entry.path))))?;
        }
        Ok(())
    }

    fn entry(&mut self, root: &[u8], entry: &Entry, reader: &mut Archive<'_>) -> Result<()> {
        let path = clean(&entry.path, &Limits::default())?;
        if path.is_empty() {
            // The destination stays as it is.
            return Ok(());
        }
        let target = self.target(root, &path)?;
        let kind = match entry.kind {
            Kind::Character if entry.device == (0, 0) => return Ok(()),
            Kind::Directory => Type::Directory,
            Kind::Symlink => Type::Symlink,
            Kind::Fifo => Type::Fifo,
            Kind::Character => Type::Character,
            Kind::Block => Type::Block,
            Kind::File | Kind::HardLink => Type::File,
        };
        let node = self.node_of(entry, kind);
        let attributes = attributes_of(entry);
        if kind == Type::Directory {
            self.clear(&target, true);
            return self.directory(&target, node, &attributes);
        }
        if split(&target).1.starts_with(b".wh.") {
            return Err(reserved(&target));
        }
        self.clear(&target, false);
        match entry.kind {
            Kind::File => self.data(&target, &node, &attributes, entry, reader)?,
            Kind::HardLink => {
                let link = clean(&entry.link, &Limits::default())?;
                let link = self.target(root, &link)?;
                let known = self.made.get(&link).is_some_and(|made| !made.is_dir());
                if !known || link == target {
                    return Err(bad(format!(
                        "a hard link to what is not in the archive: {}",
                        show(&entry.link)
                    )));
                }
                self.archive.head(&Head {
                    link: &link,
                    ..Head::of(b'1', &target, &node, &Attributes::new())
                })?;
            }
            _ => {
                let letter = match kind {
                    Type::Symlink => b'2',
                    Type::Character => b'3',
                    Type::Block => b'4',
                    _ => b'6',
                };
                let link = if kind == Type::Symlink {
                    entry.link.as_slice()
                } else {
                    b""
                };
                self.archive.head(&Head {
                    link,
                    ..Head::of(letter, &target, &node, &attributes)
                })?;
            }
        }
        self.remember(&target, (kind == Type::Symlink).then(|| entry.link.clone()));
        Ok(())
    }

    /// Where an entry goes: its directory is followed, and made if it is not there.
    fn target(&mut self, root: &[u8], path: &[u8]) -> Result<Vec<u8>> {
        let (parent, name) = split(path);
        let led = self.follow(root, parent, true)?;
        if !led.is_dir() {
            self.make_dirs_as(&led.path, None, 0o755, Some((0, 0)))?;
        } else if !led.path.is_empty() {
            // It is in the layer, so that its owner and permissions stay.
            self.make_dirs(&led.path, None)?;
        }
        Ok(join(&led.path, name))
    }

    /// Forgets what an entry replaces.
    fn clear(&mut self, path: &[u8], by_directory: bool) {
        let Some(made) = self.made.get(path) else { return };
        if made.is_dir() && !by_directory {
            let prefix = [path, b"/"].concat();
            let below = self.made.range(prefix.clone()..);
            let below: Vec<Vec<u8>> = below
                .map(|(path, _)| path.clone())
                .take_while(|path| path.starts_with(&prefix))
                .collect();
            for path in below {
                self.made.remove(&path);
            }
        }
        self.made.remove(path);
    }

    fn node_of(&self, entry: &Entry, kind: Type) -> Node {
        let (uid, gid) = self.look.owner.unwrap_or((entry.uid, entry.gid));
        let mode = if kind == Type::Symlink { 0o777 } else { entry.mode };
        Node {
            uid,
            gid,
            size: if entry.kind == Kind::File { entry.size } else { 0 },
            device: (entry.device.0.into(), entry.device.1.into()),
            mtime: self.time_of(Some((entry.mtime.0, 0)), true),
            ..plain(kind, mode)
        }
    }

    fn data(
        &mut self,
        path: &[u8],
        node: &Node,
        attributes: &Attributes,
        entry: &Entry,
        reader: &mut Archive<'_>,
    ) -> Result<()> {
        let stored = match &entry.sparse {
            None => {
                self.archive.head(&Head {
                    size: node.size,
                    ..Head::of(b'0', path, node, attributes)
                })?;
                node.size
            }
            Some(map) => {
                let mut map = map.clone();
                if map.last().is_none_or(|(start, length)| start + length < node.size) {
                    map.push((node.size, 0));
                }
                self.archive.sparse(path, node, attributes, &map)?
            }
        };
        loop {
            let piece = reader.data()?;
            if piece.is_empty() {
                break;
            }
            let length = piece.len();
            self.archive.put(piece)?;
            reader.consume(length)?;
            check(self.stop)?;
        }
        self.archive.pad(stored)
    }
}

/// Attributes that mean something in an image.
fn attributes_of(entry: &Entry) -> Attributes {
    let kept = entry.xattrs.iter().filter(|(name, _)| {
        let name = std::ffi::CString::new(name.as_slice());
        name.is_ok_and(|name| is_read(&name) && !name.to_bytes().starts_with(b"user.longshore."))
    });
    let mut attributes: Attributes = kept.cloned().collect();
    attributes.sort();
    attributes
}

/// What an error is called where a file could not be unpacked since nothing here reads it.
pub(super) fn explain(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Unsupported { .. } => error.context("ADD unpacks archives: give --unpack=false to copy it as it is"),
        _ => error,
    }
}
