//! When to ask again, and how long to wait before.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::options::HttpOptions;
use crate::error::{Error, Result};

/// The attempts of one request.
#[derive(Debug)]
pub(super) struct Retry<'a> {
    options: &'a HttpOptions,
    made: u32,
}

impl<'a> Retry<'a> {
    pub(super) fn new(options: &'a HttpOptions) -> Self {
        Self { options, made: 1 }
    }

    /// Waits for the next attempt, or gives `error` back where there is none to make.
    pub(super) async fn again(&mut self, error: Error, asked: Option<Duration>) -> Result<()> {
        if self.made >= self.options.attempts || asked.is_some_and(|wait| wait > self.options.max_retry_wait) {
            return Err(error);
        }
        let wait = asked.unwrap_or_else(|| jitter(backoff(self.options, self.made)));
        self.made += 1;
        tracing::debug!(?wait, attempt = self.made, error = %error, "asking the registry again");
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// Whether a status may be gone at the next attempt.
pub(super) fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// What the registry asks for: seconds, or a date. Source: RFC 9110, section 10.2.3.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let date = OffsetDateTime::parse(&text.replace("GMT", "+0000"), &Rfc2822).ok()?;
    Some(SystemTime::from(date).duration_since(now).unwrap_or_default())
}

fn backoff(options: &HttpOptions, made: u32) -> Duration {
    let factor = 1u32 << made.saturating_sub(1).min(16);
    options
        .first_retry_wait
        .saturating_mul(factor)
        .min(options.max_retry_wait)
}

/// Between a half and the whole, so that many clients do not come back in step.
fn jitter(wait: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX);
    wait.mul_f64(0.5 + f64::from(random) / f64::from(u32::MAX) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())])
    }

    #[test]
    fn reads_seconds_and_dates() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(retry_after(&headers("120"), now), Some(Duration::from_secs(120)));
        assert_eq!(
            retry_after(&headers("Sun, 06 Nov 1994 08:50:37 GMT"), now),
            Some(Duration::from_secs(60))
        );
        assert_eq!(
            retry_after(&headers("Sun, 06 Nov 1994 08:00:00 GMT"), now),
            Some(Duration::ZERO)
        );
        for bad in ["", "soon", "-1", "99999999999999"] {
            assert_eq!(retry_after(&headers(bad), now), None, "{bad:?}");
        }
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let options = HttpOptions {
            first_retry_wait: Duration::from_secs(1),
            max_retry_wait: Duration::from_secs(5),
            ..HttpOptions::default()
        };
        let waits: Vec<u64> = (1..6).map(|made| backoff(&options, made).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
        assert_eq!(backoff(&options, u32::MAX).as_secs(), 5);
        let wait = jitter(Duration::from_secs(10));
        assert!(wait >= Duration::from_secs(5) && wait <= Duration::from_secs(10));
    }
}
