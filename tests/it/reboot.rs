//! Detached containers and a host that was restarted: everything is found, and nothing of the former boot is taken for
//! something of this one.
//!
//! The host that dies is played: all processes of the containers and their shims are killed at once, and what the engine wrote
//! down is rewritten as of another boot.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use longshore::{
    Container, ContainerSpec, ContainerState, Engine, ErrorKind, Lifetime, ListOptions, Outcome, RemoveOptions,
    RestartPolicy, Signal, StopOptions,
};
use nix::errno::Errno;
use nix::sys::signal::{Signal as Number, kill};
use nix::unistd::Pid;

use crate::detached::{events_of, shim_of};
use crate::frame::{Check, Stop};
use crate::outlive::runs;
use crate::support::patience::{until, until_now};
use crate::support::world::{FORCE, World, text};
use crate::tests;

tests! { "reboot":
    kernel_async [
        g16_everything_is_found_after_a_restart_of_the_host,
        g10_who_comes_back_after_a_restart_of_the_host,
        g16_a_process_of_the_former_boot_is_nothing_of_ours,
    ]
}

/// No boot has this id.
const FORMER: [u64; 2] = [0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321];
/// Bytes of a slot of the file in which a shim writes down where its container is.
const SLOT: usize = 256;

/// The checksum at the end of a slot (FNV-1a).
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

fn put(slot: &mut [u8], word: usize, value: u64) {
    slot[word * 8..word * 8 + 8].copy_from_slice(&value.to_le_bytes());
}

/// Rewrites what a container's shim has written as of another boot; perhaps with a process of this one in it.
fn state_of_former_boot(root: &Path, id: &str, process: Option<(u32, u64)>) -> Check {
    let path = root.join("containers").join(id).join("shim/state");
    let mut bytes = fs::read(&path)?;
    assert_eq!(bytes.len(), 2 * SLOT);
    for slot in bytes.chunks_exact_mut(SLOT) {
        if u64::from_le_bytes(slot[SLOT - 8..].try_into()?) != checksum(&slot[..SLOT - 8]) {
            continue;
        }
        put(slot, 2, FORMER[0]);
        put(slot, 3, FORMER[1]);
        if let Some((pid, ticks)) = process {
            let restarts = u64::from_le_bytes(slot[40..48].try_into()?) >> 32;
            put(slot, 5, u64::from(pid) | restarts << 32);
            put(slot, 6, ticks);
        }
        let sum = checksum(&slot[..SLOT - 8]);
        put(slot, SLOT / 8 - 1, sum);
    }
    fs::write(path, bytes)?;
    Ok(())
}

/// The same of a container's row.
fn row_of_former_boot(root: &Path, id: &str, process: Option<(u32, u64)>) -> Check {
    let store = rusqlite::Connection::open(root.join("store.db"))?;
    let boot = format!("[{},{}]", FORMER[0], FORMER[1]);
    let changed = store.execute(
        "UPDATE containers SET body = json_set(body, '$.process.boot', json(?2))
         WHERE id = ?1 AND json_extract(body, '$.process.boot') IS NOT NULL",
        [id, &boot],
    )?;
    assert_eq!(changed, 1, "a row says in which boot its process was");
    if let Some((pid, ticks)) = process {
        store.execute(
            "UPDATE containers SET body = json_set(body, '$.process.pid', ?2, '$.process.start_ticks', ?3) WHERE id = ?1",
            rusqlite::params![id, pid, i64::try_from(ticks)?],
        )?;
    }
    Ok(())
}

