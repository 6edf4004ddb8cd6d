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
            [byte @ (b'"' | b'\\'), ..] => {
                put(&[b'\\', *byte]);
                1
            }
            [b'\n', ..] => {
                put(b"\\n");
                1
            }
            [b'\r', ..] => {
                put(b"\\r");
                1
            }
            [byte, ..] => {
                put(b"\\u00");
                let half = |four: u8| HEX.get(usize::from(four)).copied().unwrap_or(b'0');
                put(&[half(byte >> 4), half(byte & 15)]);
                1
            }
            [] => return,
        };
        text = rest.get(length..).unwrap_or(&[]);
    }
    put(text);
}

/// RFC 3339 in UTC with as many digits of a second as it has. Source: Go, `time.RFC3339Nano`; the calendar is H. Hinnant's
/// `civil_from_days`.
#[inline(never)]
#[cfg_attr(not(test), unsafe(link_section = "lhshim"))]
fn stamp(time_ns: i64, put: Put<'_>) {
    let (seconds, nanoseconds) = (time_ns.div_euclid(1_000_000_000), time_ns.rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    for (value, digits, after) in [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (second / 3600, 2, b':'),
        (second / 60 % 60, 2, b':'),
    ] {
        number(value, digits, put);
        put(&[after]);
    }
    number(second % 60, 2, put);
    if nanoseconds > 0 {
        let (mut rest, mut digits) = (nanoseconds, 9);
        while rest % 10 == 0 {
            rest /= 10;
            digits -= 1;
        }
        put(b".");
        number(rest, digits, put);
    }
    put(b"Z");
}

/// So many decimal digits, with zeros before.
#[inline(never)]
#[cfg_attr(not(test), unsafe(link_section = "lhshim"))]
fn number(mut value: i64, digits: usize, put: Put<'_>) {
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
