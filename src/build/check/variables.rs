//! Variables without a value, working directories that depend on the base, and base images of other platforms.

use super::{CheckOptions, Linter, Rule};
use crate::build::dockerfile::{Command, Dockerfile, Instruction};
use crate::build::limits;
use crate::build::plan::{Base, Plan, PlanOptions, StageState};

/// What is known of a stage once it is looked at.
#[derive(Clone)]
struct Known {
    /// What holds at its end, if its base is known.
    after: Option<StageState>,
    /// Whether it, or one below it, has said where it works.
    placed: bool,
}

pub(super) fn check(file: &Dockerfile, options: &CheckOptions, linter: &mut Linter) {
    let whole = PlanOptions {
        target: None,
        ..options.plan.clone()
    };
    // What cannot be planned is an error elsewhere.
    let Ok(plan) = Plan::new(file, &whole) else {
        return;
    };
    let mut known: Vec<Known> = Vec::new();
    // Where the variables of all stages together would fill the memory, those that come last are not known.
    let mut room = limits::PLAN_BYTES;
    for (number, stage) in file.stages().iter().enumerate() {
        let Some(planned) = plan.stages().get(number) else {
            return;
        };
        let below = match planned.base {
            Base::Stage(below) => known.get(below).cloned(),
            _ => None,
        };
        let before = match (&planned.base, &below) {
            (Base::Scratch, _) => Some(StageState::scratch()),
            (Base::Image(_), _) => image(file, &plan, number, options, linter),
            (_, below) => below.as_ref().and_then(|below| below.after.clone()),
        };
        let placed = below.is_some_and(|below| below.placed);
        let found = before.and_then(|before| undefined(&plan, number, before, &stage.instructions, linter));
        let (after, workdir) = found.unzip();
        let after = after.filter(|after| {
            let left = room.checked_sub(after.bytes());
            room = left.unwrap_or(0);
            left.is_some()
        });
        let placed = workdirs(&stage.instructions, workdir.flatten(), placed, linter);
        known.push(Known { after, placed });
    }
}

/// What is known of a base image.
fn image(
    file: &Dockerfile,
    plan: &Plan<'_>,
    number: usize,
    options: &CheckOptions,
    linter: &mut Linter,
) -> Option<StageState> {
    let stage = file.stages().get(number)?;
    let word = &stage.from.image;
    let name = plan.globals().expand(&word.text, word.span).ok()?.text;
    let (state, actual) = options.images.get(&name)?;
    let expected = plan
        .stages()
        .get(number)?
        .platform
        .as_ref()
        .unwrap_or(&options.plan.platform);
    let other =
        |actual: &&crate::types::Platform| actual.os != expected.os || actual.architecture != expected.architecture;
    if let Some(actual) = actual.as_ref().filter(other) {
        let message = format!(
            "Base image {name} was pulled with platform \"{actual}\", expected \"{expected}\" for current build"
        );
        linter.warn_at(&stage.opening, Rule::InvalidBaseImagePlatform, message);
    }
    Some(state.clone())
}

/// Resolves a stage, and tells of variables that had no value.
fn undefined(
    plan: &Plan<'_>,
    number: usize,
    before: StageState,
    instructions: &[Instruction],
    linter: &mut Linter,
) -> Option<(StageState, Option<String>)> {
    let mut resolver = plan.resolver(before);
    let steps = resolver.steps(number);
    for found in &resolver.undefined {
        let hint = found.nearest.as_ref().map(|near| format!(" (did you mean ${near}?)"));
        let message = format!(
            "Usage of undefined variable '${}'{}",
            found.name,
            hint.unwrap_or_default()
        );
        let at = instructions.partition_point(|one| one.span.start < found.span.start);
        match instructions.get(at).filter(|one| one.span == found.span) {
            Some(at) => linter.warn_at(at, Rule::UndefinedVar, message),
            None => linter.warn(Rule::UndefinedVar, found.span, message),
        }
    }
    let workdir = resolver.first_workdir.take().map(|(_, path)| path);
    steps.ok().map(|_| (resolver.state().clone(), workdir))
}

/// The first of them is absolute. Where its variables are not known, one that begins with a variable may be.
fn workdirs(instructions: &[Instruction], path: Option<String>, placed: bool, linter: &mut Linter) -> bool {
    let first = instructions.iter().find_map(|one| match &one.command {
        Command::Workdir(word) => Some((one, word)),
        _ => None,
    });
    let Some((at, word)) = first else {
        return placed;
    };
    let written = word.text.trim_start_matches(['"', '\'']);
    let path = path.or_else(|| (!written.starts_with('$')).then(|| written.to_owned()));
    if let Some(path) = path.filter(|path| !placed && !path.starts_with('/')) {
        let message = format!("Relative workdir {path:?} can have unexpected results if the base image changes");
        linter.warn_at(at, Rule::WorkdirRelativePath, message);
    }
    true
}
