//! Rows of networks. What is in a body is the network manager's business.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{Failure, Store};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::events::Event;
use crate::sys::order;
use crate::types::{NetworkId, Outcome, OwnerId};

const COLUMNS: &str = "id, name, owner, body";

/// A network. Rows with an owner go with it; the others survive power loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRow {
    /// The network's id.
    pub id: NetworkId,
    /// Its name: unique as long as the row is there.
    pub name: String,
    /// The engine with which it goes.
    pub owner: Option<OwnerId>,
    /// The rest, as JSON of the manager.
    pub body: String,
}

impl Store {
    /// Records a new network, in one commit. `make` writes its body from all that are there, while nobody can record another:
    /// so no subnet is chosen twice. It must not use the store. Rows of dead owners that are in the way go. Blocking.
    ///
    /// # Errors
    /// `Conflict`: the name is taken; what `make` returns.
    pub fn insert_network(
        &self,
        id: &NetworkId,
        name: &str,
        owner: Option<&OwnerId>,
        event: &Event,
        make: impl FnOnce(&[NetworkRow]) -> Result<String>,
    ) -> Result<NetworkRow> {
        self.drop_dead_networks()?;
        self.write_run(Some(event), |run| {
            let mut all = all_in(run)?;
            all.extend(self.inner.store.read(all_in)?);
            if let Some(other) = all.iter().find(|row| row.name == name) {
                return Err(taken(name, other).into());
            }
            let row = NetworkRow {
                id: id.clone(),
                name: name.to_owned(),
                owner: owner.cloned(),
                body: make(&all)?,
            };
            match row.owner {
                Some(_) => insert(run, &row)?,
                None => self.inner.store.write(|store| Ok(insert(store, &row)?))?,
            }
            Ok(row)
        })
    }

    /// All networks. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn networks(&self) -> Result<Vec<NetworkRow>> {
        let mut all = self.inner.run.read(all_in)?;
        all.extend(self.inner.store.read(all_in)?);
        order::sort_by(&mut all, |a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// The network of an id or, if none has it, of a name. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn network(&self, id_or_name: &str) -> Result<Option<NetworkRow>> {
        let one = |connection: &Connection, column: &str| {
            let sql = format!("SELECT {COLUMNS} FROM networks WHERE {column} = ?1");
            let mut statement = connection.prepare_cached(&sql)?;
            statement.query_row([id_or_name], row_of).optional()
        };
        for column in ["id", "name"] {
            for database in [&self.inner.run, &self.inner.store] {
                if let Some(row) = database.read(|connection| one(connection, column))? {
                    return Ok(Some(row));
                }
            }
        }
        Ok(None)
    }

    /// Deletes a network, with its event. Blocking.
    ///
    /// # Errors
    /// `Conflict`: it has its bridge in another engine that lives.
    pub fn delete_network(&self, id: &NetworkId, by: &OwnerId, event: &Event) -> Result<Outcome> {
        self.write_run(Some(event), |run| {
            if let Some(other) = self.other_home(run, id, by)? {
                return Err(at_home_elsewhere(id, &other).into());
            }
            run.execute("DELETE FROM network_homes WHERE network = ?1", [id.as_str()])?;
            let sql = "DELETE FROM networks WHERE id = ?1";
            let mut gone = run.execute(sql, [id.as_str()])?;
            if gone == 0 {
                gone = self.inner.store.write(|store| Ok(store.execute(sql, [id.as_str()])?))?;
            }
            Ok(if gone > 0 { Outcome::Done } else { Outcome::Already })
        })
    }

    /// Notes that a network has its bridge in this engine from now on. Blocking.
    ///
    /// # Errors
    /// `Conflict`: it has it in another that lives; `NotFound`: it was removed.
    pub fn home_network(&self, id: &NetworkId, owner: &OwnerId) -> Result<()> {
        self.write_run(None, |run| {
            if let Some(other) = self.other_home(run, id, owner)? {
                return Err(at_home_elsewhere(id, &other).into());
            }
            let there = is_in(run, id)? || self.inner.store.read(|store| is_in(store, id))?;
            if !there {
                return Err(Error::not_found(ObjectKind::Network, id.as_str()).into());
            }
            let sql = "INSERT OR REPLACE INTO network_homes (network, owner) VALUES (?1, ?2)";
            run.execute(sql, params![id.as_str(), owner.as_str()])?;
            Ok(())
        })
    }

