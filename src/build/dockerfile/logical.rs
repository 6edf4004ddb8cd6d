//! From lines to instructions: continuations are joined, comments and empty lines left out.

use super::directives::Reader;
use super::fault::{Fault, Parsed};
use super::span::{Line, Source, Span};
use super::words::Piece;
use super::{Comment, Word};
use crate::build::limits;

/// An instruction's text in one piece, with the way back to the file.
pub(crate) struct Logical {
    pub(crate) text: String,
    /// Where pieces of the text are in the file: from this byte of the text on, from that byte of the file on.
    map: Vec<(usize, usize)>,
    /// The file's byte behind the last character.
    end: usize,
    /// Empty lines between continued ones.
    pub(crate) empty: Option<Span>,
    /// The comments above.
    pub(crate) comments: Vec<Comment>,
}

impl Logical {
    /// The file's byte for a byte of the text.
    fn source(&self, at: usize) -> usize {
        let index = self.map.partition_point(|(text, _)| *text <= at).saturating_sub(1);
        let (text, file) = self.map.get(index).copied().unwrap_or_default();
        (file + at.saturating_sub(text)).min(self.end)
    }

    pub(crate) fn span(&self, source: &Source<'_>, start: usize, end: usize) -> Span {
        let first = self.source(start);
        // The last byte's place and one more: the byte behind may belong to the next line.
        let last = if end > start { self.source(end - 1) + 1 } else { first };
        source.span(first, last)
    }

    pub(crate) fn word(&self, source: &Source<'_>, piece: Piece) -> Word {
        Word {
            span: self.span(source, piece.start, piece.end),
            text: piece.text,
        }
    }
}

/// Reads a file line by line.
pub(crate) struct Lines<'a> {
    pub(crate) source: &'a Source<'a>,
    pub(crate) directives: Reader,
    next: usize,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(source: &'a Source<'a>) -> Self {
        Self {
            source,
            directives: Reader::default(),
            next: 0,
        }
    }

    /// A trigger has no directives of its own.
    pub(crate) fn of_trigger(source: &'a Source<'a>, escape: char) -> Self {
        Self {
            source,
            directives: Reader::done(escape),
            next: 0,
        }
    }

    /// The next line as it is, for heredocs.
    pub(crate) fn raw(&mut self) -> Option<Line<'a>> {
        let line = self.source.line(self.next)?;
        self.next += 1;
        Some(line)
    }

    /// The next instruction.
    pub(crate) fn logical(&mut self) -> Parsed<Option<Logical>> {
        let mut comments = Vec::new();
        while let Some(line) = self.raw() {
            if self.directives.take(self.source, line)? {
                continue;
            }
            if let Some(comment) = comment(line.text) {
                remember(&mut comments, self.source, line, comment);
                continue;
            }
            let text = self.text(line)?;
            let start = line.start + (text.len() - text.trim_start().len());
            let (text, continued) = self.uncontinued(text.trim_start());
            if text.is_empty() && !continued {
                continue;
            }
            let mut logical = Logical {
                text: text.to_owned(),
                map: vec![(0, start)],
                end: start + text.len(),
                empty: None,
                comments,
            };
            if continued {
                self.join(&mut logical)?;
            }
            return Ok(Some(logical));
        }
        Ok(None)
    }

    /// Adds the lines that continue an instruction.
    fn join(&mut self, logical: &mut Logical) -> Parsed<()> {
        while let Some(line) = self.raw() {
            if comment(line.text).is_some() {
                continue;
            }
            let text = self.text(line)?;
            if text.trim_start().is_empty() {
                logical.empty = Some(self.source.span(line.start, line.start));
                continue;
            }
            let (text, continued) = self.uncontinued(text);
            if logical.text.len() + text.len() > limits::INSTRUCTION_BYTES {
                let span = self.source.span(line.start, line.start);
                return Err(Fault::limit(span, "bytes in an instruction", limits::INSTRUCTION_BYTES));
            }
            if !text.is_empty() {
                logical.map.push((logical.text.len(), line.start));
                logical.text.push_str(text);
                logical.end = line.start + text.len();
            }
            if !continued {
                break;
            }
        }
        Ok(())
    }

    /// A line as text.
    fn text(&self, line: Line<'a>) -> Parsed<&'a str> {
        if line.text.len() > limits::LINE_BYTES {
            let span = self.source.span(line.start, line.start);
            return Err(Fault::limit(span, "bytes in a line", limits::LINE_BYTES));
        }
        text(self.source, line)
    }

    /// The line without the escape character at its end, and whether there was one. Two of them are none.
    fn uncontinued<'t>(&self, text: &'t str) -> (&'t str, bool) {
        let escape = self.directives.escape();
        match text.trim_end_matches([' ', '\t']).strip_suffix(escape) {
            Some(kept) if !kept.ends_with(escape) => (kept, true),
            _ => (text, false),
        }
    }
}

