//! Networks and ports of a container, in Docker's shapes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::error::Failure;
use super::super::networks;
use super::super::object::Object;
use crate::containers::{ContainerInfo, ContainerSpec, NetworkMode};
use crate::types::{Endpoint, EndpointSpec, Port, PortBinding, PublishedPort};

/// What a client asks of networks. Where it leaves the network open and publishes nothing there is none: the container has
/// loopback alone, and the client is told.
pub(super) fn take(
    config: &mut Object,
    host: &mut Object,
    spec: &mut ContainerSpec,
    warnings: &mut Vec<String>,
) -> Result<(), Failure> {
    take_names(host, spec)?;
    let asked = take_ports(config, host, spec)?;
    let disabled: bool = config.take_or_default("NetworkDisabled")?;
    let mode = host.text("NetworkMode")?.unwrap_or_else(|| "default".into());
    let mac = config.text("MacAddress")?;
    let links: Vec<String> = host.take_or_default("Links")?;
    let mut networking = config.object("NetworkingConfig")?;
    let endpoints: BTreeMap<String, Value> = networking.take_or_default("EndpointsConfig")?;
    let open = mode == "default" && !disabled;
    let unsaid = open && endpoints.keys().all(|name| name == "default");
    let by_default = unsaid || matches!(mode.as_str(), "bridge" | "none" | "host") || mode.starts_with("container:");
    if by_default && !links.is_empty() {
        return Err(Failure::option(
            "HostConfig.Links",
            "a network that was made, where containers find each other by name",
        ));
    }
    if disabled || (unsaid && !asked) {
        spec.network = NetworkMode::None;
        if open {
            warnings.push(
                "no network was chosen: the container has loopback alone; choose the network mode bridge, or one that was made"
                    .into(),
            );
        }
        return Ok(());
    }
    // Whoever publishes a port wants the network that Docker takes by itself.
    let first = match open {
        true if unsaid => "bridge".to_owned(),
        true => endpoints.keys().next().cloned().unwrap_or_default(),
        false => mode,
    };
    spec.network = first.parse()?;
    if !matches!(spec.network, NetworkMode::Named(_)) {
        return Ok(());
    }
    for (name, value) in endpoints {
        let name = if name == "default" { first.clone() } else { name };
        spec.endpoints.insert(name, networks::endpoint(value)?);
    }
    if mac.is_some() || !links.is_empty() {
        let own = spec.endpoints.entry(first).or_default();
        own.mac = own.mac.take().or(mac);
        for link in links {
            own.links.push(link.parse()?);
        }
    }
    Ok(())
}

