//! From an instruction's text to what it says; one file per family of instructions.

mod command_line;
mod files;
mod from;
mod health;
mod onbuild;
mod pairs;
mod run;
mod simple;

use super::fault::{Fault, Parsed};
use super::flags::{self, Flag, Flags};
use super::heredoc::{self, Heredoc};
use super::instruction::{Command, Instruction};
use super::logical::{Lines, Logical};
use super::span::{Source, Span};
use super::words::{self, Piece};
use super::{Word, json};
use crate::build::suggest;

/// All keywords.
pub(crate) const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// An instruction before its arguments are looked at.
struct Raw<'a> {
    source: &'a Source<'a>,
    logical: &'a Logical,
    escape: char,
    /// The keyword in capitals.
    name: &'static str,
    keyword: Word,
    flags: Vec<Flag>,
    /// Where in the logical text the arguments are.
    args: (usize, usize),
}

/// The next instruction of a file, and the last empty line between its continued ones.
pub(crate) fn next(lines: &mut Lines<'_>) -> Parsed<Option<(Instruction, Option<Span>)>> {
    let Some(logical) = lines.logical()? else {
        return Ok(None);
    };
    let source = lines.source;
    let escape = lines.directives.escape();
    let start = logical.text.len() - logical.text.trim_start().len();
    let raw = Raw::new(source, &logical, escape, start)?;
    let heredocs = if takes_heredocs(&raw)? {
        heredoc::read(lines, &logical)?
    } else {
        Vec::new()
    };
    let keyword = raw.keyword.clone();
    let command = raw.command(heredocs)?;
    let span = logical.span(source, start, logical.text.trim_end().len());
    let instruction = Instruction {
        keyword,
        span,
        text: logical.text.trim().to_owned(),
        comments: logical.comments,
        command,
    };
    Ok(Some((instruction, logical.empty)))
}

/// Whether `<<` announces heredocs here: in ADD, COPY and RUN, upon a build too, in the shell form.
fn takes_heredocs(raw: &Raw<'_>) -> Parsed<bool> {
    if !raw.logical.text.contains("<<") {
        return Ok(false);
    }
    let inner;
    let of = if raw.name == "ONBUILD" && !raw.text().is_empty() {
        inner = Raw::new(raw.source, raw.logical, raw.escape, raw.args.0)?;
        &inner
    } else {
        raw
    };
    let named = matches!(of.name, "ADD" | "COPY" | "RUN");
    Ok(named && !matches!(json::form(of.text()), json::Form::Exec(_)))
}

impl<'a> Raw<'a> {
    /// Cuts the instruction that begins at `start` into keyword, flags and arguments.
    fn new(source: &'a Source<'a>, logical: &'a Logical, escape: char, start: usize) -> Parsed<Self> {
        let text = logical.text.trim_end();
        let (keyword, rest) = words::first(text.get(start..).unwrap_or_default());
        let keyword = Piece {
            text: keyword.text,
            start: start + keyword.start,
            end: start + keyword.end,
        };
        let keyword = logical.word(source, keyword);
        let Some(name) = KEYWORDS.iter().find(|name| name.eq_ignore_ascii_case(&keyword.text)) else {
            return Err(unknown(keyword));
        };
        let from = rest.map_or(text.len(), |rest| start + rest.start);
        let (flags, at) = flags::split(source, logical, from, escape)?;
        let at = at.min(text.len());
        let blanks = text[at..].len() - text[at..].trim_start().len();
        Ok(Self {
            source,
            logical,
            escape,
            name,
            keyword,
            flags,
            args: (at + blanks, text.len()),
        })
    }

    fn command(self, heredocs: Vec<Heredoc>) -> Parsed<Command> {
        match self.name {
            "ADD" => files::add(self, heredocs),
            "ARG" => pairs::arg(self),
            "CMD" => command_line::cmd(self),
            "COPY" => files::copy(self, heredocs),
            "ENTRYPOINT" => command_line::entrypoint(self),
            "ENV" => pairs::env(self),
            "EXPOSE" => simple::expose(self),
            "FROM" => from::from(self),
            "HEALTHCHECK" => health::healthcheck(self),
            "LABEL" => pairs::label(self),
            "ONBUILD" => onbuild::onbuild(self, heredocs),
            "RUN" => run::run(self, heredocs),
            "SHELL" => command_line::shell(self),
            "VOLUME" => simple::volume(self),
            _ => simple::line(self),
        }
    }

    /// The arguments as one text.
    fn text(&self) -> &'a str {
        self.logical.text.get(self.args.0..self.args.1).unwrap_or_default()
    }

    fn span(&self) -> Span {
        self.logical.span(self.source, self.args.0, self.args.1)
    }

    /// A piece of the arguments as a word of the file.
    fn word(&self, piece: Piece) -> Word {
        self.logical.word(
            self.source,
            Piece {
                text: piece.text,
                start: self.args.0 + piece.start,
                end: self.args.0 + piece.end,
            },
        )
    }

    fn words(&self, pieces: Vec<Piece>) -> Vec<Word> {
        pieces.into_iter().map(|piece| self.word(piece)).collect()
    }

    /// The arguments as one word.
    fn whole(&self) -> Word {
        Word {
            text: self.text().to_owned(),
            span: self.span(),
        }
    }

    /// The flags, of which there are these; some may be repeated.
    fn flags(&self, known: &[&str], repeated: &[&str]) -> Parsed<Flags<'static>> {
        Flags::new(self.name, self.flags.clone(), known, repeated)
    }

    fn no_flags(&self) -> Parsed<()> {
        self.flags(&[], &[]).map(drop)
    }

    /// Something is wrong with the arguments as a whole.
    fn fault(&self, problem: impl Into<String>, expected: impl Into<String>) -> Fault {
        let span = if self.args.0 < self.args.1 {
            self.span()
        } else {
            self.keyword.span
        };
        Fault::new(span, problem, expected)
    }

    /// The arguments are there at all.
    fn some(&self, expected: &str) -> Parsed<()> {
        if self.text().is_empty() {
            return Err(self.fault(format!("{} without arguments", self.name), expected));
        }
        Ok(())
    }

    /// Words between blanks, or the strings of a JSON array.
    fn list(&self) -> Parsed<Vec<Word>> {
        match json::form(self.text()) {
            json::Form::Exec(found) => Ok(self.words(found)),
            json::Form::NotStrings => Err(self.not_strings()),
            _ => Ok(self.words(words::plain(self.text()))),
        }
    }

    fn not_strings(&self) -> Fault {
        self.fault(
            "the array holds something other than strings",
            "strings in double quotes",
        )
    }
}

fn unknown(keyword: Word) -> Fault {
    if keyword.text.is_empty() {
        return Fault::new(
            keyword.span,
            "a continued line without an instruction",
            "an instruction",
        );
    }
    let nearest = suggest::nearest(&keyword.text, KEYWORDS);
    let shown: String = keyword.text.chars().take(64).collect();
    Fault::new(
        keyword.span,
        format!("unknown instruction {shown}"),
        format!("one of {}", KEYWORDS.join(", ")),
    )
    .suggesting(nearest)
}
