//! What a Dockerfile and an ignore file may be made of at most. Both come from strangers: each limit is far above what people
//! write, and what goes beyond is an error that names it.

/// The whole file.
pub(crate) const FILE_BYTES: usize = 4 << 20;
/// One line of the file outside a heredoc, as in BuildKit (`bufio.MaxScanTokenSize - 1`).
pub(crate) const LINE_BYTES: usize = 65_535;
/// One instruction with its continuation lines, without heredocs.
pub(crate) const INSTRUCTION_BYTES: usize = 1 << 20;
/// Instructions of a file.
pub(crate) const INSTRUCTIONS: usize = 100_000;
/// Stages of a file.
pub(crate) const STAGES: usize = 10_000;
/// Triggers that the stages of a file have from each other.
pub(crate) const TRIGGERS: usize = 100_000;
/// Variables without a value that are told of.
pub(crate) const UNDEFINED: usize = 1_000;
/// Flags of an instruction.
pub(crate) const FLAGS: usize = 1_000;
/// Heredocs of an instruction.
pub(crate) const HEREDOCS: usize = 1_000;
/// Substitutions within substitutions: `${a:-${b:-…}}`.
pub(crate) const NESTING: usize = 64;
/// What one word, or the body of one heredoc, may become when its variables are put in.
pub(crate) const EXPANDED_BYTES: usize = 4 << 20;
/// The names and values of all variables of a stage together.
pub(crate) const ENVIRONMENT_BYTES: usize = 4 << 20;
/// What all words of a plan may become together.
pub(crate) const PLAN_BYTES: usize = 64 << 20;
/// Steps of a pattern's search in a value, `${x//pattern/…}`.
pub(crate) const PATTERN_STEPS: usize = 5_000_000;
/// An ignore file.
pub(crate) const IGNORE_BYTES: usize = 1 << 20;
/// Patterns of an ignore file.
pub(crate) const IGNORE_PATTERNS: usize = 10_000;
