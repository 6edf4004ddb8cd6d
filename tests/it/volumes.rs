//! Volumes and mounts: what containers keep, what they see of the host, of memory and of images.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use longshore::containers::{MountFrom, MountSpec, Tmpfs};
use longshore::types::{Outcome, Propagation};
use longshore::volumes::{RemoveVolumeOptions, VolumeContext, VolumeDriver, VolumeSource};
use longshore::{
    Bytes, Container, ContainerSpec, CreateVolume, Engine, ErrorKind, ExecSpec, Filter, ObjectKind, RemoveOptions,
};
use serde_json::json;

use crate::frame::{Check, Stop, fail, skip};
use crate::support::disk::Disk;
use crate::support::embedder::Embedder;
use crate::support::image::{self, Files};
use crate::support::patience::until;
use crate::support::root::TempRoot;
use crate::support::world::{FORCE, World, source, text};
use crate::support::{is_root, names_in, scratch};
use crate::tests;

tests! { "volumes":
    kernel_async [
        j1_an_empty_volume_begins_with_the_images_files,
        j1_nocopy_leaves_a_volume_empty,
        j1_what_is_in_a_volume_stays,
        g1_j3_anonymous_volumes_go_with_their_container,
        p28_runs_leave_no_volume,
        j4_a_volume_in_use_is_a_conflict_that_names_its_user,
        j4_lists_and_prunes_as_docker_does,
        j5_a_driver_of_ones_own_is_mounted_once,
        j5_local_volumes_elsewhere_and_in_memory,
        j5_memory_volumes_of_an_older_kernel,
        j5_a_volume_on_nfs,
        j5_file_systems_that_this_user_or_kernel_cannot_mount,
        j2_images_of_several_layers,
        j6_a_subpath_stays_inside,
        j7_files_of_a_bind_belong_to_its_owner,
        j7_such_a_bind_is_a_directory_like_any_other,
        j7_such_a_bind_changes_on_both_sides,
        j7_an_engine_that_dies_serves_no_more,
        p27_files_of_another_user_of_the_container,
        j8_a_snapshot_is_independent,
        j8_a_snapshot_shares_blocks,
        j8_a_snapshot_shares_blocks_on_btrfs,
        j8_a_snapshot_is_a_copy_elsewhere,
        h14_read_only_reaches_what_is_mounted_below,
        h14_propagation,
        j2_memory_and_images,
        h14_volumes_of_another_container,
        h14_sources_that_cannot_be,
        h14_sources_of_every_sort,
        h14_targets_that_lead_elsewhere,
        j6_a_subpath_that_is_swapped_meanwhile,
        j4_a_driver_that_fails_loses_nothing,
        j4_names_that_cannot_be,
        m7_files_are_there_before_the_first_process,
        m9_forks_of_a_prepared_container,
        n3_a_fork_of_one_that_stands_still,
        e9_an_engine_that_dies_leaves_no_anonymous_volume,
        e9_a_volume_without_a_record_is_recorded_again,
    ]
}

/// An image with a directory that is a volume, and files in it.
async fn shelf(world: &World, volumes: &[&str]) -> Result<String, Stop> {
    let dir = scratch::fresh("shelf");
    let files = image::busybox_files()?
        .owned_dir("shelf", 0o750, 1234)
        .file("shelf/book", 0o640, "once upon a time")
        .link("shelf/link", "book")
        .dir("shelf/deep", 0o700)
        .file("shelf/deep/page", 0o600, "a page");
    let volumes: BTreeMap<_, _> = volumes.iter().map(|path| ((*path).to_owned(), json!({}))).collect();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let config = json!({"Cmd": ["sh"], "Env": [path], "Volumes": volumes});
    let layout = image::write_layout(dir.path(), &[files], &config)?;
    let image = world.engine.pull(source(&layout)).await?;
    Ok(image.id().to_string())
}

fn script(image: &str, text: &str) -> ContainerSpec {
    ContainerSpec::image(image).command(["sh", "-c", text])
}

async fn volume_names(engine: &Engine) -> Result<Vec<String>, Stop> {
    let all = engine.volumes().list(Filter::new()).await?;
    Ok(all.into_iter().map(|volume| volume.name).collect())
}

async fn remove(container: Container) -> Check {
    container.remove(FORCE).await?;
    Ok(())
}

const LOOK: &str = "stat -c '%a %u %g' /to && cat /to/book && cat /to/link && stat -c '%a' /to/deep/page";

async fn j1_an_empty_volume_begins_with_the_images_files() -> Check {
    let world = World::alone().await?;
    let image = shelf(&world, &[]).await?;
    let spec = script(&image, &LOOK.replace("/to", "/shelf")).volume("books", "/shelf");
    let owner = if world.ownership().await? == "squashed" {
        "0 0"
    } else {
        "1234 1234"
    };
    let expected = format!("750 {owner}\nonce upon a timeonce upon a time600");
    assert_eq!(world.says(spec.clone()).await?, expected, "as in the image");
    let elsewhere =
        script(&image, "cat /mnt/book && echo new > /mnt/book && rm /mnt/deep/page").volume("books", "/mnt");
    assert_eq!(world.says(elsewhere).await?, "once upon a time");
    let again = script(&image, "cat /shelf/book && ls /shelf/deep").volume("books", "/shelf");
    assert_eq!(world.says(again).await?, "new", "it is filled once only");
    world.engine.volume("books").await?.remove().await?;
    assert!(names_in(&world.root.path().join("volumes")).is_empty());
    Ok(())
}

async fn j1_nocopy_leaves_a_volume_empty() -> Check {
    let world = World::alone().await?;
    let image = shelf(&world, &[]).await?;
    let mount = MountSpec::volume("books", "/shelf").no_copy();
    assert_eq!(world.says(script(&image, "ls -A /shelf").mount(mount)).await?, "");
    let filled = script(&image, "cat /shelf/book").volume("books", "/shelf");
    assert_eq!(world.says(filled).await?, "once upon a time", "it was still empty");
    Ok(())
}

async fn j1_what_is_in_a_volume_stays() -> Check {
    let world = World::alone().await?;
    let volume = world
        .engine
        .create_volume(CreateVolume::named("data").label("a", "b"))
        .await?;
    world
        .says(world.script("echo kept > /data/file").volume("data", "/data"))
        .await?;
    assert_eq!(
        world
            .says(world.script("cat /data/file").volume("data", "/data"))
            .await?,
        "kept"
    );
    let read_only = MountSpec::volume("data", "/data").read_only();
    let tried = world.script("echo x > /data/file || cat /data/file").mount(read_only);
    assert_eq!(world.says(tried).await?, "kept");
    let info = volume.inspect().await?;
    assert_eq!(
        (info.driver.as_str(), info.labels["a"].as_str(), info.anonymous),
        ("local", "b", false)
    );
    let place = info.mountpoint.expect("it is a directory");
    assert_eq!(fs::read_to_string(place.join("file"))?, "kept\n");
    assert_eq!(names_in(&world.root.path().join("volumes")), ["data"]);
    // Another engine on the same root knows it.
    let other = Engine::open(world.root.path()).await?;
    assert_eq!(volume_names(&other).await?, ["data"]);
    let usage = other.system().disk_usage().await?;
    assert_eq!(
        (usage.volumes[0].name.as_str(), usage.volumes[0].containers),
        ("data", 0)
    );
    assert!(usage.volumes[0].bytes > Some(0) && usage.volumes_bytes > 0);
    Ok(())
}

