//! Containers that outlive their program.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt as _;
use longshore::events::EventItem;
use longshore::logs::{LogQuery, TeeItem};
use longshore::system::FindingKind;
use longshore::types::Filter;
use longshore::{
    AttachOptions, Container, ContainerSpec, ContainerState, Engine, ErrorKind, EventQuery, ExecSpec, Lifetime,
    ListOptions, LogConfig, MountSpec, NamespaceMode, NetworkMode, Outcome, RemoveOptions, RestartPolicy, Signal,
    StopOptions, WaitCondition,
};
use nix::sys::signal::{Signal as Number, kill};
use nix::unistd::Pid;

use crate::faults::{Random, filled_root, kills, role};
use crate::frame::{Check, Stop, block_on, fail};
use crate::longshored::Daemon;
use crate::outlive::runs;
use crate::support::embedder::{Embedder, Role};
use crate::support::patience::{PATIENCE, until, until_now};
use crate::support::world::{FORCE, World, text};
use crate::tests;

tests! { "detached":
    kernel [
        g16_a_killed_embedder_changes_nothing,
        g16_ten_kills_leave_no_gap_in_the_log,
        g16_who_was_starting_it_was_killed,
        g16_every_end_is_known,
        g16_many_are_adopted_at_once,
        g16_a_daemon_is_replaced_under_its_containers,
    ]
    kernel_async [
        g16_it_outlives_the_last_handle,
        g5_logs_of_all_drivers_across_engines,
        g16_two_engines_rule_one_container,
        g16_an_engine_that_lags_behind_undoes_nothing,
        g16_attached_from_the_first_byte_and_again,
        g16_a_terminal_goes_from_engine_to_engine,
        g16_an_earlier_end_is_nothing_to_wait_for,
        g16_volumes_and_files_stay,
        g16_what_only_an_engine_can_do_is_refused,
        n10_audit_knows_detached_containers,
        p30_a_shim_is_killed,
        h18_the_host_s_processes,
    ]
    waiting [
        g16_an_end_that_nobody_saw,
        g10_restarts_go_on_without_an_engine,
        p39_another_engine_supervises_when_one_dies,
    ]
    waiting_async [
        g10_an_end_by_hand_is_the_end,
    ]
}

/// What this binary does as a child.
pub const ROLES: &[(&str, Role)] = &[
    ("detach", |arguments| {
        block_on(role(detach(&arguments[0], &arguments[1], &arguments[2])))
    }),
    ("detach-many", |arguments| {
        block_on(role(detach_many(&arguments[0], &arguments[1], &arguments[2])))
    }),
    ("detach-sleeping", |arguments| {
        block_on(role(detach_sleeping(&arguments[0], &arguments[1])))
    }),
    ("watch-detached", |arguments| {
        block_on(role(watch(&arguments[0], &arguments[1])))
    }),
    ("supervise", |arguments| block_on(role(supervise(&arguments[0])))),
];

/// Starts a detached container with a script, says its id, and waits to be killed.
async fn detach(root: &str, script: &str, restart: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    let spec = ContainerSpec::image("busybox")
        .command(["sh", "-c", script])
        .restart(restart.parse::<RestartPolicy>()?)
        .lifetime(Lifetime::Detached);
    let container = engine.run(spec).await?;
    println!("{}", container.id());
    std::future::pending().await
}

