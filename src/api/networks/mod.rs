//! Networks: made, looked at, removed, and containers put on them.

#[cfg(feature = "network")]
mod shape;
#[cfg(feature = "network")]
mod verbs;
#[cfg(not(feature = "network"))]
mod without;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Deserialize;
use serde_json::Value;

#[cfg(feature = "network")]
pub(super) use self::verbs::ROUTES;
#[cfg(not(feature = "network"))]
pub(super) use self::without::ROUTES;
use super::error::Failure;
use super::fold;
use crate::types::{EndpointLink, EndpointSpec, Shaping};

/// How names of Docker's own options begin.
const DOCKERS: &str = "com.docker.";

/// What a client says of a container's place in a network. Source: moby, `api/types/network/endpoint.go`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Asked {
    #[serde(rename = "IPAMConfig")]
    ipam: Option<AskedAddresses>,
    aliases: Option<Vec<String>>,
    links: Option<Vec<String>>,
    mac_address: Option<String>,
    gw_priority: Option<i32>,
    driver_opts: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AskedAddresses {
    #[serde(rename = "IPv4Address")]
    ipv4: Option<String>,
    #[serde(rename = "IPv6Address")]
    ipv6: Option<String>,
    #[serde(rename = "LinkLocalIPs")]
    link_local: Option<Vec<String>>,
}

/// Reads a container's place in a network.
pub(super) fn endpoint(value: Value) -> Result<EndpointSpec, Failure> {
    let asked: Option<Asked> = fold::read(value).map_err(|error| Failure::bad(format!("invalid endpoint: {error}")))?;
    let asked = asked.unwrap_or_default();
    let links = asked.links.unwrap_or_default();
    let ipam = asked.ipam.unwrap_or_default();
    if ipam.link_local.is_some_and(|addresses| !addresses.is_empty()) {
        return Err(Failure::option("LinkLocalIPs", "the address that the kernel chooses"));
    }
    let (known, options): (BTreeMap<_, _>, BTreeMap<_, _>) = asked
        .driver_opts
        .unwrap_or_default()
        .into_iter()
        .partition(|(name, _)| name.starts_with(Shaping::PREFIX) || name.starts_with(DOCKERS));
    let Some(shaping) = Shaping::from_options(&known)? else {
        let names: Vec<&str> = known.keys().map(String::as_str).collect();
        return Err(Failure::option(
            &format!("DriverOpts {}", names.join(", ")),
            "options of ours (longshore.outgoing.delay-us, say), or of a driver of the embedder's own",
        ));
    };
    let bad = |text: &str| Failure::bad(format!("invalid endpoint settings: invalid IP address: {text}"));
    let said = |text: Option<String>| text.filter(|text| !text.is_empty());
    let ipv4 = said(ipam.ipv4).map(|text| text.parse::<Ipv4Addr>().map_err(|_| bad(&text)));
    let ipv6 = said(ipam.ipv6).map(|text| text.parse::<Ipv6Addr>().map_err(|_| bad(&text)));
    Ok(EndpointSpec {
        aliases: asked.aliases.unwrap_or_default(),
        ipv4: ipv4.transpose()?,
        ipv6: ipv6.transpose()?,
        mac: said(asked.mac_address),
        gateway_priority: asked.gw_priority.unwrap_or(0),
        links: links
            .iter()
            .map(|text| Ok(text.parse::<EndpointLink>()?))
            .collect::<Result<_, Failure>>()?,
        shaping,
        options,
    })
}
