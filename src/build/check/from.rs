//! `FROM`: its image and its platform.

use std::collections::BTreeSet;

use super::{CheckOptions, Linter, Rule};
use crate::build::dockerfile::{Dockerfile, Instruction, Stage, Word};
use crate::build::expand::Expanded;
use crate::build::plan::{Globals, PlanOptions};
use crate::build::suggest;
use crate::types::{Platform, Reference};

pub(super) fn check(file: &Dockerfile, options: &CheckOptions, linter: &mut Linter) {
    let bare = PlanOptions {
        arguments: Default::default(),
        ..options.plan.clone()
    };
    if let Ok(defaults) = Globals::new(file, &bare) {
        for stage in file.stages() {
            default_image(stage, &defaults, linter);
        }
    }
    let Ok(globals) = Globals::new(file, &options.plan) else {
        return;
    };
    for stage in file.stages() {
        if let Some(expanded) = expanded(&globals, &stage.from.image) {
            undeclared(&stage.opening, &expanded.unmatched, &globals, linter);
        }
        if let Some(word) = &stage.from.platform {
            platform(stage, word, &globals, linter);
        }
    }
}

fn expanded(globals: &Globals, word: &Word) -> Option<Expanded> {
    globals.expand(&word.text, word.span).ok()
}

/// Without build arguments, the image has a name nevertheless.
fn default_image(stage: &Stage, defaults: &Globals, linter: &mut Linter) {
    let word = &stage.from.image;
    let is_name = |expanded: Expanded| expanded.text.parse::<Reference>().is_ok();
    if word.text.contains('$') && !expanded(defaults, word).is_some_and(is_name) {
        let message = format!(
            "Default value for ARG {} results in empty or invalid base image name",
            word.text
        );
        linter.warn_at(&stage.opening, Rule::InvalidDefaultArgInFrom, message);
    }
}

fn undeclared(at: &Instruction, names: &BTreeSet<String>, globals: &Globals, linter: &mut Linter) {
    for name in names.iter().filter(|name| !globals.declared.contains(*name)) {
        let known = globals.env.names().chain(globals.declared.iter().map(String::as_str));
        let hint = suggest::nearest_variable(name, known).map(|near| format!(" (did you mean {near}?)"));
        let message = format!("FROM argument '{name}' is not declared{}", hint.unwrap_or_default());
        linter.warn_at(at, Rule::UndefinedArgInFrom, message);
    }
}

fn platform(stage: &Stage, word: &Word, globals: &Globals, linter: &mut Linter) {
    let Some(found) = expanded(globals, word) else {
        return;
    };
    undeclared(&stage.opening, &found.unmatched, globals, linter);
    let names: Vec<&String> = found.matched.iter().chain(&found.unmatched).collect();
    if names.is_empty() {
        return constant(stage, word, linter);
    }
    let is_target = names == ["TARGETPLATFORM"] && globals.env.get("TARGETPLATFORM") == Some(&found.text);
    if is_target {
        let message = format!(
            "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
            word.text
        );
        linter.warn_at(&stage.opening, Rule::RedundantTargetPlatform, message);
    }
}

/// A constant is fine where the stage's name tells of it.
fn constant(stage: &Stage, word: &Word, linter: &mut Linter) {
    let Ok(platform) = word.text.parse::<Platform>() else {
        return;
    };
    let tells = |name: &String| name.contains(&platform.os) || name.contains(&platform.architecture);
    if !stage.name.as_ref().is_some_and(tells) {
        let message = format!("FROM --platform flag should not use constant value {:?}", word.text);
        linter.warn_at(&stage.opening, Rule::FromPlatformFlagConstDisallowed, message);
    }
}
