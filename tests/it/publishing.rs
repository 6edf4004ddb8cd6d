//! Ports and subnets among others: a firewall of the host, addresses of choice, many at once, engines side by side.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use longshore::networks::NetworkSpec;
use longshore::types::{EndpointSpec, Port, PortBinding};
use longshore::{Container, ContainerSpec, Engine, ErrorKind, ExecSpec, NetworkMode};

use crate::frame::{Check, Stop, block_on, fail, skip};
use crate::support::embedder::{Embedder, Role};
use crate::support::world::{FORCE, World, source, text};
use crate::support::{image, is_root, program};
use crate::tests;

tests! { "publishing":
    kernel [
        i5_p25_a_firewall_of_the_host_has_its_say,
    ]
    kernel_async [
        i5_p25_ports_are_at_the_address_of_choice,
        p23_ports_that_the_kernel_chooses_never_clash,
        p24_the_same_subnet_in_two_engines,
    ]
}

pub const ROLES: &[(&str, Role)] = &[("publish-behind-firewall", |arguments| {
    block_on(async { behind_firewall(Path::new(&arguments[0]), &arguments[1]).await })
})];

const GREETER: &str = "while true; do busybox nc -l -p 7000 -e echo hello; done";

fn on(network: &str) -> NetworkMode {
    NetworkMode::Named(network.to_owned())
}

fn ask(to: SocketAddr) -> Result<String, Stop> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said.trim().to_owned())
}

fn ask_patiently(to: SocketAddr) -> Result<String, Stop> {
    for _ in 0..200 {
        match ask(to) {
            Ok(said) if !said.is_empty() => return Ok(said),
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
    ask(to)
}

async fn port_of(container: &Container) -> Result<SocketAddr, Stop> {
    let ports = container.inspect().await?.ports;
    let port = ports
        .iter()
        .find(|port| port.host_ip.is_ipv4())
        .expect("it is published");
    Ok(SocketAddr::new(port.host_ip, port.host_port))
}

/// In a network namespace of the test's: its rules and links are the host's, for this engine.
fn i5_p25_a_firewall_of_the_host_has_its_say() -> Check {
    if !is_root() {
        return skip("only root has rules for a firewall");
    }
    program("nft")?;
    let root = crate::support::scratch::fresh("root");
    let (place, image) = (root.path().display().to_string(), source(image::shared()?));
    let role = Embedder::start_under(&["unshare", "--net"], "publish-behind-firewall", &[&place, &image])?;
    match role.line(Duration::from_secs(60))?.as_str() {
        "ok" => Ok(()),
        said => fail(said),
    }
}

async fn behind_firewall(root: &Path, image: &str) -> i32 {
    match firewalled(root, image).await {
        Ok(()) => println!("ok"),
        Err(Stop::Skip(why) | Stop::Fail(why)) => println!("{}", why.replace('\n', " ")),
    }
    0
}

fn tool(name: &str, arguments: &[&str]) -> Result<String, Stop> {
    let output = Command::new(program(name)?).args(arguments).output()?;
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => fail(format!("{name} {arguments:?}: {output:?}")),
    }
}

/// All that the host's network consists of.
fn host() -> Result<[String; 3], Stop> {
    Ok([
        tool("nft", &["list", "ruleset"])?,
        tool("ip", &["-o", "link"])?,
        tool("ip", &["route", "show", "table", "all"])?,
    ])
}

async fn firewalled(root: &Path, image: &str) -> Check {
    tool("ip", &["link", "set", "lo", "up"])?;
    let before = host()?;
    let engine = Engine::open(root).await?;
    let image = engine.pull(image).await?;
    let spec = ContainerSpec::image(image.id().to_string()).command(["sh", "-c", GREETER]);
    let server = engine
        .run(spec.network(on("bridge")).publish(Port::tcp(7000), 0))
        .await?;
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port_of(&server).await?.port());
    assert_eq!(ask_patiently(to)?, "hello");
    assert_eq!(host()?, before, "nothing of it is in the host's network");
    let rules = format!(
        "table inet firewall {{ chain input {{ type filter hook input priority 0; tcp dport {} drop; }}; }}",
        to.port()
    );
    tool("nft", &[&rules])?;
    assert!(ask(to).is_err(), "the host's rule is not heeded");
    tool("nft", &["delete", "table", "inet", "firewall"])?;
    assert_eq!(ask_patiently(to)?, "hello");
    server.remove(FORCE).await?;
    engine.close().await;
    assert_eq!(host()?, before);
    Ok(())
}

fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback())
}

async fn i5_p25_ports_are_at_the_address_of_choice() -> Check {
    let world = World::alone().await?;
    world.engine.clone().close().await;
    let engine = Engine::builder(world.root.path())
        .publish_at(Ipv4Addr::LOCALHOST.into())
        .open()
        .await?;
    let greeter = || world.script(GREETER).network(on("bridge"));
    let near = engine.run(greeter().publish(Port::tcp(7000), 0)).await?;
    let ports = near.inspect().await?.ports;
    assert_eq!(ports.len(), 1, "{ports:?}");
    let at = port_of(&near).await?;
    assert_eq!(at.ip(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    assert_eq!(ask_patiently(at)?, "hello");
    // One that names its address has that.
    let mut spec = greeter();
    spec.ports
        .push(PortBinding::new(Port::tcp(7000), 0).at(Ipv4Addr::UNSPECIFIED.into()));
    let far = engine.run(spec).await?;
    let everywhere = port_of(&far).await?;
    assert_eq!(everywhere.ip(), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    if let Some(address) = own_address() {
        assert_eq!(ask_patiently(SocketAddr::new(address, everywhere.port()))?, "hello");
        assert!(
            ask(SocketAddr::new(address, at.port())).is_err(),
            "from other machines, too"
        );
    }
    for container in [near, far] {
        container.remove(FORCE).await?;
    }
    engine.close().await;
    Ok(())
}

async fn p23_ports_that_the_kernel_chooses_never_clash() -> Check {
    let (one, other) = (World::alone().await?, World::alone().await?);
    let sleeper = |world: &World| world.spec().command(["sleep", "1000"]).network(on("bridge"));
    let starting = (0..32).map(|number| {
        let world = if number % 2 == 0 { &one } else { &other };
        world.started(sleeper(world).publish(Port::tcp(80), 0))
    });
    let mut all = Vec::new();
    for started in futures_util::future::join_all(starting).await {
        all.push(started?);
    }
    let mut seen = BTreeSet::new();
    for container in &all {
        let port = port_of(container).await?.port();
        assert!(port != 0 && seen.insert(port), "{port} twice");
        assert!(TcpListener::bind(("0.0.0.0", port)).is_err(), "{port} is anybody's");
    }
    // A port that somebody has is told by name, and what asked for it can be started once it is free.
    let taken = *seen.first().expect("a port");
    let late = one.engine.create(sleeper(&one).publish(Port::tcp(80), taken)).await?;
    let refused = late.start().await.expect_err("somebody has it");
    assert_eq!(refused.kind(), &ErrorKind::Conflict);
    assert!(refused.report().contains(&taken.to_string()), "{}", refused.report());
    for container in all {
        container.remove(FORCE).await?;
    }
    late.start().await?;
    assert_eq!(port_of(&late).await?.port(), taken);
    late.remove(FORCE).await?;
    Ok(())
}

async fn p24_the_same_subnet_in_two_engines() -> Check {
    let worlds = [World::alone().await?, World::alone().await?];
    let address = Ipv4Addr::new(10, 213, 21, 9);
    let mut servers = Vec::new();
    for (name, world) in ["first", "second"].into_iter().zip(&worlds) {
        let network = NetworkSpec::bridge("same").subnet("10.213.21.0/24".parse()?);
        world.engine.networks().create(network).await?;
        let place = EndpointSpec {
            ipv4: Some(address),
            ..EndpointSpec::default()
        };
        let script = format!("while true; do busybox nc -l -p 7000 -e echo {name}; done");
        let spec = world.script(&script).network(on("same")).endpoint("same", place);
        servers.push(world.started(spec).await?);
    }
    for (name, world) in ["first", "second"].into_iter().zip(&worlds) {
        let client = world.spec().command(["sleep", "1000"]).network(on("same"));
        let client = world.started(client).await?;
        let script = format!(
            "for i in $(seq 100); do said=$(nc {address} 7000 </dev/null) && break; sleep 0.1; done; echo $said"
        );
        let output = client.exec(ExecSpec::new(["sh", "-c", &script])).output().await?;
        assert_eq!(text(&output.stdout), name, "each has its own");
        client.remove(FORCE).await?;
    }
    for server in servers {
        server.remove(FORCE).await?;
    }
    Ok(())
}
