//! The states of a container and the verbs in each; waiting, logs, names, limits.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use longshore::logs::{LogQuery, LogStream};
use longshore::types::{Filter, Outcome, Signal};
use longshore::{
    Bytes, Container, ContainerSpec, ContainerState, ErrorKind, ListOptions, ObjectKind, RemoveOptions, StopOptions,
};
use serde_json::json;

use crate::frame::{Check, Stop, skip};
use crate::support::image::{self, busybox_files};
use crate::support::world::{FORCE, World, source, text};
use crate::support::{runtime, scratch};
use crate::tests;

tests! { "life":
    kernel_async [
        a7_errors_name_kind_and_object,
        a10_stop_keeps_its_deadline,
        a10_a_deadline_ends_a_run,
        g1_every_verb_in_every_state,
        g2_a_waiter_misses_nothing,
        g2_a_kill_for_memory_is_told_with_its_signal,
        g5_followed_logs_are_what_was_written,
        g5_a_reader_goes_on_with_another_engine,
        g5_logs_by_stream_tail_and_time,
        h4_stop_sends_the_containers_signal,
        h4_stop_sends_the_images_signal_and_kills_after_the_timeout,
        h5_two_creates_of_one_name,
        h5_names_and_labels_find_containers,
        h5_annotations_are_kept,
        h15_cpu_limits_reach_the_cgroup,
        h15_quotas_periods_and_sets_reach_the_cgroup,
        h16_memory_kills_and_says_so,
        h16_only_who_takes_too_much_is_killed,
        h16_the_other_limits_of_memory_reach_the_cgroup,
        h16_a_pids_limit_stops_a_fork_bomb,
        k5_limits_that_cannot_be_set,
        fifty_at_once,
    ]
}

async fn a7_errors_name_kind_and_object() -> Check {
    let world = World::new().await?;
    let missing = world
        .engine
        .containers()
        .start("nobody")
        .await
        .expect_err("no such container");
    assert_eq!(missing.kind(), &ErrorKind::NotFound);
    let object = missing.object().map(|object| (object.0, object.1.to_owned()));
    assert_eq!(object, Some((ObjectKind::Container, "nobody".to_owned())));
    let image = world
        .engine
        .create(runtime::with_a_network(ContainerSpec::image("no-such-image")))
        .await
        .expect_err("no such image");
    assert_eq!(image.kind(), &ErrorKind::NotFound);
    for spec in [
        world.spec().name("a b"),
        world.spec().env("A=B", "c"),
        world.spec().memory(Bytes::kib(1)),
    ] {
        let error = world.engine.create(spec).await.expect_err("can never work");
        assert_eq!(error.kind(), &ErrorKind::InvalidArgument, "{}", error.report());
    }
    assert!(world.containers().await?.is_empty(), "something half-made");
    Ok(())
}

async fn a10_stop_keeps_its_deadline() -> Check {
    let world = World::new().await?;
    let container = world
        .started(world.script("trap '' TERM; while true; do sleep 0.1; done"))
        .await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let start = Instant::now();
    container
        .stop(StopOptions {
            timeout: Some(Duration::from_secs(1)),
            ..StopOptions::default()
        })
        .await?;
    // Its own is ten seconds.
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    let info = container.inspect().await?;
    assert_eq!(
        (info.state, info.exit.map(|exit| exit.status.code())),
        (ContainerState::Exited, Some(137))
    );
    container.remove(FORCE).await?;
    Ok(())
}

async fn a10_a_deadline_ends_a_run() -> Check {
    let world = World::new().await?;
    let start = Instant::now();
    let run = world
        .engine
        .run(world.spec().command(["sleep", "60"]))
        .deadline(Duration::from_millis(500))
        .output();
    let error = run.await.expect_err("too slow");
    assert_eq!(error.kind(), &ErrorKind::Timeout, "{}", error.report());
    assert!(start.elapsed() < Duration::from_secs(30));
    nothing_left(&world).await
}

