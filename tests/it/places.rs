//! Where an engine lives: on an overlay, on file systems that share blocks, on a host without cgroups; and engines that go
//! away while they are starting for the first time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use longshore::conformance::layers::LayerBuilder;
use longshore::runtime::cgroups::NoCgroups;
use longshore::storage::layer::{self, Limits};
use longshore::storage::ownership::Ownership;
use longshore::storage::snapshot::vfs::Vfs;
use longshore::storage::snapshot::{LayerTarget, Snapshotter, WritableOptions};
use longshore::types::Digest;
use longshore::{Bytes, ContainerSpec, Engine, ErrorKind};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::frame::{Check, Stop, block_on, fail, skip};
use crate::support::embedder::{Embedder, Role};
use crate::support::root::TempRoot;
use crate::support::world::{World, source, text};
use crate::support::{image, is_root, program, scratch};
use crate::tests;

tests! { "places":
    kernel [
        e3_p36_on_an_overlay_a_driver_is_chosen_that_works,
        e2_vfs_shares_blocks_on_xfs,
        e2_vfs_shares_blocks_on_btrfs,
        k5_p45_a_host_without_cgroups,
        c13_what_is_on_disk_runs_where_no_network_is,
        an_engine_that_goes_away_while_it_starts_prints_nothing,
    ]
    kernel_async [
        e2_vfs_copies_where_blocks_cannot_be_shared,
        k5_limits_without_cgroups_are_refused_or_left_out,
    ]
}

/// What this binary does as a child.
pub const ROLES: &[(&str, Role)] = &[
    ("on-overlay", |arguments| in_private(arguments, on_overlay)),
    ("on-loop", |arguments| in_private(arguments, on_loop)),
    ("no-network", |arguments| in_private(arguments, no_network)),
    ("no-cgroups", |arguments| in_private(arguments, no_cgroups)),
    ("vanish", |arguments| vanish(&arguments[0], &arguments[1])),
];

/// Runs a role in a mount namespace that nobody else sees, and prints why it failed.
fn in_private(arguments: &[String], work: fn(&[String]) -> Check) -> i32 {
    let private = || -> Check {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)?;
        work(arguments)
    };
    match private() {
        Ok(()) => 0,
        Err(Stop::Skip(why)) => {
            println!("skip {why}");
            0
        }
        Err(Stop::Fail(why)) => {
            println!("failed {}", why.replace('\n', " | "));
            1
        }
    }
}

/// What a role says, line by line, until it says that it is done.
fn said_by(role: &str, arguments: &[&str]) -> Result<Vec<String>, Stop> {
    if !is_root() {
        return skip("only root can mount");
    }
    let child = Embedder::start(role, arguments)?;
    let mut lines = Vec::new();
    loop {
        let line = child.line(Duration::from_secs(120))?;
        if line == "done" {
            break;
        }
        match line.split_once(' ') {
            Some(("failed", why)) => return fail(why),
            Some(("skip", why)) => return skip(why),
            _ => lines.push(line),
        }
    }
    assert_eq!(child.finish()?, 0);
    Ok(lines)
}

fn e3_p36_on_an_overlay_a_driver_is_chosen_that_works() -> Check {
    let dir = scratch::fresh("overlay");
    let path = dir.path().to_str().expect("UTF-8");
    let layout = source(image::shared()?);
    let lines = said_by("on-overlay", &[path, &layout])?;
    let [driver, reason, output] = lines.as_slice() else {
        return fail(format!("{lines:?}"));
    };
    assert_eq!(driver, "vfs");
    assert!(reason.contains("overlay"), "it says why: {reason}");
    assert_eq!(output, "works");
    Ok(())
}

