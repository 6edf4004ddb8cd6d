//! Bridge networks on the kernel: links, names, ports, isolation, and that nothing of them is left.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use longshore::networks::{NetworkSpec, Subnet};
use longshore::types::{EndpointSpec, Port, PortBinding};
use longshore::{Container, ContainerSpec, ErrorKind, ExecSpec, NetworkMode, Outcome};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::frame::{Check, Stop, block_on, fail};
use crate::publishing::told;
use crate::support::embedder::Embedder;
use crate::support::patience::{PATIENCE, until, until_now};
use crate::support::world::{FORCE, World, source, text};
use crate::support::{image, long_loops};
use crate::tests;

tests! { "networks":
    kernel_async [
        i2_containers_on_one_network_reach_each_other,
        i2_networks_are_kept_apart,
        i2_without_icc_neighbours_are_out_of_reach,
        i2_nobody_speaks_for_a_neighbour,
        i3_names_aliases_and_reverse_names,
        i3_names_elsewhere_are_asked_of_others,
        i3_malformed_packets_leave_the_resolver_up,
        i4_a_port_is_known_and_answers,
        i4_ports_that_cannot_be,
        i4_of_a_range_the_first_free_port,
        i6_connect_and_disconnect_a_running_container,
        i6_the_way_out_is_that_of_the_first_rank,
        i7_an_internal_network_leads_nowhere,
        i8_addresses_and_subnets,
        i9_ipv6_addresses_and_ports,
        i9_out_by_ipv6_where_the_host_goes_out_by_it,
        i12_an_ordinary_user_s_containers_reach_others,
        i12_a_container_does_not_take_all_descriptors,
        i13_i4_p26_who_asks_is_seen,
        i14_nothing_is_left_of_many_runs,
        i14_p22_nothing_is_left_of_an_engine_that_is_killed,
        i16_inspect_list_and_prune,
        m5_a_port_of_the_host_s_loopback,
        h23_hosts_and_resolvers,
        h24_every_exposed_port_is_published,
        a_network_belongs_to_one_engine_at_a_time,
        what_is_removed_by_hand_is_found,
    ]
}

fn on(network: &str) -> NetworkMode {
    NetworkMode::Named(network.to_owned())
}

async fn sleeper(
    world: &World,
    network: &str,
    change: impl FnOnce(ContainerSpec) -> ContainerSpec,
) -> Result<Container, Stop> {
    let spec = world.spec().command(["sleep", "1000"]).network(on(network));
    world.started(change(spec)).await
}

async fn sh(container: &Container, script: &str) -> Result<String, Stop> {
    let output = container.exec(ExecSpec::new(["sh", "-c", script])).output().await?;
    if !output.status.success() {
        return fail(format!("{script}: {output:?}"));
    }
    Ok(text(&output.stdout))
}

/// Whether a script of a container ends well.
async fn succeeds(container: &Container, script: &str) -> Result<bool, Stop> {
    let output = container.exec(ExecSpec::new(["sh", "-c", script])).output().await?;
    Ok(output.status.success())
}

async fn address(container: &Container, network: &str) -> Result<Ipv4Addr, Stop> {
    let info = container.inspect().await?;
    let place = info.endpoints.iter().find(|endpoint| endpoint.network == network);
    Ok(place.and_then(|place| place.ipv4).expect("it has an address").0)
}

async fn i2_containers_on_one_network_reach_each_other() -> Check {
    let world = World::new().await?;
    let server = sleeper(&world, "bridge", |spec| spec).await?;
    let client = sleeper(&world, "bridge", |spec| spec).await?;
    let to = address(&server, "bridge").await?;
    sh(&client, &format!("ping -c 1 -W 5 {to}")).await?;
    let inside = sh(
        &server,
        "ip -4 -o addr show eth0; ip route; cat /sys/class/net/eth0/address",
    )
    .await?;
    assert!(
        inside.contains(&to.to_string()) && inside.contains("default via"),
        "{inside}"
    );
    let mac = server.inspect().await?.endpoints[0].mac.clone();
    assert!(inside.ends_with(&mac), "{inside} {mac}");
    // A large answer over TCP, and one over UDP.
    server
        .exec(ExecSpec::new([
            "sh",
            "-c",
            "nc -l -p 7000 -e sh -c 'yes | head -c 3000000'",
        ]))
        .await?;
    let count = sh(&client, &format!("for i in $(seq 300); do n=$(nc {to} 7000 </dev/null | wc -c); [ \"$n\" -gt 0 ] && break; sleep 0.1; done; echo $n")).await?;
    assert_eq!(count, "3000000");
    for container in [server, client] {
        container.remove(FORCE).await?;
    }
    Ok(())
}

async fn i2_networks_are_kept_apart() -> Check {
    let world = World::new().await?;
    let manager = world.engine.networks();
    for name in ["apart-a", "apart-b"] {
        manager.create(NetworkSpec::bridge(name)).await?;
    }
    let one = sleeper(&world, "apart-a", |spec| spec).await?;
    let other = sleeper(&world, "apart-b", |spec| {
        spec.command(["sh", "-c", "while true; do echo here | nc -l -p 7000; done"])
    })
    .await?;
    let to = address(&other, "apart-b").await?;
    assert!(!succeeds(&one, &format!("ping -c 1 -W 1 {to}")).await?);
    assert_eq!(sh(&one, &format!("nc -w 2 {to} 7000 </dev/null || true")).await?, "");
    let gateway = other.inspect().await?.endpoints[0].gateway.expect("a gateway");
    assert_eq!(
        sh(&one, &format!("nc -w 2 {gateway} 7000 </dev/null || true")).await?,
        ""
    );
    let name = other.inspect().await?.name;
    assert!(
        !succeeds(&one, &format!("nslookup {name} 127.0.0.11")).await?,
        "by name"
    );
    for container in [one, other] {
        container.remove(FORCE).await?;
    }
    for name in ["apart-a", "apart-b"] {
        assert_eq!(manager.remove(name).await?, Outcome::Done);
    }
    Ok(())
}

