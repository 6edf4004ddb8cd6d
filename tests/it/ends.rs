//! The end of a container that goes with it, as the handle of its run tells it: at once, late, again, to every clone.

use std::time::Duration;

use longshore::types::Signal;
use longshore::{Container, ContainerSpec, Engine, ErrorKind, StopOptions, WaitCondition};

use crate::frame::{Check, Stop, fail};
use crate::remote::Pair;
use crate::support::runtime;
use crate::support::world::World;
use crate::tests;

tests! { "ends":
    kernel_async [
        g2_the_handle_of_a_run_tells_the_end_of_what_is_gone,
        g2_the_handle_of_a_run_tells_the_last_of_several_ends,
        g2_the_handle_of_a_run_tells_its_end_over_the_api,
        g2_handles_of_what_is_gone_hold_no_connection,
    ]
}

/// Until nobody knows the container any more.
async fn gone(engine: &Engine, container: &Container) -> Check {
    for _ in 0..400 {
        match engine.container(container.id().as_str()).await {
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(_) => tokio::time::sleep(Duration::from_millis(25)).await,
        }
    }
    fail("a container that was to go with its end is there ten seconds later")
}

/// What every way of asking says once the container is gone.
async fn tells(container: &Container, code: i32) -> Check {
    let clone = container.clone();
    let both = tokio::join!(container.wait(), clone.wait());
    assert_eq!((both.0?.status.code(), both.1?.status.code()), (code, code));
    for condition in [WaitCondition::Exited, WaitCondition::NotRunning, WaitCondition::Removed] {
        let exit = container.wait_for(condition).await?.await?;
        assert_eq!(exit.status.code(), code, "{condition:?}");
    }
    // There is none to come.
    let next = match container.wait_for(WaitCondition::NextExit).await {
        Ok(next) => next.await,
        Err(error) => Err(error),
    };
    let next = next.expect_err("another end of what is gone");
    assert!(next.is_not_found(), "{}", next.report());
    let hasty = container.within(Duration::from_secs(30)).wait().await?;
    assert_eq!(hasty.status.code(), code, "with a deadline");
    Ok(())
}

fn going(world: &World, script: &str) -> ContainerSpec {
    world.script(script).auto_remove(true)
}

async fn g2_the_handle_of_a_run_tells_the_end_of_what_is_gone() -> Check {
    let world = World::new().await?;
    for code in 0..40i32 {
        let container = world.started(going(&world, &format!("exit {code}"))).await?;
        // Asked for now and again, the end comes in the middle of it.
        if code % 2 == 0 {
            assert_eq!(container.wait().await?.status.code(), code);
        }
        if code % 4 == 0 {
            gone(&world.engine, &container).await?;
            tells(&container, code).await?;
        }
    }
    let killed = world.started(going(&world, "exec sleep 600")).await?;
    killed.kill(Signal::KILL).await?;
    gone(&world.engine, &killed).await?;
    assert_eq!(killed.wait().await?.status.signal(), Some(9));
    // A handle that was not there from the first has nothing to tell.
    let long = world.started(going(&world, "exec sleep 600")).await?;
    let other = world.engine.container(long.id().as_str()).await?;
    long.stop(StopOptions {
        timeout: Some(Duration::ZERO),
        ..StopOptions::default()
    })
    .await?;
    gone(&world.engine, &long).await?;
    let error = other.wait().await.expect_err("the end of what is gone");
    assert_eq!(error.kind(), &ErrorKind::NotFound);
    let code = long.wait().await?.status.code();
    // Whoever is the first of no namespace may end by the signal that comes before.
    assert!(
        code == 137 || (code == 143 && runtime::chosen() == Some("chroot")),
        "{code}"
    );
    Ok(())
}

async fn g2_the_handle_of_a_run_tells_the_last_of_several_ends() -> Check {
    let world = World::new().await?;
    // The first run leaves a mark in its layer, and ends when it is told to; the second ends by itself.
    let script = "if test -e /again; then exit 5; fi; trap 'exit 4' TERM; touch /again; while :; do sleep 0.05; done";
    let container = world.started(going(&world, script)).await?;
    for _ in 0..200 {
        if container.stat_path("/again").await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    container.restart(StopOptions::default()).await?;
    gone(&world.engine, &container).await?;
    tells(&container, 5).await
}

async fn g2_the_handle_of_a_run_tells_its_end_over_the_api() -> Check {
    let pair = Pair::new().await?;
    for code in 1..12i32 {
        let container = pair.far.run(going(&pair.world, &format!("exit {code}"))).await?;
        match code % 3 {
            0 => {}
            1 => gone(&pair.far, &container).await?,
            // At whatever moment.
            _ => tokio::time::sleep(Duration::from_millis(code.unsigned_abs().into())).await,
        }
        assert_eq!(container.wait().await?.status.code(), code);
        gone(&pair.far, &container).await?;
        tells(&container, code).await?;
    }
    pair.end().await
}

/// Connections of this process, of either end, once those that are being closed are.
async fn sockets() -> Result<usize, Stop> {
    let mut seen = Vec::new();
    for _ in 0..100 {
        let entries = std::fs::read_dir("/proc/self/fd")?.flatten();
        let targets = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        seen.push(
            targets
                .filter(|target| target.to_string_lossy().starts_with("socket:"))
                .count(),
        );
        if seen.len() > 4 && seen[seen.len() - 4..].iter().all(|count| Some(count) == seen.last()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(seen.last().copied().unwrap_or(0))
}

async fn g2_handles_of_what_is_gone_hold_no_connection() -> Check {
    let pair = Pair::new().await?;
    let warm = pair.far.run(going(&pair.world, "exit 0")).await?;
    gone(&pair.far, &warm).await?;
    let before = sockets().await?;
    let mut handles = Vec::new();
    for _ in 0..20 {
        handles.push(pair.far.run(going(&pair.world, "exit 6")).await?);
    }
    for handle in &handles {
        gone(&pair.far, handle).await?;
    }
    let now = sockets().await?;
    assert!(
        now < before + 5,
        "{before} sockets before twenty runs, {now} after their ends"
    );
    for handle in &handles {
        assert_eq!(handle.wait().await?.status.code(), 6);
    }
    // One that runs lets go of its own with its last handle.
    let calm = sockets().await?;
    let long = pair.far.run(going(&pair.world, "exec sleep 600")).await?;
    let (id, held) = (long.id().clone(), sockets().await?);
    assert!(held > calm, "nothing waits for the end: {calm} sockets, {held} with it");
    drop(long);
    let let_go = sockets().await?;
    assert!(let_go < held, "a dropped handle still holds its connection");
    pair.far
        .containers()
        .remove(id.as_str(), longshore::RemoveOptions::force())
        .await?;
    pair.end().await
}
