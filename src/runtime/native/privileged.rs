//! File changes that need the user namespace's root, done by the zygote.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::NativeRuntime;
use super::helper::wire::{INLINE, op};
use super::plan::push_string;
use crate::error::Result;
use crate::storage::ownership::{OwnerChange, Privileged};

/// Most descriptors in one request.
const BATCH: usize = 60;

impl Privileged for NativeRuntime {
    fn change_owners(&self, changes: Vec<(OwnedFd, OwnerChange)>) -> Result<()> {
        let zygote = self.zygote()?;
        let mut blob = Vec::new();
        let mut fds: Vec<BorrowedFd<'_>> = Vec::new();
        for (fd, change) in &changes {
            let record = record(change)?;
            if fds.len() == BATCH || blob.len() + record.len() > INLINE && !fds.is_empty() {
                zygote.call_blocking(op::CHOWN, &blob, &fds)?;
                blob.clear();
                fds.clear();
            }
            blob.extend_from_slice(&record);
            fds.push(fd.as_fd());
        }
        if !fds.is_empty() {
            zygote.call_blocking(op::CHOWN, &blob, &fds)?;
        }
        Ok(())
    }

    fn remove_tree(&self, path: &Path) -> Result<()> {
        Self::remove_tree(self, path)
    }
}

fn record(change: &OwnerChange) -> Result<Vec<u8>> {
    let mut attributes = Vec::new();
    for (name, value) in &change.xattrs {
        push_string(&mut attributes, name.as_bytes())?;
        attributes.extend_from_slice(&(value.len() as u32).to_ne_bytes());
        attributes.extend_from_slice(value);
    }
    let mode = change.mode.map_or(u32::MAX, |mode| mode & 0o7777);
    let words = [
        change.uid,
        change.gid,
        mode,
        change.xattrs.len() as u32,
        attributes.len() as u32,
    ];
    let mut out: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    out.extend_from_slice(&attributes);
    Ok(out)
}
