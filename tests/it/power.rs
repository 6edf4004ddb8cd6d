//! The power goes: from one moment on nothing reaches the disk any more (dm-flakey), and then the file system is read anew, as
//! after a reboot. What was reported done is there, and what is listed is whole. And limits on what a container writes, which
//! need a file system that has them. Both need a kernel that this host may lack; `ci/vm` brings one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use longshore::storage::snapshot::overlayfs::Overlayfs;
use longshore::types::Filter;
use longshore::{ContainerSpec, Engine, ErrorKind};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;
use tempfile::TempDir;

use crate::faults::{Random, role};
use crate::frame::{Check, Stop, block_on, fail, skip};
use crate::support::embedder::{Embedder, Role};
use crate::support::image::{self, Files, Layout};
use crate::support::root::TempRoot;
use crate::support::world::{source, text};
use crate::support::{is_root, program, runtime, scratch};
use crate::tests;

tests! { "power":
    kernel [e9_power_goes_while_pulling]
    kernel_async [e6_a_limit_on_what_a_container_writes, e6_a_limit_on_ext4, e6_where_there_are_no_quotas_that_is_said]
}

/// What this binary does as a child.
pub const ROLES: &[(&str, Role)] = &[("keep-all", |arguments| {
    block_on(role(keep_all(&arguments[0], &arguments[1..])))
})];

/// Pulls one image after the other, and says which are here.
async fn keep_all(root: &str, sources: &[String]) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    println!("open");
    for (number, source) in sources.iter().enumerate() {
        let name = format!("kept:{number}");
        engine.pull(source).await?.tag(&name.parse()?).await?;
        println!("kept {name}");
    }
    std::future::pending().await
}

/// A disk that forgets what it is told from a moment on.
struct Flaky {
    name: String,
    device: String,
    sectors: u64,
    dir: TempDir,
}

const DISK: u64 = 192 << 20;

impl Flaky {
    fn new() -> Result<Self, Stop> {
        if !is_root() {
            return skip("only root can make a device");
        }
        let targets = Command::new(program("dmsetup")?).arg("targets").output()?;
        if !text(&targets.stdout).lines().any(|line| line.starts_with("flakey")) {
            return skip("the kernel has no dm-flakey (ci/vm runs one that has)");
        }
        let dir = scratch::fresh("flaky");
        let file = dir.path().join("disk");
        fs::File::create(&file)?.set_len(DISK)?;
        fs::create_dir(dir.path().join("mounted"))?;
        let device = said(Command::new(program("losetup")?).arg("-f"))?;
        said(Command::new(program("losetup")?).arg(&device).arg(&file))?;
        let name = format!("longshore-{}", std::process::id());
        let disk = Self {
            name,
            device,
            sectors: DISK / 512,
            dir,
        };
        disk.dm(&["create", &disk.name, "--table", &disk.table(true)])?;
        said(
            Command::new(program("mke2fs")?)
                .args(["-q", "-t", "ext4"])
                .arg(disk.path()?),
        )?;
        disk.mount()?;
        Ok(disk)
    }

    /// The kernel's own name for it: nobody need have made another.
    fn path(&self) -> Result<PathBuf, Stop> {
        let mut dmsetup = Command::new(program("dmsetup")?);
        let minor = said(dmsetup.args(["info", "-c", "--noheadings", "-o", "minor", &self.name]))?;
        Ok(Path::new("/dev").join(format!("dm-{}", minor.trim())))
    }

    fn mounted(&self) -> PathBuf {
        self.dir.path().join("mounted")
    }

    /// Source: Documentation/admin-guide/device-mapper/dm-flakey.rst.
    fn table(&self, works: bool) -> String {
        match works {
            true => format!("0 {} linear {} 0", self.sectors, self.device),
            false => format!("0 {} flakey {} 0 0 3600 1 drop_writes", self.sectors, self.device),
        }
    }

    fn dm(&self, words: &[&str]) -> Check {
        let mut dmsetup = Command::new(program("dmsetup")?);
        said(dmsetup.args(["--noudevsync", "--noudevrules"]).args(words)).map(drop)
    }

    fn turn(&self, works: bool) -> Check {
        // Nothing is written out first.
        self.dm(&["suspend", "--nolockfs", "--noflush", &self.name])?;
        self.dm(&["reload", &self.name, "--table", &self.table(works)])?;
        self.dm(&["resume", &self.name])
    }

    fn mount(&self) -> Check {
        Ok(mount(
            Some(&self.path()?),
            &self.mounted(),
            Some("ext4"),
            MsFlags::empty(),
            None::<&str>,
        )?)
    }

