//! What cannot be asked of networks: each has an error of its kind, and nothing is left of it.

use std::net::{IpAddr, Ipv4Addr};

use longshore::networks::{AddressPool, NetworkSpec, Subnet};
use longshore::types::{EndpointSpec, Port, PortBinding};
use longshore::{Container, ContainerSpec, Error, ErrorKind, NetworkMode};

use crate::frame::{Check, Stop, fail};
use crate::networking::failure;
use crate::support::is_root;
use crate::support::world::{FORCE, World};
use crate::tests;

tests! { "refusals":
    kernel_async [
        i8_subnets_that_cannot_be,
        i8_addresses_that_cannot_be,
        i2_names_drivers_and_options_that_cannot_be,
        i4_ports_that_nobody_may_have,
        i6_places_that_cannot_be,
    ]
}

/// What an error is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Invalid,
    Conflict,
    NotFound,
    Denied,
    Unsupported,
}

fn why(error: &Error) -> Result<Why, Stop> {
    match error.kind() {
        ErrorKind::InvalidArgument => Ok(Why::Invalid),
        ErrorKind::Conflict => Ok(Why::Conflict),
        ErrorKind::NotFound => Ok(Why::NotFound),
        ErrorKind::Denied => Ok(Why::Denied),
        _ if error.is_unsupported() => Ok(Why::Unsupported),
        other => fail(format!("{other:?}: {}", error.report())),
    }
}

fn on(network: &str) -> NetworkMode {
    NetworkMode::Named(network.to_owned())
}

/// A root of its own, in which nothing is but a network.
async fn with_network(subnet: &str) -> Result<World, Stop> {
    let world = World::alone().await?;
    let taken = NetworkSpec::bridge("taken").subnet(subnet.parse()?);
    world.engine.networks().create(taken).await?;
    Ok(world)
}

/// Each of them is refused, and the one network that there was is the one that there is.
async fn are_refused(world: &World, all: impl IntoIterator<Item = (NetworkSpec, Why)>) -> Check {
    let manager = world.engine.networks();
    for (spec, expected) in all {
        let shown = format!("{spec:?}");
        let Err(error) = manager.create(spec).await else {
            return fail(format!("it was made: {shown}"));
        };
        assert_eq!(why(&error)?, expected, "{shown}: {}", error.report());
    }
    let mut made = manager.list().await?;
    made.retain(|network| !network.is_predefined());
    let names: Vec<_> = made.iter().map(|network| network.name.as_str()).collect();
    assert_eq!(names, ["taken"]);
    assert!(world.engine.audit().await?.is_clean());
    Ok(())
}

async fn i8_subnets_that_cannot_be() -> Check {
    for text in [
        "",
        "10.214.9",
        "10.214.9.0",
        "10.214.9.0/33",
        "10.214.9.0/x",
        "fd00::/129",
        "net/24",
    ] {
        let error = text.parse::<Subnet>().expect_err("it is none");
        assert_eq!(error.kind(), &ErrorKind::InvalidArgument, "{text:?}");
    }
    let world = with_network("10.214.8.0/24").await?;
    let of = |subnet: Option<&str>, gateway: Option<&str>, range: Option<&str>| -> Result<NetworkSpec, Stop> {
        let mut spec = NetworkSpec::bridge("new");
        spec.pools.push(AddressPool {
            subnet: subnet.map(str::parse).transpose()?,
            gateway: gateway.map(str::parse).transpose()?,
            range: range.map(str::parse).transpose()?,
        });
        Ok(spec)
    };
    let subnet = Some("10.214.9.0/24");
    let mut all = Vec::new();
    for (subnet, gateway, range, expected) in [
        (Some("10.214.8.0/24"), None, None, Why::Conflict),
        (Some("10.214.8.128/25"), None, None, Why::Conflict),
        (Some("10.214.0.0/16"), None, None, Why::Conflict),
        // No room, no place for containers.
        (Some("10.214.9.0/31"), None, None, Why::Invalid),
        (Some("10.214.9.0/32"), None, None, Why::Invalid),
        (Some("224.1.0.0/16"), None, None, Why::Invalid),
        (Some("127.5.0.0/16"), None, None, Why::Invalid),
        (Some("0.0.0.0/0"), None, None, Why::Invalid),
        (Some("fe80::/64"), None, None, Why::Invalid),
        // IPv6 was not asked for.
        (Some("fd00:77::/64"), None, None, Why::Invalid),
        (subnet, Some("10.214.10.1"), None, Why::Invalid),
        (subnet, Some("10.214.9.0"), None, Why::Invalid),
        (subnet, Some("10.214.9.255"), None, Why::Invalid),
        (subnet, Some("fd00::1"), None, Why::Invalid),
        (subnet, None, Some("10.214.10.0/25"), Why::Invalid),
        (subnet, None, Some("10.214.0.0/16"), Why::Invalid),
        (None, Some("10.214.9.1"), None, Why::Invalid),
        (None, None, Some("10.214.9.0/25"), Why::Invalid),
    ] {
        all.push((of(subnet, gateway, range)?, expected));
    }
    let several = NetworkSpec::bridge("new").subnet("10.214.9.0/24".parse()?);
    all.push((several.subnet("10.214.10.0/24".parse()?), Why::Unsupported));
    are_refused(&world, all).await
}

