//! What is done for a container while it lives: restarts, health checks, and where its output is logged.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use longshore::containers::Probe;
use longshore::events::{Event, EventItem};
use longshore::logs::{JsonFileDriver, LogDriver, LogEntry, LogQuery, LogSink, LogTarget};
use longshore::types::Filter;
use longshore::{
    AttachOptions, Blocking as _, CheckpointOptions, Container, ContainerSpec, ContainerState, Engine, ErrorKind,
    EventQuery, ExecSpec, HealthCheck, HealthStatus, ListOptions, LogConfig, NamespaceMode, NetworkMode, OnUnhealthy,
    Outcome, RemoveOptions, RestartPolicy, Signal, StopOptions, WaitCondition,
};

use crate::checks::{of_ours, sleepers};
use crate::frame::{Check, Stop, fail, skip};
use crate::longshored::{self, Daemon};
use crate::support::patience::{until, until_now};
use crate::support::root::TempRoot;
use crate::support::world::{FORCE, World, source, text};
use crate::support::{image, long_loops, runtime, scratch};
use crate::tests;

tests! { "care":
    kernel [
        a11_without_a_runtime,
        h3_the_client_over_a_daemon,
        g4_detach_keys_leave_the_container_running,
    ]
    kernel_async [
        a11_within_a_runtime,
        a_closed_engine_holds_nothing_of_its_root,
        g2_floods_reach_who_reads_and_end,
        g5_logs_go_on_over_restarts,
        g10_on_failure_restarts_so_often_with_growing_pauses,
        g10_who_ends_it_by_hand_ends_its_restarts,
        g10_a_policy_can_be_changed_and_can_never_go_with_removal,
        g11_starting_healthy_unhealthy,
        g11_a_probe_that_takes_too_long_is_killed,
        g11_a_bound_container_s_probe_is_killed_with_what_has_left_it,
        g11_the_start_period_and_the_image_s_check,
        g12_events_have_no_gap_under_load,
        g13_checkpoints_say_what_is_missing,
        g14_two_containers_share_the_namespaces_of_a_third,
        g15_prune_takes_what_has_ended_and_is_old_enough,
        h19_json_file_is_docker_s_and_rotates,
        h19_the_default_keeps_three_files,
        h19_none_and_what_there_is_not,
        h20_a_sink_of_one_s_own_that_blocks_does_not_block_the_container,
        h3_a_terminal_has_its_size_and_is_told_of_another,
        p31_what_is_gone_at_once_was_heard,
        p47_an_unhealthy_container_is_restarted_once,
    ]
    waiting_async [
        g10_another_process_ends_its_restarts_too,
        g10_while_it_waits_for_its_restart,
    ]
}

async fn state_is(container: &Container, state: ContainerState) -> Check {
    until(state.as_str(), async || Ok(container.inspect().await?.state == state)).await
}

/// What has happened to a container so far.
async fn events(world: &World, container: &Container) -> Result<Vec<Event>, Stop> {
    let mut query = EventQuery::default();
    query.filter = Filter::new()
        .with("type", "container")
        .with("container", container.id().as_str());
    query.since_ns = Some(0);
    query.until_ns = Some(longshore::events::now_ns());
    let items: Vec<_> = world.engine.events(query).await?.collect().await;
    let mut events = Vec::new();
    for item in items {
        if let EventItem::Event(event) = item? {
            events.push(event);
        }
    }
    Ok(events)
}

fn count(events: &[Event], action: &str) -> usize {
    events.iter().filter(|event| event.action == action).count()
}

async fn logged(container: &Container) -> Result<String, Stop> {
    let entries: Vec<_> = container.logs(LogQuery::default()).await?.collect().await;
    let mut all = Vec::new();
    for entry in entries {
        all.extend_from_slice(&entry?.bytes);
    }
    Ok(String::from_utf8_lossy(&all).into_owned())
}

fn a11_without_a_runtime() -> Check {
    let world = World::new().block()?;
    let run = world.engine.run(world.spec().command(["echo", "hello"]));
    assert_eq!(run.output().block()?.stdout, b"hello\n");
    let container = world.engine.run(world.spec().command(["sleep", "1000"])).block()?;
    let said = container.exec(ExecSpec::new(["echo", "there"])).output().block()?;
    assert_eq!(said.stdout, b"there\n");
    assert_eq!(container.kill(Signal::KILL).block().map(|()| 0)?, 0);
    assert_eq!(container.wait().block()?.status.code(), 137);
    container.remove(RemoveOptions::default()).block()?;
    Ok(())
}

async fn a11_within_a_runtime() -> Check {
    let world = World::new().block()?;
    let run = world.engine.run(world.spec().command(["echo", "hello"]));
    assert_eq!(run.output().block()?.stdout, b"hello\n");
    Ok(())
}

async fn a_closed_engine_holds_nothing_of_its_root() -> Check {
    let root = TempRoot::new();
    let path = root.path().display().to_string();
    let engine = Engine::open(root.path()).await?;
    let image = engine.pull(source(image::shared()?)).await?.id().to_string();
    let spec = || runtime::with_a_network(ContainerSpec::image(&image)).command(["sleep", "1000"]);
    let container = engine.run(spec().restart(RestartPolicy::Always)).await?;
    let pid = container.inspect().await?.pid.expect("it runs");
    // Another handle, which the end does not wait for.
    let exit = container.wait_for(WaitCondition::Exited).await?;
    engine.clone().close().await;
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "its process");
    let refused = container.inspect().await.expect_err("closed");
    assert_eq!(refused.kind(), &ErrorKind::Cancelled, "{}", refused.report());
    drop(exit);
    drop((container, engine));
    let held: Vec<String> = fs::read_to_string("/proc/self/maps")?
        .lines()
        .filter(|line| line.contains(&path))
        .map(str::to_owned)
        .collect();
    assert!(held.is_empty(), "{held:?}");
    let engine = Engine::open(root.path()).await?;
    assert!(
        engine
            .list(ListOptions {
                all: true,
                ..Default::default()
            })
            .await?
            .is_empty()
    );
    // Twice, and dropped half-way.
    let container = engine.run(spec()).await?;
    drop(container);
    drop(Box::pin(engine.clone().close()));
    engine.clone().close().await;
    engine.close().await;
    Ok(())
}

