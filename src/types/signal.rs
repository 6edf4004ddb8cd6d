//! Signals by name or number.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A signal to send: 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signal(u8);

impl Signal {
    /// Cannot be caught: ends the process.
    pub const KILL: Self = Self(9);
    /// Asks the process to end.
    pub const TERM: Self = Self(15);
    /// Lets a stopped process go on.
    pub const CONT: Self = Self(18);
    /// What Ctrl-C sends.
    pub const INT: Self = Self(2);

    /// The signal's number.
    pub const fn number(self) -> i32 {
        self.0 as i32
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match nix::sys::signal::Signal::try_from(self.number()) {
            Ok(signal) => f.write_str(signal.as_str()),
            Err(_) => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Signal {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::invalid(format!("invalid signal: {text:?} (a name such as TERM, or 1 to 64)"));
        if let Ok(number) = text.parse::<u8>() {
            return if (1..=64).contains(&number) {
                Ok(Self(number))
            } else {
                Err(bad())
            };
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(offset) = name.strip_prefix("RTMIN+") {
            let number = offset
                .parse::<u8>()
                .ok()
                .and_then(|n| n.checked_add(34))
                .ok_or_else(bad)?;
            return if number <= 64 { Ok(Self(number)) } else { Err(bad()) };
        }
        let signal: nix::sys::signal::Signal = format!("SIG{name}").parse().map_err(|_| bad())?;
        Ok(Self(signal as i32 as u8))
    }
}

impl TryFrom<String> for Signal {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Signal> for String {
    fn from(signal: Signal) -> Self {
        signal.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [("TERM", 15), ("sigkill", 9), ("9", 9), ("RTMIN+3", 37), ("64", 64)] {
            assert_eq!(text.parse::<Signal>().unwrap().number(), number, "{text}");
        }
        for bad in ["", "0", "65", "SIGNOPE", "-9", "RTMIN+99"] {
            assert!(bad.parse::<Signal>().is_err(), "{bad}");
        }
    }
}
