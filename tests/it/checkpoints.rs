//! Checkpoints with CRIU, where it works: `ci/vm` has such a kernel.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use futures_util::StreamExt as _;
use longshore::api::Server;
use longshore::logs::LogQuery;
use longshore::{
    CheckpointOptions, Container, ContainerState, Engine, ErrorKind, ExecSpec, MountSpec, NetworkMode, Outcome, Signal,
    StopOptions,
};

use crate::frame::{Check, Stop, fail, skip};
use crate::longshored::Daemon;
use crate::platforms;
use crate::support::patience::{PATIENCE, until};
use crate::support::world::{FORCE, World, text};
use crate::support::{is_root, scratch};
use crate::tests;

tests! { "checkpoints":
    kernel_async [
        g13_a_counter_goes_on_where_it_was,
        g13_it_is_a_container_as_any_other_then,
        g13_it_may_run_on_and_be_written_down_elsewhere,
        g13_damaged_images_change_nothing,
        g13_what_cannot_be_written_down_goes_on,
        g13_nothing_of_it_outlives_its_engine,
        g13_over_the_api,
        g13_on_a_network,
        g13_dropped_calls_leave_nothing_half_made,
    ]
    kernel [
        g13_the_client_says_what_is_missing,
    ]
}
const COUNT: &str = "i=0; while :; do i=$((i + 1)); echo $i; sleep 0.1; done";
const RUN_ON: CheckpointOptions = CheckpointOptions {
    directory: None,
    leave_running: true,
};

/// Whether there is a CRIU that works here, by its own word.
pub fn must_work() -> Check {
    if !is_root() {
        return skip("criu needs root");
    }
    let Ok(checked) = Command::new("criu").arg("check").output() else {
        return skip("there is no criu");
    };
    if checked.status.success() {
        return Ok(());
    }
    let said = text(&checked.stderr);
    skip(format!(
        "criu does not work on this kernel: {}",
        said.lines().next().unwrap_or("")
    ))
}

async fn logged(container: &Container) -> Result<Vec<String>, Stop> {
    let entries: Vec<_> = container.logs(LogQuery::default()).await?.collect().await;
    let mut all = Vec::new();
    for entry in entries {
        all.extend_from_slice(&entry?.bytes);
    }
    Ok(String::from_utf8_lossy(&all).lines().map(str::to_owned).collect())
}

async fn counts_on(container: &Container, from: usize) -> Check {
    until("it counts", async || Ok(logged(container).await?.len() > from)).await
}

async fn g13_a_counter_goes_on_where_it_was() -> Check {
    must_work()?;
    let world = World::new().await?;
    let container = world.started(world.script(COUNT)).await?;
    counts_on(&container, 5).await?;
    container.checkpoint("one", CheckpointOptions::default()).await?;
    let info = container.inspect().await?;
    assert_eq!(info.state, ContainerState::Exited);
    assert_eq!(container.wait().await?.status.code(), 137);
    assert_eq!(container.checkpoints(None).await?, ["one"]);
    let before = logged(&container).await?.len();
    for _ in 0..2 {
        assert_eq!(container.restore("one", None).await?, Outcome::Done);
        assert_eq!(container.restore("one", None).await?, Outcome::Already);
        let begun = logged(&container).await?.len();
        counts_on(&container, begun + 5).await?;
        container.kill(Signal::KILL).await?;
        assert_eq!(container.wait().await?.status.code(), 137);
    }
    let lines = logged(&container).await?;
    let numbers: Vec<usize> = lines.iter().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(numbers.len(), lines.len(), "{lines:?}");
    // It counts from where it was, each time.
    assert_eq!(numbers[before], numbers[before - 1] + 1, "{numbers:?}");
    let again = numbers
        .iter()
        .skip(before + 1)
        .position(|number| *number == numbers[before]);
    assert!(again.is_some(), "{numbers:?}");
    assert_eq!(numbers.iter().filter(|number| **number == 1).count(), 1, "{numbers:?}");
    container.remove_checkpoint("one", None).await?;
    assert!(container.restore("one", None).await.expect_err("gone").is_not_found());
    container.remove(FORCE).await?;
    Ok(())
}

