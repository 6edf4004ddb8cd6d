//! Health checks: what is asked for, what is known of a container's health, and how a probe changes that. Pure.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ObjectKind, Result};
use crate::images::HealthConfig;

/// Docker's defaults. Source: moby, `daemon/health.go`.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;
/// The shortest time that may be asked for.
const SHORTEST: Duration = Duration::from_millis(1);
/// How many probes are remembered, and how much of what each printed.
const KEPT: usize = 5;
pub(crate) const OUTPUT: usize = 4096;

/// How to see whether a container is well. What is not given is as the image says, or else Docker's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HealthCheck {
    /// What is run.
    pub probe: Probe,
    /// Time between probes; default 30 seconds.
    pub interval: Option<Duration>,
    /// Time that a probe may take before it is killed and has failed; default 30 seconds.
    pub timeout: Option<Duration>,
    /// Time after the start in which failures do not count; default none.
    pub start_period: Option<Duration>,
    /// Time between probes within the start period, until the first that succeeds; default 5 seconds.
    pub start_interval: Option<Duration>,
    /// So many failures in a row, and the container is unhealthy; default 3.
    pub retries: Option<u32>,
}

/// What is run to see whether a container is well: with status 0 it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Probe {
    /// What the image says, if it says something.
    #[default]
    Inherit,
    /// Nothing, whatever the image says. Docker's `NONE`.
    Disabled,
    /// A program and its arguments. Docker's `CMD`.
    Command(Vec<String>),
    /// A line for the image's shell, `/bin/sh -c` if it names none. Docker's `CMD-SHELL`.
    Shell(String),
}

/// What happens to a container that becomes unhealthy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum OnUnhealthy {
    /// Nothing but the event.
    #[default]
    Nothing,
    /// It is stopped and started again, once each time that it becomes unhealthy.
    Restart,
    /// It is stopped.
    Stop,
    /// It is killed; a restart policy then does what it says.
    Kill,
}

/// A container's health in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum HealthStatus {
    /// No probe has succeeded yet, and not enough have failed.
    Starting,
    /// The last probe that counted succeeded.
    Healthy,
    /// Too many failed in a row, or the container does not run.
    Unhealthy,
}

/// What is known of a container's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Health {
    /// In a word.
    pub status: HealthStatus,
    /// How many probes in a row have failed.
    pub failing_streak: u32,
    /// The last five probes, the oldest first.
    pub log: VecDeque<ProbeResult>,
}

/// How a probe went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProbeResult {
    /// When it began.
    pub start: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// Its status; -1 if it took too long, or could not be run.
    pub exit_code: i32,
    /// The first 4096 bytes of what it printed, or why it has no status.
    pub output: String,
}

/// A check with nothing left open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) command: Vec<String>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) start_period: Duration,
    pub(crate) start_interval: Duration,
    pub(crate) retries: u32,
}

impl HealthCheck {
    /// Runs a program.
    pub fn command<S: Into<String>>(command: impl IntoIterator<Item = S>) -> Self {
        Self::of(Probe::Command(command.into_iter().map(Into::into).collect()))
    }

    /// Runs a line in the image's shell.
    pub fn shell(line: impl Into<String>) -> Self {
        Self::of(Probe::Shell(line.into()))
    }

    /// Runs nothing, whatever the image says.
    pub fn disabled() -> Self {
        Self::of(Probe::Disabled)
    }

    fn of(probe: Probe) -> Self {
        Self {
            probe,
            ..Self::default()
        }
    }

    /// Sets the time between probes.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// Sets how long a probe may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets for how long after the start failures do not count.
    #[must_use]
    pub fn start_period(mut self, period: Duration) -> Self {
        self.start_period = Some(period);
        self
    }

    /// Sets the time between probes within the start period.
    #[must_use]
    pub fn start_interval(mut self, interval: Duration) -> Self {
        self.start_interval = Some(interval);
        self
    }

