//! Seccomp: profiles, and their compilation into programs for the kernel. Pure; loading a program is the helper's work.

pub(crate) mod agent;
mod bpf;
mod compile;
mod docker;
mod profile;
mod rules;

pub use self::agent::{SeccompAgent, SeccompAnswer, SeccompCall};
pub(crate) use self::compile::notifies;
pub use self::compile::{compile, compile_cached, squashed_cached};
pub use self::docker::SeccompProfile;
pub use self::profile::default_profile;
