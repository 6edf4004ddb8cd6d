//! Volumes that one of Docker's volume plugins keeps, which may misbehave.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use longshore::volumes::{PluginPlaces, RemoveVolumeOptions, VolumePlugin, VolumeScope};
use longshore::{CreateVolume, Engine, ErrorKind, Filter};
use serde_json::{Value, json};

use crate::frame::{Check, Stop, fail};
use crate::support::patience::until;
use crate::support::plugin::{Mischief, Plugin};
use crate::support::scratch;
use crate::support::world::{FORCE, World};
use crate::tests;

tests! { "plugins":
    kernel_async [
        j5_a_plugin_keeps_volumes,
        j5_a_plugin_passes_the_suite,
        j5_plugins_are_found_by_name,
        j5_a_plugin_that_misbehaves,
        j5_a_plugin_that_hangs,
        j5_nobody_is_there,
        j5_what_a_plugin_had_before_stays,
    ]
}

/// Less than anything here takes, if it is answered at all.
const HASTY: Duration = Duration::from_millis(300);
const KEEPER: &str = "keeper";

async fn engine_with(world: &World, plugin: VolumePlugin) -> Result<Engine, Stop> {
    let builder = Engine::builder(world.root.path()).with_volume_driver(KEEPER, Arc::new(plugin));
    Ok(builder.open().await?)
}

fn at(plugin: &Plugin) -> VolumePlugin {
    VolumePlugin::at(KEEPER, &plugin.socket)
}

fn named(name: &str) -> CreateVolume {
    CreateVolume::named(name).driver(KEEPER)
}

async fn names(engine: &Engine) -> Result<Vec<String>, Stop> {
    let all = engine.volumes().list(Filter::new()).await?;
    Ok(all.into_iter().map(|volume| volume.name).collect())
}

async fn j5_a_plugin_keeps_volumes() -> Check {
    let world = World::alone().await?;
    let plugin = Plugin::serve()?;
    let engine = engine_with(&world, at(&plugin)).await?;
    let volume = engine.create_volume(named("data").option("size", "7")).await?;
    assert_eq!(plugin.options("data"), json!({"size": "7"}));
    assert_eq!(
        plugin.calls(),
        ["Plugin.Activate", "VolumeDriver.Get data", "VolumeDriver.Create data"]
    );
    let info = volume.inspect().await?;
    assert_eq!((info.driver.as_str(), info.mountpoint), (KEEPER, None));
    // Two containers of one engine: the plugin hears of the first and of the last.
    let spec = || {
        world
            .script("echo $HOSTNAME >> /data/log; sleep 100")
            .volume("data", "/data")
    };
    let (first, second) = (engine.run(spec()).await?, engine.run(spec()).await?);
    let log = plugin.place("data").join("log");
    let wrote = async || Ok(fs::read_to_string(&log).unwrap_or_default().lines().count() == 2);
    until("both wrote a line", wrote).await?;
    assert_eq!(
        (plugin.calls(), plugin.mounts()),
        (vec!["VolumeDriver.Mount data".to_owned()], 1)
    );
    first.remove(FORCE).await?;
    assert_eq!(plugin.mounts(), 1);
    second.remove(FORCE).await?;
    assert_eq!(
        (plugin.calls(), plugin.mounts()),
        (vec!["VolumeDriver.Unmount data".to_owned()], 0)
    );
    let ran = world.script("cat /data/log | wc -l").volume("data", "/data");
    assert_eq!(String::from_utf8_lossy(&engine.run(ran).output().await?.stdout), "2\n");
    assert_eq!(plugin.mounts(), 0);
    volume.remove().await?;
    assert_eq!(plugin.volumes(), [] as [String; 0]);
    // Gone by another way: that is success too.
    let volume = engine.create_volume(named("other")).await?;
    plugin.misbehave("VolumeDriver.Remove", Mischief::Refuses("never heard of it"));
    plugin.misbehave("VolumeDriver.List", Mischief::Body(json!({"Volumes": []})));
    volume.remove().await?;
    assert_eq!(names(&engine).await?, [] as [String; 0]);
    plugin.behave();
    let anonymous = world.script("echo x > /data/x").mount({
        let mut mount = longshore::MountSpec::anonymous("/data");
        if let longshore::containers::MountFrom::Volume(volume) = &mut mount.source {
            volume.driver = Some(KEEPER.to_owned());
        }
        mount
    });
    engine.run(anonymous).output().await?;
    assert_eq!(plugin.volumes(), ["other"], "an anonymous one goes with its container");
    Ok(())
}