/// Without a newline, in lines of a megabyte, and binary: with a reader that takes nothing for a while, who holds the container up
/// or does without.
async fn g2_floods_reach_who_reads_and_end() -> Check {
    let megabytes: usize = if long_loops() { 64 } else { 16 };
    let bytes = megabytes << 20;
    let world = World::new().await?;
    let floods = [
        ("without a newline", format!("head -c {bytes} /dev/zero | tr '\\0' x")),
        (
            "lines of a megabyte",
            format!("for i in $(seq {megabytes}); do head -c 1048575 /dev/zero | tr '\\0' y; echo; done"),
        ),
        (
            "binary",
            format!("for i in $(seq {megabytes}); do cat /bin/busybox; done | head -c {bytes}"),
        ),
    ];
    for (what, script) in &floods {
        for slow in [longshore::SlowReader::Wait, longshore::SlowReader::Skip] {
            let container = world.engine.create(world.script(script)).await?;
            let mut attached = container.attach(AttachOptions::slow(slow)).await?;
            // Another one, who vanishes in the middle.
            let mut vanishes = container
                .attach(AttachOptions::slow(longshore::SlowReader::Wait))
                .await?;
            container.start().await?;
            assert!(vanishes.output.next().await.is_some());
            tokio::time::sleep(Duration::from_millis(200)).await;
            drop(vanishes);
            let (mut seen, mut missed) = (0, 0);
            while let Some(item) = attached.output.next().await {
                match item {
                    longshore::logs::TeeItem::Chunk(chunk) => seen += chunk.bytes.len(),
                    longshore::logs::TeeItem::Lagged { missed_bytes } => missed += missed_bytes as usize,
                    other => return fail(format!("{other:?}")),
                }
            }
            assert_eq!(container.wait().await?.status.code(), 0, "{what}");
            assert_eq!(seen + missed, bytes, "{what}, {slow:?}");
            assert!(slow != longshore::SlowReader::Wait || missed == 0, "{what}");
            container.remove(FORCE).await?;
        }
    }
    Ok(())
}

/// The client, next to the daemon.
fn client(daemon: &Daemon, arguments: &[&str]) -> Result<Command, Stop> {
    let program = longshored::program()?.with_file_name("longshore");
    if !program.is_file() {
        return skip("the client is not built: cargo build --package longshore-cli");
    }
    let mut command = Command::new(program);
    command
        .arg("--host")
        .arg(format!("unix://{}", daemon.socket.display()))
        .args(arguments);
    Ok(command)
}

fn says(daemon: &Daemon, arguments: &[&str]) -> Result<String, Stop> {
    let output = client(daemon, arguments)?.stdin(Stdio::null()).output()?;
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => fail(format!("{arguments:?}: {}", text(&output.stderr))),
    }
}

/// Containers outlive a client whose engine is a daemon's.
fn h3_the_client_over_a_daemon() -> Check {
    let mut daemon = Daemon::start(&[])?;
    let words = [
        "run",
        "-d",
        "--name",
        "web",
        "--restart",
        "on-failure:2",
        "--log-driver",
        "json-file",
        "busybox",
    ];
    let id = says(&daemon, &[&words[..], &["sh", "-c", "echo begun; sleep 1000"]].concat())?;
    assert_eq!(id.len(), 64, "{id}");
    assert_eq!(says(&daemon, &["exec", "web", "echo", "hello"])?, "hello");
    assert_eq!(says(&daemon, &["exec", "-d", "web", "touch", "/made"])?, "");
    let shown: serde_json::Value = serde_json::from_str(&says(&daemon, &["inspect", "web"])?)?;
    let shown = if shown.is_array() { shown[0].clone() } else { shown };
    assert_eq!(shown["HostConfig"]["LogConfig"]["Type"], "json-file", "{shown}");
    assert!(says(&daemon, &["ps"])?.contains("web"));
    assert_eq!(says(&daemon, &["logs", "web"])?, "begun");
    says(&daemon, &["update", "--restart", "no", "web"])?;
    says(&daemon, &["restart", "-t", "0", "web"])?;
    says(&daemon, &["rm", "-f", "web"])?;
    daemon.stop()
}

/// Types at a client that has a terminal, until it ends; what it prints comes back.
fn typed(mut command: Command, wait_for: &str, keys: &[u8]) -> Result<(std::process::ExitStatus, String), Stop> {
    let pty = nix::pty::openpty(None, None)?;
    let (slave, mut master) = (pty.slave, fs::File::from(pty.master));
    let mut child = command
        .stdin(slave.try_clone()?)
        .stdout(slave.try_clone()?)
        .stderr(slave)
        .spawn()?;
    // Its copies of the terminal must be the last.
    drop(command);
    let mut printed = Vec::new();
    let mut sent = false;
    let mut buffer = [0; 4096];
    // A terminal whose last process is gone ends with EIO.
    while let Ok(count @ 1..) = master.read(&mut buffer) {
        printed.extend_from_slice(&buffer[..count]);
        if !sent && text(&printed).contains(wait_for) {
            master.write_all(keys)?;
            sent = true;
        }
    }
    Ok((child.wait()?, text(&printed)))
}

