//! What a tree takes on disk.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Usage;
use crate::error::{Error, Result};

/// Counts blocks and inodes, hard links once. Directories that may not be read count as themselves, and so does what goes
/// away meanwhile: a lower bound while a container writes.
pub(crate) fn usage_of(tree: &Path) -> Result<Usage> {
    let mut usage = Usage::default();
    let mut seen = HashSet::new();
    let mut waiting: Vec<PathBuf> = vec![tree.to_owned()];
    while let Some(dir) = waiting.pop() {
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) && dir != tree => {
                continue;
            }
            Err(e) => return Err(Error::os(format!("read {}", dir.display()), e)),
        };
        for entry in entries.flatten() {
            let Ok(there) = entry.metadata() else {
                continue;
            };
            if there.nlink() > 1 && !there.is_dir() && !seen.insert(there.ino()) {
                continue;
            }
            usage.inodes += 1;
            usage.bytes += there.blocks() * 512;
            if there.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Ok(usage)
}
