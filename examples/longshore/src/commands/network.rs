//! `network …`: makes, lists, shows and removes networks, and puts containers on them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use longshore::networks::{AddressPool, NetworkInfo, NetworkSpec, Subnet};
use longshore::types::{EndpointLink, EndpointSpec, Shaping};
use serde_json::{Map, Value, json};

use super::{filter, say};
use crate::context::Context;
use crate::failure::Failure;
use crate::options::{self, Pair};
use crate::table::Table;

/// Options of `network create`.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// Driver: bridge, macvlan, ipvlan
    #[arg(short, long, default_value = "bridge")]
    driver: String,
    /// Subnet: ADDRESS/PREFIX
    #[arg(long, value_name = "SUBNET")]
    subnet: Vec<Subnet>,
    /// Address of the bridge in the subnet, or of the router on a link of the host's
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<IpAddr>,
    /// Part of the subnet that containers' addresses are taken from
    #[arg(long, value_name = "SUBNET")]
    ip_range: Vec<Subnet>,
    /// Give it IPv6 too
    #[arg(long)]
    ipv6: bool,
    /// Let it lead nowhere but to its own containers
    #[arg(long)]
    internal: bool,
    /// As Docker's, for swarm; it says nothing here
    #[arg(long)]
    attachable: bool,
    /// Label
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = options::pair)]
    label: Vec<Pair>,
    /// Option of the driver
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = options::pair)]
    opt: Vec<Pair>,
    /// Its name
    network: String,
}

/// Options of `network ls`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Print ids alone
    #[arg(short, long)]
    quiet: bool,
    /// Only those that match: name, driver, label
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = options::pair)]
    filter: Vec<Pair>,
    /// Cut nothing short
    #[arg(long)]
    no_trunc: bool,
}

/// Names of networks.
#[derive(Debug, clap::Args)]
pub struct Names {
    /// Names or ids
    #[arg(required = true)]
    networks: Vec<String>,
}

/// Options of `network prune`.
#[derive(Debug, clap::Args)]
pub struct Prune {
    /// Only those that match: until, label, label!
    #[arg(long, value_name = "KEY=VALUE", value_parser = options::pair)]
    filter: Vec<Pair>,
    /// As Docker's, which asks first; this client never does
    #[arg(short, long)]
    force: bool,
}

/// Options of `network connect`.
#[derive(Debug, clap::Args)]
pub struct Connect {
    /// Address
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// IPv6 address
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// Another name of the container in the network
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// Name of another container for this one alone
    #[arg(long, value_name = "CONTAINER[:ALIAS]")]
    link: Vec<EndpointLink>,
    /// What is done to packets on purpose: longshore.outgoing.delay-us=50000, say
    #[arg(long, value_name = "KEY=VALUE", value_parser = options::pair)]
    driver_opt: Vec<Pair>,
    /// Network
    network: String,
    /// Container
    container: String,
}

/// Options of `network disconnect`.
#[derive(Debug, clap::Args)]
pub struct Disconnect {
    /// As Docker's; it says nothing here
    #[arg(short, long)]
    force: bool,
    /// Network
    network: String,
    /// Container
    container: String,
}

/// Makes a network, whose definition outlives this process.
pub async fn create(context: &Context, args: Create) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let mut spec = NetworkSpec::bridge(args.network)
        .persistent(true)
        .ipv6(args.ipv6)
        .internal(args.internal);
    spec.driver = args.driver;
    spec.attachable = args.attachable;
    let pairs = |pairs: Vec<Pair>| {
        pairs
            .into_iter()
            .map(|(key, value)| (key, value.unwrap_or_default()))
            .collect()
    };
    (spec.labels, spec.options) = (pairs(args.label), pairs(args.opt));
    let count = args.subnet.len().max(args.gateway.len()).max(args.ip_range.len());
    for at in 0..count {
        spec.pools.push(AddressPool {
            subnet: args.subnet.get(at).copied(),
            gateway: args.gateway.get(at).copied(),
            range: args.ip_range.get(at).copied(),
        });
    }
    let made = engine.networks().create(spec).await?;
    say(made.id.as_str())?;
    Ok(0)
}

