//! Networks over the API.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::client::{Ask, Client, segment};
use super::error::nonsense;
use super::json::{self, flag, list, required, text, text_or_empty};
use super::places;
use crate::error::{Error, ObjectKind, Result};
use crate::networks::{AddressPool, CreatedNetwork, NetworkInfo, NetworkManager, NetworkMember, NetworkSpec, Subnet};
use crate::sys::order;
use crate::types::{Filter, Outcome};

/// Networks of an engine elsewhere.
#[derive(Debug)]
pub(super) struct Networks(pub(super) Client);

fn path(name: &str) -> Result<String> {
    if name.is_empty() {
        return Err(Error::not_found(ObjectKind::Network, name));
    }
    Ok(format!("networks/{}", segment(name)))
}

#[async_trait]
impl NetworkManager for Networks {
    async fn create(&self, spec: NetworkSpec) -> Result<CreatedNetwork> {
        let made = self.0.json(Ask::post("networks/create").json(&asked(&spec))).await?;
        Ok(CreatedNetwork {
            id: required(&made, "Id")?,
            warnings: text(&made, "Warning").into_iter().collect(),
        })
    }

    async fn list(&self) -> Result<Vec<NetworkInfo>> {
        let networks = self.0.json(Ask::get("networks")).await?;
        let networks = networks.as_array().ok_or_else(|| nonsense("no list of networks"))?;
        let mut found = networks.iter().map(info).collect::<Result<Vec<_>>>()?;
        order::sort_by(&mut found, |a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    async fn inspect(&self, name: &str) -> Result<NetworkInfo> {
        info(&self.0.json(Ask::get(path(name)?)).await?)
    }

    async fn remove(&self, name: &str) -> Result<Outcome> {
        self.0.tell(Ask::delete(path(name)?)).await?;
        Ok(Outcome::Done)
    }

    async fn prune(&self, filter: Filter) -> Result<Vec<String>> {
        let pruned = self.0.json(Ask::post("networks/prune").filter(&filter)).await?;
        Ok(list(&pruned, "NetworksDeleted").unwrap_or_default())
    }
}

fn asked(spec: &NetworkSpec) -> Value {
    let pools = spec.pools.iter().map(|pool| {
        let mut value = json!({});
        for (key, text) in [
            ("Subnet", pool.subnet.map(|subnet| subnet.to_string())),
            ("Gateway", pool.gateway.map(|gateway| gateway.to_string())),
            ("IPRange", pool.range.map(|range| range.to_string())),
        ] {
            if let Some(text) = text {
                value[key] = text.into();
            }
        }
        value
    });
    let mut options = spec.options.clone();
    if !spec.between_containers {
        options.insert("com.docker.network.bridge.enable_icc".into(), "false".into());
    }
    if let Some(mtu) = spec.mtu_bytes {
        options.insert("com.docker.network.driver.mtu".into(), mtu.to_string());
    }
    json!({
        "Name": spec.name,
        "Driver": spec.driver,
        "CheckDuplicate": true,
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "EnableIPv6": spec.ipv6,
        "IPAM": {"Driver": "default", "Config": pools.collect::<Vec<_>>()},
        "Options": options,
        "Labels": spec.labels,
    })
}

/// The API does not tell of the host's interfaces.
fn info(value: &Value) -> Result<NetworkInfo> {
    let name = text(value, "Name").ok_or_else(|| nonsense("a network without a name"))?;
    let mut info = NetworkInfo::of(name, text_or_empty(value, "Driver"));
    info.id = text(value, "Id").and_then(|id| id.parse().ok());
    info.created = json::moment(value, "Created");
    let spec = &mut info.spec;
    spec.internal = flag(value, "Internal");
    spec.attachable = flag(value, "Attachable");
    spec.ipv6 = flag(value, "EnableIPv6");
    spec.persistent = true;
    spec.labels = json::map(value, "Labels");
    spec.options = json::map(value, "Options");
    spec.between_containers = spec
        .options
        .get("com.docker.network.bridge.enable_icc")
        .is_none_or(|on| on != "false");
    spec.mtu_bytes = spec
        .options
        .get("com.docker.network.driver.mtu")
        .and_then(|text| text.parse().ok());
    spec.pools = json::objects(&value["IPAM"], "Config").map(pool).collect();
    let subnets = value["Status"]["IPAM"]["Subnets"].as_object();
    info.in_use = subnets.into_iter().flatten().filter_map(in_use).collect();
    let containers = value["Containers"].as_object().into_iter().flatten();
    info.containers = containers
        .filter_map(|(id, value)| member(&info.name, id, value))
        .collect();
    Ok(info)
}

/// What is said since 1.52. The subnet's own address counts there, and in IPv4 its broadcast.
fn in_use((subnet, value): (&String, &Value)) -> Option<(Subnet, usize)> {
    let subnet: Subnet = subnet.parse().ok()?;
    let nobodys = if subnet.is_ipv6() { 1 } else { 2 };
    let used = usize::try_from(value["IPsInUse"].as_u64()?).ok()?;
    Some((subnet, used.saturating_sub(nobodys)))
}

fn pool(value: &Value) -> AddressPool {
    let subnet = |key: &str| text(value, key).and_then(|text| text.parse::<Subnet>().ok());
    AddressPool {
        subnet: subnet("Subnet"),
        gateway: text(value, "Gateway").and_then(|text| text.parse().ok()),
        range: subnet("IPRange"),
    }
}

fn member(network: &str, id: &str, value: &Value) -> Option<NetworkMember> {
    let mut endpoint = places::endpoint(network, value);
    // Here addresses come with the length of the prefix.
    let split = |key: &str| {
        let text = text(value, key)?;
        let (address, prefix) = text.split_once('/')?;
        Some((address.to_owned(), prefix.parse::<u8>().ok()?))
    };
    endpoint.ipv4 = split("IPv4Address").and_then(|(address, prefix)| Some((address.parse().ok()?, prefix)));
    endpoint.ipv6 = split("IPv6Address").and_then(|(address, prefix)| Some((address.parse().ok()?, prefix)));
    Some(NetworkMember {
        id: id.parse().ok()?,
        name: text_or_empty(value, "Name"),
        endpoint,
    })
}
