//! One layer's tree, read by descriptors beneath its root.

use std::ffi::{CStr, CString};
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, fstat};

use super::node::{Attributes, Node, Type};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::layer::OWNER_XATTR;
use crate::storage::layer::name::{join, show};
use crate::storage::layer::notes::Notes;
use crate::storage::layer::tree::stat;
use crate::storage::ownership::Ownership;
use crate::sys::xattr;

/// How a handle is opened.
const HANDLE: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Sees files that this process may not: in a user namespace, a process inside it. Blocking calls, made from the blocking
/// pool only. Nothing outside the directory that is given may be reached through it.
pub trait Sight: Debug + Send + Sync + 'static {
    /// Opens what is at a relative path beneath a directory: no symlink in it is followed, and no mount is entered.
    ///
    /// # Errors
    /// What open(2) says.
    fn open(&self, dir: BorrowedFd<'_>, path: &CStr, flags: OFlag) -> io::Result<OwnedFd>;

    /// Reads an extended attribute of an open file; `None` if it has no such.
    ///
    /// # Errors
    /// What fgetxattr(2) says.
    fn attribute(&self, file: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<Vec<u8>>>;

    /// What the host's ids are inside.
    fn ids_inside(&self, uid: u32, gid: u32) -> (u32, u32);
}

/// How the owners that the container knows are kept.
#[derive(Debug)]
pub(crate) enum Owners {
    /// They are the files' own.
    Own,
    /// The files' own, through the map of a user namespace.
    Mapped,
    /// In an attribute of the file; root's without it.
    Noted,
    /// In a table beside the tree; root's without an entry.
    Table(Notes),
}

impl Owners {
    pub(crate) fn of(ownership: &Ownership) -> Self {
        match ownership {
            Ownership::Direct => Self::Own,
            Ownership::Mapped(_) => Self::Mapped,
            Ownership::Squashed => Self::Noted,
        }
    }
}

/// A layer's tree.
#[derive(Debug)]
pub(crate) struct Ground {
    root: OwnedFd,
    owners: Owners,
    /// The attribute of opaque directories; a tree without holds no marks at all.
    opaque: Option<&'static CStr>,
    sight: Option<Arc<dyn Sight>>,
    /// Whether what is mounted below belongs to it.
    crosses: bool,
}

/// An open directory of a layer.
#[derive(Debug)]
pub(crate) struct Dir<'a> {
    ground: &'a Ground,
    fd: OwnedFd,
    path: Vec<u8>,
}

impl Ground {
    pub(super) fn open(
        dir: &Path,
        owners: Owners,
        opaque: Option<&'static CStr>,
        sight: Option<Arc<dyn Sight>>,
    ) -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root =
            nix::fcntl::open(dir, flags, Mode::empty()).map_err(|e| Error::os(format!("open {}", dir.display()), e))?;
        Ok(Self {
            root,
            owners,
            opaque,
            sight,
            crosses: false,
        })
    }

    /// A tree without marks.
    pub(crate) fn of(root: OwnedFd, owners: Owners, sight: Option<Arc<dyn Sight>>) -> Self {
        Self {
            root,
            owners,
            opaque: None,
            sight,
            crosses: false,
        }
    }

    /// The same, with all that is mounted in it.
    pub(crate) fn crossing(mut self) -> Self {
        self.crosses = true;
        self
    }

    /// Whether the tree marks what it hides.
    pub(super) fn has_marks(&self) -> bool {
        self.opaque.is_some()
    }

    /// A directory of the tree; `None` if there is none of that path (any more).
    pub(crate) fn dir(&self, path: &[u8]) -> Result<Option<Dir<'_>>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let name = text(if path.is_empty() { b"." } else { path })?;
        let opened = self.or_by_sight(
            beneath(&self.root, &name, flags, self.crosses),
            self.root.as_fd(),
            &name,
            flags,
        );
        let found = seen(opened).map_err(|e| failed("open directory", path, e))?;
        Ok(found.map(|fd| Dir {
            ground: self,
            fd,
            path: path.to_vec(),
        }))
    }

    fn or_by_sight(
        &self,
        own: io::Result<OwnedFd>,
        dir: BorrowedFd<'_>,
        path: &CStr,
        flags: OFlag,
    ) -> io::Result<OwnedFd> {
        match (own, &self.sight) {
            (Err(e), Some(sight)) if denied(&e) => sight.open(dir, path, flags),
            (own, _) => own,
        }
    }

    /// Owner and mode as the container knows them.
    fn own(&self, node: &mut Node, path: &[u8], attributes: &mut Attributes) {
        let note = attributes.iter().position(|(name, _)| name == OWNER_XATTR.to_bytes());
        let note = note.map(|at| attributes.remove(at).1);
        if !matches!(self.owners, Owners::Own) {
            // They name ids, which would be those of this process's view.
            attributes.retain(|(name, _)| !name.starts_with(b"system."));
        }
        match &self.owners {
            Owners::Own => {}
            Owners::Mapped => {
                if let Some(sight) = &self.sight {
                    (node.uid, node.gid) = sight.ids_inside(node.uid, node.gid);
                }
            }
            Owners::Noted => (node.uid, node.gid) = note.as_deref().and_then(ids).unwrap_or((0, 0)),
            Owners::Table(notes) => {
                (node.uid, node.gid) = (0, 0);
                if let Some(change) = notes.get(path) {
                    (node.uid, node.gid) = (change.uid, change.gid);
                    node.mode = change.mode.unwrap_or(node.mode);
                    for (name, value) in &change.xattrs {
                        attributes.retain(|(known, _)| known != name.as_bytes());
                        attributes.push((name.clone().into_bytes(), value.clone()));
                    }
                    attributes.sort();
                }
            }
        }
    }
}