    /// Sets how many failures in a row make it unhealthy.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = Some(retries);
        self
    }

    /// Docker's form, as the API and configs of images have it.
    ///
    /// # Errors
    /// `InvalidArgument` for a word that is none of Docker's, a test without a command, and a time below zero.
    pub fn from_config(config: &HealthConfig) -> Result<Self> {
        let probe = match config.test.split_first() {
            None => Probe::Inherit,
            Some((word, _)) if word.is_empty() => Probe::Inherit,
            Some((word, _)) if word == "NONE" => Probe::Disabled,
            Some((word, rest)) if word == "CMD" => Probe::Command(rest.to_vec()),
            Some((word, [line])) if word == "CMD-SHELL" => Probe::Shell(line.clone()),
            Some((word, _)) if word == "CMD-SHELL" => return Err(bad("CMD-SHELL takes one line")),
            Some((word, _)) => return Err(bad(format!("unknown type {word:?}: NONE, CMD or CMD-SHELL"))),
        };
        let retries = u32::try_from(config.retries).map_err(|_| bad("Retries cannot be negative"))?;
        Ok(Self {
            probe,
            interval: time("Interval", config.interval_ns)?,
            timeout: time("Timeout", config.timeout_ns)?,
            start_period: time("StartPeriod", config.start_period_ns)?,
            start_interval: time("StartInterval", config.start_interval_ns)?,
            retries: (retries > 0).then_some(retries),
        })
    }

    /// Docker's form.
    pub fn to_config(&self) -> HealthConfig {
        let ns = |time: Option<Duration>| time.map_or(0, |time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX));
        let words = |first: &str, rest: &[String]| {
            let first = std::iter::once(first.to_owned());
            first.chain(rest.iter().cloned()).collect()
        };
        HealthConfig {
            test: match &self.probe {
                Probe::Inherit => Vec::new(),
                Probe::Disabled => words("NONE", &[]),
                Probe::Command(command) => words("CMD", command),
                Probe::Shell(line) => words("CMD-SHELL", std::slice::from_ref(line)),
            },
            interval_ns: ns(self.interval),
            timeout_ns: ns(self.timeout),
            start_period_ns: ns(self.start_period),
            start_interval_ns: ns(self.start_interval),
            retries: self.retries.map_or(0, i64::from),
        }
    }

    /// What is asked for, and where that is silent what the image says.
    pub(crate) fn over(mut self, image: Option<&HealthConfig>) -> Self {
        // An image whose check makes no sense has none, as with Docker.
        let Some(under) = image.and_then(|config| Self::from_config(config).ok()) else {
            return self;
        };
        if self.probe == Probe::Inherit {
            self.probe = under.probe;
        }
        self.interval = self.interval.or(under.interval);
        self.timeout = self.timeout.or(under.timeout);
        self.start_period = self.start_period.or(under.start_period);
        self.start_interval = self.start_interval.or(under.start_interval);
        self.retries = self.retries.or(under.retries);
        self
    }

    /// Refuses what can never work.
    pub(crate) fn validate(&self) -> Result<()> {
        match &self.probe {
            Probe::Command(command) if command.first().is_none_or(String::is_empty) => {
                return Err(bad("no program is named"));
            }
            Probe::Shell(line) if line.is_empty() => return Err(bad("the line for the shell is empty")),
            _ => {}
        }
        let times = [
            ("Interval", self.interval),
            ("Timeout", self.timeout),
            ("StartPeriod", self.start_period),
            ("StartInterval", self.start_interval),
        ];
        for (name, time) in times {
            if time.is_some_and(|time| !time.is_zero() && time < SHORTEST) {
                return Err(bad(format!("{name} cannot be less than 1ms")));
            }
        }
        Ok(())
    }

    /// What to run and when, if there is something to run.
    pub(crate) fn plan(&self, shell: &[String]) -> Option<Plan> {
        let command = match &self.probe {
            Probe::Inherit | Probe::Disabled => return None,
            Probe::Command(command) => command.clone(),
            Probe::Shell(line) => {
                let usual = ["/bin/sh".to_owned(), "-c".to_owned()];
                let shell = if shell.is_empty() { &usual[..] } else { shell };
                shell.iter().chain([line]).cloned().collect()
            }
        };
        let or = |time: Option<Duration>, usual| time.filter(|time| !time.is_zero()).unwrap_or(usual);
        Some(Plan {
            command,
            interval: or(self.interval, INTERVAL),
            timeout: or(self.timeout, TIMEOUT),
            start_period: self.start_period.unwrap_or_default(),
            start_interval: or(self.start_interval, START_INTERVAL),
            retries: self.retries.filter(|retries| *retries > 0).unwrap_or(RETRIES),
        })
    }
}

fn bad(why: impl fmt::Display) -> Error {
    Error::invalid(format!("invalid health check: {why}")).with_object(ObjectKind::Option, "health")
}

fn time(name: &str, ns: i64) -> Result<Option<Duration>> {
    let ns = u64::try_from(ns).map_err(|_| bad(format!("{name} cannot be negative")))?;
    Ok((ns > 0).then(|| Duration::from_nanos(ns)))
}

/// What is said of a probe that took too long.
pub(crate) fn overran(limit: Duration) -> String {
    format!("Health check exceeded timeout ({limit:?})")
}

