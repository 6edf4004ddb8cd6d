//! The lines of Docker's `json-file` logs, byte for byte. Pure: no I/O.
//!
//! Source: moby, `daemon/logger/jsonfilelog/jsonlog`: `{"log":"…\n","stream":"stdout","time":"…"}`, with Go's escapes and
//! times as RFC 3339 without trailing zeros. What is no UTF-8 becomes U+FFFD, as there: whoever needs every byte logs with
//! `local`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write as _;

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{LogEntry, LogStream};

/// The longest line that is read: a piece of 16 KiB in which every byte is escaped, and some room.
pub(super) const MAX_LINE: usize = 200 << 10;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// What stands at the start of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Whole {
        /// Bytes in the file.
        len: usize,
        stream: LogStream,
        time_ns: i64,
        /// UTF-8.
        text: Cow<'a, [u8]>,
    },
    /// No end of a line is in sight.
    Incomplete,
    /// No line of a log begins so.
    Invalid,
}

/// Appends an entry as a line.
#[cfg(test)]
pub(crate) fn encode(stream: LogStream, time_ns: i64, bytes: &[u8], out: &mut Vec<u8>) {
    let bytes = bytes::Bytes::copy_from_slice(bytes);
    let entry = LogEntry { stream, time_ns, bytes };
    Lines::default().encode(&entry, out);
}

/// Makes lines of entries that follow each other.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// What stands beside each, as JSON; may be empty.
    attributes: Vec<u8>,
    /// The second of the last entry, written out: mostly it is that of the next, too, and to write it out takes longer than
    /// all the rest of a line.
    date: Vec<u8>,
    second: i64,
}

impl Lines {
    /// Lines with attributes (JSON) beside them, if there are any.
    pub(super) fn new(attributes: Vec<u8>) -> Self {
        Self {
            attributes,
            ..Self::default()
        }
    }

