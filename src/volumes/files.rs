//! The directories of volumes. All calls block.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::record::{Note, Record};
use crate::error::{Error, Result};
use crate::storage::files::{self, found, make_dirs, names, random_name, replace};
use crate::storage::ownership::Ownership;
use crate::storage::snapshot::delete_tree;
use crate::types::{OwnerId, VolumeName};

const NOTE: &str = "volume.json";
const GONE: &str = ".gone.";
const FILL: &str = ".fill";

/// Directories that may be volumes, and names of whatever else is there.
pub(super) type Listed = (Vec<VolumeName>, Vec<(String, Other)>);

/// Where volumes are, and how their files are removed.
#[derive(Debug, Clone)]
pub(super) struct Files {
    dir: PathBuf,
    owner: OwnerId,
    ownership: Ownership,
}

/// A directory there that is no volume's.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Other {
    /// Being removed by this owner.
    Work(String),
    /// None of ours.
    Foreign,
}

impl Files {
    #[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
    pub(super) fn open(dir: PathBuf, owner: OwnerId, ownership: Ownership) -> Result<Self> {
        make_dirs(&dir)?;
        Ok(Self { dir, owner, ownership })
    }

    pub(super) fn path(&self, name: &VolumeName) -> PathBuf {
        self.dir.join(name.as_str())
    }

    /// Begins a volume's directory. What a killed process left of one goes; one that is whole stays, with all that is in it.
    pub(super) fn begin(&self, name: &VolumeName) -> Result<()> {
        if self.note(name)?.is_none() {
            self.remove(name)?;
        }
        make_dirs(&self.path(name))
    }

    /// Removes what was begun, unless it is whole.
    pub(super) fn remove_unsettled(&self, name: &VolumeName) -> Result<()> {
        match self.note(name)? {
            Some(_) => Ok(()),
            None => self.remove(name),
        }
    }

    /// Says beside the files whose they are: from now on the directory counts as whole.
    pub(super) fn settle(&self, record: &Record) -> Result<()> {
        let dir = self.path(&record.name);
        replace(&dir.join(NOTE), &record.note()?)?;
        if record.owner.is_none() {
            for place in [&dir, &self.dir] {
                let opened = File::open(place).and_then(|dir| dir.sync_all());
                opened.map_err(|e| Error::os(format!("sync {}", place.display()), e))?;
            }
        }
        Ok(())
    }

    /// What stands beside a volume's files; `None` without a directory, or if it is not whole.
    pub(super) fn note(&self, name: &VolumeName) -> Result<Option<Note>> {
        let text = files::read(&self.path(name).join(NOTE))?;
        Ok(text
            .and_then(|text| serde_json::from_slice::<Note>(text.as_bytes()).ok())
            .filter(|note| note.name == *name))
    }

    pub(super) fn is_there(&self, name: &VolumeName) -> bool {
        self.path(name).is_dir()
    }

    /// Puts a volume's directory out of the way: from now on there is none of that name. Where it is now, if there was one.
    pub(super) fn put_aside(&self, name: &VolumeName) -> Result<Option<PathBuf>> {
        let aside = self.working(GONE)?;
        let moved = found(fs::rename(self.path(name), &aside)).map_err(|e| Error::os("put a volume aside", e))?;
        Ok(moved.map(|()| aside))
    }

    /// Puts back what was put aside.
    pub(super) fn put_back(&self, aside: &Path, name: &VolumeName) -> Result<()> {
        fs::rename(aside, self.path(name)).map_err(|e| Error::os("put a volume back", e))
    }

    /// A new directory to fill, beside a volume's files: with their own parent, so that whoever owns it in the end can be
    /// renamed. What was begun and not finished goes.
    pub(super) fn begin_filling(&self, name: &VolumeName) -> Result<PathBuf> {
        let dir = self.path(name).join(FILL);
        self.delete(&dir)?;
        make_dirs(&dir)?;
        Ok(dir)
    }

    /// Removes what was begun to be filled and not finished; whether there was any.
    pub(super) fn clear_filling(&self, name: &VolumeName) -> Result<bool> {
        let dir = self.path(name).join(FILL);
        if !dir.exists() {
            return Ok(false);
        }
        self.delete(&dir)?;
        Ok(true)
    }

    /// Removes a volume's directory.
    pub(super) fn remove(&self, name: &VolumeName) -> Result<()> {
        match self.put_aside(name)? {
            Some(aside) => self.delete(&aside),
            None => Ok(()),
        }
    }

    /// Deletes a tree, whoever owns what is in it.
    pub(super) fn delete(&self, path: &Path) -> Result<()> {
        if let Ownership::Mapped(privileged) = &self.ownership
            && path.is_dir()
        {
            return privileged.remove_tree(path);
        }
        delete_tree(path)
    }

    fn working(&self, prefix: &str) -> Result<PathBuf> {
        Ok(self.dir.join(format!("{prefix}{}.{}", self.owner, random_name(12)?)))
    }

    /// Names of directories that may be volumes, and whatever else is there.
    pub(super) fn list(&self) -> Result<Listed> {
        let (mut volumes, mut others) = (Vec::new(), Vec::new());
        for name in names(&self.dir)? {
            let work = name.strip_prefix(GONE);
            match (work, name.parse()) {
                (Some(rest), _) => {
                    let owner = rest.split('.').next().unwrap_or_default().to_owned();
                    others.push((name, Other::Work(owner)));
                }
                (None, Ok(volume)) => volumes.push(volume),
                (None, Err(_)) => others.push((name, Other::Foreign)),
            }
        }
        Ok((volumes, others))
    }

    /// A directory that was put aside by a process that died before it could say so: whose it is.
    pub(super) fn aside(&self, name: &str) -> Result<Option<VolumeName>> {
        if !name.starts_with(GONE) {
            return Ok(None);
        }
        let text = files::read(&self.dir.join(name).join(NOTE))?;
        Ok(text
            .and_then(|text| serde_json::from_slice::<Note>(text.as_bytes()).ok())
            .map(|note| note.name))
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Whether nothing is in a directory. One that cannot be read holds something.
pub(super) fn is_empty(dir: &Path) -> Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        Err(error) => Err(Error::os(format!("look into {}", dir.display()), error)),
    }
}
