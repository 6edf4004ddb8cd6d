//! Rows of containers. What state and body mean is the container manager's business.

use std::str::FromStr;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::error::bad_value;
use super::images::{image_is_here, is_hex_prefix};
use super::refs::{self, Node};
use super::volumes::Uses;
use super::{Database, Failure, Store};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::events::Event;
use crate::sys::order;
use crate::types::{ContainerId, ContainerName, ImageId, Outcome, OwnerId};

const COLUMNS: &str = "id, name, owner, state, created_ns, body";

/// A container. Rows of bound ones die with the boot; rows of detached ones survive power loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRow {
    /// The container's id.
    pub id: ContainerId,
    /// Its name: unique as long as the row is there.
    pub name: ContainerName,
    /// Who owns a bound container; `None`: it is detached.
    pub owner: Option<OwnerId>,
    /// A word of the state table.
    pub state: String,
    /// When it was created, in nanoseconds since the epoch.
    pub created_ns: i64,
    /// The rest, as JSON of the manager.
    pub body: String,
}

/// How many containers of an owner are in a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateCount {
    /// Whose they are; `None`: detached ones.
    pub owner: Option<OwnerId>,
    /// A word of the state table.
    pub state: String,
    /// How many.
    pub containers: usize,
}

/// What became of a new row.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Insert {
    /// It is recorded.
    Done,
    /// Nothing was recorded: the name belongs to a container whose owner is dead. Sweep that owner and try again.
    Taken {
        /// The container in the way.
        by: ContainerRow,
    },
}

impl Store {
    /// Records a new container with its edge to its image and its event, in one commit: of `run.db` alone (nothing waits
    /// for the disk) if it is bound. Blocking.
    ///
    /// # Errors
    /// - `Conflict`: the name belongs to another container, whose owner lives or which is detached
    /// - `NotFound`: the image vanished
    pub fn insert_container(
        &self,
        row: &ContainerRow,
        image: Option<&ImageId>,
        event: Option<&Event>,
    ) -> Result<Insert> {
        self.insert_container_with(row, image, &Uses::default(), event)
    }

    /// As [`Store::insert_container`], with edges to what else the container uses, and the records of volumes that are made
    /// with it. Blocking.
    ///
    /// # Errors
    /// As there; `NotFound` for a volume or an image that vanished.
    pub fn insert_container_with(
        &self,
        row: &ContainerRow,
        image: Option<&ImageId>,
        uses: &Uses,
        event: Option<&Event>,
    ) -> Result<Insert> {
        if let Some(by) = self.dead_holder_of(&row.name)? {
            return Ok(Insert::Taken { by });
        }
        // Whoever takes a name holds run.db's write lock: so it is free in both databases until we commit.
        self.write_run(event, |run| {
            self.refuse_taken(run, row)?;
            self.refuse_missing(image)?;
            self.refuse_missing_uses(run, uses)?;
            match row.owner {
                Some(_) => {
                    insert(run, row, image)?;
                    uses.insert(run, &row.id)?;
                }
                None => self.inner.store.write(|store| {
                    insert(store, row, image)?;
                    uses.insert(store, &row.id)
                })?,
            }
            Ok(Insert::Done)
        })
    }