async fn i2_without_icc_neighbours_are_out_of_reach() -> Check {
    let world = World::new().await?;
    let manager = world.engine.networks();
    manager
        .create(NetworkSpec::bridge("no-icc").between_containers(false))
        .await?;
    let one = sleeper(&world, "no-icc", |spec| spec).await?;
    let other = sleeper(&world, "no-icc", |spec| spec).await?;
    let (to, gateway) = (
        address(&other, "no-icc").await?,
        other.inspect().await?.endpoints[0].gateway.expect("a gateway"),
    );
    assert!(!succeeds(&one, &format!("ping -c 1 -W 1 {to}")).await?);
    assert!(succeeds(&one, &format!("ping -c 1 -W 5 {gateway}")).await?);
    for container in [one, other] {
        container.remove(FORCE).await?;
    }
    manager.remove("no-icc").await?;
    Ok(())
}

async fn i2_nobody_speaks_for_a_neighbour() -> Check {
    let world = World::new().await?;
    let able = |spec: ContainerSpec| spec.cap_add("NET_ADMIN");
    let thief = sleeper(&world, "bridge", able).await?;
    let victim = sleeper(&world, "bridge", |spec| spec).await?;
    let listener = sleeper(&world, "bridge", |spec| spec).await?;
    let (stolen, to) = (address(&victim, "bridge").await?, address(&listener, "bridge").await?);
    // In its own name it is heard; in the name of the other, or with another hardware address, it is not.
    assert!(succeeds(&thief, &format!("ping -c 1 -W 5 {to}")).await?);
    let before = sh(&listener, "cat /sys/class/net/eth0/statistics/rx_packets").await?;
    sh(&thief, &format!("ip addr add {stolen}/24 dev eth0; ping -c 3 -i 0.2 -W 1 -I {stolen} {to} || true; arping -c 2 -w 2 -U -I eth0 -s {stolen} {stolen} || true")).await?;
    let neighbours = sh(&listener, &format!("ip neigh show {stolen} || true")).await?;
    let mac = thief.inspect().await?.endpoints[0].mac.clone();
    assert!(!neighbours.contains(&mac), "{before}: {neighbours}");
    sh(
        &thief,
        &format!("ip addr del {stolen}/24 dev eth0; ip link set eth0 address 02:42:0a:0b:0c:0d; true"),
    )
    .await?;
    assert!(!succeeds(&thief, &format!("ping -c 1 -W 1 {to}")).await?);
    for container in [thief, victim, listener] {
        container.remove(FORCE).await?;
    }
    Ok(())
}

async fn i3_names_aliases_and_reverse_names() -> Check {
    let world = World::new().await?;
    let manager = world.engine.networks();
    manager.create(NetworkSpec::bridge("named")).await?;
    let alias = |spec: ContainerSpec| {
        let endpoint = EndpointSpec {
            aliases: vec!["shared".into()],
            ..EndpointSpec::default()
        };
        spec.endpoint("named", endpoint)
    };
    let first = sleeper(&world, "named", alias).await?;
    let second = sleeper(&world, "named", alias).await?;
    let asking = sleeper(&world, "named", |spec| spec).await?;
    let (one, two) = (address(&first, "named").await?, address(&second, "named").await?);
    let name = first.inspect().await?.name;
    for known in [
        name.clone(),
        first.id().short().to_owned(),
        format!("{name}.named"),
        name.to_uppercase(),
    ] {
        let said = sh(&asking, &format!("nslookup -type=a {known}")).await?;
        assert!(said.contains(&one.to_string()), "{known}: {said}");
    }
    sh(&asking, &format!("ping -c 1 -W 5 {name}")).await?;
    let both = sh(&asking, "nslookup -type=a shared").await?;
    assert!(
        both.contains(&one.to_string()) && both.contains(&two.to_string()),
        "{both}"
    );
    let reverse = sh(&asking, &format!("nslookup {two}")).await?;
    assert!(
        reverse.contains(&format!("{}.named", second.inspect().await?.name)),
        "{reverse}"
    );
    // Gone within a second of leaving.
    let containers = world.engine.containers();
    containers.disconnect(second.id().as_str(), "named").await?;
    let left = sh(&asking, "nslookup -type=a shared").await?;
    assert!(
        left.contains(&one.to_string()) && !left.contains(&two.to_string()),
        "{left}"
    );
    for container in [first, second, asking] {
        container.remove(FORCE).await?;
    }
    manager.remove("named").await?;
    Ok(())
}

/// The answer of a resolver that knows one address for all names.
pub fn answer_with(question: &[u8], address: [u8; 4]) -> Vec<u8> {
    let mut answer = question.to_vec();
    answer[2] = 0x81;
    answer[3] = 0x80;
    answer[7] = 1;
    answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    answer.extend_from_slice(&address);
    answer
}

async fn i3_names_elsewhere_are_asked_of_others() -> Check {
    if !crate::support::is_root() {
        return crate::frame::skip("only root may answer at port 53");
    }
    let world = World::new().await?;
    let here = "127.0.0.57:53";
    let server = UdpSocket::bind(here)?;
    server.set_read_timeout(Some(Duration::from_secs(20)))?;
    let answering = std::thread::spawn(move || {
        let mut buffer = [0u8; 512];
        while let Ok((len, from)) = server.recv_from(&mut buffer) {
            if buffer[..len].windows(4).any(|part| part == b"stop") {
                return;
            }
            // The part behind the question (EDNS) is not for this server.
            let _ = server.send_to(&answer_with(&buffer[..len], [198, 51, 100, 7]), from);
        }
    });
    let mut spec = world
        .spec()
        .command(["sh", "-c", "nslookup -type=a elsewhere.example"])
        .network(on("bridge"));
    spec.dns = vec!["127.0.0.57".parse()?];
    let said = world.says(spec).await;
    UdpSocket::bind("127.0.0.1:0")?.send_to(b"stop", here)?;
    answering.join().expect("the server ends");
    let said = said?;
    assert!(said.contains("198.51.100.7") && said.contains("127.0.0.11"), "{said}");
    Ok(())
}

