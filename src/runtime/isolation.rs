//! How much a host must offer.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, ObjectKind};

/// What becomes of containers on a host that cannot keep them as well apart as they should be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isolation {
    /// They do not start: the error is `Unsupported`, and names what the host lacks.
    #[default]
    Strict,
    /// They have what the host can offer. [`probe`](crate::probe::probe) says what that is, and so do the warnings of an
    /// engine's `info`.
    ///
    /// Today it makes one difference: within a container that hides a part of `/proc` or `/sys` from this process, as those
    /// of Docker and of Kubernetes do, containers have these two as this process has them. Their programs see the processes
    /// around them, cannot signal them, and those that run as root may look into others of the same engine: into their
    /// environment, memory and files. A container that may trace (`CAP_SYS_PTRACE`, or privileged) is `Unsupported` even
    /// then, since it could look into the engine's helper.
    ///
    /// A host that grants root no namespaces at all is refused even then: the runtime `chroot` is another choice, made by name.
    BestAvailable,
}

impl Isolation {
    /// The word for it in options: `strict`, `best-available`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::BestAvailable => "best-available",
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// From the word of [`Isolation::as_str`].
///
/// # Errors
/// `InvalidArgument` for another word.
impl FromStr for Isolation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let all = [Self::Strict, Self::BestAvailable];
        all.into_iter().find(|one| one.as_str() == text).ok_or_else(|| {
            let message = format!("no such isolation: {text}; there are strict, best-available");
            Error::new(ErrorKind::InvalidArgument, message).with_object(ObjectKind::Option, "isolation")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back() {
        for one in [Isolation::Strict, Isolation::BestAvailable] {
            assert_eq!(one.as_str().parse::<Isolation>().unwrap(), one);
        }
        let error = "none".parse::<Isolation>().unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("best-available"), "{error}");
    }
}
