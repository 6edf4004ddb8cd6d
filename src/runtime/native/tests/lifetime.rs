//! Nothing outlives its owner, and nothing stays behind when a step fails.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use oci_spec::runtime::LinuxResources;

use super::{in_own_userns, launch, root, runtime};
use crate::error::Result;
use crate::runtime::Runtime;
use crate::runtime::cgroups::{Cgroup, CgroupDriver, CgroupMode};
use crate::runtime::native;
use crate::runtime::native::{NativeOptions, NativeRuntime};
use crate::types::{ContainerId, Signal};

/// `LONGSHORE_TEST_OWNER` is set in the process that is to be killed.
#[test]
fn nothing_outlives_its_owner() {
    if let Some(dir) = std::env::var_os("LONGSHORE_TEST_OWNER") {
        own_until_killed(Path::new(&dir));
    }
    let root = root();
    let scratch = root.path().join("scratch");
    fs::create_dir_all(scratch.join("deep/er")).unwrap();
    fs::write(scratch.join("deep/er/file"), "x").unwrap();
    let mut owner = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "runtime::native::tests::lifetime::nothing_outlives_its_owner",
            "--nocapture",
        ])
        .env("LONGSHORE_TEST_OWNER", root.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pids = wait_for(Duration::from_secs(20), || {
        fs::read_to_string(root.path().join("pids"))
            .ok()
            .filter(|text| text.ends_with("end\n"))
    });
    let pids: Vec<u32> = pids.lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(pids.len(), 6);
    owner.kill().unwrap();
    owner.wait().unwrap();
    let begun = std::time::Instant::now();
    wait_for(Duration::from_secs(2), || {
        pids.iter().all(|pid| is_gone(*pid)).then_some(())
    });
    wait_for(Duration::from_secs(2), || (!scratch.exists()).then_some(()));
    assert!(begun.elapsed() < Duration::from_secs(2));
}

/// Nothing but a zombie that the host's init has not reaped yet.
pub(super) fn is_gone(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_none_or(|rest| rest.is_empty() || rest.starts_with(" Z"))
}

fn wait_for<T>(patience: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let begun = std::time::Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(begun.elapsed() < patience, "waited in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn own_until_killed(dir: &Path) -> ! {
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio.block_on(async {
        let runtime = runtime();
        let mut pids = vec![runtime.info().unwrap().pid];
        let mut all = Vec::new();
        for _ in 0..5 {
            let mut launch = launch(dir, &["sh", "-c", "trap '' TERM HUP; sleep 1000 & sleep 1000"]);
            launch.scratch = vec![dir.join("scratch")];
            let started = runtime.start(launch).await.unwrap();
            pids.push(started.task.pid());
            all.push(started);
        }
        let lines: Vec<String> = pids.iter().map(u32::to_string).collect();
        fs::write(dir.join("pids"), format!("{}\nend\n", lines.join("\n"))).unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
    });
    std::process::exit(1)
}

#[tokio::test]
async fn a_zygote_that_dies_takes_its_containers_and_is_replaced() {
    let root = root();
    let runtime = runtime();
    let first = runtime.start(launch(root.path(), &["sleep", "100"])).await.unwrap();
    let zygote = runtime.info().unwrap().pid;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(zygote as i32),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    assert_eq!(first.task.wait().await.unwrap().status.signal(), Some(9));
    let second = runtime
        .start(launch(root.path(), &["sh", "-c", "exit 3"]))
        .await
        .unwrap();
    assert_eq!(second.task.wait().await.unwrap().status.code(), 3);
}

#[tokio::test]
async fn a_dropped_start_leaves_nothing() {
    let root = root();
    let runtime = runtime();
    let zygote = runtime.info().unwrap().pid;
    for delay in [0, 200, 1000, 3000] {
        let start = runtime.start(launch(root.path(), &["sleep", "100"]));
        // One that came up in time is the caller's, and stays.
        if let Ok(started) = tokio::time::timeout(Duration::from_micros(delay), start).await {
            started.unwrap().task.signal(Signal::KILL, false).await.unwrap();
        }
    }
    let children = format!("/proc/{zygote}/task/{zygote}/children");
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if fs::read_to_string(&children).unwrap_or_default().is_empty() {
            return;
        }
    }
    panic!("{}", fs::read_to_string(&children).unwrap());
}

#[tokio::test]
async fn the_helper_is_small() {
    let root = root();
    let runtime = runtime();
    let started = runtime.start(launch(root.path(), &["sleep", "100"])).await.unwrap();
    let zygote = runtime.info().unwrap().pid;
    // Exact, but root's alone; the other is a sum of counters per processor that may be some pages off.
    let exact = fs::read_to_string(format!("/proc/{zygote}/smaps_rollup"));
    let slack = if exact.is_ok() { 0 } else { 32 };
    let status = exact
        .or_else(|_| fs::read_to_string(format!("/proc/{zygote}/status")))
        .unwrap();
    let rss: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("Rss:").or_else(|| line.strip_prefix("VmRSS:")))
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    let size = include_bytes!(concat!(env!("OUT_DIR"), "/longshore-helper")).len();
    let shim = include_bytes!(concat!(env!("OUT_DIR"), "/longshore-shim")).len();
    println!("helper: {size} bytes, {rss} kB resident; a shim's: {shim} bytes");
    assert!(size <= 64 * 1024, "{size}");
    assert!(size < shim && shim <= 84 * 1024, "{shim}");
    assert!(rss <= 64 + slack, "{rss} kB");
    started.task.signal(Signal::KILL, true).await.unwrap();
    started.task.wait().await.unwrap();
}

