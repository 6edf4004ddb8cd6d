//! The parts of the helper that are compiled into the library too: the protocols, and what is tested here as plain code.

#[cfg(test)]
mod backoff;
#[cfg(test)]
pub(crate) mod check;
#[cfg(test)]
mod entry;
#[cfg(feature = "engine")]
#[allow(dead_code, reason = "the helper uses the rest")]
pub(crate) mod health;
#[allow(dead_code, reason = "the helper uses the rest")]
pub(crate) mod passwd;
#[cfg(feature = "engine")]
#[allow(dead_code, reason = "the helper uses the rest")]
pub(crate) mod record;
#[cfg(feature = "engine")]
#[allow(dead_code, reason = "the helper uses the rest")]
pub(crate) mod talk;
#[allow(dead_code, reason = "the helper uses the rest")]
pub(crate) mod wire;
