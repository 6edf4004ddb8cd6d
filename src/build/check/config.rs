//! `# check=skip=…;experimental=…;error=true`, above the file or above an instruction.

use super::Rule;
use crate::build::dockerfile::{Dockerfile, Fault, Parsed, Span, Word};
use crate::build::suggest;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Config {
    skip: Choice,
    experimental: Choice,
    pub(super) fatal: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Choice {
    all: bool,
    names: Vec<String>,
}

impl Choice {
    fn has(&self, rule: Rule) -> bool {
        self.all || self.names.iter().any(|name| name == rule.name())
    }
}

const SHAPE: &str = "skip=RULE,..., experimental=RULE,... or error=true, with ';' between them";

impl Config {
    /// What the directive of a file says.
    pub(super) fn of(file: &Dockerfile) -> Parsed<Self> {
        match &file.directives().check {
            // What follows a blank is a comment.
            Some(Word { text, span }) => Self::parse(first_word(text), *span),
            None => Ok(Self::default()),
        }
    }

    fn parse(text: &str, span: Span) -> Parsed<Self> {
        let mut config = Self::default();
        for option in text.split(';').filter(|option| !option.trim().is_empty()) {
            let bad = || Fault::new(span, format!("{option:?} is no option of check"), SHAPE);
            let (name, value) = option.split_once('=').ok_or_else(bad)?;
            match name.trim() {
                "skip" => config.skip = choice(value, span)?,
                "experimental" => config.experimental = choice(value, span)?,
                "error" => config.fatal = truth(value.trim()).ok_or_else(bad)?,
                name => {
                    let nearest = suggest::nearest(name, ["skip", "experimental", "error"]).map(str::to_owned);
                    return Err(bad().suggesting(nearest));
                }
            }
        }
        Ok(config)
    }

    /// Whether a rule is in force, given the comments above an instruction.
    pub(super) fn wants(&self, rule: Rule, comments: &[&str]) -> bool {
        let here = comments
            .iter()
            .find_map(|comment| of_comment(comment))
            .unwrap_or_default();
        if rule.is_experimental() {
            return self.experimental.has(rule) || here.experimental.has(rule);
        }
        !self.skip.has(rule) && !here.skip.has(rule)
    }
}

/// A comment that is a directive; one that cannot be understood says nothing.
fn of_comment(comment: &str) -> Option<Config> {
    let (name, value) = comment.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("check") {
        return None;
    }
    Config::parse(first_word(value.trim()), Span::default()).ok()
}

fn first_word(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

/// Names of rules that there are not are kept: a newer Docker may have them.
fn choice(value: &str, span: Span) -> Parsed<Choice> {
    let value = value.trim();
    if value.is_empty() {
        return Err(Fault::new(span, "a choice of no rules", SHAPE));
    }
    Ok(Choice {
        all: value == "all",
        names: value.split(',').map(|name| name.trim().to_owned()).collect(),
    })
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
