//! Mounts, cgroups and processes that nobody's are, as far as this process may look.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Facts, Finding, FindingKind};
use crate::runtime::cgroups::layout::unescape;
use crate::sys::order;
use crate::types::{ContainerId, OwnerId};

/// The name that the helper gives itself.
const HELPER: &str = "longshore";

pub(super) fn findings(facts: &Facts, cgroups: &[PathBuf]) -> Vec<Finding> {
    let processes = Processes::look(facts);
    let mut findings = orphans(facts, &processes);
    findings.extend(lost_shims(facts, &processes));
    findings.extend(mounts(facts, &processes));
    findings.extend(
        cgroups
            .iter()
            .filter_map(|parent| parent.parent())
            .flat_map(|home| strays(facts, &processes, home)),
    );
    findings
}

/// A helper process of an owner of this root.
struct Helper {
    pid: u32,
    parent: u32,
    owner: OwnerId,
}

struct Processes {
    helpers: Vec<Helper>,
    /// Shims of this root's containers.
    shims: Vec<(u32, ContainerId)>,
    /// Whether there are helpers that are not of this root, or that cannot be looked into.
    strangers: bool,
}

impl Processes {
    fn look(facts: &Facts) -> Self {
        let mut processes = Self {
            helpers: Vec::new(),
            shims: Vec::new(),
            strangers: false,
        };
        for pid in pids() {
            let Some((name, parent)) = stat(pid) else { continue };
            if name != HELPER {
                continue;
            }
            match held(facts, pid) {
                Some(Held::Owner(owner)) if embedder(facts, &owner) == Some(pid) => {}
                Some(Held::Owner(owner)) => processes.helpers.push(Helper { pid, parent, owner }),
                Some(Held::Container(id)) => processes.shims.push((pid, id)),
                None => processes.strangers = true,
            }
        }
        processes
    }
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A process's name and parent. Source: proc_pid_stat(5).
fn stat(pid: u32) -> Option<(String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = stat.rsplit_once(')')?;
    let parent = tail.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some((head.split_once('(')?.1.to_owned(), parent))
}

/// Whose lock a process has open.
enum Held {
    Owner(OwnerId),
    Container(ContainerId),
}

/// The owner, or the detached container, of this root whose lock a process has open.
fn held(facts: &Facts, pid: u32) -> Option<Held> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let lock_of = |path: PathBuf| {
        let parts: Vec<&str> = path.strip_prefix(&facts.root).ok()?.to_str()?.split('/').collect();
        match parts[..] {
            ["owners", owner, "lock"] => Some(Held::Owner(owner.parse().ok()?)),
            ["containers", id, "shim", "lock"] => Some(Held::Container(id.parse().ok()?)),
            _ => None,
        }
    };
    files
        .filter_map(|file| fs::read_link(file.path()).ok())
        .find_map(lock_of)
}

/// The process that made an owner, as it noted in its lock.
fn embedder(facts: &Facts, owner: &OwnerId) -> Option<u32> {
    let note = fs::read_to_string(facts.root.join("owners").join(owner.as_str()).join("lock")).ok()?;
    note.lines().find_map(|line| line.strip_prefix("pid ")?.parse().ok())
}

/// Helpers whose process is gone end within two seconds; longer than that is a finding.
fn orphans(facts: &Facts, processes: &Processes) -> Vec<Finding> {
    let lost = |helper: &&Helper| embedder(facts, &helper.owner).is_some_and(|embedder| embedder != helper.parent);
    let found = |helper: &Helper| {
        let what = format!("a helper of owner {}, whose process is gone", helper.owner.short());
        Finding::new(FindingKind::Process, helper.pid.to_string(), what)
    };
    processes.helpers.iter().filter(lost).map(found).collect()
}

