//! What the kernel alone needs for each job: the floors that ours are compared with.

pub mod open;
pub mod pull;
pub mod start;
