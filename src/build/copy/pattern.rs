//! Patterns of `COPY` and `ADD`: those of Go's `filepath.Match`, which BuildKit finds sources with.
//!
//! `*` and `?` stay within one name; a class `[…]` can be a slash too, as in Go; `\` takes the next character as it is.

/// A pattern that was looked through once.
#[derive(Debug)]
pub(super) struct Pattern<'a> {
    text: &'a [u8],
    parts: Vec<&'a [u8]>,
    /// Whether each part stands for one name: a class may be a slash.
    in_names: bool,
}

/// Whether text has anything that makes it a pattern.
pub(super) fn has_wildcards(text: &[u8]) -> bool {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'*' | b'?' | b'[' => return true,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    false
}

impl<'a> Pattern<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            parts: text.split(|byte| *byte == b'/').collect(),
            in_names: !text.contains(&b'['),
        }
    }

    /// Whether it is one, for Go.
    pub(super) fn is_wellformed(&self) -> bool {
        let mut rest = self.text;
        while !rest.is_empty() {
            let (chunk, after) = next_chunk(rest);
            rest = after;
            let mut chunk = chunk.strip_prefix(b"*").unwrap_or(chunk);
            while !chunk.is_empty() {
                let Some((_, rest)) = one(chunk, None) else {
                    return false;
                };
                chunk = rest;
            }
        }
        true
    }

    pub(super) fn matches(&self, path: &[u8]) -> bool {
        matches(self.text, path)
    }

    /// Whether something below a directory of that path, which has so many parts, could match.
    pub(super) fn may_match_below(&self, path: &[u8]) -> bool {
        if !self.in_names {
            return true;
        }
        let mut names = path.split(|byte| *byte == b'/');
        let mut parts = self.parts.iter();
        loop {
            match (names.next(), parts.next()) {
                (None, left) => return left.is_some(),
                (Some(name), Some(part)) if matches(part, name) => {}
                (Some(_), _) => return false,
            }
        }
    }
}

/// Text up to the next star that is not its first character.
fn next_chunk(pattern: &[u8]) -> (&[u8], &[u8]) {
    let mut start = 0;
    while pattern.get(start) == Some(&b'*') {
        start += 1;
    }
    let first = start.saturating_sub(1);
    let (mut at, mut in_class) = (start, false);
    while let Some(byte) = pattern.get(at) {
        match byte {
            b'\\' if at + 1 < pattern.len() => at += 1,
            b'[' => in_class = true,
            b']' => in_class = false,
            b'*' if !in_class => break,
            _ => {}
        }
        at += 1;
    }
    let at = at.min(pattern.len());
    (&pattern[first..at], &pattern[at..])
}

fn matches(mut pattern: &[u8], mut path: &[u8]) -> bool {
    // Where to try again, one character further, if what follows a star does not fit.
    let mut again: Option<(&[u8], &[u8])> = None;
    loop {
        if let Some(rest) = pattern.strip_prefix(b"*") {
            again = Some((rest, path));
            pattern = rest;
            continue;
        }
        if pattern.is_empty() && path.is_empty() {
            return true;
        }
        if let (false, Some((length, rest))) = (pattern.is_empty(), one(pattern, Some(path))) {
            (pattern, path) = (rest, &path[length..]);
            continue;
        }
        let Some((after, from)) = again else { return false };
        match from.first() {
            Some(byte) if *byte != b'/' => {
                again = Some((after, &from[1..]));
                (pattern, path) = (after, &from[1..]);
            }
            _ => return false,
        }
    }
}

/// Takes the first character, class or `?` of a pattern; returns how much of a path fits it, and what is left of the pattern.
/// Without a path, only whether the pattern is one.
fn one<'a>(pattern: &'a [u8], path: Option<&[u8]>) -> Option<(usize, &'a [u8])> {
    match pattern.first()? {
        b'?' => Some((fitting(path, |c| c != '/')?, &pattern[1..])),
        b'[' => {
            let c = path.and_then(first).map(|(c, _)| c);
            let (found, rest) = class(&pattern[1..], c)?;
            Some((fitting(path, |_| found)?, rest))
        }
        b'\\' => literal(*pattern.get(1)?, path, &pattern[2..]),
        byte => literal(*byte, path, &pattern[1..]),
    }
}