fn g4_detach_keys_leave_the_container_running() -> Check {
    let mut daemon = Daemon::start(&[])?;
    let words = [
        "run",
        "-d",
        "-i",
        "-t",
        "--name",
        "shell",
        "busybox",
        "sh",
        "-c",
        "while read line; do echo got $line; done",
    ];
    says(&daemon, &words)?;
    let running = |daemon: &Daemon| Ok::<_, Stop>(says(daemon, &["ps"])?.contains("shell"));
    // What is typed before the keys arrives; the keys do not.
    for (options, keys) in [
        (&[][..], &b"one\n\x10\x11"[..]),
        (&["--detach-keys", "ctrl-a,x"], b"two\n\x01x"),
    ] {
        let attach = client(&daemon, &[&["attach"], options, &["shell"]].concat())?;
        let exec = ["exec", "-i", "-t"];
        let exec = client(
            &daemon,
            &[&exec[..], options, &["shell", "sh", "-c", "echo ready; cat"]].concat(),
        )?;
        let (status, printed) = typed(exec, "ready", keys)?;
        assert!(
            status.success() && printed.contains("read escape sequence"),
            "{status}: {printed}"
        );
        says(
            &daemon,
            &[
                "exec",
                "-d",
                "shell",
                "sh",
                "-c",
                "while true; do echo poke > /proc/1/fd/1; sleep 0.2; done",
            ],
        )?;
        let (status, printed) = typed(attach, "poke", keys)?;
        assert!(
            status.success() && printed.contains("read escape sequence"),
            "{status}: {printed}"
        );
        assert!(running(&daemon)?, "it ended with its client");
    }
    until_now("both lines", || {
        let logged = says(&daemon, &["logs", "shell"])?;
        Ok(logged.contains("got one") && logged.contains("got two"))
    })?;
    says(&daemon, &["rm", "-f", "shell"])?;
    daemon.stop()
}

async fn g10_on_failure_restarts_so_often_with_growing_pauses() -> Check {
    // Alone: what is replayed is the last of what happened in a root, and others are busy in a shared one.
    let world = World::alone().await?;
    let policy = RestartPolicy::OnFailure { max_retries: Some(3) };
    let container = world.started(world.script("exit 3").restart(policy)).await?;
    until("the last restart", async || {
        let info = container.inspect().await?;
        Ok(info.state == ContainerState::Exited && info.restart_count == 3)
    })
    .await?;
    let info = container.inspect().await?;
    assert_eq!(info.exit.map(|exit| exit.status.code()), Some(3));
    let events = events(&world, &container).await?;
    assert_eq!((count(&events, "start"), count(&events, "die")), (4, 4));
    // From each end to the next start it takes as long as the policy says at least.
    let times = |action: &str| {
        let those = events.iter().filter(|event| event.action == action);
        those.map(|event| event.time_ns).collect::<Vec<_>>()
    };
    let (ends, starts) = (times("die"), times("start"));
    let pauses: Vec<i64> = ends
        .iter()
        .zip(&starts[1..])
        .map(|(end, start)| (start - end) / 1_000_000)
        .collect();
    for (pause, least) in pauses.iter().zip([100, 200, 400]) {
        assert!(*pause >= least, "{pauses:?}");
    }
    // Whoever starts it by hand begins anew.
    container.start().await?;
    assert_eq!(container.inspect().await?.restart_count, 0);
    container.remove(FORCE).await?;
    // One that ends well stays ended.
    let well = world.started(world.script("exit 0").restart(policy)).await?;
    state_is(&well, ContainerState::Exited).await?;
    assert_eq!(well.inspect().await?.restart_count, 0);
    well.remove(FORCE).await?;
    Ok(())
}

async fn g10_who_ends_it_by_hand_ends_its_restarts() -> Check {
    let world = World::new().await?;
    let trapping = "trap 'exit 0' TERM; touch /ready; while true; do sleep 0.05; done";
    for way in ["stop", "kill", "term"] {
        let container = world
            .started(world.script(trapping).restart(RestartPolicy::Always))
            .await?;
        // Before that it is deaf to the signal, as every pid 1 without a handler.
        until("the trap", async || Ok(container.stat_path("/ready").await.is_ok())).await?;
        let exit = container.wait_for(WaitCondition::NextExit).await?;
        match way {
            "stop" => drop(container.stop(StopOptions::default()).await?),
            "kill" => container.kill(Signal::KILL).await?,
            _ => container.kill(Signal::TERM).await?,
        }
        exit.await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let info = container.inspect().await?;
        assert_eq!((info.state, info.restart_count), (ContainerState::Exited, 0), "{way}");
        container.remove(FORCE).await?;
    }
    // A signal that is not meant to end it leaves the policy as it is.
    let container = world
        .started(world.script("sleep 1000").restart(RestartPolicy::UnlessStopped))
        .await?;
    container.kill("HUP".parse()?).await?;
    let pid = container.inspect().await?.pid;
    // As pid 1 it is deaf to a signal without a handler.
    let deaf = runtime::chosen() != Some("chroot");
    if deaf && container.inspect().await?.state == ContainerState::Running && pid.is_some() {
        let name = container.id().to_string();
        container.exec(ExecSpec::new(["true"])).output().await?;
        assert_eq!(container.inspect().await?.restart_count, 0, "{name}");
    }
    container.remove(FORCE).await?;
    Ok(())
}

