//! Volumes: list, create, inspect, remove, prune.

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::call::Call;
use super::error::Failure;
use super::filters;
use super::object::Object;
use super::reply;
use super::router::{Answer, Route, routes};
use super::times;
use crate::types::{Filter, VolumeName};
use crate::volumes::{CreateVolume, RemoveVolumeOptions, VolumeInfo};

/// Routes of volumes.
pub(super) const ROUTES: &[Route] = routes! {
    GET "volumes" => list;
    POST "volumes/create" => create;
    POST "volumes/prune" => prune;
    GET "volumes/{name}" => inspect;
    DELETE "volumes/{name}" => remove;
};

async fn list(call: Call) -> Answer {
    let filter = known(&call, &["dangling", "driver", "label", "name"])?;
    let found = call.engine.volumes().list(filter).await?;
    let volumes: Vec<Value> = found.iter().map(body).collect();
    Ok(reply::ok(&json!({"Volumes": volumes, "Warnings": null})))
}

/// Refuses a filter that no volume could match.
fn known(call: &Call, keys: &[&str]) -> Result<Filter, Failure> {
    let filter = filters::read(&call.query)?;
    if let Some(key) = filter.keys().find(|key| !keys.contains(key)) {
        return Err(Failure::bad(format!("invalid filter '{key}'")));
    }
    Ok(filter)
}

/// A volume as Docker shows it.
pub(super) fn body(volume: &VolumeInfo) -> Value {
    let or_null = |map: &BTreeMap<String, String>| if map.is_empty() { Value::Null } else { json!(map) };
    json!({
        "Name": volume.name,
        "Driver": volume.driver,
        "Mountpoint": volume.mountpoint.clone().unwrap_or_default(),
        "CreatedAt": times::rfc3339(volume.created),
        "Labels": or_null(&volume.labels),
        "Options": or_null(&volume.options),
        "Scope": "local",
    })
}

async fn create(mut call: Call) -> Answer {
    let mut asked = Object::new("", call.object().await?);
    let name = asked.text("Name")?;
    if let Some(name) = &name
        && name.parse::<VolumeName>().is_err()
    {
        let message = format!(
            "create {name}: \"{name}\" includes invalid characters for a local volume name, only \
             \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
        );
        return Err(Failure::bad(message));
    }
    let request = CreateVolume {
        name,
        driver: asked.text("Driver")?,
        options: asked.take_or_default("DriverOpts")?,
        labels: asked.take_or_default("Labels")?,
    };
    asked.refuse(&[("ClusterVolumeSpec", "a swarm")])?;
    let made = call.engine.volumes().create(request).await?;
    Ok(reply::json(StatusCode::CREATED, &body(&made)))
}

async fn inspect(call: Call) -> Answer {
    let found = call.engine.volumes().inspect(call.name()).await?;
    Ok(reply::ok(&body(&found)))
}

async fn remove(call: Call) -> Answer {
    let options = match call.query.flag("force") {
        true => RemoveVolumeOptions::force(),
        false => RemoveVolumeOptions::default(),
    };
    call.engine.volumes().remove(call.name(), options).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

async fn prune(call: Call) -> Answer {
    let mut filter = known(&call, &["all", "label", "label!"])?;
    // Before 1.42 volumes with a name went too.
    if !call.version.at_least(42) {
        filter = filter.with("all", "true");
    }
    let pruned = call.engine.volumes().prune(filter).await?;
    Ok(reply::ok(
        &json!({"VolumesDeleted": pruned.removed, "SpaceReclaimed": pruned.reclaimed_bytes}),
    ))
}
