//! The verbs over fakes: no kernel, no image, the real store and driver.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::StreamExt as _;

use super::*;
use crate::driver::Driver;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::images::{ImageConfig, ImageInfo, ImageManager};
use crate::logs::{LocalDriver, LocalOptions, LogQuery, LogStream, TeeItem};
use crate::runtime::fake::FakeRuntime;
use crate::storage::snapshot::{LayerTarget, SnapshotKey, Snapshotter, Usage, WritableOptions};
use crate::store::{ImageRecord, Owner, Root, Store};
use crate::types::{ChainId, Descriptor, Digest, Filter, MediaType, Mount, Outcome, Platform, Signal};

/// Waits until a container has run and ended.
async fn ended(containers: &LocalContainers, name: &str) -> Result<ContainerExit> {
    containers.wait(name, WaitCondition::Exited).await?.await
}

/// One image, `known`, without a command.
#[derive(Debug)]
struct OneImage;

#[async_trait]
impl ImageManager for OneImage {
    async fn inspect(&self, name: &str) -> Result<ImageInfo> {
        if name == "known" {
            return Ok(known());
        }
        Err(Error::not_found(ObjectKind::Image, name))
    }
}

fn descriptor(of: &[u8]) -> Descriptor {
    Descriptor {
        media_type: MediaType("application/octet-stream".into()),
        digest: Digest::of(of),
        size: of.len() as u64,
        platform: None,
        annotations: BTreeMap::new(),
    }
}

fn known() -> ImageInfo {
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    ImageInfo {
        id: Digest::of(b"known"),
        tags: Vec::new(),
        digests: Vec::new(),
        manifest: descriptor(b"manifest"),
        platform: Platform::host(),
        config: ImageConfig::parse(config).unwrap(),
        chain: None,
        layers: Vec::new(),
        size_bytes: 0,
        pulled_at: SystemTime::now(),
    }
}

fn known_record() -> ImageRecord {
    ImageRecord {
        id: Digest::of(b"known"),
        manifest: descriptor(b"manifest"),
        config: descriptor(b"known"),
        layers: Vec::new(),
        platform: Platform::host(),
        created: None,
        size: 0,
        pulled_at_ns: 0,
    }
}

/// Writable snapshots are directories; there are no layers.
#[derive(Debug)]
struct Plain(PathBuf);

fn io(error: std::io::Error) -> Error {
    Error::os("work in a directory", error)
}

#[async_trait]
impl Snapshotter for Plain {
    fn name(&self) -> &str {
        "plain"
    }

    fn unpacks_in_parallel(&self) -> bool {
        false
    }

    async fn exists(&self, _: &ChainId) -> Result<bool> {
        Ok(false)
    }

    async fn begin_layer(&self, _: &SnapshotKey, _: Option<&ChainId>) -> Result<LayerTarget> {
        Err(Error::unsupported_verb("begin_layer"))
    }

    async fn commit_layer(&self, _: &SnapshotKey, _: &ChainId, _: Option<&ChainId>, _: Usage) -> Result<()> {
        Err(Error::unsupported_verb("commit_layer"))
    }

    async fn create_writable(&self, key: &SnapshotKey, _: Option<&ChainId>, _: WritableOptions) -> Result<Vec<Mount>> {
        std::fs::create_dir(self.0.join(key)).map_err(io)?;
        self.mounts(key).await
    }

    async fn mounts(&self, key: &SnapshotKey) -> Result<Vec<Mount>> {
        Ok(vec![Mount::bind(self.0.join(key), false)])
    }

    async fn view(&self, _: &ChainId) -> Result<Vec<Mount>> {
        Err(Error::unsupported_verb("view"))
    }

    fn directories(&self, key: &SnapshotKey) -> Vec<PathBuf> {
        vec![self.0.join(key)]
    }

    async fn discard(&self, key: &SnapshotKey) -> Result<Outcome> {
        match std::fs::remove_dir_all(self.0.join(key)) {
            Ok(()) => Ok(Outcome::Done),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Outcome::Already),
            Err(error) => Err(io(error)),
        }
    }

    async fn remove(&self, _: &ChainId) -> Result<Outcome> {
        Ok(Outcome::Already)
    }

    async fn usage(&self, _: &SnapshotKey) -> Result<Usage> {
        Ok(Usage::default())
    }

    async fn layer_usage(&self, _: &ChainId) -> Result<Usage> {
        Ok(Usage::default())
    }

    async fn list(&self) -> Result<Vec<ChainId>> {
        Ok(Vec::new())
    }

    async fn active(&self) -> Result<Vec<SnapshotKey>> {
        Ok(Vec::new())
    }
}

