//! Bad input and bad circumstances: a typed error, nothing half-made, nothing lost, and it works again afterwards.

use std::fs;
use std::time::Duration;

use bytes::Bytes as Piece;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use longshore::containers::CommitOptions;
use longshore::images::{ByteStream, RemoveImageOptions};
use longshore::logs::LogQuery;
use longshore::types::Filter;
use longshore::{
    Bytes, ContainerSpec, ContainerState, Engine, Error, ErrorKind, ExecSpec, ObjectKind, StopOptions, WaitCondition,
};

use crate::frame::{Check, Stop, fail};
use crate::support::company;
use crate::support::disk::Disk;
use crate::support::image::{self, Files};
use crate::support::registry::Registry;
use crate::support::root::TempRoot;
use crate::support::world::{FORCE, World, source, text};
use crate::tests;

tests! { "trouble":
    kernel_async [
        a7_what_can_never_work_is_refused_at_create,
        h2_an_unknown_user_is_named,
        a9_a_helper_that_dies_ends_every_wait_of_the_engine,
        no_space_to_open,
        no_space_while_pulling_in_memory,
        no_space_while_pulling_on_ext4,
        no_space_while_loading_importing_and_pushing,
        d5_no_space_while_pruning,
        no_space_while_creating_and_starting,
        d4_no_space_while_committing,
        no_space_for_the_log,
        a_read_only_root,
        a_root_of_a_newer_version,
        d6_records_that_vanished_are_missed,
    ]
}

/// It stops in the middle of everything, answers nobody, and dies.
async fn a9_a_helper_that_dies_ends_every_wait_of_the_engine() -> Check {
    use nix::sys::signal::{Signal as S, kill};
    let world = World::new().await?;
    let running = world.started(world.script("sleep 1000")).await?;
    let created = world.engine.create(world.spec().command(["true"])).await?;
    let id = running.id().as_str();
    let pid = running.inspect().await?.pid.unwrap_or(0);
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let helper = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    let helper = nix::unistd::Pid::from_raw(helper.unwrap_or_default().trim().parse()?);
    let containers = world.engine.containers();
    let follow = LogQuery {
        follow: true,
        ..LogQuery::default()
    };
    let log = containers.logs(id, follow).await?;
    let removed = containers.wait(id, WaitCondition::Removed).await?;
    kill(helper, S::SIGSTOP)?;
    let asked = async {
        let exec = running.exec(ExecSpec::new(["true"])).output();
        let (started, executed, waited, _, stopped) = tokio::join!(
            created.start(),
            exec,
            running.wait(),
            log.collect::<Vec<_>>(),
            containers.stop(id, StopOptions::default()),
        );
        (started.map(drop), executed.map(drop), waited, stopped.map(drop))
    };
    let end = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        kill(helper, S::SIGKILL)
    };
    let patience = Duration::from_secs(60);
    let Ok(((started, executed, waited, stopped), killed)) =
        tokio::time::timeout(patience, async { tokio::join!(asked, end) }).await
    else {
        return fail("somebody waits for ever");
    };
    killed?;
    assert_eq!(started.expect_err("nobody started it").kind(), &ErrorKind::Unavailable);
    let kinds = [ErrorKind::Unavailable, ErrorKind::InvalidState];
    let error = executed.expect_err("nobody ran it");
    assert!(kinds.contains(error.kind()), "{}", error.report());
    assert_eq!(waited?.status.signal(), Some(9));
    stopped?;
    assert_eq!(running.inspect().await?.state, ContainerState::Exited);
    // The next helper does what this one did not come to.
    created.start().await?;
    assert_eq!(created.wait().await?.status.code(), 0);
    running.start().await?;
    running.remove(FORCE).await?;
    created.remove(FORCE).await?;
    if tokio::time::timeout(patience, removed).await.is_err() {
        return fail("it was removed, and nobody was told");
    }
    nothing_half_made(&world.engine).await
}

