//! Seccomp: profiles, and their compilation into programs for the kernel.

mod compile;

pub use self::compile::compile;
