//! What the machine holds that a container engine could leave behind, before and after a test.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::names_in;

/// Set where other programs use containers on this machine at the same time: only what certainly is ours then counts.
pub const SHARED_HOST: &str = "LONGSHORE_TEST_SHARED_HOST";

/// A picture of the machine. Each item is a line that says what it is.
#[derive(Debug)]
pub struct Snapshot {
    items: BTreeSet<String>,
}

impl Snapshot {
    pub fn take() -> Self {
        let mut items = BTreeSet::new();
        mounts(&mut items);
        descriptors(&mut items);
        files(&mut items);
        if super::company::root().is_some() {
            // The others come and go all the time; what they leave is looked at when they are gone.
            items.retain(|item| item.starts_with("descriptor") && !item.contains("pipe:"));
            return Self { items };
        }
        if std::env::var_os(SHARED_HOST).is_some() {
            processes(&mut items, |process| process.descendant);
            return Self { items };
        }
        processes(&mut items, |process| process.descendant || process.helper);
        network_namespaces(&mut items);
        if super::is_root() {
            // An ordinary user can make neither where he is, and root's tests may run at this moment.
            links(&mut items);
            firewall(&mut items);
        }
        cgroups(Path::new("/sys/fs/cgroup"), 0, &mut items);
        Self { items }
    }

    /// What is there now and was not then, waiting so long for it to go away.
    pub fn leaks_within(&self, patience: Duration) -> Vec<String> {
        let start = Instant::now();
        loop {
            let now = Self::take();
            let leaks: Vec<String> = now.items.difference(&self.items).cloned().collect();
            if leaks.is_empty() || start.elapsed() > patience {
                return leaks.into_iter().map(describe).collect();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn mounts(items: &mut BTreeSet<String>) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let scratch = super::scratch::dir().display().to_string();
    let shared = std::env::var_os(SHARED_HOST).is_some();
    for line in table.lines().filter(|line| !shared || line.contains(&scratch)) {
        let fields: Vec<&str> = line.split(' ').collect();
        let kind = line.split(" - ").nth(1).unwrap_or_default();
        items.insert(format!(
            "mount {} on {} ({kind})",
            fields[0],
            fields.get(4).unwrap_or(&"?")
        ));
    }
}

fn descriptors(items: &mut BTreeSet<String>) {
    for number in names_in(Path::new("/proc/self/fd")) {
        let Ok(target) = fs::read_link(format!("/proc/self/fd/{number}")) else {
            continue;
        };
        let target = target.to_string_lossy();
        // The directory being read, whose number differs from call to call.
        if !target.ends_with("/fd") {
            items.insert(format!("descriptor {number} of the test: {target}"));
        }
    }
}

fn files(items: &mut BTreeSet<String>) {
    for name in names_in(super::scratch::dir()) {
        items.insert(format!("file {name} in the scratch directory"));
    }
    if std::env::var_os(SHARED_HOST).is_some() {
        return;
    }
    for dir in [std::env::temp_dir(), "/dev/shm".into(), "/run".into()] {
        for name in names_in(&dir).iter().filter(|name| name.contains("longshore")) {
            items.insert(format!("file {name} in {}", dir.display()));
        }
    }
}

/// Adds to a process what state it is in.
fn describe(item: String) -> String {
    let pid = item.strip_prefix("process ").and_then(|rest| rest.split(' ').next());
    match pid.and_then(read_process) {
        Some(process) => format!("{item}, state {}, child of {}", process.state, process.parent),
        None => item,
    }
}

/// A process, as far as leaks are concerned.
#[derive(Debug)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    pub name: String,
    /// As in proc(5): `S` sleeps, `Z` was not waited for.
    pub state: String,
    /// Below the test process.
    pub descendant: bool,
    /// The crate's helper, whoever started it.
    pub helper: bool,
}

/// All processes that can be seen.
pub fn all_processes() -> Vec<Process> {
    let mut all: Vec<Process> = names_in(Path::new("/proc"))
        .iter()
        .filter_map(|name| read_process(name))
        .collect();
    let mut family = BTreeSet::from([std::process::id()]);
    loop {
        let known = family.len();
        family.extend(
            all.iter()
                .filter(|process| family.contains(&process.parent))
                .map(|p| p.pid)
                .collect::<Vec<_>>(),
        );
        if family.len() == known {
            break;
        }
    }
    for process in &mut all {
        process.descendant = process.pid != std::process::id() && family.contains(&process.pid);
    }
    all
}

fn read_process(name: &str) -> Option<Process> {
    let pid = name.parse().ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let mut fields = tail.split_whitespace();
    let state = fields.next()?.to_owned();
    let parent = fields.next()?.parse().ok()?;
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let helper = exe.to_string_lossy().starts_with("/memfd:longshore") || name.starts_with("longshore:");
    Some(Process {
        pid,
        parent,
        name,
        state,
        descendant: false,
        helper,
    })
}

fn processes(items: &mut BTreeSet<String>, counts: impl Fn(&Process) -> bool) {
    for process in all_processes().into_iter().filter(counts) {
        items.insert(format!("process {} ({})", process.pid, process.name));
    }
}

fn network_namespaces(items: &mut BTreeSet<String>) {
    for pid in names_in(Path::new("/proc")) {
        if let Ok(target) = fs::read_link(format!("/proc/{pid}/ns/net")) {
            items.insert(format!("network namespace {}", target.display()));
        }
    }
}

fn links(items: &mut BTreeSet<String>) {
    let table = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    for line in table.lines().skip(2) {
        items.insert(format!("link {}", line.split(':').next().unwrap_or_default().trim()));
    }
}

fn firewall(items: &mut BTreeSet<String>) {
    let Ok(nft) = super::program("nft") else { return };
    let Ok(output) = std::process::Command::new(nft).args(["list", "tables"]).output() else {
        return;
    };
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        items.insert(format!("firewall {line}"));
    }
}

/// Whoever makes a cgroup owns it; root may have given it away.
fn may_be_ours(entry: &fs::DirEntry) -> bool {
    super::is_root()
        || entry
            .metadata()
            .is_ok_and(|made| made.uid() == nix::unistd::geteuid().as_raw())
}

fn cgroups(dir: &Path, depth: usize, items: &mut BTreeSet<String>) {
    const DEEPEST: usize = 8;
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    {
        if entry.file_name().to_string_lossy().contains("longshore") && may_be_ours(&entry) {
            items.insert(format!("cgroup {}", entry.path().display()));
        }
        if depth < DEEPEST {
            cgroups(&entry.path(), depth + 1, items);
        }
    }
}