async fn nothing_half_made(engine: &Engine) -> Check {
    let all = longshore::ListOptions {
        all: true,
        ..Default::default()
    };
    let start = std::time::Instant::now();
    loop {
        let mut left = engine.list(all.clone()).await?;
        left.retain(|container| !container.labels.contains_key(company::LABEL));
        if left.is_empty() {
            break;
        }
        if start.elapsed() > Duration::from_secs(10) {
            return fail(format!("half-made: {left:?}"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let audit = engine.audit().await?;
    assert!(audit.is_clean(), "{:?}", audit.findings);
    Ok(())
}

async fn a7_what_can_never_work_is_refused_at_create() -> Check {
    let world = World::new().await?;
    let spec = || world.spec();
    let mut swap = spec().memory(Bytes::mib(64));
    swap.limits.memory_swap = Some(1 << 20);
    let mut shares = spec();
    shares.limits.cpu_shares = Some(1);
    let mut cpus = spec();
    cpus.limits.cpuset_cpus = Some("0;1".into());
    let mut score = spec();
    score.oom_score_adj = Some(2000);
    let bad = [
        ("a name with a space", spec().name("a b")),
        ("a name that begins with a dash", spec().name("-a")),
        ("an empty name", spec().name("")),
        ("a name that leads out", spec().name("../a")),
        ("a variable with =", spec().env("A=B", "c")),
        ("a variable without a name", spec().env("", "c")),
        ("a NUL in a variable", spec().env("A", "b\0c")),
        ("a NUL in the command", spec().command(["a\0b"])),
        ("too little memory", spec().memory(Bytes::kib(1))),
        ("less swap than memory", swap),
        ("hardly any CPU", spec().cpus(0.001)),
        ("shares out of range", shares),
        ("a list of CPUs that is none", cpus),
        ("a score out of range", score),
        ("a soft limit above the hard one", spec().ulimit("nofile", 10, 5)),
        ("a limit that does not exist", spec().ulimit("nope", 1, 1)),
        ("a capability that does not exist", spec().cap_add("NOPE")),
        ("a relative directory", spec().working_dir("relative")),
        ("a host name with a space", spec().hostname("a b")),
        ("a mount over the root", spec().bind("/tmp", "/")),
        ("a mount that leads out", spec().bind("/tmp", "/a/../..")),
        ("no image", ContainerSpec::image("")),
    ];
    for (what, spec) in bad {
        match world.engine.create(spec).await {
            Ok(_) => return fail(format!("{what} was taken")),
            Err(error) => {
                assert_eq!(error.kind(), &ErrorKind::InvalidArgument, "{what}: {}", error.report());
                assert!(!error.to_string().is_empty());
            }
        }
    }
    nothing_half_made(&world.engine).await
}

async fn h2_an_unknown_user_is_named() -> Check {
    let world = World::new().await?;
    for user in ["nobody-here", "app:nobody-here", "nobody-here:app"] {
        let error = match world
            .engine
            .run(world.spec().command(["true"]).user(user))
            .output()
            .await
        {
            Ok(_) => return fail(format!("{user} was taken")),
            Err(error) => error,
        };
        assert!(
            matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidArgument),
            "{}",
            error.report()
        );
        assert!(error.report().contains("nobody-here"), "{}", error.report());
        assert!(
            matches!(error.object(), Some((ObjectKind::User | ObjectKind::Container, _))),
            "{error:?}"
        );
    }
    nothing_half_made(&world.engine).await
}

const KIB: u64 = 1 << 10;

async fn no_space_to_open() -> Check {
    let disk = Disk::tmpfs(1024 * KIB)?;
    let mut refused = 0;
    for free in [0, 4, 8, 16, 32, 64, 128, 256].map(|kib| kib * KIB) {
        disk.leave(free)?;
        let root = disk.path().join(format!("root-{free}"));
        match Engine::open(root.clone()).await {
            Ok(engine) => drop(engine),
            Err(error) => {
                assert_eq!(
                    error.kind(),
                    &ErrorKind::NoSpace,
                    "{free} bytes free: {}",
                    error.report()
                );
                refused += 1;
            }
        }
        disk.give_back()?;
        // What a refused opening left behind is no obstacle.
        drop(Engine::open(root.clone()).await?);
        tokio::time::sleep(Duration::from_millis(20)).await;
        fs::remove_dir_all(root)?;
    }
    assert!(refused > 1, "{refused} refusals");
    Ok(())
}

async fn no_space_while_pulling(disk: &Disk) -> Check {
    let source = source(image::shared()?);
    let engine = Engine::open(disk.path().join("root")).await?;
    let (mut refused, mut done) = (0, 0);
    for free in [
        0, 16, 64, 256, 512, 1024, 1300, 1600, 2000, 2500, 3000, 4000, 5000, 8000,
    ] {
        disk.leave(free * KIB)?;
        let pulled = engine.pull(&source).await;
        match pulled {
            Ok(_) => done += 1,
            Err(error) => {
                assert_eq!(error.kind(), &ErrorKind::NoSpace, "{free} KiB free: {}", error.report());
                assert!(
                    engine.list_images(Filter::new()).await?.is_empty(),
                    "an image that is not whole"
                );
                refused += 1;
            }
        }
        nothing_half_made(&engine).await?;
        disk.give_back()?;
        let image = engine.pull(&source).await?;
        let spec = ContainerSpec::image(image.id().to_string()).command(["echo", "whole"]);
        assert_eq!(
            text(&engine.run(spec).output().await?.stdout),
            "whole",
            "{free} KiB free before"
        );
        image.remove(RemoveImageOptions::default().force(true)).await?;
        engine.reconcile().await?;
    }
    println!("{refused} pulls refused, {done} done");
    assert!(refused > 3 && done > 0, "{refused} refused, {done} done");
    Ok(())
}

/// Loads, imports, and pushes of what must be packed first, at every fill.
async fn no_space_while_loading_importing_and_pushing() -> Check {
    let registry = Registry::plain()?;
    let (disk, elsewhere) = (Disk::tmpfs(24 << 20)?, TempRoot::new());
    let other = Engine::open(elsewhere.path()).await?;
    let name = other.pull(source(image::shared()?)).await?.id().to_string();
    let archive: Vec<Piece> = other.save([name.as_str()]).await?.try_collect().await?;
    let archive = move || -> ByteStream { stream::iter(archive.clone().into_iter().map(Ok)).boxed() };
    let tree: Vec<u8> = Files::new().file("noise", 0o644, noise(600_000)).tar()?;
    let tree = move || -> ByteStream { stream::iter([Ok(Piece::from(tree.clone()))]).boxed() };
    let engine = Engine::open(disk.path().join("root")).await?;
    let (mut refused, mut done) = ([0; 3], [0; 3]);
    let count = |at: usize, error: Option<Error>, refused: &mut [i32; 3], done: &mut [i32; 3], free: u64| match error {
        None => done[at] += 1,
        Some(error) => {
            assert_eq!(
                error.kind(),
                &ErrorKind::NoSpace,
                "{at}, {free} KiB free: {}",
                error.report()
            );
            refused[at] += 1;
        }
    };
    for free in [0, 16, 64, 300, 620, 800, 1100, 1300, 1600, 2500, 4000, 8000] {
        let before = engine.list_images(Filter::new()).await?.len();
        assert_eq!(before, 0);
        disk.leave(free * KIB)?;
        let loaded = engine.load(archive()).await;
        count(0, loaded.as_ref().err().map(copy_of), &mut refused, &mut done, free);
        assert_eq!(
            engine.list_images(Filter::new()).await?.len(),
            usize::from(loaded.is_ok()),
            "{free} KiB free"
        );
        disk.give_back()?;
        remove_all(&engine).await?;

        disk.leave(free * KIB)?;
        let imported = engine.import(tree()).await;
        count(1, imported.as_ref().err().map(copy_of), &mut refused, &mut done, free);
        assert_eq!(
            engine.list_images(Filter::new()).await?.len(),
            usize::from(imported.is_ok()),
            "{free} KiB free"
        );
        disk.give_back()?;
        remove_all(&engine).await?;

        let made = engine.import(tree()).await?;
        let name = registry.reference(&format!("made-{free}:1"));
        made.tag(&name.parse()?).await?;
        disk.leave(free * KIB)?;
        let pushed = engine.push(&name).await;
        count(2, pushed.as_ref().err().map(copy_of), &mut refused, &mut done, free);
        disk.give_back()?;
        engine.push(&name).await?;
        remove_all(&engine).await?;
        nothing_half_made(&engine).await?;
        let blobs = disk.path().join("root/content/blobs/sha256");
        assert_eq!(fs::read_dir(blobs)?.count(), 0, "{free} KiB free: blobs of no image");
    }
    println!("{refused:?} refused, {done:?} done");
    assert!(
        refused.iter().chain(&done).all(|count| *count > 0),
        "{refused:?} refused, {done:?} done"
    );
    Ok(())
}

/// A full disk is what people prune for.
async fn d5_no_space_while_pruning() -> Check {
    let disk = Disk::of_kind("ext4", 48 << 20)?;
    let engine = Engine::open(disk.path().join("root")).await?;
    let kept = engine.pull(source(image::shared()?)).await?;
    kept.tag(&"kept:1".parse()?).await?;
    for free in [0, 4, 8, 16, 32, 64, 256, 1024] {
        let tree = Files::new()
            .file(format!("noise-{free}"), 0o644, noise(600_000))
            .tar()?;
        engine.import(stream::iter([Ok(Piece::from(tree))]).boxed()).await?;
        assert_eq!(engine.list_images(Filter::new()).await?.len(), 2);
        disk.leave(free * KIB)?;
        let pruned = engine.prune_images(Filter::new()).await;
        match &pruned {
            Ok(pruned) => assert!(pruned.reclaimed_bytes > 600_000, "{free} KiB free: {pruned:?}"),
            Err(error) => assert_eq!(error.kind(), &ErrorKind::NoSpace, "{free} KiB free: {}", error.report()),
        }
        assert_eq!(
            engine.list_images(Filter::new()).await?.len(),
            1 + usize::from(pruned.is_err()),
            "{free} KiB free"
        );
        println!("{free} KiB free: {}", if pruned.is_ok() { "pruned" } else { "refused" });
        disk.give_back()?;
        engine.prune_images(Filter::new()).await?;
        nothing_half_made(&engine).await?;
        let spec = ContainerSpec::image("kept:1").command(["echo", "whole"]);
        assert_eq!(
            text(&engine.run(spec).output().await?.stdout),
            "whole",
            "{free} KiB free before"
        );
    }
    Ok(())
}

/// What is left of an error for a count.
fn copy_of(error: &Error) -> Error {
    Error::new(error.kind().clone(), error.report())
}

async fn remove_all(engine: &Engine) -> Check {
    for image in engine.list_images(Filter::new()).await? {
        let id = image.id.to_string();
        engine
            .images()
            .remove(&id, RemoveImageOptions::default().force(true))
            .await?;
    }
    engine.reconcile().await?;
    Ok(())
}

/// Bytes that do not pack.
fn noise(length: usize) -> Vec<u8> {
    let mut random = crate::faults::Random(0x5eed_0100);
    (0..length).map(|_| random.below(256) as u8).collect()
}

async fn no_space_while_pulling_in_memory() -> Check {
    no_space_while_pulling(&Disk::tmpfs(24 << 20)?).await
}

async fn no_space_while_pulling_on_ext4() -> Check {
    no_space_while_pulling(&Disk::of_kind("ext4", 32 << 20)?).await
}

async fn no_space_while_creating_and_starting() -> Check {
    let disk = Disk::tmpfs(24 << 20)?;
    let engine = Engine::open(disk.path().join("root")).await?;
    let image = engine.pull(source(image::shared()?)).await?.id().to_string();
    let spec = || ContainerSpec::image(&image).command(["echo", "hello"]);
    let mut refused = 0;
    for free in [0, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 64, 96, 128] {
        disk.leave(free * KIB)?;
        let limit = Duration::from_secs(20);
        match tokio::time::timeout(limit, engine.run(spec()).output()).await {
            Err(_) => return fail(format!("{free} KiB free: no end within {limit:?}")),
            Ok(Ok(output)) => assert_eq!(text(&output.stdout), "hello"),
            Ok(Err(error)) => {
                assert_eq!(error.kind(), &ErrorKind::NoSpace, "{free} KiB free: {}", error.report());
                refused += 1;
            }
        }
        disk.give_back()?;
        nothing_half_made(&engine).await?;
        assert_eq!(
            text(&engine.run(spec()).output().await?.stdout),
            "hello",
            "{free} KiB free before"
        );
    }
    println!("{refused} refused");
    assert!(refused > 0);
    Ok(())
}

async fn d4_no_space_while_committing() -> Check {
    let disk = Disk::tmpfs(32 << 20)?;
    let engine = Engine::open(disk.path().join("root")).await?;
    let image = engine.pull(source(image::shared()?)).await?.id().to_string();
    let script = "dd if=/dev/zero of=/x bs=64k count=16 2>/dev/null; mkdir /d; for i in 1 2 3 4 5 6 7 8; do echo $i > /d/$i; done";
    let container = engine
        .run(ContainerSpec::image(&image).command(["sh", "-c", script]))
        .await?;
    assert!(container.wait().await?.status.success());
    let mut refused = 0;
    for free in [0, 8, 64, 512, 1024, 1100, 1536, 2048, 2100, 2200, 3000] {
        disk.leave(free * KIB)?;
        let made = container.commit(CommitOptions::new()).await;
        disk.give_back()?;
        match made {
            Ok(made) => drop(made.remove(RemoveImageOptions::default()).await?),
            Err(error) => {
                assert_eq!(error.kind(), &ErrorKind::NoSpace, "{free} KiB free: {}", error.report());
                refused += 1;
            }
        }
        assert_eq!(
            engine.images().list(Filter::default()).await?.len(),
            1,
            "{free} KiB free: an image is half made"
        );
        let made = container.commit(CommitOptions::new()).await?;
        made.remove(RemoveImageOptions::default()).await?;
    }
    println!("{refused} refused");
    assert!(refused > 0);
    container.remove(FORCE).await?;
    engine.reconcile().await?;
    assert_eq!(engine.audit().await?.findings, []);
    Ok(())
}

async fn no_space_for_the_log() -> Check {
    // Lines of JSON are eight times as long as these.
    for (driver, bytes) in [("local", 4_000_000), ("json-file", 400_000)] {
        no_space_for_the_log_of(driver, bytes).await?;
    }
    Ok(())
}

async fn no_space_for_the_log_of(driver: &str, bytes: usize) -> Check {
    let disk = Disk::tmpfs(24 << 20)?;
    let engine = Engine::open(disk.path().join("root")).await?;
    let image = engine.pull(source(image::shared()?)).await?.id().to_string();
    let script = format!("read go; yes 0123456789 | head -c {bytes}; exit 7");
    let mut spec = ContainerSpec::image(&image).command(["sh", "-c", &script]);
    spec.open_stdin = true;
    spec.log.driver = Some(driver.to_owned());
    let container = engine.create(spec).await?;
    let mut attached = container.attach(longshore::AttachOptions::default()).await?;
    container.start().await?;
    disk.leave(200 * KIB)?;
    attached
        .input
        .take()
        .expect("stdin was asked for")
        .write("go\n")
        .await?;
    let reader = tokio::spawn(async move {
        use futures_util::StreamExt as _;
        while attached.output.next().await.is_some() {}
    });
    let limit = Duration::from_secs(20);
    let Ok(exit) = tokio::time::timeout(limit, container.wait()).await else {
        return fail(format!("no end within {limit:?}, for want of space for a log"));
    };
    assert_eq!(exit?.status.code(), 7, "the container goes its own way");
    reader.await?;
    disk.give_back()?;
    // The end is recorded as soon as there is space again.
    let mut told = String::new();
    for _ in 0..100 {
        told = container.inspect().await?.error.unwrap_or_default();
        if !told.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(
        told.contains("log") && told.contains("No space"),
        "nothing tells of the lost lines: {told:?}"
    );
    let kept = logged(&container).await?;
    assert!(kept.len() < bytes, "{} bytes were kept", kept.len());
    assert!(
        kept.starts_with("0123456789\n0123456789\n"),
        "what was kept is the beginning"
    );
    // All that is not there is counted, and no more.
    let entries = |bytes: usize| bytes.div_ceil("0123456789\n".len());
    let lost = told.split(' ').find_map(|word| word.parse().ok());
    assert_eq!(lost, Some(entries(bytes) - entries(kept.len())), "{driver}: {told}");
    // With space again, the next run is logged behind it.
    let input = container.attach(longshore::AttachOptions::default()).await?.input;
    container.start().await?;
    input.expect("stdin was asked for").write("go\n").await?;
    assert_eq!(container.wait().await?.status.code(), 7);
    let all = logged(&container).await?;
    assert!(
        all.len() >= kept.len() + bytes,
        "{driver}: {} bytes after {}",
        all.len(),
        kept.len()
    );
    assert!(all.starts_with(&kept), "{driver}: what was kept before is there");
    container.remove(FORCE).await?;
    let spec = ContainerSpec::image(&image).command(["echo", "again"]);
    assert_eq!(text(&engine.run(spec).output().await?.stdout), "again");
    nothing_half_made(&engine).await
}

async fn logged(container: &longshore::Container) -> Result<String, Stop> {
    use futures_util::StreamExt as _;
    let mut entries = container.logs(LogQuery::default()).await?;
    let mut bytes = Vec::new();
    while let Some(entry) = entries.next().await {
        bytes.extend_from_slice(&entry?.bytes);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

async fn a_read_only_root() -> Check {
    let disk = Disk::tmpfs(8 << 20)?;
    let root = disk.path().join("root");
    drop(Engine::open(root.clone()).await?);
    // The engine's thread ends after its handle.
    let start = std::time::Instant::now();
    while let Err(stop) = disk.read_only() {
        if start.elapsed() > Duration::from_secs(5) {
            return Err(stop);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for place in [root, disk.path().join("new")] {
        let refused = Engine::open(place).await.expect_err("it cannot be written");
        assert_eq!(refused.kind(), &ErrorKind::ReadOnly, "{}", refused.report());
    }
    Ok(())
}

async fn a_root_of_a_newer_version() -> Check {
    let root = TempRoot::new();
    drop(Engine::open(root.path()).await?);
    let file = root.path().join("version");
    let text = fs::read_to_string(&file)?;
    fs::write(&file, text.replace("version 1", "version 2"))?;
    let refused = Engine::open(root.path()).await.expect_err("it is newer");
    assert_eq!(refused.kind(), &ErrorKind::NewerVersion, "{}", refused.report());
    fs::write(&file, "nonsense")?;
    let refused = Engine::open(root.path()).await.expect_err("it makes no sense");
    assert_eq!(refused.kind(), &ErrorKind::Corrupt, "{}", refused.report());
    fs::write(&file, text)?;
    drop(Engine::open(root.path()).await?);
    Ok(())
}

async fn d6_records_that_vanished_are_missed() -> Check {
    let root = TempRoot::new();
    let engine = Engine::open(root.path()).await?;
    let image = *engine.pull(source(image::shared()?)).await?.id();
    drop(engine);
    let file = root.path().join("store.db");
    // Until the last connection is closed, what was committed is in the journal beside it.
    let start = std::time::Instant::now();
    while root.path().join("store.db-wal").exists() && start.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let kept = fs::read(&file)?;
    let damages: [(&str, Option<&[u8]>); 3] = [("empty", Some(b"")), ("gone", None), ("torn", Some(&kept[..2000]))];
    for (what, damaged) in damages {
        match damaged {
            Some(bytes) => fs::write(&file, bytes)?,
            None => fs::remove_file(&file)?,
        }
        for _ in 0..2 {
            let refused = match Engine::open(root.path()).await {
                Ok(_) => return fail(format!("{what}: taken for a new root")),
                Err(error) => error,
            };
            assert_eq!(refused.kind(), &ErrorKind::Corrupt, "{what}: {}", refused.report());
            assert!(refused.report().contains("store.db"), "{}", refused.report());
        }
        fs::write(&file, &kept)?;
        let engine = Engine::open(root.path()).await?;
        assert_eq!(
            engine.list_images(Filter::new()).await?[0].id,
            image,
            "nothing was lost"
        );
        let spec = ContainerSpec::image(image.to_string()).command(["echo", "whole"]);
        assert_eq!(text(&engine.run(spec).output().await?.stdout), "whole");
        drop(engine);
        let start = std::time::Instant::now();
        while root.path().join("store.db-wal").exists() && start.elapsed() < Duration::from_secs(5) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(())
}
