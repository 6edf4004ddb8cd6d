//! Containers of runc and crun: the same verbs, with another program that makes them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt as _;
use longshore::containers::{AttachOptions, SlowReader};
use longshore::logs::TeeItem;
use longshore::types::Signal;
use longshore::{
    Bytes, CheckpointOptions, Container, ContainerSpec, ContainerState, Engine, ErrorKind, ExecSpec, Lifetime,
    MountSpec, NetworkMode, StopOptions,
};

use crate::frame::{Check, Stop, fail, skip};
use crate::support::embedder::{Embedder, Role};
use crate::support::image;
use crate::support::leaks::Snapshot;
use crate::support::root::TempRoot;
use crate::support::world::{FORCE, World, source, text};
use crate::support::{is_root, scratch};
use crate::tests;

tests! { "oci_runtime":
    kernel_async [
        h21_runc_runs_a_container,
        h21_crun_runs_a_container,
        h21_runc_keeps_a_container_in,
        h21_crun_keeps_a_container_in,
        h21_runc_runs_commands,
        h21_crun_runs_commands,
        h21_terminals_of_runc_and_crun,
        h21_limits_and_pauses_are_the_engines,
        h21_what_an_external_runtime_cannot_is_told,
    ]
    kernel [
        h21_a_killed_embedder_leaves_nothing_of_runc_and_crun,
    ]
}

pub const ROLES: &[(&str, Role)] = &[("oci-forever", role_oci_forever)];

const BOTH: [&str; 2] = ["runc", "crun"];

fn must_be_here(name: &str) -> Check {
    let places = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    match places.iter().any(|place| Path::new(place).join(name).is_file()) {
        true => Ok(()),
        false => skip(format!("{name} is not installed")),
    }
}

async fn world(name: &str) -> Result<World, Stop> {
    must_be_here(name)?;
    let root = TempRoot::new();
    let engine = Engine::builder(root.path()).default_runtime(name).open().await?;
    let image = engine.pull(source(image::shared()?)).await?;
    Ok(World { engine, image, root })
}

async fn sleeper(world: &World) -> Result<Container, Stop> {
    world
        .started(world.spec().command(["sleep", "1000"]).stop_signal(Signal::KILL))
        .await
}

async fn h21_runc_runs_a_container() -> Check {
    runs_a_container("runc").await
}

async fn h21_crun_runs_a_container() -> Check {
    runs_a_container("crun").await
}

/// From create to remove, with output, status and signals.
async fn runs_a_container(name: &str) -> Check {
    let world = world(name).await?;
    assert_eq!(world.engine.system().info().await?.runtime, name);
    let output = world.output(world.script("echo out; echo err >&2; exit 7")).await?;
    assert_eq!(
        (output.status.code(), text(&output.stdout), text(&output.stderr)),
        (7, "out".to_owned(), "err".to_owned())
    );
    let container = world
        .engine
        .create(world.script("read line; echo got $line; exit 3").open_stdin(true))
        .await?;
    let spec = container.inspect().await?.spec;
    assert_eq!(spec.runtime.as_deref(), Some(name));
    for _ in 0..2 {
        let mut attached = container.attach(AttachOptions::slow(SlowReader::Keep)).await?;
        container.start().await?;
        attached.input.take().expect("stdin").write("hello\n").await?;
        let mut seen = Vec::new();
        while let Some(item) = attached.output.next().await {
            if let TeeItem::Chunk(chunk) = item {
                seen.extend_from_slice(&chunk.bytes);
            }
        }
        assert_eq!(text(&seen), "got hello");
        assert_eq!(container.wait().await?.status.code(), 3);
    }
    container.remove(FORCE).await?;
    let container = sleeper(&world).await?;
    assert_eq!(container.inspect().await?.state, ContainerState::Running);
    container.kill(Signal::KILL).await?;
    let exit = container.wait().await?;
    assert_eq!((exit.status.signal(), exit.status.code()), (Some(9), 137));
    container.start().await?;
    container.stop(StopOptions::default()).await?;
    container.remove(FORCE).await?;
    for (command, kind, code) in [
        ("/nowhere/program", ErrorKind::CommandNotFound, 127),
        ("/etc", ErrorKind::CommandNotExecutable, 126),
    ] {
        let container = world.engine.create(world.spec().command([command])).await?;
        let error = container.start().await.expect_err("it cannot run");
        assert_eq!(error.kind(), &kind, "{}", error.report());
        let exit = container.inspect().await?.exit.map(|exit| exit.status.code());
        assert_eq!(exit, Some(code));
        container.remove(FORCE).await?;
    }
    assert!(world.containers().await?.is_empty());
    Ok(())
}

