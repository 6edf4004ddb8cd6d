//! Additional stores: other roots, which are only read, and whose images run as if they were here.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use longshore::containers::CommitOptions;
use longshore::images::{ImageSummary, Pull, RemoveImageOptions};
use longshore::types::{Filter, Outcome};
use longshore::{ContainerSpec, Engine, ErrorKind};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::frame::{Check, Stop, fail};
use crate::support::image;
use crate::support::root::TempRoot;
use crate::support::world::{source, text};
use crate::support::{is_root, names_in, runtime, scratch};
use crate::tests;

tests! { "additional":
    kernel_async [
        d10_an_image_of_a_read_only_store_runs,
        d10_a_store_that_is_in_use_is_read_as_it_is_now,
        d10_what_is_missing_or_damaged_there_is_told,
        d10_layers_that_cannot_be_used_in_place_are_unpacked,
    ]
}

const NAME: &str = "cached:1";

/// A root with an image in it, which nobody has open.
async fn filled() -> Result<TempRoot, Stop> {
    let root = TempRoot::new();
    let engine = Engine::open(root.path()).await?;
    engine.pull(source(image::shared()?)).await?.tag(&NAME.parse()?).await?;
    engine
        .images()
        .remove("latest", RemoveImageOptions::default())
        .await
        .ok();
    drop(engine);
    // Its driver ends by itself, and closes the databases last.
    let path = root.path().display().to_string();
    let start = Instant::now();
    while fs::read_dir("/proc/self/fd")?
        .flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok())
        .any(|target| target.to_string_lossy().starts_with(&path))
    {
        if start.elapsed() > Duration::from_secs(10) {
            return fail("the engine that filled it is there still");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(root)
}

/// Inode, size, time and mode.
type Look = (u64, u64, i64, i64, u32);

/// Everything below a directory that a write would change.
fn state(dir: &Path) -> Result<BTreeMap<PathBuf, Look>, Stop> {
    let mut all = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        // Layers of an ordinary user have directories that he may not read.
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries {
            let (path, meta) = {
                let entry = entry?;
                (entry.path(), entry.metadata()?)
            };
            if meta.is_dir() {
                dirs.push(path.clone());
            }
            all.insert(
                path,
                (meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec(), meta.mode()),
            );
        }
    }
    Ok(all)
}

/// A view of a directory through which nobody can write; the directory itself for who may not mount.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn of(dir: &Path, place: &Path) -> Result<Self, Stop> {
        if !is_root() {
            return Ok(Self(dir.to_owned()));
        }
        fs::create_dir(place)?;
        mount(Some(dir), place, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, place, None::<&str>, flags, None::<&str>)?;
        Ok(Self(place.to_owned()))
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        if is_root() {
            let _ = umount2(&self.0, MntFlags::MNT_DETACH);
        }
    }
}

async fn says(engine: &Engine, image: &str, script: &str) -> Result<String, Stop> {
    let output = engine
        .run(ContainerSpec::image(image).command(["sh", "-c", script]))
        .output()
        .await?;
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => fail(format!("{}: {}", output.status, text(&output.stderr))),
    }
}

/// What the client prints, with an additional store.
fn client_says(client: &Path, root: &Path, store: &Path, words: &[&str]) -> Result<String, Stop> {
    let mut command = std::process::Command::new(client);
    command
        .arg("--root")
        .arg(root)
        .arg("--additional-store")
        .arg(store)
        .args(words);
    let output = command.output()?;
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => fail(format!("{}: {}", output.status, text(&output.stderr))),
    }
}

fn lent(listed: &[ImageSummary]) -> Vec<Option<PathBuf>> {
    listed.iter().map(|image| image.lent_by.clone()).collect()
}

async fn d10_an_image_of_a_read_only_store_runs() -> Check {
    let (other, own, place) = (filled().await?, TempRoot::new(), scratch::fresh("read-only"));
    let before = state(other.path())?;
    let cache = ReadOnly::of(other.path(), &place.path().join("cache"))?;
    let engine = Engine::builder(own.path()).additional_store(&cache.0).open().await?;
    let listed = engine.list_images(Filter::new()).await?;
    assert_eq!(lent(&listed), [Some(cache.0.canonicalize()?)], "{listed:?}");
    assert!(listed[0].tags.contains(&NAME.parse()?), "{listed:?}");
    let id = listed[0].id;
    let refused = engine
        .images()
        .remove(NAME, RemoveImageOptions::default().force(true))
        .await;
    assert_eq!(refused.expect_err("only read").kind(), &ErrorKind::ReadOnly);
    // No registry is asked, and nothing is copied.
    let image = engine.pull(NAME).policy(Pull::Never).await?;
    assert_eq!(*image.id(), id);
    assert_eq!(says(&engine, NAME, "echo hello > /new; cat /new").await?, "hello");
    assert_eq!(
        says(&engine, &id.to_string()[7..19], "test -e /new || echo gone").await?,
        "gone"
    );
    assert_eq!(names_in(&own.path().join("content/blobs/sha256")), [""; 0]);
    // What is made of it is here.
    let container = engine
        .run(ContainerSpec::image(NAME).command(["touch", "/mine"]))
        .await?;
    container.wait().await?;
    container.commit(CommitOptions::new().name("mine:1".parse()?)).await?;
    container.remove(crate::support::world::FORCE).await?;
    assert_eq!(says(&engine, "mine:1", "ls /mine").await?, "/mine");
    let listed = engine.list_images(Filter::new()).await?;
    let of = |name: &str| -> Option<&ImageSummary> {
        listed
            .iter()
            .find(|image| image.tags.iter().any(|tag| tag.familiar() == name))
    };
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert!(of("mine:1").is_some_and(|image| image.lent_by.is_none()), "{listed:?}");
    assert!(of(NAME).is_some_and(|image| image.lent_by.is_some()), "{listed:?}");
    if let Ok(client) = crate::platforms::client() {
        let shown = client_says(&client, own.path(), &cache.0, &["images"])?;
        assert!(
            shown.contains("R/O") && shown.lines().any(|line| line.ends_with("true")),
            "{shown}"
        );
        let said = client_says(
            &client,
            own.path(),
            &cache.0,
            &["run", "--rm", NAME, "echo", "from there"],
        )?;
        assert_eq!(said, "from there");
    }
    // The record goes, the image stays where it is.
    engine.images().remove("mine:1", RemoveImageOptions::default()).await?;
    engine.images().remove(NAME, RemoveImageOptions::default()).await?;
    assert_eq!(lent(&engine.list_images(Filter::new()).await?).len(), 1);
    assert_eq!(says(&engine, NAME, "echo again").await?, "again");
    engine.reconcile().await?;
    let audit = engine.audit().await?;
    assert!(audit.is_clean(), "{:?}", audit.findings);
    drop(engine);
    assert!(state(other.path())? == before, "the store was written to");
    Ok(())
}

