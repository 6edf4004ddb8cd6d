//! What every cgroup driver must do, with real processes. An embedder's own driver runs it too:
//!
//! ```no_run
//! # use longshore::runtime::cgroups::{NativeCgroups, suite};
//! # use longshore::types::OwnerId;
//! suite::all(&|| Box::new(NativeCgroups::new(&OwnerId::random())));
//! ```
//!
//! Each function panics with what is wrong. A driver whose [`mode`](CgroupDriver::mode) is `None` is held to refusing limits;
//! controllers that the host does not give are skipped, and [`all`] returns what was.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use oci_spec::runtime::{LinuxCpuBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder};

use super::{Cgroup, CgroupDriver, CgroupMode};
use crate::error::ErrorKind;
use crate::types::{CgroupParent, ContainerId};

/// Makes a driver for an owner of its own.
pub type Make<'a> = &'a dyn Fn() -> Box<dyn CgroupDriver>;

/// One of the checks below: the reason, if it was skipped.
type Check = fn(&dyn CgroupDriver) -> Option<String>;

/// Runs everything, and returns what was skipped, with the reason.
///
/// # Panics
/// With what the driver does wrong.
pub fn all(make: Make<'_>) -> Vec<String> {
    let checks: [(&str, Check); 10] = [
        ("plain", plain),
        ("memory", memory),
        ("cpu", cpu),
        ("pids", pids),
        ("update", update),
        ("oom", oom),
        ("kill", kill),
        ("refusals", refusals),
        ("named parents", named),
        ("owner", owner),
    ];
    let mut skipped = Vec::new();
    for (name, check) in checks {
        let driver = make();
        skipped.extend(check(&*driver).map(|reason| format!("{name}: {reason}")));
        driver.remove_owner().expect("an owner can be removed at any time");
    }
    parents(make());
    skipped
}

/// The owner's parents may stay for its next container; they go with the driver.
fn parents(driver: Box<dyn CgroupDriver>) {
    let group = driver
        .create(&ContainerId::random(), &LinuxResources::default(), false)
        .expect("a cgroup without limits");
    gone(&*group);
    let left = driver.owner_directories();
    drop((group, driver));
    for dir in left {
        assert!(!dir.exists(), "{} outlives the driver", dir.display());
    }
}

/// A cgroup without limits can be made, found again, and removed.
pub fn plain(driver: &dyn CgroupDriver) -> Option<String> {
    let id = ContainerId::random();
    let group = driver
        .create(&id, &LinuxResources::default(), false)
        .expect("a cgroup without limits");
    assert_eq!(group.mode(), driver.mode());
    assert!(group.warnings().is_empty());
    for dir in group.directories() {
        assert!(dir.is_dir(), "{} does not exist", dir.display());
    }
    driver.open(&id).expect("what was made can be opened");
    if !group.directories().is_empty() {
        let again = driver
            .create(&id, &LinuxResources::default(), false)
            .expect_err("the id is taken");
        assert_eq!(again.kind(), &ErrorKind::Conflict);
    }
    gone(&*group);
    group.remove().expect("what is gone is no error");
    None
}

/// Memory limits are what the files say.
pub fn memory(driver: &dyn CgroupDriver) -> Option<String> {
    let memory = LinuxMemoryBuilder::default()
        .limit(64 << 20)
        .reservation(32 << 20)
        .swap(64 << 20);
    let group = match make(driver, resources().memory(memory.build().ok()?)) {
        Ok(group) => group,
        Err(reason) => return Some(reason),
    };
    holds(&*group, &["memory.max", "memory.limit_in_bytes"], "67108864");
    holds(&*group, &["memory.low", "memory.soft_limit_in_bytes"], "33554432");
    gone(&*group);
    None
}

/// CPU limits are what the files say, in both versions.
pub fn cpu(driver: &dyn CgroupDriver) -> Option<String> {
    let cpu = LinuxCpuBuilder::default()
        .shares(512u64)
        .quota(50_000i64)
        .period(100_000u64);
    let group = match make(driver, resources().cpu(cpu.build().ok()?)) {
        Ok(group) => group,
        Err(reason) => return Some(reason),
    };
    match file(&*group, &["cpu.weight"]) {
        Some(_) => {
            holds(&*group, &["cpu.weight"], "59");
            holds(&*group, &["cpu.max"], "50000 100000");
        }
        None => {
            holds(&*group, &["cpu.shares"], "512");
            holds(&*group, &["cpu.cfs_quota_us"], "50000");
            holds(&*group, &["cpu.cfs_period_us"], "100000");
        }
    }
    gone(&*group);
    None
}

