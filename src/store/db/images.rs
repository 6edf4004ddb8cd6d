//! Records of images and their names.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};

use super::Store;
use super::containers::parse;
use super::error::{bad_value, from_sqlite};
use super::open;
use super::refs::{self, Node, NodeKind};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::sys::order;
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
    /// The root that has its blobs and layers, where that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lent_by: Option<PathBuf>,
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

/// What a name stands for on one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sign {
    /// The platform, as the index says, or failing that the image.
    pub platform: Platform,
    /// The digest of the index, or where there is none, of the image's own manifest.
    pub top: Digest,
}

impl Sign {
    /// An image alone, without an index.
    pub fn of(record: &ImageRecord) -> Self {
        Self {
            platform: record.platform.clone(),
            top: record.manifest.digest,
        }
    }
}

/// An image that a name points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedImage {
    /// The image.
    pub record: ImageRecord,
    /// For what the name stands here.
    pub sign: Sign,
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

/// An image of another root, with its names and what they stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherImage {
    /// The image.
    pub record: ImageRecord,
    /// Its names, sorted.
    pub names: Vec<(Reference, Sign)>,
}

/// What a copy of another root's database holds. Blocking.
pub(in crate::store) fn images_of_copy(copy: &Path, original: &Path) -> Result<Vec<OtherImage>> {
    let store = open::open_copy(copy, original)?;
    let read = || {
        let mut names: HashMap<ImageId, Vec<(Reference, Sign)>> = HashMap::new();
        let mut query = store.prepare("SELECT image, name, platform, top FROM image_names ORDER BY name, platform")?;
        let rows = query.query_map([], |row| {
            let (platform, top) = (parse(row, 2)?, parse(row, 3)?);
            Ok((parse::<ImageId>(row, 0)?, (parse(row, 1)?, Sign { platform, top })))
        })?;
        for row in rows {
            let (id, name) = row?;
            names.entry(id).or_default().push(name);
        }
        let own = all_records(&store)?.into_iter();
        Ok(own
            .map(|record| OtherImage {
                names: names.remove(&record.id).unwrap_or_default(),
                record,
            })
            .collect())
    };
    read().map_err(|error| from_sqlite(original, error))
}

pub(super) const BY_NAME: &str =
    "SELECT i.body, n.platform, n.top FROM image_names n JOIN images i ON i.id = n.image WHERE n.name = ?1";

