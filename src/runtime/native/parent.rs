//! Cgroups in a parent that a caller names (`linux.cgroupsPath`): what may be left of them is told before they are made.
//!
//! An owner's usual cgroups are in a parent of its own, which is removed with all that is in it. Elsewhere that cannot be done, so
//! each directory is known by its path: to the zygote, which outlives this process, and, for whoever outlives both, in a file.

#[cfg(feature = "engine")]
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::helper::wire::op;
use super::plan::{self, Plan};
use super::zygote::Zygote;
use crate::error::{Error, Result};
use crate::runtime::Launch;
#[cfg(feature = "engine")]
use crate::runtime::cgroups::parent::is_marked;
use crate::runtime::cgroups::{Cgroup, CgroupDriver};
use crate::types::{CgroupParent, ContainerId};

/// The file's name: absolute paths, each with a NUL after it.
const NOTE: &str = "cgroups";

/// The parent that a launch names. A container that runs nothing has no cgroup.
pub(crate) fn named(launch: &Launch) -> Result<Option<CgroupParent>> {
    let linux = launch.spec.linux().as_ref().filter(|_| !launch.hold);
    let path = linux.and_then(|linux| linux.cgroups_path().as_deref());
    path.map(|path| CgroupParent::in_path(path, &launch.id)).transpose()
}

/// What a launch will make in a parent that it names, written down in a directory: whoever looks for it may be in another cgroup
/// than this process, and would look elsewhere.
pub(crate) fn note_ahead(
    launch: &Launch,
    driver: Option<&dyn CgroupDriver>,
    dir: Option<&Path>,
) -> Result<Vec<PathBuf>> {
    let (Some(parent), Some(driver)) = (named(launch)?, driver) else {
        return Ok(Vec::new());
    };
    let directories = driver.directories_in(&parent, &launch.id)?;
    if let Some(dir) = dir {
        note(dir, &directories)?;
    }
    Ok(directories)
}

/// Takes back, at its end, what the zygote was told of.
#[derive(Debug)]
pub(crate) struct Announced {
    zygote: Arc<Zygote>,
    number: u64,
}

impl Announced {
    /// Tells the zygote what a launch will make. `None` where it knows of that anyway. Blocking.
    pub(crate) fn of(zygote: &Arc<Zygote>, launch: &Launch, driver: Option<&dyn CgroupDriver>) -> Result<Option<Self>> {
        let directories = note_ahead(launch, driver, launch.notes.as_deref())?;
        if directories.is_empty() {
            return Ok(None);
        }
        let mut list = Vec::new();
        for directory in &directories {
            plan::push_string(&mut list, &item(&launch.id, directory)?)?;
        }
        let number = zygote.call_blocking(op::SCRATCH, &list, &[])?.header.req;
        Ok(Some(Self {
            zygote: Arc::clone(zygote),
            number,
        }))
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.zygote.tell(self.number, op::SCRATCH);
    }
}

/// Has a plan say which cgroups go with its container.
pub(crate) fn add_clean_ups(plan: &mut Plan, id: &ContainerId, cgroup: Option<&dyn Cgroup>) -> Result<()> {
    for directory in cgroup.iter().flat_map(|cgroup| cgroup.directories()) {
        plan.clean_up(kind(id, directory), directory)?;
    }
    Ok(())
}

/// `c`: its own, with whatever is in it; `p`: one above, in which others' may be.
fn kind(id: &ContainerId, directory: &Path) -> u8 {
    if directory.ends_with(id.as_str()) { b'c' } else { b'p' }
}

fn item(id: &ContainerId, directory: &Path) -> Result<Vec<u8>> {
    let mut item = vec![kind(id, directory)];
    item.extend_from_slice(plan::clean_absolute(directory, "a container's cgroup")?);
    Ok(item)
}

/// Writes down which cgroups a container has.
pub(super) fn note(dir: &Path, directories: &[PathBuf]) -> Result<()> {
    let step = |error: io::Error| Error::os("write down a container's cgroups", error);
    let mut lines = Vec::new();
    for directory in directories {
        lines.extend_from_slice(directory.as_os_str().as_bytes());
        lines.push(0);
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(dir.join(NOTE)).map_err(step)?;
    file.write_all(&lines).map_err(step)
}

/// Removes the cgroup of a container whose end nobody was there to see, and those above it that were made for it. Blocking.
///
/// # Errors
/// `InvalidState` if processes are still in it; `Os`.
#[cfg(feature = "engine")]
pub(super) fn clear(driver: &dyn CgroupDriver, id: &ContainerId, dir: &Path) -> Result<()> {
    let noted = noted(dir);
    match driver.open_at(id, &noted) {
        Ok(cgroup) => {
            if !cgroup.directories().is_empty() {
                cgroup.kill()?;
            }
            cgroup.remove()?;
        }
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    let shared = noted.iter().filter(|directory| kind(id, directory) == b'p');
    for directory in shared.filter(|directory| is_an_owners(directory) || is_marked(directory)) {
        // As long as others are below, it stays.
        let _ = std::fs::remove_dir(directory);
    }
    Ok(())
}

/// Whether it is the parent of an owner's containers, of a process in another cgroup.
#[cfg(feature = "engine")]
fn is_an_owners(directory: &Path) -> bool {
    let name = directory.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(b"longshore-")
}

/// They are gone.
#[cfg(feature = "engine")]
pub(super) fn forget(dir: &Path) {
    let _ = std::fs::remove_file(dir.join(NOTE));
}

/// The cgroups that were written down by whoever started the container last; none of what is cut short.
#[cfg(feature = "engine")]
pub(super) fn noted(dir: &Path) -> Vec<PathBuf> {
    let noted = std::fs::read(dir.join(NOTE)).unwrap_or_default();
    let whole = noted
        .split_inclusive(|byte| *byte == 0)
        .filter_map(|line| line.strip_suffix(&[0]));
    whole.map(|line| PathBuf::from(OsStr::from_bytes(line))).collect()
}