/// Lists networks.
pub async fn list(context: &Context, args: List) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let wanted = filter(&args.filter);
    if let Some(key) = wanted
        .keys()
        .find(|key| !["name", "driver", "label", "id"].contains(key))
    {
        return Err(Failure::ours(format!("invalid filter '{key}'")));
    }
    let shows = |network: &NetworkInfo| {
        let any = |key: &str, text: &str| {
            let values = wanted.values(key);
            values.is_empty() || values.iter().any(|value| text.contains(value.as_str()))
        };
        let labels = wanted.values("label").iter().all(|label| match label.split_once('=') {
            Some((name, value)) => network.spec.labels.get(name).is_some_and(|own| own == value),
            None => network.spec.labels.contains_key(label),
        });
        any("name", &network.name) && any("driver", &network.driver) && any("id", &id(network, true)) && labels
    };
    let mut found = engine.networks().list().await?;
    found.retain(shows);
    if args.quiet {
        found.iter().try_for_each(|network| say(&id(network, args.no_trunc)))?;
        return Ok(0);
    }
    let mut table = Table::new(["NETWORK ID", "NAME", "DRIVER", "SCOPE"]);
    for network in found {
        table.row([
            id(&network, args.no_trunc),
            network.name.clone(),
            network.driver.clone(),
            "local".into(),
        ]);
    }
    table.print()?;
    Ok(0)
}

/// Those that have no id are known by their names.
fn id(network: &NetworkInfo, whole: bool) -> String {
    match &network.id {
        Some(id) if whole => id.to_string(),
        Some(id) => id.short().to_owned(),
        None => network.name.clone(),
    }
}

/// Shows networks as JSON.
pub async fn inspect(context: &Context, args: Names) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let mut shown = Vec::new();
    for name in &args.networks {
        shown.push(body(&engine.networks().inspect(name).await?));
    }
    say(&serde_json::to_string_pretty(&Value::Array(shown)).unwrap_or_default())?;
    Ok(0)
}

fn body(network: &NetworkInfo) -> Value {
    let spec = &network.spec;
    let pools = spec.pools.iter().map(|pool| {
        let mut value = Map::new();
        for (key, text) in [
            ("Subnet", pool.subnet.map(|subnet| subnet.to_string())),
            ("IPRange", pool.range.map(|range| range.to_string())),
            ("Gateway", pool.gateway.map(|gateway| gateway.to_string())),
        ] {
            value.extend(text.map(|text| (key.to_owned(), Value::from(text))));
        }
        Value::Object(value)
    });
    let containers = network.containers.iter().map(|member| {
        let place = &member.endpoint;
        let value = json!({
            "Name": member.name,
            "EndpointID": place.id,
            "MacAddress": place.mac,
            "IPv4Address": place.ipv4.map(|(address, prefix)| format!("{address}/{prefix}")).unwrap_or_default(),
            "IPv6Address": place.ipv6.map(|(address, prefix)| format!("{address}/{prefix}")).unwrap_or_default(),
        });
        (member.id.to_string(), value)
    });
    json!({
        "Name": network.name,
        "Id": id(network, true),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv6": spec.ipv6,
        "IPAM": {"Driver": "default", "Config": pools.collect::<Vec<_>>()},
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "Containers": containers.collect::<Map<_, _>>(),
        "Options": spec.options,
        "Labels": spec.labels,
    })
}

/// Removes networks, and goes on past one that cannot be.
pub async fn rm(context: &Context, args: Names) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let mut failure = None;
    for name in &args.networks {
        match engine.networks().remove(name).await {
            Ok(_) => say(name)?,
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or(Ok(0), |error| Err(error.into()))
}

/// Removes networks that no container is on.
pub async fn prune(context: &Context, args: Prune) -> Result<u8, Failure> {
    let _ = args.force;
    let engine = context.engine().await?;
    for name in engine.networks().prune(filter(&args.filter)).await? {
        say(&name)?;
    }
    Ok(0)
}

/// Puts a container on a network.
pub async fn connect(context: &Context, args: Connect) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let endpoint = EndpointSpec {
        aliases: args.alias,
        ipv4: args.ip,
        ipv6: args.ip6,
        links: args.link,
        shaping: shaping(args.driver_opt)?,
        ..EndpointSpec::default()
    };
    engine
        .containers()
        .connect(&args.container, &args.network, endpoint)
        .await?;
    Ok(0)
}

fn shaping(options: Vec<Pair>) -> Result<Shaping, Failure> {
    let options = options
        .into_iter()
        .map(|(key, value)| (key, value.unwrap_or_default()))
        .collect();
    let known = "longshore.{outgoing,incoming}.{rate-bits,delay-us,jitter-us,loss-ppm}";
    Shaping::from_options(&options)?
        .ok_or_else(|| Failure::ours(format!("unknown option of an endpoint; there are {known}")))
}

/// Takes a container out of a network.
pub async fn disconnect(context: &Context, args: Disconnect) -> Result<u8, Failure> {
    let _ = args.force;
    let engine = context.engine().await?;
    engine.containers().disconnect(&args.container, &args.network).await?;
    Ok(0)
}
