//! System calls that are made for a start are made to fail, by strace(1): each of the helper's, and those of the engine that
//! take or change something. The start says where, and leaves nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use longshore::{Container, ContainerSpec, ContainerState, Engine, ErrorKind};

use crate::faults::filled_root;
use crate::frame::{Check, Stop, fail, skip};
use crate::support::embedder::{Embedder, Role};
use crate::support::leaks::all_processes;
use crate::support::world::{FORCE, World};
use crate::support::{is_root, long_loops, program, scratch};
use crate::tests;

tests! { "inject":
    kernel_async [
        g1_every_system_call_of_a_start_that_fails,
        g1_calls_of_the_engine_for_a_start_that_fail,
    ]
}

/// What belongs to no step of a start: how the helper waits, cleans up, and ends what failed.
const LEFT_OUT: &[&str] = &[
    "brk",
    "close",
    "close_range",
    "execve",
    "exit",
    "exit_group",
    "futex",
    "getpid",
    "getppid",
    "gettid",
    "kill",
    "mmap",
    "munmap",
    "pidfd_send_signal",
    "poll",
    "ppoll",
    "read",
    "recvmsg",
    "restart_syscall",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "unlinkat",
    "wait4",
    "waitid",
];
/// A call that is made very often fails in its first few places, with the long loops in more of them.
fn places() -> usize {
    if long_loops() { 12 } else { 4 }
}

/// Each start is under way for so long at most.
const PATIENCE: Duration = Duration::from_secs(20);

/// strace on the helper. Ended when it is dropped.
struct Trace(Child);

