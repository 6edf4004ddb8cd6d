//! `ONBUILD`.

use super::{Command, Fault, Heredoc, Parsed, Raw};
use crate::build::dockerfile::instruction::{Instruction, Onbuild};

pub(super) fn onbuild(raw: Raw<'_>, heredocs: Vec<Heredoc>) -> Parsed<Command> {
    raw.no_flags()?;
    raw.some("ONBUILD INSTRUCTION")?;
    let inner = Raw::new(raw.source, raw.logical, raw.escape, raw.args.0)?;
    if matches!(inner.name, "ONBUILD" | "FROM" | "MAINTAINER") {
        let problem = format!("{} cannot be a trigger", inner.name);
        let expected = "any instruction but ONBUILD, FROM and MAINTAINER";
        return Err(Fault::new(inner.keyword.span, problem, expected));
    }
    // Blanks at its end are kept, as in Docker: the config says what the file does.
    let whole = raw.logical.text.get(raw.args.0..).unwrap_or_default();
    let trigger = trigger(whole, &heredocs);
    let keyword = inner.keyword.clone();
    let span = keyword.span.to(raw.span());
    Ok(Command::Onbuild(Onbuild {
        trigger,
        instruction: Box::new(Instruction {
            keyword,
            span,
            text: raw.text().to_owned(),
            comments: Vec::new(),
            command: inner.command(heredocs)?,
        }),
    }))
}

/// The instruction with its heredocs, as the image's config keeps it.
fn trigger(text: &str, heredocs: &[Heredoc]) -> String {
    let mut whole = text.to_owned();
    for heredoc in heredocs {
        whole.push('\n');
        whole.push_str(&heredoc.raw);
        whole.push_str(&heredoc.name);
    }
    whole
}
