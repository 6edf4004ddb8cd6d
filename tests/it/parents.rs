//! Networks on a link of the host's: macvlan, ipvlan, VLANs. What needs a host is in a network namespace of the test's, whose links are
//! the host's for the engine: a pair, of which one end is the parent and the other is a neighbour beyond it.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use longshore::networks::{NetworkInfo, NetworkSpec};
use longshore::types::{EndpointSpec, LinkShape, Port, Shaping};
use longshore::{Container, ContainerSpec, Engine, Error, ErrorKind, ExecSpec, NetworkMode, Outcome};
use serde_json::json;

use crate::frame::{Check, Stop, block_on, fail, skip};
use crate::longshored::Daemon;
use crate::networking::longshore;
use crate::support::embedder::{Embedder, Role};
use crate::support::patience::until;
use crate::support::world::{FORCE, World, source, text};
use crate::support::{image, is_root, program};
use crate::tests;

tests! { "parents":
    kernel [
        i10_a_container_is_on_its_parent_with_an_address_of_its_own,
        i10_one_container_has_a_parent_for_itself,
        i10_ipvlan_shares_the_parent_s_address,
        i10_a_vlan_is_made_where_the_host_has_none,
        i10_nothing_is_left_of_an_engine_that_is_killed,
        i10_over_the_api,
    ]
    kernel_async [
        i10_without_a_parent_containers_reach_each_other_alone,
        i10_what_is_missing_is_named,
    ]
}

pub const ROLES: &[(&str, Role)] = &[
    ("parents-macvlan", |arguments| role(arguments, macvlan)),
    ("parents-passthru", |arguments| role(arguments, passthru)),
    ("parents-ipvlan", |arguments| role(arguments, ipvlan)),
    ("parents-vlan", |arguments| role(arguments, vlan)),
    ("parents-killed", |arguments| role(arguments, killed)),
    ("parents-holder", |arguments| role(arguments, holder)),
];

const SUBNET: &str = "10.77.0.0/24";
const NEIGHBOUR: &str = "10.77.0.1";

/// What a role works with.
struct Host {
    engine: Engine,
    image: String,
    root: String,
    source: String,
}

fn role<F: AsyncFnOnce(&Host) -> Check>(arguments: &[String], work: F) -> i32 {
    let done = block_on(async {
        let engine = Engine::open(Path::new(&arguments[0])).await?;
        let image = engine.pull(&arguments[1]).await?.id().to_string();
        let host = Host {
            engine,
            image,
            root: arguments[0].clone(),
            source: arguments[1].clone(),
        };
        work(&host).await?;
        host.engine.close().await;
        Ok(())
    });
    match done {
        Ok(()) => println!("ok"),
        Err(Stop::Skip(why)) => println!("skip: {}", why.replace('\n', " ")),
        Err(Stop::Fail(why)) => println!("{}", why.replace('\n', " ")),
    }
    0
}

/// Runs a role in a network namespace of its own, as root.
fn on_a_host(role: &str) -> Check {
    if !is_root() {
        return skip("only root has links of the host's for a parent");
    }
    program("ip")?;
    let root = crate::support::scratch::fresh("root");
    let (place, image) = (root.path().display().to_string(), source(image::shared()?));
    let role = Embedder::start_under(&["unshare", "--net"], role, &[&place, &image])?;
    match role.line(Duration::from_secs(100))?.as_str() {
        "ok" => Ok(()),
        said => match said.strip_prefix("skip: ") {
            Some(why) => skip(why),
            None => fail(said),
        },
    }
}

fn i10_a_container_is_on_its_parent_with_an_address_of_its_own() -> Check {
    on_a_host("parents-macvlan")
}

fn i10_one_container_has_a_parent_for_itself() -> Check {
    on_a_host("parents-passthru")
}

fn i10_ipvlan_shares_the_parent_s_address() -> Check {
    on_a_host("parents-ipvlan")
}

fn i10_a_vlan_is_made_where_the_host_has_none() -> Check {
    on_a_host("parents-vlan")
}

fn i10_nothing_is_left_of_an_engine_that_is_killed() -> Check {
    on_a_host("parents-killed")
}

fn ip(arguments: &str) -> Result<String, Stop> {
    let output = Command::new(program("ip")?).args(arguments.split(' ')).output()?;
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => fail(format!("ip {arguments}: {output:?}")),
    }
}

/// The parent `p0`, and beyond it `veth0`, with an address.
fn links() -> Check {
    for command in [
        "link set lo up",
        "link add p0 type veth",
        "link set p0 up",
        "link set veth0 up",
        "addr add 10.77.0.1/24 dev veth0",
    ] {
        ip(command)?;
    }
    Ok(())
}