impl Dir<'_> {
    /// What is in it, sorted.
    pub(super) fn names(&self) -> Result<Vec<Vec<u8>>> {
        Ok(self.listing()?.into_iter().map(|(name, _)| name).collect())
    }

    /// What is in it, sorted, with the types that its file system tells without a look.
    pub(crate) fn listing(&self) -> Result<Vec<(Vec<u8>, Option<Type>)>> {
        let failed = |e: Errno| failed("read directory", &self.path, e.into());
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        // A position of its own: a directory may be read more than once.
        let again = match openat(&self.fd, c".", flags, Mode::empty()) {
            Err(Errno::EACCES | Errno::EPERM) => self.fd.try_clone().map_err(|e| Error::os("dup", e))?,
            other => other.map_err(failed)?,
        };
        let mut opened = nix::dir::Dir::from_fd(again).map_err(failed)?;
        let mut names = Vec::new();
        for entry in opened.iter() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push((name.to_vec(), entry.file_type().map(Type::of_listing)));
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// As [`Dir::look`], for what was a regular file a moment ago, in a tree of the caller's own: one call less, and what
    /// took its place may be opened, though nothing is read of it.
    #[cfg(feature = "build")]
    pub(crate) fn look_at_file(&self, name: &[u8]) -> Result<Option<(Node, Option<File>)>> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let file = match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::ELOOP | Errno::ENXIO) => return self.look(name),
            Err(e) => return Err(self.failed("open", name, e.into())),
        };
        let node = Node::of(&fstat(&file).map_err(|e| self.failed("stat", name, e.into()))?);
        match node.is_file() {
            true => Ok(Some((node, Some(file)))),
            false => Ok(Some((node, None))),
        }
    }

    /// Whether nothing of the layers below shows through it.
    pub(super) fn is_opaque(&self) -> Result<bool> {
        let Some(mark) = self.ground.opaque else {
            return Ok(false);
        };
        let value = self.read(self.fd.as_fd(), mark);
        let value = value.map_err(|e| failed("get opaque mark", &self.path, e))?;
        // "x" says that files marked as whiteouts are in it, and hides nothing.
        Ok(value.is_some_and(|value| value == b"y"))
    }

    fn read(&self, file: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<Vec<u8>>> {
        match (xattr::get(file, name), &self.ground.sight) {
            (Err(e), Some(sight)) if denied(&e) => sight.attribute(file, name),
            (own, _) => own,
        }
    }

    /// What is under a name, with the file's own owner; `None` if there is nothing (any more).
    pub(crate) fn node(&self, name: &[u8]) -> Result<Option<Node>> {
        let own = stat(&self.fd, name);
        let found = match own {
            Err(Errno::EACCES | Errno::EPERM) if self.ground.sight.is_some() => {
                let handle = seen(self.handle(name)).map_err(|e| self.failed("stat", name, e))?;
                handle.map(|fd| fstat(fd).map_err(io::Error::from)).transpose()
            }
            other => seen(other.map_err(io::Error::from)),
        };
        let found = found.map_err(|e| self.failed("stat", name, e))?;
        Ok(found.as_ref().map(Node::of))
    }

    /// What is in effect the directory itself.
    pub(crate) fn own_node(&self) -> Result<(Node, Attributes)> {
        let there = fstat(&self.fd).map_err(|e| failed("stat", &self.path, e.into()))?;
        let mut node = Node::of(&there);
        let mut attributes = self.attributes_of(self.fd.as_fd(), b"")?;
        self.ground.own(&mut node, &self.path, &mut attributes);
        Ok((node, attributes))
    }

    /// As [`Dir::node`], with a regular file open: `None` if that cannot be had (any more).
    pub(crate) fn look(&self, name: &[u8]) -> Result<Option<(Node, Option<File>)>> {
        match self.own_look(name) {
            Err(e) if denied(&e) && self.ground.sight.is_some() => {
                let Some(node) = self.node(name)? else { return Ok(None) };
                if !node.is_file() {
                    return Ok(Some((node, None)));
                }
                Ok(self.open(name, &node)?.map(|file| (node, Some(file))))
            }
            own => seen(own).map_err(|e| self.failed("open", name, e)),
        }
    }

    /// A handle opens nothing, and what it shows is what is opened by it.
    fn own_look(&self, name: &[u8]) -> io::Result<(Node, Option<File>)> {
        let handle = openat(&self.fd, name, HANDLE, Mode::empty())?;
        let node = Node::of(&fstat(&handle)?);
        let file = match node.is_file() {
            true => Some(open_by(&handle)?),
            false => None,
        };
        Ok((node, file))
    }

    /// Reads attributes, and makes the owner of a node that of the container. Overlay's marks and labels of the host's
    /// policy are left out.
    pub(super) fn dress(&self, name: &[u8], node: &mut Node) -> Result<Attributes> {
        self.dress_open(name, node, None)
    }

    /// As [`Dir::dress`], of what may be open.
    pub(crate) fn dress_open(&self, name: &[u8], node: &mut Node, file: Option<&File>) -> Result<Attributes> {
        let mut attributes = match (node.kind, file) {
            (_, Some(file)) => self.attributes_of(file.as_fd(), name)?,
            // Nothing else has attributes that a layer could keep.
            (Type::File | Type::Directory, None) => self.attributes(name, node)?,
            _ => Attributes::new(),
        };
        self.ground.own(node, &join(&self.path, name), &mut attributes);
        Ok(attributes)
    }

    fn attributes(&self, name: &[u8], node: &Node) -> Result<Attributes> {
        let path = proc_path(self.fd.as_fd(), name);
        match xattr::list_link(&path) {
            Ok(names) if !names.iter().any(|name| is_read(name) || is_redirected(name)) => return Ok(Attributes::new()),
            Ok(_) => {}
            Err(e) if denied(&e) && self.ground.sight.is_some() => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Attributes::new()),
            Err(e) => return Err(self.failed("list extended attributes", name, e)),
        }
        match self.open(name, node)? {
            Some(file) => self.attributes_of(file.as_fd(), name),
            None => Ok(Attributes::new()),
        }
    }

    fn attributes_of(&self, file: BorrowedFd<'_>, name: &[u8]) -> Result<Attributes> {
        let failed = |step, e| self.failed(step, name, e);
        let listed = xattr::list(file).map_err(|e| failed("list extended attributes", e))?;
        let mut out = Attributes::new();
        for key in listed {
            if is_redirected(&key) && self.ground.has_marks() {
                let message = format!(
                    "{} was moved or changed by a mount with redirect_dir or metacopy, which longshore never makes",
                    show(&join(&self.path, name))
                );
                return Err(Error::new(ErrorKind::Corrupt, message));
            }
            if !is_read(&key) {
                continue;
            }
            let value = self.read(file, &key).map_err(|e| failed("get extended attribute", e))?;
            out.extend(value.map(|value| (key.to_bytes().to_vec(), plain(&key, value))));
        }
        out.sort();
        Ok(out)
    }

    /// Where a symlink leads.
    pub(crate) fn link(&self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        use std::os::unix::ffi::OsStringExt as _;
        let read = match readlinkat(&self.fd, name) {
            Err(Errno::EACCES) if self.ground.sight.is_some() => {
                let handle = seen(self.handle(name)).map_err(|e| self.failed("readlink", name, e))?;
                let Some(handle) = handle else { return Ok(None) };
                readlinkat(&handle, c"")
            }
            other => other,
        };
        match read {
            Ok(target) => Ok(Some(target.into_vec())),
            // It is something else by now, or nothing.
            Err(Errno::EINVAL | Errno::ENOENT) => Ok(None),
            Err(e) => Err(self.failed("readlink", name, e.into())),
        }
    }

    /// Opens a regular file or a directory, if it still is what it was.
    pub(super) fn open(&self, name: &[u8], node: &Node) -> Result<Option<File>> {
        let opened = match self.own_open(name) {
            Err(e) if denied(&e) && self.ground.sight.is_some() => {
                let path = text(name)?;
                let flags =
                    OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
                self.ground
                    .or_by_sight(Err(e), self.fd.as_fd(), &path, flags)
                    .map(|fd| Some(File::from(fd)))
            }
            other => other,
        };
        let Some(file) = seen(opened).map_err(|e| self.failed("open", name, e))?.flatten() else {
            return Ok(None);
        };
        let there = fstat(&file).map_err(|e| self.failed("stat", name, e.into()))?;
        Ok(node.is_still(&Node::of(&there)).then_some(file))
    }

    /// First a handle, which opens nothing, then a look, and only then the file: opening a device does things.
    fn own_open(&self, name: &[u8]) -> io::Result<Option<File>> {
        let handle = openat(&self.fd, name, HANDLE, Mode::empty())?;
        let there = Node::of(&fstat(&handle)?);
        if !there.is_file() && !there.is_dir() {
            return Ok(None);
        }
        open_by(&handle).map(Some)
    }

    /// An `O_PATH` descriptor by the eyes of another.
    fn handle(&self, name: &[u8]) -> io::Result<OwnedFd> {
        let path = CString::new(name)?;
        self.ground
            .or_by_sight(Err(Errno::EACCES.into()), self.fd.as_fd(), &path, HANDLE)
    }

    fn failed(&self, step: &str, name: &[u8], error: io::Error) -> Error {
        failed(step, &join(&self.path, name), error)
    }
}

