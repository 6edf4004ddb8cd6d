//! Networks as they are seen by tools that everybody has, as they come from Debian: iperf3, dig, curl, OpenBSD's nc.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};

use longshore::networks::NetworkSpec;
use longshore::types::{EndpointSpec, Port};
use longshore::{Container, ContainerSpec, ExecSpec, NetworkMode};
use serde_json::Value;

use crate::frame::{Check, Stop, fail, skip};
use crate::networks::answer_with;
use crate::support::patience::until;
use crate::support::world::{FORCE, World, text};
use crate::support::{is_root, program};
use crate::tests;

tests! { "tools":
    kernel_async [
        i2_iperf3_between_containers,
        i3_dig_asks_for_names,
        i3_dig_asks_others_over_udp_and_tcp,
        i4_curl_and_nc_come_in_by_ports,
        i6_iperf3_goes_on_over_one_network_while_another_comes_and_goes,
        p20_many_start_on_one_bridge_at_once,
    ]
}

fn on(network: &str) -> NetworkMode {
    NetworkMode::Named(network.to_owned())
}

/// With the host's programs, and what they are linked to.
fn with_tools(spec: ContainerSpec) -> ContainerSpec {
    let there = ["/usr", "/lib", "/lib64"]
        .into_iter()
        .filter(|dir| std::path::Path::new(dir).exists());
    there.fold(spec, |spec, dir| spec.bind_read_only(dir, dir))
}

async fn says(container: &Container, words: &[&str]) -> Result<String, Stop> {
    let output = container.exec(ExecSpec::new(words.iter().copied())).output().await?;
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => fail(format!("{words:?}: {output:?}")),
    }
}

async fn address(container: &Container, network: &str) -> Result<Ipv4Addr, Stop> {
    let info = container.inspect().await?;
    let place = info.endpoints.iter().find(|endpoint| endpoint.network == network);
    Ok(place.and_then(|place| place.ipv4).expect("it has an address").0)
}

async fn is_listening(container: &Container, port: u16) -> Check {
    let wanted = format!(":{port:04X} ");
    let look = ["busybox", "cat", "/proc/net/tcp", "/proc/net/tcp6"];
    until("it listens", async || {
        let sockets = says(container, &look).await?;
        Ok(sockets
            .lines()
            .any(|line| line.contains(&wanted) && line.contains(" 0A ")))
    })
    .await
}

/// A container that measures with whoever comes, one after the other.
async fn measuring(world: &World, network: &str) -> Result<Container, Stop> {
    program("iperf3")?;
    let spec = with_tools(world.spec().command(["/usr/bin/iperf3", "--server", "--port", "5201"]));
    let server = world.started(spec.network(on(network))).await?;
    is_listening(&server, 5201).await?;
    Ok(server)
}

/// What iperf3 has counted: bytes that were sent, and that came.
fn counted(json: &str) -> Result<(u64, u64), Stop> {
    let report: Value = serde_json::from_str(json)?;
    let end = &report["end"];
    let bytes = |name: &str| end[name]["bytes"].as_u64().unwrap_or(0);
    match &report["error"] {
        Value::Null => Ok((bytes("sum_sent"), bytes("sum_received"))),
        why => fail(why.to_string()),
    }
}

async fn i2_iperf3_between_containers() -> Check {
    const BYTES: u64 = 48 << 20;
    let world = World::new().await?;
    let server = measuring(&world, "bridge").await?;
    let client = world
        .started(with_tools(
            world.spec().command(["sleep", "1000"]).network(on("bridge")),
        ))
        .await?;
    let to = address(&server, "bridge").await?.to_string();
    let measure = ["/usr/bin/iperf3", "--json", "--client", &to, "--port", "5201"];
    // There, back, and over several connections at once: whatever is sent arrives.
    for how in [
        &["--bytes", "48M"][..],
        &["--bytes", "48M", "--reverse"],
        &["--bytes", "48M", "--parallel", "4"],
    ] {
        let (sent, came) = counted(&says(&client, &[&measure[..], how].concat()).await?)?;
        assert!(
            sent >= BYTES && came > 0 && came <= sent,
            "{how:?}: {sent} sent, {came} came"
        );
    }
    // Datagrams larger than a packet of the link, too.
    let datagrams = ["--udp", "--bitrate", "80M", "--bytes", "2M", "--length", "4000"];
    let json = says(&client, &[&measure[..], &datagrams].concat()).await?;
    let report: Value = serde_json::from_str(&json)?;
    let (packets, lost) = (&report["end"]["sum"]["packets"], &report["end"]["sum"]["lost_packets"]);
    let (packets, lost) = (packets.as_u64().unwrap_or(0), lost.as_u64().unwrap_or(u64::MAX));
    assert!(
        packets >= 500 && lost < packets,
        "{lost} of {packets} datagrams were lost"
    );
    for container in [server, client] {
        container.remove(FORCE).await?;
    }
    Ok(())
}