/// Two engines on one root are two owners, as two processes are.
async fn g10_another_process_ends_its_restarts_too() -> Check {
    let world = World::new().await?;
    let other = Engine::open(world.root.path()).await?;
    let script = "trap 'exit 0' TERM; while true; do sleep 0.05; done";
    let container = world
        .started(world.script(script).restart(RestartPolicy::Always))
        .await?;
    let id = container.id().as_str();
    assert_eq!(
        other.containers().stop(id, StopOptions::default()).await?,
        Outcome::Done
    );
    tokio::time::sleep(Duration::from_millis(300)).await;
    let info = container.inspect().await?;
    assert_eq!((info.state, info.restart_count), (ContainerState::Exited, 0));
    container.remove(FORCE).await?;
    // Where nothing of it runs, its own process is asked to give up.
    for kill in [false, true] {
        let failing = world
            .started(world.script("exit 1").restart(RestartPolicy::Always))
            .await?;
        until("a longer pause", async || {
            Ok(failing.inspect().await?.restart_count >= 3)
        })
        .await?;
        state_is(&failing, ContainerState::Restarting).await?;
        let id = failing.id().as_str();
        match kill {
            true => other.containers().kill(id, Signal::KILL).await?,
            false => drop(other.containers().stop(id, StopOptions::default()).await?),
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(failing.inspect().await?.state, ContainerState::Exited, "kill: {kill}");
        failing.remove(FORCE).await?;
    }
    Ok(())
}

async fn g10_while_it_waits_for_its_restart() -> Check {
    let world = World::new().await?;
    let failing = || world.script("exit 1").restart(RestartPolicy::Always);
    let waiting = async || -> Result<Container, Stop> {
        let container = world.started(failing()).await?;
        // Long enough for all that is asked meanwhile.
        until("a longer pause", async || {
            Ok(container.inspect().await?.restart_count >= 4)
        })
        .await?;
        state_is(&container, ContainerState::Restarting).await?;
        Ok(container)
    };
    let container = waiting().await?;
    assert_eq!(container.start().await?, Outcome::Already);
    for answer in [
        container.pause().await,
        container.exec(ExecSpec::new(["true"])).output().await.map(drop),
        container.top(&[]).await.map(drop),
        container.remove(RemoveOptions::default()).await.map(drop),
    ] {
        let error = answer.expect_err("it does not run");
        assert_eq!(error.kind(), &ErrorKind::Conflict, "{}", error.report());
    }
    let shown = world.engine.list(ListOptions::default()).await?;
    let line = shown
        .iter()
        .find(|line| line.id == *container.id())
        .expect("it counts as up");
    assert!(line.status.starts_with("Restarting (1) "), "{}", line.status);
    // Attached before the next start, and registered for the end that the stop makes of it.
    let mut attached = container.attach(AttachOptions::default()).await?;
    let stopped = container.wait_for(WaitCondition::NotRunning).await?;
    assert_eq!(container.stop(StopOptions::default()).await?, Outcome::Done);
    assert_eq!(stopped.await?.status.code(), 1);
    let count = container.inspect().await?.restart_count;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let info = container.inspect().await?;
    assert_eq!((info.state, info.restart_count), (ContainerState::Exited, count));
    container.remove(FORCE).await?;
    assert!(
        attached.output.next().await.is_none(),
        "streams end with their container"
    );
    let removed = waiting().await?;
    let gone = removed.wait_for(WaitCondition::Removed).await?;
    removed.remove(FORCE).await?;
    assert_eq!(gone.await?.status.code(), 1);
    let killed = waiting().await?;
    killed.kill(Signal::KILL).await?;
    assert_eq!(killed.inspect().await?.state, ContainerState::Exited);
    killed.remove(RemoveOptions::default()).await?;
    Ok(())
}

async fn g10_a_policy_can_be_changed_and_can_never_go_with_removal() -> Check {
    let world = World::new().await?;
    let both = world.spec().restart(RestartPolicy::Always).auto_remove(true);
    let error = world.engine.create(both).await.expect_err("one of the two");
    assert_eq!(error.kind(), &ErrorKind::InvalidArgument, "{}", error.report());
    let container = world.started(world.script("read x; exit 1").open_stdin(true)).await?;
    container
        .set_restart(RestartPolicy::OnFailure { max_retries: Some(1) })
        .await?;
    drop(container.attach(AttachOptions::default()).await?.input);
    until("one restart, with a stdin of its own", async || {
        Ok(container.inspect().await?.restart_count == 1)
    })
    .await?;
    state_is(&container, ContainerState::Running).await?;
    container.remove(FORCE).await?;
    Ok(())
}

async fn g5_logs_go_on_over_restarts() -> Check {
    let world = World::new().await?;
    let script = "n=$(cat /n 2>/dev/null || echo 0); n=$((n + 1)); echo $n > /n; echo run $n; echo oops >&2; exit 1";
    for log in [LogConfig::driver("local"), LogConfig::driver("json-file")] {
        let policy = RestartPolicy::OnFailure { max_retries: Some(2) };
        let container = world.started(world.script(script).restart(policy).log(log)).await?;
        until("the last run", async || {
            let info = container.inspect().await?;
            Ok(info.state == ContainerState::Exited && info.restart_count == 2)
        })
        .await?;
        let lines = logged(&container).await?;
        let runs: Vec<&str> = lines.lines().filter(|line| line.starts_with("run")).collect();
        assert_eq!(runs, ["run 1", "run 2", "run 3"], "{lines}");
        assert_eq!(lines.matches("oops").count(), 3);
        container.remove(FORCE).await?;
    }
    Ok(())
}

fn often(check: HealthCheck) -> HealthCheck {
    check
        .interval(Duration::from_millis(50))
        .timeout(Duration::from_secs(10))
        .retries(2)
}

async fn health_is(container: &Container, status: HealthStatus) -> Check {
    until(status.as_str(), async || {
        Ok(container
            .inspect()
            .await?
            .health
            .is_some_and(|health| health.status == status))
    })
    .await
}

async fn g11_starting_healthy_unhealthy() -> Check {
    // Alone: what is replayed is the last of what happened in a root, and others are busy in a shared one.
    let world = World::alone().await?;
    let check = often(HealthCheck::shell("echo probing $((1 + 1)); test -e /ok")).retries(100);
    let container = world.started(world.script("sleep 1000").health(check)).await?;
    health_is(&container, HealthStatus::Starting).await?;
    until("a probe", async || {
        Ok(container
            .inspect()
            .await?
            .health
            .is_some_and(|health| !health.log.is_empty()))
    })
    .await?;
    let health = container.inspect().await?.health.expect("it has a check");
    assert_eq!(health.log[0].output, "probing 2\n");
    assert_eq!((health.log[0].exit_code, health.failing_streak > 0), (1, true));
    container.exec(ExecSpec::new(["touch", "/ok"])).output().await?;
    health_is(&container, HealthStatus::Healthy).await?;
    let healthy = async |word: &str| -> Result<bool, Stop> {
        let filter = Filter::new().with("health", word).with("id", container.id().as_str());
        let options = ListOptions { all: true, filter };
        Ok(!world.engine.list(options).await?.is_empty())
    };
    assert!(healthy("healthy").await? && !healthy("none").await? && !healthy("starting").await?);
    let line = world.engine.list(ListOptions::default()).await?;
    let line = line.iter().find(|line| line.id == *container.id()).expect("it runs");
    assert!(line.status.ends_with("(healthy)"), "{}", line.status);
    // A paused container is not probed; without a freezer nobody can pause one.
    match container.pause().await {
        Err(error) if error.is_unsupported() => {}
        paused => {
            paused?;
            not_probed(&container).await?;
            container.unpause().await?;
        }
    }
    container.remove(FORCE).await?;

    let sick = often(HealthCheck::command(["test", "-e", "/ok"]));
    let container = world
        .started(world.script("touch /ok; sleep 1000").health(sick))
        .await?;
    health_is(&container, HealthStatus::Healthy).await?;
    container.exec(ExecSpec::new(["rm", "/ok"])).output().await?;
    health_is(&container, HealthStatus::Unhealthy).await?;
    let told: Vec<String> = events(&world, &container)
        .await?
        .into_iter()
        .map(|event| event.action)
        .collect();
    let told: Vec<&String> = told
        .iter()
        .filter(|action| action.starts_with("health_status"))
        .collect();
    assert_eq!(told, ["health_status: healthy", "health_status: unhealthy"]);
    assert_eq!(
        container.inspect().await?.state,
        ContainerState::Running,
        "nothing else happens to it"
    );
    container.remove(FORCE).await?;
    // Without a check there is no health.
    let plain = world.started(world.script("sleep 1000")).await?;
    assert_eq!(plain.inspect().await?.health, None);
    plain.remove(FORCE).await?;
    Ok(())
}

/// At most the one probe that was under way ends.
async fn not_probed(container: &Container) -> Check {
    let probes = container.inspect().await?.health.expect("it has a check").log;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let later = container.inspect().await?.health.expect("it has a check").log;
    let new = later.iter().filter(|probe| !probes.contains(probe)).count();
    assert!(new <= 1, "{new} probes of a paused container");
    Ok(())
}

/// As a detached container's (`checks.rs`).
async fn g11_a_bound_container_s_probe_is_killed_with_what_has_left_it() -> Check {
    runtime::native_alone("an end of what has left a command's session")?;
    let world = World::new().await?;
    let leaver = of_ours(23);
    let script = format!("setsid sh -c 'setsid sleep {leaver} & exit 0'; sleep 1000");
    let check = often(HealthCheck::shell(script)).timeout(Duration::from_millis(300));
    let spec = world
        .script(&format!("setsid sleep {leaver}0 & sleep 1000"))
        .health(check);
    let container = world.started(spec).await?;
    until("four probes", async || {
        let health = container.inspect().await?.health;
        Ok(health.is_some_and(|health| health.log.len() >= 4))
    })
    .await?;
    // The next begins when nothing is left of the one before; the container's own stays.
    let left = sleepers(&leaver);
    assert!(left <= 1, "of what probes had started {left} are there");
    assert_eq!(sleepers(&format!("{leaver}0")), 1);
    container.remove(FORCE).await?;
    Ok(())
}

async fn g11_a_probe_that_takes_too_long_is_killed() -> Check {
    let world = World::new().await?;
    let check = often(HealthCheck::shell("sleep 777; true")).timeout(Duration::from_millis(150));
    let container = world.started(world.script("sleep 1000").health(check)).await?;
    health_is(&container, HealthStatus::Unhealthy).await?;
    let health = container.inspect().await?.health.expect("it has a check");
    let last = health.log.back().expect("it was probed");
    assert_eq!(last.exit_code, -1);
    assert!(last.output.contains("exceeded timeout (150ms)"), "{}", last.output);
    // What is left of probes: at most the one that runs.
    container
        .stop(StopOptions {
            timeout: Some(Duration::ZERO),
            ..Default::default()
        })
        .await?;
    let ended = container.inspect().await?.health.expect("it has a check");
    assert_eq!(ended.status, HealthStatus::Unhealthy);
    container.start().await?;
    until("several probes", async || {
        Ok(container
            .inspect()
            .await?
            .health
            .is_some_and(|health| health.log.len() >= 4))
    })
    .await?;
    let processes = container.top(&[]).await?.processes;
    let probes = processes
        .iter()
        .filter(|row| row.join(" ").contains("sleep 777"))
        .count();
    assert!(probes <= 2, "a shell and its child at most: {processes:?}");
    container.remove(FORCE).await?;
    // A command that is not there has a shell's code.
    let missing = often(HealthCheck::command(["/no/such/thing"]));
    let container = world.started(world.script("sleep 1000").health(missing)).await?;
    health_is(&container, HealthStatus::Unhealthy).await?;
    assert_eq!(
        container.inspect().await?.health.expect("it has a check").log[0].exit_code,
        127
    );
    container.remove(FORCE).await?;
    Ok(())
}

async fn g11_the_start_period_and_the_image_s_check() -> Check {
    let world = World::new().await?;
    let check = often(HealthCheck::shell("test -e /ok"))
        .start_period(Duration::from_secs(600))
        .start_interval(Duration::from_millis(50));
    let container = world.started(world.script("sleep 1000").health(check)).await?;
    until("probes that fail", async || {
        Ok(container
            .inspect()
            .await?
            .health
            .is_some_and(|health| health.log.len() >= 4))
    })
    .await?;
    let health = container.inspect().await?.health.expect("it has a check");
    assert_eq!((health.status, health.failing_streak), (HealthStatus::Starting, 0));
    container.remove(FORCE).await?;
    // What the image says, and what takes it away.
    let mut options = longshore::CommitOptions::new().change("HEALTHCHECK --interval=50ms --retries=1 CMD false");
    options.name = Some("probed:latest".parse()?);
    let base = world.engine.create(world.script("sleep 1000")).await?;
    let image = base.commit(options).await?;
    base.remove(FORCE).await?;
    let spec = || ContainerSpec::image(image.id().to_string()).command(["sleep", "1000"]);
    let container = world.started(spec()).await?;
    health_is(&container, HealthStatus::Unhealthy).await?;
    let shown = container.inspect().await?.health_check;
    assert_eq!((shown.probe, shown.retries), (Probe::Shell("false".into()), Some(1)));
    container.remove(FORCE).await?;
    let without = world.started(spec().health(HealthCheck::disabled())).await?;
    assert_eq!(without.inspect().await?.health, None);
    without.remove(FORCE).await?;
    image.remove(Default::default()).await?;
    Ok(())
}

async fn p47_an_unhealthy_container_is_restarted_once() -> Check {
    // Alone: what is replayed is the last of what happened in a root, and others are busy in a shared one.
    let world = World::alone().await?;
    // The check waits until the run says which one it is, in memory that is a run's own, however long that takes.
    let script = "trap 'exit 0' TERM; echo run >> /runs; wc -l < /runs > /dev/shm/new; mv /dev/shm/new /dev/shm/run; \
                  while true; do sleep 0.05; done";
    let check = "until test -e /dev/shm/run; do sleep 0.05; done; test $(cat /dev/shm/run) = 2";
    let spec = world.script(script).health(often(HealthCheck::shell(check)));
    let container = world.started(spec.on_unhealthy(OnUnhealthy::Restart)).await?;
    health_is(&container, HealthStatus::Healthy).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let events = events(&world, &container).await?;
    let counts = [
        "restart",
        "start",
        "die",
        "health_status: unhealthy",
        "health_status: healthy",
    ];
    assert_eq!(counts.map(|action| count(&events, action)), [1, 2, 1, 1, 1]);
    container.remove(FORCE).await?;
    // The other two actions.
    for (action, code) in [(OnUnhealthy::Stop, 0), (OnUnhealthy::Kill, 137)] {
        // It fails from when the signal is waited for.
        let script = "trap 'exit 0' TERM; touch /ready; while true; do sleep 0.05; done";
        let spec = world
            .script(script)
            .health(often(HealthCheck::shell("test ! -e /ready")));
        let container = world.started(spec.on_unhealthy(action)).await?;
        state_is(&container, ContainerState::Exited).await?;
        let exit = container.inspect().await?.exit.expect("it has ended");
        assert_eq!(exit.status.code(), code, "{action:?}");
        container.remove(FORCE).await?;
    }
    // A kill is an end like others for the policy.
    let spec = world.script("sleep 1000").restart(RestartPolicy::Always);
    let spec = spec
        .health(often(HealthCheck::command(["false"])))
        .on_unhealthy(OnUnhealthy::Kill);
    let container = world.started(spec).await?;
    until("a restart", async || Ok(container.inspect().await?.restart_count >= 1)).await?;
    container.remove(FORCE).await?;
    Ok(())
}

/// Many at once, each from its beginning to its end.
async fn g12_events_have_no_gap_under_load() -> Check {
    let world = World::new().await?;
    let begun = longshore::events::now_ns();
    let runs = (0..8).map(async |lane| {
        for round in 0..6 {
            let spec = world.spec().name(format!("load-{lane}-{round}")).command(["true"]);
            world.output(spec).await?;
        }
        Ok::<(), Stop>(())
    });
    futures_util::future::try_join_all(runs).await?;
    let mut query = EventQuery::default();
    query.filter = Filter::new().with("type", "container");
    query.since_ns = Some(begun);
    query.until_ns = Some(longshore::events::now_ns());
    let mut stories: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut events = world.engine.events(query).await?;
    while let Some(item) = events.next().await {
        let EventItem::Event(event) = item? else {
            return fail("the ring was too short for this");
        };
        let name = event.attributes.get("name").cloned().unwrap_or_default();
        if name.starts_with("load-") {
            stories.entry(name).or_default().push(event.action);
        }
    }
    assert_eq!(stories.len(), 48);
    for (name, story) in stories {
        assert_eq!(story, ["create", "attach", "start", "die", "destroy"], "{name}");
    }
    Ok(())
}

/// Removed by itself at its end, and attached before its start: nothing is lost, and the stream ends.
async fn p31_what_is_gone_at_once_was_heard() -> Check {
    let world = World::new().await?;
    for round in 0..150 {
        let spec = world.spec().command(["echo", "hi"]).auto_remove(true);
        let container = world.engine.create(spec).await?;
        let mut attached = container.attach(AttachOptions::default()).await?;
        let gone = container.wait_for(WaitCondition::Removed).await?;
        container.start().await?;
        let mut heard = Vec::new();
        while let Some(item) = attached.output.next().await {
            if let longshore::logs::TeeItem::Chunk(chunk) = item {
                heard.extend_from_slice(&chunk.bytes);
            }
        }
        assert_eq!(text(&heard), "hi", "round {round}");
        assert_eq!(gone.await?.status.code(), 0);
    }
    Ok(())
}

async fn h3_a_terminal_has_its_size_and_is_told_of_another() -> Check {
    let world = World::new().await?;
    let script = "trap 'busybox stty size; exit 0' WINCH; busybox stty size; while true; do sleep 0.05; done";
    let mut spec = world.script(script).tty(true).open_stdin(true);
    spec.tty_size = Some((33, 111));
    let container = world.engine.create(spec).await?;
    let mut attached = container.attach(AttachOptions::default()).await?;
    container.start().await?;
    let mut seen = String::new();
    let mut resized = false;
    while let Some(item) = attached.output.next().await {
        if let longshore::logs::TeeItem::Chunk(chunk) = item {
            seen.push_str(&String::from_utf8_lossy(&chunk.bytes));
        }
        if !resized && seen.contains("33 111") {
            container.resize(44, 222).await?;
            resized = true;
        }
    }
    assert!(seen.contains("44 222"), "{seen:?}");
    assert_eq!(container.wait().await?.status.code(), 0);
    container.remove(FORCE).await?;
    Ok(())
}

async fn g13_checkpoints_say_what_is_missing() -> Check {
    let world = World::new().await?;
    let container = world.started(world.script("sleep 1000")).await?;
    let error = container
        .checkpoint("one", CheckpointOptions::default())
        .await
        .expect_err("not there");
    let ErrorKind::Unsupported { needs } = error.kind() else {
        return fail(error.report());
    };
    let what = match runtime::chosen() {
        None => "criu",
        Some("chroot") => "network of its own",
        Some(_) => "the native runtime",
    };
    assert!(needs.contains(what), "{needs}");
    assert_eq!(container.inspect().await?.state, ContainerState::Running);
    container.remove(FORCE).await?;
    Ok(())
}

async fn g14_two_containers_share_the_namespaces_of_a_third() -> Check {
    let world = World::new().await?;
    let holder = world
        .script("sleep 1111")
        .init(true)
        .hostname("pod")
        .ipc_mode(NamespaceMode::Shareable);
    let holder = world.started(holder).await?;
    let of = || NamespaceMode::Container(holder.id().to_string());
    let member = |script: &str| {
        let spec = world.script(script).pid_mode(of()).ipc_mode(of());
        spec.network(NetworkMode::Container(holder.id().to_string()))
    };
    let server = "echo from the first > /dev/shm/note; while true; do echo served | busybox nc -l -p 7777; done";
    let first = world.started(member(server)).await?;
    let script = "for n in 1 2 3 4 5 6 7 8 9 10; do cat /dev/shm/note 2>/dev/null && break; sleep 0.2; done; \
                  for n in 1 2 3 4 5 6 7 8 9 10; do busybox nc 127.0.0.1 7777 </dev/null && break; sleep 0.2; done; \
                  busybox ps | busybox grep -c '[s]leep 1111'; busybox hostname";
    let seen = world.says(member(script)).await?;
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines.len(), 4, "{seen}");
    // Its memory, its port, the processes of the third (init and its child), and its name.
    assert_eq!(
        (lines[0], lines[1], lines[3]),
        ("from the first", "served", "pod"),
        "{seen}"
    );
    assert!(lines[2].parse::<u32>().is_ok_and(|count| count >= 1), "{seen}");
    first.remove(FORCE).await?;
    holder.remove(FORCE).await?;
    Ok(())
}

