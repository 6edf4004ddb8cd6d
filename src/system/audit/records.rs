//! Records against what they speak of: owners that are dead, processes that are gone, files that are missing.

use std::path::Path;

use super::{Facts, Finding, FindingKind};
use crate::containers::{ContainerState, ETC_FILES, Record, identify};
use crate::sys::pidfd;

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let dead = facts.owners.iter().filter(|(_, alive)| !**alive);
    let mut findings: Vec<Finding> = dead
        .map(|(owner, _)| {
            let what = "it is dead, and nobody has cleared up after it; reconcile does";
            Finding::new(FindingKind::Owner, owner.short(), what)
        })
        .collect();
    for record in &facts.containers {
        findings.extend(of_container(facts, record));
    }
    findings
}

fn of_container(facts: &Facts, record: &Record) -> Vec<Finding> {
    let found = |what: String| Finding::new(FindingKind::Container, record.id.short(), what);
    if !facts.is_kept(record) {
        return vec![found("its owner is dead; reconcile removes it".into())];
    }
    let mut findings = Vec::new();
    if !facts.active.contains(&record.snapshot_key()) {
        findings.push(found("its writable layer is missing".into()));
    }
    if record.state == ContainerState::Running {
        findings.extend(missing_files(facts, record).map(|file| found(format!("its file {file} is missing"))));
    }
    findings.extend(wrong_process(record).map(found));
    findings
}

/// Files for `/etc` that a running container should have.
fn missing_files(facts: &Facts, record: &Record) -> impl Iterator<Item = &'static str> {
    let dir = facts.root.join("containers").join(record.id.as_str());
    let wanted = ETC_FILES
        .iter()
        .filter(|(_, place)| !record.body.spec.targets().any(|target| target == Path::new(place)));
    let missing: Vec<_> = wanted
        .map(|(name, _)| *name)
        .filter(|name| !dir.join(name).exists())
        .collect();
    missing.into_iter()
}

fn wrong_process(record: &Record) -> Option<String> {
    let process = record.body.process?;
    let there = match (pidfd::open(process.pid), identify(process.pid)) {
        (Err(_), _) => false,
        (Ok(_), Some(found)) => found == process,
        // It is there, and /proc does not say which it is.
        (Ok(_), None) => return None,
    };
    match record.state {
        ContainerState::Running if !there => {
            Some(format!("it counts as running, and its process {} is gone", process.pid))
        }
        ContainerState::Exited if there => {
            Some(format!("it counts as ended, and its process {} is there", process.pid))
        }
        _ => None,
    }
}
