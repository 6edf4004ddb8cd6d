//! Reads what a container wrote: as a list of changes, as a layer, or as the whole tree.
//!
//! The trees are hostile. A container may hold files of any type and name, and may swap them while they are read: every
//! access is by descriptor beneath a layer's root, never through a symlink or into another file system, and what turns out
//! to be something else than it was a moment ago is left out. Nothing but regular files and directories is ever opened.
//!
//! What counts as a change is what a comparison of the two whole trees says (Docker's "naive diff"), whatever the backend:
//! overlay's upper directory only says where to look. A directory in which something changed is itself changed.

mod compare;
mod ground;
mod node;
mod spot;
mod write;

use std::collections::BTreeSet;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;

pub use self::ground::Sight;
#[cfg_attr(not(feature = "build"), allow(unused_imports, reason = "for builds"))]
pub(crate) use self::ground::{Dir, Ground, Owners, is_read};
#[cfg_attr(not(feature = "build"), allow(unused_imports, reason = "for builds"))]
pub(crate) use self::node::{Attributes, Node, Type};
pub(crate) use self::spot::Spot;
#[cfg_attr(not(feature = "build"), allow(unused_imports, reason = "for builds"))]
pub(crate) use self::write::{Archive, Head};

use super::notes::Notes;
use super::tree::resolve;
use super::{OPAQUE_TRUSTED, OPAQUE_USER};
use crate::error::Result;
use crate::storage::ownership::Ownership;
use crate::storage::snapshot::LayerSource;
use crate::types::Change;

/// How deep a tree is read: as deep as a layer may be.
const DEEPEST: usize = 256;

/// A writable snapshot, open for reading. All calls block.
#[derive(Debug)]
pub struct LayerReader {
    /// What was written to.
    new: Ground,
    /// What it stands on, the topmost first.
    old: Vec<Ground>,
    /// Whether `new` shows the whole tree, not only what changed.
    merged: bool,
    /// Until when nothing but the backend wrote to a merged tree, on the file system's clock.
    untouched: Option<(i64, i64)>,
    places: BTreeSet<Vec<u8>>,
    /// No file is said to be younger, in seconds since the epoch.
    newest: Option<i64>,
}

impl LayerReader {
    /// Opens the trees. `sight` opens what this process may not, where there is such a process.
    ///
    /// # Errors
    /// `Os` with the errno, `Corrupt` for a damaged table of owners.
    pub fn open(source: &LayerSource, ownership: &Ownership, sight: Option<Arc<dyn Sight>>) -> Result<Self> {
        let owners = || Owners::of(ownership);
        let ground = |dir: &std::path::Path, owners, mark| Ground::open(dir, owners, mark, sight.clone());
        match source {
            LayerSource::Overlay {
                upper,
                lower,
                user_xattr,
            } => {
                let mark = Some(if *user_xattr { OPAQUE_USER } else { OPAQUE_TRUSTED });
                let below = lower.iter().map(|dir| ground(dir, owners(), mark));
                Ok(Self {
                    new: ground(upper, owners(), mark)?,
                    old: below.collect::<Result<_>>()?,
                    merged: false,
                    untouched: None,
                    places: BTreeSet::new(),
                    newest: None,
                })
            }
            LayerSource::Merged {
                dir,
                parent,
                owners: table,
                untouched,
            } => {
                let below = match (parent, table) {
                    (Some(parent), Some(table)) => vec![ground(parent, Owners::Table(Notes::load(table)?), None)?],
                    (Some(parent), None) => vec![ground(parent, owners(), None)?],
                    (None, _) => Vec::new(),
                };
                Ok(Self {
                    new: ground(dir, owners(), None)?,
                    old: below,
                    merged: true,
                    untouched: untouched.map(compare::time_of),
                    places: BTreeSet::new(),
                    newest: None,
                })
            }
        }
    }

    /// A tree of no layer, shown by an open directory: a volume, or what a mount shows.
    pub(crate) fn of_tree(dir: OwnedFd, ownership: &Ownership, sight: Option<Arc<dyn Sight>>) -> Self {
        Self::of_ground(Ground::of(dir, Owners::of(ownership), sight))
    }

    fn of_ground(ground: Ground) -> Self {
        Self {
            new: ground,
            old: Vec::new(),
            merged: true,
            untouched: None,
            places: BTreeSet::new(),
            newest: None,
        }
    }

    /// Leaves out empty files and directories at these paths where they were added: places for mounts that a runtime made.
    #[must_use]
    pub fn without(mut self, places: &[&str]) -> Self {
        let clean = |place: &&str| place.trim_matches('/').as_bytes().to_vec();
        self.places = places.iter().map(clean).collect();
        self
    }

    /// Writes no file as younger than this, in seconds since the epoch: what a command makes has the time of its run.
    #[must_use]
    pub fn not_after(mut self, seconds: i64) -> Self {
        self.newest = Some(seconds);
        self
    }

    /// What differs from the tree below, by path. A directory stands before what is in it.
    ///
    /// # Errors
    /// `InvalidState` for a tree that is deeper than a layer may be; `Os`.
    pub fn changes(&self) -> Result<Vec<Change>> {
        let plan = self.compare()?;
        Ok(plan.into_iter().filter_map(compare::Step::listed).collect())
    }

    /// Writes the difference as an uncompressed layer; returns whether there is any. Sockets are left out, as by Docker:
    /// no archive can hold one.
    ///
    /// # Errors
    /// As [`LayerReader::changes`], and what `out` says.
    pub fn write_layer(&self, out: impl Write) -> Result<bool> {
        let plan = self.compare()?;
        let mut archive = Archive::new(out).not_after(self.newest);
        self.write_steps(&plan, &mut archive)?;
        archive.finish()?;
        Ok(!plan.is_empty())
    }

    /// Writes the whole tree as an uncompressed tar. Memory does not grow with its size, but with that of its largest
    /// directory, and with the number of hard links.
    ///
    /// # Errors
    /// As [`LayerReader::write_layer`].
    pub fn write_tree(&self, out: impl Write) -> Result<()> {
        let mut archive = Archive::new(out).not_after(self.newest);
        self.write_all(&mut archive)?;
        archive.finish()
    }
}

/// Opens a directory as a root's own programs would find it, through symlinks or not; `None` where there is none, or something
/// else.
pub(crate) fn open_inside(root: &OwnedFd, path: &Path, no_links: bool) -> Result<Option<OwnedFd>> {
    use std::os::unix::ffi::OsStrExt as _;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    match resolve(root, path.as_os_str().as_bytes(), flags, no_links) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        Err(errno) => Err(crate::error::Error::os(format!("open {}", path.display()), errno)),
    }
}
