//! Volumes on their way out and in, and verbs on volumes, files and forks that are dropped or run out of space.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use longshore::conformance::layers::{LayerBuilder, Meta, gzip};
use longshore::containers::CopyInOptions;
use longshore::images::ByteStream;
use longshore::volumes::RemoveVolumeOptions;
use longshore::{ContainerSpec, CreateVolume, Engine, ErrorKind, Filter};
use serde_json::json;

use crate::cancel::{Drop, Scene, TAIL, drop_value, each_drop, under};
use crate::frame::{Check, Stop, fail, skip};
use crate::support::disk::Disk;
use crate::support::image::{self, Files};
use crate::support::world::{FORCE, World, source};
use crate::support::{names_in, scratch};
use crate::tests;

tests! { "keeping":
    kernel_async [
        j8_export_and_import_give_the_same_tree,
        j8_the_client_exports_and_imports,
        j8_whatever_an_engine_needs_its_helper_for_first,
        j8_hostile_archives_are_refused,
        j8_a_full_disk_leaves_no_half_volume,
        j8_who_cannot_export_or_import,
        j1_a_full_disk_leaves_no_half_copy_up,
        a9_a_dropped_volume_create,
        a9_a_dropped_volume_snapshot_or_import,
        a9_a_dropped_volume_removal_or_prune,
        a9_a_dropped_volume_export,
        a9_a_dropped_copy,
        a9_a_dropped_template_or_fork,
    ]
}

async fn bytes_of(mut stream: ByteStream) -> Result<Vec<u8>, Stop> {
    let mut all = Vec::new();
    while let Some(piece) = stream.next().await {
        all.extend_from_slice(&piece?);
    }
    Ok(all)
}

fn stream_of(bytes: &[u8]) -> ByteStream {
    let pieces: Vec<_> = bytes
        .chunks(10_000)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    stream::iter(pieces).boxed()
}

const FILL: &str = "cd /v && echo one > file && ln file hard && ln -s file link && ln -s /etc/passwd out && mkfifo pipe && \
                    mkdir -p d/e && echo deep > d/e/f && chmod 4711 d/e/f && chown 12:34 d && chmod 1750 d && \
                    truncate -s 1000000 sparse && touch -d @1500000000 file d/e d && chmod 700 . && chown 5:6 .";
const LOOK: &str = "cd /v && find . | sort | xargs -n 1 stat -c '%n %a %u %g %s %h %F %Y' | grep -v '^[.] .* directory' ; \
                    stat -c '%a %u %g' . ; cat file hard link d/e/f; readlink out";

async fn j8_the_client_exports_and_imports() -> Check {
    let client = crate::platforms::client()?;
    let world = World::alone().await?;
    let fill = "mkdir /v/d && echo deep > /v/d/f && chmod 640 /v/d/f";
    world.says(world.script(fill).volume("one", "/v")).await?;
    let file = world.root.path().join("one.tar");
    let says = |words: &[&str], input: Option<&Path>| -> Result<String, Stop> {
        let mut command = Command::new(&client);
        command.arg("--root").arg(world.root.path()).args(words);
        if let Some(input) = input {
            command.stdin(fs::File::open(input)?);
        }
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Ok(format!("{}{said}", output.status.code().unwrap_or(-1)))
    };
    let path = file.to_string_lossy();
    assert_eq!(says(&["volume", "export", "-o", &path, "one"], None)?, "0");
    assert_eq!(says(&["volume", "import", "two", &path], None)?, "0two\n");
    assert_eq!(says(&["volume", "import", "three", "-"], Some(&file))?, "0three\n");
    for name in ["two", "three"] {
        let look = world.script("cat /v/d/f && stat -c %a /v/d/f").volume(name, "/v");
        assert_eq!(world.says(look).await?, "deep\n640", "{name}");
    }
    let taken = says(&["volume", "import", "two", &path], None)?;
    assert!(taken.starts_with('1') && taken.contains("already"), "{taken}");
    let missing = says(&["volume", "export", "-o", &path, "nothere"], None)?;
    assert!(
        missing.starts_with('1') && missing.contains("no such volume"),
        "{missing}"
    );
    fs::remove_file(file)?;
    Ok(())
}

