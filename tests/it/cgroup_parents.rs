//! Containers in a cgroup that the caller names: where they are, what holds there, and what is left of it.
//!
//! Root names it below the roots of the hierarchies; an ordinary user, below what was delegated to him, which on a host with version 1
//! alone is nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use longshore::runtime::cgroups::NoCgroups;
use longshore::types::Signal;
use longshore::{Bytes, Container, ContainerSpec, Engine, ErrorKind, ExecSpec, Lifetime, StopOptions};
use nix::sys::signal::{Signal as Number, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::frame::{Check, Stop, block_on, fail, skip};
use crate::longshored::Daemon;
use crate::support::embedder::{Embedder, Role};
use crate::support::image;
use crate::support::is_root;
use crate::support::leaks::all_processes;
use crate::support::root::TempRoot;
use crate::support::world::{FORCE, World, source, text};
use crate::tests;

tests! { "cgroup_parents":
    kernel_async [
        h22_a_container_is_in_its_parent,
        h22_a_parent_that_was_there_stays,
        h22_limits_of_the_parent_hold_for_all_in_it,
        h22_what_leads_elsewhere_is_refused,
        h22_without_a_cgroup_to_write_to_it_is_unsupported,
        h22_a_container_that_outlives_its_engine_is_in_it_too,
        h22_runc_and_crun_are_told,
    ]
    kernel [
        h22_nothing_is_left_of_a_killed_engine,
        h22_what_its_helper_could_not_remove_the_next_engine_does,
        h22_over_the_api,
    ]
}

pub const ROLES: &[(&str, Role)] = &[
    ("cgroup-parents-forever", role_forever),
    ("cgroup-parents-held", role_held),
];

/// What the leak check knows as ours; never the same twice.
fn fresh() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("h22-longshore-{}-{number}", std::process::id())
}

/// A container that stays.
fn sleeper(world: &World, parent: &str) -> ContainerSpec {
    let sleep = world.spec().command(["sleep", "1000"]).stop_signal(Signal::KILL);
    sleep.cgroup_parent(parent)
}

/// The cgroups of a container's first process, by hierarchy: its controllers, and the path from the hierarchy's root.
fn membership(pid: u32) -> Result<Vec<(String, String)>, Stop> {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let split = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
    };
    Ok(table.lines().filter_map(split).collect())
}

/// Where hierarchies are mounted.
fn mounts() -> Result<Vec<PathBuf>, Stop> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let lines = table.lines().filter(|line| line.contains(" - cgroup"));
    Ok(lines
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .collect())
}

/// All cgroups below those that bear a name.
fn with_name(name: &str) -> Result<Vec<PathBuf>, Stop> {
    fn below(dir: &Path, name: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name() == name {
                found.push(entry.path());
            }
            below(&entry.path(), name, found);
        }
    }
    let mut found = Vec::new();
    mounts()?.iter().for_each(|mount| below(mount, name, &mut found));
    Ok(found)
}

/// The directories in which the engine makes its own cgroups, where containers can have a parent at all.
async fn homes(world: &World) -> Result<Vec<PathBuf>, Stop> {
    if is_root() {
        return mounts();
    }
    let container = world
        .started(world.spec().command(["sleep", "1000"]).stop_signal(Signal::KILL))
        .await?;
    let pid = container.inspect().await?.pid.expect("it runs");
    let path = membership(pid)?
        .into_iter()
        .find(|(controllers, _)| controllers.is_empty());
    let path = path.map(|(_, path)| path).unwrap_or_default();
    let own = path.contains("/longshore-");
    container.remove(FORCE).await?;
    if !own {
        return skip("no cgroup is delegated to this user");
    }
    let home = Path::new(&path).ancestors().nth(2).unwrap_or(Path::new("/"));
    Ok(vec![
        Path::new("/sys/fs/cgroup").join(home.strip_prefix("/").unwrap_or(home)),
    ])
}