async fn g15_prune_takes_what_has_ended_and_is_old_enough() -> Check {
    let world = World::new().await?;
    let label = "prune-me";
    let spec = || world.script("true").label(label, "1");
    let old = world.started(spec()).await?;
    old.wait().await?;
    let between = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let young = world.started(spec()).await?;
    young.wait().await?;
    let running = world.started(world.script("sleep 1000").label(label, "1")).await?;
    let between = format!("{}.{:09}", between.as_secs(), between.subsec_nanos());
    let filter = Filter::new().with("label", label).with("until", between);
    let pruned = world.engine.containers().prune(filter).await?;
    assert_eq!(pruned.removed, [old.id().to_string()]);
    let rest = world
        .engine
        .containers()
        .prune(Filter::new().with("label", label))
        .await?;
    assert_eq!(rest.removed, [young.id().to_string()]);
    assert_eq!(running.inspect().await?.state, ContainerState::Running);
    running.remove(FORCE).await?;
    Ok(())
}

async fn h19_json_file_is_docker_s_and_rotates() -> Check {
    let world = World::new().await?;
    let log = LogConfig::driver("json-file");
    let container = world
        .started(world.script("echo hello; echo '<&>' >&2; printf end").log(log.clone()))
        .await?;
    container.wait().await?;
    let path = container.inspect().await?.log_path.expect("json-file has a file");
    assert!(
        path.ends_with(format!("{}-json.log", container.id())),
        "{}",
        path.display()
    );
    let mut lines = Vec::new();
    for line in fs::read_to_string(&path)?.lines() {
        let value: serde_json::Value = serde_json::from_str(line)?;
        let keys = value.as_object().map(|object| object.len());
        assert_eq!(keys, Some(3), "{line}");
        lines.push((value["stream"].clone(), value["log"].clone()));
    }
    lines.sort_by_key(|line| line.0.to_string());
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!((&lines[0].0, &lines[0].1), (&"stderr".into(), &"<&>\n".into()));
    assert!(fs::read_to_string(&path)?.contains(r"\u003c\u0026\u003e\n"));
    container.remove(FORCE).await?;

    // With a small file and packed old ones: what is kept is the end, and without a gap.
    let log = log
        .option("max-size", "20k")
        .option("max-file", "3")
        .option("compress", "true");
    let script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i + 1)); done";
    let container = world.started(world.script(script).log(log)).await?;
    container.wait().await?;
    let kept = logged(&container).await?;
    let numbers: Vec<u32> = kept
        .lines()
        .filter_map(|line| line.strip_prefix("line ")?.parse().ok())
        .collect();
    assert_eq!(numbers.last(), Some(&1999));
    assert!(
        numbers.len() > 200 && numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{}",
        numbers.len()
    );
    let dir = container.inspect().await?.log_path.expect("a file");
    let dir = dir.parent().expect("a directory").to_owned();
    let count = |packed: bool| -> Result<usize, Stop> {
        let names = fs::read_dir(&dir)?.flatten().map(|entry| entry.file_name());
        let names = names.filter_map(|name| name.into_string().ok());
        let old = names.filter(|name| name.starts_with("json."));
        Ok(old.filter(|name| name.ends_with(".gz") == packed).count())
    };
    // Packing goes on beside the container, and may end after it.
    until("the old files are packed", async || {
        Ok((count(true)?, count(false)?) == (2, 1))
    })
    .await?;
    let tail = LogQuery {
        tail: Some(3),
        ..LogQuery::default()
    };
    let tail: Vec<_> = container.logs(tail).await?.collect().await;
    assert_eq!(tail.len(), 3);
    container.remove(FORCE).await?;
    Ok(())
}

