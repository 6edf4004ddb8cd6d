//! Ids of a user namespace.

/// So many ids from `inside` on are those from `outside` on of the namespace around. Source: user_namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdRange {
    /// First id in the user namespace.
    pub inside: u32,
    /// What it is outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

impl IdRange {
    /// A range of ids.
    pub const fn new(inside: u32, outside: u32, count: u32) -> Self {
        Self { inside, outside, count }
    }

    /// The lines of a `uid_map` or `gid_map`; others are left out.
    pub(crate) fn parse_map(text: &str) -> Vec<Self> {
        let line = |line: &str| {
            let mut words = line.split_whitespace().map(|word| word.parse().ok());
            Some(Self::new(words.next()??, words.next()??, words.next()??))
        };
        text.lines().filter_map(line).collect()
    }
}
