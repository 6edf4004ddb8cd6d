//! What one engine asks of another for whose containers it is: both are live processes on one root.
//!
//! A bound container lives below its owner's helper, and its streams, limits and names are in its owner's hands. So what is
//! more than a look or a signal is a question to the owner: a socket in the owner's directory, which its user alone can
//! reach, and over which the answer comes as soon as the verb has one. Whoever goes away before that is to the owner a
//! caller that dropped its future.
//!
//! `wire` has the messages, `ask` the side that asks, `hear` the owner's, and `streams` what both do with streams once the
//! connection carries them.

mod ask;
mod hear;
mod streams;
mod wire;

#[cfg(test)]
mod tests;

pub(super) use self::ask::{Elsewhere, FarExecs};