async fn i3_dig_asks_for_names() -> Check {
    program("dig")?;
    let world = World::new().await?;
    let manager = world.engine.networks();
    // Nobody else is asked on an internal one: who is not there is not there.
    manager.create(NetworkSpec::bridge("asked").internal(true)).await?;
    let place = EndpointSpec {
        aliases: vec!["shared".into()],
        ..EndpointSpec::default()
    };
    let mut servers = Vec::new();
    for name in ["first", "second"] {
        let spec = world
            .spec()
            .command(["sleep", "1000"])
            .name(format!("{name}-{}", std::process::id()));
        servers.push(
            world
                .started(spec.network(on("asked")).endpoint("asked", place.clone()))
                .await?,
        );
    }
    let asking = with_tools(world.spec().command(["sleep", "1000"]).network(on("asked")));
    let asking = world.started(asking).await?;
    let dig = async |words: &[&str]| says(&asking, &[&["/usr/bin/dig", "+tries=1", "+time=5"], words].concat()).await;
    let name = servers[0].inspect().await?.name;
    let first = address(&servers[0], "asked").await?.to_string();
    for words in [
        &["+short", &*name][..],
        &["+short", "+tcp", &name],
        &["+short", "+noedns", &name],
    ] {
        assert_eq!(dig(words).await?, first, "{words:?}");
    }
    let back = dig(&["+short", "-x", &first]).await?;
    assert_eq!(back, format!("{name}.asked."));
    // Both, and each of them first now and then.
    let mut firsts = BTreeSet::new();
    for _ in 0..4 {
        let both = dig(&["+short", "shared"]).await?;
        assert_eq!(both.lines().count(), 2, "{both}");
        firsts.extend(both.lines().next().map(str::to_owned));
    }
    assert_eq!(firsts.len(), 2, "{firsts:?}");
    let cases = [
        (&[&*name, "AAAA"][..], "NOERROR", 0),
        (&[&name, "A"], "NOERROR", 1),
        (&[&name, "A", "+bufsize=4096", "+dnssec"], "NOERROR", 1),
        (&["who-is-not-there", "A"], "NXDOMAIN", 0),
        (&["who-is-not-there.example", "MX", "+tcp"], "NXDOMAIN", 0),
    ];
    for (words, status, answers) in cases {
        let said = dig(words).await?;
        let whole = said.contains(&format!("status: {status},")) && said.contains(&format!("ANSWER: {answers},"));
        assert!(whole && !said.contains("malformed"), "{words:?}: {said}");
    }
    for container in servers.into_iter().chain([asking]) {
        container.remove(FORCE).await?;
    }
    manager.remove("asked").await?;
    Ok(())
}

/// A resolver of the host's, which knows all names over TCP, and over UDP those that are not large.
fn serve_names(at: &'static str) -> Result<[std::thread::JoinHandle<()>; 2], Stop> {
    const HERE: [u8; 4] = [198, 51, 100, 7];
    fn has(packet: &[u8], word: &[u8]) -> bool {
        packet.windows(word.len()).any(|part| part == word)
    }
    let (udp, tcp) = (UdpSocket::bind(at)?, TcpListener::bind(at)?);
    let datagrams = move || {
        let mut buffer = [0u8; 512];
        while let Ok((len, from)) = udp.recv_from(&mut buffer) {
            if has(&buffer[..len], b"stop") {
                return;
            }
            let mut answer = answer_with(&buffer[..len], HERE);
            if has(&buffer[..len], b"large") {
                // It does not fit: ask over TCP (RFC 1035, section 4.1.1).
                answer[2] |= 2;
            }
            let _ = udp.send_to(&answer, from);
        }
    };
    let connections = move || {
        for mut stream in tcp.incoming().flatten() {
            let mut length = [0u8; 2];
            if stream.read_exact(&mut length).is_err() {
                continue;
            }
            let mut question = vec![0u8; usize::from(u16::from_be_bytes(length))];
            if stream.read_exact(&mut question).is_err() {
                continue;
            }
            if has(&question, b"stop") {
                return;
            }
            let answer = answer_with(&question, HERE);
            let length = (answer.len() as u16).to_be_bytes();
            let _ = stream.write_all(&[&length[..], &answer].concat());
        }
    };
    Ok([std::thread::spawn(datagrams), std::thread::spawn(connections)])
}

