//! Detached containers, and what should not happen to them: files that are damaged, disks that are full, numbers of processes
//! that come again, an init that reaps nobody, strangers on the control socket. Whatever happens, no exit is told that was not.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use longshore::logs::LogQuery;
use longshore::runtime::detached::{Detach, DetachedRuntime, DetachedSeen, DetachedTask};
use longshore::runtime::native::{NativeOptions, NativeRuntime};
use longshore::runtime::{Launch, Runtime, Started};
use longshore::types::ContainerId;
use longshore::{
    Container, ContainerExit, ContainerSpec, ContainerState, Engine, ErrorKind, ExecSpec, Lifetime, LogConfig,
    RemoveOptions, RestartPolicy, Signal, StopOptions, WaitCondition,
};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal as Number, kill};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::unistd::Pid;

use crate::detached::{detached, events_of, kernel_tells_ends, left_behind, logged, shim_of, show};
use crate::faults::{Random, fill, filled_root, kills, no_container_left, role};
use crate::frame::{Check, Stop, block_on, fail, skip};
use crate::support::disk::Disk;
use crate::support::embedder::{Embedder, Role};
use crate::support::leaks::all_processes;
use crate::support::patience::{PATIENCE, until};
use crate::support::world::{FORCE, World};
use crate::support::{is_root, scratch};
use crate::tests;

tests! { "outlive":
    kernel [
        g16_a_full_disk_under_the_exit_record,
        g16_numbers_of_processes_come_again,
        g16_an_init_that_reaps_nobody,
        p30_a_control_group_is_killed,
        p30_whatever_is_killed_together_no_wrong_exit_is_told,
    ]
    kernel_async [
        g16_files_are_damaged_one_by_one_while_it_runs,
        g16_files_are_damaged_one_by_one_after_its_end,
        p30_whoever_takes_the_place_of_a_shim_all_who_wait_are_told,
        p30_another_engine_looks_while_an_end_is_written_down,
        p30_waits_begin_while_an_end_is_lost,
    ]
    waiting_async [
        g16_a_stranger_on_the_control_socket,
        p30_an_engine_takes_the_place_of_a_killed_shim,
        p30_a_policy_holds_when_a_shim_was_killed,
        p30_what_was_stopped_without_a_shim_stays_so,
    ]
}

/// What this binary does as a child.
pub const ROLES: &[(&str, Role)] = &[
    ("few-pids", |arguments| {
        inside(block_on(few_pids(Path::new(&arguments[0]))))
    }),
    ("lazy-init", |arguments| inside(lazy_init(Path::new(&arguments[0])))),
    ("both-kinds", |arguments| block_on(role(both_kinds(&arguments[0])))),
];

/// Pid 1 of a pid namespace says how it went.
fn inside(outcome: Check) -> i32 {
    match outcome {
        Ok(()) => println!("fine"),
        Err(Stop::Skip(why)) => println!("skip {why}"),
        Err(Stop::Fail(why)) => println!("fail {}", why.replace('\n', " ")),
    }
    0
}

/// Runs a role as pid 1 of a pid namespace of its own.
fn as_init(role: &str, root: &Path) -> Check {
    if !is_root() {
        return skip("only root can make a pid namespace without another user namespace");
    }
    let unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    let mut init = Embedder::start_under(&unshare, role, &[show(root)])?;
    let said = init.line(Duration::from_secs(120))?;
    let outcome = match said.split_once(' ') {
        _ if said == "fine" => Ok(()),
        Some(("skip", why)) => skip(why),
        _ => fail(said),
    };
    init.kill()?;
    outcome
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Empty,
    Half,
    Garbage,
    Removed,
}

/// Whether somebody can still say how the container has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Known,
    Unknown,
}

use Expected::{Known, Unknown};
use Fault::{Empty, Garbage, Half, Removed};

fn harm(path: &Path, fault: Fault) -> Check {
    let length = fs::metadata(path)?.len();
    let file = || fs::OpenOptions::new().write(true).open(path);
    match fault {
        Empty => file()?.set_len(0)?,
        Half => file()?.set_len(length / 2)?,
        Garbage => {
            use std::os::unix::fs::FileExt as _;
            file()?.write_all_at(&vec![0x55; usize::try_from(length)?], 0)?;
        }
        Removed => fs::remove_file(path)?,
    }
    Ok(())
}

fn files_of(root: &Path, id: &str) -> PathBuf {
    root.join("containers").join(id)
}

/// A container that prints, and ends with 23 when it is told to.
struct UntilTold {
    container: Container,
    word: tempfile::TempDir,
}

impl UntilTold {
    async fn start(world: &World) -> Result<Self, Stop> {
        let word = scratch::fresh("word");
        let script = "echo up; until [ -e /word/end ]; do sleep 0.05; done; echo over; exit 23";
        let spec = detached(world.script(script)).bind(word.path(), "/word");
        let container = world.started(spec).await?;
        Ok(Self { container, word })
    }
}

fn tell_to_end(word: &tempfile::TempDir) -> Check {
    Ok(fs::write(word.path().join("end"), "")?)
}

/// What an engine finds that sees the container for the first time; and that it can be used as ever afterwards.
async fn found(root: &Path, id: &str, expected: Expected, case: &str) -> Check {
    found_while(root, id, expected, case, async { Ok(()) }).await
}

