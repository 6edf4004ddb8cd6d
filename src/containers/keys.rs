//! The keys a client types to leave a terminal that goes on without it: `ctrl-p,ctrl-q` unless it says otherwise. Pure.

use std::str::FromStr;

use bytes::{Bytes, BytesMut};

use crate::error::{Error, ObjectKind, Result};

/// The keys that let a client leave a terminal, which goes on without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys(Vec<u8>);

impl Default for DetachKeys {
    /// `ctrl-p,ctrl-q`.
    fn default() -> Self {
        Self(vec![16, 17])
    }
}

impl FromStr for DetachKeys {
    type Err = Error;

    /// Reads `ctrl-a,b`. Source: moby, `term.ToBytes`.
    fn from_str(text: &str) -> Result<Self> {
        let key = |key: &str| {
            let control = key.strip_prefix("ctrl-");
            match (control.unwrap_or(key).as_bytes(), control) {
                ([byte], None) if byte.is_ascii() => Some(*byte),
                ([letter @ b'a'..=b'z'], Some(_)) => Some(letter - b'a' + 1),
                ([b'@'], Some(_)) => Some(0),
                ([b'['], Some(_)) => Some(27),
                ([b'\\'], Some(_)) => Some(28),
                ([b']'], Some(_)) => Some(29),
                ([b'^'], Some(_)) => Some(30),
                ([b'_'], Some(_)) => Some(31),
                _ => None,
            }
        };
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        let bad = || {
            Error::invalid(format!("invalid detach keys ({text}) provided: say ctrl-p,ctrl-q"))
                .with_object(ObjectKind::Option, "detach keys")
        };
        keys.map(Self).ok_or_else(bad)
    }
}

/// Looks for keys in what is typed, and holds back what may become them.
#[derive(Debug)]
pub struct KeyScanner {
    keys: DetachKeys,
    matched: usize,
}

impl KeyScanner {
    /// Nothing has been typed yet.
    pub fn new(keys: DetachKeys) -> Self {
        Self { keys, matched: 0 }
    }

    /// What to pass on, and whether the keys are complete.
    pub fn scan(&mut self, bytes: &[u8]) -> (Bytes, bool) {
        let mut out = BytesMut::with_capacity(bytes.len() + self.matched);
        for byte in bytes {
            if self.keys.0.get(self.matched) != Some(byte) {
                out.extend_from_slice(&self.keys.0[..self.matched]);
                self.matched = 0;
            }
            if self.keys.0.get(self.matched) == Some(byte) {
                self.matched += 1;
            } else {
                out.extend_from_slice(&[*byte]);
            }
            if self.matched == self.keys.0.len() {
                return (out.freeze(), true);
            }
        }
        (out.freeze(), false)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn g4_keys_are_found_across_reads_and_nothing_else_is_lost() {
        let mut scanner = KeyScanner::new(DetachKeys::default());
        assert_eq!(scanner.scan(b"ab\x10"), (Bytes::from_static(b"ab"), false));
        assert_eq!(scanner.scan(b"c"), (Bytes::from_static(b"\x10c"), false));
        assert_eq!(scanner.scan(b"\x10\x10"), (Bytes::from_static(b"\x10"), false));
        assert_eq!(scanner.scan(b"\x11rest"), (Bytes::new(), true));
    }

    #[test]
    fn g4_keys_as_clients_name_them() {
        let parse = |text: &str| text.parse::<DetachKeys>();
        assert_eq!(parse("ctrl-p,ctrl-q").unwrap(), DetachKeys::default());
        assert_eq!(parse("ctrl-@,a,ctrl-[").unwrap(), DetachKeys(vec![0, b'a', 27]));
        for bad in ["", "ctrl-", "ctrl-P", "ab", "a,", "é"] {
            assert_eq!(
                parse(bad).unwrap_err().kind(),
                &crate::ErrorKind::InvalidArgument,
                "{bad}"
            );
        }
    }

    proptest! {
        #[test]
        fn text_without_the_first_key_passes(pieces in proptest::collection::vec("[a-z]{0,20}", 0..8)) {
            let mut scanner = KeyScanner::new(DetachKeys::default());
            for piece in pieces {
                prop_assert_eq!(scanner.scan(piece.as_bytes()), (Bytes::from(piece), false));
            }
        }
    }
}
