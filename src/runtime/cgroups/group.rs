//! One container's cgroup of the native driver.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources};

use super::convert::Setting;
use super::devices;
use super::files;
use super::native::{Shared, leave_out};
use super::place::Places;
use super::{Cgroup, CgroupMode};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::sys::bpf;
use crate::types::ContainerId;

/// The container's directory in one hierarchy.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) v2: bool,
    pub(crate) dir: PathBuf,
    pub(crate) parent: PathBuf,
    /// What goes once nothing is in it, the deepest first.
    pub(crate) above: Vec<PathBuf>,
    pub(crate) controllers: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct NativeCgroup {
    shared: Arc<Shared>,
    id: ContainerId,
    parts: Vec<Part>,
    v2: Option<OwnedFd>,
    v1: Vec<OwnedFd>,
    directories: Vec<PathBuf>,
    warnings: Vec<String>,
}

impl NativeCgroup {
    /// Opens directories that exist.
    pub(crate) fn open(shared: Arc<Shared>, id: &ContainerId, parts: Vec<Part>, warnings: Vec<String>) -> Result<Self> {
        let failed = |dir: &PathBuf, error| Error::os(format!("open the cgroup {}", dir.display()), error);
        let mut v2 = None;
        let mut v1 = Vec::new();
        for Part { v2: is_v2, dir, .. } in &parts {
            if *is_v2 {
                v2 = Some(files::open_dir(dir).map_err(|error| failed(dir, error))?);
            } else {
                v1.push(files::open_write(&dir.join("cgroup.procs")).map_err(|error| failed(dir, error))?);
            }
        }
        let own = parts.iter().map(|part| part.dir.clone());
        let directories = own.chain(parts.iter().flat_map(|part| part.above.clone())).collect();
        Ok(Self {
            shared,
            id: id.clone(),
            parts,
            v2,
            v1,
            directories,
            warnings,
        })
    }

    /// Opens directories that have just been made, and sets their limits; or removes them.
    pub(super) fn made(
        shared: &Arc<Shared>,
        id: &ContainerId,
        (parts, warnings): (Vec<Part>, Vec<String>),
        (settings, resources): (&[Setting], &LinuxResources),
        best_effort: bool,
    ) -> Result<Box<dyn Cgroup>> {
        let undo = parts.clone();
        let made = Self::open(Arc::clone(shared), id, parts, warnings).and_then(|mut group| {
            group.first_limits(settings, best_effort)?;
            group.filter_devices(resources.devices().as_deref().unwrap_or(&[]), best_effort)?;
            Ok(group)
        });
        match made {
            Ok(group) => Ok(Box::new(group)),
            Err(error) => {
                let _ = shared.unmake(&undo, Instant::now());
                shared.leave_parents(&undo);
                Err(error.with_object(ObjectKind::Cgroup, id.as_str()))
            }
        }
    }

    /// Sets the limits of a new cgroup.
    fn first_limits(&mut self, settings: &[Setting], best_effort: bool) -> Result<()> {
        let mut warnings = std::mem::take(&mut self.warnings);
        let done = self.apply(settings, best_effort, &mut warnings);
        self.warnings = warnings;
        done
    }

    /// Lets the container's processes use the devices that the rules allow, and no others. Nothing where version 1 has done
    /// that, or nobody asks.
    fn filter_devices(&mut self, rules: &[LinuxDeviceCgroup], best_effort: bool) -> Result<()> {
        let Some(dir) = self.v2.as_ref().filter(|_| !rules.is_empty()) else {
            return Ok(());
        };
        let program = devices::program(rules);
        let done = bpf::load_device_filter(&program).and_then(|it| bpf::attach_device_filter(&it, dir.as_fd()));
        match done.map_err(|error| (error.raw_os_error(), error)) {
            Ok(()) => Ok(()),
            Err((Some(libc::EPERM | libc::EACCES), _)) => leave_out(
                "device rules",
                "root, or the capabilities BPF and NET_ADMIN: the kernel takes programs of cgroups from nobody else"
                    .to_owned(),
                best_effort,
                &mut self.warnings,
            ),
            Err((Some(libc::ENOSYS | libc::EINVAL), _)) => {
                let needs = "a kernel with programs of cgroups (CONFIG_CGROUP_BPF)".to_owned();
                leave_out("device rules", needs, best_effort, &mut self.warnings)
            }
            Err((_, error)) => Err(Error::os("filter the container's devices", error)),
        }
    }

