//! `--name=value` between an instruction's keyword and its arguments.

use super::Word;
use super::fault::{Fault, Parsed};
use super::logical::Logical;
use super::span::{Source, Span};
use crate::build::{limits, suggest};

/// A flag as it is written, quotes and escapes undone.
#[derive(Debug, Clone)]
pub(crate) struct Flag {
    pub(crate) name: String,
    /// With the place of the whole flag: quotes make a value's own place a guess.
    pub(crate) value: Option<Word>,
    pub(crate) span: Span,
}

/// The flags at the beginning of a text, and where the arguments begin. `--` ends the flags.
pub(crate) fn split(source: &Source<'_>, logical: &Logical, from: usize, escape: char) -> Parsed<(Vec<Flag>, usize)> {
    let text = &logical.text;
    let mut found = Vec::new();
    let mut at = from;
    loop {
        at += text[at..].len() - text[at..].trim_start().len();
        if !text[at..].starts_with("--") {
            return Ok((found, at));
        }
        let (word, end) = unquoted(text, at, escape);
        if word == "--" {
            return Ok((found, end));
        }
        let span = logical.span(source, at, end);
        if found.len() == limits::FLAGS {
            return Err(Fault::limit(span, "flags of an instruction", limits::FLAGS));
        }
        found.push(flag(&word, span));
        at = end;
    }
}

fn flag(word: &str, span: Span) -> Flag {
    let word = word.strip_prefix("--").unwrap_or(word);
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    };
    Flag {
        name: name.to_owned(),
        value: value.map(|value| Word {
            text: value.to_owned(),
            span,
        }),
        span,
    }
}

/// A word without its quotes and escapes, and where it ends.
fn unquoted(text: &str, start: usize, escape: char) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text[start..].char_indices();
    while let Some((at, c)) = chars.next() {
        if c == escape {
            word.extend(chars.next().map(|(_, escaped)| escaped));
        } else if quote == Some(c) {
            quote = None;
        } else if quote.is_some() {
            word.push(c);
        } else if matches!(c, '\'' | '"') {
            quote = Some(c);
        } else if c.is_whitespace() {
            return (word, start + at);
        } else {
            word.push(c);
        }
    }
    (word, text.len())
}

/// The flags of an instruction, to be asked for one after the other.
pub(crate) struct Flags<'a> {
    keyword: &'a str,
    found: Vec<Flag>,
}

impl<'a> Flags<'a> {
    /// Checks the names: each is known, and given once unless it may be repeated.
    pub(crate) fn new(keyword: &'a str, found: Vec<Flag>, known: &[&str], repeated: &[&str]) -> Parsed<Self> {
        let mut seen = Vec::new();
        for flag in &found {
            let name = flag.name.as_str();
            if !known.contains(&name) {
                return Err(unknown(keyword, flag, known));
            }
            if seen.contains(&name) && !repeated.contains(&name) {
                let problem = format!("a second --{name}");
                return Err(Fault::new(flag.span, problem, format!("one --{name}")));
            }
            seen.push(name);
        }
        Ok(Self { keyword, found })
    }

    /// All values of a flag that may be repeated.
    pub(crate) fn all(&self, name: &str) -> Parsed<Vec<Word>> {
        let named = self.found.iter().filter(|flag| flag.name == name);
        named.map(|flag| self.value(flag)).collect()
    }

    /// The value of a flag.
    pub(crate) fn one(&self, name: &str) -> Parsed<Option<Word>> {
        let named = self.found.iter().find(|flag| flag.name == name);
        named.map(|flag| self.value(flag)).transpose()
    }

    fn value(&self, flag: &Flag) -> Parsed<Word> {
        flag.value.clone().ok_or_else(|| {
            let problem = format!("--{} of {} has no value", flag.name, self.keyword);
            Fault::new(flag.span, problem, format!("--{}=value", flag.name))
        })
    }

    /// A switch: `--link`, `--link=true` or `--link=false`.
    pub(crate) fn switch(&self, name: &str) -> Parsed<Option<bool>> {
        let Some(flag) = self.found.iter().find(|flag| flag.name == name) else {
            return Ok(None);
        };
        let Some(value) = &flag.value else {
            return Ok(Some(true));
        };
        match value.text.to_ascii_lowercase().as_str() {
            "true" => Ok(Some(true)),
            "false" => Ok(Some(false)),
            _ => {
                let problem = format!("{:?} is neither true nor false", value.text);
                Err(Fault::new(
                    flag.span,
                    problem,
                    format!("--{name}, --{name}=true or --{name}=false"),
                ))
            }
        }
    }

    /// A value of a few that there are.
    pub(crate) fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Parsed<Option<T>> {
        let Some(value) = self.one(name)? else {
            return Ok(None);
        };
        let chosen = choices.iter().find(|(choice, _)| *choice == value.text);
        chosen.map(|(_, choice)| Some(*choice)).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(choice, _)| *choice).collect();
            let problem = format!("--{name} cannot be {:?}", value.text);
            let nearest = suggest::nearest(&value.text, names.iter().copied());
            Fault::new(value.span, problem, format!("--{name} as one of {}", names.join(", "))).suggesting(nearest)
        })
    }
}

fn unknown(keyword: &str, flag: &Flag, known: &[&str]) -> Fault {
    let expected = match known {
        [] => format!("{keyword} without flags"),
        known => format!("one of --{}", known.join(", --")),
    };
    let nearest = suggest::nearest(&flag.name, known.iter().copied()).map(|name| format!("--{name}"));
    Fault::new(
        flag.span,
        format!("unknown flag --{} of {keyword}", flag.name),
        expected,
    )
    .suggesting(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lose_their_quotes_and_escapes() {
        assert_eq!(unquoted("--a='b c'\"d\" e", 0, '\\'), ("--a=b cd".into(), 12));
        assert_eq!(unquoted(r"--a=b\ c\", 0, '\\'), ("--a=b c".into(), 9));
        assert_eq!(unquoted("--é=\"open é", 0, '\\'), ("--é=open é".into(), 13));
    }
}
