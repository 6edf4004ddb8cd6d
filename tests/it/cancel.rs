//! Futures that are dropped: at every await of the caller's side, at every await of the work on the engine's thread, and at
//! moments spread over the whole.
//!
//! A caller's future only waits for an answer, so it is suspended but a few times; the work that it waits for is suspended
//! at many places, and `Engine::abandon` makes the caller go away at each of them in turn.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use longshore::images::RemoveImageOptions;
use longshore::logs::LogQuery;
use longshore::types::{Filter, Signal};
use longshore::{AttachOptions, Container, ContainerSpec, ContainerState, Engine, ListOptions, StopOptions};
use serde_json::json;

use crate::frame::{Check, Stop, fail};
use crate::support::image::{self, Files, Layout};
use crate::support::registry::{Options, Registry};
use crate::support::root::TempRoot;
use crate::support::scratch;
use crate::support::world::{FORCE, World, source, text};
use crate::tests;

tests! { "cancel":
    kernel_async [
        a9_a_dropped_open,
        a9_a_dropped_pull,
        a9_a_dropped_pull_from_a_registry,
        a9_a_dropped_create,
        a9_a_dropped_run,
        a9_a_dropped_run_to_its_end,
        a9_a_dropped_start,
        a9_a_dropped_wait,
        a9_dropped_logs,
        a9_a_dropped_attach,
        a9_a_dropped_resize,
        a9_a_dropped_kill,
        a9_a_dropped_stop,
        a9_a_dropped_remove,
        a9_a_dropped_inspect_or_list,
        a9_a_dropped_tag,
        a9_a_dropped_image_removal,
        a9_a_dropped_reconcile_or_audit,
    ]
}

/// What is left when the caller is gone has so long to go away.
pub const TAIL: Duration = Duration::from_secs(10);

/// A verb has fewer awaits than this.
const ENOUGH: u64 = 2000;

pub type Work = futures_util::future::BoxFuture<'static, longshore::Result<()>>;

/// How the caller goes away.
#[derive(Debug, Clone, Copy)]
pub enum Drop {
    /// At the n-th await of the work on the driver.
    Inside(u64),
    /// After so many polls of the future in the caller's hands.
    Polls(usize),
    /// After so long.
    Time(Duration),
}

/// Runs a verb under a drop. Whether it came to its end in spite of it.
pub async fn under(engine: &Engine, drop: Drop, work: Work) -> Result<bool, Stop> {
    let outcome = match drop {
        Drop::Inside(n) => {
            engine.abandon()?.at(n);
            let outcome = work.await;
            if !engine.abandon()?.stop() {
                // It was dropped, and what its caller would have seen is of no interest.
                return Ok(false);
            }
            Some(outcome)
        }
        Drop::Polls(times) => poll_times(work, times).await,
        Drop::Time(limit) => tokio::time::timeout(limit, work).await.ok(),
    };
    match outcome {
        None => Ok(false),
        Some(outcome) => Ok(outcome.map(|()| true)?),
    }
}

/// Polls a future at most so many times, and says whether it came to its end.
async fn poll_times<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut polled = 0;
    std::future::poll_fn(|context| {
        if polled == times {
            return Poll::Ready(None);
        }
        polled += 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

/// The drops of one kind, one by one, until one comes too late.
pub async fn each_drop<F: Future<Output = Result<bool, Stop>>>(mut verb: impl FnMut(Drop) -> F) -> Check {
    let mut scene = async |drop: Drop| match verb(drop).await {
        Err(Stop::Fail(reason)) => fail(format!("dropped {drop:?}: {reason}")),
        outcome => outcome,
    };
    let mut inside = 0;
    for n in awaits() {
        if scene(Drop::Inside(n)).await? {
            break;
        }
        inside += 1;
    }
    let mut polls = 0;
    for times in 1..ENOUGH as usize {
        if scene(Drop::Polls(times)).await? {
            break;
        }
        polls += 1;
    }
    let start = Instant::now();
    scene(Drop::Time(TAIL)).await?;
    let whole = start.elapsed();
    for part in 0..12 {
        scene(Drop::Time(whole * part / 12)).await?;
    }
    println!("dropped at {inside} awaits of the work and {polls} of the caller, and 12 times within {whole:?}");
    Ok(())
}

/// Which await to drop at: all of them in a full run; a quick one takes larger steps the further it gets, as what comes
/// late in a long verb is mostly more of the same.
fn awaits() -> impl Iterator<Item = u64> {
    let full = crate::faults::kills() > 20;
    let step = move |n: &u64| Some(n + if full { 1 } else { 1 + n / 24 });
    std::iter::successors(Some(1), step).take_while(|n| *n < ENOUGH)
}

/// Names below a root that belong to something: what a verb that was undone must not add to. Not databases, locks and the
/// word on what is safe on the disk, which comes when it is.
fn files(root: &Path) -> BTreeSet<String> {
    fn walk(dir: &Path, depth: usize, names: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            names.insert(entry.path().display().to_string());
            if depth > 1 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                walk(&entry.path(), depth - 1, names);
            }
        }
    }
    let mut names = BTreeSet::new();
    for (part, depth) in [("content", 3), ("snapshots", 3), ("containers", 2), ("owners", 1)] {
        walk(&root.join(part), depth, &mut names);
    }
    // What waits to be safe on the disk, and what is.
    let settling = ["snapshots/p/", "snapshots/s"].map(|part| root.join(part).display().to_string());
    names.retain(|name| !settling.iter().any(|part| name.starts_with(part)));
    names
}

