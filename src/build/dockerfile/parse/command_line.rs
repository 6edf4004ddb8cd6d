//! `CMD`, `ENTRYPOINT` and `SHELL`, and what they share with `RUN` and `HEALTHCHECK`.

use super::{Command, Heredoc, Parsed, Piece, Raw, Word, json};
use crate::build::dockerfile::instruction::{CommandLine, Form};

pub(super) fn cmd(raw: Raw<'_>) -> Parsed<Command> {
    raw.no_flags()?;
    Ok(Command::Cmd(read(&raw, 0, Vec::new())?))
}

pub(super) fn entrypoint(raw: Raw<'_>) -> Parsed<Command> {
    raw.no_flags()?;
    Ok(Command::Entrypoint(read(&raw, 0, Vec::new())?))
}

pub(super) fn shell(raw: Raw<'_>) -> Parsed<Command> {
    const SHAPE: &str = "a JSON array, SHELL [\"/bin/bash\", \"-c\"]";
    raw.no_flags()?;
    raw.some(SHAPE)?;
    match json::form(raw.text()) {
        json::Form::Exec(found) if !found.is_empty() => Ok(Command::Shell(raw.words(found))),
        json::Form::NotStrings => Err(raw.not_strings()),
        _ => Err(raw.fault("SHELL without a JSON array of strings", SHAPE)),
    }
}

/// The command that begins at this byte of the arguments. An empty one is none: `CMD` alone resets what a base image said.
pub(super) fn read(raw: &Raw<'_>, from: usize, heredocs: Vec<Heredoc>) -> Parsed<CommandLine> {
    let text = raw.text().get(from..).unwrap_or_default();
    let moved = |piece: Piece| {
        raw.word(Piece {
            text: piece.text,
            start: from + piece.start,
            end: from + piece.end,
        })
    };
    let (form, args, nearly_exec): (_, Vec<Word>, _) = match json::form(text) {
        json::Form::Exec(found) => (Form::Exec, found.into_iter().map(moved).collect(), false),
        json::Form::NotStrings => return Err(raw.not_strings()),
        other => {
            let line = (!text.is_empty()).then(|| super::words::piece(text, 0, text.len()));
            (
                Form::Shell,
                line.into_iter().map(moved).collect(),
                other == json::Form::Nearly,
            )
        }
    };
    Ok(CommandLine {
        form,
        args,
        heredocs,
        nearly_exec,
    })
}
