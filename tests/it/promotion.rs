//! Containers that are bound to their engine, and become detached while they run.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use longshore::{
    AttachOptions, Container, ContainerSpec, ContainerState, Engine, ErrorKind, ExecSpec, HealthCheck, HealthStatus,
    ListOptions, MountSpec, Outcome, RemoveOptions, RestartPolicy, Signal, StopOptions, WaitCondition,
};

use crate::checks::{health_is, health_of, of_ours, sleepers};
use crate::detached::{logged, read_until, shim_of, show};
use crate::faults::{Random, filled_root, kills, no_container_left, role};
use crate::frame::{Check, Stop, block_on, fail};
use crate::renewing::{another_shim, end_shim, told};
use crate::support::embedder::{Embedder, Role};
use crate::support::patience::{PATIENCE, until};
use crate::support::scratch;
use crate::support::world::{FORCE, World, text};
use crate::tests;

tests! { "promotion":
    kernel [
        g17_what_was_not_promoted_ends_with_its_embedder,
        g16_killed_on_the_way_it_is_bound_or_detached,
    ]
    kernel_async [
        g16_a_promoted_container_outlives_its_engine,
        g16_a_promotion_that_fails_changes_nothing,
        g16_what_ends_on_the_way_is_told_as_it_was,
        g16_what_cannot_be_promoted_says_so,
        g16_streams_stay_open_over_a_promotion,
        g16_a_terminal_stays_over_a_promotion,
        g16_volumes_of_a_promoted_container_stay,
        g16_another_process_may_ask_for_a_promotion,
        g11_a_promoted_container_is_probed_by_its_shim,
        p30_a_promoted_container_gets_a_new_shim,
    ]
    waiting_async [
        g10_a_promoted_container_is_started_again_without_an_engine,
    ]
}

/// What this binary does as a child.
pub const ROLES: &[(&str, Role)] = &[
    ("promote-one-of-two", |arguments| {
        block_on(role(promote_one_of_two(&arguments[0])))
    }),
    ("promote-again-and-again", |arguments| {
        block_on(role(promote_again_and_again(&arguments[0])))
    }),
];

/// Counts until it is told to end.
const COUNTING: &str = "trap 'exit 35' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done";

fn counting() -> ContainerSpec {
    ContainerSpec::image("busybox").command(["sh", "-c", COUNTING])
}

async fn promote_one_of_two(root: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    let (kept, doomed) = (engine.run(counting()).await?, engine.run(counting()).await?);
    kept.promote().await?;
    println!("{} {}", kept.id(), doomed.id());
    std::future::pending().await
}

/// Says which it is about to promote.
async fn promote_again_and_again(root: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    loop {
        let container = engine.run(counting()).await?;
        println!("{}", container.id());
        container.promote().await?;
    }
}

async fn says(container: &Container, word: &str) -> Check {
    let out = container.exec(ExecSpec::new(["echo", word])).output().await?;
    assert_eq!(text(&out.stdout).trim(), word, "{}", text(&out.stderr));
    Ok(())
}

/// One after the other, from 1 on.
async fn count_of(container: &Container) -> Result<u32, Stop> {
    let all = logged(container).await?;
    let numbers: Vec<u32> = all.lines().map(str::parse).collect::<Result<_, _>>()?;
    let last = numbers.len() as u32;
    assert!(numbers.iter().copied().eq(1..=last), "{numbers:?}");
    Ok(last)
}

async fn goes_on(container: &Container) -> Check {
    let before = count_of(container).await?;
    until("its log goes on", async || Ok(count_of(container).await? > before + 3)).await
}

