//! Names that users give.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A container's name: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, at most 128 characters; Docker's rule, with a bound.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerName(String);

impl ContainerName {
    /// The name as text, without Docker's leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ContainerName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.strip_prefix('/').unwrap_or(text);
        let mut bytes = text.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if first && rest && (2..=128).contains(&text.len()) {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::invalid(format!(
            "invalid container name ({text:?}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, from 2 to 128 characters"
        )))
    }
}

impl TryFrom<String> for ContainerName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<ContainerName> for String {
    fn from(name: ContainerName) -> Self {
        name.0
    }
}

/// A volume's name: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, at most 255 characters; Docker's rule. It is the name of a directory too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeName(String);

impl VolumeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name that nobody has: 64 hex digits, as Docker's anonymous volumes have it.
    pub fn random() -> Self {
        Self(super::ContainerId::random().to_string())
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for VolumeName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut bytes = text.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if first && rest && (2..=255).contains(&text.len()) {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::invalid(format!(
            "invalid volume name ({text:?}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, from 2 to 255 characters; to show a \
             directory of the host, give its absolute path"
        ))
        .with_object(crate::error::ObjectKind::Option, "volume"))
    }
}

impl TryFrom<String> for VolumeName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<VolumeName> for String {
    fn from(name: VolumeName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j1_names_of_volumes_lead_nowhere_else() {
        for good in ["data", "a1", "A.b_c-d", &"a".repeat(255)] {
            assert!(good.parse::<VolumeName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "a",
            ".",
            "..",
            "../x",
            "a/b",
            "-ab",
            ".ab",
            "a b",
            "a\0b",
            &"a".repeat(256),
        ] {
            assert!(bad.parse::<VolumeName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn docker_s_rule() {
        for good in ["web", "/web", "a1", "A.b_c-d"] {
            assert!(good.parse::<ContainerName>().is_ok(), "{good}");
        }
        for bad in ["", "/", "a", "-ab", "a b", "ab/c", "é1", &"a".repeat(129)] {
            assert!(bad.parse::<ContainerName>().is_err(), "{bad}");
        }
    }
}
