//! What holds at some line of a stage.

use std::collections::{BTreeMap, BTreeSet};

use crate::build::expand::Env;

/// What steps leave for those behind them: variables, the working directory, the shell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StageState {
    pub(in crate::build::plan) env: Env,
    /// What `ARG` has declared, with or without a value.
    pub(in crate::build::plan) arguments: BTreeSet<String>,
    /// Variables that are there by `ARG` alone.
    bare: BTreeSet<String>,
    /// Values of `ENV`, and of the base, that `ARG` hides until the stage ends.
    hidden: BTreeMap<String, String>,
    pub(in crate::build::plan) working_dir: String,
    pub(in crate::build::plan) shell: Vec<String>,
    pub(in crate::build::plan) triggers: Vec<String>,
}

/// What containers search without a `PATH` of their image's, as in Docker.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs the shell form where neither the file nor the base image says what does.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

impl StageState {
    /// At the beginning of a stage `FROM scratch`.
    pub fn scratch() -> Self {
        let mut state = Self::default();
        state.env.set("PATH", PATH);
        state
    }

    /// At the beginning of a stage on an image with these variables.
    pub fn image<N: AsRef<str>, V: AsRef<str>>(env: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut state = Self::scratch();
        for (name, value) in env {
            state.env.set(name.as_ref(), value.as_ref());
        }
        state
    }

    /// The working directory of the image's config.
    #[must_use]
    pub fn working_dir(mut self, path: impl Into<String>) -> Self {
        self.working_dir = path.into();
        self
    }

    /// The shell of the image's config.
    #[must_use]
    pub fn shell<S: Into<String>>(mut self, shell: impl IntoIterator<Item = S>) -> Self {
        self.shell = shell.into_iter().map(Into::into).collect();
        self
    }

    /// The triggers of the image's config, `OnBuild`.
    #[must_use]
    pub fn triggers<S: Into<String>>(mut self, triggers: impl IntoIterator<Item = S>) -> Self {
        self.triggers = triggers.into_iter().map(Into::into).collect();
        self
    }

    /// A stage begins: what the config says is in force again.
    pub(in crate::build::plan) fn begin(&mut self) {
        for (name, value) in std::mem::take(&mut self.hidden) {
            self.env.set(&name, &value);
        }
    }

    /// A variable of the config.
    pub(in crate::build::plan) fn set_env(&mut self, name: &str, value: &str) {
        self.bare.remove(name);
        self.hidden.remove(name);
        self.env.set(name, value);
    }

    /// A variable of the build alone.
    pub(in crate::build::plan) fn set_argument(&mut self, name: &str, value: &str) {
        match self.env.get(name) {
            None => drop(self.bare.insert(name.to_owned())),
            Some(_) if self.bare.contains(name) || self.hidden.contains_key(name) => {}
            Some(old) => drop(self.hidden.insert(name.to_owned(), old.to_owned())),
        }
        self.env.set(name, value);
    }

    /// A line as the shell in force runs it.
    pub(in crate::build::plan) fn in_shell(&self, line: &str) -> Vec<String> {
        let given = self.shell.iter().map(String::as_str);
        let default = SHELL.into_iter().filter(|_| self.shell.is_empty());
        given.chain(default).chain([line]).map(str::to_owned).collect()
    }

    /// What the variables take.
    pub(crate) fn bytes(&self) -> usize {
        self.env.bytes()
    }

    /// The variables in force, in the order in which they were first set.
    pub fn env(&self) -> impl Iterator<Item = (&str, &str)> {
        self.env.pairs()
    }
}