    /// Waits for whoever still holds a file.
    fn unmount(&self) -> Check {
        let begun = Instant::now();
        while let Err(error) = umount2(&self.mounted(), MntFlags::empty()) {
            if begun.elapsed() > Duration::from_secs(20) {
                return fail(format!("unmount: {error}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Flaky {
    fn drop(&mut self) {
        let _ = umount2(&self.mounted(), MntFlags::MNT_DETACH);
        let _ = self.dm(&["remove", "--retry", &self.name]);
        let _ = Command::new("losetup").args(["-d", &self.device]).status();
    }
}

fn said(command: &mut Command) -> Result<String, Stop> {
    let output = command.output()?;
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => fail(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// Images of two layers that share nothing.
fn images(dir: &Path) -> Result<Vec<Layout>, Stop> {
    let image = |number: usize| {
        let layer = |part: &str| {
            let more = (0..20).map(|file| (format!("{part}-{file}"), format!("{number} {part} {file} ").repeat(400)));
            more.fold(Files::new(), |files, (name, body)| files.file(name, 0o644, body))
        };
        image::write_layout(
            &dir.join(number.to_string()),
            &[layer("lower"), layer("upper")],
            &json!({ "Cmd": ["x"] }),
        )
    };
    (0..12).map(image).collect()
}

/// As after a reboot: another boot, and none of what dies with one.
async fn reopened(root: &Path) -> Result<Engine, Stop> {
    fs::remove_file(root.join("run.boot")).or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    let engine = Engine::builder(root)
        .snapshotter("overlayfs")
        .with_snapshotter("overlayfs", |cx| {
            Ok(Overlayfs::open(cx.dir(), false, cx.ownership().clone())?.in_boot("next"))
        });
    Ok(engine.open().await?)
}

async fn whole(root: &Path, kept: &[String]) -> Result<usize, Stop> {
    let engine = reopened(root).await?;
    for name in kept {
        engine.image(name.as_str()).await?;
    }
    let listed = engine.list_images(Filter::new()).await?;
    for image in &listed {
        let id = image.id.to_string();
        // Reads and checks every blob.
        let saved: Vec<bytes::Bytes> = engine.save([id.as_str()]).await?.try_collect().await?;
        assert!(!saved.is_empty());
        engine.images().restore(&id).await?;
    }
    // Compares every layer with its blob.
    engine.reconcile().await?;
    let diagnosis = engine.doctor(false).await?;
    assert!(diagnosis.is_healthy(), "{diagnosis:?}");
    Ok(listed.len())
}

fn e9_power_goes_while_pulling() -> Check {
    let disk = Flaky::new()?;
    let dir = scratch::fresh("power");
    let sources: Vec<String> = images(dir.path())?.iter().map(source).collect();
    let mut random = Random(0x5eed_0f1a);
    let (mut kept_in_all, mut listed_in_all) = (0, 0);
    for round in 0..6 {
        let root = disk.mounted().join(format!("root-{round}"));
        let shown = root.display().to_string();
        let arguments: Vec<&str> = std::iter::once(shown.as_str())
            .chain(sources.iter().map(String::as_str))
            .collect();
        let mut embedder = Embedder::start("keep-all", &arguments)?;
        assert_eq!(embedder.line(Duration::from_secs(60))?, "open");
        let wanted = random.below(8) as usize;
        let mut kept = Vec::new();
        for _ in 0..wanted {
            let line = embedder.line(Duration::from_secs(60))?;
            let Some(name) = line.strip_prefix("kept ") else {
                return fail(line);
            };
            kept.push(name.to_owned());
        }
        std::thread::sleep(Duration::from_millis(random.below(300)));
        disk.turn(false)?;
        embedder.kill()?;
        drop(embedder);
        disk.unmount()?;
        disk.turn(true)?;
        disk.mount()?;
        let listed = block_on(whole(&root, &kept))?;
        println!("round {round}: {} were reported, {listed} are listed", kept.len());
        kept_in_all += kept.len();
        listed_in_all += listed;
        // The engine that looked goes first.
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(kept_in_all > 0 && listed_in_all >= kept_in_all);
    disk.unmount()
}

/// A file system with project quotas, on a file.
struct WithQuota(TempDir);

impl WithQuota {
    fn xfs() -> Result<Self, Stop> {
        Self::new("xfs", "mkfs.xfs", &["-q", "-f"])
    }

    /// Source: ext4(5), "project" and "quota".
    fn ext4() -> Result<Self, Stop> {
        let quota = ["-O", "project,quota", "-E", "quotatype=prjquota"];
        Self::new("ext4", "mke2fs", &[&["-q", "-F", "-t", "ext4"], &quota[..]].concat())
    }

    fn new(kind: &str, make: &str, options: &[&str]) -> Result<Self, Stop> {
        if !is_root() {
            return skip("only root can mount a file system");
        }
        runtime::namespaces()?;
        let dir = scratch::fresh("quota");
        let (file, place) = (dir.path().join("disk"), dir.path().join("mounted"));
        fs::create_dir(&place)?;
        fs::File::create(&file)?.set_len(512 << 20)?;
        said(Command::new(program(make)?).args(options).arg(&file))?;
        let device = said(Command::new(program("losetup")?).arg("-f"))?;
        said(Command::new(program("losetup")?).arg(&device).arg(&file))?;
        fs::write(dir.path().join("device"), &device)?;
        let disk = Self(dir);
        let (from, no_flags) = (Some(device.as_str()), MsFlags::empty());
        match mount(from, &place, Some(kind), no_flags, Some("prjquota")) {
            Ok(()) => Ok(disk),
            Err(error) => skip(format!("no {kind} with project quotas (ci/vm has it): {error}")),
        }
    }
}

impl Drop for WithQuota {
    fn drop(&mut self) {
        let _ = umount2(&self.0.path().join("mounted"), MntFlags::MNT_DETACH);
        let device = fs::read_to_string(self.0.path().join("device")).unwrap_or_default();
        let _ = Command::new("losetup").args(["-d", &device]).status();
    }
}

/// What is told until a container is gone.
async fn actions(
    live: &mut (impl Stream<Item = longshore::Result<longshore::events::EventItem>> + Unpin),
) -> Result<Vec<String>, Stop> {
    let mut told = Vec::new();
    while told.last().is_none_or(|action| action != "destroy") {
        match tokio::time::timeout(Duration::from_secs(30), live.next()).await? {
            Some(item) => match item? {
                longshore::events::EventItem::Event(event) => told.push(event.action),
                other => return fail(format!("{other:?} after {told:?}")),
            },
            None => return fail(format!("the events ended after {told:?}")),
        }
    }
    Ok(told)
}

async fn e6_a_limit_on_what_a_container_writes() -> Check {
    limited(&WithQuota::xfs()?).await
}

async fn e6_a_limit_on_ext4() -> Check {
    limited(&WithQuota::ext4()?).await
}

async fn limited(disk: &WithQuota) -> Check {
    let root = disk.0.path().join("mounted/root");
    let engine = Engine::builder(&root).snapshotter("overlayfs").open().await?;
    let image = engine.pull(source(image::shared()?)).await?.id().to_string();
    let spec = |script: &str| ContainerSpec::image(&image).command(["sh", "-c", script]);
    let fill = "dd if=/dev/zero of=/big bs=64k count=512 2>&1; ls -l /big; mkdir /more; echo x > /more/x || echo full";
    let limit = longshore::Bytes::mib(4);
    let mut query = longshore::EventQuery::default();
    query.filter = Filter::new().with("type", "container");
    let mut live = engine.events(query).await?;
    let output = engine.run(spec(fill).storage_size(limit)).output().await?;
    let told = text(&output.stdout);
    assert!(
        told.contains("No space left") || told.contains("quota exceeded"),
        "{told}"
    );
    assert!(actions(&mut live).await?.contains(&"storage-full".to_owned()));
    // Several containers have limits of their own, and one without has none.
    let output = engine
        .run(spec("dd if=/dev/zero of=/big bs=64k count=48 2>&1").storage_size(limit))
        .output()
        .await?;
    assert_eq!(output.status.code(), 0, "{}", text(&output.stdout));
    assert!(!actions(&mut live).await?.contains(&"storage-full".to_owned()));
    let output = engine.run(spec(fill)).output().await?;
    assert!(
        !text(&output.stdout).contains("No space left"),
        "{}",
        text(&output.stdout)
    );
    // It holds over a restart, and what was freed can be written again.
    let container = engine
        .run(spec("rm -f /big; dd if=/dev/zero of=/big bs=64k count=48 2>&1").storage_size(limit))
        .await?;
    container.wait().await?;
    container.restart(longshore::StopOptions::default()).await?;
    assert_eq!(container.wait().await?.status.code(), 0);
    container.remove(crate::support::world::FORCE).await?;
    engine.reconcile().await?;
    assert_eq!(engine.audit().await?.findings, []);
    Ok(())
}

async fn e6_where_there_are_no_quotas_that_is_said() -> Check {
    for driver in ["overlayfs", "vfs"] {
        let root = TempRoot::new();
        let engine = Engine::builder(root.path()).snapshotter(driver).open().await?;
        let image = engine.pull(source(image::shared()?)).await?.id().to_string();
        let spec = ContainerSpec::image(image)
            .command(["true"])
            .storage_size(longshore::Bytes::mib(4));
        let error = engine.create(spec).await.expect_err("no quotas here");
        match error.kind() {
            ErrorKind::Unsupported { needs } => assert!(!needs.is_empty(), "{}", error.report()),
            other => return fail(format!("{driver}: {other:?}: {}", error.report())),
        }
        engine.reconcile().await?;
        let audit = engine.audit().await?;
        assert!(audit.is_clean(), "{driver}: {:?}", audit.findings);
    }
    Ok(())
}
