//! `list`: containers as lists show them, with Docker's filters.

use std::time::{Duration, SystemTime};

use super::local::Shared;
use super::record::{Record, time_of};
use super::state::ContainerState;
use super::{ContainerSummary, ListOptions};
use crate::error::{Error, ObjectKind, Result};
use crate::types::Filter;

const KNOWN_FILTERS: [&str; 6] = ["id", "name", "label", "status", "ancestor", "exited"];

impl Shared {
    pub(crate) async fn list(&self, options: &ListOptions) -> Result<Vec<ContainerSummary>> {
        check(&options.filter)?;
        let rows = self.parts.store.call(|store| store.containers()).await?;
        let wants_status = !options.filter.values("status").is_empty() || !options.filter.values("exited").is_empty();
        let mut found = Vec::new();
        for row in rows {
            let record = Record::from_row(row)?;
            let shown = options.all || wants_status || record.state.is_alive();
            if shown && matches(&record, &options.filter) && !self.sweep_if_dead(&record).await? {
                found.push(summary(&record, SystemTime::now()));
            }
        }
        found.sort_by_key(|found| std::cmp::Reverse(found.created));
        Ok(found)
    }
}

fn check(filter: &Filter) -> Result<()> {
    match filter.keys().find(|key| !KNOWN_FILTERS.contains(key)) {
        None => Ok(()),
        Some(key) => Err(Error::invalid(format!(
            "invalid filter {key:?}; known are {}",
            KNOWN_FILTERS.join(", ")
        ))
        .with_object(ObjectKind::Option, "filter")),
    }
}

/// Values of one key are alternatives, except labels, which must all be there.
fn matches(record: &Record, filter: &Filter) -> bool {
    let any = |key: &str, test: &dyn Fn(&str) -> bool| {
        let values = filter.values(key);
        values.is_empty() || values.iter().any(|value| test(value))
    };
    let labels = record.labels();
    let has_label = |wanted: &String| match wanted.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|known| known == value),
        None => labels.contains_key(wanted),
    };
    any("id", &|value| record.id.as_str().starts_with(value))
        && any("name", &|value| {
            record.name.as_str().contains(value.trim_start_matches('/'))
        })
        && any("status", &|value| record.state.as_str() == value)
        && any("ancestor", &|value| {
            record.body.spec.image == value || is_id(&record.body.image_id, value)
        })
        && any("exited", &|value| {
            record
                .body
                .exit
                .is_some_and(|exit| value == exit.status.code().to_string())
        })
        && filter.values("label").iter().all(has_label)
}

fn is_id(id: &crate::types::ImageId, value: &str) -> bool {
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
        labels: record.labels(),
    }
}

/// Docker's STATUS column.
fn status(record: &Record, now: SystemTime) -> String {
    let since = |ns: Option<i64>| human(now.duration_since(time_of(ns.unwrap_or(0))).unwrap_or_default());
    match record.state {
        ContainerState::Created | ContainerState::Starting => "Created".into(),
        ContainerState::Running => format!("Up {}", since(record.body.started_ns)),
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
