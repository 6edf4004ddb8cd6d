//! The routes of networks.

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::call::Call;
use super::super::error::Failure;
use super::super::fields::{self, Shape};
use super::super::filters;
use super::super::object::Object;
use super::super::reply;
use super::super::router::{Answer, Route, routes};
use super::shape;
use crate::error::{Error, ErrorKind, ObjectKind};
use crate::networks::{AddressPool, NetworkInfo, NetworkSpec, Subnet};
use crate::types::Filter;

/// Routes of networks.
pub(in crate::api) const ROUTES: &[Route] = routes! {
    GET "networks" => list;
    POST "networks/create" => create;
    POST "networks/prune" => prune;
    GET "networks/{id}" => inspect;
    DELETE "networks/{id}" => remove;
    POST "networks/{id}/connect" => connect;
    POST "networks/{id}/disconnect" => disconnect;
};

async fn list(call: Call) -> Answer {
    let filter = filters::read(&call.query)?;
    check(&filter, &["dangling", "driver", "id", "label", "name", "scope", "type"])?;
    let found = call.engine.networks().list().await?;
    let lines = found.iter().filter(|network| matches(network, &filter)).map(|network| {
        let mut value = shape::body(network);
        // Lists have not told who is there since 1.28, though the field stayed.
        if call.version.at_least(28) {
            value["Containers"] = json!({});
        }
        fields::fit(Shape::NetworkSummary, call.version, &mut value);
        value
    });
    Ok(reply::ok(&Value::Array(lines.collect())))
}

async fn inspect(call: Call) -> Answer {
    let network = call.engine.networks().inspect(call.name()).await?;
    let mut value = shape::body(&network);
    value["Status"] = shape::status(&network);
    fields::fit(Shape::Network, call.version, &mut value);
    Ok(reply::ok(&value))
}

fn check(filter: &Filter, known: &[&str]) -> Result<(), Failure> {
    match filter.keys().find(|key| !known.contains(key)) {
        None => Ok(()),
        Some(key) => {
            let error = Error::invalid(format!("invalid filter '{key}'"));
            Err(error.with_object(ObjectKind::Option, "filters").into())
        }
    }
}