async fn g1_j3_anonymous_volumes_go_with_their_container() -> Check {
    let world = World::alone().await?;
    let image = shelf(&world, &["/shelf", "/var/lib/other"]).await?;
    let container = world
        .engine
        .run(script(&image, "cat /shelf/book; touch /var/lib/other/x; sleep 100"))
        .await?;
    let points = container.inspect().await?.mounts;
    let targets: Vec<_> = points
        .iter()
        .map(|point| point.spec.target.display().to_string())
        .collect();
    assert_eq!(targets, ["/shelf", "/var/lib/other"]);
    assert_eq!(volume_names(&world.engine).await?.len(), 2);
    // Who takes them keeps them.
    let name = container.id().to_string();
    let second = world
        .engine
        .run(script(&image, "cat /shelf/book; sleep 100").volumes_from(name))
        .await?;
    remove(container).await?;
    assert_eq!(volume_names(&world.engine).await?.len(), 2);
    remove(second).await?;
    assert_eq!(volume_names(&world.engine).await?, [] as [String; 0]);
    assert!(names_in(&world.root.path().join("volumes")).is_empty());
    // One with a name stays, whatever the image says.
    let named = script(&image, "true").volume("books", "/shelf");
    world.says(named).await?;
    assert_eq!(volume_names(&world.engine).await?, ["books"]);
    assert!(world.engine.audit().await?.is_clean());
    Ok(())
}

async fn p28_runs_leave_no_volume() -> Check {
    let world = World::alone().await?;
    let image = shelf(&world, &["/shelf"]).await?;
    for _ in 0..20 {
        world.says(script(&image, "cat /shelf/book")).await?;
    }
    assert_eq!(volume_names(&world.engine).await?, [] as [String; 0]);
    assert!(names_in(&world.root.path().join("volumes")).is_empty());
    Ok(())
}

async fn j4_a_volume_in_use_is_a_conflict_that_names_its_user() -> Check {
    let world = World::alone().await?;
    let container = world.engine.create(world.spec().volume("data", "/data")).await?;
    let volume = world.engine.volume("data").await?;
    let refused = volume.remove().await.expect_err("a container has it");
    assert_eq!(refused.kind(), &ErrorKind::Conflict);
    assert_eq!(refused.object(), Some((ObjectKind::Volume, "data")));
    assert!(refused.to_string().contains(container.id().as_str()), "{refused}");
    assert_eq!(volume.inspect().await?.users, [container.id().to_string()]);
    let all = Filter::new().with("all", "true");
    assert_eq!(
        world.engine.volumes().prune(all.clone()).await?.removed,
        [] as [String; 0]
    );
    remove(container).await?;
    assert_eq!(world.engine.volumes().prune(all).await?.removed, ["data"]);
    let gone = volume.remove().await.expect_err("it is gone");
    assert!(gone.is_not_found());
    world
        .engine
        .volumes()
        .remove("data", RemoveVolumeOptions::force())
        .await?;
    for bad in ["../data", "a/b", ".hidden", "x"] {
        let refused = world
            .engine
            .create_volume(CreateVolume::named(bad))
            .await
            .expect_err(bad);
        assert_eq!(refused.kind(), &ErrorKind::InvalidArgument, "{bad}");
    }
    Ok(())
}

async fn j4_lists_and_prunes_as_docker_does() -> Check {
    let world = World::alone().await?;
    let engine = &world.engine;
    engine.create_volume(CreateVolume::named("one").label("a", "1")).await?;
    engine
        .create_volume(CreateVolume::named("two").driver("tmpfs").option("size", "1m"))
        .await?;
    let nameless = engine.create_volume(CreateVolume::default()).await?;
    assert!(nameless.inspect().await?.anonymous);
    let user = engine.create(world.spec().volume("one", "/x")).await?;
    let found = |key: &'static str, value: &'static str| async move {
        let found = engine.volumes().list(Filter::new().with(key, value)).await?;
        Ok::<_, Stop>(
            found
                .into_iter()
                .map(|volume| volume.name)
                .filter(|name| name.len() < 64)
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(found("name", "^t").await?, ["two"]);
    assert_eq!(found("driver", "tmpfs").await?, ["two"]);
    assert_eq!(found("label", "a=1").await?, ["one"]);
    assert_eq!(found("dangling", "false").await?, ["one"]);
    assert_eq!(found("dangling", "true").await?, ["two"]);
    for bad in [
        Filter::new().with("nope", "1"),
        Filter::new().with("dangling", "perhaps"),
    ] {
        let refused = engine.volumes().list(bad).await.expect_err("it cannot be");
        assert_eq!(refused.kind(), &ErrorKind::InvalidArgument);
    }
    let other = engine
        .create_volume(CreateVolume::named("one").driver("tmpfs"))
        .await
        .expect_err("it is another's");
    assert_eq!(other.kind(), &ErrorKind::Conflict);
    let unknown = engine
        .create_volume(CreateVolume::named("odd").driver("nope"))
        .await
        .expect_err("nobody is that");
    assert!(unknown.is_not_found());
    assert_eq!(engine.volumes().prune(Filter::new()).await?.removed, [nameless.name()]);
    let all = Filter::new().with("all", "true").with("label!", "a=1");
    assert_eq!(engine.volumes().prune(all).await?.removed, ["two"]);
    remove(user).await
}

/// Counts, and refuses a second mount.
#[derive(Debug)]
struct Counting {
    dir: PathBuf,
    mounts: AtomicUsize,
    unmounts: AtomicUsize,
    told: Mutex<Vec<String>>,
}

#[async_trait]
impl VolumeDriver for Counting {
    async fn create(&self, volume: &VolumeContext) -> longshore::Result<Outcome> {
        self.told
            .lock()
            .expect("lock")
            .push(format!("create {} {:?}", volume.name, volume.options));
        fs::create_dir(self.dir.join(volume.name.as_str())).map_err(|e| longshore::Error::os("mkdir", e))?;
        Ok(Outcome::Done)
    }

    async fn remove(&self, volume: &VolumeContext) -> longshore::Result<()> {
        self.told.lock().expect("lock").push(format!("remove {}", volume.name));
        fs::remove_dir_all(self.dir.join(volume.name.as_str())).map_err(|e| longshore::Error::os("rmdir", e))
    }

    async fn mount(&self, volume: &VolumeContext) -> longshore::Result<VolumeSource> {
        let before = self.mounts.fetch_add(1, Ordering::SeqCst);
        assert_eq!(before, self.unmounts.load(Ordering::SeqCst), "mounted twice");
        Ok(VolumeSource::Directory(self.dir.join(volume.name.as_str())))
    }

    async fn unmount(&self, _volume: &VolumeContext) -> longshore::Result<()> {
        self.unmounts.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

async fn j5_a_driver_of_ones_own_is_mounted_once() -> Check {
    let world = World::alone().await?;
    let dir = scratch::fresh("driver");
    let driver = Arc::new(Counting {
        dir: dir.path().to_owned(),
        mounts: AtomicUsize::new(0),
        unmounts: AtomicUsize::new(0),
        told: Mutex::default(),
    });
    let engine = Engine::builder(world.root.path())
        .with_volume_driver("counting", Arc::clone(&driver) as Arc<dyn VolumeDriver>)
        .open()
        .await?;
    engine
        .create_volume(CreateVolume::named("mine").driver("counting").option("size", "7"))
        .await?;
    let counts = || {
        (
            driver.mounts.load(Ordering::SeqCst),
            driver.unmounts.load(Ordering::SeqCst),
        )
    };
    let spec = || {
        world
            .script("echo $HOSTNAME >> /data/log; sleep 100")
            .volume("mine", "/data")
    };
    let log = dir.path().join("mine/log");
    let wrote = async |lines| {
        let so = async || Ok(fs::read_to_string(&log).unwrap_or_default().lines().count() == lines);
        until("it wrote its line", so).await
    };
    let first = engine.run(spec()).await?;
    wrote(1).await?;
    let second = engine.run(spec()).await?;
    wrote(2).await?;
    assert_eq!(counts(), (1, 0), "once for both");
    remove(first).await?;
    assert_eq!(counts(), (1, 0), "one uses it still");
    remove(second).await?;
    assert_eq!(counts(), (1, 1));
    engine
        .run(world.script("true").volume("mine", "/data"))
        .output()
        .await?;
    assert_eq!(counts(), (2, 2));
    assert_eq!(fs::read_to_string(&log)?.lines().count(), 2);
    engine.volume("mine").await?.remove().await?;
    let told = driver.told.lock().expect("lock").clone();
    assert_eq!(told, [r#"create mine {"size": "7"}"#, "remove mine"]);
    Ok(())
}

async fn j5_local_volumes_elsewhere_and_in_memory() -> Check {
    let world = World::alone().await?;
    let dir = scratch::fresh("elsewhere");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777))?;
    let there = CreateVolume::named("there").option("type", "none").option("o", "bind");
    let there = there.option("device", dir.path().display().to_string());
    let there = world.engine.create_volume(there).await?;
    world
        .says(world.script("echo found > /x/file").volume("there", "/x"))
        .await?;
    assert_eq!(fs::read_to_string(dir.path().join("file"))?, "found\n");
    there.remove().await?;
    assert!(dir.path().join("file").exists(), "what was there stays");
    // Memory is shared by those who use it at a time, and gone after the last.
    let memory = CreateVolume::named("memory")
        .option("type", "tmpfs")
        .option("device", "tmpfs")
        .option("o", "size=1m");
    world.engine.create_volume(memory).await?;
    let first = world
        .started(
            world
                .script("df /m | tail -1 > /m/df; echo shared > /m/file; sleep 100")
                .volume("memory", "/m"),
        )
        .await?;
    let until = Instant::now() + Duration::from_secs(20);
    let mut said = String::new();
    while !said.contains("shared") && Instant::now() < until {
        said = world
            .says(world.script("cat /m/file && cat /m/df; true").volume("memory", "/m"))
            .await?;
    }
    assert!(said.starts_with("shared\n") && said.contains("1024"), "{said}");
    remove(first).await?;
    assert_eq!(world.says(world.script("ls -A /m").volume("memory", "/m")).await?, "");
    Ok(())
}

/// Whether this kernel copies mounts that are attached nowhere (`fs/namespace.c`, `may_copy_tree`).
fn copies_detached_mounts() -> Result<bool, Stop> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor) >= (6_u32, 15_u32)),
        _ => skip(format!("a kernel of no known number: {release}")),
    }
}