async fn j5_a_plugin_passes_the_suite() -> Check {
    let plugin = Plugin::serve()?;
    let dir = scratch::fresh("suite");
    let driver = at(&plugin);
    assert_eq!(driver.scope().await?, VolumeScope::Global);
    longshore::conformance::volumes::volumes(&driver, dir.path(), &BTreeMap::new()).await;
    assert_eq!(driver.list().await?, [] as [String; 0]);
    let until = Instant::now() + Duration::from_secs(20);
    while plugin.mounts() > 0 && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(plugin.mounts(), 0, "what was given up is taken back");
    Ok(())
}

async fn j5_plugins_are_found_by_name() -> Check {
    let world = World::alone().await?;
    let plugin = Plugin::serve()?;
    let files = scratch::fresh("specs");
    let address = format!("unix://{}", plugin.socket.display());
    fs::write(files.path().join("spec.spec"), &address)?;
    fs::write(
        files.path().join("file.json"),
        json!({"Name": "file", "Addr": address}).to_string(),
    )?;
    fs::write(files.path().join("far.spec"), "tcp://10.0.0.1:80")?;
    let places = PluginPlaces::default().sockets(plugin.dir()).files(files.path());
    let engine = Engine::builder(world.root.path())
        .with_volume_plugins(places)
        .open()
        .await?;
    for driver in [KEEPER, "spec", "file"] {
        engine
            .create_volume(CreateVolume::named(format!("of-{driver}")).driver(driver))
            .await?;
    }
    assert_eq!(plugin.volumes(), ["of-file", "of-keeper", "of-spec"]);
    assert_eq!(names(&engine).await?, ["of-file", "of-keeper", "of-spec"]);
    for (driver, kind) in [
        ("nobody", ErrorKind::NotFound),
        ("../plugin/keeper", ErrorKind::NotFound),
        (
            "far",
            ErrorKind::Unsupported {
                needs: "a unix socket: unix:///run/plugin.sock".into(),
            },
        ),
    ] {
        let refused = engine.create_volume(CreateVolume::named("xx").driver(driver)).await;
        assert_eq!(refused.expect_err(driver).kind(), &kind, "{driver}");
    }
    // An engine that does not know where plugins are: what they keep is still shown, and not lost.
    let other = Engine::open(world.root.path()).await?;
    let shown = other.volume("of-spec").await?.inspect().await?;
    assert_eq!(shown.driver, "spec");
    assert!(
        other
            .volume("of-spec")
            .await?
            .remove()
            .await
            .expect_err("who keeps it")
            .is_not_found()
    );
    assert_eq!(names(&engine).await?.len(), 3);
    Ok(())
}