/// Opens for reading what a handle stands for.
fn open_by(handle: &OwnedFd) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    Ok(nix::fcntl::open(path.as_str(), flags, Mode::empty())?.into())
}

/// Opens beneath a directory: symlinks, mounts and `..` lead nowhere.
pub(super) fn beneath(dir: &OwnedFd, path: &CStr, flags: OFlag, crosses: bool) -> io::Result<OwnedFd> {
    let mut resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    if !crosses {
        resolve |= ResolveFlag::RESOLVE_NO_XDEV;
    }
    let how = OpenHow::new().flags(flags).resolve(resolve);
    let mut tries = 0;
    loop {
        match openat2(dir, path, how) {
            Err(Errno::EAGAIN) if tries < 1000 => tries += 1,
            Err(Errno::EINTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}

fn failed(step: &str, path: &[u8], error: io::Error) -> Error {
    if error.raw_os_error() == Some(libc::ENAMETOOLONG) {
        return too_deep(path);
    }
    Error::os(format!("{step} {}", show(path)), error)
}

pub(super) fn too_deep(path: &[u8]) -> Error {
    let message = format!(
        "the container has directories that are deeper than a layer can hold (4,096 bytes, 256 levels), at {}; remove them",
        show(path)
    );
    Error::new(ErrorKind::InvalidState, message)
}

fn text(path: &[u8]) -> Result<CString> {
    CString::new(path).map_err(|_| Error::internal("a name with a NUL byte from the kernel"))
}

fn denied(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM))
}

/// What went away, or became something else, while the container works is not there.
fn seen<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) => match e.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ENXIO | libc::EXDEV | libc::ESTALE) => Ok(None),
            _ => Err(e),
        },
    }
}

