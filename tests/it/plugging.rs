//! Embedders that are killed while containers join and leave networks, and networks come and go: nothing of theirs is left, and
//! whoever opens the root next is held up by nothing.

use std::path::Path;
use std::time::Duration;

use longshore::networks::NetworkSpec;
use longshore::types::EndpointSpec;
use longshore::{ContainerSpec, Engine, NetworkMode};

use crate::faults::{Random, filled_root, kills, role};
use crate::frame::{Check, block_on};
use crate::kills::kill_again_and_again;
use crate::support::embedder::{Embedder, Role};
use crate::support::patience::PATIENCE;
use crate::support::world::FORCE;
use crate::tests;

tests! { "plugging":
    kernel [
        i14_kills_during_connects_leave_nothing,
        i14_who_comes_after_a_kill_joins_while_that_is_cleared_up,
    ]
}

/// What this binary does as a child.
pub const ROLES: &[(&str, Role)] = &[
    ("plug-forever", |arguments| block_on(role(plug_forever(&arguments[0])))),
    ("join-once", |arguments| block_on(role(join_once(&arguments[0])))),
];

fn on_bridge() -> ContainerSpec {
    ContainerSpec::image("busybox").network(NetworkMode::Named("bridge".into()))
}

async fn plug_forever(root: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    let (networks, containers) = (engine.networks(), engine.containers());
    println!("open");
    let container = engine.run(on_bridge().command(["sleep", "1000"])).await?;
    for number in 0.. {
        let name = format!("fleeting-{}-{number}", std::process::id());
        networks.create(NetworkSpec::bridge(&name)).await?;
        containers
            .connect(container.id().as_str(), &name, EndpointSpec::default())
            .await?;
        let beside = engine
            .run(
                on_bridge()
                    .endpoint(&name, EndpointSpec::default())
                    .command(["sleep", "1000"]),
            )
            .await?;
        containers.disconnect(container.id().as_str(), &name).await?;
        beside.remove(FORCE).await?;
        networks.remove(&name).await?;
    }
    Ok(())
}

fn i14_kills_during_connects_leave_nothing() -> Check {
    let root = filled_root()?;
    kill_again_and_again(
        root.path(),
        "plug-forever",
        &[],
        Duration::from_millis(250),
        0x5eed_0814,
    )
}

/// Its first container's way onto a network is begun before the root is cleared up, and both need the same of the helper.
async fn join_once(root: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    let output = engine.run(on_bridge().command(["echo", "joined"])).output().await?;
    println!("{}", String::from_utf8_lossy(&output.stdout).trim());
    engine.close().await;
    Ok(())
}

fn i14_who_comes_after_a_kill_joins_while_that_is_cleared_up() -> Check {
    let root = filled_root()?;
    let place = show(root.path());
    let mut random = Random(0x5eed_1814);
    for round in 0..kills().min(60) {
        let mut embedder = Embedder::start("plug-forever", &[place])?;
        assert_eq!(embedder.line(PATIENCE)?, "open");
        std::thread::sleep(Duration::from_micros(random.below(150_000)));
        embedder.kill()?;
        drop(embedder);
        let next = Embedder::start("join-once", &[place])?;
        assert_eq!(next.line(PATIENCE)?, "joined", "after kill {round}");
        assert_eq!(next.finish()?, 0);
    }
    Ok(())
}

fn show(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}