/// Whatever a container sends to its resolver, the resolver answers the next question.
async fn i3_malformed_packets_leave_the_resolver_up() -> Check {
    const JUNK: &str = r#"
        use IO::Socket::INET;
        srand 7;
        my %there = (PeerAddr => '127.0.0.11', PeerPort => 53);
        my @flags = (0, 0x0100, 0x8000, 0xffff);
        my @counts = (1, 0, 0xffff);
        for my $n (1 .. 300) {
            my $out = IO::Socket::INET->new(%there, Proto => 'udp') or die;
            my $head = pack('n6', $n, $flags[$n % 4], $counts[$n % 3], 0, 0, $n % 2);
            my $noise = join('', map { chr(int(rand(256))) } 0 .. rand(500));
            my @tails = ("\xc0\x0c\0\1\0\1", "\xff" x 300, $noise, '', "\x3f" . 'a' x 20, "\1a" x 200 . "\0\0\1\0\1", "\0\0\xff\0\xff");
            $out->send(substr($head, 0, 12 - $n % 13) . $tails[$n % 7]);
        }
        for my $n (1 .. 40) {
            my $out = IO::Socket::INET->new(%there, Proto => 'tcp') or die;
            $out->send(pack('n', (0, 1, 12, 0xffff)[$n % 4]) . 'x' x ($n % 30));
        }"#;
    let world = World::new().await?;
    let manager = world.engine.networks();
    // Nobody else is asked on an internal one.
    manager.create(NetworkSpec::bridge("junk").internal(true)).await?;
    let peer = sleeper(&world, "junk", |spec| spec).await?;
    let asking = sleeper(&world, "junk", with_perl).await?;
    let (name, at) = (peer.inspect().await?.name, address(&peer, "junk").await?);
    let sent = asking
        .exec(ExecSpec::new(["/usr/bin/perl", "-e", JUNK]))
        .output()
        .await?;
    assert!(sent.status.success(), "{sent:?}");
    until("the resolver answers", async || {
        let asked = asking
            .exec(ExecSpec::new(["busybox", "nslookup", "-type=a", &name]))
            .output();
        Ok(text(&asked.await?.stdout).contains(&at.to_string()))
    })
    .await?;
    for container in [peer, asking] {
        container.remove(FORCE).await?;
    }
    manager.remove("junk").await?;
    Ok(())
}

fn ask(to: SocketAddr) -> Result<String, Stop> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said.trim().to_owned())
}

/// Asks until the server in the container listens.
fn ask_patiently(to: SocketAddr) -> Result<String, Stop> {
    let mut said = String::new();
    until_now("the server in the container answers", || {
        said = ask(to).unwrap_or_default();
        Ok(!said.is_empty())
    })?;
    Ok(said)
}

const GREETER: &str = "while true; do busybox nc -l -p 7000 -e busybox sh -c 'echo hello; busybox netstat -tn' ; done";

/// Busybox has no server for datagrams: the host's perl, which every Debian has.
fn with_perl(spec: ContainerSpec) -> ContainerSpec {
    ["/usr", "/lib", "/lib64"]
        .iter()
        .filter(|dir| std::path::Path::new(dir).exists())
        .fold(spec, |spec, dir| spec.bind_read_only(*dir, *dir))
}

const ECHO: &str = "use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalPort => 7001, Proto => 'udp') or die; \
                    while (my $from = $s->recv(my $text, 1024)) { $s->send($text, 0, $from) }";

async fn i4_a_port_is_known_and_answers() -> Check {
    let world = World::new().await?;
    let server = world
        .started(
            with_perl(world.script(GREETER))
                .network(on("bridge"))
                .publish(Port::tcp(7000), 0)
                .publish(Port::udp(7001), 0),
        )
        .await?;
    let ports = server.inspect().await?.ports;
    let tcp = ports
        .iter()
        .find(|port| port.port == Port::tcp(7000))
        .expect("it is published");
    let udp = ports
        .iter()
        .find(|port| port.port == Port::udp(7001))
        .expect("it is published");
    assert!(tcp.host_port > 0 && udp.host_port > 0);
    let said = ask_patiently(SocketAddr::from(([127, 0, 0, 1], tcp.host_port)))?;
    assert!(said.starts_with("hello"), "{said}");
    if let Some(address) = own_address() {
        let said = ask_patiently(SocketAddr::new(address, tcp.host_port))?;
        assert!(said.contains(&address.to_string()), "who asks is seen: {said}");
    }
    // A datagram there and back, from where it was sent to.
    server.exec(ExecSpec::new(["/usr/bin/perl", "-e", ECHO])).await?;
    let client = UdpSocket::bind("127.0.0.1:0")?;
    client.set_read_timeout(Some(Duration::from_millis(300)))?;
    client.connect(("127.0.0.1", udp.host_port))?;
    let mut buffer = [0u8; 64];
    let mut answer = String::new();
    until_now("a datagram comes back", || {
        if client.send(b"datagram\n").is_ok()
            && let Ok(len) = client.recv(&mut buffer)
        {
            answer = text(&buffer[..len]);
        }
        Ok(!answer.is_empty())
    })?;
    assert_eq!(answer, "datagram");
    let port = tcp.host_port;
    server.remove(FORCE).await?;
    TcpListener::bind(("0.0.0.0", port)).map(drop)?;
    // A hundred at once never want the same.
    let mut starting = Vec::new();
    for _ in 0..20 {
        starting.push(
            world.started(
                world
                    .spec()
                    .command(["sleep", "100"])
                    .network(on("bridge"))
                    .publish(Port::tcp(80), 0),
            ),
        );
    }
    let mut seen = std::collections::BTreeSet::new();
    for started in futures_util::future::join_all(starting).await {
        let container = started?;
        let ports = container.inspect().await?.ports;
        assert!(seen.insert(ports[0].host_port), "{ports:?}");
        container.remove(FORCE).await?;
    }
    Ok(())
}

/// An address of this host that is not loopback, if it has one.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback())
}

async fn i4_ports_that_cannot_be() -> Check {
    let world = World::new().await?;
    let taken = TcpListener::bind("0.0.0.0:0")?;
    let port = taken.local_addr()?.port();
    let created = world
        .engine
        .create(
            world
                .spec()
                .command(["true"])
                .network(on("bridge"))
                .publish(Port::tcp(80), port),
        )
        .await?;
    let refused = created.start().await.expect_err("the port is taken");
    assert!(refused.is_conflict(), "{}", refused.report());
    assert!(
        refused.report().contains("port is already allocated"),
        "{}",
        refused.report()
    );
    // Once it is free, the same container starts.
    drop(taken);
    created.start().await?;
    created.wait().await?;
    created.remove(FORCE).await?;
    Ok(())
}