/// `uid:gid`.
fn ids(note: &[u8]) -> Option<(u32, u32)> {
    let (uid, gid) = std::str::from_utf8(note).ok()?.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

/// Attributes that a layer takes along, and the note of the owner.
pub(crate) fn is_read(name: &CStr) -> bool {
    let name = name.to_bytes();
    if name.starts_with(b"user.overlay.") || name.starts_with(b"trusted.overlay.") {
        return false;
    }
    name == OWNER_XATTR.to_bytes()
        || name == b"security.capability"
        || name.starts_with(b"system.posix_acl_")
        || (name.starts_with(b"user.") && !name.starts_with(b"user.longshore."))
        || name.starts_with(b"trusted.")
}

fn is_redirected(name: &CStr) -> bool {
    matches!(
        name.to_bytes(),
        b"trusted.overlay.redirect" | b"trusted.overlay.metacopy" | b"user.overlay.redirect" | b"user.overlay.metacopy"
    )
}

/// Capabilities that hold in a user namespace only say for whose root; in an image they hold for its own. Source:
/// capabilities(7), "File capability versioning".
fn plain(name: &CStr, mut value: Vec<u8>) -> Vec<u8> {
    const REVISION_3: u8 = 3;
    if name.to_bytes() == b"security.capability" && value.len() == 24 && value[3] == REVISION_3 {
        value.truncate(20);
        value[3] = 2;
    }
    value
}

fn proc_path(dir: BorrowedFd<'_>, name: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    path.push(std::ffi::OsStr::from_bytes(name));
    path
}
