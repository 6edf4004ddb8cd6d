//! Puts the variables of a stage in, instruction by instruction.

mod config;
mod files;
mod run;
mod state;

pub use self::state::StageState;

use std::collections::BTreeSet;

use super::args::{self, Globals, PREDEFINED};
use super::graph::{self, Names, PlannedStage};
use super::{Action, Plan, PlanOptions, Step};
use crate::build::dockerfile::{Argument, Command, Dockerfile, Fault, Instruction, Parsed, Span, Word};
use crate::build::expand::{self, Style};
use crate::build::limits;

/// The steps of a stage.
#[derive(Debug, Clone)]
pub struct Steps {
    /// What to do, in order.
    pub steps: Vec<Step>,
    /// What holds behind the last of them: what a stage based on this one begins with.
    pub after: StageState,
}

/// A variable that is used and has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Undefined {
    pub(crate) name: String,
    /// The instruction.
    pub(crate) span: Span,
    /// A variable that there is, and that may be meant.
    pub(crate) nearest: Option<String>,
}

/// Resolves the instructions of one stage.
pub(crate) struct Resolver<'a> {
    file: &'a Dockerfile,
    options: &'a PlanOptions,
    globals: &'a Globals,
    stages: &'a [PlannedStage],
    names: &'a Names,
    state: StageState,
    /// Bytes that words may still become.
    budget: usize,
    /// The instruction being resolved.
    at: Span,
    /// What was used without a value, once an instruction.
    pub(crate) undefined: Vec<Undefined>,
    /// The first `WORKDIR`, its variables put in.
    pub(crate) first_workdir: Option<(Span, String)>,
    /// The names of them that the instruction being resolved has.
    told: BTreeSet<String>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(plan: &'a Plan<'_>, before: StageState) -> Self {
        Self {
            file: plan.file,
            options: &plan.options,
            globals: &plan.globals,
            stages: &plan.stages,
            names: &plan.names,
            state: before,
            budget: limits::PLAN_BYTES,
            at: Span::default(),
            undefined: Vec::new(),
            told: BTreeSet::new(),
            first_workdir: None,
        }
    }

    pub(crate) fn stage(mut self, number: usize) -> Parsed<Steps> {
        let steps = self.steps(number)?;
        Ok(Steps {
            steps,
            after: self.state,
        })
    }

    /// The steps; what holds behind them stays in the resolver.
    pub(crate) fn steps(&mut self, number: usize) -> Parsed<Vec<Step>> {
        let (Some(stage), Some(planned)) = (self.file.stages().get(number), self.stages.get(number)) else {
            let problem = format!("there is no stage {number}");
            return Err(Fault::new(Span::default(), problem, "a stage of the file"));
        };
        let mut steps = Vec::new();
        if let graph::Base::Context { replaces: true, .. } = planned.base {
            return Ok(steps);
        }
        self.triggers(planned, stage.opening.span, &mut steps)?;
        for instruction in &stage.instructions {
            self.instruction(instruction, instruction.span, false, &mut steps)?;
        }
        Ok(steps)
    }

    pub(crate) fn state(&self) -> &StageState {
        &self.state
    }

    /// What the base wants done first: an image's triggers are texts, a stage's are parsed.
    fn triggers(&mut self, planned: &PlannedStage, span: Span, steps: &mut Vec<Step>) -> Parsed<()> {
        for text in std::mem::take(&mut self.state.triggers) {
            let instruction = Dockerfile::trigger(&text, self.file.escape()).map_err(|error| {
                let expected = "an image with triggers that can be parsed, or another image";
                Fault::new(span, format!("the base image has a bad trigger: {error}"), expected)
            })?;
            self.instruction(&instruction, span, true, steps)?;
        }
        if let graph::Base::Stage(below) = planned.base {
            for instruction in graph::triggers(self.file, below) {
                self.instruction(instruction, instruction.span, true, steps)?;
            }
        }
        Ok(())
    }

    fn instruction(
        &mut self,
        instruction: &Instruction,
        span: Span,
        triggered: bool,
        steps: &mut Vec<Step>,
    ) -> Parsed<()> {
        self.at = span;
        self.told.clear();
        let mut push = |action: Action| {
            steps.push(Step {
                action,
                span,
                text: instruction.text.clone(),
                triggered,
            });
        };
        if let Command::Arg(arguments) = &instruction.command {
            for argument in arguments {
                push(self.argument(argument)?);
            }
        } else {
            push(self.action(&instruction.command)?);
        }
        Ok(())
    }

    fn action(&mut self, command: &Command) -> Parsed<Action> {
        match command {
            Command::Add(add) => self.add(add),
            Command::Cmd(line) => Ok(Action::Cmd(self.with_shell(line))),
            Command::Copy(copy) => self.copy(copy),
            Command::Entrypoint(line) => Ok(Action::Entrypoint(self.with_shell(line))),
            Command::Env(pairs) => self.env(pairs),
            Command::Expose(ports) => self.expose(ports),
            Command::Healthcheck(check) => Ok(config::health(check)),
            Command::Label(pairs) => Ok(Action::Label(self.pairs(pairs)?)),
            Command::Maintainer(name) => Ok(Action::Author(name.text.clone())),
            Command::Onbuild(onbuild) => Ok(Action::Onbuild(onbuild.trigger.clone())),
            Command::Run(run) => self.run(run),
            Command::Shell(words) => self.shell(words),
            Command::StopSignal(word) => self.stop_signal(word),
            Command::User(word) => Ok(Action::User(self.word(word)?)),
            Command::Volume(words) => self.volume(words),
            Command::Workdir(word) => self.workdir(word),
            // These are no instructions of a stage.
            Command::Arg(_) | Command::From(_) => {
                Err(Fault::new(self.at, "FROM within a stage", "another instruction"))
            }
        }
    }

    /// `ARG`: what whoever builds says, else the default, else what holds for the whole file.
    fn argument(&mut self, argument: &Argument) -> Parsed<Action> {
        let name = &argument.name.text;
        let value = match (self.options.arguments.get(name), &argument.default) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(default)) => Some(self.word(default)?),
            (None, None) => self.globals.env.get(name).map(str::to_owned),
        };
        if let Some(value) = &value {
            self.set(name, value, argument.name.span)?;
        }
        self.state.arguments.insert(name.clone());
        let name = name.clone();
        Ok(Action::Arg { name, value })
    }

    fn set(&mut self, name: &str, value: &str, span: Span) -> Parsed<()> {
        self.state.env.set(name, value);
        args::within(&self.state.env, span)
    }

    /// A word with its variables put in.
    fn word(&mut self, word: &Word) -> Parsed<String> {
        self.text(&word.text, word.span, Style::words(self.file.escape()))
            .map(|expanded| expanded.text)
    }

    /// One that must not be empty then.
    fn some(&mut self, word: &Word) -> Parsed<String> {
        let text = self.word(word)?;
        if text.trim().is_empty() {
            let problem = format!("{} stands for nothing", word.text);
            return Err(Fault::new(word.span, problem, "a value; one of the variables has none"));
        }
        Ok(text)
    }

    /// A word that can become several.
    fn split(&mut self, word: &Word) -> Parsed<Vec<String>> {
        let style = Style::words(self.file.escape());
        let expanded = expand::expand_words(&word.text, style, &self.state.env);
        self.taken(expanded, word.span).map(|expanded| expanded.words)
    }

    fn text(&mut self, text: &str, span: Span, style: Style) -> Parsed<expand::Expanded> {
        let expanded = expand::expand(text, style, &self.state.env);
        self.taken(expanded, span)
    }

    fn taken(&mut self, expanded: Result<expand::Expanded, expand::Failure>, span: Span) -> Parsed<expand::Expanded> {
        let expanded = expanded.map_err(|failure| args::fault(failure, span))?;
        self.budget = self.budget.checked_sub(expanded.text.len()).ok_or_else(|| {
            Fault::limit(
                span,
                "bytes in a stage once its variables are put in",
                limits::PLAN_BYTES,
            )
        })?;
        self.remember(&expanded.unmatched);
        Ok(expanded)
    }

    fn remember(&mut self, names: &BTreeSet<String>) {
        for name in names {
            let declared = self.state.arguments.contains(name) || PREDEFINED.contains(&name.as_str());
            let full = self.undefined.len() == limits::UNDEFINED;
            if declared || full || !self.told.insert(name.clone()) {
                continue;
            }
            let nearest = crate::build::suggest::nearest_variable(name, self.state.env.names()).map(str::to_owned);
            self.undefined.push(Undefined {
                name: name.clone(),
                span: self.at,
                nearest,
            });
        }
    }
}
