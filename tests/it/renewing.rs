//! Shims that were killed, and the new ones that come under their containers: nothing of a container shows that it had another.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use longshore::{
    AttachOptions, Container, ContainerExit, ContainerState, Engine, ErrorKind, ExecSpec, LogConfig, Outcome,
    RemoveOptions, RestartPolicy, Signal, StopOptions, WaitCondition,
};
use nix::sys::signal::{Signal as Number, kill};
use nix::unistd::Pid;

use crate::detached::{
    detached, events_of, kernel_tells_ends, left_behind, logged, read_until, shim_of, shims_of, show,
};
use crate::faults::{Random, filled_root, kills, no_container_left, role};
use crate::frame::{Check, Stop, block_on, fail, skip};
use crate::support::embedder::{Embedder, Role};
use crate::support::patience::{PATIENCE, until};
use crate::support::scratch;
use crate::support::world::{FORCE, World, text};
use crate::tests;

tests! { "renewing":
    waiting [
        p30_an_engine_is_killed_on_the_way_to_a_new_shim,
    ]
    waiting_async [
        p30_a_new_shim_under_a_container_that_goes_on,
        p30_shims_are_killed_while_they_take_over,
        p30_a_new_shim_writes_to_stdin_and_ends_with_its_container,
        p30_who_reads_and_writes_goes_on_under_a_new_shim,
        p30_engines_that_see_it_at_once_make_one_shim,
        p30_who_waits_while_another_makes_a_shim_is_told,
        p30_what_ends_while_a_shim_is_made_is_told_as_it_was_or_not_at_all,
        p30_an_engine_that_stands_in_tries_again,
        p30_a_stop_while_a_shim_dies_is_heard_by_all,
        p30_a_terminal_goes_with_its_shim_and_nothing_else,
        p30_what_minds_its_terminal_is_told_that_it_hung_up,
        g10_a_new_shim_starts_it_again_without_an_engine,
        g10_who_ended_it_by_hand_ended_it_under_a_new_shim_too,
        p30_a_shim_is_killed_between_two_runs,
    ]
}

/// What this binary does as a child.
pub const ROLES: &[(&str, Role)] = &[("look-again-and-again", |arguments| {
    block_on(role(look_again_and_again(&arguments[0], &arguments[1])))
})];