async fn g13_it_is_a_container_as_any_other_then() -> Check {
    must_work()?;
    let world = World::new().await?;
    let shared = scratch::fresh("checkpoint");
    let script = "trap 'echo told; exit 7' TERM; echo note > /dev/shm/note; echo $$ > /data/pid; cat & sleep 1000 & wait; while :; do sleep 0.1; done";
    let mut spec = world.script(script).hostname("kept").open_stdin(true);
    spec.mounts.push(MountSpec::bind(shared.path(), "/data"));
    let container = world.started(spec).await?;
    until("it is ready", async || Ok(shared.path().join("pid").exists())).await?;
    let seen = "cat /dev/shm/note; hostname; cat /proc/self/status | grep -E 'Cap|Seccomp:'; cut -d' ' -f5,6 /proc/self/mountinfo";
    let looked = |container: Container| async move { container.exec(ExecSpec::new(["sh", "-c", seen])).output().await };
    let before = looked(container.clone()).await?;
    container.checkpoint("one", CheckpointOptions::default()).await?;
    assert_eq!(container.restore("one", None).await?, Outcome::Done);
    let after = looked(container.clone()).await?;
    let sorted = |bytes: &[u8]| {
        let mut lines: Vec<String> = text(bytes).lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines.dedup();
        lines
    };
    assert_eq!(sorted(&before.stdout), sorted(&after.stdout), "{}", text(&after.stderr));
    let info = container.inspect().await?;
    assert_eq!(info.state, ContainerState::Running);
    assert!(info.pid.is_some());
    container.pause().await?;
    container.unpause().await?;
    assert!(container.top(&[]).await?.processes.len() >= 2);
    // From outside, by way of the same bind.
    fs::write(shared.path().join("hello"), "there\n")?;
    let read = container.exec(ExecSpec::new(["cat", "/data/hello"])).output().await?;
    assert_eq!(read.stdout, b"there\n");
    let options = StopOptions {
        timeout: Some(PATIENCE),
        ..StopOptions::default()
    };
    container.stop(options).await?;
    assert_eq!(container.wait().await?.status.code(), 7);
    assert!(logged(&container).await?.contains(&"told".to_owned()));
    // And from its beginning, as before.
    container.start().await?;
    container.remove(FORCE).await?;
    Ok(())
}

async fn g13_it_may_run_on_and_be_written_down_elsewhere() -> Check {
    must_work()?;
    let world = World::new().await?;
    let container = world.started(world.script(COUNT)).await?;
    let place = scratch::fresh("checkpoints");
    let elsewhere = || Some(place.path().to_owned());
    container.checkpoint("here", RUN_ON).await?;
    assert_eq!(container.inspect().await?.state, ContainerState::Running);
    let options = CheckpointOptions {
        directory: elsewhere(),
        leave_running: false,
    };
    let taken = container.checkpoint("here", RUN_ON).await.expect_err("taken");
    assert!(taken.is_conflict(), "{}", taken.report());
    container.checkpoint("there", options).await?;
    assert_eq!(container.checkpoints(None).await?, ["here"]);
    assert_eq!(container.checkpoints(elsewhere()).await?, ["there"]);
    // Memory of processes is for nobody else to read.
    let mode = fs::metadata(place.path().join("there"))?.permissions().mode();
    assert_eq!(mode & 0o77, 0, "{mode:o}");
    let begun = logged(&container).await?.len();
    container.restore("there", elsewhere()).await?;
    counts_on(&container, begun + 3).await?;
    container.remove(FORCE).await?;
    assert!(place.path().join("there").is_dir());
    Ok(())
}

async fn g13_damaged_images_change_nothing() -> Check {
    must_work()?;
    let world = World::new().await?;
    let place = scratch::fresh("checkpoints");
    let container = world.started(world.script(COUNT)).await?;
    let options = CheckpointOptions {
        directory: Some(place.path().to_owned()),
        leave_running: false,
    };
    container.checkpoint("one", options).await?;
    let elsewhere = || Some(place.path().to_owned());
    let whole = place.path().join("one");
    for file in [
        "longshore.json",
        "pstree.img",
        "core-1.img",
        "inventory.img",
        "mm-1.img",
    ] {
        let kept = fs::read(whole.join(file))?;
        for bytes in [&kept[..kept.len() / 2], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff", b""] {
            fs::write(whole.join(file), bytes)?;
            let Err(error) = container.restore("one", elsewhere()).await else {
                return fail(format!("{file} of {} bytes was taken", bytes.len()));
            };
            let known = matches!(error.kind(), ErrorKind::InvalidState | ErrorKind::Corrupt);
            assert!(known, "{file}: {}", error.report());
            let info = container.inspect().await?;
            assert_eq!(info.state, ContainerState::Exited);
            assert_eq!(info.exit.map(|exit| exit.status.code()), Some(137), "{file}");
        }
        fs::write(whole.join(file), kept)?;
    }
    // As good as before.
    let begun = logged(&container).await?.len();
    container.restore("one", elsewhere()).await?;
    counts_on(&container, begun + 2).await?;
    container.remove(FORCE).await?;
    Ok(())
}