    /// Changes state and body of a container that is still in the expected state, with an event, in one commit. Whether it
    /// was. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn update_container(
        &self,
        id: &ContainerId,
        expected: &str,
        state: &str,
        body: &str,
        events: &[Event],
    ) -> Result<bool> {
        let change = |database: &Connection| -> Result<bool, Failure> {
            let sql = "UPDATE containers SET state = ?3, body = ?4 WHERE id = ?1 AND state = ?2";
            let mut update = database.prepare_cached(sql)?;
            Ok(update.execute(params![id.as_str(), expected, state, body])? > 0)
        };
        self.change(id, events, change)
    }

    /// Makes a bound container a detached one, whose row this is to be: with its edges, its volumes that have an owner, and an
    /// event. Whoever is killed on the way leaves the bound row, too, or that alone; to do it again is no error, and a detached row that
    /// is there already stays as it is. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn promote_container(&self, row: &ContainerRow, event: Option<&Event>) -> Result<()> {
        let holder = Node::container(&row.id);
        self.write_both(event, |run, store| {
            if !is_here(store, row.id.as_str())? {
                insert(store, row, None)?;
            }
            for target in refs::targets_in(run, &holder)? {
                refs::add(store, &holder, &target)?;
                if target.kind == refs::NodeKind::Volume {
                    super::volumes::promote(run, store, &target.id)?;
                }
            }
            refs::remove_all_of(run, &holder)?;
            run.execute("DELETE FROM containers WHERE id = ?1", [row.id.as_str()])?;
            Ok(())
        })
    }

    /// Gives a container another name. Blocking.
    ///
    /// # Errors
    /// `Conflict` if the name is taken, `NotFound` without such a container.
    pub fn rename_container(&self, id: &ContainerId, name: &ContainerName, event: Option<&Event>) -> Result<Outcome> {
        let Some(mut row) = self.container(id)? else {
            return Err(Error::not_found(ObjectKind::Container, id.as_str()));
        };
        if row.name == *name {
            return Ok(Outcome::Already);
        }
        row.name = name.clone();
        let sql = "UPDATE containers SET name = ?2 WHERE id = ?1";
        let renamed = self.write_run(event, |run| {
            self.refuse_taken(run, &row)?;
            let values = params![id.as_str(), name.as_str()];
            if row.owner.is_some() {
                return Ok(run.execute(sql, values)?);
            }
            Ok(self.inner.store.write(|store| Ok(store.execute(sql, values)?))?)
        })?;
        if renamed == 0 {
            return Err(Error::not_found(ObjectKind::Container, id.as_str()));
        }
        Ok(Outcome::Done)
    }

    /// Deletes a container's row and edges, with events, in one commit; its name is free again. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn delete_container(&self, id: &ContainerId, events: &[Event]) -> Result<Outcome> {
        let node = Node::container(id);
        let change = |database: &Connection| -> Result<bool, Failure> {
            refs::remove_all_of(database, &node)?;
            let mut delete = database.prepare_cached("DELETE FROM containers WHERE id = ?1")?;
            Ok(delete.execute([id.as_str()])? > 0)
        };
        Ok(if self.change(id, events, change)? {
            Outcome::Done
        } else {
            Outcome::Already
        })
    }

    /// A container by id. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn container(&self, id: &ContainerId) -> Result<Option<ContainerRow>> {
        self.first("id = ?1", id.as_str())
    }

    /// A container by name. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn container_by_name(&self, name: &ContainerName) -> Result<Option<ContainerRow>> {
        self.first("name = ?1", name.as_str())
    }

    /// Containers whose id begins with these hex digits, at most two of each lifetime: enough to see that a prefix is
    /// ambiguous. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn containers_by_prefix(&self, prefix: &str) -> Result<Vec<ContainerRow>> {
        if !is_hex_prefix(prefix) {
            return Ok(Vec::new());
        }
        let high = format!("{prefix}g");
        self.collect("id >= ?1 AND id < ?2 ORDER BY id LIMIT 2", &[prefix, &high])
    }

    /// All containers, the newest first. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn containers(&self) -> Result<Vec<ContainerRow>> {
        self.collect("1", &[])
    }

    /// How many containers there are of each owner in each state, without reading them. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn container_states(&self) -> Result<Vec<StateCount>> {
        let mut counts = Vec::new();
        for database in self.databases() {
            counts.extend(database.read(count_states)?);
        }
        Ok(counts)
    }

    /// Detached containers, the newest first. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn detached_containers(&self) -> Result<Vec<ContainerRow>> {
        let mut rows = self.inner.store.read(|store| select(store, "1", &[]))?;
        newest_first(&mut rows);
        Ok(rows)
    }

    /// Bound containers of an owner, the newest first. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn containers_of(&self, owner: &OwnerId) -> Result<Vec<ContainerRow>> {
        let mut rows = self
            .inner
            .run
            .read(|run| select(run, "owner = ?1", &[owner.as_str()]))?;
        newest_first(&mut rows);
        Ok(rows)
    }

    fn databases(&self) -> [&Database; 2] {
        [&self.inner.run, &self.inner.store]
    }

    fn first(&self, condition: &str, value: &str) -> Result<Option<ContainerRow>> {
        for database in self.databases() {
            if let Some(row) = database.read(|connection| select_one(connection, condition, value))? {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    fn collect(&self, condition: &str, values: &[&str]) -> Result<Vec<ContainerRow>> {
        let mut rows = Vec::new();
        for database in self.databases() {
            rows.extend(database.read(|connection| select(connection, condition, values))?);
        }
        newest_first(&mut rows);
        Ok(rows)
    }

    /// The container that holds a name, if its owner is dead.
    fn dead_holder_of(&self, name: &ContainerName) -> Result<Option<ContainerRow>> {
        let Some(row) = self.inner.run.read(|run| select_one(run, "name = ?1", name.as_str()))? else {
            return Ok(None);
        };
        let Some(owner) = &row.owner else {
            return Ok(None);
        };
        Ok(if self.inner.owners.is_alive(owner)? {
            None
        } else {
            Some(row)
        })
    }

    /// Called with run.db's write lock held.
    fn refuse_taken(&self, run: &Connection, row: &ContainerRow) -> Result<(), Failure> {
        let taken = match select_one(run, "name = ?1", row.name.as_str())? {
            Some(taken) => Some(taken),
            None => self
                .inner
                .store
                .read(|store| select_one(store, "name = ?1", row.name.as_str()))?,
        };
        match taken {
            None => Ok(()),
            Some(taken) => Err(name_in_use(&row.name, &taken.id).into()),
        }
    }

    /// Called with run.db's write lock held.
    fn refuse_missing_uses(&self, run: &Connection, uses: &Uses) -> Result<(), Failure> {
        for image in &uses.images {
            self.refuse_missing(Some(image))?;
        }
        for volume in &uses.volumes {
            if !super::volumes::is_here(run, volume)?
                && !self.inner.store.read(|store| super::volumes::is_here(store, volume))?
            {
                return Err(Error::not_found(ObjectKind::Volume, volume.as_str()).into());
            }
        }
        Ok(())
    }

    /// Called with run.db's write lock held: images are deleted only under it.
    fn refuse_missing(&self, image: Option<&ImageId>) -> Result<()> {
        let Some(image) = image else {
            return Ok(());
        };
        if self.inner.store.read(|store| image_is_here(store, image))? {
            return Ok(());
        }
        Err(Error::not_found(ObjectKind::Image, image.to_string()))
    }

    /// Changes the one database that has the container; the event is written if something changed.
    fn change<'e>(
        &self,
        id: &ContainerId,
        events: impl IntoIterator<Item = &'e Event>,
        change: impl Fn(&Connection) -> Result<bool, Failure>,
    ) -> Result<bool> {
        let changed = self.write_run(events, |run| {
            let changed = match is_here(run, id.as_str())? {
                true => change(run)?,
                false => self.inner.store.write(|store| change(store))?,
            };
            // Leaving with a refusal tells no event.
            if changed { Ok(()) } else { Err(unchanged().into()) }
        });
        match changed {
            Ok(()) => Ok(true),
            Err(error) if error.step() == Some(UNCHANGED) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

const UNCHANGED: &str = "compare the container's state";

fn unchanged() -> Error {
    Error::new(ErrorKind::InvalidState, "the container is in another state").with_step(UNCHANGED)
}

fn name_in_use(name: &ContainerName, by: &ContainerId) -> Error {
    let message = format!("the container name \"{name}\" is already in use by container {by}");
    Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Container, name.as_str())
}

fn insert(database: &Connection, row: &ContainerRow, image: Option<&ImageId>) -> Result<(), Failure> {
    let sql = format!("INSERT INTO containers ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6)");
    let owner = row.owner.as_ref().map(OwnerId::as_str);
    database.prepare_cached(&sql)?.execute(params![
        row.id.as_str(),
        row.name.as_str(),
        owner,
        row.state,
        row.created_ns,
        row.body
    ])?;
    if let Some(image) = image {
        refs::add(database, &Node::container(&row.id), &Node::image(image))?;
    }
    Ok(())
}

pub(super) fn is_here(database: &Connection, id: &str) -> rusqlite::Result<bool> {
    let mut query = database.prepare_cached("SELECT EXISTS (SELECT 1 FROM containers WHERE id = ?1)")?;
    query.query_row([id], |row| row.get(0))
}

fn select_one(database: &Connection, condition: &str, value: &str) -> rusqlite::Result<Option<ContainerRow>> {
    let mut query = database.prepare_cached(&format!("SELECT {COLUMNS} FROM containers WHERE {condition}"))?;
    query.query_row([value], read_row).optional()
}

fn select(database: &Connection, condition: &str, values: &[&str]) -> rusqlite::Result<Vec<ContainerRow>> {
    let mut statement = database.prepare(&format!("SELECT {COLUMNS} FROM containers WHERE {condition}"))?;
    let rows = statement.query_map(rusqlite::params_from_iter(values), read_row)?;
    rows.collect()
}

fn count_states(database: &Connection) -> rusqlite::Result<Vec<StateCount>> {
    let mut statement = database.prepare("SELECT owner, state, COUNT(*) FROM containers GROUP BY owner, state")?;
    let rows = statement.query_map([], |row| {
        Ok(StateCount {
            owner: owner_of(row, 0)?,
            state: row.get(1)?,
            containers: usize::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
        })
    })?;
    rows.collect()
}

fn owner_of(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<OwnerId>> {
    let owner: Option<String> = row.get(column)?;
    owner
        .map(|text| text.parse())
        .transpose()
        .map_err(|error: Error| bad_value(column, error))
}

fn newest_first(rows: &mut [ContainerRow]) {
    order::sort_by(rows, |a, b| (b.created_ns, &b.id).cmp(&(a.created_ns, &a.id)));
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<ContainerRow> {
    Ok(ContainerRow {
        id: parse(row, 0)?,
        name: parse(row, 1)?,
        owner: owner_of(row, 2)?,
        state: row.get(3)?,
        created_ns: row.get(4)?,
        body: row.get(5)?,
    })
}

/// A column that holds the text of a typed value.
pub(super) fn parse<T: FromStr<Err = Error>>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    row.get::<_, String>(column)?
        .parse()
        .map_err(|error: Error| bad_value(column, error))
}
