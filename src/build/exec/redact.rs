//! What a command prints, without the secrets of the build. Pure.

use std::collections::BTreeMap;

use crate::build::spec::Secret;

/// What stands in the place of a secret.
const COVER: &[u8] = b"***";
/// Lines of a secret of several lines that are shorter say nothing, and would be found everywhere.
const SHORTEST_LINE: usize = 4;

/// Finds secrets in a stream that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct Redactor {
    /// The longest first.
    needles: Vec<Vec<u8>>,
    /// The end of what came so far, where it may be the beginning of a secret.
    held: Vec<u8>,
}

/// What is looked for: each secret, and as output comes line by line, each line of one that has several.
pub(super) fn needles(secrets: &BTreeMap<String, Secret>) -> Vec<Vec<u8>> {
    let mut needles = Vec::new();
    for secret in secrets.values() {
        let lines: Vec<&[u8]> = secret.0.split(|byte| *byte == b'\n').map(trimmed).collect();
        let filled = lines.iter().filter(|line| !line.is_empty()).count();
        let long = |line: &&&[u8]| line.len() >= SHORTEST_LINE || filled == 1 && !line.is_empty();
        needles.extend(lines.iter().filter(long).map(|line| line.to_vec()));
    }
    needles.sort_by_key(|needle| std::cmp::Reverse(needle.len()));
    needles.dedup();
    needles
}

fn trimmed(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

impl Redactor {
    pub(super) fn new(needles: Vec<Vec<u8>>) -> Self {
        Self {
            needles,
            held: Vec::new(),
        }
    }

    /// The next piece, covered, as far as it can be told by now.
    pub(super) fn take(&mut self, piece: &[u8]) -> Vec<u8> {
        if self.needles.is_empty() {
            return piece.to_vec();
        }
        let mut bytes = std::mem::take(&mut self.held);
        bytes.extend_from_slice(piece);
        let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
        while at < bytes.len() {
            let rest = &bytes[at..];
            if let Some(needle) = self.needles.iter().find(|needle| rest.starts_with(needle)) {
                out.extend_from_slice(COVER);
                at += needle.len();
            } else if self.needles.iter().any(|needle| needle.starts_with(rest)) {
                self.held = rest.to_vec();
                break;
            } else {
                out.push(bytes[at]);
                at += 1;
            }
        }
        out
    }

    /// What was held back, at the end.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(secrets: &[&str]) -> Redactor {
        let secrets = secrets.iter().enumerate();
        let secrets = secrets.map(|(n, text)| (n.to_string(), Secret::new(text.as_bytes())));
        Redactor::new(needles(&secrets.collect()))
    }

    fn shown(redactor: &mut Redactor, pieces: &[&str]) -> String {
        let mut out = Vec::new();
        for piece in pieces {
            out.extend(redactor.take(piece.as_bytes()));
        }
        out.extend(redactor.rest());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn f12_secrets_are_covered_however_they_are_cut() {
        let text = "a hunter2 b hunter2hunter2\nhunte r2 hunter";
        let covered = "a *** b ******\nhunte r2 hunter";
        for size in 1..text.len() {
            let pieces: Vec<&str> = text
                .as_bytes()
                .chunks(size)
                .map(|piece| str::from_utf8(piece).unwrap())
                .collect();
            assert_eq!(shown(&mut of(&["hunter2\n"]), &pieces), covered, "{size}");
        }
    }

    #[test]
    fn f12_of_two_secrets_the_longer_counts() {
        assert_eq!(shown(&mut of(&["abc", "abcdef"]), &["xabcdefx abcx"]), "x***x ***x");
        assert_eq!(shown(&mut of(&["aab"]), &["aa", "ab", "aab"]), "a******");
    }

    #[test]
    fn f12_each_line_of_a_key_is_one() {
        let key = "-----BEGIN-----\r\nMIIEow\n=\n-----END-----\n";
        let said = shown(&mut of(&[key]), &["-----BEGIN-----\n", "MIIEow\n", "=\n", "x=1\n"]);
        assert_eq!(said, "***\n***\n=\nx=1\n");
        assert_eq!(shown(&mut of(&["", "\n"]), &["all\n", "there"]), "all\nthere");
        assert_eq!(shown(&mut of(&["x"]), &["axb"]), "a***b");
    }
}