/// As in a container whose root is an overlay.
fn on_overlay(arguments: &[String]) -> Check {
    let dir = PathBuf::from(&arguments[0]);
    let part = |name: &str| dir.join(name);
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(part(name))?;
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        part("lower").display(),
        part("upper").display(),
        part("work").display()
    );
    let merged = part("merged");
    mount(
        Some("overlay"),
        &merged,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )?;
    block_on(async {
        let engine = Engine::open(merged.join("root")).await?;
        let image = engine.pull(&arguments[1]).await?;
        let spec = ContainerSpec::image(image.id().to_string());
        let spec = spec.command(["sh", "-c", "echo x > /x && cat /x > /dev/null && echo works"]);
        let output = engine.run(spec).output().await?;
        let info = engine.system().info().await?;
        println!("{}\n{}", info.storage_driver, info.storage_reason);
        println!("{}{}", text(&output.stdout), text(&output.stderr));
        Ok::<_, Stop>(())
    })?;
    println!("done");
    // The helper of the engine goes with this process, and the mount with the namespace.
    Ok(())
}

fn e2_vfs_shares_blocks_on_xfs() -> Check {
    shares_blocks("mkfs.xfs", "-q -m reflink=1", "xfs")
}

fn e2_vfs_shares_blocks_on_btrfs() -> Check {
    shares_blocks("mkfs.btrfs", "-q", "btrfs")
}

fn shares_blocks(tool: &str, options: &str, kind: &str) -> Check {
    program(tool)?;
    program("filefrag")?;
    let dir = scratch::fresh("loop");
    let path = dir.path().to_str().expect("UTF-8");
    let layout = source(image::shared()?);
    let lines = said_by("on-loop", &[path, tool, options, kind, &layout])?;
    let [own, output] = lines.as_slice() else {
        return fail(format!("{lines:?}"));
    };
    println!("a container of a layer of 500 MiB has {own} bytes of its own");
    let own: u64 = own.parse().map_err(|_| Stop::Fail(own.clone()))?;
    assert!(own < 5 << 20, "the blocks should be shared, and {own} bytes are not");
    assert_eq!(output, "works");
    Ok(())
}

fn on_loop(arguments: &[String]) -> Check {
    let [dir, tool, options, kind, layout] = arguments else {
        return fail("five arguments");
    };
    let (disk, place) = (Path::new(dir).join("disk"), Path::new(dir).join("mounted"));
    fs::File::create(&disk)?.set_len(1500 << 20)?;
    fs::create_dir(&place)?;
    run(Command::new(tool).args(options.split(' ')).arg(&disk))?;
    run(Command::new("mount")
        .args(["-o", "loop", "-t", kind])
        .arg(&disk)
        .arg(&place))?;
    let done = use_of_loop(&place, layout);
    // The device is let go with the last mount; a helper that is on its way out may hold it for a moment.
    umount2(&place, MntFlags::MNT_DETACH)?;
    done?;
    println!("done");
    Ok(())
}

fn use_of_loop(place: &Path, layout: &str) -> Check {
    println!("{}", block_on(clone_of_a_large_layer(&place.join("vfs"), own))?);
    block_on(conformance(&place.join("suite")))?;
    let root = place.join("root");
    let output = block_on(async {
        let engine = Engine::builder(&root).snapshotter("vfs").open().await?;
        let image = engine.pull(layout).await?;
        let spec = ContainerSpec::image(image.id().to_string()).command(["sh", "-c", "rm /etc/secret && echo works"]);
        let first = engine.run(spec.clone()).output().await?;
        let second = engine.run(spec).output().await?;
        Ok::<_, Stop>(format!("{}{}", text(&first.stdout), text(&second.stdout)))
    })?;
    println!("{}", if output == "worksworks" { "works" } else { &output });
    Ok(())
}

fn run(command: &mut Command) -> Check {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("unknown filesystem") || said.contains("loop device") {
        return skip(format!(
            "this kernel has no such file system, or no loop device: {said}"
        ));
    }
    fail(format!("{command:?}: {said}"))
}