async fn h21_runc_keeps_a_container_in() -> Check {
    keeps_a_container_in("runc").await
}

async fn h21_crun_keeps_a_container_in() -> Check {
    keeps_a_container_in("crun").await
}

/// Users, files, mounts, rights, names.
async fn keeps_a_container_in(name: &str) -> Check {
    let world = world(name).await?;
    let dir = scratch::fresh("oci");
    std::fs::write(dir.path().join("file"), "of the host")?;
    // It is the mount that refuses, not who may write there.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777))?;
    let squashed = world.ownership().await? == "squashed";
    let script = "id -u; id -g; cat /in/file; touch /in/no 2>/dev/null || echo refused; touch /no 2>/dev/null || echo whole; \
                  echo x > /t/x && cat /t/x; grep CapBnd /proc/self/status; grep Seccomp: /proc/self/status; hostname; \
                  echo $$; ls /proc/acpi 2>/dev/null | wc -l; ulimit -n; umask";
    let mut spec = world.script(script).hostname("inside").ulimit("nofile", 64, 64);
    spec = spec
        .mount(MountSpec::bind(dir.path(), "/in").read_only())
        .mount(MountSpec::tmpfs("/t", Default::default()));
    spec.read_only = true;
    if !squashed {
        spec = spec.user("65534:65533");
    }
    let said = world.says(spec).await?;
    let lines: Vec<&str> = said.lines().collect();
    let (uid, gid) = if squashed { ("0", "0") } else { ("65534", "65533") };
    let expected = [
        uid,
        gid,
        "of the hostrefused",
        "whole",
        "x",
        "CapBnd:\t00000000a80425fb",
        "Seccomp:\t2",
        "inside",
        "1",
        "0",
        "64",
        "0022",
    ];
    assert_eq!(lines, expected, "{said}");
    let nobody = world.engine.create(world.spec().user("nobody-at-all")).await;
    assert!(nobody.expect_err("no such user").is_not_found());
    // A network of the engine's, one without any, and the host's.
    for (network, interfaces) in [("bridge", "2"), ("none", "1")] {
        let spec = world
            .script("ls /sys/class/net | grep -cE '^(lo|eth0)$'")
            .network(network.parse::<NetworkMode>()?);
        assert_eq!(world.says(spec).await?, interfaces, "{network}");
    }
    let host = std::fs::read_link("/proc/self/ns/net")?;
    let seen = world
        .says(world.script("readlink /proc/self/ns/net").network(NetworkMode::Host))
        .await?;
    assert_eq!(Path::new(&seen), host);
    Ok(())
}

async fn h21_runc_runs_commands() -> Check {
    runs_commands("runc").await
}

async fn h21_crun_runs_commands() -> Check {
    runs_commands("crun").await
}