fn take_names(host: &mut Object, spec: &mut ContainerSpec) -> Result<(), Failure> {
    for text in host.take_or_default::<Vec<String>>("Dns")? {
        let address = text.trim().parse::<IpAddr>();
        spec.dns.push(
            address.map_err(|_| Failure::bad(format!("bad nameserver address {text}: it is not an IP address")))?,
        );
    }
    spec.dns_search = host.take_or_default("DnsSearch")?;
    spec.dns_options = host.take_or_default("DnsOptions")?;
    spec.extra_hosts = host.take_or_default("ExtraHosts")?;
    Ok(())
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct AskedBinding {
    host_ip: Option<String>,
    host_port: Option<String>,
}

/// Whether any port is to be published.
fn take_ports(config: &mut Object, host: &mut Object, spec: &mut ContainerSpec) -> Result<bool, Failure> {
    let exposed: BTreeMap<String, Value> = config.take_or_default("ExposedPorts")?;
    for port in exposed.keys() {
        spec.expose.insert(port.parse::<Port>()?);
    }
    spec.publish_all = host.take_or_default("PublishAllPorts")?;
    let bindings: BTreeMap<String, Option<Vec<AskedBinding>>> = host.take_or_default("PortBindings")?;
    for (port, asked) in bindings {
        let port: Port = port.parse()?;
        let mut asked = asked.unwrap_or_default();
        if asked.is_empty() {
            asked.push(AskedBinding::default());
        }
        for one in asked {
            spec.ports.push(binding(port, &one)?);
        }
    }
    Ok(spec.publish_all || !spec.ports.is_empty())
}

fn binding(port: Port, asked: &AskedBinding) -> Result<PortBinding, Failure> {
    let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let text = said(&asked.host_port).unwrap_or_else(|| "0".into());
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    let bad = || Failure::bad(format!("invalid port specification: \"{text}\""));
    let (first, last): (u16, u16) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
    if last < first {
        return Err(bad());
    }
    let address = said(&asked.host_ip).map(|text| {
        text.parse::<IpAddr>()
            .map_err(|_| Failure::bad(format!("invalid IP address: {text}")))
    });
    Ok(PortBinding {
        port,
        host_ip: address.transpose()?,
        host_port: first,
        host_port_end: last,
    })
}

/// What was asked for, as `inspect` shows it.
pub(super) fn asked(spec: &ContainerSpec) -> Value {
    let mut bindings: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for one in &spec.ports {
        let port = match one.host_port_end > one.host_port {
            true => format!("{}-{}", one.host_port, one.host_port_end),
            false => one.host_port.to_string(),
        };
        let address = one.host_ip.map(|address| address.to_string()).unwrap_or_default();
        let binding = json!({"HostIp": address, "HostPort": port});
        bindings.entry(one.port.to_string()).or_default().push(binding);
    }
    json!({
        "PortBindings": bindings,
        "PublishAllPorts": spec.publish_all,
        "Dns": if spec.dns.is_empty() { Value::Null } else { json!(spec.dns) },
        "DnsSearch": if spec.dns_search.is_empty() { Value::Null } else { json!(spec.dns_search) },
        "DnsOptions": if spec.dns_options.is_empty() { Value::Null } else { json!(spec.dns_options) },
        "ExtraHosts": if spec.extra_hosts.is_empty() { Value::Null } else { json!(spec.extra_hosts) },
    })
}

/// A container's place in a network; without one, what Docker shows of a network that it is not in yet.
pub(super) fn endpoint(spec: &ContainerSpec, name: &str, place: Option<&Endpoint>) -> Value {
    let asked = spec.endpoints.get(name);
    let text = |found: Option<String>| found.unwrap_or_default();
    let addresses = asked
        .filter(|asked| asked.ipv4.is_some() || asked.ipv6.is_some())
        .map(|asked| {
            let mut value = Map::new();
            for (key, address) in [
                ("IPv4Address", asked.ipv4.map(|address| address.to_string())),
                ("IPv6Address", asked.ipv6.map(|address| address.to_string())),
            ] {
                if let Some(address) = address {
                    value.insert(key.to_owned(), address.into());
                }
            }
            value
        });
    let aliases = asked.map(|asked| &asked.aliases).filter(|aliases| !aliases.is_empty());
    let links = asked.map(|asked| asked.links.iter().map(ToString::to_string).collect::<Vec<_>>());
    let links = links.filter(|links| !links.is_empty());
    let options = asked.map(EndpointSpec::driver_options);
    let options = options.filter(|options| !options.is_empty());
    json!({
        "IPAMConfig": addresses,
        "Links": links,
        "Aliases": aliases,
        "MacAddress": text(place.map(|place| place.mac.clone())),
        "DriverOpts": options,
        "GwPriority": asked.map_or(0, |asked| asked.gateway_priority),
        "NetworkID": text(place.map(|place| place.network_id.clone())),
        "EndpointID": text(place.map(|place| place.id.clone())),
        "Gateway": text(place.and_then(|place| place.gateway).map(|address| address.to_string())),
        "IPAddress": text(place.and_then(|place| place.ipv4).map(|(address, _)| address.to_string())),
        "IPPrefixLen": place.and_then(|place| place.ipv4).map_or(0, |(_, prefix)| prefix),
        "IPv6Gateway": text(place.filter(|place| place.ipv6.is_some()).and_then(|place| place.gateway_v6).map(|address| address.to_string())),
        "GlobalIPv6Address": text(place.and_then(|place| place.ipv6).map(|(address, _)| address.to_string())),
        "GlobalIPv6PrefixLen": place.and_then(|place| place.ipv6).map_or(0, |(_, prefix)| prefix),
        "DNSNames": place.map(|place| &place.names).filter(|names| !names.is_empty()),
    })
}

/// What old clients find among a container's aliases in networks that users made: its short id and its host name. Source: the
/// API's history, 1.45.
pub(super) fn add_aliases(value: &mut Value, info: &ContainerInfo) {
    let host = value["Config"]["Hostname"].as_str().unwrap_or_default().to_owned();
    let Some(networks) = value["NetworkSettings"]["Networks"].as_object_mut() else {
        return;
    };
    for (name, place) in networks {
        if matches!(name.as_str(), "bridge" | "host" | "none") {
            continue;
        }
        let mut aliases: Vec<Value> = place["Aliases"].as_array().cloned().unwrap_or_default();
        for more in [info.id.short(), &host] {
            if !more.is_empty() && !aliases.iter().any(|known| known == more) {
                aliases.push(more.into());
            }
        }
        place["Aliases"] = aliases.into();
    }
}

/// The networks that a container is in itself: none where it is in another's.
pub(super) fn networks_of(mode: &NetworkMode, spec: &ContainerSpec, places: &[Endpoint]) -> Value {
    let mut names = BTreeSet::new();
    match mode {
        NetworkMode::Container(_) => return json!({}),
        mode => names.insert(mode.to_string()),
    };
    names.extend(spec.endpoints.keys().cloned());
    names.extend(places.iter().map(|place| place.network.clone()));
    let all = names.into_iter().map(|name| {
        let place = places.iter().find(|place| place.network == name);
        let value = endpoint(spec, &name, place);
        (name, value)
    });
    Value::Object(all.collect())
}

/// Ports as `inspect` shows them: those that are exposed, with where they are published.
pub(super) fn ports(exposed: &[Port], published: &[PublishedPort]) -> Value {
    let all = exposed.iter().map(|port| {
        let at = published.iter().filter(|one| one.port == *port);
        let at: Vec<Value> = at
            .map(|one| json!({"HostIp": one.host_ip.to_string(), "HostPort": one.host_port.to_string()}))
            .collect();
        (port.to_string(), if at.is_empty() { Value::Null } else { json!(at) })
    });
    Value::Object(all.collect())
}

/// Ports as lists show them.
pub(super) fn listed(published: &[PublishedPort]) -> Vec<Value> {
    let line = |one: &PublishedPort| {
        json!({
            "IP": one.host_ip.to_string(),
            "PrivatePort": one.port.number,
            "PublicPort": one.host_port,
            "Type": one.port.protocol.as_str(),
        })
    };
    published.iter().map(line).collect()
}
