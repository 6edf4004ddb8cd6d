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

/// Whose an unfinished snapshot is: a layer that is being unpacked, `unpack-<owner>-…`, or the files of a build's command,
/// `build-<owner>-…`. Keys of other forms belong to containers.
pub(crate) fn owner_of(key: &str) -> Option<&str> {
    let rest = key.strip_prefix("unpack-").or_else(|| key.strip_prefix("build-"))?;
    rest.split_once('-').map(|(owner, _)| owner)
}

/// Removes unfinished blobs, and unfinished snapshots, whose owner is dead. A live owner's are never
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
        let Some(owner) = owner_of(&key) else { continue };
        if !alive(owner) {
            snapshotter.discard(&key).await?;
            swept.snapshots += 1;
        }
    }
    swept.deletions = snapshotter.empty_trash().await?;
    Ok(swept)
}
