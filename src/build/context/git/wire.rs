//! What is said to a server of repositories, and what it answers: version 2 of git's protocol.
//!
//! Sources: git's `gitprotocol-common(5)` (packet lines), `gitprotocol-v2(5)`, `gitprotocol-http(5)`.

use bytes::{Buf as _, Bytes, BytesMut};

use super::Id;
use crate::error::{Error, ErrorKind, Result};

/// A piece of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet {
    Flush,
    Delimiter,
    Data(Bytes),
}

/// An answer while it comes in.
#[derive(Debug, Default)]
pub(super) struct Packets {
    buffer: BytesMut,
}

impl Packets {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether all that came was taken.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next piece; `None` where more is needed.
    pub(super) fn next(&mut self) -> Result<Option<Packet>> {
        let Some(head) = self.buffer.get(..4) else {
            return Ok(None);
        };
        let digits = std::str::from_utf8(head)
            .ok()
            .filter(|head| head.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let length = digits.and_then(|digits| usize::from_str_radix(digits, 16).ok());
        match length {
            Some(0) => {
                self.buffer.advance(4);
                Ok(Some(Packet::Flush))
            }
            Some(1) => {
                self.buffer.advance(4);
                Ok(Some(Packet::Delimiter))
            }
            Some(2) => {
                self.buffer.advance(4);
                self.next()
            }
            Some(length @ 4..) => {
                if self.buffer.len() < length {
                    return Ok(None);
                }
                let mut packet = self.buffer.split_to(length).freeze();
                packet.advance(4);
                if let Some(words) = packet.strip_prefix(b"ERR ") {
                    return Err(said(words));
                }
                Ok(Some(Packet::Data(packet)))
            }
            _ => Err(unexpected("no packet line")),
        }
    }
}

/// The server's own words.
pub(super) fn said(words: &[u8]) -> Error {
    let words = String::from_utf8_lossy(words);
    let words: String = words.trim().chars().filter(|c| !c.is_control()).take(300).collect();
    Error::new(ErrorKind::Unavailable, format!("the repository's server says: {words}"))
}

pub(super) fn unexpected(what: &str) -> Error {
    let message = format!("the server's answer is none of git's protocol: {what}");
    Error::new(ErrorKind::Unavailable, message)
}

fn line(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(format!("{:04x}{text}\n", text.len() + 5).as_bytes());
}

/// Checks that a server speaks the protocol.
///
/// # Errors
/// `Unsupported`.
pub(super) fn check_advertisement(lines: &[Bytes]) -> Result<()> {
    let has = |what: &[u8]| lines.iter().any(|line| line.trim_ascii() == what);
    if !has(b"version 2") {
        return Err(Error::unsupported(
            "reading this repository",
            "a server that speaks version 2 of git's protocol (over SSH, one that accepts the variable GIT_PROTOCOL)",
        ));
    }
    let format = lines
        .iter()
        .find_map(|line| line.trim_ascii().strip_prefix(b"object-format="));
    match format {
        None | Some(b"sha1") => Ok(()),
        Some(_) => Err(Error::unsupported("reading this repository", "one whose ids are SHA-1")),
    }
}

/// Asks for the references that a name may mean.
pub(super) fn list_references(wanted: Option<&str>) -> Vec<u8> {
    let mut out = Vec::new();
    line(&mut out, "command=ls-refs");
    line(&mut out, "object-format=sha1");
    out.extend_from_slice(b"0001");
    line(&mut out, "peel");
    line(&mut out, "symrefs");
    for name in names(wanted) {
        line(&mut out, &format!("ref-prefix {name}"));
    }
    out.extend_from_slice(b"0000");
    out
}

/// Asks for a commit without those before it.
pub(super) fn fetch(commit: &Id) -> Vec<u8> {
    let mut out = Vec::new();
    line(&mut out, "command=fetch");
    line(&mut out, "object-format=sha1");
    out.extend_from_slice(b"0001");
    line(&mut out, "no-progress");
    line(&mut out, "ofs-delta");
    line(&mut out, "deepen 1");
    line(&mut out, &format!("want {commit}"));
    line(&mut out, "done");
    out.extend_from_slice(b"0000");
    out
}

/// What a name may stand for, in this order. Source: BuildKit, `source/git`: branches come before tags.
fn names(wanted: Option<&str>) -> Vec<String> {
    let Some(wanted) = wanted else {
        return vec!["HEAD".to_owned()];
    };
    let short = wanted.strip_prefix("refs/").unwrap_or(wanted);
    let of = |kind: &str| {
        format!(
            "refs/{kind}/{}",
            short.strip_prefix(&format!("{kind}/")).unwrap_or(short)
        )
    };
    vec![of("heads"), of("tags"), format!("refs/{short}"), wanted.to_owned()]
}

/// The commit that a name stands for, and the reference's full name, if the server has such.
///
/// # Errors
/// `Unavailable` for an answer that is none.
pub(super) fn choose(lines: &[Bytes], wanted: Option<&str>) -> Result<Option<(Id, String)>> {
    let mut known = Vec::new();
    for line in lines {
        let line = String::from_utf8_lossy(line).trim_end().to_owned();
        let mut words = line.split(' ');
        let (Some(id), Some(name)) = (words.next(), words.next()) else {
            return Err(unexpected("a reference without its name"));
        };
        if id == "unborn" {
            continue;
        }
        let peeled = words.find_map(|word| word.strip_prefix("peeled:"));
        let id: Id = peeled
            .unwrap_or(id)
            .parse()
            .map_err(|_| unexpected("a reference without its id"))?;
        known.push((name.to_owned(), id));
    }
    let found = names(wanted).into_iter().find_map(|name| {
        let found = known.iter().find(|(known, _)| *known == name);
        found.map(|(_, id)| (*id, name))
    });
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f4_packets_come_in_any_pieces() {
        let whole = b"000ahello\n0001000aERRno\n00000002";
        let mut packets = Packets::default();
        let mut found = Vec::new();
        for byte in whole {
            packets.push(&[*byte]);
            while let Some(packet) = packets.next().unwrap() {
                found.push(packet);
            }
        }
        let data = |text: &'static [u8]| Packet::Data(Bytes::from_static(text));
        assert_eq!(
            found,
            [data(b"hello\n"), Packet::Delimiter, data(b"ERRno\n"), Packet::Flush]
        );
        for bad in [&b"zzzz"[..], b"0003", b"+123", b"000eERR no way"] {
            let mut packets = Packets::default();
            packets.push(bad);
            assert!(packets.next().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn f4_branches_come_before_tags() {
        let [a, b, c] = ["a", "b", "c"].map(|digit| digit.repeat(40));
        let lines = [
            format!("{a} HEAD symref-target:refs/heads/main\n"),
            format!("{b} refs/heads/main\n"),
            format!("{a} refs/tags/main\n"),
            format!("{b} refs/tags/v1 peeled:{c}\n"),
        ]
        .map(Bytes::from);
        let of = |wanted| choose(&lines, wanted).unwrap().map(|(id, name)| (id.to_string(), name));
        assert_eq!(of(None), Some((a, "HEAD".into())));
        assert_eq!(of(Some("main")), Some((b, "refs/heads/main".into())));
        assert_eq!(of(Some("v1")), Some((c.clone(), "refs/tags/v1".into())));
        assert_eq!(of(Some("refs/tags/v1")), Some((c, "refs/tags/v1".into())));
        assert_eq!(of(Some("nope")), None);
        assert!(choose(&[Bytes::from_static(b"x")], None).is_err());
        assert!(choose(&[Bytes::from_static(b"x y")], None).is_err());
    }
}
