//! Drivers of ours.

pub(super) mod local;
pub(super) mod tmpfs;
