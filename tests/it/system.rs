//! The engine as a whole: what it says of itself, what happens, what it takes on disk.

use std::cell::RefCell;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use longshore::events::EventItem;
use longshore::images::Credentials;
use longshore::system::FindingKind;
use longshore::{ContainerSpec, Engine, ErrorKind, EventQuery, Filter, ObjectKind, Signal, StopOptions};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_core::span::Current;

use crate::frame::{Check, fail, skip};
use crate::support::embedder::{Embedder, Role};
use crate::support::is_root;
use crate::support::patience::until;
use crate::support::world::{FORCE, World};
use crate::tests;

tests! { "system":
    kernel_async [
        k1_info_is_true,
        k1_disk_usage_is_what_du_says,
        events_are_told_across_engines_and_end_in_time,
        b11_every_verb_opens_a_span_with_the_id_and_no_secret,
        a10_every_handle_has_deadlines,
        n10_audit_is_clean_after_fifty_runs_and_while_containers_live,
        n10_audit_finds_what_was_strayed_by_hand,
        n10_audit_clears_up_after_the_dead_and_says_so,
        n10_who_is_on_the_way_out_is_no_finding,
        n10_an_engine_that_ends_leaves_nobody_to_clear_up_after,
        n10_what_is_under_way_when_an_engine_ends_is_cleared_up,
        n10_audit_finds_mounts_and_cgroups,
    ]
}

async fn k1_info_is_true() -> Check {
    let world = World::alone().await?;
    let created = world.engine.create(world.spec()).await?;
    let running = world.started(world.script("sleep 100")).await?;
    let info = world.engine.system().info().await?;
    assert_eq!((info.containers.running, info.containers.stopped), (1, 1), "{info:?}");
    assert_eq!(info.images, 1);
    assert_eq!(info.root.as_deref(), Some(world.root.path().canonicalize()?.as_path()));
    assert_eq!(info.rootless, !is_root());
    assert_eq!((info.runtime.as_str(), info.log_driver.is_empty()), ("native", false));
    let uname = Command::new("uname").arg("-rm").output()?;
    let uname = String::from_utf8_lossy(&uname.stdout).trim().to_owned();
    assert_eq!(uname, format!("{} {}", info.kernel_version, info.architecture));
    let nproc = Command::new("nproc").env_remove("OMP_NUM_THREADS").output()?;
    assert_eq!(String::from_utf8_lossy(&nproc.stdout).trim(), info.cpus.to_string());
    let missing = Engine::probe().missing().count();
    assert_eq!(info.warnings.len(), missing, "{:?}", info.warnings);
    running.remove(FORCE).await?;
    created.remove(FORCE).await?;
    let second = Engine::open(world.root.path()).await?;
    let again = second.system().info().await?;
    assert_eq!((&again.id, again.containers), (&info.id, Default::default()));
    assert_ne!(again.owner, info.owner);
    Ok(())
}

async fn k1_disk_usage_is_what_du_says() -> Check {
    let world = World::alone().await?;
    if world.ownership().await? == "mapped" {
        return skip("with several ids in the user namespace, du cannot look into directories of the others");
    }
    let writer = world
        .started(world.script("dd if=/dev/zero of=/data bs=1M count=3 && sync /data; sleep 100"))
        .await?;
    let before = SystemTime::now();
    let usage = loop {
        let usage = world.engine.system().disk_usage().await?;
        if usage.containers[0].writable_bytes >= 3 << 20 {
            break usage;
        }
        assert!(before.elapsed()? < Duration::from_secs(20), "{usage:?}");
    };
    let (du, total) = (du(world.root.path())?, usage.total_bytes());
    assert!(
        du.abs_diff(total) * 100 <= du,
        "du says {du}, we say {total}: {usage:?}"
    );
    let image = &usage.images[0];
    assert_eq!((image.containers, image.shared_bytes), (1, 0));
    assert!(
        image.size_bytes > 0 && usage.layers_bytes >= image.size_bytes,
        "{usage:?}"
    );
    assert_eq!(
        usage.containers[0].total_bytes,
        usage.containers[0].writable_bytes + image.size_bytes
    );
    writer.remove(FORCE).await?;
    Ok(())
}