/// A volume in memory is copied from a mount that is attached nowhere. Where the kernel cannot do that, it is said, nothing is
/// left of the attempt, and what is named as the way out works.
async fn j5_memory_volumes_of_an_older_kernel() -> Check {
    let can = copies_detached_mounts()?;
    let world = World::alone().await?;
    let memory = CreateVolume::named("memory")
        .option("type", "tmpfs")
        .option("device", "tmpfs");
    world.engine.create_volume(memory).await?;
    let spec = || {
        world
            .script("ls -A /m && echo new > /m/file && cat /m/file")
            .volume("memory", "/m")
    };
    for _ in 0..2 {
        if can {
            assert_eq!(world.says(spec()).await?, "new");
            continue;
        }
        let container = world.engine.create(spec()).await?;
        let refused = container.start().await.expect_err("the kernel copies no such mount");
        assert!(refused.is_unsupported(), "{}", refused.report());
        assert!(refused.report().contains("Linux 6.15"), "{}", refused.report());
        remove(container).await?;
    }
    let kept = world.script("echo kept > /m/file && cat /m/file").volume("kept", "/m");
    assert_eq!(world.says(kept).await?, "kept", "a directory for the volume");
    world.engine.volume("memory").await?.remove().await?;
    Ok(())
}

/// A server's files, by whatever LONGSHORE_IT_NFS says (`ADDRESS:/PATH`, version 4.2); `ci/vm` has such a server.
async fn j5_a_volume_on_nfs() -> Check {
    let Ok(server) = std::env::var("LONGSHORE_IT_NFS") else {
        return skip("no server of NFS is named (LONGSHORE_IT_NFS=ADDRESS:/PATH)");
    };
    let Some((address, path)) = server.split_once(':') else {
        return fail(format!("no ADDRESS:/PATH: {server}"));
    };
    let world = World::alone().await?;
    let volume = |name: &str, path: &str| {
        let options = format!("addr={address},rw,vers=4.2,soft,timeo=50");
        let volume = CreateVolume::named(name).option("type", "nfs").option("o", options);
        volume.option("device", format!(":{path}"))
    };
    let shared = world.engine.create_volume(volume("shared", path)).await?;
    let missing = volume("missing", &format!("{}/nothing", path.trim_end_matches('/')));
    world.engine.create_volume(missing).await?;
    let at = |script: &str| world.script(script).volume("shared", "/n");
    // Two containers at a time see one file system, and it is the server's.
    let first = world
        .started(at("rm -f /n/told; stat -f -c %T /n > /n/kind; echo one > /n/file; until test -e /n/told; do sleep 0.1; done; cat /n/told"))
        .await?;
    let second = "until test -s /n/file; do sleep 0.1; done; cat /n/kind /n/file; echo heard > /n/told; chmod 640 /n/file; stat -c %a /n/file";
    let said = world.says(at(second)).await?;
    assert_eq!(said, "nfs\none\n640");
    assert!(first.wait().await?.status.success());
    let mut archive = shared.export().await?;
    let mut bytes = 0;
    while let Some(piece) = futures_util::StreamExt::next(&mut archive).await {
        bytes += piece?.len();
    }
    assert!(bytes > 512, "it is exported: {bytes} bytes");
    // What the server does not have is an error that names the volume, and nothing is left of it.
    let container = world
        .engine
        .create(world.script("true").volume("missing", "/n"))
        .await?;
    let refused = container.start().await.expect_err("there is nothing");
    assert!(refused.report().contains("missing"), "{}", refused.report());
    remove(container).await?;
    remove(first).await?;
    world.says(at("rm /n/*; ls -A /n")).await?;
    shared.remove().await?;
    world.engine.volume("missing").await?.remove().await?;
    assert!(world.engine.audit().await?.is_clean());
    Ok(())
}

/// A file system on the network is root's to mount, one that the kernel does not know is nobody's: the start says so, and which.
async fn j5_file_systems_that_this_user_or_kernel_cannot_mount() -> Check {
    let world = World::new().await?;
    let mut kinds = vec![("no-such-fs", "modprobe")];
    if !is_root() {
        kinds.push(("ext4", "nobody but root"));
    }
    for (kind, remedy) in kinds {
        let volume = CreateVolume::named(kind).option("type", kind);
        world.engine.create_volume(volume.option("device", "/dev/null")).await?;
        let container = world.engine.create(world.script("true").volume(kind, "/n")).await?;
        let error = container.start().await.expect_err(kind);
        assert!(error.is_unsupported(), "{kind}: {}", error.report());
        let report = error.report();
        assert!(report.contains(kind) && report.contains(remedy), "{report}");
        remove(container).await?;
        world.engine.volume(kind).await?.remove().await?;
    }
    Ok(())
}

