//! Records of images and their names.

use std::cmp::Reverse;
use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};

use super::Store;
use super::containers::parse;
use super::error::bad_value;
use super::refs::{self, Node};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::types::{ChainId, Descriptor, DiffId, Digest, ImageId, Outcome, Platform, Reference};

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// The blob as the manifest names it.
    pub descriptor: Descriptor,
    /// What its uncompressed bytes hash to.
    pub diff_id: DiffId,
}

/// A complete image: all its blobs and snapshots are here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The image's id: the digest of its config.
    pub id: ImageId,
    /// The manifest it came with.
    pub manifest: Descriptor,
    /// The config.
    pub config: Descriptor,
    /// The layers, the lowest first.
    pub layers: Vec<LayerRecord>,
    /// What it runs on.
    pub platform: Platform,
    /// When it was built, as its config says (RFC 3339).
    pub created: Option<String>,
    /// Size of all layers on disk, in bytes.
    pub size: u64,
    /// When it was pulled or built, in nanoseconds since the epoch.
    pub pulled_at_ns: i64,
}

impl ImageRecord {
    /// Names of the layer stacks, the lowest first. The last one is what containers stand on.
    pub fn chain_ids(&self) -> Vec<ChainId> {
        let mut chain = None;
        let step = |layer: &LayerRecord| {
            let next = Digest::chain(chain.as_ref(), &layer.diff_id);
            chain = Some(next);
            next
        };
        self.layers.iter().map(step).collect()
    }

    /// Everything on disk that the image needs: manifest, config and layer blobs, and snapshots.
    pub fn needs(&self) -> Vec<Node> {
        let blobs = [&self.manifest, &self.config]
            .into_iter()
            .chain(self.layers.iter().map(|layer| &layer.descriptor));
        let mut all: Vec<Node> = blobs.map(|descriptor| Node::blob(&descriptor.digest)).collect();
        all.extend(self.chain_ids().iter().map(Node::snapshot));
        all
    }
}

/// An image with the names that point at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageEntry {
    /// The image.
    pub record: ImageRecord,
    /// Names with a tag, sorted. None: the image is dangling.
    pub tags: Vec<Reference>,
    /// Names with a digest, sorted.
    pub digests: Vec<Reference>,
}

impl Store {
    /// Records a complete image and points names at it, in one durable transaction. A name that pointed at another image
    /// moves, and may leave that one dangling. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn put_image(&self, record: &ImageRecord, names: &[Reference]) -> Result<()> {
        let body = serde_json::to_string(record)
            .map_err(|error| Error::internal("an image record without JSON").with_source(error))?;
        let holder = Node::image(&record.id);
        self.inner.store.write(|store| {
            store.execute(
                "INSERT OR REPLACE INTO images (id, body) VALUES (?1, ?2)",
                params![record.id.to_string(), body],
            )?;
            refs::remove_all_of(store, &holder)?;
            for target in record.needs() {
                refs::add(store, &holder, &target)?;
            }
            for name in names {
                point(store, name, &record.id)?;
            }
            Ok(())
        })
    }

    /// An image by id. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn image(&self, id: &ImageId) -> Result<Option<ImageRecord>> {
        self.inner.store.read(|store| {
            let mut query = store.prepare_cached("SELECT body FROM images WHERE id = ?1")?;
            query.query_row([id.to_string()], record_of).optional()
        })
    }

    /// The image that a name points at. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn image_by_name(&self, name: &Reference) -> Result<Option<ImageRecord>> {
        let sql = "SELECT i.body FROM image_names n JOIN images i ON i.id = n.image WHERE n.name = ?1";
        self.inner.store.read(|store| {
            let mut query = store.prepare_cached(sql)?;
            query.query_row([name.to_string()], record_of).optional()
        })
    }

    /// Images whose id begins with these hex digits (`sha256:` before them is allowed), at most two: enough to see that a
    /// prefix is ambiguous. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn images_by_prefix(&self, prefix: &str) -> Result<Vec<ImageRecord>> {
        let digits = prefix.strip_prefix("sha256:").unwrap_or(prefix);
        if !is_hex_prefix(digits) {
            return Ok(Vec::new());
        }
        let low = format!("sha256:{digits}");
        // 'g' follows the last hex digit.
        let high = format!("{low}g");
        self.inner.store.read(|store| {
            let mut statement =
                store.prepare("SELECT body FROM images WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT 2")?;
            let rows = statement.query_map([low, high], record_of)?;
            rows.collect()
        })
    }

    /// All images with their names, the newest first. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn images(&self) -> Result<Vec<ImageEntry>> {
        let (records, mut names) = self.inner.store.read(|store| {
            let snapshot = store.unchecked_transaction()?;
            Ok((all_records(&snapshot)?, all_names(&snapshot)?))
        })?;
        let mut entries: Vec<ImageEntry> = records.into_iter().map(|record| entry(&mut names, record)).collect();
        entries.sort_by_key(|entry| Reverse((entry.record.pulled_at_ns, entry.record.id)));
        Ok(entries)
    }

    /// How many images there are. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn count_images(&self) -> Result<usize> {
        let count: i64 = self
            .inner
            .store
            .read(|store| store.query_row("SELECT COUNT(*) FROM images", [], |row| row.get(0)))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// The names of one image. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn image_names(&self, id: &ImageId) -> Result<Vec<Reference>> {
        self.inner.store.read(|store| names_of(store, id))
    }

    /// Points a name at an image. Blocking.
    ///
    /// # Errors
    /// `NotFound` without such an image.
    pub fn tag(&self, name: &Reference, id: &ImageId) -> Result<Outcome> {
        self.inner.store.write(|store| {
            if !image_is_here(store, id)? {
                return Err(Error::not_found(ObjectKind::Image, id.to_string()).into());
            }
            let changed = point(store, name, id)?;
            Ok(if changed { Outcome::Done } else { Outcome::Already })
        })
    }

    /// Takes a name away; the image stays. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn untag(&self, name: &Reference) -> Result<Outcome> {
        let removed = self
            .inner
            .store
            .write(|store| Ok(store.execute("DELETE FROM image_names WHERE name = ?1", [name.to_string()])?))?;
        Ok(if removed > 0 { Outcome::Done } else { Outcome::Already })
    }

    /// Deletes an image's record, its names and its edges, and returns what it needed: candidates for
    /// [`Store::remove_unreferenced`]. Blocking.
    ///
    /// # Errors
    /// - `NotFound` without such an image
    /// - `Conflict` while a container, or anything else, refers to it
    pub fn delete_image(&self, id: &ImageId) -> Result<Vec<Node>> {
        let node = Node::image(id);
        let text = id.to_string();
        self.write_both(None, |run, store| {
            let record = store
                .query_row("SELECT body FROM images WHERE id = ?1", [&text], record_of)
                .optional()?;
            let Some(record) = record else {
                return Err(Error::not_found(ObjectKind::Image, &text).into());
            };
            for database in [run, store] {
                refs::refuse_held(database, &node, |holder| in_use(id, holder))?;
            }
            refs::remove_all_of(store, &node)?;
            store.execute("DELETE FROM image_names WHERE image = ?1", [&text])?;
            store.execute("DELETE FROM images WHERE id = ?1", [&text])?;
            Ok(record.needs())
        })
    }
}

