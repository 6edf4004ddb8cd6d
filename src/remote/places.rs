//! Places in networks and ports over the API.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::json::{list, text, text_or_empty};
use crate::types::{Endpoint, EndpointSpec, Port, PortBinding, Protocol, PublishedPort, Shaping};

/// Places in networks, as both a container and a list of them show them.
pub(super) fn endpoints(settings: &Value) -> Vec<Endpoint> {
    let all = settings["Networks"].as_object();
    let in_use = all.into_iter().flatten().filter_map(|(name, value)| {
        // What is there of a container that does not run, and of the networks none and host, is no place.
        text(value, "IPAddress")?;
        Some(endpoint(name, value))
    });
    in_use.collect()
}

pub(super) fn endpoint(network: &str, value: &Value) -> Endpoint {
    let prefix = |key: &str| {
        value[key]
            .as_u64()
            .and_then(|bits| u8::try_from(bits).ok())
            .unwrap_or(0)
    };
    let address = |key: &str| text(value, key).and_then(|text| text.parse::<IpAddr>().ok());
    let v4 = |address: Option<IpAddr>| match address {
        Some(IpAddr::V4(address)) => Some(address),
        _ => None,
    };
    let v6 = |address: Option<IpAddr>| match address {
        Some(IpAddr::V6(address)) => Some(address),
        _ => None,
    };
    Endpoint {
        network: network.to_owned(),
        network_id: text_or_empty(value, "NetworkID"),
        id: text_or_empty(value, "EndpointID"),
        interface: String::new(),
        mac: text_or_empty(value, "MacAddress"),
        ipv4: v4(address("IPAddress")).map(|address| (address, prefix("IPPrefixLen"))),
        ipv6: v6(address("GlobalIPv6Address")).map(|address| (address, prefix("GlobalIPv6PrefixLen"))),
        gateway: v4(address("Gateway")),
        gateway_v6: v6(address("IPv6Gateway")),
        names: list(value, "DNSNames").unwrap_or_default(),
        aliases: list(value, "Aliases").unwrap_or_default(),
    }
}

/// Published ports as `inspect` shows them.
pub(super) fn bound_ports(ports: &Value) -> Vec<PublishedPort> {
    let mut found = Vec::new();
    for (port, bindings) in ports.as_object().into_iter().flatten() {
        let Ok(port) = port.parse::<Port>() else { continue };
        for binding in bindings.as_array().into_iter().flatten() {
            let address = text(binding, "HostIp").and_then(|text| text.parse().ok());
            let number = text(binding, "HostPort").and_then(|text| text.parse().ok());
            if let (Some(host_ip), Some(host_port)) = (address, number) {
                found.push(PublishedPort {
                    port,
                    host_ip,
                    host_port,
                });
            }
        }
    }
    found
}

/// Published ports as lists show them.
pub(super) fn listed_ports(line: &Value) -> Vec<PublishedPort> {
    let ports = line["Ports"].as_array().into_iter().flatten();
    let read = ports.filter_map(|value| {
        let number = |key: &str| value[key].as_u64().and_then(|number| u16::try_from(number).ok());
        let protocol: Protocol = text(value, "Type")?.parse().ok()?;
        Some(PublishedPort {
            port: Port {
                number: number("PrivatePort")?,
                protocol,
            },
            host_ip: text(value, "IP")?.parse().ok()?,
            host_port: number("PublicPort")?,
        })
    });
    read.collect()
}

/// Ports that a container says to listen at.
pub(super) fn exposed(ports: &Value) -> Vec<Port> {
    let keys = ports.as_object().into_iter().flatten().map(|(port, _)| port);
    keys.filter_map(|port| port.parse().ok()).collect()
}

/// Ports as they were asked for.
pub(super) fn asked_ports(bindings: &Value) -> Vec<PortBinding> {
    let mut found = Vec::new();
    for (port, bindings) in bindings.as_object().into_iter().flatten() {
        let Ok(port) = port.parse::<Port>() else { continue };
        for binding in bindings.as_array().into_iter().flatten() {
            let asked = text(binding, "HostPort").unwrap_or_else(|| "0".into());
            let (first, last) = asked.split_once('-').unwrap_or((&asked, &asked));
            let (Ok(host_port), Ok(host_port_end)) = (first.parse(), last.parse()) else {
                continue;
            };
            found.push(PortBinding {
                port,
                host_ip: text(binding, "HostIp").and_then(|text| text.parse().ok()),
                host_port,
                host_port_end,
            });
        }
    }
    found
}

/// What was asked of a container's places in networks. A hardware address that was chosen cannot be told from one that was not.
pub(super) fn asked_of(settings: &Value) -> BTreeMap<String, EndpointSpec> {
    let networks = settings["Networks"].as_object().into_iter().flatten();
    let asked = networks.map(|(name, value)| {
        let address = |key: &str| text(&value["IPAMConfig"], key);
        let links = list(value, "Links").unwrap_or_default();
        let spec = EndpointSpec {
            aliases: list(value, "Aliases").unwrap_or_default(),
            ipv4: address("IPv4Address").and_then(|text| text.parse().ok()),
            ipv6: address("IPv6Address").and_then(|text| text.parse().ok()),
            mac: None,
            gateway_priority: value["GwPriority"]
                .as_i64()
                .and_then(|number| i32::try_from(number).ok())
                .unwrap_or(0),
            links: links.iter().filter_map(|text| text.parse().ok()).collect(),
            shaping: shaping_of(&value["DriverOpts"]),
            options: options_of(&value["DriverOpts"]),
        };
        (name.clone(), spec)
    });
    asked.collect()
}

/// What is done to its packets.
fn shaping_of(options: &Value) -> Shaping {
    let mut options: BTreeMap<String, String> = serde_json::from_value(options.clone()).unwrap_or_default();
    options.retain(|name, _| name.starts_with(Shaping::PREFIX));
    Shaping::from_options(&options).ok().flatten().unwrap_or_default()
}

/// What the network's driver is told besides.
fn options_of(options: &Value) -> BTreeMap<String, String> {
    let mut options: BTreeMap<String, String> = serde_json::from_value(options.clone()).unwrap_or_default();
    options.retain(|name, _| !name.starts_with(Shaping::PREFIX));
    options
}

/// What is asked of a container's places in networks.
pub(super) fn asked_endpoints(endpoints: &BTreeMap<String, EndpointSpec>) -> Value {
    let all = endpoints
        .iter()
        .map(|(name, spec)| (name.clone(), asked_endpoint(spec)));
    Value::Object(all.collect())
}

pub(super) fn asked_endpoint(spec: &EndpointSpec) -> Value {
    let address = |text: Option<String>| text.unwrap_or_default();
    json!({
        "Aliases": spec.aliases,
        "Links": spec.links.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "MacAddress": spec.mac.as_deref().unwrap_or_default(),
        "GwPriority": spec.gateway_priority,
        "DriverOpts": spec.driver_options(),
        "IPAMConfig": {
            "IPv4Address": address(spec.ipv4.map(|address| address.to_string())),
            "IPv6Address": address(spec.ipv6.map(|address| address.to_string())),
        },
    })
}