/// Several layers are an overlay, which each kernel makes, and takes a part of, in its own way.
async fn j2_images_of_several_layers() -> Check {
    let world = World::alone().await?;
    let dir = scratch::fresh("layers");
    let layers = [
        image::busybox_files()?
            .dir("shelf", 0o755)
            .file("shelf/one", 0o644, "1"),
        Files::new()
            .dir("shelf", 0o755)
            .file("shelf/two", 0o644, "2")
            .link("shelf/out", "/bin"),
    ];
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let layout = image::write_layout(dir.path(), &layers, &json!({"Cmd": ["sh"], "Env": [path]}))?;
    let image = world.engine.pull(source(&layout)).await?.id().to_string();
    let part = |path: &str| MountSpec::image(&image, "/part").subpath(path);
    let whole = MountSpec::image(&image, "/whole");
    // In a container of the very same image: what it writes is in neither.
    let look =
        "echo mine > /shelf/mine && cd /part && echo * && cd /whole/shelf && echo * && touch x || echo read-only";
    let said = world
        .says(script(&image, look).mount(part("shelf")).mount(whole))
        .await?;
    assert_eq!(said, "one out two\none out two\nread-only");
    for (out, kind) in [
        ("shelf/out", ErrorKind::InvalidArgument),
        ("missing", ErrorKind::NotFound),
    ] {
        let container = world.engine.create(world.script("true").mount(part(out))).await?;
        let refused = container.start().await.expect_err(out);
        assert_eq!(refused.kind(), &kind, "{}", refused.report());
        remove(container).await?;
    }
    Ok(())
}

async fn j6_a_subpath_stays_inside() -> Check {
    let world = World::alone().await?;
    let fill =
        "mkdir -p /v/a/b && echo deep > /v/a/b/file && ln -s a/b /v/in && ln -s /etc /v/out && ln -s ../.. /v/up";
    world.says(world.script(fill).volume("data", "/v")).await?;
    let at = |part: &str| {
        world
            .script("cat /p/file")
            .mount(MountSpec::volume("data", "/p").subpath(part))
    };
    assert_eq!(world.says(at("a/b")).await?, "deep");
    assert_eq!(world.says(at("in")).await?, "deep", "a link that stays inside");
    for out in ["out", "up", "out/ssl"] {
        let container = world.engine.create(at(out)).await?;
        let refused = container.start().await.expect_err(out);
        assert!(
            matches!(refused.kind(), ErrorKind::InvalidArgument),
            "{out}: {}",
            refused.report()
        );
        remove(container).await?;
    }
    let container = world.engine.create(at("missing")).await?;
    assert!(container.start().await.is_err());
    remove(container).await?;
    for bad in ["..", "a/../..", "/etc", ""] {
        let refused = world.engine.create(at(bad)).await.expect_err(bad);
        assert_eq!(refused.kind(), &ErrorKind::InvalidArgument, "{bad}");
    }
    Ok(())
}

/// Whether this user may serve a FUSE; root needs none.
pub fn fuse_is_ours() -> Result<(), String> {
    if is_root() {
        return Ok(());
    }
    let device = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    device.map(drop).map_err(|error| format!("/dev/fuse: {error}"))
}

async fn j7_files_of_a_bind_belong_to_its_owner() -> Check {
    if let Err(why) = fuse_is_ours() {
        return skip(why);
    }
    let world = World::new().await?;
    let dir = scratch::fresh("mine");
    let bind = || MountSpec::bind(dir.path(), "/src").map_to_container_user();
    let work = "touch /src/file && stat -c %u /src/file && id -u";
    // Root in the container.
    let said = world.says(world.script(work).mount(bind())).await?;
    assert_eq!(said, "0\n0");
    let own = nix::unistd::geteuid().as_raw();
    assert_eq!(fs::metadata(dir.path().join("file"))?.uid(), own);
    fs::remove_file(dir.path().join("file"))?;
    let spec = world.script(work).user("999:999").mount(bind());
    assert_eq!(world.says(spec).await?, "999\n999", "its own in the container");
    let file = fs::metadata(dir.path().join("file"))?;
    assert_eq!(
        (file.uid(), file.gid()),
        (own, nix::unistd::getegid().as_raw()),
        "and the caller's outside"
    );
    Ok(())
}

/// What programs do with files, done by a user of the container in a directory of the caller's; and then looked at outside.
async fn j7_such_a_bind_is_a_directory_like_any_other() -> Check {
    if let Err(why) = fuse_is_ours() {
        return skip(why);
    }
    let world = World::new().await?;
    let dir = scratch::fresh("work");
    fs::write(dir.path().join("given"), "given")?;
    fs::create_dir(dir.path().join("d"))?;
    fs::write(dir.path().join("d/in"), "in")?;
    std::os::unix::fs::symlink("/etc", dir.path().join("out"))?;
    let script = r#"
        set -e; cd /src
        test "$(cat given)" = given; test "$(stat -c %u given)" = 999
        umask 0; echo made > made; chmod 640 made; stat -c %a made
        mkdir -m 755 new; mv made new/moved; ln new/moved new/hard; ln -s moved new/soft; cat new/soft
        stat -c %h new/moved; readlink new/soft
        echo more >> new/hard; cat new/moved
        test "$(stat -c %i new/moved)" = "$(stat -c %i new/hard)"
        exec 3<> gone; rm gone; echo late >&3; test "$(stat -L -c %h /proc/self/fd/3)" = 0; exec 3>&-
        mkfifo pipe; test -p pipe; rm pipe
        touch -d '2001-02-03 04:05:06' new/moved; stat -c %Y new/moved
        cp given new/copy; : > new/copy; stat -c %s new/copy
        printf '#!/bin/sh\necho ran' > new/run; chmod +x new/run; new/run
        for i in $(seq 300); do : > new/f$i; done; ls new | wc -l; rm new/f*
        mv new/run d; rmdir new 2>/dev/null && exit 9
        chown 5:5 given 2>/dev/null && exit 8
        mknod dev c 1 3 2>/dev/null && exit 7
        ls -a d | tr '\n' ' '; echo
        dd if=/dev/zero of=big bs=64k count=40 2>/dev/null; stat -c %s big; truncate -s 7 big; stat -c %s big
        ls out >/dev/null
    "#;
    let bind = MountSpec::bind(dir.path(), "/src").map_to_container_user();
    let said = world.says(world.script(script).user("999:999").mount(bind)).await?;
    let expected = "640\nmade\n2\nmoved\nmade\nmore\n981173106\n0\nran\n305\n. .. in run \n2621440\n7";
    assert_eq!(said, expected);
    let own = nix::unistd::geteuid().as_raw();
    for made in ["new", "new/moved", "new/soft", "new/hard", "d/run", "big"] {
        let found = fs::symlink_metadata(dir.path().join(made))?;
        assert_eq!(found.uid(), own, "{made}");
    }
    assert_eq!(fs::read_to_string(dir.path().join("new/hard"))?, "made\nmore\n");
    assert_eq!(fs::metadata(dir.path().join("new/moved"))?.mode() & 0o7777, 0o640);
    assert!(!dir.path().join("gone").exists() && !dir.path().join("pipe").exists());
    Ok(())
}

