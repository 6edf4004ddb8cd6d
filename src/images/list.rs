//! `list`: images that are here.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::SystemTime;

use super::local::{LocalImages, time_of};
use super::{ImageSummary, borrow, lookup, prune, when};
use crate::error::{Error, Result};
use crate::store::ImageEntry;
use crate::sys::order;
use crate::types::{Filter, Reference};

const KEYS: &[&str] = &["reference", "dangling", "label", "label!", "before", "since", "until"];

impl LocalImages {
    pub(super) async fn list_matching(&self, filter: Filter) -> Result<Vec<ImageSummary>> {
        check_keys(&filter, KEYS)?;
        let dangling = dangling(&filter)?;
        for name in ["before", "since"].iter().flat_map(|key| filter.values(key)) {
            self.bring(name).await?;
        }
        let (wanted, parts) = (filter.clone(), Arc::clone(&self.parts));
        let entries = self.parts.store.call(move |store| {
            let mut entries = store.images()?;
            if !parts.additional.is_empty() {
                entries.extend(borrow::entries(&parts, &entries));
                order::sort_by_key(&mut entries, |entry| {
                    Reverse((entry.record.pulled_at_ns, entry.record.id))
                });
            }
            for (key, newer) in [("before", false), ("since", true)] {
                for name in wanted.values(key) {
                    let limit = lookup::find(store, name)?.record.pulled_at_ns;
                    entries.retain(|entry| {
                        if newer {
                            entry.record.pulled_at_ns > limit
                        } else {
                            entry.record.pulled_at_ns < limit
                        }
                    });
                }
            }
            Ok(entries)
        });
        let mut entries = entries.await?;
        entries.retain(|entry| dangling.is_none_or(|wanted| entry.tags.is_empty() == wanted));
        let patterns = filter.values("reference");
        entries.retain(|entry| {
            patterns.is_empty() || names(entry).any(|name| patterns.iter().any(|pattern| is_like(name, pattern)))
        });
        let untils = filter.values("until").iter();
        for until in untils
            .map(|text| when::moment(text, SystemTime::now()))
            .collect::<Result<Vec<_>>>()?
        {
            entries.retain(|entry| prune::created(entry) <= until);
        }
        let entries = self.with_labels(entries, &filter).await?;
        Ok(entries.into_iter().map(summary).collect())
    }

    /// Those whose config has all the labels of a filter, given as `name` or `name=value`, and none of `label!`.
    pub(super) async fn with_labels(&self, entries: Vec<ImageEntry>, filter: &Filter) -> Result<Vec<ImageEntry>> {
        let (wanted, unwanted) = (filter.values("label"), filter.values("label!"));
        if wanted.is_empty() && unwanted.is_empty() {
            return Ok(entries);
        }
        let mut out = Vec::new();
        for entry in entries {
            let config = self.read_config(&entry.record.config).await?;
            let labels = config.config.labels.unwrap_or_default();
            let has = |text: &String| match text.split_once('=') {
                Some((name, value)) => labels.get(name).is_some_and(|is| is == value),
                None => labels.contains_key(text),
            };
            if wanted.iter().all(has) && !unwanted.iter().any(has) {
                out.push(entry);
            }
        }
        Ok(out)
    }
}

/// Refuses filters that do not exist.
pub(super) fn check_keys(filter: &Filter, known: &[&str]) -> Result<()> {
    match filter.keys().find(|key| !known.contains(key)) {
        None => Ok(()),
        Some(key) => Err(Error::invalid(format!(
            "invalid filter {key:?} (there are {})",
            known.join(", ")
        ))),
    }
}

fn names(entry: &ImageEntry) -> impl Iterator<Item = &Reference> {
    entry.tags.iter().chain(&entry.digests)
}

pub(super) fn dangling(filter: &Filter) -> Result<Option<bool>> {
    match filter.values("dangling") {
        [] => Ok(None),
        [one] if matches!(one.as_str(), "true" | "1") => Ok(Some(true)),
        [one] if matches!(one.as_str(), "false" | "0") => Ok(Some(false)),
        other => Err(Error::invalid(format!(
            "invalid filter dangling={other:?} (true or false)"
        ))),
    }
}

fn summary(entry: ImageEntry) -> ImageSummary {
    let record = entry.record;
    ImageSummary {
        id: record.id,
        tags: entry.tags,
        digests: entry.digests,
        platform: record.platform,
        created: record.created,
        size_bytes: record.size,
        pulled_at: time_of(record.pulled_at_ns),
        lent_by: record.lent_by,
    }
}

/// Docker's `reference` filter: the pattern fits the short name, with its tag or without.
fn is_like(name: &Reference, pattern: &str) -> bool {
    fits(pattern.as_bytes(), name.familiar().as_bytes())
        || fits(pattern.as_bytes(), name.familiar_repository().as_bytes())
}

/// `*` for any characters but a slash, `?` for one, as Go's `path.Match`. Without recursion: the last `*` takes one more
/// character whenever what follows it does not fit.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(b'?') if text[t] != b'/' => (p, t) = (p + 1, t + 1),
            Some(byte) if *byte == text[t] && *byte != b'?' => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) if text[from] != b'/' => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                _ => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_in_docker() {
        let name: Reference = "busybox:1.36".parse().unwrap();
        for pattern in [
            "busybox",
            "busy*",
            "*box",
            "b?sybox",
            "busybox:1*",
            "*:1.36",
            "busybox:1.36",
            "*",
        ] {
            assert!(is_like(&name, pattern), "{pattern}");
        }
        for pattern in ["", "busy", "box", "busybox:2*", "?", "docker.io/*"] {
            assert!(!is_like(&name, pattern), "{pattern}");
        }
        let name: Reference = "localhost:5000/team/app".parse().unwrap();
        assert!(is_like(&name, "localhost:5000/*/app") && is_like(&name, "*/*/*"));
        assert!(!is_like(&name, "*") && !is_like(&name, "*/app"));
    }
}