/// The limit on processes works: a shell in the cgroup cannot fork past it.
pub fn pids(driver: &dyn CgroupDriver) -> Option<String> {
    let group = match make(
        driver,
        resources().pids(LinuxPidsBuilder::default().limit(4).build().ok()?),
    ) {
        Ok(group) => group,
        Err(reason) => return Some(reason),
    };
    holds(&*group, &["pids.max"], "4");
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 30 >/dev/null 2>&1 & done; echo all";
    let child = inside(&*group, script, Stdio::piped());
    let output = child.wait_with_output().expect("the shell's output");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let refused = err.contains("fork") || !out.contains("all");
    assert!(refused, "eight sleeps ran under a limit of four: {out}{err}");
    group.kill().expect("the rest can be killed");
    gone(&*group);
    None
}

/// Limits change while a process runs.
pub fn update(driver: &dyn CgroupDriver) -> Option<String> {
    let limit = |mib: i64| {
        LinuxMemoryBuilder::default()
            .limit(mib << 20)
            .swap(mib << 20)
            .build()
            .unwrap_or_default()
    };
    let group = match make(driver, resources().memory(limit(64))) {
        Ok(group) => group,
        Err(reason) => return Some(reason),
    };
    let mut child = inside(&*group, "sleep 30", Stdio::null());
    for mib in [128, 32] {
        group
            .update(&build(resources().memory(limit(mib))))
            .expect("a new limit");
        holds(
            &*group,
            &["memory.max", "memory.limit_in_bytes"],
            &(mib << 20).to_string(),
        );
    }
    group.kill().expect("the sleep can be killed");
    child.wait().expect("a dead child");
    gone(&*group);
    None
}

/// The kernel's kill for want of memory is counted.
pub fn oom(driver: &dyn CgroupDriver) -> Option<String> {
    let memory = LinuxMemoryBuilder::default()
        .limit(16 << 20)
        .swap(16 << 20)
        .build()
        .ok()?;
    let group = match make(driver, resources().memory(memory)) {
        Ok(group) => group,
        Err(reason) => return Some(reason),
    };
    assert_eq!(group.oom_kills().expect("a counter"), Some(0));
    // A variable that doubles until the kernel says no.
    let script = "x=0123456789abcdef; while :; do x=$x$x; done";
    let status = inside(&*group, script, Stdio::null()).wait().expect("the shell's end");
    assert!(!status.success());
    let kills = group
        .oom_kills()
        .expect("a counter")
        .expect("a counter where memory is limited");
    assert!(kills > 0, "the shell ended with {status}, and no kill is counted");
    gone(&*group);
    None
}

/// Killing reaches every process, and only then can the cgroup be removed.
pub fn kill(driver: &dyn CgroupDriver) -> Option<String> {
    let group = match make(
        driver,
        resources().pids(LinuxPidsBuilder::default().limit(64).build().ok()?),
    ) {
        Ok(group) => group,
        Err(reason) => return Some(reason),
    };
    let mut child = inside(&*group, "setsid sleep 31 & sleep 32 & wait", Stdio::null());
    std::thread::sleep(Duration::from_millis(30));
    group.kill().expect("all can be killed");
    let status = child.wait().expect("a dead child");
    assert!(status.code().is_none(), "the shell ended by itself: {status}");
    gone(&*group);
    None
}

/// What cannot be set is refused with a remedy, or left out with a warning; what can never work is refused anyway.
pub fn refusals(driver: &dyn CgroupDriver) -> Option<String> {
    let id = ContainerId::random();
    let negative = build(resources().memory(LinuxMemoryBuilder::default().limit(-7).build().ok()?));
    let error = driver.create(&id, &negative, true).expect_err("minus seven bytes");
    assert_eq!(error.kind(), &ErrorKind::InvalidArgument);
    if driver.mode() != CgroupMode::None {
        return None;
    }
    let limited = build(resources().pids(LinuxPidsBuilder::default().limit(5).build().ok()?));
    let error = driver
        .create(&id, &limited, false)
        .expect_err("a limit without cgroups");
    assert!(matches!(error.kind(), ErrorKind::Unsupported { needs } if !needs.is_empty()));
    let group = driver.create(&id, &limited, true).expect("best effort");
    assert_eq!(group.warnings().len(), 1);
    assert!(group.v2_dir().is_none() && group.v1_procs().is_empty() && group.directories().is_empty());
    assert!(group.kill().is_err_and(|error| error.is_unsupported()));
    None
}