/// Both sides see at once what the other does, and what may not be written is not.
async fn j7_such_a_bind_changes_on_both_sides() -> Check {
    if let Err(why) = fuse_is_ours() {
        return skip(why);
    }
    let world = World::new().await?;
    let dir = scratch::fresh("both");
    fs::write(dir.path().join("file"), "one")?;
    let bind = MountSpec::bind(dir.path(), "/src").map_to_container_user();
    let spec = world.spec().command(["sleep", "60"]).user("999:999").mount(bind);
    let container = world.started(spec).await?;
    let mut seen = Vec::new();
    let long = "two, and longer than it was";
    for (change, name) in [("one", "file"), (long, "file"), ("three", "file"), ("new", "other")] {
        // Replaced, as editors do, and written in place.
        if change == "three" {
            fs::write(dir.path().join(".new"), change)?;
            fs::rename(dir.path().join(".new"), dir.path().join(name))?;
        } else {
            fs::write(dir.path().join(name), change)?;
        }
        let cat = ExecSpec::new(["cat".to_owned(), format!("/src/{name}")]);
        seen.push(text(&container.exec(cat).output().await?.stdout));
    }
    assert_eq!(seen, ["one", long, "three", "new"]);
    container.remove(FORCE).await?;
    let read_only = MountSpec::bind(dir.path(), "/src").map_to_container_user().read_only();
    let work = "touch /src/no 2>&1; cat /src/file";
    let said = world.says(world.script(work).user("999:999").mount(read_only)).await?;
    assert_eq!(said, "touch: /src/no: Read-only file system\nthree");
    // A single file, too.
    let file = dir.path().join("file");
    let one = MountSpec::bind(&file, "/etc/one").map_to_container_user();
    let work = "cat /etc/one; echo four > /etc/one; stat -c %u /etc/one";
    assert_eq!(
        world.says(world.script(work).user("999:999").mount(one)).await?,
        "three999"
    );
    assert_eq!(fs::read_to_string(&file)?, "four\n");
    Ok(())
}

async fn p27_files_of_another_user_of_the_container() -> Check {
    if !is_root() {
        return skip("only root's engine has files of other users");
    }
    let world = World::new().await?;
    let dir = scratch::fresh("alice");
    nix::unistd::chown(dir.path(), Some(4321.into()), Some(4321.into()))?;
    let bind = || MountSpec::bind(dir.path(), "/src").map_to_container_user();
    // By name, which the image's own file tells.
    let by_name = world
        .script("touch /src/a && stat -c '%u %g' /src/a")
        .user("app")
        .mount(bind());
    assert_eq!(world.says(by_name).await?, "1234 1234");
    let found = fs::metadata(dir.path().join("a"))?;
    assert_eq!((found.uid(), found.gid()), (4321, 4321));
    // In a user namespace of the container's own, too.
    let mut apart = world
        .script("touch /src/b && stat -c '%u' /src/b")
        .user("app")
        .mount(bind());
    apart.user_namespace = true;
    let engine = Engine::builder(world.root.path())
        .container_ids(longshore::types::IdRange::new(0, 100_000, 65_536))
        .open()
        .await?;
    let said = engine.run(apart).output().await?;
    assert_eq!(
        String::from_utf8_lossy(&said.stdout).trim(),
        "1234",
        "{:?}",
        String::from_utf8_lossy(&said.stderr)
    );
    assert_eq!(fs::metadata(dir.path().join("b"))?.uid(), 4321);
    Ok(())
}

async fn j8_a_snapshot_is_independent() -> Check {
    let world = World::alone().await?;
    let fill = "echo one > /v/file && ln /v/file /v/hard && mkdir /v/d && chmod 700 /v/d && ln -s file /v/link";
    world.says(world.script(fill).volume("data", "/v")).await?;
    let volume = world.engine.volume("data").await?;
    let copy = volume.snapshot(CreateVolume::named("copy")).await?;
    world
        .says(world.script("echo two > /v/file").volume("copy", "/v"))
        .await?;
    let look = "cat /v/file /v/hard /v/link && stat -c %a /v/d";
    assert_eq!(
        world.says(world.script(look).volume("data", "/v")).await?,
        "one\none\none\n700"
    );
    assert_eq!(
        world.says(world.script(look).volume("copy", "/v")).await?,
        "two\ntwo\ntwo\n700"
    );
    let taken = volume
        .snapshot(CreateVolume::named("copy"))
        .await
        .expect_err("it is there");
    assert_eq!(taken.kind(), &ErrorKind::Conflict);
    volume.remove().await?;
    assert_eq!(
        world.says(world.script("cat /v/link").volume("copy", "/v")).await?,
        "two"
    );
    copy.remove().await?;
    assert!(world.engine.audit().await?.is_clean());
    Ok(())
}

/// A volume with so many bytes on a disk, and what a snapshot of it takes there.
async fn snapshot_on(disk: &Disk, bytes: usize) -> Result<u64, Stop> {
    let engine = Engine::open(disk.path().join("root")).await?;
    let volume = engine.create_volume(CreateVolume::named("data")).await?;
    let place = volume.inspect().await?.mountpoint.expect("a directory");
    // Nothing that a file system could leave out, or pack.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let content: Vec<u8> = (0..bytes / 8).flat_map(|_| next().to_le_bytes()).collect();
    fs::write(place.join("large"), &content)?;
    nix::unistd::sync();
    let before = disk.free()?;
    let copy = volume.snapshot(CreateVolume::named("copy")).await?;
    nix::unistd::sync();
    let taken = before.saturating_sub(disk.free()?);
    let copied = copy.inspect().await?.mountpoint.expect("a directory").join("large");
    assert!(fs::read(&copied)? == content, "the copy has other bytes");
    fs::File::options().write(true).open(&copied)?.write_all(b"changed")?;
    assert!(
        fs::read(place.join("large"))? == content,
        "what the copy changes is its own"
    );
    Ok(taken)
}

async fn shares_blocks(kind: &str) -> Check {
    let disk = match Disk::of_kind(kind, 400 << 20) {
        Err(Stop::Fail(why)) => return skip(format!("no {kind} here: {why}")),
        other => other?,
    };
    let taken = snapshot_on(&disk, 64 << 20).await?;
    assert!(taken < 8 << 20, "the copy took {taken} bytes");
    Ok(())
}

async fn j8_a_snapshot_shares_blocks() -> Check {
    shares_blocks("xfs").await
}

async fn j8_a_snapshot_shares_blocks_on_btrfs() -> Check {
    shares_blocks("btrfs").await
}

async fn j8_a_snapshot_is_a_copy_elsewhere() -> Check {
    let disk = match Disk::of_kind("ext4", 100 << 20) {
        Err(Stop::Fail(why)) => return skip(format!("no ext4 here: {why}")),
        other => other?,
    };
    let taken = snapshot_on(&disk, 16 << 20).await?;
    assert!(taken >= 16 << 20, "the copy took {taken} bytes");
    Ok(())
}

async fn h14_read_only_reaches_what_is_mounted_below() -> Check {
    let disk = Disk::tmpfs(1 << 20)?;
    let world = World::new().await?;
    let above = disk.path().parent().expect("it has a parent").to_owned();
    let work = "for dir in /b /b/mounted; do if touch $dir/x 2>/dev/null; then echo writable; else echo not; fi; done";
    let said = |mount: MountSpec| world.says(world.script(work).mount(mount));
    let bind = || MountSpec::bind(&above, "/b");
    assert_eq!(said(bind()).await?, "writable\nwritable");
    assert_eq!(said(bind().read_only()).await?, "not\nnot", "below as well");
    let mut top = bind().read_only();
    if let MountFrom::Bind(bind) = &mut top.source {
        bind.read_only_top = true;
    }
    assert_eq!(said(top).await?, "not\nwritable", "at the top alone");
    let mut alone = bind();
    if let MountFrom::Bind(bind) = &mut alone.source {
        bind.non_recursive = true;
    }
    let seen = world.script("ls /b/mounted | wc -l; ls /b | wc -l").mount(alone);
    assert_eq!(
        world.says(seen).await?.lines().next(),
        Some("0"),
        "what is mounted below is left out"
    );
    let options = world.script("grep ' /b ' /proc/self/mountinfo").mount(bind());
    let options = world.says(options).await?;
    assert!(options.contains("nosuid") && options.contains("nodev"), "{options}");
    Ok(())
}

