//! `list`: containers as lists show them, with Docker's filters.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use regex_lite::{Regex, RegexBuilder};

use super::health::{Health, HealthStatus};
use super::local::Shared;
use super::record::{Record, time_of};
use super::state::ContainerState;
use super::sweep::Swept;
use super::{ContainerSummary, ListOptions};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::sys::order;
use crate::types::{Filter, ImageId, OwnerId};

/// Docker's, all of them. `health`, `expose`, `publish` and `volume` look at what a spec can say so far.
const KNOWN_FILTERS: [&str; 16] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
    "label!",
];

/// A filter that has been understood: what must be looked up once is.
struct Wanted<'a> {
    filter: &'a Filter,
    names: Vec<Regex>,
    exited: Vec<i32>,
    /// Ids of the images that `ancestor` names.
    ancestors: Vec<ImageId>,
    before_ns: Option<i64>,
    since_ns: Option<i64>,
}

impl Shared {
    pub(crate) async fn list(&self, options: &ListOptions) -> Result<Vec<ContainerSummary>> {
        let wanted = self.understand(&options.filter).await?;
        let rows = self.parts.store.call(|store| store.containers()).await?;
        let (mut found, mut living) = (Vec::new(), Vec::new());
        let now = SystemTime::now();
        found.reserve(rows.len());
        for mut record in self.listed.read(rows)? {
            // A record is large, and most of them need not go through there.
            if record.is_detached() {
                let Some(settled) = self.settled(Record::clone(&record)).await? else {
                    continue;
                };
                record = Arc::new(settled);
            }
            let up = record.state.is_alive() || record.state == ContainerState::Restarting;
            let shown = options.all || wanted.shows_all() || up;
            if shown && wanted.fits(&record) && !self.sweep_unless(&mut living, &record).await? {
                found.push(summary(&record, now));
            }
        }
        order::sort_by_key(&mut found, |found| std::cmp::Reverse(found.created));
        Ok(found)
    }

    /// As `sweep_if_dead`, with a look at each owner instead of one for each of its containers.
    async fn sweep_unless(&self, living: &mut Vec<OwnerId>, record: &Record) -> Result<bool> {
        let Some(owner) = record.owner.as_ref().filter(|owner| !living.contains(owner)) else {
            return Ok(false);
        };
        let swept = self.sweep(record).await?;
        if swept == Swept::Living {
            living.push(owner.clone());
        }
        Ok(swept == Swept::Gone)
    }

    async fn understand<'a>(&self, filter: &'a Filter) -> Result<Wanted<'a>> {
        if let Some(key) = filter.keys().find(|key| !KNOWN_FILTERS.contains(key)) {
            return Err(bad(format!(
                "invalid filter {key:?}; known are {}",
                KNOWN_FILTERS.join(", ")
            )));
        }
        check_words(filter)?;
        let names = filter.values("name").iter().map(|text| pattern(text));
        let code = |text: &String| {
            let number = || bad(format!("invalid filter exited={text}: a number is needed"));
            text.parse().map_err(|_| number())
        };
        let exited = filter.values("exited").iter().map(code);
        let mut ancestors = Vec::new();
        for name in filter.values("ancestor") {
            match self.parts.images.inspect(name).await {
                Ok(image) => ancestors.push(image.id),
                // It may be the name of an image that is gone.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidArgument) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Wanted {
            filter,
            names: names.collect::<Result<_>>()?,
            exited: exited.collect::<Result<_>>()?,
            ancestors,
            before_ns: self.created(filter.values("before")).await?.into_iter().min(),
            since_ns: self.created(filter.values("since")).await?.into_iter().max(),
        })
    }

    /// When containers were created.
    async fn created(&self, names: &[String]) -> Result<Vec<i64>> {
        let mut moments = Vec::new();
        for name in names {
            moments.push(self.find(name).await?.created_ns);
        }
        Ok(moments)
    }
}

fn bad(message: String) -> Error {
    Error::invalid(message).with_object(ObjectKind::Option, "filter")
}

/// Names are searched for with an expression, as in Docker. The engine of ours takes linear time, whatever the expression.
fn pattern(text: &str) -> Result<Regex> {
    let built = RegexBuilder::new(text).size_limit(1 << 20).build();
    built.map_err(|error| bad(format!("invalid filter name={text}: {error}")))
}

/// Values that only certain words can be.
fn check_words(filter: &Filter) -> Result<()> {
    const STATES: [&str; 7] = [
        "created",
        "restarting",
        "running",
        "removing",
        "paused",
        "exited",
        "dead",
    ];
    const HEALTH: [&str; 4] = ["starting", "healthy", "unhealthy", "none"];
    const TRUTH: [&str; 6] = ["true", "false", "1", "0", "True", "False"];
    for (key, known) in [("status", &STATES[..]), ("health", &HEALTH), ("is-task", &TRUTH)] {
        if let Some(value) = filter.values(key).iter().find(|value| !known.contains(&value.as_str())) {
            return Err(bad(format!(
                "invalid filter {key}={value}; known are {}",
                known.join(", ")
            )));
        }
    }
    for key in ["expose", "publish"] {
        let number = |value: &&String| !is_port(value);
        if let Some(value) = filter.values(key).iter().find(number) {
            return Err(bad(format!(
                "invalid filter {key}={value}: a port, a range, with /tcp, /udp or /sctp"
            )));
        }
    }
    Ok(())
}

/// `80`, `80/tcp`, `80-90/udp`.
fn is_port(text: &str) -> bool {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    matches!(protocol, "tcp" | "udp" | "sctp")
        && matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(first), Ok(last)) if first <= last)
}

