//! Networks of an engine that was built without them.

use serde_json::json;

use super::super::call::Call;
use super::super::filters;
use super::super::reply;
use super::super::router::{Answer, Route, routes};
use crate::error::{Error, ObjectKind};

/// Routes of networks.
pub(in crate::api) const ROUTES: &[Route] = routes! {
    GET "networks" => list;
    POST "networks/create" => unsupported;
    POST "networks/prune" => prune;
    GET "networks/{id}" => missing;
    DELETE "networks/{id}" => missing;
    POST "networks/{id}/connect" => unsupported;
    POST "networks/{id}/disconnect" => unsupported;
};

async fn list(call: Call) -> Answer {
    filters::read(&call.query)?;
    Ok(reply::ok(&json!([])))
}

async fn prune(call: Call) -> Answer {
    filters::read(&call.query)?;
    Ok(reply::ok(&json!({"NetworksDeleted": null})))
}

async fn missing(call: Call) -> Answer {
    Err(Error::not_found(ObjectKind::Network, call.name()).into())
}

async fn unsupported(_call: Call) -> Answer {
    Err(Error::unsupported("networks", "longshore with its feature `network`").into())
}
