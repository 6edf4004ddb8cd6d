//! Reads lines of `json-file` logs that look as Docker and we write them, ten times as fast as by a parser of JSON. What looks
//! otherwise is read by that: it says what a line means, and whether it is one. Pure: no I/O.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::LogStream;
use super::json::{self, Line, SECOND_NS};

/// Bytes of `2023-11-14T22:13:20`.
const DATE: usize = 19;
/// As many digits as there are in a second.
const DIGITS: usize = 9;
/// Bytes that are looked at together.
const WIDE: usize = 32;

/// Reads lines that follow each other.
#[derive(Debug, Default)]
pub(super) struct LineReader {
    /// The text of the last line, if escapes had to be taken out of it.
    text: Vec<u8>,
    clock: Clock,
}

impl LineReader {
    /// Reads the line at the start of a buffer. Never panics, whatever the bytes.
    pub(super) fn decode<'a>(&'a mut self, buffer: &'a [u8]) -> Line<'a> {
        match self.usual(buffer) {
            Some(line) => line,
            None => json::decode(buffer),
        }
    }

    /// `{"log":"…","stream":"…","time":"…"}` and the end of the line; `None` for all else.
    fn usual<'a>(&'a mut self, buffer: &'a [u8]) -> Option<Line<'a>> {
        let (text, rest) = string(buffer.strip_prefix(b"{\"log\":\"")?, &mut self.text)?;
        std::str::from_utf8(text).ok()?;
        let rest = rest.strip_prefix(b",\"stream\":\"std")?;
        let (stream, rest) = match rest.split_at_checked(3)? {
            (b"out", rest) => (LogStream::Stdout, rest),
            (b"err", rest) => (LogStream::Stderr, rest),
            _ => return None,
        };
        let rest = rest.strip_prefix(b"\",\"time\":\"")?;
        let (time_ns, rest) = self.clock.read(rest)?;
        let rest = rest.strip_prefix(b"\"}\n")?;
        Some(Line::Whole {
            len: buffer.len() - rest.len(),
            stream,
            time_ns,
            text: text.into(),
        })
    }
}

/// What is in a string, and what comes after its closing quote. `out` has it if it is not in the buffer as it is.
fn string<'a>(buffer: &'a [u8], out: &'a mut Vec<u8>) -> Option<(&'a [u8], &'a [u8])> {
    let (run, rest) = buffer.split_at_checked(plain(buffer))?;
    if let [b'"', rest @ ..] = rest {
        return Some((run, rest));
    }
    out.clear();
    out.extend_from_slice(run);
    let mut rest = rest;
    loop {
        rest = match rest {
            [b'"', rest @ ..] => return Some((out, rest)),
            [b'\\', rest @ ..] => unescape(rest, out)?,
            _ => return None,
        };
        let (run, after) = rest.split_at_checked(plain(rest))?;
        out.extend_from_slice(run);
        rest = after;
    }
}

/// How many bytes at the start mean themselves in a string: no quote, no backslash, none that must not be there.
fn plain(bytes: &[u8]) -> usize {
    let odd = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\');
    // All of a chunk without a branch between: so the compiler compares them at once.
    let any = |chunk: &&[u8]| chunk.iter().fold(false, |found, byte| found | odd(*byte));
    let passed = WIDE * bytes.chunks_exact(WIDE).take_while(|chunk| !any(chunk)).count();
    let rest = bytes.get(passed..).unwrap_or_default();
    passed + rest.iter().position(|byte| odd(*byte)).unwrap_or(rest.len())
}

/// Takes what comes after a backslash, and returns what comes after that. Source: RFC 8259, section 7.
fn unescape<'a>(bytes: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (letter, rest) = bytes.split_first()?;
    let byte = match letter {
        b'n' => b'\n',
        b'"' | b'\\' | b'/' => *letter,
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'f' => 12,
        b'u' => return unescape_unit(rest, out),
        _ => return None,
    };
    out.push(byte);
    Some(rest)
}

/// A character that is one unit of UTF-16. Halves of pairs are left to the parser.
fn unescape_unit<'a>(bytes: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (digits, rest) = bytes.split_at_checked(4)?;
    let mut unit = 0;
    for digit in digits {
        unit = unit * 16 + char::from(*digit).to_digit(16)?;
    }
    let character = char::from_u32(unit)?;
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    Some(rest)
}

