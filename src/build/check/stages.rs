//! Names of stages, and the comments that describe them and the arguments.

use std::collections::HashSet;

use super::keywords::{Case, case};
use super::{Linter, Rule};
use crate::build::dockerfile::{Command, Dockerfile, Instruction, Stage};

const RESERVED: [&str; 2] = ["context", "scratch"];

pub(super) fn check(file: &Dockerfile, linter: &mut Linter) {
    let mut seen = HashSet::new();
    for stage in file.stages() {
        casing(stage, linter);
        if let Some(name) = &stage.name {
            if RESERVED.contains(&name.as_str()) {
                let message = format!("Stage name should not use the same name as reserved stage {name:?}");
                linter.warn_at(&stage.opening, Rule::ReservedStageName, message);
            }
            if !seen.insert(name.as_str()) {
                let message = format!("Duplicate stage name {name:?}, stage names should be unique");
                linter.warn_at(&stage.opening, Rule::DuplicateStageName, message);
            }
        }
    }
    let stages = file.stages().iter();
    let within = stages.flat_map(|stage| std::iter::once(&stage.opening).chain(&stage.instructions));
    for instruction in file.arguments().iter().chain(within) {
        description(instruction, linter);
    }
}

fn casing(stage: &Stage, linter: &mut Linter) {
    let (Some(word), Some(name)) = (&stage.from.keyword, &stage.from.name) else {
        return;
    };
    if name.text != name.text.to_ascii_lowercase() {
        let message = format!("Stage name '{}' should be lowercase", name.text);
        linter.warn_at(&stage.opening, Rule::StageNameCasing, message);
    }
    let from = &stage.opening.keyword.text;
    if case(from) != Case::Mixed && case(from) != case(&word.text) {
        let message = format!("'{}' and '{from}' keywords' casing do not match", word.text);
        linter.warn_at(&stage.opening, Rule::FromAsCasing, message);
    }
}

/// The last comment above a named stage or an argument begins with the name.
fn description(instruction: &Instruction, linter: &mut Linter) {
    let names: Vec<&str> = match &instruction.command {
        Command::From(from) => from.name.iter().map(|name| name.text.as_str()).collect(),
        Command::Arg(arguments) => arguments.iter().map(|argument| argument.name.text.as_str()).collect(),
        _ => return,
    };
    let (Some(comment), Some(first)) = (instruction.comments.last(), names.first()) else {
        return;
    };
    let said = comment.text.split(' ').next().unwrap_or_default();
    let is_from = matches!(instruction.command, Command::From(_));
    if names
        .iter()
        .any(|name| *name == said || is_from && name.eq_ignore_ascii_case(said))
    {
        return;
    }
    let name = if names.len() > 1 { "<arg_key>" } else { first };
    let keyword = instruction.command.keyword();
    let message = format!("Comment for {keyword} should follow the format: `# {name} <description>`");
    linter.warn_at(instruction, Rule::InvalidDefinitionDescription, message);
}
