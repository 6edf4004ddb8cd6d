//! Directories: made as they are needed, and made to look as they should in the end.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::stat::{fchmod, futimens, mkdirat};
use nix::unistd::{Gid, Uid, fchown};

use super::{DirMeta, Extractor, Keep, mode_of, reopen, time_of, unresolved};
use crate::error::{Error, Result};
use crate::storage::layer::name::{show, split};
use crate::storage::layer::tar::{Entry, bad};
use crate::storage::layer::tree::{is_dir, stat};
use crate::storage::ownership::OwnerChange;

impl Extractor {
    /// The directory that an entry goes into, made where the layer did not mention it.
    pub(super) fn parent(&mut self, path: &[u8]) -> Result<Arc<OwnedFd>> {
        match self.tree.dir(path) {
            Ok(dir) => return Ok(dir),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(e) => return Err(unresolved(path, e)),
        }
        let (above, name) = split(path);
        if name.is_empty() {
            return Err(unresolved(path, Errno::ENOENT));
        }
        self.finish_files()?;
        let dir = self.parent(above)?;
        let made = match mkdirat(&*dir, name, mode_of(0o755)) {
            Err(Errno::EEXIST) if self.whiteouts.contains(path) => {
                self.replace(&dir, name, path)?;
                mkdirat(&*dir, name, mode_of(0o755)).map_err(|e| Error::os("mkdir", e))?;
                self.mark_opaque(path)
            }
            Err(Errno::EEXIST) => Err(bad(format!(
                "a path through something that is no directory: {}",
                show(path)
            ))),
            other => other.map_err(|e| Error::os("mkdir", e)),
        };
        made?;
        self.count(0);
        self.made_dir(above, path);
        self.implied.insert(path.to_vec());
        let meta = DirMeta {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            xattrs: Vec::new(),
            made: Some(0o755 & !self.umask),
        };
        self.dirs.insert(path.to_vec(), meta);
        self.remember(&dir, name)?;
        self.tree.dir(path).map_err(|e| unresolved(path, e))
    }

    pub(super) fn directory(&mut self, dir: &OwnedFd, name: &[u8], path: &[u8], entry: &Entry) -> Result<()> {
        let mode = entry.mode & 0o777 | 0o700;
        match mkdirat(dir, name, mode_of(mode)) {
            Ok(()) => {}
            Err(Errno::EEXIST) => {
                let there = stat(dir, name).map_err(|e| Error::os("stat", e))?;
                if is_dir(&there) {
                    self.declare(path.to_vec(), entry, None);
                    return Ok(());
                }
                self.replace(dir, name, path)?;
                mkdirat(dir, name, mode_of(mode)).map_err(|e| Error::os("mkdir", e))?;
                // What was there before hid the directory of the layers below: so must this one.
                self.mark_opaque(path)?;
            }
            Err(e) => return Err(Error::os("mkdir", e)),
        }
        self.count(0);
        self.made_dir(split(path).0, path);
        self.declare(path.to_vec(), entry, Some(mode & !self.umask));
        Ok(())
    }

    /// Notes what a directory is to look like in the end.
    pub(super) fn declare(&mut self, path: Vec<u8>, entry: &Entry, made: Option<u32>) {
        self.implied.remove(&path);
        let made = made.or_else(|| self.dirs.get(&path).and_then(|known| known.made));
        let xattrs = entry.xattrs.clone();
        let meta = DirMeta {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            xattrs,
            made,
        };
        self.dirs.insert(path, meta);
    }

    /// Overlay: remembers a directory whose path leads to it without symlinks.
    pub(super) fn made_dir(&mut self, parent: &[u8], path: &[u8]) {
        if self.own_dirs.contains(parent) {
            self.own_dirs.insert(path.to_vec());
        }
    }

    pub(super) fn finish_dir(&mut self, path: &[u8], meta: &DirMeta) -> Result<()> {
        let dir = self.tree.dir(path).map_err(|e| unresolved(path, e))?;
        let dir = reopen(&dir)?;
        if self.must_chown(meta.uid, meta.gid) || (matches!(self.keep, Keep::Chown) && meta.made.is_none()) {
            fchown(&dir, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))
                .map_err(|e| Error::os("fchown", e))?;
        }
        if matches!(self.keep, Keep::Squash | Keep::Give(_)) {
            // Also where it is given away: a layer above that implies this directory must learn its owner.
            self.note_on(&dir, meta.uid, meta.gid)?;
        }
        self.set_xattrs(&dir, &meta.xattrs)?;
        let open = meta.mode & 0o777 | 0o700;
        let owned = meta.uid != 0 || meta.gid != 0;
        let special = open != meta.mode;
        let (now, noted) = match self.keep {
            Keep::Chown | Keep::Squash => (meta.mode, false),
            Keep::Give(_) => (if owned || special { open } else { meta.mode }, owned || special),
            Keep::Table(_) => (open, owned || special),
        };
        if meta.made != Some(now) {
            fchmod(&dir, mode_of(now)).map_err(|e| Error::os("fchmod", e))?;
        }
        let time = time_of(meta.mtime);
        if !self.implied.contains(path) {
            futimens(&dir, &time, &time).map_err(|e| Error::os("futimens", e))?;
        }
        let mode = special.then_some(meta.mode);
        if noted {
            self.notes.set(
                path.to_vec(),
                OwnerChange {
                    uid: meta.uid,
                    gid: meta.gid,
                    mode,
                    xattrs: Vec::new(),
                },
            );
        } else if matches!(self.keep, Keep::Table(_)) {
            self.notes.forget_one(path);
        }
        Ok(())
    }
}