/// As [`found`], while something happens that ends the container.
async fn found_while(
    root: &Path,
    id: &str,
    expected: Expected,
    case: &str,
    ending: impl Future<Output = Check>,
) -> Check {
    let engine = Engine::open(root).await?;
    let container = engine.container(id).await?;
    let (waited, ended) = tokio::join!(tokio::time::timeout(PATIENCE, container.wait()), ending);
    ended?;
    let Ok(waited) = waited else {
        return fail(format!("{case}: it is waited for in vain"));
    };
    match (waited, expected) {
        (Ok(exit), Known) => assert_eq!(exit.status.code(), 23, "{case}"),
        (Err(error), Unknown) => assert_eq!(error.kind(), &ErrorKind::Unavailable, "{case}: {error}"),
        (waited, expected) => return fail(format!("{case}: {waited:?}, expected {expected:?}")),
    }
    let info = container.inspect().await?;
    assert_eq!(
        (info.state, info.exit.is_some()),
        (ContainerState::Exited, expected == Known),
        "{case}"
    );
    // Whatever its log is, it can be read to an end.
    let _ = tokio::time::timeout(PATIENCE, read_log(&container)).await?;
    container.start().await?;
    assert_eq!(container.wait().await?.status.code(), 23, "{case}, started again");
    assert!(logged(&container).await?.ends_with("over"), "{case}");
    container.remove(RemoveOptions::default()).await?;
    let audit = engine.audit().await?;
    assert!(audit.findings.is_empty(), "{case}: {:?}", audit.findings);
    engine.close().await;
    Ok(())
}

async fn read_log(container: &Container) -> Check {
    use futures_util::StreamExt as _;
    let mut entries = container.logs(LogQuery::default()).await?;
    while let Some(entry) = entries.next().await {
        entry?;
    }
    Ok(())
}

/// The engine is closed, and nobody looks at the container.
async fn unseen(world: World, container: Container) -> Result<(crate::support::root::TempRoot, String), Stop> {
    let id = container.id().to_string();
    let World { engine, image, root } = world;
    drop((container, image));
    engine.close().await;
    Ok((root, id))
}

async fn g16_files_are_damaged_one_by_one_while_it_runs() -> Check {
    let cases = [
        ("shim/lock", Garbage, Known),
        ("shim/lock", Removed, Known),
        ("shim/ctl", Removed, Known),
        ("shim/state", Empty, Known),
        ("shim/state", Half, Known),
        ("shim/state", Garbage, Known),
        // What is written to it is nobody's to read: whoever is connected is told, and nobody later.
        ("shim/state", Removed, Known),
        ("shim/state", Removed, Unknown),
        ("shim/out", Removed, Known),
        ("shim/err", Removed, Known),
        ("log.1", Empty, Known),
        ("log.1", Garbage, Known),
        ("log.1", Removed, Known),
    ];
    // Each has a root of its own, and they wait for their containers together.
    try_join_all(cases.map(|(file, fault, expected)| damaged_while_it_runs(file, fault, expected))).await?;
    Ok(())
}

async fn damaged_while_it_runs(file: &str, fault: Fault, expected: Expected) -> Check {
    let case = format!("{file} {fault:?}");
    let world = World::alone().await?;
    let UntilTold { container, word } = UntilTold::start(&world).await?;
    let pid = container.inspect().await?.pid;
    let shim = shim_of(world.root.path(), container.id().as_str()).expect("it has a shim");
    until("it has printed", async || Ok(logged(&container).await? == "up")).await?;
    let (root, id) = unseen(world, container).await?;
    harm(&files_of(root.path(), &id).join(file), fault)?;
    let engine = Engine::open(root.path()).await?;
    let info = engine.container(&id).await?.inspect().await?;
    assert_eq!((info.state, info.pid), (ContainerState::Running, pid), "{case}");
    let audit = engine.audit().await?;
    assert!(audit.findings.is_empty(), "{case}: {:?}", audit.findings);
    engine.close().await;
    if expected == Unknown {
        tell_to_end(&word)?;
        until("its shim has ended", async || Ok(!runs(shim))).await?;
        return found(root.path(), &id, expected, &case).await;
    }
    // Whoever waits is connected by then: where nothing is left to be read, only he is told.
    let ending = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        tell_to_end(&word)
    };
    found_while(root.path(), &id, expected, &case, ending).await
}

async fn g16_files_are_damaged_one_by_one_after_its_end() -> Check {
    let cases = [
        ("shim/lock", Garbage, Known),
        ("shim/lock", Removed, Known),
        ("shim/state", Empty, Unknown),
        ("shim/state", Garbage, Unknown),
        ("shim/state", Removed, Unknown),
        ("log.1", Empty, Known),
        ("log.1", Half, Known),
        ("log.1", Garbage, Known),
        ("log.1", Removed, Known),
    ];
    try_join_all(cases.map(|(file, fault, expected)| damaged_after_its_end(file, fault, expected))).await?;
    Ok(())
}

async fn damaged_after_its_end(file: &str, fault: Fault, expected: Expected) -> Check {
    let world = World::alone().await?;
    let UntilTold { container, word } = UntilTold::start(&world).await?;
    let shim = shim_of(world.root.path(), container.id().as_str()).expect("it has a shim");
    let (root, id) = unseen(world, container).await?;
    tell_to_end(&word)?;
    until("its shim has ended", async || Ok(!runs(shim))).await?;
    harm(&files_of(root.path(), &id).join(file), fault)?;
    found(root.path(), &id, expected, &format!("{file} {fault:?} after the end")).await
}

