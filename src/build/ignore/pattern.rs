//! One line of an ignore file.

use super::glob::Glob;

/// A pattern, or an exception to those before it.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    text: String,
    exception: bool,
    matcher: Matcher,
}

/// Most patterns need no search.
#[derive(Debug, Clone)]
enum Matcher {
    /// The path itself.
    Exact,
    /// What begins like this: `dir/**`.
    Prefix(String),
    /// What ends like this: `**/name`, `**.ext`.
    Suffix(String),
    /// Anything else.
    Glob(Glob),
}

impl Pattern {
    /// A line's pattern, if it has one. Docker does this in two goes, its reader of files and its matcher, and what the first
    /// makes of a line the second reads anew: `/!a` is an exception for it.
    pub(super) fn parse(line: &str) -> Result<Option<Self>, String> {
        match as_read(line) {
            Some(read) => Self::of_flag(&read),
            None => Ok(None),
        }
    }

    /// A pattern as Docker's matcher takes it, if it is not empty.
    pub(super) fn of_flag(text: &str) -> Result<Option<Self>, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let cleaned = clean(text);
        let (exception, text) = match cleaned.strip_prefix('!') {
            Some(text) => (true, text.to_owned()),
            None => (false, cleaned),
        };
        if text.is_empty() {
            return Err("\"!\" alone is no exception".into());
        }
        let matcher = matcher(&text)?;
        Ok(Some(Self {
            text,
            exception,
            matcher,
        }))
    }

    pub(super) fn is_exception(&self) -> bool {
        self.exception
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn matches(&self, path: &[u8]) -> bool {
        match &self.matcher {
            Matcher::Exact => path == self.text.as_bytes(),
            Matcher::Prefix(prefix) => path.starts_with(prefix.as_bytes()),
            Matcher::Suffix(suffix) => {
                path.ends_with(suffix.as_bytes())
                    || suffix.strip_prefix('/').is_some_and(|name| name.as_bytes() == path)
            }
            Matcher::Glob(glob) => glob.matches(path),
        }
    }

    /// Whether something below a directory could match.
    pub(super) fn may_match_below(&self, directory: &[u8]) -> bool {
        let mut below = directory.to_vec();
        below.push(b'/');
        match &self.matcher {
            Matcher::Exact => self.text.as_bytes().starts_with(&below),
            Matcher::Prefix(prefix) => {
                let prefix = prefix.as_bytes();
                prefix.starts_with(&below) || below.starts_with(prefix)
            }
            Matcher::Suffix(_) => true,
            Matcher::Glob(glob) => glob.may_go_on(&below),
        }
    }
}

/// A line without blanks around it and its path, with no slash in front.
fn as_read(line: &str) -> Option<String> {
    let line = line.trim();
    let (mark, path) = match line.strip_prefix('!') {
        Some(path) => ("!", path.trim()),
        None => ("", line),
    };
    if path.is_empty() {
        return (!mark.is_empty()).then(|| mark.to_owned());
    }
    let path = clean(path);
    let path = path.strip_prefix('/').filter(|rest| !rest.is_empty()).unwrap_or(&path);
    Some(format!("{mark}{path}"))
}

fn matcher(text: &str) -> Result<Matcher, String> {
    // Checked in any case: what is malformed is an error.
    let glob = Glob::parse(text)?;
    let special = |text: &str| text.contains(['*', '?', '\\', '[', ']']);
    if !special(text) {
        return Ok(Matcher::Exact);
    }
    if let Some(rest) = text.strip_prefix("**").filter(|rest| !special(rest)) {
        return Ok(Matcher::Suffix(rest.to_owned()));
    }
    match text.strip_suffix("**") {
        Some(rest) if !special(rest) => Ok(Matcher::Prefix(rest.to_owned())),
        _ => Ok(Matcher::Glob(glob)),
    }
}

/// The shortest path that names the same: no `.`, no empty part, no part before `..`.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(last) if *last != ".." => drop(parts.pop()),
                _ if rooted => {}
                _ => parts.push(part),
            },
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}
