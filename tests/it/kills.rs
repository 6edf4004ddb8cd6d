//! Embedders that are killed at random moments of one verb, again and again: nothing of theirs is left, and what is listed is
//! whole. `LONGSHORE_KILL_LOOPS` says how often.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use longshore::containers::CommitOptions;
use longshore::images::RemoveImageOptions;
use longshore::{ContainerSpec, Engine};

use crate::faults::{Random, fill, filled_root, kills, no_container_left, role};
use crate::frame::{Check, Stop, block_on, fail};
use crate::support::embedder::{Embedder, Role};
use crate::support::image;
use crate::support::leaks::Snapshot;
use crate::support::root::TempRoot;
use crate::support::world::{FORCE, source};
use crate::tests;

tests! { "kills":
    kernel [
        d6_kills_during_pulls_leave_complete_images,
        e9_kills_during_creates_leave_nothing,
        e9_kills_during_starts_leave_nothing,
        e9_kills_during_removals_leave_nothing,
        d4_kills_during_commits_leave_complete_images,
        e9_a_blob_that_is_not_what_its_name_says_is_found,
    ]
}

/// What this binary does as a child.
pub const ROLES: &[(&str, Role)] = &[
    ("pull-forever", |arguments| {
        block_on(role(pull_forever(&arguments[0], &arguments[1])))
    }),
    ("create-forever", |arguments| {
        block_on(role(create_forever(&arguments[0])))
    }),
    ("start-forever", |arguments| {
        block_on(role(start_forever(&arguments[0])))
    }),
    ("commit-forever", |arguments| {
        block_on(role(commit_forever(&arguments[0])))
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
fn kill_again_and_again(root: &Path, role: &str, more: &[&str], span: Duration, seed: u64) -> Check {
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
        assert!(engine.audit().await?.is_clean());
        assert_eq!(
            fs::read_dir(root.path().join("content/blobs/sha256"))?.count(),
            0,
            "blobs of no image"
        );
        Ok(())
    })
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