/// An ordinary user's engine needs its helper to give files away and to remove them. That begins on threads and in runtimes of
/// a moment, and serves the containers that come later.
async fn j8_whatever_an_engine_needs_its_helper_for_first() -> Check {
    let World { engine, image, root } = World::alone().await?;
    let dir = scratch::fresh("passing");
    let files = Files::new()
        .owned_dir("theirs", 0o750, 1234)
        .file("theirs/file", 0o640, "x");
    let layout = image::write_layout(dir.path(), &[files], &json!({}))?;
    let passing = engine.pull(source(&layout)).await?.id().to_string();
    let busybox = image.id().to_string();
    drop((image, engine));
    let owned = LayerBuilder::new()
        .entry(b'0', "file", "", &Meta::mode(0o644).owner(5, 6), b"content")
        .build();
    for first in ["import", "remove"] {
        let engine = Engine::open(root.path()).await?;
        match first {
            "import" => drop(
                engine
                    .import_volume(CreateVolume::named("data"), stream_of(&owned))
                    .await?,
            ),
            _ => drop(engine.images().remove(&passing, Default::default()).await?),
        }
        for _ in 0..2 {
            let spec = ContainerSpec::image(&busybox)
                .command(["cat", "/v/file"])
                .volume("data", "/v");
            let output = engine.run(spec).output().await?;
            assert_eq!(String::from_utf8_lossy(&output.stdout), "content", "after the {first}");
        }
        let volume = engine.volume("data").await?;
        assert!(!bytes_of(volume.export().await?).await?.is_empty());
    }
    let engine = Engine::open(root.path()).await?;
    engine.volume("data").await?.remove().await?;
    Ok(())
}

async fn j8_export_and_import_give_the_same_tree() -> Check {
    let world = World::alone().await?;
    let at = |name: &str, script: &str| world.script(script).volume(name, "/v");
    world.says(at("one", FILL)).await?;
    let volume = world.engine.volume("one").await?;
    let tar = bytes_of(volume.export().await?).await?;
    let into = CreateVolume::named("two").label("a", "b");
    let copy = world.engine.import_volume(into, stream_of(&tar)).await?;
    assert_eq!(copy.inspect().await?.labels["a"], "b");
    let (one, two) = (world.says(at("one", LOOK)).await?, world.says(at("two", LOOK)).await?);
    assert_eq!(one, two);
    // Where there is but one id, everything is its own.
    let owned = if world.ownership().await? == "squashed" {
        "700 0 0"
    } else {
        "700 5 6"
    };
    assert!(
        one.contains("4711") && one.contains("1500000000") && one.contains(owned),
        "{one}"
    );
    let noted = LayerBuilder::new()
        .pax("SCHILY.xattr.user.note", "kept")
        .file("noted", b"")
        .build();
    let noted = world
        .engine
        .import_volume(CreateVolume::named("noted"), stream_of(&noted))
        .await?;
    let back = bytes_of(noted.export().await?).await?;
    let note = b"SCHILY.xattr.user.note=kept";
    assert!(back.windows(note.len()).any(|part| part == note), "attributes are kept");
    // Compressed is as good, and while a container uses the volume.
    let running = world.started(at("two", "sleep 100")).await?;
    let again = bytes_of(copy.export().await?).await?;
    world
        .engine
        .import_volume(CreateVolume::named("three"), stream_of(&gzip(&again)))
        .await?;
    assert_eq!(world.says(at("three", LOOK)).await?, one);
    running.remove(FORCE).await?;
    let taken = world
        .engine
        .import_volume(CreateVolume::named("two"), stream_of(&tar))
        .await
        .expect_err("it is there");
    assert!(taken.is_conflict());
    assert_eq!(world.says(at("two", LOOK)).await?, one, "what was there stays");
    assert!(world.engine.audit().await?.is_clean());
    Ok(())
}

async fn names(engine: &Engine) -> Result<Vec<String>, Stop> {
    let all = engine.volumes().list(Filter::new()).await?;
    Ok(all.into_iter().map(|volume| volume.name).collect())
}

