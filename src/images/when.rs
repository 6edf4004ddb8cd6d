//! Moments as Docker's filters take them. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::{Error, Result};

/// A Go duration before `now` (`24h`, `1h30m`), a Unix time in seconds, or a date with or without a time, in UTC where it does
/// not say.
///
/// # Errors
/// `InvalidArgument` for anything else.
pub(super) fn moment(text: &str, now: SystemTime) -> Result<SystemTime> {
    let bad = || {
        Error::invalid(format!(
            "invalid time {text:?}: give a duration (24h), a date (2024-12-31T23:59:59Z) or Unix seconds"
        ))
    };
    if let Ok(seconds) = text.parse::<f64>() {
        let since = Duration::try_from_secs_f64(seconds).map_err(|_| bad())?;
        return UNIX_EPOCH.checked_add(since).ok_or_else(bad);
    }
    if let Some(ago) = duration(text) {
        return now.checked_sub(ago).ok_or_else(bad);
    }
    date(text).ok_or_else(bad)
}

/// A date of an image's config.
pub(super) fn date(text: &str) -> Option<SystemTime> {
    let parse = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    let shorter = ["Z", ":00Z", "T00:00:00Z"].map(|end| format!("{text}{end}"));
    let found = parse(text).or_else(|| shorter.iter().find_map(|text| parse(text)));
    found.map(SystemTime::from)
}

/// A Go duration: numbers with units. Source: `time.ParseDuration`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest.get(..digits)?.parse().ok()?;
        let after = rest.get(digits..)?;
        let letters = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let unit = match after.get(..letters)? {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * unit).ok()?)?;
        rest = after.get(letters..)?;
    }
    (!text.is_empty()).then_some(total)
}

/// A moment as configs have it.
pub(super) fn written(time: SystemTime) -> Result<String> {
    let text = OffsetDateTime::from(time).format(&Rfc3339);
    text.map_err(|error| Error::internal("a time that cannot be written").with_source(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_in_every_shape() {
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let at = |text: &str| moment(text, now).unwrap().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert_eq!((at("1h30m"), at("0s")), (1_700_000_000 - 5400, 1_700_000_000));
        assert_eq!((at("1600000000"), at("1600000000.5")), (1_600_000_000, 1_600_000_000));
        assert_eq!(at("2020-09-13T12:26:40Z"), 1_600_000_000);
        assert_eq!(at("2020-09-13T14:26:40+02:00"), 1_600_000_000);
        assert_eq!(
            (at("2020-09-13T12:26:40"), at("2020-09-13T12:26")),
            (1_600_000_000, 1_599_999_960)
        );
        assert_eq!(at("2020-09-13"), 1_599_955_200);
        for bad in ["", "soon", "1d", "h", "-5h", "NaN", "1e300", "2020-13-01"] {
            assert!(moment(bad, now).is_err(), "{bad:?}");
        }
    }
}
