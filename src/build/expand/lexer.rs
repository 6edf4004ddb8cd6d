//! Reads a word character by character.

use std::fmt;

use super::{Env, Expanded, pattern};
use crate::build::limits;

/// How quotes and escapes are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    /// The escape character.
    pub(crate) escape: char,
    /// Whether quotes mean anything; in a heredoc they do not.
    pub(crate) quotes: bool,
}

impl Style {
    /// For the words of instructions.
    pub(crate) fn words(escape: char) -> Self {
        Self { escape, quotes: true }
    }

    /// For the bodies of heredocs, where the escape character is always the same.
    pub(crate) fn heredoc() -> Self {
        Self {
            escape: '\\',
            quotes: false,
        }
    }
}

/// Why a word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) problem: String,
    pub(crate) expected: &'static str,
}

impl Failure {
    pub(super) fn new(problem: impl Into<String>, expected: &'static str) -> Self {
        Self {
            problem: problem.into(),
            expected,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

type Lexed<T> = Result<T, Failure>;

pub(super) struct Lexer<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    style: Style,
    env: &'a Env,
    found: Expanded,
    depth: usize,
    /// What has been put in so far, so that a few variables cannot fill the memory.
    bytes: usize,
    /// Steps that searches for patterns may still take.
    steps: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str, style: Style, env: &'a Env) -> Self {
        Self {
            chars: text.chars().peekable(),
            style,
            env,
            found: Expanded::default(),
            depth: 0,
            bytes: 0,
            steps: limits::PATTERN_STEPS,
        }
    }

    pub(super) fn run(mut self, wanted: bool) -> Lexed<Expanded> {
        let mut words = Words {
            wanted,
            ..Words::default()
        };
        self.found.text = self.until(None, false, &mut words)?;
        self.found.words = words.finish();
        Ok(self.found)
    }

    /// Reads up to `stop`, or to the end. With `raw`, escapes are kept: what follows is a pattern.
    fn until(&mut self, stop: Option<char>, raw: bool, words: &mut Words) -> Lexed<String> {
        let mut text = String::new();
        while let Some(c) = self.chars.next() {
            if Some(c) == stop {
                return Ok(text);
            }
            if c == '$' {
                let value = self.dollar()?;
                words.text(&value);
                text.push_str(&value);
            } else if self.style.quotes && matches!(c, '\'' | '"') {
                let quoted = if c == '"' { self.double(raw)? } else { self.single()? };
                words.raw(&quoted);
                text.push_str(&quoted);
            } else if c == self.style.escape {
                self.escaped(c, raw, words, &mut text);
            } else {
                words.char(c);
                text.push(c);
            }
        }
        match stop {
            None => Ok(text),
            Some(_) => Err(Failure::new("a substitution does not end", "'}' at the end of ${")),
        }
    }

    /// An escape character outside quotes takes the next one's meaning; at the very end it is dropped.
    fn escaped(&mut self, escape: char, raw: bool, words: &mut Words, text: &mut String) {
        if raw {
            words.raw_char(escape);
            text.push(escape);
        }
        if let Some(c) = self.chars.next() {
            words.raw_char(c);
            text.push(c);
        }
    }

    fn single(&mut self) -> Lexed<String> {
        let mut text = String::new();
        for c in self.chars.by_ref() {
            if c == '\'' {
                return Ok(text);
            }
            text.push(c);
        }
        Err(Failure::new("a single quote does not end", "another '"))
    }

    fn double(&mut self, raw: bool) -> Lexed<String> {
        let mut text = String::new();
        while let Some(c) = self.chars.next() {
            if c == '"' {
                return Ok(text);
            } else if c == '$' {
                let value = self.dollar()?;
                text.push_str(&value);
            } else if c == self.style.escape {
                let special = |next: &char| matches!(next, '"' | '$') || *next == c;
                match self.chars.next_if(special) {
                    Some(next) => text.extend(raw.then_some(c).into_iter().chain([next])),
                    // At the end, the quote is open anyway; elsewhere the character stands for itself.
                    None => text.push(c),
                }
            } else {
                text.push(c);
            }
        }
        Err(Failure::new("a double quote does not end", "another \""))
    }

    /// What follows `$`.
    fn dollar(&mut self) -> Lexed<String> {
        if self.chars.next_if_eq(&'{').is_some() {
            self.depth += 1;
            if self.depth > limits::NESTING {
                let problem = format!("more than {} substitutions within each other", limits::NESTING);
                return Err(Failure::new(problem, "fewer of them"));
            }
            let value = self.braces()?;
            self.depth -= 1;
            return self.put(value);
        }
        match self.name() {
            name if name.is_empty() => Ok("$".to_owned()),
            name => {
                let value = self.value(&name).unwrap_or_default().to_owned();
                self.put(value)
            }
        }
    }

    fn put(&mut self, value: String) -> Lexed<String> {
        self.bytes += value.len();
        if self.bytes > limits::EXPANDED_BYTES {
            let problem = format!(
                "a word of more than {} bytes once its variables are put in",
                limits::EXPANDED_BYTES
            );
            return Err(Failure::new(problem, "shorter values"));
        }
        Ok(value)
    }

    fn value(&mut self, name: &str) -> Option<&'a str> {
        let value = self.env.get(name);
        let names = if value.is_some() {
            &mut self.found.matched
        } else {
            &mut self.found.unmatched
        };
        if !names.contains(name) {
            names.insert(name.to_owned());
        }
        value
    }

