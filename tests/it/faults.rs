//! Embedders that are killed, futures that are dropped, processes that share a root, runtimes that come and go.

use std::collections::BTreeSet;
use std::path::Path;
use std::pin::pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use longshore::registry::http::{HttpOptions, HttpRegistries};
use longshore::types::Filter;
use longshore::{ContainerSpec, Engine, ErrorKind, Lifetime, ListOptions, RemoveOptions};

use crate::frame::{Check, Stop, block_on, fail};
use crate::support::embedder::{Embedder, Role};
use crate::support::leaks::Snapshot;
use crate::support::registry::{Options, Registry};
use crate::support::root::TempRoot;
use crate::support::world::{FORCE, World, source, text};
use crate::support::{company, image, runtime};
use crate::tests;

tests! { "faults":
    kernel [
        g17_nothing_outlives_a_killed_embedder,
        e9_kills_during_runs_leave_nothing,
        e9_an_engine_goes_while_it_clears_up,
        d9_processes_share_a_root,
        d9_the_suite_of_one_while_others_are_killed,
        a_static_engine_outlives_runtimes,
        an_engine_works_without_a_runtime,
        the_embedders_process_is_left_alone,
        h5_two_processes_race_for_one_name,
    ]
    kernel_async [
        the_last_handle_ends_the_containers,
    ]
}

/// What this binary does as a child.
pub const ROLES: &[(&str, Role)] = &[
    ("hold", |arguments| block_on(role(hold(&arguments[0])))),
    ("run-forever", |arguments| block_on(role(run_forever(&arguments[0])))),
    ("create", |arguments| {
        block_on(role(create(&arguments[0], &arguments[1], &arguments[2])))
    }),
    ("work-forever", |arguments| block_on(role(work_forever(&arguments[0])))),
    ("work", |arguments| {
        block_on(role(work(&arguments[0], &arguments[1], &arguments[2])))
    }),
    ("static", |arguments| role_static(&arguments[0])),
    ("bare", |arguments| {
        role_bare(&arguments[0], &arguments[1], &arguments[2])
    }),
];

pub async fn role(work: impl Future<Output = longshore::Result<()>>) -> i32 {
    match work.await {
        Ok(()) => 0,
        Err(error) => {
            println!("error {}", error.report());
            1
        }
    }
}

/// How often a kill loop kills.
pub fn kills() -> usize {
    std::env::var("LONGSHORE_KILL_LOOPS")
        .ok()
        .and_then(|number| number.parse().ok())
        .unwrap_or(20)
}

/// Numbers that look random and are the same in every run (xorshift; Marsaglia 2003).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn busybox() -> Result<String, Stop> {
    Ok(source(image::shared()?))
}

