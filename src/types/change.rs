//! What a container changed.

use std::path::PathBuf;

/// How a path differs from the image's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// It is another: content, owner, mode, time or attributes; of a directory, also something in it.
    Modified,
    /// The image has no such.
    Added,
    /// The image has it, and the container has it no more.
    Deleted,
}

impl ChangeKind {
    /// Docker's letter: `C`, `A` or `D`.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::Modified => 'C',
            Self::Added => 'A',
            Self::Deleted => 'D',
        }
    }
}

/// A difference between a container's root file system and its image's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Change {
    /// Where, from the container's root: it begins with `/`, and may hold any bytes.
    pub path: PathBuf,
    /// What.
    pub kind: ChangeKind,
}