/// Reads times. Most lines are of the same second as the one before, and to work out which that is takes longer than all the rest
/// of a line.
#[derive(Debug, Default)]
struct Clock {
    date: [u8; DATE],
    second: i64,
}

impl Clock {
    /// A time in UTC with no more digits than nanoseconds have, and what comes after its `Z`.
    fn read<'a>(&mut self, bytes: &'a [u8]) -> Option<(i64, &'a [u8])> {
        let (date, rest) = bytes.split_first_chunk::<DATE>()?;
        if *date != self.date {
            self.second = second(date)?;
            self.date = *date;
        }
        let (nanoseconds, rest) = match rest {
            [b'.', rest @ ..] => fraction(rest)?,
            rest => (0, rest),
        };
        let time_ns = self.second.checked_mul(SECOND_NS)?.checked_add(nanoseconds)?;
        Some((time_ns, rest.strip_prefix(b"Z")?))
    }
}

fn second(date: &[u8; DATE]) -> Option<i64> {
    // A leap second is the end of the one before it, whatever its digits say. Between day and time the parser takes any byte,
    // and there a quote would end the string.
    if date.ends_with(b"60") || date.get(10) != Some(&b'T') {
        return None;
    }
    let whole = format!("{}Z", std::str::from_utf8(date).ok()?);
    Some(OffsetDateTime::parse(&whole, &Rfc3339).ok()?.unix_timestamp())
}

