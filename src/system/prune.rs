//! What a prune of everything takes, and what it came to. Pure.

use crate::error::{Error, ObjectKind, Result};
use crate::images::Removed;
use crate::types::{Digest, Filter, until};

const KNOWN_FILTERS: [&str; 3] = ["until", "label", "label!"];

/// What goes with a prune of everything: containers that do not run, networks that no container is on, images without a name,
/// and the steps of builds that no image has. More only if it is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PruneAll {
    /// Also images that have a name, where no container uses them, and all steps of builds.
    pub all: bool,
    /// Also anonymous volumes that no container uses.
    pub volumes: bool,
    /// `until`, `label`, `label!`.
    pub filter: Filter,
}

impl PruneAll {
    /// What nobody can miss.
    pub fn new() -> Self {
        Self::default()
    }

    /// Also images that have a name, where no container uses them, and all steps of builds.
    #[must_use]
    pub fn all(mut self) -> Self {
        self.all = true;
        self
    }

    /// Also anonymous volumes that no container uses.
    #[must_use]
    pub fn volumes(mut self) -> Self {
        self.volumes = true;
        self
    }

    /// Only what matches: `until`, `label`, `label!`.
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// Understood as a whole before anything is removed: a filter that one sort of things refuses would be told after
    /// another sort has gone.
    pub(crate) fn check(&self, now_ns: i64) -> Result<()> {
        let refused = |message: String| Err(Error::invalid(message).with_object(ObjectKind::Option, "filter"));
        if let Some(key) = self.filter.keys().find(|key| !KNOWN_FILTERS.contains(key)) {
            return refused(format!(
                "invalid filter {key:?}; known are {}",
                KNOWN_FILTERS.join(", ")
            ));
        }
        match self.filter.values("until") {
            [] => Ok(()),
            [_] if self.volumes => refused("volumes have no age: give either the filter until or volumes".to_owned()),
            [one] => until::parse(one, now_ns).map(drop),
            _ => refused("several until filters: give one".to_owned()),
        }
    }

    /// Steps of builds have no labels: where one is asked for, none of them is meant.
    #[cfg(all(feature = "engine", feature = "build"))]
    pub(crate) fn takes_steps(&self) -> bool {
        self.filter.values("label").is_empty()
    }
}

/// What a prune of everything removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrunedAll {
    /// Ids of containers.
    pub containers: Vec<String>,
    /// Names of networks.
    pub networks: Vec<String>,
    /// Names of volumes.
    pub volumes: Vec<String>,
    /// Names, images and layers.
    pub images: Vec<Removed>,
    /// Steps of builds.
    pub steps: Vec<Digest>,
    /// What all of it gave back, in bytes on disk. What two things shared counts once, with the one that went last.
    pub reclaimed_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k1_filters_are_understood_before_anything_goes() {
        let with = |key: &str, value: &str| PruneAll::new().filter(Filter::new().with(key, value));
        for good in [("until", "24h"), ("label", "a=b"), ("label!", "a")] {
            assert!(with(good.0, good.1).check(0).is_ok(), "{good:?}");
        }
        for bad in [("dangling", "true"), ("name", "x"), ("until", "soon"), ("until", "")] {
            assert!(with(bad.0, bad.1).check(0).is_err(), "{bad:?}");
        }
        assert!(with("label", "a").volumes().check(0).is_ok());
        assert!(with("until", "1h").volumes().check(0).is_err());
        let twice = Filter::new().with("until", "1h").with("until", "2h");
        assert!(PruneAll::new().filter(twice).check(0).is_err());
    }
}
