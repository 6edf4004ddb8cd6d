//! Warnings: what is allowed in a Dockerfile and hardly meant. The rules, their names and words are those of
//! `docker build --check` (<https://docs.docker.com/reference/build-checks/>), and one of ours.

mod commands;
mod config;
mod from;
mod keywords;
mod options;
mod rule;
mod secrets;
mod stages;
#[cfg(test)]
mod tests;
mod variables;

pub use self::options::CheckOptions;
pub use self::rule::{Rule, Warning};

use self::config::Config;
use super::dockerfile::{Dockerfile, Instruction, Span};
use crate::error::{Error, Result};

/// What the checks of a Dockerfile found.
#[derive(Debug, Clone)]
pub struct Report {
    /// The warnings, in the order of the file.
    pub warnings: Vec<Warning>,
    /// Whether `# check=error=true` makes errors of them.
    pub fatal: bool,
}

impl Report {
    /// The warnings, or an error where the file wants them to be errors.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` that names the rules.
    pub fn into_result(self, file: &str) -> Result<Vec<Warning>> {
        if !self.fatal || self.warnings.is_empty() {
            return Ok(self.warnings);
        }
        let mut rules: Vec<&str> = self.warnings.iter().map(|warning| warning.rule.name()).collect();
        rules.sort_unstable();
        rules.dedup();
        let first = self.warnings.first().map(|warning| warning.span).unwrap_or_default();
        Err(Error::invalid(format!(
            "{file}:{first}: against the rules {}",
            rules.join(", ")
        )))
    }
}

/// Warnings as they are found, less those that the file does not want.
struct Linter {
    config: Config,
    found: Vec<Warning>,
}

/// So many warnings are told; more help nobody.
const MOST: usize = 10_000;

impl Linter {
    fn warn(&mut self, rule: Rule, span: Span, message: impl Into<String>) {
        self.warn_within(&[], rule, span, message);
    }

    /// A warning about an instruction: comments above it can choose rules too.
    fn warn_at(&mut self, at: &Instruction, rule: Rule, message: impl Into<String>) {
        let comments: Vec<&str> = at.comments.iter().map(|comment| comment.text.as_str()).collect();
        self.warn_within(&comments, rule, at.span, message);
    }

    fn warn_within(&mut self, comments: &[&str], rule: Rule, span: Span, message: impl Into<String>) {
        if self.found.len() < MOST && self.config.wants(rule, comments) {
            let message = message.into();
            self.found.push(Warning { rule, span, message });
        }
    }
}

impl Dockerfile {
    /// The warnings that need nothing but the file, without build arguments; see [`Dockerfile::check`].
    pub fn warnings(&self) -> Vec<Warning> {
        self.check(&CheckOptions::new())
            .map(|report| report.warnings)
            .unwrap_or_default()
    }

    /// Checks the file as `docker build --check` does.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where the directive `# check=` cannot be understood.
    pub fn check(&self, options: &CheckOptions) -> Result<Report> {
        let config = Config::of(self).map_err(|fault| fault.into_error(self.file()))?;
        let fatal = config.fatal;
        let found = Vec::new();
        let mut linter = Linter { config, found };
        keywords::check(self, &mut linter);
        stages::check(self, &mut linter);
        from::check(self, options, &mut linter);
        commands::check(self, options, &mut linter);
        variables::check(self, options, &mut linter);
        let mut warnings = linter.found;
        warnings.sort_by_key(|warning| (warning.span.start, warning.rule.name()));
        Ok(Report { warnings, fatal })
    }
}
