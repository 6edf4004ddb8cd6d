//! A network in Docker's shape: the union of all versions'.

use serde_json::{Map, Value, json};

use super::super::times;
use crate::networks::{AddressPool, NetworkInfo};

/// Those that every engine has without one of their own are known by their names.
pub(super) fn id(network: &NetworkInfo) -> String {
    network
        .id
        .as_ref()
        .map_or_else(|| network.name.clone(), ToString::to_string)
}

pub(super) fn body(network: &NetworkInfo) -> Value {
    let spec = &network.spec;
    let containers = network.containers.iter().map(|member| {
        let place = &member.endpoint;
        let with_prefix = |address: Option<String>| address.unwrap_or_default();
        let value = json!({
            "Name": member.name,
            "EndpointID": place.id,
            "MacAddress": place.mac,
            "IPv4Address": with_prefix(place.ipv4.map(|(address, prefix)| format!("{address}/{prefix}"))),
            "IPv6Address": with_prefix(place.ipv6.map(|(address, prefix)| format!("{address}/{prefix}"))),
        });
        (member.id.to_string(), value)
    });
    json!({
        "Name": network.name,
        "Id": id(network),
        "Created": times::or_never(network.created),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": true,
        "EnableIPv6": spec.ipv6,
        "IPAM": {"Driver": "default", "Options": null, "Config": spec.pools.iter().map(pool).collect::<Vec<_>>()},
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "Ingress": false,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": false,
        "Containers": containers.collect::<Map<_, _>>(),
        "Options": spec.options,
        "Labels": spec.labels,
    })
}

fn pool(pool: &AddressPool) -> Value {
    let mut value = Map::new();
    for (key, text) in [
        ("Subnet", pool.subnet.map(|subnet| subnet.to_string())),
        ("IPRange", pool.range.map(|range| range.to_string())),
        ("Gateway", pool.gateway.map(|gateway| gateway.to_string())),
    ] {
        if let Some(text) = text {
            value.insert(key.to_owned(), text.into());
        }
    }
    Value::Object(value)
}

/// How many addresses are in use, and how many are left. Source: Docker's API 1.52, `IPAMStatus`.
pub(super) fn status(network: &NetworkInfo) -> Value {
    let subnets = network.in_use.iter().map(|(subnet, used)| {
        let bits = if subnet.is_ipv6() { 128 } else { 32 } - u32::from(subnet.prefix());
        let all = 1u64.checked_shl(bits).unwrap_or(u64::MAX);
        // The subnet's own address, and in IPv4 the broadcast, are nobody's.
        let nobodys = if subnet.is_ipv6() { 1 } else { 2 };
        let used = *used as u64 + nobodys;
        (
            subnet.to_string(),
            json!({"IPsInUse": used, "DynamicIPsAvailable": all.saturating_sub(used)}),
        )
    });
    let subnets: Map<String, Value> = subnets.collect();
    match subnets.is_empty() {
        true => json!({"IPAM": {}}),
        false => json!({"IPAM": {"Subnets": subnets}}),
    }
}
