//! Health checks of detached containers: their shims make them, whether anybody looks or not.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use longshore::{
    Container, ContainerSpec, ContainerState, Engine, ErrorKind, ExecSpec, Health, HealthCheck, HealthStatus, Lifetime,
    OnUnhealthy, StopOptions,
};
use nix::sys::signal::{Signal as Number, kill};
use nix::unistd::Pid;

use crate::detached::{detached, events_of, kernel_tells_ends, shim_of, show};
use crate::faults::{Random, filled_root, kills, role};
use crate::frame::{Check, Stop, block_on};
use crate::support::embedder::{Embedder, Role};
use crate::support::is_root;
use crate::support::patience::{PATIENCE, until};
use crate::support::world::{FORCE, World, text};
use crate::{tests, userns};

tests! { "checks":
    kernel [
        p39_kills_of_engines_leave_no_probe,
    ]
    kernel_async [
        g11_a_probe_is_killed_with_what_it_started,
        g11_probes_in_what_an_ordinary_user_s_shim_has_no_proc_of,
        g11_a_restart_begins_anew_with_the_health,
        g11_a_paused_detached_container_is_not_probed,
        g11_nobody_probes_when_the_shim_was_killed,
    ]
    waiting [
        p39_health_is_looked_after_while_no_engine_is_there,
        p39_an_unhealthy_container_is_restarted_with_nobody_there,
    ]
    waiting_async [
        p39_changes_of_health_are_told_once,
        g11_a_probe_is_killed_with_what_has_left_it,
    ]
}

/// What this binary does as a child.
pub const ROLES: &[(&str, Role)] = &[("detach-checked", |arguments| block_on(role(detach_checked(arguments))))];

const OFTEN: Duration = Duration::from_millis(50);

/// Whether a file is there, every 50 milliseconds; three failures count.
fn ok() -> HealthCheck {
    HealthCheck::shell("echo looking; test -e /ok")
        .interval(OFTEN)
        .start_interval(OFTEN)
        .timeout(Duration::from_secs(20))
        .retries(3)
}

/// Starts a detached container with that check, says its id, and waits to be killed.
async fn detach_checked(arguments: &[String]) -> longshore::Result<()> {
    let [root, script, action, interval, grace] = arguments else {
        return Ok(());
    };
    let interval = Duration::from_millis(interval.parse().unwrap_or(50));
    let grace = Duration::from_secs(grace.parse().unwrap_or(0));
    let engine = Engine::open(root).await?;
    let spec = ContainerSpec::image("busybox")
        .command(["sh", "-c", script])
        .health(ok().interval(interval).start_period(grace))
        .on_unhealthy(action.parse::<OnUnhealthy>()?)
        .stop_timeout(Duration::ZERO)
        .lifetime(Lifetime::Detached);
    let container = engine.run(spec).await?;
    println!("{}", container.id());
    std::future::pending().await
}

fn left_checked(root: &Path, script: &str, action: &str, interval: &str) -> Result<(Embedder, String), Stop> {
    left_checked_after(root, script, action, interval, "0")
}

/// Failures count after so many seconds, or once it was healthy.
fn left_checked_after(
    root: &Path,
    script: &str,
    action: &str,
    interval: &str,
    grace: &str,
) -> Result<(Embedder, String), Stop> {
    let embedder = Embedder::start("detach-checked", &[show(root), script, action, interval, grace])?;
    let id = embedder.line(PATIENCE)?;
    assert_eq!(id.len(), 64, "{id}");
    Ok((embedder, id))
}

async fn health_of(container: &Container) -> Result<Health, Stop> {
    Ok(container.inspect().await?.health.expect("it has a check"))
}

async fn health_is(container: &Container, status: HealthStatus) -> Check {
    until(status.as_str(), async || {
        Ok(health_of(container).await?.status == status)
    })
    .await
}

async fn health_events(engine: &Engine, id: &str) -> Result<Vec<String>, Stop> {
    let all = events_of(engine, id).await?;
    let words = all.iter().filter_map(|action| action.strip_prefix("health_status: "));
    Ok(words.map(str::to_owned).collect())
}