/// A parent below those, in the words of whoever asks.
fn said(name: &str) -> String {
    if is_root() { format!("/{name}") } else { name.to_owned() }
}

/// Waits for what is on its way.
fn until_gone(name: &str) -> Check {
    for _ in 0..200 {
        if with_name(name)?.is_empty() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    fail(format!("left after two seconds: {:?}", with_name(name)?))
}

async fn h22_a_container_is_in_its_parent() -> Check {
    let world = World::new().await?;
    let homes = homes(&world).await?;
    let name = fresh();
    let parent = format!("{}/inner", said(&name));
    let mut running: Vec<Container> = Vec::new();
    for _ in 0..2 {
        let container = world.started(sleeper(&world, &parent)).await?;
        let seen = container.inspect().await?;
        assert_eq!(seen.spec.cgroup_parent.as_deref(), Some(parent.as_str()));
        let end = format!("/{name}/inner/{}", container.id());
        for (controllers, path) in membership(seen.pid.expect("it runs"))? {
            let held = if is_root() {
                path == end
            } else {
                path.ends_with(&end) || !controllers.is_empty()
            };
            assert!(held, "{controllers}: {path} is not {end}");
        }
        // Its commands are there, and so is what it sees of itself: the root of its own.
        let command = container
            .exec(ExecSpec::new(["cat", "/proc/self/cgroup"]))
            .output()
            .await?;
        let command = text(&command.stdout);
        assert!(command.lines().all(|line| line.ends_with(":/")), "{command}");
        running.push(container);
    }
    for home in &homes {
        let inner = home.join(&name).join("inner");
        let children = fs::read_dir(&inner)?
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .count();
        assert_eq!(children, 2, "in {}", inner.display());
    }
    // Its last container takes it along, and no other.
    let last = running.pop().expect("two of them");
    running.pop().expect("two of them").remove(FORCE).await?;
    assert_eq!(with_name(&name)?.len(), homes.len());
    last.stop(StopOptions::default()).await?;
    assert!(with_name(&name)?.is_empty(), "{:?}", with_name(&name)?);
    last.start().await?;
    assert_eq!(with_name(&name)?.len(), homes.len());
    last.remove(FORCE).await?;
    assert!(with_name(&name)?.is_empty(), "{:?}", with_name(&name)?);
    // One whose program is not there leaves nothing either.
    let failing = world
        .engine
        .create(sleeper(&world, &parent).command(["/nowhere"]))
        .await?;
    let error = failing.start().await.expect_err("there is no such program");
    assert_eq!(error.kind(), &ErrorKind::CommandNotFound, "{}", error.report());
    assert!(with_name(&name)?.is_empty(), "{:?}", with_name(&name)?);
    failing.remove(FORCE).await?;
    Ok(())
}

/// Directories of the test's own, which it removes.
struct Made(Vec<PathBuf>);

impl Made {
    fn new(homes: &[PathBuf], name: &str) -> Result<Self, Stop> {
        let mut made = Self(Vec::new());
        for home in homes {
            fs::create_dir(home.join(name))?;
            made.0.push(home.join(name));
        }
        Ok(made)
    }

    /// Writes to a file that one of them has; whether one has.
    fn set(&self, file: &str, value: &str) -> Result<bool, Stop> {
        for dir in &self.0 {
            match fs::write(dir.join(file), value) {
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {}
                written => return Ok(written.map(|()| true)?),
            }
        }
        Ok(false)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for dir in &self.0 {
            let _ = fs::remove_dir(dir);
        }
    }
}

async fn h22_a_parent_that_was_there_stays() -> Check {
    let world = World::new().await?;
    let name = fresh();
    let made = Made::new(&homes(&world).await?, &name)?;
    // What is made below it goes, and it does not.
    let container = world
        .started(sleeper(&world, &format!("{}/of-the-engine", said(&name))))
        .await?;
    let beside = world.started(sleeper(&world, &said(&name))).await?;
    for dir in &made.0 {
        assert!(dir.join("of-the-engine").is_dir() && dir.join(beside.id().as_str()).is_dir());
    }
    container.remove(FORCE).await?;
    beside.remove(FORCE).await?;
    for dir in &made.0 {
        let left = fs::read_dir(dir)?
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .count();
        assert_eq!(left, 0, "in {}", dir.display());
    }
    Ok(())
}

async fn h22_limits_of_the_parent_hold_for_all_in_it() -> Check {
    let world = World::new().await?;
    let name = fresh();
    let made = Made::new(&homes(&world).await?, &name)?;
    if !made.set("pids.max", "8")? {
        return skip("no cgroup here limits processes");
    }
    // Each of them could have twice as many.
    let one = world.started(sleeper(&world, &said(&name)).pids_limit(16)).await?;
    let many = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done; echo all";
    let output = world
        .output(sleeper(&world, &said(&name)).command(["sh", "-c", many]).pids_limit(16))
        .await?;
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(!out.contains("all") && err.contains("fork"), "{out:?} {err:?}");
    // Without a parent, the same command has no limit.
    let free = many.replace("sleep 5 &", "sleep 0.1 &");
    assert_eq!(world.says(world.script(&free)).await?, "all");
    // Its own limit is its own, and what is set later is, too.
    if let Some(own) = made
        .0
        .iter()
        .map(|dir| dir.join(one.id().as_str()).join("pids.max"))
        .find(|file| file.exists())
    {
        assert_eq!(fs::read_to_string(own)?.trim(), "16");
    }
    one.pause().await?;
    one.unpause().await?;
    one.remove(FORCE).await?;
    if made.set("memory.max", "16777216")? || made.set("memory.limit_in_bytes", "16777216")? {
        let greedy = "x=0123456789abcdef; while :; do x=$x$x; done";
        let spec = sleeper(&world, &said(&name))
            .command(["sh", "-c", greedy])
            .memory(Bytes::mib(512));
        let output = world.output(spec).await?;
        assert!(!output.status.success(), "{}", output.status);
    }
    Ok(())
}

async fn h22_what_leads_elsewhere_is_refused() -> Check {
    let world = World::new().await?;
    for bad in [
        "",
        "..",
        "../x",
        "/a/../../b",
        "a//b",
        "a/",
        "./a",
        "a\nb",
        "a\0b",
        "/longshore-000000000000/x",
    ] {
        let error = world.engine.create(sleeper(&world, bad)).await.expect_err(bad);
        assert_eq!(error.kind(), &ErrorKind::InvalidArgument, "{bad:?}: {}", error.report());
        assert!(error.report().contains("cgroup parent"), "{}", error.report());
    }
    assert!(world.containers().await?.is_empty());
    // A file of the kernel's has the name.
    homes(&world).await?;
    let file = world.engine.create(sleeper(&world, &said("cgroup.procs"))).await?;
    let error = file.start().await.expect_err("it is no directory");
    assert_eq!(error.kind(), &ErrorKind::InvalidArgument, "{}", error.report());
    file.remove(FORCE).await?;
    Ok(())
}

async fn h22_without_a_cgroup_to_write_to_it_is_unsupported() -> Check {
    let root = TempRoot::new();
    let engine = Engine::builder(root.path())
        .cgroups(Arc::new(NoCgroups::new()))
        .open()
        .await?;
    let image = engine.pull(source(image::shared()?)).await?;
    let spec = ContainerSpec::image(image.id().to_string()).command(["true"]);
    let name = fresh();
    for parent in [name.clone(), format!("/{name}")] {
        let container = engine.create(spec.clone().cgroup_parent(parent)).await?;
        let error = container.start().await.expect_err("there are no cgroups");
        assert!(error.is_unsupported(), "{}", error.report());
        container.remove(FORCE).await?;
    }
    if is_root() {
        return Ok(());
    }
    // Root's is out of reach, whatever was delegated.
    let world = World::new().await?;
    let container = world.engine.create(sleeper(&world, &format!("/{name}"))).await?;
    let error = container.start().await.expect_err("an ordinary user");
    assert!(error.is_unsupported(), "{}", error.report());
    assert!(error.report().contains("cgroup"), "{}", error.report());
    container.remove(FORCE).await?;
    Ok(())
}

async fn h22_a_container_that_outlives_its_engine_is_in_it_too() -> Check {
    let world = World::alone().await?;
    let homes = homes(&world).await?;
    let name = fresh();
    let spec = sleeper(&world, &said(&name)).lifetime(Lifetime::Detached);
    let id = world.started(spec).await?.id().to_string();
    let World { engine, image, root } = world;
    drop((image, engine));
    assert_eq!(with_name(&name)?.len(), homes.len());
    let engine = Engine::open(root.path()).await?;
    let container = engine.container(&id).await?;
    let pid = container.inspect().await?.pid.expect("it runs");
    let end = format!("/{name}/{id}");
    assert!(membership(pid)?.iter().any(|(_, path)| path.ends_with(&end)));
    container.pause().await?;
    container.unpause().await?;
    container.stop(StopOptions::default()).await?;
    until_gone(&name)?;
    container.start().await?;
    assert_eq!(with_name(&name)?.len(), homes.len());
    // Its shim is killed with it: the next who looks removes what they left.
    let pid = container.inspect().await?.pid.expect("it runs");
    let shim = crate::detached::shim_of(root.path(), &id).expect("it has a shim");
    for pid in [shim, pid] {
        let _ = kill(Pid::from_raw(i32::try_from(pid)?), Number::SIGKILL);
    }
    container.wait().await.ok();
    container.remove(FORCE).await?;
    until_gone(&name)?;
    Ok(())
}

async fn h22_runc_and_crun_are_told() -> Check {
    let world = World::new().await?;
    let homes = homes(&world).await?;
    let mut any = false;
    for runtime in ["runc", "crun"] {
        let name = fresh();
        let spec = sleeper(&world, &said(&name)).runtime(runtime);
        let container = match world.engine.create(spec).await {
            Ok(container) => container,
            Err(error) if error.is_unsupported() => continue,
            Err(error) => return Err(error.into()),
        };
        any = true;
        container.start().await?;
        let pid = container.inspect().await?.pid.expect("it runs");
        let end = format!("/{name}/{}", container.id());
        for (controllers, path) in membership(pid)? {
            let held = path.ends_with(&end) || (!is_root() && !controllers.is_empty());
            assert!(held, "{runtime}, {controllers}: {path} is not {end}");
        }
        assert_eq!(with_name(&name)?.len(), homes.len(), "{runtime}");
        container.remove(FORCE).await?;
        assert!(with_name(&name)?.is_empty(), "{runtime}: {:?}", with_name(&name)?);
    }
    if any {
        Ok(())
    } else {
        skip("neither runc nor crun is installed")
    }
}

fn role_forever(arguments: &[String]) -> i32 {
    let [root, parent] = arguments else { return 2 };
    let run = async move {
        let engine = Engine::open(root).await?;
        println!("open");
        loop {
            let spec = ContainerSpec::image("busybox").command(["sleep", "1000"]);
            let container = engine.run(spec.cgroup_parent(parent)).await?;
            container.remove(FORCE).await?;
        }
        #[allow(unreachable_code)]
        longshore::Result::Ok(())
    };
    let ended: longshore::Result<()> = block_on(run);
    i32::from(ended.is_err())
}

fn role_held(arguments: &[String]) -> i32 {
    let [root, parent] = arguments else { return 2 };
    let run = async move {
        let engine = Engine::open(root).await?;
        let spec = ContainerSpec::image("busybox").command(["sleep", "1000"]);
        let _held = engine.run(spec.cgroup_parent(parent)).await?;
        println!("runs");
        std::future::pending::<()>().await;
        longshore::Result::Ok(())
    };
    let ended: longshore::Result<()> = block_on(run);
    i32::from(ended.is_err())
}

/// Whether containers can have a parent here.
fn must_have_homes() -> Check {
    block_on(async { homes(&World::new().await?).await.map(|_| ()) })
}

fn h22_nothing_is_left_of_a_killed_engine() -> Check {
    must_have_homes()?;
    let root = crate::faults::filled_root()?;
    let path = root.path().to_str().unwrap_or_default();
    for pause in [5u64, 20, 45, 80, 130, 200] {
        let name = fresh();
        let mut embedder = Embedder::start("cgroup-parents-forever", &[path, &said(&name)])?;
        assert_eq!(embedder.line(Duration::from_secs(20))?, "open");
        std::thread::sleep(Duration::from_millis(pause));
        embedder.kill()?;
        drop(embedder);
        until_gone(&name)?;
    }
    Ok(())
}

fn h22_what_its_helper_could_not_remove_the_next_engine_does() -> Check {
    must_have_homes()?;
    let root = crate::faults::filled_root()?;
    let name = fresh();
    let path = root.path().to_str().unwrap_or_default();
    let mut embedder = Embedder::start("cgroup-parents-held", &[path, &said(&name)])?;
    assert_eq!(embedder.line(Duration::from_secs(20))?, "runs");
    let mut helpers = all_processes();
    helpers.retain(|process| process.helper && process.parent == embedder.pid());
    assert!(!helpers.is_empty());
    // It cannot see the embedder go: it stands still, until it is killed.
    for helper in &helpers {
        kill(Pid::from_raw(i32::try_from(helper.pid)?), Number::SIGSTOP)?;
    }
    embedder.kill()?;
    drop(embedder);
    for helper in &helpers {
        kill(Pid::from_raw(i32::try_from(helper.pid)?), Number::SIGKILL)?;
    }
    assert!(!with_name(&name)?.is_empty(), "nobody was there to remove it");
    block_on(async {
        let engine = Engine::open(root.path()).await?;
        engine.reconcile().await?;
        Ok::<_, Stop>(())
    })?;
    until_gone(&name)
}

fn h22_over_the_api() -> Check {
    let daemon = Daemon::start(&[])?;
    let ask = |verb: &str, path: &str, body: &str, code: u16| daemon.ask(verb, path, body)?.expect(code);
    let bad = json!({"Image": "busybox", "HostConfig": {"CgroupParent": "/a/../b"}});
    let message = ask("POST", "/v1.44/containers/create", &bad.to_string(), 400)?.message()?;
    assert!(message.contains("invalid cgroup parent"), "{message}");
    let name = fresh();
    let parent = said(&name);
    let host = json!({"NetworkMode": "none", "CgroupParent": parent});
    let body = json!({"Image": "busybox", "Cmd": ["cat", "/proc/self/cgroup"], "HostConfig": host});
    let created = ask("POST", "/v1.44/containers/create", &body.to_string(), 201)?.json()?;
    let id = created["Id"].as_str().unwrap_or_default();
    let shown = ask("GET", &format!("/v1.44/containers/{id}/json"), "", 200)?.json()?;
    assert_eq!(shown["HostConfig"]["CgroupParent"], json!(parent));
    ask("DELETE", &format!("/containers/{id}"), "", 204)?;
    // The client, and with it an engine elsewhere.
    must_have_homes()?;
    let mut client = std::process::Command::new(crate::platforms::client()?);
    client.arg("--host").arg(format!("unix://{}", daemon.socket.display()));
    client.args([
        "run",
        "--rm",
        "--network",
        "none",
        "--cgroupns",
        "host",
        "--cgroup-parent",
        &parent,
        "busybox",
    ]);
    let output = client
        .args(["cat", "/proc/self/cgroup"])
        .stdin(std::process::Stdio::null())
        .output()?;
    let seen = text(&output.stdout);
    assert!(
        output.status.success() && seen.contains(&format!("/{name}/")),
        "{output:?}"
    );
    until_gone(&name)
}