async fn d10_a_store_that_is_in_use_is_read_as_it_is_now() -> Check {
    let (other, own) = (TempRoot::new(), TempRoot::new());
    let theirs = Engine::open(other.path()).await?;
    let engine = Engine::builder(own.path())
        .additional_store(other.path())
        .open()
        .await?;
    assert!(engine.list_images(Filter::new()).await?.is_empty());
    // In the journal alone, so far.
    theirs.pull(source(image::shared()?)).await?.tag(&NAME.parse()?).await?;
    assert_eq!(engine.list_images(Filter::new()).await?.len(), 1);
    assert_eq!(says(&engine, NAME, "echo runs").await?, "runs");
    assert_eq!(says(&theirs, NAME, "echo there").await?, "there");
    Ok(())
}

async fn d10_what_is_missing_or_damaged_there_is_told() -> Check {
    runtime::namespaces()?;
    let dir = scratch::fresh("no-store");
    let own = TempRoot::new();
    let open = async |path: &Path| Engine::builder(own.path()).additional_store(path).open().await;
    let kind = async |path: &Path| open(path).await.map(drop).expect_err("refused").kind().clone();
    assert_eq!(kind(&dir.path().join("nothing")).await, ErrorKind::NotFound);
    assert_eq!(kind(dir.path()).await, ErrorKind::InvalidArgument);
    assert_eq!(kind(own.path()).await, ErrorKind::InvalidArgument);
    let other = filled().await?;
    let version = fs::read_to_string(other.path().join("version"))?;
    fs::write(other.path().join("version"), version.replace("version 1", "version 99"))?;
    assert_eq!(kind(other.path()).await, ErrorKind::NewerVersion);
    fs::write(other.path().join("version"), version)?;
    let database = fs::read(other.path().join("store.db"))?;
    fs::write(other.path().join("store.db"), &database[..database.len() / 2])?;
    assert_eq!(kind(other.path()).await, ErrorKind::Corrupt);
    fs::remove_file(other.path().join("store.db"))?;
    assert_eq!(kind(other.path()).await, ErrorKind::Corrupt);
    fs::write(other.path().join("store.db"), database)?;

    let engine = open(other.path()).await?;
    assert_eq!(says(&engine, NAME, "echo runs").await?, "runs");
    // A layer that is gone is unpacked here, from the blobs there.
    for tree in names_in(&other.path().join("snapshots/l")) {
        fs::rename(other.path().join("snapshots/l").join(&tree), dir.path().join(&tree))?;
    }
    assert_eq!(says(&engine, NAME, "echo still").await?, "still");
    assert_eq!(engine.images().restore(NAME).await?, Outcome::Already);
    for tree in names_in(dir.path()) {
        fs::rename(dir.path().join(&tree), other.path().join("snapshots/l").join(&tree))?;
    }
    engine
        .images()
        .remove(NAME, RemoveImageOptions::default().force(true))
        .await?;
    // A blob that is gone: the image is as good as not there.
    let layout = image::shared()?;
    let blob = other.path().join("content/blobs/sha256").join(&layout.layers[0].0[7..]);
    fs::rename(&blob, dir.path().join("blob"))?;
    let error = engine.image(NAME).await.map(drop).expect_err("it lacks a blob");
    assert_eq!(error.kind(), &ErrorKind::NotFound, "{}", error.report());
    fs::rename(dir.path().join("blob"), &blob)?;
    assert_eq!(says(&engine, NAME, "echo whole").await?, "whole");
    engine.reconcile().await?;
    assert_eq!(engine.audit().await?.findings, []);
    Ok(())
}

async fn d10_layers_that_cannot_be_used_in_place_are_unpacked() -> Check {
    let (other, own) = (filled().await?, TempRoot::new());
    let before = state(other.path())?;
    let engine = Engine::builder(own.path())
        .snapshotter("vfs")
        .additional_store(other.path())
        .open()
        .await?;
    assert_eq!(says(&engine, NAME, "echo copied").await?, "copied");
    assert_eq!(names_in(&own.path().join("content/blobs/sha256")), [""; 0]);
    drop(engine);
    assert!(state(other.path())? == before, "the store was written to");
    Ok(())
}
