//! Names and values, in the order in which they were first set.

use std::collections::HashMap;

/// The variables in force at some line of a Dockerfile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Env {
    pairs: Vec<(String, String)>,
    index: HashMap<String, usize>,
    bytes: usize,
}

impl Env {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let at = *self.index.get(name)?;
        self.pairs.get(at).map(|(_, value)| value.as_str())
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.bytes += value.len();
        if let Some((_, old)) = self.index.get(name).and_then(|at| self.pairs.get_mut(*at)) {
            self.bytes -= old.len();
            value.clone_into(old);
            return;
        }
        self.bytes += name.len();
        self.index.insert(name.to_owned(), self.pairs.len());
        self.pairs.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.pairs.iter().map(|(name, _)| name.as_str())
    }

    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// What all names and values take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Env {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(pairs: T) -> Self {
        let mut env = Self::default();
        for (name, value) in pairs {
            env.set(name.as_ref(), value.as_ref());
        }
        env
    }
}
