//! What engines left that were killed: places are left, and networks removed that have no record. Blocks.

use std::sync::Arc;

use super::{Driven, Own};
use crate::error::{ErrorKind, Result};
use crate::store::Store;
use crate::types::{NetworkId, OwnerId};

impl Own {
    /// Takes back what dead engines had of networks whose drivers this engine knows, unless somebody else is at it: how many places
    /// and networks. What a driver cannot take back is told of, and stays for the next time.
    ///
    /// # Errors
    /// `Os`, where what is written down cannot be read; those of the database.
    pub(crate) fn clear_left(self: &Arc<Self>, store: &Store) -> Result<usize> {
        let Some(_held) = self.locks.try_lock("networks-left")? else {
            return Ok(0);
        };
        store.drop_dead_networks()?;
        self.journal.tidy(|owner| self.is_dead(owner))?;
        let mut cleared = 0;
        for id in self.journal.networks()? {
            match self.clear_network(&id, store) {
                Ok(count) => cleared += count,
                Err(error) => {
                    tracing::warn!(network = %id, error = error.report(), "what a dead engine had of a network is left");
                }
            }
        }
        Ok(cleared)
    }

    fn clear_network(self: &Arc<Self>, id: &NetworkId, store: &Store) -> Result<usize> {
        let Some(record) = self.journal.network(id)? else {
            return Ok(0);
        };
        let Some(driver) = self.drivers.get(&record.spec.driver) else {
            return Ok(0);
        };
        let driven = self.driven(driver, &record);
        // Who makes a network has this from before its record is there, and who removes it until nothing of it is.
        let _turn = driven.turn()?;
        let left = driven.leave_all(false)?;
        if store.network(id.as_str())?.is_some() {
            return Ok(left);
        }
        driven.remove()?;
        self.journal.forget(id)?;
        Ok(left + 1)
    }

    /// Whether engines that seem to live have places, or networks that go with them: of one that was killed a moment ago, its helper may be
    /// clearing up.
    pub(crate) fn sees_others(&self, store: &Store) -> Result<bool> {
        for id in self.journal.networks()? {
            let places = self.journal.places(&id)?;
            let anothers = places.iter().any(|place| place.owner != self.owner);
            let row = store.network(id.as_str())?;
            let goes = row.is_none_or(|row| row.owner.is_some_and(|owner| owner != self.owner));
            if anothers || goes {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_dead(&self, owner: &OwnerId) -> bool {
        // Of whom it cannot be told, nothing is touched.
        *owner != self.owner && self.owners.is_alive(owner).is_ok_and(|alive| !alive)
    }
}

impl Driven {
    /// Leaves the places of dead engines, and of this one if it says so: how many.
    ///
    /// # Errors
    /// The first of the driver's; all were tried, unless it did not answer: then none of the others is waited for.
    pub(super) fn leave_all(&self, ours: bool) -> Result<usize> {
        let mut left = 0;
        let mut failed = Ok(());
        for place in self.own.journal.places(&self.network.id)? {
            let concerns = self.own.is_dead(&place.owner) || (ours && place.owner == self.own.owner);
            if !concerns {
                continue;
            }
            match self.leave(Arc::new(place.into_endpoint()), None) {
                Ok(()) => left += 1,
                Err(error) if error.kind() == &ErrorKind::Timeout => return Err(error),
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        failed.map(|()| left)
    }
}
