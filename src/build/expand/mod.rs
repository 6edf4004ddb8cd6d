//! Variables in the words of a Dockerfile: `$name`, `${name}` and what else the braces can hold.
//!
//! The rules are those of BuildKit's `frontend/dockerfile/shell`, which follow POSIX's parameter expansion. What is
//! unset stands for nothing; which names were unset is told, for the warnings.

mod env;
mod lexer;
mod pattern;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

pub(crate) use self::env::Env;
pub(crate) use self::lexer::{Failure, Style};

/// A word with its variables put in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Expanded {
    /// The word, without quotes and escapes where the style undoes them.
    pub(crate) text: String,
    /// Split at the blanks that neither quotes nor escapes guard, where that is asked for.
    pub(crate) words: Vec<String>,
    /// The names that had values.
    pub(crate) matched: BTreeSet<String>,
    /// The names that had none.
    pub(crate) unmatched: BTreeSet<String>,
}

/// Puts the variables of a word in.
pub(crate) fn expand(text: &str, style: Style, env: &Env) -> Result<Expanded, Failure> {
    lexer::Lexer::new(text, style, env).run(false)
}

/// The same, and the words it is.
pub(crate) fn expand_words(text: &str, style: Style, env: &Env) -> Result<Expanded, Failure> {
    lexer::Lexer::new(text, style, env).run(true)
}
