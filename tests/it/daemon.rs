//! `longshored`: its sockets, its end, what its clients of every age see.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::faults;
use crate::frame::{Check, Stop, block_on, fail};
use crate::longshored::{self, Daemon, await_gone};
use crate::support::image::{self, Files, busybox_files};
use crate::support::registry::{Options, Registry, free_port};
use crate::support::scratch;
use crate::support::wire::{self, ask_tcp};
use crate::tests;

tests! { "daemon":
    kernel [
        b1_a_unix_socket_with_its_mode_and_group,
        b1_a_file_says_what_the_command_line_leaves_out,
        b1_tcp_on_loopback_and_elsewhere_only_by_name,
        b1_tls_lets_in_whom_its_authority_signed,
        b2_a_socket_that_was_handed_in_and_readiness,
        b3_an_idle_daemon_ends,
        b4_every_version_answers_and_others_are_refused,
        b5_ping_says_what_clients_negotiate_with,
        b7_errors_before_a_stream_and_in_it,
        p9_clients_of_every_age_run_a_container,
        p38_keys_in_any_case_sizes_and_manifests,
        a_drain_lets_requests_finish_and_leaves_nothing,
        a_killed_daemon_leaves_nothing,
    ]
}

fn b1_a_unix_socket_with_its_mode_and_group() -> Check {
    // One that the user is in; root may give a socket to any.
    let group = if crate::support::is_root() {
        1
    } else {
        nix::unistd::getegid().as_raw()
    };
    let mut daemon = Daemon::start(&["--socket-mode", "640", "--group", &group.to_string()])?;
    let meta = fs::metadata(&daemon.socket)?;
    assert_eq!((meta.permissions().mode() & 0o777, meta.gid()), (0o640, group));
    daemon.ask("GET", "/version", "")?.expect(200)?;
    daemon.stop()?;
    assert!(!daemon.socket.exists(), "the socket is left");
    Ok(())
}

fn b1_a_file_says_what_the_command_line_leaves_out() -> Check {
    let root = faults::filled_root()?;
    let (socket, file) = (root.path().join("file.sock"), root.path().join("daemon.json"));
    let start = |said: &Value, more: &[&str]| -> Result<std::process::Child, Stop> {
        fs::write(&file, said.to_string())?;
        let mut command = std::process::Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(longshored::program()?);
        command.arg("--config").arg(&file).args(more);
        Ok(command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?)
    };
    let said =
        json!({"data-root": root.path(), "hosts": [format!("unix://{}", socket.display())], "socket-mode": "600"});
    // What cannot be understood is named, and nothing is served.
    for (broken, words) in [
        (json!({"data-root": root.path(), "colour": "red"}), "colour"),
        (
            json!({"data-root": root.path(), "hosts": ["tcp://0.0.0.0:1"]}),
            "--tlsverify",
        ),
    ] {
        let output = start(&broken, &[])?.wait_with_output()?;
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && complaint.contains(words), "{complaint}");
    }
    let child = start(&said, &["--socket-mode", "640"])?;
    let mut daemon = Daemon::adopt(child, root, socket);
    daemon.await_socket()?;
    assert_eq!(
        fs::metadata(&daemon.socket)?.permissions().mode() & 0o777,
        0o640,
        "what is said twice"
    );
    let images = daemon.ask("GET", "/images/json", "")?.expect(200)?;
    assert_eq!(
        images.json()?.as_array().map(Vec::len),
        Some(1),
        "the root is that of the file"
    );
    daemon.stop()
}

fn b1_tcp_on_loopback_and_elsewhere_only_by_name() -> Check {
    let (near, far) = (free_port()?, SocketAddr::from(([0, 0, 0, 0], free_port()?.port())));
    let host = format!("tcp://{near}");
    let mut daemon = Daemon::start(&["--host", &host])?;
    ask_tcp(near, "/version")?.expect(200)?;
    daemon.stop()?;
    let host = format!("tcp://{far}");
    let (mut command, root, socket) = Daemon::command()?;
    let child = command.args(["--host", &host]).spawn()?;
    let mut refused = Daemon::adopt(child, root, socket);
    let status = refused.ended()?;
    let complaint = refused.complaint();
    assert!(
        !status.success() && complaint.contains("--insecure-tcp"),
        "{status}: {complaint}"
    );
    let mut insisted = Daemon::start(&["--host", &host, "--insecure-tcp"])?;
    ask_tcp(SocketAddr::from(([127, 0, 0, 1], far.port())), "/version")?.expect(200)?;
    insisted.stop()
}