fn serve_no_more(at: &str, serving: [std::thread::JoinHandle<()>; 2]) -> Check {
    UdpSocket::bind("127.0.0.1:0")?.send_to(b"stop", at)?;
    TcpStream::connect(at)?.write_all(b"\0\x04stop")?;
    for thread in serving {
        thread.join().expect("the resolver ends");
    }
    Ok(())
}

/// What the engine does not know itself is asked as it was asked.
async fn i3_dig_asks_others_over_udp_and_tcp() -> Check {
    const AT: &str = "127.0.0.58:53";
    program("dig")?;
    if !is_root() {
        return skip("only root may answer at port 53");
    }
    let world = World::new().await?;
    let serving = serve_names(AT)?;
    let asked = async {
        let mut spec = with_tools(world.spec().command(["sleep", "1000"]).network(on("bridge")));
        spec.dns = vec!["127.0.0.58".parse()?];
        let asking = world.started(spec).await?;
        let dig = ["/usr/bin/dig", "+noedns", "+short", "+tries=2", "+time=15", "-t", "A"];
        for words in [
            &["elsewhere.example"][..],
            &["+tcp", "elsewhere.example"],
            &["large.example"],
        ] {
            // Another resolver has three seconds, which a busy machine may take from it.
            until("an answer comes", async || {
                Ok(says(&asking, &[&dig[..], words].concat()).await? == "198.51.100.7")
            })
            .await?;
        }
        asking.remove(FORCE).await?;
        Ok::<_, Stop>(())
    };
    let asked = asked.await;
    serve_no_more(AT, serving)?;
    asked
}

/// A program of the host's, in the host's network.
fn here(name: &str, words: &[&str], input: &str) -> Result<String, Stop> {
    let mut command = Command::new(program(name)?);
    command
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().expect("piped").write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => fail(format!("{name} {words:?}: {output:?}")),
    }
}

async fn i4_curl_and_nc_come_in_by_ports() -> Check {
    const PAGES: &str = "mkdir /www; echo a page > /www/index.html; head -c 5000000 /dev/zero > /www/large; \
                         busybox httpd -p 8000 -h /www; exec /usr/bin/nc.openbsd -u -l -k 8001 > /said";
    program("curl")?;
    program("nc.openbsd")?;
    let world = World::new().await?;
    let spec = with_tools(world.script(PAGES)).network(on("bridge"));
    let spec = spec.publish(Port::tcp(8000), 0).publish(Port::udp(8001), 0);
    let server = world.started(spec).await?;
    is_listening(&server, 8000).await?;
    let ports = server.inspect().await?.ports;
    let port = |wanted: Port| {
        let one = ports.iter().find(|port| port.port == wanted && port.host_ip.is_ipv4());
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), one.expect("it is published").host_port)
    };
    let url = format!("http://{}", port(Port::tcp(8000)));
    let curl = [
        "--silent",
        "--show-error",
        "--fail",
        "--max-time",
        "20",
        "--noproxy",
        "*",
    ];
    assert_eq!(
        here("curl", &[&curl[..], &[&format!("{url}/index.html")]].concat(), "")?,
        "a page"
    );
    let sizes = [
        "--output",
        "/dev/null",
        "--write-out",
        "%{size_download}",
        &format!("{url}/large"),
    ];
    assert_eq!(here("curl", &[&curl[..], &sizes].concat(), "")?, "5000000");
    let beside = with_tools(world.spec().command(["sleep", "1000"]).network(on("bridge")));
    let beside = world.started(beside).await?;
    let by_address = format!("http://{}:8000/index.html", address(&server, "bridge").await?);
    assert_eq!(
        says(&beside, &[&["/usr/bin/curl"], &curl[..], &[&by_address]].concat()).await?,
        "a page"
    );
    let udp = port(Port::udp(8001));
    until("a datagram came", async || {
        let (host, number) = (udp.ip().to_string(), udp.port().to_string());
        here("nc.openbsd", &["-u", "-N", "-w", "1", &host, &number], "by nc\n")?;
        Ok(says(&server, &["busybox", "cat", "/said"]).await?.contains("by nc"))
    })
    .await?;
    for container in [server, beside] {
        container.remove(FORCE).await?;
    }
    Ok(())
}