/// So many ports in a row that nobody has at this moment.
fn free_in_a_row(count: u16) -> Result<Vec<TcpListener>, Stop> {
    for _ in 0..200 {
        let first = TcpListener::bind("0.0.0.0:0")?;
        let port = first.local_addr()?.port();
        let more = (1..count).map(|next| TcpListener::bind(("0.0.0.0", port.checked_add(next)?)).ok());
        if let Some(more) = more.collect::<Option<Vec<_>>>() {
            return Ok(std::iter::once(first).chain(more).collect());
        }
    }
    fail("there are no three free ports in a row")
}

async fn i4_of_a_range_the_first_free_port() -> Check {
    let world = World::new().await?;
    let mut row = free_in_a_row(3)?;
    let first = row[0].local_addr()?.port();
    row.truncate(1);
    let ranging = || {
        let mut spec = world.spec().command(["sleep", "1000"]).network(on("bridge"));
        let mut binding = PortBinding::new(Port::tcp(80), first).at(Ipv4Addr::UNSPECIFIED.into());
        binding.host_port_end = first + 2;
        spec.ports.push(binding);
        spec
    };
    // The first is this test's.
    let mut all = Vec::new();
    for taken in [first + 1, first + 2] {
        let container = world.started(ranging()).await?;
        assert_eq!(container.inspect().await?.ports[0].host_port, taken);
        all.push(container);
    }
    let late = world.engine.create(ranging()).await?;
    let refused = late.start().await.expect_err("all are taken");
    assert!(refused.is_conflict(), "{}", refused.report());
    drop(row);
    late.start().await?;
    assert_eq!(late.inspect().await?.ports[0].host_port, first);
    for container in all.into_iter().chain([late]) {
        container.remove(FORCE).await?;
    }
    Ok(())
}

/// Of several ways out that with the highest priority is taken, and the first interface's of those that have the same.
async fn i6_the_way_out_is_that_of_the_first_rank() -> Check {
    let world = World::new().await?;
    let (manager, containers) = (world.engine.networks(), world.engine.containers());
    for name in ["rank-a", "rank-b", "rank-c"] {
        manager.create(NetworkSpec::bridge(name)).await?;
    }
    let moving = sleeper(&world, "rank-a", |spec| spec).await?;
    let way = async || sh(&moving, "busybox ip route get 192.0.2.1").await;
    let ranked = |gateway_priority| EndpointSpec {
        gateway_priority,
        ..EndpointSpec::default()
    };
    let id = moving.id().as_str();
    containers.connect(id, "rank-b", ranked(0)).await?;
    assert!(way().await?.contains("dev eth0"), "the first");
    containers.connect(id, "rank-c", ranked(7)).await?;
    assert!(way().await?.contains("dev eth2"), "the highest");
    containers.disconnect(id, "rank-c").await?;
    containers.disconnect(id, "rank-a").await?;
    assert!(way().await?.contains("dev eth1"), "the one that is left");
    moving.remove(FORCE).await?;
    for name in ["rank-a", "rank-b", "rank-c"] {
        manager.remove(name).await?;
    }
    Ok(())
}

async fn i6_connect_and_disconnect_a_running_container() -> Check {
    let world = World::new().await?;
    let manager = world.engine.networks();
    for name in ["first", "second"] {
        manager.create(NetworkSpec::bridge(name)).await?;
    }
    let moving = sleeper(&world, "first", |spec| spec).await?;
    let there = sleeper(&world, "second", |spec| spec).await?;
    let containers = world.engine.containers();
    let (subnet, wanted) = {
        let info = manager.inspect("second").await?;
        let subnet = info.spec.pools[0].subnet.expect("a subnet");
        let IpAddr::V4(first) = subnet.address() else {
            return fail("no IPv4 subnet");
        };
        (subnet, Ipv4Addr::from(u32::from(first) + 77))
    };
    let endpoint = EndpointSpec {
        ipv4: Some(wanted),
        mac: Some("02:42:aa:bb:cc:dd".into()),
        aliases: vec!["guest".into()],
        ..EndpointSpec::default()
    };
    containers
        .connect(moving.id().as_str(), "second", endpoint.clone())
        .await?;
    assert!(subnet.contains(wanted.into()));
    assert_eq!(address(&moving, "second").await?, wanted);
    let seen = sh(&moving, "ip -o addr; cat /sys/class/net/eth1/address").await?;
    assert!(
        seen.contains("eth0") && seen.contains(&wanted.to_string()) && seen.ends_with("02:42:aa:bb:cc:dd"),
        "{seen}"
    );
    sh(&there, "ping -c 1 -W 5 guest").await?;
    sh(&moving, &format!("ping -c 1 -W 5 {}", address(&there, "second").await?)).await?;
    let twice = containers
        .connect(moving.id().as_str(), "second", endpoint)
        .await
        .expect_err("twice");
    assert!(twice.is_conflict(), "{}", twice.report());
    containers.disconnect(moving.id().as_str(), "first").await?;
    let seen = sh(&moving, "ip -o link").await?;
    assert!(!seen.contains("eth0") && seen.contains("eth1"), "{seen}");
    let missing = containers
        .disconnect(moving.id().as_str(), "first")
        .await
        .expect_err("not there");
    assert!(missing.is_not_found(), "{}", missing.report());
    let busy = manager.remove("second").await.expect_err("in use");
    assert!(
        busy.is_conflict() && busy.to_string().contains("active endpoints"),
        "{}",
        busy.report()
    );
    for container in [moving, there] {
        container.remove(FORCE).await?;
    }
    for name in ["first", "second"] {
        manager.remove(name).await?;
    }
    Ok(())
}

/// A listener on an address of the host that is not loopback, which greets.
fn greeting_host() -> Result<Option<(SocketAddr, std::thread::JoinHandle<()>)>, Stop> {
    own_address().map(greeting_at).transpose()
}

fn greeting_at(address: IpAddr) -> Result<(SocketAddr, std::thread::JoinHandle<()>), Stop> {
    let listener = TcpListener::bind((address, 0))?;
    let at = listener.local_addr()?;
    let serving = std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(b"from the host\n");
            let mut word = [0u8; 4];
            let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
            if stream.read(&mut word).is_ok_and(|len| &word[..len] == b"stop") {
                return;
            }
        }
    });
    Ok((at, serving))
}