/// Waits until no container is left, as abandoned work is undone in the background.
async fn nothing_left(world: &World) -> Check {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        if world.containers().await?.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    crate::frame::fail(format!("left: {:?}", world.containers().await?))
}

async fn g1_every_verb_in_every_state() -> Check {
    let world = World::new().await?;
    let container = world.engine.create(world.spec().command(["sleep", "60"])).await?;
    assert_eq!(state(&container).await?, ContainerState::Created);
    assert_eq!(kind(container.kill(Signal::TERM).await), Some(ErrorKind::InvalidState));
    assert_eq!(container.stop(StopOptions::default()).await?, Outcome::Already);

    assert_eq!(container.start().await?, Outcome::Done);
    assert_eq!(state(&container).await?, ContainerState::Running);
    assert_eq!(container.start().await?, Outcome::Already);
    assert_eq!(
        kind(container.remove(RemoveOptions::default()).await),
        Some(ErrorKind::Conflict)
    );

    container.kill(Signal::KILL).await?;
    container.wait().await?;
    assert_eq!(state(&container).await?, ContainerState::Exited);
    assert_eq!(container.stop(StopOptions::default()).await?, Outcome::Already);
    assert_eq!(kind(container.kill(Signal::TERM).await), Some(ErrorKind::InvalidState));
    assert_eq!(container.start().await?, Outcome::Done, "it starts again");
    assert_eq!(container.remove(FORCE).await?, Outcome::Done);

    assert_eq!(kind(container.start().await), Some(ErrorKind::NotFound));
    assert_eq!(kind(container.inspect().await), Some(ErrorKind::NotFound));
    assert_eq!(kind(container.kill(Signal::TERM).await), Some(ErrorKind::NotFound));
    Ok(())
}

async fn state(container: &Container) -> Result<ContainerState, Stop> {
    Ok(container.inspect().await?.state)
}

fn kind<T>(result: longshore::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind().clone())
}

async fn g2_a_waiter_misses_nothing() -> Check {
    let world = World::new().await?;
    for _ in 0..20 {
        let container = world.engine.create(world.script("exit 9")).await?;
        let (early, started) = tokio::join!(container.wait(), container.start());
        started?;
        assert_eq!(early?.status.code(), 9);
        assert_eq!(container.wait().await?.status.code(), 9, "asked again afterwards");
        container.remove(FORCE).await?;
    }
    Ok(())
}

async fn g2_a_kill_for_memory_is_told_with_its_signal() -> Check {
    let world = World::new().await?;
    // The shell gives way to the program, so that the first process is the one that is killed.
    let spec = world.script("exec tail -c 90000000 /dev/zero").memory(Bytes::mib(16));
    let container = limited(&world, spec).await?;
    let exit = container.wait().await?;
    assert_eq!(
        (exit.oom_killed, exit.status.signal(), exit.status.code()),
        (Some(true), Some(9), 137)
    );
    let told = container.inspect().await?.exit.and_then(|exit| exit.oom_killed);
    assert_eq!(told, Some(true), "inspect says it too");
    container.remove(FORCE).await?;
    Ok(())
}

async fn g5_followed_logs_are_what_was_written() -> Check {
    let world = World::new().await?;
    let script = "i=0; while test $i -lt 2000; do echo line $i; i=$((i+1)); done; printf end";
    let container = world.started(world.script(script)).await?;
    let query = LogQuery {
        follow: true,
        ..LogQuery::default()
    };
    let followed = read_logs(&container, query).await?;
    let expected: String = (0..2000).map(|i| format!("line {i}\n")).collect::<String>() + "end";
    assert_eq!(String::from_utf8_lossy(&followed), expected);
    container.wait().await?;
    assert_eq!(read_logs(&container, LogQuery::default()).await?, expected.as_bytes());
    container.remove(FORCE).await?;
    Ok(())
}