impl HealthStatus {
    /// Docker's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl fmt::Display for HealthStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for OnUnhealthy {
    type Err = Error;

    /// Podman's words: `none`, `restart`, `stop`, `kill`.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "none" => Ok(Self::Nothing),
            "restart" => Ok(Self::Restart),
            "stop" => Ok(Self::Stop),
            "kill" => Ok(Self::Kill),
            other => Err(bad(format!("unknown action {other:?}: none, restart, stop or kill"))),
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self {
            status: HealthStatus::Starting,
            failing_streak: 0,
            log: VecDeque::new(),
        }
    }
}

impl Health {
    /// A copy for lists.
    pub(crate) fn without_log(&self) -> Self {
        Self {
            status: self.status,
            failing_streak: self.failing_streak,
            log: VecDeque::new(),
        }
    }

    /// Takes a probe's result in. `counts`: a failure is no longer one of the start period. Says whether the status changed.
    pub(crate) fn take(&mut self, result: ProbeResult, counts: bool, retries: u32) -> bool {
        let before = self.status;
        if result.exit_code == 0 {
            self.failing_streak = 0;
            self.status = HealthStatus::Healthy;
        } else if counts || self.status != HealthStatus::Starting {
            self.failing_streak = self.failing_streak.saturating_add(1);
            if self.failing_streak >= retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
        self.log.push_back(result);
        while self.log.len() > KEPT {
            self.log.pop_front();
        }
        self.status != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(exit_code: i32) -> ProbeResult {
        ProbeResult {
            start: SystemTime::UNIX_EPOCH,
            end: SystemTime::UNIX_EPOCH,
            exit_code,
            output: String::new(),
        }
    }

    #[test]
    fn g11_failures_in_a_row_count_after_the_start_period() {
        let mut health = Health::default();
        assert!(!health.take(result(1), false, 2));
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Starting, 0));
        assert!(!health.take(result(1), true, 2));
        assert!(health.take(result(-1), true, 2));
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Unhealthy, 2));
        assert!(health.take(result(0), false, 2));
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Healthy, 0));
        // Who was healthy once has no start period any more.
        assert!(!health.take(result(1), false, 2));
        assert_eq!(health.failing_streak, 1);
        for _ in 0..10 {
            health.take(result(0), true, 2);
        }
        assert_eq!(health.log.len(), KEPT);
    }

    #[test]
    fn g11_what_is_not_asked_for_is_the_image_s() {
        let image = HealthConfig {
            test: vec!["CMD-SHELL".into(), "true".into()],
            interval_ns: 1_000_000_000,
            ..HealthConfig::default()
        };
        let inherited = HealthCheck::default().retries(7).over(Some(&image));
        let plan = inherited.plan(&[]).unwrap();
        assert_eq!(plan.command, ["/bin/sh", "-c", "true"]);
        assert_eq!(
            (plan.interval, plan.timeout, plan.retries),
            (Duration::from_secs(1), TIMEOUT, 7)
        );
        assert_eq!(
            inherited.plan(&["/bin/bash".into(), "-c".into()]).unwrap().command[0],
            "/bin/bash"
        );
        assert_eq!(HealthCheck::disabled().over(Some(&image)).plan(&[]), None);
        assert_eq!(HealthCheck::default().over(None).plan(&[]), None);
        let own = HealthCheck::command(["a"]).over(Some(&image)).plan(&[]).unwrap();
        assert_eq!(own.command, ["a"]);
    }

    #[test]
    fn g11_docker_s_form_and_back() {
        let check = HealthCheck::command(["a", "b"])
            .interval(Duration::from_secs(1))
            .timeout(Duration::from_secs(2))
            .start_period(Duration::from_secs(3))
            .start_interval(Duration::from_secs(4))
            .retries(5);
        assert_eq!(HealthCheck::from_config(&check.to_config()).unwrap(), check);
        for test in [vec!["WHAT"], vec!["CMD-SHELL"], vec!["CMD-SHELL", "a", "b"]] {
            let config = HealthConfig {
                test: test.iter().map(|word| (*word).to_owned()).collect(),
                ..HealthConfig::default()
            };
            assert!(HealthCheck::from_config(&config).is_err(), "{test:?}");
        }
        let negative = HealthConfig {
            interval_ns: -1,
            ..HealthConfig::default()
        };
        assert!(HealthCheck::from_config(&negative).is_err());
        let refused = [
            HealthCheck::command::<&str>([]),
            HealthCheck::shell(""),
            HealthCheck::shell("true").interval(Duration::from_nanos(1)),
        ];
        for check in refused {
            assert!(check.validate().is_err(), "{check:?}");
        }
    }
}
