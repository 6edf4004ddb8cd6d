//! The last events, in `run.db`: written with what they tell of, read by every process.

use rusqlite::{Connection, Row, params};

use super::Store;
use super::containers::parse;
use super::error::bad_value;
use crate::error::Result;
use crate::events::{Event, EventKind, History, RING};

impl Store {
    /// Records an event that comes with no record. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn record_event(&self, event: &Event) -> Result<()> {
        self.write_run(Some(event), |_| Ok(()))
    }

    /// As [`Store::record_event`], unless it is there: the same action of the same thing at the same time. Of two callers at once
    /// both may record it. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub(crate) fn record_event_once(&self, event: &Event) -> Result<()> {
        match self.inner.run.read(|run| is_there(run, event))? {
            true => Ok(()),
            false => self.record_event(event),
        }
    }

    /// How many events of a thing that are later than a time have an action that begins so. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub(crate) fn count_events(&self, id: &str, action: &str, after_ns: i64) -> Result<u32> {
        self.inner.run.read(|run| {
            let sql =
                "SELECT COUNT(*) FROM events WHERE id = ?1 AND time_ns > ?2 AND substr(action, 1, length(?3)) = ?3";
            let values = params![id, after_ns, action];
            run.prepare_cached(sql)?.query_row(values, |row| row.get(0))
        })
    }

    /// Wakes subscribers of this process.
    pub(super) fn wake(&self, seq: u64) {
        self.inner.newest_event.send_modify(|newest| *newest = seq.max(*newest));
    }
}

impl History for Store {
    fn newest(&self) -> Result<u64> {
        self.inner.run.read(newest)
    }

    fn after(&self, seq: u64, limit: usize) -> Result<Vec<(u64, Event)>> {
        self.inner.run.read(|run| {
            let sql =
                "SELECT seq, time_ns, kind, action, id, attributes FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2";
            let mut statement = run.prepare(sql)?;
            let rows = statement.query_map(params![seq as i64, limit as i64], read_event)?;
            rows.collect()
        })
    }

    fn wakes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.inner.newest_event.subscribe()
    }
}

/// Adds an event and drops the one that leaves the ring: a look-up by key each, however many there are.
pub(super) fn append(run: &Connection, event: &Event) -> rusqlite::Result<u64> {
    let attributes = serde_json::to_string(&event.attributes)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let sql = "INSERT INTO events (time_ns, kind, action, id, attributes) VALUES (?1, ?2, ?3, ?4, ?5)";
    let values = params![event.time_ns, event.kind.as_str(), event.action, event.id, attributes];
    run.prepare_cached(sql)?.execute(values)?;
    let seq = run.last_insert_rowid();
    run.prepare_cached("DELETE FROM events WHERE seq <= ?1")?
        .execute([seq - RING as i64])?;
    Ok(seq.unsigned_abs())
}

fn is_there(run: &Connection, event: &Event) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM events WHERE time_ns = ?1 AND id = ?2 AND action = ?3)";
    let values = params![event.time_ns, event.id, event.action];
    run.prepare_cached(sql)?.query_row(values, |row| row.get(0))
}

fn newest(run: &Connection) -> rusqlite::Result<u64> {
    run.query_row("SELECT COALESCE(MAX(seq), 0) FROM events", [], |row| {
        row.get::<_, i64>(0)
    })
    .map(i64::unsigned_abs)
}

fn read_event(row: &Row<'_>) -> rusqlite::Result<(u64, Event)> {
    let attributes: String = row.get(5)?;
    let event = Event {
        time_ns: row.get(1)?,
        kind: parse::<EventKind>(row, 2)?,
        action: row.get(3)?,
        id: row.get(4)?,
        attributes: serde_json::from_slice(attributes.as_bytes()).map_err(|error| bad_value(5, error))?,
    };
    Ok((row.get::<_, i64>(0)?.unsigned_abs(), event))
}
