//! A build's own directory: what its commands are shown and what is fetched for it. It is named after the owner, so that it
//! is swept where that dies.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Error, Result};
use crate::storage::files::random_name;
use crate::storage::snapshot::delete_tree;
use crate::types::OwnerId;

/// A directory that goes with a build.
#[derive(Debug)]
pub(crate) struct Place {
    dir: PathBuf,
    next: AtomicU32,
}

impl Place {
    /// Makes it. Blocking.
    pub(crate) fn make(builds: &Path, owner: &OwnerId) -> Result<Self> {
        let failed = |error| Error::os("make a build's directory", error);
        private(builds).map_err(failed)?;
        let dir = builds.join(format!("{}-{}", owner.as_str(), random_name(16)?));
        private(&dir).map_err(failed)?;
        Ok(Self {
            dir,
            next: AtomicU32::new(0),
        })
    }

    /// A path in it that nothing else has.
    pub(crate) fn path(&self, what: &str) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{what}-{number}"))
    }

    /// A directory in it that nothing else has. Blocking.
    pub(crate) fn dir(&self, what: &str) -> Result<PathBuf> {
        let dir = self.path(what);
        private(&dir).map_err(|error| Error::os("make a directory for a build", error))?;
        Ok(dir)
    }

    /// Removes it with all that is in it, whatever its modes. Blocking.
    pub(crate) fn remove(&self) -> Result<()> {
        delete_tree(&self.dir).map_err(|error| error.context("remove a build's directory"))
    }
}

fn private(dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}