pub fn show(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// A container that another process starts and does not outlive.
pub fn left_behind(root: &Path, script: &str, restart: &str) -> Result<(Embedder, String), Stop> {
    let embedder = Embedder::start("detach", &[show(root), script, restart])?;
    let id = embedder.line(PATIENCE)?;
    if id.len() != 64 {
        return fail(id);
    }
    Ok((embedder, id))
}

pub async fn logged(container: &Container) -> Result<String, Stop> {
    let mut entries = container.logs(LogQuery::default()).await?;
    let mut all = Vec::new();
    while let Some(entry) = entries.next().await {
        all.extend_from_slice(&entry?.bytes);
    }
    Ok(text(&all))
}

async fn followed(container: &Container) -> Result<String, Stop> {
    let query = LogQuery {
        follow: true,
        ..LogQuery::default()
    };
    let mut entries = container.logs(query).await?;
    let mut all = Vec::new();
    while let Some(entry) = entries.next().await {
        all.extend_from_slice(&entry?.bytes);
    }
    Ok(text(&all))
}

fn lines(count: usize) -> String {
    (0..count)
        .map(|number| format!("line {number}\n"))
        .collect::<String>()
        .trim_end()
        .to_owned()
}

/// Prints so many lines, one every ten milliseconds, and ends with a status.
fn printing(count: usize, status: i32) -> String {
    format!("i=0; while [ $i -lt {count} ]; do echo line $i; i=$((i+1)); usleep 10000; done; exit {status}")
}

pub async fn events_of(engine: &Engine, id: &str) -> Result<Vec<String>, Stop> {
    let mut query = EventQuery::default();
    query.since_ns = Some(0);
    query.until_ns = Some(longshore::events::now_ns() + 1_000_000_000);
    query.filter = Filter::new().with("container", id);
    let mut events = engine.events(query).await?;
    let mut actions = Vec::new();
    while let Some(item) = events.next().await {
        if let EventItem::Event(event) = item? {
            actions.push(event.action);
        }
    }
    Ok(actions)
}

fn g16_a_killed_embedder_changes_nothing() -> Check {
    let root = filled_root()?;
    let (mut embedder, id) = left_behind(root.path(), &printing(200, 37), "no")?;
    std::thread::sleep(Duration::from_millis(300));
    embedder.kill()?;
    block_on(async {
        let engine = Engine::open(root.path()).await?;
        let container = engine.container(&id).await?;
        assert_eq!(container.inspect().await?.state, ContainerState::Running);
        let told = followed(&container).await?;
        assert_eq!(told, lines(200));
        let exit = container.wait().await?;
        assert_eq!(exit.status.code(), 37);
        assert_ne!(exit.oom_killed, Some(true));
        let info = container.inspect().await?;
        assert_eq!((info.state, info.pid), (ContainerState::Exited, None));
        assert_eq!(logged(&container).await?, lines(200));
        container.remove(RemoveOptions::default()).await?;
        Ok(())
    })
}

fn g16_ten_kills_leave_no_gap_in_the_log() -> Check {
    let root = filled_root()?;
    let script = "i=0; until test -e /end; do echo line $i; i=$((i+1)); sleep 0.01; done; exit 5";
    let (mut first, id) = left_behind(root.path(), script, "no")?;
    for round in 0..10u64 {
        // Another program that has the container, attached to it, each time.
        let mut watcher = Embedder::start("watch-detached", &[show(root.path()), &id])?;
        watcher.line(PATIENCE)?;
        std::thread::sleep(Duration::from_millis(40 + round * 13 % 50));
        watcher.kill()?;
        if round == 4 {
            first.kill()?;
        }
    }
    block_on(async {
        let engine = Engine::open(root.path()).await?;
        let container = engine.container(&id).await?;
        container.exec(ExecSpec::new(["touch", "/end"])).output().await?;
        assert_eq!(container.wait().await?.status.code(), 5);
        let log = logged(&container).await?;
        assert_eq!(log, lines(log.lines().count()));
        assert!(log.lines().count() >= 20, "{log}");
        container.remove(RemoveOptions::default()).await?;
        Ok(())
    })
}

/// Reads what a container prints until it is killed.
pub async fn watch(root: &str, id: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    let container = engine.container(id).await?;
    let mut attached = container.attach(AttachOptions::default()).await?;
    println!("attached");
    while attached.output.next().await.is_some() {}
    println!("over");
    std::future::pending().await
}

/// It stands still while the container is started anew by another, and then has the end of the former run to tell.
async fn g16_an_engine_that_lags_behind_undoes_nothing() -> Check {
    let world = World::alone().await?;
    for _ in 0..10 {
        if lags_behind(&world).await? {
            return Ok(());
        }
    }
    fail("it stood still in the way of others each time")
}

/// False if it was stopped while it had the container to itself for a moment: then nobody else can go on.
async fn lags_behind(world: &World) -> Result<bool, Stop> {
    let spec = detached(world.script("sleep 1000")).stop_timeout(Duration::ZERO);
    let container = world.started(spec).await?;
    let id = container.id().to_string();
    let mut late = Embedder::start("watch-detached", &[show(world.root.path()), &id])?;
    assert_eq!(late.line(PATIENCE)?, "attached");
    let process = Pid::from_raw(i32::try_from(late.pid())?);
    kill(process, Number::SIGSTOP)?;
    let restart = container.restart(StopOptions::default());
    let restarted = tokio::time::timeout(Duration::from_secs(5), restart).await;
    let before = container.inspect().await?;
    kill(process, Number::SIGCONT)?;
    let Ok(restarted) = restarted else {
        late.kill()?;
        container.remove(FORCE).await?;
        return Ok(false);
    };
    restarted?;
    assert_eq!(late.line(PATIENCE)?, "over");
    // Nothing says when it has told, or left untold, what it knows.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let now = container.inspect().await?;
    assert_eq!(
        (now.state, now.pid, now.exit),
        (ContainerState::Running, before.pid, None)
    );
    assert_eq!(now.started, before.started);
    let events = events_of(&world.engine, &id).await?;
    let told = |action: &str| events.iter().filter(|event| *event == action).count();
    assert_eq!((told("start"), told("die"), told("restart")), (2, 1, 1), "{events:?}");
    let out = container.exec(ExecSpec::new(["echo", "still there"])).output().await?;
    assert_eq!(text(&out.stdout), "still there");
    late.kill()?;
    container.remove(FORCE).await?;
    Ok(true)
}

/// Waits for the end of a container's shim: all runs of it are over then.
fn shim_has_ended(root: &Path, id: &str) -> Check {
    let gone = || Ok(!shim_of(root, id).is_some_and(runs));
    until_now("its shim has ended", gone)
}

fn g16_an_end_that_nobody_saw() -> Check {
    let root = filled_root()?;
    let before = SystemTime::now();
    let (mut embedder, id) = left_behind(root.path(), "echo here; sleep 0.5; exit 41", "no")?;
    embedder.kill()?;
    shim_has_ended(root.path(), &id)?;
    std::thread::sleep(Duration::from_millis(500));
    block_on(async {
        let engine = Engine::open(root.path()).await?;
        let container = engine.container(&id).await?;
        let info = container.inspect().await?;
        assert_eq!(info.state, ContainerState::Exited);
        let exit = info.exit.expect("its shim wrote it down");
        assert_eq!(exit.status.code(), 41);
        let (started, finished) = (info.started.expect("started"), info.finished.expect("finished"));
        let ran = finished.duration_since(started)?;
        assert!(started >= before && ran >= Duration::from_millis(400), "{ran:?}");
        assert!(
            finished < SystemTime::now() - Duration::from_millis(300),
            "the time is that of the end"
        );
        assert_eq!(container.wait().await?.status.code(), 41);
        assert_eq!(logged(&container).await?, "here");
        let events = events_of(&engine, &id).await?;
        assert_eq!(events.iter().filter(|action| *action == "die").count(), 1, "{events:?}");
        // It can be started again, by anybody.
        container.start().await?;
        assert_eq!(container.wait().await?.status.code(), 41);
        assert_eq!(logged(&container).await?, "here\nhere");
        container.remove(RemoveOptions::default()).await?;
        Ok(())
    })
}

fn g10_restarts_go_on_without_an_engine() -> Check {
    let root = filled_root()?;
    let (mut embedder, id) = left_behind(root.path(), "echo again; sleep 0.2; exit 3", "on-failure:3")?;
    embedder.kill()?;
    shim_has_ended(root.path(), &id)?;
    block_on(async {
        let engine = Engine::open(root.path()).await?;
        let container = engine.container(&id).await?;
        assert_eq!(container.wait().await?.status.code(), 3);
        let info = container.inspect().await?;
        assert_eq!((info.state, info.restart_count), (ContainerState::Exited, 3));
        assert_eq!(logged(&container).await?, "again\nagain\nagain\nagain");
        container.remove(RemoveOptions::default()).await?;
        Ok(())
    })
}

/// At whatever moment of a start the program dies, the container runs and is known to, or it never ran.
fn g16_who_was_starting_it_was_killed() -> Check {
    let root = filled_root()?;
    let mut random = Random(7);
    let kills = kills().min(60);
    for _ in 0..kills {
        let mut embedder = Embedder::start("detach", &[show(root.path()), "sleep 60", "no"])?;
        std::thread::sleep(Duration::from_micros(random.below(60_000)));
        embedder.kill()?;
    }
    block_on(async {
        let engine = Engine::open(root.path()).await?;
        let all = ListOptions {
            all: true,
            ..ListOptions::default()
        };
        let found = engine.list(all).await?;
        println!("{} containers after {kills} kills", found.len());
        for summary in found {
            let container = engine.container(summary.id.as_str()).await?;
            match summary.state {
                ContainerState::Running => {
                    let out = container.exec(ExecSpec::new(["echo", "here"])).output().await;
                    // The last one's shim may be just ending what nobody had taken over.
                    match (out, container.inspect().await?.state) {
                        (Ok(out), _) => assert_eq!(text(&out.stdout), "here"),
                        (Err(_), ContainerState::Created | ContainerState::Exited) => {}
                        (Err(error), _) => return Err(error.into()),
                    }
                }
                ContainerState::Created | ContainerState::Exited => {}
                other => return fail(format!("{other}: {summary:?}")),
            }
            container.remove(FORCE).await?;
        }
        let mut audit = engine.audit().await?;
        // Those that were killed while they opened left what goes when it is old enough.
        audit.findings.retain(|finding| finding.kind != FindingKind::File);
        assert!(audit.findings.is_empty(), "{:?}", audit.findings);
        Ok(())
    })
}

/// Ends with every status, while nobody looks, at any distance from the death of the program that started them.
fn g16_every_end_is_known() -> Check {
    let root = filled_root()?;
    let rounds = if kills() < 100 { 2 } else { 50 };
    const AT_ONCE: usize = 20;
    let mut random = Random(11);
    let mut known = 0;
    for round in 0..rounds {
        let mut embedder = Embedder::start(
            "detach-many",
            &[show(root.path()), &AT_ONCE.to_string(), &round.to_string()],
        )?;
        let mut ids = Vec::new();
        for _ in 0..AT_ONCE {
            ids.push(embedder.line(PATIENCE)?);
        }
        std::thread::sleep(Duration::from_millis(random.below(150)));
        embedder.kill()?;
        std::thread::sleep(Duration::from_millis(random.below(300)));
        block_on(async {
            let engine = Engine::open(root.path()).await?;
            for line in ids {
                let (id, status) = line.split_once(' ').expect("an id and a status");
                let container = engine.container(id).await?;
                let exit = container.wait().await?;
                assert_eq!(exit.status.code().to_string(), status, "{id}");
                assert_ne!(exit.oom_killed, Some(true), "{id}");
                container.remove(RemoveOptions::default()).await?;
                known += 1;
            }
            Ok::<_, Stop>(())
        })?;
    }
    println!("{known} of {} ends known", rounds * AT_ONCE);
    Ok(())
}

/// Starts many containers that end soon, each with another status.
async fn detach_many(root: &str, count: &str, seed: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    let (count, seed): (u32, u32) = (count.parse().unwrap_or(0), seed.parse().unwrap_or(0));
    for number in 0..count {
        let status = (number * 7 + seed * 13) % 125;
        let script = format!("usleep {}; exit {status}", number * 15_000 % 200_000);
        let spec = ContainerSpec::image("busybox").command(["sh", "-c", &script]);
        let container = engine.run(spec.lifetime(Lifetime::Detached)).await?;
        println!("{} {status}", container.id());
    }
    std::future::pending().await
}

/// A program ends with many running: the next has them all at once.
fn g16_many_are_adopted_at_once() -> Check {
    let root = filled_root()?;
    let count = if kills() < 100 { 25 } else { 200 };
    let mut embedder = Embedder::start("detach-sleeping", &[show(root.path()), &count.to_string()])?;
    for _ in 0..count {
        embedder.line(PATIENCE)?;
    }
    embedder.kill()?;
    block_on(async {
        let begun = Instant::now();
        let engine = Engine::open(root.path()).await?;
        let found = engine.list(ListOptions::default()).await?;
        let listed = begun.elapsed();
        assert_eq!(found.len(), count);
        assert!(found.iter().all(|summary| summary.state == ContainerState::Running));
        let waits = found.iter().map(|summary| async {
            let container = engine.container(summary.id.as_str()).await?;
            container.wait_for(WaitCondition::NextExit).await
        });
        let waits = futures_util::future::try_join_all(waits).await?;
        println!(
            "{count} listed {listed:?} and adopted {:?} after the open",
            begun.elapsed()
        );
        for summary in &found {
            engine.container(summary.id.as_str()).await?.kill(Signal::KILL).await?;
        }
        for wait in waits {
            assert_eq!(wait.await?.status.code(), 137);
        }
        for summary in &found {
            engine
                .container(summary.id.as_str())
                .await?
                .remove(RemoveOptions::default())
                .await?;
        }
        Ok(())
    })
}

async fn detach_sleeping(root: &str, count: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    for _ in 0..count.parse().unwrap_or(0) {
        let spec = ContainerSpec::image("busybox").command(["sleep", "600"]);
        let container = engine.run(spec.lifetime(Lifetime::Detached)).await?;
        println!("{}", container.id());
    }
    std::future::pending().await
}

fn p39_another_engine_supervises_when_one_dies() -> Check {
    let root = filled_root()?;
    let mut first = Embedder::start("supervise", &[show(root.path())])?;
    first.line(PATIENCE)?;
    let mut second = Embedder::start("supervise", &[show(root.path())])?;
    second.line(PATIENCE)?;
    let (mut embedder, id) = left_behind(root.path(), "sleep 1; exit 9", "no")?;
    embedder.kill()?;
    first.kill()?;
    // What is recorded, without asking anybody's shim.
    until_now("its end is recorded", || {
        Ok(rusqlite_state(root.path(), &id)? == "exited")
    })?;
    second.kill()?;
    block_on(async {
        let engine = Engine::open(root.path()).await?;
        let container = engine.container(&id).await?;
        assert_eq!(container.wait().await?.status.code(), 9);
        container.remove(RemoveOptions::default()).await?;
        Ok(())
    })
}

/// The state as it is recorded.
fn rusqlite_state(root: &Path, id: &str) -> Result<String, Stop> {
    let store = rusqlite::Connection::open(root.join("store.db"))?;
    let state = store.query_row("SELECT state FROM containers WHERE id = ?1", [id], |row| row.get(0))?;
    Ok(state)
}

pub async fn supervise(root: &str) -> longshore::Result<()> {
    let _engine = Engine::builder(root).supervise(true).open().await?;
    println!("open");
    std::future::pending().await
}

pub fn detached(spec: ContainerSpec) -> ContainerSpec {
    spec.lifetime(Lifetime::Detached)
}

async fn g16_it_outlives_the_last_handle() -> Check {
    let world = World::alone().await?;
    let container = world.started(detached(world.script("sleep 60"))).await?;
    let id = container.id().to_string();
    let World { engine, image, root } = world;
    drop((container, image, engine));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let engine = Engine::open(root.path()).await?;
    let container = engine.container(&id).await?;
    assert_eq!(container.inspect().await?.state, ContainerState::Running);
    let out = container.exec(ExecSpec::new(["echo", "still"])).output().await?;
    assert_eq!(text(&out.stdout), "still");
    let listed = engine.list(ListOptions::default()).await?;
    assert_eq!(listed.len(), 1, "{listed:?}");
    container.remove(FORCE).await?;
    Ok(())
}

async fn g5_logs_of_all_drivers_across_engines() -> Check {
    let world = World::new().await?;
    for driver in ["local", "json-file"] {
        let log = LogConfig::driver(driver);
        let spec =
            detached(world.script("for i in 1 2 3; do echo out $i; echo err $i >&2; sleep 0.1; done; printf end"));
        let container = world.started(spec.log(log)).await?;
        let other = Engine::open(world.root.path()).await?;
        let seen = other.container(container.id().as_str()).await?;
        let all = followed(&seen).await?;
        for line in ["out 1", "err 1", "out 2", "err 2", "out 3", "err 3", "end"] {
            assert!(all.contains(line), "{driver}: {line} is missing in {all:?}");
        }
        assert_eq!(logged(&container).await?, all);
        assert_eq!(seen.wait().await?.status.code(), 0);
        container.remove(RemoveOptions::default()).await?;
    }
    let silent = world
        .started(detached(world.script("echo x")).log(LogConfig::driver("none")))
        .await?;
    assert_eq!(silent.wait().await?.status.code(), 0);
    let error = silent.logs(LogQuery::default()).await.err().expect("nothing is kept");
    assert!(error.is_unsupported(), "{error}");
    silent.remove(RemoveOptions::default()).await?;
    Ok(())
}

async fn g16_two_engines_rule_one_container() -> Check {
    let world = World::new().await?;
    let container = world
        .started(detached(
            world.script("trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"),
        ))
        .await?;
    until("it heeds signals", async || Ok(logged(&container).await? == "up")).await?;
    let other = Engine::open(world.root.path()).await?;
    let theirs = other.container(container.id().as_str()).await?;
    // What one does, the other sees; what one may, the other may.
    match theirs.pause().await {
        Ok(()) => {
            assert_eq!(container.inspect().await?.state, ContainerState::Paused);
            container.unpause().await?;
        }
        // An ordinary user has no freezer here.
        Err(error) => assert!(error.is_unsupported(), "{error}"),
    }
    assert_eq!(theirs.inspect().await?.state, ContainerState::Running);
    let name = format!("renamed-{}", container.id().short());
    theirs.rename(&name).await?;
    assert_eq!(container.inspect().await?.name, name);
    let out = theirs
        .exec(ExecSpec::new(["sh", "-c", "echo exec; exit 4"]))
        .output()
        .await?;
    assert_eq!((text(&out.stdout).as_str(), out.status.code()), ("exec", 4));
    let waits = [
        container.wait_for(WaitCondition::NextExit).await?,
        theirs.wait_for(WaitCondition::NextExit).await?,
    ];
    assert_eq!(theirs.stop(StopOptions::default()).await?, Outcome::Done);
    for wait in waits {
        assert_eq!(wait.await?.status.code(), 7);
    }
    assert_eq!(container.inspect().await?.state, ContainerState::Exited);
    assert_eq!(container.stop(StopOptions::default()).await?, Outcome::Already);
    // Both start it at once: it runs once.
    let (one, two) = futures_util::join!(container.start(), theirs.start());
    let outcomes = [one?, two?];
    assert!(
        outcomes.contains(&Outcome::Done) && outcomes.contains(&Outcome::Already),
        "{outcomes:?}"
    );
    theirs.kill(Signal::KILL).await?;
    assert_eq!(container.wait().await?.status.code(), 137);
    let events = events_of(&other, container.id().as_str()).await?;
    let count = |wanted: &str| events.iter().filter(|action| *action == wanted).count();
    assert_eq!((count("start"), count("die")), (2, 2), "{events:?}");
    theirs.remove(RemoveOptions::default()).await?;
    let gone = container.inspect().await.expect_err("it is gone");
    assert!(gone.is_not_found(), "{gone}");
    Ok(())
}

async fn read_until(output: &mut longshore::containers::BoxStream<TeeItem>, wanted: &str) -> Result<String, Stop> {
    let mut all = Vec::new();
    let reading = async {
        while let Some(item) = output.next().await {
            if let TeeItem::Chunk(chunk) = item {
                all.extend_from_slice(&chunk.bytes);
            }
            if String::from_utf8_lossy(&all).contains(wanted) {
                break;
            }
        }
    };
    if tokio::time::timeout(PATIENCE, reading).await.is_err() {
        return fail(format!("{wanted:?} did not come, only {:?}", text(&all)));
    }
    Ok(String::from_utf8_lossy(&all).into_owned())
}

async fn g16_attached_from_the_first_byte_and_again() -> Check {
    let world = World::new().await?;
    let spec = detached(world.script("echo first; while read line; do echo got $line; done; echo over; exit 3"));
    let container = world.engine.create(spec.open_stdin(true)).await?;
    let mut attached = container.attach(AttachOptions::default()).await?;
    container.start().await?;
    read_until(&mut attached.output, "first\n").await?;
    let input = attached.input.take().expect("stdin is open");
    input.write("one\n").await?;
    read_until(&mut attached.output, "got one\n").await?;
    input.detach();
    drop(attached);
    let other = Engine::open(world.root.path()).await?;
    let theirs = other.container(container.id().as_str()).await?;
    let mut again = theirs.attach(AttachOptions::default()).await?;
    let input = again.input.take().expect("stdin is open");
    input.write("two\n").await?;
    read_until(&mut again.output, "got two\n").await?;
    // The last writer closes it: that is the end of its stdin.
    drop(input);
    read_until(&mut again.output, "over\n").await?;
    assert_eq!(container.wait().await?.status.code(), 3);
    assert_eq!(logged(&theirs).await?, "first\ngot one\ngot two\nover");
    theirs.remove(RemoveOptions::default()).await?;
    Ok(())
}

async fn g16_a_terminal_goes_from_engine_to_engine() -> Check {
    let world = World::new().await?;
    let spec = detached(world.script("stty size; while read line; do stty size; done"));
    let container = world.engine.create(spec.open_stdin(true).tty(true)).await?;
    let mut attached = container.attach(AttachOptions::default()).await?;
    container.start().await?;
    read_until(&mut attached.output, "\n").await?;
    drop(attached);
    let other = Engine::open(world.root.path()).await?;
    let theirs = other.container(container.id().as_str()).await?;
    theirs.resize(50, 132).await?;
    let mut again = theirs.attach(AttachOptions::default()).await?;
    again.input.as_ref().expect("stdin is open").write("\n").await?;
    read_until(&mut again.output, "50 132").await?;
    theirs.remove(FORCE).await?;
    Ok(())
}

async fn g10_an_end_by_hand_is_the_end() -> Check {
    let world = World::new().await?;
    let spec = detached(world.script("exit 1")).restart(RestartPolicy::Always);
    let container = world.started(spec).await?;
    until("it was started again", async || {
        Ok(container.inspect().await?.restart_count >= 2)
    })
    .await?;
    let other = Engine::open(world.root.path()).await?;
    let theirs = other.container(container.id().as_str()).await?;
    theirs.stop(StopOptions::default()).await?;
    let count = theirs.inspect().await?.restart_count;
    assert_eq!(theirs.inspect().await?.state, ContainerState::Exited);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let info = container.inspect().await?;
    assert_eq!((info.state, info.restart_count), (ContainerState::Exited, count));
    container.remove(RemoveOptions::default()).await?;
    Ok(())
}

/// Whoever finds a container that has been started again waits for the end of this run, not of an earlier one.
async fn g16_an_earlier_end_is_nothing_to_wait_for() -> Check {
    let world = World::new().await?;
    let script = "[ -e /again ] || { touch /again; exit 1; }; while [ ! -e /end ]; do usleep 10000; done; exit 7";
    let retried = RestartPolicy::OnFailure { max_retries: Some(1) };
    let container = world.started(detached(world.script(script)).restart(retried)).await?;
    until("it was started again", async || {
        let info = container.inspect().await?;
        Ok(info.restart_count == 1 && info.state == ContainerState::Running)
    })
    .await?;
    let other = Engine::open(world.root.path()).await?;
    let theirs = other.container(container.id().as_str()).await?;
    let early = tokio::time::timeout(Duration::from_millis(500), theirs.wait()).await;
    assert!(early.is_err(), "{early:?}");
    theirs.exec(ExecSpec::new(["touch", "/end"])).output().await?;
    assert_eq!(theirs.wait().await?.status.code(), 7);
    container.remove(RemoveOptions::default()).await?;
    Ok(())
}

async fn g16_volumes_and_files_stay() -> Check {
    let world = World::alone().await?;
    let spec = detached(world.script("echo kept > /data/a; echo kept > /b")).mount(MountSpec::anonymous("/data"));
    let container = world.started(spec).await?;
    container.wait().await?;
    let id = container.id().to_string();
    let World { engine, image, root } = world;
    drop((container, image, engine));
    let engine = Engine::open(root.path()).await?;
    let container = engine.container(&id).await?;
    let image_id = container.inspect().await?.image_id.to_string();
    let volumes = engine.volumes().list(Filter::new()).await?;
    assert_eq!(volumes.len(), 1, "{volumes:?}");
    let changes = container.diff().await?;
    assert!(
        changes.iter().any(|change| change.path == Path::new("/b")),
        "{changes:?}"
    );
    let mut options = RemoveOptions::default();
    options.volumes = true;
    container.remove(options).await?;
    assert!(engine.volumes().list(Filter::new()).await?.is_empty());
    // One that is to go with its end goes with its volume.
    let spec = detached(ContainerSpec::image(image_id).command(["true"])).mount(MountSpec::anonymous("/data"));
    let short = engine.create(spec.auto_remove(true)).await?;
    let gone = short.wait_for(WaitCondition::Removed).await?;
    short.start().await?;
    gone.await?;
    assert!(engine.volumes().list(Filter::new()).await?.is_empty());
    Ok(())
}

async fn g16_what_only_an_engine_can_do_is_refused() -> Check {
    let world = World::new().await?;
    let refused = [
        detached(world.script("true")).network(NetworkMode::Named("bridge".into())),
        detached(world.script("true")).log(LogConfig::driver("local").option("compress", "true")),
    ];
    for spec in refused {
        let error = world.engine.create(spec).await.expect_err("it cannot be");
        assert!(error.is_unsupported(), "{error}");
        assert!(
            error.report().contains("Lifetime::Bound"),
            "it says what to do: {}",
            error.report()
        );
    }
    Ok(())
}

async fn n10_audit_knows_detached_containers() -> Check {
    let world = World::alone().await?;
    let container = world.started(detached(world.script("sleep 60"))).await?;
    let other = Engine::open(world.root.path()).await?;
    for engine in [&world.engine, &other] {
        let audit = engine.audit().await?;
        assert!(audit.findings.is_empty(), "{:?}", audit.findings);
    }
    container.kill(Signal::KILL).await?;
    container.wait().await?;
    container.remove(RemoveOptions::default()).await?;
    let audit = other.audit().await?;
    assert!(audit.findings.is_empty(), "{:?}", audit.findings);
    Ok(())
}

/// Pid of the shim of a container, by the lock that it holds.
pub fn shim_of(root: &Path, id: &str) -> Option<u32> {
    let lock = root.join("containers").join(id).join("shim/lock");
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let comm = std::fs::read_to_string(entry.path().join("comm")).ok()?;
        let mut files = std::fs::read_dir(entry.path().join("fd")).ok()?.flatten();
        (comm.trim() == "longshore" && files.any(|file| std::fs::read_link(file.path()).is_ok_and(|to| to == lock)))
            .then_some(pid)
    })
}