/// A parent that is named holds the container's cgroup, and goes with the last of them; a driver that knows none says so.
pub fn named(driver: &dyn CgroupDriver) -> Option<String> {
    let ids = [ContainerId::random(), ContainerId::random()];
    let parent: CgroupParent = format!("suite-{}/inner", ids[0].short()).parse().expect("a plain path");
    let make = |id| driver.create_in(&parent, id, &LinuxResources::default(), false);
    let groups = match [make(&ids[0]), make(&ids[1])] {
        [Ok(one), Ok(two)] => [one, two],
        [Err(error), _] | [_, Err(error)] if error.is_unsupported() => return Some(error.report()),
        [Err(error), _] | [_, Err(error)] => panic!("{}", error.report()),
    };
    let again = make(&ids[0]).expect_err("the id is taken");
    assert_eq!(again.kind(), &ErrorKind::Conflict);
    for (group, id) in groups.iter().zip(&ids) {
        assert!(own(&**group).next().is_some());
        for dir in own(&**group) {
            assert!(dir.ends_with(parent.path_of(id)), "{}", dir.display());
        }
        let told = driver.directories_in(&parent, id).expect("it is there");
        assert_eq!(told.len(), group.directories().len(), "{told:?}");
        driver.open_at(id, &told).expect("what was made can be opened");
    }
    let [one, two] = groups;
    let above: Vec<PathBuf> = one
        .directories()
        .iter()
        .filter(|dir| !dir.ends_with(ids[0].as_str()))
        .cloned()
        .collect();
    assert!(!above.is_empty());
    gone(&*one);
    assert!(above.iter().all(|dir| dir.is_dir()), "the other is in them");
    gone(&*two);
    for dir in &above {
        assert!(!dir.exists(), "{} is left", dir.display());
    }
    None
}

/// Everything of an owner goes at once, processes included.
pub fn owner(driver: &dyn CgroupDriver) -> Option<String> {
    let limits = || resources().pids(LinuxPidsBuilder::default().limit(64).build().unwrap_or_default());
    let groups = match [make(driver, limits()), make(driver, limits())] {
        [Ok(one), Ok(two)] => [one, two],
        [Err(reason), _] | [_, Err(reason)] => return Some(reason),
    };
    let mut child = inside(&*groups[1], "sleep 33", Stdio::null());
    // The child must be reaped, or it holds its cgroup; a real owner's zygote does that.
    let reaper = std::thread::spawn(move || child.wait());
    driver.remove_owner().expect("the owner's cgroups");
    reaper.join().expect("the reaper").expect("a dead child");
    for dir in groups.iter().flat_map(|group| group.directories()) {
        assert!(!dir.exists(), "{} is left", dir.display());
    }
    None
}

fn resources() -> LinuxResourcesBuilder {
    LinuxResourcesBuilder::default()
}

fn build(builder: LinuxResourcesBuilder) -> LinuxResources {
    builder.build().expect("resources")
}

/// Makes a limited cgroup, or says why the host cannot.
fn make(driver: &dyn CgroupDriver, limits: LinuxResourcesBuilder) -> Result<Box<dyn Cgroup>, String> {
    match driver.create(&ContainerId::random(), &build(limits), false) {
        Ok(group) => Ok(group),
        Err(error) if error.is_unsupported() => Err(error.report()),
        Err(error) => panic!("{}", error.report()),
    }
}

/// The container's own directories, without the parents.
fn own(group: &dyn Cgroup) -> impl Iterator<Item = &Path> {
    let named = |dir: &&Path| dir.file_name().is_some_and(|name| name.len() == 64);
    group.directories().iter().map(PathBuf::as_path).filter(named)
}

/// The first of the files that one of the directories has.
fn file(group: &dyn Cgroup, names: &[&str]) -> Option<PathBuf> {
    own(group)
        .flat_map(|dir| names.iter().map(move |name| dir.join(name)))
        .find(|path| path.exists())
}

fn holds(group: &dyn Cgroup, names: &[&str], value: &str) {
    let path = file(group, names).unwrap_or_else(|| panic!("none of {names:?} exists"));
    let text = fs::read_to_string(&path).expect("a readable limit");
    assert_eq!(text.trim(), value, "{}", path.display());
}

/// Runs a shell script in the cgroup: the shell moves itself, then runs it.
fn inside(group: &dyn Cgroup, script: &str, out: Stdio) -> Child {
    let joins: Vec<String> = own(group)
        .map(|dir| format!("echo 0 > {}/cgroup.procs && ", dir.display()))
        .collect();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("{} echo ready >&2; {script}", joins.concat())]);
    command.stdin(Stdio::null()).stdout(out).stderr(Stdio::piped());
    let mut child = command.spawn().expect("/bin/sh");
    wait_for_ready(&mut child);
    child
}

/// Reads the one line that the script writes once it is inside.
fn wait_for_ready(child: &mut Child) {
    use std::io::Read;
    let mut line = [0u8; 6];
    let stderr = child.stderr.as_mut().expect("a piped stderr");
    stderr.read_exact(&mut line).expect("the shell joins the cgroup");
    assert_eq!(&line, b"ready\n");
}

/// Removes a cgroup whose processes have ended, and checks that nothing stays.
fn gone(group: &dyn Cgroup) {
    let start = Instant::now();
    group.remove().expect("an empty cgroup can be removed");
    assert!(start.elapsed() < Duration::from_secs(3));
    for dir in own(group) {
        assert!(!dir.exists(), "{} is left", dir.display());
    }
}
