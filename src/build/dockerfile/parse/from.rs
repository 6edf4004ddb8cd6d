//! `FROM`.

use super::{Command, Fault, Parsed, Raw, words};
use crate::build::dockerfile::instruction::From;

const SHAPE: &str = "FROM [--platform=PLATFORM] IMAGE [AS NAME]";

pub(super) fn from(raw: Raw<'_>) -> Parsed<Command> {
    raw.some(SHAPE)?;
    let flags = raw.flags(&["platform"], &[])?;
    let mut found = raw.words(words::plain(raw.text()));
    let (keyword, name) = match found.len() {
        1 => (None, None),
        3 if found[1].text.eq_ignore_ascii_case("as") => {
            let name = found.pop();
            (found.pop(), name)
        }
        _ => {
            let comment = found.iter().any(|word| word.text.starts_with('#'));
            let hint = if comment {
                "; a comment has a line of its own"
            } else {
                ""
            };
            return Err(raw.fault("FROM with more than an image and a name", format!("{SHAPE}{hint}")));
        }
    };
    if let Some(name) = name.as_ref().filter(|name| !is_name(&name.text)) {
        let problem = format!("{:?} cannot be the name of a stage", name.text);
        let expected = "a letter, then letters, digits, '-', '_' and '.'";
        return Err(Fault::new(name.span, problem, expected));
    }
    let image = found.pop().ok_or_else(|| raw.fault("FROM without an image", SHAPE))?;
    Ok(Command::From(From {
        platform: flags.one("platform")?,
        image,
        keyword,
        name,
    }))
}

fn is_name(text: &str) -> bool {
    let rest = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(rest)
}