/// How many bytes more are in use after a container's copy of a layer of 500 MiB was made.
async fn clone_of_a_large_layer(dir: &Path, measure: fn(&Path) -> Result<u64, Stop>) -> Result<u64, Stop> {
    let vfs = Vfs::open(dir, Ownership::Direct)?;
    let chain = large_layer(&vfs, 500 << 20).await?;
    vfs.create_writable(&"c-one".to_owned(), Some(&chain), WritableOptions::default())
        .await?;
    let mounts = vfs.mounts(&"c-one".to_owned()).await?;
    let longshore::types::MountSource::Bind { path } = &mounts[0].source else {
        return fail("vfs binds");
    };
    assert_eq!(fs::metadata(path.join("large"))?.len(), 500 << 20);
    let measured = measure(&path.join("large"))?;
    vfs.discard(&"c-one".to_owned()).await?;
    vfs.remove(&chain).await?;
    Ok(measured)
}

/// Commits a layer with one file in it that has no holes.
async fn large_layer(vfs: &Vfs, size: u64) -> Result<Digest, Stop> {
    let key = "unpack-large".to_owned();
    let target = vfs.begin_layer(&key, None).await?;
    let small = LayerBuilder::new().file("small", b"x").build();
    let LayerTarget::Merged { dir, .. } = target.clone() else {
        return fail("vfs writes whole trees");
    };
    let applied = layer::apply(&small[..], &target, &Ownership::Direct, &Limits::default())?;
    let mut file = fs::File::create(dir.join("large"))?;
    let block = vec![0x5a_u8; 1 << 20];
    for _ in 0..size >> 20 {
        std::io::Write::write_all(&mut file, &block)?;
    }
    file.sync_all()?;
    let chain = Digest::of(b"large");
    vfs.commit_layer(&key, &chain, None, applied.usage).await?;
    Ok(chain)
}

/// Bytes of a file that no other file shares, as the file system says of its extents (FIEMAP). How full the file system is
/// says less: it makes room ahead, and gives it back when it pleases.
fn own(file: &Path) -> Result<u64, Stop> {
    const BLOCK: u64 = 4096;
    let output = Command::new(program("filefrag")?)
        .args(["-s", "-v", "-b4096"])
        .arg(file)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (mut all, mut own) = (0, 0);
    for line in said.lines() {
        // Number, logical and physical offsets, length, what was expected, flags.
        let columns: Vec<&str> = line.split(':').map(str::trim).collect();
        let [number, _, _, length, .., flags] = columns.as_slice() else {
            continue;
        };
        let (Ok(_), Ok(length)) = (number.parse::<u64>(), length.parse::<u64>()) else {
            continue;
        };
        all += length * BLOCK;
        own += if flags.contains("shared") { 0 } else { length * BLOCK };
    }
    if all < fs::metadata(file)?.len() {
        return fail(format!("extents of {all} bytes: {said}"));
    }
    Ok(own)
}

#[derive(Debug)]
struct Binds;

#[derive(Debug)]
struct Bound(tempfile::TempDir);

