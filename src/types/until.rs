//! A moment as Docker's filters give it: so long ago (`10m`, `1h30m`), seconds since 1970 with a fraction, or a date.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::{Error, ObjectKind, Result};

const SECOND: i128 = 1_000_000_000;

/// The moment in nanoseconds since 1970. A date without a zone is in UTC.
pub(crate) fn parse(text: &str, now_ns: i64) -> Result<i64> {
    let length = length(text).map(|length| i128::from(now_ns) - length);
    let moment = length.or_else(|| stamp(text)).or_else(|| date(text));
    moment.and_then(|moment| i64::try_from(moment).ok()).ok_or_else(|| {
        let message = format!("invalid time {text:?}: 10m, 1h30m, 1700000000 or 2024-01-31T12:00:00Z");
        Error::invalid(message).with_object(ObjectKind::Option, "until")
    })
}

/// Go's durations: numbers with units, one after the other.
fn length(text: &str) -> Option<i128> {
    let mut rest = text;
    let mut total = 0i128;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        total = total.checked_add((number * unit) as i128)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

/// Seconds since 1970, with a fraction.
fn stamp(text: &str) -> Option<i128> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if seconds.is_empty() || !digits(seconds) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let fraction: i128 = format!("{fraction:0<9}").parse().ok()?;
    Some(seconds.parse::<i128>().ok()?.checked_mul(SECOND)? + fraction)
}

/// With what is missing: the seconds, the time of day, the zone.
fn date(text: &str) -> Option<i128> {
    let moment = ["", "Z", ":00Z", "T00:00:00Z"]
        .into_iter()
        .find_map(|rest| OffsetDateTime::parse(&format!("{text}{rest}"), &Rfc3339).ok());
    moment.map(OffsetDateTime::unix_timestamp_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_as_docker_reads_them() {
        let now = 1_700_000_000 * SECOND as i64;
        let ago = |seconds: i64| now - seconds * SECOND as i64;
        let cases = [
            ("10m", ago(600)),
            ("1h30m", ago(5400)),
            ("1.5s", now - 1_500_000_000),
            ("1600000000", 1_600_000_000 * SECOND as i64),
            ("1600000000.5", 1_600_000_000 * SECOND as i64 + 500_000_000),
            ("1970-01-02", 86_400 * SECOND as i64),
            ("1970-01-01T00:01", 60 * SECOND as i64),
            ("1970-01-01T01:00:00+01:00", 0),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text, now).unwrap(), expected, "{text}");
        }
        for bad in ["", "x", "10x", "-5m", "1.2.3", "99999999999999999999h"] {
            assert!(parse(bad, now).is_err(), "{bad}");
        }
    }
}