/// Whether a process is there and is no zombie.
pub fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

fn g16_a_full_disk_under_the_exit_record() -> Check {
    let disk = Disk::tmpfs(64 << 20)?;
    let root = disk.path().join("root");
    fill(&root)?;
    for policy in ["no", "on-failure:1"] {
        let (mut embedder, id) = left_behind(&root, "sleep 1.5; echo lost; exit 41", policy)?;
        let shim = shim_of(&root, &id).expect("it has a shim");
        disk.leave(0)?;
        embedder.kill()?;
        block_on(until("its shim has ended", async || Ok(!runs(shim))))?;
        // Nobody may say anything else than the truth, or that there is no room.
        let seen = block_on(async {
            let engine = Engine::open(&root).await?;
            let exit = engine.container(&id).await?.wait().await?;
            engine.close().await;
            Ok::<ContainerExit, longshore::Error>(exit)
        });
        match seen {
            Ok(exit) => assert_eq!(exit.status.code(), 41),
            Err(error) => assert_eq!(error.kind(), &ErrorKind::NoSpace, "{}", error.report()),
        }
        disk.give_back()?;
        block_on(async {
            let engine = Engine::open(&root).await?;
            let container = engine.container(&id).await?;
            assert_eq!(container.wait().await?.status.code(), 41);
            container.remove(RemoveOptions::default()).await?;
            engine.close().await;
            Ok::<_, Stop>(())
        })?;
    }
    Ok(())
}

fn g16_numbers_of_processes_come_again() -> Check {
    let root = filled_root()?;
    as_init("few-pids", root.path())
}

/// Numbers of the shim and of the process of the last run, as the shim wrote them down.
fn last_pids(root: &Path, id: &str) -> Result<[u32; 2], Stop> {
    let bytes = fs::read(files_of(root, id).join("shim/state"))?;
    let word = |slot: usize, at: usize| -> u64 {
        let at = slot * 256 + at * 8;
        bytes
            .get(at..at + 8)
            .map_or(0, |part| u64::from_le_bytes(part.try_into().expect("eight")))
    };
    let newest = usize::from(word(1, 1) > word(0, 1));
    Ok([(word(newest, 4) >> 32) as u32, word(newest, 5) as u32])
}

/// The next process has the first free number from here on.
fn begin_again() -> Check {
    Ok(fs::write("/proc/sys/kernel/ns_last_pid", "320")?)
}

async fn few_pids(root: &Path) -> Check {
    // Those below 300 are given out only once: a hundred go round.
    if fs::write("/proc/sys/kernel/pid_max", "400").is_err() {
        return skip("this kernel has one limit for all pid namespaces (before Linux 6.14)");
    }
    let engine = Engine::open(root).await?;
    let watching = Engine::open(root).await?;
    let mut seen = std::collections::HashSet::new();
    let mut again = [0, 0];
    for round in 0..40 {
        let status = round * 7 % 120;
        let script = format!("exit {status}");
        let spec = ContainerSpec::image("busybox").command(["sh", "-c", &script]);
        let container = engine.create(spec.lifetime(Lifetime::Detached)).await?;
        let theirs = watching.container(container.id().as_str()).await?;
        for _ in 0..2 {
            let next = container.wait_for(WaitCondition::NextExit).await?;
            begin_again()?;
            container.start().await?;
            let exit = tokio::time::timeout(PATIENCE, next).await??;
            assert_eq!(exit.status.code(), status);
            assert_eq!(theirs.wait().await?.status.code(), status);
            for (at, pid) in last_pids(root, container.id().as_str())?.into_iter().enumerate() {
                again[at] += usize::from(!seen.insert((at, pid)));
            }
        }
        container.remove(RemoveOptions::default()).await?;
    }
    assert!(again.iter().all(|count| *count > 20), "{again:?} numbers came again");
    let spec = ContainerSpec::image("busybox").command(["sleep", "600"]);
    let container = engine.run(spec.lifetime(Lifetime::Detached)).await?;
    let pid = container.inspect().await?.pid.expect("it runs");
    let id = container.id().to_string();
    drop(container);
    engine.close().await;
    watching.close().await;
    let shim = shim_of(root, &id).expect("it has a shim");
    for pid in [shim, pid] {
        kill(Pid::from_raw(i32::try_from(pid)?), Number::SIGKILL)?;
    }
    // Without its shim it is a child of this init, and its number is taken until it is reaped.
    let child = Pid::from_raw(i32::try_from(pid)?);
    until("it is reaped", async || match nix::sys::wait::waitpid(child, None) {
        // Its shim is on its way out still.
        Err(Errno::ECHILD) => Ok(!Path::new(&format!("/proc/{pid}")).exists()),
        waited => Ok(waited.map(|_| true)?),
    })
    .await?;
    let mut other = until_number(pid)?;
    let engine = Engine::open(root).await?;
    let container = engine.container(&id).await?;
    let refused = container.kill(Signal::KILL).await.expect_err("it does not run");
    assert_eq!(refused.kind(), &ErrorKind::InvalidState, "{refused}");
    let info = container.inspect().await?;
    assert_eq!(
        (info.state, info.pid, info.exit.is_none()),
        (ContainerState::Exited, None, true)
    );
    container.remove(FORCE).await?;
    assert!(other.try_wait()?.is_none(), "another's process was ended");
    other.kill()?;
    other.wait()?;
    engine.close().await;
    Ok(())
}