/// One to nine digits, in nanoseconds, and what comes after them.
fn fraction(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let count = bytes
        .iter()
        .take(DIGITS + 1)
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    if !(1..=DIGITS).contains(&count) {
        return None;
    }
    let (digits, rest) = bytes.split_at_checked(count)?;
    let value = digits
        .iter()
        .fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
    let missing = u32::try_from(DIGITS - count).ok()?;
    Some((value * 10_i64.pow(missing), rest))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    /// Both ways say the same of what is at the start of a buffer, whatever was read before.
    fn same(reader: &mut LineReader, buffer: &[u8]) {
        let (ours, parsed) = (reader.decode(buffer), json::decode(buffer));
        assert_eq!(ours, parsed, "{:?}", String::from_utf8_lossy(buffer));
    }

    fn line(log: &str, stream: &str, time: &str) -> Vec<u8> {
        format!("{{\"log\":\"{log}\",\"stream\":\"{stream}\",\"time\":\"{time}\"}}\n").into_bytes()
    }

    const TIME: &str = "2023-11-14T22:13:20.1234567Z";

    const TIMES: [&str; 24] = [
        TIME,
        "2023-11-14T22:13:20Z",
        "2023-11-14T22:13:20.000000001Z",
        "2023-11-14T22:13:20.1234567891Z",
        "2023-11-14T22:13:20.Z",
        "2023-11-14T22:13:20.12",
        "2023-11-14T22:13:20.12z",
        "2023-11-14t22:13:20.12Z",
        "2023-11-14 22:13:20.12Z",
        "2023-11-14\"22:13:20.12Z",
        "2023-11-14\n22:13:20.12Z",
        "2023-11-14T22:13:20.12+01:00",
        "2023-11-14T22:13:20.-1Z",
        "2023-02-30T22:13:20Z",
        "2016-12-31T23:59:60Z",
        "2016-12-31T23:59:60.5Z",
        "2016-12-31T22:59:60.5Z",
        "1969-12-31T23:59:59.999999999Z",
        "0001-01-01T00:00:00Z",
        "2262-04-11T23:47:16.854775807Z",
        "2262-04-11T23:47:16.854775808Z",
        "1677-09-21T00:12:43.145224192Z",
        "9999-12-31T23:59:59Z",
        "",
    ];

    const LOGS: [&str; 21] = [
        "",
        r"hello\n",
        "no newline",
        r#"\u0009tab \"quote\" back\\slash\r\n"#,
        r"\u003ca\u003e\/\b\f\t",
        r"\ufffd\u2028\uFFFF",
        r"\ud83d\ude00 a pair",
        r"\ud83d half",
        r"\ude00 the other",
        r"\u00zz",
        r"\u+123",
        r"\u12",
        r"\x",
        r"\",
        "caf\u{e9} \u{1f600}",
        "a\ttab that is none",
        "two\nlines",
        "quote \" within",
        "123456789012345678901234567890\\n",
        "1234567890123456789012345678901\\n",
        "12345678901234567890123456789012\\n",
    ];

    #[test]
    fn h19_usual_lines_are_read_as_json_is() {
        let mut reader = LineReader::default();
        for time in TIMES {
            for log in LOGS {
                for stream in ["stdout", "stderr", "stdin", "stdou", "stdoutx", ""] {
                    same(&mut reader, &line(log, stream, time));
                }
            }
        }
    }

    #[test]
    fn h19_other_lines_are_left_to_the_parser() {
        let mut reader = LineReader::default();
        for other in [
            r#"{"stream":"stdout","time":"2023-11-14T22:13:20Z"}"#,
            r#"{"stream":"stdout","log":"a\n","time":"2023-11-14T22:13:20Z"}"#,
            r#"{"log":"a","stream":"stdout","attrs":{"tag":"web"},"time":"2023-11-14T22:13:20Z"}"#,
            r#"{"log":"a","stream":"stdout","time":"2023-11-14T22:13:20Z","more":[1]}"#,
            r#"{"log":"a","log":"b","stream":"stdout","time":"2023-11-14T22:13:20Z"}"#,
            r#"{ "log" : "a" , "stream":"stderr","time":"2023-11-14T22:13:20Z"} "#,
            r#"{"log":"a","stream":"std\u006fut","time":"2023-11-14T22:13:20Z"}"#,
            r#"{"log":null,"stream":"stdout","time":"2023-11-14T22:13:20Z"}"#,
            r#"{"log":"a","stream":"stdout","time":"2023-11-14T22:13:20Z"}}"#,
            r#"{"log":"a","stream":"stdout","time":"2023-11-14T22:13:20Z""#,
            "{\"log\":\"a\",\"stream\":\"stdout\",\"time\":\"2023-11-14T22:13:20Z\"}\r",
            "",
        ] {
            same(&mut reader, other.as_bytes());
            same(&mut reader, format!("{other}\n").as_bytes());
        }
        same(&mut reader, &[line("a", "stdout", TIME), b"\xff".to_vec()].concat());
        same(
            &mut reader,
            b"{\"log\":\"\xff\",\"stream\":\"stdout\",\"time\":\"2023-11-14T22:13:20Z\"}\n",
        );
        same(
            &mut reader,
            b"{\"log\":\"\xc3\\u00a9\",\"stream\":\"stdout\",\"time\":\"2023-11-14T22:13:20Z\"}\n",
        );
    }

    /// What is usual is not left to the parser: else nothing would be gained, and no other test would see it.
    #[test]
    fn h19_what_we_write_is_usual() {
        let mut reader = LineReader::default();
        for text in [
            &b"hello\n"[..],
            b"<a href=\"x\">&</a>\t\x00\r\n",
            b"bad \xff bytes",
            "caf\u{e9}\u{2028}".as_bytes(),
        ] {
            let mut bytes = Vec::new();
            json::encode(LogStream::Stderr, 1_700_000_000_123_456_700, text, &mut bytes);
            assert!(reader.usual(&bytes).is_some(), "{:?}", String::from_utf8_lossy(&bytes));
        }
    }

    /// Where, and what comes there in the place of how many bytes.
    fn change() -> impl Strategy<Value = (usize, usize, Vec<u8>)> {
        let piece = prop_oneof![
            vec(any::<u8>(), 0..3),
            select(vec![
                "\"",
                "\\",
                "\n",
                "\\n",
                "\\u00",
                "Z",
                ".",
                "0",
                "}",
                ",",
                "{\"log\":\"",
                "\u{e9}"
            ])
            .prop_map(|text| text.as_bytes().to_vec()),
        ];
        (0..400_usize, 0..4_usize, piece)
    }

    proptest! {
        #[test]
        fn h19_hostile_lines_are_read_as_json_is(
            lines in vec((any::<String>(), select(&TIMES[..]), vec(change(), 0..3)), 1..4)
        ) {
            let mut reader = LineReader::default();
            for (text, time, changes) in lines {
                let mut log = Vec::new();
                json::escape(text.as_bytes(), &mut log);
                let mut bytes = line(&String::from_utf8_lossy(&log), "stdout", time);
                for (at, instead, piece) in changes {
                    let at = at % (bytes.len() + 1);
                    let end = (at + instead).min(bytes.len());
                    bytes.splice(at..end, piece);
                }
                same(&mut reader, &bytes);
            }
        }
    }
}
