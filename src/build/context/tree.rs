//! Trees of files that a build reads: its context, and root file systems of images and stages.
//!
//! Nothing outside a tree is ever read, whatever it holds and whoever swaps its files meanwhile: paths are taken apart here,
//! symlinks lead where they lead with the tree as the root, and what they come to is opened by the kernel beneath the tree's
//! directory without following any (openat2(2), `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`).

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::build::ignore::{Below, IgnoreFile};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::layer::name::{join, show, split};
use crate::storage::layer::{Attributes, Dir, Ground, Node, Owners, Sight, Type};
use crate::storage::ownership::Ownership;

/// How many symlinks a path may lead through. Source: containerd/continuity, `fs.RootPath`, which BuildKit resolves with.
const LINKS: usize = 255;
/// How deep a tree is read: as deep as a layer may be.
pub(crate) const DEEPEST: usize = 256;

/// A tree of files.
#[derive(Clone)]
pub(crate) struct Tree {
    /// Its directory.
    pub(crate) root: Arc<OwnedFd>,
    /// How its owners are to be read.
    pub(crate) ownership: Ownership,
    /// Who opens what this process may not.
    pub(crate) sight: Option<Arc<dyn Sight>>,
    /// What of it is not there for a build.
    pub(crate) ignore: Option<Arc<IgnoreFile>>,
    /// Whether its files have no owners of their own, but become root's, as those of contexts do.
    pub(crate) is_context: bool,
    /// What lives as long as the tree.
    #[allow(dead_code, reason = "is only held")]
    pub(crate) keep: Option<Arc<dyn Any + Send + Sync>>,
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree")
            .field("root", &self.root)
            .field("is_context", &self.is_context)
            .finish_non_exhaustive()
    }
}

impl Tree {
    /// A directory of the caller's, as a context.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, `Os`.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = nix::fcntl::open(directory, flags, Mode::empty())
            .map_err(|e| Error::os(format!("open the directory {}", directory.display()), e))?;
        Ok(Self {
            root: Arc::new(root),
            ownership: Ownership::Direct,
            sight: None,
            ignore: None,
            is_context: true,
            keep: None,
        })
    }

    /// The root file system of an image or a stage.
    pub(crate) fn of_rootfs(root: OwnedFd, ownership: Ownership, sight: Option<Arc<dyn Sight>>) -> Self {
        Self {
            root: Arc::new(root),
            ownership,
            sight,
            ignore: None,
            is_context: false,
            keep: None,
        }
    }

    /// The tree, ready to be read.
    pub(super) fn ground(&self) -> Result<Ground> {
        let root = self.root.try_clone().map_err(|e| Error::os("dup", e))?;
        Ok(Ground::of(root, Owners::of(&self.ownership), self.sight.clone()).crossing())
    }

    /// The tree, ready to be read.
    pub(crate) fn view(&self) -> Result<View> {
        Ok(View {
            ground: self.ground()?,
            ignore: self.ignore.clone().filter(|ignore| !ignore.is_empty()),
            is_context: self.is_context,
        })
    }
}

/// A tree while it is read. All calls block.
#[derive(Debug)]
pub(crate) struct View {
    ground: Ground,
    ignore: Option<Arc<IgnoreFile>>,
    is_context: bool,
}

/// An open directory of a tree.
#[derive(Debug)]
pub(crate) struct Folder<'a> {
    view: &'a View,
    dir: Dir<'a>,
    path: Vec<u8>,
    below: Below,
}

/// Where a path leads: no symlink is left in it.
#[derive(Debug, Clone)]
pub(crate) struct Led {
    /// Without a slash in front; empty for the root.
    pub(crate) path: Vec<u8>,
    /// What is there, if anything is.
    pub(crate) node: Option<Node>,
}

impl Led {
    /// Whether a directory is there.
    pub(crate) fn is_dir(&self) -> bool {
        self.node.as_ref().is_some_and(Node::is_dir)
    }
}

/// A tree whose paths can be followed.
pub(crate) trait Paths {
    /// What is under a real path, itself if it is a symlink; with the text of a symlink.
    ///
    /// # Errors
    /// `Denied`, `Os`.
    fn at(&self, path: &[u8]) -> Result<Option<(Node, Option<Vec<u8>>)>>;

