//! Rows of volumes. What a body means is the volume manager's business.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::containers::parse;
use super::error::bad_value;
use super::refs::{self, Node, NodeKind};
use super::{Database, Failure, Store};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::events::Event;
use crate::sys::order;
use crate::types::{ContainerId, ImageId, Outcome, OwnerId, VolumeName};

const COLUMNS: &str = "name, owner, created_ns, body";

/// A volume. Rows of those that belong to a bound container die with the boot; the others survive power loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeRow {
    /// Its name.
    pub name: VolumeName,
    /// Whose containers it belongs to; `None`: it stays until somebody removes it.
    pub owner: Option<OwnerId>,
    /// When it was made, in nanoseconds since the epoch.
    pub created_ns: i64,
    /// The rest, as JSON of the manager.
    pub body: String,
}

/// What a new container uses beside its image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uses {
    /// Volumes that are there.
    pub volumes: Vec<VolumeName>,
    /// Volumes that are made with it.
    pub fresh: Vec<VolumeRow>,
    /// Images that are mounted into it.
    pub images: Vec<ImageId>,
}

impl Uses {
    /// Called in the transaction that records the container.
    pub(super) fn insert(&self, database: &Connection, container: &ContainerId) -> Result<(), Failure> {
        let holder = Node::container(container);
        for row in &self.fresh {
            insert(database, row)?;
            refs::add(database, &holder, &Node::volume(&row.name))?;
        }
        for volume in &self.volumes {
            refs::add(database, &holder, &Node::volume(volume))?;
        }
        for image in &self.images {
            refs::add(database, &holder, &Node::image(image))?;
        }
        Ok(())
    }
}

/// Moves a volume that has an owner to those that have none. Called with both write locks held.
pub(super) fn promote(run: &Connection, store: &Connection, name: &str) -> Result<(), Failure> {
    let sql = format!("SELECT {COLUMNS} FROM volumes WHERE name = ?1");
    let found = run.prepare_cached(&sql)?.query_row([name], read_row).optional()?;
    let Some(row) = found else { return Ok(()) };
    if !is_here(store, &row.name)? {
        insert(store, &VolumeRow { owner: None, ..row })?;
    }
    run.execute("DELETE FROM volumes WHERE name = ?1", [name])?;
    Ok(())
}