/// Names of all links.
fn names() -> Result<Vec<String>, Stop> {
    let shown = ip("-o link")?;
    let names = shown
        .lines()
        .filter_map(|line| line.split(": ").nth(1)?.split('@').next());
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort();
    Ok(names)
}

fn mac_of(link: &str) -> Result<String, Stop> {
    let shown = ip(&format!("-o link show {link}"))?;
    let mut words = shown.split_whitespace().skip_while(|word| *word != "link/ether");
    match words.nth(1) {
        Some(mac) => Ok(mac.to_owned()),
        None => fail(shown),
    }
}

fn with_gateway(spec: NetworkSpec) -> NetworkSpec {
    let mut spec = spec.subnet(SUBNET.parse().expect("a subnet"));
    spec.pools[0].gateway = NEIGHBOUR.parse().ok();
    spec
}

fn on(network: &str) -> NetworkMode {
    NetworkMode::Named(network.to_owned())
}

impl Host {
    fn sleeper(&self, network: &str) -> ContainerSpec {
        ContainerSpec::image(&self.image)
            .command(["sleep", "1000"])
            .network(on(network))
    }

    async fn started(&self, network: &str) -> Result<Container, Stop> {
        Ok(self.engine.run(self.sleeper(network)).await?)
    }

    async fn create(&self, spec: NetworkSpec) -> Result<NetworkInfo, Stop> {
        let name = spec.name.clone();
        self.engine.networks().create(spec).await?;
        Ok(self.engine.networks().inspect(&name).await?)
    }
}

async fn sh(container: &Container, script: &str) -> Result<String, Stop> {
    let output = container.exec(ExecSpec::new(["sh", "-c", script])).output().await?;
    if !output.status.success() {
        return fail(format!("{script}: {output:?}"));
    }
    Ok(text(&output.stdout))
}

async fn succeeds(container: &Container, script: &str) -> Result<bool, Stop> {
    let output = container.exec(ExecSpec::new(["sh", "-c", script])).output().await?;
    Ok(output.status.success())
}

async fn address(container: &Container, network: &str) -> Result<Ipv4Addr, Stop> {
    let info = container.inspect().await?;
    let place = info.endpoints.iter().find(|endpoint| endpoint.network == network);
    Ok(place.and_then(|place| place.ipv4).expect("it has an address").0)
}

async fn mac(container: &Container, network: &str) -> Result<String, Stop> {
    let info = container.inspect().await?;
    let place = info.endpoints.iter().find(|endpoint| endpoint.network == network);
    Ok(place.expect("it is there").mac.clone())
}

fn ping(to: impl std::fmt::Display) -> String {
    format!("ping -c 1 -W 5 {to}")
}