    /// Follows a path from a directory of the tree that counts as its root. A part that is not there is taken by its name.
    ///
    /// # Errors
    /// `InvalidArgument` where symlinks lead in a circle; those of [`Paths::at`].
    fn follow(&self, root: &[u8], path: &[u8], follow_last: bool) -> Result<Led> {
        let floor = parts(root).count();
        let mut real: Vec<Vec<u8>> = parts(root).map(<[u8]>::to_vec).collect();
        let mut ahead: VecDeque<Vec<u8>> = parts(path).map(<[u8]>::to_vec).collect();
        let mut links = 0;
        // `None`: not looked at since the last step.
        let mut node = None;
        while let Some(part) = ahead.pop_front() {
            node = None;
            match part.as_slice() {
                b"." => continue,
                b".." => {
                    real.truncate(real.len().saturating_sub(1).max(floor));
                    continue;
                }
                _ => real.push(part),
            }
            let Some((there, link)) = self.at(&real.join(&b'/'))? else {
                continue;
            };
            let Some(link) = link.filter(|_| follow_last || !ahead.is_empty()) else {
                node = Some(there);
                continue;
            };
            links += 1;
            if links > LINKS {
                let message = format!("symbolic links that lead in a circle, at {}", show(path));
                return Err(Error::invalid(message));
            }
            real.pop();
            if link.starts_with(b"/") {
                real.truncate(floor);
            }
            for part in parts(&link).collect::<Vec<_>>().into_iter().rev() {
                ahead.push_front(part.to_vec());
            }
        }
        let path = real.join(&b'/');
        if node.is_none() {
            node = self.at(&path)?.map(|(node, _)| node);
        }
        Ok(Led { path, node })
    }
}

/// The parts of a path, `.` left out.
pub(crate) fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
}

impl View {
    /// Opens a directory by its real path; `None` if none is there (any more), or if it is ignored.
    pub(crate) fn folder(&self, path: &[u8]) -> Result<Option<Folder<'_>>> {
        if path.len() >= libc::PATH_MAX as usize || path.contains(&0) {
            return Ok(None);
        }
        let below = self.below(path);
        let Some(dir) = self.ground.dir(path)? else {
            return Ok(None);
        };
        let folder = Folder {
            view: self,
            dir,
            path: path.to_vec(),
            below,
        };
        match folder.below.is_ignored() && !path.is_empty() && !folder.shows_anything(0)? {
            true => Ok(None),
            false => Ok(Some(folder)),
        }
    }

    /// Whether there is such a thing and the ignore file hides it.
    pub(crate) fn is_ignored(&self, path: &[u8]) -> bool {
        self.ignore.as_ref().is_some_and(|ignore| ignore.is_ignored(path))
    }

    fn below(&self, path: &[u8]) -> Below {
        let mut below = Below::default();
        let Some(ignore) = &self.ignore else { return below };
        if path.is_empty() {
            return below;
        }
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            below = ignore.enter(&below, &path[..at]);
        }
        ignore.enter(&below, path)
    }
}

impl Paths for View {
    fn at(&self, path: &[u8]) -> Result<Option<(Node, Option<Vec<u8>>)>> {
        if path.is_empty() {
            return Ok(self
                .folder(b"")?
                .map(|folder| folder.itself())
                .transpose()?
                .map(|(node, _)| (node, None)));
        }
        let (parent, name) = split(path);
        if name.len() > 255 {
            return Ok(None);
        }
        let Some(folder) = self.folder(parent)? else {
            return Ok(None);
        };
        let Some(node) = folder.look(name)? else {
            return Ok(None);
        };
        let link = match node.kind {
            Type::Symlink => folder.link(name)?,
            _ => None,
        };
        Ok(Some((node, link)))
    }
}

