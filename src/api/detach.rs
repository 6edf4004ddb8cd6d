//! The keys a client types to leave a terminal that goes on without it: `ctrl-p,ctrl-q` unless it says otherwise.

use bytes::{Bytes, BytesMut};

use super::error::Failure;

/// A sequence of keys, as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keys(Vec<u8>);

impl Default for Keys {
    fn default() -> Self {
        Self(vec![16, 17])
    }
}

impl Keys {
    /// Reads `ctrl-a,b`. Source: moby, `term.ToBytes`.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
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
        let bad = || Failure::bad(format!("invalid detach keys ({text}) provided: say ctrl-p,ctrl-q"));
        keys.map(Self).ok_or_else(bad)
    }
}

/// Looks for keys in what is typed, and holds back what may become them.
#[derive(Debug)]
pub(super) struct Scanner {
    keys: Keys,
    matched: usize,
}

impl Scanner {
    pub(super) fn new(keys: Keys) -> Self {
        Self { keys, matched: 0 }
    }

    /// What to pass on, and whether the keys are complete.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> (Bytes, bool) {
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
    fn keys_are_found_across_reads_and_nothing_else_is_lost() {
        let mut scanner = Scanner::new(Keys::default());
        assert_eq!(scanner.scan(b"ab\x10"), (Bytes::from_static(b"ab"), false));
        assert_eq!(scanner.scan(b"c"), (Bytes::from_static(b"\x10c"), false));
        assert_eq!(scanner.scan(b"\x10\x10"), (Bytes::from_static(b"\x10"), false));
        assert_eq!(scanner.scan(b"\x11rest"), (Bytes::new(), true));
    }

    #[test]
    fn keys_as_clients_name_them() {
        assert_eq!(Keys::parse("ctrl-p,ctrl-q").unwrap(), Keys::default());
        assert_eq!(Keys::parse("ctrl-@,a,ctrl-[").unwrap(), Keys(vec![0, b'a', 27]));
        for bad in ["", "ctrl-", "ctrl-P", "ab", "a,", "é"] {
            assert_eq!(Keys::parse(bad).unwrap_err().status, 400, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_without_the_first_key_passes(pieces in proptest::collection::vec("[a-z]{0,20}", 0..8)) {
            let mut scanner = Scanner::new(Keys::default());
            for piece in pieces {
                prop_assert_eq!(scanner.scan(piece.as_bytes()), (Bytes::from(piece), false));
            }
        }
    }
}
