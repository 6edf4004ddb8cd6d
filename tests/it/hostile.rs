//! Clients that mean harm or go away: what they send is refused with a code, and nothing of them stays.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::faults;
use crate::frame::{Check, Stop, fail};
use crate::longshored::Daemon;
use crate::support::embedder::{Embedder, Role};
use crate::support::wire::{self, Answer};
use crate::tests;

tests! { "hostile":
    kernel [
        bad_requests_get_a_code_and_the_daemon_goes_on,
        huge_bodies_are_refused_before_they_are_read,
        heads_that_never_end_keep_nobody_waiting,
        pipelined_requests_are_answered_in_turn,
        ten_thousand_connections,
        clients_that_vanish_leave_nothing,
    ]
}

/// What this binary does as a child.
pub const ROLES: &[(&str, Role)] = &[("many-clients", |arguments| many_clients(&arguments[0], &arguments[1]))];

/// Waits until the daemon has no more descriptors than that.
fn settles(daemon: &Daemon, most: usize) -> Check {
    let start = Instant::now();
    while daemon.descriptors() > most {
        if start.elapsed() > Duration::from_secs(20) {
            return fail(format!("{} descriptors, {most} before", daemon.descriptors()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Requests that no client of good will sends, each with its end.
fn bad_requests() -> Vec<Vec<u8>> {
    let get = |target: &str| wire::request("GET", target, "").into_bytes();
    let post = |target: &str, body: &str| wire::request("POST", target, body).into_bytes();
    let deep = "[".repeat(100_000);
    let many: String = (0..500).fold(String::new(), |mut text, number| {
        let _ = write!(text, "X-{number}: y\r\n");
        text
    });
    let mut all = vec![
        b"\r\n\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"GET /_ping\r\n\r\n".to_vec(),
        b"GET /_ping HTTP/9.9\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(),
        b"GET /_ping HTTP/1.1\r\nHost: x\r\nbroken header\r\n\r\n".to_vec(),
        b"GET /_ping HTTP/1.1\r\nHost: x\r\nA\0B: c\r\n\r\n".to_vec(),
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_vec(),
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n".to_vec(),
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}".to_vec(),
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n\
          Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"
            .to_vec(),
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n\
          Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}\r\n0\r\n\r\n"
            .to_vec(),
        format!("GET /_ping HTTP/1.1\r\nHost: x\r\n{many}\r\n").into_bytes(),
        format!("GET /_ping HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(1 << 20)).into_bytes(),
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "z".repeat(1 << 20)).into_bytes(),
        post("/containers/create", &deep),
        post("/containers/create", &format!("{{\"Labels\": {deep}")),
        post("/containers/create", "{\"Image\": \"busybox\", \"Cmd\": {\"a\": 1}}"),
        post("/containers/create", "{\"Image\": \"\\u0000\"}"),
        post("/containers/create", "\u{feff}{}"),
        post("/containers/create?name=%00", "{\"Image\": \"busybox\"}"),
        post("/containers/create?name=../../x", "{\"Image\": \"busybox\"}"),
        post(
            "/containers/create",
            "{\"Image\": \"busybox\", \"HostConfig\": {\"Memory\": 1e400}}",
        ),
        post(
            "/containers/create",
            "{\"Image\": \"busybox\", \"HostConfig\": {\"Memory\": -9223372036854775808}}",
        ),
        post("/auth", "[]"),
        post("/images/create?fromImage=%2e%2e%2f%2e%2e%2fetc", ""),
        post("/images/create?fromImage=a%00b", ""),
    ];
    let targets = [
        "/../../etc/passwd",
        "/v1.44/../../etc/passwd",
        "/containers/%2e%2e%2f%2e%2e/json",
        "/containers/%00/json",
        "/containers/%zz/json",
        "/v1/_ping",
        "/v99999999999999999999.1/_ping",
        "/v1.-1/_ping",
        "/v1.4.4/_ping",
        "/images/%F0%28%8C%28/json",
        "/containers/json?filters=%5B",
        "/containers/json?filters=%7B%22label%22%3A%22x%22%7D",
        "/containers/json?filters=%7B%22colour%22%3A%5B%22red%22%5D%7D",
        "/containers/json?filters=%7B%22status%22%3A%5B%22no%22%5D%7D",
        "/containers/json?limit=x",
        "/images/json?filters=%7B%22dangling%22%3A%5B%22maybe%22%5D%7D",
        "/events?since=yesterday",
        "/containers/x/logs?stdout=1&tail=-5",
        "/images/get?names=%00",
    ];
    all.extend(targets.iter().map(|target| get(target)));
    // There is no HTTP/2, whoever asks for it: what needs it is refused, with a word.
    for target in ["/session", "/grpc", "/v1.44/session"] {
        let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nUpgrade: h2c\r\n");
        all.push(
            format!("{head}HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n")
                .into_bytes(),
        );
    }
    let nested = format!("/containers/json?filters={}", "%5B".repeat(10_000));
    all.push(get(&nested));
    all
}

fn bad_requests_get_a_code_and_the_daemon_goes_on() -> Check {
    let mut daemon = Daemon::start(&[])?;
    daemon.ask("GET", "/_ping", "")?.expect(200)?;
    let before = daemon.descriptors();
    for request in bad_requests() {
        let shown = String::from_utf8_lossy(&request[..request.len().min(120)]).into_owned();
        let mut client = wire::connect(&daemon.socket)?;
        let sent = client.write_all(&request);
        client.shutdown(std::net::Shutdown::Write).ok();
        let mut bytes = Vec::new();
        let read = client.read_to_end(&mut bytes);
        if let Err(error) = &read
            && matches!(
                error.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
            )
        {
            return fail(format!("no end after {shown:?}"));
        }
        // A connection that is closed without a word is an answer to what is not HTTP.
        if bytes.is_empty() {
            continue;
        }
        let answer = Answer::parse(&bytes)?;
        // 501 is for what is not there yet.
        let refused = (400..500).contains(&answer.code) || answer.code == 501;
        assert!(refused, "{shown:?} ({sent:?}): {answer:?}");
        // What hyper refuses itself has no body; whatever reaches a verb says why.
        if !answer.body.is_empty() {
            answer.message()?;
        }
    }
    let offered = "GET /_ping HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\nConnection: \
                   Upgrade, HTTP2-Settings, close\r\n\r\n";
    let plain = wire::exchange(wire::connect(&daemon.socket)?, offered.as_bytes())?;
    Answer::parse(&plain)?.expect(200)?;
    daemon.ask("GET", "/_ping", "")?.expect(200)?;
    settles(&daemon, before)?;
    assert_eq!(
        daemon
            .ask("GET", "/containers/json?all=1", "")?
            .expect(200)?
            .body
            .trim(),
        "[]"
    );
    daemon.stop()
}

fn huge_bodies_are_refused_before_they_are_read() -> Check {
    let mut daemon = Daemon::start(&[])?;
    let head = "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let huge = format!("{{\"Image\": \"{}\"}}", "x".repeat(8 << 20));
    let whole = format!(
        "{head}Connection: close\r\nContent-Length: {}\r\n\r\n{huge}",
        huge.len()
    );
    let chunk = format!("10000\r\n{}\r\n", "y".repeat(0x10000));
    let endless = format!(
        "{head}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        chunk.repeat(128)
    );
    for request in [whole, endless] {
        let bytes = wire::exchange(wire::connect(&daemon.socket)?, request.as_bytes())?;
        Answer::parse(&bytes)?.expect(413)?.message()?;
    }
    // One that promises a terabyte and goes.
    let mut client = wire::connect(&daemon.socket)?;
    write!(client, "{head}Content-Length: 1099511627776\r\n\r\n{{")?;
    drop(client);
    let mut client = wire::connect(&daemon.socket)?;
    write!(
        client,
        "POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Length: 1099511627776\r\n\r\nnot a tar"
    )?;
    drop(client);
    daemon.ask("GET", "/_ping", "")?.expect(200)?;
    daemon.stop()
}

fn heads_that_never_end_keep_nobody_waiting() -> Check {
    let mut daemon = Daemon::start(&[])?;
    daemon.ask("GET", "/_ping", "")?.expect(200)?;
    let before = daemon.descriptors();
    let mut slow = Vec::new();
    for number in 0..300 {
        let mut client = UnixStream::connect(&daemon.socket)?;
        client.write_all(&b"GET /_ping HTTP/1.1\r\nHost: x\r\nX: "[..1 + number % 30])?;
        slow.push(client);
    }
    for client in &mut slow {
        client.write_all(b"")?;
        daemon.ask("GET", "/_ping", "")?.expect(200)?;
    }
    drop(slow);
    settles(&daemon, before)?;
    daemon.stop()
}

fn pipelined_requests_are_answered_in_turn() -> Check {
    const MANY: usize = 100;
    let mut daemon = Daemon::start(&[])?;
    let mut bytes = String::new();
    for number in 0..MANY {
        let body = format!("{{\"Image\": \"no-such-{number}\"}}");
        let _ = write!(
            bytes,
            "GET /v1.44/images/none-{number}/json HTTP/1.1\r\nHost: x\r\n\r\nPOST /v1.44/containers/create HTTP/1.1\r\nHost: \
             x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
    }
    bytes.push_str(&wire::request("GET", "/_ping", ""));
    let answer = wire::exchange(wire::connect(&daemon.socket)?, bytes.as_bytes())?;
    let text = String::from_utf8_lossy(&answer);
    let codes: Vec<&str> = text
        .match_indices("HTTP/1.1 ")
        .map(|(at, _)| &text[at + 9..at + 12])
        .collect();
    assert_eq!(codes.len(), 2 * MANY + 1);
    assert_eq!(codes.iter().filter(|code| **code == "404").count(), 2 * MANY);
    assert_eq!(codes.last(), Some(&"200"));
    let mut at = 0;
    for number in 0..MANY {
        for name in [format!("none-{number}"), format!("no-such-{number}")] {
            let found = text[at..].find(&name);
            at += found.unwrap_or_else(|| panic!("{name} is not answered in its turn"));
        }
    }
    daemon.stop()
}

/// As many descriptors as the host lets this process have.
fn raise_limit() -> Result<u64, Stop> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// Holds so many connections, asks on each, and says how many answered.
fn many_clients(socket: &str, count: &str) -> i32 {
    let work = || -> Result<usize, Stop> {
        raise_limit()?;
        let count = count.parse()?;
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(wire::connect(Path::new(socket))?);
        }
        let mut answered = 0;
        for client in &mut clients {
            client.write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")?;
            let mut answer = [0; 1024];
            let read = client.read(&mut answer)?;
            answered += usize::from(answer[..read].starts_with(b"HTTP/1.1 200 "));
        }
        println!("{answered}");
        // Held until the test has looked.
        std::thread::sleep(Duration::from_secs(2));
        Ok(answered)
    };
    match work() {
        Ok(_) => 0,
        Err(stop) => {
            println!("{stop:?}");
            1
        }
    }
}

fn ten_thousand_connections() -> Check {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Where the host allows fewer descriptors, so many as it allows.
    let count = usize::try_from(hard)
        .unwrap_or(usize::MAX)
        .saturating_sub(200)
        .min(10_000);
    let (command, root, socket) = Daemon::command()?;
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"ulimit -n "$(ulimit -H -n)"; exec "$0" "$@""#]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.arg("--host").arg(format!("unix://{}", socket.display()));
    let child = shell.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut daemon = Daemon::adopt(child, root, socket);
    daemon.await_socket()?;
    daemon.ask("GET", "/_ping", "")?.expect(200)?;
    let before = daemon.descriptors();
    let path = daemon.socket.display().to_string();
    let clients = Embedder::start("many-clients", &[&path, &count.to_string()])?;
    assert_eq!(clients.line(2 * wire::PATIENCE)?, count.to_string(), "of {count}");
    // One that finds no place waits for it, and gets it.
    daemon.ask("GET", "/_ping", "")?.expect(200)?;
    assert_eq!(clients.finish()?, 0);
    settles(&daemon, before)?;
    println!("{count} connections at once");
    daemon.stop()
}

/// Sends a request, reads something of its answer or nothing, and goes away.
fn vanish(daemon: &Daemon, request: &str, after_answer: bool) -> Check {
    let mut client = wire::connect(&daemon.socket)?;
    client.write_all(request.as_bytes())?;
    if after_answer {
        let mut some = [0; 64];
        let read = client.read(&mut some)?;
        assert!(some[..read].starts_with(b"HTTP/1.1 "), "{request}: {:?}", &some[..read]);
    } else {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn clients_that_vanish_leave_nothing() -> Check {
    let mut daemon = Daemon::start(&[])?;
    // A registry that takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let silent_at = silent.local_addr()?;
    let body = r#""Cmd": ["sh", "-c", "while :; do echo line; sleep 0.05; done"], "OpenStdin": true"#;
    let (id, _) = daemon.run(body)?;
    let head = |target: &str| format!("POST {target} HTTP/1.1\r\nHost: x\r\n");
    let attach = head(&format!("/containers/{id}/attach?stream=1&stdin=1&stdout=1&stderr=1"));
    let round = |daemon: &Daemon| -> Check {
        vanish(daemon, &format!("{attach}\r\n"), true)?;
        vanish(
            daemon,
            &format!("{attach}Upgrade: tcp\r\nConnection: Upgrade\r\n\r\n"),
            true,
        )?;
        vanish(daemon, &format!("{attach}\r\n"), false)?;
        vanish(
            daemon,
            &format!("GET /containers/{id}/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n"),
            true,
        )?;
        vanish(daemon, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n", false)?;
        vanish(
            daemon,
            &format!("{}\r\n", head(&format!("/containers/{id}/wait"))),
            true,
        )?;
        vanish(
            daemon,
            &format!("GET /containers/{id}/stats HTTP/1.1\r\nHost: x\r\n\r\n"),
            false,
        )?;
        let pull = format!("/images/create?fromImage={silent_at}/x&tag=1");
        vanish(daemon, &format!("{}Content-Length: 0\r\n\r\n", head(&pull)), false)?;
        let exec = daemon.ask(
            "POST",
            &format!("/containers/{id}/exec"),
            r#"{"Cmd": ["sleep", "1"], "AttachStdout": true, "AttachStdin": true}"#,
        )?;
        let exec = exec.expect(201)?.json()?["Id"].as_str().unwrap_or_default().to_owned();
        let start = head(&format!("/exec/{exec}/start"));
        vanish(
            daemon,
            &format!("{start}Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"),
            true,
        )?;
        let load = head("/images/load");
        vanish(
            daemon,
            &format!("{load}Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"),
            false,
        )
    };
    // What is made once and kept (a thread's descriptors, a connection of the pool) is made in the first round.
    round(&daemon)?;
    std::thread::sleep(Duration::from_secs(3));
    let before = daemon.descriptors();
    for _ in 0..5 {
        round(&daemon)?;
    }
    settles(&daemon, before)?;
    // The container took no notice.
    let inspected = daemon
        .ask("GET", &format!("/containers/{id}/json"), "")?
        .expect(200)?
        .json()?;
    assert_eq!(inspected["State"]["Running"], true);
    daemon
        .ask("DELETE", &format!("/containers/{id}?force=1"), "")?
        .expect(204)?;
    daemon.stop()?;
    faults::no_container_left(daemon.root.path())
}
