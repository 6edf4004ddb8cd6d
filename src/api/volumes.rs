//! Volumes: none yet. Lists are empty, and the rest says so.

use serde_json::json;

use super::call::Call;
use super::error::Failure;
use super::filters;
use super::reply;
use super::router::{Answer, Route, routes};
use crate::error::{Error, ObjectKind};

/// Routes of volumes.
pub(super) const ROUTES: &[Route] = routes! {
    GET "volumes" => list;
    POST "volumes/create" => create;
    POST "volumes/prune" => prune;
    GET "volumes/{name}" => missing;
    DELETE "volumes/{name}" => missing;
};

async fn list(call: Call) -> Answer {
    known(&call, &["dangling", "driver", "label", "name"])?;
    Ok(reply::ok(&json!({"Volumes": [], "Warnings": null})))
}

/// Refuses a filter that no volume could match.
fn known(call: &Call, keys: &[&str]) -> Result<(), Failure> {
    match filters::read(&call.query)?.keys().find(|key| !keys.contains(key)) {
        None => Ok(()),
        Some(key) => Err(Failure::bad(format!("invalid filter '{key}'"))),
    }
}

async fn create(_call: Call) -> Answer {
    Err(Error::unsupported("making volumes", "a version of longshore with volumes").into())
}

async fn prune(call: Call) -> Answer {
    known(&call, &["all", "label", "label!"])?;
    Ok(reply::ok(&json!({"VolumesDeleted": [], "SpaceReclaimed": 0})))
}

async fn missing(call: Call) -> Answer {
    Err(Error::not_found(ObjectKind::Volume, call.name()).into())
}