/// Sends two datagrams back; its port.
fn echoing_at(address: IpAddr) -> Result<(u16, std::thread::JoinHandle<std::io::Result<()>>), Stop> {
    let echo = UdpSocket::bind((address, 0))?;
    echo.set_read_timeout(Some(PATIENCE))?;
    let port = echo.local_addr()?.port();
    let answering = std::thread::spawn(move || {
        let mut buffer = [0u8; 512];
        for _ in 0..2 {
            let (len, from) = echo.recv_from(&mut buffer)?;
            echo.send_to(&buffer[..len], from)?;
        }
        Ok(())
    });
    Ok((port, answering))
}

fn stop(at: SocketAddr, serving: std::thread::JoinHandle<()>) -> Check {
    TcpStream::connect(at)?.write_all(b"stop")?;
    serving.join().expect("the listener ends");
    Ok(())
}

async fn i7_an_internal_network_leads_nowhere() -> Check {
    let world = World::new().await?;
    let Some((at, serving)) = greeting_host()? else {
        return crate::frame::skip("the host has no address but loopback");
    };
    let manager = world.engine.networks();
    manager.create(NetworkSpec::bridge("inside").internal(true)).await?;
    let (ip, port) = (at.ip(), at.port());
    let call = format!("nc -w 30 {ip} {port} </dev/null || true");
    let out = sleeper(&world, "bridge", |spec| spec).await?;
    let reached = sh(&out, &call).await?;
    let kept = sleeper(&world, "inside", |spec| spec).await?;
    let peer = sleeper(&world, "inside", |spec| spec).await?;
    let (nothing, routes) = (sh(&kept, &call).await?, sh(&kept, "ip route").await?);
    let name = peer.inspect().await?.name;
    let pinged = succeeds(&kept, &format!("ping -c 1 -W 5 {name}")).await?;
    stop(at, serving)?;
    assert_eq!(reached, "from the host");
    assert_eq!(nothing, "");
    assert!(!routes.contains("default"), "{routes}");
    assert!(pinged, "peers are there by name");
    for container in [out, kept, peer] {
        container.remove(FORCE).await?;
    }
    manager.remove("inside").await?;
    Ok(())
}

async fn i8_addresses_and_subnets() -> Check {
    let world = World::new().await?;
    let manager = world.engine.networks();
    let small: Subnet = "10.213.7.0/30".parse()?;
    manager.create(NetworkSpec::bridge("small").subnet(small)).await?;
    let overlapping = manager
        .create(NetworkSpec::bridge("large").subnet("10.213.0.0/16".parse()?))
        .await;
    assert!(overlapping.expect_err("it overlaps").is_conflict());
    let again = manager
        .create(NetworkSpec::bridge("small"))
        .await
        .expect_err("the name is taken");
    assert!(
        again.is_conflict() && again.to_string().contains("already exists"),
        "{again}"
    );
    let only = sleeper(&world, "small", |spec| spec).await?;
    assert_eq!(address(&only, "small").await?, Ipv4Addr::new(10, 213, 7, 2));
    let second = world
        .engine
        .create(world.spec().command(["true"]).network(on("small")))
        .await?;
    let none = second.start().await.expect_err("there is no address left");
    assert_eq!(none.kind(), &ErrorKind::IpamExhausted, "{}", none.report());
    only.remove(FORCE).await?;
    second.start().await?;
    second.wait().await?;
    second.remove(FORCE).await?;
    for (ip, kind) in [
        ([10, 213, 7, 1], ErrorKind::Conflict),
        ([10, 213, 8, 2], ErrorKind::InvalidArgument),
    ] {
        let endpoint = EndpointSpec {
            ipv4: Some(ip.into()),
            ..EndpointSpec::default()
        };
        let spec = world
            .spec()
            .command(["true"])
            .network(on("small"))
            .endpoint("small", endpoint);
        let created = world.engine.create(spec).await?;
        assert_eq!(created.start().await.expect_err("it cannot be").kind(), &kind);
        created.remove(FORCE).await?;
    }
    let nowhere = world
        .engine
        .create(world.spec().network(on("nowhere")))
        .await
        .expect_err("there is none");
    assert!(nowhere.is_not_found(), "{}", nowhere.report());
    manager.remove("small").await?;
    // A thousand of them in the long form, which nobody is on, and none that the host has a route into.
    let many = if long_loops() { 1000 } else { 250 };
    for number in 0..many {
        manager.create(NetworkSpec::bridge(format!("many-{number}"))).await?;
    }
    let subnets: std::collections::BTreeSet<Subnet> = manager
        .list()
        .await?
        .iter()
        .flat_map(|network| network.spec.pools.iter().filter_map(|pool| pool.subnet))
        .collect();
    assert!(subnets.len() >= many, "{}", subnets.len());
    assert_eq!(manager.prune(longshore::Filter::default()).await?.len(), many);
    Ok(())
}

async fn i9_ipv6_addresses_and_ports() -> Check {
    let world = World::new().await?;
    let manager = world.engine.networks();
    manager.create(NetworkSpec::bridge("six").ipv6(true)).await?;
    let server = world
        .started(world.script(GREETER).network(on("six")).publish(Port::tcp(7000), 0))
        .await?;
    let client = sleeper(&world, "six", |spec| spec).await?;
    let info = server.inspect().await?;
    let (address, prefix) = info.endpoints[0].ipv6.expect("an IPv6 address");
    assert!(address.octets()[0] == 0xfd && prefix == 64, "{address}");
    sh(&client, &format!("ping6 -c 1 -W 5 {address}")).await?;
    let said = sh(&client, &format!("nslookup -type=aaaa {}", info.name)).await?;
    assert!(said.contains(&address.to_string()), "{said}");
    let v6 = info.ports.iter().find(|port| port.host_ip.is_ipv6());
    let v6 = v6.expect("published at the host's IPv6 addresses too");
    let said = ask_patiently(SocketAddr::new("::1".parse()?, v6.host_port))?;
    assert!(said.starts_with("hello"), "{said}");
    for container in [server, client] {
        container.remove(FORCE).await?;
    }
    manager.remove("six").await?;
    Ok(())
}