/// Everything below a directory.
fn tree(dir: &std::path::Path) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for name in names_in(dir) {
        let path = dir.join(&name);
        if path.is_dir() && !path.is_symlink() {
            all.extend(tree(&path));
        }
        all.insert(path.display().to_string());
    }
    all
}

async fn j8_hostile_archives_are_refused() -> Check {
    let world = World::alone().await?;
    let dir = scratch::fresh("outside");
    fs::write(dir.path().join("victim"), "untouched")?;
    let out = dir.path().display().to_string();
    let volumes = world.root.path().join("volumes");
    let before = tree(dir.path());
    let meta = Meta::mode(0o644);
    let good = LayerBuilder::new().file("file", &[7; 5000]).build();
    let hostile: Vec<(&str, Vec<u8>)> = vec![
        (
            "up",
            LayerBuilder::new().entry(b'0', "../../up", "", &meta, b"x").build(),
        ),
        (
            "deep up",
            LayerBuilder::new()
                .dir("a")
                .entry(b'0', "a/../../../up", "", &meta, b"x")
                .build(),
        ),
        (
            "hard link out",
            LayerBuilder::new()
                .hard_link("stolen", &format!("{out}/victim"))
                .build(),
        ),
        (
            "hard link up",
            LayerBuilder::new().hard_link("stolen", "../volume.json").build(),
        ),
        ("cut", good[..4000].to_vec()),
        ("cut in a header", good[..300].to_vec()),
        (
            "noise",
            (0..9000_u32)
                .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
                .collect(),
        ),
        ("cut gzip", gzip(&good)[..60].to_vec()),
        (
            "a file as root",
            LayerBuilder::new().entry(b'0', "./", "", &meta, b"x").build(),
        ),
    ];
    for (what, tar) in hostile {
        let refused = world
            .engine
            .import_volume(CreateVolume::named("bad"), stream_of(&tar))
            .await;
        let refused = match refused {
            Err(refused) => refused,
            Ok(_) => return fail(format!("{what} was taken")),
        };
        assert_eq!(
            refused.kind(),
            &ErrorKind::UnsafeArchive,
            "{what}: {}",
            refused.report()
        );
        assert_eq!(names_in(&volumes), [] as [String; 0], "{what} left something");
    }
    // What leads out leads to the same place inside.
    let through = LayerBuilder::new()
        .symlink("etc", &out)
        .file("etc/victim", b"inside")
        .file("/absolute", b"inside")
        .build();
    let outcome = world
        .engine
        .import_volume(CreateVolume::named("bad"), stream_of(&through))
        .await;
    if let Err(refused) = outcome {
        assert_eq!(refused.kind(), &ErrorKind::UnsafeArchive, "{}", refused.report());
    }
    assert_eq!(tree(dir.path()), before);
    assert_eq!(fs::read_to_string(dir.path().join("victim"))?, "untouched");
    // A stream that fails is no archive that ends.
    let broken = stream::iter([
        Ok(Bytes::copy_from_slice(&good[..2000])),
        Err(longshore::Error::new(ErrorKind::Unavailable, "the peer went away")),
    ]);
    let refused = world
        .engine
        .import_volume(CreateVolume::named("half"), broken.boxed())
        .await;
    assert!(refused.is_err());
    assert!(!names(&world.engine).await?.contains(&"half".to_owned()));
    assert!(world.engine.audit().await?.is_clean());
    Ok(())
}