/// It becomes healthy and ill again with nobody there; who comes later sees what was, and when.
fn p39_health_is_looked_after_while_no_engine_is_there() -> Check {
    let root = filled_root()?;
    let script = "touch /ok; sleep 2; rm /ok; sleep 1000";
    let (mut embedder, id) = left_checked_after(root.path(), script, "none", "300", "600")?;
    embedder.kill()?;
    let killed = SystemTime::now();
    std::thread::sleep(Duration::from_millis(6000));
    block_on(async {
        let opened = SystemTime::now();
        let engine = Engine::open(root.path()).await?;
        let container = engine.container(&id).await?;
        // At the first look: nobody has been asked anything.
        let health = health_of(&container).await?;
        assert_eq!(health.status, HealthStatus::Unhealthy);
        assert!(health.failing_streak >= 3, "{health:?}");
        assert_eq!(health.log.len(), 5);
        for probe in &health.log {
            assert!(killed < probe.start && probe.start < probe.end, "{probe:?}");
            assert_eq!((probe.exit_code, probe.output.as_str()), (1, "looking\n"));
        }
        let times: Vec<_> = health.log.iter().map(|probe| probe.start).collect();
        assert!(times.is_sorted());
        assert!(times.iter().any(|time| *time < opened), "some were before the engine");
        // The row and the events follow as soon as somebody has to do with it.
        container.exec(ExecSpec::new(["touch", "/ok"])).output().await?;
        health_is(&container, HealthStatus::Healthy).await?;
        until("the last change is told", async || {
            Ok(health_events(&engine, &id).await?.len() >= 3)
        })
        .await?;
        assert_eq!(health_events(&engine, &id).await?, ["healthy", "unhealthy", "healthy"]);
        container.remove(FORCE).await?;
        engine.close().await;
        Ok(())
    })
}

/// Once; the new run is healthy.
fn p39_an_unhealthy_container_is_restarted_with_nobody_there() -> Check {
    let root = filled_root()?;
    // Nothing counts before it was healthy: a disk that takes its time makes no failure.
    let script = "touch /ok; test -e /ran || { touch /ran; sleep 1; rm /ok; }; sleep 1000";
    let (mut embedder, id) = left_checked_after(root.path(), script, "restart", "200", "600")?;
    embedder.kill()?;
    std::thread::sleep(Duration::from_millis(3000));
    let (mut other, stopped) = left_checked(root.path(), "sleep 1000", "stop", "50")?;
    other.kill()?;
    std::thread::sleep(Duration::from_millis(3000));
    block_on(async {
        let engine = Engine::open(root.path()).await?;
        let container = engine.container(&id).await?;
        until("restarted", async || Ok(container.inspect().await?.restart_count > 0)).await?;
        health_is(&container, HealthStatus::Healthy).await?;
        let info = container.inspect().await?;
        assert_eq!((info.state, info.restart_count), (ContainerState::Running, 1));
        assert!(
            info.health
                .expect("it has a check")
                .log
                .iter()
                .all(|probe| probe.start >= info.started.expect("it runs"))
        );
        container.remove(FORCE).await?;
        let container = engine.container(&stopped).await?;
        let exit = tokio::time::timeout(PATIENCE, container.wait()).await??;
        assert_eq!(exit.status.code(), 137, "it ignores SIGTERM");
        let info = container.inspect().await?;
        assert_eq!((info.state, info.restart_count), (ContainerState::Exited, 0));
        assert_eq!(info.health.expect("it has a check").status, HealthStatus::Unhealthy);
        container.remove(FORCE).await?;
        engine.close().await;
        Ok(())
    })
}

/// Children of a shim but for the container's first process: state, and name.
fn children(shim: u32, first: u32) -> Vec<String> {
    let list = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap_or_default();
    let first = first.to_string();
    assert!(
        list.split_ascii_whitespace().any(|pid| pid == first),
        "children can be seen: {list:?}"
    );
    let pids = list.split_ascii_whitespace().filter(|pid| *pid != first);
    pids.filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok())
        .collect()
}

