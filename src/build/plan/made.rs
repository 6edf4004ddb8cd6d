//! Steps without a Dockerfile.

use super::args::within;
use super::resolve::{StageState, Steps};
use super::step::{Action, AddAction, CopyAction, FileContent, HealthAction, RunAction, Step};
use super::{PortRange, actions, paths};
use crate::build::dockerfile::{Dockerfile, Span};
use crate::error::{Error, Result};
use crate::types::Signal;

/// Makes the steps of a stage in Rust: the same as those of a Dockerfile that says so.
///
/// ```
/// use longshore::build::{CopyAction, Dockerfile, Plan, PlanOptions, StageBuilder, StageState};
///
/// let made = StageBuilder::new(StageState::scratch())
///     .env("MODE", "fast")
///     .copy(CopyAction::new(["app"], "/bin/"))
///     .entrypoint(["/bin/app"])
///     .finish()?;
///
/// let file = Dockerfile::parse("FROM scratch\nENV MODE=fast\nCOPY app /bin/\nENTRYPOINT [\"/bin/app\"]")?;
/// let read = Plan::new(&file, &PlanOptions::new())?.steps(0, StageState::scratch())?;
/// let actions = |steps: Vec<longshore::build::Step>| steps.into_iter().map(|step| step.action).collect::<Vec<_>>();
/// assert_eq!(actions(made.steps), actions(read.steps));
/// # Ok::<(), longshore::Error>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct StageBuilder {
    state: StageState,
    steps: Vec<Step>,
    failed: Option<Error>,
}

impl StageBuilder {
    /// Begins where an image, or another stage, ends.
    pub fn new(before: StageState) -> Self {
        let mut state = before;
        state.begin();
        Self::going_on(state)
    }

    /// Goes on behind steps of the same stage.
    pub(super) fn going_on(state: StageState) -> Self {
        Self {
            state,
            steps: Vec::new(),
            failed: None,
        }
    }

    /// A variable of the steps that follow and of containers.
    pub fn env(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.action(Action::Env(vec![(name.into(), value.into())]))
    }

    /// A variable of the steps that follow alone.
    pub fn arg(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.action(Action::Arg(vec![(name.into(), Some(value.into()))]))
    }

    /// A label of the image.
    pub fn label(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.action(Action::Label(vec![(name.into(), value.into())]))
    }

    /// Where what follows runs.
    pub fn workdir(self, path: impl Into<String>) -> Self {
        self.action(Action::Workdir(path.into()))
    }

    /// Who runs what follows.
    pub fn user(self, user: impl Into<String>) -> Self {
        self.action(Action::User(user.into()))
    }

    /// A program with its arguments.
    pub fn run<S: Into<String>>(self, args: impl IntoIterator<Item = S>) -> Self {
        self.action(Action::Run(RunAction::new(args)))
    }

    /// A line for the shell in force.
    pub fn run_shell(self, line: &str) -> Self {
        let args = self.state.in_shell(line);
        self.run(args)
    }

    /// The same, with more said of it: what is mounted, say.
    ///
    /// ```
    /// use longshore::build::{MountAction, StageBuilder, StageState};
    /// let steps = StageBuilder::new(StageState::scratch())
    ///     .run_shell_with("make -C /src", |run| run.mount(MountAction::bind("/src")).mount(MountAction::cache("/root/.cache")))
    ///     .finish()?;
    /// # Ok::<(), longshore::Error>(())
    /// ```
    pub fn run_shell_with(self, line: &str, say: impl FnOnce(RunAction) -> RunAction) -> Self {
        let run = RunAction::new(self.state.in_shell(line));
        self.action(Action::Run(say(run)))
    }

    /// Files of the context, a stage or an image.
    pub fn copy(self, copy: CopyAction) -> Self {
        self.action(Action::Copy(copy))
    }

    /// Files of the context, of URLs or of repositories.
    pub fn add_files(self, add: AddAction) -> Self {
        self.action(Action::Add(add))
    }

    /// What containers run.
    pub fn cmd<S: Into<String>>(self, args: impl IntoIterator<Item = S>) -> Self {
        self.action(Action::Cmd(args.into_iter().map(Into::into).collect()))
    }

    /// What containers run, with `cmd` as arguments.
    pub fn entrypoint<S: Into<String>>(self, args: impl IntoIterator<Item = S>) -> Self {
        self.action(Action::Entrypoint(args.into_iter().map(Into::into).collect()))
    }

    /// What runs the lines of `run_shell`.
    pub fn shell<S: Into<String>>(self, args: impl IntoIterator<Item = S>) -> Self {
        self.action(Action::Shell(args.into_iter().map(Into::into).collect()))
    }

