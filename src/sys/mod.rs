//! The unsafe module: small safe wrappers around system calls that `nix` lacks. The only place, beside the helper, where
//! `unsafe` is allowed.

pub(crate) mod attempt;
#[cfg_attr(not(feature = "engine"), allow(dead_code, reason = "for the engine in this process"))]
pub(crate) mod blocking;
#[cfg_attr(not(feature = "engine"), allow(dead_code, reason = "for the engine in this process"))]
pub(crate) mod boot;
pub(crate) mod bpf;
pub(crate) mod memfd;
#[cfg(feature = "engine")]
pub(crate) mod mode;
#[cfg(feature = "network")]
pub(crate) mod netlink;
#[cfg_attr(not(feature = "engine"), allow(dead_code, reason = "for the engine in this process"))]
pub(crate) mod order;
#[cfg_attr(not(feature = "engine"), allow(dead_code, reason = "for the engine in this process"))]
pub(crate) mod parcel;
pub(crate) mod pidfd;
pub(crate) mod poll;
#[cfg(feature = "engine")]
pub(crate) mod quota;
#[cfg(feature = "engine")]
pub(crate) mod random;
#[cfg(feature = "engine")]
pub(crate) mod reflink;
#[cfg(feature = "engine")]
pub(crate) mod rename;
#[cfg(feature = "network")]
pub(crate) mod sctp;
pub(crate) mod seccomp;
#[cfg_attr(not(feature = "engine"), allow(dead_code, reason = "for the engine in this process"))]
pub(crate) mod signals;
pub(crate) mod socket;
pub(crate) mod spawn;
#[cfg(feature = "engine")]
pub(crate) mod sqlite;
pub(crate) mod terminal;
#[cfg(feature = "engine")]
pub(crate) mod userns;
#[cfg(feature = "engine")]
pub(crate) mod writeback;
#[cfg(feature = "engine")]
pub(crate) mod xattr;
