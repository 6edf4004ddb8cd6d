//! Very many starts and commands: what the embedder and the kernel hold is afterwards what it was before.
//!
//! `LONGSHORE_SOAK` is how many; `ci/test --full` takes 20,000.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use longshore::{Container, ExecSpec};

use crate::frame::{Check, Stop, fail};
use crate::support::leaks::all_processes;
use crate::support::names_in;
use crate::support::world::{FORCE, World};
use crate::tests;

tests! { "soak":
    kernel_async [
        g1_many_starts_leave_everything_where_it_was,
        g3_many_execs_leave_everything_where_it_was,
    ]
}

/// So many, after which everything that is kept for later is there: threads, connections, memory of allocators.
const WARM_UP: usize = 60;
/// Memory that may come and go with the allocator, in KiB: what leaks with each of so many shows far above it.
const SLACK_KIB: u64 = 6 << 10;

fn rounds() -> usize {
    let asked = std::env::var("LONGSHORE_SOAK").ok();
    asked.and_then(|number| number.parse().ok()).unwrap_or(150)
}

/// What is counted, by name; memory in KiB.
fn held(root: &Path) -> BTreeMap<&'static str, u64> {
    let helpers: Vec<u32> = all_processes()
        .into_iter()
        .filter(|process| process.descendant && process.name.starts_with("longshore"))
        .map(|process| process.pid)
        .collect();
    let len = |path: &str| names_in(Path::new(path)).len() as u64;
    let mounts = |pid: &str| {
        let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        // A helper sees what others mount on the host, too.
        let shared = std::env::var_os(crate::support::leaks::SHARED_HOST).is_some();
        let ours = |line: &&str| !shared || line.contains(&root.display().to_string());
        table.lines().filter(ours).count() as u64
    };
    let of_helpers = |count: &dyn Fn(&str) -> u64| helpers.iter().map(|pid| count(&pid.to_string())).sum();
    BTreeMap::from([
        ("descriptors", len("/proc/self/fd")),
        ("memory", memory("self")),
        ("mounts", mounts("self")),
        ("helpers", helpers.len() as u64),
        (
            "descriptors of helpers",
            of_helpers(&|pid| len(&format!("/proc/{pid}/fd"))),
        ),
        ("memory of helpers", of_helpers(&memory)),
        ("mounts of helpers", of_helpers(&mounts)),
        (
            "processes",
            all_processes().iter().filter(|process| process.descendant).count() as u64,
        ),
        ("namespaces", namespaces()),
        ("cgroups", cgroups(root)),
        ("containers on disk", names_in(&root.join("containers")).len() as u64),
        ("records of memory mapped", len("/proc/self/map_files")),
    ])
}

fn memory(pid: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok())
        .unwrap_or(0)
}

/// Namespaces that processes below this one are in.
fn namespaces() -> u64 {
    let mut seen = std::collections::BTreeSet::new();
    for process in all_processes().into_iter().filter(|process| process.descendant) {
        for kind in ["net", "mnt", "pid", "ipc", "uts", "user", "cgroup"] {
            seen.extend(fs::read_link(format!("/proc/{}/ns/{kind}", process.pid)));
        }
    }
    seen.len() as u64
}

/// Those of the root's engines, which are named by their owners: others use containers on this machine, too.
fn cgroups(root: &Path) -> u64 {
    let owners = names_in(&root.join("owners"));
    let ours = |name: &str| {
        let short = name.strip_prefix("longshore-");
        short.is_some_and(|short| owners.iter().any(|owner| owner.starts_with(short)))
    };
    below(Path::new("/sys/fs/cgroup"), 0, false, &ours)
}

fn below(dir: &Path, depth: usize, counts: bool, ours: &dyn Fn(&str) -> bool) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let dirs = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.map(|entry| {
        let counts = counts || ours(&entry.file_name().to_string_lossy());
        let within = if depth < 6 {
            below(&entry.path(), depth + 1, counts, ours)
        } else {
            0
        };
        u64::from(counts) + within
    })
    .sum()
}

fn compare(before: &BTreeMap<&'static str, u64>, after: &BTreeMap<&'static str, u64>) -> Check {
    let grown = |(name, was): (&&str, &u64)| {
        let is = after[name];
        let slack = match *name {
            "memory" | "memory of helpers" => SLACK_KIB,
            // A network namespace in reserve, a thread of a pool with its stack: there or not at the moment.
            "records of memory mapped" => 64,
            "namespaces" | "descriptors" | "descriptors of helpers" => 3,
            _ => 0,
        };
        (is > was + slack).then(|| format!("{name}: {was} before, {is} after"))
    };
    let grown: Vec<String> = before.iter().filter_map(grown).collect();
    match grown.is_empty() {
        true => Ok(()),
        false => fail(grown.join("; ")),
    }
}

/// Does something often, and compares what is held after the first few with what is held at the end.
async fn soak(world: &World, mut once: impl AsyncFnMut(usize) -> Check) -> Check {
    for round in 0..WARM_UP {
        once(round).await?;
    }
    settled().await;
    let before = held(world.root.path());
    for round in 0..rounds() {
        once(round).await?;
    }
    settled().await;
    compare(&before, &held(world.root.path()))
}

/// Threads of pools end when they have been idle for two seconds.
async fn settled() {
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
}

async fn g1_many_starts_leave_everything_where_it_was() -> Check {
    let world = World::alone().await?;
    soak(&world, async |round| {
        let code = (round % 5).to_string();
        let out = world.output(world.script("exit $CODE").env("CODE", code)).await?;
        assert_eq!(out.status.code(), (round % 5) as i32);
        Ok(())
    })
    .await
}

async fn g3_many_execs_leave_everything_where_it_was() -> Check {
    let world = World::alone().await?;
    let container = world.started(world.script("sleep 100000")).await?;
    soak(&world, async |round| exec_once(&container, round).await).await?;
    container.remove(FORCE).await?;
    Ok(())
}

async fn exec_once(container: &Container, round: usize) -> Result<(), Stop> {
    let script = format!("echo {round}; exit {}", round % 7);
    let out = container.exec(ExecSpec::new(["sh", "-c", &script])).output().await?;
    assert_eq!(out.status.code(), (round % 7) as i32);
    assert_eq!(out.stdout, format!("{round}\n").into_bytes());
    Ok(())
}
