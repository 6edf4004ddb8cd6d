//! A prune of everything at once, in-process and by the client.

use std::process::{Command, Stdio};

use longshore::networks::NetworkSpec;
use longshore::system::PrunedAll;
use longshore::{CreateVolume, Engine, ErrorKind, Filter, PruneAll};

use crate::build::{self, context, spec};
use crate::frame::{Check, Stop, fail};
use crate::images::size_of;
use crate::longshored::Daemon;
use crate::support::world::{FORCE, World, text};
use crate::tests;

tests! { "pruning":
    kernel [
        k1_the_client_prunes_everything,
    ]
    kernel_async [
        k1_prune_takes_what_nobody_uses_and_counts_it,
        k1_prune_takes_only_what_its_filter_means,
    ]
}

const MIB: u64 = 1 << 20;

/// An image with a name and one that lost it, each with two mebibytes of its own that do not pack.
async fn two_images(world: &World) -> Check {
    world.image.tag(&"busybox:latest".parse()?).await?;
    let dir = context(&[])?;
    for text in ["lost", "named"] {
        let lines = format!("FROM busybox\nLABEL which={text}\nRUN head -c 2097152 /dev/urandom > /{text}\n");
        build::result(&world.engine, spec(dir.path()).dockerfile_text(&lines).tag("made:1")).await?;
    }
    Ok(())
}

/// Prunes, and compares what it says it gave back with what the disk has got back.
async fn pruned(world: &World, options: PruneAll) -> Result<PrunedAll, Stop> {
    // Directories of ids of a user namespace are closed to `du`.
    let seen = world.ownership().await? != "mapped";
    let before = if seen { size_of(world.root.path())? } else { 0 };
    let pruned = world.engine.prune(options).await?;
    if seen {
        let back = before - size_of(world.root.path())?;
        assert!(
            pruned.reclaimed_bytes.abs_diff(back) < 256 << 10,
            "said {}, was {back}: {pruned:?}",
            pruned.reclaimed_bytes
        );
    }
    Ok(pruned)
}

async fn names(engine: &Engine) -> Result<Vec<String>, Stop> {
    let images = engine.list_images(Filter::new()).await?;
    let mut names: Vec<String> = images
        .iter()
        .flat_map(|image| image.tags.iter().map(|name| name.familiar()))
        .collect();
    names.sort();
    Ok(names)
}

async fn k1_prune_takes_what_nobody_uses_and_counts_it() -> Check {
    let world = World::alone().await?;
    let engine = &world.engine;
    two_images(&world).await?;
    for name in ["kept", "unused"] {
        engine.create_volume(CreateVolume::named(name)).await?;
    }
    let nameless = engine
        .create_volume(CreateVolume::default())
        .await?
        .inspect()
        .await?
        .name;
    engine.networks().create(NetworkSpec::bridge("nobody")).await?;
    let write = "dd if=/dev/urandom of=/data bs=1M count=3; dd if=/dev/urandom of=/v/data bs=1M count=2; sync; head -c 1000000 /dev/zero | tr '\\0' x";
    let ended = world.started(world.script(write).volume(&nameless, "/v")).await?;
    ended.wait().await?;
    let running = world.started(world.script("sleep 100").volume("kept", "/v")).await?;

    let first = pruned(&world, PruneAll::new()).await?;
    assert_eq!(first.containers, [ended.id().to_string()]);
    assert_eq!(first.networks, ["nobody"]);
    assert_eq!(first.volumes, [""; 0], "volumes were not asked for");
    assert_eq!(names(engine).await?, ["busybox:latest", "latest:latest", "made:1"]);
    assert_eq!(
        engine.list_images(Filter::new()).await?.len(),
        2,
        "an image without a name stayed"
    );
    let texts: Vec<String> = engine
        .builds()
        .cache()
        .await?
        .into_iter()
        .map(|step| step.text)
        .collect();
    assert!(texts.iter().any(|text| text.contains("named")), "{texts:?}");
    assert!(!texts.iter().any(|text| text.contains("/lost")), "{texts:?}");
    // Layer and log of the container, layer and blob of the image.
    assert!(first.reclaimed_bytes >= 3 * MIB + 900_000 + 2 * 2 * MIB, "{first:?}");

    let all = pruned(&world, PruneAll::new().all().volumes()).await?;
    assert_eq!(all.volumes, [nameless], "a volume with a name is somebody's");
    assert_eq!(
        names(engine).await?,
        ["busybox:latest", "latest:latest"],
        "a container runs on it"
    );
    assert_eq!(engine.builds().cache().await?, []);
    assert!(all.reclaimed_bytes >= 2 * MIB + 2 * 2 * MIB, "{all:?}");
    assert!(running.inspect().await?.state.is_alive());

    let none = pruned(&world, PruneAll::new().all().volumes()).await?;
    assert_eq!(none, PrunedAll::default());
    running.remove(FORCE).await?;
    assert_eq!(engine.audit().await?.findings, []);
    Ok(())
}

