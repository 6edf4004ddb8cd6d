//! Leases: they protect what a pull or a build has fetched and not yet referred to.

use std::sync::PoisonError;

use rusqlite::{Connection, params};

use super::Store;
use super::refs::Node;
use crate::error::Result;
use crate::types::OwnerId;

/// Protects blobs and snapshots while its owner lives. [`Lease::release`] ends it; a dropped handle is forgotten with the
/// next write of this process, and at the latest with its owner.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    id: String,
    released: bool,
}

impl Lease {
    /// Protects more. What is leased before one looks whether it is there cannot vanish afterwards. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn add(&self, targets: &[Node]) -> Result<()> {
        const SQL: &str = "INSERT OR IGNORE INTO lease_targets (lease, target_kind, target_id) VALUES (?1, ?2, ?3)";
        self.store.write_run(None, |run| {
            let mut statement = run.prepare(SQL)?;
            for target in targets {
                statement.execute(params![self.id, target.kind.as_str(), target.id])?;
            }
            Ok(())
        })
    }

    /// Ends the lease. Blocking.
    ///
    /// # Errors
    /// Those of the database; the lease then ends with the next write to it.
    pub fn release(mut self) -> Result<()> {
        let ids = [self.id.clone()];
        let done = self.store.write_run(None, |run| Ok(delete(run, &ids)?));
        self.released = done.is_ok();
        done
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.released {
            // No write here: dropping never blocks.
            self.store.put_back_dropped_leases(vec![std::mem::take(&mut self.id)]);
        }
    }
}

impl Store {
    /// Begins a lease. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn lease(&self, owner: &OwnerId) -> Result<Lease> {
        // Never used twice: a dropped handle's id may wait for its deletion while new leases are made.
        let id = String::from(OwnerId::random());
        self.write_run(None, |run| {
            run.execute(
                "INSERT INTO leases (id, owner) VALUES (?1, ?2)",
                params![id, owner.as_str()],
            )?;
            Ok(())
        })?;
        Ok(Lease {
            store: self.clone(),
            id,
            released: false,
        })
    }

    /// Ends all leases of an owner: part of sweeping a dead one. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn release_leases_of(&self, owner: &OwnerId) -> Result<()> {
        self.write_run(None, |run| {
            run.execute(
                "DELETE FROM lease_targets WHERE lease IN (SELECT id FROM leases WHERE owner = ?1)",
                [owner.as_str()],
            )?;
            run.execute("DELETE FROM leases WHERE owner = ?1", [owner.as_str()])?;
            Ok(())
        })
    }

    pub(super) fn any_alive(&self, owners: &[OwnerId]) -> Result<bool> {
        for owner in owners {
            if self.inner.owners.is_alive(owner)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn take_dropped_leases(&self) -> Vec<String> {
        std::mem::take(&mut *self.inner.dropped_leases.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn put_back_dropped_leases(&self, ids: Vec<String>) {
        self.inner
            .dropped_leases
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(ids);
    }
}

pub(super) fn delete(run: &Connection, ids: &[String]) -> rusqlite::Result<()> {
    for id in ids {
        run.execute("DELETE FROM lease_targets WHERE lease = ?1", [id])?;
        run.execute("DELETE FROM leases WHERE id = ?1", [id])?;
    }
    Ok(())
}

/// Owners of leases on a target, dead ones included.
pub(super) fn owners_of(run: &Connection, target: &Node) -> rusqlite::Result<Vec<OwnerId>> {
    const SQL: &str = "SELECT DISTINCT l.owner FROM lease_targets t JOIN leases l ON l.id = t.lease
                       WHERE t.target_kind = ?1 AND t.target_id = ?2";
    let mut statement = run.prepare(SQL)?;
    let rows = statement.query_map(params![target.kind.as_str(), target.id], |row| {
        super::containers::parse(row, 0)
    })?;
    rows.collect()
}