async fn read_logs(container: &Container, query: LogQuery) -> Result<Vec<u8>, Stop> {
    let mut entries = container.logs(query).await?;
    let mut bytes = Vec::new();
    while let Some(entry) = entries.next().await {
        bytes.extend_from_slice(&entry?.bytes);
    }
    Ok(bytes)
}

/// So many lines that the log is rotated while it is read.
async fn g5_a_reader_goes_on_with_another_engine() -> Check {
    const LINES: usize = 1_500_000;
    let world = World::new().await?;
    let container = world
        .started(world.script(&format!("seq {LINES}; echo end >&2")))
        .await?;
    let id = container.id().to_string();
    let mut query = LogQuery {
        follow: true,
        ..LogQuery::default()
    };
    let (mut read, mut ended, mut readers) = (Vec::new(), false, 0);
    while !ended {
        let reader = longshore::Engine::open(world.root.path()).await?;
        let mut entries = reader.container(&id).await?.logs(query.clone()).await?;
        readers += 1;
        // Each has a part, the last one whatever there is.
        let share = if readers < 5 { LINES / 5 } else { usize::MAX };
        for _ in 0..share {
            let Some(entry) = entries.next().await else {
                ended = true;
                break;
            };
            let entry = entry?;
            assert!(query.since_ns.is_none_or(|since| entry.time_ns >= since));
            query.since_ns = Some(entry.time_ns + 1);
            if entry.stream == LogStream::Stdout {
                read.extend_from_slice(&entry.bytes);
            }
        }
    }
    assert_eq!(readers, 5);
    let expected = (1..=LINES).map(|line| format!("{line}\n")).collect::<String>();
    assert!(
        read == expected.as_bytes(),
        "{} bytes of {}",
        read.len(),
        expected.len()
    );
    container.remove(FORCE).await?;
    Ok(())
}

async fn g5_logs_by_stream_tail_and_time() -> Check {
    let world = World::new().await?;
    let container = world
        .started(world.script("echo a; echo b >&2; echo c; sleep 0.3; echo d"))
        .await?;
    container.wait().await?;
    let out = LogQuery {
        stderr: false,
        ..LogQuery::default()
    };
    assert_eq!(text(&read_logs(&container, out).await?), "a\nc\nd");
    let errors = LogQuery {
        stdout: false,
        ..LogQuery::default()
    };
    assert_eq!(text(&read_logs(&container, errors).await?), "b");
    let tail = LogQuery {
        tail: Some(2),
        stderr: false,
        ..LogQuery::default()
    };
    assert_eq!(text(&read_logs(&container, tail).await?), "c\nd");
    let mut entries = container.logs(LogQuery::default()).await?;
    let first = entries.next().await.expect("an entry")?;
    assert!(matches!(first.stream, LogStream::Stdout | LogStream::Stderr));
    let since = LogQuery {
        since_ns: Some(first.time_ns + 150_000_000),
        ..LogQuery::default()
    };
    assert_eq!(text(&read_logs(&container, since).await?), "d");
    drop(entries);
    container.remove(FORCE).await?;
    Ok(())
}

async fn h4_stop_sends_the_containers_signal() -> Check {
    let world = World::new().await?;
    let script = "trap 'echo usr1; exit 5' USR1; echo ready; while true; do sleep 0.05; done";
    let spec = world.script(script).stop_signal("USR1".parse::<Signal>()?);
    let container = world.started(spec).await?;
    wait_for_log(&container, "ready").await?;
    assert_eq!(container.stop(StopOptions::default()).await?, Outcome::Done);
    assert_eq!(container.wait().await?.status.code(), 5);
    assert!(text(&read_logs(&container, LogQuery::default()).await?).ends_with("usr1"));
    container.remove(FORCE).await?;
    Ok(())
}