/// The length of the first character, if it fits.
fn fitting(path: Option<&[u8]>, fits: impl FnOnce(char) -> bool) -> Option<usize> {
    let Some(path) = path else { return Some(0) };
    let (c, length) = first(path)?;
    fits(c).then_some(length)
}

fn literal<'a>(byte: u8, path: Option<&[u8]>, rest: &'a [u8]) -> Option<(usize, &'a [u8])> {
    match path {
        None => Some((0, rest)),
        Some(path) => (path.first() == Some(&byte)).then_some((1, rest)),
    }
}

/// The first character of a path; a byte that is none counts as one that stands for it.
fn first(text: &[u8]) -> Option<(char, usize)> {
    let head = &text[..text.len().min(4)];
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default(),
    };
    match valid.chars().next() {
        Some(c) => Some((c, c.len_utf8())),
        None => (!text.is_empty()).then_some((char::REPLACEMENT_CHARACTER, 1)),
    }
}

/// A class behind its `[`: whether a character is in it, and what follows. `None` if it is none.
fn class(text: &[u8], c: Option<char>) -> Option<(bool, &[u8])> {
    let (negated, mut rest) = match text.strip_prefix(b"^") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mut found, mut ranges) = (false, 0);
    loop {
        if let (Some(after), true) = (rest.strip_prefix(b"]"), ranges > 0) {
            return Some((found != negated, after));
        }
        let (low, after) = class_char(rest)?;
        let (high, after) = match after.strip_prefix(b"-") {
            Some(after) => class_char(after)?,
            None => (low, after),
        };
        found |= c.is_some_and(|c| (low..=high).contains(&c));
        (ranges, rest) = (ranges + 1, after);
    }
}

fn class_char(text: &[u8]) -> Option<(char, &[u8])> {
    let text = match text.first()? {
        b'-' | b']' => return None,
        b'\\' => &text[1..],
        _ => text,
    };
    let (c, length) = first(text)?;
    // What cannot end is no class.
    (text.len() > length).then_some((c, &text[length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: Go, `src/path/filepath/match_test.go`.
    #[test]
    fn f3_patterns_match_as_go_has_them() {
        for (pattern, path, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "abc", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^b-d]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "x", true),
            ("[x\\-]", "z", false),
            ("*x", "xxx", true),
            ("[^a]", "/", true),
        ] {
            let parsed = Pattern::new(pattern.as_bytes());
            assert_eq!(parsed.matches(path.as_bytes()), expected, "{pattern} {path}");
            assert!(parsed.is_wellformed(), "{pattern}");
        }
        for bad in [
            "[]a]", "[-]", "[x-]", "[-x]", "[", "[^", "[^bc", "a[", "a\\", "[a-b-c]", "*[",
        ] {
            assert!(!Pattern::new(bad.as_bytes()).is_wellformed(), "{bad}");
        }
    }

    #[test]
    fn f3_what_cannot_match_is_not_walked() {
        let pattern = Pattern::new(b"a*/b/c");
        assert!(pattern.may_match_below(b"ax") && pattern.may_match_below(b"a/b"));
        assert!(
            !pattern.may_match_below(b"b") && !pattern.may_match_below(b"a/c") && !pattern.may_match_below(b"a/b/c")
        );
        assert!(Pattern::new(b"[^x]b").may_match_below(b"zzz"));
        assert!(has_wildcards(b"a*") && has_wildcards(b"[a") && !has_wildcards(b"a\\*b") && !has_wildcards(b"a\\"));
    }

    #[test]
    fn f3_long_patterns_take_no_long_time() {
        let pattern = "*a".repeat(2000);
        let path = "a".repeat(4000) + "b";
        assert!(!Pattern::new(pattern.as_bytes()).matches(path.as_bytes()));
    }
}