async fn i2_names_drivers_and_options_that_cannot_be() -> Check {
    let world = with_network("10.214.8.0/24").await?;
    let long = "x".repeat(129);
    let names = ["", "-x", "a b", "a/b", "ä", &long].map(|name| (NetworkSpec::bridge(name), Why::Invalid));
    let reserved = ["bridge", "host", "none", "default"].map(|name| (NetworkSpec::bridge(name), Why::Denied));
    let clashing = [(NetworkSpec::bridge("taken"), Why::Conflict)];
    let driver = |driver: &str| NetworkSpec::of_driver(driver, "new");
    let drivers = [
        (driver("weave"), Why::NotFound),
        (driver(""), Why::NotFound),
        (driver("overlay"), Why::Unsupported),
        (driver("host"), Why::Denied),
        (driver("null"), Why::Denied),
    ];
    let option = |name: &str, value: &str| NetworkSpec::bridge("new").driver_option(name, value);
    let options = [
        (option("colour", "red"), Why::Invalid),
        (option("parent", "eth0"), Why::Invalid),
        (option("com.docker.network.unheard_of", "1"), Why::Unsupported),
        (option("com.docker.network.bridge.enable_icc", "maybe"), Why::Invalid),
        (option("com.docker.network.driver.mtu", "67"), Why::Invalid),
        (option("com.docker.network.driver.mtu", "1e3"), Why::Invalid),
        (option("com.docker.network.driver.mtu", "1200").ipv6(true), Why::Invalid),
        (option("com.docker.network.enable_ipv4", "false"), Why::Unsupported),
        (
            option("com.docker.network.bridge.host_binding_ipv4", "here"),
            Why::Invalid,
        ),
    ];
    let all = names
        .into_iter()
        .chain(reserved)
        .chain(clashing)
        .chain(drivers)
        .chain(options);
    are_refused(&world, all).await
}

/// Why it does not start, at whatever point; it is removed again.
async fn not_started(world: &World, spec: ContainerSpec) -> Result<Error, Stop> {
    let created = match world.engine.create(spec).await {
        Err(error) => return Ok(error),
        Ok(created) => created,
    };
    let error = failure(created.start()).await?;
    created.remove(FORCE).await?;
    Ok(error)
}

async fn sleeper(world: &World, network: &str, place: EndpointSpec) -> Result<Container, Stop> {
    let spec = world.spec().command(["sleep", "1000"]).network(on(network));
    world.started(spec.endpoint(network, place)).await
}

fn at(address: [u8; 4]) -> EndpointSpec {
    EndpointSpec {
        ipv4: Some(address.into()),
        ..EndpointSpec::default()
    }
}

fn with_mac(mac: &str) -> EndpointSpec {
    EndpointSpec {
        mac: Some(mac.to_owned()),
        ..EndpointSpec::default()
    }
}

async fn i8_addresses_that_cannot_be() -> Check {
    let world = with_network("10.214.8.0/29").await?;
    let (manager, containers) = (world.engine.networks(), world.engine.containers());
    let there = sleeper(&world, "taken", at([10, 214, 8, 3])).await?;
    let beside = sleeper(&world, "bridge", EndpointSpec::default()).await?;
    let six = EndpointSpec {
        ipv6: Some("fd00::3".parse()?),
        ..EndpointSpec::default()
    };
    let places = [
        // A neighbour's, and the gateway's.
        (at([10, 214, 8, 3]), Why::Conflict),
        (at([10, 214, 8, 1]), Why::Conflict),
        // Of the subnet itself, of all of it, and of others.
        (at([10, 214, 8, 0]), Why::Invalid),
        (at([10, 214, 8, 7]), Why::Invalid),
        (at([10, 214, 8, 8]), Why::Invalid),
        (at([0, 0, 0, 0]), Why::Invalid),
        (at([127, 0, 0, 1]), Why::Invalid),
        (six, Why::Invalid),
        (with_mac("here"), Why::Invalid),
        (with_mac("01:00:00:00:00:07"), Why::Invalid),
        (with_mac("00:00:00:00:00:00"), Why::Invalid),
    ];
    for (place, expected) in places {
        let shown = format!("{place:?}");
        let spec = world.spec().command(["true"]).network(on("taken"));
        let error = not_started(&world, spec.endpoint("taken", place.clone())).await?;
        assert_eq!(why(&error)?, expected, "{shown}: {}", error.report());
        let connected = containers.connect(beside.id().as_str(), "taken", place);
        let error = failure(connected).await?;
        assert_eq!(why(&error)?, expected, "{shown}, connected: {}", error.report());
    }
    let info = manager.inspect("taken").await?;
    assert_eq!((info.containers.len(), info.in_use[0].1), (1, 2), "{info:?}");
    // All that is left, and one more.
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(sleeper(&world, "taken", EndpointSpec::default()).await?);
    }
    let spec = world.spec().command(["true"]).network(on("taken"));
    let error = not_started(&world, spec).await?;
    assert_eq!(error.kind(), &ErrorKind::IpamExhausted, "{}", error.report());
    let connected = containers.connect(beside.id().as_str(), "taken", EndpointSpec::default());
    let error = failure(connected).await?;
    assert_eq!(error.kind(), &ErrorKind::IpamExhausted, "{}", error.report());
    let info = manager.inspect("taken").await?;
    assert_eq!((info.containers.len(), info.in_use[0].1), (5, 6), "{info:?}");
    for container in others.into_iter().chain([there, beside]) {
        container.remove(FORCE).await?;
    }
    assert_eq!(manager.inspect("taken").await?.in_use[0].1, 1);
    manager.remove("taken").await?;
    assert!(world.engine.audit().await?.is_clean());
    Ok(())
}

