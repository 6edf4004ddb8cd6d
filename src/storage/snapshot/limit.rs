//! Limits on what a writable layer takes, where the file system can: project quotas of XFS and ext4.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::error::{Error, Result};
use crate::sys::{quota, random};

/// Ids below are people's: `/etc/projid`.
const FIRST: u32 = 1 << 24;
/// How many ids are tried that turn out to be somebody's.
const TRIES: usize = 16;

/// Has directories, which are empty, share one limit. Returns the id of it.
pub(crate) fn set(directories: &[&Path], bytes: u64) -> Result<u32> {
    let opened = directories.iter().map(|dir| open(dir)).collect::<Result<Vec<_>>>()?;
    let Some(first) = opened.first() else {
        return Err(Error::internal("a limit on no directory"));
    };
    let project = free_id(first)?;
    // The limit first: from the moment on that they belong to it, it counts.
    quota::limit_project(first, project, bytes).map_err(refused)?;
    for directory in &opened {
        if let Err(error) = quota::set_project(directory, project) {
            let _ = quota::limit_project(first, project, 0);
            return Err(refused(error));
        }
    }
    Ok(project)
}

/// Whether less is left than a write of usual size, or than a part of the limit that is lost to the last block of each file.
pub(crate) fn is_reached(directory: &Path, project: u32) -> Result<bool> {
    let now = quota::of_project(open(directory)?, project).map_err(refused)?;
    Ok(now.is_some_and(|now| {
        let left = now.limit_bytes.saturating_sub(now.used_bytes);
        now.limit_bytes > 0 && left < (now.limit_bytes / 64).max(64 << 10)
    }))
}

/// Lifts the limit. One that a dead process left is no harm: its id is not used again.
pub(crate) fn lift(directory: &Path, project: u32) {
    let lifted = File::open(directory).and_then(|dir| quota::limit_project(dir, project, 0));
    if let Err(error) = lifted {
        tracing::debug!(project, %error, "the limit of a writable layer stays");
    }
}

fn free_id(directory: &File) -> Result<u32> {
    for _ in 0..TRIES {
        let mut raw = [0; 4];
        random::fill(&mut raw)?;
        let id = u32::from_ne_bytes(raw) | FIRST;
        // The last one means "none".
        if id == u32::MAX {
            continue;
        }
        let now = quota::of_project(directory, id).map_err(refused)?;
        if now.is_none_or(|now| now.limit_bytes == 0 && now.used_bytes == 0) {
            return Ok(id);
        }
    }
    Err(Error::internal("no free project id was found"))
}

fn open(dir: &Path) -> Result<File> {
    File::open(dir).map_err(|error| Error::os(format!("open {}", dir.display()), error))
}

fn refused(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::ENOSYS | libc::ESRCH | libc::EOPNOTSUPP | libc::ENOTTY | libc::EINVAL) => Error::unsupported(
            "a limit on what a container writes",
            "a root directory on XFS or ext4 that is mounted with the option prjquota",
        )
        .with_source(error),
        Some(libc::EPERM | libc::EACCES) => Error::unsupported(
            "a limit on what a container writes",
            "root: the kernel lets nobody else set project quotas",
        )
        .with_source(error),
        _ => Error::os("limit a writable layer", error),
    }
}