fn in_use(id: &ImageId, holder: &Node) -> Error {
    let short: String = holder.id.chars().take(12).collect();
    let message = format!("image {} is used by {} {short}", id.short(), holder.kind.as_str());
    Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Image, id.to_string())
}

/// Points a name at an image; whether that changed anything.
fn point(store: &Connection, name: &Reference, id: &ImageId) -> rusqlite::Result<bool> {
    const SQL: &str = "INSERT INTO image_names (name, image, by_digest) VALUES (?1, ?2, ?3)
                       ON CONFLICT (name) DO UPDATE SET image = excluded.image WHERE image <> excluded.image";
    Ok(store.execute(SQL, params![name.to_string(), id.to_string(), name.digest().is_some()])? > 0)
}

pub(super) fn image_is_here(store: &Connection, id: &ImageId) -> rusqlite::Result<bool> {
    let mut query = store.prepare_cached("SELECT EXISTS (SELECT 1 FROM images WHERE id = ?1)")?;
    query.query_row([id.to_string()], |row| row.get(0))
}

fn record_of(row: &Row<'_>) -> rusqlite::Result<ImageRecord> {
    let body: String = row.get(0)?;
    serde_json::from_str(&body).map_err(|error| bad_value(0, error))
}

fn all_records(store: &Connection) -> rusqlite::Result<Vec<ImageRecord>> {
    let mut statement = store.prepare("SELECT body FROM images")?;
    let rows = statement.query_map([], record_of)?;
    rows.collect()
}

fn all_names(store: &Connection) -> rusqlite::Result<HashMap<ImageId, Vec<Reference>>> {
    let mut statement = store.prepare("SELECT image, name FROM image_names ORDER BY name")?;
    let rows = statement.query_map([], |row| Ok((parse::<ImageId>(row, 0)?, parse::<Reference>(row, 1)?)))?;
    let mut names: HashMap<ImageId, Vec<Reference>> = HashMap::new();
    for row in rows {
        let (id, name) = row?;
        names.entry(id).or_default().push(name);
    }
    Ok(names)
}

fn names_of(store: &Connection, id: &ImageId) -> rusqlite::Result<Vec<Reference>> {
    let mut statement = store.prepare_cached("SELECT name FROM image_names WHERE image = ?1 ORDER BY name")?;
    let rows = statement.query_map([id.to_string()], |row| parse(row, 0))?;
    rows.collect()
}

fn entry(names: &mut HashMap<ImageId, Vec<Reference>>, record: ImageRecord) -> ImageEntry {
    let names = names.remove(&record.id).unwrap_or_default();
    let (digests, tags) = names.into_iter().partition(|name| name.digest().is_some());
    ImageEntry { record, tags, digests }
}

pub(super) fn is_hex_prefix(digits: &str) -> bool {
    (1..=64).contains(&digits.len()) && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
