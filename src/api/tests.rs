//! The router and the server over fake managers: what goes over the wire, byte by byte.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::UnixStream;

use super::{Limits, Mode, Server, router};
use crate::containers::{ContainerManager, ContainerSummary, Exec, ExecSpec, ListOptions};
use crate::engine::{Engine, Managers};
use crate::error::{Error, ObjectKind, Result};
use crate::system::{SystemInfo, SystemManager};
use crate::types::Outcome;

#[derive(Debug)]
struct Fake;

#[async_trait]
impl ContainerManager for Fake {
    async fn list(&self, options: ListOptions) -> Result<Vec<ContainerSummary>> {
        assert!(options.filter.keys().all(|key| key == "label"));
        Ok(Vec::new())
    }

    async fn start(&self, name: &str) -> Result<Outcome> {
        match name {
            "running" => Ok(Outcome::Already),
            "panics" => panic!("a bug"),
            _ => Err(Error::not_found(ObjectKind::Container, name)),
        }
    }

    async fn exec_create(&self, name: &str, _spec: ExecSpec) -> Result<Exec> {
        Err(Error::not_found(ObjectKind::Container, name))
    }
}

#[async_trait]
impl SystemManager for Fake {
    async fn info(&self) -> Result<SystemInfo> {
        Ok(SystemInfo {
            version: "9.9".into(),
            architecture: "x86_64".into(),
            kernel_version: "6.18".into(),
            ..SystemInfo::default()
        })
    }
}

fn engine() -> Engine {
    let fake = Arc::new(Fake);
    Engine::from_managers(Managers::default().containers(fake.clone()).system(fake))
}

/// The router in somebody else's server, over a pipe in memory.
fn in_memory() -> DuplexStream {
    let (client, server) = tokio::io::duplex(64 << 10);
    tokio::spawn(async move {
        let connection = hyper::server::conn::http1::Builder::new();
        let _ = connection
            .serve_connection(TokioIo::new(server), router(engine()))
            .with_upgrades()
            .await;
    });
    client
}

/// Sends a request that closes its connection, and gives code, head and body.
async fn ask(request: &str) -> (u16, String, String) {
    let mut client = in_memory();
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    split(&answer)
}

fn split(answer: &[u8]) -> (u16, String, String) {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, head.to_ascii_lowercase(), body.to_owned())
}

async fn get(path: &str) -> (u16, String, String) {
    ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await
}

async fn post(path: &str, body: &str) -> (u16, String, String) {
    let length = body.len();
    ask(&format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: \
         close\r\n\r\n{body}"
    ))
    .await
}

fn message(body: &str) -> Value {
    serde_json::from_str::<Value>(body).unwrap()["message"].clone()
}

#[tokio::test]
async fn b5_ping_carries_what_clients_negotiate_with() {
    for path in ["/_ping", "/v1.24/_ping", "//v1.56//_ping"] {
        let (code, head, body) = get(path).await;
        assert_eq!((code, body.as_str()), (200, "OK"), "{path}");
        for line in [
            "api-version: 1.56",
            "ostype: linux",
            "docker-experimental: false",
            "builder-version: 1",
            "swarm: inactive",
        ] {
            assert!(head.contains(line), "{head}");
        }
    }
    let (code, head, body) = ask("HEAD /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!((code, body.as_str()), (200, ""));
    assert!(head.contains("swarm: inactive"));
}

#[tokio::test]
async fn b10_the_router_over_a_pipe_in_memory() {
    let (code, _, body) = get("/v1.44/version").await;
    assert_eq!(code, 200);
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap(),
        json!({
            "Platform": {"Name": "Longshore"},
            "Components": [{"Name": "Engine", "Version": "9.9", "Details": {
                "ApiVersion": "1.56", "Arch": "amd64", "Experimental": "false", "KernelVersion": "6.18",
                "MinAPIVersion": "1.24", "Os": "linux",
            }}],
            "Version": "9.9", "ApiVersion": "1.56", "MinAPIVersion": "1.24", "GitCommit": "", "GoVersion": "",
            "Os": "linux", "Arch": "amd64", "KernelVersion": "6.18",
        })
    );
    let (code, _, body) = get("/containers/json?filters=%7B%22label%22%3A%7B%22a%3Db%22%3Atrue%7D%7D").await;
    assert_eq!((code, body.trim()), (200, "[]"));
}