    /// Writes in order. Some pairs (memory with swap, quota with period) are refused in one order and accepted in the
    /// other, depending on what holds already: what the kernel calls invalid is tried again after the rest.
    fn apply(&self, settings: &[Setting], best_effort: bool, warnings: &mut Vec<String>) -> Result<()> {
        let mut again = Vec::new();
        for setting in settings {
            match self.write(setting) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => again.push(setting),
                done => judge(self.shared.places(), setting, done, best_effort, warnings)?,
            }
        }
        again.into_iter().try_for_each(|setting| {
            judge(
                self.shared.places(),
                setting,
                self.write(setting),
                best_effort,
                warnings,
            )
        })
    }

    fn write(&self, setting: &Setting) -> io::Result<()> {
        let Some(part) = self.part_of(&setting.controller) else {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        };
        files::write(&part.dir.join(&*setting.file), &setting.value)
    }

    fn part_of(&self, controller: &str) -> Option<&Part> {
        let home = self.shared.places().of_controller(controller)?;
        self.parts
            .iter()
            .find(|part| part.v2 == home.v2 && part.controllers == home.controllers)
    }

    /// The memory limit in force, which a change of swap alone refers to.
    fn current_limit(&self) -> Option<i64> {
        let part = self.part_of("memory").filter(|part| part.v2)?;
        files::read(&part.dir.join("memory.max")).ok()?.trim().parse().ok()
    }
}

/// What a refused write means.
pub(crate) fn judge(
    places: &Places,
    setting: &Setting,
    done: io::Result<()>,
    best_effort: bool,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let Err(error) = done else { return Ok(()) };
    let Setting {
        what,
        file,
        value,
        controller,
        ..
    } = setting;
    match error.raw_os_error() {
        // EOPNOTSUPP: memory.memsw without swap accounting, on some kernels.
        Some(libc::ENOENT | libc::EOPNOTSUPP) => match setting.optional {
            Some(warning) => {
                warnings.push(warning.to_owned());
                Ok(())
            }
            None => leave_out(what, places.remedy(controller), best_effort, warnings),
        },
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
            leave_out(what, places.remedy(controller), best_effort, warnings)
        }
        Some(libc::EINVAL | libc::ERANGE | libc::E2BIG) => {
            let message = format!("the kernel refuses {value:?} as the {what} ({file})");
            Err(Error::invalid(message).with_source(error))
        }
        Some(libc::EBUSY) if *controller == "memory" => {
            let message = format!("more memory is in use than the {what} of {value} allows");
            Err(Error::new(ErrorKind::InvalidState, message).with_source(error))
        }
        _ => Err(Error::os(format!("write {value:?} to {file}"), error)),
    }
}

/// Why a limit of a running container cannot be set where it has no directory.
pub(crate) fn not_joined(places: &Places, setting: &Setting) -> Error {
    let needs = if places.of_controller(&setting.controller).is_none() {
        places.remedy(&setting.controller)
    } else {
        format!(
            "a container started with a limit of the {} controller: processes join a hierarchy of cgroup version 1 only at \
             the start",
            setting.controller
        )
    };
    Error::unsupported(setting.what, needs)
}

impl Cgroup for NativeCgroup {
    fn mode(&self) -> CgroupMode {
        self.shared.places().mode()
    }

    fn v2_dir(&self) -> Option<BorrowedFd<'_>> {
        self.v2.as_ref().map(AsFd::as_fd)
    }

    fn v1_procs(&self) -> &[OwnedFd] {
        &self.v1
    }

    fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    fn kill(&self) -> Result<()> {
        let failed =
            |error| Error::os("kill the cgroup's processes", error).with_object(ObjectKind::Cgroup, self.id.as_str());
        let mut parts = self.parts.iter();
        if let Some(part) = parts.find(|part| part.v2) {
            return files::kill_v2(&part.dir).map_err(failed);
        }
        // A process is in all of them or in none: one is enough.
        let Some(part) = self.parts.first() else {
            return Err(Error::unsupported(
                "killing by cgroup",
                "a cgroup that holds the container's processes",
            ));
        };
        files::kill_by_walk(&part.dir).map_err(failed)
    }

    fn update(&self, resources: &LinuxResources) -> Result<Vec<String>> {
        let plan = self.shared.plan(resources, self.current_limit())?;
        if resources.devices().as_ref().is_some_and(|rules| !rules.is_empty()) {
            let needs = "a container that is created with them";
            return Err(Error::unsupported("device rules of a running container", needs));
        }
        if let Some(refusal) = plan.refusals.first() {
            return Err(Error::unsupported(refusal.what, refusal.needs));
        }
        let (mine, others): (Vec<_>, Vec<_>) = plan
            .settings
            .into_iter()
            .partition(|setting| self.part_of(&setting.controller).is_some());
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
        let Some(part) = self.part_of("memory") else {
            return Ok(None);
        };
        let file = part
            .dir
            .join(if part.v2 { "memory.events" } else { "memory.oom_control" });
        match files::read(&file) {
            Ok(text) => Ok(files::keyed(&text, "oom_kill")),
            // The controller could not be switched on, and nothing asked for it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && part.dir.exists() => Ok(None),
            Err(error) => Err(Error::os("read the counter of memory kills", error)),
        }
    }

    fn remove(&self) -> Result<()> {
        let done = self.shared.unmake(&self.parts, Instant::now() + files::PATIENCE);
        self.shared.leave_parents(&self.parts);
        done.map_err(|error| {
            let busy = files::is_busy(&error);
            let failed = Error::os("remove the cgroup", error).with_object(ObjectKind::Cgroup, self.id.as_str());
            if busy {
                failed
                    .with_kind(ErrorKind::InvalidState)
                    .context("processes are still in the cgroup")
            } else {
                failed
            }
        })
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }
}