async fn h14_propagation() -> Check {
    let disk = Disk::tmpfs(1 << 20)?;
    let world = World::new().await?;
    let place = disk.path();
    fs::create_dir(place.join("later"))?;
    let run = |words: &[&str]| Command::new("mount").args(words).arg(&place).status();
    run(&["--make-private"])?;
    let shared = MountSpec::bind(&place, "/b").propagation(Propagation::Rshared);
    let container = world.engine.create(world.script("sleep 100").mount(shared)).await?;
    let refused = container.start().await.expect_err("it is on no shared mount");
    assert_eq!(refused.kind(), &ErrorKind::InvalidArgument, "{}", refused.report());
    remove(container).await?;
    run(&["--make-shared"])?;
    let mut sees = Vec::new();
    for propagation in [Propagation::Rprivate, Propagation::Rslave] {
        let mount = MountSpec::bind(&place, "/b").propagation(propagation);
        let wait = "while ! test -e /b/go; do sleep 0.05; done; test -e /b/later/seen && echo seen; true";
        let container = world.engine.run(world.script(wait).mount(mount)).await?;
        let made = Command::new("mount")
            .args(["-t", "tmpfs", "none"])
            .arg(place.join("later"))
            .status()?;
        assert!(made.success());
        fs::write(place.join("later/seen"), "")?;
        fs::write(place.join("go"), "")?;
        container.wait().await?;
        let mut logs = container.logs(longshore::LogQuery::default()).await?;
        let mut said = String::new();
        while let Some(entry) = futures_util::StreamExt::next(&mut logs).await {
            said.push_str(&format!("{:?}", entry?));
        }
        sees.push(!said.is_empty());
        remove(container).await?;
        fs::remove_file(place.join("go"))?;
        assert!(Command::new("umount").arg(place.join("later")).status()?.success());
    }
    run(&["--make-private"])?;
    assert_eq!(sees, [false, true], "what the host mounts later");
    Ok(())
}

async fn j2_memory_and_images() -> Check {
    let world = World::alone().await?;
    let image = shelf(&world, &[]).await?;
    let options = Tmpfs {
        size: Some(Bytes::mib(1)),
        mode: Some(0o700),
        ..Tmpfs::default()
    };
    let memory = world.script("stat -c %a /m; df /m | tail -1 | tr -s ' ' | cut -d' ' -f2 || true");
    let said = world.says(memory.mount(MountSpec::tmpfs("/m", options))).await?;
    assert!(said.starts_with("700"), "{said}");
    let shown = MountSpec::image(&image, "/other");
    let look = "cat /other/shelf/book; touch /other/x || echo read-only";
    assert_eq!(
        world.says(world.script(look).mount(shown)).await?,
        "once upon a timeread-only"
    );
    let part = MountSpec::image(&image, "/other").subpath("shelf");
    let container = world.engine.create(world.script("cat /other/book").mount(part)).await?;
    let used = world
        .engine
        .image(&image)
        .await?
        .remove(Default::default())
        .await
        .expect_err("it is mounted");
    assert_eq!(used.kind(), &ErrorKind::Conflict);
    container.start().await?;
    assert!(container.wait().await?.status.success());
    remove(container).await?;
    // A volume within memory, and memory within a volume.
    let nested = world
        .script("touch /a/b/c/x && grep -c ' /a' /proc/self/mountinfo")
        .volume("data", "/a/b")
        .tmpfs("/a", Tmpfs::default())
        .mount(MountSpec::tmpfs("/a/b/c", Tmpfs::default()));
    assert_eq!(world.says(nested).await?, "3");
    Ok(())
}

async fn h14_volumes_of_another_container() -> Check {
    let world = World::alone().await?;
    let dir = scratch::fresh("bound");
    fs::write(dir.path().join("file"), "of the host")?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    let first = world
        .spec()
        .name("first")
        .volume("data", "/data")
        .bind(dir.path(), "/host");
    let first = world.engine.create(first.mount(MountSpec::anonymous("/cache"))).await?;
    let take = |mode: &str| {
        world
            .script("cat /host/file; touch /data/x /cache/x || echo no")
            .volumes_from(format!("first{mode}"))
    };
    assert_eq!(world.says(take("")).await?, "of the host");
    assert_eq!(world.says(take(":ro")).await?, "of the hostno");
    let over = take("").volume("other", "/data");
    world.says(over).await?;
    assert_eq!(volume_names(&world.engine).await?.len(), 3);
    let missing = world
        .engine
        .create(world.spec().volumes_from("nobody"))
        .await
        .expect_err("no such");
    assert!(missing.is_not_found());
    let odd = world
        .engine
        .create(world.spec().volumes_from("first:odd"))
        .await
        .expect_err("no mode");
    assert_eq!(odd.kind(), &ErrorKind::InvalidArgument);
    remove(first).await
}

async fn h14_sources_that_cannot_be() -> Check {
    let world = World::alone().await?;
    let dir = scratch::fresh("sources");
    let missing = dir.path().join("missing/deep");
    let refused = world
        .engine
        .create(world.spec().mount(MountSpec::bind(&missing, "/x")))
        .await
        .expect_err("it is not there");
    assert_eq!(refused.kind(), &ErrorKind::InvalidArgument, "{}", refused.report());
    world
        .says(
            world
                .script("true")
                .mount(MountSpec::bind(&missing, "/x").create_source()),
        )
        .await?;
    assert!(missing.is_dir());
    for (source, target) in [
        ("relative", "/x"),
        ("/a/../b", "/x"),
        ("/tmp", "x"),
        ("/tmp", "/"),
        ("/tmp", "/a/../.."),
    ] {
        let refused = world
            .engine
            .create(world.spec().mount(MountSpec::bind(source, target)))
            .await
            .expect_err(source);
        assert_eq!(refused.kind(), &ErrorKind::InvalidArgument, "{source} {target}");
    }
    let twice = world.spec().volume("data", "/x").tmpfs("/x/", Tmpfs::default());
    assert_eq!(
        world.engine.create(twice).await.expect_err("twice").kind(),
        &ErrorKind::InvalidArgument
    );
    let unknown = world.spec().mount(MountSpec::image("nothere:nope", "/x"));
    assert!(world.engine.create(unknown).await.expect_err("no image").is_not_found());
    assert_eq!(
        volume_names(&world.engine).await?,
        [] as [String; 0],
        "what failed leaves nothing"
    );
    Ok(())
}

/// Files of every sort can be shown, and none is opened on the way: a FIFO that nobody writes to keeps nobody waiting.
async fn h14_sources_of_every_sort() -> Check {
    let world = World::new().await?;
    let dir = scratch::fresh("sorts");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    let at = |name: &str| dir.path().join(name);
    fs::write(at("file"), "content")?;
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o666))?;
    let _listener = std::os::unix::net::UnixListener::bind(at("socket"))?;
    std::os::unix::fs::symlink("file", at("link"))?;
    std::os::unix::fs::symlink("nowhere", at("dangling"))?;
    let test = |name: &str, script: &str| {
        let mount = MountSpec::bind(at(name), "/shown");
        world.script(script).mount(mount)
    };
    for (name, script) in [
        ("file", "test -f /shown && cat /shown"),
        ("fifo", "test -p /shown && echo content"),
        ("socket", "test -S /shown && echo content"),
        ("link", "test ! -L /shown && cat /shown"),
    ] {
        assert_eq!(world.says(test(name, script)).await?, "content", "{name}");
    }
    let device = world
        .script("test -c /shown && echo content")
        .mount(MountSpec::bind("/dev/null", "/shown"));
    assert_eq!(world.says(device).await?, "content");
    let refused = world
        .engine
        .create(test("dangling", "true"))
        .await
        .expect_err("a link to nothing");
    assert_eq!(refused.kind(), &ErrorKind::InvalidArgument, "{}", refused.report());
    // What was there at the creation, and is gone or another at the start.
    let container = world.engine.create(test("file", "cat /shown")).await?;
    fs::remove_file(at("file"))?;
    let refused = container.start().await.expect_err("it is gone");
    assert!(refused.report().contains("/shown"), "{}", refused.report());
    fs::create_dir(at("file"))?;
    let turned = container.start().await;
    if turned.is_ok() {
        container.wait().await?;
    }
    remove(container).await?;
    Ok(())
}