async fn h19_the_default_keeps_three_files() -> Check {
    let world = World::alone().await?;
    for driver in [None, Some("json-file")] {
        let mut spec = world.script("yes 0123456789012345678901234567890123456789 | head -c 57400000; echo the end");
        spec.log.driver = driver.map(str::to_owned);
        let container = world.started(spec).await?;
        container.wait().await?;
        let dir = world.root.path().join("containers").join(container.id().as_str());
        let (mut bytes, mut files) = (0, 0);
        for entry in fs::read_dir(dir)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("log.") || name.starts_with("json.") {
                bytes += entry.metadata()?.len();
                files += 1;
            }
        }
        assert!(
            files == 3 && bytes <= 3 * (10 << 20) + 64,
            "{driver:?}: {bytes} bytes in {files} files"
        );
        let kept = logged(&container).await?;
        assert!(
            kept.ends_with("9\nthe end\n") && kept.len() > 10 << 20,
            "{} bytes",
            kept.len()
        );
        assert!(kept.lines().rev().skip(1).all(|line| line.len() == 40), "a gap");
        container.remove(FORCE).await?;
    }
    Ok(())
}

async fn h19_none_and_what_there_is_not() -> Check {
    let world = World::new().await?;
    let container = world
        .started(world.script("echo hello").log(LogConfig::driver("none")))
        .await?;
    container.wait().await?;
    let error = container
        .logs(LogQuery::default())
        .await
        .err()
        .expect("nothing was kept");
    assert!(error.is_unsupported(), "{}", error.report());
    container.remove(FORCE).await?;
    // Who is attached sees it all the same.
    let out = world
        .output(world.script("echo hello").log(LogConfig::driver("none")))
        .await?;
    assert_eq!(text(&out.stdout), "hello");
    for log in [
        LogConfig::driver("no-such-driver"),
        LogConfig::driver("none").option("max-size", "1m"),
        LogConfig::driver("local").option("max-size", "0"),
        LogConfig::driver("json-file").option("colour", "red"),
        LogConfig::default().option("mode", "maybe"),
        LogConfig::default().option("max-buffer-size", "1m"),
    ] {
        let error = world
            .engine
            .create(world.spec().log(log))
            .await
            .expect_err("can never work");
        assert_eq!(error.kind(), &ErrorKind::InvalidArgument, "{}", error.report());
    }
    Ok(())
}

