//! What holds at some line of a stage.

use std::collections::BTreeSet;

use crate::build::expand::Env;

/// What steps leave for those behind them: variables, the working directory, the shell.
#[derive(Debug, Clone, Default)]
pub struct StageState {
    pub(super) env: Env,
    /// What `ARG` has declared, with or without a value.
    pub(super) arguments: BTreeSet<String>,
    pub(super) working_dir: String,
    pub(super) shell: Vec<String>,
    pub(super) triggers: Vec<String>,
}

/// What containers search without a `PATH` of their image's, as in Docker.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

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

    /// What the variables take.
    pub(crate) fn bytes(&self) -> usize {
        self.env.bytes()
    }

    /// The variables in force, in the order in which they were first set.
    pub fn env(&self) -> impl Iterator<Item = (&str, &str)> {
        self.env.pairs()
    }
}