async fn macvlan(host: &Host) -> Check {
    links()?;
    let before = names()?;
    let info = host.create(with_gateway(NetworkSpec::macvlan("lan", "p0"))).await?;
    assert_eq!(
        (info.driver.as_str(), info.spec.options["parent"].as_str()),
        ("macvlan", "p0")
    );
    let (one, other) = (host.started("lan").await?, host.started("lan").await?);
    // The one link of each, with the address that is told, at the parent, and nothing of it in the host's network.
    let told = mac(&one, "lan").await?;
    assert_eq!(sh(&one, "cat /sys/class/net/eth0/address").await?, told);
    assert_ne!(told, mac_of("p0")?);
    assert_eq!(names()?, before, "nothing of it is in the host's network");
    let routes = sh(&one, "ip route").await?;
    assert!(
        routes.contains(&format!("default via {NEIGHBOUR} dev eth0")),
        "{routes}"
    );
    let to = address(&other, "lan").await?;
    sh(&one, &ping(to)).await?;
    sh(&one, &ping(NEIGHBOUR)).await?;
    assert!(
        ip("neigh show dev veth0")?.contains(&told),
        "the neighbour knows another address"
    );
    // Names, as in every network that was made.
    let name = other.inspect().await?.name;
    let found = sh(&one, &format!("nslookup {name} 127.0.0.11")).await?;
    assert!(found.contains(&to.to_string()), "{found}");
    // Of choice, while it runs.
    host.create(NetworkSpec::bridge("beside")).await?;
    let containers = host.engine.containers();
    let third = host.started("beside").await?;
    let place = EndpointSpec {
        ipv4: Some(Ipv4Addr::new(10, 77, 0, 77)),
        mac: Some("02:42:aa:bb:cc:dd".into()),
        ..EndpointSpec::default()
    };
    containers.connect(third.id().as_str(), "lan", place.clone()).await?;
    let inside = sh(&third, "ip addr show eth1").await?;
    assert!(
        inside.contains("10.77.0.77/24") && inside.contains("02:42:aa:bb:cc:dd"),
        "{inside}"
    );
    sh(&third, &ping(to)).await?;
    // No container can have what another has.
    let taken = EndpointSpec {
        ipv4: None,
        ..place.clone()
    };
    let fourth = host.started("beside").await?;
    let refused = containers
        .connect(fourth.id().as_str(), "lan", taken)
        .await
        .expect_err("the same hardware address");
    assert!(refused.is_conflict(), "{}", refused.report());
    assert!(!succeeds(&fourth, "ip link show eth1").await?, "a link was left");
    containers.disconnect(third.id().as_str(), "lan").await?;
    assert!(!succeeds(&third, "ip link show eth1").await?);
    containers.connect(fourth.id().as_str(), "lan", place).await?;
    sh(&fourth, &ping(to)).await?;
    containers.disconnect(fourth.id().as_str(), "lan").await?;
    // What a bridge has and this has not.
    let published = host.sleeper("lan").publish(Port::tcp(80), 0);
    assert!(
        host.engine
            .run(published)
            .await
            .expect_err("no bridge")
            .is_unsupported()
    );
    let shape = Shaping::both(LinkShape::default().rate_bits(1_000_000));
    assert!(one.shape("lan", shape).await.expect_err("one end").is_unsupported());
    assert!(one.partition_from(&other).await.expect_err("no rules").is_unsupported());
    // A bridge beside has them, and what is at the parent is reached from it as the rest of the world.
    let published = host.sleeper("beside").publish(Port::tcp(80), 0);
    let fifth = host
        .engine
        .run(published.endpoint("lan", EndpointSpec::default()))
        .await?;
    sh(&fifth, &ping(to)).await?;
    assert!(host.engine.audit().await?.is_clean());
    remove_by_hand(&one).await?;
    let found = host.engine.audit().await?;
    assert!(
        found
            .findings
            .iter()
            .any(|finding| finding.to_string().contains("link is gone")),
        "{found:?}"
    );
    for container in [one, other, third, fourth, fifth] {
        container.remove(FORCE).await?;
    }
    for network in ["lan", "beside"] {
        assert_eq!(host.engine.networks().remove(network).await?, Outcome::Done);
    }
    assert_eq!(names()?, before);
    Ok(())
}

/// From outside, a container's `eth0`.
async fn remove_by_hand(container: &Container) -> Check {
    let pid = container.inspect().await?.pid.expect("it runs");
    let removed = Command::new("nsenter")
        .args([&format!("--net=/proc/{pid}/ns/net"), "ip", "link", "del", "eth0"])
        .status()?;
    assert!(removed.success());
    Ok(())
}

async fn passthru(host: &Host) -> Check {
    links()?;
    let spec = |name: &str, mode: &str| {
        let subnet = if name == "all" { "10.78.0.0/24" } else { "10.79.0.0/24" };
        let spec = NetworkSpec::macvlan(name, "p0").driver_option("macvlan_mode", mode);
        spec.subnet(subnet.parse().expect("a subnet"))
    };
    host.create(spec("all", "passthru")).await?;
    host.create(spec("some", "private")).await?;
    let own = EndpointSpec {
        mac: Some("02:42:aa:bb:cc:dd".into()),
        ..EndpointSpec::default()
    };
    let refused = host.engine.run(host.sleeper("all").endpoint("all", own)).await;
    assert_eq!(
        refused.expect_err("its own address").kind(),
        &ErrorKind::InvalidArgument
    );
    let one = host.started("all").await?;
    assert_eq!(mac(&one, "all").await?, mac_of("p0")?);
    assert_eq!(sh(&one, "cat /sys/class/net/eth0/address").await?, mac_of("p0")?);
    // Nobody else, on this network or another, until it has gone.
    for network in ["all", "some"] {
        let refused = host.engine.run(host.sleeper(network)).await.expect_err("one alone");
        assert!(refused.is_conflict(), "{}", refused.report());
    }
    one.remove(FORCE).await?;
    let one = host.started("all").await?;
    one.remove(FORCE).await?;
    host.engine.networks().remove("all").await?;
    // In private mode, no container reaches another.
    let (one, other) = (host.started("some").await?, host.started("some").await?);
    let to = address(&other, "some").await?;
    assert!(!succeeds(&one, &format!("ping -c 1 -W 1 {to}")).await?);
    for container in [one, other] {
        container.remove(FORCE).await?;
    }
    Ok(())
}

