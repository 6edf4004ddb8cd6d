//! Sizes and durations as Docker writes them.

use std::time::Duration;

/// A size: `64m`, `1.5GiB`, `512`. Steps of 1024, as everywhere in Docker where memory is meant.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let unit = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let number: f64 = text[..unit].parse().ok()?;
    let suffix = text[unit..].trim_start().to_ascii_lowercase();
    let power = match suffix.trim_end_matches('b').trim_end_matches('i') {
        "" if suffix.starts_with('i') => return None,
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let size = number * 1024_f64.powi(power);
    (size.is_finite() && size < 9e18).then_some(size as u64)
}

/// A duration of Go's: `1m30s`, `500ms`, `1.5h`. Negative ones are none.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut nanoseconds = 0_f64;
    if rest.is_empty() || text.len() > 64 {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        nanoseconds += number * unit(&rest[..end])?;
        rest = &rest[end..];
    }
    // Go's durations are 64-bit numbers of nanoseconds.
    (nanoseconds < i64::MAX as f64).then(|| Duration::from_nanos(nanoseconds.round() as u64))
}

fn unit(name: &str) -> Option<f64> {
    Some(match name {
        "ns" => 1.0,
        "us" | "µs" | "μs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3_600e9,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        for (text, size) in [
            ("64m", 64 << 20),
            ("1.5 GiB", 3 << 29),
            ("512", 512),
            ("2kb", 2048),
            ("7b", 7),
            ("1T", 1 << 40),
        ] {
            assert_eq!(bytes(text), Some(size), "{text}");
        }
        for bad in ["", "m", "-1", "1x", "1e5", "1ib", "9999999p", "1.2.3"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_are_gos() {
        for (text, milliseconds) in [
            ("30s", 30_000),
            ("1m30.5s", 90_500),
            ("0", 0),
            ("1h", 3_600_000),
            ("+5ms", 5),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in ["", "5", "s", "-1s", "1d", "1s5", ".s", "99999999999h"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