async fn runs_commands(name: &str) -> Check {
    let world = world(name).await?;
    let container = sleeper(&world).await?;
    let sh = |script: &str| ExecSpec::new(["sh", "-c", script]);
    let output = container
        .exec(
            sh("echo $$ >&2; echo $A; pwd; exit 5")
                .env("A", "b")
                .working_dir("/etc"),
        )
        .output()
        .await?;
    assert_eq!((output.status.code(), text(&output.stdout)), (5, "b\n/etc".to_owned()));
    assert_ne!(text(&output.stderr), "1", "it is beside the first process");
    // They end before anybody can look.
    for _ in 0..3 {
        assert_eq!(
            container.exec(ExecSpec::new(["false"])).output().await?.status.code(),
            1
        );
    }
    let output = container.exec(sh("kill -TERM $$; sleep 1000")).output().await?;
    assert_eq!(output.status.signal(), Some(15));
    let mut running = container
        .exec(ExecSpec::new(["cat"]).stdin(true))
        .slow(SlowReader::Keep)
        .await?;
    running.attached.input.take().expect("stdin").write("through").await?;
    let mut seen = Vec::new();
    while let Some(TeeItem::Chunk(chunk)) = running.attached.output.next().await {
        seen.extend_from_slice(&chunk.bytes);
    }
    assert_eq!((text(&seen).as_str(), running.wait().await?.code()), ("through", 0));
    let missing = container
        .exec(ExecSpec::new(["nothing"]))
        .output()
        .await
        .expect_err("no such program");
    assert_eq!(missing.kind(), &ErrorKind::CommandNotFound, "{}", missing.report());
    // One that runs ends with the container.
    let running = container.exec(ExecSpec::new(["sleep", "1000"])).await?;
    container.kill(Signal::KILL).await?;
    assert_eq!(running.wait().await?.signal(), Some(9));
    let late = container
        .exec(ExecSpec::new(["true"]))
        .output()
        .await
        .expect_err("it has ended");
    assert!(
        matches!(late.kind(), ErrorKind::InvalidState | ErrorKind::Conflict),
        "{}",
        late.report()
    );
    container.remove(FORCE).await?;
    Ok(())
}

async fn h21_terminals_of_runc_and_crun() -> Check {
    for name in BOTH {
        let world = world(name).await?;
        let mut spec = world.script("tty; read line; stty size; echo got $line").tty(true);
        spec.open_stdin = true;
        let container = world.engine.create(spec).await?;
        let mut attached = container.attach(AttachOptions::slow(SlowReader::Keep)).await?;
        container.start().await?;
        container.resize(40, 100).await?;
        // crun gives a command its terminal's size when that runs already. Until then busybox says nothing, and calls that success.
        let script = "until [ -n \"$(stty size 2>/dev/null)\" ]; do sleep 0.02; done; stty size; tty";
        let exec = ExecSpec::new(["sh", "-c", script]).tty(true).tty_size(30, 90);
        let beside = container.exec(exec).output().await?;
        let beside = text(&beside.stdout);
        assert!(
            beside.contains("30 90") && beside.contains("/dev/pts/"),
            "{name}: {beside:?}"
        );
        attached.input.take().expect("stdin").write("hello\n").await?;
        let mut seen = Vec::new();
        while let Some(item) = attached.output.next().await {
            if let TeeItem::Chunk(chunk) = item {
                seen.extend_from_slice(&chunk.bytes);
            }
        }
        let seen = text(&seen);
        let all = seen.contains("/dev/") && seen.contains("40 100") && seen.contains("got hello");
        assert!(all, "{name}: {seen:?}");
        container.remove(FORCE).await?;
    }
    Ok(())
}

