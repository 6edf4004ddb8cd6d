//! Repositories as contexts and as sources of `ADD`: one commit of them, over HTTP or SSH, without a git on the host.
//!
//! A client of our own, since all that is needed of git is to ask for one commit and to unpack it: libraries that do it all
//! bring more than a hundred crates. What is not spoken is a typed error: git's own protocol, servers that only show files, or
//! speak no version 2, repositories whose ids are SHA-256.

mod checkout;
mod client;
mod pack;
mod ssh;
#[cfg(test)]
mod tests;
mod wire;

use std::fmt;
use std::str::FromStr;

use sha1::Digest as _;

pub(super) use self::client::clone;

/// The id of an object: the SHA-1 of what it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id([u8; 20]);

impl Id {
    /// For the id of an object whose bytes follow.
    fn hasher(kind: &str, size: u64) -> IdHasher {
        let mut hasher = IdHasher::default();
        hasher.update(format!("{kind} {size}\0").as_bytes());
        hasher
    }
}

#[derive(Default)]
struct IdHasher(sha1::Sha1);

impl IdHasher {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(self) -> Id {
        Id(self.0.finalize().into())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Id {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut id = [0; 20];
        hex::decode_to_slice(text, &mut id).map_err(drop)?;
        Ok(Self(id))
    }
}