/// Starts processes until one has this number.
fn until_number(wanted: u32) -> Result<std::process::Child, Stop> {
    for _ in 0..2000 {
        let mut child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn()?;
        if child.id() == wanted {
            return Ok(child);
        }
        child.kill()?;
        child.wait()?;
    }
    fail(format!("the number {wanted} did not come again"))
}

fn g16_an_init_that_reaps_nobody() -> Check {
    let root = filled_root()?;
    as_init("lazy-init", root.path())
}

/// Orphans are this process's children, and it waits for none of them.
fn lazy_init(root: &Path) -> Check {
    // Both are there until their shims are known, and end at once when they are started again.
    let script = |code: u8| format!("test -e /ran || {{ touch /ran; sleep 2; }}; exit {code}");
    let (mut embedder, by_itself) = left_behind(root, &script(31), "no")?;
    let (mut other, bereft) = left_behind(root, &script(32), "no")?;
    let shims = [&by_itself, &bereft].map(|id| shim_of(root, id).expect("it has a shim"));
    embedder.kill()?;
    other.kill()?;
    kill(Pid::from_raw(i32::try_from(shims[1])?), Number::SIGKILL)?;
    let [_, orphan] = last_pids(root, &bereft)?;
    block_on(until("all have ended", async || {
        Ok(![shims[0], shims[1], orphan].into_iter().any(runs))
    }))?;
    for shim in shims {
        assert!(
            Path::new(&format!("/proc/{shim}")).exists() && !runs(shim),
            "a zombie is left of it"
        );
    }
    block_on(async {
        let engine = Engine::open(root).await?;
        let container = engine.container(&by_itself).await?;
        assert_eq!(container.wait().await?.status.code(), 31);
        container.start().await?;
        assert_eq!(container.wait().await?.status.code(), 31);
        container.remove(RemoveOptions::default()).await?;
        let container = engine.container(&bereft).await?;
        let error = container.wait().await.expect_err("nobody saw its end");
        assert_eq!(error.kind(), &ErrorKind::Unavailable, "{error}");
        container.start().await?;
        assert_eq!(container.wait().await?.status.code(), 32);
        container.remove(RemoveOptions::default()).await?;
        engine.close().await;
        Ok(())
    })
}

/// What a stranger does with whoever connects.
#[derive(Debug, Clone, Copy)]
enum Stranger {
    Silent,
    HangsUp,
    Raves,
}

/// Listens where a shim should, until the other end of the stream closes.
fn stranger_at(dir: &Path, kind: Stranger) -> Result<UnixStream, Stop> {
    let path = dir.join("ctl");
    fs::remove_file(&path)?;
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    // By way of a descriptor: the path may be too long for an address.
    let held = fs::File::open(dir)?;
    let name = format!("/proc/self/fd/{}/ctl", held.as_raw_fd());
    bind(listener.as_raw_fd(), &UnixAddr::new(name.as_str())?)?;
    listen(&listener, Backlog::new(16)?)?;
    let (ours, theirs) = UnixStream::pair()?;
    std::thread::spawn(move || serve(&UnixListener::from(listener), &theirs, kind));
    Ok(ours)
}