/// Skips where the kernel lacks what is named.
fn lacks(error: Error) -> Stop {
    match error.is_unsupported() {
        true => Stop::Skip(error.report()),
        false => error.into(),
    }
}

async fn ipvlan(host: &Host) -> Check {
    links()?;
    let manager = host.engine.networks();
    let l2 = with_gateway(NetworkSpec::ipvlan("l2", "p0"));
    manager.create(l2).await.map_err(lacks)?;
    let (one, other) = (host.started("l2").await?, host.started("l2").await?);
    assert_eq!(sh(&one, "cat /sys/class/net/eth0/address").await?, mac_of("p0")?);
    assert_eq!(mac(&one, "l2").await?, mac_of("p0")?);
    sh(&one, &ping(address(&other, "l2").await?)).await?;
    sh(&one, &ping(NEIGHBOUR)).await?;
    // All links of a parent have one mode.
    let l3 = NetworkSpec::ipvlan("l3", "p0").driver_option("ipvlan_mode", "l3");
    manager.create(l3.subnet("10.78.0.0/24".parse()?)).await?;
    let refused = host.engine.run(host.sleeper("l3")).await.expect_err("another mode");
    assert!(refused.is_conflict(), "{}", refused.report());
    for container in [one, other] {
        container.remove(FORCE).await?;
    }
    manager.remove("l2").await?;
    let (one, other) = (host.started("l3").await?, host.started("l3").await?);
    let routes = sh(&one, "ip route").await?;
    assert!(
        routes.contains("default dev eth0") && !routes.contains("via"),
        "{routes}"
    );
    sh(&one, &ping(address(&other, "l3").await?)).await?;
    for container in [one, other] {
        container.remove(FORCE).await?;
    }
    manager.remove("l3").await?;
    Ok(())
}

async fn vlan(host: &Host) -> Check {
    links()?;
    let before = names()?;
    if let Err(Stop::Fail(why)) = ip("link add link veth0 name veth0.10 type vlan id 10") {
        return skip(format!("no VLANs: {why}"));
    }
    ip("addr flush dev veth0")?;
    ip("link set veth0.10 up")?;
    ip("addr add 10.77.0.1/24 dev veth0.10")?;
    let with_neighbour = names()?;
    assert_ne!(before, with_neighbour);
    host.create(with_gateway(NetworkSpec::macvlan("ten", "p0.10"))).await?;
    let second = NetworkSpec::macvlan("ten-more", "p0.10").subnet("10.78.0.0/24".parse()?);
    host.create(second).await?;
    let (one, other) = (host.started("ten").await?, host.started("ten-more").await?);
    sh(&one, &ping(NEIGHBOUR)).await?;
    assert_eq!(names()?, with_neighbour, "the VLAN is not in the host's network");
    for (container, network) in [(one, "ten"), (other, "ten-more")] {
        container.remove(FORCE).await?;
        host.engine.networks().remove(network).await?;
    }
    // Nobody has it any more.
    ip("link add link p0 name p0.10 type vlan id 10")?;
    Ok(())
}

async fn holder(host: &Host) -> Check {
    let all = NetworkSpec::macvlan("all", "p0").driver_option("macvlan_mode", "passthru");
    host.create(all.subnet(SUBNET.parse()?)).await?;
    let _one = host.started("all").await?;
    println!("up");
    std::thread::sleep(Duration::from_secs(600));
    Ok(())
}

/// The parent is for one alone: as long as anything of the dead engine's is there, another cannot have it.
async fn killed(host: &Host) -> Check {
    links()?;
    let before = names()?;
    let mut other = Embedder::start("parents-holder", &[&host.root, &host.source])?;
    assert_eq!(other.line(Duration::from_secs(60))?, "up");
    let all = NetworkSpec::macvlan("mine", "p0").driver_option("macvlan_mode", "passthru");
    host.create(all.subnet("10.78.0.0/24".parse()?)).await?;
    let refused = host.engine.run(host.sleeper("mine")).await.expect_err("another has it");
    assert!(refused.is_conflict(), "{}", refused.report());
    other.kill()?;
    assert_eq!(names()?, before, "it was never in the host's network");
    until("the parent is free again", async || {
        match host.engine.run(host.sleeper("mine")).await {
            Ok(container) => {
                container.remove(FORCE).await?;
                Ok(true)
            }
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error.into()),
        }
    })
    .await?;
    let left = host.engine.networks().list().await?;
    assert!(!left.iter().any(|one| one.name == "all"), "{left:?}");
    assert!(host.engine.audit().await?.is_clean());
    Ok(())
}