/// A shim goes with its container.
fn lost_shims(facts: &Facts, processes: &Processes) -> Vec<Finding> {
    let lost = |(_, id): &&(u32, ContainerId)| facts.container(id.as_str()).is_none();
    let found = |(pid, id): &(u32, ContainerId)| {
        let what = format!("a shim of container {}, which nobody knows", id.short());
        Finding::new(FindingKind::Process, pid.to_string(), what)
    };
    processes.shims.iter().filter(lost).map(found).collect()
}

/// Containers' mounts are seen by nobody else: below the root there is none, neither here nor where helpers live. A whole
/// part of the root on a file system of its own is its administrator's choice.
fn mounts(facts: &Facts, processes: &Processes) -> Vec<Finding> {
    let here = std::iter::once("/proc/self/mountinfo".to_owned());
    let theirs = processes
        .helpers
        .iter()
        .map(|helper| format!("/proc/{}/mountinfo", helper.pid));
    let mut points: Vec<PathBuf> = here
        .chain(theirs)
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| below(&facts.root, &table))
        .collect();
    order::sort(&mut points);
    points.dedup();
    let what = "nothing of the engine is mounted where others see it; unmount it";
    let found = |point: PathBuf| Finding::new(FindingKind::Mount, point.display().to_string(), what);
    points.into_iter().map(found).collect()
}

fn below(root: &Path, mountinfo: &str) -> Vec<PathBuf> {
    let point = |line: &str| line.split(' ').nth(4).map(|point| PathBuf::from(unescape(point)));
    let deep = |point: &PathBuf| point.strip_prefix(root).is_ok_and(|rest| rest.components().count() > 1);
    mountinfo.lines().filter_map(point).filter(deep).collect()
}

/// Cgroups below a home: an owner's parent has its name in it, and below are its containers'.
fn strays(facts: &Facts, processes: &Processes, home: &Path) -> Vec<Finding> {
    let found = |dir: &Path, what: &str| Finding::new(FindingKind::Cgroup, dir.display().to_string(), what);
    let mut findings = Vec::new();
    for (name, dir) in directories(home) {
        let Some(short) = name.strip_prefix("longshore-") else {
            continue;
        };
        let owner = facts.owners.iter().find(|(owner, _)| owner.short() == short);
        match owner {
            Some((_, true)) => {
                let of_none = directories(&dir)
                    .into_iter()
                    .filter(|(id, _)| id.parse::<ContainerId>().is_ok() && facts.container(id).is_none());
                findings.extend(of_none.map(|(_, dir)| found(&dir, "no container has it")));
            }
            Some((_, false)) => findings.push(found(&dir, "its owner is dead; reconcile removes it")),
            // Perhaps an engine's on another root. Where no such engine can be seen, it is nobody's.
            None if !processes.strangers && is_empty(&dir) => {
                findings.push(found(
                    &dir,
                    "no owner has it, and no process is in it; remove it with rmdir",
                ));
            }
            None => {}
        }
    }
    findings
}

fn directories(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .collect()
}

/// Whether no process is in a cgroup or below it.
fn is_empty(dir: &Path) -> bool {
    let members = fs::read_to_string(dir.join("cgroup.procs"));
    members.is_ok_and(|members| members.trim().is_empty()) && directories(dir).iter().all(|(_, dir)| is_empty(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_in_the_root_but_not_its_parts() {
        let table = "36 35 98:0 / / rw - ext4 /dev/root rw\n\
                     37 36 98:1 / /r/content rw - ext4 /dev/x rw\n\
                     38 36 0:40 / /r/snapshots/l/a\\040b rw - overlay overlay rw\n\
                     39 36 0:41 / /rest/x/y rw - tmpfs tmpfs rw\n";
        assert_eq!(below(Path::new("/r"), table), [PathBuf::from("/r/snapshots/l/a b")]);
    }

    #[test]
    fn this_process_is_read() {
        let (name, parent) = stat(std::process::id()).unwrap();
        assert!(!name.is_empty());
        assert_eq!(parent, std::os::unix::process::parent_id());
    }
}