fn descriptors(pid: u32) -> Result<usize, Stop> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Engines that have the container die at any moment; the shim has what it had before.
fn p39_kills_of_engines_leave_no_probe() -> Check {
    let root = filled_root()?;
    let (mut embedder, id) = left_checked(root.path(), "touch /ok; sleep 1000", "none", "50")?;
    let shim = shim_of(root.path(), &id).expect("it has a shim");
    let mut random = Random(0x5EED_0039);
    embedder.kill()?;
    std::thread::sleep(Duration::from_millis(300));
    // Only root sees the descriptors of a process that cannot be dumped.
    let least = |rounds: u32| -> Result<usize, Stop> {
        let mut least = usize::MAX;
        for _ in 0..rounds {
            least = least.min(descriptors(shim)?);
            std::thread::sleep(Duration::from_millis(7));
        }
        Ok(least)
    };
    let before = if is_root() { least(100)? } else { 0 };
    for _ in 0..kills().min(40) {
        let mut watcher = Embedder::start("watch-detached", &[show(root.path()), &id])?;
        if random.below(3) > 0 {
            watcher.line(PATIENCE)?;
        }
        std::thread::sleep(Duration::from_millis(random.below(120)));
        watcher.kill()?;
    }
    std::thread::sleep(Duration::from_millis(300));
    if is_root() {
        assert_eq!(least(100)?, before, "descriptors of the shim");
    }
    block_on(async {
        let engine = Engine::open(root.path()).await?;
        let container = engine.container(&id).await?;
        health_is(&container, HealthStatus::Healthy).await?;
        let first = container.inspect().await?.pid.expect("it runs");
        // There are moments without a probe, and then there is nothing: no zombie, no session, no guide.
        until("nothing but the container", async || {
            Ok(children(shim, first).is_empty())
        })
        .await?;
        // Whoever has to do with it tells what nobody has told.
        container.exec(ExecSpec::new(["true"])).output().await?;
        until("the change is told", async || {
            Ok(!health_events(&engine, &id).await?.is_empty())
        })
        .await?;
        assert_eq!(health_events(&engine, &id).await?, ["healthy"]);
        container.remove(FORCE).await?;
        engine.close().await;
        Ok(())
    })
}

/// Two engines are connected, and a third comes and goes.
async fn p39_changes_of_health_are_told_once() -> Check {
    let world = World::alone().await?;
    let container = world
        .started(detached(world.script("touch /ok; sleep 1000")).health(ok()))
        .await?;
    let id = container.id().to_string();
    let mut other = Embedder::start("watch-detached", &[show(world.root.path()), &id])?;
    other.line(PATIENCE)?;
    let mut expected = Vec::new();
    for round in 0..4 {
        health_is(&container, HealthStatus::Healthy).await?;
        container.exec(ExecSpec::new(["rm", "/ok"])).output().await?;
        health_is(&container, HealthStatus::Unhealthy).await?;
        container.exec(ExecSpec::new(["touch", "/ok"])).output().await?;
        expected.extend(["healthy", "unhealthy"]);
        if round == 1 {
            other.kill()?;
            other = Embedder::start("watch-detached", &[show(world.root.path()), &id])?;
            other.line(PATIENCE)?;
        }
    }
    health_is(&container, HealthStatus::Healthy).await?;
    expected.push("healthy");
    until("the last change is told", async || {
        Ok(health_events(&world.engine, &id).await?.len() >= expected.len())
    })
    .await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(health_events(&world.engine, &id).await?, expected);
    other.kill()?;
    container.remove(FORCE).await?;
    Ok(())
}

/// Commands of processes in which a word is.
fn commands_with(word: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let commands = entries.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
    commands.filter(|command| command.contains(word)).collect()
}