/// A line as text without zero bytes, which no program could be given.
pub(crate) fn text<'a>(source: &Source<'_>, line: Line<'a>) -> Parsed<&'a str> {
    let at = |offset: usize| source.span(line.start + offset, line.start + offset);
    let text = std::str::from_utf8(line.text)
        .map_err(|error| Fault::new(at(error.valid_up_to()), "this is not UTF-8", "text in UTF-8"))?;
    match text.find('\0') {
        Some(zero) => Err(Fault::new(at(zero), "a zero byte", "text without zero bytes")),
        None => Ok(text),
    }
}

/// What a comment says, if the line is one. Its encoding does not matter.
fn comment(line: &[u8]) -> Option<String> {
    let line = line.trim_ascii_start();
    let said = line.strip_prefix(b"#")?;
    Some(String::from_utf8_lossy(said).trim().to_owned())
}

/// Comments above an instruction describe it; an empty one ends what was said.
fn remember(comments: &mut Vec<Comment>, source: &Source<'_>, line: Line<'_>, text: String) {
    if text.is_empty() {
        comments.clear();
    } else {
        let span = source.span(line.start, line.start + line.text.len());
        comments.push(Comment { text, span });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<(String, String, bool)> {
        let source = Source::new(text.as_bytes());
        let mut lines = Lines::new(&source);
        let mut found = Vec::new();
        while let Some(logical) = lines.logical().unwrap() {
            let span = logical.span(&source, 0, logical.text.len());
            let place = format!("{}-{}", span.start, span.end);
            found.push((logical.text, place, logical.empty.is_some()));
        }
        found
    }

    #[test]
    fn f7_continuations_are_joined_without_comments() {
        let found = all("# a\r\n\r\n  RUN a \\\r\n  # not this\r\n\t b \\ \t\r\n\r\n c\nUSER d\\\\\nUSER e");
        assert_eq!(
            found,
            [
                ("RUN a \t b  c".into(), "3:3-7:3".into(), true),
                ("USER d\\\\".into(), "8:1-8:9".into(), false),
                ("USER e".into(), "9:1-9:7".into(), false),
            ]
        );
    }

    #[test]
    fn f7_the_escape_character_is_chosen() {
        let found = all("#escape=`\nRUN a\\\nRUN b `\n c");
        assert_eq!(found[0].0, "RUN a\\");
        assert_eq!(found[1].0, "RUN b  c");
    }

    #[test]
    fn a_continuation_alone_and_at_the_end() {
        assert_eq!(all("\\\nRUN a \\")[0].0, "RUN a ");
        assert_eq!(all("\\")[0].0, "");
    }

    #[test]
    fn every_byte_of_the_text_has_its_place() {
        let text = "RUN a\\\n  bc\\\n\\\nd";
        let source = Source::new(text.as_bytes());
        let logical = Lines::new(&source).logical().unwrap().unwrap();
        assert_eq!(logical.text, "RUN a  bcd");
        let places: Vec<String> = (0..logical.text.len())
            .map(|at| logical.span(&source, at, at + 1).start.to_string())
            .collect();
        assert_eq!(places[4..], ["1:5", "2:1", "2:2", "2:3", "2:4", "4:1"]);
    }

    #[test]
    fn comments_belong_to_what_follows() {
        let source = Source::new(b"# one\n#\n# two\n\n# \xFF\nRUN a \\\n# three\n b\nRUN c");
        let mut lines = Lines::new(&source);
        let first = lines.logical().unwrap().unwrap();
        let said: Vec<&str> = first.comments.iter().map(|comment| comment.text.as_str()).collect();
        assert_eq!(said, ["two", "\u{FFFD}"]);
        assert!(lines.logical().unwrap().unwrap().comments.is_empty());
    }

    #[test]
    fn hostile_lines_are_refused() {
        let long = format!("RUN {}", "x".repeat(limits::LINE_BYTES));
        let many = "\\\nRUN x".to_owned() + &"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\\\n".repeat(100_000);
        for (bad, place) in [
            (&b"RUN a\nRUN \xFFx"[..], "2:5"),
            (&b"RUN a\0b"[..], "1:6"),
            (long.as_bytes(), "1:1"),
            (many.as_bytes(), "33826:1"),
        ] {
            let source = Source::new(bad);
            let mut lines = Lines::new(&source);
            let fault = std::iter::from_fn(|| lines.logical().transpose())
                .find_map(Result::err)
                .unwrap();
            let message = fault.into_error("F").to_string();
            assert!(message.starts_with(&format!("F:{place}: ")), "{message}");
        }
    }
}