/// An address of this host by which it would go elsewhere over IPv6, if it has one.
fn own_address_v6() -> Option<IpAddr> {
    let socket = UdpSocket::bind("[::]:0").ok()?;
    // An address of documentation (RFC 3849).
    socket.connect("[2001:db8::1]:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback())
}

/// Whether a container is told at once that nothing is there.
async fn says_that_it_leads_nowhere(container: &Container) -> Check {
    let tried = container.exec(ExecSpec::new(["busybox", "ping6", "-c", "1", "2001:db8::1"]));
    let tried = tried.output().await?;
    assert!(!tried.status.success(), "{tried:?}");
    assert!(text(&tried.stderr).contains("unreachable"), "{tried:?}");
    Ok(())
}

/// Over TCP and UDP, where the host has a way out by IPv6; elsewhere nothing waits for it.
async fn i9_out_by_ipv6_where_the_host_goes_out_by_it() -> Check {
    const ASK: &str = "use IO::Socket::IP; use Socket qw(SOCK_DGRAM); my $s = IO::Socket::IP->new(PeerHost => $ARGV[0], \
                       PeerPort => $ARGV[1], Type => SOCK_DGRAM) or die; \
                       for (1, 2) { $s->send(\"again $_\"); $s->recv(my $text, 99); print $text, ' ' }";
    let world = World::new().await?;
    let manager = world.engine.networks();
    manager
        .create(NetworkSpec::bridge("inward").ipv6(true).internal(true))
        .await?;
    manager.create(NetworkSpec::bridge("outward").ipv6(true)).await?;
    manager.create(NetworkSpec::bridge("other").ipv6(true)).await?;
    let kept = sleeper(&world, "inward", |spec| spec).await?;
    let client = sleeper(&world, "outward", with_perl).await?;
    let server = world.started(world.script(GREETER).network(on("other"))).await?;
    says_that_it_leads_nowhere(&kept).await?;
    match own_address_v6() {
        None => says_that_it_leads_nowhere(&client).await?,
        Some(address) => {
            let (at, serving) = greeting_at(address)?;
            let (udp, answering) = echoing_at(address)?;
            let asked = sh(&client, &format!("busybox nc -w 30 {address} {} </dev/null", at.port())).await;
            stop(at, serving)?;
            assert_eq!(asked?, "from the host");
            let words = ["/usr/bin/perl", "-e", ASK, &address.to_string(), &udp.to_string()];
            let asked = client.exec(ExecSpec::new(words)).output().await?;
            assert_eq!(text(&asked.stdout), "again 1 again 2", "{asked:?}");
            answering.join().expect("the echo ends")?;
        }
    }
    // Of another network nothing is reached that way, though its container is there.
    let (elsewhere, _) = server.inspect().await?.endpoints[0].ipv6.expect("an IPv6 address");
    let call = format!("busybox nc -w 2 {elsewhere} 7000 </dev/null || true");
    assert_eq!(sh(&client, &call).await?, "");
    for container in [kept, client, server] {
        container.remove(FORCE).await?;
    }
    for name in ["inward", "outward", "other"] {
        manager.remove(name).await?;
    }
    Ok(())
}

async fn i14_nothing_is_left_of_many_runs() -> Check {
    let world = World::new().await?;
    let cycles = if long_loops() { 500 } else { 60 };
    for _ in 0..cycles {
        let spec = world
            .spec()
            .command(["true"])
            .network(on("bridge"))
            .publish(Port::tcp(80), 0);
        assert!(world.output(spec).await?.status.success());
    }
    let bridge = world.engine.networks().inspect("bridge").await?;
    assert!(bridge.containers.is_empty(), "{bridge:?}");
    assert_eq!(
        bridge.in_use.iter().map(|(_, count)| *count).collect::<Vec<_>>(),
        [1],
        "the gateway alone"
    );
    assert!(world.engine.audit().await?.is_clean());
    Ok(())
}

async fn i16_inspect_list_and_prune() -> Check {
    let world = World::new().await?;
    let manager = world.engine.networks();
    manager.create(NetworkSpec::bridge("used").label("kind", "x")).await?;
    manager.create(NetworkSpec::bridge("unused").label("kind", "x")).await?;
    manager.create(NetworkSpec::bridge("other").label("kind", "y")).await?;
    let one = sleeper(&world, "used", |spec| spec).await?;
    let two = sleeper(&world, "used", |spec| spec).await?;
    let info = manager.inspect("used").await?;
    let mut seen: Vec<_> = info.containers.iter().map(|member| member.id.clone()).collect();
    seen.sort();
    let mut meant = vec![one.id().clone(), two.id().clone()];
    meant.sort();
    assert_eq!(seen, meant);
    assert_eq!(info.in_use[0].1, 3, "two and the gateway");
    let id = info.id.expect("an id");
    assert_eq!(manager.inspect(id.short()).await?.name, "used");
    let names: Vec<_> = manager.list().await?.into_iter().map(|network| network.name).collect();
    for name in ["bridge", "host", "none", "other", "unused", "used"] {
        assert!(names.iter().any(|known| known == name), "{names:?}");
    }
    let filter = longshore::Filter::default().with("label", "kind=x");
    assert_eq!(manager.prune(filter).await?, ["unused"]);
    assert_eq!(
        manager.remove("bridge").await.expect_err("it stays").kind(),
        &ErrorKind::Denied
    );
    assert!(manager.remove("unused").await.expect_err("it is gone").is_not_found());
    for container in [one, two] {
        container.remove(FORCE).await?;
    }
    for name in ["used", "other"] {
        manager.remove(name).await?;
    }
    Ok(())
}

async fn m5_a_port_of_the_host_s_loopback() -> Check {
    let world = World::new().await?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        stream.write_all(b"from loopback\n")
    });
    let call = format!("nc -w 30 gateway {port} </dev/null || true");
    let spec = world
        .script(&call)
        .network(on("bridge"))
        .extra_host("gateway", "host-gateway");
    // Unless it is opened, nothing of the host's loopback is reached.
    assert_eq!(world.says(spec.clone()).await?, "");
    assert_eq!(world.says(spec.expose_host_port(port)).await?, "from loopback");
    serving.join().expect("the listener ends")?;
    Ok(())
}

