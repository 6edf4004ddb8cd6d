//! The reference graph: who needs what. "Is it in use?" is a look-up here, never a question to a manager.

use std::fmt;

use rusqlite::{Connection, params};

use super::error::bad_value;
use super::{Failure, Store};
use crate::error::{Error, Result};
use crate::sys::order;
use crate::types::{ContainerId, Digest, Reference, VolumeName};

/// What a node of the graph is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum NodeKind {
    /// An image, by id.
    Image,
    /// A name of an image.
    Name,
    /// A container, by id.
    Container,
    /// A blob of the content store, by digest.
    Blob,
    /// A committed snapshot, by chain id.
    Snapshot,
    /// A network, by id.
    Network,
    /// A volume, by name.
    Volume,
    /// A step of builds, by its key.
    Step,
}

impl NodeKind {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Name => "name",
            Self::Container => "container",
            Self::Blob => "blob",
            Self::Snapshot => "snapshot",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::Step => "step",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        let all = [
            Self::Image,
            Self::Name,
            Self::Container,
            Self::Blob,
            Self::Snapshot,
            Self::Network,
            Self::Volume,
            Self::Step,
        ];
        all.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// A node of the graph: something that refers, or is referred to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// Its id, digest or name.
    pub id: String,
}

impl Node {
    /// A node.
    pub fn new(kind: NodeKind, id: impl Into<String>) -> Self {
        Self { kind, id: id.into() }
    }

    /// An image.
    pub fn image(id: &Digest) -> Self {
        Self::new(NodeKind::Image, id.to_string())
    }

    /// A name of an image.
    pub fn name(name: &Reference) -> Self {
        Self::new(NodeKind::Name, name.to_string())
    }

    /// A container.
    pub fn container(id: &ContainerId) -> Self {
        Self::new(NodeKind::Container, id.as_str())
    }

    /// A volume.
    pub fn volume(name: &VolumeName) -> Self {
        Self::new(NodeKind::Volume, name.as_str())
    }

    /// A blob.
    pub fn blob(digest: &Digest) -> Self {
        Self::new(NodeKind::Blob, digest.to_string())
    }

    /// A committed snapshot.
    pub fn snapshot(chain: &Digest) -> Self {
        Self::new(NodeKind::Snapshot, chain.to_string())
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.id)
    }
}

impl Store {
    /// Adds an edge beside those that records bring with them. A bound container's edge dies with the boot, as the
    /// container does; every other survives. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn add_ref(&self, holder: &Node, target: &Node) -> Result<()> {
        self.write_run(None, |run| {
            if holder.kind == NodeKind::Container && super::containers::is_here(run, &holder.id)? {
                return Ok(add(run, holder, target)?);
            }
            Ok(self.inner.store.write(|store| Ok(add(store, holder, target)?))?)
        })
    }

    /// Takes an edge away. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn remove_ref(&self, holder: &Node, target: &Node) -> Result<()> {
        const SQL: &str =
            "DELETE FROM refs WHERE holder_kind = ?1 AND holder_id = ?2 AND target_kind = ?3 AND target_id = ?4";
        let edge = params![holder.kind.as_str(), holder.id, target.kind.as_str(), target.id];
        if self.write_run(None, |run| Ok(run.execute(SQL, edge)?))? > 0 {
            return Ok(());
        }
        self.inner.store.write(|store| Ok(store.execute(SQL, edge)?))?;
        Ok(())
    }

    /// Everything that refers to a node, in both databases. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn holders(&self, target: &Node) -> Result<Vec<Node>> {
        let mut all = self.inner.store.read(|store| holders_in(store, target))?;
        all.extend(self.inner.run.read(|run| holders_in(run, target))?);
        order::sort(&mut all);
        all.dedup();
        Ok(all)
    }

    /// Everything a node refers to, in both databases. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn targets(&self, holder: &Node) -> Result<Vec<Node>> {
        let mut all = self.inner.store.read(|store| targets_in(store, holder))?;
        all.extend(self.inner.run.read(|run| targets_in(run, holder))?);
        order::sort(&mut all);
        all.dedup();
        Ok(all)
    }

    /// Those of the candidates that nothing refers to and no living owner leases. The answer holds for the moment only;
    /// to remove something, use [`Store::remove_unreferenced`]. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn unreferenced(&self, candidates: &[Node]) -> Result<Vec<Node>> {
        let mut free = Vec::new();
        for node in candidates {
            if self.inner.store.read(|store| is_held(store, node))? {
                continue;
            }
            let (held, owners) = self
                .inner
                .run
                .read(|run| Ok((is_held(run, node)?, super::leases::owners_of(run, node)?)))?;
            if !held && !self.any_alive(&owners)? {
                free.push(node.clone());
            }
        }
        Ok(free)
    }

    /// Calls `remove` for every candidate that nothing refers to and no living owner leases, while nobody can begin to refer
    /// to it or lease it; returns those removed. `remove` runs under both databases' write locks, so it does no more than
    /// unlink a file, or rename a tree aside. It must not use the store. Blocking.
    ///
    /// # Errors
    /// Those of the database, or the first that `remove` returns.
    pub fn remove_unreferenced(
        &self,
        candidates: &[Node],
        mut remove: impl FnMut(&Node) -> Result<()>,
    ) -> Result<Vec<Node>> {
        self.write_both(None, |run, store| {
            let mut removed = Vec::new();
            for node in candidates {
                let held = is_held(store, node)? || is_held(run, node)?;
                if !held && !self.any_alive(&super::leases::owners_of(run, node)?)? {
                    remove(node)?;
                    removed.push(node.clone());
                }
            }
            Ok(removed)
        })
    }
}

