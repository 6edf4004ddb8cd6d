//! `COPY` and `ADD`.

use super::{Command, Fault, Heredoc, Parsed, Raw, Word};
use crate::build::dockerfile::heredoc::announced;
use crate::build::dockerfile::instruction::{Add, Copy, FileSource};

pub(super) fn copy(raw: Raw<'_>, heredocs: Vec<Heredoc>) -> Parsed<Command> {
    let known = ["from", "chown", "chmod", "link", "parents", "exclude"];
    let flags = raw.flags(&known, &["exclude"])?;
    let from = flags.one("from")?;
    if let Some(word) = &from {
        no_variables(word)?;
    }
    let (sources, destination) = ends(&raw, heredocs)?;
    Ok(Command::Copy(Copy {
        from: from.filter(|word| !word.text.is_empty()),
        chown: flags.one("chown")?,
        chmod: flags.one("chmod")?,
        link: flags.switch("link")?.unwrap_or(false),
        parents: flags.switch("parents")?.unwrap_or(false),
        excludes: flags.all("exclude")?,
        sources,
        destination,
    }))
}

pub(super) fn add(raw: Raw<'_>, heredocs: Vec<Heredoc>) -> Parsed<Command> {
    let known = [
        "chown",
        "chmod",
        "link",
        "keep-git-dir",
        "checksum",
        "unpack",
        "exclude",
    ];
    let flags = raw.flags(&known, &["exclude"])?;
    let (sources, destination) = ends(&raw, heredocs)?;
    Ok(Command::Add(Add {
        chown: flags.one("chown")?,
        chmod: flags.one("chmod")?,
        link: flags.switch("link")?.unwrap_or(false),
        keep_git_dir: flags.switch("keep-git-dir")?,
        checksum: flags.one("checksum")?,
        unpack: flags.switch("unpack")?,
        excludes: flags.all("exclude")?,
        sources,
        destination,
    }))
}

/// `--from` is needed before any variable has a value.
fn no_variables(word: &Word) -> Parsed<()> {
    if word.text.contains('$') {
        let expected = "a stage of its own, FROM with the variable, and its name here";
        return Err(Fault::new(word.span, "--from cannot have variables", expected));
    }
    Ok(())
}

/// The sources and the destination, which is the last.
fn ends(raw: &Raw<'_>, heredocs: Vec<Heredoc>) -> Parsed<(Vec<FileSource>, Word)> {
    let shape = format!("{} [FLAGS] SOURCE... DESTINATION", raw.name);
    raw.some(&shape)?;
    let mut found = raw.list()?;
    let destination = found.pop().filter(|_| !found.is_empty());
    let destination = destination.ok_or_else(|| raw.fault(format!("{} without a destination", raw.name), shape))?;
    if announced(&destination.text).is_some() {
        return Err(Fault::new(
            destination.span,
            "a heredoc cannot be the destination",
            "a path",
        ));
    }
    let mut heredocs = heredocs.into_iter();
    let sources = found.into_iter().map(|word| source(word, &mut heredocs));
    let sources = sources.collect::<Parsed<_>>()?;
    // Its lines are read, and would be lost.
    if let Some(lost) = heredocs.next() {
        let problem = format!("the heredoc {:?} is no source", lost.name);
        return Err(Fault::new(
            lost.span,
            problem,
            "a delimiter without blanks, between blanks",
        ));
    }
    Ok((sources, destination))
}

/// The heredocs come in the order of the words that announce them.
fn source(word: Word, heredocs: &mut impl Iterator<Item = Heredoc>) -> Parsed<FileSource> {
    let Some(said) = announced(&word.text) else {
        return Ok(FileSource::Path(word));
    };
    match heredocs.find(|heredoc| heredoc.name == said.name) {
        Some(heredoc) => Ok(FileSource::Inline(heredoc)),
        None => Err(Fault::new(
            word.span,
            "a heredoc that its line does not announce",
            "<<NAME between blanks",
        )),
    }
}