    /// Letters, digits and `_`; or digits alone; or one of the shell's special parameters.
    fn name(&mut self) -> String {
        let mut name = String::new();
        if self.chars.peek().is_some_and(|c| c.is_numeric()) {
            while let Some(c) = self.chars.next_if(|c| c.is_numeric()) {
                name.push(c);
            }
            return name;
        }
        if let Some(c) = self
            .chars
            .next_if(|c| matches!(c, '@' | '*' | '#' | '?' | '-' | '$' | '!'))
        {
            return c.to_string();
        }
        while let Some(c) = self.chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
            name.push(c);
        }
        name
    }

    /// What follows `${`.
    fn braces(&mut self) -> Lexed<String> {
        if matches!(self.chars.peek(), Some('{' | '}' | ':')) {
            return Err(Failure::new("a substitution without a name", "${name}"));
        }
        let name = self.name();
        match self.chars.next() {
            Some('}') => Ok(self.value(&name).unwrap_or_default().to_owned()),
            Some(':') => match self.chars.next() {
                Some(c @ ('-' | '+' | '?')) => self.conditional(&name, c, true),
                Some(c) => Err(unsupported(&format!(":{c}"))),
                None => Err(unclosed()),
            },
            Some(c @ ('-' | '+' | '?')) => self.conditional(&name, c, false),
            Some(c @ ('#' | '%')) => self.trimmed(&name, c),
            Some('/') => self.replaced(&name),
            Some(c) => Err(unsupported(&c.to_string())),
            None => Err(unclosed()),
        }
    }

    /// `${name-word}`, `${name+word}`, `${name?word}`; with `:`, an empty value is as good as none.
    fn conditional(&mut self, name: &str, operator: char, empty_is_unset: bool) -> Lexed<String> {
        let word = self.until(Some('}'), false, &mut Words::default())?;
        let value = self.value(name);
        let set = value.filter(|value| !(empty_is_unset && value.is_empty()));
        match (operator, set) {
            ('-', Some(set)) => Ok(set.to_owned()),
            ('-', None) | ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            (_, Some(set)) => Ok(set.to_owned()),
            (_, None) => {
                let what = if value.is_some() { "empty" } else { "unset" };
                let problem = if word.is_empty() {
                    format!("{name} must not be {what}")
                } else {
                    format!("{name}: {word}")
                };
                Err(Failure::new(
                    problem,
                    "a value for the variable: a build argument, ARG or ENV",
                ))
            }
        }
    }

    /// `${name#pattern}`, `${name##pattern}`, `${name%pattern}`, `${name%%pattern}`.
    fn trimmed(&mut self, name: &str, operator: char) -> Lexed<String> {
        let word = self.until(Some('}'), true, &mut Words::default())?;
        let value = self.value(name).unwrap_or_default();
        let (longest, word) = match word.strip_prefix(operator) {
            Some(word) => (true, word),
            None => (false, word.as_str()),
        };
        let pattern = pattern::Pattern::parse(word)?;
        if operator == '#' {
            pattern.without_prefix(value, longest, &mut self.steps)
        } else {
            pattern.without_suffix(value, longest, &mut self.steps)
        }
    }

    /// `${name/pattern/replacement}`, and `//` for all places.
    fn replaced(&mut self, name: &str) -> Lexed<String> {
        let all = self.chars.next_if_eq(&'/').is_some();
        let word = self.until(Some('/'), true, &mut Words::default());
        let word =
            word.map_err(|_| Failure::new("a replacement without its second '/'", "${name/pattern/replacement}"))?;
        let replacement = self.until(Some('}'), true, &mut Words::default())?;
        let value = self.value(name).unwrap_or_default();
        pattern::Pattern::parse(&word)?.replace(value, &replacement, all, &mut self.steps)
    }
}

fn unsupported(operator: &str) -> Failure {
    Failure::new(
        format!("{operator:?} is not for a substitution"),
        "one of :- :+ :? - + ? # ## % %% / // after the name",
    )
}

fn unclosed() -> Failure {
    Failure::new("a substitution does not end", "'}' at the end of ${")
}

/// Cuts a text into words at its blanks, if anybody wants them.
#[derive(Default)]
struct Words {
    wanted: bool,
    found: Vec<String>,
    word: String,
}

impl Words {
    fn char(&mut self, c: char) {
        if !self.wanted {
            return;
        }
        if !c.is_whitespace() {
            self.word.push(c);
        } else if !self.word.is_empty() {
            self.found.push(std::mem::take(&mut self.word));
        }
    }

    fn raw_char(&mut self, c: char) {
        if self.wanted {
            self.word.push(c);
        }
    }

    fn text(&mut self, text: &str) {
        if self.wanted {
            text.chars().for_each(|c| self.char(c));
        }
    }

    fn raw(&mut self, text: &str) {
        if self.wanted {
            self.word.push_str(text);
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.found.push(self.word);
        }
        self.found
    }
}