impl Wanted<'_> {
    /// These look for containers that do not run.
    fn shows_all(&self) -> bool {
        ["status", "exited", "before", "since"]
            .iter()
            .any(|key| !self.filter.values(key).is_empty())
    }

    /// Values of one key are alternatives, except labels, which must all be there.
    fn fits(&self, record: &Record) -> bool {
        self.fits_identity(record) && self.fits_state(record) && self.fits_spec(record)
    }

    fn any(&self, key: &str, test: impl Fn(&str) -> bool) -> bool {
        let values = self.filter.values(key);
        values.is_empty() || values.iter().any(|value| test(value))
    }

    fn fits_identity(&self, record: &Record) -> bool {
        let slashed = format!("/{}", record.name);
        let named = |name: &Regex| name.is_match(record.name.as_str()) || name.is_match(&slashed);
        let image = &record.body.image_id;
        self.any("id", |value| record.id.as_str().starts_with(value))
            && (self.names.is_empty() || self.names.iter().any(named))
            && self.any("ancestor", |value| {
                record.body.spec.image == value || is_id(image, value) || self.ancestors.contains(image)
            })
    }

    fn fits_state(&self, record: &Record) -> bool {
        let code = record.body.exit.filter(|_| record.state == ContainerState::Exited);
        let exited = code.is_some_and(|exit| self.exited.contains(&exit.status.code()));
        self.any("status", |value| record.state.as_str() == value)
            && (self.exited.is_empty() || exited)
            && self.before_ns.is_none_or(|before| record.created_ns < before)
            && self.since_ns.is_none_or(|since| record.created_ns > since)
            && self.any("health", |value| health(record).map_or("none", HealthStatus::as_str) == value)
            // No container belongs to a swarm.
            && self.any("is-task", |value| matches!(value, "false" | "False" | "0"))
    }

    fn fits_spec(&self, record: &Record) -> bool {
        let (labels, spec) = (record.labels(), &record.body.spec);
        let has_label = |wanted: &String| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|known| known == value),
            None => labels.contains_key(wanted),
        };
        let network = spec.network.to_string();
        let mounted = |value: &str| {
            let is = |path: &std::path::Path| path == std::path::Path::new(value);
            spec.binds.iter().any(|bind| is(&bind.source) || is(&bind.target))
                || record.body.mounts.iter().any(|point| {
                    point.volume() == Some(value) || is(&point.spec.target) || point.source.as_deref().is_some_and(is)
                })
        };
        self.filter.values("label").iter().all(has_label)
            && !self.filter.values("label!").iter().any(has_label)
            && self.any("network", |value| value == network)
            && self.any("volume", mounted)
            // No container publishes or exposes a port yet.
            && self.any("expose", |_| false)
            && self.any("publish", |_| false)
            && self.any("isolation", |value| value == "default")
    }
}

fn is_id(id: &ImageId, value: &str) -> bool {
    let digits = value.strip_prefix("sha256:").unwrap_or(value);
    digits.len() >= 12 && id.hex().starts_with(digits)
}

fn summary(record: &Record, now: SystemTime) -> ContainerSummary {
    ContainerSummary {
        id: record.id.clone(),
        name: record.name.to_string(),
        image: record.body.spec.image.clone(),
        image_id: record.body.image_id,
        command: record.command(),
        created: time_of(record.created_ns),
        state: record.state,
        status: status(record, now),
        health: record.body.health.as_ref().map(Health::without_log),
        labels: record.labels(),
        network: record.body.spec.network.clone(),
        endpoints: record.body.endpoints.clone(),
        ports: record.body.ports.clone(),
        binds: record.body.spec.binds.clone(),
        mounts: record.body.mounts.clone(),
    }
}

/// Its health, where it has a check and was started.
fn health(record: &Record) -> Option<HealthStatus> {
    record.body.health.as_ref().map(|health| health.status)
}

/// Docker's STATUS column.
fn status(record: &Record, now: SystemTime) -> String {
    let since = |ns: Option<i64>| human(now.duration_since(time_of(ns.unwrap_or(0))).unwrap_or_default());
    match record.state {
        ContainerState::Created | ContainerState::Starting => "Created".into(),
        ContainerState::Running => {
            let up = format!("Up {}", since(record.body.started_ns));
            match health(record) {
                None => up,
                Some(HealthStatus::Starting) => format!("{up} (health: starting)"),
                Some(health) => format!("{up} ({health})"),
            }
        }
        ContainerState::Restarting => {
            let code = record.body.exit.map_or(255, |exit| exit.status.code());
            format!("Restarting ({code}) {} ago", since(record.body.finished_ns))
        }
        ContainerState::Paused => format!("Up {} (Paused)", since(record.body.started_ns)),
        ContainerState::Exited => {
            let code = record.body.exit.map_or(255, |exit| exit.status.code());
            format!("Exited ({code}) {} ago", since(record.body.finished_ns))
        }
        ContainerState::Removing => "Removal In Progress".into(),
    }
}

/// A length of time in Docker's words: the largest unit alone.
pub(crate) fn human(length: Duration) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_in_docker_s_words() {
        let cases = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (150, "2 minutes"),
            (3600, "About an hour"),
            (3600 * 47, "47 hours"),
            (3600 * 24 * 3, "3 days"),
            (3600 * 24 * 21, "3 weeks"),
            (3600 * 24 * 90, "3 months"),
            (3600 * 24 * 365 * 2, "2 years"),
        ];
        for (seconds, text) in cases {
            assert_eq!(human(Duration::from_secs(seconds)), text);
        }
    }
}