async fn k1_prune_takes_only_what_its_filter_means() -> Check {
    let world = World::alone().await?;
    let engine = &world.engine;
    two_images(&world).await?;
    let plain = engine.create(world.spec()).await?;
    let marked = engine.create(world.spec().label("mark", "1")).await?;
    engine.networks().create(NetworkSpec::bridge("plain")).await?;
    engine
        .networks()
        .create(NetworkSpec::bridge("marked").label("mark", "1"))
        .await?;
    engine.create_volume(CreateVolume::default()).await?;
    let volume = engine
        .create_volume(CreateVolume::default().label("mark", "1"))
        .await?
        .inspect()
        .await?
        .name;

    // Bad input takes nothing.
    let until = || Filter::new().with("until", "0s");
    for bad in [
        PruneAll::new().filter(until()).volumes(),
        PruneAll::new().filter(Filter::new().with("until", "soon")),
        PruneAll::new().filter(Filter::new().with("dangling", "true")),
    ] {
        let error = engine.prune(bad.clone()).await.expect_err("it cannot be understood");
        assert_eq!(error.kind(), &ErrorKind::InvalidArgument, "{bad:?}");
    }
    let old = engine
        .prune(PruneAll::new().all().filter(Filter::new().with("until", "1h")))
        .await?;
    assert_eq!(
        (old.containers.len(), old.networks.len(), old.steps.len()),
        (0, 0, 0),
        "{old:?}"
    );
    assert_eq!(plain.inspect().await?.id, *plain.id());

    let steps = engine.builds().cache().await?.len();
    let label = || Filter::new().with("label", "mark=1");
    let gone = engine.prune(PruneAll::new().all().volumes().filter(label())).await?;
    assert_eq!(gone.containers, [marked.id().to_string()]);
    assert_eq!((gone.networks, gone.volumes), (vec!["marked".to_owned()], vec![volume]));
    assert_eq!((gone.images, gone.steps), (Vec::new(), Vec::new()));
    assert_eq!(engine.builds().cache().await?.len(), steps);

    let which = Filter::new().with("label", "which=named");
    engine.prune(PruneAll::new().all().filter(which)).await?;
    assert_eq!(names(engine).await?, ["busybox:latest", "latest:latest"]);
    plain.remove(FORCE).await?;
    Ok(())
}

/// As an engine of its own, and over a daemon.
fn k1_the_client_prunes_everything() -> Check {
    let client = crate::platforms::client()?;
    let mut daemon = Daemon::start(&[])?;
    let host = format!("unix://{}", daemon.socket.display());
    let root = crate::faults::filled_root()?;
    let root_path = root.path().display().to_string();
    for options in [["--root", &root_path], ["--host", &host]] {
        let run = |words: &[&str]| -> Result<String, Stop> {
            let output = Command::new(&client)
                .args(options)
                .args(words)
                .stdin(Stdio::null())
                .output()?;
            match output.status.success() {
                true => Ok(text(&output.stdout)),
                false => fail(format!("{words:?}: {}", text(&output.stderr))),
            }
        };
        let listed = |words: &[&str]| -> Result<usize, Stop> { Ok(run(words)?.lines().count()) };
        run(&["volume", "create"])?;
        run(&["volume", "create", "named"])?;
        run(&["network", "create", "nobody"])?;
        let asked = run(&["system", "prune", "-a", "--volumes"])?;
        assert!(
            asked.starts_with("WARNING! This will remove:\n") && asked.ends_with("[y/N]"),
            "{asked}"
        );
        assert_eq!((listed(&["images", "-q"])?, listed(&["volume", "ls", "-q"])?), (1, 2));
        let some = run(&["system", "prune", "-f"])?;
        assert!(
            some.starts_with("Deleted Networks:\nnobody\n\nTotal reclaimed space: 0"),
            "{some}"
        );
        assert_eq!((listed(&["images", "-q"])?, listed(&["volume", "ls", "-q"])?), (1, 2));
        let all = run(&["system", "prune", "-af", "--volumes"])?;
        for said in ["Deleted Volumes:\n", "Deleted Images:\nuntagged: busybox:latest\n"] {
            assert!(all.contains(said), "{all}");
        }
        assert!(!all.contains("named") && !all.ends_with(" 0B"), "{all}");
        assert_eq!(
            (run(&["images", "-q"])?, run(&["volume", "ls", "-q"])?),
            (String::new(), "named".to_owned())
        );
    }
    daemon.stop()
}