impl Store {
    /// Records a complete image and points names at it, and at nothing else, in one durable transaction. A name that pointed
    /// at another image moves, and may leave that one dangling. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn put_image(&self, record: &ImageRecord, names: &[Reference]) -> Result<()> {
        let sign = Sign::of(record);
        let names: Vec<(Reference, Sign)> = names.iter().map(|name| (name.clone(), sign.clone())).collect();
        self.put_image_as(record, &names).map(drop)
    }

    /// As [`Store::put_image`], for names that may stand for images of other platforms, too: those of the same index stay.
    /// Returns indexes that no name here stands for any more: candidates for [`Store::remove_unreferenced`]. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn put_image_as(&self, record: &ImageRecord, names: &[(Reference, Sign)]) -> Result<Vec<Node>> {
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
            let mut freed = Vec::new();
            for (name, sign) in names {
                freed.extend(point(store, name, &record.id, sign)?.1);
            }
            Ok(freed)
        })
    }

    /// An image by id. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn image(&self, id: &ImageId) -> Result<Option<ImageRecord>> {
        self.inner.store.read(|store| image_in(store, id))
    }

    /// The image that a name points at; of several platforms the host's, or else the newest. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn image_by_name(&self, name: &Reference) -> Result<Option<ImageRecord>> {
        let mut all = self.images_by_name(name)?;
        Ok((!all.is_empty()).then(|| all.swap_remove(0).record))
    }

    /// The images that a name points at, one for each platform: the host's first, then the newest. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn images_by_name(&self, name: &Reference) -> Result<Vec<NamedImage>> {
        let mut all = self.inner.store.read(|store| {
            let mut query = store.prepare_cached(BY_NAME)?;
            let rows = query.query_map([name.to_string()], |row| {
                let (platform, top) = (parse(row, 1)?, parse(row, 2)?);
                let sign = Sign { platform, top };
                Ok(NamedImage {
                    record: record_of(row)?,
                    sign,
                })
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        if all.len() > 1 {
            let host = Platform::host();
            order::sort_by_key(&mut all, |one| {
                let record = &one.record;
                (
                    !host.accepts(&one.sign.platform),
                    Reverse((record.pulled_at_ns, record.id)),
                )
            });
        }
        Ok(all)
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
            let rows = statement.query_map([&low, &high], record_of)?;
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
        order::sort_by_key(&mut entries, |entry| {
            Reverse((entry.record.pulled_at_ns, entry.record.id))
        });
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

    /// The indexes that names of an image stand for. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn indexes_of(&self, id: &ImageId) -> Result<Vec<Node>> {
        self.inner.store.read(|store| {
            let own = image_in(store, id)?.map(|record| record.manifest.digest.to_string());
            let mut query = store.prepare("SELECT DISTINCT top FROM image_names WHERE image = ?1")?;
            let tops = query.query_map([id.to_string()], |row| row.get::<_, String>(0))?;
            let tops = tops.collect::<rusqlite::Result<Vec<_>>>()?;
            let indexes = tops.into_iter().filter(|top| Some(top) != own.as_ref());
            Ok(indexes.map(|top| Node::new(NodeKind::Blob, top)).collect())
        })
    }

    /// Points a name at an image, and at nothing else. Blocking.
    ///
    /// # Errors
    /// `NotFound` without such an image.
    pub fn tag(&self, name: &Reference, id: &ImageId) -> Result<Outcome> {
        self.tag_as(name, id, None).map(|(outcome, _)| outcome)
    }

    /// As [`Store::tag`], for a name that may stand for images of other platforms, too: those of the same index stay.
    /// Returns indexes as [`Store::put_image_as`] does. Blocking.
    ///
    /// # Errors
    /// `NotFound` without such an image.
    pub fn tag_as(&self, name: &Reference, id: &ImageId, sign: Option<&Sign>) -> Result<(Outcome, Vec<Node>)> {
        self.inner.store.write(|store| {
            let Some(record) = image_in(store, id)? else {
                return Err(Error::not_found(ObjectKind::Image, id.to_string()).into());
            };
            let own = Sign::of(&record);
            let (changed, freed) = point(store, name, id, sign.unwrap_or(&own))?;
            Ok((done(changed), freed))
        })
    }

    /// Points a name at several images, each for its platform, and at nothing else. Returns indexes as
    /// [`Store::put_image_as`] does. Blocking.
    ///
    /// # Errors
    /// `NotFound` without one of the images.
    pub fn tag_all(&self, name: &Reference, images: &[(ImageId, Sign)]) -> Result<Vec<Node>> {
        self.inner.store.write(|store| {
            let before = rows_of(store, name)?;
            store.execute("DELETE FROM image_names WHERE name = ?1", [name.to_string()])?;
            for (id, sign) in images {
                if !image_is_here(store, id)? {
                    return Err(Error::not_found(ObjectKind::Image, id.to_string()).into());
                }
                let row = NameRow {
                    platform: sign.platform.to_string(),
                    image: id.to_string(),
                    top: sign.top.to_string(),
                };
                insert(store, name, &row)?;
            }
            Ok(settle(store, name, &before)?)
        })
    }

    /// Has a name stand for exactly what another one stands for, on every platform. Returns indexes as
    /// [`Store::put_image_as`] does. Blocking.
    ///
    /// # Errors
    /// `NotFound` where the other name stands for nothing.
    pub fn tag_like(&self, name: &Reference, other: &Reference) -> Result<(Outcome, Vec<Node>)> {
        self.inner.store.write(|store| {
            let wanted = rows_of(store, other)?;
            if wanted.is_empty() {
                return Err(Error::not_found(ObjectKind::Image, other.familiar()).into());
            }
            let before = rows_of(store, name)?;
            if before == wanted {
                return Ok((Outcome::Already, Vec::new()));
            }
            store.execute("DELETE FROM image_names WHERE name = ?1", [name.to_string()])?;
            for row in &wanted {
                insert(store, name, row)?;
            }
            Ok((Outcome::Done, settle(store, name, &before)?))
        })
    }

    /// Takes a name away; the images stay. Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn untag(&self, name: &Reference) -> Result<Outcome> {
        self.untag_from(name, None).map(|(outcome, _)| outcome)
    }

    /// Takes a name away from one image, or from all that it stands for. Returns indexes as [`Store::put_image_as`] does.
    /// Blocking.
    ///
    /// # Errors
    /// Those of the database.
    pub fn untag_from(&self, name: &Reference, id: Option<&ImageId>) -> Result<(Outcome, Vec<Node>)> {
        self.inner.store.write(|store| {
            let before = rows_of(store, name)?;
            let id = id.map(ToString::to_string);
            let sql = "DELETE FROM image_names WHERE name = ?1 AND (?2 IS NULL OR image = ?2)";
            let removed = store.execute(sql, params![name.to_string(), id])?;
            Ok((done(removed > 0), settle(store, name, &before)?))
        })
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
            let mut free = record.needs();
            for name in names_of(store, id)? {
                let before = rows_of(store, &name)?;
                let sql = "DELETE FROM image_names WHERE name = ?1 AND image = ?2";
                store.execute(sql, params![name.to_string(), text])?;
                let freed = settle(store, &name, &before)?;
                free.extend(
                    freed
                        .into_iter()
                        .filter(|node| *node != Node::blob(&record.manifest.digest)),
                );
            }

            store.execute("DELETE FROM images WHERE id = ?1", [&text])?;
            Ok(free)
        })
    }
}

fn in_use(id: &ImageId, holder: &Node) -> Error {
    let short: String = holder.id.chars().take(12).collect();
    let message = format!("image {} is used by {} {short}", id.short(), holder.kind.as_str());
    Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Image, id.to_string())
}

