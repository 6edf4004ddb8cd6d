//! Verbs on containers that run: pause, update, top, stats, restart, rename.

use std::fs;
use std::time::Duration;

use futures_util::StreamExt as _;
use longshore::containers::StatsOptions;
use longshore::types::Signal;
use longshore::{Bytes, Container, ContainerState, Engine, ErrorKind, ExecSpec, Limits, StopOptions, WaitCondition};

use crate::frame::{Check, Stop, fail, skip};
use crate::support::world::{FORCE, World, text};
use crate::tests;

tests! { "verbs":
    kernel_async [
        g1_a_restart_runs_it_again,
        g7_top_shows_the_containers_processes,
        g7_stats_count_what_it_uses,
        g9_a_paused_container_makes_no_progress,
        g9_a_paused_container_can_be_stopped_killed_and_removed,
        g9_updated_limits_reach_the_cgroup,
        g9_a_new_name_leaves_the_host_name,
        what_another_process_may_do,
    ]
}

/// A container that counts in a file, in memory: a disk that others sync would hold it up for seconds.
async fn counter(world: &World) -> Result<Container, Stop> {
    let script = "i=0; while true; do i=$((i+1)); echo $i > /dev/shm/count; done";
    world.started(world.script(script).stop_signal(Signal::KILL)).await
}

async fn count(container: &Container, pid: u32) -> Result<u64, Stop> {
    let _ = container;
    let text = fs::read_to_string(format!("/proc/{pid}/root/dev/shm/count"))?;
    Ok(text.trim().parse().unwrap_or(0))
}

/// The container's first process; skips where nothing can be paused.
async fn paused(world: &World) -> Result<(Container, u32), Stop> {
    let container = counter(world).await?;
    let pid = container.inspect().await?.pid.unwrap_or(0);
    while !matches!(count(&container, pid).await, Ok(1..)) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    match container.pause().await {
        Err(error) if error.is_unsupported() => {
            let reason = error.report();
            container.remove(FORCE).await?;
            skip(reason)
        }
        other => {
            other?;
            Ok((container, pid))
        }
    }
}

async fn state(container: &Container) -> Result<ContainerState, Stop> {
    Ok(container.inspect().await?.state)
}

