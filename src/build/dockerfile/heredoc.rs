//! Here-documents: `<<EOF` in an instruction's line, and the lines below up to `EOF`.

use super::fault::{Fault, Parsed};
use super::logical::{Lines, Logical, text};
use super::span::Span;
use super::words::Piece;
use crate::build::limits;

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// Its delimiter, without quotes; for `COPY` and `ADD` the file's name too.
    pub name: String,
    /// Whether variables in it stand for their values: not if the delimiter is quoted.
    pub expand: bool,
    /// Whether tabs at the beginnings of its lines are dropped: `<<-`.
    pub chomp: bool,
    /// The number before `<<`; 0 where there is none.
    pub descriptor: u32,
    /// Its lines as they are in the file, line breaks included.
    pub raw: String,
    /// Where the instruction names it.
    pub span: Span,
}

impl Heredoc {
    /// Its lines; with `<<-` without the tabs at their beginnings.
    pub fn content(&self) -> String {
        if !self.chomp {
            return self.raw.clone();
        }
        let lines = self.raw.split_inclusive('\n');
        lines.map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// A word that announces a heredoc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) name: String,
    expand: bool,
    chomp: bool,
    descriptor: u32,
}

/// The heredocs that a line announces, with their bodies, which are taken from the lines below.
pub(crate) fn read(lines: &mut Lines<'_>, logical: &Logical) -> Parsed<Vec<Heredoc>> {
    let mut found = Vec::new();
    for piece in words(&logical.text) {
        let Some(announced) = announced(&piece.text) else {
            continue;
        };
        let span = logical.span(lines.source, piece.start, piece.end);
        if found.len() == limits::HEREDOCS {
            return Err(Fault::limit(span, "heredocs in an instruction", limits::HEREDOCS));
        }
        found.push(body(lines, announced, span)?);
    }
    Ok(found)
}

fn body(lines: &mut Lines<'_>, announced: Announced, span: Span) -> Parsed<Heredoc> {
    let mut raw = String::new();
    while let Some(line) = lines.raw() {
        let said = text(lines.source, line)?;
        let compared = if announced.chomp {
            said.trim_start_matches('\t')
        } else {
            said
        };
        if compared == announced.name {
            return Ok(Heredoc {
                name: announced.name,
                expand: announced.expand,
                chomp: announced.chomp,
                descriptor: announced.descriptor,
                raw,
                span,
            });
        }
        let whole = lines.source.bytes().get(line.start..line.end).unwrap_or_default();
        raw.push_str(&String::from_utf8_lossy(whole));
    }
    let problem = format!("the heredoc <<{} does not end", announced.name);
    Err(Fault::new(
        span,
        problem,
        format!("a line that says {} and nothing else", announced.name),
    ))
}

/// What a word of an instruction announces: digits, `<<`, perhaps `-`, and a delimiter.
pub(crate) fn announced(word: &str) -> Option<Announced> {
    let digits = word.find(|c: char| !c.is_ascii_digit())?;
    let rest = word[digits..].strip_prefix("<<")?;
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let (name, quoted) = unquoted(rest.trim_start())?;
    Some(Announced {
        name,
        expand: !quoted,
        chomp,
        descriptor: word[..digits].parse().unwrap_or(0),
    })
}

/// A delimiter without its quotes and escapes, and whether it had quotes. `None` if it is not one word, or holds `<`.
fn unquoted(text: &str) -> Option<(String, bool)> {
    let mut name = String::new();
    let mut quote = None;
    let mut quoted = false;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            _ if c == '<' => return None,
            Some(open) if c == open => quote = None,
            Some('\'') => name.push(c),
            Some(_) if c == '\\' => name.push(escaped_in_quotes(&mut chars)),
            Some(_) => name.push(c),
            None if matches!(c, '\'' | '"') => (quote, quoted) = (Some(c), true),
            None if c == '\\' => name.extend(chars.next()),
            None if c.is_whitespace() => return None,
            None => name.push(c),
        }
    }
    (quote.is_none() && !name.is_empty()).then_some((name, quoted))
}

