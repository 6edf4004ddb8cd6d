//! Images on their way: to a real registry, into archives that other programs read, and back.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use longshore::images::{ArchiveFormat, ByteStream, RemoveImageOptions};
use longshore::progress::ProgressEvent;
use longshore::registry::Credentials;
use longshore::registry::http::{HttpOptions, HttpRegistries};
use longshore::types::{Filter, Reference};
use longshore::{ContainerSpec, Engine, ErrorKind};

use crate::faults::role;
use crate::frame::{Check, Stop, block_on, fail};
use crate::support::embedder::{Embedder, Role};
use crate::support::image::{self, busybox_files};
use crate::support::registry::{LOGIN, Options, Registry};
use crate::support::root::TempRoot;
use crate::support::world::{World, source, text};
use crate::support::{program, scratch};
use crate::tests;

tests! { "images":
    kernel_async [
        a8_push_and_load_tell_what_they_do,
        c13_an_archive_is_a_source,
        c13_layouts_and_archives_are_destinations,
        c13_an_archive_that_cannot_be_one_is_refused,
        c3_the_second_push_sends_no_blob,
        c3_another_repository_mounts_the_blobs,
        c3_in_pieces,
        c3_changed_layers_are_compressed_once,
        c9_what_refers_to_an_image_is_listed,
        c3_over_tls_with_a_password,
        d2_memory_does_not_grow_with_images,
        d2_saved_and_loaded_it_runs,
        d2_skopeo_reads_and_writes_archives,
        d2_podman_reads_and_writes_archives,
        d2_docker_reads_and_writes_archives,
        d3_an_imported_root_runs,
        d5_prune_gives_back_what_it_says,
    ]
}

/// What this binary does as a child.
pub const ROLES: &[(&str, Role)] = &[("large-images", |arguments| {
    block_on(role(large_images(&arguments[0], &arguments[1])))
})];

async fn engine() -> Result<(Engine, TempRoot), Stop> {
    let root = TempRoot::new();
    Ok((Engine::open(root.path()).await?, root))
}

async fn runs(engine: &Engine, image: &str) -> Check {
    let spec = ContainerSpec::image(image).command(["echo", "runs"]);
    let output = engine.run(spec).output().await?;
    assert_eq!(text(&output.stdout), "runs");
    Ok(())
}

async fn tag(engine: &Engine, image: &str, name: &str) -> Check {
    let name: Reference = name.parse()?;
    engine.images().tag(image, &name).await?;
    Ok(())
}

async fn write_to(mut stream: ByteStream, path: &Path) -> Check {
    use std::io::Write as _;
    let mut file = fs::File::create(path)?;
    while let Some(piece) = stream.next().await {
        file.write_all(&piece?)?;
    }
    Ok(())
}

fn read_from(path: &Path) -> Result<ByteStream, Stop> {
    let bytes = Bytes::from(fs::read(path)?);
    let starts = (0..bytes.len()).step_by(100_000);
    let pieces: Vec<_> = starts
        .map(|at| Ok(bytes.slice(at..bytes.len().min(at + 100_000))))
        .collect();
    Ok(stream::iter(pieces).boxed())
}