async fn j8_a_full_disk_leaves_no_half_volume() -> Check {
    let disk = Disk::tmpfs(24 << 20)?;
    let engine = Engine::open(disk.path().join("root")).await?;
    let large = LayerBuilder::new().file("large", &vec![1; 40 << 20]).build();
    let full = engine
        .import_volume(CreateVolume::named("large"), stream_of(&large))
        .await;
    assert_eq!(full.expect_err("too large").kind(), &ErrorKind::NoSpace);
    let small = LayerBuilder::new().file("small", &vec![1; 14 << 20]).build();
    let volume = engine
        .import_volume(CreateVolume::named("small"), stream_of(&small))
        .await?;
    let full = volume.snapshot(CreateVolume::named("copy")).await;
    assert_eq!(full.expect_err("twice is too much").kind(), &ErrorKind::NoSpace);
    assert_eq!(names(&engine).await?, ["small"]);
    assert_eq!(names_in(&disk.path().join("root/volumes")), ["small"]);
    volume.remove().await?;
    engine
        .import_volume(CreateVolume::named("again"), stream_of(&small))
        .await?;
    assert_eq!(engine.audit().await?.findings, []);
    Ok(())
}

async fn j8_who_cannot_export_or_import() -> Check {
    let world = World::alone().await?;
    assert!(
        world
            .engine
            .volumes()
            .export("nobody")
            .await
            .err()
            .expect("no volume")
            .is_not_found()
    );
    let memory = CreateVolume::named("memory").driver("tmpfs");
    let refused = world
        .engine
        .import_volume(memory, stream_of(&LayerBuilder::new().build()))
        .await;
    assert!(refused.expect_err("nothing would last").is_unsupported());
    for (name, kind) in [("a/b", ErrorKind::InvalidArgument), ("..", ErrorKind::InvalidArgument)] {
        let refused = world
            .engine
            .import_volume(CreateVolume::named(name), stream_of(b""))
            .await;
        assert_eq!(refused.expect_err(name).kind(), &kind);
    }
    assert_eq!(names(&world.engine).await?, [] as [String; 0]);
    // What containers have in memory is what they have: as they see it.
    world
        .engine
        .create_volume(CreateVolume::named("shared").driver("tmpfs"))
        .await?;
    let script = "echo now > /v/part; mv /v/part /v/file; sleep 100";
    let container = world.started(world.script(script).volume("shared", "/v")).await?;
    while container.stat_path("/v/file").await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let tar = bytes_of(world.engine.volume("shared").await?.export().await?).await?;
    container.remove(FORCE).await?;
    let copy = world
        .engine
        .import_volume(CreateVolume::named("copy"), stream_of(&tar))
        .await?;
    assert_eq!(
        world.says(world.script("cat /v/file").volume("copy", "/v")).await?,
        "now"
    );
    copy.remove().await?;
    Ok(())
}

/// An image's files that do not fit: the volume is empty, and the next container has the whole.
async fn j1_a_full_disk_leaves_no_half_copy_up() -> Check {
    let disk = Disk::tmpfs(64 << 20)?;
    let world = World::new().await?;
    let engine = Engine::open(disk.path().join("root")).await?;
    let dir = scratch::fresh("shelf");
    let files = crate::support::image::busybox_files()?
        .dir("shelf", 0o755)
        .file("shelf/first", 0o644, "first")
        .file("shelf/large", 0o644, vec![b'x'; 20 << 20]);
    let layout = crate::support::image::write_layout(dir.path(), &[files], &serde_json::json!({"Cmd": ["sh"]}))?;
    let image = engine
        .pull(crate::support::world::source(&layout))
        .await?
        .id()
        .to_string();
    drop(world);
    let spec = || {
        longshore::ContainerSpec::image(&image)
            .command(["sh", "-c", "ls /shelf | wc -l"])
            .volume("books", "/shelf")
    };
    disk.leave(8 << 20)?;
    let full = engine.create(spec()).await;
    assert_eq!(full.expect_err("no room for the copy").kind(), &ErrorKind::NoSpace);
    disk.give_back()?;
    let output = engine.run(spec()).output().await?;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2\n", "the whole");
    assert_eq!(engine.audit().await?.findings, []);
    Ok(())
}

