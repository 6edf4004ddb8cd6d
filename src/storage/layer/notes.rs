//! What must still be done to files that the process may not give away itself: kept by path, carried out in batches at the
//! end, or written to a table beside the tree.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::name::split;
use super::tree::Tree;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::files;
use crate::storage::ownership::{OwnerChange, Privileged};

/// Descriptors handed over at a time; a message carries at most 253 (`SCM_MAX_FD`).
const BATCH: usize = 64;

/// Changes by path inside the tree.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Notes(BTreeMap<Vec<u8>, OwnerChange>);

impl Notes {
    pub(crate) fn set(&mut self, path: Vec<u8>, change: OwnerChange) {
        self.0.insert(path, change);
    }

    pub(crate) fn get(&self, path: &[u8]) -> Option<&OwnerChange> {
        self.0.get(path)
    }

    /// Forgets a path and all below it: it was removed.
    pub(crate) fn forget(&mut self, path: &[u8]) {
        if self.0.is_empty() {
            return;
        }
        let below = [path, b"/"].concat();
        self.0.remove(path);
        let gone: Vec<_> = self
            .0
            .range(below.clone()..)
            .map(|(p, _)| p)
            .take_while(|p| p.starts_with(&below))
            .cloned()
            .collect();
        for path in gone {
            self.0.remove(&path);
        }
    }

    /// Forgets a directory but not what is in it.
    pub(crate) fn forget_one(&mut self, path: &[u8]) {
        self.0.remove(path);
    }

    /// Gives everything away, children before their directories: afterwards we may no longer enter them.
    pub(crate) fn carry_out(&mut self, tree: &mut Tree, privileged: &dyn Privileged) -> Result<()> {
        let mut batch = Vec::new();
        for (path, change) in std::mem::take(&mut self.0).into_iter().rev() {
            let Some(fd) = open_for(tree, &path, &change)? else {
                continue;
            };
            batch.push((fd, change));
            if batch.len() == BATCH {
                privileged.change_owners(std::mem::take(&mut batch))?;
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        privileged.change_owners(batch)
    }

    /// All notes, children before their directories.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Vec<u8>, &OwnerChange)> {
        self.0.iter().rev()
    }

    /// Reads a table; an absent one is empty.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let Some(text) = files::read(path)? else {
            return Ok(Self::default());
        };
        let notes = text.lines().map(parse).collect::<Option<_>>();
        let damaged = || Error::new(ErrorKind::Corrupt, format!("{} is damaged", path.display()));
        Ok(Self(notes.ok_or_else(damaged)?))
    }

    /// Writes a table: a line per path, `<path> <uid> <gid> <mode or -> [<name>=<value>…]`, path, name and value in hex.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let mut text = String::new();
        for (path, change) in &self.0 {
            let mode = change.mode.map_or("-".to_owned(), |mode| format!("{mode:o}"));
            text += &format!("/{} {} {} {mode}", hex::encode(path), change.uid, change.gid);
            for (name, value) in &change.xattrs {
                text += &format!(" {}={}", hex::encode(name), hex::encode(value));
            }
            text.push('\n');
        }
        files::replace(path, &text)
    }
}

fn parse(line: &str) -> Option<(Vec<u8>, OwnerChange)> {
    let mut words = line.split(' ');
    let path = hex::decode(words.next()?.strip_prefix('/')?).ok()?;
    let (uid, gid) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let mode = match words.next()? {
        "-" => None,
        mode => Some(u32::from_str_radix(mode, 8).ok()?),
    };
    let mut xattrs = Vec::new();
    for word in words {
        let (name, value) = word.split_once('=')?;
        xattrs.push((
            String::from_utf8(hex::decode(name).ok()?).ok()?,
            hex::decode(value).ok()?,
        ));
    }
    Some((path, OwnerChange { uid, gid, mode, xattrs }))
}

/// Opens what a change is about; `None` if it was replaced under another name.
fn open_for(tree: &mut Tree, path: &[u8], change: &OwnerChange) -> Result<Option<OwnedFd>> {
    let (parent, name) = split(path);
    let name = if name.is_empty() { b"." } else { name };
    let opened = tree.dir(parent).and_then(|dir| {
        let access = if change.mode.is_some() || !change.xattrs.is_empty() {
            OFlag::O_RDONLY
        } else {
            OFlag::O_PATH
        };
        openat(
            &*dir,
            name,
            access | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
    });
    match opened {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        Err(e) => Err(Error::os("open a file to give away", e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_come_back_as_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut notes = Notes::default();
        let caps = ("security.capability".to_owned(), vec![0, 1, 255]);
        notes.set(
            b"a b\n".to_vec(),
            OwnerChange {
                uid: 7,
                gid: 8,
                mode: Some(0o4755),
                xattrs: vec![caps],
            },
        );
        notes.set(
            b"a".to_vec(),
            OwnerChange {
                uid: 1,
                ..OwnerChange::default()
            },
        );
        notes.set(b"a/b/c".to_vec(), OwnerChange::default());
        notes.set(Vec::new(), OwnerChange::default());
        notes.save(&dir.path().join("t")).unwrap();
        assert_eq!(Notes::load(&dir.path().join("t")).unwrap(), notes);
        assert_eq!(notes.iter().next().unwrap().0, b"a/b/c");
        notes.forget(b"a");
        assert_eq!(notes.0.len(), 2);
        std::fs::write(dir.path().join("t"), "/zz 1").unwrap();
        assert_eq!(
            Notes::load(&dir.path().join("t")).unwrap_err().kind(),
            &ErrorKind::Corrupt
        );
    }
}
