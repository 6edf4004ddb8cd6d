//! `info`: what the engine is, on what host, and what its users should know.

use std::fs;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::utsname::uname;
use nix::unistd::{Pid, geteuid, gethostname};

use super::local::Parts;
use super::{ContainerCounts, SystemInfo};
use crate::error::Result;
use crate::probe::{Probe, probe};
use crate::runtime::cgroups::CgroupMode;
use crate::storage::files::blocking;
use crate::store::StateCount;

impl Parts {
    pub(super) async fn info(&self) -> Result<SystemInfo> {
        let (root, owners) = (self.root.clone(), self.owners.clone());
        let (id, containers, images) = self
            .store
            .call(move |store| {
                let alive = |count: &StateCount| match &count.owner {
                    Some(owner) => owners.is_alive(owner),
                    None => Ok(true),
                };
                let containers = count(store.container_states()?, alive)?;
                Ok((root.id()?, containers, store.count_images()?))
            })
            .await?;
        let host = blocking(|| Ok(Host::look())).await?;
        let own = std::sync::Arc::clone(&self.containers.0);
        let devices = blocking(move || Ok(own.cdi().names().map(str::to_owned).collect())).await?;
        Ok(SystemInfo {
            id,
            name: host.name,
            version: env!("CARGO_PKG_VERSION").into(),
            root: Some(self.root.path().to_owned()),
            owner: Some(self.owner.clone()),
            storage_driver: self.snapshotter.name().to_owned(),
            storage_reason: self.storage_reason.clone(),
            log_driver: self.logs.clone(),
            cgroup_driver: match self.cgroups.mode() {
                CgroupMode::None => "none".into(),
                _ => self.cgroups.name().to_owned(),
            },
            cgroup_version: version_of(self.cgroups.mode()).into(),
            runtime: self.runtime.clone(),
            containers,
            images,
            kernel_version: host.kernel,
            operating_system: host.system,
            architecture: std::env::consts::ARCH.into(),
            cpus: host.cpus,
            memory_bytes: host.memory_bytes,
            cdi_directories: self.containers.0.cdi_directories(),
            cdi_devices: devices,
            rootless: !geteuid().is_root(),
            warnings: warnings(&host.probe),
        })
    }
}

/// Containers of dead owners do not run, whatever their record says: they wait for the sweeper.
fn count(states: Vec<StateCount>, alive: impl Fn(&StateCount) -> Result<bool>) -> Result<ContainerCounts> {
    let mut counts = ContainerCounts::default();
    for state in states {
        if !alive(&state)? {
            continue;
        }
        match state.state.as_str() {
            "running" => counts.running += state.containers,
            "paused" => counts.paused += state.containers,
            _ => counts.stopped += state.containers,
        }
    }
    Ok(counts)
}

/// Limits decide: a hybrid host has its controllers in version 1.
fn version_of(mode: CgroupMode) -> &'static str {
    match mode {
        CgroupMode::V2 => "2",
        CgroupMode::V1 | CgroupMode::Hybrid => "1",
        CgroupMode::None => "none",
    }
}

/// Each thing that the host lacks, with what to do about it.
fn warnings(probe: &Probe) -> Vec<String> {
    let sentence = |feature: &crate::probe::Feature| match &feature.remedy {
        Some(remedy) => format!("{}: {}; remedy: {remedy}", feature.name, feature.detail),
        None => format!("{}: {}", feature.name, feature.detail),
    };
    probe.missing().map(sentence).collect()
}

/// What is asked of the host each time: names and processors can change.
struct Host {
    name: String,
    kernel: String,
    system: String,
    cpus: usize,
    memory_bytes: u64,
    probe: Probe,
}

impl Host {
    fn look() -> Self {
        let kernel = uname().map(|name| name.release().to_string_lossy().into_owned());
        Self {
            name: gethostname().map_or_else(|_| String::new(), |name| name.to_string_lossy().into_owned()),
            kernel: kernel.unwrap_or_default(),
            system: operating_system(),
            cpus: cpus(),
            memory_bytes: memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
            probe: probe(),
        }
    }
}

/// Source: os-release(5), which names both places, the first one first.
fn operating_system() -> String {
    let text = ["/etc/os-release", "/usr/lib/os-release"]
        .iter()
        .find_map(|path| fs::read_to_string(path).ok());
    text.as_deref().and_then(pretty_name).unwrap_or_else(|| "Linux".into())
}

fn pretty_name(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?.trim();
    let bare = value.trim_matches(|quote| quote == '"' || quote == '\'');
    (!bare.is_empty()).then(|| bare.to_owned())
}

/// Those that this process may run on: sched_getaffinity(2).
fn cpus() -> usize {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else {
        return std::thread::available_parallelism().map_or(1, usize::from);
    };
    (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu) == Ok(true)).count()
}

/// `MemTotal` of proc_meminfo(5), which counts in units of 1024 bytes.
fn memory(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::OwnerId;

    #[test]
    fn the_distribution_s_name_in_every_quoting() {
        for text in [
            "ID=x\nPRETTY_NAME=\"Some Linux 12\"\n",
            "PRETTY_NAME='Some Linux 12'",
            "PRETTY_NAME=Some Linux 12\n",
        ] {
            assert_eq!(pretty_name(text).as_deref(), Some("Some Linux 12"));
        }
        assert_eq!(pretty_name("NAME=x\nPRETTY_NAME=\"\"\n"), None);
    }

    #[test]
    fn memory_is_in_bytes() {
        assert_eq!(memory("MemTotal:        2048 kB\nMemFree: 1 kB\n"), 2 << 20);
        assert_eq!(memory("nonsense"), 0);
        assert!(memory(&fs::read_to_string("/proc/meminfo").unwrap()) > 1 << 20);
        assert!(cpus() >= 1);
    }

    #[test]
    fn containers_of_the_dead_do_not_count() {
        let (alive, dead) = (OwnerId::random(), OwnerId::random());
        let row = |owner: Option<&OwnerId>, state: &str, containers| StateCount {
            owner: owner.cloned(),
            state: state.into(),
            containers,
        };
        let rows = vec![
            row(Some(&alive), "running", 2),
            row(Some(&dead), "running", 5),
            row(None, "paused", 1),
            row(Some(&alive), "created", 3),
            row(None, "exited", 4),
        ];
        let counts = count(rows, |row| Ok(row.owner.as_ref() != Some(&dead))).unwrap();
        assert_eq!((counts.running, counts.paused, counts.stopped), (2, 1, 7));
    }

    #[test]
    fn every_warning_has_a_remedy() {
        let probe = probe();
        let warnings = warnings(&probe);
        assert_eq!(warnings.len(), probe.missing().count());
        assert!(
            warnings.iter().all(|warning| warning.contains("; remedy: ")),
            "{warnings:?}"
        );
    }
}