/// A manager on a root of its own. What is dropped first comes first.
struct Bench {
    containers: LocalContainers,
    _driver: Driver,
    _owner: Owner,
    snapshots: PathBuf,
    _dir: tempfile::TempDir,
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let (bench, _dir) = (on(dir.path()), ());
    Bench { _dir: dir, ..bench }
}

fn on(path: &Path) -> Bench {
    let root = Root::open(&path.join("root")).unwrap();
    let owner = root.owners().register().unwrap();
    let driver = Driver::start().unwrap();
    let snapshots = root.snapshots();
    std::fs::create_dir_all(&snapshots).unwrap();
    let store = Store::open(&root).unwrap();
    store.put_image(&known_record(), &[]).unwrap();
    let parts = Parts {
        spawner: driver.spawner().clone(),
        store,
        owners: root.owners(),
        owner: owner.id().clone(),
        images: Arc::new(OneImage),
        snapshotter: Arc::new(Plain(snapshots.clone())),
        runtime: Arc::new(FakeRuntime),
        logs: Arc::new(LocalDriver::new(LocalOptions::default())),
        dir: root.containers(),
        ownership: "direct",
    };
    let containers = LocalContainers::new(parts);
    Bench {
        containers,
        _driver: driver,
        _owner: owner,
        snapshots,
        _dir: tempfile::tempdir().unwrap(),
    }
}

fn spec<const N: usize>(words: [&str; N]) -> ContainerSpec {
    let image = ContainerSpec::image("known");
    image.command(words)
}

async fn output(attached: Attached) -> Vec<u8> {
    let mut all = Vec::new();
    let mut output = attached.output;
    while let Some(TeeItem::Chunk(chunk)) = output.next().await {
        assert_eq!(chunk.stream, LogStream::Stdout);
        all.extend_from_slice(&chunk.bytes);
    }
    all
}

#[tokio::test]
async fn a_container_lives_from_create_to_remove() {
    let bench = bench();
    let containers = &bench.containers;
    let id = containers.create(spec(["echo", "hello"]).name("web")).await.unwrap().id;
    assert_eq!(containers.inspect("web").await.unwrap().state, ContainerState::Created);
    let attached = containers.attach("web", AttachOptions::default()).await.unwrap();
    assert_eq!(containers.start("web").await.unwrap(), Outcome::Done);
    assert_eq!(output(attached).await, b"hello\n");
    assert_eq!(ended(&containers, "web").await.unwrap().status.code(), 0);
    let info = containers.inspect(&id.short()[..6]).await.unwrap();
    assert_eq!((info.state, info.pid, info.error), (ContainerState::Exited, None, None));
    let lines: Vec<_> = containers
        .logs("web", LogQuery::default())
        .await
        .unwrap()
        .collect()
        .await;
    assert_eq!(lines.into_iter().next().unwrap().unwrap().bytes, "hello\n");
    assert_eq!(
        containers.remove("web", RemoveOptions::default()).await.unwrap(),
        Outcome::Done
    );
    assert!(containers.inspect("web").await.unwrap_err().is_not_found());
    assert_eq!(std::fs::read_dir(&bench.snapshots).unwrap().count(), 0);
}

#[tokio::test]
async fn started_twice_is_already() {
    let bench = bench();
    let containers = &bench.containers;
    let id = containers.create(spec(["sleep"])).await.unwrap().id.to_string();
    assert_eq!(containers.start(&id).await.unwrap(), Outcome::Done);
    assert_eq!(containers.start(&id).await.unwrap(), Outcome::Already);
    assert!(
        containers
            .remove(&id, RemoveOptions::default())
            .await
            .unwrap_err()
            .is_conflict()
    );
    assert_eq!(
        containers.stop(&id, StopOptions::default()).await.unwrap(),
        Outcome::Done
    );
    assert_eq!(
        containers.stop(&id, StopOptions::default()).await.unwrap(),
        Outcome::Already
    );
    assert_eq!(ended(&containers, &id).await.unwrap().status.code(), 143);
    assert_eq!(
        containers.kill(&id, Signal::KILL).await.unwrap_err().kind(),
        &ErrorKind::InvalidState
    );
    containers.start(&id).await.unwrap();
    containers.remove(&id, RemoveOptions::force()).await.unwrap();
}

