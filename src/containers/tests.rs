//! The verbs over fakes: no kernel, no image, the real store and driver.

mod askers;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::StreamExt as _;

use super::*;
use crate::containers::runtimes::Runtimes;
use crate::driver::Driver;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::events::{History as _, RING};
use crate::images::{ImageConfig, ImageInfo, ImageManager};
use crate::logs::{LogDrivers, LogQuery, LogStream, TeeItem};
use crate::runtime::fake::FakeRuntime;
use crate::runtime::{Launch, Runtime, Started};
use crate::storage::snapshot::{LayerTarget, SnapshotKey, Snapshotter, Usage, WritableOptions};
use crate::store::{ImageRecord, Owner, Root, Store};
use crate::types::{ChainId, Descriptor, Digest, Filter, MediaType, Mount, Outcome, Platform, Signal};
use crate::volumes::{LocalVolumes, LocalVolumesParts};

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
        lent_by: None,
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
    on_runtime(path, Arc::new(FakeRuntime))
}

fn on_runtime(path: &Path, runtime: Arc<dyn Runtime>) -> Bench {
    let root = Root::open(&path.join("root")).unwrap();
    let owner = root.owners().register().unwrap();
    let driver = Driver::start().unwrap();
    let snapshots = root.snapshots();
    std::fs::create_dir_all(&snapshots).unwrap();
    let store = Store::open(&root).unwrap();
    store.put_image(&known_record(), &[]).unwrap();
    let native = Arc::new(crate::runtime::native::NativeRuntime::new(Default::default()));
    let volumes = LocalVolumes::open(LocalVolumesParts {
        spawner: driver.spawner().clone(),
        store: store.clone(),
        owners: root.owners(),
        owner: owner.id().clone(),
        locks: root.locks(),
        dir: root.volumes(),
        ownership: crate::storage::ownership::Ownership::Direct,
        native: Arc::clone(&native),
        drivers: Arc::default(),
        finder: None,
    });
    #[cfg(feature = "network")]
    let networks = crate::networks::LocalNetworks::new(crate::networks::Parts {
        spawner: driver.spawner().clone(),
        store: store.clone(),
        owner: owner.id().clone(),
        native: Arc::clone(&native),
        publish_at: None,
        own: None,
    });
    let parts = Parts {
        #[cfg(feature = "network")]
        networks,
        root: Arc::clone(&native),
        volumes: volumes.unwrap(),
        spawner: driver.spawner().clone(),
        store,
        owners: root.owners(),
        owner: owner.id().clone(),
        images: Arc::new(OneImage),
        snapshotter: Arc::new(Plain(snapshots.clone())),
        runtimes: Arc::new(Runtimes {
            native: Arc::clone(&native),
            usual: runtime,
            chosen: None,
            programs: Default::default(),
        }),
        logs: LogDrivers::default(),
        dir: root.containers(),
        ownership: "direct",
        layers: crate::storage::ownership::Ownership::Direct,
        native: None,
        locks: root.locks(),
        lifetime: Lifetime::Bound,
        cdi: Some(Arc::from([])),
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
    assert_eq!(ended(containers, "web").await.unwrap().status.code(), 0);
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

/// Takes its time for a start, as one does whose caller goes away, and says whether the files were there until its end.
#[derive(Debug)]
struct Slow {
    begun: tokio::sync::Notify,
    /// Its caller has gone away.
    dropped: Arc<tokio::sync::Notify>,
    files_at_end: tokio::sync::mpsc::UnboundedSender<bool>,
}

#[async_trait]
impl Runtime for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    async fn start(&self, launch: Launch) -> Result<Started> {
        let files = launch.scratch.clone();
        let ends = self.files_at_end.clone();
        let dropped = Arc::clone(&self.dropped);
        let process = tokio::spawn(async move {
            dropped.notified().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            let _ = ends.send(files.first().is_some_and(|dir| dir.exists()));
        });
        self.begun.notify_one();
        process.await.unwrap();
        FakeRuntime.start(launch).await
    }
}

#[tokio::test]
async fn a9_files_outlive_the_process_of_a_start_that_nobody_waits_for() {
    let dir = tempfile::tempdir().unwrap();
    let (files_at_end, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let slow = Arc::new(Slow {
        begun: tokio::sync::Notify::new(),
        dropped: Arc::default(),
        files_at_end,
    });
    let bench = on_runtime(dir.path(), slow.clone());
    let id = bench.containers.create(spec(["sleep"])).await.unwrap().id.to_string();
    tokio::select! {
        _ = bench.containers.start(&id) => panic!("it ended before it was dropped"),
        () = slow.begun.notified() => {}
    }
    slow.dropped.notify_one();
    bench.containers.remove(&id, RemoveOptions::force()).await.unwrap();
    assert!(ends.recv().await.unwrap(), "the files went while the process was there");
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
    assert_eq!(ended(containers, &id).await.unwrap().status.code(), 143);
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
        // Registered before the start: who comes later may find it removed.
        let waiting = containers.wait(&id, WaitCondition::Exited).await.unwrap();
        containers.start(&id).await.unwrap();
        assert_eq!(waiting.await.unwrap().status.code(), 7);
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
    ended(containers, "bb").await.unwrap();
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

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind().clone())
}

#[tokio::test]
async fn g1_every_verb_in_every_state_of_the_manager() {
    use ErrorKind::{Conflict, InvalidState};
    let bench = bench();
    let containers = &bench.containers;
    let make = async |state: ContainerState| {
        let id = containers.create(spec(["sleep"])).await.unwrap().id.to_string();
        if state != ContainerState::Created {
            containers.start(&id).await.unwrap();
        }
        match state {
            ContainerState::Paused => containers.pause(&id).await.unwrap(),
            ContainerState::Exited => {
                containers.kill(&id, Signal::KILL).await.unwrap();
                ended(containers, &id).await.unwrap();
            }
            _ => {}
        }
        assert_eq!(containers.inspect(&id).await.unwrap().state, state);
        id
    };
    let states = [
        ContainerState::Created,
        ContainerState::Running,
        ContainerState::Paused,
        ContainerState::Exited,
    ];
    let (gone, plain) = (Some(InvalidState), RemoveOptions::default());
    let expected = [
        ("start", [None, None, gone.clone(), None]),
        ("kill", [gone.clone(), None, None, gone.clone()]),
        ("stop", [None, None, None, None]),
        ("restart", [None, None, None, None]),
        ("pause", [gone.clone(), None, gone.clone(), gone.clone()]),
        ("unpause", [gone.clone(), gone.clone(), None, gone.clone()]),
        ("exec", [gone.clone(), None, gone.clone(), gone.clone()]),
        ("attach", [None, None, gone.clone(), None]),
        ("rename", [None, None, None, None]),
        ("update", [None, None, None, None]),
        ("remove", [None, Some(Conflict), Some(Conflict), None]),
        ("remove by force", [None, None, None, None]),
    ];
    for (number, (verb, row)) in expected.into_iter().enumerate() {
        for (state, expected) in states.into_iter().zip(row) {
            let id = make(state).await;
            let (stop, id) = (StopOptions::default(), id.as_str());
            let got = match verb {
                "start" => kind(containers.start(id).await),
                "kill" => kind(containers.kill(id, Signal::TERM).await),
                "stop" => kind(containers.stop(id, stop).await),
                "restart" => kind(containers.restart(id, stop).await),
                "pause" => kind(containers.pause(id).await),
                "unpause" => kind(containers.unpause(id).await),
                "exec" => kind(containers.exec_create(id, ExecSpec::new(["echo"])).await),
                "attach" => kind(containers.attach(id, AttachOptions::default()).await),
                "rename" => kind(containers.rename(id, &format!("new-{number}-{state}")).await),
                "update" => kind(containers.update(id, Limits::default()).await),
                "remove" => kind(containers.remove(id, plain).await),
                _ => kind(containers.remove(id, RemoveOptions::force()).await),
            };
            assert_eq!(got, expected, "{verb} in {state}");
        }
    }
}

/// Whatever it is for which an end cannot be written down, nobody waits for it in vain, and it is written down later.
#[tokio::test]
async fn g2_an_end_that_cannot_be_recorded_is_told_and_recorded_later() {
    let bench = bench();
    let containers = &bench.containers;
    let created = containers.create(spec(["sleep"])).await.unwrap();
    let id = created.id.as_str();
    containers.start(id).await.unwrap();
    let before = containers.wait(id, WaitCondition::NextExit).await.unwrap();
    // A refusal of another kind than that of a full disk: the table is gone.
    let run = rusqlite::Connection::open(bench._dir.path().join("root/run.db")).unwrap();
    containers
        .0
        .slot(&created.id)
        .live()
        .unwrap()
        .task
        .signal(Signal::KILL, false)
        .await
        .unwrap();
    run.execute_batch("ALTER TABLE containers RENAME TO lost").unwrap();
    let patience = Duration::from_secs(20);
    let exit = tokio::time::timeout(patience, before).await.unwrap().unwrap();
    assert_eq!(exit.status.signal(), Some(9));
    run.execute_batch("ALTER TABLE lost RENAME TO containers").unwrap();
    for condition in [WaitCondition::Exited, WaitCondition::NotRunning] {
        let after = tokio::time::timeout(patience, async { containers.wait(id, condition).await.unwrap().await });
        assert_eq!(after.await.unwrap().unwrap().status.signal(), Some(9));
    }
    let recorded = async {
        while containers.inspect(id).await.unwrap().state != ContainerState::Exited {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(patience, recorded).await.unwrap();
    containers.remove(id, RemoveOptions::default()).await.unwrap();
}

#[tokio::test]
async fn g2_conditions_of_wait() {
    let bench = bench();
    let containers = &bench.containers;
    let id = containers.create(spec(["fail", "7"])).await.unwrap().id.to_string();
    let wait = async |condition| containers.wait(&id, condition).await.unwrap();
    assert_eq!(wait(WaitCondition::NotRunning).await.await.unwrap().status.code(), 0);
    for _ in 0..3 {
        let (next, removed) = (wait(WaitCondition::NextExit).await, wait(WaitCondition::Removed).await);
        containers.start(&id).await.unwrap();
        assert_eq!(next.await.unwrap().status.code(), 7);
        assert_eq!(wait(WaitCondition::NotRunning).await.await.unwrap().status.code(), 7);
        assert_eq!(wait(WaitCondition::Exited).await.await.unwrap().status.code(), 7);
        let still = tokio::time::timeout(Duration::from_millis(20), removed).await;
        assert!(still.is_err(), "it is there yet");
    }
    let (next, removed) = (wait(WaitCondition::NextExit).await, wait(WaitCondition::Removed).await);
    containers.remove(&id, RemoveOptions::default()).await.unwrap();
    assert_eq!(removed.await.unwrap().status.code(), 7);
    assert!(next.await.unwrap_err().is_not_found());
}

/// What was told of a container, in order.
fn told(bench: &Bench, id: &str) -> Vec<String> {
    let events = bench.containers.0.parts.store.after(0, RING).unwrap();
    let events = events.into_iter().map(|(_, event)| event);
    events
        .filter(|event| event.id == id)
        .map(|event| event.action)
        .collect()
}

#[tokio::test]
async fn g1_a_container_is_started_with_its_streams_in_hand_and_goes_with_its_end() {
    let bench = bench();
    let containers = &bench.containers;
    let options = AttachOptions::slow(SlowReader::Keep);
    let id = containers.create(spec(["echo", "line"])).await.unwrap().id.to_string();
    let removed = containers.wait(&id, WaitCondition::Removed).await.unwrap();
    let attached = containers.start_attached(&id, options).await.unwrap();
    let (lines, exit) = tokio::join!(output(attached), containers.wait_and_remove(&id));
    assert_eq!((&lines[..], exit.unwrap().status.code()), (&b"line\n"[..], 0));
    assert_eq!(removed.await.unwrap().status.code(), 0);
    assert!(containers.inspect(&id).await.unwrap_err().is_not_found());
    assert!(!containers.0.parts.dir.join(&id).exists());
    assert_eq!(told(&bench, &id), ["create", "attach", "start", "die", "destroy"]);

    // One that is known to run when it is asked for.
    let id = containers.create(spec(["sleep"])).await.unwrap().id.to_string();
    containers.start(&id).await.unwrap();
    let (exit, killed) = tokio::join!(containers.wait_and_remove(&id), containers.kill(&id, Signal::KILL));
    killed.unwrap();
    assert_eq!(exit.unwrap().status.signal(), Some(9));
    assert!(containers.inspect(&id).await.unwrap_err().is_not_found());
    assert_eq!(told(&bench, &id), ["create", "start", "kill", "die", "destroy"]);

    // One that had ended, one that would have been started again, and one that was never there.
    let id = containers.create(spec(["fail", "7"])).await.unwrap().id.to_string();
    containers.start(&id).await.unwrap();
    ended(containers, &id).await.unwrap();
    assert_eq!(containers.wait_and_remove(&id).await.unwrap().status.code(), 7);
    assert!(containers.inspect(&id).await.unwrap_err().is_not_found());
    let again = spec(["fail", "8"]).restart(RestartPolicy::Always);
    let id = containers.create(again).await.unwrap().id.to_string();
    containers.start(&id).await.unwrap();
    assert_eq!(containers.wait_and_remove(&id).await.unwrap().status.code(), 8);
    assert!(containers.inspect(&id).await.unwrap_err().is_not_found());
    assert!(containers.wait_and_remove(&id).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn g1_a_container_that_cannot_go_with_its_end_has_ended_nevertheless() {
    let bench = bench();
    let containers = &bench.containers;
    let id = containers.create(spec(["sleep"])).await.unwrap().id.to_string();
    containers.start(&id).await.unwrap();
    let dir = &containers.0.parts.dir;
    let (files, aside) = (dir.join(&id), dir.join("aside"));
    std::fs::rename(&files, &aside).unwrap();
    std::fs::write(&files, "no directory").unwrap();
    // The first to be asked is asked while it runs.
    let (refused, killed) = tokio::join!(containers.wait_and_remove(&id), containers.kill(&id, Signal::KILL));
    killed.unwrap();
    let refused = refused.unwrap_err();
    assert_eq!(refused.errno(), Some(libc::ENOTDIR), "{}", refused.report());
    let info = containers.inspect(&id).await.unwrap();
    assert_eq!(
        (info.state, info.exit.unwrap().status.signal()),
        (ContainerState::Exited, Some(9))
    );
    std::fs::remove_file(&files).unwrap();
    std::fs::rename(&aside, &files).unwrap();
    containers.remove(&id, RemoveOptions::default()).await.unwrap();
    assert!(!files.exists());
}

#[tokio::test]
async fn g1_an_attached_start_that_fails_or_comes_late_is_told_so() {
    let bench = bench();
    let containers = &bench.containers;
    let options = AttachOptions::slow(SlowReader::Keep);
    let id = containers.create(spec(["nope"])).await.unwrap().id.to_string();
    let failed = containers.start_attached(&id, options).await;
    assert_eq!(kind(failed), Some(ErrorKind::CommandNotFound));
    assert_eq!(told(&bench, &id), ["create", "attach", "die"]);
    let id = containers.create(spec(["sleep"])).await.unwrap().id.to_string();
    containers.start(&id).await.unwrap();
    let attached = containers.start_attached(&id, options).await.unwrap();
    assert_eq!(told(&bench, &id), ["create", "start", "attach"]);
    containers.kill(&id, Signal::KILL).await.unwrap();
    assert_eq!(output(attached).await, b"");
    ended(containers, &id).await.unwrap();
    containers.remove(&id, RemoveOptions::default()).await.unwrap();
}

#[tokio::test]
async fn g3_a_command_has_one_start_streams_and_a_status() {
    let bench = bench();
    let containers = &bench.containers;
    let id = containers.create(spec(["sleep"])).await.unwrap().id.to_string();
    containers.start(&id).await.unwrap();
    let options = AttachOptions::slow(SlowReader::Keep);
    let exec = containers
        .exec_create(&id, ExecSpec::new(["cat"]).stdin(true))
        .await
        .unwrap();
    let info = containers.exec_inspect(&exec.id).await.unwrap();
    assert_eq!((info.running, info.status), (false, None));
    assert_eq!(
        kind(containers.exec_wait(&exec.id).await),
        Some(ErrorKind::InvalidState)
    );
    let mut attached = containers.exec_start(&exec.id, options).await.unwrap();
    let again = containers.exec_start(&exec.id, options).await;
    assert_eq!(kind(again), Some(ErrorKind::Conflict));
    let input = attached.input.take().unwrap();
    input.write(&b"words"[..]).await.unwrap();
    drop(input);
    assert_eq!(output(attached).await, b"words");
    assert_eq!(containers.exec_wait(&exec.id[..12]).await.unwrap().code(), 0);
    let failing = containers.exec_create(&id, ExecSpec::new(["fail", "9"])).await.unwrap();
    containers.exec_start(&failing.id, options).await.unwrap();
    assert_eq!(containers.exec_wait(&failing.id).await.unwrap().code(), 9);
    let missing = containers.exec_create(&id, ExecSpec::new(["nope"])).await.unwrap();
    let started = containers.exec_start(&missing.id, options).await;
    assert_eq!(kind(started), Some(ErrorKind::CommandNotFound));
    assert_eq!(containers.inspect(&id).await.unwrap().execs.len(), 3);
    // It ends with its container, and is forgotten with it.
    let last = containers.exec_create(&id, ExecSpec::new(["sleep"])).await.unwrap();
    containers.exec_start(&last.id, options).await.unwrap();
    containers.kill(&id, Signal::KILL).await.unwrap();
    assert_eq!(containers.exec_wait(&last.id).await.unwrap().signal(), Some(9));
    // The command may be told a moment before its container.
    ended(containers, &id).await.unwrap();
    containers.remove(&id, RemoveOptions::default()).await.unwrap();
    assert!(containers.exec_inspect(&last.id).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn g4_logs_first_then_what_comes() {
    let bench = bench();
    let containers = &bench.containers;
    let id = containers.create(spec(["echo", "line"])).await.unwrap().id.to_string();
    let whole = AttachOptions {
        slow: SlowReader::Keep,
        logs: true,
    };
    for round in 1..4 {
        let attached = containers.attach(&id, whole).await.unwrap();
        containers.start(&id).await.unwrap();
        assert_eq!(output(attached).await, b"line\n".repeat(round));
        ended(containers, &id).await.unwrap();
    }
}

#[tokio::test]
async fn g9_a_new_name_is_found_and_stays_after_the_end() {
    let bench = bench();
    let containers = &bench.containers;
    containers.create(spec(["sleep"]).name("old")).await.unwrap();
    containers.create(spec(["sleep"]).name("other")).await.unwrap();
    containers.start("old").await.unwrap();
    assert_eq!(kind(containers.rename("old", "other").await), Some(ErrorKind::Conflict));
    assert_eq!(
        kind(containers.rename("old", "a b").await),
        Some(ErrorKind::InvalidArgument)
    );
    containers.rename("old", "new").await.unwrap();
    assert!(containers.inspect("old").await.unwrap_err().is_not_found());
    let limits = Limits {
        pids: Some(7),
        ..Limits::default()
    };
    containers.update("new", limits).await.unwrap();
    containers.stop("new", StopOptions::default()).await.unwrap();
    let info = containers.inspect("new").await.unwrap();
    assert_eq!((info.state, info.spec.limits.pids), (ContainerState::Exited, Some(7)));
}

#[tokio::test]
async fn g10_a_restart_keeps_what_would_be_removed() {
    let bench = bench();
    let containers = &bench.containers;
    let made = containers.create(spec(["sleep"]).auto_remove(true)).await.unwrap();
    let id = made.id.as_str();
    containers.start(id).await.unwrap();
    for _ in 0..5 {
        containers.restart(id, StopOptions::default()).await.unwrap();
        assert_eq!(containers.inspect(id).await.unwrap().state, ContainerState::Running);
    }
    let removed = containers.wait(id, WaitCondition::Removed).await.unwrap();
    containers.stop(id, StopOptions::default()).await.unwrap();
    removed.await.unwrap();
}

#[tokio::test]
async fn g12_events_in_docker_s_words() {
    let bench = bench();
    let containers = &bench.containers;
    let id = containers
        .create(spec(["sleep"]).name("web"))
        .await
        .unwrap()
        .id
        .to_string();
    containers.start("web").await.unwrap();
    let exec = containers
        .exec_create("web", ExecSpec::new(["fail", "3"]))
        .await
        .unwrap();
    containers.exec_start(&exec.id, AttachOptions::default()).await.unwrap();
    containers.exec_wait(&exec.id).await.unwrap();
    containers.rename("web", "net").await.unwrap();
    containers.pause("net").await.unwrap();
    containers.unpause("net").await.unwrap();
    containers.restart("net", StopOptions::default()).await.unwrap();
    containers.remove("net", RemoveOptions::force()).await.unwrap();
    let store = containers.0.parts.store.clone();
    let events = store
        .call(|store| crate::events::History::after(store, 0, 100))
        .await
        .unwrap();
    let events: Vec<_> = events
        .into_iter()
        .map(|(_, event)| event)
        .filter(|event| event.id == id)
        .collect();
    let mut actions: Vec<&str> = events.iter().map(|event| event.action.as_str()).collect();
    // The end of a command is told beside what follows.
    actions.retain(|action| *action != "exec_die");
    let expected = [
        "create",
        "start",
        "exec_create: fail 3",
        "exec_start: fail 3",
        "rename",
        "pause",
        "unpause",
        "kill",
        "die",
        "stop",
        "start",
        "restart",
        "kill",
        "die",
        "destroy",
    ];
    assert_eq!(actions, expected);
    let find = |action: &str| events.iter().find(|event| event.action == action).unwrap();
    assert_eq!(find("rename").attributes["oldName"], "/web");
    assert_eq!(find("rename").attributes["name"], "net");
    assert_eq!(find("kill").attributes["signal"], "15");
    assert_eq!(find("die").attributes["exitCode"], "143");
    let died = find("exec_die");
    assert_eq!(
        (died.attributes["exitCode"].as_str(), &died.attributes["execID"]),
        ("3", &exec.id)
    );
}

#[tokio::test]
async fn g15_prune_takes_what_does_not_run() {
    let bench = bench();
    let containers = &bench.containers;
    let old = containers.create(spec(["sleep"]).label("keep", "no")).await.unwrap().id;
    let kept = containers
        .create(spec(["sleep"]).label("keep", "yes"))
        .await
        .unwrap()
        .id;
    let runs = containers.create(spec(["sleep"])).await.unwrap().id;
    containers.start(runs.as_str()).await.unwrap();
    let prune = async |filter: Filter| containers.prune(filter).await.map(|pruned| pruned.removed);
    assert_eq!(
        prune(Filter::new().with("until", "1h")).await.unwrap(),
        [] as [String; 0]
    );
    assert!(prune(Filter::new().with("until", "soon")).await.is_err());
    assert!(prune(Filter::new().with("name", "x")).await.is_err());
    let filter = Filter::new().with("label!", "keep=yes").with("until", "0s");
    assert_eq!(prune(filter).await.unwrap(), [old.to_string()]);
    assert_eq!(prune(Filter::new()).await.unwrap(), [kept.to_string()]);
    assert_eq!(
        containers.inspect(runs.as_str()).await.unwrap().state,
        ContainerState::Running
    );
}

#[tokio::test]
async fn g7_all_filters_of_docker() {
    let bench = bench();
    let containers = &bench.containers;
    let names = ["web-1", "web-2", "db"];
    for name in names {
        let spec = spec(["sleep"]).name(name).bind(format!("/src/{name}"), "/data");
        containers.create(spec.network(NetworkMode::Host)).await.unwrap();
    }
    containers.start("db").await.unwrap();
    containers.pause("db").await.unwrap();
    let list = async |key: &str, value: &str| {
        let options = ListOptions {
            all: true,
            filter: Filter::new().with(key, value),
        };
        let found = containers.list(options).await?;
        let mut names: Vec<String> = found.into_iter().map(|found| found.name).collect();
        names.sort();
        Ok::<_, Error>(names.join(" "))
    };
    let cases = [
        ("name", "^/?web-[0-9]$", "web-1 web-2"),
        ("name", "b", "db web-1 web-2"),
        ("ancestor", "known", "db web-1 web-2"),
        ("ancestor", "other", ""),
        ("before", "web-2", "web-1"),
        ("since", "web-1", "db web-2"),
        ("status", "paused", "db"),
        ("status", "created", "web-1 web-2"),
        ("health", "none", "db web-1 web-2"),
        ("health", "healthy", ""),
        ("is-task", "false", "db web-1 web-2"),
        ("is-task", "true", ""),
        ("network", "host", "db web-1 web-2"),
        ("network", "none", ""),
        ("volume", "/src/db", "db"),
        ("volume", "/data", "db web-1 web-2"),
        ("expose", "80/tcp", ""),
        ("publish", "80-90", ""),
        ("exited", "0", ""),
    ];
    for (key, value, expected) in cases {
        assert_eq!(list(key, value).await.unwrap(), expected, "{key}={value}");
    }
    for (key, value) in [
        ("name", "["),
        ("status", "x"),
        ("health", "x"),
        ("exited", "x"),
        ("publish", "x"),
        ("nope", "x"),
    ] {
        assert_eq!(
            list(key, value).await.unwrap_err().kind(),
            &ErrorKind::InvalidArgument,
            "{key}={value}"
        );
    }
    assert!(list("before", "nobody").await.unwrap_err().is_not_found());
    let running = containers.list(ListOptions::default()).await.unwrap();
    assert_eq!(
        (running.len(), running[0].state),
        (1, ContainerState::Paused),
        "paused is shown as running is"
    );
    assert!(running[0].status.ends_with("(Paused)"), "{}", running[0].status);
}
