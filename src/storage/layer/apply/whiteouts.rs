//! What hides or replaces what was there: whiteouts, opaque directories, later entries of a name.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, mknodat};

use super::{Extractor, Keep, OPAQUE_TRUSTED, OPAQUE_USER, Removals, reopen, unresolved};
use crate::error::{Error, Result};
use crate::storage::layer::name::join;
use crate::storage::layer::tree::{clear_except, is_dir, remove_except, stat};
use crate::sys::xattr;

impl Extractor {
    pub(super) fn whiteout(&mut self, parent: &[u8], name: &[u8]) -> Result<()> {
        let path = join(parent, name);
        self.see_written(parent, &path, false)?;
        let dir = self.parent(parent)?;
        if matches!(self.removals, Removals::Merged) {
            let own = std::mem::take(&mut self.own);
            let gone = remove_except(&*dir, name, &|inode| own.contains(&inode));
            self.own = own;
            self.tree.forget();
            if gone? {
                self.notes.forget(&path);
            }
            return Ok(());
        }
        match mknodat(&*dir, name, SFlag::S_IFCHR, Mode::empty(), 0) {
            Ok(()) => {
                self.count(0);
                self.whiteouts.insert(path);
                Ok(())
            }
            // This layer put something there itself: a file hides what is below anyway, a directory must be told to.
            Err(Errno::EEXIST) => self.opaque_if_directory(&dir, name, &path),
            Err(e) => Err(Error::os("make whiteout", e)),
        }
    }

    pub(super) fn opaque_if_directory(&mut self, dir: &OwnedFd, name: &[u8], path: &[u8]) -> Result<()> {
        let there = stat(dir, name).map_err(|e| Error::os("stat", e))?;
        if !is_dir(&there) {
            return Ok(());
        }
        self.mark_opaque(path)
    }

    pub(super) fn opaque(&mut self, path: &[u8]) -> Result<()> {
        let dir = self.parent(path)?;
        if !matches!(self.removals, Removals::Merged) {
            return self.mark_opaque(path);
        }
        let own = std::mem::take(&mut self.own);
        let cleared = clear_except(&*dir, &|inode| own.contains(&inode));
        self.own = own;
        self.tree.forget();
        cleared.map(drop)
    }

    /// Overlay: nothing of the layers below shows through this directory.
    pub(super) fn mark_opaque(&mut self, path: &[u8]) -> Result<()> {
        let Removals::Overlay { user_xattr } = self.removals else {
            return Ok(());
        };
        let dir = self.tree.dir(path).map_err(|e| unresolved(path, e))?;
        let dir = reopen(&dir)?;
        let name = if user_xattr { OPAQUE_USER } else { OPAQUE_TRUSTED };
        xattr::set(&dir, name, b"y").map_err(|e| Error::os("mark directory opaque", e))
    }

    /// Removes what is in an entry's way: from a layer below, or from an earlier entry of the same name.
    pub(super) fn replace(&mut self, dir: &OwnedFd, name: &[u8], path: &[u8]) -> Result<()> {
        self.finish_files()?;
        let there = match stat(dir, name) {
            Ok(there) => there,
            Err(Errno::ENOENT) => return Ok(()),
            Err(e) => return Err(Error::os("stat", e)),
        };
        let kind = there.st_mode & SFlag::S_IFMT.bits();
        if let Keep::Give(privileged) = &self.keep
            && there.st_nlink > 1
            && !is_dir(&there)
            && self.notes.get(path).is_some()
        {
            // The inode lives on under its other names: it gets its owner while this name still leads to it.
            self.notes.carry_out(&mut self.tree, &**privileged)?;
        }
        remove_except(dir, name, &|_| false)?;
        self.notes.forget(path);
        self.whiteouts.remove(path);
        if kind == SFlag::S_IFDIR.bits() || kind == SFlag::S_IFLNK.bits() {
            self.tree.forget();
            let below = [path, b"/"].concat();
            self.dirs.retain(|known, _| known != path && !known.starts_with(&below));
            self.own_dirs
                .retain(|known| known != path && !known.starts_with(&below));
            self.implied.retain(|known| known != path && !known.starts_with(&below));
            self.whiteouts.retain(|known| !known.starts_with(&below));
        }
        Ok(())
    }

    /// Merged: this inode is of this layer.
    pub(super) fn remember(&mut self, dir: &OwnedFd, name: &[u8]) -> Result<()> {
        if !matches!(self.removals, Removals::Merged) {
            return Ok(());
        }
        match stat(dir, name) {
            Ok(there) => drop(self.own.insert(there.st_ino)),
            Err(Errno::ENOENT) => {}
            Err(e) => return Err(Error::os("stat", e)),
        }
        Ok(())
    }
}
