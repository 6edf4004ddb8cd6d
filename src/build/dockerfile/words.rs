//! Words of an instruction's text. Nothing is expanded here, and quotes stay: they matter to the expansion.

/// A word and where it is in the text it was cut from, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) text: String,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// The blanks that separate the words of most instructions.
pub(crate) fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\u{b}' | '\u{c}')
}

/// Words between blanks, whatever they contain.
pub(crate) fn plain(text: &str) -> Vec<Piece> {
    let mut found = Vec::new();
    let mut start = None;
    for (at, c) in text.char_indices() {
        match (is_blank(c), start) {
            (true, Some(from)) => {
                found.push(piece(text, from, at));
                start = None;
            }
            (false, None) => start = Some(at),
            _ => {}
        }
    }
    found.extend(start.map(|from| piece(text, from, text.len())));
    found
}

/// The first word and what follows the blanks after it, if anything does.
pub(crate) fn first(text: &str) -> (Piece, Option<Piece>) {
    let end = text.find(is_blank).unwrap_or(text.len());
    let rest = text[end..].find(|c| !is_blank(c)).map(|at| end + at);
    (
        piece(text, 0, end),
        rest.filter(|_| end < text.len())
            .map(|from| piece(text, from, text.len())),
    )
}

pub(crate) fn piece(text: &str, start: usize, end: usize) -> Piece {
    Piece {
        text: text[start..end].to_owned(),
        start,
        end,
    }
}

/// Words of `ENV`, `LABEL` and `ARG`: blanks inside quotes, and escaped ones, do not separate. Quotes and escapes are kept;
/// an escape character at the very end is dropped.
pub(crate) fn quoted(text: &str, escape: char) -> Vec<Piece> {
    let mut found = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some((start, _)) = next_dark(&mut chars) {
        let (word, end) = one_quoted(&mut chars, text.len(), escape);
        if !word.is_empty() {
            found.push(Piece { text: word, start, end });
        }
    }
    found
}

type Chars<'a> = std::iter::Peekable<std::str::CharIndices<'a>>;

/// Leaves the iterator at the next character that is not white space.
fn next_dark(chars: &mut Chars<'_>) -> Option<(usize, char)> {
    while chars.next_if(|(_, c)| c.is_whitespace()).is_some() {}
    chars.peek().copied()
}

fn one_quoted(chars: &mut Chars<'_>, length: usize, escape: char) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    while let Some((at, c)) = chars.next_if(|(_, c)| quote.is_some() || !c.is_whitespace()) {
        if c == escape && quote != Some('\'') {
            // One at the end escapes nothing.
            let Some((_, escaped)) = chars.next() else {
                return (word, at);
            };
            word.extend([c, escaped]);
            continue;
        }
        match quote {
            None if matches!(c, '\'' | '"') => quote = Some(c),
            Some(open) if open == c => quote = None,
            _ => {}
        }
        word.push(c);
    }
    (word, chars.peek().map_or(length, |(at, _)| *at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(found: Vec<Piece>) -> Vec<String> {
        found.into_iter().map(|piece| piece.text).collect()
    }

    #[test]
    fn plain_words_know_no_quotes() {
        assert_eq!(texts(plain(" a\t'b  c' \u{b}d\r")), ["a", "'b", "c'", "d"]);
        assert_eq!(plain("ab cd")[1], piece("ab cd", 3, 5));
        assert!(plain(" \t").is_empty());
    }

    #[test]
    fn f5_quoted_words_keep_quotes_and_escapes() {
        assert_eq!(
            texts(quoted(r#"a="b c" d=e\ f g='\' h="\"" "#, '\\')),
            [r#"a="b c""#, r"d=e\ f", r"g='\'", r#"h="\"""#]
        );
        assert_eq!(texts(quoted("a=b\\", '\\')), ["a=b"]);
        assert_eq!(texts(quoted("a=b` c", '`')), ["a=b` c"]);
        assert_eq!(texts(quoted(r#"a="open b"#, '\\')), [r#"a="open b"#]);
        let found = quoted("  ab=c  d", '\\');
        assert_eq!((found[0].start, found[0].end), (2, 6));
        assert_eq!((found[1].start, found[1].end), (8, 9));
    }

    #[test]
    fn the_first_word_is_cut_off() {
        assert_eq!(first("a  b c").1.unwrap().text, "b c");
        assert_eq!(first("a").1, None);
        assert_eq!(first("a ").1, None);
    }
}
