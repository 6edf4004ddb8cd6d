//! Ids. One type each, so that two of them cannot be swapped.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Digest;
use crate::error::Error;

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// A new random id: 64 hex digits.
            ///
            /// # Panics
            /// If the kernel has no randomness to give, which no running Linux does.
            #[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
            pub fn random() -> Self {
                let mut raw = [0u8; 32];
                getrandom::fill(&mut raw).expect("the kernel's random numbers");
                Self::of_bytes(&raw)
            }

            /// The id with these bytes as its digits.
            #[inline]
            pub(crate) fn of_bytes(raw: &[u8; 32]) -> Self {
                let mut digits = [0u8; 64];
                hex::encode_to_slice(raw, &mut digits).expect("two digits for each byte");
                Self(str::from_utf8(&digits).expect("digits").to_owned())
            }

            /// All 64 hex digits.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first twelve hex digits, as Docker prints them.
            pub fn short(&self) -> &str {
                &self.0[..12]
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.short())
            }
        }

        impl FromStr for $name {
            type Err = Error;

            #[inline]
            fn from_str(text: &str) -> Result<Self, Error> {
                if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                    return Ok(Self(text.to_owned()));
                }
                Err(Error::invalid(format!(concat!("invalid ", $what, " id: {:?}"), text)))
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self, Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

random_id!(
    /// The id of a container.
    ContainerId, "container");
random_id!(
    /// The id of a network.
    NetworkId, "network");
random_id!(
    /// The id of an owner: one engine in one process.
    OwnerId, "owner");

/// The id of an image: the digest of its config.
pub type ImageId = Digest;
