//! Values as Go prints them, in which the history of images is written.

use std::fmt::Write;
use std::time::Duration;

/// A string in quotes: `%q`.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if c < ' ' || c == '\x7f' => escape(&mut out, 'x', 2, c),
            c if c.is_control() || c.is_whitespace() && c != ' ' => escape(&mut out, 'u', 4, c),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn escape(out: &mut String, kind: char, width: usize, c: char) {
    // Writing to a string does not fail.
    let _ = write!(out, "\\{kind}{:0width$x}", u32::from(c));
}

/// A list of strings in quotes: `%q`.
pub(super) fn quoted_list(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|text| quoted(text)).collect();
    format!("[{}]", quoted.join(" "))
}

/// A list of strings: `%v`.
pub(super) fn list(list: &[String]) -> String {
    format!("[{}]", list.join(" "))
}

/// A duration: `1h0m1.5s`, `500ms`, `0s`.
pub(super) fn duration(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    let (unit, name) = match nanoseconds {
        0 => return "0s".to_owned(),
        1..1_000 => (1, "ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => return long(duration),
    };
    format!("{}{name}", decimal(nanoseconds, unit))
}

fn long(duration: Duration) -> String {
    let minutes = duration.as_secs() / 60;
    let seconds = decimal(
        duration.as_nanos() - u128::from(minutes) * 60_000_000_000,
        1_000_000_000,
    );
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// A fraction without zeros at its end.
fn decimal(value: u128, unit: u128) -> String {
    let whole = value / unit;
    if value.is_multiple_of(unit) {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let fraction = format!("{:0width$}", value % unit);
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_printed_as_go_does() {
        assert_eq!(
            quoted("a\"b\\\n\t\x01\x7fé\u{85}\u{a0}"),
            r#""a\"b\\\n\t\x01\x7fé\u0085\u00a0""#
        );
        for (nanoseconds, shown) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (500_000_000, "500ms"),
            (1_000_000_000, "1s"),
            (90_500_000_000, "1m30.5s"),
            (3_600_000_000_000, "1h0m0s"),
            (3_661_000_000_001, "1h1m1.000000001s"),
        ] {
            assert_eq!(duration(Duration::from_nanos(nanoseconds)), shown);
        }
    }
}