/// As root and as an ordinary user: nothing of the host is needed.
async fn i10_without_a_parent_containers_reach_each_other_alone() -> Check {
    let world = World::new().await?;
    let manager = world.engine.networks();
    for (name, parent) in [("nowhere", ""), ("within", "eth0")] {
        let spec = NetworkSpec::macvlan(name, parent).internal(name == "within");
        manager.create(spec).await?;
        assert!(
            manager.inspect(name).await?.spec.internal,
            "it leads nowhere, and says so"
        );
        let sleeper = || world.spec().command(["sleep", "1000"]).network(on(name));
        let first = world.engine.run(sleeper()).await;
        if let Err(error) = &first
            && error.is_unsupported()
        {
            manager.remove(name).await?;
            return skip(error.report());
        }
        let (one, other) = (first?, world.started(sleeper()).await?);
        sh(&one, &ping(address(&other, name).await?)).await?;
        assert_eq!(sh(&one, "ip route | grep default || true").await?, "");
        let busy = manager.remove(name).await.expect_err("in use");
        assert!(busy.is_conflict(), "{}", busy.report());
        for container in [one, other] {
            container.remove(FORCE).await?;
        }
        assert_eq!(manager.remove(name).await?, Outcome::Done);
    }
    assert!(world.engine.audit().await?.is_clean());
    Ok(())
}

async fn i10_what_is_missing_is_named() -> Check {
    let world = World::new().await?;
    let manager = world.engine.networks();
    let refused = async |spec: NetworkSpec| manager.create(spec).await.expect_err("it cannot be");
    if !is_root() {
        let error = refused(NetworkSpec::macvlan("refused", "eth0")).await;
        match error.kind() {
            ErrorKind::Unsupported { needs } => assert!(needs.contains("CAP_NET_ADMIN"), "{needs}"),
            _ => return fail(error.report()),
        }
    } else {
        let error = refused(NetworkSpec::macvlan("refused", "no-such-link")).await;
        assert_eq!(error.kind(), &ErrorKind::InvalidArgument, "{}", error.report());
        let error = refused(NetworkSpec::macvlan("refused", "no-such-link.10")).await;
        assert_eq!(error.kind(), &ErrorKind::InvalidArgument, "{}", error.report());
    }
    let error = refused(NetworkSpec::macvlan("refused", "eth0").driver_option("macvlan_mode", "x")).await;
    assert_eq!(error.kind(), &ErrorKind::InvalidArgument);
    let named = manager.list().await?.iter().any(|network| network.name == "refused");
    assert!(!named, "a network was left");
    Ok(())
}

fn i10_over_the_api() -> Check {
    let mut daemon = Daemon::start(&[])?;
    let body = json!({
        "Name": "lan", "Driver": "macvlan", "Options": {"macvlan_mode": "vepa"},
        "IPAM": {"Config": [{"Subnet": "10.214.7.0/24"}]},
    });
    daemon.ask("POST", "/networks/create", &body.to_string())?.expect(201)?;
    let shown = daemon.ask("GET", "/networks/lan", "")?.expect(200)?.json()?;
    assert_eq!(shown["Driver"], "macvlan", "{shown}");
    assert_eq!(shown["Options"]["macvlan_mode"], "vepa", "{shown}");
    assert_eq!(shown["IPAM"]["Config"], json!([{"Subnet": "10.214.7.0/24"}]), "{shown}");
    let host = format!("unix://{}", daemon.socket.display());
    let create = [
        "network",
        "create",
        "-d",
        "macvlan",
        "--subnet",
        "10.214.8.0/24",
        "-o",
        "macvlan_mode=bridge",
        "more",
    ];
    let made = longshore(&["--host", &host], &create)?;
    assert!(made.is_ok(), "{made:?}");
    let shown = daemon.ask("GET", "/networks/more", "")?.expect(200)?.json()?;
    assert_eq!(shown["Options"]["macvlan_mode"], "bridge", "{shown}");
    let bad = json!({"Name": "bad", "Driver": "macvlan", "Options": {"macvlan_mode": "l2"}});
    daemon.ask("POST", "/networks/create", &bad.to_string())?.expect(400)?;
    for name in ["lan", "more"] {
        daemon.ask("DELETE", &format!("/networks/{name}"), "")?.expect(204)?;
    }
    daemon.stop()
}