fn du(path: &Path) -> Result<u64, crate::frame::Stop> {
    let output = Command::new("du").args(["-s", "-B1"]).arg(path).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.split('\t').next().and_then(|number| number.parse().ok()) {
        Some(bytes) => Ok(bytes),
        None => fail(format!(
            "du says {text:?}, {:?}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

fn now_ns() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as i64)
}

async fn events_are_told_across_engines_and_end_in_time() -> Check {
    let world = World::new().await?;
    let other = Engine::open(world.root.path()).await?;
    let mut query = EventQuery::default();
    query.filter = Filter::new().with("type", "container");
    let mut live = other.events(query.clone()).await?;
    let begun = now_ns();
    let output = world.output(world.spec().name("seen").command(["true"])).await?;
    assert!(output.status.success());
    let mut heard = Vec::new();
    while heard.last().is_none_or(|action| action != "destroy") {
        match live.next().await {
            Some(Ok(EventItem::Event(event))) if event.attributes["name"] == "seen" => heard.push(event.action),
            Some(Ok(_)) => {}
            other => return fail(format!("{other:?} after {heard:?}")),
        }
    }
    assert_eq!(heard, ["create", "attach", "start", "die", "destroy"]);
    drop(live);
    query.since_ns = Some(begun);
    query.until_ns = Some(now_ns() + 200_000_000);
    query.filter = query.filter.with("container", "seen").with("event", "die");
    let replayed: Vec<_> = other.events(query.clone()).await?.collect().await;
    assert_eq!(replayed.len(), 1, "{replayed:?}");
    query.filter = Filter::new().with("colour", "red");
    let refused = other.events(query).await.err().map(|error| error.kind().clone());
    assert_eq!(refused, Some(ErrorKind::InvalidArgument));
    Ok(())
}

/// What a subscriber of the embedder sees.
#[derive(Debug, Default)]
struct Seen {
    /// Name, fields, and whether the driver's thread was in it.
    spans: Vec<(&'static str, String, bool)>,
    metadata: Vec<&'static Metadata<'static>>,
    events: Vec<String>,
}

thread_local! {
    static INSIDE: RefCell<Vec<Id>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug, Clone, Default)]
struct Collector(Arc<(Mutex<Seen>, AtomicU64)>);

struct Words<'a>(&'a mut String);

impl Visit for Words<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.push_str(&format!(" {field}={value:?}"));
    }
}

impl Collector {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.0.lock().expect("no panic while it is held")
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("longshore")
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut fields = String::new();
        attributes.record(&mut Words(&mut fields));
        let mut seen = self.seen();
        seen.spans.push((attributes.metadata().name(), fields, false));
        seen.metadata.push(attributes.metadata());
        Id::from_u64(self.0.1.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        values.record(&mut Words(&mut self.seen().spans[span.into_u64() as usize - 1].1));
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = event.metadata().level().to_string();
        event.record(&mut Words(&mut fields));
        self.seen().events.push(fields);
    }

    fn current_span(&self) -> Current {
        let Some(id) = INSIDE.with_borrow(|inside| inside.last().cloned()) else {
            return Current::none();
        };
        let metadata = self.seen().metadata[id.into_u64() as usize - 1];
        Current::new(id, metadata)
    }

    fn enter(&self, span: &Id) {
        INSIDE.with_borrow_mut(|inside| inside.push(span.clone()));
        // The driver's thread, or one of its pool.
        if std::thread::current()
            .name()
            .is_some_and(|name| name.starts_with("longshore"))
        {
            self.seen().spans[span.into_u64() as usize - 1].2 = true;
        }
    }