impl Folder<'_> {
    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }

    /// What a build sees in it, sorted, with the types that need no look.
    pub(crate) fn names(&self) -> Result<Vec<(Vec<u8>, Option<Type>)>> {
        let mut names = self.dir.listing()?;
        let Some(ignore) = &self.view.ignore else {
            return Ok(names);
        };
        let mut failed = Ok(());
        names.retain(|(name, kind)| match self.is_shown(ignore, name, *kind, 0) {
            Ok(shown) => shown,
            Err(error) => {
                failed = Err(error);
                false
            }
        });
        failed.map(|()| names)
    }

    /// What is under a name, itself if it is a symlink.
    pub(crate) fn look(&self, name: &[u8]) -> Result<Option<Node>> {
        let Some(node) = self.dir.node(name)? else {
            return Ok(None);
        };
        if let Some(ignore) = &self.view.ignore
            && !self.is_shown(ignore, name, Some(node.kind), 0)?
        {
            return Ok(None);
        }
        Ok(Some(node))
    }

    /// The text of a symlink; `None` if it is something else by now.
    pub(crate) fn link(&self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        self.dir.link(name)
    }

    /// The directory itself, with its owner and attributes as an image would have them.
    pub(crate) fn itself(&self) -> Result<(Node, Attributes)> {
        let (node, attributes) = self.dir.own_node()?;
        Ok(self.dressed(node, attributes))
    }

    /// What is under a name that the listing had, with owner and attributes as an image would have them. A regular file is
    /// open. `None` if there is nothing any more.
    pub(crate) fn open(&self, name: &[u8], expected: Type) -> Result<Option<(Node, Attributes, Option<File>)>> {
        if !self.view.is_context {
            let Some((mut node, file)) = self.dir.look(name)? else {
                return Ok(None);
            };
            let attributes = self.dir.dress_open(name, &mut node, file.as_ref())?;
            return Ok(Some((node, attributes, file)));
        }
        let looked = match expected {
            Type::File => self.dir.look_at_file(name)?,
            _ => self.dir.node(name)?.map(|node| (node, None)),
        };
        let Some((node, file)) = looked else { return Ok(None) };
        let attributes = match &file {
            // Only programs can have any.
            Some(file) if node.mode & 0o111 != 0 => capability(file)?,
            _ => Attributes::new(),
        };
        let (node, attributes) = self.dressed(node, attributes);
        Ok(Some((node, attributes, file)))
    }

    fn dressed(&self, mut node: Node, mut attributes: Attributes) -> (Node, Attributes) {
        if self.view.is_context {
            (node.uid, node.gid) = (0, 0);
            attributes.retain(|(name, _)| name == b"security.capability");
        }
        (node, attributes)
    }

    fn is_shown(&self, ignore: &IgnoreFile, name: &[u8], kind: Option<Type>, depth: usize) -> Result<bool> {
        let path = join(&self.path, name);
        let below = ignore.enter(&self.below, &path);
        if !below.is_ignored() {
            return Ok(true);
        }
        if ignore.skips(&below, &path) {
            return Ok(false);
        }
        let kind = match kind {
            None => self.dir.node(name)?.map(|node| node.kind),
            known => known,
        };
        if kind != Some(Type::Directory) || depth >= DEEPEST {
            return Ok(false);
        }
        let Some(dir) = self.view.ground.dir(&path)? else {
            return Ok(false);
        };
        let folder = Folder {
            view: self.view,
            dir,
            path,
            below,
        };
        folder.shows_anything(depth + 1)
    }

    /// Whether an exception to what is ignored is somewhere below.
    fn shows_anything(&self, depth: usize) -> Result<bool> {
        let Some(ignore) = &self.view.ignore else {
            return Ok(true);
        };
        for (name, kind) in self.dir.listing()? {
            if self.is_shown(ignore, &name, kind, depth)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Of a context's file, the one attribute that means something in another place. Source: BuildKit's layers have it alone.
fn capability(file: &File) -> Result<Attributes> {
    const NAME: &std::ffi::CStr = c"security.capability";
    let value = crate::sys::xattr::get(file, NAME).map_err(|e| Error::os("get extended attribute", e))?;
    Ok(value
        .map(|value| (NAME.to_bytes().to_vec(), value))
        .into_iter()
        .collect())
}

/// A tree that is deeper than a layer can be.
pub(crate) fn too_deep(path: &[u8]) -> Error {
    let message = format!(
        "directories that are deeper than a layer can hold (4,096 bytes, 256 levels), at {}",
        show(path)
    );
    Error::new(ErrorKind::InvalidArgument, message)
}
