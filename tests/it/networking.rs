//! Networks over the Engine API, through the client, and of an engine elsewhere.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;

use longshore::networks::{NetworkInfo, NetworkManager, NetworkSpec};
use longshore::types::{EndpointLink, EndpointSpec, Filter, LinkShape, Port, PortBinding, Shaping};
use longshore::{ContainerSpec, Engine, Error, ErrorKind, ExecSpec, NetworkMode, Outcome};
use serde_json::{Value, json};

use crate::frame::{Check, Stop, fail};
use crate::images::Dockerd;
use crate::longshored::Daemon;
use crate::platforms::client;
use crate::remote::Pair;
use crate::support::wire::Answer;
use crate::support::world::{FORCE, World, text};
use crate::tests;

tests! { "networking":
    kernel [
        i16_the_routes_of_networks,
        i16_lists_and_prunes_take_docker_s_filters,
        i6_the_routes_of_places_in_networks,
        i16_refusals_are_docker_s,
        p38_ports_and_places_as_docker_shows_them,
        i16_the_client_s_network_commands,
        i6_the_client_s_containers_on_networks,
    ]
    kernel_async [
        i3_links_are_names_for_one_container_alone,
        i3_a_container_that_was_renamed_is_found_by_its_new_name,
        i16_networks_of_an_engine_elsewhere,
        i6_places_of_an_engine_elsewhere,
        i16_networks_of_dockerd,
        a7_network_errors_over_the_api,
    ]
}