/// An authority, and what it signs.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Result<Self, Stop> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self {
            pem,
            issuer: Issuer::new(params, key),
        })
    }

    /// A certificate and its key.
    pub fn sign(&self) -> Result<(String, String), Stop> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()])?.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

/// What a client gets that trusts an authority and shows a certificate, or none: an answer's first line, or why not.
fn over_tls(to: SocketAddr, trusts: &str, shows: Option<&(String, String)>) -> Result<String, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(trusts.as_bytes()).map_err(|error| text(&error))?)
        .map_err(|error| text(&error))?;
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| text(&error))?
        .with_root_certificates(roots);
    let config = match shows {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|error| text(&error))?];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| text(&error))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| text(&error))?
        }
    };
    let conversation = async {
        let tcp = tokio::net::TcpStream::connect(to).await?;
        let name = ServerName::IpAddress(to.ip().into());
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        stream
            .write_all(wire::request("GET", "/version", "").as_bytes())
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer.lines().next().unwrap_or_default().to_owned())
    };
    let patient = async { tokio::time::timeout(wire::PATIENCE, conversation).await };
    match block_on(patient) {
        Ok(Ok(line)) if line.is_empty() => Err("closed without an answer".to_owned()),
        Ok(Ok(line)) => Ok(line),
        Ok(Err(error)) => Err(text(&error)),
        Err(_) => panic!("a client that is to be refused waits forever"),
    }
}

fn b1_tls_lets_in_whom_its_authority_signed() -> Check {
    let dir = scratch::fresh("tls");
    let (ours, other) = (Authority::new()?, Authority::new()?);
    let (certificate, key) = ours.sign()?;
    let file = |name: &str, text: &str| -> Result<String, Stop> {
        let path = dir.path().join(name);
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let (ca, cert, key) = (file("ca", &ours.pem)?, file("cert", &certificate)?, file("key", &key)?);
    let address = free_port()?;
    let host = format!("tcp://{address}");
    let mut daemon = Daemon::start(&[
        "--host",
        &host,
        "--tlsverify",
        "--tlscacert",
        &ca,
        "--tlscert",
        &cert,
        "--tlskey",
        &key,
    ])?;
    let (good, stranger) = (ours.sign()?, other.sign()?);
    assert_eq!(
        over_tls(address, &ours.pem, Some(&good)),
        Ok("HTTP/1.1 200 OK".to_owned())
    );
    let refusals = [
        ("no certificate", over_tls(address, &ours.pem, None)),
        (
            "another authority's certificate",
            over_tls(address, &ours.pem, Some(&stranger)),
        ),
        (
            "a client that trusts another authority",
            over_tls(address, &other.pem, Some(&good)),
        ),
    ];
    for (who, answer) in refusals {
        assert!(answer.is_err(), "{who}: {answer:?}");
    }
    assert!(ask_tcp(address, "/version").is_err(), "plain HTTP gets an answer");
    // The unix socket is not concerned, and nobody was kept out for good.
    daemon.ask("GET", "/version", "")?.expect(200)?;
    assert!(over_tls(address, &ours.pem, Some(&good)).is_ok());
    daemon.stop()
}

/// The daemon on a socket that listens already, as descriptor 3.
fn handed_in(listener: UnixListener, notify: &Path, options: &[&str]) -> Result<(Daemon, PathBuf), Stop> {
    let (command, root, socket) = Daemon::command()?;
    let mut shell = std::process::Command::new("sh");
    let script = r#"export LISTEN_PID=$$ LISTEN_FDS=1; exec "$0" "$@" 3<&0 </dev/null"#;
    shell
        .args(["-c", script])
        .arg(command.get_program())
        .args(command.get_args());
    shell
        .args(["--host", "fd://"])
        .args(options)
        .env("NOTIFY_SOCKET", notify);
    shell.stdin(Stdio::from(OwnedFd::from(listener))).stderr(Stdio::piped());
    let child = shell.spawn()?;
    Ok((Daemon::adopt(child, root, socket.clone()), socket))
}

fn b2_a_socket_that_was_handed_in_and_readiness() -> Check {
    let dir = scratch::fresh("activation");
    let (path, states) = (dir.path().join("given"), dir.path().join("notify"));
    let manager = UnixDatagram::bind(&states)?;
    manager.set_read_timeout(Some(wire::PATIENCE))?;
    let (mut daemon, own) = handed_in(UnixListener::bind(&path)?, &states, &[])?;
    let said = || -> Result<String, Stop> {
        let mut buffer = [0; 64];
        let read = manager.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..read]).into_owned())
    };
    assert_eq!(said()?, "READY=1");
    wire::ask(&path, "GET", "/version", "")?.expect(200)?;
    assert!(!own.exists(), "it bound a path");
    daemon.stop()?;
    assert_eq!(said()?, "STOPPING=1");
    assert!(path.exists(), "the socket's file is the service manager's");
    Ok(())
}

