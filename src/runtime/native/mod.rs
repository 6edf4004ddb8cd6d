//! The native runtime.

pub mod seccomp;
