//! An engine over the Engine API of another, side by side with that one: both say the same.

use std::future::IntoFuture as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use longshore::containers::{BoxStream, CommitOptions};
use longshore::images::{IndexRequest, RemoveImageOptions, RunConfig};
use longshore::logs::{LogStream, TeeItem};
use longshore::remote::ClientTls;
use longshore::types::Filter;
use longshore::{
    AttachOptions, ContainerSpec, ContainerState, Engine, Error, ErrorKind, EventQuery, ExecSpec, ListOptions,
    LogQuery, ObjectKind, ProgressEvent, Pull, RemoveOptions, StopOptions, WaitCondition, api,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::daemon::Authority;
use crate::frame::{Check, Stop, block_on, fail};
use crate::images::Dockerd;
use crate::support::image;
use crate::support::mock::{Mock, Reply};
use crate::support::registry::{Options, Registry, free_port};
use crate::support::world::{FORCE, World, text};
use crate::tests;

tests! { "remote":
    pure [
        a6_one_ping_and_then_the_lower_version,
        a7_who_is_not_there_is_unavailable,
    ]
    kernel_async [
        a7_the_same_kind_over_the_api,
        a12_the_same_lists_over_the_api,
        a7_dockerd_is_an_engine_too,
        b1_tls_with_certificates_of_both_ends,
        p38_a_run_over_the_api,
        g2_the_end_is_waited_for_over_the_api,
        g3_commands_over_the_api,
        g4_logs_and_streams_over_the_api,
        c1_a_pull_over_the_api,
        g8_differences_over_the_api,
        g12_events_and_usage_over_the_api,
    ]
}

async fn g8_differences_over_the_api() -> Check {
    let pair = Pair::new().await?;
    let container = pair
        .world
        .engine
        .run(pair.world.script("echo x > /x; rm /etc/group"))
        .await?;
    container.wait().await?;
    let (near, far) = (&container, pair.far.containers());
    let id = near.id().as_str();
    assert_eq!(far.diff(id).await?, near.diff().await?);
    let mut sizes = Vec::new();
    for mut stream in [far.export(id).await?, near.export().await?] {
        let mut all = Vec::new();
        while let Some(piece) = stream.next().await {
            all.extend_from_slice(&piece?);
        }
        sizes.push(all);
    }
    assert!(sizes[0] == sizes[1], "the same archive");
    let mut options = CommitOptions::new()
        .name("far:1".parse()?)
        .author("Ann")
        .message("m")
        .change("ENV A=\"b c\"");
    options.config = Some(RunConfig::default());
    let image = far.commit(id, options).await?;
    let info = pair.far.image("far:1").await?.inspect().await?;
    assert_eq!(info.id, image);
    let here = pair.world.engine.image("far:1").await?.inspect().await?;
    assert_eq!(here.config.author.as_deref(), Some("Ann"));
    assert!(here.config.config.env.unwrap_or_default().contains(&"A=b c".to_owned()));
    for missing in ["nothere", ""] {
        let errors = [
            far.diff(missing).await.expect_err("diff"),
            far.export(missing).await.map(drop).expect_err("export"),
            far.commit(missing, CommitOptions::new()).await.expect_err("commit"),
        ];
        for error in errors {
            assert!(error.is_not_found(), "{missing:?}: {}", error.report());
        }
    }
    container.remove(FORCE).await?;
    pair.far.images().remove("far:1", RemoveImageOptions::default()).await?;
    pair.end().await
}

/// An engine in this process, a server over it, and an engine over the server.
pub struct Pair {
    pub world: World,
    pub far: Engine,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Pair {
    pub async fn new() -> Result<Self, Stop> {
        Self::on(World::new().await?).await
    }

    /// With a root of its own in any case.
    pub async fn alone() -> Result<Self, Stop> {
        Self::on(World::alone().await?).await
    }

    async fn on(world: World) -> Result<Self, Stop> {
        let path: PathBuf = world.root.path().join(format!("remote-{}.sock", std::process::id()));
        let (stop, stopped) = oneshot::channel::<()>();
        let server = api::Server::new(world.engine.clone())
            .unix(&path, api::Mode(0o600))
            .bind()
            .await?;
        let serving = tokio::spawn(server.serve_until(async {
            let _ = stopped.await;
        }));
        let far = Engine::connect(format!("unix://{}", path.display())).await?;
        Ok(Self {
            world,
            far,
            stop,
            serving,
        })
    }

    pub async fn end(self) -> Check {
        drop(self.far);
        drop(self.stop);
        self.serving.await?;
        Ok(())
    }

    pub fn both(&self) -> [&Engine; 2] {
        [&self.world.engine, &self.far]
    }
}

/// What a call failed with.
async fn failure<T>(call: impl Future<Output = longshore::Result<T>>) -> Result<Error, Stop> {
    match call.await {
        Err(error) => Ok(error),
        Ok(_) => fail("it did not fail"),
    }
}

/// A daemon that says which version it speaks, and nothing else of interest.
fn daemon(version: &'static str) -> std::io::Result<Mock> {
    Mock::serve(move |asked| match asked.path.as_str() {
        "/_ping" => Reply::new(200, "text/plain", "OK").header("Api-Version", version),
        path if path.ends_with("/containers/json") => Reply::new(200, "application/json", "[]"),
        path if path.ends_with("/info") => Reply::new(200, "application/json", r#"{"Name": "mock"}"#),
        _ => Reply::new(404, "application/json", r#"{"message": "page not found"}"#),
    })
}

fn a6_one_ping_and_then_the_lower_version() -> Check {
    for (theirs, ours, agreed) in [("1.44", 56, 44), ("1.60", 56, 56), ("1.56", 41, 41)] {
        let mock = daemon(theirs)?;
        block_on(async {
            let engine = Engine::connect(format!("tcp://{}", mock.addr)).newest(ours).await?;
            assert_eq!(engine.system().info().await?.name, "mock");
            assert!(engine.list(ListOptions::default()).await?.is_empty());
            let missing = failure(engine.container("web")).await?;
            assert_eq!(missing.kind(), &ErrorKind::NotFound);
            Ok::<_, Stop>(())
        })?;
        let paths: Vec<String> = mock.asked().into_iter().map(|asked| asked.path).collect();
        let expected = ["/_ping".to_owned()]
            .into_iter()
            .chain(["info", "containers/json", "containers/web/json"].map(|path| format!("/v1.{agreed}/{path}")));
        assert_eq!(paths, expected.collect::<Vec<_>>());
    }
    Ok(())
}

fn a7_who_is_not_there_is_unavailable() -> Check {
    block_on(async {
        let nobody = free_port()?;
        let error = failure(Engine::connect(format!("tcp://{nobody}")).into_future()).await?;
        assert_eq!(error.kind(), &ErrorKind::Unavailable);
        assert!(error.to_string().contains(&nobody.to_string()), "{error}");
        let error = failure(Engine::connect("unix:///nonexistent/socket").into_future()).await?;
        assert_eq!(error.kind(), &ErrorKind::Unavailable);
        let error = failure(Engine::connect("ssh://host").into_future()).await?;
        assert_eq!(error.kind(), &ErrorKind::InvalidArgument);
        // Who listens and says nothing.
        let deaf = std::net::TcpListener::bind("127.0.0.1:0")?;
        let address = format!("tcp://{}", deaf.local_addr()?);
        let error = failure(
            Engine::connect(address)
                .deadline(Duration::from_millis(50))
                .into_future(),
        )
        .await?;
        assert_eq!(error.kind(), &ErrorKind::Timeout);
        Ok(())
    })
}

/// What dockerd has no part of ours for is told from its words. Nothing is started: its cgroups would stay.
async fn a7_dockerd_is_an_engine_too() -> Check {
    let docker = Dockerd::start()?;
    let world = World::new().await?;
    let far = Engine::connect(&docker.host).await?;
    let name = "example.com/docker:1".parse()?;
    world.engine.images().tag(&world.image.id().to_string(), &name).await?;
    let archive = world.engine.save([name.familiar()]).await?;
    let loaded = far.load(archive).await?;
    assert_eq!((loaded.len(), &loaded[0].id), (1, world.image.id()));
    assert_eq!(loaded[0].tags, [name.clone()]);
    let (near, theirs) = (
        world.image.inspect().await?,
        far.images().inspect(&name.familiar()).await?,
    );
    assert_eq!(
        (theirs.id, theirs.chain, &theirs.platform),
        (near.id, near.chain, &near.platform)
    );
    assert_eq!(theirs.config.config, near.config.config);
    let spec = ContainerSpec::image(name.familiar())
        .name("web")
        .label("a", "b")
        .env("X", "1");
    let web = far
        .create(spec.clone().command(["sleep", "600"]).memory(longshore::Bytes::mib(64)))
        .await?;
    let info = web.inspect().await?;
    assert_eq!(
        (info.name.as_str(), info.state, info.exit),
        ("web", ContainerState::Created, None)
    );
    assert_eq!(info.command, ["sleep", "600"]);
    assert_eq!(info.spec.limits.memory, Some(longshore::Bytes::mib(64)));
    let all = |value: &str| ListOptions {
        all: true,
        filter: Filter::new().with("label", value),
    };
    assert_eq!(far.list(all("a=b")).await?[0].id, *web.id());
    assert!(far.list(all("a=c")).await?.is_empty());
    let containers = far.containers();
    let errors = [
        (
            failure(containers.start("nobody")).await?,
            ErrorKind::NotFound,
            Some(ObjectKind::Container),
        ),
        (
            failure(far.images().inspect("no-such")).await?,
            ErrorKind::NotFound,
            Some(ObjectKind::Image),
        ),
        (
            failure(far.create(ContainerSpec::image("no-such"))).await?,
            ErrorKind::NotFound,
            Some(ObjectKind::Image),
        ),
        (failure(far.create(spec)).await?, ErrorKind::Conflict, None),
        (failure(web.unpause()).await?, ErrorKind::InvalidState, None),
        (
            failure(web.exec(ExecSpec::new(["true"])).into_future()).await?,
            ErrorKind::InvalidState,
            None,
        ),
        (
            failure(containers.list(ListOptions {
                filter: Filter::new().with("colour", "red"),
                ..ListOptions::default()
            }))
            .await?,
            ErrorKind::InvalidArgument,
            None,
        ),
    ];
    for (error, kind, object) in errors {
        assert_eq!(
            (error.kind(), error.object().map(|object| object.0)),
            (&kind, object),
            "{error:?}"
        );
    }
    web.rename("other").await?;
    assert!(far.container("web").await.is_err());
    web.remove(RemoveOptions::default()).await?;
    let removed = far
        .images()
        .remove(&name.familiar(), RemoveImageOptions::default())
        .await?;
    assert!(
        removed.contains(&longshore::images::Removed::Deleted(near.id)),
        "{removed:?}"
    );
    Ok(())
}

async fn b1_tls_with_certificates_of_both_ends() -> Check {
    let world = World::new().await?;
    let (ours, other) = (Authority::new()?, Authority::new()?);
    let (chain, key) = ours.sign()?;
    let tls = api::Tls::from_pem(chain.as_bytes(), key.as_bytes(), Some(ours.pem.as_bytes()))?;
    let address = free_port()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let server = api::Server::new(world.engine.clone())
        .tcp(address, Some(tls))
        .bind()
        .await?;
    let serving = tokio::spawn(server.serve_until(async {
        let _ = stopped.await;
    }));
    let (good, stranger) = (ours.sign()?, other.sign()?);
    let connect = |trusted: &Authority, shown: Option<&(String, String)>| {
        let shown = shown.map(|(chain, key)| (chain.as_bytes(), key.as_bytes()));
        let tls = ClientTls::from_pem(trusted.pem.as_bytes(), shown)?;
        Ok::<_, Stop>(Engine::connect(format!("tcp://{address}")).tls(tls))
    };
    let far = connect(&ours, Some(&good))?.await?;
    let output = far.run(world.script("echo hello")).output().await?;
    assert_eq!(text(&output.stdout), "hello");
    for (trusted, shown) in [(&ours, None), (&ours, Some(&stranger)), (&other, Some(&good))] {
        let refused = failure(connect(trusted, shown)?.into_future()).await?;
        assert_eq!(refused.kind(), &ErrorKind::Unavailable, "{refused:?}");
    }
    let on_a_socket = Engine::connect("unix:///x").tls(ClientTls::from_pem(ours.pem.as_bytes(), None)?);
    assert_eq!(
        failure(on_a_socket.into_future()).await?.kind(),
        &ErrorKind::InvalidArgument
    );
    drop(far);
    drop(stop);
    serving.await?;
    Ok(())
}

async fn a7_the_same_kind_over_the_api() -> Check {
    let pair = Pair::new().await?;
    let id = pair.world.image.id().to_string();
    let running = pair
        .world
        .started(pair.world.spec().command(["sleep", "600"]).name("runs"))
        .await?;
    let mut found = Vec::new();
    for engine in pair.both() {
        let (containers, images) = (engine.containers(), engine.images());
        let force = RemoveImageOptions::default();
        let unknown = ListOptions {
            filter: Filter::new().with("colour", "red"),
            ..ListOptions::default()
        };
        let mut errors = vec![
            failure(containers.start("nobody")).await?,
            failure(containers.inspect("nobody")).await?,
            failure(containers.logs("nobody", LogQuery::default())).await?,
            failure(containers.exec_inspect(&"0".repeat(64))).await?,
            failure(images.inspect("no-such-image")).await?,
            failure(images.remove("no-such-image", force)).await?,
            failure(containers.create(ContainerSpec::image("no-such-image"))).await?,
            failure(containers.create(ContainerSpec::image(&id).name("runs"))).await?,
            failure(containers.create(ContainerSpec::image(&id).name("no good name"))).await?,
            failure(containers.remove("runs", RemoveOptions::default())).await?,
            failure(containers.unpause("runs")).await?,
            failure(containers.list(unknown)).await?,
        ];
        for command in ["/nope", "/etc"] {
            let container = engine.create(ContainerSpec::image(&id).command([command])).await?;
            errors.push(failure(container.start()).await?);
            container.remove(FORCE).await?;
        }
        let created = engine.create(ContainerSpec::image(&id).name("created")).await?;
        errors.push(failure(containers.pause("created")).await?);
        errors.push(failure(containers.exec_create("created", ExecSpec::new(["true"]))).await?);
        created.remove(FORCE).await?;
        found.push(errors);
    }
    let [near, far] = &found[..] else {
        return fail("two engines were asked");
    };
    for (near, far) in near.iter().zip(far) {
        assert_eq!(far.kind(), near.kind(), "{far:?} is not {near:?}");
        // Some name a container by its id, which differs.
        assert_eq!(
            far.object().map(|object| object.0),
            near.object().map(|object| object.0),
            "{far:?} is not {near:?}"
        );
        assert_eq!(far.is_retryable(), near.is_retryable());
    }
    assert_eq!(far[0].object(), near[0].object());
    // What the API has no words for says so, and what it takes.
    let index = IndexRequest::new("made:1".parse()?, []);
    let images = pair.far.images();
    for refused in [
        failure(images.document(&id)).await?,
        failure(images.make_index(index)).await?,
    ] {
        let ErrorKind::Unsupported { needs } = refused.kind() else {
            return fail(format!("{refused:?}"));
        };
        assert!(needs.starts_with("an engine in this process"), "{needs}");
    }
    running.remove(FORCE).await?;
    pair.end().await
}

async fn a12_the_same_lists_over_the_api() -> Check {
    let pair = Pair::alone().await?;
    let spec = pair.world.spec();
    let ended = pair
        .world
        .started(
            spec.clone()
                .command(["sh", "-c", "exit 3"])
                .name("ended")
                .label("a", "b"),
        )
        .await?;
    ended.wait().await?;
    let running = pair
        .world
        .started(spec.clone().command(["sleep", "600"]).name("running").label("a", "c"))
        .await?;
    let created = pair
        .far
        .create(spec.name("created").label("a", "b").env("X", "y z"))
        .await?;
    for (terms, expected) in [
        (&[][..], 3),
        (&[("label", "a=b")], 2),
        (&[("label", "a=b"), ("status", "exited")], 1),
        (&[("name", "^/?run")], 1),
        (&[("exited", "3")], 1),
        (&[("label", "nothing")], 0),
    ] {
        let options = ListOptions {
            all: true,
            filter: terms
                .iter()
                .fold(Filter::new(), |filter, (key, value)| filter.with(*key, *value)),
        };
        let (mut near, far) = (
            pair.world.engine.list(options.clone()).await?,
            pair.far.list(options).await?,
        );
        // The API tells whole seconds.
        for (near, far) in near.iter_mut().zip(&far) {
            assert!(near.created.duration_since(far.created)? < Duration::from_secs(1));
            near.created = far.created;
            near.status.clone_from(&far.status);
        }
        assert_eq!(far, near, "{terms:?}");
        assert_eq!(far.len(), expected, "{terms:?}");
    }
    let (near, far) = (
        pair.world.engine.container("created").await?,
        pair.far.container("created").await?,
    );
    let (near, far) = (near.inspect().await?, far.inspect().await?);
    assert_eq!(
        (&far.id, &far.name, far.state, far.exit),
        (&near.id, &near.name, near.state, near.exit)
    );
    assert_eq!(
        (far.created, &far.command, &far.labels),
        (near.created, &near.command, &near.labels)
    );
    assert_eq!(far.spec.env.get("X"), near.spec.env.get("X"));
    let end = pair.far.container("ended").await?.inspect().await?;
    let exit = end.exit.map(|exit| exit.status.code());
    assert_eq!((end.state, exit), (ContainerState::Exited, Some(3)));
    for container in [ended, running, created] {
        container.remove(FORCE).await?;
    }
    pair.end().await
}

async fn p38_a_run_over_the_api() -> Check {
    let pair = Pair::new().await?;
    let script = "echo out; echo err >&2; echo \"$A $(pwd) $(hostname)\"; exit 3";
    let spec = || {
        let spec = pair.world.script(script).env("A", "a b").hostname("here");
        spec.working_dir("/tmp")
    };
    let near = pair.world.engine.run(spec()).output().await?;
    let far = pair.far.run(spec()).pull(Pull::Never).output().await?;
    assert_eq!((&far.stdout, &far.stderr), (&near.stdout, &near.stderr));
    assert_eq!((far.status.code(), far.status.code()), (near.status.code(), 3));
    assert_eq!(text(&far.stdout), "out\na b /tmp here");
    // Ten megabytes, none of which is lost.
    let big = pair
        .far
        .run(pair.world.script("head -c 10485760 /dev/zero"))
        .output()
        .await?;
    assert_eq!((big.stdout.len(), big.stderr.len()), (10 << 20, 0));
    assert!(pair.world.containers().await?.is_empty());
    // Who goes away leaves nothing.
    let long = pair
        .far
        .run(pair.world.script("sleep 600"))
        .deadline(Duration::from_millis(300))
        .output();
    assert_eq!(failure(long).await?.kind(), &ErrorKind::Timeout);
    for _ in 0..200 {
        if pair.world.containers().await?.is_empty() {
            return pair.end().await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    fail("a run that was dropped left its container")
}

async fn g2_the_end_is_waited_for_over_the_api() -> Check {
    let pair = Pair::new().await?;
    let container = pair.far.create(pair.world.script("exit 7")).await?;
    // It was never started: this waits, that does not.
    let exited = container.wait_for(WaitCondition::Exited).await?;
    let idle = container.wait_for(WaitCondition::NotRunning).await?.await?;
    assert_eq!(idle.status.code(), 0);
    container.start().await?;
    assert_eq!(exited.await?.status.code(), 7);
    assert_eq!(container.wait().await?.status.code(), 7);
    let removed = container.wait_for(WaitCondition::Removed).await?;
    container.remove(RemoveOptions::default()).await?;
    assert_eq!(removed.await?.status.code(), 7);
    assert!(failure(container.wait()).await?.is_not_found());
    // It goes with its end, and the end is told all the same.
    let gone = pair.far.run(pair.world.script("exit 9").auto_remove(true)).await?;
    assert_eq!(gone.wait().await?.status.code(), 9);
    let stubborn = pair
        .far
        .run(pair.world.script("trap : TERM; while :; do sleep 0.1; done"))
        .await?;
    let options = StopOptions {
        signal: None,
        timeout: Some(Duration::from_millis(200)),
    };
    assert_eq!(stubborn.stop(options).await?, longshore::Outcome::Done);
    assert_eq!(stubborn.stop(options).await?, longshore::Outcome::Already);
    assert_eq!(stubborn.wait().await?.status.code(), 137);
    stubborn.remove(FORCE).await?;
    pair.end().await
}

async fn g3_commands_over_the_api() -> Check {
    let pair = Pair::new().await?;
    let id = pair
        .world
        .started(pair.world.spec().command(["sleep", "600"]))
        .await?
        .id()
        .to_string();
    // Where one id is mapped, there is no other user.
    let user = match pair.world.ownership().await?.as_str() {
        "squashed" => "0",
        _ => "7",
    };
    let mut said = Vec::new();
    for engine in pair.both() {
        let container = engine.container(&id).await?;
        let spec = ExecSpec::new(["sh", "-c", "echo $A; id -u; pwd; echo err >&2; exit 5"]);
        let output = container
            .exec(spec.env("A", "1").user(user).working_dir("/tmp"))
            .output()
            .await?;
        assert_eq!(output.status.code(), 5);
        let sorted = container.exec(ExecSpec::new(["sort"])).input("b\na\n").output().await?;
        let many = container
            .exec(ExecSpec::new(["wc", "-c"]))
            .input(vec![b'x'; 4 << 20])
            .output()
            .await?;
        let terminal = container
            .exec(ExecSpec::new(["sh", "-c", "test -t 1 && echo terminal"]).tty(true))
            .output()
            .await?;
        said.push((
            output.stdout,
            output.stderr,
            sorted.stdout,
            many.stdout,
            terminal.stdout,
        ));
        let running = container.exec(ExecSpec::new(["sleep", "0.2"])).await?;
        assert!(running.inspect().await?.running);
        assert_eq!(running.wait().await?.code(), 0);
        assert_eq!(running.inspect().await?.status.map(|status| status.code()), Some(0));
    }
    assert_eq!(said[1], said[0]);
    assert_eq!(
        (text(&said[1].2), text(&said[1].4)),
        ("a\nb".to_owned(), "terminal".to_owned())
    );
    assert_eq!(text(&said[1].3), (4 << 20).to_string());
    pair.far.container(&id).await?.remove(FORCE).await?;
    pair.end().await
}

/// All of an output.
async fn all(mut output: BoxStream<TeeItem>) -> Result<(Vec<u8>, Vec<u8>), Stop> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(item) = output.next().await {
        match item {
            TeeItem::Chunk(chunk) if chunk.stream == LogStream::Stdout => out.extend_from_slice(&chunk.bytes),
            TeeItem::Chunk(chunk) => err.extend_from_slice(&chunk.bytes),
            other => return fail(format!("{other:?}")),
        }
    }
    Ok((out, err))
}

async fn g4_logs_and_streams_over_the_api() -> Check {
    let pair = Pair::new().await?;
    let script = "echo one; echo two >&2; printf 'no end'";
    for tty in [false, true] {
        let container = pair.far.create(pair.world.script(script).tty(tty)).await?;
        let attached = container.attach(AttachOptions::default()).await?;
        // A reader from the start to the end.
        let followed = LogQuery {
            follow: true,
            ..LogQuery::default()
        };
        container.start().await?;
        let mut follower = container.logs(followed).await?;
        container.wait().await?;
        let (out, err) = all(attached.output).await?;
        let expected = if tty {
            ("one\r\ntwo\r\nno end", "")
        } else {
            ("one\nno end", "two\n")
        };
        assert_eq!(
            (&*String::from_utf8_lossy(&out), &*String::from_utf8_lossy(&err)),
            expected
        );
        let mut bytes = Vec::new();
        while let Some(entry) = follower.next().await {
            bytes.extend_from_slice(&entry?.bytes);
        }
        assert_eq!(bytes.len(), out.len() + err.len());
        for query in [
            LogQuery::default(),
            LogQuery {
                tail: Some(1),
                timestamps: true,
                ..LogQuery::default()
            },
            LogQuery {
                stderr: false,
                ..LogQuery::default()
            },
        ] {
            let mut said = Vec::new();
            for engine in pair.both() {
                let entries = engine
                    .container(container.id().as_str())
                    .await?
                    .logs(query.clone())
                    .await?;
                let entries: Vec<_> = entries.collect().await;
                said.push(entries.into_iter().collect::<longshore::Result<Vec<_>>>()?);
            }
            assert_eq!(said[1], said[0], "{query:?} with a terminal: {tty}");
            assert!(!said[1].is_empty());
        }
        container.remove(FORCE).await?;
    }
    // Stdin, and its end.
    let container = pair
        .far
        .create(pair.world.spec().command(["cat"]).open_stdin(true))
        .await?;
    let mut attached = container.attach(AttachOptions::default()).await?;
    container.start().await?;
    let Some(input) = attached.input.take() else {
        return fail("no stdin");
    };
    input.write("hello ").await?;
    input.write("there").await?;
    drop(input);
    assert_eq!(all(attached.output).await?.0, b"hello there");
    assert_eq!(container.wait().await?.status.code(), 0);
    container.remove(FORCE).await?;
    pair.end().await
}

async fn c1_a_pull_over_the_api() -> Check {
    let registry = Registry::with(Options::default(), &[(image::shared()?, "busybox", "1")])?;
    let pair = Pair::alone().await?;
    let name = registry.reference("busybox:1");
    let events: Arc<Mutex<Vec<ProgressEvent>>> = Arc::default();
    let seen = Arc::clone(&events);
    let pull = pair.far.pull(&name).policy(Pull::Always);
    let image = pull
        .progress(move |event| seen.lock().expect("no panic").push(event))
        .await?;
    assert_eq!(image.id(), pair.world.image.id());
    let told = events.lock().expect("no panic").clone();
    assert!(matches!(told.last(), Some(ProgressEvent::Done { .. })), "{told:?}");
    assert!(
        told.iter().any(|event| event.to_string().contains("Digest: sha256:")),
        "{told:?}"
    );
    let (near, far) = (
        pair.world.engine.images().inspect(&name).await?,
        pair.far.images().inspect(&name).await?,
    );
    assert_eq!((far.id, &far.tags, &far.digests), (near.id, &near.tags, &near.digests));
    assert_eq!(
        (&far.platform, &far.config.config, far.chain),
        (&near.platform, &near.config.config, near.chain)
    );
    assert_eq!(
        (far.size_bytes, far.manifest.digest, far.manifest.size),
        (near.size_bytes, near.manifest.digest, near.manifest.size)
    );
    let (near, far) = (
        pair.world.engine.images().history(&name).await?,
        pair.far.images().history(&name).await?,
    );
    let shown = |lines: &[longshore::images::HistoryLine]| {
        let lines = lines
            .iter()
            .map(|line| (line.id, line.created_by.clone(), line.size_bytes));
        lines.collect::<Vec<_>>()
    };
    assert_eq!(shown(&far), shown(&near));
    let missing = failure(pair.far.pull(registry.reference("busybox:2")).into_future()).await?;
    assert_eq!(missing.kind(), &ErrorKind::NotFound);
    let other = "other:7".parse()?;
    pair.far.images().tag(&name, &other).await?;
    let filter = Filter::new().with("reference", "other");
    assert_eq!(
        pair.far.list_images(filter.clone()).await?[0].id,
        *pair.world.image.id()
    );
    let removed = pair
        .far
        .images()
        .remove("other:7", RemoveImageOptions::default())
        .await?;
    assert_eq!(removed, [longshore::images::Removed::Untagged(other)]);
    assert!(pair.world.engine.list_images(filter).await?.is_empty());
    pair.end().await
}

async fn g12_events_and_usage_over_the_api() -> Check {
    let pair = Pair::alone().await?;
    let mut query = EventQuery::default();
    query.filter = Filter::new().with("type", "container");
    let (near, far) = (
        pair.world.engine.events(query.clone()).await?,
        pair.far.events(query).await?,
    );
    let container = pair.far.run(pair.world.script("exit 3")).await?;
    container.wait().await?;
    container.remove(FORCE).await?;
    let actions = |events: longshore::events::EventStream| async move {
        let mut all = Vec::new();
        let mut events = events;
        while let Some(item) = events.next().await {
            if let longshore::events::EventItem::Event(event) = item? {
                let last = event.action == "destroy";
                all.push(event);
                if last {
                    break;
                }
            }
        }
        Ok::<_, Stop>(all)
    };
    let (near, far) = (actions(near).await?, actions(far).await?);
    assert_eq!(far, near);
    let (near, far) = (
        pair.world.engine.system().info().await?,
        pair.far.system().info().await?,
    );
    assert_eq!(
        (&far.id, &far.version, &far.storage_driver),
        (&near.id, &near.version, &near.storage_driver)
    );
    assert_eq!(
        (far.cpus, far.memory_bytes, far.images),
        (near.cpus, near.memory_bytes, near.images)
    );
    let (near, far) = (
        pair.world.engine.system().disk_usage().await?,
        pair.far.system().disk_usage().await?,
    );
    assert_eq!(
        (&far.images, &far.containers, far.layers_bytes),
        (&near.images, &near.containers, near.layers_bytes)
    );
    let refused = failure(pair.far.reconcile()).await?;
    assert!(refused.is_unsupported(), "{refused:?}");
    pair.end().await
}
