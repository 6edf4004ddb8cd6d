//! Ports and subnets among others: a firewall of the host, addresses of choice, many at once, engines side by side.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use longshore::networks::{NetworkSpec, Subnet};
use longshore::types::{EndpointSpec, Port, PortBinding};
use longshore::{Container, ContainerSpec, Engine, ErrorKind, ExecSpec, Filter, NetworkMode};

use crate::frame::{Check, Stop, block_on, fail, skip};
use crate::support::embedder::{Embedder, Role};
use crate::support::patience::until_now;
use crate::support::world::{FORCE, World, source, text};
use crate::support::{image, is_root, names_in, program};
use crate::tests;

tests! { "publishing":
    kernel [
        i5_p25_a_firewall_of_the_host_has_its_say,
        i14_p25_beside_a_docker_that_runs,
    ]
    kernel_async [
        i5_p25_ports_are_at_the_address_of_choice,
        i5_a_network_says_where_its_ports_are,
        p23_ports_that_the_kernel_chooses_never_clash,
        p24_the_same_subnet_in_two_engines,
        i8_processes_on_one_root_never_choose_the_same_subnet,
    ]
}

pub const ROLES: &[(&str, Role)] = &[
    ("publish-behind-firewall", |arguments| {
        told(block_on(firewalled(Path::new(&arguments[0]), &arguments[1])))
    }),
    ("publish-beside-docker", |arguments| {
        told(block_on(beside_docker(Path::new(&arguments[0]), &arguments[1])))
    }),
    ("make-networks", |arguments| {
        told(block_on(make_networks(Path::new(&arguments[0]))))
    }),
];

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
    let mut said = String::new();
    until_now("the server in the container answers", || {
        said = ask(to).unwrap_or_default();
        Ok(!said.is_empty())
    })?;
    Ok(said)
}

async fn port_of(container: &Container) -> Result<SocketAddr, Stop> {
    let ports = container.inspect().await?.ports;
    let port = ports
        .iter()
        .find(|port| port.host_ip.is_ipv4())
        .expect("it is published");
    Ok(SocketAddr::new(port.host_ip, port.host_port))
}

/// How a role went, for the test that started it.
pub fn told(went: Check) -> i32 {
    match went {
        Ok(()) => println!("ok"),
        Err(Stop::Skip(why)) => println!("skip {}", why.replace('\n', " ")),
        Err(Stop::Fail(why)) => println!("{}", why.replace('\n', " ")),
    }
    0
}

/// Runs a role in a network namespace of its own, and with mounts of its own: the host's, for all that it starts.
fn elsewhere(role: &str) -> Check {
    let root = crate::support::scratch::fresh("root");
    let (place, image) = (root.path().display().to_string(), source(image::shared()?));
    let role = Embedder::start_under(&["unshare", "--net", "--mount"], role, &[&place, &image])?;
    let said = role.line(Duration::from_secs(300))?;
    match said.strip_prefix("skip ") {
        Some(why) => skip(why),
        None if said == "ok" => Ok(()),
        None => fail(said),
    }
}

fn i5_p25_a_firewall_of_the_host_has_its_say() -> Check {
    if !is_root() {
        return skip("only root has rules for a firewall");
    }
    program("nft")?;
    elsewhere("publish-behind-firewall")
}

