//! Patterns with `*`, `?`, `[…]` and `**`.
//!
//! `*` and `?` stay within one name. `**`, with or without the `/` behind it, is any number of directories; at the end it is
//! anything. A class can hold a slash, as it can in Docker's regular expressions.

#[derive(Debug, Clone)]
pub(super) struct Glob(Vec<Token>);

#[derive(Debug, Clone)]
enum Token {
    Text(String),
    One,
    Star,
    Class { negated: bool, ranges: Vec<(char, char)> },
    Directories,
    Rest,
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

impl Glob {
    /// Errors as Go's `filepath.Match` has them.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Vec::new();
        let mut literal = String::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let token = match c {
                '*' => stars(&mut chars),
                '?' => Token::One,
                '[' => class(&mut chars)
                    .ok_or_else(|| bad(text, "a class [...] that is not closed or has no characters"))?,
                '\\' => {
                    let escaped = chars.next();
                    literal.push(escaped.ok_or_else(|| bad(text, "a backslash with nothing to escape"))?);
                    continue;
                }
                c => {
                    literal.push(c);
                    continue;
                }
            };
            if !literal.is_empty() {
                tokens.push(Token::Text(std::mem::take(&mut literal)));
            }
            tokens.push(token);
        }
        if !literal.is_empty() {
            tokens.push(Token::Text(literal));
        }
        Ok(Self(tokens))
    }

    pub(super) fn matches(&self, path: &[u8]) -> bool {
        self.search(path, |token, at| {
            token.is_none() && at == path.len() || matches!(token, Some(Token::Rest))
        })
    }

    /// Whether a path that begins like this could match.
    pub(super) fn may_go_on(&self, beginning: &[u8]) -> bool {
        self.search(beginning, |token, at| match token {
            Some(Token::Rest | Token::Directories) => true,
            Some(Token::Text(text)) => beginning
                .get(at..)
                .is_some_and(|rest| text.as_bytes().starts_with(rest)),
            Some(_) => at == beginning.len(),
            None => false,
        })
    }

    /// Follows all ways, each place of the path with each token once.
    fn search(&self, path: &[u8], done: impl Fn(Option<&Token>, usize) -> bool) -> bool {
        if let Some(Token::Text(text)) = self.0.first() {
            let common = text.len().min(path.len());
            if text.as_bytes()[..common] != path[..common] {
                return false;
            }
        }
        let mut seen = vec![false; (self.0.len() + 1) * (path.len() + 1)];
        let mut open = vec![(0, 0)];
        while let Some((index, at)) = open.pop() {
            if std::mem::replace(&mut seen[index * (path.len() + 1) + at], true) {
                continue;
            }
            let token = self.0.get(index);
            if done(token, at) {
                return true;
            }
            let rest = &path[at..];
            match token {
                Some(Token::Star) => {
                    if rest.first().is_some_and(|byte| *byte != b'/') {
                        open.push((index, at + 1));
                    }
                    open.push((index + 1, at));
                }
                Some(Token::Directories) => {
                    if let Some(slash) = rest.iter().position(|byte| *byte == b'/') {
                        open.push((index, at + slash + 1));
                    }
                    open.push((index + 1, at));
                }
                Some(token) => open.extend(token.length(rest).map(|length| (index + 1, at + length))),
                None => {}
            }
        }
        false
    }
}

impl Token {
    /// How much of a path one that is not a choice takes, if it matches.
    fn length(&self, path: &[u8]) -> Option<usize> {
        if let Self::Text(text) = self {
            return path.starts_with(text.as_bytes()).then_some(text.len());
        }
        let (c, length) = first_char(path)?;
        let fits = match self {
            Self::One => c != '/',
            Self::Class { negated, ranges } => ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated,
            _ => false,
        };
        fits.then_some(length)
    }
}

/// The first character; a byte that is none counts as one that stands for it.
fn first_char(path: &[u8]) -> Option<(char, usize)> {
    let head = &path[..path.len().min(4)];
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default(),
    };
    match valid.chars().next() {
        Some(c) => Some((c, c.len_utf8())),
        None => (!path.is_empty()).then_some((char::REPLACEMENT_CHARACTER, 1)),
    }
}

fn stars(chars: &mut Chars<'_>) -> Token {
    if chars.next_if_eq(&'*').is_none() {
        return Token::Star;
    }
    chars.next_if_eq(&'/');
    match chars.peek() {
        Some(_) => Token::Directories,
        None => Token::Rest,
    }
}

/// A class behind its `[`.
fn class(chars: &mut Chars<'_>) -> Option<Token> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    while ranges.is_empty() || chars.next_if_eq(&']').is_none() {
        let low = class_char(chars)?;
        let high = match chars.next_if_eq(&'-') {
            Some(_) => class_char(chars)?,
            None => low,
        };
        if low > high {
            return None;
        }
        ranges.push((low, high));
    }
    Some(Token::Class { negated, ranges })
}

fn class_char(chars: &mut Chars<'_>) -> Option<char> {
    match chars.next()? {
        '-' | ']' => None,
        '\\' => chars.next(),
        c => Some(c),
    }
}

fn bad(pattern: &str, what: &str) -> String {
    format!("the pattern {pattern:?} has {what}")
}