#[tokio::test]
async fn p38_codes_that_clients_branch_on() {
    assert_eq!(post("/containers/running/start", "").await.0, 304);
    let (code, _, body) = post("/containers/nope/start", "").await;
    assert_eq!((code, message(&body)), (404, json!("No such container: nope")));
    let (code, _, body) = get("/swarm").await;
    assert_eq!(code, 503);
    assert!(message(&body).as_str().unwrap().contains("not a swarm manager"));
    assert_eq!(get("/plugins").await.2.trim(), "[]");
    assert_eq!(get("/v1.57/_ping").await.0, 400);
}

#[tokio::test]
async fn bad_input_gets_a_code_and_a_message() {
    for (path, body) in [
        ("/containers/create", "{"),
        ("/containers/create", "[]"),
        ("/containers/create", ""),
        ("/containers/x/exec", r#"{"Cmd": 1}"#),
        ("/containers/x/exec", "{}"),
        ("/containers/x/wait?condition=nope", ""),
        ("/containers/x/resize?h=a&w=1", ""),
        ("/images/create", ""),
        ("/images/create?fromImage=UPPER%20case", ""),
        ("/containers/prune?filters=nope", ""),
    ] {
        let (code, _, answer) = post(path, body).await;
        assert_eq!(code, 400, "{path} {body}: {answer}");
        assert!(message(&answer).is_string(), "{answer}");
    }
    let wrong_type = "POST /containers/create HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(ask(wrong_type).await.0, 400);
    let huge = format!("{{\"Image\": \"{}\"}}", "x".repeat(5 << 20));
    let mut client = in_memory();
    let head = format!(
        "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        huge.len()
    );
    client.write_all(head.as_bytes()).await.unwrap();
    let _ = client.write_all(huge.as_bytes()).await;
    let mut answer = vec![0; 4096];
    let read = client.read(&mut answer).await.unwrap();
    assert_eq!(split(&answer[..read]).0, 413);
}

#[tokio::test]
async fn a_bug_is_a_500_with_a_message() {
    let (code, _, body) = post("/containers/panics/start", "").await;
    assert_eq!(code, 500);
    assert!(message(&body).as_str().unwrap().contains("bug"));
}

/// A server on a socket, until the sender is dropped.
async fn serve(dir: &std::path::Path, limits: Limits) -> (std::path::PathBuf, tokio::sync::oneshot::Sender<()>) {
    let path = dir.join("s.sock");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = Server::new(engine())
        .unix(&path, Mode(0o600))
        .limits(limits)
        .bind()
        .await
        .unwrap();
    tokio::spawn(server.serve_until(async {
        let _ = stopped.await;
    }));
    (path, stop)
}

#[tokio::test]
async fn b1_a_socket_with_its_mode_which_goes_with_its_server() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let (path, stop) = serve(dir.path(), Limits::default()).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let second = Server::new(engine()).unix(&path, Mode(0o600)).bind().await;
    assert!(second.unwrap_err().is_conflict());
    let mut client = UnixStream::connect(&path).await.unwrap();
    client
        .write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = vec![0; 1024];
    let read = client.read(&mut answer).await.unwrap();
    assert_eq!(split(&answer[..read]).0, 200);
    drop(stop);
    assert_eq!(
        client.read(&mut answer).await.unwrap(),
        0,
        "an idle connection is closed at the end"
    );
    while path.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off_and_an_idle_connection_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        head_within: Duration::from_millis(100),
        ..Limits::default()
    };
    let (path, _stop) = serve(dir.path(), limits).await;
    let mut idle = UnixStream::connect(&path).await.unwrap();
    let mut slow = UnixStream::connect(&path).await.unwrap();
    slow.write_all(b"GET /_ping HTT").await.unwrap();
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest).await;
    idle.write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    idle.read_to_end(&mut answer).await.unwrap();
    assert_eq!(split(&answer).0, 200);
}

#[tokio::test]
async fn b6_a_refused_attach_leaves_the_connection_usable_and_a_half_closed_one_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _stop) = serve(dir.path(), Limits::default()).await;
    for upgrade in ["", "Upgrade: tcp\r\nConnection: Upgrade\r\n"] {
        let attach = format!("POST /exec/x/start HTTP/1.1\r\nHost: x\r\n{upgrade}Content-Length: 0\r\n\r\n");
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(attach.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let read = client.read(&mut answer).await.unwrap();
        assert_eq!(split(&answer[..read]).0, 501, "the fake has no exec");
        client
            .write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(split(&rest).0, 200);

        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(attach.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(split(&answer).0, 501);
    }
}
