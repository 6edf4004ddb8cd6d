//! Every system call that the helper makes for a start is made to fail, by strace(1): the start says where, and leaves nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use longshore::{ContainerState, ErrorKind};

use crate::frame::{Check, Stop, fail, skip};
use crate::support::leaks::all_processes;
use crate::support::world::{FORCE, World};
use crate::support::{is_root, program, scratch};
use crate::tests;

tests! { "inject":
    kernel_async [
        g1_every_system_call_of_a_start_that_fails,
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
    if std::env::var_os("LONGSHORE_KILL_LOOPS").is_some() {
        12
    } else {
        4
    }
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