async fn h23_hosts_and_resolvers() -> Check {
    let world = World::new().await?;
    let Some((at, serving)) = greeting_host()? else {
        return crate::frame::skip("the host has no address but loopback");
    };
    let mut spec = world
        .script(&format!(
            "cat /etc/hosts /etc/resolv.conf; nc -w 30 gateway {} </dev/null",
            at.port()
        ))
        .network(on("bridge"))
        .hostname("myself")
        .extra_host("gateway", "host-gateway")
        .extra_host("fixed", "192.0.2.7");
    spec.dns_search = vec!["example.org".into()];
    spec.dns_options = vec!["timeout:1".into()];
    let said = world.says(spec).await;
    stop(at, serving)?;
    let said = said?;
    for line in [
        "192.0.2.7\tfixed",
        "nameserver 127.0.0.11",
        "search example.org",
        "options timeout:1 ndots:0",
        "\tmyself",
        "from the host",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let mut bad = world.spec().command(["true"]);
    bad.extra_hosts = vec!["noaddress".into()];
    assert_eq!(
        world.engine.create(bad).await.expect_err("no address").kind(),
        &ErrorKind::InvalidArgument
    );
    Ok(())
}

async fn h24_every_exposed_port_is_published() -> Check {
    let world = World::new().await?;
    let mut spec = world.spec().command(["sleep", "100"]).network(on("bridge"));
    spec.publish_all = true;
    spec.expose = [Port::tcp(80), Port::udp(53)].into();
    let container = world.started(spec).await?;
    let info = container.inspect().await?;
    let v4: Vec<_> = info
        .ports
        .iter()
        .filter(|port| port.host_ip.is_ipv4())
        .map(|port| port.port)
        .collect();
    assert_eq!(v4, [Port::udp(53), Port::tcp(80)]);
    container.remove(FORCE).await?;
    Ok(())
}

async fn a_network_belongs_to_one_engine_at_a_time() -> Check {
    let world = World::alone().await?;
    let other = longshore::Engine::open(world.root.path()).await?;
    world
        .engine
        .networks()
        .create(NetworkSpec::bridge("ours").persistent(true))
        .await?;
    let here = sleeper(&world, "ours", |spec| spec).await?;
    let there = other.create(world.spec().command(["true"]).network(on("ours"))).await?;
    let refused = there.start().await.expect_err("it has its bridge elsewhere");
    assert!(refused.is_conflict(), "{}", refused.report());
    assert!(other.networks().remove("ours").await.expect_err("in use").is_conflict());
    here.remove(FORCE).await?;
    there.remove(FORCE).await?;
    // The definition outlives its engine, and its next one takes it.
    let World { engine, image, root } = world;
    drop((engine, image, other, here, there));
    until("a network of engines that are gone can be removed", async || {
        let engine = longshore::Engine::open(root.path()).await?;
        Ok(engine.networks().remove("ours").await.is_ok())
    })
    .await?;
    Ok(())
}

async fn what_is_removed_by_hand_is_found() -> Check {
    if !crate::support::is_root() {
        return crate::frame::skip("only root can enter the engine's network from outside");
    }
    let world = World::alone().await?;
    let container = sleeper(&world, "bridge", |spec| spec).await?;
    assert!(world.engine.audit().await?.is_clean());
    let own = std::fs::read_link("/proc/self/ns/net")?;
    let helpers = crate::support::leaks::all_processes()
        .into_iter()
        .filter(|process| process.helper && process.descendant);
    let network = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/net"));
    let mut elsewhere = helpers
        .map(|process| process.pid)
        .filter(|pid| network(*pid).is_ok_and(|there| there != own));
    let there = |pid: u32, words: &[&str]| {
        let mut ip = std::process::Command::new("nsenter");
        ip.args([&format!("--net=/proc/{pid}/ns/net"), "ip", "link"])
            .args(words)
            .output()
    };
    // Others hold networks, too; this engine alone has a bridge.
    let home = elsewhere.find(|pid| there(*pid, &["show", "b10"]).is_ok_and(|shown| shown.status.success()));
    let home = home.expect("a process holds the engine's network");
    if let Ok(nft) = crate::support::program("nft") {
        let removed = std::process::Command::new("nsenter")
            .arg(format!("--net=/proc/{home}/ns/net"))
            .arg(nft)
            .args(["delete", "table", "netdev", "longshore"])
            .status()?;
        assert!(removed.success());
        let found = world.engine.audit().await?.findings;
        let told = |finding: String| finding.contains("rules v") && finding.contains("somebody removed them");
        assert!(found.iter().any(|finding| told(finding.to_string())), "{found:?}");
    }
    let removed = there(home, &["del", "b10"])?.status;
    assert!(removed.success());
    let found = world.engine.audit().await?;
    assert!(
        found
            .findings
            .iter()
            .any(|finding| finding.to_string().contains("bridge is gone")),
        "{found:?}"
    );
    container.remove(FORCE).await?;
    Ok(())
}

/// TCP and UDP to an address of the host, through the engine's network: no other program takes part, whoever the user is.
async fn i12_an_ordinary_user_s_containers_reach_others() -> Check {
    let world = World::new().await?;
    let Some((at, serving)) = greeting_host()? else {
        return crate::frame::skip("the host has no address but loopback");
    };
    let (udp, answering) = echoing_at(at.ip())?;
    const ASK: &str = "use IO::Socket::INET; my $s = IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => $ARGV[1], \
                       Proto => 'udp') or die; for (1, 2) { $s->send(\"again $_\"); $s->recv(my $text, 99); print $text, ' ' }";
    let client = sleeper(&world, "bridge", with_perl).await?;
    let tcp = sh(
        &client,
        &format!("busybox nc -w 30 {} {} </dev/null", at.ip(), at.port()),
    )
    .await;
    let asked = client
        .exec(ExecSpec::new([
            "/usr/bin/perl",
            "-e",
            ASK,
            &at.ip().to_string(),
            &udp.to_string(),
        ]))
        .output()
        .await;
    stop(at, serving)?;
    assert_eq!(tcp?, "from the host");
    assert_eq!(text(&asked?.stdout), "again 1 again 2");
    answering.join().expect("the echo ends")?;
    client.remove(FORCE).await?;
    Ok(())
}

/// The server in the container sees the address of whoever connects, as root and as an ordinary user.
async fn i13_i4_p26_who_asks_is_seen() -> Check {
    let world = World::new().await?;
    let Some(address) = own_address() else {
        return crate::frame::skip("the host has no address but loopback");
    };
    let server = world
        .started(world.script(GREETER).network(on("bridge")).publish(Port::tcp(7000), 0))
        .await?;
    let info = server.inspect().await?;
    let port = info
        .ports
        .iter()
        .find(|port| port.host_ip.is_ipv4())
        .expect("it is published")
        .host_port;
    let said = ask_patiently(SocketAddr::new(address, port))?;
    assert!(said.contains(&format!("{address}:")), "{said}");
    // Whoever comes from the host's loopback comes from the gateway: its address would lead nowhere in the container.
    let gateway = info.endpoints[0].gateway.expect("a gateway");
    let said = ask_patiently(SocketAddr::from(([127, 0, 0, 1], port)))?;
    assert!(said.contains(&format!("{gateway}:")), "{said}");
    server.remove(FORCE).await?;
    Ok(())
}

pub const ROLES: &[(&str, crate::support::embedder::Role)] = &[
    ("network-holder", role_hold),
    ("few-descriptors", |arguments| {
        told(block_on(few_descriptors(arguments)))
    }),
];

/// With a listener, whose connections stay open: a container that connects as often as it can has its share, and no more.
async fn few_descriptors(arguments: &[String]) -> Check {
    const FEW: u64 = 256;
    const TAKE: &str = "use IO::Socket::INET; my ($n, @all) = 0; \
                        for (1 .. 200) { my $s = IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => $ARGV[1]) or next; \
                        $n++ if defined <$s>; push @all, $s } \
                        open my $told, '>', '/taken' or die; print $told $n; close $told; sleep 1000";
    const LISTEN: &str = "use IO::Socket::INET; \
                          my $s = IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => $ARGV[1]) or die; print scalar <$s>";
    let [root, image, address, port] = arguments else {
        return fail("a root, an image, an address and a port");
    };
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, FEW, most)?;
    let engine = longshore::Engine::open(root).await?;
    let image = engine.pull(image.as_str()).await?.id().to_string();
    let spec = || with_perl(ContainerSpec::image(&image)).network(on("bridge"));
    let modest = engine.run(spec().command(["sleep", "1000"])).await?;
    let greedy = spec().command(["/usr/bin/perl", "-e", TAKE, address.as_str(), port.as_str()]);
    let greedy = engine.run(greedy).await?;
    let mut taken = String::new();
    until("it has taken what it can", async || {
        let told = greedy
            .exec(ExecSpec::new(["busybox", "cat", "/taken"]))
            .output()
            .await?;
        taken = text(&told.stdout);
        Ok(!taken.is_empty())
    })
    .await?;
    // Half of the descriptors are for ways out, of which one container has half; each connection needs two.
    let taken: u64 = taken.parse()?;
    assert!((1..=FEW / 8).contains(&taken), "{taken} connections");
    let others = (0..50).map(|_| std::fs::File::open("/dev/null"));
    drop(others.collect::<Result<Vec<_>, _>>()?);
    let call = ["/usr/bin/perl", "-e", LISTEN, address.as_str(), port.as_str()];
    let heard = modest.exec(ExecSpec::new(call)).output().await?;
    assert_eq!(text(&heard.stdout), "from the host", "{heard:?}");
    for container in [greedy, modest] {
        container.remove(FORCE).await?;
    }
    engine.close().await;
    Ok(())
}