impl Trace {
    /// On the helper that is there; a helper that failed before may be on its way out, and then there is another one.
    async fn begin(world: &World, options: &[&str]) -> Result<Self, Stop> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let Ok(helper) = helper() else {
                world.says(world.spec().command(["true"])).await?;
                continue;
            };
            if let Some(trace) = Self::attach(helper, options)? {
                return Ok(trace);
            }
        }
        fail("strace could not attach to the helper")
    }

    fn attach(helper: u32, options: &[&str]) -> Result<Option<Self>, Stop> {
        let mut command = Command::new(program("strace")?);
        command
            .args(["-f", "-q"])
            .args(options)
            .args(["-p", &helper.to_string()]);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut trace = Self(child);
        // With -q it says nothing when it has attached; the kernel does.
        while matches!(trace.0.try_wait(), Ok(None)) {
            let status = fs::read_to_string(format!("/proc/{helper}/status")).unwrap_or_default();
            let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
            if tracer.is_some_and(|pid| pid.trim() != "0") {
                return Ok(Some(trace));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(None)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(2) {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // It waits for a process that waits for one that it must reap itself. Without it the kernel does.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The zygote of this process's one engine: the helper whose parent this is.
fn helper() -> Result<u32, Stop> {
    match helpers()[..] {
        [first, ..] => Ok(first),
        [] => fail("no helper runs"),
    }
}

fn helpers() -> Vec<u32> {
    let ours = |process: &crate::support::leaks::Process| process.helper && process.parent == std::process::id();
    let all = all_processes().into_iter().filter(ours);
    all.map(|process| process.pid).collect()
}

/// Which calls a start makes, and how often each process makes them at most.
fn calls(file: &Path) -> Result<BTreeMap<String, usize>, Stop> {
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut ended = Vec::new();
    for line in fs::read_to_string(file)?.lines() {
        let Some((pid, rest)) = line.split_once(' ') else {
            continue;
        };
        let Some((name, _)) = rest.trim_start().split_once('(') else {
            continue;
        };
        let is_name = name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if !is_name || ended.contains(&pid.to_owned()) {
            continue;
        }
        if name == "execve" {
            // From here on it is the container's program.
            ended.push(pid.to_owned());
            continue;
        }
        *counts.entry((pid.to_owned(), name.to_owned())).or_default() += 1;
    }
    let mut most = BTreeMap::new();
    for ((_, name), count) in counts {
        let known: &mut usize = most.entry(name).or_default();
        *known = count.max(*known);
    }
    most.retain(|name, _| !LEFT_OUT.contains(&name.as_str()));
    Ok(most)
}

async fn g1_every_system_call_of_a_start_that_fails() -> Check {
    if !is_root() {
        return skip("an ordinary user may not trace the helper, which cannot be dumped");
    }
    if program("strace").is_err() {
        return skip("no strace (Debian package strace)");
    }
    let world = World::alone().await?;
    let spec = || {
        world
            .spec()
            .command(["sleep", "1000"])
            .init(true)
            .hostname("box")
            .ulimit("nofile", 100, 200)
    };
    world.says(world.spec().command(["true"])).await?;
    // Those of engines of earlier tests end in their own time.
    let begun = Instant::now();
    while helpers().len() > 1 && begun.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(10));
    }
    let dir = scratch::fresh("strace");
    let file = dir.path().join("calls");
    let tracing = Trace::begin(&world, &["-o", &file.display().to_string()]).await?;
    let container = world.started(spec()).await?;
    drop(tracing);
    container.remove(FORCE).await?;
    let calls = calls(&file)?;
    assert!(calls.len() > 20, "hardly any calls were seen: {calls:?}");
    let (mut failed, mut borne) = (0, Vec::new());
    for (name, count) in calls {
        for place in 1..=count.min(places()) {
            let fault = format!("inject={name}:error=EIO:when={place}");
            let container = world.engine.create(spec()).await?;
            let options = ["-o", "/dev/null", "-e", &format!("trace={name}"), "-e", &fault];
            let tracing = Trace::begin(&world, &options).await?;
            let started = tokio::time::timeout(PATIENCE, container.start()).await;
            drop(tracing);
            let Ok(started) = started else {
                return fail(format!("{fault}: the start never ended"));
            };
            match started {
                // Something that can be done without.
                Ok(_) => borne.push(format!("{name}/{place}")),
                Err(error) => {
                    failed += 1;
                    let info = container.inspect().await?;
                    assert_eq!(info.state, ContainerState::Created, "{fault}");
                    assert!(info.error.is_some(), "{fault}: the record says nothing of it");
                    let gone = matches!(error.kind(), ErrorKind::Unavailable);
                    assert!(error.step().is_some() || gone, "{fault}: no step in {}", error.report());
                }
            }
            container.remove(FORCE).await?;
            nothing_runs(&fault)?;
        }
    }
    assert!(failed > 40, "{failed} failed; these did not: {borne:?}");
    assert_eq!(world.says(world.spec().command(["echo", "well"])).await?, "well");
    let audit = world.engine.audit().await?;
    assert!(audit.is_clean(), "{:?}", audit.findings);
    println!(
        "{failed} failed, {} could be done without: {}",
        borne.len(),
        borne.join(" ")
    );
    Ok(())
}

/// Nothing below this process but helpers of the engine.
fn nothing_runs(fault: &str) -> Check {
    let begun = Instant::now();
    loop {
        let strays: Vec<_> = all_processes()
            .into_iter()
            .filter(|process| process.descendant && process.parent != std::process::id())
            .collect();
        if strays.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(5) {
            return fail(format!("{fault}: {strays:?} runs on"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub const ROLES: &[(&str, Role)] = &[("start-when-told", role_start)];

/// What an embedder's process takes or changes for a start. How it waits, how threads wake each other (`write`, of an eventfd)
/// and how its memory is managed is left out: no program goes on without those.
const OF_THE_ENGINE: [&str; 14] = [
    "dup",
    "epoll_ctl",
    "ftruncate",
    "memfd_create",
    "mkdir",
    "mkdirat",
    "openat",
    "openat2",
    "pidfd_open",
    "pipe2",
    "pwrite64",
    "sendmsg",
    "socketpair",
    "symlink",
];

/// How SQLite locks: where the kernel does not take a lock back, SQLite waits for itself, up to half a minute each time.
const LOCKS: &str = "fcntl";

/// What is made to fail, and in which places: of the calls that such a start makes here. Which thread makes how many of them
/// is another thing each time, so one place more than was seen.
fn faults(made: &BTreeMap<String, usize>) -> Vec<(&'static str, usize)> {
    let names = OF_THE_ENGINE.into_iter().chain(long_loops().then_some(LOCKS));
    names
        .filter_map(|name| Some((name, made.get(name)? + 1)))
        .flat_map(|(name, count)| (1..=count.min(places())).map(move |place| (name, place)))
        .collect()
}

/// Starts a container as often as it is told by files: `N.go` says when, `N.ended` that it has, `N.look` that nothing is
/// traced any more.
fn role_start(arguments: &[String]) -> i32 {
    let [root, dir] = arguments else { return 2 };
    let run = async {
        let engine = Engine::open(root).await?;
        let spec = ContainerSpec::image("busybox").command(["sleep", "1000"]);
        engine.run(spec.clone()).await?.remove(FORCE).await?;
        for round in 0.. {
            let container = engine.create(spec.clone()).await?;
            println!("created");
            let _ = appears(Path::new(dir), round, "go").await;
            let started = tokio::time::timeout(4 * PATIENCE, container.start()).await;
            // Whatever of this is made to fail fails once.
            while fs::write(Path::new(dir).join(format!("{round}.ended")), "").is_err() {}
            let _ = appears(Path::new(dir), round, "look").await;
            println!("{}", told(&container, started).await);
        }
        Ok::<_, longshore::Error>(())
    };
    i32::from(crate::frame::block_on(run).is_err())
}

async fn appears(dir: &Path, round: usize, what: &str) -> Check {
    let (file, begun) = (dir.join(format!("{round}.{what}")), Instant::now());
    while !file.exists() {
        if begun.elapsed() > 6 * PATIENCE {
            return fail(format!("{} never appeared", file.display()));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// What became of a start, in a line.
async fn told<T>(container: &Container, started: Result<longshore::Result<T>, tokio::time::error::Elapsed>) -> String {
    let line = match started {
        Err(_) => "hung".to_owned(),
        Ok(Ok(_)) => "borne".to_owned(),
        Ok(Err(error)) => {
            let said = error.step().is_some() || error.kind() == &ErrorKind::Unavailable;
            match container.inspect().await {
                Ok(info) if info.state == ContainerState::Created && said => "failed".to_owned(),
                Ok(info) => format!("{} after {}, step {:?}", info.state, error.report(), error.step()),
                Err(other) => format!("{} after {}", other.report(), error.report()),
            }
        }
    };
    // The same container starts when nothing fails any more, and is as good as any.
    if line == "failed"
        && let Err(error) = container.start().await
    {
        return format!("the next start of it: {}", error.report());
    }
    match container.remove(FORCE).await {
        Ok(_) => line,
        Err(error) => format!("{line}, and then the removal: {}", error.report()),
    }
}

/// What the embedder says of its next start, while it is traced with these options. Nothing where it cannot be traced.
async fn traced(embedder: &Embedder, dir: &Path, round: usize, options: &[&str]) -> Result<Option<String>, Stop> {
    assert_eq!(embedder.line(PATIENCE)?, "created");
    let Some(tracing) = Trace::attach(embedder.pid(), options)? else {
        return Ok(None);
    };
    fs::write(dir.join(format!("{round}.go")), "")?;
    appears(dir, round, "ended").await?;
    drop(tracing);
    fs::write(dir.join(format!("{round}.look")), "")?;
    Ok(Some(embedder.line(8 * PATIENCE)?))
}

async fn g1_calls_of_the_engine_for_a_start_that_fail() -> Check {
    if program("strace").is_err() {
        return skip("no strace (Debian package strace)");
    }
    // It has a runtime of its own.
    let root = std::thread::spawn(filled_root).join().expect("no panic")?;
    let dir = scratch::fresh("rounds");
    let paths = [root.path(), dir.path()].map(|path| path.display().to_string());
    let embedder = Embedder::start("start-when-told", &[&paths[0], &paths[1]])?;
    let list = dir.path().join("calls").display().to_string();
    let Some(line) = traced(&embedder, dir.path(), 0, &["-o", &list]).await? else {
        return skip("this user may not trace its own processes");
    };
    assert_eq!(line, "borne", "with nothing that fails");
    let made = calls(Path::new(&list))?;
    let (mut failed, mut borne) = (0, Vec::new());
    for (round, (name, place)) in (1..).zip(faults(&made)) {
        let fault = format!("inject={name}:error=EIO:when={place}");
        let options = ["-o", "/dev/null", "-e", &format!("trace={name}"), "-e", &fault];
        let line = match traced(&embedder, dir.path(), round, &options).await {
            Ok(line) => line.unwrap_or_default(),
            Err(stop) => return fail(format!("{fault}: {stop:?}")),
        };
        match line.as_str() {
            "failed" => failed += 1,
            "borne" => borne.push(format!("{name}/{place}")),
            other => return fail(format!("{fault}: {other}")),
        }
    }
    assert!(failed > 8, "{failed} failed; these did not: {borne:?}");
    drop(embedder);
    let engine = Engine::open(root.path()).await?;
    engine.reconcile().await?;
    let audit = engine.audit().await?;
    assert!(audit.is_clean(), "{:?}", audit.findings);
    println!(
        "{failed} failed, {} could be done without: {}",
        borne.len(),
        borne.join(" ")
    );
    Ok(())
}