#[tokio::test]
async fn stdin_reaches_the_program_and_closes_with_its_last_writer() {
    let bench = bench();
    let containers = &bench.containers;
    let id = containers
        .create(spec(["cat"]).open_stdin(true))
        .await
        .unwrap()
        .id
        .to_string();
    let mut attached = containers
        .attach(&id, AttachOptions::slow(SlowReader::Keep))
        .await
        .unwrap();
    containers.start(&id).await.unwrap();
    let input = attached.input.take().unwrap();
    input.write(&b"one "[..]).await.unwrap();
    input.write(&b"two"[..]).await.unwrap();
    drop(input);
    assert_eq!(output(attached).await, b"one two");
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_leaves_nothing() {
    let bench = bench();
    let containers = &bench.containers;
    assert!(
        containers
            .create(ContainerSpec::image("unknown").command(["x"]))
            .await
            .unwrap_err()
            .is_not_found()
    );
    let nothing = containers.create(ContainerSpec::image("known")).await.unwrap_err();
    assert_eq!(nothing.kind(), &ErrorKind::InvalidArgument);
    let detached = containers
        .create(spec(["echo"]).lifetime(Lifetime::Detached))
        .await
        .unwrap_err();
    assert!(detached.is_unsupported());
    containers.create(spec(["echo"]).name("taken")).await.unwrap();
    assert!(
        containers
            .create(spec(["echo"]).name("taken"))
            .await
            .unwrap_err()
            .is_conflict()
    );
    let id = containers.create(spec(["nope"])).await.unwrap().id.to_string();
    assert_eq!(
        containers.start(&id).await.unwrap_err().kind(),
        &ErrorKind::CommandNotFound
    );
    let info = containers.inspect(&id).await.unwrap();
    assert_eq!(info.state, ContainerState::Created);
    assert!(info.error.unwrap().contains("nope"));
    assert_eq!(std::fs::read_dir(&bench.snapshots).unwrap().count(), 2);
}

#[tokio::test]
async fn auto_remove_tells_waiters_the_status_first() {
    let bench = bench();
    let containers = &bench.containers;
    for _ in 0..50 {
        let id = containers
            .create(spec(["fail", "7"]).auto_remove(true))
            .await
            .unwrap()
            .id
            .to_string();
        let waiting = {
            let (containers, id) = (containers.clone(), id.clone());
            tokio::spawn(async move { ended(&containers, &id).await })
        };
        containers.start(&id).await.unwrap();
        assert_eq!(waiting.await.unwrap().unwrap().status.code(), 7);
    }
}

#[tokio::test]
async fn a_dead_owner_s_container_is_swept_by_whoever_meets_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = on(dir.path());
    let id = first.containers.create(spec(["sleep"]).name("mine")).await.unwrap().id;
    let second = on(dir.path());
    assert_eq!(second.containers.inspect("mine").await.unwrap().id, id);
    assert!(
        second
            .containers
            .create(spec(["sleep"]).name("mine"))
            .await
            .unwrap_err()
            .is_conflict()
    );
    drop(first);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let taken = second.containers.create(spec(["sleep"]).name("mine")).await.unwrap().id;
    assert_ne!(taken, id);
    assert!(second.containers.inspect(id.as_str()).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn lists_filter_as_docker_does() {
    let bench = bench();
    let containers = &bench.containers;
    let a = containers
        .create(spec(["sleep"]).label("tier", "web").name("aa"))
        .await
        .unwrap()
        .id;
    let b = containers.create(spec(["fail", "3"]).name("bb")).await.unwrap().id;
    containers.start("aa").await.unwrap();
    containers.start("bb").await.unwrap();
    ended(&containers, "bb").await.unwrap();
    let list = |all, filter| {
        let options = ListOptions { all, filter };
        async move {
            containers
                .list(options)
                .await
                .map(|found| found.into_iter().map(|found| found.id).collect::<Vec<_>>())
        }
    };
    assert_eq!(list(false, Filter::new()).await.unwrap(), [a.clone()]);
    assert_eq!(list(true, Filter::new()).await.unwrap(), [b.clone(), a.clone()]);
    assert_eq!(
        list(false, Filter::new().with("exited", "3")).await.unwrap(),
        [b.clone()]
    );
    assert_eq!(
        list(true, Filter::new().with("label", "tier=web")).await.unwrap(),
        [a.clone()]
    );
    assert_eq!(list(true, Filter::new().with("name", "b")).await.unwrap(), [b]);
    assert!(list(true, Filter::new().with("nope", "x")).await.is_err());
}