/// Cgroups that no process can be cloned into: the descriptor is not a cgroup's.
#[derive(Debug)]
struct NotACgroup(fs::File);

impl NotACgroup {
    fn open() -> Self {
        Self(fs::File::open("/tmp").unwrap())
    }
}

impl CgroupDriver for NotACgroup {
    fn name(&self) -> &str {
        "none of the kernel's"
    }

    fn mode(&self) -> CgroupMode {
        CgroupMode::V2
    }

    fn create(&self, _: &ContainerId, _: &LinuxResources, _: bool) -> Result<Box<dyn Cgroup>> {
        Ok(Box::new(Self::open()))
    }

    fn open(&self, _: &ContainerId) -> Result<Box<dyn Cgroup>> {
        Ok(Box::new(Self::open()))
    }

    fn remove_owner(&self) -> Result<()> {
        Ok(())
    }
}

impl Cgroup for NotACgroup {
    fn mode(&self) -> CgroupMode {
        CgroupMode::V2
    }

    fn v2_dir(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    fn v1_procs(&self) -> &[OwnedFd] {
        &[]
    }

    fn directories(&self) -> &[PathBuf] {
        &[]
    }

    fn kill(&self) -> Result<()> {
        Ok(())
    }

    fn update(&self, _: &LinuxResources) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn oom_kills(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    fn remove(&self) -> Result<()> {
        Ok(())
    }

    fn warnings(&self) -> &[String] {
        &[]
    }
}

#[tokio::test]
async fn a_clone_that_fails_leaves_no_descriptor_in_the_zygote() {
    if !native::has_admin() {
        eprintln!("skipped: only root sees the zygote's descriptors");
        return;
    }
    let root = root();
    let runtime = NativeRuntime::new(NativeOptions {
        cgroups: Some(Arc::new(NotACgroup::open())),
        container_ids: Some(crate::types::IdRange::new(0, 700_000, 65_536)),
        ..NativeOptions::default()
    });
    let open = || {
        let pid = runtime.info().unwrap().pid;
        fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
    };
    let before = open();
    for _ in 0..3 {
        let refused = runtime.start(in_own_userns(root.path(), "true")).await;
        assert_eq!(refused.err().unwrap().errno(), Some(libc::EBADF));
    }
    // It closes what came with a request a moment after its answer.
    for _ in 0..500 {
        if open() == before {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(open(), before);
}

/// A sweeper may be at what somebody else is removing.
#[tokio::test]
async fn two_may_remove_the_same_tree() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = Arc::new(runtime());
    runtime.info().unwrap();
    for round in 0..20 {
        let tree = dir.path().join(format!("tree-{round}"));
        for number in 0..60 {
            let deep = tree.join(format!("{number}/a/b/c"));
            fs::create_dir_all(&deep).unwrap();
            fs::write(deep.join("file"), "x").unwrap();
        }
        let remove = || {
            let (runtime, tree) = (Arc::clone(&runtime), tree.clone());
            tokio::task::spawn_blocking(move || runtime.remove_tree(&tree))
        };
        for removed in [remove(), remove(), remove()] {
            removed.await.unwrap().unwrap();
        }
        assert!(!tree.exists());
    }
}

/// It would take a shim's container with it: the program says that it cannot be one, and ends.
#[test]
fn a_zygote_s_program_refuses_to_be_a_shim() {
    use crate::runtime::native::helper::wire::{FLAG_SHIM, op};
    use crate::runtime::native::zygote;
    use crate::sys::spawn::{Program, Spawn};
    use crate::sys::{memfd, pidfd, socket};
    use std::os::fd::AsFd as _;
    let program = memfd::program(
        c"longshore",
        include_bytes!(concat!(env!("OUT_DIR"), "/longshore-helper")),
    );
    let program = program.unwrap();
    let (ours, theirs) = socket::pair().unwrap();
    let null = fs::File::options().read(true).write(true).open("/dev/null").unwrap();
    let own = pidfd::open(std::process::id()).unwrap();
    let null = null.as_fd();
    let slots = [
        (null, 0),
        (null, 1),
        (null, 2),
        (theirs.as_fd(), 3),
        (own.as_fd(), 4),
        (null, 5),
    ];
    let spawn = Spawn {
        program: Program::Fd(program.as_fd()),
        argv: &[c"longshore-shim"],
        slots: &slots,
        namespaces: 0,
        keep_capabilities: false,
    };
    let child = spawn.run().unwrap();
    drop(theirs);
    let refused = zygote::ask(&ours, (op::HELLO, FLAG_SHIM), &[], &[]).unwrap_err();
    assert_eq!(refused.errno(), Some(libc::ENOSYS), "{refused}");
    pidfd::reap(child.pidfd.as_fd()).unwrap();
}
