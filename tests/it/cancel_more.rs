//! Futures that are dropped, as in `cancel`: the verbs on containers that run, and images on their way out and in.

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use longshore::images::{ByteStream, RemoveImageOptions};
use longshore::types::{Filter, Signal};
use longshore::{ContainerState, ExecSpec, Limits, PruneAll, StopOptions};

use crate::cancel::{Drop, Scene, cleared_up, complete_or_absent, drop_value, each_drop, small_image, under};
use crate::frame::{Check, Stop, skip};
use crate::support::image;
use crate::support::registry::Registry;
use crate::support::scratch;
use crate::support::world::{FORCE, source};
use crate::tests;

tests! { "cancel_more":
    kernel_async [
        a9_a_dropped_restart,
        a9_a_dropped_pause_or_unpause,
        a9_a_dropped_rename,
        a9_a_dropped_update,
        a9_a_dropped_exec,
        a9_a_dropped_top_or_prune,
        a9_a_dropped_push,
        a9_a_dropped_save,
        a9_a_dropped_load,
        a9_a_dropped_pull_from_an_archive,
        a9_a_dropped_import,
    ]
}

async fn a9_a_dropped_restart() -> Check {
    let scene = Scene::new().await?;
    each_drop(async |drop| {
        let spec = scene.sleeper().stop_signal(Signal::KILL);
        scene
            .on_container(drop, spec, true, |container| {
                Box::pin(async move { container.restart(StopOptions::default()).await.map(drop_value) })
            })
            .await
    })
    .await
}

/// Where nothing can be paused, nothing can be dropped while it is.
async fn can_pause(scene: &Scene) -> Check {
    let container = scene.world.started(scene.sleeper()).await?;
    let paused = container.pause().await;
    container.remove(FORCE).await?;
    match paused {
        Err(error) if error.is_unsupported() => skip(error.report()),
        other => Ok(other?),
    }
}

async fn a9_a_dropped_pause_or_unpause() -> Check {
    let scene = Scene::new().await?;
    can_pause(&scene).await?;
    each_drop(async |drop| {
        scene
            .on_container(drop, scene.sleeper(), true, |container| {
                Box::pin(async move { container.pause().await })
            })
            .await
    })
    .await?;
    each_drop(async |drop| {
        let container = scene.world.started(scene.sleeper()).await?;
        container.pause().await?;
        let waking = container.clone();
        let ended = under(scene.engine(), drop, Box::pin(async move { waking.unpause().await })).await?;
        let state = container.inspect().await?.state;
        assert!(
            matches!(state, ContainerState::Running | ContainerState::Paused),
            "{drop:?}: {state:?}"
        );
        assert!(!ended || state == ContainerState::Running, "{drop:?}");
        container.remove(FORCE).await?;
        scene.nothing_is_left().await?;
        Ok(ended)
    })
    .await
}

async fn a9_a_dropped_rename() -> Check {
    let scene = Scene::new().await?;
    each_drop(async |drop| {
        let container = scene.engine().create(scene.sleeper().name("before")).await?;
        let renaming = container.clone();
        let ended = under(
            scene.engine(),
            drop,
            Box::pin(async move { renaming.rename("after").await }),
        )
        .await?;
        container.remove(FORCE).await?;
        // Whichever name it had in the end, both are free again.
        for name in ["before", "after"] {
            let again = scene.engine().create(scene.sleeper().name(name)).await?;
            again.remove(FORCE).await?;
        }
        scene.nothing_is_left().await?;
        Ok(ended)
    })
    .await
}

async fn a9_a_dropped_update() -> Check {
    let scene = Scene::new().await?;
    let limits = |pids| {
        let mut limits = Limits::default();
        limits.pids = Some(pids);
        limits
    };
    let limited = || scene.sleeper().pids_limit(60);
    match scene.engine().run(limited()).await {
        Err(error) if error.is_unsupported() => return skip(error.report()),
        other => other?.remove(FORCE).await?,
    };
    each_drop(async |drop| {
        scene
            .on_container(drop, limited(), true, |container| {
                Box::pin(async move { container.update(limits(50)).await.map(drop_value) })
            })
            .await
    })
    .await
}

async fn a9_a_dropped_exec() -> Check {
    let scene = Scene::new().await?;
    each_drop(async |drop| {
        scene
            .on_container(drop, scene.sleeper(), true, |container| {
                Box::pin(async move {
                    let output = container.exec(ExecSpec::new(["echo", "out"])).output().await?;
                    assert_eq!(output.stdout, b"out\n");
                    Ok(())
                })
            })
            .await
    })
    .await
}

async fn a9_a_dropped_top_or_prune() -> Check {
    let scene = Scene::new().await?;
    each_drop(async |drop| {
        scene
            .on_container(drop, scene.sleeper(), true, |container| {
                Box::pin(async move { container.top(&[]).await.map(drop_value) })
            })
            .await
    })
    .await?;
    for everything in [false, true] {
        each_drop(|drop| a_dropped_prune(&scene, drop, everything)).await?;
    }
    Ok(())
}

