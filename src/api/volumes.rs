//! Volumes: none yet. Lists are empty, and the rest says so.

use serde_json::json;

use super::call::Call;
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
    filters::read(&call.query)?;
    Ok(reply::ok(&json!({"Volumes": [], "Warnings": null})))
}

async fn create(_call: Call) -> Answer {
    Err(Error::unsupported("making volumes", "a version of longshore with volumes").into())
}

async fn prune(call: Call) -> Answer {
    filters::read(&call.query)?;
    Ok(reply::ok(&json!({"VolumesDeleted": [], "SpaceReclaimed": 0})))
}

async fn missing(call: Call) -> Answer {
    Err(Error::not_found(ObjectKind::Volume, call.name()).into())
}
