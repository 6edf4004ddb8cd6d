//! An entry of a log as a shim writes it: a frame, or a line of JSON. `core` only; it compiles into the library too, whose
//! own writers (`logs/frame.rs`, `logs/json.rs`) it is compared with there, byte for byte.

/// Bytes before a frame's payload.
const HEADER: usize = 13;
/// The kind of the frame at the end.
pub(crate) const END: u8 = 255;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Where the parts of an entry go.
pub(crate) type Put<'a> = &'a mut dyn FnMut(&[u8]);

/// A frame: kind 1 and 2 are the streams.
#[inline(never)]
#[cfg_attr(not(test), unsafe(link_section = "lhshim"))]
pub(crate) fn frame(kind: u8, time_ns: i64, bytes: &[u8], put: Put<'_>) {
    let mut head = [0u8; HEADER];
    let length = (bytes.len() as u32).to_le_bytes();
    let parts = length.into_iter().chain([kind]).chain(time_ns.to_le_bytes());
    for (slot, byte) in head.iter_mut().zip(parts) {
        *slot = byte;
    }
    put(&head);
    put(bytes);
}

/// A line of Docker's: see `logs/json.rs`.
#[inline(never)]
#[cfg_attr(not(test), unsafe(link_section = "lhshim"))]
pub(crate) fn json(kind: u8, time_ns: i64, bytes: &[u8], put: Put<'_>) {
    put(b"{");
    if !bytes.is_empty() {
        put(b"\"log\":\"");
        escape(bytes, put);
        put(b"\",");
    }
    put(b"\"stream\":\"std");
    put(if kind == 1 { b"out" } else { b"err" });
    put(b"\",\"time\":\"");
    stamp(time_ns, put);
    put(b"\"}\n");
}

#[inline(never)]
#[cfg_attr(not(test), unsafe(link_section = "lhshim"))]
fn escape(bytes: &[u8], put: Put<'_>) {
    for chunk in bytes.utf8_chunks() {
        escape_text(chunk.valid().as_bytes(), put);
        for _ in chunk.invalid() {
            put(b"\\ufffd");
        }
    }
}

/// Runs of plain bytes are handed on whole; 0xe2 begins the two separators, among others.
#[inline(never)]
#[cfg_attr(not(test), unsafe(link_section = "lhshim"))]
fn escape_text(mut text: &[u8], put: Put<'_>) {
    let special = |byte: &u8| matches!(byte, 0..=0x1f | b'"' | b'\\' | b'<' | b'>' | b'&' | 0xe2);
    while let Some(at) = text.iter().position(special) {
        put(text.get(..at).unwrap_or(&[]));
        let rest = text.get(at..).unwrap_or(&[]);
        let length = match rest {
            [0xe2, 0x80, last @ (0xa8 | 0xa9), ..] => {
                put(b"\\u202");
                put(&[last - 0xa8 + b'8']);
                3
            }
            [0xe2, ..] => {
                put(&[0xe2]);
                1
            }
            [byte, ..] => {
                let half = |four: u8| HEX.get(usize::from(four)).copied().unwrap_or(b'0');
                match byte {
                    b'"' | b'\\' => put(&[b'\\', *byte]),
                    b'\n' | b'\r' => put(&[b'\\', if *byte == b'\n' { b'n' } else { b'r' }]),
                    _ => put(&[b'\\', b'u', b'0', b'0', half(byte >> 4), half(byte & 15)]),
                }
                1
            }
            [] => return,
        };
        text = rest.get(length..).unwrap_or(&[]);
    }
    put(text);
}

