//! Options of log drivers, in Docker's words.

use std::collections::BTreeMap;

use super::{Overflow, PumpOptions};
use crate::error::{Error, ObjectKind, Result};
use crate::types::Bytes;

/// When files are rotated, and how many are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalOptions {
    /// Size of a file at which the next one begins. Docker's `max-size`.
    pub max_size: Bytes,
    /// How many files are kept, at least one. Docker's `max-file`.
    pub max_files: u32,
    /// Whether files that are not written to any more are packed. Docker's `compress`.
    pub compress: bool,
}

impl Default for LocalOptions {
    /// Three files of 10 MiB, not packed.
    fn default() -> Self {
        Self {
            max_size: Bytes::mib(10),
            max_files: 3,
            compress: false,
        }
    }
}

impl LocalOptions {
    /// Takes Docker's options `max-size` (`10m`; `-1` is no limit), `max-file` (`3`) and `compress` (`true`).
    ///
    /// # Errors
    /// `InvalidArgument` for another key, or a value that can never work.
    pub fn parse<'a>(options: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        Self::default().with(options)
    }

    /// These, but for what is given.
    pub(super) fn with<'a>(mut self, options: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        for (key, value) in options {
            let bad = || bad(key, value);
            match key {
                "max-size" if value == "-1" => self.max_size = Bytes::new(u64::MAX),
                "max-size" => self.max_size = size(value).ok_or_else(bad)?,
                "max-file" => self.max_files = value.parse().ok().filter(|count| *count > 0).ok_or_else(bad)?,
                "compress" => self.compress = value.parse().map_err(|_| bad())?,
                _ => return Err(unknown(key)),
            }
        }
        let rotates = self.max_files > 1 && self.max_size.get() < u64::MAX;
        if self.compress && !rotates {
            let message = "compress cannot be true when max-file is less than 2 or max-size is not set";
            return Err(Error::invalid(message).with_object(ObjectKind::Option, "compress"));
        }
        Ok(self)
    }
}

fn size(text: &str) -> Option<Bytes> {
    text.parse().ok().filter(|size: &Bytes| size.get() > 0)
}

pub(super) fn bad(key: &str, value: &str) -> Error {
    Error::invalid(format!("invalid log option {key}={value}")).with_object(ObjectKind::Option, key)
}

/// The error of an option that a driver has not.
fn unknown(key: &str) -> Error {
    let message = format!(
        "unknown log option {key:?}; there are max-size, max-file and compress, for json-file labels, labels-regex, env, \
         env-regex and tag, too, and for every driver mode and max-buffer-size"
    );
    Error::invalid(message).with_object(ObjectKind::Option, key)
}

/// Takes out what is the engine's of a container's log options, whatever the driver: `mode` and `max-buffer-size`. The rest
/// is the driver's.
///
/// # Errors
/// `InvalidArgument` for a value that can never work.
pub fn split_options(options: &BTreeMap<String, String>) -> Result<(PumpOptions, BTreeMap<String, String>)> {
    let (mut pump, mut rest) = (PumpOptions::default(), BTreeMap::new());
    for (key, value) in options {
        match (key.as_str(), value.as_str()) {
            ("mode", "blocking") => pump.overflow = Overflow::Wait,
            ("mode", "non-blocking") => pump.overflow = Overflow::Drop,
            ("max-buffer-size", value) => {
                let bytes = size(value).and_then(|size| usize::try_from(size.get()).ok());
                pump.buffer_bytes = bytes.ok_or_else(|| bad(key, value))?;
            }
            ("mode", value) => return Err(bad(key, value)),
            _ => drop(rest.insert(key.clone(), value.clone())),
        }
    }
    if options.contains_key("max-buffer-size") && pump.overflow != Overflow::Drop {
        let message = "the log option max-buffer-size goes with mode=non-blocking alone";
        return Err(Error::invalid(message).with_object(ObjectKind::Option, "max-buffer-size"));
    }
    Ok((pump, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h19_options_in_docker_s_words() {
        let parse = |options: &[(&str, &str)]| LocalOptions::parse(options.iter().copied());
        let parsed = parse(&[("max-size", "1m"), ("max-file", "5"), ("compress", "true")]).unwrap();
        assert_eq!(
            (parsed.max_size, parsed.max_files, parsed.compress),
            (Bytes::mib(1), 5, true)
        );
        assert_eq!(parse(&[("max-size", "-1")]).unwrap().max_size.get(), u64::MAX);
        for bad in [
            ("max-size", "0"),
            ("max-size", "lots"),
            ("max-file", "0"),
            ("max-file", "-1"),
            ("compress", "yes"),
            ("labels", "a"),
        ] {
            assert!(parse(&[bad]).is_err(), "{bad:?}");
        }
        assert!(parse(&[("compress", "true"), ("max-file", "1")]).is_err());
        assert!(parse(&[("compress", "true"), ("max-size", "-1")]).is_err());
    }

    #[test]
    fn h20_options_of_every_driver() {
        let split = |options: &[(&str, &str)]| {
            let options = options
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            split_options(&options.collect())
        };
        let (pump, rest) = split(&[("mode", "non-blocking"), ("max-buffer-size", "4m"), ("max-file", "2")]).unwrap();
        assert_eq!((pump.overflow, pump.buffer_bytes), (Overflow::Drop, 4 << 20));
        assert_eq!(rest.into_iter().collect::<Vec<_>>(), [("max-file".into(), "2".into())]);
        for bad in [
            &[("mode", "maybe")][..],
            &[("max-buffer-size", "4m")],
            &[("mode", "non-blocking"), ("max-buffer-size", "0")],
        ] {
            assert!(split(bad).is_err(), "{bad:?}");
        }
    }
}
