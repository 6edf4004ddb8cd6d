//! `reconcile`: clears away what dead owners left, and what nothing refers to.

use std::collections::HashSet;
use std::ffi::OsString;

use super::local::Parts;
use crate::error::{ErrorKind, Result};
use crate::images::ImageManager as _;
use crate::runtime::cgroups::NativeCgroups;
use crate::storage::files::blocking;
use crate::storage::snapshot::delete_tree;
use crate::storage::sweep::sweep;
use crate::store::DeadOwner;
use crate::types::{Outcome, OwnerId};

/// What [`Engine::reconcile`](crate::Engine::reconcile) removed, or [`Engine::audit`](crate::Engine::audit) before it looked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reconciled {
    /// Owners that had died without anybody clearing up after them.
    pub owners: usize,
    /// Their containers.
    pub containers: usize,
    /// Half-made blobs and layers, temporary files and files of locks that nobody holds, what drivers of the embedder's own had of
    /// networks for engines that died.
    pub unfinished: usize,
    /// Blobs and layers that belong to no image.
    pub unused: usize,
    /// Images with layers that were not on the disk when power was lost, and that were unpacked anew; and volumes whose record
    /// was lost, and that were recorded again.
    pub restored: usize,
}

impl Reconciled {
    /// What was removed later, too.
    pub(super) fn add(&mut self, later: Self) {
        self.owners += later.owners;
        self.containers += later.containers;
        self.unfinished += later.unfinished;
        self.unused += later.unused;
        self.restored += later.restored;
    }
}

impl Parts {
    /// What an engine does by itself after it was opened: no caller waits for it.
    pub(super) async fn sweep_quietly(&self) {
        if let Err(error) = self.dead_owners().await {
            tracing::warn!(error = error.report(), "remains of dead owners could not be removed");
        }
    }

    /// Forgets the owner whose engine has ended, so that the next engine has nobody to clear up after. Where its lock is held, by
    /// a helper that is still at it or by what outlives the engine, that is left to whoever comes next.
    pub(super) async fn forget_quietly(&self, owner: OwnerId) {
        if let Err(error) = self.dead_owner(owner).await {
            tracing::warn!(
                error = error.report(),
                "an engine's own remains could not be removed at its end"
            );
        }
    }

    /// Removes everything that is left over.
    pub(super) async fn reconcile(&self) -> Result<Reconciled> {
        let mut done = self.clear_remains().await?;
        done.unused += self.images.sweep().await?;
        done.restored += self.restore_images().await?;
        self.snapshotter.sync().await?;
        Ok(done)
    }

    /// Removes what the dead left: owners with their containers, what they had begun, locks that nobody holds.
    pub(super) async fn clear_remains(&self) -> Result<Reconciled> {
        let mut done = self.dead_owners().await?;
        let owners = self.owners.clone();
        let alive = move |owner: &str| match owner.parse::<OwnerId>() {
            Ok(id) => owners.is_alive(&id).unwrap_or(true),
            Err(_) => false,
        };
        let (builds, living) = (self.root.clone(), alive.clone());
        done.unfinished += blocking(move || builds.sweep_builds(living, delete_tree)).await?;
        let swept = sweep(&self.content, self.snapshotter.as_ref(), alive).await?;
        done.unfinished += swept.ingests + swept.snapshots + swept.deletions;
        #[cfg(feature = "network")]
        {
            let networks = self.networks.clone();
            done.unfinished += blocking(move || networks.clear_left()).await?;
        }
        let (removed, adopted) = self.volumes.0.sweep().await?;
        done.unfinished += removed;
        done.restored += adopted;
        let (owners, locks, root) = (self.owners.clone(), self.root.locks(), self.root.clone());
        done.unfinished += blocking(move || {
            owners.tidy()?;
            Ok(locks.tidy()? + root.tidy()?)
        })
        .await?;
        Ok(done)
    }

    /// Unpacks lost layers anew. An image that lost its blobs too is left for its user, whom the audit tells.
    async fn restore_images(&self) -> Result<usize> {
        let mut restored = 0;
        for entry in self.store.call(|store| store.images()).await? {
            let id = entry.record.id.to_string();
            match self.images.restore(&id).await {
                Ok(Outcome::Done) => restored += 1,
                Ok(Outcome::Already) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt) => {
                    tracing::warn!(image = id, error = error.report(), "an image cannot be restored");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(restored)
    }

    async fn dead_owners(&self) -> Result<Reconciled> {
        let mut done = Reconciled::default();
        let owners = self.owners.clone();
        let dead = blocking(move || owners.dead()).await?;
        for id in dead {
            if let Some(containers) = self.dead_owner(id).await? {
                done.containers += containers;
                done.owners += 1;
            }
        }
        Ok(done)
    }

    /// How many containers it had. `None` where it is somebody else's to clear up after.
    async fn dead_owner(&self, id: OwnerId) -> Result<Option<usize>> {
        let owners = self.owners.clone();
        match blocking(move || owners.try_take(&id)).await? {
            Some(taken) => Ok(Some(self.clear(taken).await?)),
            None => Ok(None),
        }
    }

    /// Removes one dead owner's containers and leases; then the owner is forgotten.
    async fn clear(&self, dead: DeadOwner) -> Result<usize> {
        let removed = self.containers.0.remove_all_of(dead.id()).await?;
        self.volumes.0.remove_all_of(dead.id()).await?;
        let (owners, store) = (self.owners.clone(), self.store.clone());
        blocking(move || {
            // Its helper did that, unless it died at the same time.
            let kept: HashSet<OsString> = store
                .detached_containers()?
                .into_iter()
                .map(|row| row.id.as_str().into())
                .collect();
            NativeCgroups::new(dead.id()).remove_owner_but(&|name| kept.contains(name))?;
            store.release_leases_of(dead.id())?;
            owners.forget(dead)
        })
        .await?;
        Ok(removed)
    }
}
