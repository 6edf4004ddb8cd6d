//! `containers/json`.

use serde_json::{Value, json};

use super::super::call::Call;
use super::super::fields::{self, Shape};
use super::super::filters;
use super::super::reply;
use super::super::router::Answer;
use super::super::times;
use crate::containers::{ContainerSummary, ListOptions, NetworkMode};

pub(super) async fn list(call: Call) -> Answer {
    let limit = call.query.parsed::<i64>("limit")?.unwrap_or(-1);
    let options = ListOptions {
        // A limit counts those that do not run too. Source: moby, `daemon/list.go`.
        all: call.query.flag("all") || limit > 0,
        filter: filters::read(&call.query)?,
    };
    let mut found = call.engine.containers().list(options).await?;
    if let Ok(limit @ 1..) = usize::try_from(limit) {
        found.truncate(limit);
    }
    let lines = found.iter().map(|line| {
        let mut value = summary(line);
        fields::fit(Shape::ContainerSummary, call.version, &mut value);
        value
    });
    Ok(reply::ok(&Value::Array(lines.collect())))
}

/// A command in one line, as Docker writes it: arguments with a space in single quotes.
fn command(words: &[String]) -> String {
    let quoted = |(at, word): (usize, &String)| match at > 0 && word.contains(' ') {
        true => format!("'{word}'"),
        false => word.clone(),
    };
    words.iter().enumerate().map(quoted).collect::<Vec<_>>().join(" ")
}

/// A line of the newest version.
pub(in crate::api) fn summary(line: &ContainerSummary) -> Value {
    json!({
        "Id": line.id.as_str(),
        "Names": [format!("/{}", line.name)],
        "Image": line.image,
        "ImageID": line.image_id.to_string(),
        "Command": command(&line.command),
        "Created": times::unix(line.created),
        "Ports": [],
        "Labels": line.labels,
        "State": line.state.as_str(),
        "Status": line.status,
        "HostConfig": {"NetworkMode": network(&line.network)},
        "Health": {"Status": "none", "FailingStreak": 0},
        "NetworkSettings": {"Networks": {}},
        "Mounts": [],
    })
}

/// Docker's word for a network.
pub(in crate::api) fn network(mode: &NetworkMode) -> &'static str {
    match mode {
        NetworkMode::None => "none",
        NetworkMode::Host => "host",
    }
}
