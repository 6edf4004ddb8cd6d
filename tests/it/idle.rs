//! An engine with nothing to do: nothing of it wakes up, and nothing of it stays when it is dropped.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use longshore::{ContainerSpec, Engine};

use crate::frame::{Check, Stop, block_on, fail};
use crate::support::embedder::{Embedder, Role};
use crate::support::image;
use crate::support::root::TempRoot;
use crate::support::world::{FORCE, World, source};
use crate::tests;

tests! { "idle":
    kernel_async [
        a1_no_thread_is_left_of_an_engine,
    ]
    waiting [
        a1_idle_engines_sleep,
    ]
}

pub const ROLES: &[(&str, Role)] = &[("idle", |arguments| idle(&arguments[0], &arguments[1], &arguments[2]))];

/// How long nothing may happen, and until when that has to begin: what was done may have an end of its own to come to
/// (layers are put on the disk, threads without work go).
const SILENCE: Duration = Duration::from_secs(5);
const SETTLED: Duration = Duration::from_secs(60);

/// One without a container, and one with. Watched at the same time, since it takes its time.
fn a1_idle_engines_sleep() -> Check {
    let layout = source(image::shared()?);
    let roots = [TempRoot::new(), TempRoot::new()];
    let mut embedders = Vec::new();
    for (root, container) in roots.iter().zip(["without", "with"]) {
        let path = root.path().to_str().expect("UTF-8");
        embedders.push(Embedder::start("idle", &[path, &layout, container])?);
    }
    for embedder in &mut embedders {
        let line = embedder.line(Duration::from_secs(120))?;
        if line != "idle" {
            return fail(line);
        }
    }
    let now = || {
        embedders
            .iter()
            .map(|one| switches(one.pid()))
            .collect::<Result<Vec<_>, _>>()
    };
    let begun = Instant::now();
    let (mut before, mut since) = (now()?, Instant::now());
    while since.elapsed() < SILENCE {
        std::thread::sleep(Duration::from_millis(250));
        let now = now()?;
        if now != before {
            if begun.elapsed() > SETTLED {
                return fail(format!("one wakes up: {before:?}, and then {now:?}"));
            }
            (before, since) = (now, Instant::now());
        }
    }
    // Its main thread, the driver, and the helper where there is one.
    assert!(before.iter().all(|threads| threads.len() <= 3), "{before:?}");
    embedders.iter_mut().try_for_each(Embedder::kill)
}

/// How often each thread of a process and of its children was given a processor. Source: proc_pid_status(5).
fn switches(pid: u32) -> Result<BTreeMap<String, u64>, Stop> {
    let mut all = BTreeMap::new();
    let mut processes = vec![pid];
    while let Some(process) = processes.pop() {
        for thread in fs::read_dir(format!("/proc/{process}/task"))?.flatten() {
            let Ok(status) = fs::read_to_string(thread.path().join("status")) else {
                continue;
            };
            let count = |key: &str| -> u64 {
                let line = status.lines().find_map(|line| line.strip_prefix(key));
                line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
            };
            let name = status
                .lines()
                .next()
                .unwrap_or_default()
                .trim_start_matches("Name:")
                .trim();
            let sum = count("voluntary_ctxt_switches:") + count("nonvoluntary_ctxt_switches:");
            all.insert(format!("{name} {}", thread.file_name().to_string_lossy()), sum);
            // The helper's children are the containers, which do as they please.
            if process == pid {
                let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
                processes.extend(
                    children
                        .split_whitespace()
                        .filter_map(|child| child.parse::<u32>().ok()),
                );
            }
        }
    }
    Ok(all)
}

/// An engine that did all sorts of work before it has none.
fn idle(root: &str, layout: &str, container: &str) -> i32 {
    let work = async {
        let engine = Engine::open(root).await?;
        let image = engine.pull(layout).await?;
        let spec = || ContainerSpec::image(image.id().to_string());
        let output = engine.run(spec().command(["true"])).output().await?;
        assert!(output.status.success());
        let running = match container {
            "with" => Some(engine.run(spec().command(["sleep", "1000"])).await?),
            _ => None,
        };
        Ok::<_, Stop>((engine, image.id().to_string(), running))
    };
    let kept = match block_on(work) {
        Ok(kept) => kept,
        Err(stop) => {
            println!("{stop:?}");
            return 1;
        }
    };
    println!("idle");
    loop {
        std::thread::park();
        let _ = &kept;
    }
}

async fn a1_no_thread_is_left_of_an_engine() -> Check {
    let world = World::new().await?;
    assert!(world.output(world.spec().command(["true"])).await?.status.success());
    let running = world.started(world.spec().command(["sleep", "100"])).await?;
    assert!(!threads()?.is_empty());
    running.remove(FORCE).await?;
    let World { engine, image, root } = world;
    drop((engine, image, running));
    let begun = Instant::now();
    while !threads()?.is_empty() {
        if begun.elapsed() > Duration::from_secs(20) {
            return fail(format!("they are there still: {:?}", threads()?));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(root);
    Ok(())
}

/// Threads of this process that are an engine's.
fn threads() -> Result<Vec<String>, Stop> {
    let mut names = Vec::new();
    for thread in fs::read_dir("/proc/self/task")?.flatten() {
        names.extend(fs::read_to_string(thread.path().join("comm")));
    }
    names.retain(|name| name.starts_with("longshore"));
    Ok(names)
}