/// A row of a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct NameRow {
    platform: String,
    image: String,
    top: String,
}

fn rows_of(store: &Connection, name: &Reference) -> rusqlite::Result<Vec<NameRow>> {
    let mut query =
        store.prepare_cached("SELECT platform, image, top FROM image_names WHERE name = ?1 ORDER BY platform")?;
    let rows = query.query_map([name.to_string()], |row| {
        Ok(NameRow {
            platform: row.get(0)?,
            image: row.get(1)?,
            top: row.get(2)?,
        })
    })?;
    rows.collect()
}

fn insert(store: &Connection, name: &Reference, row: &NameRow) -> rusqlite::Result<()> {
    const SQL: &str =
        "INSERT OR REPLACE INTO image_names (name, platform, image, top, by_digest) VALUES (?1, ?2, ?3, ?4, ?5)";
    let NameRow { platform, image, top } = row;
    let by_digest = name.digest().is_some();
    store
        .prepare_cached(SQL)?
        .execute(params![name.to_string(), platform, image, top, by_digest])?;
    Ok(())
}

/// Points a name at an image for one platform, and away from whatever is of another index. Whether that changed anything,
/// and indexes that the name stands for no longer.
fn point(store: &Connection, name: &Reference, id: &ImageId, sign: &Sign) -> rusqlite::Result<(bool, Vec<Node>)> {
    let row = NameRow {
        platform: sign.platform.to_string(),
        image: id.to_string(),
        top: sign.top.to_string(),
    };
    let before = rows_of(store, name)?;
    let others = before.iter().any(|other| other.top != row.top);
    if before.contains(&row) && !others {
        return Ok((false, Vec::new()));
    }
    let sql = "DELETE FROM image_names WHERE name = ?1 AND (top <> ?2 OR image = ?3)";
    store.execute(sql, params![name.to_string(), row.top, row.image])?;
    insert(store, name, &row)?;
    Ok((true, settle(store, name, &before)?))
}

/// A name holds the index that it stands for; an image's own manifest is held by the image. Returns indexes that it held
/// before.
fn settle(store: &Connection, name: &Reference, before: &[NameRow]) -> rusqlite::Result<Vec<Node>> {
    let holder = Node::name(name);
    refs::remove_all_of(store, &holder)?;
    let now = rows_of(store, name)?;
    for row in &now {
        let id = row.image.parse().map_err(|error| bad_value(1, error))?;
        let own = image_in(store, &id)?.map(|record| record.manifest.digest.to_string());
        if own.as_ref() != Some(&row.top) {
            refs::add(store, &holder, &Node::new(NodeKind::Blob, row.top.clone()))?;
        }
    }
    let mut freed: Vec<Node> = before
        .iter()
        .filter(|row| now.iter().all(|other| other.top != row.top))
        .map(|row| Node::new(NodeKind::Blob, row.top.clone()))
        .collect();
    freed.dedup();
    Ok(freed)
}

fn done(changed: bool) -> Outcome {
    if changed { Outcome::Done } else { Outcome::Already }
}

fn image_in(store: &Connection, id: &ImageId) -> rusqlite::Result<Option<ImageRecord>> {
    let mut query = store.prepare_cached("SELECT body FROM images WHERE id = ?1")?;
    query.query_row([id.to_string()], record_of).optional()
}

pub(super) fn image_is_here(store: &Connection, id: &ImageId) -> rusqlite::Result<bool> {
    let mut query = store.prepare_cached("SELECT EXISTS (SELECT 1 FROM images WHERE id = ?1)")?;
    query.query_row([id.to_string()], |row| row.get(0))
}

fn record_of(row: &Row<'_>) -> rusqlite::Result<ImageRecord> {
    let body: String = row.get(0)?;
    serde_json::from_slice(body.as_bytes()).map_err(|error| bad_value(0, error))
}

fn all_records(store: &Connection) -> rusqlite::Result<Vec<ImageRecord>> {
    let mut statement = store.prepare("SELECT body FROM images")?;
    let rows = statement.query_map([], record_of)?;
    rows.collect()
}

fn all_names(store: &Connection) -> rusqlite::Result<HashMap<ImageId, Vec<Reference>>> {
    let mut statement = store.prepare("SELECT DISTINCT image, name FROM image_names ORDER BY name")?;
    let rows = statement.query_map([], |row| Ok((parse::<ImageId>(row, 0)?, parse::<Reference>(row, 1)?)))?;
    let mut names: HashMap<ImageId, Vec<Reference>> = HashMap::new();
    for row in rows {
        let (id, name) = row?;
        names.entry(id).or_default().push(name);
    }
    Ok(names)
}

fn names_of(store: &Connection, id: &ImageId) -> rusqlite::Result<Vec<Reference>> {
    let mut statement = store.prepare_cached("SELECT DISTINCT name FROM image_names WHERE image = ?1 ORDER BY name")?;
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