/// Answers that nobody can use.
fn mischiefs() -> Vec<(Mischief, ErrorKind)> {
    let said = |text: &str| Mischief::Says(text.as_bytes().to_vec());
    let with_body = |body: &str| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        Mischief::Says([head.as_bytes(), body.as_bytes()].concat())
    };
    let mut garbage = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n".to_vec();
    garbage.extend([0xff, 0xfe, 0, 1]);
    vec![
        (Mischief::Dies, ErrorKind::Unavailable),
        (Mischief::Floods, ErrorKind::Unavailable),
        (Mischief::Refuses("I will not\u{1b}[31m"), ErrorKind::Denied),
        (said("SSH-2.0-OpenSSH\r\n"), ErrorKind::Unavailable),
        (
            said("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
            ErrorKind::Unavailable,
        ),
        (with_body("hello"), ErrorKind::Unavailable),
        (with_body("[1, 2]"), ErrorKind::Unavailable),
        (with_body(&"[".repeat(100_000)), ErrorKind::Unavailable),
        (Mischief::Says(garbage), ErrorKind::Unavailable),
        (
            said("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
            ErrorKind::Unavailable,
        ),
        (
            said("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"),
            ErrorKind::Denied,
        ),
    ]
}

async fn j5_a_plugin_that_misbehaves() -> Check {
    let world = World::alone().await?;
    let plugin = Plugin::serve()?;
    let mut activations = mischiefs();
    activations.push((
        Mischief::Body(json!({"Implements": ["NetworkDriver"]})),
        ErrorKind::Unsupported {
            needs: "a plugin that implements VolumeDriver".into(),
        },
    ));
    activations.push((Mischief::Body(json!({"Implements": 1})), ErrorKind::Unavailable));
    for (mischief, kind) in activations {
        let engine = engine_with(&world, at(&plugin)).await?;
        plugin.misbehave("Plugin.Activate", mischief.clone());
        let refused = engine.create_volume(named("none")).await.expect_err("activate");
        assert_eq!(refused.kind(), &kind, "{mischief:?}: {}", refused.report());
        // The same, later, when it behaves.
        plugin.behave();
        engine.create_volume(named("none")).await?.remove().await?;
    }
    let engine = engine_with(&world, at(&plugin)).await?;
    let kept = engine.create_volume(named("kept")).await?;
    for (mischief, kind) in mischiefs() {
        plugin.misbehave("VolumeDriver.Create", mischief.clone());
        let refused = engine.create_volume(named("none")).await.expect_err("create");
        assert_eq!(refused.kind(), &kind, "{mischief:?}: {}", refused.report());
        assert!(
            !refused.report().contains('\u{1b}'),
            "a plugin's words are shown as words"
        );
        plugin.misbehave("VolumeDriver.Remove", mischief.clone());
        let refused = kept.remove().await.expect_err("remove");
        assert_eq!(refused.kind(), &kind, "{mischief:?}: {}", refused.report());
        assert_eq!(
            names(&engine).await?,
            ["kept"],
            "what could not be made is not there, what could not go is"
        );
    }
    let container = engine.create(world.script("true").volume("kept", "/data")).await?;
    let mut mounts = mischiefs();
    for place in [
        json!(""),
        json!("/"),
        json!("relative"),
        json!("/a/../.."),
        json!(7),
        Value::Null,
    ] {
        let body = Mischief::Body(json!({"Mountpoint": place}));
        plugin.misbehave("VolumeDriver.Path", body.clone());
        mounts.push((body, ErrorKind::Unavailable));
    }
    mounts.push((
        Mischief::Body(json!({"Mountpoint": plugin.dir().join("nowhere")})),
        ErrorKind::Unavailable,
    ));
    for (mischief, kind) in mounts {
        plugin.misbehave("VolumeDriver.Mount", mischief.clone());
        let refused = container.start().await.expect_err("start");
        assert_eq!(refused.kind(), &kind, "{mischief:?}: {}", refused.report());
    }
    plugin.behave();
    container.start().await?;
    assert!(container.wait().await?.status.success());
    container.remove(FORCE).await?;
    // A driver that cannot unmount keeps nobody from going on.
    plugin.misbehave("VolumeDriver.Unmount", Mischief::Dies);
    engine
        .run(world.script("true").volume("kept", "/data"))
        .output()
        .await?;
    // What a plugin cannot remove can be given up.
    plugin.misbehave("VolumeDriver.Remove", Mischief::Dies);
    engine.volumes().remove("kept", RemoveVolumeOptions::force()).await?;
    assert_eq!(names(&engine).await?, [] as [String; 0]);
    assert_eq!(engine.audit().await?.findings, []);
    Ok(())
}

async fn j5_a_plugin_that_hangs() -> Check {
    let world = World::alone().await?;
    let plugin = Plugin::serve()?;
    let patient = engine_with(&world, at(&plugin)).await?;
    patient.create_volume(named("data")).await?;
    let container = patient.create(world.script("true").volume("data", "/data")).await?;
    container.remove(FORCE).await?;
    let hasty = engine_with(&world, at(&plugin).deadline(HASTY)).await?;
    let late = |error: longshore::Error, what: &str| {
        assert_eq!(error.kind(), &ErrorKind::Timeout, "{what}: {}", error.report());
        assert_eq!(error.object().map(|(_, name)| name.to_owned()), Some(KEEPER.to_owned()));
    };
    plugin.misbehave("VolumeDriver.Create", Mischief::Hangs);
    late(hasty.create_volume(named("late")).await.expect_err("create"), "create");
    assert_eq!(names(&hasty).await?, ["data"]);
    plugin.behave();
    // It was made all the same: whoever asks again has it.
    patient.create_volume(named("late")).await?.remove().await?;
    plugin.misbehave("VolumeDriver.Mount", Mischief::Hangs);
    late(
        hasty
            .run(world.script("true").volume("data", "/data"))
            .output()
            .await
            .expect_err("mount"),
        "mount",
    );
    let until = Instant::now() + Duration::from_secs(20);
    while plugin.mounts() > 0 || !world.containers().await?.is_empty() {
        if Instant::now() > until {
            return fail("a mount that nobody waits for was not taken back");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    plugin.behave();
    plugin.misbehave("VolumeDriver.Remove", Mischief::Hangs);
    late(
        hasty.volume("data").await?.remove().await.expect_err("remove"),
        "remove",
    );
    assert_eq!(names(&hasty).await?, ["data"], "nobody knows whether it is gone");
    plugin.behave();
    // It was gone by then.
    patient.volume("data").await?.remove().await?;
    // A caller's own deadline counts too, and leaves no connection.
    plugin.misbehave("VolumeDriver.Get", Mischief::Hangs);
    let mine = patient
        .deadline(HASTY)
        .create_volume(named("mine"))
        .await
        .expect_err("mine");
    assert_eq!(mine.kind(), &ErrorKind::Timeout);
    plugin.behave();
    assert!(hasty.audit().await?.is_clean());
    Ok(())
}

async fn j5_nobody_is_there() -> Check {
    let world = World::alone().await?;
    let plugin = Plugin::serve()?;
    let engine = engine_with(&world, at(&plugin)).await?;
    let volume = engine.create_volume(named("data")).await?;
    let container = engine.create(world.script("true").volume("data", "/data")).await?;
    drop(plugin);
    for refused in [
        engine.create_volume(named("more")).await.expect_err("create"),
        container.start().await.expect_err("start"),
    ] {
        assert_eq!(refused.kind(), &ErrorKind::Unavailable, "{}", refused.report());
    }
    container.remove(FORCE).await?;
    assert_eq!(
        volume.remove().await.expect_err("remove").kind(),
        &ErrorKind::Unavailable
    );
    assert_eq!(names(&engine).await?, ["data"]);
    let listed = volume.inspect().await?;
    assert_eq!(listed.driver, KEEPER);
    Ok(())
}

async fn j5_what_a_plugin_had_before_stays() -> Check {
    let world = World::alone().await?;
    let plugin = Plugin::serve()?;
    plugin.plant("old")?;
    fs::write(plugin.place("old").join("file"), "precious")?;
    let engine = engine_with(&world, at(&plugin)).await?;
    // What fails after the plugin found it there: the directory of ours cannot be made.
    let volumes = world.root.path().join("volumes");
    fs::create_dir_all(volumes.join("old/volume.json"))?;
    let failed = engine.create_volume(named("old")).await;
    let made = match failed {
        Ok(volume) => volume,
        Err(_) => {
            assert!(plugin.place("old").join("file").exists(), "it was there before");
            fs::remove_dir_all(volumes.join("old")).or_else(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })?;
            engine.create_volume(named("old")).await?
        }
    };
    let said = engine
        .run(world.script("cat /data/file").volume("old", "/data"))
        .output()
        .await?;
    assert_eq!(String::from_utf8_lossy(&said.stdout), "precious");
    assert!(!plugin.calls().contains(&"VolumeDriver.Create old".to_owned()));
    made.remove().await?;
    assert_eq!(plugin.volumes(), [] as [String; 0]);
    Ok(())
}
