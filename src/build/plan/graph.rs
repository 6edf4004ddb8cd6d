//! Which stage needs which.

use std::collections::{BTreeSet, HashMap};

use super::args::Globals;
use super::{Origin, PlanOptions};
use crate::build::dockerfile::{Command, Dockerfile, Fault, Instruction, Parsed, Span, Stage, Word};
use crate::build::{limits, suggest};
use crate::types::{Platform, Reference};

/// What a stage begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// Nothing: `FROM scratch`.
    Scratch,
    /// An image of a registry or of the engine.
    Image(Reference),
    /// A named context in place of an image. A stage that a named context replaces has no steps of its own.
    Context {
        /// The context.
        name: String,
        /// Whether it is the stage itself.
        replaces: bool,
    },
    /// An earlier stage, by number.
    Stage(usize),
}

/// A stage, its `FROM` put in.
#[derive(Debug, Clone)]
pub struct PlannedStage {
    /// Its number in the file; the first is 0.
    pub number: usize,
    /// Its name.
    pub name: Option<String>,
    /// What it begins with.
    pub base: Base,
    /// The platform that `--platform` asks for; else its base's, or that of the whole build.
    pub platform: Option<Platform>,
    /// The stages it needs, and where it says so.
    pub needs: Vec<(usize, Span)>,
}

/// Names of stages and contexts, as they are known at some line.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    by_name: HashMap<String, usize>,
    count: usize,
    contexts: BTreeSet<String>,
}

impl Names {
    fn get(&self, name: &str) -> Option<usize> {
        self.by_name.get(&name.to_ascii_lowercase()).copied()
    }

    /// What `--from` and `from=` name.
    pub(super) fn origin(&self, name: &str, span: Span, numbers: bool) -> Parsed<Origin> {
        if let Some(number) = name.parse::<usize>().ok().filter(|_| numbers) {
            if number >= self.count {
                let problem = format!("there is no stage {number}");
                return Err(Fault::new(span, problem, format!("a number below {}", self.count)));
            }
            return Ok(Origin::Stage(number));
        }
        if let Some(number) = self.get(name) {
            return Ok(Origin::Stage(number));
        }
        if self.contexts.contains(name) {
            return Ok(Origin::Context(name.to_owned()));
        }
        if name == "scratch" {
            return Ok(Origin::Scratch);
        }
        let reference = name.parse().map_err(|_| {
            let nearest = suggest::nearest(name, self.by_name.keys().map(String::as_str)).map(str::to_owned);
            Fault::new(
                span,
                format!("there is no stage {name:?}"),
                "a stage, a named context or an image",
            )
            .suggesting(nearest)
        })?;
        Ok(Origin::Image(reference))
    }
}

/// All stages, with what they begin with and what they need.
pub(super) fn stages(
    file: &Dockerfile,
    options: &PlanOptions,
    globals: &Globals,
) -> Parsed<(Vec<PlannedStage>, Names)> {
    let mut names = Names {
        by_name: HashMap::new(),
        count: file.stages().len(),
        contexts: options.contexts.clone(),
    };
    let mut planned = Vec::with_capacity(file.stages().len());
    for (number, stage) in file.stages().iter().enumerate() {
        planned.push(PlannedStage {
            number,
            name: stage.name.clone(),
            base: base(stage, &names, globals)?,
            platform: platform(stage, globals)?,
            needs: Vec::new(),
        });
        names.by_name.extend(stage.name.clone().map(|name| (name, number)));
    }
    let mut left = limits::TRIGGERS;
    for number in 0..planned.len() {
        planned[number].needs = needs(file, number, &planned[number].base, &names, &mut left)?;
    }
    Ok((planned, names))
}

fn base(stage: &Stage, names: &Names, globals: &Globals) -> Parsed<Base> {
    let contexts = &names.contexts;
    if let Some(name) = stage.name.as_ref().filter(|name| contexts.contains(*name)) {
        return Ok(Base::Context {
            name: name.clone(),
            replaces: true,
        });
    }
    let word = &stage.from.image;
    let name = globals.expand(&word.text, word.span)?.text;
    if name.is_empty() {
        let problem = format!("{} stands for nothing", word.text);
        return Err(Fault::new(
            word.span,
            problem,
            "an image or a stage; give the argument a value",
        ));
    }
    if let Some(number) = names.get(&name) {
        return Ok(Base::Stage(number));
    }
    if contexts.contains(&name) {
        let replaces = false;
        return Ok(Base::Context { name, replaces });
    }
    if name == "scratch" {
        return Ok(Base::Scratch);
    }
    name.parse().map(Base::Image).map_err(|error: crate::error::Error| {
        let nearest = suggest::nearest(&name, names.by_name.keys().map(String::as_str));
        Fault::new(word.span, error.to_string(), "an image or an earlier stage").suggesting(nearest)
    })
}