async fn i12_a_container_does_not_take_all_descriptors() -> Check {
    let Some(address) = own_address() else {
        return crate::frame::skip("the host has no address but loopback");
    };
    let listener = TcpListener::bind((address, 0))?;
    let at = listener.local_addr()?;
    let over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&over);
    let serving = std::thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in listener.incoming().flatten() {
            if seen.load(Ordering::Relaxed) {
                return;
            }
            let _ = stream.write_all(b"from the host\n");
            open.push(stream);
        }
    });
    let root = crate::support::scratch::fresh("root");
    let (place, image) = (root.path().display().to_string(), source(image::shared()?));
    let (address, port) = (address.to_string(), at.port().to_string());
    let role = Embedder::start("few-descriptors", &[&place, &image, &address, &port])?;
    let said = role.line(Duration::from_secs(300));
    over.store(true, Ordering::Relaxed);
    drop(TcpStream::connect(at)?);
    serving.join().expect("the listener ends");
    assert_eq!(said?, "ok");
    Ok(())
}

/// Runs a container with a published port on a network of its own, says where, and waits to be killed.
fn role_hold(arguments: &[String]) -> i32 {
    let [root, image] = arguments else { return 2 };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let held: Check = runtime.block_on(async {
        let engine = longshore::Engine::open(root).await?;
        engine.networks().create(NetworkSpec::bridge("bound")).await?;
        engine
            .networks()
            .create(NetworkSpec::bridge("kept").persistent(true))
            .await?;
        let spec = ContainerSpec::image(image)
            .command(["sleep", "1000"])
            .network(on("bound"));
        let container = engine
            .run(spec.endpoint("kept", EndpointSpec::default()).publish(Port::tcp(80), 0))
            .await?;
        println!("{}", container.inspect().await?.ports[0].host_port);
        std::future::pending().await
    });
    i32::from(held.is_err())
}

async fn i14_p22_nothing_is_left_of_an_engine_that_is_killed() -> Check {
    let world = World::alone().await?;
    let (root, image) = (world.root.path().display().to_string(), world.image.id().to_string());
    let mut holder = Embedder::start("network-holder", &[&root, &image])?;
    let port: u16 = holder.line(Duration::from_secs(20))?.trim().parse()?;
    // Its network is another's: it can be seen, and not used.
    let mut names: Vec<_> = world
        .engine
        .networks()
        .list()
        .await?
        .into_iter()
        .map(|network| network.name)
        .collect();
    names.retain(|name| name == "bound" || name == "kept");
    assert_eq!(names, ["bound", "kept"]);
    assert!(
        world
            .engine
            .networks()
            .remove("kept")
            .await
            .expect_err("in use")
            .is_conflict()
    );
    holder.kill()?;
    // The port is free at once, the network as soon as the helper has cleaned up.
    TcpListener::bind(("0.0.0.0", port)).map(drop)?;
    until("nobody has it any more", async || {
        Ok(world.engine.networks().remove("kept").await.is_ok())
    })
    .await?;
    let names: Vec<_> = world
        .engine
        .networks()
        .list()
        .await?
        .into_iter()
        .map(|network| network.name)
        .collect();
    assert!(!names.iter().any(|name| name == "bound"), "{names:?}");
    assert!(world.engine.audit().await?.is_clean());
    Ok(())
}
