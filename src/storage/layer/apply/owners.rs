//! Owners, modes and attributes, kept as this user and file system can.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::OwnedFd;

use nix::fcntl::AtFlags;
use nix::unistd::{Gid, Uid, fchown, fchownat};

use super::{Extractor, Keep, OWNER_XATTR, Removals, proc_path};
use crate::error::{Error, Result};
use crate::storage::layer::tar::{Entry, bad};
use crate::storage::ownership::OwnerChange;
use crate::sys::xattr;

impl Extractor {
    /// What is to be noted of a file, if anything.
    pub(super) fn change_of(&self, entry: &Entry) -> Option<OwnerChange> {
        let capabilities: Vec<_> = entry
            .xattrs
            .iter()
            .filter(|(name, _)| name == b"security.capability")
            .collect();
        let owned = entry.uid != 0 || entry.gid != 0 || !capabilities.is_empty();
        let locked = entry.mode & 0o7000 != 0 || entry.mode & 0o600 != 0o600;
        let (noted, mode) = match self.keep {
            Keep::Chown | Keep::Squash => return None,
            Keep::Give(_) => (owned, locked),
            Keep::Table(_) => (owned || locked, locked),
        };
        let xattrs = capabilities
            .into_iter()
            .map(|(_, value)| ("security.capability".to_owned(), value.clone()))
            .collect();
        noted.then(|| OwnerChange {
            uid: entry.uid,
            gid: entry.gid,
            mode: mode.then_some(entry.mode),
            xattrs,
        })
    }

    /// The mode to create a file with: its own, but writable and readable to us where something is still to be done.
    pub(super) fn mode_to_make(&self, entry: &Entry, noted: bool) -> u32 {
        let ours = noted
            || (!matches!(self.keep, Keep::Chown) && (!entry.xattrs.is_empty() || entry.uid != 0 || entry.gid != 0));
        entry.mode & 0o777 | if ours { 0o600 } else { 0 }
    }

    pub(super) fn note(&mut self, path: &[u8], change: Option<OwnerChange>) {
        match change {
            Some(change) => self.notes.set(path.to_vec(), change),
            // A table is carried over from the layer below: an old note must not outlive its file.
            None if matches!(self.keep, Keep::Table(_)) => self.notes.forget(path),
            None => {}
        }
    }

    /// Notes the owner alone: of what has no mode or attributes to set.
    pub(super) fn note_owner(&mut self, path: &[u8], entry: &Entry) {
        let noted = matches!(self.keep, Keep::Give(_) | Keep::Table(_)) && (entry.uid != 0 || entry.gid != 0);
        let change = OwnerChange {
            uid: entry.uid,
            gid: entry.gid,
            ..OwnerChange::default()
        };
        self.note(path, noted.then_some(change));
    }

    /// Whether a fresh inode has the wrong owner. In a merged tree a setgid directory may have chosen the group.
    pub(super) fn must_chown(&self, uid: u32, gid: u32) -> bool {
        matches!(self.keep, Keep::Chown) && (uid != 0 || gid != 0 || matches!(self.removals, Removals::Merged))
    }

    pub(super) fn chown_file(&mut self, file: &File, entry: &Entry) -> Result<()> {
        if self.must_chown(entry.uid, entry.gid) {
            return fchown(file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
                .map_err(|e| Error::os("fchown", e));
        }
        self.squash(file, entry.uid, entry.gid)
    }

    pub(super) fn squash(&mut self, file: &File, uid: u32, gid: u32) -> Result<()> {
        if !matches!(self.keep, Keep::Squash) {
            return Ok(());
        }
        self.note_on(file, uid, gid)
    }

    /// Notes the owner inside the image on the file itself.
    pub(super) fn note_on(&mut self, file: &File, uid: u32, gid: u32) -> Result<()> {
        if uid == 0 && gid == 0 {
            return Ok(());
        }
        let noted = xattr::set(file, OWNER_XATTR, format!("{uid}:{gid}").as_bytes());
        self.skipped_xattrs += u64::from(skippable("note owner", noted)?);
        Ok(())
    }

    pub(super) fn chown_at(&self, dir: &OwnedFd, name: &[u8], entry: &Entry) -> Result<()> {
        if !self.must_chown(entry.uid, entry.gid) {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        fchownat(dir, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(|e| Error::os("fchownat", e))
    }

    pub(super) fn file_xattrs(&mut self, file: &File, entry: &Entry) -> Result<()> {
        self.set_xattrs(file, &entry.xattrs)
    }

    pub(super) fn set_xattrs(&mut self, file: &File, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        for (name, value) in xattrs {
            match self.fate(name) {
                Fate::Set => {}
                Fate::Noted | Fate::Never => continue,
                Fate::Skipped => {
                    self.skipped_xattrs += 1;
                    continue;
                }
            }
            let set = xattr::set(file, &xattr_name(name)?, value);
            self.skipped_xattrs += u64::from(skippable("set extended attribute", set)?);
        }
        Ok(())
    }

    /// Symlinks take no `user.` attributes (xattr(7)); returns how many were left out.
    pub(super) fn link_xattrs(&self, dir: &OwnedFd, name: &[u8], entry: &Entry) -> Result<u64> {
        let mut skipped = 0;
        for (key, value) in &entry.xattrs {
            if key.starts_with(b"user.") || !matches!(self.fate(key), Fate::Set) {
                skipped += 1;
                continue;
            }
            let path = proc_path(dir, name);
            skipped += u64::from(skippable(
                "set extended attribute",
                xattr::set_link(&path, &xattr_name(key)?, value),
            )?);
        }
        Ok(skipped)
    }

    pub(super) fn fate(&self, name: &[u8]) -> Fate {
        let root = matches!(self.keep, Keep::Chown);
        match name {
            b"security.capability" if root => Fate::Set,
            b"security.capability" if !matches!(self.keep, Keep::Squash) => Fate::Noted,
            // Overlay's own marks and ours are for us to set: a layer could redirect lookups with them.
            _ if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") => Fate::Never,
            _ if name.starts_with(b"user.longshore.") => Fate::Never,
            _ if name.starts_with(b"user.") => Fate::Set,
            // Labels of another host's policy; ACLs name ids, which only hold where owners do.
            b"system.posix_acl_access" | b"system.posix_acl_default" if root => Fate::Set,
            _ if name.starts_with(b"trusted.") && root => Fate::Set,
            _ => Fate::Skipped,
        }
    }
}

pub(super) enum Fate {
    Set,
    /// Set later, with privilege.
    Noted,
    /// Left out and counted.
    Skipped,
    /// Not for a layer to set.
    Never,
}

/// Whether an attribute was left out because it cannot be kept here.
fn skippable(step: &'static str, result: std::io::Result<()>) -> Result<bool> {
    match result {
        Ok(()) => Ok(false),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTSUP | libc::EPERM)) => Ok(true),
        Err(e) => Err(Error::os(step, e)),
    }
}

fn xattr_name(name: &[u8]) -> Result<CString> {
    CString::new(name).map_err(|_| bad("an extended attribute that no file can have"))
}