/// RFC 3339 in UTC with as many digits of a second as it has. Source: Go, `time.RFC3339Nano`. Times before the epoch, which no
/// clock of the day has, are the epoch. Years are counted one by one: less code than a formula, and less time than a write.
#[inline(never)]
#[cfg_attr(not(test), unsafe(link_section = "lhshim"))]
fn stamp(time_ns: i64, put: Put<'_>) {
    let time_ns = time_ns.max(0) as u64;
    let seconds = time_ns / 1_000_000_000;
    let (mut day, second) = ((seconds / 86_400) as u32, (seconds % 86_400) as u32);
    let (mut year, mut month) = (1970, 1);
    loop {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 => 28 + u32::from(leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        if day < days {
            break;
        }
        day -= days;
        month += 1;
        if month > 12 {
            (year, month) = (year + 1, 1);
        }
    }
    for (value, after) in [
        (year, b'-'),
        (month, b'-'),
        (day + 1, b'T'),
        (second / 3600, b':'),
        (second / 60 % 60, b':'),
    ] {
        number(value, if value > 99 { 4 } else { 2 }, put);
        put(&[after]);
    }
    number(second % 60, 2, put);
    let mut fraction = (time_ns % 1_000_000_000) as u32;
    if fraction > 0 {
        let mut digits = 9;
        while fraction.is_multiple_of(10) {
            fraction /= 10;
            digits -= 1;
        }
        put(b".");
        number(fraction, digits, put);
    }
    put(b"Z");
}

/// So many decimal digits, with zeros before.
#[inline(never)]
#[cfg_attr(not(test), unsafe(link_section = "lhshim"))]
fn number(mut value: u32, digits: usize, put: Put<'_>) {
    let mut text = [b'0'; 9];
    let text = text.get_mut(..digits).unwrap_or(&mut []);
    for slot in text.iter_mut().rev() {
        *slot = b'0' + (value % 10) as u8;
        value /= 10;
    }
    put(text);
}

#[cfg(all(test, feature = "engine"))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::logs::{Frame, FrameKind, LogStream, encode};

    fn written(make: fn(u8, i64, &[u8], Put<'_>), kind: u8, time_ns: i64, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        make(kind, time_ns, bytes, &mut |part| out.extend_from_slice(part));
        out
    }

    fn expected_json(stream: LogStream, time_ns: i64, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        crate::logs::encode_json(stream, time_ns, bytes, &mut out);
        out
    }

    proptest! {
        #[test]
        fn frames_are_those_of_the_library(err: bool, time_ns: i64, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let stream = if err { LogStream::Stderr } else { LogStream::Stdout };
            let mut expected = Vec::new();
            encode(&Frame { kind: FrameKind::Data(stream), time_ns, payload: &bytes }, &mut expected);
            prop_assert_eq!(written(frame, 1 + u8::from(err), time_ns, &bytes), expected);
        }

        #[test]
        fn lines_are_those_of_the_library(err: bool, time_ns in 0i64.., bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let stream = if err { LogStream::Stderr } else { LogStream::Stdout };
            prop_assert_eq!(written(json, 1 + u8::from(err), time_ns, &bytes), expected_json(stream, time_ns, &bytes));
        }

        #[test]
        fn text_is_that_of_the_library(text in "(\\PC|[\u{0}-\u{1f}\u{2027}-\u{202a}<>&\"\\\\]){0,80}", second in 0i64..8_000_000_000) {
            let time_ns = second * 1_000_000_000 + 120_000_000;
            prop_assert_eq!(written(json, 1, time_ns, text.as_bytes()), expected_json(LogStream::Stdout, time_ns, text.as_bytes()));
        }
    }

    #[test]
    fn the_end_is_that_of_the_library() {
        let mut expected = Vec::new();
        encode(
            &Frame {
                kind: FrameKind::End,
                time_ns: 7,
                payload: &[],
            },
            &mut expected,
        );
        assert_eq!(written(frame, END, 7, &[]), expected);
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for day in 0..60_000i64 {
            let time_ns = day * 86_400_000_000_000 + 1;
            assert_eq!(
                written(json, 2, time_ns, b"x"),
                expected_json(LogStream::Stderr, time_ns, b"x"),
                "{day}"
            );
        }
    }
}