/// Ends what there is of a container without a word to anybody.
fn kill_at_once(root: &Path, id: &str, pid: Option<u32>) -> Check {
    for pid in shim_of(root, id).into_iter().chain(pid) {
        match kill(Pid::from_raw(i32::try_from(pid)?), Number::SIGKILL) {
            // One that ends all the time.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// The host dies, and another boot begins. No engine is open.
fn restart_the_host(root: &Path, containers: &[(String, Option<u32>)]) -> Check {
    for (id, pid) in containers {
        kill_at_once(root, id, *pid)?;
    }
    for (id, pid) in containers {
        let gone = || Ok(shim_of(root, id).is_none() && !pid.is_some_and(runs));
        until_now("nothing runs of it", gone)?;
    }
    for (id, _) in containers {
        state_of_former_boot(root, id, None)?;
        row_of_former_boot(root, id, None)?;
    }
    // The other database dies with its boot.
    fs::write(root.join("run.boot"), "12345678-9abc-def0-0fed-cba987654321")?;
    Ok(())
}

fn spec(world: &World, restart: RestartPolicy, script: &str) -> ContainerSpec {
    world.script(script).restart(restart).lifetime(Lifetime::Detached)
}

const TRAPPED: &str = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done";

/// What is to be known of a container when no handle of the former engine is left.
async fn remembered(container: &Container) -> Result<(String, Option<u32>), Stop> {
    Ok((container.id().to_string(), container.inspect().await?.pid))
}

async fn state_of(engine: &Engine, id: &str) -> Result<ContainerState, Stop> {
    Ok(engine.container(id).await?.inspect().await?.state)
}

async fn g16_everything_is_found_after_a_restart_of_the_host() -> Check {
    let world = World::alone().await?;
    let running = world
        .started(spec(&world, RestartPolicy::No, "echo up; sleep 600"))
        .await?;
    let ended = world.started(spec(&world, RestartPolicy::No, "exit 3")).await?;
    assert_eq!(ended.wait().await?.status.code(), 3);
    // In the pause before its next start.
    let pausing = world.started(spec(&world, RestartPolicy::Always, "exit 1")).await?;
    until("it waits for a restart", async || {
        let info = pausing.inspect().await?;
        Ok(info.restart_count >= 3 && info.state == ContainerState::Restarting)
    })
    .await?;
    let mut containers = Vec::new();
    for container in [&running, &ended, &pausing] {
        containers.push(remembered(container).await?);
    }
    let World { engine, image, root } = world;
    drop((running, ended, pausing, image));
    engine.close().await;
    restart_the_host(root.path(), &containers)?;
    // Nobody supervises: nothing is started.
    let engine = Engine::open(root.path()).await?;
    let all = ListOptions {
        all: true,
        ..ListOptions::default()
    };
    assert_eq!(engine.list(all).await?.len(), 3);
    let [running, ended, pausing] = [0, 1, 2].map(|at: usize| containers[at].0.clone());
    for id in [&running, &pausing] {
        let container = engine.container(id).await?;
        let info = container.inspect().await?;
        assert_eq!((info.state, info.pid), (ContainerState::Exited, None));
        assert!(info.exit.is_none(), "nobody saw it: {:?}", info.exit);
        assert!(info.error.is_some_and(|why| why.contains("the host was restarted")));
        let error = container.wait().await.expect_err("nobody saw its end");
        assert_eq!(error.kind(), &ErrorKind::Unavailable, "{error}");
        assert_eq!(container.stop(StopOptions::default()).await?, Outcome::Already);
    }
    let events = events_of(&engine, &running).await?;
    assert_eq!(events.iter().filter(|action| *action == "die").count(), 1, "{events:?}");
    // What was written down holds in any boot.
    let container = engine.container(&ended).await?;
    assert_eq!(container.wait().await?.status.code(), 3);
    // It can be started as ever, and has its log still.
    let container = engine.container(&running).await?;
    container.start().await?;
    until("both runs are in the log", async || {
        Ok(crate::detached::logged(&container).await? == "up\nup")
    })
    .await?;
    for (id, _) in &containers {
        engine.container(id).await?.remove(FORCE).await?;
    }
    let audit = engine.audit().await?;
    assert!(audit.findings.is_empty(), "{:?}", audit.findings);
    Ok(())
}

async fn g10_who_comes_back_after_a_restart_of_the_host() -> Check {
    let world = World::alone().await?;
    let running = [
        RestartPolicy::No,
        RestartPolicy::OnFailure { max_retries: None },
        RestartPolicy::UnlessStopped,
        RestartPolicy::Always,
    ];
    let mut containers = Vec::new();
    for policy in running {
        containers.push(remembered(&world.started(spec(&world, policy, TRAPPED)).await?).await?);
    }
    for policy in [RestartPolicy::UnlessStopped, RestartPolicy::Always] {
        let container = world.started(spec(&world, policy, TRAPPED)).await?;
        // Pid 1 is not ended by a signal that it does not handle yet.
        until("it is ready", async || {
            Ok(crate::detached::logged(&container).await? == "ready")
        })
        .await?;
        container.stop(StopOptions::default()).await?;
        assert_eq!(container.wait().await?.status.code(), 7);
        containers.push(remembered(&container).await?);
    }
    let World { engine, image, root } = world;
    drop(image);
    engine.close().await;
    restart_the_host(root.path(), &containers)?;
    let ids: Vec<&str> = containers.iter().map(|(id, _)| id.as_str()).collect();
    let &[no, on_failure, unless_stopped, always, stopped, always_stopped] = ids.as_slice() else {
        unreachable!("there are six")
    };
    let engine = Engine::builder(root.path()).supervise(true).open().await?;
    until("all that come back run", async || {
        let mut up = true;
        for id in [unless_stopped, always, always_stopped] {
            up &= state_of(&engine, id).await? == ContainerState::Running;
        }
        Ok(up)
    })
    .await?;
    let out = engine.container(always).await?;
    let out = out.exec(longshore::ExecSpec::new(["echo", "back"])).output().await?;
    assert_eq!(text(&out.stdout), "back");
    // Long enough for the supervisor to look again.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    for id in [no, on_failure, stopped] {
        assert_eq!(state_of(&engine, id).await?, ContainerState::Exited);
    }
    let exit = engine.container(stopped).await?.inspect().await?.exit;
    assert_eq!(exit.expect("it was written down").status.code(), 7);
    // In this boot an end by hand is the end, also for the engine that supervises next.
    let again = engine.container(always_stopped).await?;
    again.stop(StopOptions::default()).await?;
    drop(again);
    engine.close().await;
    let engine = Engine::builder(root.path()).supervise(true).open().await?;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(state_of(&engine, always_stopped).await?, ContainerState::Exited);
    assert_eq!(state_of(&engine, always).await?, ContainerState::Running);
    for id in ids {
        engine.container(id).await?.remove(FORCE).await?;
    }
    let audit = engine.audit().await?;
    assert!(audit.findings.is_empty(), "{:?}", audit.findings);
    Ok(())
}

/// A process that is none of ours, with its birth.
fn bystander() -> Result<(Child, u64), Stop> {
    let child = Command::new("sleep").arg("600").spawn()?;
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
    let fields = stat.rsplit_once(')').expect("proc_pid_stat(5)").1;
    let ticks = fields.split_ascii_whitespace().nth(19).expect("field 22").parse()?;
    Ok((child, ticks))
}

/// In this boot, number and birth of the container's process are another's. With what the shim wrote, and where only the row is left.
async fn g16_a_process_of_the_former_boot_is_nothing_of_ours() -> Check {
    for written in [true, false] {
        let world = World::alone().await?;
        let container = world.started(spec(&world, RestartPolicy::No, "sleep 600")).await?;
        let (id, pid) = remembered(&container).await?;
        let World { engine, image, root } = world;
        drop((container, image));
        engine.close().await;
        restart_the_host(root.path(), &[(id.clone(), pid)])?;
        let (mut other, ticks) = bystander()?;
        let process = Some((other.id(), ticks));
        row_of_former_boot(root.path(), &id, process)?;
        match written {
            true => state_of_former_boot(root.path(), &id, process)?,
            false => fs::remove_dir_all(root.path().join("containers").join(&id).join("shim"))?,
        }
        let outcome = over_a_bystander(root.path(), &id, other.id()).await;
        let lives = other.try_wait()?.is_none();
        other.kill()?;
        other.wait()?;
        outcome?;
        assert!(lives, "it was none of ours, and was killed");
    }
    Ok(())
}

async fn over_a_bystander(root: &Path, id: &str, bystander: u32) -> Check {
    let engine = Engine::open(root).await?;
    let container = engine.container(id).await?;
    let info = container.inspect().await?;
    assert_eq!((info.state, info.pid), (ContainerState::Exited, None));
    let error = container.kill(Signal::KILL).await.expect_err("it does not run");
    assert_eq!(error.kind(), &ErrorKind::InvalidState, "{error}");
    assert_eq!(container.stop(StopOptions::default()).await?, Outcome::Already);
    container.start().await?;
    assert_ne!(container.inspect().await?.pid, Some(bystander));
    container.kill(Signal::KILL).await?;
    assert_eq!(container.wait().await?.status.code(), 137);
    container.remove(RemoveOptions::default()).await?;
    Ok(())
}