/// A world, and what it held before.
pub struct Scene {
    pub world: World,
    before: BTreeSet<String>,
}

impl Scene {
    pub async fn new() -> Result<Self, Stop> {
        let world = World::new().await?;
        // Directories that are made when they are first needed.
        world.says(world.spec().command(["true"])).await?;
        let before = files(world.root.path());
        Ok(Self { world, before })
    }

    pub fn engine(&self) -> &Engine {
        &self.world.engine
    }

    /// Waits for the tails: no container, nothing on disk that was not there, and the audit is clean.
    pub async fn nothing_is_left(&self) -> Check {
        let start = Instant::now();
        loop {
            let containers = self.world.containers().await?;
            if containers.is_empty() {
                break;
            }
            if start.elapsed() > TAIL {
                return fail(format!("left after {TAIL:?}: {containers:?}"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.nothing_on_disk(start).await?;
        let audit = self.engine().audit().await?;
        if audit.is_clean() {
            return Ok(());
        }
        fail(format!("the audit says {:?}", audit.findings))
    }

    /// What is there now and was not before.
    pub fn more_on_disk(&self) -> Vec<String> {
        let now = files(self.world.root.path());
        now.difference(&self.before).cloned().collect()
    }

    async fn nothing_on_disk(&self, start: Instant) -> Check {
        loop {
            let more = self.more_on_disk();
            if more.is_empty() {
                break;
            }
            if start.elapsed() > TAIL {
                return fail(format!("left on disk after {TAIL:?}: {more:?}"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let now = files(self.world.root.path());
        let lost: Vec<&String> = self.before.difference(&now).collect();
        assert!(lost.is_empty(), "taken away with it: {lost:?}");
        Ok(())
    }

    /// A verb of a container that is made for each drop, and must be removable afterwards.
    pub async fn on_container(
        &self,
        drop: Drop,
        spec: ContainerSpec,
        started: bool,
        verb: impl FnOnce(Container) -> Work,
    ) -> Result<bool, Stop> {
        let container = self.engine().create(spec).await?;
        if started {
            container.start().await?;
        }
        let ended = under(self.engine(), drop, verb(container.clone())).await?;
        match container.remove(FORCE).await {
            Err(error) if !error.is_not_found() => return fail(format!("{drop:?}: {}", error.report())),
            _ => {}
        }
        self.nothing_is_left().await?;
        Ok(ended)
    }

    /// A verb of the engine that makes nothing which lasts.
    pub async fn on_engine(&self, drop: Drop, verb: impl FnOnce(Engine) -> Work) -> Result<bool, Stop> {
        let ended = under(self.engine(), drop, verb(self.engine().clone())).await?;
        self.nothing_is_left().await?;
        Ok(ended)
    }

    pub fn sleeper(&self) -> ContainerSpec {
        self.world.spec().command(["sleep", "60"])
    }
}

async fn a9_a_dropped_open() -> Check {
    let root = TempRoot::new();
    let open = || Engine::open(root.path().to_path_buf());
    for times in 1.. {
        if let Some(opened) = poll_times(open(), times).await {
            drop(opened?);
            break;
        }
    }
    for step in 0..30 {
        let fresh = TempRoot::new();
        let limit = Duration::from_micros(step * 200);
        let _ = tokio::time::timeout(limit, Engine::open(fresh.path().to_path_buf())).await;
        let _ = tokio::time::timeout(limit, open()).await;
        // Whatever was half-way, the root opens, and what was dropped comes to its end.
        let engine = Engine::open(fresh.path().to_path_buf()).await?;
        await_one_owner(&engine, fresh.path()).await?;
    }
    let engine = open().await?;
    await_one_owner(&engine, root.path()).await
}

/// Engines whose opening was dropped are owners no more.
async fn await_one_owner(engine: &Engine, root: &Path) -> Check {
    let start = Instant::now();
    loop {
        engine.reconcile().await?;
        let owners = fs::read_dir(root.join("owners"))?.count();
        if owners == 1 {
            return Ok(());
        }
        if start.elapsed() > TAIL {
            return fail(format!("{owners} owners are left"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A small image of several layers that shares nothing with busybox.
pub fn small_image(dir: &Path) -> Result<Layout, Stop> {
    let layer = |name: &str| {
        Files::new()
            .dir(name, 0o755)
            .file(format!("{name}/f"), 0o644, name.repeat(40_000))
    };
    image::write_layout(dir, &[layer("a"), layer("b"), layer("c")], &json!({ "Cmd": ["x"] }))
}

async fn dropped_pulls(from: &str) -> Check {
    let scene = Scene::new().await?;
    each_drop(|drop| {
        let (scene, from) = (&scene, from.to_owned());
        async move {
            let events = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
            let (engine, ends) = (scene.engine().clone(), events.clone());
            let pull = async move {
                let ended = move |event| {
                    use longshore::progress::ProgressEvent::{Done, Failed};
                    if matches!(event, Done { .. } | Failed { .. }) {
                        ends.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    }
                };
                engine.pull(from).progress(ended).await.map(|_| ())
            };
            let ended = under(scene.engine(), drop, Box::pin(pull)).await?;
            if ended {
                assert_eq!(
                    events.load(std::sync::atomic::Ordering::SeqCst),
                    1,
                    "{drop:?}: one terminal event"
                );
            }
            complete_or_absent(scene, ended).await?;
            cleared_up(scene).await?;
            Ok(ended)
        }
    })
    .await
}

/// What was fetched whole stays for the next attempt, until somebody clears up: nothing is left then. A thread that was in
/// the middle of a blob or a layer finishes it first.
pub async fn cleared_up(scene: &Scene) -> Check {
    let start = Instant::now();
    loop {
        scene.engine().reconcile().await?;
        if scene.more_on_disk().is_empty() {
            return scene.nothing_is_left().await;
        }
        if start.elapsed() > TAIL {
            return fail(format!("left on disk after {TAIL:?}: {:?}", scene.more_on_disk()));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        complete_or_absent(scene, false).await?;
    }
}

/// An image that is listed is complete, and one that was pulled is listed. It is removed.
pub async fn complete_or_absent(scene: &Scene, ended: bool) -> Check {
    let audit = scene.engine().audit().await?;
    assert!(audit.is_clean(), "{:?}", audit.findings);
    let others: Vec<_> = scene
        .engine()
        .list_images(Filter::new())
        .await?
        .into_iter()
        .filter(|image| image.id != *scene.world.image.id())
        .collect();
    assert!(others.len() == 1 || !ended, "pulled, and not listed");
    for image in others {
        let force = RemoveImageOptions::default().force(true);
        scene.engine().images().remove(&image.id.to_string(), force).await?;
    }
    Ok(())
}

async fn a9_a_dropped_pull() -> Check {
    let dir = scratch::fresh("layout");
    let layout = small_image(dir.path())?;
    dropped_pulls(&source(&layout)).await
}

async fn a9_a_dropped_pull_from_a_registry() -> Check {
    let dir = scratch::fresh("layout");
    let layout = small_image(dir.path())?;
    let registry = Registry::with(Options::default(), &[(&layout, "small", "1")])?;
    dropped_pulls(&registry.reference("small:1")).await
}

async fn a9_a_dropped_create() -> Check {
    let scene = Scene::new().await?;
    each_drop(async |drop| {
        let (engine, spec) = (scene.engine().clone(), scene.sleeper().name("dropped"));
        let create = async move { engine.create(spec).await?.remove(FORCE).await.map(drop_value) };
        let ended = under(scene.engine(), drop, Box::pin(create)).await?;
        scene.nothing_is_left().await?;
        // The name is free again.
        let again = scene.engine().create(scene.sleeper().name("dropped")).await?;
        again.remove(FORCE).await?;
        Ok(ended)
    })
    .await
}

pub fn drop_value<T>(_: T) {}

async fn a9_a_dropped_run() -> Check {
    let scene = Scene::new().await?;
    each_drop(async |drop| {
        let spec = scene.sleeper();
        scene
            .on_engine(drop, |engine| {
                Box::pin(async move { engine.run(spec).await?.remove(FORCE).await.map(drop_value) })
            })
            .await
    })
    .await
}

async fn a9_a_dropped_run_to_its_end() -> Check {
    let scene = Scene::new().await?;
    each_drop(async |drop| {
        let spec = scene.world.script("echo x > /x; echo out");
        scene
            .on_engine(drop, |engine| {
                Box::pin(async move { engine.run(spec).output().await.map(drop_value) })
            })
            .await
    })
    .await
}

async fn a9_a_dropped_start() -> Check {
    let scene = Scene::new().await?;
    each_drop(async |drop| {
        let container = scene.engine().create(scene.sleeper()).await?;
        let starting = container.clone();
        let ended = under(
            scene.engine(),
            drop,
            Box::pin(async move { starting.start().await.map(drop_value) }),
        )
        .await?;
        if !ended {
            not_running(&container).await?;
            // Neither wedged nor worn out: it starts when it is asked again.
            container.start().await?;
        }
        assert_eq!(container.inspect().await?.state, ContainerState::Running, "{drop:?}");
        container.remove(FORCE).await?;
        scene.nothing_is_left().await?;
        Ok(ended)
    })
    .await
}

/// Waits until a start that nobody waits for was undone.
async fn not_running(container: &Container) -> Check {
    let start = Instant::now();
    let mut quiet = 0;
    while quiet < 3 {
        let state = container.inspect().await?.state;
        // Before the tail has begun the state says nothing yet, so it must be quiet for a while.
        quiet = if state == ContainerState::Running { 0 } else { quiet + 1 };
        if start.elapsed() > TAIL {
            return fail("it runs though nobody waited for its start");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

async fn a9_a_dropped_wait() -> Check {
    let scene = Scene::new().await?;
    each_drop(async |drop| {
        let spec = scene.world.script("sleep 0.02; exit 3");
        scene
            .on_container(drop, spec, true, |container| {
                Box::pin(async move {
                    assert_eq!(container.wait().await?.status.code(), 3);
                    Ok(())
                })
            })
            .await
    })
    .await
}

async fn a9_dropped_logs() -> Check {
    let scene = Scene::new().await?;
    each_drop(async |drop| {
        let spec = scene.world.script("for i in 1 2 3; do echo $i; sleep 0.01; done");
        scene
            .on_container(drop, spec, true, |container| {
                Box::pin(async move {
                    let query = LogQuery {
                        follow: true,
                        ..LogQuery::default()
                    };
                    let mut entries = container.logs(query).await?;
                    let mut seen = Vec::new();
                    while let Some(entry) = entries.next().await {
                        seen.extend_from_slice(&entry?.bytes);
                    }
                    assert_eq!(text(&seen), "1\n2\n3");
                    Ok(())
                })
            })
            .await
    })
    .await
}

async fn a9_a_dropped_attach() -> Check {
    let scene = Scene::new().await?;
    each_drop(async |drop| {
        let mut spec = scene.world.script("read line; echo got $line");
        spec.open_stdin = true;
        scene
            .on_container(drop, spec, false, |container| {
                Box::pin(async move {
                    let mut attached = container.attach(AttachOptions::default()).await?;
                    container.start().await?;
                    if let Some(input) = attached.input.take() {
                        input.write("hello\n").await?;
                    }
                    while attached.output.next().await.is_some() {}
                    Ok(())
                })
            })
            .await
    })
    .await
}

async fn a9_a_dropped_resize() -> Check {
    let scene = Scene::new().await?;
    each_drop(async |drop| {
        let spec = scene.sleeper().tty(true);
        scene
            .on_container(drop, spec, true, |container| {
                Box::pin(async move { container.resize(30, 90).await })
            })
            .await
    })
    .await
}

async fn a9_a_dropped_kill() -> Check {
    let scene = Scene::new().await?;
    each_drop(async |drop| {
        scene
            .on_container(drop, scene.sleeper(), true, |container| {
                Box::pin(async move { container.kill(Signal::KILL).await })
            })
            .await
    })
    .await
}

async fn a9_a_dropped_stop() -> Check {
    let scene = Scene::new().await?;
    each_drop(async |drop| {
        // Pid 1 of its namespace: the signal has no effect, so that stop comes to its second step.
        scene
            .on_container(drop, scene.sleeper(), true, |container| {
                Box::pin(async move {
                    let options = StopOptions {
                        timeout: Some(Duration::from_millis(30)),
                        ..StopOptions::default()
                    };
                    container.stop(options).await.map(drop_value)
                })
            })
            .await
    })
    .await
}

async fn a9_a_dropped_remove() -> Check {
    let scene = Scene::new().await?;
    each_drop(async |drop| {
        let container = scene.world.started(scene.sleeper()).await?;
        let removing = container.clone();
        let ended = under(
            scene.engine(),
            drop,
            Box::pin(async move { removing.remove(FORCE).await.map(drop_value) }),
        )
        .await?;
        if let Drop::Time(Duration::ZERO) = drop {
            // It may not have begun.
            let _ = container.remove(FORCE).await;
        }
        // A removal once begun is finished.
        scene.nothing_is_left().await?;
        Ok(ended)
    })
    .await
}

async fn a9_a_dropped_inspect_or_list() -> Check {
    let scene = Scene::new().await?;
    each_drop(async |drop| {
        scene
            .on_container(drop, scene.sleeper(), false, |container| {
                Box::pin(async move { container.inspect().await.map(drop_value) })
            })
            .await
    })
    .await?;
    each_drop(async |drop| {
        scene
            .on_engine(drop, |engine| {
                Box::pin(async move {
                    engine
                        .list(ListOptions {
                            all: true,
                            ..ListOptions::default()
                        })
                        .await?;
                    for image in engine.list_images(Filter::new()).await? {
                        engine.images().inspect(&image.id.to_string()).await?;
                    }
                    Ok(())
                })
            })
            .await
    })
    .await
}

async fn a9_a_dropped_tag() -> Check {
    let scene = Scene::new().await?;
    let name: longshore::Reference = "other:name".parse()?;
    each_drop(async |drop| {
        let (image, other) = (scene.world.image.clone(), name.clone());
        let ended = under(
            scene.engine(),
            drop,
            Box::pin(async move { image.tag(&other).await.map(drop_value) }),
        )
        .await?;
        // Done whole or not at all: at most the one name more.
        let info = scene.world.image.inspect().await?;
        assert!(info.tags.len() <= 2, "{:?}", info.tags);
        assert!(!ended || info.tags.contains(&name));
        match scene
            .engine()
            .images()
            .remove("other:name", RemoveImageOptions::default())
            .await
        {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
        scene.nothing_is_left().await?;
        Ok(ended)
    })
    .await
}

async fn a9_a_dropped_image_removal() -> Check {
    let scene = Scene::new().await?;
    let dir = scratch::fresh("layout");
    let from = source(&small_image(dir.path())?);
    each_drop(async |drop| {
        let image = scene.engine().pull(&from).await?;
        let remove = async move {
            image
                .remove(RemoveImageOptions::default().force(true))
                .await
                .map(drop_value)
        };
        let ended = under(scene.engine(), drop, Box::pin(remove)).await?;
        let start = Instant::now();
        while !ended && scene.engine().list_images(Filter::new()).await?.len() > 1 {
            if matches!(drop, Drop::Time(Duration::ZERO)) {
                complete_or_absent(&scene, false).await?;
            }
            if start.elapsed() > TAIL {
                return fail("a removal that was begun was not finished");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        scene.nothing_is_left().await?;
        Ok(ended)
    })
    .await
}

async fn a9_a_dropped_reconcile_or_audit() -> Check {
    let scene = Scene::new().await?;
    each_drop(async |drop| {
        scene
            .on_engine(drop, |engine| {
                Box::pin(async move { engine.reconcile().await.map(drop_value) })
            })
            .await
    })
    .await?;
    each_drop(async |drop| {
        scene
            .on_engine(drop, |engine| {
                Box::pin(async move { engine.audit().await.map(drop_value) })
            })
            .await
    })
    .await
}
