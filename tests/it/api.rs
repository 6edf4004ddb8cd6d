//! The Engine API over a real engine, spoken by hand: bytes on a socket, as clients send them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use longshore::api;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::frame::{Check, Stop, fail};
use crate::support::world::World;
use crate::tests;

tests! { "api":
    kernel_async [
        b6_attach_takes_the_connection_over_with_101_and_with_200,
        b6_a_wait_answers_before_the_container_starts,
        p38_a_container_that_cannot_start_is_removed_if_it_was_to_be,
        p38_a_start_that_failed_is_told_as_docker_tells_it,
        h2_a_user_that_the_image_has_not_is_refused_at_create,
        h10_h11_privileged_containers_and_profiles,
        h18_i1_namespaces_of_others,
    ]
}

/// A server over an engine, on a socket in its root.
struct Served {
    world: World,
    path: PathBuf,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Served {
    async fn new() -> Result<Self, Stop> {
        let world = World::new().await?;
        let path = world.root.path().join(format!("api-{}.sock", std::process::id()));
        let (stop, stopped) = oneshot::channel::<()>();
        let server = api::Server::new(world.engine.clone())
            .unix(&path, api::Mode(0o600))
            .bind()
            .await?;
        let serving = tokio::spawn(server.serve_until(async {
            let _ = stopped.await;
        }));
        Ok(Self {
            world,
            path,
            stop,
            serving,
        })
    }

    async fn end(self) -> Check {
        drop(self.stop);
        self.serving.await?;
        Ok(())
    }

    /// Creates a container that goes with its end; its id.
    async fn create(&self, more: &str) -> Result<String, Stop> {
        self.create_with(more, true).await
    }

    async fn create_with(&self, more: &str, auto_remove: bool) -> Result<String, Stop> {
        let mut body: serde_json::Value = serde_json::from_str(&format!("{{{more}}}"))?;
        body["Image"] = self.world.image.id().to_string().into();
        body["HostConfig"]["NetworkMode"] = "none".into();
        body["HostConfig"]["AutoRemove"] = auto_remove.into();
        let body = body.to_string();
        let answer = ask(&self.path, "POST", "/v1.44/containers/create", &body).await?;
        match answer
            .split_once("\"Id\":\"")
            .and_then(|(_, rest)| rest.split_once('"'))
        {
            Some((id, _)) => Ok(id.to_owned()),
            None => fail(answer),
        }
    }
}

/// The whole answer to a request.
async fn ask(path: &Path, method: &str, target: &str, body: &str) -> Result<String, Stop> {
    let mut client = UnixStream::connect(path).await?;
    let length = body.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: \
         {length}\r\n\r\n{body}"
    );
    client.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn expect(answer: &str, begin: &str) -> Check {
    if answer.starts_with(begin) {
        return Ok(());
    }
    fail(format!("{begin:?} is not how this begins: {answer}"))
}

async fn b6_attach_takes_the_connection_over_with_101_and_with_200() -> Check {
    let served = Served::new().await?;
    for (upgrade, begin) in [
        ("Upgrade: tcp\r\nConnection: Upgrade\r\n", "HTTP/1.1 101 UPGRADED\r\n"),
        ("", "HTTP/1.1 200 OK\r\n"),
    ] {
        let id = served
            .create(r#""Cmd": ["cat"], "OpenStdin": true, "StdinOnce": true"#)
            .await?;
        let mut client = UnixStream::connect(&served.path).await?;
        let head = format!(
            "POST /v1.44/containers/{id}/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: x\r\n{upgrade}\r\n"
        );
        client.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
            client.read_buf(&mut answer).await?;
        }
        expect(&String::from_utf8_lossy(&answer), begin)?;
        expect(
            &ask(&served.path, "POST", &format!("/containers/{id}/start"), "").await?,
            "HTTP/1.1 204 ",
        )?;
        client.write_all(b"hello\n").await?;
        client.shutdown().await?;
        client.read_to_end(&mut answer).await?;
        assert!(answer.ends_with(b"\r\n\r\n\x01\0\0\0\0\0\0\x06hello\n"), "{answer:?}");
    }
    served.end().await
}

async fn b6_a_wait_answers_before_the_container_starts() -> Check {
    let served = Served::new().await?;
    let id = served.create(r#""Cmd": ["sh", "-c", "exit 7"]"#).await?;
    let mut client = UnixStream::connect(&served.path).await?;
    let head = format!("POST /containers/{id}/wait?condition=removed HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    client.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
        client.read_buf(&mut answer).await?;
    }
    expect(
        &ask(&served.path, "POST", &format!("/containers/{id}/start"), "").await?,
        "HTTP/1.1 204 ",
    )?;
    client.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains(r#"{"StatusCode":7}"#), "{answer}");
    served.end().await
}

async fn p38_a_container_that_cannot_start_is_removed_if_it_was_to_be() -> Check {
    let served = Served::new().await?;
    let id = served.create(r#""Cmd": ["/nope"]"#).await?;
    let started = ask(&served.path, "POST", &format!("/containers/{id}/start"), "").await?;
    expect(&started, "HTTP/1.1 400 ")?;
    assert!(
        started.contains("executable file not found") || started.contains("no such file"),
        "{started}"
    );
    let mut inspected = String::new();
    for _ in 0..100 {
        inspected = ask(&served.path, "GET", &format!("/containers/{id}/json"), "").await?;
        if inspected.starts_with("HTTP/1.1 404 ") {
            return served.end().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fail(inspected)
}

async fn p38_a_start_that_failed_is_told_as_docker_tells_it() -> Check {
    let served = Served::new().await?;
    for (more, answer, words, code) in [
        (r#""Cmd": ["/nope"]"#, "HTTP/1.1 400 ", "/nope", 127),
        (r#""Cmd": ["/etc"]"#, "HTTP/1.1 400 ", "/etc", 126),
        (
            // A file of the host over the image's; without it, create says so.
            r#""Cmd": ["true"], "User": "nosuch", "HostConfig": {"Binds": ["/etc/os-release:/etc/passwd:ro"]}"#,
            "HTTP/1.1 500 ",
            "unable to find user nosuch: no matching entries in passwd file",
            128,
        ),
    ] {
        let id = served.create_with(more, false).await?;
        let started = ask(&served.path, "POST", &format!("/containers/{id}/start"), "").await?;
        expect(&started, answer)?;
        assert!(started.contains(words), "{started}");
        let inspected = ask(&served.path, "GET", &format!("/v1.44/containers/{id}/json"), "").await?;
        assert!(inspected.contains(r#""Status":"created""#), "{inspected}");
        assert!(inspected.contains(&format!(r#""ExitCode":{code},"#)), "{inspected}");
        assert!(!inspected.contains(r#""Error":"""#), "{inspected}");
        let waited = ask(&served.path, "POST", &format!("/v1.44/containers/{id}/wait"), "").await?;
        assert!(waited.contains(&format!(r#""StatusCode":{code}"#)), "{waited}");
        let removed = ask(&served.path, "DELETE", &format!("/containers/{id}"), "").await?;
        expect(&removed, "HTTP/1.1 204 ")?;
    }
    served.end().await
}

async fn h2_a_user_that_the_image_has_not_is_refused_at_create() -> Check {
    let served = Served::new().await?;
    let body = format!(r#"{{"Image": "{}", "User": "nosuch"}}"#, served.world.image.id());
    let refused = ask(&served.path, "POST", "/v1.44/containers/create", &body).await?;
    expect(&refused, "HTTP/1.1 500 ")?;
    assert!(
        refused.contains("unable to find user nosuch: no matching entries in passwd file"),
        "{refused}"
    );
    served.end().await
}

/// What a container of these options says, and how it is inspected.
async fn shown(served: &Served, host: &str, script: &str) -> Result<(String, String), Stop> {
    let more = format!(
        r#""Cmd": ["sh", "-c", {}], "HostConfig": {host}"#,
        serde_json::json!(script)
    );
    let id = served.create_with(&more, false).await?;
    expect(
        &ask(&served.path, "POST", &format!("/containers/{id}/start"), "").await?,
        "HTTP/1.1 204 ",
    )?;
    ask(&served.path, "POST", &format!("/containers/{id}/wait"), "").await?;
    let logs = ask(
        &served.path,
        "GET",
        &format!("/containers/{id}/logs?stdout=1&stderr=1"),
        "",
    )
    .await?;
    let inspected = ask(&served.path, "GET", &format!("/v1.44/containers/{id}/json"), "").await?;
    expect(
        &ask(&served.path, "DELETE", &format!("/containers/{id}"), "").await?,
        "HTTP/1.1 204 ",
    )?;
    Ok((logs, inspected))
}

async fn h10_h11_privileged_containers_and_profiles() -> Check {
    let served = Served::new().await?;
    let (logs, inspected) = shown(
        &served,
        r#"{"Privileged": true}"#,
        "mount -t tmpfs none /home && echo mounted",
    )
    .await?;
    assert!(logs.contains("mounted"), "{logs}");
    for part in [
        r#""Privileged":true"#,
        r#""SecurityOpt":["label=disable"]"#,
        r#""MaskedPaths":null"#,
    ] {
        assert!(inspected.contains(part), "{part}: {inspected}");
    }
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28}]}"#;
    let options = serde_json::json!({"SecurityOpt": [format!("seccomp={profile}"), "no-new-privileges:true"]});
    let (logs, inspected) = shown(
        &served,
        &options.to_string(),
        "mkdir /tmp/x; grep NoNewPrivs /proc/self/status",
    )
    .await?;
    assert!(
        logs.contains("No space left") && logs.contains("NoNewPrivs:\t1"),
        "{logs}"
    );
    assert!(
        inspected.contains("SCMP_ACT_ERRNO") && inspected.contains("no-new-privileges"),
        "{inspected}"
    );
    served.end().await
}

async fn h18_i1_namespaces_of_others() -> Check {
    let served = Served::new().await?;
    let first = served
        .create_with(
            r#""Cmd": ["sleep", "1000"], "HostConfig": {"IpcMode": "shareable"}"#,
            false,
        )
        .await?;
    let path = &served.path;
    let post = |target: String| async move { ask(path, "POST", &target, "").await };
    let missing = format!(
        r#"{{"Image": "{}", "HostConfig": {{"PidMode": "container:nothere"}}}}"#,
        served.world.image.id()
    );
    let missing = ask(&served.path, "POST", "/v1.44/containers/create", &missing).await?;
    expect(&missing, "HTTP/1.1 400 ")?;
    assert!(missing.contains("No such container: nothere"), "{missing}");
    let of = format!("container:{first}");
    let host = serde_json::json!({"PidMode": of, "IpcMode": of, "UTSMode": "host", "CgroupnsMode": "host"});
    let early = served
        .create_with(&format!(r#""Cmd": ["true"], "HostConfig": {host}"#), false)
        .await?;
    let early_start = post(format!("/containers/{early}/start")).await?;
    expect(&early_start, "HTTP/1.1 409 ")?;
    assert!(early_start.contains("of a non running container"), "{early_start}");
    expect(&post(format!("/containers/{first}/start")).await?, "HTTP/1.1 204 ")?;
    expect(&post(format!("/containers/{early}/start")).await?, "HTTP/1.1 204 ")?;
    expect(&post(format!("/containers/{early}/wait")).await?, "HTTP/1.1 200 ")?;
    let inspected = ask(&served.path, "GET", &format!("/v1.44/containers/{early}/json"), "").await?;
    for part in ["PidMode", "IpcMode"] {
        assert!(
            inspected.contains(&format!(r#""{part}":"{of}""#)),
            "{part}: {inspected}"
        );
    }
    assert!(
        inspected.contains(r#""UTSMode":"host""#) && inspected.contains(r#""CgroupnsMode":"host""#),
        "{inspected}"
    );
    let id = served.world.image.id();
    let body = format!(r#"{{"Image": "{id}", "Cmd": ["true"], "HostConfig": {{"NetworkMode": "{of}"}}}}"#);
    let network = ask(&served.path, "POST", "/v1.44/containers/create?name=beside", &body).await?;
    expect(&network, "HTTP/1.1 201 ")?;
    let inspected = ask(&served.path, "GET", "/v1.44/containers/beside/json", "").await?;
    assert!(inspected.contains(&format!(r#""NetworkMode":"{of}""#)), "{inspected}");
    assert!(inspected.contains(r#""Networks":{}"#), "{inspected}");
    for id in ["beside", &early, &first] {
        let removed = ask(&served.path, "DELETE", &format!("/containers/{id}?force=1"), "").await?;
        expect(&removed, "HTTP/1.1 204 ")?;
    }
    served.end().await
}
