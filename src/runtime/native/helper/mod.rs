//! The parts of the helper that are compiled into the library too: the protocol, and what is tested here as plain code.

#[allow(dead_code, reason = "the helper uses the rest")]
pub(crate) mod passwd;
#[allow(dead_code, reason = "the helper uses the rest")]
pub(crate) mod wire;