/// Whoever looks at a container that has lost its shim brings it another.
async fn look_again_and_again(root: &str, id: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    let container = engine.container(id).await?;
    println!("here");
    loop {
        container.inspect().await?;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn end(pid: u32) -> Check {
    match kill(Pid::from_raw(i32::try_from(pid)?), Number::SIGKILL) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Kills a container's shim, and says which that was.
pub fn end_shim(root: &Path, id: &str) -> Result<u32, Stop> {
    let Some(shim) = shim_of(root, id) else {
        return fail(format!("{id} has no shim"));
    };
    end(shim)?;
    Ok(shim)
}

/// Waits until it has another shim than these. A look at it is what brings it.
pub async fn another_shim(root: &Path, container: &Container, known: &BTreeSet<u32>) -> Result<u32, Stop> {
    let (id, mut found) = (container.id().as_str(), None);
    until("it has another shim", async || {
        container.inspect().await?;
        found = shim_of(root, id).filter(|shim| !known.contains(shim));
        Ok(found.is_some())
    })
    .await?;
    // One that an engine had begun which was killed may be gone by now, and then another comes.
    found.map_or_else(|| fail(format!("{id} has no other shim")), Ok)
}

async fn says(container: &Container, word: &str) -> Check {
    let out = container.exec(ExecSpec::new(["echo", word])).output().await?;
    assert_eq!(text(&out.stdout).trim(), word, "{}", text(&out.stderr));
    Ok(())
}

/// Counts until it is told to end.
const COUNTING: &str = "trap 'exit 35' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done";

/// Numbers that only grow: nothing was logged twice, and everything in its order.
async fn last_of_growing(container: &Container) -> Result<u32, Stop> {
    let all = logged(container).await?;
    let numbers: Vec<u32> = all.lines().map(str::parse).collect::<Result<_, _>>()?;
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    Ok(numbers.last().copied().unwrap_or(0))
}

/// By an engine that was connected, and by one that comes later; in either format; again and again.
async fn p30_a_new_shim_under_a_container_that_goes_on() -> Check {
    for (connected, driver) in [(true, "local"), (false, "json-file")] {
        let case = format!("{driver}, connected before: {connected}");
        let world = World::alone().await?;
        let spec = detached(world.script(COUNTING)).log(LogConfig::driver(driver));
        let started = world.started(spec).await?;
        let (id, pid) = (started.id().to_string(), started.inspect().await?.pid);
        let World { engine, image, root } = world;
        let engine = match connected {
            true => engine,
            false => {
                drop((started, image));
                engine.close().await;
                Engine::open(root.path()).await?
            }
        };
        let container = engine.container(&id).await?;
        // What it has written to files that the engine had made is its own.
        let mark = ["sh", "-c", "echo 10.1.2.3 mine >> /etc/hosts"];
        container.exec(ExecSpec::new(mark)).output().await?;
        let mut shims = BTreeSet::new();
        for round in 0..3 {
            let before = last_of_growing(&container).await?;
            shims.insert(end_shim(root.path(), &id)?);
            // At once: it waits for the new one.
            says(&container, "still there").await?;
            another_shim(root.path(), &container, &shims).await?;
            let info = container.inspect().await?;
            assert_eq!(
                (info.state, info.pid),
                (ContainerState::Running, pid),
                "{case}, {round}"
            );
            until("its log goes on", async || {
                Ok(last_of_growing(&container).await? > before + 3)
            })
            .await?;
        }
        let hosts = container.exec(ExecSpec::new(["cat", "/etc/hosts"])).output().await?;
        assert!(text(&hosts.stdout).contains("10.1.2.3 mine"), "{case}");
        let mut attached = container.attach(AttachOptions::default()).await?;
        read_until(&mut attached.output, "\n").await?;
        drop(attached);
        container.kill(Signal::TERM).await?;
        match (container.wait().await, kernel_tells_ends()?) {
            (Ok(exit), true) => assert_eq!(exit.status.code(), 35, "{case}"),
            (Err(error), false) => assert_eq!(error.kind(), &ErrorKind::Unavailable, "{case}: {error}"),
            (waited, _) => return fail(format!("{case}: {waited:?}")),
        }
        last_of_growing(&container).await?;
        let events = events_of(&engine, &id).await?;
        let deaths = events.iter().filter(|action| *action == "die").count();
        assert_eq!(deaths, 1, "{case}: {events:?}");
        container.remove(RemoveOptions::default()).await?;
        let audit = engine.audit().await?;
        assert!(audit.findings.is_empty(), "{case}: {:?}", audit.findings);
        drop(container);
        engine.close().await;
    }
    Ok(())
}

/// Its end as whoever waits is told of it: exactly, or, by older kernels, not at all.
pub fn told(waited: longshore::Result<ContainerExit>, code: i32) -> Check {
    match (waited, kernel_tells_ends()?) {
        (Ok(exit), true) => assert_eq!(exit.status.code(), code),
        (Err(error), false) => assert_eq!(error.kind(), &ErrorKind::Unavailable, "{error}"),
        (waited, _) => return fail(format!("{waited:?}")),
    }
    Ok(())
}

/// Attached before, and never again.
async fn p30_who_reads_and_writes_goes_on_under_a_new_shim() -> Check {
    let world = World::alone().await?;
    let script = "echo begun; while read line; do echo got $line; done; echo over; exit 36";
    let container = world.started(detached(world.script(script)).open_stdin(true)).await?;
    let id = container.id().to_string();
    let mut attached = container.attach(AttachOptions::default()).await?;
    let input = attached.input.take().expect("stdin is open");
    let mut shims = BTreeSet::new();
    for word in ["one", "two", "three"] {
        // What was printed before this process had the new shim's output is in the log alone.
        let again = async {
            loop {
                input.write(format!("{word}\n")).await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let expected = format!("got {word}\n");
        tokio::select! {
            said = read_until(&mut attached.output, &expected) => said.map(drop)?,
            failed = again => return failed,
        }
        shims.insert(end_shim(world.root.path(), &id)?);
        another_shim(world.root.path(), &container, &shims).await?;
    }
    // The last writer has closed it, and the shim that there is now is told.
    drop(input);
    told(tokio::time::timeout(PATIENCE, container.wait()).await?, 36)?;
    let log = logged(&container).await?;
    assert!(
        log.starts_with("begun\ngot one\n") && log.ends_with("got three\nover"),
        "{log}"
    );
    container.remove(RemoveOptions::default()).await?;
    Ok(())
}

/// All of them need it, and one makes it.
async fn p30_engines_that_see_it_at_once_make_one_shim() -> Check {
    let world = World::alone().await?;
    let started = world.started(detached(world.script(COUNTING))).await?;
    let (id, root) = (started.id().to_string(), world.root.path());
    let others = [Engine::open(root).await?, Engine::open(root).await?];
    let mut all = vec![started.clone()];
    for other in &others {
        all.push(other.container(&id).await?);
    }
    let mut shims = BTreeSet::new();
    for _ in 0..5 {
        shims.insert(end_shim(root, &id)?);
        let looks = all.iter().map(|container| says(container, "here"));
        futures_util::future::try_join_all(looks).await?;
        let shim = another_shim(root, &started, &shims).await?;
        until("there is one", async || Ok(shims_of(root, &id) == [shim])).await?;
        let before = last_of_growing(&started).await?;
        until("its log goes on", async || {
            Ok(last_of_growing(&started).await? > before + 3)
        })
        .await?;
        assert_eq!(shims_of(root, &id), [shim]);
    }
    all[1].kill(Signal::TERM).await?;
    for container in &all {
        told(tokio::time::timeout(PATIENCE, container.wait()).await?, 35)?;
    }
    started.remove(RemoveOptions::default()).await?;
    drop(all);
    for other in others {
        other.close().await;
    }
    Ok(())
}

/// It has not heard of that container before, and of its end from nobody else.
async fn p30_who_waits_while_another_makes_a_shim_is_told() -> Check {
    let world = World::alone().await?;
    let other = Engine::open(world.root.path()).await?;
    let place = scratch::fresh("place");
    let mut random = Random(32);
    for round in 0..16 {
        let go = format!("/place/{round}");
        let script = world.script(&format!("until [ -e {go} ]; do sleep 0.01; done; exit 39"));
        let container = world
            .started(detached(script).bind_read_only(place.path(), "/place"))
            .await?;
        let shim = end_shim(world.root.path(), container.id().as_str())?;
        until("its shim is gone", async || {
            Ok(!shims_of(world.root.path(), container.id().as_str()).contains(&shim))
        })
        .await?;
        let late = async {
            tokio::time::sleep(Duration::from_micros(random.below(30_000))).await;
            let theirs = other.container(container.id().as_str()).await?;
            theirs.wait_for(WaitCondition::Exited).await
        };
        let (looked, waiting) = futures_util::join!(container.inspect(), late);
        assert_eq!(looked?.state, ContainerState::Running, "round {round}");
        until("it has another shim", async || {
            Ok(shim_of(world.root.path(), container.id().as_str()).is_some())
        })
        .await?;
        fs::write(place.path().join(round.to_string()), "")?;
        told(tokio::time::timeout(PATIENCE, waiting?).await?, 39)?;
        container.remove(RemoveOptions::default()).await?;
    }
    other.close().await;
    Ok(())
}

/// A verb makes the shim, and may be refused, as the container has ended.
async fn p30_what_ends_while_a_shim_is_made_is_told_as_it_was_or_not_at_all() -> Check {
    let world = World::alone().await?;
    let place = scratch::fresh("place");
    let mut random = Random(33);
    let mut known = 0;
    for round in 0..16 {
        let go = format!("/place/{round}");
        let script = world.script(&format!("until [ -e {go} ]; do usleep 2000; done; echo last; exit 39"));
        let container = world
            .started(detached(script).bind_read_only(place.path(), "/place"))
            .await?;
        end_shim(world.root.path(), container.id().as_str())?;
        let after = Duration::from_micros(random.below(20_000));
        let ending = async {
            tokio::time::sleep(after).await;
            fs::write(place.path().join(round.to_string()), "")
        };
        let verb = container.exec(ExecSpec::new(["true"])).output();
        let (_, ended) = futures_util::join!(verb, ending);
        ended?;
        match tokio::time::timeout(PATIENCE, container.wait()).await? {
            Ok(exit) => {
                assert_eq!(exit.status.code(), 39, "round {round}");
                // What ended before an engine had its streams has taken along what was in them.
                let log = logged(&container).await?;
                assert!(log == "last" || log.is_empty(), "round {round}: {log}");
                known += 1;
            }
            Err(error) => assert_eq!(error.kind(), &ErrorKind::Unavailable, "round {round}: {error}"),
        }
        container.remove(RemoveOptions::default()).await?;
    }
    println!("{known} were known");
    let audit = world.engine.audit().await?;
    assert!(audit.findings.is_empty(), "{:?}", audit.findings);
    Ok(())
}

/// There is no room for a new shim's socket, and then there is.
async fn p30_an_engine_that_stands_in_tries_again() -> Check {
    let world = World::alone().await?;
    let container = world.started(detached(world.script(COUNTING))).await?;
    let (id, pid) = (container.id().as_str(), container.inspect().await?.pid);
    let socket = world.root.path().join("containers").join(id).join("shim/ctl");
    fs::remove_file(&socket)?;
    fs::create_dir(&socket)?;
    end_shim(world.root.path(), id)?;
    container.inspect().await?;
    let before = last_of_growing(&container).await?;
    until("its log goes on without a shim", async || {
        Ok(last_of_growing(&container).await? > before + 3)
    })
    .await?;
    assert!(shim_of(world.root.path(), id).is_none());
    fs::remove_dir(&socket)?;
    until("it has a shim", async || Ok(shim_of(world.root.path(), id).is_some())).await?;
    says(&container, "still there").await?;
    let before = last_of_growing(&container).await?;
    until("its log goes on under the shim", async || {
        Ok(last_of_growing(&container).await? > before + 3)
    })
    .await?;
    // The shim that was killed can have had one piece in its hands; from one to the other nothing was lost.
    let all = logged(&container).await?;
    let numbers: Vec<u32> = all.lines().map(str::parse).collect::<Result<_, _>>()?;
    let gaps = numbers.windows(2).filter(|pair| pair[0] + 1 != pair[1]).count();
    assert!(gaps <= 1, "{numbers:?}");
    let info = container.inspect().await?;
    assert_eq!((info.state, info.pid, info.error), (ContainerState::Running, pid, None));
    container.kill(Signal::TERM).await?;
    told(tokio::time::timeout(PATIENCE, container.wait()).await?, 35)?;
    container.remove(RemoveOptions::default()).await?;
    Ok(())
}

/// At any moment: the next that looks finds a container with a shim, or one that it can give one.
fn p30_an_engine_is_killed_on_the_way_to_a_new_shim() -> Check {
    let root = filled_root()?;
    let (embedder, id) = left_behind(root.path(), COUNTING, "no")?;
    drop(embedder);
    let mut random = Random(31);
    let count = kills().min(40);
    let mut pid = 0;
    for _ in 0..count {
        let mut embedder = Embedder::start("look-again-and-again", &[show(root.path()), &id])?;
        let said = embedder.line(PATIENCE)?;
        assert_eq!(said, "here");
        let Some(shim) = shim_of(root.path(), &id) else {
            return fail("it has no shim");
        };
        end(shim)?;
        std::thread::sleep(Duration::from_micros(random.below(20_000)));
        embedder.kill()?;
        block_on(async {
            let engine = Engine::open(root.path()).await?;
            let container = engine.container(&id).await?;
            another_shim(root.path(), &container, &BTreeSet::from([shim])).await?;
            let info = container.inspect().await?;
            assert!(info.state == ContainerState::Running && (pid == 0 || info.pid == Some(pid)));
            pid = info.pid.unwrap_or(0);
            says(&container, "still there").await?;
            engine.close().await;
            Ok::<_, Stop>(())
        })?;
    }
    block_on(async {
        let engine = Engine::open(root.path()).await?;
        let container = engine.container(&id).await?;
        let before = last_of_growing(&container).await?;
        until("its log goes on", async || {
            Ok(last_of_growing(&container).await? > before + 3)
        })
        .await?;
        // Each shim that was killed can have had one piece in its hands.
        let all = logged(&container).await?;
        let numbers: Vec<u32> = all.lines().map(str::parse).collect::<Result<_, _>>()?;
        let gaps = numbers.windows(2).filter(|pair| pair[0] + 1 != pair[1]).count();
        assert!(gaps <= count, "{gaps} gaps after {count} kills");
        container.kill(Signal::TERM).await?;
        told(tokio::time::timeout(PATIENCE, container.wait()).await?, 35)?;
        container.remove(RemoveOptions::default()).await?;
        let audit = engine.audit().await?;
        assert!(audit.findings.is_empty(), "{:?}", audit.findings);
        engine.close().await;
        Ok::<_, Stop>(())
    })?;
    no_container_left(root.path())
}

/// It is refused by nobody, and is the end: who waits is told, and no policy starts it again.
async fn p30_a_stop_while_a_shim_dies_is_heard_by_all() -> Check {
    let world = World::alone().await?;
    let other = Engine::open(world.root.path()).await?;
    for round in 0..8 {
        let script = world.script("trap 'exit 38' TERM; echo begun; while :; do sleep 0.05; done");
        let container = world.started(detached(script).restart(RestartPolicy::Always)).await?;
        until("it listens", async || Ok(logged(&container).await? == "begun")).await?;
        let theirs = other.container(container.id().as_str()).await?;
        // One that was connected before, and one that was not.
        if round % 2 == 0 {
            says(&theirs, "here").await?;
        }
        let waits = [
            container.wait_for(WaitCondition::Exited).await?,
            theirs.wait_for(WaitCondition::Exited).await?,
        ];
        end_shim(world.root.path(), container.id().as_str())?;
        let stopping = if round % 4 < 2 { &container } else { &theirs };
        assert_eq!(
            stopping.stop(StopOptions::default()).await?,
            Outcome::Done,
            "round {round}"
        );
        for wait in waits {
            told(tokio::time::timeout(PATIENCE, wait).await?, 38)?;
        }
        for each in [&container, &theirs] {
            assert_eq!(each.inspect().await?.state, ContainerState::Exited, "round {round}");
        }
        drop(theirs);
        container.remove(RemoveOptions::default()).await?;
    }
    other.close().await;
    Ok(())
}

/// Nobody else had it. What minds goes on, and can be ruled.
async fn p30_a_terminal_goes_with_its_shim_and_nothing_else() -> Check {
    let world = World::alone().await?;
    let script = "trap '' HUP; trap 'exit 37' TERM; echo begun; while :; do sleep 0.05; done";
    let container = world.started(detached(world.script(script)).tty(true)).await?;
    let id = container.id().to_string();
    until("it has begun", async || {
        Ok(logged(&container).await?.starts_with("begun"))
    })
    .await?;
    container.resize(30, 100).await?;
    let shim = end_shim(world.root.path(), &id)?;
    another_shim(world.root.path(), &container, &BTreeSet::from([shim])).await?;
    says(&container, "still there").await?;
    let refused = container.resize(40, 120).await.unwrap_err();
    assert_eq!(refused.kind(), &ErrorKind::InvalidState);
    assert!(refused.to_string().contains("has lost its terminal"), "{refused}");
    assert_eq!(container.stop(StopOptions::default()).await?, Outcome::Done);
    told(container.wait().await, 37)?;
    container.start().await?;
    container.resize(40, 120).await?;
    container.remove(FORCE).await?;
    Ok(())
}

/// It may do before its end what it has to do, and is looked after meanwhile. Who waits is told how it ended.
async fn p30_what_minds_its_terminal_is_told_that_it_hung_up() -> Check {
    let world = World::alone().await?;
    let place = scratch::fresh("place");
    let script = "trap 'touch /place/heard; until [ -e /place/go ]; do sleep 0.05; done; exit 41' HUP; \
                  echo begun; while :; do sleep 0.05; done";
    let spec = detached(world.script(script)).bind(place.path(), "/place").tty(true);
    let container = world.started(spec).await?;
    let id = container.id().to_string();
    until("it has begun", async || {
        Ok(logged(&container).await?.starts_with("begun"))
    })
    .await?;
    let waiting = container.wait_for(WaitCondition::Exited).await?;
    let shim = end_shim(world.root.path(), &id)?;
    until("it has heard of it", async || Ok(place.path().join("heard").exists())).await?;
    another_shim(world.root.path(), &container, &BTreeSet::from([shim])).await?;
    says(&container, "still there").await?;
    fs::write(place.path().join("go"), "")?;
    told(tokio::time::timeout(PATIENCE, waiting).await?, 41)?;
    let info = container.inspect().await?;
    assert_eq!((info.state, info.error), (ContainerState::Exited, None));
    let events = events_of(&world.engine, &id).await?;
    assert_eq!(events.iter().filter(|action| *action == "die").count(), 1, "{events:?}");
    // Its next run has a terminal of its own.
    for name in ["heard", "go"] {
        fs::remove_file(place.path().join(name))?;
    }
    container.start().await?;
    container.resize(40, 120).await?;
    container.remove(FORCE).await?;
    Ok(())
}

/// At any moment of it: the container is never touched, and has a shim in the end.
async fn p30_shims_are_killed_while_they_take_over() -> Check {
    let world = World::alone().await?;
    let container = world.started(detached(world.script(COUNTING))).await?;
    let (id, pid) = (container.id().to_string(), container.inspect().await?.pid);
    let mut random = Random(30);
    for _ in 0..12 {
        until("it has a shim", async || {
            container.inspect().await?;
            Ok(shim_of(world.root.path(), &id).is_some())
        })
        .await?;
        // What was there a moment ago may be one that was killed in the last round.
        if let Some(shim) = shim_of(world.root.path(), &id) {
            end(shim)?;
        }
        container.inspect().await?;
        tokio::time::sleep(Duration::from_micros(random.below(20_000))).await;
        if let Some(next) = shim_of(world.root.path(), &id) {
            end(next)?;
        }
        let info = container.inspect().await?;
        assert_eq!((info.state, info.pid), (ContainerState::Running, pid));
    }
    until("commands run in it", async || {
        Ok(container.exec(ExecSpec::new(["true"])).output().await.is_ok())
    })
    .await?;
    let before = last_of_growing(&container).await?;
    until("its log goes on", async || {
        Ok(last_of_growing(&container).await? > before)
    })
    .await?;
    container.kill(Signal::TERM).await?;
    if kernel_tells_ends()? {
        assert_eq!(container.wait().await?.status.code(), 35);
    }
    container.remove(FORCE).await?;
    Ok(())
}

/// Who had not read its stdin to the end reads on. The cgroup goes with the end, as it would have.
async fn p30_a_new_shim_writes_to_stdin_and_ends_with_its_container() -> Check {
    if !kernel_tells_ends()? {
        return skip("a kernel that tells how processes of others have ended: 6.15");
    }
    let world = World::alone().await?;
    let place = scratch::fresh("place");
    let script = "until [ -e /place/go ]; do sleep 0.05; done; read line; echo got $line; exit 36";
    let spec = detached(world.script(script))
        .bind_read_only(place.path(), "/place")
        .open_stdin(true);
    let container = world.started(spec).await?;
    let shim = end_shim(world.root.path(), container.id().as_str())?;
    let shim = another_shim(world.root.path(), &container, &BTreeSet::from([shim])).await?;
    let mut attached = container.attach(AttachOptions::default()).await?;
    let input = attached.input.take().expect("stdin is open");
    input.write("a word\n").await?;
    fs::write(place.path().join("go"), "")?;
    read_until(&mut attached.output, "got a word\n").await?;
    assert_eq!(container.wait().await?.status.code(), 36);
    until("its shim is gone", async || {
        Ok(!Path::new(&format!("/proc/{shim}")).exists())
    })
    .await?;
    container.remove(RemoveOptions::default()).await?;
    let audit = world.engine.audit().await?;
    assert!(audit.findings.is_empty(), "{:?}", audit.findings);
    Ok(())
}

/// The new shim knows the policy, and needs nobody to hold to it.
async fn g10_a_new_shim_starts_it_again_without_an_engine() -> Check {
    let world = World::alone().await?;
    let place = scratch::fresh("place");
    let script = "echo run; until rm /place/go 2>/dev/null; do sleep 0.05; done; exit 3";
    let spec = detached(world.script(script))
        .bind(place.path(), "/place")
        .restart(RestartPolicy::OnFailure { max_retries: None });
    let container = world.started(spec).await?;
    let shim = end_shim(world.root.path(), container.id().as_str())?;
    another_shim(world.root.path(), &container, &BTreeSet::from([shim])).await?;
    let id = container.id().to_string();
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
    container.stop(StopOptions::default()).await?;
    assert_eq!(container.inspect().await?.state, ContainerState::Exited);
    container.remove(RemoveOptions::default()).await?;
    engine.close().await;
    Ok(())
}

/// The shim that was told so is gone, and with it whoever told.
async fn g10_who_ended_it_by_hand_ended_it_under_a_new_shim_too() -> Check {
    let world = World::alone().await?;
    let place = scratch::fresh("place");
    let script = "trap 'touch /place/heard; until [ -e /place/go ]; do sleep 0.05; done; exit 38' TERM; \
                  touch /place/up; while :; do sleep 0.05; done";
    let spec = detached(world.script(script))
        .bind(place.path(), "/place")
        .restart(RestartPolicy::Always);
    let container = world.started(spec).await?;
    let id = container.id().to_string();
    until("it listens", async || Ok(place.path().join("up").exists())).await?;
    container.kill(Signal::TERM).await?;
    until("it has heard", async || Ok(place.path().join("heard").exists())).await?;
    let World { engine, image, root } = world;
    drop((container, image));
    engine.close().await;
    let shim = end_shim(root.path(), &id)?;
    let engine = Engine::open(root.path()).await?;
    let container = engine.container(&id).await?;
    let shim = another_shim(root.path(), &container, &BTreeSet::from([shim])).await?;
    fs::write(place.path().join("go"), "")?;
    told(tokio::time::timeout(PATIENCE, container.wait()).await?, 38)?;
    until("its shim is gone", async || {
        Ok(!Path::new(&format!("/proc/{shim}")).exists())
    })
    .await?;
    assert_eq!(container.inspect().await?.state, ContainerState::Exited);
    container.remove(RemoveOptions::default()).await?;
    engine.close().await;
    Ok(())
}

/// Nothing runs that a new shim could look after. What is known of the last run is known still, and nothing is told twice.
async fn p30_a_shim_is_killed_between_two_runs() -> Check {
    let world = World::alone().await?;
    let place = scratch::fresh("place");
    let script = "[ -e /place/stay ] && exec sleep 600; exit 3";
    let spec = detached(world.script(script))
        .bind_read_only(place.path(), "/place")
        .restart(RestartPolicy::OnFailure { max_retries: None });
    let container = world.started(spec).await?;
    let id = container.id().to_string();
    // From then on it pauses for three seconds and longer; for a moment it is called so, too, while its next run is set up.
    let mut looks = 0;
    until("it pauses", async || {
        let info = container.inspect().await?;
        let so = info.state == ContainerState::Restarting && info.restart_count >= 5;
        looks = if so { looks + 1 } else { 0 };
        Ok(looks >= 20)
    })
    .await?;
    let waiting = container.wait_for(WaitCondition::NotRunning).await?;
    end_shim(world.root.path(), &id)?;
    until("it has ended", async || {
        Ok(container.inspect().await?.state == ContainerState::Exited)
    })
    .await?;
    let exit = tokio::time::timeout(PATIENCE, waiting).await??;
    assert_eq!(exit.status.code(), 3);
    assert_eq!(container.wait().await?.status.code(), 3);
    // Of several ends that an engine sees at once it tells the last.
    let runs = container.inspect().await?.restart_count + 1;
    let events = events_of(&world.engine, &id).await?;
    let deaths = events.iter().filter(|action| *action == "die").count();
    assert!(deaths <= usize::try_from(runs)?, "{events:?}");
    fs::write(place.path().join("stay"), "")?;
    let supervising = Engine::builder(world.root.path()).supervise(true).open().await?;
    until("it runs again", async || {
        Ok(container.inspect().await?.state == ContainerState::Running)
    })
    .await?;
    supervising.close().await;
    container.remove(FORCE).await?;
    let audit = world.engine.audit().await?;
    assert!(audit.findings.is_empty(), "{:?}", audit.findings);
    Ok(())
}
