//! A second driver, over the `cgroups-rs` crate: limits in hierarchies of version 1.
//!
//! The crate makes directories, writes limits, counts and deletes. Which hierarchies to use, and what a limit means, is
//! shared with the native driver. It makes nothing of version 2, so a container without limits has no cgroup here, and is
//! killed by its pid namespace.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ::cgroups_rs::fs::cpu::CpuController;
use ::cgroups_rs::fs::cpuset::CpuSetController;
use ::cgroups_rs::fs::memory::MemController;
use ::cgroups_rs::fs::pid::PidController;
use ::cgroups_rs::fs::{MaxValue, Subsystem};
use oci_spec::runtime::LinuxResources;

use super::convert::Setting;
use super::files;
use super::group::{Part, judge, not_joined};
use super::native::{Shared, leave_out, parent_name};
use super::place::Places;
use super::{Cgroup, CgroupDriver, CgroupMode};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::types::{ContainerId, OwnerId};

/// Limits by the `cgroups-rs` crate, in cgroups of version 1.
#[derive(Debug, Clone)]
pub struct CgroupsRs {
    shared: Arc<Shared>,
}

impl CgroupsRs {
    /// Looks at this host's cgroups of version 1 and takes `longshore-<owner>` as the parent's name. Makes nothing yet.
    pub fn new(owner: &OwnerId) -> Self {
        let mut layout = Places::find().layout;
        layout.v2 = None;
        Self {
            shared: Shared::new(parent_name(owner), Places::of(layout).into()),
        }
    }

    fn make(&self, id: &ContainerId, settings: &[Setting]) -> Result<Vec<Made>> {
        let mut parents = self.shared.lock();
        *parents = true;
        let mut made: Vec<Made> = Vec::new();
        for part in self.shared.parts(id) {
            let asked = |name: &&String| settings.iter().any(|setting| setting.controller == **name);
            let subsystems: Vec<_> = part
                .controllers
                .iter()
                .filter(asked)
                .filter_map(|name| subsystem(name, &part.dir))
                .collect();
            if subsystems.is_empty() {
                continue;
            }
            let taken = part.dir.exists();
            let done = if taken {
                Err(Error::new(
                    ErrorKind::Conflict,
                    format!("the cgroup {} exists", part.dir.display()),
                ))
            } else {
                // The crate makes missing parents too.
                subsystems
                    .iter()
                    .try_for_each(|one| one.to_controller().create())
                    .map_err(|error| failed("make", error))
            };
            if !taken {
                made.push(Made { part, subsystems });
            }
            if let Err(error) = done {
                let parts: Vec<Part> = made.into_iter().map(|made| made.part).collect();
                let _ = self.shared.unmake(&parts, Instant::now());
                return Err(error.with_object(ObjectKind::Cgroup, id.as_str()));
            }
        }
        Ok(made)
    }

    fn group(&self, id: &ContainerId, made: Vec<Made>) -> Result<Group> {
        let procs = made
            .iter()
            .map(|made| files::open_write(&made.part.dir.join("cgroup.procs")));
        let v1 = procs
            .collect::<io::Result<Vec<_>>>()
            .map_err(|error| Error::os("open the cgroup", error))?;
        let own = made.iter().map(|made| made.part.dir.clone());
        let directories = own.chain(made.iter().map(|made| made.part.parent.clone())).collect();
        Ok(Group {
            shared: Arc::clone(&self.shared),
            id: id.clone(),
            made,
            v1,
            directories,
            warnings: Vec::new(),
        })
    }
}

impl CgroupDriver for CgroupsRs {
    fn name(&self) -> &str {
        "cgroups-rs"
    }

    fn mode(&self) -> CgroupMode {
        self.shared.places().mode()
    }