async fn g13_what_cannot_be_written_down_goes_on() -> Check {
    must_work()?;
    let world = World::new().await?;
    // A connection, of which the other end is here too, but not by CRIU's default.
    let script = "sleep 1000 | busybox nc -l -p 7777 & sleep 1; sleep 1000 | busybox nc 127.0.0.1 7777";
    let container = world.started(world.script(script)).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let refused = container
        .checkpoint("one", CheckpointOptions::default())
        .await
        .expect_err("connected");
    assert_eq!(refused.kind(), &ErrorKind::InvalidState, "{}", refused.report());
    assert!(refused.report().contains("TCP"), "{}", refused.report());
    assert_eq!(container.inspect().await?.state, ContainerState::Running);
    assert!(container.checkpoints(None).await?.is_empty());
    container.remove(FORCE).await?;
    let counter = world.started(world.script(COUNT)).await?;
    let sleeper = counter.exec(ExecSpec::new(["sleep", "1000"])).await?;
    let refused = counter.checkpoint("one", RUN_ON).await.expect_err("a command");
    assert_eq!(refused.kind(), &ErrorKind::InvalidState, "{}", refused.report());
    drop(sleeper);
    counter.pause().await?;
    let refused = counter.checkpoint("one", RUN_ON).await.expect_err("paused");
    assert_eq!(refused.kind(), &ErrorKind::InvalidState, "{}", refused.report());
    counter.remove(FORCE).await?;
    for spec in [world.script(COUNT).tty(true), world.script(COUNT).init(true)] {
        let container = world.started(spec).await?;
        let refused = container.checkpoint("one", RUN_ON).await.expect_err("not this one");
        assert!(refused.is_unsupported(), "{}", refused.report());
        container.remove(FORCE).await?;
    }
    Ok(())
}

async fn g13_nothing_of_it_outlives_its_engine() -> Check {
    must_work()?;
    let world = World::alone().await?;
    let container = world.started(world.script(COUNT)).await?;
    container.checkpoint("one", CheckpointOptions::default()).await?;
    container.restore("one", None).await?;
    let Some(pid) = container.inspect().await?.pid else {
        return fail("it has no process");
    };
    let group = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    drop(container);
    let World { engine, root, .. } = world;
    engine.close().await;
    until("its process is gone", async || Ok(!fs::exists(format!("/proc/{pid}"))?)).await?;
    let group = group.trim().rsplit(':').next().unwrap_or("").to_owned();
    until("its cgroup is gone", async || {
        Ok(!fs::exists(format!("/sys/fs/cgroup{group}"))?)
    })
    .await?;
    drop(root);
    Ok(())
}

async fn g13_over_the_api() -> Check {
    must_work()?;
    let world = World::new().await?;
    let socket = world.root.path().join("c.sock");
    let server = Server::new(world.engine.clone())
        .unix(&socket, longshore::api::Mode(0o600))
        .bind()
        .await?;
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve_until(async {
        let _ = ended.await;
    }));
    let container = world.started(world.script(COUNT)).await?;
    counts_on(&container, 3).await?;
    let far = Engine::connect(format!("unix://{}", socket.display())).await?;
    let there = far.container(container.id().as_str()).await?;
    there.checkpoint("one", CheckpointOptions::default()).await?;
    assert_eq!(there.checkpoints(None).await?, ["one"]);
    let taken = there
        .checkpoint("one", CheckpointOptions::default())
        .await
        .expect_err("it does not run");
    assert_eq!(taken.kind(), &ErrorKind::InvalidState, "{}", taken.report());
    let missing = there.restore("two", None).await.expect_err("no such checkpoint");
    assert!(missing.is_not_found(), "{}", missing.report());
    let before = logged(&container).await?.len();
    assert_eq!(there.restore("one", None).await?, Outcome::Done);
    counts_on(&container, before + 3).await?;
    let lines = logged(&container).await?;
    assert_eq!(lines.iter().filter(|line| *line == "1").count(), 1, "{lines:?}");
    there.remove_checkpoint("one", None).await?;
    assert!(there.checkpoints(None).await?.is_empty());
    there.remove(FORCE).await?;
    drop(end);
    let _ = serving.await;
    Ok(())
}

