//! Times as people read them.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Go's zero time, which Docker shows for "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

/// How long ago something was, in Docker's words: `3 minutes ago`.
pub fn ago(when: SystemTime) -> String {
    let length = SystemTime::now().duration_since(when).unwrap_or_default();
    format!("{} ago", length_of(length))
}

/// [`ago`] for a time in RFC 3339, `N/A` for none.
pub fn ago_of(when: Option<&str>) -> String {
    let when = when.and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    when.map_or_else(|| "N/A".into(), |when| ago(when.into()))
}

/// A length of time in Docker's words: the largest unit alone.
fn length_of(length: Duration) -> String {
    let seconds = length.as_secs();
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second".into(),
        () if seconds == 1 => "1 second".into(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 14 => format!("{} days", hours / 24),
        () if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 730 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

/// A point in time in RFC 3339, UTC.
pub fn timestamp(when: SystemTime) -> String {
    OffsetDateTime::from(when)
        .format(&Rfc3339)
        .unwrap_or_else(|_| NEVER.into())
}

/// Nanoseconds since 1970, as queries take them.
pub fn nanoseconds(when: SystemTime) -> i64 {
    let since = when.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Nanoseconds since 1970 in RFC 3339, UTC, to the last digit.
pub fn precise(ns: i64) -> String {
    let (seconds, nanoseconds) = (ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000));
    let Ok(when) = OffsetDateTime::from_unix_timestamp(seconds).map(|when| when.format(&Rfc3339)) else {
        return NEVER.into();
    };
    let text = when.unwrap_or_else(|_| NEVER.into());
    format!("{}.{nanoseconds:09}Z", text.trim_end_matches('Z'))
}

/// A point in time in RFC 3339, or Go's zero time for what has not happened.
pub fn timestamp_or_never(when: Option<SystemTime>) -> String {
    when.map_or_else(|| NEVER.into(), timestamp)
}

/// A point in time as `--since` and `--until` take it: RFC 3339, seconds since 1970, or a length of time ago (`10m`, `1h30m`).
pub fn parse_time(text: &str) -> Result<SystemTime, String> {
    if let Ok(when) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(when.into());
    }
    let bad =
        || format!("invalid time {text:?} (2026-01-31T12:00:00Z, seconds since 1970, or a length of time such as 10m)");
    let when = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds)
            .ok()
            .and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since)),
        Err(_) => parse_length(text).and_then(|length| SystemTime::now().checked_sub(length)),
    };
    when.ok_or_else(bad)
}

/// Go's lengths of time: `1h30m`, `2.5s`.
fn parse_length(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let seconds = match &tail[..unit] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let length = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        total = total.checked_add(length)?;
        rest = &tail[unit..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_in_docker_s_words() {
        let cases = [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (90, "About a minute"),
            (150, "2 minutes"),
            (5400, "2 hours"),
            (260_000, "3 days"),
        ];
        for (seconds, text) in cases {
            assert_eq!(length_of(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn times_in_every_form() {
        let epoch = SystemTime::UNIX_EPOCH;
        assert_eq!(parse_time("1970-01-01T00:01:00Z"), Ok(epoch + Duration::from_secs(60)));
        assert_eq!(parse_time("60.5"), Ok(epoch + Duration::from_millis(60_500)));
        let ago = SystemTime::now().duration_since(parse_time("1h30m").unwrap()).unwrap();
        assert!((5399..5405).contains(&ago.as_secs()), "{ago:?}");
        for bad in ["", "x", "5x", "m", "-1", "1e400", "1h-3m"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn timestamps() {
        assert_eq!(timestamp(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp_or_never(None), NEVER);
        assert_eq!((ago_of(None), ago_of(Some("x"))), ("N/A".into(), "N/A".into()));
        assert!(ago_of(Some("1970-01-01T00:00:00Z")).ends_with("years ago"));
    }
}