/// Whether the kernel tells others than the parent how a process has ended.
pub fn kernel_tells_ends() -> Result<bool, Stop> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    Ok((major, minor) >= (6, 15))
}

async fn p30_a_shim_is_killed() -> Check {
    let world = World::new().await?;
    let container = world.started(detached(world.script("sleep 60"))).await?;
    let shim = shim_of(world.root.path(), container.id().as_str()).expect("it has a shim");
    let pid = nix::unistd::Pid::from_raw(shim as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)?;
    // It goes on.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let info = container.inspect().await?;
    assert_eq!(info.state, ContainerState::Running);
    container.kill(Signal::KILL).await?;
    until("it counts as ended", async || {
        Ok(container.inspect().await?.state == ContainerState::Exited)
    })
    .await?;
    match (container.wait().await, kernel_tells_ends()?) {
        (Ok(exit), true) => assert_eq!(exit.status.code(), 137),
        // No status is better than a wrong one.
        (Err(error), _) => assert_eq!(error.kind(), &ErrorKind::Unavailable, "{error}"),
        (Ok(exit), false) => return fail(format!("nobody saw its end: {exit:?}")),
    }
    container.remove(RemoveOptions::default()).await?;
    Ok(())
}

async fn h18_the_host_s_processes() -> Check {
    let world = World::new().await?;
    let bound = world.engine.create(world.spec().pid_mode(NamespaceMode::Host)).await;
    assert!(bound.is_err_and(|error| error.is_unsupported()));
    // It and what it leaves behind in the background: no namespace ends with the first process, and yet all of them end.
    let script = "sleep 61 & readlink /proc/self/ns/pid; exit 4";
    let spec = detached(world.script(script)).pid_mode(NamespaceMode::Host);
    if world.ownership().await? != "direct" {
        let error = world.engine.run(spec).await.expect_err("it is root's");
        assert!(error.is_unsupported(), "{error}");
        return Ok(());
    }
    let container = world.started(spec).await?;
    assert_eq!(container.wait().await?.status.code(), 4);
    let here = std::fs::read_link("/proc/self/ns/pid")?;
    assert_eq!(logged(&container).await?, here.to_str().expect("text"));
    container.remove(RemoveOptions::default()).await?;
    let spec = detached(world.script("sleep 60")).pid_mode(NamespaceMode::Host);
    let container = world.started(spec).await?;
    let out = container
        .exec(ExecSpec::new(["readlink", "/proc/self/ns/pid"]))
        .output()
        .await?;
    assert_eq!(text(&out.stdout), here.to_str().expect("text"));
    container.kill(Signal::TERM).await?;
    assert_eq!(container.wait().await?.status.code(), 143);
    container.remove(RemoveOptions::default()).await?;
    Ok(())
}