impl Store {
    /// Records a volume, with its event; a row of that name that is there already stays and comes back. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn insert_volume(&self, row: &VolumeRow, event: Option<&Event>) -> Result<Option<VolumeRow>> {
        if let Some(there) = self.volume(&row.name)? {
            return Ok(Some(there));
        }
        // Whoever records a volume holds run.db's write lock: so the name is free in both databases until we commit.
        let inserted = self.write_run(event, |run| {
            if is_here(run, &row.name)? || self.inner.store.read(|store| is_here(store, &row.name))? {
                return Err(taken(&row.name).into());
            }
            match row.owner {
                Some(_) => insert(run, row),
                None => Ok(self.inner.store.write(|store| insert(store, row))?),
            }
        });
        match inserted {
            Ok(()) => Ok(None),
            Err(error) if error.is_conflict() => match self.volume(&row.name)? {
                Some(there) => Ok(Some(there)),
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// A volume by name. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn volume(&self, name: &VolumeName) -> Result<Option<VolumeRow>> {
        for database in self.volume_databases() {
            if let Some(row) = database.read(|connection| select_one(connection, name))? {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// All volumes, by name. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn volumes(&self) -> Result<Vec<VolumeRow>> {
        let mut rows = Vec::new();
        for database in self.volume_databases() {
            rows.extend(database.read(|connection| select(connection, "1", &[]))?);
        }
        order::sort_by(&mut rows, |a, b| a.name.cmp(&b.name));
        Ok(rows)
    }

    /// Volumes of an owner's bound containers. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn volumes_of(&self, owner: &OwnerId) -> Result<Vec<VolumeRow>> {
        self.inner.run.read(|run| select(run, "owner = ?1", &[owner.as_str()]))
    }

    /// Deletes a volume's row, with an event, if nothing refers to it; `remove` puts its files out of the way while nobody
    /// can begin to use it: it does no more than rename, and must not use the store. Blocking.
    ///
    /// # Errors
    /// `Conflict`, with the containers that use it; what `remove` says; those of the database.
    pub fn remove_volume(
        &self,
        name: &VolumeName,
        event: Option<&Event>,
        remove: impl FnOnce() -> Result<()>,
    ) -> Result<Outcome> {
        if self.volume(name)?.is_none() {
            return Ok(Outcome::Already);
        }
        self.write_both(event, |run, store| {
            let node = Node::volume(name);
            let mut users = refs::holders_in(run, &node)?;
            users.extend(refs::holders_in(store, &node)?);
            if !users.is_empty() {
                return Err(in_use(name, &users).into());
            }
            const SQL: &str = "DELETE FROM volumes WHERE name = ?1";
            let gone = run.execute(SQL, [name.as_str()])? + store.execute(SQL, [name.as_str()])?;
            if gone == 0 {
                return Ok(Outcome::Already);
            }
            remove()?;
            Ok(Outcome::Done)
        })
    }

    /// Whether a volume's owner, if it has one, lives. Blocking.
    ///
    /// # Errors
    /// `Os` where the owner's lock cannot be looked at.
    pub fn volume_lives(&self, row: &VolumeRow) -> Result<bool> {
        match &row.owner {
            Some(owner) => self.inner.owners.is_alive(owner),
            None => Ok(true),
        }
    }

    fn volume_databases(&self) -> [&Database; 2] {
        [&self.inner.store, &self.inner.run]
    }
}

fn taken(name: &VolumeName) -> Error {
    let message = format!("the volume name {name} is taken");
    Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Volume, name.as_str())
}

fn in_use(name: &VolumeName, users: &[Node]) -> Error {
    let ids: Vec<&str> = users
        .iter()
        .filter(|user| user.kind == NodeKind::Container)
        .map(|user| user.id.as_str())
        .collect();
    let message = format!("volume {name} is in use by container {}", ids.join(", "));
    Error::new(ErrorKind::Conflict, message)
        .with_object(ObjectKind::Volume, name.as_str())
        .with_step("volume is in use")
}

fn insert(database: &Connection, row: &VolumeRow) -> Result<(), Failure> {
    let sql = format!("INSERT INTO volumes ({COLUMNS}) VALUES (?1, ?2, ?3, ?4)");
    let owner = row.owner.as_ref().map(OwnerId::as_str);
    let values = params![row.name.as_str(), owner, row.created_ns, row.body];
    database.prepare_cached(&sql)?.execute(values)?;
    Ok(())
}

pub(super) fn is_here(database: &Connection, name: &VolumeName) -> rusqlite::Result<bool> {
    let mut query = database.prepare_cached("SELECT EXISTS (SELECT 1 FROM volumes WHERE name = ?1)")?;
    query.query_row([name.as_str()], |row| row.get(0))
}

fn select_one(database: &Connection, name: &VolumeName) -> rusqlite::Result<Option<VolumeRow>> {
    let mut query = database.prepare_cached(&format!("SELECT {COLUMNS} FROM volumes WHERE name = ?1"))?;
    query.query_row([name.as_str()], read_row).optional()
}

fn select(database: &Connection, condition: &str, values: &[&str]) -> rusqlite::Result<Vec<VolumeRow>> {
    let mut statement = database.prepare(&format!("SELECT {COLUMNS} FROM volumes WHERE {condition}"))?;
    let rows = statement.query_map(rusqlite::params_from_iter(values), read_row)?;
    rows.collect()
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<VolumeRow> {
    let owner: Option<String> = row.get(1)?;
    let owner = owner.map(|text| text.parse()).transpose();
    Ok(VolumeRow {
        name: parse(row, 0)?,
        owner: owner.map_err(|error: Error| bad_value(1, error))?,
        created_ns: row.get(2)?,
        body: row.get(3)?,
    })
}