/// Waits for tails: whether a volume is there in the end, and whole; then it goes.
async fn settles(scene: &Scene, name: &str, ended: bool, file: Option<&str>) -> Check {
    let volumes = scene.world.root.path().join("volumes");
    let start = Instant::now();
    loop {
        let there = scene.engine().volumes().inspect(name).await;
        let ours = |left: &String| *left == name || left.starts_with(".gone");
        let left = names_in(&volumes).into_iter().filter(ours).count();
        match there {
            Ok(info) if left == 1 => {
                if let (Some(file), Some(place)) = (file, info.mountpoint) {
                    // What is about to be removed may be gone by now.
                    let read = fs::read_to_string(place.join("file"));
                    assert!(read.as_ref().map_or(true, |read| read == file), "it is whole: {read:?}");
                }
                // A tail may still be about to remove it.
                let _ = scene
                    .engine()
                    .volumes()
                    .remove(name, RemoveVolumeOptions::force())
                    .await?;
            }
            Err(error) if error.is_not_found() && left == 0 => {
                if ended && start.elapsed().is_zero() {
                    return fail("it said that it is there, and it is not");
                }
                return Ok(());
            }
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
        if start.elapsed() > TAIL {
            return fail(format!("left after {TAIL:?}: {:?}", names_in(&volumes)));
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

async fn alone() -> Result<Scene, Stop> {
    match crate::support::company::root() {
        Some(_) => skip("others' volumes are in this root"),
        None => Scene::new().await,
    }
}

async fn a9_a_dropped_volume_create() -> Check {
    let scene = alone().await?;
    each_drop(async |drop| {
        let engine = scene.engine().clone();
        let make = async move {
            engine
                .create_volume(CreateVolume::named("dropped"))
                .await
                .map(drop_value)
        };
        let ended = under(scene.engine(), drop, Box::pin(make)).await?;
        settles(&scene, "dropped", ended, None).await?;
        scene.nothing_is_left().await?;
        Ok(ended)
    })
    .await
}

async fn a9_a_dropped_volume_snapshot_or_import() -> Check {
    let scene = alone().await?;
    let tar = LayerBuilder::new()
        .file("file", b"whole")
        .file("more", &[1; 100_000])
        .build();
    let volume = scene
        .engine()
        .import_volume(CreateVolume::named("from"), stream_of(&tar))
        .await?;
    each_drop(async |drop| {
        let from = volume.clone();
        let copy = async move { from.snapshot(CreateVolume::named("dropped")).await.map(drop_value) };
        let ended = under(scene.engine(), drop, Box::pin(copy)).await?;
        settles(&scene, "dropped", ended, Some("whole")).await?;
        scene.nothing_is_left().await?;
        Ok(ended)
    })
    .await?;
    each_drop(async |drop| {
        let (engine, archive) = (scene.engine().clone(), stream_of(&tar));
        let import = async move {
            let into = CreateVolume::named("dropped");
            engine.import_volume(into, archive).await.map(drop_value)
        };
        let ended = under(scene.engine(), drop, Box::pin(import)).await?;
        settles(&scene, "dropped", ended, Some("whole")).await?;
        scene.nothing_is_left().await?;
        Ok(ended)
    })
    .await?;
    // Whoever sends nothing more, and goes away.
    let endless = stream::iter([Ok(Bytes::copy_from_slice(&tar[..2000]))]).chain(stream::pending());
    let import = scene
        .engine()
        .import_volume(CreateVolume::named("dropped"), endless.boxed());
    assert!(
        tokio::time::timeout(std::time::Duration::from_millis(100), import)
            .await
            .is_err()
    );
    settles(&scene, "dropped", false, None).await?;
    volume.remove().await?;
    Ok(())
}

async fn a9_a_dropped_volume_removal_or_prune() -> Check {
    let scene = alone().await?;
    for prunes in [false, true] {
        each_drop(async |drop: Drop| {
            let request = if prunes {
                CreateVolume::default()
            } else {
                CreateVolume::named("dropped")
            };
            let volume = scene.engine().create_volume(request).await?;
            let (engine, going) = (scene.engine().clone(), volume.clone());
            let remove = async move {
                match prunes {
                    true => engine.volumes().prune(Filter::new()).await.map(drop_value),
                    false => going.remove().await.map(drop_value),
                }
            };
            let ended = under(scene.engine(), drop, Box::pin(remove)).await?;
            if ended {
                assert!(volume.inspect().await.expect_err("removed").is_not_found());
            }
            settles(&scene, volume.name(), false, None).await?;
            scene.nothing_is_left().await?;
            Ok(ended)
        })
        .await?;
    }
    Ok(())
}

async fn a9_a_dropped_volume_export() -> Check {
    let scene = alone().await?;
    let tar = LayerBuilder::new()
        .file("file", b"whole")
        .file("more", &[1; 100_000])
        .build();
    each_drop(async |drop| {
        let into = CreateVolume::named("dropped");
        let volume = scene.engine().import_volume(into, stream_of(&tar)).await?;
        let leaving = volume.clone();
        let export = async move {
            let mut stream = leaving.export().await?;
            stream.next().await.transpose().map(drop_value)
        };
        let ended = under(scene.engine(), drop, Box::pin(export)).await?;
        let place = volume.inspect().await?.mountpoint.expect("a directory");
        assert_eq!(fs::read_to_string(place.join("file"))?, "whole");
        volume.remove().await?;
        settles(&scene, "dropped", false, None).await?;
        scene.nothing_is_left().await?;
        Ok(ended)
    })
    .await
}

/// A copy that is dropped leaves the container free, whatever state it is in.
async fn a9_a_dropped_copy() -> Check {
    let scene = Scene::new().await?;
    let tar = LayerBuilder::new().dir("in").file("in/file", &[1; 50_000]).build();
    for (inward, started) in [(true, false), (false, false), (true, true)] {
        each_drop(async |drop| {
            let archive = stream_of(&tar);
            scene
                .on_container(drop, scene.sleeper(), started, |container| {
                    Box::pin(async move {
                        if inward {
                            return container.copy_in("/tmp", archive, CopyInOptions::new()).await;
                        }
                        let mut out = container.copy_out("/bin").await?.archive;
                        out.next().await.transpose().map(drop_value)
                    })
                })
                .await
        })
        .await?;
    }
    Ok(())
}

async fn a9_a_dropped_template_or_fork() -> Check {
    let scene = alone().await?;
    let made = scene.world.script("echo x > /x; echo y > /v/y").volume("data", "/v");
    let container = scene.world.started(made).await?;
    container.wait().await?;
    let images = scene.engine().list_images(Filter::new()).await?.len();
    // What an image without a name leaves goes with a prune.
    let clears = async || {
        let start = Instant::now();
        loop {
            scene.engine().images().prune(Filter::new()).await?;
            let left = (
                names(scene.engine()).await?,
                scene.engine().list_images(Filter::new()).await?.len(),
            );
            if left == (vec!["data".to_owned()], images) {
                return Ok::<_, Stop>(());
            }
            if start.elapsed() > TAIL {
                return fail(format!("left after {TAIL:?}: {left:?}"));
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    each_drop(async |drop| {
        let standing = container.clone();
        let take = async move { standing.template().await?.remove().await };
        let ended = under(scene.engine(), drop, Box::pin(take)).await?;
        clears().await?;
        Ok(ended)
    })
    .await?;
    let template = container.template().await?;
    each_drop(async |drop| {
        let forking = template.clone();
        let fork = async move { forking.fork().await.map(drop_value) };
        let ended = under(scene.engine(), drop, Box::pin(fork)).await?;
        let start = Instant::now();
        loop {
            let forks: Vec<_> = scene
                .world
                .containers()
                .await?
                .into_iter()
                .filter(|one| one.id != *container.id())
                .collect();
            for fork in &forks {
                let _ = scene.engine().containers().remove(fork.id.as_str(), FORCE).await;
            }
            // The volume and its frozen copy; a fork's own went with it.
            if forks.is_empty() && names(scene.engine()).await?.len() == 2 {
                break;
            }
            if start.elapsed() > TAIL {
                return fail(format!("left after {TAIL:?}: {:?}", names(scene.engine()).await?));
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        Ok(ended)
    })
    .await?;
    template.remove().await?;
    container.remove(FORCE).await?;
    clears().await?;
    scene.engine().volume("data").await?.remove().await?;
    assert!(scene.engine().audit().await?.is_clean());
    Ok(())
}
