//! How a process ended.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How the first process of a container, or an exec, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ExitStatus {
    /// The exit code, if the process ended by itself.
    code: Option<u8>,
    /// The signal's number, if one ended it.
    signal: Option<u8>,
}

impl ExitStatus {
    /// The process called `exit(code)`.
    pub const fn exited(code: u8) -> Self {
        Self {
            code: Some(code),
            signal: None,
        }
    }

    /// A signal ended the process.
    pub const fn signaled(signal: u8) -> Self {
        Self {
            code: None,
            signal: Some(signal),
        }
    }

    /// The code as a shell and Docker show it: 128 + the signal's number for a process that a signal ended.
    pub const fn code(self) -> i32 {
        match (self.code, self.signal) {
            (Some(code), _) => code as i32,
            (None, Some(signal)) => 128 + signal as i32,
            (None, None) => 255,
        }
    }

    /// The signal's number, if one ended the process.
    pub const fn signal(self) -> Option<i32> {
        match self.signal {
            Some(signal) => Some(signal as i32),
            None => None,
        }
    }

    /// Whether the process exited with 0.
    pub const fn success(self) -> bool {
        matches!(self.code, Some(0))
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.signal {
            Some(signal) => write!(f, "ended by signal {signal}"),
            None => write!(f, "exited with {}", self.code()),
        }
    }
}
