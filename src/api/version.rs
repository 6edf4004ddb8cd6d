//! Versions of the Engine API: which are served, and how they are told from a path.

use std::fmt;

use super::error::Failure;

/// A version of the Engine API, `1.44`. Every version there ever was begins with 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion(u16);

impl ApiVersion {
    /// The oldest that is served. Docker 29 serves nothing before 1.40, which old clients pin.
    pub const MIN: Self = Self(24);
    /// The newest, and that of a path without one.
    pub const MAX: Self = Self(56);

    /// Version `1.minor`.
    pub const fn new(minor: u16) -> Self {
        Self(minor)
    }

    /// What follows `1.`.
    pub const fn minor(self) -> u16 {
        self.0
    }

    /// Whether it is no older than `1.minor`.
    pub const fn at_least(self, minor: u16) -> bool {
        self.0 >= minor
    }

    /// Reads the `1.44` of a path, and refuses what is not served in the words that clients look for.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        let number = |part: &str| part.parse::<u16>().ok();
        let Some((major, minor)) = number(major).zip(number(minor)) else {
            return Err(Failure::bad(format!("invalid API version {text:?}: say 1.44")));
        };
        let version = Self(minor);
        if major < 1 || (major == 1 && version < Self::MIN) {
            return Err(Failure::bad(format!(
                "client version {text} is too old. Minimum supported API version is {}, please upgrade your client to a \
                 newer version",
                Self::MIN
            )));
        }
        if major > 1 || version > Self::MAX {
            return Err(Failure::bad(format!(
                "client version {text} is too new. Maximum supported API version is {}",
                Self::MAX
            )));
        }
        Ok(version)
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.0)
    }
}

/// Takes `/v1.44` off a path. A first part that is not `v` and digits and dots belongs to the path.
pub(super) fn split(path: &str) -> Result<(ApiVersion, &str), Failure> {
    let trimmed = path.trim_start_matches('/');
    let (first, rest) = trimmed.split_once('/').unwrap_or((trimmed, ""));
    let digits = first.strip_prefix('v').filter(|text| {
        text.starts_with(|c: char| c.is_ascii_digit()) && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    });
    match digits {
        Some(text) => Ok((ApiVersion::parse(text)?, rest)),
        None => Ok((ApiVersion::MAX, trimmed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b4_versions_in_paths() {
        let served = |path| split(path).map(|(version, rest)| (version.to_string(), rest.to_owned()));
        let ok = |version: &str, rest: &str| (version.to_owned(), rest.to_owned());
        assert_eq!(served("/v1.24/_ping").unwrap(), ok("1.24", "_ping"));
        assert_eq!(served("//v1.56//_ping").unwrap(), ok("1.56", "/_ping"));
        assert_eq!(served("/_ping").unwrap(), ok("1.56", "_ping"));
        assert_eq!(served("/volumes/v1").unwrap(), ok("1.56", "volumes/v1"));
        for (path, words) in [
            ("/v1.23/_ping", "is too old. Minimum supported API version is 1.24"),
            ("/v0.9/_ping", "too old"),
            ("/v1/_ping", "too old"),
            ("/v1.57/_ping", "is too new. Maximum supported API version is 1.56"),
            ("/v2.0/_ping", "too new"),
            ("/v1.44.3/_ping", "invalid API version"),
            ("/v1.999999/_ping", "invalid API version"),
        ] {
            let failure = served(path).unwrap_err();
            assert_eq!(failure.status.as_u16(), 400, "{path}");
            assert!(failure.message.contains(words), "{path}: {}", failure.message);
        }
    }
}