    /// Appends an entry as a line.
    pub(super) fn encode(&mut self, entry: &LogEntry, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{");
        if !entry.bytes.is_empty() {
            out.extend_from_slice(b"\"log\":\"");
            escape(&entry.bytes, out);
            out.extend_from_slice(b"\",");
        }
        let stream: &[u8] = match entry.stream {
            LogStream::Stdout => b"\"stream\":\"stdout\",",
            LogStream::Stderr => b"\"stream\":\"stderr\",",
        };
        out.extend_from_slice(stream);
        if !self.attributes.is_empty() {
            out.extend_from_slice(b"\"attrs\":");
            out.extend_from_slice(&self.attributes);
            out.push(b',');
        }
        out.extend_from_slice(b"\"time\":\"");
        self.stamp(entry.time_ns, out);
        out.extend_from_slice(b"\"}\n");
    }

    /// RFC 3339 in UTC with as many digits of a second as it has. Source: Go, `time.RFC3339Nano`.
    fn stamp(&mut self, time_ns: i64, out: &mut Vec<u8>) {
        let (second, mut rest) = (time_ns.div_euclid(SECOND_NS), time_ns.rem_euclid(SECOND_NS));
        if self.date.is_empty() || self.second != second {
            self.second = second;
            self.date.clear();
            write_date(second, &mut self.date);
        }
        out.extend_from_slice(&self.date);
        if rest > 0 {
            let mut digits = *b".000000000";
            for digit in digits.iter_mut().skip(1).rev() {
                *digit += (rest % 10) as u8;
                rest /= 10;
            }
            let zeros = digits.iter().rev().take_while(|digit| **digit == b'0').count();
            out.extend_from_slice(&digits[..digits.len() - zeros]);
        }
        out.push(b'Z');
    }
}

pub(super) const SECOND_NS: i64 = 1_000_000_000;

fn write_date(second: i64, out: &mut Vec<u8>) {
    let at = OffsetDateTime::from_unix_timestamp(second).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let (hour, minute, second) = at.to_hms();
    // Memory takes everything.
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
}

/// As Go's encoder of JSON has it for HTML: `<`, `>` and `&`, and the two separators that end a line in JavaScript, too.
pub(super) fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    // Most is text, and that it is text is seen many bytes at a time.
    if std::str::from_utf8(bytes).is_ok() {
        return escape_text(bytes, out);
    }
    for chunk in bytes.utf8_chunks() {
        escape_text(chunk.valid().as_bytes(), out);
        // Go steps over one byte at a time.
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

/// Whether a byte of UTF-8 may stand as it is; 0xe2 begins the two separators, among others. A look into a table takes a
/// quarter of the comparisons' time.
static PLAIN: [bool; 256] = {
    let (mut plain, mut byte) = ([false; 256], 0);
    while byte < plain.len() {
        plain[byte] = !matches!(byte as u8, 0..=0x1f | b'"' | b'\\' | b'<' | b'>' | b'&' | 0xe2);
        byte += 1;
    }
    plain
};

/// Runs of plain bytes are copied whole.
fn escape_text(mut text: &[u8], out: &mut Vec<u8>) {
    loop {
        let odd = text.iter().position(|byte| !PLAIN[usize::from(*byte)]);
        let plain = odd.unwrap_or(text.len());
        let (run, rest) = text.split_at(plain);
        out.extend_from_slice(run);
        let length = match rest {
            [] => return,
            [b'"', ..] => put(out, b"\\\"", 1),
            [b'\\', ..] => put(out, b"\\\\", 1),
            [b'\n', ..] => put(out, b"\\n", 1),
            [b'\r', ..] => put(out, b"\\r", 1),
            [0xe2, 0x80, 0xa8, ..] => put(out, b"\\u2028", 3),
            [0xe2, 0x80, 0xa9, ..] => put(out, b"\\u2029", 3),
            [0xe2, ..] => put(out, &[0xe2], 1),
            [byte, ..] => {
                out.extend_from_slice(b"\\u00");
                let halves = [byte >> 4, byte & 15].map(|half| HEX[usize::from(half)]);
                put(out, &halves, 1)
            }
        };
        text = rest.get(length..).unwrap_or_default();
    }
}

/// Appends what stands for so many bytes.
fn put(out: &mut Vec<u8>, bytes: &[u8], stands_for: usize) -> usize {
    out.extend_from_slice(bytes);
    stands_for
}

/// Reads the line at the start of a buffer, whatever the order of its parts and what else is in it. Never panics, whatever the
/// bytes.
pub(super) fn decode(buffer: &[u8]) -> Line<'_> {
    #[derive(Deserialize)]
    struct Shown<'a> {
        #[serde(borrow, default)]
        log: Cow<'a, str>,
        #[serde(borrow, default)]
        stream: Cow<'a, str>,
        #[serde(borrow)]
        time: Cow<'a, str>,
    }
    let Some(end) = buffer.iter().position(|byte| *byte == b'\n') else {
        return if buffer.len() < MAX_LINE {
            Line::Incomplete
        } else {
            Line::Invalid
        };
    };
    let Ok(shown) = serde_json::from_slice::<Shown<'_>>(&buffer[..end]) else {
        return Line::Invalid;
    };
    let stream = match &*shown.stream {
        "stdout" => LogStream::Stdout,
        "stderr" => LogStream::Stderr,
        _ => return Line::Invalid,
    };
    let time = OffsetDateTime::parse(&shown.time, &Rfc3339);
    let Some(time_ns) = time.ok().and_then(|at| i64::try_from(at.unix_timestamp_nanos()).ok()) else {
        return Line::Invalid;
    };
    Line::Whole {
        len: end + 1,
        stream,
        time_ns,
        text: match shown.log {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        },
    }
}

/// What stands beside a line, as `logs --details` shows it. Source: moby, `api/server/httputils/write_log_stream.go`.
pub(super) fn details(line: &[u8], out: &mut Vec<u8>) {
    #[derive(Deserialize)]
    struct Shown<'a> {
        #[serde(borrow, default)]
        attrs: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    }
    let Ok(shown) = serde_json::from_slice::<Shown<'_>>(line) else {
        return;
    };
    for (number, (name, value)) in shown.attrs.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        in_query(name, out);
        out.push(b'=');
        in_query(value, out);
    }
}

