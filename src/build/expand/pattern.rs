//! Patterns of substitutions: `*` is any text within a line, `?` any character of one, and the rest stands for itself.
//! The search takes no more than a number of steps: `${x//*a/}` on a long value would take its square.

use super::lexer::Failure;
use crate::build::limits;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Char(char),
    Any,
    Star,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Token>);

impl Pattern {
    /// A pattern as it is written. A backslash escapes `*`, `?` and itself, and what the braces need escaped.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Star,
                '?' => Token::Any,
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\' | '}' | '/')) => Token::Char(c),
                    other => {
                        let problem = format!(
                            "the escape \\{} in a pattern",
                            other.map(String::from).unwrap_or_default()
                        );
                        return Err(Failure::new(problem, "\\*, \\?, \\\\, \\/ or \\}"));
                    }
                },
                c => Token::Char(c),
            });
        }
        Ok(Self(tokens))
    }

    /// A value without the shortest or longest beginning that matches.
    pub(super) fn without_prefix(&self, value: &str, longest: bool, steps: &mut usize) -> Result<String, Failure> {
        let chars: Vec<char> = value.chars().collect();
        let end = end_of_match(&self.0, &chars, longest, steps)?;
        Ok(chars[end.unwrap_or(0)..].iter().collect())
    }

    /// A value without the shortest or longest end that matches: the same, seen from behind.
    pub(super) fn without_suffix(&self, value: &str, longest: bool, steps: &mut usize) -> Result<String, Failure> {
        let tokens: Vec<Token> = self.0.iter().rev().copied().collect();
        let chars: Vec<char> = value.chars().rev().collect();
        let end = end_of_match(&tokens, &chars, longest, steps)?;
        Ok(chars[end.unwrap_or(0)..].iter().rev().collect())
    }

    /// A value with the first or all of what matches replaced, each as long as can be.
    pub(super) fn replace(&self, value: &str, with: &str, all: bool, steps: &mut usize) -> Result<String, Failure> {
        let chars: Vec<char> = value.chars().collect();
        let mut out = String::new();
        let mut at = 0;
        let mut last_end = None;
        while at <= chars.len() {
            let found = end_of_match(&self.0, &chars[at..], true, steps)?.map(|length| at + length);
            // Nothing at all, right behind a match, is no match.
            if let Some(end) = found.filter(|end| *end > at || last_end != Some(at)) {
                out.push_str(with);
                if out.len() > limits::EXPANDED_BYTES {
                    return Err(too_long());
                }
                last_end = Some(end);
                if !all {
                    out.extend(&chars[end..]);
                    return Ok(out);
                }
                if end > at {
                    at = end;
                    continue;
                }
            }
            out.extend(chars.get(at));
            at += 1;
        }
        Ok(out)
    }
}

fn too_long() -> Failure {
    let problem = format!("a replacement makes more than {} bytes", limits::EXPANDED_BYTES);
    Failure::new(problem, "a shorter value")
}

/// Where a match that begins with the text ends: the first or the last place. All ways are followed at once.
fn end_of_match(tokens: &[Token], text: &[char], longest: bool, steps: &mut usize) -> Result<Option<usize>, Failure> {
    if let (Some(Token::Char(wanted)), Some(c)) = (tokens.first(), text.first())
        && wanted != c
    {
        return Ok(None);
    }
    let mut states = vec![false; tokens.len() + 1];
    let mut next = states.clone();
    states[0] = true;
    skip_stars(tokens, &mut states);
    let mut end = states[tokens.len()].then_some(0);
    for (at, c) in text.iter().enumerate() {
        if end.is_some() && !longest || !states.contains(&true) {
            break;
        }
        *steps = steps.checked_sub(states.len()).ok_or_else(|| {
            let problem = format!("a pattern's search takes more than {} steps", limits::PATTERN_STEPS);
            Failure::new(problem, "a shorter value or fewer '*'")
        })?;
        stepped(tokens, &states, &mut next, *c);
        std::mem::swap(&mut states, &mut next);
        if states[tokens.len()] {
            end = Some(at + 1);
        }
    }
    Ok(end)
}

fn stepped(tokens: &[Token], states: &[bool], next: &mut [bool], c: char) {
    next.fill(false);
    for (at, token) in tokens.iter().enumerate().filter(|(at, _)| states[*at]) {
        match token {
            Token::Char(wanted) if *wanted == c => next[at + 1] = true,
            Token::Any if c != '\n' => next[at + 1] = true,
            Token::Star if c != '\n' => next[at] = true,
            _ => {}
        }
    }
    skip_stars(tokens, next);
}

/// A star may stand for nothing.
fn skip_stars(tokens: &[Token], states: &mut [bool]) {
    for (at, token) in tokens.iter().enumerate() {
        if *token == Token::Star && states[at] {
            states[at + 1] = true;
        }
    }
}