async fn h21_limits_and_pauses_are_the_engines() -> Check {
    if !is_root() {
        return skip("limits need cgroups, which this user has none of");
    }
    for name in BOTH {
        let world = world(name).await?;
        let greedy = world.script("exec tail -c 90000000 /dev/zero").memory(Bytes::mib(32));
        let container = world.started(greedy).await?;
        let exit = container.wait().await?;
        assert_eq!((exit.oom_killed, exit.status.signal()), (Some(true), Some(9)), "{name}");
        container.remove(FORCE).await?;
        let counter = "i=0; while :; do i=$((i+1)); echo $i > /dev/shm/count; done";
        let container = world.started(world.script(counter).stop_signal(Signal::KILL)).await?;
        let pid = container.inspect().await?.pid.unwrap_or(0);
        let count = || std::fs::read_to_string(format!("/proc/{pid}/root/dev/shm/count"));
        while count().unwrap_or_default().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        container.pause().await?;
        assert_eq!(container.inspect().await?.state, ContainerState::Paused);
        let before = count()?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(count()?, before, "{name}");
        container.unpause().await?;
        // A node of the host's disk can be made, and is good for nothing.
        let node = "mknod /disk b 7 0 && head -c 1 /disk 2>/dev/null || echo kept";
        assert_eq!(
            text(&container.exec(ExecSpec::new(["sh", "-c", node])).output().await?.stdout),
            "kept"
        );
        container.stop(StopOptions::default()).await?;
        container.remove(FORCE).await?;
    }
    Ok(())
}

async fn h21_what_an_external_runtime_cannot_is_told() -> Check {
    let world = world("runc").await?;
    for spec in [world.spec().init(true), world.spec().user_namespace(true)] {
        let container = world.engine.create(spec).await?;
        let error = container.start().await.expect_err("it cannot");
        assert!(error.is_unsupported(), "{}", error.report());
        container.remove(FORCE).await?;
    }
    let detached = world.engine.create(world.spec().lifetime(Lifetime::Detached)).await;
    let error = detached.expect_err("there is no shim");
    assert!(error.is_unsupported(), "{}", error.report());
    let unknown = world
        .engine
        .create(world.spec().runtime("kata"))
        .await
        .expect_err("nobody knows it");
    assert_eq!(unknown.kind(), &ErrorKind::InvalidArgument);
    let native = world.spec().runtime("native").command(["true"]);
    assert!(world.output(native).await?.status.success());
    let container = sleeper(&world).await?;
    let checkpoint = container
        .checkpoint("one", CheckpointOptions::default())
        .await
        .expect_err("it cannot");
    assert!(checkpoint.is_unsupported(), "{}", checkpoint.report());
    container.remove(FORCE).await?;
    let root = TempRoot::new();
    let missing = Engine::builder(root.path()).default_runtime("kata").open().await;
    assert_eq!(
        missing.expect_err("nobody knows it").kind(),
        &ErrorKind::InvalidArgument
    );
    Ok(())
}

fn role_oci_forever(arguments: &[String]) -> i32 {
    let [root, name] = arguments else { return 2 };
    let run = async move {
        let engine = Engine::builder(root).default_runtime(name).open().await?;
        println!("open");
        loop {
            let container = engine
                .run(ContainerSpec::image("busybox").command(["sleep", "1000"]))
                .await?;
            let _running = container.exec(ExecSpec::new(["sleep", "1000"])).await?;
        }
        #[allow(unreachable_code)]
        longshore::Result::Ok(())
    };
    let ended: longshore::Result<()> = crate::frame::block_on(run);
    i32::from(ended.is_err())
}

fn h21_a_killed_embedder_leaves_nothing_of_runc_and_crun() -> Check {
    for name in BOTH {
        must_be_here(name)?;
        let root = crate::faults::filled_root()?;
        let before = Snapshot::take();
        for pause in [30u64, 90, 200, 400] {
            let mut embedder = Embedder::start("oci-forever", &[root.path().to_str().unwrap_or_default(), name])?;
            assert_eq!(embedder.line(Duration::from_secs(20))?, "open");
            std::thread::sleep(Duration::from_millis(pause));
            embedder.kill()?;
            drop(embedder);
            let leaks = before.leaks_within(Duration::from_secs(2));
            if !leaks.is_empty() {
                return fail(format!("{name}, killed after {pause} ms: {leaks:?}"));
            }
        }
    }
    Ok(())
}
