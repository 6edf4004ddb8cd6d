//! Instructions with a list of words, or one word to the end of the line.

use super::{Command, Fault, Parsed, Raw, words};

pub(super) fn expose(raw: Raw<'_>) -> Parsed<Command> {
    raw.no_flags()?;
    raw.some("EXPOSE PORT[/PROTOCOL] ...")?;
    Ok(Command::Expose(raw.words(words::plain(raw.text()))))
}

pub(super) fn volume(raw: Raw<'_>) -> Parsed<Command> {
    raw.no_flags()?;
    raw.some("VOLUME PATH ..., or VOLUME [\"PATH\", ...]")?;
    let found = raw.list()?;
    if found.is_empty() {
        return Err(raw.fault("VOLUME with an empty array", "a path"));
    }
    if let Some(empty) = found.iter().find(|word| word.text.trim().is_empty()) {
        return Err(Fault::new(empty.span, "an empty path", "a path"));
    }
    Ok(Command::Volume(found))
}

/// The rest of the line, blanks included, is one word.
pub(super) fn line(raw: Raw<'_>) -> Parsed<Command> {
    raw.no_flags()?;
    raw.some(match raw.name {
        "WORKDIR" => "WORKDIR PATH",
        "USER" => "USER NAME[:GROUP]",
        "STOPSIGNAL" => "STOPSIGNAL SIGNAL",
        _ => "MAINTAINER NAME",
    })?;
    let word = raw.whole();
    Ok(match raw.name {
        "WORKDIR" => Command::Workdir(word),
        "USER" => Command::User(word),
        "STOPSIGNAL" => Command::StopSignal(word),
        _ => Command::Maintainer(word),
    })
}