impl longshore::conformance::snapshots::MountedTree for Bound {
    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

#[async_trait::async_trait]
impl longshore::conformance::snapshots::Mounter for Binds {
    async fn mount(
        &self,
        mounts: &[longshore::types::Mount],
    ) -> longshore::Result<Box<dyn longshore::conformance::snapshots::MountedTree>> {
        let longshore::types::MountSource::Bind { path } = &mounts[0].source else {
            return Err(longshore::Error::internal("vfs binds"));
        };
        let dir = tempfile::tempdir().expect("a directory");
        let none = None::<&str>;
        mount(Some(path), dir.path(), none, MsFlags::MS_BIND, none).expect("bind");
        if mounts[0].read_only {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(none, dir.path(), none, flags, none).expect("read-only");
        }
        Ok(Box::new(Bound(dir)))
    }
}

/// The whole suite for snapshotters, on this file system.
async fn conformance(dir: &Path) -> Check {
    let vfs = Vfs::open(dir, Ownership::Direct)?;
    longshore::conformance::snapshots::snapshotter(&vfs, &Binds, &Ownership::Direct).await;
    Ok(())
}

async fn e2_vfs_copies_where_blocks_cannot_be_shared() -> Check {
    const SIZE: u64 = 24 << 20;
    if !is_root() {
        return skip("only root keeps owners directly");
    }
    let dir = scratch::fresh("copies");
    let vfs = Vfs::open(dir.path(), Ownership::Direct)?;
    let chain = large_layer(&vfs, SIZE).await?;
    let key = "c-copy".to_owned();
    vfs.create_writable(&key, Some(&chain), WritableOptions::default())
        .await?;
    let mounts = vfs.mounts(&key).await?;
    let longshore::types::MountSource::Bind { path } = &mounts[0].source else {
        return fail("vfs binds");
    };
    let copy = fs::read(path.join("large"))?;
    assert!(copy.len() as u64 == SIZE && copy.iter().all(|byte| *byte == 0x5a));
    // What is written to the copy is the copy's alone, shared blocks or not.
    fs::write(path.join("large"), "changed")?;
    vfs.create_writable(&"c-other".to_owned(), Some(&chain), WritableOptions::default())
        .await?;
    let other = vfs.mounts(&"c-other".to_owned()).await?;
    let longshore::types::MountSource::Bind { path } = &other[0].source else {
        return fail("vfs binds");
    };
    assert_eq!(fs::metadata(path.join("large"))?.len(), SIZE);
    for key in [&key, &"c-other".to_owned()] {
        vfs.discard(key).await?;
    }
    vfs.remove(&chain).await?;
    Ok(())
}

fn k5_p45_a_host_without_cgroups() -> Check {
    let root = TempRoot::new();
    let layout = source(image::shared()?);
    let lines = said_by("no-cgroups", &[root.path().to_str().expect("UTF-8"), &layout])?;
    assert_eq!(lines, ["runs", "refused", "runs with a warning"]);
    Ok(())
}

/// Nothing is mounted where cgroups are.
fn no_cgroups(arguments: &[String]) -> Check {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let places = table.lines().filter(|line| line.contains(" - cgroup"));
    let mut places: Vec<&str> = places.filter_map(|line| line.split(' ').nth(4)).collect();
    places.reverse();
    for place in places {
        umount2(place, MntFlags::MNT_DETACH)?;
    }
    if Path::new("/sys/fs/cgroup").exists() {
        mount(
            Some("none"),
            "/sys/fs/cgroup",
            Some("tmpfs"),
            MsFlags::MS_RDONLY,
            None::<&str>,
        )?;
    }
    block_on(async {
        let engine = Engine::open(&arguments[0]).await?;
        let image = engine.pull(&arguments[1]).await?;
        without_cgroups(&engine, &image.id().to_string()).await
    })?;
    println!("done");
    Ok(())
}

fn c13_what_is_on_disk_runs_where_no_network_is() -> Check {
    let dir = scratch::fresh("archive");
    let archive = dir.path().join("busybox.tar");
    let layout = source(image::shared()?);
    block_on(async {
        let world = World::new().await?;
        world.image.tag(&"anchor:1".parse()?).await?;
        let mut bytes = world.engine.save(["anchor:1"]).await?;
        let mut file = fs::File::create(&archive)?;
        while let Some(piece) = futures_util::StreamExt::next(&mut bytes).await {
            std::io::Write::write_all(&mut file, &piece?)?;
        }
        Ok::<_, Stop>(())
    })?;
    let root = TempRoot::new();
    let archive = format!("docker-archive:{}", archive.display());
    let arguments = [root.path().to_str().expect("UTF-8"), &layout, &archive];
    assert_eq!(said_by("no-network", &arguments)?, ["works", "works", "no news"]);
    Ok(())
}

/// In a network namespace without so much as a loopback that is up.
fn no_network(arguments: &[String]) -> Check {
    unshare(CloneFlags::CLONE_NEWNET)?;
    block_on(async {
        let engine = Engine::open(&arguments[0]).await?;
        for source in &arguments[1..] {
            let spec = ContainerSpec::image(source).command(["echo", "works"]);
            println!("{}", text(&engine.run(spec).output().await?.stdout));
        }
        let asked = engine
            .pull("127.0.0.1:5000/busybox:1")
            .await
            .expect_err("nobody is there");
        assert_eq!(asked.kind(), &ErrorKind::Unavailable, "{}", asked.report());
        println!("no news");
        Ok::<_, Stop>(())
    })?;
    println!("done");
    Ok(())
}

/// What an engine does that has no cgroups.
async fn without_cgroups(engine: &Engine, image: &str) -> Check {
    let spec = || ContainerSpec::image(image).command(["echo", "runs"]);
    println!("{}", text(&engine.run(spec()).output().await?.stdout));
    for limited in [spec().memory(Bytes::mib(64)), spec().cpus(0.5), spec().pids_limit(20)] {
        let refused = engine.run(limited.clone()).output().await;
        let error = refused.expect_err("there is nothing to limit with");
        if !matches!(error.kind(), ErrorKind::Unsupported { .. }) {
            return fail(error.report());
        }
        let output = engine.run(limited.best_effort_limits(true)).output().await?;
        assert_eq!(text(&output.stdout), "runs");
    }
    println!("refused\nruns with a warning");
    Ok(())
}

async fn k5_limits_without_cgroups_are_refused_or_left_out() -> Check {
    let root = TempRoot::new();
    let engine = Engine::builder(root.path())
        .cgroups(Arc::new(NoCgroups::new()))
        .open()
        .await?;
    let image = engine.pull(source(image::shared()?)).await?;
    without_cgroups(&engine, &image.id().to_string()).await?;
    let world = World { engine, image, root };
    assert!(world.containers().await?.is_empty());
    Ok(())
}

/// Opens an engine, begins its first start, and lets everything go a moment later.
fn vanish(root: &str, micros: &str) -> i32 {
    let moment = Duration::from_micros(micros.parse().unwrap_or(0));
    let gone = block_on(async {
        let engine = Engine::open(root).await?;
        let spec = ContainerSpec::image("busybox").command(["sleep", "60"]);
        let _ = tokio::time::timeout(moment, engine.run(spec)).await;
        drop(engine);
        Ok::<_, longshore::Error>(())
    });
    println!("dropped");
    if let Err(error) = gone {
        println!("failed {}", error.report());
        return 1;
    }
    // The driver ends by itself; nothing else is left in this process then.
    let start = std::time::Instant::now();
    while threads() > 1
        || crate::support::leaks::all_processes()
            .iter()
            .any(|process| process.descendant)
    {
        if start.elapsed() > Duration::from_secs(5) {
            println!("failed still {} threads", threads());
            return 1;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    println!("done");
    0
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

fn an_engine_that_goes_away_while_it_starts_prints_nothing() -> Check {
    let root = TempRoot::new();
    crate::faults::fill(root.path())?;
    let rounds: u64 = if std::env::var_os("LONGSHORE_KILL_LOOPS").is_some_and(|loops| loops.len() > 2) {
        300
    } else {
        40
    };
    for round in 0..rounds {
        let moment = (round * 7919 % rounds * 12_000 / rounds).to_string();
        let child = Command::new("/proc/self/exe")
            .args([root.path().to_str().expect("UTF-8"), &moment])
            .env("LONGSHORE_IT_ROLE", "vanish")
            .env("TMPDIR", scratch::dir())
            .stdin(Stdio::null())
            .output()?;
        let (said, complained) = (text(&child.stdout), text(&child.stderr));
        assert_eq!(complained, "", "dropped {moment} µs after the start began");
        assert_eq!(said, "dropped\ndone", "dropped {moment} µs after the start began");
        assert!(child.status.success());
    }
    crate::faults::no_container_left(root.path())
}