fn b3_an_idle_daemon_ends() -> Check {
    let mut daemon = Daemon::start(&["--exit-idle", "1"])?;
    let (id, _) = daemon.run(r#""Cmd": ["sleep", "2"]"#)?;
    // A connection without a request counts as well.
    let client = UnixStream::connect(&daemon.socket)?;
    let waited = daemon.ask("POST", &format!("/containers/{id}/wait"), "")?.expect(200)?;
    assert_eq!(
        waited.json()?["StatusCode"],
        0,
        "the container ran to its end: {waited:?}"
    );
    drop(client);
    let status = daemon.ended()?;
    assert!(status.success(), "{status}: {}", daemon.complaint());
    faults::no_container_left(daemon.root.path())
}

fn b4_every_version_answers_and_others_are_refused() -> Check {
    let mut daemon = Daemon::start(&[])?;
    for minor in 24..=56 {
        daemon.ask("GET", &format!("/v1.{minor}/_ping"), "")?.expect(200)?;
        daemon
            .ask("GET", &format!("/v1.{minor}/containers/json"), "")?
            .expect(200)?;
    }
    daemon.ask("GET", "/_ping", "")?.expect(200)?;
    for (version, words) in [
        (
            "1.23",
            "client version 1.23 is too old. Minimum supported API version is 1.24",
        ),
        (
            "1.57",
            "client version 1.57 is too new. Maximum supported API version is 1.56",
        ),
    ] {
        let refused = daemon.ask("GET", &format!("/v{version}/version"), "")?.expect(400)?;
        assert!(refused.message()?.contains(words), "{refused:?}");
    }
    daemon.stop()
}

fn b5_ping_says_what_clients_negotiate_with() -> Check {
    let mut daemon = Daemon::start(&[])?;
    for (method, body) in [("GET", "OK"), ("HEAD", "")] {
        let pong = daemon.ask(method, "/_ping", "")?.expect(200)?;
        assert_eq!(pong.body, body);
        for line in [
            "api-version: 1.56",
            "ostype: linux",
            "server: longshore/",
            "docker-experimental: false",
            "builder-version: 1",
            "swarm: inactive",
            "cache-control: no-cache, no-store, must-revalidate",
        ] {
            assert!(pong.head.contains(line), "{method}: {line} in {}", pong.head);
        }
    }
    daemon.stop()
}

/// The last line of a stream of JSON.
fn last_line(body: &str) -> Result<Value, Stop> {
    match body.lines().rfind(|line| !line.is_empty()).map(serde_json::from_str) {
        Some(Ok(value)) => Ok(value),
        _ => fail(format!("no line of JSON at the end of {body:?}")),
    }
}

fn b7_errors_before_a_stream_and_in_it() -> Check {
    let layout = image::shared()?;
    let registry = Registry::with(Options::default(), &[(layout, "busybox", "1")])?;
    let mut daemon = Daemon::start(&[])?;
    let name = registry.reference("busybox");
    let pull = |tag: &str| daemon.ask("POST", &format!("/v1.44/images/create?fromImage={name}&tag={tag}"), "");
    let missing = pull("nope")?.expect(404)?;
    assert!(missing.message()?.contains("manifest unknown"), "{missing:?}");
    let good = pull("1")?.expect(200)?;
    assert!(
        last_line(&good.body)?["status"]
            .as_str()
            .unwrap_or_default()
            .starts_with("Status: "),
        "{good:?}"
    );
    let dir = scratch::fresh("layout");
    let files = [busybox_files()?, Files::new().file("more", 0o644, "x".repeat(1 << 16))];
    let other = image::write_layout(dir.path(), &files, &json!({}))?;
    other.push(registry.addr, "busybox", "2")?;
    let (digest, _) = &other.layers[1];
    let mut blob = other.blob(digest)?;
    let middle = blob.len() / 2;
    blob[middle] ^= 1;
    fs::write(registry.blob_file(digest), blob)?;
    let damaged = pull("2")?.expect(200)?;
    let last = last_line(&damaged.body)?;
    assert!(last["errorDetail"]["message"].is_string(), "{damaged:?}");
    assert_eq!(last["error"], last["errorDetail"]["message"]);
    assert!(last["longshore"]["kind"].is_string(), "{last}");
    daemon.ask("GET", &format!("/images/{name}:2/json"), "")?.expect(404)?;
    daemon.stop()
}

fn p9_clients_of_every_age_run_a_container() -> Check {
    let mut daemon = Daemon::start(&[])?;
    for version in ["1.24", "1.32", "1.40", "1.41", "1.44", "1.56"] {
        let body =
            json!({"Image": "busybox", "Cmd": ["sh", "-c", "echo out; exit 3"], "HostConfig": {"NetworkMode": "none"}});
        let at = |rest: &str| format!("/v{version}/containers/{rest}");
        let created = daemon
            .ask("POST", &at("create"), &body.to_string())?
            .expect(201)?
            .json()?;
        let id = created["Id"].as_str().unwrap_or_default();
        daemon.ask("POST", &at(&format!("{id}/start")), "")?.expect(204)?;
        let waited = daemon.ask("POST", &at(&format!("{id}/wait")), "")?.expect(200)?;
        assert_eq!(waited.json()?["StatusCode"], 3, "{version}");
        let inspected = daemon.ask("GET", &at(&format!("{id}/json")), "")?.expect(200)?.json()?;
        assert_eq!(inspected["State"]["ExitCode"], 3, "{version}");
        let logs = daemon
            .ask("GET", &at(&format!("{id}/logs?stdout=1")), "")?
            .expect(200)?;
        assert!(logs.body.ends_with("out\n"), "{version}: {logs:?}");
        let listed = daemon.ask("GET", &at("json?all=1"), "")?.expect(200)?.json()?;
        assert_eq!(listed[0]["Id"], id, "{version}");
        daemon.ask("DELETE", &at(id), "")?.expect(204)?;
        let images = daemon
            .ask("GET", &format!("/v{version}/images/json"), "")?
            .expect(200)?
            .json()?;
        // Every client before 1.44 adds it up.
        assert_eq!(
            images[0]["VirtualSize"].is_u64(),
            version < "1.44",
            "{version}: {images}"
        );
    }
    daemon.stop()
}

fn p38_keys_in_any_case_sizes_and_manifests() -> Check {
    let mut daemon = Daemon::start(&[])?;
    // Go reads names in any case, and clients came to rely on it.
    let body = json!({"image": "busybox", "CMD": ["sh", "-c", "echo 0123456789 > /file"], "hostConfig": {"networkmode": "none"}});
    let created = daemon.ask("POST", "/containers/create?name=any", &body.to_string())?;
    created.expect(201)?;
    daemon.ask("POST", "/containers/any/start", "")?.expect(204)?;
    daemon.ask("POST", "/containers/any/wait", "")?.expect(200)?;
    let get = |target: &str| daemon.ask("GET", target, "")?.expect(200)?.json();
    assert!(get("/containers/any/json")?.get("SizeRw").is_none());
    let counted = get("/containers/any/json?size=1")?;
    assert!(counted["SizeRw"].as_u64() >= Some(11), "{}", counted["SizeRw"]);
    assert!(counted["SizeRootFs"].as_u64() > counted["SizeRw"].as_u64());
    assert!(get("/containers/json?all=1")?[0].get("SizeRootFs").is_none());
    assert_eq!(
        get("/containers/json?all=1&size=1")?[0]["SizeRootFs"],
        counted["SizeRootFs"]
    );
    let id = counted["Id"].clone();
    for target in ["/images/busybox/json?manifests=1", "/images/json?manifests=1"] {
        let found = get(target)?;
        let image = found.get(0).unwrap_or(&found);
        let manifest = &image["Manifests"][0];
        assert_eq!(manifest["ID"], image["Descriptor"]["digest"], "{target}");
        assert_eq!(manifest["ImageData"]["Containers"], json!([id]), "{target}");
        assert!(
            manifest["Size"]["Total"].as_u64() > manifest["Size"]["Content"].as_u64(),
            "{target}"
        );
    }
    // An older version ignores what it does not know.
    assert!(
        get("/v1.44/images/busybox/json?manifests=1")?
            .get("Manifests")
            .is_none()
    );
    let image = &get("/images/json?shared-size=1")?[0];
    assert_eq!((&image["Containers"], &image["SharedSize"]), (&json!(1), &json!(0)));
    let image = &get("/v1.50/images/json")?[0];
    assert_eq!((&image["Containers"], &image["SharedSize"]), (&json!(-1), &json!(-1)));
    daemon.stop()
}

/// Sends the head of a request and reads the head of its answer; the connection.
fn begin(daemon: &Daemon, target: &str) -> Result<UnixStream, Stop> {
    let mut client = wire::connect(&daemon.socket)?;
    write!(client, "POST {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if client.read(&mut byte)? == 0 {
            return fail(format!("{target} ended: {:?}", String::from_utf8_lossy(&head)));
        }
        head.push(byte[0]);
    }
    Ok(client)
}

