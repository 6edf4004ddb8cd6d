//! From what a user types to an image.

use super::local::LocalImages;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::store::{ImageRecord, NamedImage, Sign, Store};
use crate::types::{ImageId, Platform, Reference};

/// An image, and the name it was found by, if by a name.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) record: ImageRecord,
    pub(super) name: Option<Reference>,
}

impl LocalImages {
    pub(super) async fn find(&self, image: &str) -> Result<Found> {
        let image = image.to_owned();
        self.parts.store.call(move |store| find(store, &image)).await
    }
}

/// Looks an image up. Blocking.
pub(super) fn find(store: &Store, text: &str) -> Result<Found> {
    if let Some(id) = whole_id(text) {
        let record = store.image(&id)?.ok_or_else(|| missing(text))?;
        return Ok(Found { record, name: None });
    }
    if let Ok(name) = text.parse::<Reference>()
        && let Some(found) = by_name(store, &name)?
    {
        return Ok(found);
    }
    let mut records = store.images_by_prefix(text)?;
    match (records.pop(), records.is_empty()) {
        (Some(record), true) => Ok(Found { record, name: None }),
        (Some(_), false) => Err(ambiguous(text)),
        (None, _) => Err(missing(text)),
    }
}

/// All that a text names, one image for each platform, the best for this host first. Never empty. Blocking.
pub(super) fn find_all(store: &Store, text: &str) -> Result<(Vec<NamedImage>, Option<Reference>)> {
    let found = find(store, text)?;
    let Some(name) = found.name else {
        let sign = Sign::of(&found.record);
        let record = found.record;
        return Ok((vec![NamedImage { record, sign }], None));
    };
    let all = store.images_by_name(&name)?;
    if all.is_empty() {
        return Err(missing(text));
    }
    Ok((all, Some(name)))
}

/// Those for a platform, if one is asked for.
///
/// # Errors
/// `NotFound` naming the platforms that are here.
pub(super) fn fitting(all: Vec<NamedImage>, platform: Option<&Platform>, shown: &str) -> Result<Vec<NamedImage>> {
    let Some(platform) = platform else { return Ok(all) };
    let here: Vec<String> = all.iter().map(|one| one.sign.platform.to_string()).collect();
    let mut fit = all;
    fit.retain(|one| platform.accepts(&one.sign.platform));
    if fit.is_empty() {
        let here = here.join(", ");
        let message = format!("{shown} is not here for {platform}; available platforms: {here}");
        return Err(Error::new(ErrorKind::NotFound, message).with_object(ObjectKind::Image, shown));
    }
    Ok(fit)
}

/// Looks a name up for a platform, if one is asked for. Blocking.
pub(super) fn by_name_for(store: &Store, name: &Reference, platform: Option<&Platform>) -> Result<Option<ImageRecord>> {
    let Some(found) = by_name(store, name)? else {
        return Ok(None);
    };
    let Some(platform) = platform else {
        return Ok(Some(found.record));
    };
    let Some(name) = found.name else {
        return Ok(Some(found.record).filter(|record| platform.accepts(&record.platform)));
    };
    let all = store.images_by_name(&name)?;
    let fit = all.into_iter().find(|one| platform.accepts(&one.sign.platform));
    Ok(fit.map(|one| one.record))
}

/// Looks a name up; of a name with tag and digest, the digest counts. Blocking.
pub(super) fn by_name(store: &Store, name: &Reference) -> Result<Option<Found>> {
    let Some(digest) = name.digest() else {
        return Ok(store.image_by_name(name)?.map(|record| Found {
            record,
            name: Some(name.clone()),
        }));
    };
    let pinned = name.pinned(&digest);
    if let Some(record) = store.image_by_name(&pinned)? {
        return Ok(Some(Found {
            record,
            name: Some(pinned),
        }));
    }
    // The name has the digest of the index it was pulled by; the digest of the manifest means the same image.
    let same_repository = |other: &Reference| other.host() == name.host() && other.repository() == name.repository();
    let mut all = store
        .images()?
        .into_iter()
        .filter(|entry| entry.record.manifest.digest == digest);
    let entry = all.find(|entry| entry.tags.iter().chain(&entry.digests).any(same_repository));
    Ok(entry.map(|entry| Found {
        record: entry.record,
        name: None,
    }))
}

pub(super) fn missing(text: &str) -> Error {
    Error::not_found(ObjectKind::Image, text)
}

pub(super) fn whole_id(text: &str) -> Option<ImageId> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    format!("sha256:{digits}").parse().ok()
}

fn ambiguous(text: &str) -> Error {
    let message = format!("several images have an id that begins with {text}: give more of it");
    Error::new(ErrorKind::InvalidArgument, message).with_object(ObjectKind::Image, text)
}
