//! Restart policies: whether a container that has ended is started again, and when. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ObjectKind, Result};

/// The first pause before a restart; each is twice the one before. Source: moby, `restartmanager`.
pub(crate) const FIRST: Duration = Duration::from_millis(100);
/// The longest.
pub(crate) const LONGEST: Duration = Duration::from_secs(60);
/// Who ran as long as this begins with the first pause again.
pub(crate) const STEADY: Duration = Duration::from_secs(10);

/// Whether a container is started again when it has ended by itself, for as long as its engine is open. A container that was
/// stopped, or killed by SIGKILL or its stop signal, is not, until somebody starts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// However it ended.
    Always,
    /// However it ended. It differs from [`RestartPolicy::Always`] only where containers outlive their engine.
    UnlessStopped,
    /// When it did not end with status 0.
    OnFailure {
        /// At most so often in a row; `None` is no limit.
        max_retries: Option<u32>,
    },
}

impl RestartPolicy {
    /// Docker's word for it, without the number.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Always => "always",
            Self::UnlessStopped => "unless-stopped",
            Self::OnFailure { .. } => "on-failure",
        }
    }

    /// The number of restarts that a policy ends with; 0 is no limit. Docker's `MaximumRetryCount`.
    pub const fn max_retries(self) -> u32 {
        match self {
            Self::OnFailure {
                max_retries: Some(most),
            } => most,
            _ => 0,
        }
    }

    /// The policy of Docker's word and number.
    ///
    /// # Errors
    /// `InvalidArgument` for another word, and for a number where the policy has none.
    pub fn of(word: &str, max_retries: u32) -> Result<Self> {
        let bad = |message: String| Error::invalid(message).with_object(ObjectKind::Option, "restart");
        let policy = match word {
            "" | "no" => Self::No,
            "always" => Self::Always,
            "unless-stopped" => Self::UnlessStopped,
            "on-failure" => Self::OnFailure {
                max_retries: (max_retries > 0).then_some(max_retries),
            },
            other => {
                return Err(bad(format!(
                    "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or \
                     'unless-stopped'"
                )));
            }
        };
        if max_retries > 0 && policy.max_retries() == 0 {
            return Err(bad(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'".into(),
            ));
        }
        Ok(policy)
    }

    /// Whether a container that ended with this status, after so many restarts in a row, is started again.
    pub(crate) fn wants(self, status: i32, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::Always | Self::UnlessStopped => true,
            Self::OnFailure { max_retries } => status != 0 && max_retries.is_none_or(|most| restarts < most),
        }
    }
}

impl fmt::Display for RestartPolicy {
    /// As [`RestartPolicy::from_str`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        match self.max_retries() {
            0 => Ok(()),
            most => write!(f, ":{most}"),
        }
    }
}

impl FromStr for RestartPolicy {
    type Err = Error;

    /// The client's form: `no`, `always`, `unless-stopped`, `on-failure`, `on-failure:3`.
    fn from_str(text: &str) -> Result<Self> {
        let (word, most) = text.split_once(':').unwrap_or((text, "0"));
        let bad = |_| {
            Error::invalid(format!(
                "invalid restart policy {text:?}: the number of retries is no number"
            ))
            .with_object(ObjectKind::Option, "restart")
        };
        Self::of(word, most.parse().map_err(bad)?)
    }
}

/// The pause before the next restart: `last` was the one before it, `ran` how long the container ran since.
pub(crate) fn pause(last: Option<Duration>, ran: Duration) -> Duration {
    match last.filter(|_| ran < STEADY) {
        None => FIRST,
        Some(last) => (last * 2).min(LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g10_policies_in_docker_s_words() {
        for text in ["no", "always", "unless-stopped", "on-failure", "on-failure:3"] {
            assert_eq!(text.parse::<RestartPolicy>().unwrap().to_string(), text);
        }
        for bad in ["never", "always:3", "no:1", "on-failure:x", "on-failure:-1", ":3"] {
            assert!(bad.parse::<RestartPolicy>().is_err(), "{bad}");
        }
    }

    #[test]
    fn g10_who_is_started_again() {
        let on_failure = |max_retries| RestartPolicy::OnFailure { max_retries };
        for (policy, status, restarts, expected) in [
            (RestartPolicy::No, 1, 0, false),
            (RestartPolicy::Always, 0, 1000, true),
            (RestartPolicy::UnlessStopped, 0, 0, true),
            (on_failure(None), 1, 1000, true),
            (on_failure(None), 0, 0, false),
            (on_failure(Some(3)), 1, 2, true),
            (on_failure(Some(3)), 1, 3, false),
        ] {
            assert_eq!(policy.wants(status, restarts), expected, "{policy} {status} {restarts}");
        }
    }

    #[test]
    fn g10_pauses_grow_and_begin_anew() {
        let mut pauses = Vec::new();
        let mut last = None;
        for _ in 0..12 {
            last = Some(pause(last, Duration::ZERO));
            pauses.extend(last.map(|pause| pause.as_millis()));
        }
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[11], 60_000);
        assert_eq!(pause(last, Duration::from_secs(10)), FIRST);
    }
}
