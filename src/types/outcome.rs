//! What a verb did that may have found its work done.

/// Whether a verb did its work or found it done. Neither is an error: verbs are idempotent where a user would retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The verb changed something.
    Done,
    /// Everything was already so.
    Already,
}
