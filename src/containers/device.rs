//! Devices of the host in a container, as they are asked for.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ObjectKind, Result};

/// What may be done with a device. The default is everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceAccess {
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
    /// Making a node of it, as mknod(2) does.
    pub mknod: bool,
}

impl Default for DeviceAccess {
    fn default() -> Self {
        Self {
            read: true,
            write: true,
            mknod: true,
        }
    }
}

impl fmt::Display for DeviceAccess {
    /// Docker's letters, `rwm`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (letter, may) in [("r", self.read), ("w", self.write), ("m", self.mknod)] {
            f.write_str(if may { letter } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for DeviceAccess {
    type Err = Error;

    /// Some of the letters `r`, `w` and `m`, each once.
    fn from_str(text: &str) -> Result<Self> {
        let once = |letter| text.matches(letter).count() <= 1;
        if text.is_empty()
            || !text.chars().all(|c| matches!(c, 'r' | 'w' | 'm'))
            || !['r', 'w', 'm'].into_iter().all(once)
        {
            return Err(bad(format!(
                "invalid device access {text:?}: some of the letters r, w and m"
            )));
        }
        Ok(Self {
            read: text.contains('r'),
            write: text.contains('w'),
            mknod: text.contains('m'),
        })
    }
}

/// A device of the host to show in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMapping {
    /// Absolute path on the host: a node, a symlink to one, or a directory, which stands for all nodes below it.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub target: PathBuf,
    /// What may be done with it. Anything but reading and writing both needs root, or cgroup version 1: it is a filter of the
    /// container's cgroup.
    pub access: DeviceAccess,
}

/// What may be done with devices by number, whether the container has nodes of them or makes them. Docker's
/// `--device-cgroup-rule`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// `Some(true)` for block devices, `Some(false)` for character devices, `None` for all devices.
    pub block: Option<bool>,
    /// Major number; `None` is every one.
    pub major: Option<u32>,
    /// Minor number; `None` is every one.
    pub minor: Option<u32>,
    /// What may be done.
    pub access: DeviceAccess,
}

impl fmt::Display for DeviceRule {
    /// As it is parsed: `c 10:229 rwm`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.block.map_or("a", |block| if block { "b" } else { "c" });
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        write!(
            f,
            "{kind} {}:{} {}",
            number(self.major),
            number(self.minor),
            self.access
        )
    }
}

impl FromStr for DeviceRule {
    type Err = Error;

    /// Source: moby, `daemon/daemon_unix.go`, the expression of device cgroup rules.
    fn from_str(text: &str) -> Result<Self> {
        let refused = || {
            bad(format!(
                "invalid device cgroup format: '{text}'; say it as in 'c 10:229 rwm' or 'b 8:* r'"
            ))
        };
        let number = |word: &str| match word {
            "*" => Ok(None),
            digits => digits.parse().map(Some).map_err(|_| refused()),
        };
        let [kind, numbers, access] = text.split(' ').collect::<Vec<_>>()[..] else {
            return Err(refused());
        };
        let block = match kind {
            "a" => None,
            "b" => Some(true),
            "c" => Some(false),
            _ => return Err(refused()),
        };
        let (major, minor) = numbers.split_once(':').ok_or_else(refused)?;
        Ok(Self {
            block,
            major: number(major)?,
            minor: number(minor)?,
            access: access.parse().map_err(|_| refused())?,
        })
    }
}

pub(super) fn bad(message: String) -> Error {
    Error::invalid(message).with_object(ObjectKind::Option, "device")
}

/// How a block device's time is shared out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceWeight {
    /// The device on the host.
    pub path: PathBuf,
    /// Relative weight, 10 to 1000.
    pub weight: u16,
}

/// How fast a block device may be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRate {
    /// The device on the host.
    pub path: PathBuf,
    /// Bytes, or operations, per second.
    pub rate: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h8_accesses_and_rules_are_read_and_written() {
        for text in ["r", "rw", "rwm", "m"] {
            assert_eq!(text.parse::<DeviceAccess>().unwrap().to_string(), text);
        }
        for text in ["a *:* rwm", "c 10:229 rw", "b 8:* r"] {
            assert_eq!(text.parse::<DeviceRule>().unwrap().to_string(), text);
        }
        for bad in ["", "x", "rr", "rwmx"] {
            assert!(bad.parse::<DeviceAccess>().is_err(), "{bad}");
        }
        for bad in [
            "", "c 1:3", "x 1:3 r", "c 1 r", "c -1:3 r", "c 1:3 x", "c 1:3 r ", "c  1:3 r",
        ] {
            assert!(bad.parse::<DeviceRule>().is_err(), "{bad}");
        }
    }
}