fn serve(listener: &UnixListener, over: &UnixStream, kind: Stranger) {
    let mut open = Vec::new();
    loop {
        let mut wanted = [listener.as_fd(), over.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        if poll(&mut wanted, PollTimeout::NONE).is_err() || wanted[1].any() == Some(true) {
            return;
        }
        let Ok((client, _)) = listener.accept() else { return };
        match kind {
            Stranger::Silent => open.push(client),
            Stranger::HangsUp => drop(client),
            Stranger::Raves => {
                let _ = (&client).write(&[0xa5; 300]);
                open.push(client);
            }
        }
    }
}

async fn g16_a_stranger_on_the_control_socket() -> Check {
    let kinds = [Stranger::Silent, Stranger::HangsUp, Stranger::Raves];
    try_join_all(kinds.map(beside_a_stranger)).await?;
    a_stranger_keeps_nobody_from_ending_it().await
}

async fn beside_a_stranger(kind: Stranger) -> Check {
    let world = World::alone().await?;
    let UntilTold { container, word } = UntilTold::start(&world).await?;
    let (root, id) = unseen(world, container).await?;
    let stranger = stranger_at(&files_of(root.path(), &id).join("shim"), kind)?;
    let engine = Engine::open(root.path()).await?;
    let container = engine.container(&id).await?;
    assert_eq!(container.inspect().await?.state, ContainerState::Running, "{kind:?}");
    let asked = tokio::time::timeout(PATIENCE, container.exec(ExecSpec::new(["true"])).output()).await?;
    let error = asked.expect_err("nobody is there who could");
    assert_eq!(error.kind(), &ErrorKind::Unavailable, "{kind:?}: {}", error.report());
    drop(container);
    engine.close().await;
    tell_to_end(&word)?;
    found(root.path(), &id, Known, &format!("{kind:?}")).await?;
    drop(stranger);
    Ok(())
}

/// What is not started again can be ended; for what its shim would start again, it is said who must go first.
async fn a_stranger_keeps_nobody_from_ending_it() -> Check {
    for policy in [RestartPolicy::No, RestartPolicy::Always] {
        let world = World::alone().await?;
        let container = world
            .started(detached(world.script("sleep 600")).restart(policy))
            .await?;
        let (root, id) = unseen(world, container).await?;
        let stranger = stranger_at(&files_of(root.path(), &id).join("shim"), Stranger::HangsUp)?;
        let engine = Engine::open(root.path()).await?;
        let container = engine.container(&id).await?;
        let killed = container.kill(Signal::KILL).await;
        if policy == RestartPolicy::Always {
            let error = killed.expect_err("it would be started again");
            assert_eq!(error.kind(), &ErrorKind::Unavailable, "{}", error.report());
            let shim = shim_of(root.path(), &id).expect("it has a shim");
            assert!(
                error.report().contains(&format!("process {shim}")),
                "{}",
                error.report()
            );
            end(shim)?;
            until("it is seen that the shim is gone", async || {
                Ok(container.kill(Signal::KILL).await.is_ok())
            })
            .await?;
            until("it counts as ended", async || {
                Ok(container.inspect().await?.state == ContainerState::Exited)
            })
            .await?;
        } else {
            killed?;
            assert_eq!(container.wait().await?.status.code(), 137);
        }
        container.remove(FORCE).await?;
        drop(container);
        engine.close().await;
        drop(stranger);
    }
    Ok(())
}

fn end(pid: u32) -> Check {
    match kill(Pid::from_raw(i32::try_from(pid)?), Number::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// A cgroup of version 2 of the test's own, beneath the root.
#[derive(Debug)]
struct Unit(PathBuf);

impl Unit {
    fn new() -> Result<Self, Stop> {
        if !is_root() {
            return skip("only root can make a cgroup in which another program is started");
        }
        let table = fs::read_to_string("/proc/self/mountinfo")?;
        let mount = table.lines().find(|line| line.contains(" - cgroup2 "));
        let Some(mount) = mount.and_then(|line| line.split(' ').nth(4)) else {
            return skip("no cgroups of version 2");
        };
        let dir = Path::new(mount).join(format!("it-unit-{}", std::process::id()));
        fs::create_dir(&dir)?;
        Ok(Self(dir))
    }

    fn embedder(&self, root: &Path, script: &str) -> Result<(Embedder, String), Stop> {
        let enter = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", self.0.display());
        let embedder = Embedder::start_under(&["sh", "-c", &enter, "sh"], "detach", &[show(root), script, "no"])?;
        let id = embedder.line(PATIENCE)?;
        match id.len() {
            64 => Ok((embedder, id)),
            _ => fail(id),
        }
    }

    /// Ends the processes of the group itself.
    fn kill_own(&self) -> Check {
        loop {
            let pids = fs::read_to_string(self.0.join("cgroup.procs"))?;
            // A zombie is in it until it is reaped.
            let living: Vec<u32> = pids
                .lines()
                .filter_map(|pid| pid.parse().ok())
                .filter(|pid| runs(*pid))
                .collect();
            if living.is_empty() {
                return Ok(());
            }
            for pid in living {
                end(pid)?;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// And all below it.
    fn kill_all(&self) -> Check {
        Ok(fs::write(self.0.join("cgroup.kill"), "1")?)
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        for _ in 0..200 {
            let removed = fs::remove_dir(&self.0);
            if removed.is_ok() || !self.0.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A service manager ends what is in the control group of a unit: with it the shims that a program of the unit has started.
/// Waits for what a container of another process says.
async fn until_said(root: &Path, id: &str, what: &str) -> Check {
    let engine = Engine::open(root).await?;
    let container = engine.container(id).await?;
    until(what, async || Ok(logged(&container).await? == what)).await?;
    engine.close().await;
    Ok(())
}

fn p30_a_control_group_is_killed() -> Check {
    for recursive in [false, true] {
        let unit = Unit::new()?;
        let root = filled_root()?;
        let (mut embedder, id) = unit.embedder(root.path(), "echo up; sleep 600")?;
        block_on(until_said(root.path(), &id, "up"))?;
        let shim = shim_of(root.path(), &id).expect("it has a shim");
        let [_, container] = last_pids(root.path(), &id)?;
        match recursive {
            true => unit.kill_all()?,
            false => unit.kill_own()?,
        }
        embedder.kill()?;
        block_on(async {
            if recursive {
                // Where a group with processes may have none below it, the container is elsewhere. Either way it has ended
                // before an engine could have opened its process.
                end(container)?;
                until("the container's process is gone", async || Ok(!runs(container))).await?;
            }
            until("its shim is gone", async || Ok(!runs(shim))).await?;
            let engine = Engine::open(root.path()).await?;
            let container = engine.container(&id).await?;
            if !recursive {
                assert_eq!(container.inspect().await?.state, ContainerState::Running);
                container.kill(Signal::KILL).await?;
            }
            until("it counts as ended", async || {
                Ok(container.inspect().await?.state == ContainerState::Exited)
            })
            .await?;
            match container.wait().await {
                // An engine had taken the shim's place.
                Ok(exit) if !recursive && kernel_tells_ends()? => assert_eq!(exit.status.code(), 137),
                Ok(exit) => return fail(format!("nobody saw its end: {exit:?}")),
                Err(error) => assert_eq!(error.kind(), &ErrorKind::Unavailable, "{error}"),
            }
            assert_eq!(logged(&container).await?, "up");
            container.remove(RemoveOptions::default()).await?;
            engine.close().await;
            Ok::<_, Stop>(())
        })?;
    }
    Ok(())
}

/// A bound container and a detached one that ends by itself.
async fn both_kinds(root: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    let _bound = engine
        .run(ContainerSpec::image("busybox").command(["sleep", "600"]))
        .await?;
    let script = "i=0; while [ $i -lt 10 ]; do echo line $i; usleep 3000; i=$((i+1)); done; exit 33";
    let spec = ContainerSpec::image("busybox").command(["sh", "-c", script]);
    let container = engine.run(spec.lifetime(Lifetime::Detached)).await?;
    println!("{}", container.id());
    std::future::pending().await
}

/// The program, its zygote and the shim, alone and together, at any moment.
fn p30_whatever_is_killed_together_no_wrong_exit_is_told() -> Check {
    let root = filled_root()?;
    let mut random = Random(17);
    let (mut known, mut unknown) = (0, 0);
    for round in 0..kills().min(63) {
        let mut embedder = Embedder::start("both-kinds", &[show(root.path())])?;
        let id = embedder.line(PATIENCE)?;
        if id.len() != 64 {
            return fail(id);
        }
        let shim = shim_of(root.path(), &id);
        let helpers = all_processes().into_iter();
        let zygote = helpers
            .filter(|process| process.helper && process.parent == embedder.pid() && Some(process.pid) != shim)
            .map(|process| process.pid)
            .next();
        std::thread::sleep(Duration::from_micros(random.below(40_000)));
        // Every set of the three but the empty one.
        let which = round % 7 + 1;
        if let Some(shim) = shim.filter(|shim| which & 1 != 0 && shim_of(root.path(), &id) == Some(*shim)) {
            end(shim)?;
        }
        if let Some(zygote) = zygote.filter(|_| which & 2 != 0) {
            end(zygote)?;
        }
        if which & 4 != 0 {
            embedder.kill()?;
        }
        block_on(async {
            let engine = Engine::open(root.path()).await?;
            let container = engine.container(&id).await?;
            match tokio::time::timeout(PATIENCE, container.wait()).await? {
                Ok(exit) => {
                    assert_eq!(exit.status.code(), 33, "round {round}");
                    known += 1;
                }
                Err(error) => {
                    assert_eq!(error.kind(), &ErrorKind::Unavailable, "round {round}: {error}");
                    assert!(which & 1 != 0, "round {round}: its shim was let alone");
                    unknown += 1;
                }
            }
            container.remove(RemoveOptions::default()).await?;
            engine.close().await;
            Ok::<_, Stop>(())
        })?;
        embedder.kill()?;
    }
    println!("{known} ends known, {unknown} not");
    no_container_left(root.path())
}

/// Prints more than its pipes hold when it is told to, and ends when it is told to.
const LATE: &str = "echo first; until [ -e /word/print ]; do sleep 0.05; done; \
                    i=0; while [ $i -lt 4000 ]; do echo a line of some length, number $i; i=$((i+1)); done; \
                    until [ -e /word/end ]; do sleep 0.05; done; echo to err >&2; exit 34";

/// It goes on and writes; its log is whole, and its end is known where the kernel tells it.
async fn p30_an_engine_takes_the_place_of_a_killed_shim() -> Check {
    // By an engine that was connected, and by one that comes later; in either format.
    for (connected, driver) in [(true, "local"), (false, "json-file")] {
        let case = format!("{driver}, connected before: {connected}");
        let world = World::alone().await?;
        let word = scratch::fresh("word");
        let spec = detached(world.script(LATE))
            .bind(word.path(), "/word")
            .log(LogConfig::driver(driver));
        let container = world.started(spec).await?;
        until("it has printed", async || Ok(logged(&container).await? == "first")).await?;
        let shim = shim_of(world.root.path(), container.id().as_str()).expect("it has a shim");
        let pid = container.inspect().await?.pid;
        let (engine, root, id) = match connected {
            true => {
                end(shim)?;
                let id = container.id().to_string();
                (world.engine, world.root, id)
            }
            false => {
                let (root, id) = unseen(world, container).await?;
                end(shim)?;
                (Engine::open(root.path()).await?, root, id)
            }
        };
        // Others may be there as well: one does it.
        let other = Engine::open(root.path()).await?;
        let container = engine.container(&id).await?;
        let theirs = other.container(&id).await?;
        for each in [&container, &theirs] {
            let info = each.inspect().await?;
            assert_eq!((info.state, info.pid), (ContainerState::Running, pid), "{case}");
        }
        // Somebody reads what it prints: he sees its end as well.
        fs::write(word.path().join("print"), "")?;
        until(&format!("{case}: it is read"), async || {
            Ok(logged(&container).await?.contains("number 3999"))
        })
        .await?;
        tell_to_end(&word)?;
        for (who, each) in [("the first", &container), ("the other", &theirs)] {
            let waited = tokio::time::timeout(PATIENCE, each.wait()).await;
            let Ok(waited) = waited else {
                return fail(format!("{case}: {who} engine waits for ever"));
            };
            match (waited, kernel_tells_ends()?) {
                (Ok(exit), true) => assert_eq!(exit.status.code(), 34, "{case}"),
                (Err(error), false) => assert_eq!(error.kind(), &ErrorKind::Unavailable, "{case}: {error}"),
                (waited, _) => return fail(format!("{case}: {waited:?}")),
            }
        }
        let all = logged(&container).await?;
        let count = all
            .lines()
            .filter(|line| line.starts_with("a line of some length"))
            .count();
        assert_eq!(count, 4000, "{case}");
        assert!(
            all.contains("number 0\n") && all.contains("number 3999\n") && all.contains("to err"),
            "{case}"
        );
        let events = events_of(&engine, &id).await?;
        assert_eq!(
            events.iter().filter(|action| *action == "die").count(),
            1,
            "{case}: {events:?}"
        );
        container.start().await?;
        assert!(shim_of(root.path(), &id).is_some(), "{case}: the next start has a shim");
        container.remove(FORCE).await?;
        let audit = engine.audit().await?;
        assert!(audit.findings.is_empty(), "{case}: {:?}", audit.findings);
        drop((container, theirs));
        other.close().await;
        engine.close().await;
    }
    Ok(())
}

/// Two engines see at once that a shim has gone; in both, somebody has begun to wait while it was there.
async fn p30_whoever_takes_the_place_of_a_shim_all_who_wait_are_told() -> Check {
    let world = World::alone().await?;
    let other = Engine::open(world.root.path()).await?;
    let place = scratch::fresh("place");
    for round in 0..8 {
        let go = place.path().join(format!("{round}"));
        let script = format!("until [ -e /place/{round} ]; do sleep 0.05; done; exit 34");
        let spec = detached(world.script(&script)).bind_read_only(place.path(), "/place");
        let container = world.started(spec).await?;
        let theirs = other.container(container.id().as_str()).await?;
        let waits = [&container, &theirs].map(|each| each.wait_for(WaitCondition::Exited));
        let [one, two] = waits;
        let (one, two) = (one.await?, two.await?);
        end(shim_of(world.root.path(), container.id().as_str()).expect("it has a shim"))?;
        fs::write(go, "")?;
        // Either may be the first to look.
        let first = if round % 2 == 0 { &container } else { &theirs };
        while first.inspect().await?.state == ContainerState::Running {}
        for wait in [one, two] {
            match tokio::time::timeout(PATIENCE, wait).await? {
                Ok(exit) => assert_eq!(exit.status.code(), 34),
                // It ended before either had its process.
                Err(error) => assert_eq!(error.kind(), &ErrorKind::Unavailable, "{error}"),
            }
        }
        container.remove(FORCE).await?;
    }
    other.close().await;
    Ok(())
}

/// So many ends that some are looked at just when they are written down.
const AT_ONCE: usize = 8;

/// Takes its time between a look that finds no end, the second of a container, and what is done about that.
#[derive(Debug)]
struct Dawdling {
    native: NativeRuntime,
    /// Who has been looked at.
    looked: Mutex<BTreeSet<PathBuf>>,
}

impl Dawdling {
    fn inner(&self) -> &dyn DetachedRuntime {
        self.native.detached().expect("it has shims")
    }
}

#[async_trait]
impl Runtime for Dawdling {
    fn name(&self) -> &str {
        self.native.name()
    }

    async fn start(&self, launch: Launch) -> longshore::Result<Started> {
        self.native.start(launch).await
    }

    fn detached(&self) -> Option<&dyn DetachedRuntime> {
        Some(self)
    }
}

#[async_trait]
impl DetachedRuntime for Dawdling {
    async fn start_detached(&self, launch: Launch, detach: Detach) -> longshore::Result<Arc<dyn DetachedTask>> {
        self.inner().start_detached(launch, detach).await
    }

    async fn adopt(&self, id: &ContainerId, dir: &Path) -> longshore::Result<Arc<dyn DetachedTask>> {
        self.inner().adopt(id, dir).await
    }

    fn clear(&self, id: &ContainerId, dir: &Path) -> longshore::Result<()> {
        self.inner().clear(id, dir)
    }

    fn seen(&self, dir: &Path) -> longshore::Result<DetachedSeen> {
        let seen = self.inner().seen(dir)?;
        let no_end = matches!(&seen, DetachedSeen::Gone { state, process: false } if state.exit.is_none());
        if no_end && !self.looked.lock().expect("lock").insert(dir.to_owned()) {
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(seen)
    }
}

/// One engine stands in for shims that were killed. Another looks while an end is written down, and must not take it that nobody
/// did that.
async fn p30_another_engine_looks_while_an_end_is_written_down() -> Check {
    let world = World::alone().await?;
    let slow = Dawdling {
        native: NativeRuntime::new(NativeOptions::default()),
        looked: Mutex::default(),
    };
    let other = Engine::builder(world.root.path())
        .runtime(Arc::new(slow))
        .open()
        .await?;
    let word = scratch::fresh("word");
    let script = "until [ -e /word/print ]; do sleep 0.02; done; echo read; \
                  until [ -e /word/end ]; do sleep 0.02; done; exit 34";
    let start = async || {
        let container = world
            .started(detached(world.script(script)).bind(word.path(), "/word"))
            .await?;
        end(shim_of(world.root.path(), container.id().as_str()).expect("it has a shim"))?;
        assert_eq!(container.inspect().await?.state, ContainerState::Running);
        Ok::<_, Stop>(container)
    };
    let containers = try_join_all((0..AT_ONCE).map(|_| start())).await?;
    fs::write(word.path().join("print"), "")?;
    for container in &containers {
        until("it is read", async || Ok(logged(container).await? == "read")).await?;
    }
    let look = async |id: &str| {
        let theirs = other.container(id).await?;
        // Without a pause: the end is written down as soon as the process is reaped.
        while theirs.inspect().await?.state != ContainerState::Exited {}
        Ok::<_, Stop>(())
    };
    tell_to_end(&word)?;
    let looks = try_join_all(containers.iter().map(|container| look(container.id().as_str())));
    tokio::time::timeout(PATIENCE, looks).await??;
    for container in &containers {
        match (
            tokio::time::timeout(PATIENCE, container.wait()).await?,
            kernel_tells_ends()?,
        ) {
            (Ok(exit), true) => assert_eq!(exit.status.code(), 34),
            (Err(error), false) => assert_eq!(error.kind(), &ErrorKind::Unavailable, "{error}"),
            (waited, _) => return fail(format!("{waited:?}")),
        }
        container.remove(FORCE).await?;
    }
    other.close().await;
    Ok(())
}

/// Nobody can say how it ended; all who ask are told so, also those who ask while that is found out.
async fn p30_waits_begin_while_an_end_is_lost() -> Check {
    let world = World::alone().await?;
    let root = world.root.path();
    let start = || async { world.started(detached(world.script("sleep 600"))).await };
    let containers = try_join_all((0..3 * AT_ONCE).map(|_| start())).await?;
    let lost = (0..)
        .zip(&containers)
        .map(|(number, container)| lost_while_waited_for(root, container, Duration::from_micros(100 * number)));
    try_join_all(lost).await.map(drop)
}

async fn lost_while_waited_for(root: &Path, container: &Container, after: Duration) -> Check {
    let id = container.id().as_str();
    let shim = shim_of(root, id).expect("it has a shim");
    let [_, process] = last_pids(root, id)?;
    end(shim)?;
    let ending = std::thread::spawn(move || {
        std::thread::sleep(after);
        end(process).is_ok()
    });
    let waits = (0..AT_ONCE).map(|_| tokio::time::timeout(PATIENCE, container.wait()));
    for waited in futures_util::future::join_all(waits).await {
        match waited? {
            // An engine had time to hold its process.
            Ok(exit) => assert_eq!(exit.status.code(), 137),
            Err(error) => assert_eq!(error.kind(), &ErrorKind::Unavailable, "{error}"),
        }
    }
    assert_eq!(ending.join().ok(), Some(true));
    container.remove(FORCE).await?;
    Ok(())
}

/// Its shim would have started it again: the engine that supervises does, with another shim.
async fn p30_a_policy_holds_when_a_shim_was_killed() -> Check {
    let world = World::alone().await?;
    let engine = Engine::builder(world.root.path()).supervise(true).open().await?;
    let policy = RestartPolicy::OnFailure { max_retries: None };
    let again = world.script("echo run; sleep 1; exit 3");
    let container = world.started(detached(again).restart(policy)).await?;
    let over = world
        .started(detached(world.script("sleep 1; exit 0")).restart(policy))
        .await?;
    let shims = [&container, &over].map(|each| shim_of(world.root.path(), each.id().as_str()).expect("it has a shim"));
    for shim in shims {
        end(shim)?;
    }
    if kernel_tells_ends()? {
        until("it runs again, with a shim", async || {
            let shim = shim_of(world.root.path(), container.id().as_str());
            Ok(shim.is_some_and(|shim| shim != shims[0]) && logged(&container).await?.starts_with("run\nrun"))
        })
        .await?;
        assert_eq!(over.wait().await?.status.code(), 0);
        tokio::time::sleep(Duration::from_millis(1200)).await;
    }
    assert_eq!(shim_of(world.root.path(), over.id().as_str()), None);
    container.remove(FORCE).await?;
    over.remove(FORCE).await?;
    engine.close().await;
    Ok(())
}

/// Its shim would know that somebody meant it. Without one, the engine that supervises must learn it from another.
async fn p30_what_was_stopped_without_a_shim_stays_so() -> Check {
    let world = World::alone().await?;
    let supervisor = Engine::builder(world.root.path()).supervise(true).open().await?;
    let asleep =
        || detached(world.script("trap 'exit 0' TERM; sleep 600 & wait")).restart(RestartPolicy::UnlessStopped);
    let (stopped, killed) = (world.started(asleep()).await?, world.started(asleep()).await?);
    for container in [&stopped, &killed] {
        end(shim_of(world.root.path(), container.id().as_str()).expect("it has a shim"))?;
    }
    stopped.stop(StopOptions::default()).await?;
    killed.kill(Signal::KILL).await?;
    until("both have ended", async || {
        let states = [stopped.inspect().await?.state, killed.inspect().await?.state];
        Ok(states == [ContainerState::Exited; 2])
    })
    .await?;
    // It is looked whether any should run once a second.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    for container in [&stopped, &killed] {
        assert_eq!(container.inspect().await?.state, ContainerState::Exited);
        container.start().await?;
        assert_eq!(container.inspect().await?.state, ContainerState::Running);
        container.remove(FORCE).await?;
    }
    supervisor.close().await;
    Ok(())
}
