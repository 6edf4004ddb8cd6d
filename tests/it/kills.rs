//! Embedders that are killed at random moments of one verb, again and again: nothing of theirs is left, and what is listed is
//! whole. `LONGSHORE_KILL_LOOPS` says how often.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use longshore::build::{BuildSpec, ContextSource, PruneCache};
use longshore::containers::CommitOptions;
use longshore::images::RemoveImageOptions;
use longshore::types::{Filter, Outcome};
use longshore::{CheckpointOptions, ContainerSpec, CreateVolume, Engine, NetworkMode};
use serde_json::json;

use crate::checkpoints;
use crate::faults::{Random, fill, filled_root, kills, no_container_left, role};
use crate::frame::{Check, Stop, block_on, fail};
use crate::support::embedder::{Embedder, Role};
use crate::support::image::{self, Files, Layout};
use crate::support::leaks::Snapshot;
use crate::support::registry::{Options, Registry};
use crate::support::root::TempRoot;
use crate::support::scratch;
use crate::support::world::{FORCE, source};
use crate::tests;

tests! { "kills":
    kernel [
        d6_kills_during_pulls_leave_complete_images,
        d6_kills_of_four_at_once_lose_nothing_that_was_reported,
        e9_kills_during_creates_leave_nothing,
        e9_kills_during_starts_leave_nothing,
        e9_kills_during_removals_leave_nothing,
        d4_kills_during_commits_leave_complete_images,
        g13_kills_during_checkpoints_leave_nothing,
        e9_kills_during_builds_leave_complete_images,
        e9_kills_during_copy_ups_leave_whole_volumes,
        e9_kills_during_snapshots_leave_whole_volumes,
        e9_kills_during_removals_of_volumes_leave_no_halves,
        e9_a_blob_that_is_not_what_its_name_says_is_found,
    ]
}

/// What this binary does as a child.
pub const ROLES: &[(&str, Role)] = &[
    ("pull-forever", |arguments| {
        block_on(role(pull_forever(&arguments[0], &arguments[1])))
    }),
    ("keep-pulls", |arguments| {
        block_on(role(keep_pulls(&arguments[0], &arguments[1], &arguments[2])))
    }),
    ("keep-loads", |arguments| {
        block_on(role(keep_loads(&arguments[0], &arguments[1])))
    }),
    ("keep-pushes", |arguments| {
        block_on(role(keep_pushes(&arguments[0], &arguments[1], &arguments[2])))
    }),
    ("prune-forever", |arguments| {
        block_on(role(prune_forever(&arguments[0], &arguments[1])))
    }),
    ("create-forever", |arguments| {
        block_on(role(create_forever(&arguments[0])))
    }),
    ("start-forever", |arguments| {
        block_on(role(start_forever(&arguments[0])))
    }),
    ("checkpoint-forever", |arguments| {
        block_on(role(checkpoint_forever(&arguments[0], &arguments[1])))
    }),
    ("commit-forever", |arguments| {
        block_on(role(commit_forever(&arguments[0])))
    }),
    ("build-forever", |arguments| {
        block_on(role(build_forever(&arguments[0])))
    }),
    ("copy-up-forever", |arguments| {
        block_on(role(copy_up_forever(&arguments[0], &arguments[1])))
    }),
    ("snapshot-forever", |arguments| {
        block_on(role(snapshot_forever(&arguments[0])))
    }),
    ("remove-volumes", |arguments| {
        block_on(role(remove_volumes(&arguments[0])))
    }),
    ("remove-forever", |arguments| {
        block_on(role(remove_forever(&arguments[0])))
    }),
];

async fn pull_forever(root: &str, source: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    println!("open");
    loop {
        let image = engine.pull(source).await?;
        image.remove(RemoveImageOptions::default().force(true)).await?;
    }
}

/// A name that nobody else gives.
fn mark(what: &str, number: usize) -> String {
    format!("{what}-{}:{number}", std::process::id())
}