async fn h4_stop_sends_the_images_signal_and_kills_after_the_timeout() -> Check {
    let world = World::new().await?;
    let dir = scratch::fresh("layout");
    let config = json!({ "Cmd": ["sh"], "Env": ["PATH=/bin"], "StopSignal": "SIGUSR2" });
    let layout = image::write_layout(dir.path(), &[busybox_files()?], &config)?;
    let image = world.engine.pull(source(&layout)).await?.id().to_string();
    let script = "trap 'echo asked' USR2; echo ready; while true; do sleep 0.05; done";
    let spec = runtime::with_a_network(ContainerSpec::image(image)).command(["sh", "-c", script]);
    let container = world.started(spec.stop_timeout(Duration::from_secs(1))).await?;
    wait_for_log(&container, "ready").await?;
    assert_eq!(container.stop(StopOptions::default()).await?, Outcome::Done);
    let exit = container.wait().await?;
    assert_eq!((exit.status.signal(), exit.status.code()), (Some(9), 137));
    assert_eq!(
        text(&read_logs(&container, LogQuery::default()).await?),
        "ready\nasked",
        "the image's signal came first"
    );
    container.remove(FORCE).await?;
    Ok(())
}

async fn wait_for_log(container: &Container, what: &str) -> Check {
    let mut entries = container
        .logs(LogQuery {
            follow: true,
            ..LogQuery::default()
        })
        .await?;
    while let Some(entry) = entries.next().await {
        if text(&entry?.bytes).contains(what) {
            return Ok(());
        }
    }
    crate::frame::fail(format!("the log ended without {what:?}"))
}

async fn h5_two_creates_of_one_name() -> Check {
    let world = World::new().await?;
    for round in 0..10 {
        let name = format!("twin-{round}");
        let (first, second) = tokio::join!(
            world.engine.create(world.spec().name(&name)),
            world.engine.create(world.spec().name(&name))
        );
        let (won, lost) = if first.is_ok() {
            (first, second)
        } else {
            (second, first)
        };
        let lost = lost.expect_err("one must lose");
        assert_eq!(lost.kind(), &ErrorKind::Conflict, "{}", lost.report());
        won?.remove(FORCE).await?;
    }
    nothing_left(&world).await
}

async fn h5_names_and_labels_find_containers() -> Check {
    let world = World::new().await?;
    let named = world
        .engine
        .create(world.spec().name("anchor").label("tide", "high"))
        .await?;
    let other = world.engine.create(world.spec().label("tide", "low")).await?;
    assert_eq!(world.engine.container("anchor").await?.id(), named.id());
    assert_eq!(
        world.engine.container(&named.id().as_str()[..12]).await?.id(),
        named.id()
    );
    let filter = Filter::new().with("label", "tide=high");
    let found = world.engine.list(ListOptions { all: true, filter }).await?;
    assert_eq!(found.iter().map(|found| &found.id).collect::<Vec<_>>(), [named.id()]);
    assert_eq!(found[0].name, "anchor");
    assert!(!other.inspect().await?.name.is_empty(), "a name is made up");
    let unknown = ListOptions {
        all: true,
        filter: Filter::new().with("colour", "blue"),
    };
    assert_eq!(kind(world.engine.list(unknown).await), Some(ErrorKind::InvalidArgument));
    named.remove(FORCE).await?;
    other.remove(FORCE).await?;
    Ok(())
}

async fn h5_annotations_are_kept() -> Check {
    let world = World::new().await?;
    let spec = world.spec().annotation("org.example.tide", "high").label("tide", "low");
    let container = world.engine.create(spec).await?;
    let info = container.inspect().await?;
    assert_eq!(info.spec.annotations["org.example.tide"], "high");
    assert!(!info.labels.contains_key("org.example.tide"), "they are no labels");
    container.remove(FORCE).await?;
    let nameless = world.engine.create(world.spec().annotation("", "x")).await;
    assert_eq!(kind(nameless), Some(ErrorKind::InvalidArgument));
    Ok(())
}

