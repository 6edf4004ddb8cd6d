//! `ENV`, `LABEL` and `ARG`: names and values.

use super::{Command, Fault, Parsed, Piece, Raw, Word, words};
use crate::build::dockerfile::instruction::{Argument, Pair};

pub(super) fn env(raw: Raw<'_>) -> Parsed<Command> {
    Ok(Command::Env(pairs(&raw)?))
}

pub(super) fn label(raw: Raw<'_>) -> Parsed<Command> {
    Ok(Command::Label(pairs(&raw)?))
}

pub(super) fn arg(raw: Raw<'_>) -> Parsed<Command> {
    raw.no_flags()?;
    raw.some("ARG NAME, or ARG NAME=VALUE")?;
    let found = quoted(&raw, "ARG NAME, or ARG NAME=VALUE")?;
    let arguments = found.into_iter().map(|piece| argument(&raw, piece));
    Ok(Command::Arg(arguments.collect::<Parsed<_>>()?))
}

fn argument(raw: &Raw<'_>, piece: Piece) -> Parsed<Argument> {
    let Some((name, value)) = halves(raw, &piece) else {
        return Ok(Argument {
            name: raw.word(piece),
            default: None,
        });
    };
    named(&name)?;
    Ok(Argument {
        name,
        default: Some(value),
    })
}

/// `NAME=VALUE ...`, or the old way, `NAME VALUE` to the end of the line.
fn pairs(raw: &Raw<'_>) -> Parsed<Vec<Pair>> {
    let shape = format!("{} NAME=VALUE ...", raw.name);
    raw.no_flags()?;
    raw.some(&shape)?;
    let found = quoted(raw, &shape)?;
    if found.first().is_some_and(|first| !first.text.contains('=')) {
        return Ok(vec![legacy(raw, &shape)?]);
    }
    let pairs = found.into_iter().map(|piece| {
        let Some((name, value)) = halves(raw, &piece) else {
            let problem = format!("no '=' in {:?}", shortened(&piece.text));
            return Err(Fault::new(raw.word(piece).span, problem, shape.clone()));
        };
        named(&name)?;
        let legacy = false;
        Ok(Pair { name, value, legacy })
    });
    pairs.collect()
}

/// The words, of which an escape character alone leaves none.
fn quoted(raw: &Raw<'_>, shape: &str) -> Parsed<Vec<Piece>> {
    let found = words::quoted(raw.text(), raw.escape);
    if found.is_empty() {
        return Err(raw.fault(format!("{} without arguments", raw.name), shape));
    }
    Ok(found)
}

fn legacy(raw: &Raw<'_>, shape: &str) -> Parsed<Pair> {
    let (name, value) = words::first(raw.text());
    let Some(value) = value else {
        return Err(raw.fault(format!("{} with a name and no value", raw.name), shape));
    };
    Ok(Pair {
        name: raw.word(name),
        value: raw.word(value),
        legacy: true,
    })
}

/// Name and value of a word with `=` in it.
fn halves(raw: &Raw<'_>, piece: &Piece) -> Option<(Word, Word)> {
    let at = piece.text.find('=')?;
    let part = |text: &str, start: usize, end: usize| {
        raw.word(Piece {
            text: text.to_owned(),
            start,
            end,
        })
    };
    let middle = piece.start + at;
    Some((
        part(&piece.text[..at], piece.start, middle),
        part(&piece.text[at + 1..], middle + 1, piece.end),
    ))
}

fn named(name: &Word) -> Parsed<()> {
    if name.text.is_empty() {
        return Err(Fault::new(name.span, "a value without a name", "NAME=VALUE"));
    }
    Ok(())
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}