/// Within double quotes a backslash escapes `"`, `$` and itself alone.
fn escaped_in_quotes(chars: &mut std::str::Chars<'_>) -> char {
    match chars.clone().next() {
        Some(c @ ('"' | '$' | '\\')) => {
            chars.next();
            c
        }
        _ => '\\',
    }
}

/// The words of a line as a shell sees them, quotes and escapes kept; blanks after `<<` do not separate. None if a quote is
/// left open. The escape character is `\` here, whatever the directive says, as in BuildKit.
fn words(line: &str) -> Vec<Piece> {
    let mut cut = Cutter::default();
    let mut quote = None;
    let mut chars = line.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match quote {
            Some(open) => {
                if c == open {
                    quote = None;
                } else if c == '\\' && open == '"' {
                    chars.next();
                }
            }
            None if c.is_whitespace() => cut.end(line, at),
            None => {
                cut.start(at);
                if matches!(c, '\'' | '"') {
                    quote = Some(c);
                } else if c == '\\' {
                    chars.next();
                } else if c == '<' && chars.next_if(|(_, next)| *next == '<').is_some() {
                    while chars.next_if(|(_, next)| matches!(next, ' ' | '\t' | '\r')).is_some() {}
                }
            }
        }
    }
    cut.end(line, line.len());
    if quote.is_some() { Vec::new() } else { cut.found }
}

#[derive(Default)]
struct Cutter {
    found: Vec<Piece>,
    from: Option<usize>,
}

impl Cutter {
    fn start(&mut self, at: usize) {
        self.from.get_or_insert(at);
    }

    fn end(&mut self, line: &str, at: usize) {
        if let Some(from) = self.from.take() {
            self.found.push(super::words::piece(line, from, at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f7_delimiters_are_told() {
        let said = |word: &str| announced(word).map(|a| (a.name, a.expand, a.chomp, a.descriptor));
        assert_eq!(said("<<EOF"), Some(("EOF".into(), true, false, 0)));
        assert_eq!(said("3<<-EOF"), Some(("EOF".into(), true, true, 3)));
        assert_eq!(said("<<'EOF'"), Some(("EOF".into(), false, false, 0)));
        assert_eq!(said("<<- \"a b\""), Some(("a b".into(), false, true, 0)));
        assert_eq!(said("<<E\"O\"F"), Some(("EOF".into(), false, false, 0)));
        assert_eq!(said(r"<<\EOF"), Some(("EOF".into(), true, false, 0)));
        assert_eq!(said(r#"<<"a\"b\c""#), Some((r#"a"b\c"#.into(), false, false, 0)));
        for none in [
            "<<", "<<<x", "x<<EOF", "<<\"\"", "<<'a", "<<a b", "12", "", "<", "<<a<b",
        ] {
            assert_eq!(said(none), None, "{none}");
        }
    }

    #[test]
    fn f7_words_of_a_line_are_the_shells() {
        let said = |line: &str| words(line).into_iter().map(|piece| piece.text).collect::<Vec<_>>();
        assert_eq!(said("RUN <<A cat << 'B b' >x"), ["RUN", "<<A", "cat", "<< 'B b'", ">x"]);
        assert_eq!(said(r"RUN echo it\'s <<EOF"), ["RUN", "echo", r"it\'s", "<<EOF"]);
        assert_eq!(said("RUN echo \"<<EOF\""), ["RUN", "echo", "\"<<EOF\""]);
        assert!(said("RUN echo it's <<EOF").is_empty());
    }

    #[test]
    fn chomping_drops_tabs_alone() {
        let heredoc = Heredoc {
            name: "E".into(),
            expand: true,
            chomp: true,
            descriptor: 0,
            raw: "\t\ta\r\n \tb\n\t\n\tc".into(),
            span: Span::default(),
        };
        assert_eq!(heredoc.content(), "a\r\n \tb\n\nc");
    }
}