async fn g9_a_paused_container_makes_no_progress() -> Check {
    let world = World::new().await?;
    let (container, pid) = paused(&world).await?;
    assert_eq!(state(&container).await?, ContainerState::Paused);
    let before = count(&container, pid).await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(count(&container, pid).await?, before, "it went on");
    let refused = container
        .exec(ExecSpec::new(["true"]))
        .output()
        .await
        .expect_err("it is paused");
    assert_eq!(refused.kind(), &ErrorKind::InvalidState);
    container.unpause().await?;
    assert_eq!(state(&container).await?, ContainerState::Running);
    for _ in 0..250 {
        if count(&container, pid).await? != before {
            container.remove(FORCE).await?;
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fail("it does not go on")
}

async fn g9_a_paused_container_can_be_stopped_killed_and_removed() -> Check {
    let world = World::new().await?;
    let (stopped, _) = paused(&world).await?;
    stopped.stop(StopOptions::default()).await?;
    assert_eq!(state(&stopped).await?, ContainerState::Exited);
    stopped.remove(FORCE).await?;
    let (killed, _) = paused(&world).await?;
    let exit = killed.wait_for(WaitCondition::NextExit).await?;
    killed.kill(Signal::KILL).await?;
    assert_eq!(exit.await?.status.signal(), Some(9));
    killed.remove(FORCE).await?;
    let (restarted, _) = paused(&world).await?;
    restarted.restart(StopOptions::default()).await?;
    assert_eq!(state(&restarted).await?, ContainerState::Running);
    restarted.remove(FORCE).await?;
    let (removed, _) = paused(&world).await?;
    let refused = removed
        .remove(longshore::RemoveOptions::default())
        .await
        .expect_err("it is paused");
    assert_eq!(refused.kind(), &ErrorKind::Conflict);
    removed.remove(FORCE).await?;
    // The engine goes with a paused container in it: the test's leak check sees what stays.
    let (_left, _) = paused(&world).await?;
    Ok(())
}

async fn g1_a_restart_runs_it_again() -> Check {
    let world = World::new().await?;
    let spec = world.script("echo up >> /starts; trap 'exit 0' TERM; while true; do sleep 0.05; done");
    let container = world.started(spec).await?;
    let started = container.inspect().await?.started;
    for round in 2..5 {
        container.restart(StopOptions::default()).await?;
        let info = container.inspect().await?;
        assert_eq!(info.state, ContainerState::Running);
        assert!(info.started > started);
        let mut starts = 0;
        while starts < round {
            let lines = container.exec(ExecSpec::new(["cat", "/starts"])).output().await?;
            let now = text(&lines.stdout).lines().count();
            assert!(
                (round - 1..=round).contains(&now),
                "its files stay: {now} starts in round {round}"
            );
            starts = now;
        }
    }
    container.remove(FORCE).await?;
    Ok(())
}

async fn g9_a_new_name_leaves_the_host_name() -> Check {
    let world = World::new().await?;
    let container = world
        .started(
            world
                .spec()
                .command(["sleep", "100"])
                .name("before")
                .stop_signal(Signal::KILL),
        )
        .await?;
    let hostname = async || {
        let output = container.exec(ExecSpec::new(["hostname"])).output().await?;
        Ok::<_, Stop>(text(&output.stdout))
    };
    let first = hostname().await?;
    container.rename("after").await?;
    assert_eq!(hostname().await?, first);
    assert_eq!(world.engine.containers().inspect("after").await?.id, *container.id());
    assert!(
        world
            .engine
            .containers()
            .inspect("before")
            .await
            .expect_err("renamed")
            .is_not_found()
    );
    container.remove(FORCE).await?;
    Ok(())
}

async fn g9_updated_limits_reach_the_cgroup() -> Check {
    let world = World::new().await?;
    let spec = world
        .spec()
        .command(["sleep", "100"])
        .memory(Bytes::mib(64))
        .pids_limit(50);
    let container = match world.engine.run(spec.stop_signal(Signal::KILL)).await {
        Err(error) if error.is_unsupported() => return skip(error.report()),
        other => other?,
    };
    let one_shot = StatsOptions {
        stream: false,
        one_shot: true,
    };
    let limits = async || {
        let mut readings = container.stats(one_shot).await?;
        let Some(stats) = readings.next().await else {
            return fail("no reading");
        };
        let stats = stats?;
        Ok::<_, Stop>((stats.memory.limit_bytes, stats.pids.limit))
    };
    assert_eq!(limits().await?, (Some(64 << 20), Some(50)));
    let mut changed = Limits::default();
    changed.memory = Some(Bytes::mib(96));
    container.update(changed).await?;
    assert_eq!(limits().await?, (Some(96 << 20), Some(50)), "what was not given stays");
    let mut changed = Limits::default();
    changed.pids = Some(20);
    container.update(changed).await?;
    assert_eq!(limits().await?, (Some(96 << 20), Some(20)));
    assert_eq!(container.inspect().await?.spec.limits.memory, Some(Bytes::mib(96)));
    let mut bad = Limits::default();
    bad.memory = Some(Bytes::kib(1));
    assert_eq!(
        container.update(bad).await.expect_err("too little").kind(),
        &ErrorKind::InvalidArgument
    );
    // And the next start has them.
    container.restart(StopOptions::default()).await?;
    assert_eq!(limits().await?, (Some(96 << 20), Some(20)));
    container.remove(FORCE).await?;
    Ok(())
}

async fn g7_top_shows_the_containers_processes() -> Check {
    let world = World::new().await?;
    let spec = world.script("sleep 1001 & sleep 1002 & wait").stop_signal(Signal::KILL);
    let container = world.started(spec).await?;
    let running = container.exec(ExecSpec::new(["sleep", "1003"])).await?;
    let mut top = container.top(&[]).await?;
    let asleep = |row: &Vec<String>| row.last().is_some_and(|command| command.starts_with("sleep 100"));
    while top.processes.iter().filter(|row| asleep(row)).count() < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        top = container.top(&[]).await?;
    }
    assert_eq!(top.titles, ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
    let commands: Vec<&str> = top
        .processes
        .iter()
        .filter_map(|row| row.last())
        .map(String::as_str)
        .collect();
    assert_eq!(commands.len(), 4, "{commands:?}");
    for command in ["sleep 1001", "sleep 1002", "sleep 1003"] {
        assert!(commands.contains(&command), "{commands:?}");
    }
    let first = container.inspect().await?.pid.unwrap_or(0).to_string();
    let pids = container.top(&["-eo".to_owned(), "pid,comm".to_owned()]).await?;
    assert!(pids.processes.iter().any(|row| row[0] == first), "pids are the host's");
    let refused = container.top(&["-Z".to_owned()]).await.expect_err("unknown");
    assert_eq!(refused.kind(), &ErrorKind::InvalidArgument);
    container.kill(Signal::KILL).await?;
    container.wait().await?;
    running.wait().await?;
    assert_eq!(
        container.top(&[]).await.expect_err("ended").kind(),
        &ErrorKind::InvalidState
    );
    container.remove(FORCE).await?;
    Ok(())
}

async fn g7_stats_count_what_it_uses() -> Check {
    let world = World::new().await?;
    let container = counter(&world).await?;
    let stream = StatsOptions {
        stream: true,
        one_shot: false,
    };
    let mut readings = container.stats(stream).await?;
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(
            readings
                .next()
                .await
                .ok_or_else(|| Stop::Fail("the stream ended".into()))??,
        );
    }
    assert!(seen[1].previous.is_some() && seen[1].cpu.online_cpus > Some(0));
    if seen[0].cpu.total_ns.is_none() {
        container.remove(FORCE).await?;
        return skip("no cgroup counts CPU time here");
    }
    assert!(seen[2].cpu.total_ns > seen[0].cpu.total_ns, "a busy loop uses no time");
    assert!(seen[2].cpu.host_ns > seen[0].cpu.host_ns);
    assert!(seen[0].pids.current >= Some(1));
    container.remove(FORCE).await?;
    while let Some(reading) = readings.next().await {
        reading?;
    }
    let gone = container.stats(stream).await.err();
    assert!(gone.is_some_and(|error| error.is_not_found()));
    Ok(())
}

/// Two engines on one root are two owners, as two processes are.
async fn what_another_process_may_do() -> Check {
    let world = World::new().await?;
    let other = Engine::open(world.root.path()).await?;
    let container = counter(&world).await?;
    let (theirs, id) = (other.containers(), container.id().as_str());
    assert_eq!(theirs.inspect(id).await?.state, ContainerState::Running);
    assert_eq!(theirs.top(id, &[]).await?.processes.len(), 1);
    let one_shot = StatsOptions {
        stream: false,
        one_shot: true,
    };
    assert!(
        theirs
            .stats(id, one_shot)
            .await?
            .next()
            .await
            .is_some_and(|stats| stats.is_ok())
    );
    // What more there is, its owner does: `askers`. Networks are in the owner's hands alone.
    theirs.rename(id, "theirs").await?;
    assert_eq!(container.inspect().await?.name.as_str(), "theirs");
    let busy = theirs.remove(id, Default::default()).await.expect_err("it runs");
    assert_eq!(busy.kind(), &ErrorKind::Conflict);
    let asked = [
        theirs.connect(id, "some", Default::default()).await,
        theirs.disconnect(id, "some").await.map(|_| ()),
    ];
    for answer in asked {
        let error = answer.expect_err("only its own process can");
        assert_eq!(error.kind(), &ErrorKind::Conflict);
        assert!(error.to_string().contains("another live process"), "{error}");
    }
    let waits = [
        theirs.wait(id, WaitCondition::Exited).await?,
        theirs.wait(id, WaitCondition::NotRunning).await?,
        theirs.wait(id, WaitCondition::NextExit).await?,
    ];
    let removed = theirs.wait(id, WaitCondition::Removed).await?;
    theirs.kill(id, Signal::KILL).await?;
    for wait in waits {
        assert_eq!(wait.await?.status.signal(), Some(9));
    }
    container.remove(FORCE).await?;
    assert_eq!(removed.await?.status.code(), 137);
    Ok(())
}