fn command(program_name: &str, arguments: &[&str]) -> Result<String, Stop> {
    let output = Command::new(program(program_name)?).args(arguments).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return fail(format!("{program_name} {arguments:?}: {said}"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Collects what a request tells of its progress.
fn heard() -> (
    Arc<Mutex<Vec<ProgressEvent>>>,
    impl Fn(ProgressEvent) + Send + Sync + 'static,
) {
    let events: Arc<Mutex<Vec<ProgressEvent>>> = Arc::default();
    let sink = Arc::clone(&events);
    (events, move |event| sink.lock().expect("not poisoned").push(event))
}

/// Bytes sent, and bytes that were there already. Exactly one event ends it, and well.
fn added_up(events: &Mutex<Vec<ProgressEvent>>) -> (u64, u64) {
    let events = events.lock().expect("not poisoned");
    let ends = |event: &&ProgressEvent| matches!(event, ProgressEvent::Done { .. } | ProgressEvent::Failed { .. });
    assert_eq!(events.iter().filter(ends).count(), 1, "{events:?}");
    assert!(matches!(events.last(), Some(ProgressEvent::Done { .. })), "{events:?}");
    let (mut sent, mut there) = (0, 0);
    for event in events.iter() {
        match event {
            ProgressEvent::Uploaded { bytes, .. } => sent += bytes,
            ProgressEvent::Exists { size, .. } => there += size,
            _ => {}
        }
    }
    (sent, there)
}

async fn a8_push_and_load_tell_what_they_do() -> Check {
    let world = World::new().await?;
    let registry = Registry::plain()?;
    let name = registry.reference("told/busybox:1");
    tag(&world.engine, &world.image.id().to_string(), &name).await?;
    let whole = image::shared()?.total_bytes()?;
    for expected in [(whole, 0), (0, whole)] {
        let (events, hear) = heard();
        world.engine.push(&name).progress(hear).await?;
        assert_eq!(added_up(&events), expected);
    }
    let dir = scratch::fresh("archive");
    let archive = dir.path().join("busybox.tar");
    write_to(world.engine.save([name.as_str()]).await?, &archive).await?;
    let (fresh, _root) = engine().await?;
    let (events, hear) = heard();
    fresh.load(read_from(&archive)?).progress(hear).await?;
    added_up(&events);
    Ok(())
}

async fn c13_layouts_and_archives_are_destinations() -> Check {
    let world = World::new().await?;
    tag(&world.engine, &world.image.id().to_string(), "out/busybox:1").await?;
    let dir = scratch::fresh("destination");
    let (layout, archive) = (dir.path().join("layout"), dir.path().join("image.tar"));
    let (layout, archive) = (layout.display().to_string(), archive.display().to_string());
    let whole = image::shared()?.total_bytes()?;
    for expected in [(whole, 0), (0, whole)] {
        let (events, hear) = heard();
        let pushed = world
            .engine
            .push("out/busybox:1")
            .to(format!("oci:{layout}"))
            .progress(hear)
            .await?;
        assert_eq!(pushed.manifest.digest.to_string(), image::shared()?.manifest);
        assert_eq!(added_up(&events), expected);
    }
    world
        .engine
        .push("out/busybox:1")
        .to(format!("oci:{layout}:other"))
        .await?;
    let written = fs::read_dir(&layout)?.count();
    assert_eq!(written, 3, "blobs, index and oci-layout alone");
    world
        .engine
        .push("out/busybox:1")
        .to(format!("docker-archive:{archive}:in/archive:2"))
        .await?;
    assert_eq!(fs::read_dir(dir.path())?.count(), 2, "nothing half-written is left");
    let (fresh, _root) = engine().await?;
    // The name that it had came along; and the name that it was given.
    fresh.pull(format!("oci:{layout}:docker.io/out/busybox:1")).await?;
    runs(&fresh, "out/busybox:1").await?;
    let (fresh, _root) = engine().await?;
    fresh.pull(format!("oci:{layout}:other")).await?;
    fresh.pull(format!("docker-archive:{archive}")).await?;
    runs(&fresh, "in/archive:2").await?;
    command("skopeo", &["inspect", "--raw", &format!("oci:{layout}:other")])?;
    command("skopeo", &["inspect", &format!("docker-archive:{archive}")])?;
    let error = world
        .engine
        .push("nobody:1")
        .to(format!("docker-archive:{archive}"))
        .await;
    assert!(error.is_err_and(|error| error.is_not_found()));
    Ok(())
}

async fn c13_an_archive_is_a_source() -> Check {
    let world = World::new().await?;
    let dir = scratch::fresh("archive");
    let other = image::write_layout(
        &dir.path().join("layout"),
        &[busybox_files()?, image::Files::new().file("second", 0o644, "x")],
        &serde_json::json!({ "Cmd": ["cat", "/second"], "Env": ["PATH=/bin"] }),
    )?;
    let second = world.engine.pull(source(&other)).await?;
    tag(&world.engine, &world.image.id().to_string(), "one:1").await?;
    tag(&world.engine, &second.id().to_string(), "two:1").await?;
    let (both, single) = (dir.path().join("both.tar"), dir.path().join("single.tar"));
    write_to(world.engine.save(["one:1", "two:1"]).await?, &both).await?;
    write_to(world.engine.save(["two:1"]).await?, &single).await?;
    let (fresh, _root) = engine().await?;
    let single = format!("docker-archive:{}", single.display());
    let output = fresh.run(ContainerSpec::image(&single)).output().await?;
    assert_eq!(text(&output.stdout), "x", "it runs from the archive");
    assert_eq!(fresh.image("two:1").await?.id(), second.id(), "and has its name");
    let both = format!("docker-archive:{}", both.display());
    let chosen = fresh.pull(format!("{both}:one:1")).await?;
    assert_eq!(chosen.id(), world.image.id());
    let refused = fresh.pull(&both).await.expect_err("which of the two?");
    assert_eq!(refused.kind(), &ErrorKind::InvalidArgument);
    assert!(refused.report().contains("one:1, two:1"), "{}", refused.report());
    Ok(())
}

async fn c13_an_archive_that_cannot_be_one_is_refused() -> Check {
    let world = World::new().await?;
    let dir = scratch::fresh("archive");
    let path = |name: &str| dir.path().join(name);
    tag(&world.engine, &world.image.id().to_string(), "one:1").await?;
    write_to(world.engine.save(["one:1"]).await?, &path("good")).await?;
    let good = fs::read(path("good"))?;
    fs::write(path("half"), &good[..good.len() / 2])?;
    fs::write(path("none"), "this is no archive")?;
    nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU)?;
    let (fresh, root) = engine().await?;
    use ErrorKind::{InvalidArgument, NotFound, UnsafeArchive};
    for (name, kinds) in [
        ("missing", &[NotFound][..]),
        ("good:two:1", &[NotFound]),
        ("half", &[UnsafeArchive]),
        ("none", &[UnsafeArchive]),
        ("pipe", &[InvalidArgument]),
        ("", &[InvalidArgument]),
    ] {
        let refused = fresh
            .pull(format!("docker-archive:{}/{name}", dir.path().display()))
            .await;
        let error = refused.expect_err("there is no such image");
        assert!(
            kinds.contains(error.kind()),
            "{name}: {:?} {}",
            error.kind(),
            error.report()
        );
        assert!(fresh.list_images(Filter::new()).await?.is_empty(), "{name}");
    }
    let audit = fresh.audit().await?;
    assert!(audit.is_clean(), "{:?}", audit.findings);
    assert_eq!(fs::read_dir(root.path().join("content/blobs/sha256"))?.count(), 0);
    Ok(())
}

async fn c3_the_second_push_sends_no_blob() -> Check {
    let world = World::new().await?;
    let registry = Registry::plain()?;
    let name = registry.reference("team/busybox:1");
    tag(&world.engine, &world.image.id().to_string(), &name).await?;
    let pushed = world.engine.push(&name).await?;
    assert_eq!(pushed.manifest.digest.to_string(), image::shared()?.manifest);
    let uploads = registry.uploads();
    assert!(uploads > 0, "nothing was uploaded");
    world.engine.push(&name).await?;
    assert_eq!(registry.uploads(), uploads, "the second push began an upload");
    let (fresh, _root) = engine().await?;
    assert_eq!(fresh.pull(&name).await?.id(), world.image.id());
    runs(&fresh, &name).await?;
    let seen = command(
        "skopeo",
        &["inspect", "--tls-verify=false", &format!("docker://{name}")],
    )?;
    assert!(seen.contains(&image::shared()?.manifest), "{seen}");
    let there = HttpRegistries::default();
    let tags = longshore::registry::RegistryProvider::open(&there, &registry.addr.to_string(), &Credentials::Anonymous)
        .await?
        .tags("team/busybox")
        .await?;
    assert_eq!(tags, ["1"]);
    Ok(())
}

async fn c3_another_repository_mounts_the_blobs() -> Check {
    let world = World::new().await?;
    let registry = Registry::plain()?;
    let (first, second) = (registry.reference("one:1"), registry.reference("deep/two:1"));
    for name in [&first, &second] {
        tag(&world.engine, &world.image.id().to_string(), name).await?;
    }
    world.engine.push(&first).await?;
    let sent = registry.blobs_received();
    world.engine.push(&second).await?;
    assert_eq!(registry.blobs_received(), sent, "bytes were sent instead of mounted");
    let (fresh, _root) = engine().await?;
    fresh.pull(&second).await?;
    Ok(())
}

async fn c3_in_pieces() -> Check {
    let registry = Registry::plain()?;
    let root = TempRoot::new();
    let registries = HttpRegistries::new(HttpOptions::new().upload_chunk(200_000));
    let engine = Engine::builder(root.path())
        .registries(Arc::new(registries))
        .open()
        .await?;
    let image = engine.pull(source(image::shared()?)).await?;
    let name = registry.reference("pieces:1");
    tag(&engine, &image.id().to_string(), &name).await?;
    engine.push(&name).await?;
    let (fresh, _root) = self::engine().await?;
    assert_eq!(fresh.pull(&name).await?.id(), image.id());
    Ok(())
}

async fn c3_over_tls_with_a_password() -> Check {
    let options = Options {
        tls: true,
        basic_auth: true,
    };
    let registry = Registry::with(options, &[])?;
    let root = TempRoot::new();
    let http = HttpOptions::new().ca_pem(fs::read(registry.authority())?);
    let registries = HttpRegistries::new(HttpOptions::new()).with_host(registry.addr.to_string(), http);
    let engine = Engine::builder(root.path())
        .registries(Arc::new(registries))
        .open()
        .await?;
    let image = engine.pull(source(image::shared()?)).await?;
    let name = registry.reference("secret:1");
    tag(&engine, &image.id().to_string(), &name).await?;
    let stranger = engine.push(&name).await.expect_err("a password is needed");
    assert_eq!(stranger.kind(), &ErrorKind::Denied, "{}", stranger.report());
    let wrong = engine
        .push(&name)
        .credentials(Credentials::password(LOGIN.0, "wrong"))
        .await;
    assert_eq!(wrong.expect_err("a wrong password").kind(), &ErrorKind::Denied);
    engine
        .push(&name)
        .credentials(Credentials::password(LOGIN.0, LOGIN.1))
        .await?;
    Ok(())
}

async fn d2_saved_and_loaded_it_runs() -> Check {
    let world = World::new().await?;
    let name = "example.com/saved:1";
    tag(&world.engine, &world.image.id().to_string(), name).await?;
    for format in [ArchiveFormat::Docker, ArchiveFormat::Oci] {
        let archive = world.engine.save([name]).format(format).await?;
        let (fresh, _root) = engine().await?;
        let loaded = fresh.load(archive).await?;
        assert_eq!((loaded.len(), &loaded[0].id), (1, world.image.id()));
        runs(&fresh, name).await?;
        let steps = fresh.image(name).await?.history().await?;
        assert_eq!(steps[0].created_by, "test");
    }
    Ok(())
}

async fn d2_skopeo_reads_and_writes_archives() -> Check {
    let layout = image::shared()?;
    let world = World::new().await?;
    let dir = scratch::fresh("archives");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let name = "example.com/exchanged:1";
    tag(&world.engine, &world.image.id().to_string(), name).await?;
    let kinds = [
        (ArchiveFormat::Docker, "docker-archive"),
        (ArchiveFormat::Oci, "oci-archive"),
    ];
    for (format, kind) in kinds {
        let ours = at(&format!("ours-{kind}.tar"));
        write_to(world.engine.save([name]).format(format).await?, Path::new(&ours)).await?;
        // A directory of skopeo's own keeps manifests as they are; any other form may write the config anew.
        let there = at(&format!("there-{kind}"));
        command(
            "skopeo",
            &["copy", "-q", &format!("{kind}:{ours}:{name}"), &format!("dir:{there}")],
        )?;
        let manifest = fs::read_to_string(Path::new(&there).join("manifest.json"))?;
        assert!(
            manifest.contains(&layout.config),
            "skopeo saw another image in {kind}: {manifest}"
        );
        let theirs = at(&format!("theirs-{kind}.tar"));
        let from = format!("oci:{}:latest", layout.dir.display());
        command("skopeo", &["copy", "-q", &from, &format!("{kind}:{theirs}:{name}")])?;
        let (fresh, _root) = engine().await?;
        let loaded = fresh.load(read_from(Path::new(&theirs))?).await?;
        if format == ArchiveFormat::Oci {
            assert_eq!(loaded[0].id.to_string(), layout.config);
        }
        let (was, is) = (world.image.inspect().await?, fresh.image(name).await?.inspect().await?);
        assert_eq!(is.config.rootfs, was.config.rootfs, "{kind}");
        runs(&fresh, name).await?;
    }
    Ok(())
}

async fn d2_podman_reads_and_writes_archives() -> Check {
    if !crate::support::is_root() {
        return crate::frame::skip("podman's own rootless set-up is not ours to test");
    }
    let world = World::new().await?;
    let dir = scratch::fresh("podman");
    // Podman takes no more than 50 characters for this one, wherever the tests work.
    let short = tempfile::Builder::new().prefix("podman-").tempdir_in("/tmp")?;
    let (root, run) = (
        dir.path().join("root").display().to_string(),
        short.path().display().to_string(),
    );
    let podman = |arguments: &[&str]| {
        let mut all = vec!["--root", &root, "--runroot", &run, "--storage-driver", "vfs"];
        all.extend(arguments);
        command("podman", &all)
    };
    let name = "example.com/podman:1";
    tag(&world.engine, &world.image.id().to_string(), name).await?;
    let ours = dir.path().join("ours.tar");
    write_to(world.engine.save([name]).await?, &ours).await?;
    podman(&["load", "-q", "-i", &ours.display().to_string()])?;
    let images = podman(&["images", "--no-trunc", "--quiet"])?;
    assert_eq!(images.trim(), world.image.id().to_string());
    for format in ["docker-archive", "oci-archive"] {
        let theirs = dir.path().join(format!("{format}.tar"));
        let id = world.image.id().hex();
        podman(&[
            "save",
            "-q",
            "--format",
            format,
            "-o",
            &theirs.display().to_string(),
            &id,
        ])?;
        let (fresh, _root) = engine().await?;
        let loaded = fresh.load(read_from(&theirs)?).await?;
        assert_eq!(loaded[0].id, *world.image.id(), "{format}");
        runs(&fresh, &id).await?;
    }
    Ok(())
}

async fn d2_docker_reads_and_writes_archives() -> Check {
    let docker = Dockerd::start()?;
    let world = World::new().await?;
    let dir = scratch::fresh("docker");
    let name = "example.com/docker:1";
    tag(&world.engine, &world.image.id().to_string(), name).await?;
    let (ours, theirs) = (dir.path().join("ours.tar"), dir.path().join("theirs.tar"));
    write_to(world.engine.save([name]).await?, &ours).await?;
    let said = docker.run(&["load", "-i", &ours.display().to_string()])?;
    assert_eq!(said.trim(), format!("Loaded image: {name}"));
    let id = docker.run(&["image", "inspect", "--format", "{{.Id}}", name])?;
    assert_eq!(id.trim(), world.image.id().to_string());
    docker.run(&["tag", name, "second:2"])?;
    docker.run(&["save", "-o", &theirs.display().to_string(), name, "second:2"])?;
    let (fresh, _root) = engine().await?;
    let loaded = fresh.load(read_from(&theirs)?).await?;
    assert_eq!(
        (loaded.len(), &loaded[0].id, loaded[0].tags.len()),
        (1, world.image.id(), 2)
    );
    runs(&fresh, "second:2").await
}

/// A Docker daemon of one's own: nothing of the host's network is touched.
pub struct Dockerd {
    child: std::process::Child,
    pub host: String,
    _dir: tempfile::TempDir,
}

impl Dockerd {
    pub fn start() -> Result<Self, Stop> {
        if !crate::support::is_root() {
            return crate::frame::skip("dockerd needs root");
        }
        crate::support::runtime::namespaces()?;
        let dir = scratch::fresh("dockerd");
        let at = |name: &str| dir.path().join(name).display().to_string();
        let host = format!("unix://{}", at("s"));
        let log = fs::File::create(at("log"))?;
        let child = Command::new(program("dockerd")?)
            .args([
                "--bridge=none",
                "--iptables=false",
                "--ip-forward=false",
                "--storage-driver=vfs",
            ])
            .args([
                "--data-root",
                &at("data"),
                "--exec-root",
                &at("exec"),
                "--pidfile",
                &at("pid"),
                "--host",
                &host,
            ])
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let daemon = Self { child, host, _dir: dir };
        for _ in 0..300 {
            if daemon.run(&["version"]).is_ok() {
                return Ok(daemon);
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        fail("dockerd does not answer")
    }

    fn run(&self, arguments: &[&str]) -> Result<String, Stop> {
        let mut all = vec!["--host", self.host.as_str()];
        all.extend(arguments);
        command("docker", &all)
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

async fn d3_an_imported_root_runs() -> Check {
    let (engine, _root) = engine().await?;
    let tar = Bytes::from(busybox_files()?.tar()?);
    let pieces = vec![Ok(tar)];
    let image = engine
        .import(stream::iter(pieces).boxed())
        .name("imported:1".parse()?)
        .message("from a tar")
        .change(r#"CMD ["/bin/echo", "imported"]"#)
        .change("ENV PATH=/bin A=b")
        .await?;
    let output = engine.run(ContainerSpec::image("imported:1")).output().await?;
    assert_eq!(text(&output.stdout), "imported");
    runs(&engine, "imported:1").await?;
    assert_eq!(image.history().await?[0].comment, "from a tar");
    Ok(())
}

async fn d5_prune_gives_back_what_it_says() -> Check {
    let (engine, root) = engine().await?;
    let image = engine.pull(source(image::shared()?)).await?;
    let spec = || ContainerSpec::image(image.id().to_string()).command(["sleep", "60"]);
    let container = engine.run(spec()).await?;
    let all = || Filter::new().with("dangling", "false");
    assert!(
        engine.prune_images(all()).await?.removed.is_empty(),
        "an image in use was removed"
    );
    container.remove(longshore::RemoveOptions::force()).await?;
    let before = size_of(root.path())?;
    let pruned = engine.prune_images(all()).await?;
    let change = before - size_of(root.path())?;
    // Directories of the store and pages of its databases come and go beside it.
    assert!(
        pruned.reclaimed_bytes.abs_diff(change) < 256 << 10,
        "said {}, was {change}",
        pruned.reclaimed_bytes
    );
    assert!(pruned.reclaimed_bytes > 1 << 20, "{pruned:?}");
    assert!(engine.list_images(Filter::new()).await?.is_empty());
    Ok(())
}

/// Bytes on disk below a directory, as `du` counts them; the databases, whose journals come and go, left out.
pub fn size_of(dir: &Path) -> Result<u64, Stop> {
    let output = Command::new("du")
        .args(["-s", "-B1", "--exclude=*.db*"])
        .arg(dir)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.split_whitespace().next().and_then(|bytes| bytes.parse().ok()) {
        Some(bytes) => Ok(bytes),
        None => fail(format!("du said {text:?}")),
    }
}

/// A container's changes become a layer, which is packed for the first push and kept so. Whoever makes the same layer packs
/// it to the same bytes.
async fn c3_changed_layers_are_compressed_once() -> Check {
    let registry = Registry::plain()?;
    let mut blobs = Vec::new();
    for number in 0..2 {
        let (engine, root) = engine().await?;
        engine
            .pull(source(image::shared()?))
            .await?
            .tag(&"base:1".parse()?)
            .await?;
        let layer = image::Files::new()
            .file("text", 0o644, "made here ".repeat(400_000))
            .tar()?;
        let stream = stream::iter([Ok(Bytes::from(layer))]).boxed();
        let request = longshore::images::ExtendRequest::new("base:1", Default::default());
        let id = engine.images().extend(stream, request).await?.to_string();
        let name = registry.reference(&format!("made-{number}:1"));
        tag(&engine, &id, &name).await?;
        let plain = engine.images().inspect(&id).await?;
        let told = Arc::<Mutex<Vec<ProgressEvent>>>::default();
        let (heard, before) = (Arc::clone(&told), registry.blobs_received());
        engine
            .push(&name)
            .progress(move |event| heard.lock().expect("not poisoned").push(event.clone()))
            .await?;
        assert!(registry.blobs_received() > before);
        let packed = engine.images().inspect(&name).await?;
        assert_eq!((packed.id, &packed.config), (plain.id, &plain.config));
        assert_ne!(packed.manifest.digest, plain.manifest.digest);
        let (was, is) = (
            &plain.layers[plain.layers.len() - 1],
            &packed.layers[packed.layers.len() - 1],
        );
        assert_eq!(is.diff_id, was.diff_id);
        assert!(is.descriptor.media_type.0.ends_with("+gzip"), "{:?}", is.descriptor);
        assert!(
            is.descriptor.size * 10 < was.descriptor.size,
            "{} of {}",
            is.descriptor.size,
            was.descriptor.size
        );
        // What was pulled stays the very bytes it was.
        assert_eq!(packed.layers[0], plain.layers[0]);
        // The plain one is not kept beside it.
        let blobs_dir = root.path().join("content/blobs/sha256");
        assert!(!blobs_dir.join(&was.descriptor.digest.to_string()[7..]).exists());
        runs(&engine, &name).await?;
        // Nothing is packed or sent the second time.
        let (received, manifest) = (registry.blobs_received(), packed.manifest.digest);
        assert_eq!(engine.push(&name).await?.manifest.digest, manifest);
        assert_eq!(registry.blobs_received(), received);
        blobs.push(is.descriptor.digest);
        // A save sends it as it is, and nothing is unpacked anew.
        let saved = engine.save([name.as_str()]).await?;
        let pieces: Vec<Bytes> = futures_util::TryStreamExt::try_collect(saved).await?;
        assert!(!pieces.is_empty());
        engine.reconcile().await?;
        assert_eq!(engine.audit().await?.findings, []);
        let (other, _other_root) = self::engine().await?;
        let pulled = other.pull(&name).await?;
        assert_eq!(pulled.id().to_string(), id);
        runs(&other, &name).await?;
    }
    assert_eq!(blobs[0], blobs[1], "the same layer, packed twice");
    Ok(())
}

/// Debian's registry keeps no list of its own: the tag that the specification gives it is kept by who pushes.
async fn c9_what_refers_to_an_image_is_listed() -> Check {
    use longshore::registry::{ManifestBlob, ManifestKey, RegistryProvider as _};
    use longshore::types::Descriptor;
    let registry = Registry::with(Options::default(), &[(image::shared()?, "app", "1")])?;
    let host = registry.addr.to_string();
    let remote = HttpRegistries::default().open(&host, &Credentials::Anonymous).await?;
    let image = remote.manifest("app", &ManifestKey::Tag("1".into())).await?.descriptor;
    assert!(remote.referrers("app", &image.digest).await?.is_empty());
    // The config of the image is there already, and will do for one of an artifact.
    let layout = image::shared()?;
    let config = layout.blob(&layout.config)?;
    let artifact = |kind: &str| {
        let body = serde_json::json!({
            "schemaVersion": 2, "mediaType": image::MANIFEST, "artifactType": kind,
            "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": layout.config, "size": config.len() },
            "layers": [], "subject": { "mediaType": image.media_type.0, "digest": image.digest.to_string(), "size": image.size },
            "annotations": { "of": kind },
        });
        let bytes = body.to_string().into_bytes();
        ManifestBlob {
            descriptor: Descriptor::of(image::MANIFEST, &bytes),
            bytes: bytes.into(),
        }
    };
    for kind in [
        "application/vnd.tests.signature",
        "application/vnd.tests.sbom",
        "application/vnd.tests.sbom",
    ] {
        let artifact = artifact(kind);
        let key = ManifestKey::Digest(artifact.descriptor.digest);
        remote.put_manifest("app", &key, &artifact).await?;
    }
    let found = remote.referrers("app", &image.digest).await?;
    let mut kinds: Vec<_> = found.iter().filter_map(|one| one.artifact_type.as_deref()).collect();
    kinds.sort_unstable();
    assert_eq!(
        kinds,
        ["application/vnd.tests.sbom", "application/vnd.tests.signature"],
        "each once"
    );
    for one in &found {
        let key = ManifestKey::Digest(one.descriptor.digest);
        let there = remote.manifest("app", &key).await?;
        assert_eq!(there.descriptor.size, one.descriptor.size);
        assert_eq!(one.descriptor.annotations.get("of"), one.artifact_type.as_ref());
    }
    Ok(())
}

const LARGE: u64 = 128 << 20;

/// A tar with a file of so many zeros, a piece at a time.
fn zeros(size: u64) -> ByteStream {
    let mut header = tar::Header::new_ustar();
    header.set_path("zeros").expect("a short path");
    header.set_mode(0o644);
    header.set_size(size);
    header.set_cksum();
    let begin = Bytes::copy_from_slice(header.as_bytes());
    let zeros = Bytes::from_static(&[0; 64 << 10]);
    let bodies = std::iter::repeat_n(zeros, usize::try_from(size >> 16).expect("it fits"));
    // Two blocks of zeros end it.
    let pieces = std::iter::once(begin)
        .chain(bodies)
        .chain([Bytes::from_static(&[0; 1024])]);
    stream::iter(pieces.map(Ok)).boxed()
}

fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(u64::MAX)
}

/// All that is done with images, to one of a given size: import, save, load, push, which packs it, pull.
async fn once(engine: &Engine, size: u64, name: &str) -> longshore::Result<()> {
    let force = || RemoveImageOptions::default().force(true);
    engine.import(zeros(size)).name(name.parse()?).await?;
    let plain = engine.save([name]).await?;
    let other = format!("{name}-loaded");
    let loaded = engine.load(plain).await?;
    engine.images().tag(&loaded[0].id.to_string(), &other.parse()?).await?;
    engine.push(name).await?;
    engine.images().remove(&loaded[0].id.to_string(), force()).await?;
    engine.pull(name).await?;
    engine.images().remove(name, force()).await.map(drop)
}

async fn large_images(root: &str, registry: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    once(&engine, 64 << 10, &format!("{registry}/small:1")).await?;
    let before = peak_kib();
    once(&engine, LARGE, &format!("{registry}/large:1")).await?;
    println!("{before} {}", peak_kib());
    Ok(())
}

async fn d2_memory_does_not_grow_with_images() -> Check {
    let (root, registry) = (TempRoot::new(), Registry::plain()?);
    let place = root.path().display().to_string();
    let child = Embedder::start("large-images", &[&place, &registry.addr.to_string()])?;
    let line = child.line(Duration::from_secs(100))?;
    println!("peak memory in KiB before and after: {line}");
    let peaks: Vec<u64> = line.split(' ').filter_map(|number| number.parse().ok()).collect();
    let [before, after] = peaks[..] else { return fail(line) };
    assert!((after - before) << 10 < LARGE / 2, "{line}");
    assert_eq!(child.finish()?, 0);
    Ok(())
}