fn a_drain_lets_requests_finish_and_leaves_nothing() -> Check {
    let mut daemon = Daemon::start(&["--shutdown-timeout", "4"])?;
    let short = daemon.create(r#""Cmd": ["sleep", "2"]"#)?;
    let (long, pid) = daemon.run(r#""Cmd": ["sh", "-c", "echo x > /x; sleep 600"]"#)?;
    let mut waiting = begin(&daemon, &format!("/containers/{short}/wait"))?;
    daemon
        .ask("POST", &format!("/containers/{short}/start"), "")?
        .expect(204)?;
    let mut attached = begin(&daemon, &format!("/containers/{long}/attach?stream=1&stdout=1"))?;
    let mut family = daemon.family();
    family.push(u32::try_from(pid).unwrap_or(0));
    assert!(family.len() > 2 && pid > 0, "{family:?}");
    daemon.signal(Signal::SIGTERM)?;
    let mut answer = String::new();
    waiting.read_to_string(&mut answer)?;
    assert!(
        answer.contains(r#"{"StatusCode":0}"#),
        "the request was cut off: {answer:?}"
    );
    let mut rest = Vec::new();
    let _ = attached.read_to_end(&mut rest);
    let status = daemon.ended()?;
    assert!(status.success(), "{status}: {}", daemon.complaint());
    assert!(!daemon.socket.exists(), "the socket is left");
    await_gone(&family)?;
    faults::no_container_left(daemon.root.path())
}

fn a_killed_daemon_leaves_nothing() -> Check {
    let mut daemon = Daemon::start(&[])?;
    let mut family = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..3 {
        let (id, pid) = daemon.run(r#""Cmd": ["sh", "-c", "echo x > /x; sleep 600 & sleep 600"]"#)?;
        family.push(u32::try_from(pid).unwrap_or(0));
        streams.push(begin(&daemon, &format!("/containers/{id}/attach?stream=1&stdout=1"))?);
    }
    family.extend(daemon.family());
    daemon.signal(Signal::SIGKILL)?;
    daemon.ended()?;
    await_gone(&family)?;
    for mut stream in streams {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    faults::no_container_left(daemon.root.path())?;
    // Another takes over where it was, its socket's file too.
    let root = daemon.root.path().display().to_string();
    let program = longshored::program()?;
    let host = format!("unix://{}", daemon.socket.display());
    let child = std::process::Command::new(program)
        .args(["--root", &root, "--host", &host])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let again = crate::support::root::TempRoot::shared(daemon.root.path());
    let mut again = Daemon::adopt(child, again, daemon.socket.clone());
    again.await_socket()?;
    assert_eq!(
        again.ask("GET", "/containers/json?all=1", "")?.expect(200)?.json()?,
        json!([])
    );
    again.stop()
}