    /// Ports that containers listen on.
    pub fn expose(self, ports: impl IntoIterator<Item = PortRange>) -> Self {
        self.action(Action::Expose(ports.into_iter().collect()))
    }

    /// A directory that becomes a volume.
    pub fn volume(self, path: impl Into<String>) -> Self {
        self.action(Action::Volume(vec![path.into()]))
    }

    /// The signal that stops containers.
    pub fn stop_signal(self, signal: impl Into<String>) -> Self {
        self.action(Action::StopSignal(signal.into()))
    }

    /// How health is told.
    pub fn healthcheck(self, check: HealthAction) -> Self {
        self.action(Action::Healthcheck(check))
    }

    /// An instruction for builds upon the image.
    pub fn onbuild(self, instruction: impl Into<String>) -> Self {
        self.action(Action::Onbuild(instruction.into()))
    }

    /// Any step.
    pub fn action(mut self, action: Action) -> Self {
        if self.failed.is_some() {
            return self;
        }
        match self.checked(action) {
            Ok(action) => self.steps.push(Step {
                action,
                span: Span::default(),
                text: String::new(),
                triggered: false,
            }),
            Err(error) => {
                let place = format!("step {} cannot be: ", self.steps.len() + 1);
                self.failed = Some(Error::invalid(place + &error.to_string()).with_source(error));
            }
        }
        self
    }

    /// The steps, and what holds behind them.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` with the number of the first step that can never work.
    pub fn finish(self) -> Result<Steps> {
        match self.failed {
            Some(error) => Err(error),
            None => Ok(Steps {
                steps: self.steps,
                after: self.state,
            }),
        }
    }

    /// An action as a Dockerfile gives it: paths absolute, the state changed.
    fn checked(&mut self, action: Action) -> Result<Action> {
        let directory = self.state.working_dir.clone();
        Ok(match action {
            Action::Env(pairs) => {
                pairs.iter().try_for_each(|(name, value)| self.variable(name, value))?;
                pairs.iter().for_each(|(name, value)| self.state.set_env(name, value));
                self.room()?;
                Action::Env(pairs)
            }
            Action::Arg(found) => {
                for (name, value) in &found {
                    self.variable(name, value.as_deref().unwrap_or_default())?;
                    self.state.arguments.insert(name.clone());
                    value.iter().for_each(|value| self.state.set_argument(name, value));
                }
                self.room()?;
                Action::Arg(found)
            }
            Action::Workdir(path) => {
                self.state.working_dir = paths::working_dir(&directory, &path);
                Action::Workdir(self.state.working_dir.clone())
            }
            Action::Shell(args) => {
                some(&args, "a shell without a program")?;
                self.state.shell.clone_from(&args);
                Action::Shell(args)
            }
            Action::Copy(mut copy) => {
                sources(&copy.sources)?;
                copy.destination = paths::destination(&directory, &copy.written);
                Action::Copy(copy)
            }
            Action::Add(mut add) => {
                sources(&add.sources)?;
                add.destination = paths::destination(&directory, &add.written);
                Action::Add(add)
            }
            Action::Run(mut run) => {
                some(&run.args, "a command without a program")?;
                for action in &mut run.mounts {
                    actions::check(action, &directory)?;
                }
                Action::Run(run)
            }
            Action::StopSignal(signal) => signal.parse::<Signal>().map(|_| Action::StopSignal(signal))?,
            Action::Onbuild(text) => Dockerfile::trigger(&text).map(|_| Action::Onbuild(text))?,
            Action::Volume(paths) if paths.iter().any(|path| path.trim().is_empty()) => {
                return Err(Error::invalid("a volume without a path"));
            }
            Action::Label(pairs) if pairs.iter().any(|(name, _)| name.is_empty()) => {
                return Err(Error::invalid("a label without a name"));
            }
            other => other,
        })
    }

    fn variable(&self, name: &str, value: &str) -> Result<()> {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(Error::invalid(format!("{name:?} cannot be a variable with that value")));
        }
        Ok(())
    }

    fn room(&self) -> Result<()> {
        within(&self.state.env, Span::default()).map_err(|fault| fault.into_error("steps"))
    }
}

fn some(args: &[String], problem: &'static str) -> Result<()> {
    if args.is_empty() {
        return Err(Error::invalid(problem));
    }
    Ok(())
}

fn sources(sources: &[FileContent]) -> Result<()> {
    if sources.is_empty() {
        return Err(Error::invalid("files to copy, but no source"));
    }
    Ok(())
}