fn i14_p25_beside_a_docker_that_runs() -> Check {
    if !is_root() {
        return skip("dockerd needs root");
    }
    for name in ["dockerd", "docker", "containerd", "iptables", "nft"] {
        program(name)?;
    }
    elsewhere("publish-beside-docker")
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

/// A dockerd with all of its networking. Ends when dropped.
struct Docker {
    child: Child,
    host: String,
}

/// The parent of its containers' cgroups, which it does not remove.
const GROUPS: &str = "longshore-beside";

impl Docker {
    fn start(dir: &Path) -> Result<Self, Stop> {
        let at = |name: &str| dir.join(name).display().to_string();
        std::fs::create_dir(dir)?;
        let host = format!("unix://{}", at("s"));
        let log = std::fs::File::create(at("log"))?;
        let child = Command::new(program("setpriv")?)
            .args(["--pdeathsig", "TERM", "--", "dockerd", "--storage-driver=vfs"])
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
            .args(["--cgroup-parent", &format!("/{GROUPS}"), "--host", &host])
            .args([
                "--data-root",
                &at("data"),
                "--exec-root",
                &at("exec"),
                "--pidfile",
                &at("pid"),
            ])
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let docker = Self { child, host };
        until_now("dockerd answers", || Ok(docker.run(&["version"]).is_ok()))?;
        Ok(docker)
    }

    fn run(&self, arguments: &[&str]) -> Result<String, Stop> {
        tool("docker", &[&["--host", self.host.as_str()], arguments].concat())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
        let all = Path::new("/sys/fs/cgroup");
        let hierarchies = names_in(all).into_iter().map(|name| all.join(name));
        for dir in hierarchies.chain([all.to_owned()]) {
            let _ = std::fs::remove_dir(dir.join(GROUPS));
        }
    }
}

/// The host's network without what counts packets.
fn rules_links_and_routes() -> Result<[String; 3], Stop> {
    let [_, links, routes] = host()?;
    Ok([tool("nft", &["--stateless", "list", "ruleset"])?, links, routes])
}

/// Each reaches its own containers, and ours reach Docker's; nothing of Docker's is another's, nor changed.
async fn beside_docker(root: &Path, image: &str) -> Check {
    tool("ip", &["link", "set", "lo", "up"])?;
    let dir = root.join("docker");
    let docker = Docker::start(&dir)?;
    let files = dir.join("busybox.tar");
    std::fs::write(&files, image::busybox_files()?.tar()?)?;
    docker.run(&["import", &files.display().to_string(), "bb"])?;
    let greeter = GREETER.replace("hello", "docker");
    let run = [
        "run",
        "--detach",
        "--name",
        "theirs",
        "--publish",
        "127.0.0.1::7000",
        "bb",
        "/bin/sh",
        "-c",
    ];
    docker.run(&[&run[..], &[&greeter]].concat())?;
    let theirs: SocketAddr = docker.run(&["port", "theirs", "7000"])?.parse()?;
    let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address = docker.run(&["inspect", "--format", address, "theirs"])?;
    assert_eq!(ask_patiently(theirs)?, "docker");
    let before = rules_links_and_routes()?;
    let engine = Engine::open(root.join("ours")).await?;
    let image = engine.pull(image).await?;
    engine.networks().create(NetworkSpec::bridge("second")).await?;
    let spec = |script: &str| ContainerSpec::image(image.id().to_string()).command(["sh", "-c", script]);
    let server = spec(GREETER).network(on("bridge")).publish(Port::tcp(7000), 0);
    let server = engine.run(server.endpoint("second", EndpointSpec::default())).await?;
    let ours = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port_of(&server).await?.port());
    assert_eq!(ask_patiently(ours)?, "hello");
    assert_eq!(ask_patiently(theirs)?, "docker");
    let call = format!("busybox nc -w 30 {address} 7000 </dev/null");
    let output = engine.run(spec(&call).network(on("bridge"))).output().await?;
    assert_eq!(text(&output.stdout), "docker", "{output:?}");
    let docker0 = tool("ip", &["-o", "-4", "route", "show", "dev", "docker0"])?;
    let taken: Subnet = docker0.split_whitespace().next().unwrap_or_default().parse()?;
    for network in engine.networks().list().await? {
        let mut subnets = network.spec.pools.iter().filter_map(|pool| pool.subnet);
        assert!(!subnets.any(|subnet| subnet.overlaps(&taken)), "{network:?}");
    }
    assert_eq!(rules_links_and_routes()?, before);
    server.remove(FORCE).await?;
    engine.close().await;
    assert_eq!(rules_links_and_routes()?, before);
    assert_eq!(ask_patiently(theirs)?, "docker");
    docker.run(&["rm", "--force", "theirs"])?;
    Ok(())
}

/// How many networks each of several processes makes.
const EACH: usize = 40;

async fn make_networks(root: &Path) -> Check {
    let engine = Engine::open(root).await?;
    for number in 0..EACH {
        let name = format!("of-{}-{number}", std::process::id());
        engine
            .networks()
            .create(NetworkSpec::bridge(name).persistent(true))
            .await?;
    }
    engine.close().await;
    Ok(())
}

async fn i8_processes_on_one_root_never_choose_the_same_subnet() -> Check {
    const PROCESSES: usize = 3;
    let world = World::alone().await?;
    let root = world.root.path().display().to_string();
    let start = |_| Embedder::start("make-networks", &[&root]);
    let makers = (0..PROCESSES).map(start).collect::<Result<Vec<_>, _>>()?;
    for maker in makers {
        assert_eq!(maker.line(Duration::from_secs(300))?, "ok");
        assert_eq!(maker.finish()?, 0);
    }
    let manager = world.engine.networks();
    let made = manager.list().await?;
    let made: Vec<_> = made.iter().filter(|network| !network.is_predefined()).collect();
    let subnets = made
        .iter()
        .flat_map(|network| &network.spec.pools)
        .filter_map(|pool| pool.subnet);
    let subnets: BTreeSet<Subnet> = subnets.collect();
    assert_eq!((made.len(), subnets.len()), (PROCESSES * EACH, PROCESSES * EACH));
    assert_eq!(manager.prune(Filter::default()).await?.len(), PROCESSES * EACH);
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

async fn i5_a_network_says_where_its_ports_are() -> Check {
    let world = World::new().await?;
    let manager = world.engine.networks();
    let near = NetworkSpec::bridge("near").driver_option("com.docker.network.bridge.host_binding_ipv4", "127.0.0.1");
    manager.create(near).await?;
    let server = world.script(GREETER).network(on("near")).publish(Port::tcp(7000), 0);
    let server = world.started(server).await?;
    let ports = server.inspect().await?.ports;
    assert_eq!(ports.len(), 1, "{ports:?}");
    let at = port_of(&server).await?;
    assert_eq!(at.ip(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    assert_eq!(ask_patiently(at)?, "hello");
    if let Some(address) = own_address() {
        assert!(
            ask(SocketAddr::new(address, at.port())).is_err(),
            "from other machines, too"
        );
    }
    server.remove(FORCE).await?;
    manager.remove("near").await?;
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
            "for i in $(seq 300); do said=$(nc {address} 7000 </dev/null) && break; sleep 0.1; done; echo $said"
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