fn g16_a_daemon_is_replaced_under_its_containers() -> Check {
    let mut daemon = Daemon::start(&["--live-restore"])?;
    let count = if kills() < 100 { 10 } else { 200 };
    let script = r#""Cmd": ["sh", "-c", "trap 'exit 6' TERM; echo up; while :; do sleep 0.1; done"]"#;
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(daemon.run(script)?.0);
    }
    daemon.replace(&["--live-restore"])?;
    let listed = daemon.ask("GET", "/v1.44/containers/json", "")?.expect(200)?.json()?;
    assert_eq!(listed.as_array().map(Vec::len), Some(count), "{listed}");
    for id in &ids {
        let wait = format!("/v1.44/containers/{id}/wait?condition=not-running");
        daemon
            .ask("POST", &format!("/v1.44/containers/{id}/kill?signal=TERM"), "")?
            .expect(204)?;
        let waited = daemon.ask("POST", &wait, "")?;
        // It goes with its end, and may have gone already.
        if waited.code == 200 {
            assert_eq!(waited.json()?["StatusCode"], 6, "{id}");
        }
    }
    let start = Instant::now();
    loop {
        let left = daemon
            .ask("GET", "/v1.44/containers/json?all=1", "")?
            .expect(200)?
            .json()?;
        if left.as_array().is_some_and(Vec::is_empty) {
            return daemon.stop();
        }
        if start.elapsed() > PATIENCE {
            return fail(format!("still there: {left}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