/// A file of a running container's cgroup: the first of `files` that exists in any hierarchy.
pub async fn cgroup_value(container: &Container, files: &[&str]) -> Result<String, Stop> {
    let pid = container.inspect().await?.pid.expect("it runs");
    let membership = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let tops = if controllers.is_empty() {
            vec!["", "unified"]
        } else {
            controllers.split(',').collect()
        };
        for (top, file) in tops.iter().flat_map(|top| files.iter().map(move |file| (top, file))) {
            if let Ok(value) = std::fs::read_to_string(format!("/sys/fs/cgroup/{top}{path}/{file}")) {
                return Ok(value.trim().to_owned());
            }
        }
    }
    crate::frame::fail(format!("none of {files:?} in {membership}"))
}

/// A container with limits, or a skip where the host cannot set any.
pub async fn limited(world: &World, spec: longshore::ContainerSpec) -> Result<Container, Stop> {
    match world.engine.run(spec).await {
        Err(error) if matches!(error.kind(), ErrorKind::Unsupported { .. }) => skip(error.report()),
        other => Ok(other?),
    }
}

async fn h15_cpu_limits_reach_the_cgroup() -> Check {
    let world = World::new().await?;
    let mut spec = world.spec().command(["sleep", "60"]).cpus(0.5);
    spec.limits.cpu_shares = Some(512);
    let container = limited(&world, spec).await?;
    let quota = cgroup_value(&container, &["cpu.max", "cpu.cfs_quota_us"]).await?;
    assert!(["50000 100000", "50000"].contains(&quota.as_str()), "{quota}");
    let weight = cgroup_value(&container, &["cpu.weight", "cpu.shares"]).await?;
    assert!(
        weight == "512" || weight.parse::<u32>().is_ok_and(|weight| (10..100).contains(&weight)),
        "{weight}"
    );
    container.remove(FORCE).await?;
    Ok(())
}

async fn h15_quotas_periods_and_sets_reach_the_cgroup() -> Check {
    let world = World::new().await?;
    let mut spec = world.spec().command(["sleep", "60"]);
    spec.limits.cpu_quota_us = Some(30_000);
    spec.limits.cpu_period_us = Some(60_000);
    let container = limited(&world, spec).await?;
    let quota = cgroup_value(&container, &["cpu.max", "cpu.cfs_quota_us"]).await?;
    match quota.as_str() {
        "30000" => assert_eq!(cgroup_value(&container, &["cpu.cfs_period_us"]).await?, "60000"),
        other => assert_eq!(other, "30000 60000"),
    }
    container.remove(FORCE).await?;
    let mut spec = world.spec().command(["sleep", "60"]);
    spec.limits.cpuset_cpus = Some("0".to_owned());
    spec.limits.cpuset_mems = Some("0".to_owned());
    let container = limited(&world, spec).await?;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        assert_eq!(cgroup_value(&container, &[file]).await?, "0", "{file}");
    }
    container.remove(FORCE).await?;
    let mut both = world.spec().cpus(1.0);
    both.limits.cpu_quota_us = Some(50_000);
    assert_eq!(kind(world.engine.create(both).await), Some(ErrorKind::InvalidArgument));
    Ok(())
}

async fn h16_memory_kills_and_says_so() -> Check {
    let world = World::new().await?;
    let hungry = world
        .script("cat /dev/zero | head -c 100000000 | tail -c 90000000 > /dev/null")
        .memory(Bytes::mib(16));
    let container = limited(&world, hungry).await?;
    let exit = container.wait().await?;
    assert_eq!(exit.oom_killed, Some(true), "{exit:?}");
    container.remove(FORCE).await?;
    let modest = limited(&world, world.script("sleep 0.2").memory(Bytes::mib(64))).await?;
    let value = cgroup_value(&modest, &["memory.max", "memory.limit_in_bytes"]).await?;
    assert_eq!(value, "67108864");
    let exit = modest.wait().await?;
    assert_eq!((exit.oom_killed, exit.status.code()), (Some(false), 0));
    modest.remove(FORCE).await?;
    Ok(())
}

