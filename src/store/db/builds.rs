//! Rows of the build cache. What a body means is the builder's business.

use rusqlite::{OptionalExtension as _, Row, params};

use super::refs::{self, Node, NodeKind};
use super::{Failure, Store};
use crate::error::Result;

/// What a step of a build made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRow {
    /// Digest of all that the step depends on.
    pub key: String,
    /// When it was made, in nanoseconds since the epoch.
    pub created_ns: i64,
    /// When a build last took it from here.
    pub used_ns: i64,
    /// What its layer takes on disk, in bytes.
    pub size: u64,
    /// The rest, as JSON of the builder.
    pub body: String,
}

impl StepRow {
    fn node(key: &str) -> Node {
        Node::new(NodeKind::Step, key)
    }
}

impl Store {
    /// Records what a step made, in the place of what was recorded before; `needs` is kept from being removed as long as the
    /// row is there. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn put_step(&self, row: &StepRow, needs: &[Node]) -> Result<()> {
        const SQL: &str =
            "INSERT OR REPLACE INTO build_steps (key, created_ns, used_ns, size, body) VALUES (?1, ?2, ?3, ?4, ?5)";
        let holder = StepRow::node(&row.key);
        self.inner.store.write(|store| {
            refs::remove_all_of(store, &holder)?;
            let size = i64::try_from(row.size).unwrap_or(i64::MAX);
            store
                .prepare_cached(SQL)?
                .execute(params![row.key, row.created_ns, row.used_ns, size, row.body])?;
            for node in needs {
                refs::add(store, &holder, node)?;
            }
            Ok(())
        })
    }

    /// What a step made, if it is known. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn step(&self, key: &str) -> Result<Option<StepRow>> {
        const SQL: &str = "SELECT key, created_ns, used_ns, size, body FROM build_steps WHERE key = ?1";
        let row = |store: &rusqlite::Connection| store.prepare_cached(SQL)?.query_row([key], of_row).optional();
        self.inner.store.read(row)
    }

    /// All that steps made, what was used last coming last. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn steps(&self) -> Result<Vec<StepRow>> {
        const SQL: &str = "SELECT key, created_ns, used_ns, size, body FROM build_steps ORDER BY used_ns, key";
        self.inner
            .store
            .read(|store| store.prepare(SQL)?.query_map([], of_row)?.collect())
    }

    /// Notes that steps were used now. Those that are gone are passed over. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn use_steps(&self, keys: &[String], now_ns: i64) -> Result<()> {
        const SQL: &str = "UPDATE build_steps SET used_ns = max(used_ns, ?2) WHERE key = ?1";
        if keys.is_empty() {
            return Ok(());
        }
        self.inner.store.write(|store| {
            for key in keys {
                store.prepare_cached(SQL)?.execute(params![key, now_ns])?;
            }
            Ok(())
        })
    }

    /// Forgets steps, and says what they needed: it may be needed by nobody now. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn forget_steps(&self, keys: &[String]) -> Result<Vec<Node>> {
        self.inner.store.write(|store| -> Result<Vec<Node>, Failure> {
            let mut freed = Vec::new();
            for key in keys {
                let holder = StepRow::node(key);
                freed.extend(refs::targets_in(store, &holder)?);
                refs::remove_all_of(store, &holder)?;
                store.execute("DELETE FROM build_steps WHERE key = ?1", [key])?;
            }
            freed.sort();
            freed.dedup();
            Ok(freed)
        })
    }
}

fn of_row(row: &Row<'_>) -> rusqlite::Result<StepRow> {
    let size: i64 = row.get(3)?;
    Ok(StepRow {
        key: row.get(0)?,
        created_ns: row.get(1)?,
        used_ns: row.get(2)?,
        size: u64::try_from(size).unwrap_or(0),
        body: row.get(4)?,
    })
}
