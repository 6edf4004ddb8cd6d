//! Build contexts: the files that `COPY` and `ADD` see, wherever they come from.

pub(crate) mod fetch;
#[cfg(feature = "registry")]
mod git;
mod services;
mod source;
pub(crate) mod spool;
#[cfg(test)]
mod tests;
mod tree;

pub(crate) use self::services::{SINGLE, Services, Ssh, check};
pub use self::source::ContextSource;
pub(crate) use self::source::{ImageSource, Opened, open};
pub(crate) use self::tree::{DEEPEST, Folder, Paths, Tree, View, parts, too_deep};