pub(super) fn add(connection: &Connection, holder: &Node, target: &Node) -> rusqlite::Result<()> {
    const SQL: &str =
        "INSERT OR IGNORE INTO refs (holder_kind, holder_id, target_kind, target_id) VALUES (?1, ?2, ?3, ?4)";
    let edge = params![holder.kind.as_str(), holder.id, target.kind.as_str(), target.id];
    connection.prepare_cached(SQL)?.execute(edge)?;
    Ok(())
}

pub(super) fn remove_all_of(connection: &Connection, holder: &Node) -> rusqlite::Result<()> {
    const SQL: &str = "DELETE FROM refs WHERE holder_kind = ?1 AND holder_id = ?2";
    let edges = params![holder.kind.as_str(), holder.id];
    connection.prepare_cached(SQL)?.execute(edges)?;
    Ok(())
}

pub(super) fn holders_in(connection: &Connection, target: &Node) -> rusqlite::Result<Vec<Node>> {
    nodes(
        connection,
        "SELECT holder_kind, holder_id FROM refs WHERE target_kind = ?1 AND target_id = ?2",
        target,
    )
}

pub(super) fn targets_in(connection: &Connection, holder: &Node) -> rusqlite::Result<Vec<Node>> {
    nodes(
        connection,
        "SELECT target_kind, target_id FROM refs WHERE holder_kind = ?1 AND holder_id = ?2",
        holder,
    )
}

fn nodes(connection: &Connection, sql: &str, of: &Node) -> rusqlite::Result<Vec<Node>> {
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map(params![of.kind.as_str(), of.id], |row| {
        let word: String = row.get(0)?;
        let kind = NodeKind::parse(&word).ok_or_else(|| bad_value(0, format!("unknown kind {word:?}")))?;
        Ok(Node { kind, id: row.get(1)? })
    })?;
    rows.collect()
}

fn is_held(connection: &Connection, target: &Node) -> rusqlite::Result<bool> {
    const SQL: &str = "SELECT EXISTS (SELECT 1 FROM refs WHERE target_kind = ?1 AND target_id = ?2)";
    connection.query_row(SQL, params![target.kind.as_str(), target.id], |row| row.get(0))
}

/// Refuses if anything refers to a node.
pub(super) fn refuse_held(
    connection: &Connection,
    target: &Node,
    refusal: impl Fn(&Node) -> Error,
) -> Result<(), Failure> {
    match holders_in(connection, target)?.first() {
        None => Ok(()),
        Some(holder) => Err(refusal(holder).into()),
    }
}
