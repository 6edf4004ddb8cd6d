//! Files that belong to no record and to no live owner.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{Facts, Finding, FindingKind};
use crate::error::Result;
use crate::storage::files;
use crate::storage::snapshot::usage_of;
use crate::storage::sweep::owner_of;
use crate::types::OwnerId;

/// What a file that becomes part of the root is called until it is whole.
const TEMPORARY: &str = ".new.";

pub(super) fn findings(facts: &Facts) -> Result<Vec<Finding>> {
    let locked = locked();
    let mut findings = layers(facts);
    findings.extend(containers(facts)?);
    findings.extend(builds(facts)?);
    findings.extend(unfinished_blobs(facts)?);
    findings.extend(trash(facts)?);
    findings.extend(owners(facts, &locked)?);
    findings.extend(locks(facts, &locked)?);
    for name in files::names(&facts.root)? {
        if name.starts_with(TEMPORARY) {
            findings.push(Finding::new(
                FindingKind::File,
                name,
                "a temporary file that nobody finished",
            ));
        }
    }
    Ok(findings)
}

/// Layers of containers that are no more, and half-made ones of the dead.
fn layers(facts: &Facts) -> Vec<Finding> {
    let wrong = |key: &String| {
        if let Some(container) = key.strip_prefix("c-") {
            return facts.container(container).is_none().then_some("no container has it");
        }
        let owner = owner_of(key)?;
        (!lives(facts, owner)).then_some("who made it is dead")
    };
    let found = |key: &String| Some(Finding::new(FindingKind::Layer, key.clone(), wrong(key)?));
    facts.active.iter().filter_map(found).collect()
}

fn containers(facts: &Facts) -> Result<Vec<Finding>> {
    let mut names = files::names(&facts.root.join("containers"))?;
    names.retain(|name| facts.container(name).is_none());
    let found = |name: String| Finding::new(FindingKind::File, format!("containers/{name}"), "no container has it");
    Ok(names.into_iter().map(found).collect())
}

/// What builds of the dead left.
fn builds(facts: &Facts) -> Result<Vec<Finding>> {
    let mut names = files::names(&facts.root.join("builds"))?;
    names.retain(|name| name.split_once('-').is_none_or(|(owner, _)| !lives(facts, owner)));
    let found = |name: String| Finding::new(FindingKind::File, format!("builds/{name}"), "who built it is dead");
    Ok(names.into_iter().map(found).collect())
}

fn unfinished_blobs(facts: &Facts) -> Result<Vec<Finding>> {
    let mut names = files::names(&facts.root.join("content/ingest"))?;
    names.retain(|name| name.split_once('-').is_none_or(|(owner, _)| !lives(facts, owner)));
    let found = |name: String| {
        Finding::new(
            FindingKind::File,
            format!("content/ingest/{name}"),
            "who wrote it is dead",
        )
    };
    Ok(names.into_iter().map(found).collect())
}

/// The number says whether somebody is at it: what shrinks from look to look is no finding.
fn trash(facts: &Facts) -> Result<Vec<Finding>> {
    let dir = facts.root.join("snapshots/trash");
    let found = |name: String| {
        let left = usage_of(&dir.join(&name)).map_or(0, |usage| usage.inodes);
        let what = format!("its deletion was not finished; {left} files and directories are left in it");
        Finding::new(FindingKind::File, format!("snapshots/trash/{name}"), what)
    };
    Ok(files::names(&dir)?.into_iter().map(found).collect())
}

fn owners(facts: &Facts, locked: &HashSet<u64>) -> Result<Vec<Finding>> {
    let dir = facts.root.join("owners");
    let mut findings = Vec::new();
    for name in files::names(&dir)? {
        let unborn = name.starts_with(TEMPORARY);
        if name.parse::<OwnerId>().is_ok() || unborn && is_locked(&dir.join(&name).join("lock"), locked) {
            continue;
        }
        let what = "what a process left that died while it came or went; reconcile removes it";
        findings.push(Finding::new(FindingKind::File, format!("owners/{name}"), what));
    }
    Ok(findings)
}

fn locks(facts: &Facts, locked: &HashSet<u64>) -> Result<Vec<Finding>> {
    let dir = facts.root.join("locks");
    let mut names = files::names(&dir)?;
    names.retain(|name| !is_locked(&dir.join(name), locked));
    let found = |name| Finding::new(FindingKind::Lock, name, "nobody holds it; reconcile removes its file");
    Ok(names.into_iter().map(found).collect())
}

fn lives(facts: &Facts, owner: &str) -> bool {
    owner.parse().is_ok_and(|owner| facts.lives(&owner))
}

fn is_locked(file: &Path, locked: &HashSet<u64>) -> bool {
    fs::metadata(file).is_ok_and(|metadata| locked.contains(&metadata.ino()))
}

/// Inodes of files that somebody holds a lock on. Trying a lock would be in others' way; this list is not. Device numbers
/// in it are not always those of stat(2), so the inode decides alone: at worst a stray lock is not reported. Source:
/// proc_locks(5).
fn locked() -> HashSet<u64> {
    inodes(&fs::read_to_string("/proc/locks").unwrap_or_default())
}

fn inodes(table: &str) -> HashSet<u64> {
    let file = |line: &str| {
        line.split_ascii_whitespace()
            .find(|word| word.matches(':').count() == 2)
            .map(str::to_owned)
    };
    table
        .lines()
        .filter_map(|line| file(line)?.rsplit(':').next()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_list_of_locks() {
        let table = "1: OFDLCK ADVISORY  WRITE -1 fe:00:1234 0 EOF\n2: FLOCK  ADVISORY  WRITE 708 00:1a:77 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 709 00:1a:78 0 EOF\n";
        assert_eq!(inodes(table), HashSet::from([1234, 77, 78]));
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!is_locked(file.path(), &locked()));
        let held = nix::fcntl::Flock::lock(file.reopen().unwrap(), nix::fcntl::FlockArg::LockExclusive).unwrap();
        assert!(is_locked(file.path(), &locked()));
        drop(held);
    }
}