/// Links of the image at a mount's target lead to the same place in the container, and never out of it.
async fn h14_targets_that_lead_elsewhere() -> Check {
    let world = World::alone().await?;
    let dir = scratch::fresh("targets");
    let (outside, shown) = (dir.path().join("outside"), dir.path().join("shown"));
    fs::create_dir(&outside)?;
    fs::create_dir(&shown)?;
    fs::write(shown.join("mark"), "shown")?;
    let files = image::busybox_files()?
        .dir("real", 0o755)
        .link("inside", "real")
        .link("above", "../../../../real")
        .link("absolute", outside.display().to_string())
        .link("circle", "circle")
        .file("file", 0o644, "a file");
    let layout = image::write_layout(&dir.path().join("layout"), &[files], &json!({"Cmd": ["sh"]}))?;
    let image = world.engine.pull(source(&layout)).await?.id().to_string();
    for target in ["/inside", "/above", "/real/../inside", "/inside/new/deep"] {
        let spec = script(&image, &format!("cat {target}/mark")).mount(MountSpec::bind(&shown, target));
        if target.contains("..") {
            let refused = world.engine.create(spec).await.expect_err(target);
            assert_eq!(refused.kind(), &ErrorKind::InvalidArgument, "{target}");
            continue;
        }
        assert_eq!(world.says(spec).await?, "shown", "{target}");
    }
    // A link to what is not in the container is not made up for.
    for target in ["/absolute", "/circle", "/file/deep", "/file"] {
        let spec = script(&image, "true").mount(MountSpec::bind(&shown, target));
        let container = world.engine.create(spec).await?;
        let refused = container.start().await.expect_err(target);
        assert!(refused.report().contains(target), "{target}: {}", refused.report());
        remove(container).await?;
    }
    assert_eq!(names_in(&outside), [] as [String; 0], "nothing was made on the host");
    assert_eq!(names_in(&shown), ["mark"]);
    Ok(())
}

/// A container that makes its part of a volume another thing, again and again, while others start with it.
async fn j6_a_subpath_that_is_swapped_meanwhile() -> Check {
    let world = World::alone().await?;
    let fill = "mkdir -p /v/good /v/store && echo inside > /v/good/file && ln -s /etc /v/store/evil && ln -s ../../../.. /v/store/up";
    world.says(world.script(fill).volume("data", "/v")).await?;
    let swap = "cd /v; while true; do for l in evil up; do mv good store/good; mv store/$l good; mv good store/$l; \
                mv store/good good; done; done";
    let swapping = world.started(world.script(swap).volume("data", "/v")).await?;
    let (mut shown, mut refused) = (0, 0);
    for _ in 0..12 {
        let spec = world
            .script("ls -A /p; cat /p/file")
            .mount(MountSpec::volume("data", "/p").subpath("good"));
        let container = world.engine.create(spec).await?;
        match container.start().await {
            Ok(_) => {
                container.wait().await?;
                let mut said = Vec::new();
                let mut entries = container.logs(Default::default()).await?;
                while let Some(entry) = futures_util::StreamExt::next(&mut entries).await {
                    said.extend_from_slice(&entry?.bytes);
                }
                let said = String::from_utf8_lossy(&said).into_owned();
                assert_eq!(said, "file\ninside\n", "nothing else is ever seen");
                shown += 1;
            }
            Err(_) => refused += 1,
        }
        remove(container).await?;
    }
    remove(swapping).await?;
    println!("{shown} saw it, {refused} were refused");
    Ok(())
}

/// A driver that cannot: what it did not make is not there, what it did not remove is.
async fn j4_a_driver_that_fails_loses_nothing() -> Check {
    let world = World::alone().await?;
    let dir = scratch::fresh("fake");
    let fake = Arc::new(longshore::conformance::volumes::FakeVolumes::new(dir.path()));
    let engine = Engine::builder(world.root.path())
        .with_volume_driver("fake", Arc::clone(&fake) as Arc<dyn VolumeDriver>)
        .open()
        .await?;
    let named = |name: &str| CreateVolume::named(name).driver("fake");
    fake.fail("create", ErrorKind::Denied);
    let refused = engine.create_volume(named("data")).await.expect_err("create");
    assert_eq!(refused.kind(), &ErrorKind::Denied);
    assert_eq!(fake.calls(), ["create data"], "what was not made is not removed");
    assert_eq!(volume_names(&engine).await?, [] as [String; 0]);
    assert_eq!(names_in(&world.root.path().join("volumes")), [] as [String; 0]);
    fake.recover();
    // What the driver had before is not removed because a name is taken or a start fails.
    fs::create_dir(fake.place("data"))?;
    fs::write(fake.place("data").join("file"), "precious")?;
    let volume = engine.create_volume(named("data")).await?;
    fake.fail("mount", ErrorKind::Timeout);
    let container = engine.create(world.script("true").volume("data", "/v")).await?;
    let late = container.start().await.expect_err("mount");
    assert_eq!(late.kind(), &ErrorKind::Timeout);
    assert_eq!(
        late.object().map(|(kind, name)| (kind, name.to_owned())),
        Some((ObjectKind::Volume, "data".to_owned()))
    );
    remove(container).await?;
    for verb in ["mount", "unmount", "remove"] {
        fake.fail(verb, ErrorKind::Unavailable);
    }
    let refused = volume.remove().await.expect_err("remove");
    assert_eq!(refused.kind(), &ErrorKind::Unavailable);
    assert_eq!(volume_names(&engine).await?, ["data"]);
    // A prune goes on past it.
    engine.create_volume(CreateVolume::named("other")).await?;
    let pruned = engine.volumes().prune(Filter::new().with("all", "true")).await?;
    assert_eq!(pruned.removed, ["other"]);
    fake.recover();
    let read = engine
        .run(world.script("cat /v/file").volume("data", "/v"))
        .output()
        .await?;
    assert_eq!(String::from_utf8_lossy(&read.stdout), "precious");
    volume.remove().await?;
    assert!(!fake.place("data").exists());
    assert_eq!(engine.audit().await?.findings, []);
    Ok(())
}

async fn j4_names_that_cannot_be() -> Check {
    let world = World::alone().await?;
    let long = "x".repeat(300);
    for bad in [
        "",
        "a",
        "a/b",
        "../up",
        "..",
        ".",
        ".hidden",
        "-dash",
        "a b",
        "a\0b",
        "caf\u{e9}",
        &long,
    ] {
        let refused = world
            .engine
            .create_volume(CreateVolume::named(bad))
            .await
            .expect_err(bad);
        assert_eq!(refused.kind(), &ErrorKind::InvalidArgument, "{bad:?}");
        let volumes = world.engine.volumes();
        for error in [
            volumes.inspect(bad).await.expect_err(bad),
            volumes
                .remove(bad, RemoveVolumeOptions::default())
                .await
                .expect_err(bad),
            volumes.export(bad).await.err().expect("no such volume"),
        ] {
            assert!(error.is_not_found(), "{bad:?}: {}", error.report());
        }
        let snapshot = volumes.snapshot(bad, CreateVolume::default()).await;
        assert!(snapshot.expect_err(bad).is_not_found(), "{bad:?}");
    }
    let first = world.engine.create_volume(CreateVolume::named("taken")).await?;
    let again = world.engine.create_volume(CreateVolume::named("taken")).await?;
    assert_eq!(first.name(), again.name(), "the same name is the same volume");
    let other = CreateVolume::named("taken").driver("tmpfs");
    assert!(
        world
            .engine
            .create_volume(other)
            .await
            .expect_err("another's")
            .is_conflict()
    );
    let into = first.snapshot(CreateVolume::named("a/b")).await;
    assert_eq!(into.expect_err("no name").kind(), &ErrorKind::InvalidArgument);
    assert_eq!(names_in(&world.root.path().join("volumes")), ["taken"]);
    Ok(())
}

