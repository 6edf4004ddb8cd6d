//! The unsafe module: small safe wrappers around system calls that `nix` lacks. The only place, beside the helper, where
//! `unsafe` is allowed.

pub(crate) mod attempt;
pub(crate) mod pidfd;
#[cfg(feature = "engine")]
pub(crate) mod poll;
pub(crate) mod reflink;
pub(crate) mod xattr;