fn matches(network: &NetworkInfo, filter: &Filter) -> bool {
    let any = |key: &str, test: &dyn Fn(&str) -> bool| {
        let values = filter.values(key);
        values.is_empty() || values.iter().any(|value| test(value))
    };
    let id = shape::id(network);
    let kind = if network.is_predefined() { "builtin" } else { "custom" };
    let dangling = !network.is_predefined() && network.containers.is_empty();
    any("name", &|value| network.name.contains(value))
        && any("id", &|value| id.starts_with(value))
        && any("driver", &|value| network.driver == value)
        && any("scope", &|value| value == "local")
        && any("type", &|value| value == kind)
        && any("dangling", &|value| matches!(value, "true" | "1") == dangling)
        && filter.values("label").iter().all(|label| match label.split_once('=') {
            Some((name, value)) => network.spec.labels.get(name).is_some_and(|own| own == value),
            None => network.spec.labels.contains_key(label),
        })
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct AskedPool {
    subnet: Option<String>,
    gateway: Option<String>,
    #[serde(rename = "IPRange")]
    range: Option<String>,
    auxiliary_addresses: Option<BTreeMap<String, String>>,
}

async fn create(mut call: Call) -> Answer {
    let spec = spec(call.object().await?)?;
    let name = spec.name.clone();
    match call.engine.networks().create(spec).await {
        Ok(made) => {
            let body = json!({"Id": made.id.as_str(), "Warning": made.warnings.join("; ")});
            Ok(reply::json(StatusCode::CREATED, &body))
        }
        Err(error) if error.is_conflict() && matches!(error.object(), Some((ObjectKind::Network, _))) => {
            Err(Failure::from(error).say(format!("network with name {name} already exists")))
        }
        // Docker's status of a subnet that overlaps with another.
        Err(error) if error.is_conflict() => Err(Failure::from(error).status(StatusCode::FORBIDDEN)),
        Err(error) => Err(error.into()),
    }
}

fn spec(body: Map<String, Value>) -> Result<NetworkSpec, Failure> {
    let mut config = Object::new("", body);
    let Some(name) = config.text("Name")? else {
        return Err(Failure::bad("invalid network name: a name is needed"));
    };
    let mut spec = NetworkSpec::bridge(name).persistent(true);
    spec.driver = config.text("Driver")?.unwrap_or_else(|| "bridge".into());
    if let Some(scope) = config.text("Scope")?.filter(|scope| scope != "local") {
        return Err(Failure::option(
            &format!("Scope {scope:?}"),
            "a cluster of engines, which there is not",
        ));
    }
    spec.internal = config.take_or_default("Internal")?;
    spec.attachable = config.take_or_default("Attachable")?;
    spec.ipv6 = config.take_or_default("EnableIPv6")?;
    spec.labels = config.take_or_default("Labels")?;
    spec.options = config.take_or_default("Options")?;
    if config.take::<bool>("EnableIPv4")? == Some(false) {
        return Err(Failure::option("EnableIPv4", "a network with IPv4"));
    }
    config.refuse(&[
        ("Ingress", "a cluster of engines, which there is not"),
        ("ConfigOnly", "a network that is one"),
        ("ConfigFrom", "a network with a configuration of its own"),
    ])?;
    let mut ipam = config.object("IPAM")?;
    if let Some(driver) = ipam.text("Driver")?.filter(|driver| driver != "default") {
        return Err(Failure::option(&format!("IPAM.Driver {driver:?}"), "the default one"));
    }
    for asked in ipam.take_or_default::<Vec<AskedPool>>("Config")? {
        if asked.auxiliary_addresses.is_some_and(|addresses| !addresses.is_empty()) {
            return Err(Failure::option(
                "IPAM.Config.AuxiliaryAddresses",
                "an IPRange that leaves those addresses out",
            ));
        }
        let said = |text: Option<String>| text.filter(|text| !text.is_empty());
        let subnet = |text: Option<String>| said(text).map(|text| text.parse::<Subnet>()).transpose();
        let gateway = said(asked.gateway).map(|text| {
            text.parse()
                .map_err(|_| Failure::bad(format!("invalid network config: invalid gateway address {text}")))
        });
        spec.pools.push(AddressPool {
            subnet: subnet(asked.subnet)?,
            gateway: gateway.transpose()?,
            range: subnet(asked.range)?,
        });
    }
    Ok(spec)
}

async fn remove(call: Call) -> Answer {
    let name = call.name().to_owned();
    match call.engine.networks().remove(&name).await {
        Ok(_) => Ok(reply::empty(StatusCode::NO_CONTENT)),
        // Docker's status of one that is in use, and its words.
        Err(error) if error.is_conflict() => {
            let words = format!("error while removing network: {}", error.report());
            Err(Failure::from(error).status(StatusCode::FORBIDDEN).say(words))
        }
        Err(error) => Err(error.into()),
    }
}

async fn prune(call: Call) -> Answer {
    let filter = filters::read(&call.query)?;
    let removed = call.engine.networks().prune(filter).await?;
    let removed = if removed.is_empty() {
        Value::Null
    } else {
        json!(removed)
    };
    Ok(reply::ok(&json!({"NetworksDeleted": removed})))
}

async fn connect(mut call: Call) -> Answer {
    let mut body = Object::new("", call.object().await?);
    let container = container(&mut body)?;
    let endpoint = super::endpoint(body.take("EndpointConfig")?.unwrap_or_default())?;
    let connected = call
        .engine
        .containers()
        .connect(&container, call.name(), endpoint)
        .await;
    connected.map_err(in_its_words)?;
    Ok(reply::empty(StatusCode::OK))
}

async fn disconnect(mut call: Call) -> Answer {
    let mut body = Object::new("", call.object().await?);
    let container = container(&mut body)?;
    let _force: bool = body.take_or_default("Force")?;
    let done = call.engine.containers().disconnect(&container, call.name()).await;
    done.map_err(in_its_words)?;
    Ok(reply::empty(StatusCode::OK))
}

fn container(body: &mut Object) -> Result<String, Failure> {
    body.text("Container")?
        .ok_or_else(|| Failure::bad("invalid container: a name or an id is needed"))
}

/// Docker's status of what a container's place in networks does not allow.
fn in_its_words(error: Error) -> Failure {
    let denied = error.kind() == &ErrorKind::Conflict;
    let failure = Failure::from(error);
    if denied {
        failure.status(StatusCode::FORBIDDEN)
    } else {
        failure
    }
}