async fn h16_only_who_takes_too_much_is_killed() -> Check {
    let world = World::new().await?;
    let script = "tail -c 90000000 /dev/zero; echo ended $?; echo alive";
    let container = limited(&world, world.script(script).memory(Bytes::mib(16))).await?;
    let exit = container.wait().await?;
    assert_eq!(exit.status.code(), 0, "the shell lived on: {exit:?}");
    // The shell's word for it comes on stderr, in no particular order.
    let out = LogQuery {
        stderr: false,
        ..LogQuery::default()
    };
    let log = text(&read_logs(&container, out).await?);
    assert!(log.ends_with("ended 137\nalive"), "{log}");
    container.remove(FORCE).await?;
    Ok(())
}

async fn h16_the_other_limits_of_memory_reach_the_cgroup() -> Check {
    let world = World::new().await?;
    let mut spec = world.spec().command(["sleep", "60"]).memory(Bytes::mib(64));
    spec.limits.memory_reservation = Some(Bytes::mib(32));
    spec.limits.memory_swap = Some(96 << 20);
    spec.limits.memory_swappiness = Some(10);
    spec.limits.oom_kill_disable = Some(true);
    spec.oom_score_adj = Some(500);
    let container = limited(&world, spec).await?;
    let low = cgroup_value(&container, &["memory.low", "memory.soft_limit_in_bytes"]).await?;
    assert_eq!(low, (32 << 20).to_string());
    // A kernel without accounting of swap has neither file, and the limit is left out.
    if let Ok(swap) = cgroup_value(&container, &["memory.swap.max", "memory.memsw.limit_in_bytes"]).await {
        // Swap alone in version 2, both together in version 1.
        assert!(
            [32 << 20, 96 << 20].map(|bytes| bytes.to_string()).contains(&swap),
            "{swap}"
        );
    }
    // Version 1 alone has these.
    if let Ok(swappiness) = cgroup_value(&container, &["memory.swappiness"]).await {
        assert_eq!(swappiness, "10");
        let control = cgroup_value(&container, &["memory.oom_control"]).await?;
        assert!(control.contains("oom_kill_disable 1"), "{control}");
    }
    let pid = container.inspect().await?.pid.expect("it runs");
    assert_eq!(
        std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?.trim(),
        "500"
    );
    container.remove(FORCE).await?;
    Ok(())
}

async fn h16_a_pids_limit_stops_a_fork_bomb() -> Check {
    let world = World::new().await?;
    let bomb = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done; echo survived";
    let container = limited(&world, world.script(bomb).pids_limit(8)).await?;
    let exit = container.wait().await?;
    let log = text(&read_logs(&container, LogQuery::default()).await?);
    assert!(!log.contains("survived") && log.contains("fork"), "{exit:?} {log}");
    container.remove(FORCE).await?;
    Ok(())
}

async fn k5_limits_that_cannot_be_set() -> Check {
    let world = World::new().await?;
    let spec = || world.spec().command(["true"]).memory(Bytes::mib(64));
    let refused = match world.engine.run(spec()).output().await {
        Ok(_) => return skip("this host can set limits for this user"),
        Err(error) => error,
    };
    assert!(
        matches!(refused.kind(), ErrorKind::Unsupported { needs } if !needs.is_empty()),
        "{}",
        refused.report()
    );
    let container = world.started(spec().best_effort_limits(true)).await?;
    assert!(container.wait().await?.status.success());
    container.remove(FORCE).await?;
    Ok(())
}

async fn fifty_at_once() -> Check {
    let world = World::new().await?;
    let runs = (0..50).map(|number| world.engine.run(world.script(&format!("echo {number}"))).output());
    for (number, output) in futures_util::future::join_all(runs).await.into_iter().enumerate() {
        assert_eq!(text(&output?.stdout), number.to_string());
    }
    nothing_left(&world).await
}