/// The shell, what it waits for, and what it has left in the background.
async fn g11_a_probe_is_killed_with_what_it_started() -> Check {
    let world = World::alone().await?;
    let limit = Duration::from_millis(300);
    let check = HealthCheck::shell("sleep 7797 & sleep 7797; true")
        .interval(OFTEN)
        .timeout(limit)
        .retries(2);
    let container = world
        .started(detached(world.script("sleep 1000")).health(check))
        .await?;
    health_is(&container, HealthStatus::Unhealthy).await?;
    until("five probes", async || Ok(health_of(&container).await?.log.len() == 5)).await?;
    for probe in health_of(&container).await?.log {
        assert_eq!(probe.exit_code, -1);
        assert!(probe.output.contains("exceeded timeout (300ms)"), "{}", probe.output);
        let took = probe.end.duration_since(probe.start)?;
        assert!((limit..Duration::from_secs(5)).contains(&took), "{took:?}");
    }
    // At most those of the one probe that runs.
    let left = commands_with("7797");
    assert!(left.len() <= 3, "of what probes had started there is {left:?}");
    container.remove(FORCE).await?;
    // One that is not there.
    let check = HealthCheck::command(["/no/such/thing"]).interval(OFTEN).retries(1);
    let container = world
        .started(detached(world.script("sleep 1000")).health(check))
        .await?;
    health_is(&container, HealthStatus::Unhealthy).await?;
    let probe = health_of(&container).await?.log.pop_front().expect("it was probed");
    assert_eq!(
        (probe.exit_code, probe.output.contains("/no/such/thing")),
        (127, true),
        "{probe:?}"
    );
    container.remove(FORCE).await?;
    Ok(())
}

/// A time to sleep that nobody else on this machine sleeps.
pub fn of_ours(number: u32) -> String {
    format!("{number}{:07}", std::process::id())
}

/// How many sleep for so long.
pub fn sleepers(time: &str) -> usize {
    let command = format!("sleep\0{time}\0");
    let all = commands_with(time);
    all.iter().filter(|found| **found == command).count()
}

/// What is in a session of its own, with a parent that is gone; what is there when a probe ends in time stays.
async fn g11_a_probe_is_killed_with_what_has_left_it() -> Check {
    let world = userns::world(userns::FIRST).await?;
    let (leaver, stayer) = (of_ours(21), of_ours(22));
    let script = format!("setsid sh -c 'setsid sleep {leaver} & exit 0'; sleep 1000");
    let check = HealthCheck::shell(script)
        .interval(OFTEN)
        .timeout(Duration::from_millis(300))
        .retries(4);
    for own_users in [false, true] {
        let spec = detached(world.script("sleep 1000")).health(check.clone());
        let container = world.started(spec.user_namespace(own_users)).await?;
        health_is(&container, HealthStatus::Unhealthy).await?;
        // The next begins when nothing is left of the one before.
        let left = sleepers(&leaver);
        assert!(left <= 1, "of what probes had started {left} are there");
        assert_eq!(container.inspect().await?.state, ContainerState::Running);
        container.remove(FORCE).await?;
    }
    let script = format!("hostname; test -e /left || {{ touch /left; setsid sleep {stayer} & }}");
    let check = HealthCheck::shell(script)
        .interval(OFTEN)
        .timeout(Duration::from_secs(20));
    let spec = detached(world.script("sleep 1000")).health(check).hostname("checked");
    let container = world.started(spec).await?;
    until("three probes", async || Ok(health_of(&container).await?.log.len() >= 3)).await?;
    let health = health_of(&container).await?;
    let said = health.log.iter().map(|probe| (probe.exit_code, probe.output.as_str()));
    assert!(said.clone().all(|said| said == (0, "checked\n")), "{health:?}");
    until("it sleeps", async || Ok(sleepers(&stayer) == 1)).await?;
    container.remove(FORCE).await?;
    Ok(())
}

/// The log of a run is its own, and so is its start period.
async fn g11_a_restart_begins_anew_with_the_health() -> Check {
    let world = World::alone().await?;
    // Healthy means that all of it is written.
    let script = "test -e /ran || { touch /ran; touch /ok; }; sleep 1000";
    let check = ok().start_period(Duration::from_secs(600));
    let spec = detached(world.script(script))
        .health(check)
        .stop_timeout(Duration::ZERO);
    let container = world.started(spec).await?;
    health_is(&container, HealthStatus::Healthy).await?;
    container.exec(ExecSpec::new(["rm", "/ok"])).output().await?;
    // Who was healthy once has no start period any more.
    health_is(&container, HealthStatus::Unhealthy).await?;
    let id = container.id().to_string();
    container.restart(StopOptions::default()).await?;
    until("probes", async || Ok(health_of(&container).await?.log.len() >= 3)).await?;
    let info = container.inspect().await?;
    let (health, started) = (info.health.expect("it has a check"), info.started.expect("it runs"));
    // All of them fail, and none counts.
    assert_eq!((health.status, health.failing_streak), (HealthStatus::Starting, 0));
    assert!(
        health
            .log
            .iter()
            .all(|probe| probe.start >= started && probe.exit_code == 1)
    );
    assert_eq!(health_events(&world.engine, &id).await?, ["healthy", "unhealthy"]);
    container.remove(FORCE).await?;
    Ok(())
}