/// Text as part of a query.
fn quoted(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Makes a network; its id.
fn create(daemon: &Daemon, body: &Value) -> Result<String, Stop> {
    let made = daemon.ask("POST", "/networks/create", &body.to_string())?.expect(201)?;
    let made = made.json()?;
    assert_eq!(made["Warning"], "", "{made}");
    match made["Id"].as_str() {
        Some(id) if id.len() == 64 => Ok(id.to_owned()),
        _ => fail(format!("no id: {made}")),
    }
}

fn get(daemon: &Daemon, target: &str) -> Result<Value, Stop> {
    daemon.ask("GET", target, "")?.expect(200)?.json()
}

/// A container that sleeps, on a network; its id.
fn sleeper(daemon: &Daemon, name: &str, more: Value) -> Result<String, Stop> {
    let mut body = json!({"Image": "busybox", "Cmd": ["sleep", "1000"]});
    for (key, value) in more.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    let target = format!("/containers/create?name={name}");
    let made = daemon.ask("POST", &target, &body.to_string())?.expect(201)?.json()?;
    let id = made["Id"].as_str().unwrap_or_default().to_owned();
    daemon
        .ask("POST", &format!("/containers/{id}/start"), "")?
        .expect(204)?;
    Ok(id)
}

fn on(network: &str) -> Value {
    json!({"HostConfig": {"NetworkMode": network}})
}

fn remove(daemon: &Daemon, containers: &[&str]) -> Check {
    for id in containers {
        daemon
            .ask("DELETE", &format!("/containers/{id}?force=1"), "")?
            .expect(204)?;
    }
    Ok(())
}

/// Whether a command in a container ends well.
fn succeeds(daemon: &Daemon, container: &str, script: &str) -> Result<bool, Stop> {
    let body = json!({"Cmd": ["sh", "-c", script]}).to_string();
    let made = daemon
        .ask("POST", &format!("/containers/{container}/exec"), &body)?
        .expect(201)?;
    let id = made.json()?["Id"].as_str().unwrap_or_default().to_owned();
    daemon.ask("POST", &format!("/exec/{id}/start"), r#"{"Detach": false}"#)?;
    let ended = get(daemon, &format!("/exec/{id}/json"))?;
    assert_eq!(ended["Running"], false, "{ended}");
    Ok(ended["ExitCode"] == 0)
}

fn names(list: &Value) -> BTreeSet<String> {
    let lines = list.as_array().into_iter().flatten();
    lines
        .filter_map(|line| line["Name"].as_str())
        .map(str::to_owned)
        .collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn i16_the_routes_of_networks() -> Check {
    let mut daemon = Daemon::start(&[])?;
    let id = create(
        &daemon,
        &json!({
            "Name": "web", "CheckDuplicate": true, "Internal": true, "Attachable": true, "Labels": {"a": "b"},
            "Options": {"com.docker.network.driver.mtu": "1400"},
            "IPAM": {"Driver": "default", "Config": [
                {"Subnet": "10.213.1.0/24", "Gateway": "10.213.1.254", "IPRange": "10.213.1.128/25"}]},
        }),
    )?;
    let shown = get(&daemon, "/networks/web")?;
    for (field, expected) in [
        ("Name", json!("web")),
        ("Id", json!(id)),
        ("Scope", json!("local")),
        ("Driver", json!("bridge")),
        ("EnableIPv4", json!(true)),
        ("EnableIPv6", json!(false)),
        ("Internal", json!(true)),
        ("Attachable", json!(true)),
        ("Ingress", json!(false)),
        ("ConfigOnly", json!(false)),
        ("Containers", json!({})),
        ("Labels", json!({"a": "b"})),
        ("Options", json!({"com.docker.network.driver.mtu": "1400"})),
    ] {
        assert_eq!(shown[field], expected, "{field}: {shown}");
    }
    assert_eq!(
        shown["IPAM"]["Config"],
        json!([{"Subnet": "10.213.1.0/24", "Gateway": "10.213.1.254", "IPRange": "10.213.1.128/25"}])
    );
    let created = shown["Created"].as_str().unwrap_or_default();
    assert!(created.starts_with("20") && created.contains('T'), "{shown}");
    for other in [&id[..], &id[..12]] {
        assert_eq!(get(&daemon, &format!("/networks/{other}"))?, shown);
    }
    // One that chooses its own subnet, with IPv6; each version has its fields.
    create(&daemon, &json!({"Name": "six", "EnableIPv6": true, "Driver": ""}))?;
    let old = get(&daemon, "/v1.41/networks/six")?;
    assert!(old["Status"].is_null() && old["EnableIPv4"].is_null(), "{old}");
    assert_eq!(
        (&old["EnableIPv6"], old["IPAM"]["Config"].as_array().map(Vec::len)),
        (&json!(true), Some(2))
    );
    assert_eq!(old["Driver"], "bridge");
    for gone in [&id[..], "six"] {
        let answer = daemon.ask("DELETE", &format!("/networks/{gone}"), "")?.expect(204)?;
        assert_eq!(answer.body, "");
        daemon.ask("GET", &format!("/networks/{gone}"), "")?.expect(404)?;
    }
    assert_eq!(names(&get(&daemon, "/networks")?), set(&["bridge", "host", "none"]));
    daemon.stop()
}

fn i16_lists_and_prunes_take_docker_s_filters() -> Check {
    let mut daemon = Daemon::start(&[])?;
    let red = create(
        &daemon,
        &json!({"Name": "red-one", "Labels": {"colour": "red", "x": ""}}),
    )?;
    create(&daemon, &json!({"Name": "red-two", "Labels": {"colour": "red"}}))?;
    create(&daemon, &json!({"Name": "blue", "Labels": {"colour": "blue"}}))?;
    let member = sleeper(&daemon, "member", on("red-one"))?;
    let predefined = ["bridge", "host", "none"];
    let all: Vec<&str> = predefined
        .iter()
        .chain(&["red-one", "red-two", "blue"])
        .copied()
        .collect();
    let cases: &[(Value, &[&str])] = &[
        (json!({}), &all),
        (json!({"name": ["red"]}), &["red-one", "red-two"]),
        (json!({"name": ["red-one", "blue"]}), &["red-one", "blue"]),
        (json!({"id": [&red[..12]]}), &["red-one"]),
        (json!({"label": ["colour=red"]}), &["red-one", "red-two"]),
        (json!({"label": ["colour", "x"]}), &["red-one"]),
        (json!({"label": ["colour=green"]}), &[]),
        (
            json!({"driver": ["bridge"], "type": ["custom"]}),
            &["red-one", "red-two", "blue"],
        ),
        (json!({"driver": ["host", "null"]}), &["host", "none"]),
        (json!({"scope": ["local"], "type": ["builtin"]}), &predefined),
        (json!({"scope": ["swarm"]}), &[]),
        (json!({"dangling": ["true"]}), &["red-two", "blue"]),
        (json!({"dangling": ["false"], "type": ["custom"]}), &["red-one"]),
    ];
    for (filter, expected) in cases {
        let as_map = filter.as_object().into_iter().flatten().map(|(key, values)| {
            let terms = values.as_array().into_iter().flatten().filter_map(Value::as_str);
            (key.clone(), terms.map(|term| (term.to_owned(), json!(true))).collect())
        });
        for shape in [filter.clone(), Value::Object(as_map.collect())] {
            let found = get(&daemon, &format!("/networks?filters={}", quoted(&shape.to_string())))?;
            assert_eq!(names(&found), set(expected), "{shape}");
        }
    }
    let ask = |target: String| daemon.ask("GET", &target, "");
    let unknown = ask(format!("/networks?filters={}", quoted(r#"{"colour":["red"]}"#)))?.expect(400)?;
    assert_eq!(unknown.message()?, "invalid filter 'colour'");
    // Members are listed by the oldest versions alone.
    let listed = |version: &str| -> Result<Value, Stop> {
        let target = format!("/v{version}/networks?filters={}", quoted(r#"{"name":["red-one"]}"#));
        Ok(get(&daemon, &target)?[0]["Containers"].clone())
    };
    assert!(listed("1.56")?.is_null());
    assert_eq!(listed("1.41")?, json!({}));
    assert_eq!(listed("1.27")?[&member]["Name"], "member");
    let prune = |filter: &str| -> Result<Value, Stop> {
        let target = format!("/networks/prune?filters={}", quoted(filter));
        Ok(daemon.ask("POST", &target, "")?.expect(200)?.json()?["NetworksDeleted"].clone())
    };
    assert_eq!(prune(r#"{"until":["2001-01-01T00:00:00Z"]}"#)?, Value::Null);
    assert_eq!(
        prune(r#"{"label":["colour=red"]}"#)?,
        json!(["red-two"]),
        "one is in use"
    );
    assert_eq!(prune(r#"{"label!":["colour"]}"#)?, Value::Null);
    daemon
        .ask(
            "POST",
            &format!("/networks/prune?filters={}", quoted(r#"{"name":["x"]}"#)),
            "",
        )?
        .expect(400)?;
    remove(&daemon, &[&member])?;
    let pruned = daemon.ask("POST", "/networks/prune", "")?.expect(200)?.json()?;
    let mut gone: Vec<&str> = pruned["NetworksDeleted"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    gone.sort_unstable();
    assert_eq!(gone, ["blue", "red-one"]);
    daemon.stop()
}

fn i6_the_routes_of_places_in_networks() -> Check {
    let mut daemon = Daemon::start(&[])?;
    let first = create(&daemon, &json!({"Name": "first"}))?;
    let pool = json!({"Config": [{"Subnet": "10.213.2.0/24"}]});
    create(&daemon, &json!({"Name": "second", "IPAM": pool}))?;
    let moving = sleeper(&daemon, "moving", on("first"))?;
    let there = sleeper(&daemon, "there", on("second"))?;
    let place =
        json!({"Aliases": ["guest"], "IPAMConfig": {"IPv4Address": "10.213.2.77"}, "MacAddress": "02:42:aa:bb:cc:dd"});
    let connect =
        |network: &str, body: Value| daemon.ask("POST", &format!("/networks/{network}/connect"), &body.to_string());
    connect("second", json!({"Container": "moving", "EndpointConfig": place}))?.expect(200)?;
    let shown = get(&daemon, "/networks/second")?;
    let member = &shown["Containers"][&moving];
    assert_eq!(
        (&member["Name"], &member["IPv4Address"], &member["MacAddress"]),
        (&json!("moving"), &json!("10.213.2.77/24"), &json!("02:42:aa:bb:cc:dd")),
        "{shown}"
    );
    assert_eq!(
        shown["Containers"].as_object().map(serde_json::Map::len),
        Some(2),
        "{shown}"
    );
    let usage = &shown["Status"]["IPAM"]["Subnets"]["10.213.2.0/24"];
    assert_eq!(
        (&usage["IPsInUse"], &usage["DynamicIPsAvailable"]),
        (&json!(5), &json!(251)),
        "{shown}"
    );
    let networks = get(&daemon, "/containers/moving/json")?["NetworkSettings"]["Networks"].clone();
    let second = &networks["second"];
    for (field, expected) in [
        ("IPAddress", json!("10.213.2.77")),
        ("IPPrefixLen", json!(24)),
        ("Gateway", json!("10.213.2.1")),
        ("MacAddress", json!("02:42:aa:bb:cc:dd")),
        ("Aliases", json!(["guest"])),
        ("DNSNames", json!(["moving", &moving[..12], "guest"])),
        ("IPAMConfig", json!({"IPv4Address": "10.213.2.77"})),
        ("EndpointID", member["EndpointID"].clone()),
        ("NetworkID", shown["Id"].clone()),
    ] {
        assert_eq!(second[field], expected, "{field}: {second}");
    }
    assert_eq!(networks["first"]["NetworkID"], first);
    // What clients before 1.45 find among the aliases.
    let old = get(&daemon, "/v1.44/containers/moving/json")?["NetworkSettings"]["Networks"].clone();
    assert_eq!(old["second"]["Aliases"], json!(["guest", &moving[..12]]));
    assert_eq!(old["first"]["Aliases"], json!([&moving[..12]]));
    assert!(succeeds(
        &daemon,
        "there",
        "ping -c 1 -w 5 guest && ping -c 1 -w 5 10.213.2.77"
    )?);
    let disconnect = |network: &str, force: bool| {
        let body = json!({"Container": moving, "Force": force}).to_string();
        daemon.ask("POST", &format!("/networks/{network}/disconnect"), &body)
    };
    disconnect("second", false)?.expect(200)?;
    disconnect(&first, true)?.expect(200)?;
    assert!(!succeeds(&daemon, "there", "ping -c 1 -W 1 10.213.2.77")?);
    assert_eq!(get(&daemon, "/networks/first")?["Containers"], json!({}));
    // One that does not run is there at its next start.
    let body = json!({"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"}}).to_string();
    daemon
        .ask("POST", "/containers/create?name=later", &body)?
        .expect(201)?;
    connect(
        "second",
        json!({"Container": "later", "EndpointConfig": {"Aliases": ["late"]}}),
    )?
    .expect(200)?;
    daemon.ask("POST", "/containers/later/start", "")?.expect(204)?;
    assert!(succeeds(&daemon, "there", "ping -c 1 -w 5 late")?);
    remove(&daemon, &[&moving, &there, "later"])?;
    daemon.stop()
}

fn i16_refusals_are_docker_s() -> Check {
    let mut daemon = Daemon::start(&[])?;
    let pool = json!({"Config": [{"Subnet": "10.213.3.0/24"}]});
    let id = create(&daemon, &json!({"Name": "taken", "IPAM": pool}))?;
    create(&daemon, &json!({"Name": "other"}))?;
    let busy = sleeper(&daemon, "busy", on("taken"))?;
    let alone = sleeper(&daemon, "alone", on("none"))?;
    let made = |body: Value| ("POST", "networks/create".to_owned(), body);
    let pool = |config: Value| json!({"Name": "new", "IPAM": {"Config": [config]}});
    let connect = |network: &str, body: Value| ("POST", format!("networks/{network}/connect"), body);
    let short = &busy[..12];
    let cases: Vec<((&str, String, Value), u16, String)> = vec![
        (
            made(json!({"Name": "taken"})),
            409,
            "network with name taken already exists".into(),
        ),
        (
            made(json!({"Name": "bridge"})),
            403,
            "operation is not permitted on predefined bridge network".into(),
        ),
        (made(json!({"Name": ""})), 400, "invalid network name".into()),
        (made(json!({"Name": "a/b"})), 400, "invalid network name".into()),
        (made(json!({})), 400, "invalid network name".into()),
        (
            made(json!({"Name": "new", "Driver": "nodriver"})),
            404,
            "plugin not found".into(),
        ),
        (
            made(json!({"Name": "new", "Driver": "host"})),
            403,
            "only one instance of \"host\" network is allowed".into(),
        ),
        (made(json!({"Name": "new", "Driver": "overlay"})), 501, "overlay".into()),
        (made(json!({"Name": "new", "Scope": "swarm"})), 400, "swarm".into()),
        (
            made(json!({"Name": "new", "ConfigOnly": true})),
            400,
            "ConfigOnly".into(),
        ),
        (
            made(json!({"Name": "new", "EnableIPv4": false})),
            400,
            "EnableIPv4".into(),
        ),
        (
            made(json!({"Name": "new", "IPAM": {"Driver": "mine"}})),
            400,
            "IPAM.Driver".into(),
        ),
        (
            made(json!({"Name": "new", "Options": {"com.docker.network.driver.mtu": "x"}})),
            400,
            "mtu".into(),
        ),
        (
            made(pool(json!({"Subnet": "10.213.3.128/25"}))),
            403,
            "Pool overlaps with other one on this address space".into(),
        ),
        (
            made(pool(json!({"Subnet": "10.213.4.0"}))),
            400,
            "invalid CIDR address: 10.213.4.0".into(),
        ),
        (
            made(pool(json!({"Subnet": "10.213.4.0/24", "Gateway": "10.9.9.9"}))),
            400,
            "10.9.9.9".into(),
        ),
        (
            made(pool(json!({"Subnet": "10.213.4.0/24", "Gateway": "x"}))),
            400,
            "invalid gateway address x".into(),
        ),
        (
            made(pool(
                json!({"Subnet": "10.213.4.0/24", "AuxiliaryAddresses": {"router": "10.213.4.9"}}),
            )),
            400,
            "AuxiliaryAddresses".into(),
        ),
        (
            connect(
                "other",
                json!({"Container": "busy", "EndpointConfig": {"DriverOpts": {"com.docker.network.endpoint.ifname": "x0"}}}),
            ),
            400,
            "DriverOpts com.docker.network.endpoint.ifname".into(),
        ),
        (
            connect(
                "other",
                json!({"Container": "busy", "EndpointConfig": {"IPAMConfig": {"LinkLocalIPs": ["169.254.1.1"]}}}),
            ),
            400,
            "LinkLocalIPs".into(),
        ),
        (
            ("GET", "networks/nothere".into(), Value::Null),
            404,
            "network nothere not found".into(),
        ),
        (
            ("DELETE", "networks/nothere".into(), Value::Null),
            404,
            "network nothere not found".into(),
        ),
        (
            ("DELETE", "networks/host".into(), Value::Null),
            403,
            "host is a pre-defined network and cannot be removed".into(),
        ),
        (
            ("DELETE", format!("networks/{id}"), Value::Null),
            403,
            format!("error while removing network: network taken has active endpoints (name:\"busy\" id:\"{short}\")"),
        ),
        (
            connect("nothere", json!({"Container": "busy"})),
            404,
            "network nothere not found".into(),
        ),
        (
            connect("taken", json!({"Container": "nobody"})),
            404,
            "No such container: nobody".into(),
        ),
        (connect("taken", json!({})), 400, "invalid container".into()),
        (
            connect("taken", json!({"Container": "busy"})),
            403,
            "endpoint with name busy already exists in network taken".into(),
        ),
        (
            connect("taken", json!({"Container": "alone"})),
            403,
            "container cannot be connected to multiple networks with one of the networks in private (none) mode".into(),
        ),
        (
            connect(
                "other",
                json!({"Container": "busy", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "10.213.3.7"}}}),
            ),
            400,
            "no configured subnet contains IP address 10.213.3.7".into(),
        ),
        (
            connect(
                "other",
                json!({"Container": "busy", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "nine"}}}),
            ),
            400,
            "invalid IP address: nine".into(),
        ),
        (
            connect(
                "other",
                json!({"Container": "busy", "EndpointConfig": {"Links": ["a:b:c"]}}),
            ),
            400,
            "bad format for links: a:b:c".into(),
        ),
        (
            ("POST", "networks/other/disconnect".into(), json!({"Container": "busy"})),
            404,
            format!("container {busy} is not connected to the network other"),
        ),
        (
            (
                "POST",
                "containers/create".into(),
                json!({"Image": "busybox", "HostConfig": {"NetworkMode": "nothere"}}),
            ),
            400,
            "network nothere not found".into(),
        ),
    ];
    for ((method, target, body), code, words) in cases {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let answer: Answer = daemon.ask(method, &format!("/v1.56/{target}"), &body)?;
        let what = format!("{method} {target} {body}");
        assert_eq!(answer.code, code, "{what}: {answer:?}");
        let message = answer.message()?;
        assert!(message.contains(&words), "{what}: {message:?} does not have {words:?}");
        assert!(answer.json()?["longshore"]["kind"].is_string(), "{what}: {answer:?}");
    }
    // Nothing of it came about.
    assert_eq!(
        names(&get(&daemon, "/networks")?),
        set(&["bridge", "host", "none", "other", "taken"])
    );
    assert_eq!(get(&daemon, "/networks/other")?["Containers"], json!({}));
    remove(&daemon, &[&busy, &alone])?;
    daemon.stop()
}

/// What a published port answers, from the host.
fn heard(port: u16) -> Result<String, Stop> {
    let start = std::time::Instant::now();
    // Between two clients nobody listens in the container.
    while start.elapsed() < crate::support::wire::PATIENCE {
        let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        stream.set_read_timeout(Some(crate::support::wire::PATIENCE))?;
        let mut said = String::new();
        if stream.read_to_string(&mut said).is_ok() && !said.is_empty() {
            return Ok(said);
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    fail("nothing answers at the published port")
}

fn p38_ports_and_places_as_docker_shows_them() -> Check {
    let mut daemon = Daemon::start(&[])?;
    create(&daemon, &json!({"Name": "net"}))?;
    let body = json!({
        "Image": "busybox", "Cmd": ["sh", "-c", "while true; do echo hello | nc -l -p 80; done"],
        "ExposedPorts": {"80/tcp": {}, "90/udp": {}},
        "HostConfig": {"NetworkMode": "net", "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}},
        "NetworkingConfig": {"EndpointsConfig": {"net": {"Aliases": ["store"], "Links": ["other:elsewhere"]}}},
    });
    let made = daemon
        .ask("POST", "/containers/create?name=web", &body.to_string())?
        .expect(201)?
        .json()?;
    assert_eq!(made["Warnings"], json!([]), "{made}");
    let created = get(&daemon, "/containers/web/json")?;
    assert_eq!(created["NetworkSettings"]["Ports"], json!({}), "{created}");
    assert_eq!(
        created["NetworkSettings"]["Networks"]["net"]["Aliases"],
        json!(["store"]),
        "{created}"
    );
    daemon.ask("POST", "/containers/web/start", "")?.expect(204)?;
    let shown = get(&daemon, "/containers/web/json")?;
    let ports = &shown["NetworkSettings"]["Ports"];
    assert_eq!(
        (&ports["90/udp"], &ports["80/tcp"][0]["HostIp"]),
        (&Value::Null, &json!("127.0.0.1")),
        "{shown}"
    );
    let port: u16 = ports["80/tcp"][0]["HostPort"].as_str().unwrap_or_default().parse()?;
    assert_eq!(
        shown["NetworkSettings"]["Networks"]["net"]["Links"],
        json!(["other:elsewhere"])
    );
    assert_eq!(
        shown["HostConfig"]["PortBindings"],
        json!({"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "0"}]})
    );
    let line = get(&daemon, "/containers/json")?[0].clone();
    let published = json!({"IP": "127.0.0.1", "PrivatePort": 80, "PublicPort": port, "Type": "tcp"});
    assert!(
        line["Ports"].as_array().is_some_and(|ports| ports.contains(&published)),
        "{line}"
    );
    assert_eq!(heard(port)?, "hello\n");
    // Who wants the same port is told so, and leaves nothing.
    let mut second = body.clone();
    second["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"] = json!(port.to_string());
    daemon
        .ask("POST", "/containers/create?name=second", &second.to_string())?
        .expect(201)?;
    let refused = daemon.ask("POST", "/containers/second/start", "")?;
    assert!(refused.message()?.contains("port is already allocated"), "{refused:?}");
    assert_eq!(
        get(&daemon, "/networks/net")?["Containers"]
            .as_object()
            .map(serde_json::Map::len),
        Some(1)
    );
    remove(&daemon, &["web"])?;
    daemon.ask("POST", "/containers/second/start", "")?.expect(204)?;
    remove(&daemon, &["second"])?;
    daemon.stop()
}

/// Runs the client; what it prints, or what it complains of.
pub fn longshore(options: &[&str], words: &[&str]) -> Result<Result<String, String>, Stop> {
    let output = Command::new(client()?).args(options).args(words).output()?;
    Ok(match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    })
}

fn i16_the_client_s_network_commands() -> Check {
    let mut daemon = Daemon::start(&[])?;
    let host = format!("unix://{}", daemon.socket.display());
    let root = crate::faults::filled_root()?;
    let root_path = root.path().display().to_string();
    // Of an engine in the client, whose networks outlive it, and of a daemon.
    for options in [["--root", &root_path], ["--host", &host]] {
        let run = |words: &[&str]| -> Result<String, Stop> {
            longshore(&options, words)?.or_else(|complaint| fail(format!("{words:?}: {complaint}")))
        };
        let refused = |words: &[&str]| -> Result<String, Stop> {
            match longshore(&options, words)? {
                Ok(said) => fail(format!("{words:?} was to fail: {said}")),
                Err(complaint) => Ok(complaint),
            }
        };
        let id = run(&[
            "network",
            "create",
            "--label",
            "a=b",
            "--subnet",
            "10.213.5.0/24",
            "--gateway",
            "10.213.5.9",
            "--ip-range",
            "10.213.5.64/26",
            "--internal",
            "net",
        ])?;
        assert_eq!(id.len(), 64, "{id}");
        run(&[
            "network",
            "create",
            "-o",
            "com.docker.network.driver.mtu=1400",
            "--ipv6",
            "other",
        ])?;
        let listed = run(&["network", "ls"])?;
        let column = |line: &str| line.split_whitespace().nth(1).unwrap_or_default().to_owned();
        let shown: BTreeSet<String> = listed.lines().skip(1).map(column).collect();
        assert_eq!(shown, set(&["bridge", "host", "net", "none", "other"]), "{listed}");
        assert_eq!(
            run(&["network", "ls", "-q", "--no-trunc", "--filter", "label=a=b"])?,
            id
        );
        assert_eq!(run(&["network", "ls", "-q", "--filter", "name=net"])?, id[..12]);
        assert!(refused(&["network", "ls", "--filter", "colour=red"])?.contains("invalid filter 'colour'"));
        let inspected: Value = serde_json::from_str(&run(&["network", "inspect", "net", &id[..12]])?)?;
        assert_eq!(inspected[0], inspected[1]);
        assert_eq!(
            inspected[0]["IPAM"]["Config"],
            json!([{"Subnet": "10.213.5.0/24", "Gateway": "10.213.5.9", "IPRange": "10.213.5.64/26"}])
        );
        assert_eq!(
            (&inspected[0]["Internal"], &inspected[0]["Labels"]),
            (&json!(true), &json!({"a": "b"}))
        );
        assert!(refused(&["network", "create", "net"])?.contains("net"));
        assert!(refused(&["network", "inspect", "nothere"])?.contains("network nothere not found"));
        assert!(refused(&["network", "connect", "net", "nobody"])?.contains("nobody"));
        // It goes on past one that cannot be removed.
        assert!(refused(&["network", "rm", "nothere", "net"])?.contains("network nothere not found"));
        assert_eq!(run(&["network", "ls", "-q", "--filter", "name=net"])?, "");
        assert_eq!(run(&["network", "prune", "-f", "--filter", "label=none"])?, "");
        assert_eq!(run(&["network", "prune", "-f"])?, "other");
    }
    daemon.stop()
}

/// Options of `run` about networks, on the network `two`, 10.213.6.0/24.
fn every_option_of_run_counts(run: &impl Fn(&[&str]) -> Result<String, Stop>) -> Check {
    let shown = run(&[
        "run",
        "--rm",
        "--network",
        "two",
        "--ip",
        "10.213.6.78",
        "--mac-address",
        "02:42:0a:00:00:4e",
        "--dns",
        "192.0.2.53",
        "--dns-search",
        "example.org",
        "--dns-option",
        "timeout:1",
        "--add-host",
        "fixed:192.0.2.7",
        "--add-host",
        "host:host-gateway",
        "busybox",
        "sh",
        "-c",
        "ip -o addr; ip -o link show eth0; cat /etc/hosts /etc/resolv.conf",
    ])?;
    for wanted in [
        "10.213.6.78/24",
        "02:42:0a:00:00:4e",
        "192.0.2.7\tfixed",
        "10.213.6.1\thost",
        "nameserver 127.0.0.11",
        "search example.org",
        "timeout:1",
    ] {
        assert!(shown.contains(wanted), "{wanted}: {shown}");
    }
    run(&[
        "run", "-d", "--name", "all", "--expose", "80", "--expose", "53/udp", "-P", "busybox", "sleep", "1000",
    ])?;
    let ports = run(&["port", "all"])?;
    for port in ["80/tcp -> 0.0.0.0:", "53/udp -> 0.0.0.0:"] {
        assert!(ports.contains(port), "{port}: {ports}");
    }
    run(&["rm", "-f", "all"])?;
    Ok(())
}

fn i6_the_client_s_containers_on_networks() -> Check {
    let mut daemon = Daemon::start(&[])?;
    let host = format!("unix://{}", daemon.socket.display());
    let run = |words: &[&str]| -> Result<String, Stop> {
        longshore(&["--host", &host], words)?.or_else(|complaint| fail(format!("{words:?}: {complaint}")))
    };
    run(&["network", "create", "one"])?;
    run(&["network", "create", "--subnet", "10.213.6.0/24", "two"])?;
    run(&[
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "one",
        "--network-alias",
        "shop",
        "-p",
        "127.0.0.1::80",
        "busybox",
        "sh",
        "-c",
        "while true; do echo hello | nc -l -p 80; done",
    ])?;
    let port = run(&["port", "web", "80"])?;
    assert!(port.starts_with("127.0.0.1:") && !port.ends_with(":0"), "{port}");
    assert_eq!(run(&["container", "port", "web"])?, format!("80/tcp -> {port}"));
    let unpublished = longshore(&["--host", &host], &["port", "web", "81"])?;
    assert!(unpublished.is_err_and(|said| said.contains("no public port '81/tcp' published for web")));
    let inspected: Value = serde_json::from_str(&run(&["container", "inspect", "web"])?)?;
    let id = inspected[0]["Id"].as_str().unwrap_or_default().to_owned();
    assert_eq!(run(&["container", "ls", "-q", "--no-trunc"])?, id);
    let ask = "ping -c 1 -w 5 shop >/dev/null && ping -c 1 -w 5 store >/dev/null && echo reached";
    let said = run(&[
        "run",
        "--rm",
        "--network",
        "one",
        "--link",
        "web:store",
        "busybox",
        "sh",
        "-c",
        ask,
    ])?;
    assert_eq!(said, "reached");
    every_option_of_run_counts(&run)?;
    run(&[
        "network",
        "connect",
        "--ip",
        "10.213.6.77",
        "--alias",
        "guest",
        "--link",
        "nobody:n",
        "two",
        "web",
    ])?;
    assert!(run(&["exec", "web", "ip", "-o", "addr"])?.contains("10.213.6.77/24"));
    let members: Value = serde_json::from_str(&run(&["network", "inspect", "two"])?)?;
    let members = members[0]["Containers"].as_object().cloned().unwrap_or_default();
    let seen: Vec<_> = members
        .values()
        .map(|member| (&member["Name"], &member["IPv4Address"]))
        .collect();
    assert_eq!(seen, [(&json!("web"), &json!("10.213.6.77/24"))]);
    assert!(
        longshore(&["--host", &host], &["network", "rm", "two"])?.is_err_and(|said| said.contains("active endpoints"))
    );
    run(&["network", "disconnect", "two", "web"])?;
    assert!(!run(&["exec", "web", "ip", "-o", "addr"])?.contains("10.213.6.77"));
    assert_eq!(run(&["network", "rm", "two"])?, "two");
    run(&["rm", "-f", "web"])?;
    daemon.stop()
}

async fn sh(engine: &Engine, container: &str, script: &str) -> Result<bool, Stop> {
    let container = engine.container(container).await?;
    let output = container.exec(ExecSpec::new(["sh", "-c", script])).output().await?;
    Ok(output.status.success())
}

fn named(network: &str) -> NetworkMode {
    NetworkMode::Named(network.to_owned())
}

fn sleeps(world: &World, name: &str, network: &str) -> ContainerSpec {
    world
        .spec()
        .command(["sleep", "1000"])
        .name(name)
        .network(named(network))
}

async fn i3_links_are_names_for_one_container_alone() -> Check {
    let world = World::new().await?;
    let networks = world.engine.networks();
    networks.create(NetworkSpec::bridge("linked").internal(true)).await?;
    let links = vec!["aim:target".parse::<EndpointLink>()?, "late".parse()?];
    let spec = sleeps(&world, "linking", "linked").endpoint(
        "linked",
        EndpointSpec {
            links,
            ..EndpointSpec::default()
        },
    );
    let linking = world.started(spec).await?;
    let aim = world.started(sleeps(&world, "aim", "linked")).await?;
    let ping = |name: &str| format!("ping -c 1 -w 5 {name}");
    assert!(sh(&world.engine, "linking", &ping("target")).await?);
    assert!(sh(&world.engine, "linking", &ping("TARGET.linked")).await?);
    assert!(
        !sh(&world.engine, "aim", "nslookup target 127.0.0.11").await?,
        "others do not know the name"
    );
    // A link to one that comes later, and to one by its id.
    assert!(!sh(&world.engine, "linking", "nslookup late 127.0.0.11").await?);
    let late = world.started(sleeps(&world, "late", "linked")).await?;
    assert!(sh(&world.engine, "linking", &ping("late")).await?);
    let containers = world.engine.containers();
    networks.create(NetworkSpec::bridge("by-id").internal(true)).await?;
    let link = EndpointLink {
        container: aim.id().to_string(),
        alias: "it".into(),
    };
    let by_id = EndpointSpec {
        links: vec![link],
        ..EndpointSpec::default()
    };
    containers.connect("aim", "by-id", EndpointSpec::default()).await?;
    containers.connect("linking", "by-id", by_id).await?;
    assert!(sh(&world.engine, "linking", &ping("it.by-id")).await?);
    for container in [linking, aim, late] {
        container.remove(FORCE).await?;
    }
    for name in ["linked", "by-id"] {
        networks.remove(name).await?;
    }
    Ok(())
}

async fn i3_a_container_that_was_renamed_is_found_by_its_new_name() -> Check {
    let world = World::new().await?;
    let networks = world.engine.networks();
    networks.create(NetworkSpec::bridge("named").internal(true)).await?;
    let one = world.started(sleeps(&world, "before", "named")).await?;
    let other = world.started(sleeps(&world, "asks", "named")).await?;
    assert!(sh(&world.engine, "asks", "ping -c 1 -w 5 before").await?);
    one.rename("after").await?;
    assert!(sh(&world.engine, "asks", "ping -c 1 -w 5 after").await?);
    assert!(!sh(&world.engine, "asks", "nslookup before 127.0.0.11").await?);
    let info = one.inspect().await?;
    assert_eq!(info.endpoints[0].names, ["after", one.id().short()]);
    let members = networks.inspect("named").await?.containers;
    assert!(members.iter().any(|member| member.name == "after"), "{members:?}");
    for container in [one, other] {
        container.remove(FORCE).await?;
    }
    networks.remove("named").await?;
    Ok(())
}

/// What both ends tell of a network. Links of the host are this process's own to see.
fn told(info: &NetworkInfo) -> NetworkInfo {
    let mut info = info.clone();
    info.links.clear();
    info.spec.persistent = true;
    for member in &mut info.containers {
        member.endpoint.interface.clear();
        // A network shows of its members where they are.
        member.endpoint.names.clear();
        member.endpoint.aliases.clear();
        member.endpoint.network_id.clear();
        (member.endpoint.gateway, member.endpoint.gateway_v6) = (None, None);
    }
    info
}

async fn i16_networks_of_an_engine_elsewhere() -> Check {
    let pair = Pair::alone().await?;
    let (near, far) = (pair.world.engine.networks(), pair.far.networks());
    let spec = NetworkSpec::bridge("made-far")
        .subnet("10.213.7.0/24".parse()?)
        .internal(true)
        .between_containers(false)
        .mtu_bytes(1400)
        .label("a", "b");
    let made = far.create(spec.clone()).await?;
    assert!(made.warnings.is_empty(), "{made:?}");
    let info = near.inspect("made-far").await?;
    assert_eq!(info.id.as_ref(), Some(&made.id));
    assert_eq!(
        (
            info.spec.internal,
            info.spec.between_containers,
            info.spec.mtu_bytes,
            &info.spec.labels
        ),
        (true, false, Some(1400), &spec.labels)
    );
    near.create(
        NetworkSpec::bridge("made-near")
            .ipv6(true)
            .label("a", "c")
            .persistent(true),
    )
    .await?;
    let member = pair.world.started(sleeps(&pair.world, "member", "made-near")).await?;
    for name in ["made-far", "made-near", "host", "none", made.id.short()] {
        let (here, there) = (near.inspect(name).await?, far.inspect(name).await?);
        let mut here = told(&here);
        // Its options are the API's words for what the spec says.
        here.spec.options.clone_from(&there.spec.options);
        assert_eq!(told(&there), here, "{name}");
    }
    let names = async |manager: &dyn NetworkManager| -> Result<Vec<String>, Stop> {
        Ok(manager.list().await?.into_iter().map(|network| network.name).collect())
    };
    assert_eq!(names(&**far).await?, names(&**near).await?);
    let busy = far.remove("made-near").await.expect_err("in use");
    assert!(
        busy.is_conflict() && busy.to_string().contains("active endpoints"),
        "{busy:?}"
    );
    assert_eq!(
        far.prune(Filter::new().with("label", "a=c")).await?,
        Vec::<String>::new()
    );
    assert_eq!(far.prune(Filter::new().with("label", "a=b")).await?, ["made-far"]);
    assert!(near.inspect("made-far").await.is_err());
    member.remove(FORCE).await?;
    assert_eq!(far.remove("made-near").await?, Outcome::Done);
    assert_eq!(names(&**near).await?, ["bridge", "host", "none"]);
    pair.end().await
}

async fn i6_places_of_an_engine_elsewhere() -> Check {
    let pair = Pair::new().await?;
    let (near, far) = (&pair.world.engine, &pair.far);
    far.networks().create(NetworkSpec::bridge("far-one")).await?;
    far.networks()
        .create(NetworkSpec::bridge("far-two").subnet("10.213.8.0/24".parse()?))
        .await?;
    let place = EndpointSpec {
        aliases: vec!["alias".into()],
        links: vec!["far-other:linked".parse()?],
        gateway_priority: 3,
        shaping: Shaping::both(LinkShape::default().rate_bits(80_000_000)),
        ..EndpointSpec::default()
    };
    let spec = sleeps(&pair.world, "far-web", "far-one").endpoint("far-one", place.clone());
    let mut spec = spec.extra_host("fixed", "192.0.2.7");
    spec.ports
        .push(PortBinding::new(Port::tcp(80), 0).at(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    spec.expose.insert(Port::udp(90));
    spec.dns.push("192.0.2.1".parse()?);
    let web = far.run(spec).await?;
    let other = far.run(sleeps(&pair.world, "far-other", "far-one")).await?;
    let (here, there) = (near.container("far-web").await?.inspect().await?, web.inspect().await?);
    assert_eq!(here.spec.endpoints["far-one"], place);
    assert_eq!(there.spec.endpoints, here.spec.endpoints);
    assert_eq!((&there.ports, there.ports.len()), (&here.ports, 1));
    assert_eq!(there.exposed, here.exposed);
    assert_eq!(
        (&there.spec.dns, &there.spec.extra_hosts),
        (&here.spec.dns, &here.spec.extra_hosts)
    );
    let mut seen = here.endpoints.clone();
    seen[0].interface.clear();
    assert_eq!(there.endpoints, seen);
    assert!(sh(far, "far-other", "ping -c 1 -w 5 alias").await?);
    assert!(sh(far, "far-web", "ping -c 1 -w 5 linked").await?);
    let containers = far.containers();
    let second = EndpointSpec {
        ipv4: Some(Ipv4Addr::new(10, 213, 8, 77)),
        mac: Some("02:42:aa:bb:cc:ee".into()),
        ..EndpointSpec::default()
    };
    containers.connect("far-web", "far-two", second).await?;
    let places = near.container("far-web").await?.inspect().await?.endpoints;
    assert_eq!(
        (places[1].ipv4, places[1].mac.as_str()),
        (Some((Ipv4Addr::new(10, 213, 8, 77), 24)), "02:42:aa:bb:cc:ee")
    );
    assert_eq!(containers.disconnect("far-web", "far-two").await?, Outcome::Done);
    assert_eq!(near.container("far-web").await?.inspect().await?.endpoints.len(), 1);
    let all = longshore::ListOptions {
        all: true,
        filter: Filter::new().with("network", "far-one"),
    };
    assert_eq!(far.list(all).await?.len(), 2);
    for container in [web, other] {
        container.remove(FORCE).await?;
    }
    for name in ["far-one", "far-two"] {
        far.networks().remove(name).await?;
    }
    pair.end().await
}

/// Each verb over a dockerd, whose answers have nothing of ours beside them.
async fn i16_networks_of_dockerd() -> Check {
    let docker = Dockerd::start()?;
    let far = Engine::connect(&docker.host).await?;
    let networks = far.networks();
    let spec = NetworkSpec::bridge("theirs")
        .subnet("10.213.9.0/24".parse()?)
        .label("a", "b")
        .internal(true);
    // A bridge of its own name, so that it is known whose it is.
    let mut spec = spec;
    spec.options.insert(
        "com.docker.network.bridge.name".into(),
        format!("lsit{}", std::process::id() % 100_000),
    );
    let made = networks.create(spec.clone()).await?;
    let info = networks.inspect("theirs").await?;
    assert_eq!((info.id.as_ref(), info.driver.as_str()), (Some(&made.id), "bridge"));
    assert_eq!((&info.spec.labels, info.spec.internal), (&spec.labels, true));
    assert_eq!(info.spec.pools[0].subnet, spec.pools[0].subnet);
    assert!(networks.list().await?.iter().any(|network| network.name == "theirs"));
    let errors = [
        (failure(networks.create(spec)).await?, ErrorKind::Conflict),
        (failure(networks.inspect("nothere")).await?, ErrorKind::NotFound),
        (failure(networks.remove("nothere")).await?, ErrorKind::NotFound),
        (failure(networks.remove("none")).await?, ErrorKind::Denied),
        (
            failure(far.containers().connect("nobody", "theirs", EndpointSpec::default())).await?,
            ErrorKind::NotFound,
        ),
        (
            failure(networks.prune(Filter::new().with("colour", "red"))).await?,
            ErrorKind::InvalidArgument,
        ),
    ];
    for (error, kind) in errors {
        assert_eq!(error.kind(), &kind, "{error:?}");
    }
    assert_eq!(networks.remove("theirs").await?, Outcome::Done);
    Ok(())
}

/// What a call failed with.
pub async fn failure<T>(call: impl Future<Output = longshore::Result<T>>) -> Result<Error, Stop> {
    match call.await {
        Err(error) => Ok(error),
        Ok(_) => fail(format!("no error but a {}", std::any::type_name::<T>())),
    }
}

async fn a7_network_errors_over_the_api() -> Check {
    let pair = Pair::new().await?;
    pair.world
        .engine
        .networks()
        .create(NetworkSpec::bridge("errors").subnet("10.213.10.0/24".parse()?))
        .await?;
    let member = pair.world.started(sleeps(&pair.world, "errs", "errors")).await?;
    let mut found = Vec::new();
    for engine in pair.both() {
        let (networks, containers) = (engine.networks(), engine.containers());
        let overlay = {
            let mut spec = NetworkSpec::bridge("new");
            spec.driver = "overlay".into();
            spec
        };
        let elsewhere = EndpointSpec {
            ipv4: Some(Ipv4Addr::new(192, 0, 2, 9)),
            ..EndpointSpec::default()
        };
        found.push(vec![
            failure(networks.inspect("nothere")).await?,
            failure(networks.remove("nothere")).await?,
            failure(networks.remove("bridge")).await?,
            failure(networks.remove("errors")).await?,
            failure(networks.create(NetworkSpec::bridge("errors"))).await?,
            failure(networks.create(NetworkSpec::bridge("no good"))).await?,
            failure(networks.create(overlay)).await?,
            failure(networks.create(NetworkSpec::bridge("new").subnet("10.213.10.0/25".parse()?))).await?,
            failure(networks.prune(Filter::new().with("colour", "red"))).await?,
            failure(containers.connect("nobody", "errors", EndpointSpec::default())).await?,
            failure(containers.connect("errs", "nothere", EndpointSpec::default())).await?,
            failure(containers.connect("errs", "errors", EndpointSpec::default())).await?,
            failure(containers.connect("errs", "bridge", elsewhere)).await?,
            failure(containers.disconnect("errs", "bridge")).await?,
            failure(containers.create(pair.world.spec().network(named("nothere")))).await?,
        ]);
    }
    for (near, far) in found[0].iter().zip(&found[1]) {
        assert_eq!(far.kind(), near.kind(), "{far:?} is not {near:?}");
        assert_eq!(far.object(), near.object(), "{far:?} is not {near:?}");
    }
    member.remove(FORCE).await?;
    pair.world.engine.networks().remove("errors").await?;
    pair.end().await
}
