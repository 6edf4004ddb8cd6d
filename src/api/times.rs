//! Points in time, as Go writes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Go's time without a value.
pub(super) const NEVER: &str = "0001-01-01T00:00:00Z";

/// `2024-01-31T12:00:00.123456789Z`, without trailing zeros.
pub(super) fn rfc3339(at: SystemTime) -> String {
    let text = OffsetDateTime::from(at).format(&Rfc3339);
    text.unwrap_or_else(|_| NEVER.to_owned())
}

/// As [`rfc3339`], or Go's time without a value.
pub(super) fn or_never(at: Option<SystemTime>) -> String {
    at.map_or_else(|| NEVER.to_owned(), rfc3339)
}

/// Seconds since the epoch.
pub(super) fn unix(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Reads what clients send for a point in time: seconds since the epoch with an optional fraction, RFC 3339, or a length
/// of time before now as Go writes it (`10m`, `1h30m`). In nanoseconds since the epoch.
pub(super) fn parse(text: &str, now: SystemTime) -> Option<i64> {
    seconds(text).or_else(|| date(text)).or_else(|| {
        let at = now.checked_sub(go_duration(text)?)?;
        i64::try_from(at.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
    })
}

fn seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let sign = if text.starts_with('-') { -1 } else { 1 };
    whole.checked_mul(1_000_000_000)?.checked_add(sign * nanos)
}

fn date(text: &str) -> Option<i64> {
    let with_zone = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    let at = with_zone(text)
        .or_else(|| with_zone(&format!("{text}Z")))
        .or_else(|| with_zone(&format!("{text}:00Z")))
        .or_else(|| with_zone(&format!("{text}T00:00:00Z")))?;
    i64::try_from(at.unix_timestamp_nanos()).ok()
}

fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at_checked(digits)?;
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(unit)?;
        let unit_seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let length = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit_seconds).ok()?;
        total = total.checked_add(length)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_go_writes_them() {
        let at = UNIX_EPOCH + Duration::new(1_700_000_000, 120_000_000);
        assert_eq!(rfc3339(at), "2023-11-14T22:13:20.12Z");
        assert_eq!(or_never(None), NEVER);
    }

    #[test]
    fn times_as_clients_send_them() {
        let now = UNIX_EPOCH + Duration::from_secs(10_000);
        let second = 1_000_000_000;
        for (text, nanos) in [
            ("0", 0),
            ("12", 12 * second),
            ("12.5", 12 * second + second / 2),
            ("1700000000.000000001", 1_700_000_000 * second + 1),
            ("2023-11-14T22:13:20Z", 1_700_000_000 * second),
            ("2023-11-14T22:13:20.5+00:00", 1_700_000_000 * second + second / 2),
            ("2023-11-14T22:13:20", 1_700_000_000 * second),
            ("10m", 9_400 * second),
            ("1h30m", 4_600 * second),
        ] {
            assert_eq!(parse(text, now), Some(nanos), "{text}");
        }
        for bad in ["", "x", "1x", "-", "99999999999999999999"] {
            assert_eq!(parse(bad, now), None, "{bad}");
        }
    }
}