fn show(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

async fn hold(root: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    let spec = ContainerSpec::image("busybox").command(["sh", "-c", "echo in >/x; sleep 60 & sleep 60"]);
    let container = engine.run(spec).await?;
    println!("running {}", container.inspect().await?.pid.unwrap_or(0));
    tokio::time::sleep(Duration::from_secs(60)).await;
    Ok(())
}

/// The last one standing finds nothing that should not be there.
fn audits_clean(root: &Path) -> Check {
    block_on(async {
        let engine = Engine::open(root).await?;
        let start = Instant::now();
        loop {
            // An owner may have died after this engine looked for dead ones, as it does when it is opened.
            engine.reconcile().await?;
            let audit = engine.audit().await?;
            if audit.is_clean() {
                return Ok(());
            }
            if start.elapsed() > Duration::from_secs(5) {
                return fail(format!("the audit says {:?}", audit.findings));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
}

/// A root with busybox in it, and no engine open.
pub fn filled_root() -> Result<TempRoot, Stop> {
    let root = TempRoot::new();
    fill(root.path())?;
    Ok(root)
}

/// Uses an engine once: what stays in a process from then on (the memory files of the helper's programs, say) is no leak of a test.
pub fn warm_up() {
    if let Ok(root) = filled_root() {
        let _ = block_on(async {
            let engine = runtime::builder(root.path()).open().await?;
            let spec = || runtime::with_a_network(ContainerSpec::image("busybox")).command(["true"]);
            engine.run(spec()).output().await?;
            let detached = engine.run(spec().lifetime(Lifetime::Detached)).await?;
            detached.wait().await?;
            detached.remove(RemoveOptions::default()).await?;
            engine.close().await;
            Ok::<_, longshore::Error>(())
        });
    }
}

/// Pulls busybox into a root.
pub fn fill(root: &Path) -> Check {
    let source = busybox()?;
    block_on(async {
        let engine = runtime::builder(root).open().await?;
        let image = engine.pull(source).await?;
        image.tag(&"busybox".parse()?).await?;
        Ok::<_, longshore::Error>(())
    })?;
    Ok(())
}

fn g17_nothing_outlives_a_killed_embedder() -> Check {
    let root = filled_root()?;
    let before = Snapshot::take();
    let mut embedder = Embedder::start("hold", &[show(root.path())])?;
    let line = embedder.line(Duration::from_secs(10))?;
    let Some(pid) = line.strip_prefix("running ") else {
        return fail(line);
    };
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    let start = Instant::now();
    embedder.kill()?;
    drop(embedder);
    let leaks = before.leaks_within(Duration::from_secs(2));
    assert!(
        leaks.is_empty(),
        "left two seconds after the kill:\n  {}",
        leaks.join("\n  ")
    );
    println!("gone {:?} after the kill", start.elapsed());
    no_container_left(root.path())
}

/// Opens the root anew: no container is listed, and every image that is can run.
pub fn no_container_left(root: &Path) -> Check {
    block_on(async {
        let engine = Engine::open(root).await?;
        // The more were killed, the more there is to clear away: five seconds in which nothing goes are too long.
        let (mut fewest, mut start) = (usize::MAX, Instant::now());
        loop {
            let left = engine
                .list(ListOptions {
                    all: true,
                    ..ListOptions::default()
                })
                .await?;
            if left.is_empty() {
                break;
            }
            if left.len() < fewest {
                (fewest, start) = (left.len(), Instant::now());
            }
            if start.elapsed() > Duration::from_secs(5) {
                return fail(format!("still listed: {left:?}"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for image in engine.list_images(Filter::new()).await? {
            let spec = ContainerSpec::image(image.id.to_string()).entrypoint(["echo", "whole"]);
            assert_eq!(text(&engine.run(spec).output().await?.stdout), "whole");
        }
        Ok(())
    })
}

fn company_spec() -> ContainerSpec {
    ContainerSpec::image("busybox").label(company::LABEL, "")
}

async fn run_forever(root: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    println!("open");
    loop {
        let container = engine
            .run(company_spec().command(["sh", "-c", "echo x > /x; sleep 0.01"]))
            .await?;
        let again = engine.create(company_spec()).await?;
        container.remove(FORCE).await?;
        again.remove(FORCE).await?;
    }
}

fn e9_kills_during_runs_leave_nothing() -> Check {
    let root = filled_root()?;
    let before = Snapshot::take();
    let mut random = Random(0x5eed_0002);
    for round in 0..kills() {
        let mut embedder = Embedder::start("run-forever", &[show(root.path())])?;
        assert_eq!(embedder.line(Duration::from_secs(10))?, "open");
        let moment = Duration::from_micros(random.below(100_000));
        std::thread::sleep(moment);
        embedder.kill()?;
        drop(embedder);
        let leaks = before.leaks_within(Duration::from_secs(2));
        assert!(
            leaks.is_empty(),
            "kill {round}, {moment:?} after open, left:\n  {}",
            leaks.join("\n  ")
        );
    }
    no_container_left(root.path())
}

/// The layers of a user's containers are removed by his helper: an engine that goes meanwhile begins no other one, whose
/// answers nobody would bring to who clears up.
fn e9_an_engine_goes_while_it_clears_up() -> Check {
    warm_up();
    let root = filled_root()?;
    let mut random = Random(0x5eed_0004);
    let before = Snapshot::take();
    for round in 0..kills() / 2 {
        let mut victim = Embedder::start("create", &[show(root.path()), &format!("left-{round}"), "12"])?;
        while victim.line(Duration::from_secs(10))? != "done" {}
        victim.kill()?;
        drop(victim);
        let helpers = before.leaks_within(Duration::from_secs(10));
        assert!(helpers.is_empty(), "{helpers:?}");
        let moment = Duration::from_micros(random.below(20_000));
        block_on(async {
            let engine = Engine::open(root.path()).await?;
            tokio::time::sleep(moment).await;
            drop(engine);
            Ok::<_, Stop>(())
        })?;
        let leaks = before.leaks_within(Duration::from_secs(5));
        assert!(
            leaks.is_empty(),
            "an engine that went {moment:?} after it was opened left:\n  {}",
            leaks.join("\n  ")
        );
    }
    audits_clean(root.path())
}

async fn create(root: &str, name: &str, count: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    println!("open");
    for number in 0..count.parse().unwrap_or(1) {
        let spec = ContainerSpec::image("busybox").name(format!("{name}-{number}"));
        match engine.create(spec).await {
            Ok(_) => println!("won {number}"),
            Err(error) if error.kind() == &ErrorKind::Conflict => println!("lost {number}"),
            Err(error) => return Err(error),
        }
    }
    println!("done");
    // The containers are this process's, so it stays until it is killed.
    tokio::time::sleep(Duration::from_secs(60)).await;
    Ok(())
}

fn h5_two_processes_race_for_one_name() -> Check {
    const NAMES: usize = 30;
    let root = filled_root()?;
    let count = NAMES.to_string();
    let start = || Embedder::start("create", &[show(root.path()), "race", &count]);
    let racers = [start()?, start()?];
    let mut won = Vec::new();
    for racer in &racers {
        loop {
            let line = racer.line(Duration::from_secs(20))?;
            match line.split_once(' ') {
                Some(("won", number)) => won.push(number.to_owned()),
                Some(("error", _)) => return fail(line),
                _ if line == "done" => break,
                _ => {}
            }
        }
    }
    let distinct: BTreeSet<&String> = won.iter().collect();
    assert_eq!((won.len(), distinct.len()), (NAMES, NAMES), "each name has one winner");
    Ok(())
}

async fn work_forever(root: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    println!("open");
    loop {
        let spec = ContainerSpec::image("busybox")
            .command(["echo", "steady"])
            .label(company::LABEL, "");
        let output = engine.run(spec).output().await?;
        assert_eq!(output.stdout, b"steady\n");
        // Those whom it keeps company need the processors, too.
        tokio::time::sleep(company::PAUSE).await;
    }
}

/// Pulls, runs and removes the same image's containers so many times, each with its own output.
async fn work(root: &str, rounds: &str, source: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    println!("open");
    for number in 0..rounds.parse().unwrap_or(1) {
        let image = engine.pull(source).await?.id().to_string();
        let text = format!("{number}");
        let spec = || ContainerSpec::image(&image).command(["echo", &text]);
        let output = engine.run(spec()).output().await?;
        assert_eq!(output.stdout, format!("{number}\n").as_bytes());
        let container = engine.run(spec()).await?;
        assert!(container.wait().await?.status.success());
        container.remove(RemoveOptions::default()).await?;
    }
    println!("done");
    Ok(())
}

fn d9_processes_share_a_root() -> Check {
    let root = filled_root()?;
    let rounds = if kills() > 20 { "100" } else { "15" };
    let source = busybox()?;
    let start = || Embedder::start("work", &[show(root.path()), rounds, &source]);
    let workers = (0..8).map(|_| start()).collect::<Result<Vec<_>, _>>()?;
    for worker in workers {
        assert_eq!(worker.line(Duration::from_secs(10))?, "open");
        assert_eq!(worker.line(Duration::from_secs(240))?, "done");
        assert_eq!(worker.finish()?, 0);
    }
    no_container_left(root.path())?;
    audits_clean(root.path())
}

fn d9_the_suite_of_one_while_others_are_killed() -> Check {
    let root = filled_root()?;
    let steady = Embedder::start("work", &[show(root.path()), "30", &busybox()?])?;
    assert_eq!(steady.line(Duration::from_secs(10))?, "open");
    let mut random = Random(0x5eed_0003);
    for _ in 0..kills() / 2 {
        let mut victim = Embedder::start("run-forever", &[show(root.path())])?;
        assert_eq!(victim.line(Duration::from_secs(10))?, "open");
        std::thread::sleep(Duration::from_micros(random.below(80_000)));
        victim.kill()?;
    }
    assert_eq!(steady.line(Duration::from_secs(120))?, "done");
    assert_eq!(steady.finish()?, 0);
    no_container_left(root.path())
}

async fn the_last_handle_ends_the_containers() -> Check {
    let world = World::new().await?;
    let container = world.started(world.spec().command(["sleep", "60"])).await?;
    let pid = container.inspect().await?.pid.expect("it runs");
    let World { engine, image, root } = world;
    drop((engine, image));
    assert!(
        Path::new(&format!("/proc/{pid}")).exists(),
        "a container's handle keeps the engine"
    );
    drop(container);
    let start = Instant::now();
    while Path::new(&format!("/proc/{pid}")).exists() {
        assert!(start.elapsed() < Duration::from_secs(30), "it still runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(root);
    Ok(())
}

static ENGINE: OnceLock<Engine> = OnceLock::new();

/// One engine in a static, used from two runtimes after each other, and from a multi-threaded one.
fn role_static(root: &str) -> i32 {
    let run = || async {
        let engine = match ENGINE.get() {
            Some(engine) => engine,
            None => {
                let engine = Engine::open(root).await?;
                ENGINE.get_or_init(|| engine)
            }
        };
        let output = engine
            .run(ContainerSpec::image("busybox").command(["echo", "hello"]))
            .output()
            .await?;
        println!("{}", text(&output.stdout));
        Ok(())
    };
    let many = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    [block_on(role(run())), block_on(role(run())), many.block_on(role(run()))]
        .into_iter()
        .sum()
}

fn a_static_engine_outlives_runtimes() -> Check {
    let root = filled_root()?;
    let role = Embedder::start("static", &[show(root.path())])?;
    for _ in 0..3 {
        assert_eq!(role.line(Duration::from_secs(10))?, "hello");
    }
    assert_eq!(role.finish()?, 0);
    Ok(())
}

/// Awaits without any runtime: a waker that unparks this thread is enough.
fn wait_plainly<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(std::sync::Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park();
    }
}

fn an_engine_works_without_a_runtime() -> Check {
    let root = filled_root()?;
    wait_plainly(async {
        let engine = Engine::open(root.path()).await?;
        let output = engine
            .run(ContainerSpec::image("busybox").command(["echo", "bare"]))
            .output()
            .await?;
        assert_eq!(text(&output.stdout), "bare");
        let container = engine
            .run(ContainerSpec::image("busybox").command(["sleep", "60"]))
            .deadline(Duration::from_secs(20))
            .await?;
        container.remove(FORCE).await?;
        Ok(())
    })
}

/// What of a process a library must not change.
fn own_state() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kept = [
        "Umask",
        "SigBlk",
        "SigIgn",
        "SigCgt",
        "NoNewPrivs",
        "Seccomp:",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "Groups",
        "Uid",
        "Gid",
    ];
    let lines = status
        .lines()
        .filter(|line| kept.iter().any(|key| line.starts_with(key)))
        .collect::<Vec<_>>()
        .join("\n");
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let variables: Vec<_> = std::env::vars_os().collect();
    let subreaper = nix::sys::prctl::get_child_subreaper();
    let namespaces: Vec<_> = ["mnt", "net", "pid", "user", "ipc", "uts", "cgroup"]
        .iter()
        .map(|name| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap_or_default())
        .collect();
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let tls = tokio_rustls::rustls::crypto::CryptoProvider::get_default().is_some();
    format!(
        "{lines}\nTLS provider set: {tls}\n{limits}\n{:?}\n{variables:?}\n{subreaper:?}\n{namespaces:?}\n{cgroup}",
        std::env::current_dir().ok()
    )
}

/// Pulls over TLS and runs, on plain threads, and compares the process with before.
fn role_bare(root: &str, reference: &str, authority: &str) -> i32 {
    // With its first thread the C library takes signals 32 and 33 for itself.
    std::thread::spawn(|| {}).join().expect("no panic");
    let before = own_state();
    let used = wait_plainly(async {
        let pem = std::fs::read(authority).unwrap_or_default();
        let host = reference.split('/').next().unwrap_or_default();
        let registries = HttpRegistries::new(HttpOptions::new()).with_host(host, HttpOptions::new().ca_pem(pem));
        let engine = Engine::builder(root)
            .registries(std::sync::Arc::new(registries))
            .open()
            .await?;
        let spec = ContainerSpec::image(reference).command(["true"]);
        engine.run(spec).output().await.map(drop)
    });
    if let Err(error) = used {
        println!("error {}", error.report());
        return 1;
    }
    let after = own_state();
    for (old, new) in before.lines().zip(after.lines()).filter(|(old, new)| old != new) {
        println!("was {old} is {new}");
    }
    println!("{}", if before == after { "same" } else { "differs" });
    0
}

fn the_embedders_process_is_left_alone() -> Check {
    let root = filled_root()?;
    let options = Options {
        tls: true,
        ..Options::default()
    };
    let registry = Registry::with(options, &[(image::shared()?, "busybox", "tls")])?;
    let (reference, authority) = (registry.reference("busybox:tls"), registry.authority());
    let role = Embedder::start("bare", &[show(root.path()), &reference, show(&authority)])?;
    assert_eq!(role.line(Duration::from_secs(20))?, "same");
    assert_eq!(role.finish()?, 0);
    Ok(())
}