    /// Forgets everything of an owner's networks: part of its end, or of sweeping it. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn drop_networks_of(&self, owner: &OwnerId) -> Result<()> {
        let of = params![owner.as_str()];
        let any = "SELECT EXISTS (SELECT 1 FROM networks WHERE owner = ?1)
                       OR EXISTS (SELECT 1 FROM network_homes WHERE owner = ?1)";
        if !self.inner.run.read(|run| run.query_row(any, of, |row| row.get(0)))? {
            return Ok(());
        }
        self.write_run(None, |run| {
            run.execute("DELETE FROM networks WHERE owner = ?1", of)?;
            run.execute("DELETE FROM network_homes WHERE owner = ?1", of)?;
            Ok(())
        })
    }

    /// Forgets what owners left that are dead. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn drop_dead_networks(&self) -> Result<()> {
        let sql = "SELECT owner FROM networks WHERE owner IS NOT NULL UNION SELECT owner FROM network_homes";
        let owners: Vec<OwnerId> = self.inner.run.read(|run| {
            let mut statement = run.prepare(sql)?;
            let rows = statement.query_map([], |row| super::containers::parse(row, 0))?;
            rows.collect()
        })?;
        for owner in owners {
            if !self.inner.owners.is_alive(&owner)? {
                self.drop_networks_of(&owner)?;
            }
        }
        Ok(())
    }

    /// The owner in which a network has its bridge, if that is another one and lives.
    fn other_home(&self, run: &Connection, id: &NetworkId, ours: &OwnerId) -> Result<Option<OwnerId>, Failure> {
        let sql = "SELECT owner FROM network_homes WHERE network = ?1";
        let parse = |row: &Row<'_>| super::containers::parse::<OwnerId>(row, 0);
        let home = run.query_row(sql, [id.as_str()], parse).optional()?;
        match home.filter(|home| home != ours) {
            Some(other) if self.inner.owners.is_alive(&other)? => Ok(Some(other)),
            _ => Ok(None),
        }
    }
}

fn taken(name: &str, by: &NetworkRow) -> Error {
    // Docker's words.
    let message = format!("network with name {name} already exists");
    let owner = by
        .owner
        .as_ref()
        .map_or("", |_| "; it goes with the engine that made it");
    Error::new(ErrorKind::Conflict, format!("{message}{owner}")).with_object(ObjectKind::Network, name)
}

fn at_home_elsewhere(id: &NetworkId, owner: &OwnerId) -> Error {
    let message = format!(
        "network {} is in use by another live engine ({}): containers on one network belong to one engine",
        id.short(),
        owner.short()
    );
    Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Network, id.as_str())
}

fn insert(connection: &Connection, row: &NetworkRow) -> rusqlite::Result<()> {
    let sql = "INSERT INTO networks (id, name, owner, body) VALUES (?1, ?2, ?3, ?4)";
    let owner = row.owner.as_ref().map(OwnerId::as_str);
    connection.execute(sql, params![row.id.as_str(), row.name, owner, row.body])?;
    Ok(())
}

fn is_in(connection: &Connection, id: &NetworkId) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM networks WHERE id = ?1)";
    connection.query_row(sql, [id.as_str()], |row| row.get(0))
}

fn row_of(row: &Row<'_>) -> rusqlite::Result<NetworkRow> {
    let owner: Option<String> = row.get(2)?;
    Ok(NetworkRow {
        id: super::containers::parse(row, 0)?,
        name: row.get(1)?,
        owner: owner.map(|_| super::containers::parse(row, 2)).transpose()?,
        body: row.get(3)?,
    })
}

fn all_in(connection: &Connection) -> rusqlite::Result<Vec<NetworkRow>> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM networks"))?;
    let rows = statement.query_map([], row_of)?;
    rows.collect()
}