async fn g16_a_promoted_container_outlives_its_engine() -> Check {
    for driver in ["local", "json-file"] {
        let world = World::alone().await?;
        let spec = world.script(COUNTING).log(longshore::LogConfig::driver(driver));
        let container = world.started(spec).await?;
        let (id, pid) = (container.id().to_string(), container.inspect().await?.pid);
        let mut attached = container.attach(AttachOptions::default()).await?;
        read_until(&mut attached.output, "3\n").await?;
        assert_eq!(container.promote().await?, Outcome::Done, "{driver}");
        assert_eq!(container.promote().await?, Outcome::Already, "{driver}");
        let last = count_of(&container).await?;
        // Who was attached is so still, and hears it all.
        let heard = read_until(&mut attached.output, &format!("\n{}\n", last + 3)).await?;
        assert!(heard.contains(&format!("\n{}\n", last + 2)), "{driver}: {heard}");
        drop(attached);
        says(&container, "here").await?;
        let World { engine, image, root } = world;
        drop((container, image));
        engine.close().await;
        let engine = Engine::open(root.path()).await?;
        let container = engine.container(&id).await?;
        let info = container.inspect().await?;
        assert_eq!((info.state, info.pid), (ContainerState::Running, pid), "{driver}");
        assert!(shim_of(root.path(), &id).is_some(), "{driver}: it has a shim");
        says(&container, "still there").await?;
        goes_on(&container).await?;
        container.stop(StopOptions::default()).await?;
        // Its parent tells how it ended, on any kernel.
        assert_eq!(container.wait().await?.status.code(), 35, "{driver}");
        count_of(&container).await?;
        container.start().await?;
        says(&container, "again").await?;
        container.remove(FORCE).await?;
        let audit = engine.audit().await?;
        assert!(audit.findings.is_empty(), "{driver}: {:?}", audit.findings);
        engine.close().await;
    }
    Ok(())
}

