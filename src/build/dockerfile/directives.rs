//! Parser directives: `# syntax=`, `# escape=` and `# check=` above everything else.

use super::Word;
use super::fault::{Fault, Parsed};
use super::span::{Line, Source};

/// What the directives of a Dockerfile say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directives {
    /// The front end asked for, `docker/dockerfile:1`. It is told and not run: this parser knows the language.
    pub syntax: Option<Word>,
    /// The escape character, `` ` `` in place of `\`.
    pub escape: Option<Word>,
    /// Which checks to skip, and whether warnings are errors.
    pub check: Option<Word>,
}

/// Takes directives while there are any.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    pub(crate) found: Directives,
    lines: usize,
    shebang: bool,
    done: bool,
}

const BACKTICK: &str = "`";
const BACKSLASH: &str = "\\";

impl Reader {
    /// Takes none: the escape character is known.
    pub(crate) fn done(escape: char) -> Self {
        let mut reader = Self {
            done: true,
            ..Self::default()
        };
        reader.found.escape = Some(Word {
            text: escape.to_string(),
            ..Word::default()
        });
        reader
    }

    pub(crate) fn escape(&self) -> char {
        match &self.found.escape {
            Some(word) if word.text == BACKTICK => '`',
            _ => '\\',
        }
    }

    /// Whether the line is a directive. The first line that is none ends them; a first line `#!…` does not.
    pub(crate) fn take(&mut self, source: &Source<'_>, line: Line<'_>) -> Parsed<bool> {
        self.lines += 1;
        if self.done {
            return Ok(false);
        }
        if self.lines == 1 && line.text.starts_with(b"#!") {
            self.shebang = true;
            return Ok(true);
        }
        let Some((name, value)) = self.parts(source, line) else {
            self.done = true;
            return Ok(false);
        };
        self.keep(name, value)?;
        Ok(true)
    }

    fn parts(&self, source: &Source<'_>, line: Line<'_>) -> Option<(Word, Word)> {
        let text = std::str::from_utf8(line.text).ok()?;
        let said = text.trim_start().strip_prefix('#')?.trim_start();
        let (name, value) = said.split_once('=')?;
        let name = name.trim_end();
        let value = value.trim();
        let known = ["syntax", "escape", "check"].contains(&name.to_ascii_lowercase().as_str());
        // After `#!` BuildKit's parser looks for no escape character, though others of its readers find their directives.
        let ignored = self.shebang && name.eq_ignore_ascii_case("escape");
        if !known || value.is_empty() || ignored {
            return None;
        }
        let word = |part: &str| {
            let start = line.start + (part.as_ptr() as usize - text.as_ptr() as usize);
            Word {
                text: part.to_owned(),
                span: source.span(start, start + part.len()),
            }
        };
        Some((word(name), word(value)))
    }

    fn keep(&mut self, name: Word, value: Word) -> Parsed<()> {
        let key = name.text.to_ascii_lowercase();
        let slot = match key.as_str() {
            "syntax" => &mut self.found.syntax,
            "escape" => &mut self.found.escape,
            _ => &mut self.found.check,
        };
        if slot.is_some() {
            let problem = format!("a second {key} directive");
            return Err(Fault::new(name.span, problem, format!("one {key} directive")));
        }
        if key == "escape" && ![BACKTICK, BACKSLASH].contains(&value.text.as_str()) {
            let problem = format!("{:?} cannot be the escape character", value.text);
            return Err(Fault::new(value.span, problem, "\\ or `"));
        }
        *slot = Some(value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Dockerfile;

    fn of(text: &str) -> String {
        match Dockerfile::parse(text) {
            Ok(file) => {
                let found = file.directives();
                let all = [&found.syntax, &found.escape, &found.check];
                let told = all.map(|word| {
                    word.as_ref()
                        .map_or("-".into(), |word| format!("{}@{}", word.text, word.span))
                });
                told.join(" ")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn f7_directives_are_found_above_everything_else() {
        assert_eq!(
            of("#Syntax = docker/dockerfile:1 \n\t# CHECK=skip=all;error=true\n# escape=`\nFROM a"),
            "docker/dockerfile:1@1:11 `@3:10 skip=all;error=true@2:10"
        );
        assert_eq!(of("#!/usr/bin/env x\n# syntax=a\nFROM a"), "a@2:10 - -");
        for none in [
            "# a comment\n# escape=`\nFROM a",
            "\n# escape=`\nFROM a",
            "# unknown=1\n# escape=`\nFROM a",
            "# escape=\nFROM a",
            "#!x\n# escape=`\nFROM a",
            "FROM a\n# escape=`",
        ] {
            assert_eq!(of(none), "- - -", "{none:?}");
        }
    }

    #[test]
    fn f7_wrong_directives_are_refused() {
        assert_eq!(
            of("# escape=\\\n# escape=`\nFROM a"),
            "Dockerfile:2:3: a second escape directive"
        );
        assert_eq!(
            of("# escape=x\nFROM a"),
            "Dockerfile:1:10: \"x\" cannot be the escape character"
        );
    }
}