    fn create(&self, id: &ContainerId, resources: &LinuxResources, best_effort: bool) -> Result<Box<dyn Cgroup>> {
        let (settings, mut warnings) = self.shared.decide(resources, best_effort)?;
        let (known, unknown): (Vec<_>, Vec<_>) = settings.into_iter().partition(is_known);
        for setting in unknown {
            leave_out(
                setting.what,
                "the cgroup driver `native`".to_owned(),
                best_effort,
                &mut warnings,
            )?;
        }
        let made = self.make(id, &known)?;
        let undo: Vec<Part> = made.iter().map(|made| made.part.clone()).collect();
        let group = self.group(id, made).and_then(|mut group| {
            group.apply(&known, best_effort, &mut warnings)?;
            group.warnings = warnings;
            Ok(group)
        });
        match group {
            Ok(group) => Ok(Box::new(group)),
            Err(error) => {
                let _ = self.shared.unmake(&undo, Instant::now());
                Err(error.with_object(ObjectKind::Cgroup, id.as_str()))
            }
        }
    }

    fn open(&self, id: &ContainerId) -> Result<Box<dyn Cgroup>> {
        let made = self.shared.existing(id).into_iter().map(|part| {
            let subsystems = part
                .controllers
                .iter()
                .filter_map(|name| subsystem(name, &part.dir))
                .collect();
            Made { part, subsystems }
        });
        Ok(Box::new(self.group(id, made.collect())?))
    }

    fn owner_directories(&self) -> Vec<PathBuf> {
        self.shared.parents()
    }

    fn remove_owner(&self) -> Result<()> {
        self.shared.remove_owner()
    }
}

/// A container's directory, and the crate's view of it by controller.
#[derive(Debug)]
struct Made {
    part: Part,
    subsystems: Vec<Subsystem>,
}

#[derive(Debug)]
struct Group {
    shared: Arc<Shared>,
    id: ContainerId,
    made: Vec<Made>,
    v1: Vec<OwnedFd>,
    directories: Vec<PathBuf>,
    warnings: Vec<String>,
}

impl Group {
    fn of(&self, controller: &str) -> Option<&Subsystem> {
        self.made
            .iter()
            .flat_map(|made| &made.subsystems)
            .find(|one| one.controller_name() == controller)
    }

    /// As in the native driver, what the kernel calls invalid is tried again after the rest.
    fn apply(&self, settings: &[Setting], best_effort: bool, warnings: &mut Vec<String>) -> Result<()> {
        let mut again = Vec::new();
        for setting in settings {
            match self.write(setting) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => again.push(setting),
                done => judge(self.shared.places(), setting, done, best_effort, warnings)?,
            }
        }
        let places = self.shared.places();
        again
            .into_iter()
            .try_for_each(|one| judge(places, one, self.write(one), best_effort, warnings))
    }

    fn write(&self, setting: &Setting) -> io::Result<()> {
        let missing = || io::Error::from_raw_os_error(libc::ENOENT);
        set(self.of(&setting.controller).ok_or_else(missing)?, setting).map_err(io_of)
    }
}

impl Cgroup for Group {
    fn mode(&self) -> CgroupMode {
        self.shared.places().mode()
    }

