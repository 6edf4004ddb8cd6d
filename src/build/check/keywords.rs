//! How instructions are written: their case, and empty lines within.

use super::{Linter, Rule};
use crate::build::dockerfile::{Dockerfile, Instruction};

pub(super) fn check(file: &Dockerfile, linter: &mut Linter) {
    for span in file.empty_continuations() {
        linter.warn(Rule::NoEmptyContinuation, *span, "Empty continuation line");
    }
    let all = || {
        let stages = file.stages().iter();
        stages.flat_map(|stage| std::iter::once(&stage.opening).chain(&stage.instructions))
    };
    let is_lower = |instruction: &&Instruction| case(&instruction.keyword.text) == Case::Lower;
    let is_upper = |instruction: &&Instruction| case(&instruction.keyword.text) == Case::Upper;
    let most = if all().filter(is_lower).count() > all().filter(is_upper).count() {
        Case::Lower
    } else {
        Case::Upper
    };
    for instruction in all() {
        let keyword = &instruction.keyword.text;
        if case(keyword) != most {
            let name = if most == Case::Lower { "lowercase" } else { "uppercase" };
            let message = format!("Command '{keyword}' should match the case of the command majority ({name})");
            linter.warn_at(instruction, Rule::ConsistentInstructionCasing, message);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Lower,
    Upper,
    Mixed,
}

pub(super) fn case(word: &str) -> Case {
    let has = |is: fn(&u8) -> bool| word.as_bytes().iter().any(is);
    match (has(u8::is_ascii_lowercase), has(u8::is_ascii_uppercase)) {
        (true, true) => Case::Mixed,
        (true, false) => Case::Lower,
        _ => Case::Upper,
    }
}
