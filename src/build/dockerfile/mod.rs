//! The Dockerfile language: from text to instructions, with the place of every word.
//!
//! The rules are BuildKit's (`frontend/dockerfile/parser` and `instructions`), whose reference is
//! <https://docs.docker.com/reference/dockerfile/>.

mod csv;
mod directives;
mod fault;
mod flags;
mod heredoc;
mod instruction;
mod json;
mod logical;
mod mount;
mod parse;
mod span;
#[cfg(test)]
mod tests;
mod units;
mod words;

pub use self::directives::Directives;
pub use self::fault::SyntaxError;
pub(crate) use self::fault::{Fault, Parsed};
pub use self::heredoc::Heredoc;
pub use self::instruction::{
    Add, Argument, Command, CommandLine, Comment, Copy, DeviceFlag, FileSource, Form, From, HealthProbe, Healthcheck,
    Instruction, NetworkFlag, Onbuild, Pair, Run, SecurityFlag, Stage, Word,
};
pub(crate) use self::mount::agree;
pub use self::mount::{CacheSharing, Mount, MountFlag, MountKind};
pub use self::span::{Position, Span};

use std::sync::Arc;

use self::logical::Lines;
use self::span::Source;
use super::limits;
use crate::error::Result;

/// A Dockerfile, parsed. Clones are cheap: they share it.
///
/// ```
/// use longshore::build::{Command, Dockerfile};
///
/// let file = Dockerfile::parse("FROM busybox AS base\nRUN echo hello")?;
/// let stage = &file.stages()[0];
/// assert_eq!(stage.name.as_deref(), Some("base"));
/// assert!(matches!(&stage.instructions[0].command, Command::Run(_)));
///
/// let error = Dockerfile::parse("FROM busybox\nRUNN true").unwrap_err();
/// assert_eq!(error.to_string(), "Dockerfile:2:1: unknown instruction RUNN (did you mean RUN?)");
/// # Ok::<(), longshore::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    contents: Arc<Contents>,
}

#[derive(Debug, PartialEq, Eq)]
struct Contents {
    file: String,
    directives: Directives,
    arguments: Vec<Instruction>,
    stages: Vec<Stage>,
    empty_continuations: Vec<Span>,
    escape: char,
}

impl Dockerfile {
    /// Parses a Dockerfile.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` with file, line and column; [`SyntaxError::of`] gives the place and what was expected as data.
    pub fn parse(text: impl AsRef<[u8]>) -> Result<Self> {
        Self::parse_named("Dockerfile", text)
    }

    /// Parses a Dockerfile that errors call by this name.
    ///
    /// # Errors
    ///
    /// Those of [`Dockerfile::parse`].
    pub fn parse_named(file: &str, text: impl AsRef<[u8]>) -> Result<Self> {
        let mut contents = Contents {
            file: file.to_owned(),
            directives: Directives::default(),
            arguments: Vec::new(),
            stages: Vec::new(),
            empty_continuations: Vec::new(),
            escape: '\\',
        };
        match contents.read(text.as_ref()) {
            Ok(()) => Ok(Self {
                contents: Arc::new(contents),
            }),
            Err(fault) => Err(fault.into_error(file)),
        }
    }

    /// The instruction of a trigger, `ONBUILD`, as an image's config keeps it.
    pub(crate) fn trigger(text: &str) -> Result<Instruction> {
        let source = Source::new(text.as_bytes());
        let read = || {
            if text.len() > limits::FILE_BYTES {
                return Err(Fault::limit(START, "bytes in a trigger", limits::FILE_BYTES));
            }
            let mut lines = Lines::of_trigger(&source);
            let first = parse::next(&mut lines)?;
            let more = parse::next(&mut lines)?;
            match (first, more) {
                (Some((instruction, _)), None) if is_trigger(&instruction.command) => Ok(instruction),
                _ => Err(Fault::new(
                    START,
                    "a trigger is one instruction",
                    "one, and not FROM, ONBUILD or MAINTAINER",
                )),
            }
        };
        read().map_err(|fault| fault.into_error("ONBUILD"))
    }

    /// The name that errors and warnings call it by.
    pub fn file(&self) -> &str {
        &self.contents.file
    }

    /// The parser directives at its top.
    pub fn directives(&self) -> &Directives {
        &self.contents.directives
    }

    /// The escape character in force.
    pub fn escape(&self) -> char {
        self.contents.escape
    }

    /// `ARG` above the first `FROM`: variables of the `FROM`s.
    pub fn arguments(&self) -> &[Instruction] {
        &self.contents.arguments
    }

    /// Its stages; there is one at least.
    pub fn stages(&self) -> &[Stage] {
        &self.contents.stages
    }

    /// Empty lines between continued ones.
    pub(crate) fn empty_continuations(&self) -> &[Span] {
        &self.contents.empty_continuations
    }
}

impl Contents {
    fn read(&mut self, text: &[u8]) -> Parsed<()> {
        if text.len() > limits::FILE_BYTES {
            return Err(Fault::limit(START, "bytes in a Dockerfile", limits::FILE_BYTES));
        }
        let source = Source::new(text);
        let mut lines = Lines::new(&source);
        let mut count = 0;
        let mut words = 0;
        while let Some((instruction, empty)) = parse::next(&mut lines)? {
            count += 1;
            if count > limits::INSTRUCTIONS {
                return Err(Fault::limit(instruction.span, "instructions", limits::INSTRUCTIONS));
            }
            words += instruction.command.words();
            if words > limits::WORDS {
                return Err(Fault::limit(instruction.span, "words", limits::WORDS));
            }
            self.empty_continuations.extend(empty);
            self.add(instruction)?;
        }
        self.escape = lines.directives.escape();
        self.directives = lines.directives.found;
        if self.stages.is_empty() {
            let end = source.position(text.len());
            let span = Span { start: end, end };
            return Err(Fault::new(span, "there is no stage", "FROM IMAGE"));
        }
        Ok(())
    }

    fn add(&mut self, instruction: Instruction) -> Parsed<()> {
        if let Command::From(from) = &instruction.command {
            if self.stages.len() == limits::STAGES {
                return Err(Fault::limit(instruction.span, "stages", limits::STAGES));
            }
            let name = from.name.as_ref().map(|name| name.text.to_ascii_lowercase());
            self.stages.push(Stage {
                name,
                from: from.clone(),
                opening: instruction,
                instructions: Vec::new(),
            });
            return Ok(());
        }
        match (self.stages.last_mut(), &instruction.command) {
            (Some(stage), _) => stage.instructions.push(instruction),
            (None, Command::Arg(_)) => self.arguments.push(instruction),
            (None, command) => {
                let problem = format!("{} before the first stage", command.keyword());
                return Err(Fault::new(instruction.keyword.span, problem, "FROM IMAGE above it"));
            }
        }
        Ok(())
    }
}

fn is_trigger(command: &Command) -> bool {
    !matches!(command, Command::From(_) | Command::Onbuild(_) | Command::Maintainer(_))
}

/// Whether a word announces a heredoc.
pub(crate) fn is_heredoc(word: &str) -> bool {
    heredoc::announced(word).is_some()
}

const START: Span = Span {
    start: FIRST,
    end: FIRST,
};
const FIRST: Position = Position {
    offset: 0,
    line: 1,
    column: 1,
};
