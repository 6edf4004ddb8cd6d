//! What steps make of an image's config and history. Pure.
//!
//! The config and the words of the history are BuildKit's (`frontend/dockerfile/dockerfile2llb`), so that the same Dockerfile
//! gives the same image there and here.

mod go;
mod history;
#[cfg(test)]
mod tests;

use super::plan::{Action, HealthAction, PATH, Step};
use crate::images::{HealthConfig, HistoryEntry, RunConfig};

/// An image while its steps are applied one after the other.
///
/// ```
/// use longshore::build::{Assembly, Dockerfile, Plan, PlanOptions, StageState};
///
/// let file = Dockerfile::parse("FROM scratch\nENV A=1\nCMD [\"/a\"]")?;
/// let plan = Plan::new(&file, &PlanOptions::new())?;
/// let mut image = Assembly::scratch();
/// for step in plan.steps(0, StageState::scratch())?.steps {
///     image.apply(&step);
/// }
/// assert_eq!(image.config.cmd.as_deref(), Some(&["/a".to_owned()][..]));
/// assert_eq!(image.history[0].created_by.as_deref(), Some("ENV A=1"));
/// # Ok::<(), longshore::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Assembly {
    /// Who built it.
    pub author: Option<String>,
    /// What containers of it run.
    pub config: RunConfig,
    /// How it was built, without times.
    pub history: Vec<HistoryEntry>,
    /// Arguments as the history of `RUN` shows them, in the order in which they were declared.
    arguments: Vec<(String, String)>,
    cmd_given: bool,
}

impl Assembly {
    /// An image of nothing.
    pub fn scratch() -> Self {
        let config = RunConfig {
            working_dir: Some("/".to_owned()),
            ..RunConfig::default()
        };
        Self::on(None, config, Vec::new())
    }

    /// An image upon another, with what its config says.
    pub fn on(author: Option<String>, config: RunConfig, history: Vec<HistoryEntry>) -> Self {
        let mut image = Self {
            author,
            config,
            history,
            arguments: Vec::new(),
            cmd_given: false,
        };
        image.config.on_build = None;
        let env = image.config.env.get_or_insert_default();
        if !env.iter().any(|pair| pair.starts_with("PATH=")) {
            env.push(format!("PATH={PATH}"));
        }
        image
    }

    /// A stage upon this one: its triggers are not handed on, its arguments are, but where `ENV` says something else.
    #[must_use]
    pub fn next_stage(&self) -> Self {
        let mut next = self.clone();
        next.config.on_build = None;
        next.cmd_given = false;
        for pair in next.config.env.iter().flatten() {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if let Some((_, shown)) = next.arguments.iter_mut().find(|(argument, _)| argument == name) {
                value.clone_into(shown);
            }
        }
        next
    }

    /// Applies a step: the config has it, and the history tells of it. What `RUN`, `COPY` and `ADD` do to files is no
    /// business of this.
    pub fn apply(&mut self, step: &Step) {
        let action = &step.action;
        self.change(action);
        if let Some(told) = history::told(action, &self.arguments) {
            self.history.push(HistoryEntry {
                created_by: Some(told),
                comment: Some(history::COMMENT.to_owned()),
                empty_layer: !makes_layer(action),
                ..HistoryEntry::default()
            });
        }
    }

    fn change(&mut self, action: &Action) {
        let config = &mut self.config;
        match action {
            Action::Arg(found) => found
                .iter()
                .for_each(|(name, value)| self.argument(name, value.as_deref())),
            Action::Author(author) => self.author = Some(author.clone()),
            Action::Cmd(args) => {
                config.cmd = some(args);
                self.cmd_given = true;
            }
            Action::Entrypoint(args) => {
                config.entrypoint = some(args);
                // What the base runs is no argument for another program.
                if !self.cmd_given {
                    config.cmd = None;
                }
            }
            Action::Env(pairs) => pairs.iter().for_each(|(name, value)| self.env(name, value)),
            Action::Expose(ranges) => {
                let ports = ranges.iter().flat_map(|range| range.each());
                add(&mut config.exposed_ports, ports);
            }
            Action::Healthcheck(check) => config.healthcheck = Some(health(check)),
            Action::Label(pairs) => config.labels.get_or_insert_default().extend(pairs.iter().cloned()),
            Action::Onbuild(trigger) => config.on_build.get_or_insert_default().push(trigger.clone()),
            Action::Shell(args) => config.shell = Some(args.clone()),
            Action::StopSignal(signal) => config.stop_signal = Some(signal.clone()),
            Action::User(user) => config.user = Some(user.clone()).filter(|user| !user.is_empty()),
            Action::Volume(paths) => add(&mut config.volumes, paths.iter().cloned()),
            Action::Workdir(path) => config.working_dir = Some(path.clone()),
            Action::Add(_) | Action::Copy(_) | Action::Run(_) => {}
        }
    }

    fn env(&mut self, name: &str, value: &str) {
        let env = self.config.env.get_or_insert_default();
        let pair = format!("{name}={value}");
        match env.iter_mut().find(|old| old.split('=').next() == Some(name)) {
            Some(old) => *old = pair,
            None => env.push(pair),
        }
        if let Some((_, shown)) = self.arguments.iter_mut().find(|(argument, _)| argument == name) {
            value.clone_into(shown);
        }
    }

    /// An argument without a value shows the variable of its name.
    fn argument(&mut self, name: &str, value: Option<&str>) {
        let known = self.arguments.iter().position(|(argument, _)| argument == name);
        let env = self.config.env.iter().flatten();
        let mut of_env = env
            .filter_map(|pair| pair.split_once('='))
            .filter(|(variable, _)| *variable == name);
        match (known.and_then(|at| self.arguments.get_mut(at)), value) {
            (Some((_, shown)), Some(value)) => value.clone_into(shown),
            (Some(_), None) => {}
            (None, value) => {
                let value = value
                    .or_else(|| of_env.next().map(|(_, value)| value))
                    .unwrap_or_default();
                self.arguments.push((name.to_owned(), value.to_owned()));
            }
        }
    }
}

/// Whether a step makes a layer, even an empty one. The root is there already.
fn makes_layer(action: &Action) -> bool {
    match action {
        Action::Add(_) | Action::Copy(_) | Action::Run(_) => true,
        Action::Workdir(path) => path != "/",
        _ => false,
    }
}

/// A config has no empty lists.
fn some(args: &[String]) -> Option<Vec<String>> {
    (!args.is_empty()).then(|| args.to_vec())
}

/// Adds to a set that is kept in order.
fn add(set: &mut Option<Vec<String>>, found: impl Iterator<Item = String>) {
    let mut found = found.peekable();
    if found.peek().is_none() {
        return;
    }
    let set = set.get_or_insert_default();
    set.extend(found);
    set.sort();
    set.dedup();
}

fn health(check: &HealthAction) -> HealthConfig {
    let nanoseconds = |duration: std::time::Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    HealthConfig {
        test: check.test.clone(),
        interval_ns: nanoseconds(check.interval),
        timeout_ns: nanoseconds(check.timeout),
        start_period_ns: nanoseconds(check.start_period),
        start_interval_ns: nanoseconds(check.start_interval),
        retries: i64::from(check.retries),
    }
}
