//! Filters of list verbs.

use std::collections::BTreeMap;

/// Docker's filters: a key with the values that match. Values of one key are alternatives, keys must all match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    terms: BTreeMap<String, Vec<String>>,
}

impl Filter {
    /// A filter that lets everything pass.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value that matches for a key.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.terms.entry(key.into()).or_default().push(value.into());
        self
    }

    /// The values given for a key.
    pub fn values(&self, key: &str) -> &[String] {
        self.terms.get(key).map_or(&[], Vec::as_slice)
    }

    /// All keys that were given.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.terms.keys().map(String::as_str)
    }
}
