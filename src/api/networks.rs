//! Networks: those there are can be looked at. Making them comes with bridges.

use serde_json::{Value, json};

use super::call::Call;
use super::error::Failure;
use super::fields::{self, Shape};
use super::filters;
use super::reply;
use super::router::{Answer, Route, routes};
use super::times;
use crate::error::{Error, ObjectKind};
use crate::types::Filter;

/// Routes of networks.
pub(super) const ROUTES: &[Route] = routes! {
    GET "networks" => list;
    POST "networks/create" => create;
    POST "networks/prune" => prune;
    GET "networks/{id}" => inspect;
    DELETE "networks/{id}" => remove;
    POST "networks/{id}/connect" => connect;
    POST "networks/{id}/disconnect" => connect;
};

/// What a network is, whatever an engine calls it.
#[cfg_attr(
    not(feature = "network"),
    allow(dead_code, reason = "without networks there is none")
)]
struct Network {
    name: String,
    driver: String,
}

#[cfg(feature = "network")]
async fn all(call: &Call) -> Result<Vec<Network>, Failure> {
    let found = call.engine.networks().list().await?;
    let networks = found.into_iter().map(|network| Network {
        name: network.name,
        driver: network.driver,
    });
    Ok(networks.collect())
}

#[cfg(not(feature = "network"))]
async fn all(_call: &Call) -> Result<Vec<Network>, Failure> {
    Ok(Vec::new())
}

async fn list(call: Call) -> Answer {
    let filter = filters::read(&call.query)?;
    check(&filter)?;
    let found = all(&call).await?;
    let lines = found.iter().filter(|network| matches(network, &filter)).map(|network| {
        let mut value = body(network);
        fields::fit(Shape::NetworkSummary, call.version, &mut value);
        value
    });
    Ok(reply::ok(&Value::Array(lines.collect())))
}

async fn inspect(call: Call) -> Answer {
    let found = all(&call).await?;
    let Some(network) = found.iter().find(|network| network.name == call.name()) else {
        return Err(Error::not_found(ObjectKind::Network, call.name()).into());
    };
    let mut value = body(network);
    // No address is given out in any of them.
    value["Status"] = json!({"IPAM": {}});
    fields::fit(Shape::Network, call.version, &mut value);
    Ok(reply::ok(&value))
}

fn check(filter: &Filter) -> Result<(), Failure> {
    const KNOWN: [&str; 7] = ["dangling", "driver", "id", "label", "name", "scope", "type"];
    match filter.keys().find(|key| !KNOWN.contains(key)) {
        None => Ok(()),
        Some(key) => Err(Failure::bad(format!("invalid filter '{key}'"))),
    }
}

fn matches(network: &Network, filter: &Filter) -> bool {
    let any = |key: &str, test: &dyn Fn(&str) -> bool| {
        let values = filter.values(key);
        values.is_empty() || values.iter().any(|value| test(value))
    };
    any("name", &|value| network.name.contains(value))
        && any("id", &|value| network.name.starts_with(value))
        && any("driver", &|value| network.driver == value)
        && any("scope", &|value| value == "local")
        && any("type", &|value| value == "builtin")
        && any("dangling", &|value| matches!(value, "false" | "0"))
        && filter.values("label").is_empty()
}

/// The union of all versions' shapes. Those there are have no id of their own.
fn body(network: &Network) -> Value {
    json!({
        "Name": network.name,
        "Id": network.name,
        "Created": times::NEVER,
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": true,
        "EnableIPv6": false,
        "IPAM": {"Driver": "default", "Options": null, "Config": []},
        "Internal": false,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": false,
        "Containers": {},
        "Options": {},
        "Labels": {},
    })
}

const NEEDS: &str = "a version of longshore with bridge networks";

async fn create(_call: Call) -> Answer {
    Err(Error::unsupported("making networks", NEEDS).into())
}

async fn connect(_call: Call) -> Answer {
    Err(Error::unsupported("connecting containers to networks", NEEDS).into())
}

async fn remove(call: Call) -> Answer {
    let found = all(&call).await?;
    if found.iter().any(|network| network.name == call.name()) {
        let message = format!("{} is a pre-defined network and cannot be removed", call.name());
        return Err(Failure::bad(message).status(hyper::StatusCode::FORBIDDEN));
    }
    Err(Error::not_found(ObjectKind::Network, call.name()).into())
}

/// None is unused that could be removed.
async fn prune(call: Call) -> Answer {
    filters::read(&call.query)?;
    Ok(reply::ok(&json!({"NetworksDeleted": null})))
}