/// As in the query of an URL. Source: Go, `net/url`, `QueryEscape`.
fn in_query(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte),
            b' ' => out.push(b'+'),
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(stream: LogStream, time_ns: i64, bytes: &[u8]) -> String {
        let mut out = Vec::new();
        encode(stream, time_ns, bytes, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// Lines that dockerd wrote.
    #[test]
    fn h19_lines_are_docker_s_bytes() {
        let at = 1_700_000_000_123_456_700;
        for (bytes, log) in [
            (&b"hello\n"[..], r"hello\n"),
            (b"no newline", "no newline"),
            (
                b"\ttab \"quote\" back\\slash\r\n",
                r#"\u0009tab \"quote\" back\\slash\r\n"#,
            ),
            (
                b"<a href=\"x\">&</a>\n",
                r#"\u003ca href=\"x\"\u003e\u0026\u003c/a\u003e\n"#,
            ),
            (
                "caf\u{e9} \u{1f600}\u{2028}\n".as_bytes(),
                "caf\u{e9} \u{1f600}\\u2028\\n",
            ),
            (b"\x00\x1b[31m\x7f\n", "\\u0000\\u001b[31m\x7f\\n"),
            (b"bad \xff\xfe\xe2\x82 bytes\n", r"bad \ufffd\ufffd\ufffd\ufffd bytes\n"),
        ] {
            let expected =
                format!("{{\"log\":\"{log}\",\"stream\":\"stderr\",\"time\":\"2023-11-14T22:13:20.1234567Z\"}}\n");
            assert_eq!(line(LogStream::Stderr, at, bytes), expected);
        }
        let whole = LogEntry {
            stream: LogStream::Stdout,
            time_ns: at,
            bytes: "hello\n".into(),
        };
        let mut attributed = Vec::new();
        Lines::new(br#"{"tag":"web"}"#.to_vec()).encode(&whole, &mut attributed);
        assert_eq!(
            String::from_utf8(attributed).unwrap(),
            "{\"log\":\"hello\\n\",\"stream\":\"stdout\",\"attrs\":{\"tag\":\"web\"},\"time\":\"2023-11-14T22:13:20.1234567Z\"}\n"
        );
        let whole = line(LogStream::Stdout, 1_700_000_000_000_000_000, b"");
        assert_eq!(whole, "{\"stream\":\"stdout\",\"time\":\"2023-11-14T22:13:20Z\"}\n");
    }

    #[test]
    fn what_is_no_line_is_told_apart() {
        assert_eq!(decode(b"{\"log\":\"a"), Line::Incomplete);
        assert_eq!(decode(&[b'x'; MAX_LINE]), Line::Invalid);
        for bad in [
            "\n",
            "x\n",
            "{}\n",
            "{\"log\":\"a\",\"stream\":\"in\",\"time\":\"2023-11-14T22:13:20Z\"}\n",
        ] {
            assert_eq!(decode(bad.as_bytes()), Line::Invalid, "{bad}");
        }
    }

    fn stamped(lines: &mut Lines, time_ns: i64) -> String {
        let mut out = Vec::new();
        lines.stamp(time_ns, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_as_go_writes_them() {
        let mut lines = Lines::default();
        for (time_ns, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1, "1970-01-01T00:00:00.000000001Z"),
            (100_000_000, "1970-01-01T00:00:00.1Z"),
            (1_709_210_096_000_000_010, "2024-02-29T12:34:56.00000001Z"),
            (1_709_210_096_999_999_999, "2024-02-29T12:34:56.999999999Z"),
            (1_709_210_097_000_000_000, "2024-02-29T12:34:57Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
        ] {
            assert_eq!(stamped(&mut lines, time_ns), text);
        }
    }

    proptest! {
        #[test]
        fn times_come_back_in_whatever_order(times in proptest::collection::vec(any::<i64>(), 1..20)) {
            let mut lines = Lines::default();
            for time_ns in times {
                // Another of the same second each time.
                for time_ns in [time_ns, time_ns.saturating_add(1)] {
                    let at = OffsetDateTime::parse(&stamped(&mut lines, time_ns), &Rfc3339).unwrap();
                    prop_assert_eq!(at.unix_timestamp_nanos(), i128::from(time_ns));
                }
            }
        }

        #[test]
        fn text_comes_back(text: String, time_ns in 0i64..4_000_000_000_000_000_000, rest: Vec<u8>) {
            let mut bytes = line(LogStream::Stdout, time_ns, text.as_bytes()).into_bytes();
            let len = bytes.len();
            bytes.extend(rest);
            prop_assert_eq!(decode(&bytes), Line::Whole {
                len, stream: LogStream::Stdout, time_ns, text: text.into_bytes().into()
            });
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            decode(&bytes);
            let mut out = Vec::new();
            encode(LogStream::Stdout, 0, &bytes, &mut out);
            let read = matches!(decode(&out), Line::Whole { .. });
            prop_assert!(read);
        }
    }
}
