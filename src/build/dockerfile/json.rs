//! The exec form: a JSON array of strings.

use super::words::Piece;

/// What an instruction's text is, looked at as JSON.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// An array of strings: the exec form.
    Exec(Vec<Piece>),
    /// An array with something else in it.
    NotStrings,
    /// Meant as the exec form, it seems, but not JSON; it is taken as the shell form.
    Nearly,
    /// The shell form.
    Shell,
}

/// Tells the form of a text.
pub(crate) fn form(text: &str) -> Form {
    if !text.trim_start().starts_with('[') {
        return Form::Shell;
    }
    if let Some(found) = strings(text) {
        return Form::Exec(found);
    }
    if serde_json::from_str::<Vec<serde::de::IgnoredAny>>(text).is_ok() {
        return Form::NotStrings;
    }
    if is_nearly(text) { Form::Nearly } else { Form::Shell }
}

const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

/// The strings of an array, if it holds nothing else.
fn strings(text: &str) -> Option<Vec<Piece>> {
    let skip = |at: usize| text.len() - text[at..].trim_start_matches(BLANKS).len();
    let mut found = Vec::new();
    let open = text.find('[')?;
    let mut at = skip(open + 1);
    if text[at..].starts_with(']') {
        return text[at + 1..].trim_matches(BLANKS).is_empty().then_some(found);
    }
    loop {
        let end = string_end(text, at)?;
        let value = serde_json::from_str(&text[at..end]).ok()?;
        found.push(Piece {
            text: value,
            start: at,
            end,
        });
        at = skip(end);
        match text[at..].chars().next()? {
            ',' => at = skip(at + 1),
            ']' => return text[at + 1..].trim_matches(BLANKS).is_empty().then_some(found),
            _ => return None,
        }
    }
}

/// The byte behind the string that begins here.
fn string_end(text: &str, start: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    if bytes.get(start) != Some(&b'"') {
        return None;
    }
    let mut at = start + 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Brackets around nothing but quoted strings and commas: single quotes, typographic ones, a comma too many or missing.
/// A shell's test, `[ "$a" = b ]`, has more in it.
fn is_nearly(text: &str) -> bool {
    let trimmed = text.trim();
    let Some(inside) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else {
        return false;
    };
    let mut closing = None;
    let mut strings = 0;
    for c in inside.chars() {
        match closing {
            Some(close) if c == close => closing = None,
            Some(_) => {}
            None => match closing_quote(c) {
                Some(close) => {
                    closing = Some(close);
                    strings += 1;
                }
                None if c == ',' || c.is_whitespace() => {}
                None => return false,
            },
        }
    }
    strings > 0
}

fn closing_quote(c: char) -> Option<char> {
    match c {
        '\'' | '"' => Some(c),
        '\u{201C}' | '\u{201D}' => Some('\u{201D}'),
        '\u{2018}' | '\u{2019}' => Some('\u{2019}'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<String> {
        match form(text) {
            Form::Exec(found) => found.into_iter().map(|piece| piece.text).collect(),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn f2_arrays_of_strings_are_the_exec_form() {
        assert_eq!(values(r#"["a", "b c" ,"\"\u00e9\\" ]"#), ["a", "b c", "\"é\\"]);
        assert!(values(" [ ] ").is_empty());
        let Form::Exec(found) = form(r#"[ "ab"]"#) else {
            panic!()
        };
        assert_eq!((found[0].start, found[0].end), (2, 6));
    }

    #[test]
    fn f2_other_texts_are_the_shell_form() {
        for text in [
            "echo []",
            "[ -f x ]",
            r#"[ "$a" = b ]"#,
            r#"["a"] && b"#,
            "[",
            r#"["a"#,
            r#"["\"#,
            "[a]",
            "[,]",
        ] {
            assert_eq!(form(text), Form::Shell, "{text}");
        }
        for text in ["['a', 'b']", "[\"a\",]", "[\"a\" \"b\"]", "[\u{201C}a\u{201D}]"] {
            assert_eq!(form(text), Form::Nearly, "{text}");
        }
        for text in ["[1]", r#"["a", null]"#, r#"[["a"]]"#] {
            assert_eq!(form(text), Form::NotStrings, "{text}");
        }
    }
}
