//! Removes what dead owners left half made.

use crate::error::Result;
use crate::storage::content::local::LocalContent;
use crate::storage::files::blocking;
use crate::storage::snapshot::Snapshotter;

/// What a sweep removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Swept {
    /// Unfinished blobs.
    pub ingests: usize,
    /// Unfinished layers.
    pub snapshots: usize,
    /// Deletions that were begun and not finished.
    pub deletions: usize,
}

/// Removes unfinished blobs, and snapshots with keys `unpack-<owner>-…`, whose owner is dead. A live owner's are never
/// touched; keys of other forms belong to containers and are not looked at.
///
/// # Errors
/// `Os` with the errno of what could not be removed; what was removed before stays so.
///
/// # Cancel safety
/// Dropping the future leaves the rest to the next sweep.
pub async fn sweep(
    content: &LocalContent,
    snapshotter: &dyn Snapshotter,
    alive: impl Fn(&str) -> bool + Clone + Send + 'static,
) -> Result<Swept> {
    let mut swept = Swept::default();
    let (store, asked) = (content.clone(), alive.clone());
    swept.ingests = blocking(move || store.sweep(&asked)).await?;
    for key in snapshotter.active().await? {
        let owner = key.strip_prefix("unpack-").and_then(|rest| rest.split_once('-'));
        let Some((owner, _)) = owner else { continue };
        if !alive(owner) {
            snapshotter.discard(&key).await?;
            swept.snapshots += 1;
        }
    }
    swept.deletions = snapshotter.empty_trash().await?;
    Ok(swept)
}
