//! How a verb fails: what is said on stderr, and the exit code.

use std::io;
use std::process::ExitCode;

use longshore::{Error, ErrorKind};

/// The exit code of `run` for errors that are not the container's, and of wrong usage.
pub const OURS: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
/// What a shell shows for a program that SIGPIPE ended: 128 + 13.
const BROKEN_PIPE: u8 = 141;

/// A verb that failed.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// An error of the client or of its user.
    pub fn ours(message: impl Into<String>) -> Self {
        Self {
            code: OURS,
            message: message.into(),
        }
    }

    /// An error of `run`, with Docker's exit codes.
    pub fn of_run(error: &Error) -> Self {
        let code = match error.kind() {
            ErrorKind::CommandNotFound => NOT_FOUND,
            ErrorKind::CommandNotExecutable => NOT_EXECUTABLE,
            _ => OURS,
        };
        Self {
            code,
            message: error.report(),
        }
    }

    /// An error of `exec`: 126 and 127 are the command's, as with `run`; any other is 1.
    pub fn of_exec(error: &Error) -> Self {
        let failure = Self::of_run(error);
        Self {
            code: if failure.code == OURS { 1 } else { failure.code },
            ..failure
        }
    }

    /// The same failure where every failure that is not the container's counts as the client's: in `run`.
    #[must_use]
    pub fn of_ours(self) -> Self {
        Self {
            code: if self.code == 1 { OURS } else { self.code },
            ..self
        }
    }

    /// Says what went wrong, in one line.
    pub fn tell(&self) -> ExitCode {
        if !self.message.is_empty() {
            eprintln!("longshore: {}", self.message);
        }
        ExitCode::from(self.code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            code: 1,
            message: error.report(),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self {
                code: BROKEN_PIPE,
                message: String::new(),
            };
        }
        Self::ours(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_s_exit_codes() {
        let cases = [
            (ErrorKind::CommandNotFound, 127),
            (ErrorKind::CommandNotExecutable, 126),
            (ErrorKind::NotFound, 125),
            (ErrorKind::InvalidArgument, 125),
        ];
        for (kind, code) in cases {
            assert_eq!(Failure::of_run(&Error::new(kind, "x")).code, code);
        }
        assert_eq!(Failure::from(Error::invalid("x")).code, 1);
    }

    #[test]
    fn a_closed_pipe_is_no_news() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.code, failure.message.as_str()), (141, ""));
    }
}