/// Keeps entries in memory; takes none while it is shut.
#[derive(Debug, Default)]
struct Door {
    shut: Mutex<bool>,
    opened: Condvar,
    entries: Mutex<Vec<LogEntry>>,
}

#[derive(Debug, Clone, Default)]
struct Mine(Arc<Door>);

impl LogDriver for Mine {
    fn name(&self) -> &str {
        "mine"
    }

    fn check(&self, options: &BTreeMap<String, String>) -> longshore::Result<()> {
        match options.keys().find(|key| *key != "tag") {
            Some(key) => Err(longshore::Error::invalid(format!("no option {key}"))),
            None => Ok(()),
        }
    }

    fn open(&self, target: &LogTarget) -> longshore::Result<Arc<dyn LogSink>> {
        assert_eq!(target.options.get("tag").map(String::as_str), Some("web"));
        assert!(!target.options.contains_key("mode"), "that is the engine's");
        Ok(Arc::new(self.clone()))
    }
}

impl LogSink for Mine {
    fn write(&self, entries: &[LogEntry]) -> longshore::Result<()> {
        let shut = self.0.shut.lock().expect("no panic");
        drop(self.0.opened.wait_while(shut, |shut| *shut).expect("no panic"));
        self.0.entries.lock().expect("no panic").extend_from_slice(entries);
        Ok(())
    }