async fn m7_files_are_there_before_the_first_process() -> Check {
    let world = World::alone().await?;
    let spec = world
        .script("stat -c '%a %u' /etc/x && cat /etc/x && cat /new/dir/y")
        .with_file("/etc/x", "secret", 0o600)
        .with_file("/new/dir/y", "more", 0o644);
    assert_eq!(world.says(spec).await?, "600 0\nsecretmore");
    Ok(())
}

async fn m9_forks_of_a_prepared_container() -> Check {
    let world = World::alone().await?;
    let script = "if test -e /root/rows; then cat /root/rows /data/rows; echo $1 > /data/rows; else echo a > /root/rows; echo b > /data/rows; fi";
    let prepared = world.started(world.script(script).volume("data", "/data")).await?;
    prepared.wait().await?;
    let template = prepared.template().await?;
    let mut forks = Vec::new();
    for _ in 0..5 {
        forks.push(template.fork().await?);
    }
    for fork in &forks {
        fork.start().await?;
        assert!(fork.wait().await?.status.success());
        let changed = fork.diff().await?;
        assert_eq!(changed, [], "it begins where the template is");
    }
    // Each has volumes of its own, which go with it.
    assert_eq!(volume_names(&world.engine).await?.len(), 1 + 1 + forks.len());
    assert_eq!(
        world
            .says(world.script("cat /data/rows").volume("data", "/data"))
            .await?,
        "b",
        "the template's is as it was"
    );
    let said = world.engine.run(template.spec()).output().await?;
    assert_eq!(
        String::from_utf8_lossy(&said.stdout),
        "a\nb\n",
        "no fork sees another's"
    );
    for fork in forks {
        remove(fork).await?;
    }
    template.remove().await?;
    assert_eq!(volume_names(&world.engine).await?, ["data"]);
    remove(prepared).await?;
    assert!(world.engine.audit().await?.is_clean());
    Ok(())
}

async fn n3_a_fork_of_one_that_stands_still() -> Check {
    let world = World::alone().await?;
    let container = world
        .started(world.script("echo warm > /root/part; mv /root/part /root/state; sleep 1000"))
        .await?;
    let running = container.template().await.expect_err("it runs");
    assert_eq!(running.kind(), &ErrorKind::InvalidState);
    while container.stat_path("/root/state").await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if let Err(error) = container.pause().await {
        remove(container).await?;
        return skip(error.report());
    }
    let template = container.template().await?;
    container.unpause().await?;
    let said = world
        .engine
        .run(template.spec().command(["cat", "/root/state"]))
        .output()
        .await?;
    assert_eq!(String::from_utf8_lossy(&said.stdout), "warm\n");
    remove(container).await?;
    template.remove().await?;
    Ok(())
}

async fn e9_an_engine_that_dies_leaves_no_anonymous_volume() -> Check {
    let root = TempRoot::new();
    let engine = Engine::open(root.path()).await?;
    let image = engine.pull(source(image::shared()?)).await?;
    let mut embedder = Embedder::start(
        "with-volume",
        &[&root.path().display().to_string(), &image.id().to_string()],
    )?;
    embedder.line(Duration::from_secs(60))?;
    assert_eq!(volume_names(&engine).await?.len(), 1);
    embedder.kill()?;
    let volumes = root.path().join("volumes");
    let until = Instant::now() + Duration::from_secs(10);
    while !names_in(&volumes).is_empty() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(names_in(&volumes).is_empty(), "the helper removes it");
    // The helper lets go of its owner's lock last.
    while !volume_names(&engine).await?.is_empty() && Instant::now() < until {
        engine.reconcile().await?;
    }
    assert_eq!(volume_names(&engine).await?, [] as [String; 0]);
    assert_eq!(engine.audit().await?.findings, []);
    Ok(())
}

/// Who serves a container's files is killed while it writes.
async fn j7_an_engine_that_dies_serves_no_more() -> Check {
    if let Err(why) = fuse_is_ours() {
        return skip(why);
    }
    let root = TempRoot::new();
    let engine = Engine::open(root.path()).await?;
    let image = engine.pull(source(image::shared()?)).await?.id().to_string();
    let dir = scratch::fresh("served");
    let mut embedder = Embedder::start(
        "with-volume",
        &[
            &root.path().display().to_string(),
            &image,
            &dir.path().display().to_string(),
        ],
    )?;
    embedder.line(Duration::from_secs(60))?;
    let written = dir.path().join("file");
    let until = Instant::now() + Duration::from_secs(20);
    while !written.exists() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(fs::metadata(&written)?.uid(), nix::unistd::geteuid().as_raw());
    embedder.kill()?;
    while !engine.audit().await?.is_clean() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(engine.audit().await?.findings, []);
    Ok(())
}

/// An embedder that runs a container with an anonymous volume, and with a directory that it serves if there is one, until it
/// is killed.
pub fn with_volume(arguments: &[String]) -> i32 {
    let ([root, image] | [root, image, _]) = arguments else {
        return 2;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let engine = Engine::open(root).await.expect("open");
        let mut spec = ContainerSpec::image(image)
            .command(["sleep", "1000"])
            .mount(MountSpec::anonymous("/data"));
        if let Some(served) = arguments.get(2) {
            spec = spec
                .command(["sh", "-c", "while :; do echo x > /served/file; done"])
                .user("999:999")
                .mount(MountSpec::bind(served, "/served").map_to_container_user());
        }
        let _container = engine.run(spec).await.expect("run");
        println!("ready");
        std::future::pending::<()>().await;
    });
    0
}

async fn e9_a_volume_without_a_record_is_recorded_again() -> Check {
    let world = World::alone().await?;
    world
        .says(world.script("echo kept > /v/file").volume("data", "/v"))
        .await?;
    let volumes = world.root.path().join("volumes");
    // As a lost database leaves it, and what a killed process leaves.
    let aside = volumes.with_file_name("aside");
    fs::rename(volumes.join("data"), &aside)?;
    world
        .engine
        .volumes()
        .remove("data", RemoveVolumeOptions::default())
        .await?;
    fs::rename(&aside, volumes.join("data"))?;
    fs::create_dir_all(volumes.join("half/_data"))?;
    fs::create_dir_all(volumes.join(format!(".gone.{}.x/_data", "0".repeat(64))))?;
    assert!(!world.engine.audit().await?.is_clean() || volume_names(&world.engine).await? == ["data"]);
    world.engine.reconcile().await?;
    assert_eq!(volume_names(&world.engine).await?, ["data"]);
    assert_eq!(names_in(&volumes), ["data"]);
    assert_eq!(
        world.says(world.script("cat /v/file").volume("data", "/v")).await?,
        "kept"
    );
    assert!(world.engine.audit().await?.is_clean());
    let _ = (Files::new(), RemoveOptions::default());
    Ok(())
}
