//! What is wrong with a Dockerfile, and where.

use std::fmt;

use super::span::Span;
use crate::error::Error;

/// Why a Dockerfile cannot be used, for programs that show the place: the source of the [`Error`] that
/// [`Dockerfile::parse`](super::Dockerfile::parse) and the planner return. [`SyntaxError::of`] finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// The file, as it was named to the parser.
    pub file: String,
    /// The place.
    pub span: Span,
    /// What is wrong there.
    pub problem: String,
    /// What would be right.
    pub expected: String,
    /// The nearest right name to one that is wrong.
    pub suggestion: Option<String>,
}

impl SyntaxError {
    /// The syntax error that an error tells of, if it does.
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
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.expected)
    }
}

impl std::error::Error for SyntaxError {}

/// A fault before the file's name is known.
#[derive(Debug)]
pub(crate) struct Fault(Box<Details>);

#[derive(Debug)]
struct Details {
    span: Span,
    problem: String,
    expected: String,
    suggestion: Option<String>,
}

pub(crate) type Parsed<T> = Result<T, Fault>;

impl Fault {
    pub(crate) fn new(span: Span, problem: impl Into<String>, expected: impl Into<String>) -> Self {
        Self(Box::new(Details {
            span,
            problem: problem.into(),
            expected: expected.into(),
            suggestion: None,
        }))
    }

    pub(crate) fn suggesting(mut self, name: Option<impl Into<String>>) -> Self {
        self.0.suggestion = name.map(Into::into);
        self
    }

    /// For what goes beyond one of the limits.
    pub(crate) fn limit(span: Span, what: &str, most: usize) -> Self {
        Self::new(span, format!("too many {what}"), format!("at most {most} {what}"))
    }

    pub(crate) fn into_error(self, file: &str) -> Error {
        let details = *self.0;
        let mut message = format!("{file}:{}: {}", details.span.start, details.problem);
        if let Some(name) = &details.suggestion {
            message.push_str(&format!(" (did you mean {name}?)"));
        }
        Error::invalid(message).with_source(SyntaxError {
            file: file.to_owned(),
            span: details.span,
            problem: details.problem,
            expected: details.expected,
            suggestion: details.suggestion,
        })
    }
}