    fn close(&self) -> longshore::Result<()> {
        Ok(())
    }
}

async fn h20_a_sink_of_one_s_own_that_blocks_does_not_block_the_container() -> Check {
    let root = TempRoot::new();
    let mine = Mine::default();
    let engine = Engine::builder(root.path())
        .with_log_driver(Arc::new(mine.clone()))
        .open()
        .await?;
    let image = engine.pull(source(image::shared()?)).await?.id().to_string();
    let log = LogConfig::driver("mine").option("tag", "web");
    let spec = |script: &str| ContainerSpec::image(&image).command(["sh", "-c", script]);
    let out = engine
        .run(spec("echo out; echo err >&2").log(log.clone()))
        .output()
        .await?;
    assert_eq!(text(&out.stdout), "out");
    let taken: Vec<String> = mine
        .0
        .entries
        .lock()
        .expect("no panic")
        .iter()
        .map(|entry| text(&entry.bytes))
        .collect();
    assert!(
        taken.contains(&"out".into()) && taken.contains(&"err".into()),
        "{taken:?}"
    );
    // Far more than fits into the pipe and the buffer, and the container gets to its last line nevertheless.
    let marks = scratch::fresh("marks");
    fs::set_permissions(marks.path(), fs::Permissions::from_mode(0o777))?;
    *mine.0.shut.lock().expect("no panic") = true;
    let flood = spec("yes | head -c 8000000; touch /marks/done; read x")
        .bind(marks.path(), "/marks")
        .open_stdin(true);
    let container = engine.run(flood.log(log.option("mode", "non-blocking"))).await?;
    until("the container's last line", async || {
        Ok(marks.path().join("done").exists())
    })
    .await?;
    *mine.0.shut.lock().expect("no panic") = false;
    mine.0.opened.notify_all();
    drop(container.attach(AttachOptions::default()).await?.input);
    container.wait().await?;
    let error = container.inspect().await?.error.unwrap_or_default();
    assert!(error.contains("entries of its log were lost"), "{error}");
    container.remove(FORCE).await?;
    // Another default than ours, with options of its own.
    let small = JsonFileDriver::new(longshore::logs::LocalOptions::parse([("max-size", "1k")])?);
    drop(engine);
    let engine = Engine::builder(root.path()).logs(Arc::new(small)).open().await?;
    let container = engine.run(spec("seq 1 1000")).await?;
    container.wait().await?;
    let kept = logged(&container).await?;
    assert!(kept.ends_with("999\n1000\n") && kept.len() < 1000, "{kept}");
    container.remove(FORCE).await?;
    Ok(())
}