    fn exit(&self, span: &Id) {
        INSIDE.with_borrow_mut(|inside| inside.retain(|inner| inner != span));
    }
}

async fn b11_every_verb_opens_a_span_with_the_id_and_no_secret() -> Check {
    let collector = Collector::default();
    let _guard = tracing::subscriber::set_default(collector.clone());
    let world = World::new().await?;
    let engine = &world.engine;
    let container = engine
        .create(world.spec().name("named").env("PASSWORD", "hunter2"))
        .await?;
    let id = container.id().to_string();
    engine.containers().inspect("named").await?;
    container.start().await?;
    container.wait().await?;
    // The first may have had nothing to do on any thread of the engine's: of a container that runs nothing is read.
    container.wait().await?;
    container.remove(FORCE).await?;
    world.image.inspect().await?;
    engine.audit().await?;
    engine.reconcile().await?;
    let credentials = Credentials::password("someone", "hunter2");
    let unreachable = engine.pull("127.0.0.1:1/none:latest").credentials(credentials).await;
    assert!(unreachable.is_err());
    let missing = engine.container("nobody").await;
    assert!(missing.is_err_and(|error| error.is_not_found()));
    let seen = collector.seen();
    let with = |name: &str, field: &str| {
        let mut found = seen
            .spans
            .iter()
            .filter(|span| span.0 == name && span.1.contains(field));
        assert!(found.any(|span| span.2), "{name} {field}: {:#?}", seen.spans);
    };
    for verb in ["create", "start", "wait", "remove", "inspect"] {
        with(&format!("container.{verb}"), &id);
    }
    with("engine.open", "root=");
    with("engine.audit", "");
    with("engine.reconcile", "");
    with("image.pull", "image=\"127.0.0.1:1/none:latest\"");
    with("image.inspect", "image=");
    let failures: Vec<&String> = seen
        .events
        .iter()
        .filter(|event| event.contains("message=failed"))
        .collect();
    assert!(failures.iter().all(|event| event.starts_with("DEBUG")), "{failures:?}");
    for wanted in [
        "verb=\"container.inspect\" kind=\"not_found\"",
        "verb=\"image.pull\" kind=\"unavailable\"",
    ] {
        assert!(
            failures.iter().any(|event| event.contains(wanted)),
            "{wanted}: {failures:?}"
        );
    }
    let everything = format!("{seen:?}");
    assert!(!everything.contains("hunter2"), "a secret was written down");
    Ok(())
}