async fn g13_on_a_network() -> Check {
    must_work()?;
    let world = World::new().await?;
    let script = "trap 'exit 3' TERM; while :; do echo served | busybox nc -l -p 7777; done";
    let spec = world.script(script).network(NetworkMode::Named("bridge".to_owned()));
    let container = match world.started(spec).await {
        Err(Stop::Fail(why)) => return skip(format!("no bridge here: {why}")),
        started => started?,
    };
    let ask = ["sh", "-c", "busybox nc 127.0.0.1 7777 </dev/null"];
    let served = async || {
        let said = container.exec(ExecSpec::new(ask)).output().await?;
        Ok(said.stdout == b"served\n")
    };
    until("it serves", served).await?;
    container.checkpoint("one", CheckpointOptions::default()).await?;
    container.restore("one", None).await?;
    until("it serves again", served).await?;
    let addresses = container
        .exec(ExecSpec::new(["ip", "-o", "-4", "addr"]))
        .output()
        .await?;
    assert!(text(&addresses.stdout).contains("eth0"), "{}", text(&addresses.stdout));
    container.remove(FORCE).await?;
    Ok(())
}

async fn g13_dropped_calls_leave_nothing_half_made() -> Check {
    must_work()?;
    let world = World::new().await?;
    let container = world.started(world.script(COUNT)).await?;
    for delay in [0, 1, 10, 50, 100, 200, 400, 800] {
        let delay = Duration::from_millis(delay);
        let name = format!("at{}", delay.as_millis());
        let _ = tokio::time::timeout(delay, container.checkpoint(&name, CheckpointOptions::default())).await;
        // It is done to its end, or was never begun: its turn ends with it.
        container.rename(&format!("renamed-{name}")).await?;
        let made = container.checkpoints(None).await?.contains(&name);
        if !made {
            assert_eq!(container.inspect().await?.state, ContainerState::Running, "{delay:?}");
            container.checkpoint(&name, CheckpointOptions::default()).await?;
        }
        assert_eq!(container.wait().await?.status.code(), 137);
        let _ = tokio::time::timeout(delay, container.restore(&name, None)).await;
        // What nobody took is killed.
        until("it is started, or it is not", async || {
            let settled = container.restore(&name, None).await;
            Ok(settled.is_ok() && container.inspect().await?.state == ContainerState::Running)
        })
        .await?;
        let begun = logged(&container).await?.len();
        counts_on(&container, begun + 1).await?;
    }
    container.remove(FORCE).await?;
    Ok(())
}

/// Of the engine's own containers: whatever this host has, the client hears what the engine says.
fn g13_the_client_says_what_is_missing() -> Check {
    let daemon = Daemon::start(&[])?;
    let host = format!("unix://{}", daemon.socket.display());
    let client = |words: &[&str]| -> Result<(bool, String, String), Stop> {
        let output = Command::new(platforms::client()?)
            .args(["--host", &host])
            .args(words)
            .output()?;
        Ok((output.status.success(), text(&output.stdout), text(&output.stderr)))
    };
    let (made, id, said) = client(&["run", "-d", "--name", "kept", "busybox", "sleep", "1000"])?;
    assert!(made, "{said}");
    let (listed, names, said) = client(&["checkpoint", "ls", "kept"])?;
    assert!(listed && names == "CHECKPOINT NAME", "{names} {said}");
    let (removed, _, said) = client(&["checkpoint", "rm", "kept", "none"])?;
    assert!(!removed && said.contains("none"), "{said}");
    let (made, name, said) = client(&["checkpoint", "create", "kept", "one"])?;
    match must_work() {
        Ok(()) => {
            assert!(made && name == "one", "{said}");
            let (started, name, said) = client(&["start", "--checkpoint", "one", "kept"])?;
            assert!(started && name == "kept", "{said}");
        }
        Err(_) => {
            assert!(!made && said.contains("criu"), "{said}");
            let (stopped, _, said) = client(&["kill", "kept"])?;
            assert!(stopped, "{said}");
            let (_, code, _) = client(&["wait", "kept"])?;
            assert_eq!(code, "137");
            let (started, _, said) = client(&["start", "--checkpoint", "one", "kept"])?;
            assert!(!started && said.contains("one"), "{said}");
            let (started, name, said) = client(&["start", "kept"])?;
            assert!(started && name == "kept", "{said}");
        }
    }
    let (removed, _, said) = client(&["rm", "-f", &id])?;
    assert!(removed, "{said}");
    Ok(())
}