fn g17_what_was_not_promoted_ends_with_its_embedder() -> Check {
    let root = filled_root()?;
    let mut embedder = Embedder::start("promote-one-of-two", &[show(root.path())])?;
    let line = embedder.line(PATIENCE)?;
    let Some((kept, doomed)) = line.split_once(' ') else {
        return fail(line);
    };
    embedder.kill()?;
    block_on(async {
        let engine = Engine::open(root.path()).await?;
        let killed = Instant::now();
        while engine.container(doomed).await.is_ok() {
            if killed.elapsed() > PATIENCE {
                return fail("what was bound is still there");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let container = engine.container(kept).await?;
        assert_eq!(container.inspect().await?.state, ContainerState::Running);
        says(&container, "still there").await?;
        goes_on(&container).await?;
        container.kill(Signal::TERM).await?;
        assert_eq!(container.wait().await?.status.code(), 35);
        container.remove(RemoveOptions::default()).await?;
        let audit = engine.audit().await?;
        assert!(audit.findings.is_empty(), "{:?}", audit.findings);
        engine.close().await;
        Ok(())
    })?;
    no_container_left(root.path())
}

/// Whether commands run in it, or else it is gone. As long as its dead owner's helper clears up, that one is asked.
async fn answers(container: &Container) -> Result<bool, Stop> {
    let asked = Instant::now();
    loop {
        match container.exec(ExecSpec::new(["true"])).output().await {
            Ok(_) => return Ok(true),
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) if error.kind() == &ErrorKind::Unavailable && asked.elapsed() < PATIENCE => {}
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whatever is left can be ruled, and what cannot be is gone.
fn g16_killed_on_the_way_it_is_bound_or_detached() -> Check {
    let root = filled_root()?;
    let mut random = Random(16);
    let (mut detached, mut gone) = (0, 0);
    for round in 0..kills() {
        let mut embedder = Embedder::start("promote-again-and-again", &[show(root.path())])?;
        let id = embedder.line(PATIENCE)?;
        if id.len() != 64 {
            return fail(id);
        }
        std::thread::sleep(Duration::from_micros(random.below(60_000)));
        embedder.kill()?;
        block_on(async {
            let engine = Engine::open(root.path()).await?;
            let owner_dead = Instant::now();
            // As long as its helper clears up, its containers are there.
            let listed = loop {
                let all = ListOptions {
                    all: true,
                    ..ListOptions::default()
                };
                let listed = engine.list(all).await?;
                let mut bound = 0;
                for one in &listed {
                    bound += usize::from(shim_of(root.path(), one.id.as_str()).is_none());
                }
                if bound == 0 {
                    break listed;
                }
                if owner_dead.elapsed() > PATIENCE {
                    return fail(format!("round {round}: {bound} are there without a shim: {listed:?}"));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            gone += usize::from(listed.iter().all(|one| one.id.as_str() != id));
            for one in listed {
                // Its shim may have been there before it was given the word.
                let container = match engine.container(one.id.as_str()).await {
                    Err(error) if error.is_not_found() => continue,
                    found => found?,
                };
                if !answers(&container).await? {
                    continue;
                }
                detached += 1;
                assert_eq!(
                    container.inspect().await?.state,
                    ContainerState::Running,
                    "round {round}"
                );
                goes_on(&container).await?;
                container.kill(Signal::TERM).await?;
                assert_eq!(container.wait().await?.status.code(), 35, "round {round}");
                container.remove(RemoveOptions::default()).await?;
            }
            let audit = engine.audit().await?;
            assert!(audit.findings.is_empty(), "round {round}: {:?}", audit.findings);
            engine.close().await;
            Ok(())
        })?;
    }
    println!("{detached} were detached, {gone} had been bound");
    no_container_left(root.path())
}

/// There is no place for its shim. It is bound as before, and its log has a writer.
async fn g16_a_promotion_that_fails_changes_nothing() -> Check {
    let world = World::alone().await?;
    let container = world.started(world.script(COUNTING)).await?;
    let place = world
        .root
        .path()
        .join("containers")
        .join(container.id().as_str())
        .join("shim");
    fs::write(&place, "")?;
    assert!(container.promote().await.is_err());
    goes_on(&container).await?;
    says(&container, "still there").await?;
    fs::remove_file(&place)?;
    // Or for one of its streams.
    fs::create_dir_all(place.join("out"))?;
    assert!(container.promote().await.is_err());
    goes_on(&container).await?;
    fs::remove_dir(place.join("out"))?;
    assert_eq!(container.promote().await?, Outcome::Done);
    goes_on(&container).await?;
    container.kill(Signal::TERM).await?;
    assert_eq!(container.wait().await?.status.code(), 35);
    container.remove(RemoveOptions::default()).await?;
    Ok(())
}

/// At any moment of it. Who waited before is told as well.
async fn g16_what_ends_on_the_way_is_told_as_it_was() -> Check {
    let world = World::alone().await?;
    let mut random = Random(17);
    let (mut done, mut late) = (0, 0);
    for round in 0..24 {
        let container = world.started(world.script("sleep 0.04; echo last; exit 40")).await?;
        let waiting = container.wait_for(WaitCondition::Exited).await?;
        tokio::time::sleep(Duration::from_micros(random.below(60_000))).await;
        match tokio::time::timeout(PATIENCE, container.promote()).await? {
            Ok(outcome) => {
                assert_eq!(outcome, Outcome::Done, "round {round}");
                done += 1;
            }
            Err(error) => {
                assert_eq!(
                    error.kind(),
                    &ErrorKind::InvalidState,
                    "round {round}: {}",
                    error.report()
                );
                late += 1;
            }
        }
        for exit in [waiting, container.wait_for(WaitCondition::NotRunning).await?] {
            let exit = tokio::time::timeout(PATIENCE, exit).await??;
            assert_eq!(exit.status.code(), 40, "round {round}");
        }
        assert_eq!(logged(&container).await?, "last", "round {round}");
        container.remove(RemoveOptions::default()).await?;
    }
    println!("{done} were promoted, {late} had ended");
    let audit = world.engine.audit().await?;
    assert!(audit.findings.is_empty(), "{:?}", audit.findings);
    Ok(())
}

async fn g16_what_cannot_be_promoted_says_so() -> Check {
    let world = World::new().await?;
    let ended = world.started(world.script("true")).await?;
    ended.wait().await?;
    let refused = ended.promote().await.unwrap_err();
    assert_eq!(refused.kind(), &ErrorKind::InvalidState, "{refused}");
    ended.remove(RemoveOptions::default()).await?;
    let host = world.started(world.script("sleep 60")).await?;
    let spec = world
        .script("sleep 60")
        .pid_mode(longshore::NamespaceMode::Container(host.id().to_string()));
    let guest = world.started(spec).await?;
    for (container, kind) in [
        (&host, ErrorKind::Conflict),
        (&guest, ErrorKind::Unsupported { needs: String::new() }),
    ] {
        let refused = container.promote().await.unwrap_err();
        let same = std::mem::discriminant(refused.kind()) == std::mem::discriminant(&kind);
        assert!(same, "{refused}");
        assert_eq!(container.inspect().await?.state, ContainerState::Running);
    }
    guest.remove(FORCE).await?;
    host.remove(FORCE).await?;
    Ok(())
}

async fn g16_streams_stay_open_over_a_promotion() -> Check {
    let world = World::alone().await?;
    let script = "echo begun; while read line; do echo got $line; done; echo over; exit 36";
    let container = world.started(world.script(script).open_stdin(true)).await?;
    let id = container.id().to_string();
    let mut attached = container.attach(AttachOptions::default()).await?;
    let input = attached.input.take().expect("stdin is open");
    input.write("one\n").await?;
    read_until(&mut attached.output, "got one\n").await?;
    container.promote().await?;
    input.write("two\n").await?;
    read_until(&mut attached.output, "got two\n").await?;
    // From here on by another engine.
    input.detach();
    drop(attached);
    let World { engine, image, root } = world;
    drop((container, image));
    engine.close().await;
    let engine = Engine::open(root.path()).await?;
    let container = engine.container(&id).await?;
    let mut attached = container.attach(AttachOptions::default()).await?;
    let input = attached.input.take().expect("stdin is open");
    input.write("three\n").await?;
    read_until(&mut attached.output, "got three\n").await?;
    drop(input);
    read_until(&mut attached.output, "over\n").await?;
    assert_eq!(container.wait().await?.status.code(), 36);
    assert_eq!(logged(&container).await?, "begun\ngot one\ngot two\ngot three\nover");
    container.remove(RemoveOptions::default()).await?;
    engine.close().await;
    Ok(())
}

async fn g16_a_terminal_stays_over_a_promotion() -> Check {
    let world = World::alone().await?;
    let script = "while read line; do stty size; echo got $line; done";
    let spec = world.script(script).tty(true).open_stdin(true);
    let container = world.started(spec).await?;
    let id = container.id().to_string();
    container.promote().await?;
    let World { engine, image, root } = world;
    drop((container, image));
    engine.close().await;
    let engine = Engine::open(root.path()).await?;
    let container = engine.container(&id).await?;
    container.resize(30, 40).await?;
    let mut attached = container.attach(AttachOptions::default()).await?;
    let input = attached.input.take().expect("stdin is open");
    input.write("hello\n").await?;
    let heard = read_until(&mut attached.output, "got hello").await?;
    assert!(heard.contains("30 40"), "{heard}");
    container.remove(FORCE).await?;
    engine.close().await;
    Ok(())
}

async fn g16_volumes_of_a_promoted_container_stay() -> Check {
    let world = World::alone().await?;
    let script = "echo kept > /data/file; echo written; until cat /data/go 2>/dev/null; do sleep 0.05; done; sleep 60";
    let spec = world.script(script).mount(MountSpec::anonymous("/data"));
    let container = world.started(spec).await?;
    let id = container.id().to_string();
    until("it has written", async || Ok(logged(&container).await? == "written")).await?;
    container.promote().await?;
    let World { engine, image, root } = world;
    drop((container, image));
    engine.close().await;
    let engine = Engine::open(root.path()).await?;
    let container = engine.container(&id).await?;
    let out = container.exec(ExecSpec::new(["cat", "/data/file"])).output().await?;
    assert_eq!(text(&out.stdout), "kept");
    let options = RemoveOptions {
        force: true,
        volumes: true,
    };
    container.remove(options).await?;
    let audit = engine.audit().await?;
    assert!(audit.findings.is_empty(), "{:?}", audit.findings);
    assert!(no_volume_left(root.path())?);
    engine.close().await;
    Ok(())
}

fn no_volume_left(root: &Path) -> Result<bool, Stop> {
    match fs::read_dir(root.join("volumes")) {
        Ok(mut entries) => Ok(entries.all(|entry| entry.is_ok_and(|entry| entry.file_name().len() < 64))),
        Err(_) => Ok(true),
    }
}

async fn g16_another_process_may_ask_for_a_promotion() -> Check {
    let world = World::alone().await?;
    let container = world.started(world.script(COUNTING)).await?;
    let other = Engine::open(world.root.path()).await?;
    let theirs = other.container(container.id().as_str()).await?;
    assert_eq!(theirs.promote().await?, Outcome::Done);
    assert_eq!(container.promote().await?, Outcome::Already);
    goes_on(&theirs).await?;
    container.remove(FORCE).await?;
    drop(theirs);
    other.close().await;
    Ok(())
}

/// Also where a probe of its engine's runs at that moment: that one counts no more, and is ended after its time.
async fn g11_a_promoted_container_is_probed_by_its_shim() -> Check {
    let world = World::alone().await?;
    let (long, often) = (of_ours(47), Duration::from_millis(50));
    let check = HealthCheck::shell(format!("echo probed >> /probes; [ -e /ok ] || sleep {long}"))
        .interval(often)
        .start_interval(often)
        .timeout(Duration::from_millis(600))
        .retries(1);
    let script = world.script("touch /ok; trap 'exit 35' TERM; while :; do sleep 0.05; done");
    let container = world.started(script.health(check)).await?;
    let id = container.id().to_string();
    health_is(&container, HealthStatus::Healthy).await?;
    container
        .exec(ExecSpec::new(["sh", "-c", "rm /ok /probes"]))
        .output()
        .await?;
    until("a probe hangs", async || {
        let seen = container
            .exec(ExecSpec::new(["test", "-e", "/probes"]))
            .output()
            .await?;
        Ok(seen.status.success())
    })
    .await?;
    container.promote().await?;
    container.exec(ExecSpec::new(["touch", "/ok"])).output().await?;
    health_is(&container, HealthStatus::Healthy).await?;
    until("the probe that hung is ended", async || Ok(sleepers(&long) == 0)).await?;
    assert_eq!(health_of(&container).await?.status, HealthStatus::Healthy);
    let World { engine, image, root } = world;
    drop((container, image));
    engine.close().await;
    let engine = Engine::open(root.path()).await?;
    let container = engine.container(&id).await?;
    let before = health_of(&container).await?.log;
    until("it is probed", async || Ok(health_of(&container).await?.log != before)).await?;
    container.exec(ExecSpec::new(["rm", "/ok"])).output().await?;
    health_is(&container, HealthStatus::Unhealthy).await?;
    container.remove(FORCE).await?;
    engine.close().await;
    Ok(())
}

/// Its streams have no names, and go with the first. Everything else is as under any new shim.
async fn p30_a_promoted_container_gets_a_new_shim() -> Check {
    let world = World::alone().await?;
    let script = "trap '' PIPE; trap 'exit 35' TERM; echo begun; while :; do sleep 0.05; done";
    let container = world.started(world.script(script)).await?;
    let (id, pid) = (container.id().to_string(), container.inspect().await?.pid);
    until("it has begun", async || Ok(logged(&container).await? == "begun")).await?;
    container.promote().await?;
    let shim = end_shim(world.root.path(), &id)?;
    another_shim(world.root.path(), &container, &BTreeSet::from([shim])).await?;
    says(&container, "still there").await?;
    let World { engine, image, root } = world;
    drop((container, image));
    engine.close().await;
    let engine = Engine::open(root.path()).await?;
    let container = engine.container(&id).await?;
    let info = container.inspect().await?;
    assert_eq!((info.state, info.pid), (ContainerState::Running, pid));
    says(&container, "still there").await?;
    assert_eq!(container.stop(StopOptions::default()).await?, Outcome::Done);
    told(container.wait().await, 35)?;
    container.start().await?;
    until("its log goes on", async || {
        Ok(logged(&container).await? == "begun\nbegun")
    })
    .await?;
    container.remove(FORCE).await?;
    let audit = engine.audit().await?;
    assert!(audit.findings.is_empty(), "{:?}", audit.findings);
    engine.close().await;
    Ok(())
}

/// Its policy is its shim's from then on, and its next run has streams, a layer and a cgroup as any.
async fn g10_a_promoted_container_is_started_again_without_an_engine() -> Check {
    let world = World::alone().await?;
    let place = scratch::fresh("place");
    let script = "echo run; until rm /place/go 2>/dev/null; do sleep 0.05; done; exit 3";
    let spec = world
        .script(script)
        .bind(place.path(), "/place")
        .restart(RestartPolicy::OnFailure { max_retries: None });
    let container = world.started(spec).await?;
    let id = container.id().to_string();
    container.promote().await?;
    let World { engine, image, root } = world;
    drop((container, image));
    engine.close().await;
    for run in 0..2 {
        fs::write(place.path().join("go"), "")?;
        until(&format!("run {run} has ended, and the next begun"), async || {
            Ok(!place.path().join("go").exists())
        })
        .await?;
    }
    let engine = Engine::open(root.path()).await?;
    let container = engine.container(&id).await?;
    until("it runs for the third time", async || {
        Ok(logged(&container).await? == "run\nrun\nrun")
    })
    .await?;
    says(&container, "here").await?;
    container.stop(StopOptions::default()).await?;
    container.remove(RemoveOptions::default()).await?;
    let audit = engine.audit().await?;
    assert!(audit.findings.is_empty(), "{:?}", audit.findings);
    engine.close().await;
    Ok(())
}