fn platform(stage: &Stage, globals: &Globals) -> Parsed<Option<Platform>> {
    let Some(word) = &stage.from.platform else {
        return Ok(None);
    };
    let expanded = globals.expand(&word.text, word.span)?;
    expanded.text.parse().map(Some).map_err(|error: crate::error::Error| {
        let unset = expanded.unmatched.iter();
        let nearest = unset
            .filter_map(|name| suggest::nearest_variable(name, globals.env.names()))
            .next();
        Fault::new(word.span, error.to_string(), "--platform=OS/ARCHITECTURE[/VARIANT]")
            .suggesting(nearest.map(|name| format!("${name}")))
    })
}

/// The stages that a stage's own instructions and the triggers of its base name.
fn needs(file: &Dockerfile, number: usize, base: &Base, names: &Names, left: &mut usize) -> Parsed<Vec<(usize, Span)>> {
    let Some(stage) = file.stages().get(number) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    match base {
        Base::Context { replaces: true, .. } => return Ok(found),
        Base::Stage(below) => {
            found.push((*below, stage.from.image.span));
            for trigger in triggers(file, *below) {
                let limit = || Fault::limit(stage.from.image.span, "triggers", limits::TRIGGERS);
                *left = left.checked_sub(1).ok_or_else(limit)?;
                named(trigger, names, &mut found)?;
            }
        }
        _ => {}
    }
    for instruction in &stage.instructions {
        named(instruction, names, &mut found)?;
    }
    Ok(found)
}

/// What a stage leaves for those that are based on it.
pub(super) fn triggers(file: &Dockerfile, number: usize) -> impl Iterator<Item = &Instruction> {
    let stage = file.stages().get(number);
    let instructions = stage.into_iter().flat_map(|stage| &stage.instructions);
    instructions.filter_map(|instruction| match &instruction.command {
        Command::Onbuild(onbuild) => Some(&*onbuild.instruction),
        _ => None,
    })
}

fn named(instruction: &Instruction, names: &Names, found: &mut Vec<(usize, Span)>) -> Parsed<()> {
    let mut add = |name: &str, span: Span, numbers: bool| {
        if let Origin::Stage(number) = names.origin(name, span, numbers)? {
            found.push((number, span));
        }
        Ok(())
    };
    match &instruction.command {
        Command::Copy(copy) => {
            if let Some(Word { text, span }) = &copy.from {
                add(text, *span, true)?;
            }
        }
        Command::Run(run) => {
            for mount in &run.mounts {
                if let Some(from) = mount.constant("from").filter(|from| !from.is_empty()) {
                    add(from, mount.span, false)?;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// The stage that is asked for, by name or number, or the last.
pub(super) fn target(file: &Dockerfile, options: &PlanOptions) -> Parsed<usize> {
    let last = file.stages().len().saturating_sub(1);
    let Some(wanted) = &options.target else {
        return Ok(last);
    };
    let name = wanted.to_ascii_lowercase();
    let named = file
        .stages()
        .iter()
        .rposition(|stage| stage.name.as_deref() == Some(name.as_str()));
    let numbered = || wanted.parse().ok().filter(|number| *number <= last);
    named.or_else(numbered).ok_or_else(|| {
        let span = file
            .stages()
            .first()
            .map(|stage| stage.opening.span)
            .unwrap_or_default();
        let names = file.stages().iter().filter_map(|stage| stage.name.as_deref());
        let nearest = suggest::nearest(wanted, names);
        let problem = format!("there is no stage {wanted:?} to build");
        Fault::new(span, problem, "the name of a stage, FROM IMAGE AS NAME").suggesting(nearest)
    })
}

enum Mark {
    New,
    Open,
    Done,
}

/// What a stage needs, directly or not, each after what it needs itself. Without recursion: there may be many.
pub(super) fn order(stages: &[PlannedStage], target: usize) -> Parsed<Vec<usize>> {
    let mut marks: Vec<Mark> = stages.iter().map(|_| Mark::New).collect();
    let mut order = Vec::new();
    let mut path = vec![(target, 0)];
    marks[target] = Mark::Open;
    while let Some((number, next)) = path.last_mut() {
        let number = *number;
        let Some((needed, span)) = stages[number].needs.get(*next).copied() else {
            marks[number] = Mark::Done;
            order.push(number);
            path.pop();
            continue;
        };
        *next += 1;
        match marks[needed] {
            Mark::Done => {}
            Mark::Open => return Err(circle(stages, &path, needed, span)),
            Mark::New => {
                marks[needed] = Mark::Open;
                path.push((needed, 0));
            }
        }
    }
    Ok(order)
}

fn circle(stages: &[PlannedStage], path: &[(usize, usize)], again: usize, span: Span) -> Fault {
    const SHOWN: usize = 10;
    let from = path.iter().position(|(number, _)| *number == again).unwrap_or(0);
    let around = path[from..].iter().map(|(number, _)| *number);
    let name = |number: usize| stages[number].name.clone().unwrap_or_else(|| number.to_string());
    let mut names: Vec<String> = around.take(SHOWN).map(name).collect();
    if path.len() - from > SHOWN {
        names.push("...".into());
    }
    names.push(name(again));
    let problem = format!("stages need each other: {}", names.join(" -> "));
    Fault::new(span, problem, "a stage that needs neither itself nor one that needs it")
}
