//! `containers/json`.

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::super::call::Call;
use super::super::error::Failure;
use super::super::fields::{self, Shape};
use super::super::filters;
use super::super::images;
use super::super::reply;
use super::super::router::Answer;
use super::super::times;
use super::inspect::endpoint;
use super::mounts;
use crate::containers::{ContainerSummary, ListOptions, NetworkMode};
use crate::system::ContainerUsage;
use crate::types::{ContainerId, ImageId};

pub(super) async fn list(call: Call) -> Answer {
    let limit = call.query.parsed::<i64>("limit")?.unwrap_or(-1);
    let options = ListOptions {
        // A limit counts those that do not run too. Source: moby, `daemon/list.go`.
        all: call.query.flag("all") || limit > 0,
        filter: filters::read(&call.query)?,
    };
    let sizes = match call.query.flag("size") {
        true => call.engine.system().disk_usage().await?.containers,
        false => Vec::new(),
    };
    let mut found = call.engine.containers().list(options).await?;
    if let Ok(limit @ 1..) = usize::try_from(limit) {
        found.truncate(limit);
    }
    let manifests = manifests(&call, &found).await?;
    let lines = found.iter().map(|line| {
        let mut value = summary(line);
        add_sizes(&mut value, &line.id, &sizes);
        add_manifest(&mut value, &manifests, &line.image_id);
        fields::fit(Shape::ContainerSummary, call.version, &mut value);
        value
    });
    Ok(reply::ok(&Value::Array(lines.collect())))
}

/// The manifest of each image that is in use, for versions that show it. One that was removed by force has none any more.
async fn manifests(call: &Call, lines: &[ContainerSummary]) -> Result<BTreeMap<ImageId, Value>, Failure> {
    let mut found = BTreeMap::new();
    for line in lines.iter().filter(|_| call.version.at_least(48)) {
        if found.contains_key(&line.image_id) {
            continue;
        }
        let image = match images::known(call, &line.image_id).await {
            // An engine of containers alone says nothing of images.
            Err(failure) if failure.status == StatusCode::NOT_IMPLEMENTED => None,
            image => image?,
        };
        if let Some(image) = image {
            found.insert(line.image_id, images::manifest_of(&image));
        }
    }
    Ok(found)
}

fn add_manifest(value: &mut Value, manifests: &BTreeMap<ImageId, Value>, image: &ImageId) {
    if let Some(manifest) = manifests.get(image) {
        value["ImageManifestDescriptor"] = manifest.clone();
    }
}

/// What a container takes on disk, where it was counted.
pub(in crate::api) fn add_sizes(value: &mut Value, id: &ContainerId, counted: &[ContainerUsage]) {
    let Some(found) = counted.iter().find(|known| known.id == *id) else {
        return;
    };
    value["SizeRootFs"] = json!(found.total_bytes);
    // Docker's lists leave zeros out.
    if found.writable_bytes > 0 {
        value["SizeRw"] = json!(found.writable_bytes);
    }
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
        "HostConfig": {"NetworkMode": line.network.to_string()},
        "Health": {
            "Status": line.health.as_ref().map_or("none", |health| health.status.as_str()),
            "FailingStreak": line.health.as_ref().map_or(0, |health| health.failing_streak),
        },
        "NetworkSettings": {"Networks": networks(&line.network)},
        "Mounts": mounts::shown(&line.binds, &line.mounts),
    })
}

/// The networks that a container is in itself: none where it is in another's.
pub(super) fn networks(mode: &NetworkMode) -> Value {
    match mode {
        NetworkMode::Container(_) => json!({}),
        mode => json!({mode.to_string(): endpoint()}),
    }
}