/// A connection knows nothing of what is done to the container's other places.
async fn i6_iperf3_goes_on_over_one_network_while_another_comes_and_goes() -> Check {
    let world = World::new().await?;
    let (manager, containers) = (world.engine.networks(), world.engine.containers());
    for name in ["kept", "fleeting"] {
        manager.create(NetworkSpec::bridge(name)).await?;
    }
    let server = measuring(&world, "kept").await?;
    let client = world
        .started(with_tools(world.spec().command(["sleep", "1000"]).network(on("kept"))))
        .await?;
    let to = address(&server, "kept").await?.to_string();
    let measure = [
        "/usr/bin/iperf3",
        "--json",
        "--client",
        &to,
        "--port",
        "5201",
        "--time",
        "2",
    ];
    let measured = says(&client, &measure);
    let disturbed = async {
        for _ in 0..5 {
            for container in [&server, &client] {
                containers
                    .connect(container.id().as_str(), "fleeting", EndpointSpec::default())
                    .await?;
            }
            says(
                &client,
                &[
                    "busybox",
                    "ping",
                    "-c",
                    "1",
                    "-W",
                    "5",
                    &address(&server, "fleeting").await?.to_string(),
                ],
            )
            .await?;
            for container in [&server, &client] {
                containers.disconnect(container.id().as_str(), "fleeting").await?;
            }
        }
        Ok::<(), Stop>(())
    };
    let (json, disturbed) = futures_util::join!(measured, disturbed);
    disturbed?;
    let (sent, came) = counted(&json?)?;
    assert!(came > 0 && came <= sent, "{sent} sent, {came} came");
    for container in [server, client] {
        container.remove(FORCE).await?;
    }
    for name in ["kept", "fleeting"] {
        manager.remove(name).await?;
    }
    Ok(())
}

/// All of them are there in the end, each with an address, a port and a name of its own, and each is reached by its name.
async fn p20_many_start_on_one_bridge_at_once() -> Check {
    const MANY: usize = 64;
    let world = World::new().await?;
    world.engine.networks().create(NetworkSpec::bridge("crowd")).await?;
    let start = |number: usize| {
        let spec = world.script("echo here > /index.html; exec busybox httpd -f -p 80 -h /");
        let spec = spec.name(format!("crowd-{}-{number}", std::process::id()));
        world.started(spec.network(on("crowd")).publish(Port::tcp(80), 0))
    };
    let mut crowd = Vec::new();
    for started in futures_util::future::join_all((0..MANY).map(start)).await {
        crowd.push(started?);
    }
    let mut addresses = BTreeSet::new();
    let mut ports = BTreeSet::new();
    for container in &crowd {
        let info = container.inspect().await?;
        addresses.insert(address(container, "crowd").await?);
        ports.insert(info.ports[0].host_port);
    }
    assert_eq!((addresses.len(), ports.len()), (MANY, MANY));
    // A server that was started may not listen yet.
    let ask = format!(
        "for n in $(seq 0 {}); do i=0; until wget -q -O - http://crowd-{}-$n/index.html; do i=$((i+1)); \
         [ $i -lt 300 ] || {{ echo $n; break; }}; sleep 0.1; done; done | sort | uniq -c",
        MANY - 1,
        std::process::id()
    );
    let told = says(&crowd[0], &["sh", "-c", &ask]).await?;
    assert_eq!(
        told.split_whitespace().collect::<Vec<_>>(),
        [&*MANY.to_string(), "here"]
    );
    for removed in futures_util::future::join_all(crowd.iter().map(|container| container.remove(FORCE))).await {
        removed?;
    }
    world.engine.networks().remove("crowd").await?;
    Ok(())
}