async fn a_dropped_prune(scene: &Scene, drop: Drop, everything: bool) -> Result<bool, Stop> {
    let container = scene.engine().create(scene.sleeper()).await?;
    let engine = scene.engine().clone();
    let prune = async move {
        match everything {
            true => engine.prune(PruneAll::new().volumes()).await.map(drop_value),
            false => engine.containers().prune(Filter::new()).await.map(drop_value),
        }
    };
    let ended = under(scene.engine(), drop, Box::pin(prune)).await?;
    match container.remove(FORCE).await {
        Err(error) if !error.is_not_found() => return Err(error.into()),
        _ => {}
    }
    scene.nothing_is_left().await?;
    Ok(ended)
}

async fn a9_a_dropped_push() -> Check {
    let scene = Scene::new().await?;
    let registry = Registry::plain()?;
    let tries = std::cell::Cell::new(0);
    each_drop(async |drop| {
        tries.set(tries.get() + 1);
        let name = registry.reference(&format!("try-{}/busybox:1", tries.get()));
        scene.world.image.tag(&name.parse()?).await?;
        let (engine, to) = (scene.engine().clone(), name.clone());
        let push = async move { engine.push(to).await.map(drop_value) };
        let ended = under(scene.engine(), drop, Box::pin(push)).await?;
        // It can be pushed whole, whatever the first try left in the registry.
        scene.engine().push(&name).await?;
        let untag = RemoveImageOptions::default();
        scene.engine().images().remove(&name, untag).await?;
        scene.nothing_is_left().await?;
        Ok(ended)
    })
    .await
}

/// Reads a stream to its end.
async fn whole(mut stream: ByteStream) -> longshore::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes)
}

fn stream_of(bytes: &Bytes) -> ByteStream {
    let starts = (0..bytes.len()).step_by(64 << 10);
    let pieces: Vec<_> = starts
        .map(|at| Ok(bytes.slice(at..bytes.len().min(at + (64 << 10)))))
        .collect();
    stream::iter(pieces).boxed()
}

async fn a9_a_dropped_save() -> Check {
    let scene = Scene::new().await?;
    let image = scene.world.image.id().to_string();
    each_drop(async |drop| {
        let image = image.clone();
        scene
            .on_engine(drop, |engine| {
                Box::pin(async move { whole(engine.save([image]).await?).await.map(drop_value) })
            })
            .await
    })
    .await
}

/// An archive of an image that the scene's engine does not have.
async fn archive(scene: &Scene) -> Result<Bytes, Stop> {
    let dir = scratch::fresh("layout");
    let image = scene.engine().pull(source(&small_image(dir.path())?)).await?;
    image.tag(&"archived:1".parse()?).await?;
    let bytes = whole(scene.engine().save(["archived:1"]).await?).await?;
    image.remove(RemoveImageOptions::default().force(true)).await?;
    scene.nothing_is_left().await?;
    Ok(bytes.into())
}

/// What came is complete or absent, and taken away again.
async fn settled(scene: &Scene, ended: bool) -> Check {
    complete_or_absent(scene, ended).await?;
    cleared_up(scene).await
}

async fn a9_a_dropped_load() -> Check {
    let scene = Scene::new().await?;
    let bytes = archive(&scene).await?;
    each_drop(async |drop| {
        let (engine, bytes) = (scene.engine().clone(), stream_of(&bytes));
        let load = async move { engine.load(bytes).await.map(drop_value) };
        let ended = under(scene.engine(), drop, Box::pin(load)).await?;
        settled(&scene, ended).await?;
        Ok(ended)
    })
    .await
}

async fn a9_a_dropped_pull_from_an_archive() -> Check {
    let scene = Scene::new().await?;
    let dir = scratch::fresh("archive");
    let file = dir.path().join("archive.tar");
    std::fs::write(&file, archive(&scene).await?)?;
    let from = format!("docker-archive:{}", file.display());
    each_drop(async |drop| {
        let (engine, from) = (scene.engine().clone(), from.clone());
        let pull = async move { engine.pull(from).await.map(drop_value) };
        let ended = under(scene.engine(), drop, Box::pin(pull)).await?;
        settled(&scene, ended).await?;
        Ok(ended)
    })
    .await
}

async fn a9_a_dropped_import() -> Check {
    let scene = Scene::new().await?;
    let files = image::Files::new().file("made", 0o644, "x".repeat(100_000));
    let bytes = Bytes::from(files.tar()?);
    each_drop(async |drop: Drop| {
        let (engine, bytes) = (scene.engine().clone(), stream_of(&bytes));
        let import = async move { engine.import(bytes).await.map(drop_value) };
        let ended = under(scene.engine(), drop, Box::pin(import)).await?;
        settled(&scene, ended).await?;
        Ok(ended)
    })
    .await
}
