//! Why a step failed, and where.

use std::fmt;

use crate::build::dockerfile::SyntaxError;
use crate::error::{Error, ErrorKind};
use crate::types::ExitStatus;

/// A command of a build that failed: the source of an error of kind `BuildFailed`. [`StepFailure::of`] finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepFailure {
    /// The Dockerfile, as it is named; empty without one.
    pub file: String,
    /// The line of the instruction; 0 without a Dockerfile.
    pub line: usize,
    /// The instruction, as it is written.
    pub text: String,
    /// The stage, by name or number.
    pub stage: String,
    /// How the command ended.
    pub status: ExitStatus,
    /// Whether the kernel killed one of its processes for memory, where there are counters.
    pub oom_killed: Option<bool>,
    /// The last lines it wrote, to stdout and stderr as they came.
    pub log_tail: String,
}

impl StepFailure {
    /// The failed command that an error tells of, if it does.
    pub fn of(error: &Error) -> Option<&Self> {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }

    pub(super) fn into_error(self) -> Error {
        let memory = match self.oom_killed {
            Some(true) => "; the kernel killed it for memory: give it more",
            _ => "",
        };
        let message = format!("the command ended with exit code {}{memory}", self.status.code());
        Error::new(ErrorKind::BuildFailed, message).with_source(self)
    }
}

impl fmt::Display for StepFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.log_tail.is_empty() {
            return f.write_str("it wrote nothing");
        }
        write!(f, "it wrote last:\n{}", self.log_tail)
    }
}

impl std::error::Error for StepFailure {}

/// Says in which step it went wrong, unless the error knows or the caller went away.
pub(super) fn at(error: Error, file: &str, line: usize, text: &str) -> Error {
    if matches!(error.kind(), ErrorKind::Cancelled) || SyntaxError::of(&error).is_some() {
        return error;
    }
    let place = match line {
        0 => text.to_owned(),
        _ => format!("{file}:{line}: {text}"),
    };
    error.placed(&place)
}