async fn a10_every_handle_has_deadlines() -> Check {
    const SHORT: Duration = Duration::from_millis(150);
    let world = World::new().await?;
    let container = world
        .started(world.script("trap '' TERM; while :; do sleep 0.1; done"))
        .await?;
    let late = container.within(SHORT).wait().await.expect_err("it runs on");
    assert_eq!(
        (late.kind(), late.step()),
        (&ErrorKind::Timeout, Some("container.wait"))
    );
    assert_eq!(late.object(), Some((ObjectKind::Container, container.id().as_str())));
    let mut patient = StopOptions::default();
    patient.timeout = Some(Duration::from_secs(30));
    let late = container
        .within(SHORT)
        .stop(patient)
        .await
        .expect_err("it does not listen");
    assert_eq!(
        (late.kind(), late.step()),
        (&ErrorKind::Timeout, Some("container.stop"))
    );
    assert!(
        container.inspect().await?.pid.is_some(),
        "a stop that was given up kills nothing"
    );
    // Whichever of its steps is cut off, it is the run that was late, and its clean-up has the time that it needs.
    for limit in [1, 3, 10, 30, 150].map(Duration::from_millis) {
        let run = world.engine.run(world.script("sleep 100")).deadline(limit);
        let late = run.output().await.expect_err("it sleeps");
        assert_eq!((late.kind(), late.step()), (&ErrorKind::Timeout, Some("run")), "{late}");
    }
    for limit in [1, 3, 10].map(Duration::from_millis) {
        let hasty = world.engine.deadline(limit);
        let mut run = Box::pin(hasty.run(world.script("sleep 100")).output());
        let early = tokio::select! {
            biased;
            // A thread that had no turn for so long finds the alarm at its first look.
            early = &mut run => Some(early),
            () = async {} => None,
        };
        let late = match early {
            Some(early) => early,
            None => {
                // A caller that is kept from looking finds the alarms of a step and of the whole at once.
                std::thread::sleep(Duration::from_millis(50));
                run.await
            }
        };
        let late = late.expect_err("it sleeps");
        assert_eq!((late.kind(), late.step()), (&ErrorKind::Timeout, Some("run")), "{late}");
    }
    let hasty = world.engine.deadline(Duration::from_secs(60));
    assert_eq!(hasty.container(container.id().as_str()).await?.id(), container.id());
    container.kill(Signal::KILL).await?;
    container.within(Duration::from_secs(60)).wait().await?;
    container.remove(FORCE).await?;
    let start = SystemTime::now();
    while !world.containers().await?.is_empty() {
        assert!(
            start.elapsed()? < Duration::from_secs(30),
            "the run that was given up is still there"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn n10_audit_is_clean_after_fifty_runs_and_while_containers_live() -> Check {
    let world = World::new().await?;
    let other = Engine::open(world.root.path()).await?;
    let created = world.engine.create(world.spec()).await?;
    let running = world.started(world.script("sleep 100")).await?;
    let ended = world.started(world.spec().command(["true"])).await?;
    ended.wait().await?;
    for n in 0..50 {
        assert!(
            world.output(world.spec().command(["true"])).await?.status.success(),
            "run {n}"
        );
    }
    for engine in [&world.engine, &other] {
        let audit = engine.audit().await?;
        assert!(audit.is_clean(), "{:#?}", audit.findings);
    }
    for container in [created, running, ended] {
        container.remove(FORCE).await?;
    }
    let audit = other.audit().await?;
    assert!(audit.is_clean(), "{:#?}", audit.findings);
    Ok(())
}

async fn n10_audit_finds_what_was_strayed_by_hand() -> Check {
    let world = World::new().await?;
    let running = world.started(world.script("sleep 100")).await?;
    let (root, id) = (world.root.path(), running.id().as_str());
    let nobody = "0".repeat(64);
    let dead = "d".repeat(64);
    let old = SystemTime::now() - Duration::from_secs(600);
    std::fs::create_dir_all(root.join(format!("containers/{nobody}")))?;
    std::fs::create_dir_all(root.join("snapshots/trash/xyz/deep"))?;
    std::fs::create_dir_all(root.join(format!("owners/{dead}")))?;
    std::fs::create_dir_all(root.join("owners/.gone.x"))?;
    std::fs::write(root.join(format!("owners/{dead}/lock")), "boot x\npid 1\n")?;
    for file in [".new.0123", "locks/k.stray"] {
        std::fs::File::create(root.join(file))?.set_modified(old)?;
    }
    // No blob that somebody began: it cannot be cleared away, nor what comes after it.
    let ingest = root.join(format!("content/ingest/{dead}-abc"));
    std::fs::create_dir(&ingest)?;
    std::fs::remove_file(root.join(format!("containers/{id}/hostname")))?;
    let audit = world.engine.audit().await?;
    finds(
        &audit.findings,
        &[
            (FindingKind::File, format!("containers/{nobody}")),
            (FindingKind::File, "snapshots/trash/xyz".into()),
            (FindingKind::File, "owners/.gone.x".into()),
            (FindingKind::File, ".new.0123".into()),
            (FindingKind::File, format!("content/ingest/{dead}-abc")),
            (FindingKind::Lock, "k.stray".into()),
            (FindingKind::Container, id[..12].into()),
        ],
    );
    std::fs::remove_dir(&ingest)?;
    std::fs::File::create(&ingest)?;
    let audit = world.engine.audit().await?;
    finds(
        &audit.findings,
        &[
            (FindingKind::File, format!("containers/{nobody}")),
            (FindingKind::Container, id[..12].into()),
        ],
    );
    assert!(audit.cleared.unfinished >= 4, "{:?}", audit.cleared);
    std::fs::remove_dir(root.join(format!("containers/{nobody}")))?;
    running.remove(FORCE).await?;
    let left = world.engine.audit().await?;
    assert!(left.is_clean(), "{:#?}", left.findings);
    Ok(())
}

fn finds(found: &[longshore::system::Finding], expected: &[(FindingKind, String)]) {
    for (kind, object) in expected {
        let hits = found
            .iter()
            .filter(|finding| finding.kind == *kind && finding.object == *object);
        assert_eq!(hits.count(), 1, "{kind} {object}: {found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

/// An engine that was killed together with its helper: nobody cleaned up, and nobody has met its remains.
async fn n10_audit_clears_up_after_the_dead_and_says_so() -> Check {
    let world = World::alone().await?;
    let running = world.started(world.script("sleep 100")).await?;
    let path = world.root.path().to_str().expect("UTF-8");
    let mut dead = Embedder::start("two-containers", &[path, world.image.id().to_string().as_str()])?;
    let helper: i32 = dead.line(Duration::from_secs(60))?.parse()?;
    // It cannot clean up before it is dead itself.
    let helper = nix::unistd::Pid::from_raw(helper);
    nix::sys::signal::kill(helper, nix::sys::signal::Signal::SIGSTOP)?;
    dead.kill()?;
    nix::sys::signal::kill(helper, nix::sys::signal::Signal::SIGKILL)?;
    let begun = std::time::Instant::now();
    let audit = loop {
        // Until its helper is quite gone the owner lives, and nothing of its is touched.
        let audit = world.engine.audit().await?;
        if audit.cleared.owners > 0 {
            break audit;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{audit:#?}");
    };
    assert_eq!((audit.cleared.owners, audit.cleared.containers), (1, 2));
    assert!(audit.is_clean(), "{:#?}", audit.findings);
    assert_eq!(world.containers().await?.len(), 1);
    let again = world.engine.audit().await?;
    assert_eq!(again.cleared, Default::default());
    assert!(running.inspect().await?.pid.is_some());
    running.remove(FORCE).await?;
    Ok(())
}

/// Two containers, one that runs; then it says who its helper is, and waits for its end.
fn two_containers(root: &str, image: &str) -> i32 {
    let work = async {
        let engine = Engine::open(root).await?;
        let spec = || ContainerSpec::image(image).command(["sleep", "100"]);
        let _created = engine.create(spec()).await?;
        let running = engine.run(spec()).await?;
        let pid = running.inspect().await?.pid.unwrap_or(0);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        println!("{}", parent.unwrap_or_default().trim());
        std::future::pending::<()>().await;
        Ok::<_, crate::frame::Stop>(())
    };
    match crate::frame::block_on(work) {
        Ok(()) => 0,
        Err(stop) => {
            println!("{stop:?}");
            1
        }
    }
}

pub const ROLES: &[(&str, Role)] = &[("two-containers", |arguments| {
    two_containers(&arguments[0], &arguments[1])
})];

/// An engine that is dropped ends a moment later: what it has is cleared up then, also where a look was on its way.
async fn n10_who_is_on_the_way_out_is_no_finding() -> Check {
    let world = World::alone().await?;
    for round in 0..12 {
        let other = Engine::open(world.root.path()).await?;
        let spec = world.spec().command(["sleep", "60"]);
        other.run(spec).await?;
        drop(other);
        tokio::time::sleep(Duration::from_micros(round * 300)).await;
        let audit = world.engine.audit().await?;
        assert_eq!(audit.findings, [], "round {round}");
    }
    Ok(())
}

/// Neither one that is closed nor one that is dropped: who opens the root next has nothing to do for it.
async fn n10_an_engine_that_ends_leaves_nobody_to_clear_up_after() -> Check {
    let world = World::alone().await?;
    let path = world.root.path();
    let owners = || std::fs::read_dir(path.join("owners")).map_or(0, Iterator::count);
    for spec in [None, Some(world.spec().command(["sleep", "60"]))] {
        for closed in [true, false] {
            let other = Engine::open(path).await?;
            assert_eq!(owners(), 2);
            if let Some(spec) = &spec {
                other.run(spec.clone()).await?;
            }
            if closed {
                other.close().await;
                assert_eq!(owners(), 1, "with a container: {}", spec.is_some());
            } else {
                drop(other);
                until("its owner is forgotten", async || Ok(owners() == 1)).await?;
            }
        }
    }
    assert_eq!(world.engine.audit().await?.cleared, Default::default());
    Ok(())
}

/// Verbs whose engine is closed meanwhile come to their end, and nothing is left of what they made.
async fn n10_what_is_under_way_when_an_engine_ends_is_cleared_up() -> Check {
    let world = World::alone().await?;
    let path = world.root.path();
    for round in 0..40 {
        let other = Engine::open(path).await?;
        let mut verbs = futures_util::future::join_all((0..4).map(|_| other.create(world.spec())));
        // Now they are on their way.
        let begun = futures_util::poll!(&mut verbs);
        tokio::time::sleep(Duration::from_micros(round * 100)).await;
        other.clone().close().await;
        if begun.is_pending() {
            verbs.await;
        }
        let left = |part: &str| std::fs::read_dir(path.join(part)).map_or(0, Iterator::count);
        assert_eq!((left("owners"), left("containers")), (1, 0), "round {round}");
    }
    let audit = world.engine.audit().await?;
    assert_eq!((audit.cleared, audit.findings), Default::default());
    Ok(())
}

async fn n10_audit_finds_mounts_and_cgroups() -> Check {
    if !is_root() {
        return skip("only root can mount below the root directory where others see it");
    }
    let world = World::new().await?;
    let running = world.started(world.script("sleep 100")).await?;
    let place = world.root.path().canonicalize()?.join("content/stray");
    std::fs::create_dir(&place)?;
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "stray"])
        .arg(&place)
        .status()?;
    assert!(mounted.success());
    let found = world.engine.audit().await;
    assert!(Command::new("umount").arg(&place).status()?.success());
    std::fs::remove_dir(&place)?;
    let found = found?.findings;
    let hit = |finding: &&longshore::system::Finding| {
        finding.kind == FindingKind::Mount && finding.object == place.display().to_string()
    };
    assert_eq!(found.iter().filter(hit).count(), 1, "{found:#?}");
    let owner = world
        .engine
        .system()
        .info()
        .await?
        .owner
        .map(|owner| owner.short().to_owned())
        .unwrap_or_default();
    let Some(parent) = cgroup_of(&owner) else {
        running.remove(FORCE).await?;
        return skip("no cgroup can be made here");
    };
    let stray = parent.join("e".repeat(64));
    std::fs::create_dir(&stray)?;
    let found = world.engine.audit().await;
    std::fs::remove_dir(&stray)?;
    let found = found?.findings;
    assert!(found.len() == 1 && found[0].kind == FindingKind::Cgroup, "{found:#?}");
    assert_eq!(found[0].object, stray.display().to_string());
    running.remove(FORCE).await?;
    Ok(())
}

/// The cgroup of an owner, wherever it is.
fn cgroup_of(owner: &str) -> Option<std::path::PathBuf> {
    let name = format!("longshore-{owner}");
    let output = Command::new("find")
        .args(["/sys/fs/cgroup", "-type", "d", "-name", &name])
        .output()
        .ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(Into::into)
}