    fn v2_dir(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn v1_procs(&self) -> &[OwnedFd] {
        &self.v1
    }

    fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    fn kill(&self) -> Result<()> {
        // A process is in all of them or in none: one is enough. The crate kills in version 2 only.
        let Some(made) = self.made.first() else {
            return Err(Error::unsupported("killing by cgroup", "a container with a limit"));
        };
        files::kill_by_walk(&made.part.dir).map_err(|error| Error::os("kill the cgroup's processes", error))
    }

    fn update(&self, resources: &LinuxResources) -> Result<Vec<String>> {
        let plan = self.shared.plan(resources, None)?;
        if let Some(refusal) = plan.refusals.first() {
            return Err(Error::unsupported(refusal.what, refusal.needs));
        }
        let joined = |setting: &Setting| self.of(&setting.controller).is_some() && is_known(setting);
        let (mine, others): (Vec<_>, Vec<_>) = plan.settings.into_iter().partition(joined);
        if let Some(setting) = others.iter().find(|setting| !setting.lifts) {
            return Err(not_joined(self.shared.places(), setting));
        }
        let mut warnings = plan.warnings;
        self.apply(&mine, false, &mut warnings)?;
        Ok(warnings)
    }

    fn freeze(&self, frozen: bool) -> Result<()> {
        files::freeze(&self.directories, &self.id, frozen)
    }

    fn oom_kills(&self) -> Result<Option<u64>> {
        match self.of("memory") {
            Some(Subsystem::Mem(memory)) => Ok(Some(memory.memory_stat().oom_control.oom_kill)),
            _ => Ok(None),
        }
    }

    fn remove(&self) -> Result<()> {
        // The crate gives up after 150 ms; what is left then gets the rest of the bound.
        for one in self.made.iter().flat_map(|made| &made.subsystems) {
            let _ = one.to_controller().delete();
        }
        let parts: Vec<Part> = self.made.iter().map(|made| made.part.clone()).collect();
        self.shared
            .unmake(&parts, Instant::now() + files::PATIENCE)
            .map_err(|error| {
                let busy = files::is_busy(&error);
                let failed = Error::os("remove the cgroup", error).with_object(ObjectKind::Cgroup, self.id.as_str());
                if busy {
                    failed.with_kind(ErrorKind::InvalidState)
                } else {
                    failed
                }
            })
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// The crate's view of one controller in a directory.
fn subsystem(controller: &str, dir: &Path) -> Option<Subsystem> {
    let (dir, root) = (dir.to_path_buf(), PathBuf::from("/"));
    Some(match controller {
        "memory" => Subsystem::Mem(MemController::new(dir, root, false)),
        "cpu" => Subsystem::Cpu(CpuController::new(dir, root, false)),
        "cpuset" => Subsystem::CpuSet(CpuSetController::new(dir, root, false)),
        "pids" => Subsystem::Pid(PidController::new(dir, root, false)),
        _ => return None,
    })
}

/// Whether the crate has a verb for a limit.
fn is_known(setting: &Setting) -> bool {
    matches!(
        &*setting.file,
        "memory.limit_in_bytes"
            | "memory.soft_limit_in_bytes"
            | "memory.memsw.limit_in_bytes"
            | "memory.swappiness"
            | "cpu.shares"
            | "cpu.cfs_period_us"
            | "cpu.cfs_quota_us"
            | "cpuset.cpus"
            | "cpuset.mems"
            | "pids.max"
    )
}

type CrateResult = std::result::Result<(), ::cgroups_rs::fs::error::Error>;

/// Sets a limit by the crate's verb for it.
fn set(subsystem: &Subsystem, setting: &Setting) -> CrateResult {
    // Numbers are written by our own plan, so they parse.
    let signed = setting.value.parse().unwrap_or(-1);
    let unsigned = setting.value.parse().unwrap_or(0);
    match (subsystem, &*setting.file) {
        (Subsystem::Mem(memory), "memory.limit_in_bytes") => memory.set_limit(signed),
        (Subsystem::Mem(memory), "memory.soft_limit_in_bytes") => memory.set_soft_limit(signed),
        (Subsystem::Mem(memory), "memory.memsw.limit_in_bytes") => memory.set_memswap_limit(signed),
        (Subsystem::Mem(memory), "memory.swappiness") => memory.set_swappiness(unsigned),
        (Subsystem::Cpu(cpu), "cpu.shares") => cpu.set_shares(unsigned),
        (Subsystem::Cpu(cpu), "cpu.cfs_period_us") => cpu.set_cfs_period(unsigned),
        (Subsystem::Cpu(cpu), "cpu.cfs_quota_us") => cpu.set_cfs_quota(signed),
        (Subsystem::CpuSet(cpuset), "cpuset.cpus") => cpuset.set_cpus(&setting.value),
        (Subsystem::CpuSet(cpuset), "cpuset.mems") => cpuset.set_mems(&setting.value),
        (Subsystem::Pid(pids), "pids.max") => pids.set_pid_max(if setting.lifts {
            MaxValue::Max
        } else {
            MaxValue::Value(signed)
        }),
        _ => Ok(()),
    }
}

/// The system's error beneath the crate's.
fn io_of(error: ::cgroups_rs::fs::error::Error) -> io::Error {
    let beneath = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<io::Error>());
    match beneath.and_then(io::Error::raw_os_error) {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::other(error.to_string()),
    }
}

fn failed(step: &'static str, error: ::cgroups_rs::fs::error::Error) -> Error {
    Error::os(format!("{step} the cgroup"), io_of(error))
}