async fn g11_a_paused_detached_container_is_not_probed() -> Check {
    let world = World::alone().await?;
    let spec = detached(world.script("touch /ok; sleep 1000")).health(ok());
    let container = world.started(spec).await?;
    health_is(&container, HealthStatus::Healthy).await?;
    match container.pause().await {
        Err(error) if error.is_unsupported() => {}
        paused => {
            paused?;
            tokio::time::sleep(Duration::from_millis(300)).await;
            let before = health_of(&container).await?;
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert_eq!(health_of(&container).await?, before);
            container.unpause().await?;
            until("probes", async || Ok(health_of(&container).await?.log != before.log)).await?;
            assert_eq!(health_of(&container).await?.status, HealthStatus::Healthy);
        }
    }
    let out = container.exec(ExecSpec::new(["echo", "still there"])).output().await?;
    assert_eq!(text(&out.stdout), "still there");
    container.remove(FORCE).await?;
    Ok(())
}

/// What was known is not known any more; the next run is probed again.
async fn g11_nobody_probes_when_the_shim_was_killed() -> Check {
    let world = World::alone().await?;
    let spec = detached(world.script("touch /ok; sleep 1000")).health(ok());
    let container = world.started(spec).await?;
    health_is(&container, HealthStatus::Healthy).await?;
    let shim = shim_of(world.root.path(), container.id().as_str()).expect("it has a shim");
    kill(Pid::from_raw(i32::try_from(shim)?), Number::SIGKILL)?;
    health_is(&container, HealthStatus::Starting).await?;
    assert_eq!(container.inspect().await?.state, ContainerState::Running);
    let log = health_of(&container).await?.log;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(health_of(&container).await?.log, log);
    let stop = StopOptions {
        timeout: Some(Duration::ZERO),
        ..StopOptions::default()
    };
    match container.stop(stop).await {
        // It has ended; how, nobody could see.
        Err(error) if error.kind() == &ErrorKind::Unavailable && !kernel_tells_ends()? => {}
        stopped => drop(stopped?),
    }
    container.start().await?;
    health_is(&container, HealthStatus::Healthy).await?;
    container.remove(FORCE).await?;
    Ok(())
}

/// Maps of ids, another user where one id is mapped, and a score for memory are written through a proc.
async fn g11_probes_in_what_an_ordinary_user_s_shim_has_no_proc_of() -> Check {
    let world = userns::world(userns::FIRST).await?;
    for (own_users, user) in [(true, "0"), (false, "1000")] {
        let mut spec = detached(world.script("sleep 1000"))
            .health(HealthCheck::shell("id -u; cat /proc/self/oom_score_adj").interval(OFTEN))
            .user_namespace(own_users)
            .user(user);
        spec.oom_score_adj = Some(500);
        let container = world.started(spec).await?;
        let expected = format!("{user}\n500");
        let script = ["sh", "-c", "id -u; cat /proc/self/oom_score_adj"];
        let out = container.exec(ExecSpec::new(script)).output().await?;
        assert_eq!(text(&out.stdout), expected, "{}", text(&out.stderr));
        until("a probe", async || Ok(!health_of(&container).await?.log.is_empty())).await?;
        let probe = health_of(&container).await?.log.pop_front().expect("it was probed");
        assert_eq!((probe.exit_code, probe.output.trim()), (0, expected.as_str()));
        container.remove(FORCE).await?;
    }
    Ok(())
}
