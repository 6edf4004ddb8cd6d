//! `.dockerignore`: which files of a context a build does not see.
//!
//! The rules are those of `github.com/moby/patternmatcher`, which Docker and BuildKit use: patterns match whole paths from the
//! context's root; what is below a directory that matches is ignored with it; the last pattern that matches decides, and `!`
//! makes an exception.

mod glob;
mod pattern;
#[cfg(test)]
mod tests;

use self::pattern::Pattern;
use super::limits;
use crate::error::{Error, Result};

/// The patterns of an ignore file.
///
/// ```
/// use longshore::build::IgnoreFile;
///
/// let ignored = IgnoreFile::parse("target\n*.log\n!keep.log")?;
/// assert!(ignored.is_ignored("target/debug/app"));
/// assert!(ignored.is_ignored("build.log"));
/// assert!(!ignored.is_ignored("keep.log"));
/// # Ok::<(), longshore::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct IgnoreFile {
    patterns: Vec<Pattern>,
}

/// What the patterns say of a directory, for what is in it: a walk down a tree hands it on.
#[derive(Debug, Clone, Default)]
pub struct Below {
    matched: Vec<bool>,
    ignored: bool,
}

impl Below {
    /// Whether the directory itself is ignored.
    pub fn is_ignored(&self) -> bool {
        self.ignored
    }
}

impl IgnoreFile {
    /// Parses an ignore file: a pattern a line, comments with `#` at their very beginning.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` with the line of a pattern that is none, or with the limit that the file is beyond.
    pub fn parse(text: impl AsRef<[u8]>) -> Result<Self> {
        Self::parse_named(".dockerignore", text)
    }

    /// Parses an ignore file that errors call by this name.
    ///
    /// # Errors
    ///
    /// Those of [`IgnoreFile::parse`].
    pub fn parse_named(file: &str, text: impl AsRef<[u8]>) -> Result<Self> {
        let text = text.as_ref();
        if text.len() > limits::IGNORE_BYTES {
            return Err(too_many(file, "bytes", limits::IGNORE_BYTES));
        }
        let text = text.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(text);
        let mut patterns = Vec::new();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let place = || format!("{file}:{}", index + 1);
            let line =
                std::str::from_utf8(line).map_err(|_| Error::invalid(format!("{}: this is not UTF-8", place())))?;
            if line.starts_with('#') {
                continue;
            }
            let parsed = Pattern::parse(line).map_err(|problem| Error::invalid(format!("{}: {problem}", place())))?;
            patterns.extend(parsed);
            if patterns.len() > limits::IGNORE_PATTERNS {
                return Err(too_many(file, "patterns", limits::IGNORE_PATTERNS));
            }
        }
        Ok(Self { patterns })
    }

    /// Patterns as flags have them: each as it is, without the rules for lines of a file.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for one that is none.
    #[cfg_attr(not(feature = "engine"), allow(dead_code, reason = "for the engine in this process"))]
    pub(crate) fn of_patterns<T: AsRef<str>>(patterns: impl IntoIterator<Item = T>) -> Result<Self> {
        let parsed = patterns.into_iter().map(|text| Pattern::of_flag(text.as_ref()));
        let patterns: Vec<Option<Pattern>> = parsed.collect::<Result<_, String>>().map_err(Error::invalid)?;
        Ok(Self {
            patterns: patterns.into_iter().flatten().collect(),
        })
    }

    /// Whether a pattern could match something below a directory that none matches.
    #[cfg_attr(not(feature = "engine"), allow(dead_code, reason = "for the engine in this process"))]
    pub(crate) fn may_match_below(&self, path: &[u8]) -> bool {
        let mut rules = self.patterns.iter().filter(|pattern| !pattern.is_exception());
        rules.any(|pattern| pattern.may_match_below(path))
    }

    /// The ignore files of a Dockerfile, by path in its context: the first that is there holds.
    pub fn names(dockerfile: &str) -> [String; 2] {
        [format!("{dockerfile}.dockerignore"), ".dockerignore".to_owned()]
    }

    /// Whether nothing is ignored.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether some patterns make exceptions.
    pub(crate) fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(Pattern::is_exception)
    }

    /// Whether all of the context is ignored at first.
    pub(crate) fn ignores_the_root(&self) -> bool {
        let mut rules = self.patterns.iter().filter(|pattern| !pattern.is_exception());
        rules.any(|pattern| matches!(pattern.text(), "*" | "**" | "**/*"))
    }

    /// Whether a path is ignored. It is one of the context's, with `/` between its parts and none in front.
    pub fn is_ignored(&self, path: impl AsRef<[u8]>) -> bool {
        let path = path.as_ref();
        let mut below = Below::default();
        for (at, _) in path.iter().enumerate().filter(|(at, byte)| **byte == b'/' && *at > 0) {
            below = self.enter(&below, &path[..at]);
        }
        self.enter(&below, path).ignored
    }

    /// What holds for a path, and for what is below it, given what holds for its directory; that of the root is
    /// `Below::default()`.
    pub fn enter(&self, parent: &Below, path: impl AsRef<[u8]>) -> Below {
        let path = path.as_ref();
        let mut matched = Vec::with_capacity(self.patterns.len());
        let mut ignored = false;
        for (at, pattern) in self.patterns.iter().enumerate() {
            let inherited = parent.matched.get(at).copied().unwrap_or(false);
            // One that could change nothing here is not looked at, and counts as no match below either: as Docker does.
            let hit = inherited || pattern.is_exception() == ignored && pattern.matches(path);
            if hit {
                ignored = !pattern.is_exception();
            }
            matched.push(hit);
        }
        Below { matched, ignored }
    }

    /// Whether a directory can be left out as a whole: it is ignored, and no exception could match anything below it.
    pub fn skips(&self, below: &Below, path: impl AsRef<[u8]>) -> bool {
        if !below.ignored {
            return false;
        }
        let decided = below.matched.iter().rposition(|hit| *hit).unwrap_or(0);
        let later = self.patterns.iter().skip(decided + 1);
        !later
            .filter(|pattern| pattern.is_exception())
            .any(|pattern| pattern.may_match_below(path.as_ref()))
    }
}

fn too_many(file: &str, what: &str, most: usize) -> Error {
    Error::invalid(format!("{file}: too many {what}; at most {most} are read"))
}