/// Has an image under a name of its own, and says so. Another one comes and goes.
async fn keep_pulls(root: &str, kept: &str, other: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    println!("open");
    for number in 0.. {
        let name = mark("pulled", number);
        engine.pull(kept).await?.tag(&name.parse()?).await?;
        println!("kept {name}");
        engine.pull(other).await?;
        // Somebody else may have removed it, or be using it.
        let _ = engine.images().remove(other, RemoveImageOptions::default()).await;
    }
    Ok(())
}

async fn keep_loads(root: &str, archive: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    println!("open");
    for number in 0.. {
        let bytes = fs::read(archive).map_err(|error| longshore::Error::os("read the archive", error))?;
        let pieces: Vec<_> = bytes.chunks(50_000).map(|piece| Ok(piece.to_vec().into())).collect();
        let loaded = engine.load(stream::iter(pieces).boxed()).await?;
        let name = mark("loaded", number);
        match engine.images().tag(&loaded[0].id.to_string(), &name.parse()?).await {
            Ok(_) => println!("kept {name}"),
            // It came without a name, and another process prunes such.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn keep_pushes(root: &str, source: &str, registry: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    println!("open");
    for number in 0.. {
        let name = format!("{registry}/{}", mark("pushed", number));
        match engine.pull(source).await?.tag(&name.parse()?).await {
            // As above.
            Err(error) if error.is_not_found() => continue,
            tagged => tagged?,
        };
        engine.push(name.as_str()).await?;
        println!("pushed {name}");
        let _ = engine.images().remove(&name, RemoveImageOptions::default()).await;
        // One that was made here, and is compressed for the push.
        let tar = Files::new()
            .file("made", 0o644, format!("{name} ").repeat(20_000))
            .tar();
        let tar = tar.map_err(|error| longshore::Error::os("make an archive", error))?;
        let name = format!("{registry}/{}", mark("made", number));
        let tar = stream::iter([Ok(Bytes::from(tar))]).boxed();
        // Named at once: another process prunes what has no name.
        engine.import(tar).name(name.parse()?).await?;
        engine.push(name.as_str()).await?;
        println!("pushed {name}");
        println!("kept {name}");
    }
    Ok(())
}

/// Images without a name come, and go with a prune.
async fn prune_forever(root: &str, layout: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    println!("open");
    loop {
        let image = engine.pull(layout).await?;
        let name = "passing:1".parse()?;
        // Whoever prunes at the same time may be first.
        if image.tag(&name).await.is_ok() {
            let _ = engine.images().remove("passing:1", RemoveImageOptions::default()).await;
        }
        engine.prune_images(Filter::new()).await?;
    }
}

fn sleeper() -> ContainerSpec {
    ContainerSpec::image("busybox").command(["sleep", "60"])
}

async fn create_forever(root: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    println!("open");
    loop {
        engine.create(sleeper()).await?;
    }
}

async fn start_forever(root: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    println!("open");
    loop {
        engine.create(sleeper()).await?.start().await?;
    }
}

async fn checkpoint_forever(root: &str, directory: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    let spec = ContainerSpec::image("busybox").command(["sh", "-c", "while :; do sleep 0.1; done"]);
    let container = engine.run(spec).await?;
    println!("open");
    for number in 0.. {
        let name = mark("checkpoint", number).replace(':', "-");
        let options = CheckpointOptions {
            directory: Some(directory.into()),
            leave_running: false,
        };
        container.checkpoint(&name, options).await?;
        container.restore(&name, Some(directory.into())).await?;
    }
    Ok(())
}

async fn commit_forever(root: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    let spec = ContainerSpec::image("busybox").command(["sh", "-c", "dd if=/dev/zero of=/x bs=64k count=16; sleep 60"]);
    let container = engine.run(spec).await?;
    let pause = container.pause().await.is_ok();
    if pause {
        container.unpause().await?;
    }
    println!("open");
    for number in 0.. {
        let options = CommitOptions::new()
            .pause(pause)
            .change(format!("LABEL number={number}"));
        let image = container.commit(options.name("committed".parse()?)).await?;
        if number % 2 == 0 {
            image.remove(RemoveImageOptions::default().force(true)).await?;
        }
    }
    Ok(())
}

/// A new volume begins with an image's files, and goes.
async fn copy_up_forever(root: &str, image: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    println!("open");
    for number in 0.. {
        let name = format!("up-{}-{number}", std::process::id());
        let spec = ContainerSpec::image(image).command(["true"]).volume(&name, "/shelf");
        engine.create(spec).await?.remove(FORCE).await?;
        if number % 2 == 0 {
            engine.volume(&name).await?.remove().await?;
        }
    }
    Ok(())
}

async fn snapshot_forever(root: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    let volume = engine.volume("from").await?;
    println!("open");
    for number in 0.. {
        let into = CreateVolume::named(format!("copy-{}-{number}", std::process::id()));
        let copy = volume.snapshot(into).await?;
        if number % 2 == 0 {
            copy.remove().await?;
        }
    }
    Ok(())
}

/// How many volumes wait to be removed when a kill is near.
const VOLUMES: usize = 4;

async fn remove_volumes(root: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    let mut all = Vec::new();
    for number in 0..VOLUMES {
        let name = format!("gone-{}-{number}", std::process::id());
        let volume = engine.create_volume(CreateVolume::named(&name)).await?;
        let place = volume.inspect().await?.mountpoint.expect("a directory");
        for file in 0..FILES {
            let written = fs::write(place.join(file.to_string()), name.repeat(500));
            written.map_err(|error| longshore::Error::os("fill a volume", error))?;
        }
        all.push((volume, name));
    }
    println!("open");
    for (volume, name) in all {
        volume.remove().await?;
        println!("gone {name}");
    }
    std::future::pending().await
}

async fn remove_forever(root: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    let mut more = Vec::new();
    for number in 0..8 {
        let container = engine.create(sleeper()).await?;
        if number % 2 == 0 {
            container.start().await?;
        }
        more.push(container);
    }
    println!("open");
    while let Some(container) = more.pop() {
        container.remove(FORCE).await?;
    }
    // Late kills find the engine idle, which is a moment like any other.
    std::future::pending().await
}

/// Kills a role at moments within a span after it said that it is about to begin.
pub fn kill_again_and_again(root: &Path, role: &str, more: &[&str], span: Duration, seed: u64) -> Check {
    let root_text = root.to_str().expect("temporary paths are UTF-8");
    let mut arguments = vec![root_text];
    arguments.extend(more);
    let before = Snapshot::take();
    let mut random = Random(seed);
    for round in 0..kills() {
        let mut embedder = Embedder::start(role, &arguments)?;
        let line = embedder.line(Duration::from_secs(20))?;
        if line != "open" {
            return fail(line);
        }
        let moment = Duration::from_micros(random.below(span.as_micros() as u64));
        std::thread::sleep(moment);
        embedder.kill()?;
        drop(embedder);
        let leaks = before.leaks_within(Duration::from_secs(2));
        assert!(
            leaks.is_empty(),
            "kill {round}, {moment:?} after open, left:\n  {}",
            leaks.join("\n  ")
        );
    }
    no_container_left(root)?;
    clean(root)?;
    blobs_are_what_they_say(root)
}

/// Whoever comes last clears up, and finds nothing after that.
fn clean(root: &Path) -> Check {
    block_on(async {
        let engine = Engine::open(root).await?;
        // The engine that looked before this one may be on its way out still: its owner dies between the two calls.
        let start = Instant::now();
        loop {
            engine.reconcile().await?;
            let audit = engine.audit().await?;
            if audit.is_clean() && fs::read_dir(root.join("owners"))?.count() == 1 {
                break;
            }
            if start.elapsed() > Duration::from_secs(5) {
                return fail(format!("not clean after five seconds: {:?}", audit.findings));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let unfinished = fs::read_dir(root.join("content/ingest"))?.count();
        assert_eq!(unfinished, 0, "blobs that were never finished");
        assert_eq!(
            fs::read_dir(root.join("containers"))?.count(),
            0,
            "directories of containers"
        );
        assert_eq!(fs::read_dir(root.join("owners"))?.count(), 1, "owners that are dead");
        Ok(())
    })
}

/// Every blob has the digest that is its name.
pub fn blobs_are_what_they_say(root: &Path) -> Check {
    for entry in fs::read_dir(root.join("content/blobs/sha256"))? {
        let entry = entry?;
        let name = format!("sha256:{}", entry.file_name().to_string_lossy());
        let is = image::digest(&fs::read(entry.path())?);
        if is != name {
            return fail(format!("the blob {name} has the digest {is}"));
        }
    }
    Ok(())
}

fn d6_kills_during_pulls_leave_complete_images() -> Check {
    let root = TempRoot::new();
    let source = source(image::shared()?);
    let span = Duration::from_millis(150);
    kill_again_and_again(root.path(), "pull-forever", &[&source], span, 0x5eed_0001)?;
    // Nothing is in the way of another pull.
    fill(root.path())?;
    no_container_left(root.path())
}

/// An image of a layer that is worth unpacking while it is read, which its bytes do not pack to less than.
fn large(dir: &Path) -> Result<Layout, Stop> {
    let mut random = Random(0x5eed_0041);
    let body: Vec<u8> = (0..300_000).map(|_| random.below(256) as u8).collect();
    image::write_layout(
        dir,
        &[Files::new().file("noise", 0o644, body)],
        &json!({ "Cmd": ["noise"] }),
    )
}

/// An image of one small layer, so that loops turn quickly.
fn small(dir: &Path, text: &str) -> Result<Layout, Stop> {
    let files = Files::new().file("text", 0o644, text.repeat(20_000));
    image::write_layout(dir, &[files], &json!({ "Cmd": ["text"] }))
}

fn archive_of(layout: &Layout, file: &Path) -> Check {
    let root = TempRoot::new();
    block_on(async {
        let engine = Engine::open(root.path()).await?;
        let image = engine.pull(source(layout)).await?;
        image.tag(&"archived:1".parse()?).await?;
        let pieces: Vec<Bytes> = engine.save(["archived:1"]).await?.try_collect().await?;
        Ok(fs::write(file, pieces.concat())?)
    })
}

/// Every image that is listed is whole: its blobs hash to their names, its layers are unpacked. Every name that was said to
/// be kept is there.
fn whole_and_kept(root: &Path, kept: &[String]) -> Check {
    block_on(async {
        let engine = Engine::open(root).await?;
        for image in engine.list_images(Filter::new()).await? {
            let id = image.id.to_string();
            // Saving reads and checks every blob.
            let saved: Result<Vec<Bytes>, _> = engine.save([id.as_str()]).await?.try_collect().await;
            saved?;
            assert_eq!(
                engine.images().restore(&id).await?,
                Outcome::Already,
                "{id} lost a layer"
            );
        }
        for name in kept {
            engine.image(name.as_str()).await?;
        }
        Ok(())
    })
}

fn d6_kills_of_four_at_once_lose_nothing_that_was_reported() -> Check {
    let dir = scratch::fresh("four");
    let [one, two, four] = ["one ", "two ", "four "].map(|text| small(&dir.path().join(text.trim()), text));
    let (one, two, four) = (one?, two?, four?);
    let registry = Registry::with(Options::default(), &[(&one, "kept", "1"), (&two, "other", "1")])?;
    let archive = dir.path().join("archive.tar");
    archive_of(&large(&dir.path().join("large"))?, &archive)?;
    let root = TempRoot::new();
    let (kept, other, push_from) = (
        registry.reference("kept:1"),
        registry.reference("other:1"),
        source(&one),
    );
    let (addr, passing) = (registry.addr.to_string(), source(&four));
    let (place, archive) = (root.path().display().to_string(), archive.display().to_string());
    let roles: [(&str, Vec<&str>); 4] = [
        ("keep-pulls", vec![&place, &kept, &other]),
        ("keep-loads", vec![&place, &archive]),
        ("keep-pushes", vec![&place, &push_from, &addr]),
        ("prune-forever", vec![&place, &passing]),
    ];
    let mut random = Random(0x5eed_0040);
    let (mut names, mut pushed) = (Vec::new(), Vec::new());
    for round in 0..kills().div_ceil(4) {
        let mut embedders = Vec::new();
        for (role, arguments) in &roles {
            embedders.push(Embedder::start(role, arguments)?);
        }
        for embedder in &embedders {
            let line = embedder.line(Duration::from_secs(20))?;
            assert_eq!(line, "open", "round {round}");
        }
        for embedder in &mut embedders {
            std::thread::sleep(Duration::from_micros(random.below(120_000)));
            embedder.kill()?;
        }
        for line in embedders.iter().flat_map(Embedder::rest) {
            match line.split_once(' ') {
                Some(("kept", name)) => names.push(name.to_owned()),
                Some(("pushed", name)) => pushed.push(name.to_owned()),
                _ => return fail(format!("round {round}: {line}")),
            }
        }
        whole_and_kept(root.path(), &names)?;
        blobs_are_what_they_say(root.path())?;
    }
    assert!(!names.is_empty(), "no kill came after anything was done");
    clean(root.path())?;
    let fresh = TempRoot::new();
    block_on(async {
        let engine = Engine::open(fresh.path()).await?;
        for name in &pushed {
            engine.pull(name.as_str()).await?;
        }
        Ok(())
    })
}

fn e9_kills_during_creates_leave_nothing() -> Check {
    let root = filled_root()?;
    kill_again_and_again(
        root.path(),
        "create-forever",
        &[],
        Duration::from_millis(40),
        0x5eed_0011,
    )
}

fn e9_kills_during_starts_leave_nothing() -> Check {
    let root = filled_root()?;
    kill_again_and_again(
        root.path(),
        "start-forever",
        &[],
        Duration::from_millis(80),
        0x5eed_0012,
    )
}

fn e9_kills_during_removals_leave_nothing() -> Check {
    let root = filled_root()?;
    kill_again_and_again(
        root.path(),
        "remove-forever",
        &[],
        Duration::from_millis(60),
        0x5eed_0013,
    )
}

/// Whoever comes next sweeps what is not complete.
fn g13_kills_during_checkpoints_leave_nothing() -> Check {
    checkpoints::must_work()?;
    let root = filled_root()?;
    let place = scratch::fresh("checkpoints");
    let directory = place.path().to_str().expect("temporary paths are UTF-8");
    let span = Duration::from_millis(1500);
    kill_again_and_again(root.path(), "checkpoint-forever", &[directory], span, 0x5eed_0015)?;
    block_on(async {
        let engine = Engine::open(root.path()).await?;
        let container = engine.run(sleeper()).await?;
        let options = CheckpointOptions {
            directory: Some(directory.into()),
            leave_running: true,
        };
        container.checkpoint("last", options).await?;
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            assert!(!name.starts_with('.'), "{name} is left");
            assert!(entry.path().join("inventory.img").is_file(), "{name} is not complete");
        }
        container.remove(FORCE).await?;
        Ok(())
    })
}

/// Whatever is listed runs; nothing else is left.
fn d4_kills_during_commits_leave_complete_images() -> Check {
    let root = filled_root()?;
    let span = Duration::from_millis(120);
    kill_again_and_again(root.path(), "commit-forever", &[], span, 0x5eed_0014)?;
    block_on(async {
        let engine = Engine::open(root.path()).await?;
        for image in engine.images().list(Default::default()).await? {
            let spec = ContainerSpec::image(image.id.to_string()).command(["true"]);
            let output = engine.run(spec).output().await?;
            assert!(output.status.success(), "{}: {}", image.id, output.status);
            image_goes(&engine, &image.id.to_string()).await?;
        }
        engine.reconcile().await?;
        assert_eq!(engine.audit().await?.findings, []);
        assert_eq!(
            fs::read_dir(root.path().join("content/blobs/sha256"))?.count(),
            0,
            "blobs of no image"
        );
        Ok(())
    })
}

/// Builds with steps that are new each time, and forgets all of them now and then.
async fn build_forever(root: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    println!("open");
    for number in 0u64.. {
        let text = format!(
            "FROM busybox AS a\nRUN echo {number} > /a\nFROM busybox\nWORKDIR /{number}\nCOPY --from=a /a /b\n\
             COPY <<x /c\n{number}\nx\nRUN --mount=type=cache,target=/k cat /b > /k/x\n"
        );
        let spec = BuildSpec::new(ContextSource::Empty)
            .dockerfile_text(text)
            .network(NetworkMode::None);
        let image = engine.build(spec).await?;
        image.remove(RemoveImageOptions::default()).await?;
        if number % 4 == 3 {
            engine.builds().prune(PruneCache::all()).await?;
        }
    }
    Ok(())
}

/// Whatever is listed runs, whatever is known from before is whole, and nothing else is left.
fn e9_kills_during_builds_leave_complete_images() -> Check {
    let root = filled_root()?;
    let span = Duration::from_millis(200);
    kill_again_and_again(root.path(), "build-forever", &[], span, 0x5eed_0015)?;
    block_on(async {
        let engine = Engine::open(root.path()).await?;
        engine.reconcile().await?;
        assert_eq!(engine.audit().await?.findings, []);
        assert_eq!(fs::read_dir(root.path().join("builds"))?.count(), 0, "what builds left");
        assert!(
            engine.doctor(false).await?.is_healthy(),
            "a layer that is not what it should be"
        );
        engine.builds().prune(PruneCache::all()).await?;
        for image in engine.images().list(Default::default()).await? {
            let spec = ContainerSpec::image(image.id.to_string()).command(["true"]);
            let output = engine.run(spec).output().await?;
            assert!(output.status.success(), "{}: {}", image.id, output.status);
            image_goes(&engine, &image.id.to_string()).await?;
        }
        engine.reconcile().await?;
        assert_eq!(engine.audit().await?.findings, []);
        let blobs = fs::read_dir(root.path().join("content/blobs/sha256"))?.count();
        assert_eq!(blobs, 0, "blobs of no image");
        Ok(())
    })
}

/// A shelf with so many files.
pub const FILES: usize = 40;

fn shelf() -> Result<Files, Stop> {
    let mut files = image::busybox_files()?.dir("shelf", 0o755);
    for number in 0..FILES {
        files = files.file(format!("shelf/{number}"), 0o644, format!("{number} ").repeat(2000));
    }
    Ok(files)
}

/// Every volume that is listed has all files, or none where that may be, and goes.
fn whole_volumes(root: &Path, prefix: &str, may_be_empty: bool) -> Check {
    block_on(async {
        let engine = Engine::open(root).await?;
        for volume in engine.volumes().list(Filter::new()).await? {
            let place = volume.mountpoint.expect("a directory");
            let files = fs::read_dir(&place)?.count();
            let whole = files == FILES || (may_be_empty && files == 0);
            assert!(whole, "{} has {files} files", volume.name);
            for entry in fs::read_dir(&place)? {
                let length = entry?.metadata()?.len();
                assert!(length >= 4000, "a file of {length} bytes in {}", volume.name);
            }
            if volume.name.starts_with(prefix) {
                engine.volume(&volume.name).await?.remove().await?;
            }
        }
        engine.reconcile().await?;
        assert_eq!(engine.audit().await?.findings, []);
        Ok(())
    })
}

/// A volume is empty, or has all that the image has at its place.
fn e9_kills_during_copy_ups_leave_whole_volumes() -> Check {
    let root = filled_root()?;
    let dir = scratch::fresh("shelf");
    let layout = image::write_layout(dir.path(), &[shelf()?], &json!({ "Cmd": ["true"] }))?;
    let image = block_on(async {
        let engine = Engine::open(root.path()).await?;
        Ok::<_, Stop>(engine.pull(source(&layout)).await?.id().to_string())
    })?;
    let span = Duration::from_millis(60);
    kill_again_and_again(root.path(), "copy-up-forever", &[&image], span, 0x5eed_0015)?;
    whole_volumes(root.path(), "up-", true)
}

/// A volume is there with all its files, or not at all; and one whose removal was reported does not come back.
fn e9_kills_during_removals_of_volumes_leave_no_halves() -> Check {
    let root = filled_root()?;
    let place = root.path().to_str().expect("temporary paths are UTF-8");
    let mut random = Random(0x5eed_0017);
    let (mut removed, mut spared) = (0, 0);
    for round in 0..kills() {
        let mut embedder = Embedder::start("remove-volumes", &[place])?;
        let line = embedder.line(Duration::from_secs(20))?;
        if line != "open" {
            return fail(line);
        }
        // A moment of one removal, whichever, however slow the disk is.
        let mut said = Vec::new();
        for _ in 0..random.below(VOLUMES as u64) {
            said.push(embedder.line(Duration::from_secs(20))?);
        }
        std::thread::sleep(Duration::from_micros(random.below(8_000)));
        embedder.kill()?;
        said.extend(embedder.rest());
        let gone: Vec<&str> = said.iter().filter_map(|line| line.strip_prefix("gone ")).collect();
        assert_eq!(gone.len(), said.len(), "round {round}: {said:?}");
        removed += gone.len();
        // Whatever was in the middle of it: whole again, or gone.
        clean(root.path())?;
        spared += block_on(async {
            let engine = Engine::open(root.path()).await?;
            let mut left = 0;
            for volume in engine.volumes().list(Filter::new()).await? {
                assert!(!gone.contains(&volume.name.as_str()), "{} is back", volume.name);
                let files = fs::read_dir(volume.mountpoint.expect("a directory"))?.count();
                assert_eq!(files, FILES, "round {round}: files of {}", volume.name);
                engine.volume(&volume.name).await?.remove().await?;
                left += 1;
            }
            let there = fs::read_dir(root.path().join("volumes"))?.count();
            assert_eq!(there, 0, "round {round}: directories of no volume");
            Ok::<_, Stop>(left)
        })?;
    }
    assert!(
        removed > 0 && spared > 0,
        "every kill came too early, or too late: {removed} gone, {spared} left"
    );
    clean(root.path())?;
    blobs_are_what_they_say(root.path())
}

fn e9_kills_during_snapshots_leave_whole_volumes() -> Check {
    let root = filled_root()?;
    block_on(async {
        let engine = Engine::open(root.path()).await?;
        let mut files = Files::new();
        for number in 0..FILES {
            files = files.file(format!("{number}"), 0o644, format!("{number} ").repeat(2000));
        }
        let tar = stream::iter([Ok(Bytes::from(files.tar()?))]).boxed();
        engine.import_volume(CreateVolume::named("from"), tar).await?;
        Ok::<_, Stop>(())
    })?;
    let span = Duration::from_millis(60);
    kill_again_and_again(root.path(), "snapshot-forever", &[], span, 0x5eed_0016)?;
    whole_volumes(root.path(), "copy-", false)
}

async fn image_goes(engine: &Engine, id: &str) -> Check {
    engine
        .images()
        .remove(id, RemoveImageOptions::default().force(true))
        .await?;
    Ok(())
}

/// The check above is worth something: it finds a blob that lost a byte.
fn e9_a_blob_that_is_not_what_its_name_says_is_found() -> Check {
    let root = filled_root()?;
    blobs_are_what_they_say(root.path())?;
    let blobs = root.path().join("content/blobs/sha256");
    let Some(blob) = fs::read_dir(&blobs)?.flatten().next() else {
        return fail("no blob in a root with an image");
    };
    let mut bytes = fs::read(blob.path())?;
    bytes.pop();
    fs::remove_file(blob.path())?;
    fs::write(blob.path(), bytes)?;
    match blobs_are_what_they_say(root.path()) {
        Err(Stop::Fail(reason)) if reason.contains("has the digest") => Ok(()),
        other => fail(format!("it was not found: {other:?}")),
    }
}