/// A number that a file below `/proc/sys/net/ipv4` holds.
fn setting(name: &str) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok()?;
    text.trim().parse().ok()
}

async fn i4_ports_that_nobody_may_have() -> Check {
    let world = World::alone().await?;
    let publishing = |binding: PortBinding| {
        let mut spec = world.spec().command(["true"]).network(on("bridge"));
        spec.ports.push(binding);
        spec
    };
    // An address of documentation (RFC 5737) is none of the host's, unless the host binds to whatever is asked for.
    if setting("ip_nonlocal_bind") == Some(0) {
        let foreign = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77));
        let error = not_started(&world, publishing(PortBinding::new(Port::tcp(80), 0).at(foreign))).await?;
        assert_eq!(why(&error)?, Why::Invalid, "{}", error.report());
        assert!(error.report().contains("192.0.2.77"), "{}", error.report());
    }
    if !is_root() && setting("ip_unprivileged_port_start").is_some_and(|first| first > 1) {
        let error = not_started(&world, publishing(PortBinding::new(Port::tcp(80), 1))).await?;
        assert_eq!(why(&error)?, Why::Denied, "{}", error.report());
        assert!(error.report().contains("CAP_NET_BIND_SERVICE"), "{}", error.report());
    }
    let none = Port {
        number: 0,
        ..Port::tcp(80)
    };
    let error = not_started(&world, publishing(PortBinding::new(none, 0))).await?;
    assert_eq!(why(&error)?, Why::Invalid, "{}", error.report());
    let mut turned = PortBinding::new(Port::tcp(80), 9000);
    turned.host_port_end = 8999;
    let error = not_started(&world, publishing(turned)).await?;
    assert_eq!(why(&error)?, Why::Invalid, "{}", error.report());
    // Two of one container at the same port of the host.
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut twice = publishing(PortBinding::new(Port::tcp(80), free).at(Ipv4Addr::LOCALHOST.into()));
    twice
        .ports
        .push(PortBinding::new(Port::tcp(81), free).at(Ipv4Addr::LOCALHOST.into()));
    let error = not_started(&world, twice).await?;
    assert_eq!(why(&error)?, Why::Conflict, "{}", error.report());
    // What was refused holds no port.
    drop(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, free))?);
    let bridge = world.engine.networks().inspect("bridge").await?;
    assert!(bridge.containers.is_empty(), "{bridge:?}");
    assert!(world.engine.audit().await?.is_clean());
    Ok(())
}

async fn i6_places_that_cannot_be() -> Check {
    let world = with_network("10.214.8.0/24").await?;
    let (manager, containers) = (world.engine.networks(), world.engine.containers());
    let there = sleeper(&world, "taken", EndpointSpec::default()).await?;
    let alone = world.started(world.spec().command(["sleep", "1000"])).await?;
    let place = EndpointSpec::default;
    for (container, network, expected) in [
        (there.id().as_str(), "taken", Why::Conflict),
        (there.id().as_str(), "nowhere", Why::NotFound),
        ("nobody", "taken", Why::NotFound),
        // A container that runs without a network has no place for one.
        (alone.id().as_str(), "taken", Why::Conflict),
    ] {
        let error = failure(containers.connect(container, network, place())).await?;
        assert_eq!(why(&error)?, expected, "{container} {network}: {}", error.report());
    }
    for (container, network) in [(there.id().as_str(), "bridge"), ("nobody", "taken")] {
        let error = failure(containers.disconnect(container, network)).await?;
        assert_eq!(why(&error)?, Why::NotFound, "{container} {network}: {}", error.report());
    }
    for (network, expected) in [
        ("taken", Why::Conflict),
        ("nowhere", Why::NotFound),
        ("bridge", Why::Denied),
        ("host", Why::Denied),
        ("none", Why::Denied),
    ] {
        let error = failure(manager.remove(network)).await?;
        assert_eq!(why(&error)?, expected, "{network}: {}", error.report());
    }
    let info = manager.inspect("taken").await?;
    assert_eq!((info.containers.len(), info.in_use[0].1), (1, 2), "{info:?}");
    for container in [there, alone] {
        container.remove(FORCE).await?;
    }
    manager.remove("taken").await?;
    assert!(world.engine.audit().await?.is_clean());
    Ok(())
}
