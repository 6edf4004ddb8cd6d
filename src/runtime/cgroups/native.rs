//! The native driver: plain files of versions 1 and 2, each controller where the host has it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use oci_spec::runtime::LinuxResources;

use super::convert::{self, Plan, Setting};
use super::files;
use super::group::{NativeCgroup, Part};
use super::parent;
use super::place::{Home, Places, USUAL};
use super::{Cgroup, CgroupDriver, CgroupMode};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::types::{CgroupParent, ContainerId, OwnerId};

/// Cgroups by the kernel's files, without any service.
///
/// Device rules are a program that version 2 asks where it is mounted, and files of version 1's devices controller elsewhere.
#[derive(Debug, Clone)]
pub struct NativeCgroups {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    /// Name of the owner's parent in each hierarchy.
    parent: String,
    places: OnceLock<Places>,
    /// Held while parents come and go: a parent that has just been found must not be removed as empty by another thread.
    /// Other processes stay away while the owner lives. Whether any was made: then they go with this.
    parents: Mutex<bool>,
}

impl Drop for Shared {
    /// The zygote removes the parents too, unless it is dead: then nobody else does while the owner counts as alive.
    fn drop(&mut self) {
        if *self.lock() {
            for parent in self.parents() {
                let _ = files::remove_dir(&parent);
            }
        }
    }
}

impl NativeCgroups {
    /// Takes `longshore-<owner>` as the parent's name. Makes nothing yet, and looks at the host's cgroups when they are first
    /// asked for: many a program opens an engine for its images only.
    #[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
    pub fn new(owner: &OwnerId) -> Self {
        Self {
            shared: Shared::new(parent_name(owner), OnceLock::new()),
        }
    }
}

/// The name of an owner's parent cgroup.
#[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
pub(crate) fn parent_name(owner: &OwnerId) -> String {
    format!("longshore-{}", owner.short())
}

impl CgroupDriver for NativeCgroups {
    fn name(&self) -> &str {
        "native"
    }

    fn mode(&self) -> CgroupMode {
        self.shared.places().mode()
    }

    fn create(&self, id: &ContainerId, resources: &LinuxResources, best_effort: bool) -> Result<Box<dyn Cgroup>> {
        let (settings, warnings) = self.shared.decide(resources, best_effort)?;
        let parts = self.shared.make(id, &settings)?;
        NativeCgroup::made(&self.shared, id, (parts, warnings), (&settings, resources), best_effort)
    }

    fn create_in(
        &self,
        parent: &CgroupParent,
        id: &ContainerId,
        resources: &LinuxResources,
        best_effort: bool,
    ) -> Result<Box<dyn Cgroup>> {
        Self::make_in_parent(&self.shared, parent, id, resources, best_effort)
    }

    fn directories_in(&self, parent: &CgroupParent, id: &ContainerId) -> Result<Vec<PathBuf>> {
        self.shared.directories_in(parent, id)
    }

    fn foresee(&self, resources: &LinuxResources) -> Vec<String> {
        let decided = self.shared.decide(resources, false);
        decided.map(|(_, warnings)| warnings).unwrap_or_default()
    }

    fn open(&self, id: &ContainerId) -> Result<Box<dyn Cgroup>> {
        let parts = self.shared.existing(id);
        if parts.is_empty() && self.mode() != CgroupMode::None {
            return Err(Error::not_found(ObjectKind::Cgroup, id.as_str()));
        }
        Ok(Box::new(NativeCgroup::open(
            Arc::clone(&self.shared),
            id,
            parts,
            Vec::new(),
        )?))
    }

    fn open_at(&self, id: &ContainerId, directories: &[PathBuf]) -> Result<Box<dyn Cgroup>> {
        let parts = self.shared.existing_among(id, directories);
        if parts.is_empty() {
            return self.open(id);
        }
        let opened = NativeCgroup::open(Arc::clone(&self.shared), id, parts, Vec::new())?;
        Ok(Box::new(opened))
    }

    fn owner_directories(&self) -> Vec<PathBuf> {
        self.shared.parents()
    }

    fn remove_owner(&self) -> Result<()> {
        self.shared.remove_owner()
    }
}

impl Shared {
    #[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
    pub(crate) fn new(parent: String, places: OnceLock<Places>) -> Arc<Self> {
        Arc::new(Self {
            parent,
            places,
            parents: Mutex::new(false),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, bool> {
        self.parents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where cgroups can be made here.
    pub(crate) fn places(&self) -> &Places {
        self.places.get_or_init(Places::find)
    }

    pub(crate) fn homes(&self) -> impl Iterator<Item = &Home> {
        self.places().v2.iter().chain(&self.places().v1)
    }

    /// Those without controllers, too.
    pub(super) fn all_homes(&self) -> impl Iterator<Item = &Home> {
        self.homes().chain(&self.places().named)
    }

    pub(crate) fn parent_in(&self, home: &Home) -> PathBuf {
        home.dir.join(&self.parent)
    }

    /// See [`CgroupDriver::owner_directories`].
    pub(crate) fn parents(&self) -> Vec<PathBuf> {
        self.all_homes().map(|home| self.parent_in(home)).collect()
    }

    /// See [`CgroupDriver::remove_owner`].
    pub(crate) fn remove_owner(&self) -> Result<()> {
        let _guard = self.lock();
        let mut failed = None;
        for parent in self.parents().into_iter().filter(|dir| dir.exists()) {
            let kill = if parent.join("cgroup.events").exists() {
                files::kill_v2
            } else {
                files::kill_by_walk
            };
            let done = kill(&parent).and_then(|()| files::remove_tree(&parent, Instant::now() + files::PATIENCE));
            if let Err(error) = done {
                failed = Some(Error::os(format!("remove {}", parent.display()), error));
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// What to write, each controller in the words of the version that has it here, and what cannot be written.
    pub(crate) fn plan(&self, resources: &LinuxResources, current_limit: Option<i64>) -> Result<Plan> {
        let v2_only = self.places().layout.v1.is_empty() && self.places().layout.v2.is_some();
        let rules = resources.devices().as_ref().is_some_and(|rules| !rules.is_empty());
        let filters = self.places().v2.is_some();
        if v2_only {
            let mut plan = convert::plan_v2(resources, current_limit)?;
            if rules && !filters {
                plan.refuse(
                    "devices",
                    "device rules",
                    "a cgroup of version 2 that this process may use, and root",
                );
            }
            return Ok(plan);
        }
        let mut plan = convert::plan_v1(resources)?;
        let has_v2 = self.places().layout.v2.is_some();
        if filters {
            // Every container is in a cgroup of version 2 anyway; to join one more of version 1 takes 11 ms.
            plan.settings.retain(|setting| setting.controller != "devices");
        }
        let on_v1 = |controller: &str| {
            !has_v2 || self.places().is_v1(controller) || self.places().of_controller(controller).is_none()
        };
        plan.settings.retain(|setting| on_v1(&setting.controller));
        if has_v2 {
            // What no hierarchy of version 1 has is there, huge pages on a hybrid host among it.
            let other = convert::plan_v2(resources, current_limit)?;
            if USUAL.iter().any(|name| !on_v1(name)) {
                plan.refusals.retain(|refusal| refusal.controller != "unified");
            }
            plan.settings
                .extend(other.settings.into_iter().filter(|setting| !on_v1(&setting.controller)));
        }
        Ok(plan)
    }

    /// Splits what is asked into what will be written and what is left out with a warning, or refuses.
    pub(crate) fn decide(&self, resources: &LinuxResources, best_effort: bool) -> Result<(Vec<Setting>, Vec<String>)> {
        let mut plan = self.plan(resources, None)?;
        let mut warnings = plan.warnings;
        plan.settings.retain(|setting| !setting.lifts);
        let mut refused: Vec<(&'static str, String)> = plan
            .refusals
            .iter()
            .map(|refusal| (refusal.what, refusal.needs.to_owned()))
            .collect();
        let (possible, impossible): (Vec<_>, Vec<_>) = plan
            .settings
            .into_iter()
            .partition(|setting| self.places().of_controller(&setting.controller).is_some());
        for setting in impossible {
            match setting.optional.filter(|_| is_left_out(&setting.controller)) {
                Some(warning) => warnings.push(warning.to_owned()),
                None => refused.push((setting.what, self.places().remedy(&setting.controller))),
            }
        }
        for (what, needs) in refused {
            leave_out(what, needs, best_effort, &mut warnings)?;
        }
        Ok((possible, warnings))
    }

    /// Makes the directories: version 2 always, version 1 where a limit needs it.
    fn make(&self, id: &ContainerId, settings: &[Setting]) -> Result<Vec<Part>> {
        let mut parents = self.lock();
        *parents = true;
        let mut made = Vec::new();
        let needed = |home: &Home| {
            settings
                .iter()
                .any(|setting| home.controllers.iter().any(|c| *c == setting.controller))
        };
        for home in self.homes().filter(|home| home.v2 || needed(home)) {
            if let Err(error) = self.make_patiently(home, id, settings, &mut made) {
                self.unmake(&made, Instant::now()).ok();
                return Err(error.with_object(ObjectKind::Cgroup, id.as_str()));
            }
        }
        Ok(made)
    }

    /// A parent that several processes share, that of detached containers, may go as empty while a child is made.
    fn make_patiently(&self, home: &Home, id: &ContainerId, settings: &[Setting], made: &mut Vec<Part>) -> Result<()> {
        const TRIES: usize = 16;
        for _ in 1..TRIES {
            match self.make_in(home, id, settings, made) {
                Err(error) if error.errno() == Some(libc::ENOENT) => {}
                other => return other,
            }
        }
        self.make_in(home, id, settings, made)
    }

    fn make_in(&self, home: &Home, id: &ContainerId, settings: &[Setting], made: &mut Vec<Part>) -> Result<()> {
        let parent = self.parent_in(home);
        let dir = parent.join(id.as_str());
        mkdir(&parent, true)?;
        let part = Part {
            v2: home.v2,
            dir,
            above: vec![parent.clone()],
            parent,
            controllers: home.controllers.clone(),
        };
        if home.v2 {
            self.enable(&home.controllers, &[&home.dir, &part.parent], settings)?;
        }
        let wants_cpuset = !home.v2 && home.controllers.iter().any(|name| name == "cpuset");
        if wants_cpuset {
            inherit_cpuset(&home.dir, &part.parent)?;
        }
        mkdir(&part.dir, false)?;
        made.push(part);
        let part = &made[made.len() - 1];
        if wants_cpuset {
            inherit_cpuset(&part.parent, &part.dir)
        } else {
            Ok(())
        }
    }

    /// Switches controllers on for the children of each of these directories, parents before children. One at a time, so that a
    /// refusal names one.
    pub(super) fn enable(&self, controllers: &[String], levels: &[&Path], settings: &[Setting]) -> Result<()> {
        let asked = |name: &str| settings.iter().any(|setting| setting.controller == name);
        let wanted = controllers
            .iter()
            .filter(|name| USUAL.contains(&name.as_str()) || asked(name))
            .collect::<Vec<_>>();
        if wanted.is_empty() {
            return Ok(());
        }
        let below = |dir: &&Path| (dir.to_path_buf(), files::words(&dir.join("cgroup.subtree_control")));
        let levels: Vec<_> = levels.iter().map(below).collect();
        for name in wanted {
            for (dir, on) in &levels {
                if on.contains(name) {
                    continue;
                }
                let done = files::write(&dir.join("cgroup.subtree_control"), &format!("+{name}"));
                match done {
                    Err(_) if !asked(name) => break,
                    Err(error) => return Err(self.not_enabled(name, dir, error)),
                    Ok(()) => {}
                }
            }
        }
        Ok(())
    }

    fn not_enabled(&self, controller: &str, dir: &Path, error: io::Error) -> Error {
        let what = format!("the {controller} controller in {}", dir.display());
        match error.raw_os_error() {
            Some(libc::EBUSY) => Error::unsupported(
                what,
                format!(
                    "{} holds processes, and version 2 lets a cgroup have processes or controllers for its children, not both: {}",
                    dir.display(),
                    self.places().remedy(controller)
                ),
            ),
            _ => Error::unsupported(what, self.places().remedy(controller)),
        }
        .with_source(error)
    }

    /// The directories that a container can have.
    pub(crate) fn parts(&self, id: &ContainerId) -> Vec<Part> {
        let part = |home: &Home| {
            let parent = self.parent_in(home);
            let dir = parent.join(id.as_str());
            Part {
                v2: home.v2,
                dir,
                above: vec![parent.clone()],
                parent,
                controllers: home.controllers.clone(),
            }
        };
        self.homes().map(part).collect()
    }

    /// The directories that a container has.
    pub(crate) fn existing(&self, id: &ContainerId) -> Vec<Part> {
        let mut parts = self.parts(id);
        parts.retain(|part| part.dir.exists());
        parts
    }

    /// Those of these directories that are there, and are a container's.
    fn existing_among(&self, id: &ContainerId, directories: &[PathBuf]) -> Vec<Part> {
        let part = |home: &Home| {
            let mount = self.places().mount_of(home)?;
            let its_own = |dir: &&PathBuf| {
                dir.starts_with(mount) && dir.file_name() == Some(id.as_str().as_ref()) && dir.is_dir()
            };
            let dir = directories.iter().find(its_own)?;
            Some(Part {
                v2: home.v2,
                dir: dir.clone(),
                above: parent::above(dir, mount, &self.parent),
                parent: dir.parent()?.to_owned(),
                controllers: home.controllers.clone(),
            })
        };
        self.all_homes().filter_map(part).collect()
    }

    /// Removes a container's directories. The parents stay for the next: a cgroup is among the dearest things of a start.
    pub(crate) fn unmake(&self, parts: &[Part], deadline: Instant) -> io::Result<()> {
        let mut failed = Ok(());
        for part in parts {
            failed = files::remove_tree(&part.dir, deadline).and(failed);
        }
        failed
    }
}

/// Whether limits of a controller that the host lacks are left out with a warning, as Docker does, instead of refused: what
/// runs does so without them, only not as fast or as slow.
fn is_left_out(controller: &str) -> bool {
    matches!(controller, "io" | "blkio" | "hugetlb")
}

/// Refuses a limit, or notes that it is left out.
pub(crate) fn leave_out(what: &str, needs: String, best_effort: bool, warnings: &mut Vec<String>) -> Result<()> {
    if !best_effort {
        return Err(Error::unsupported(what, needs));
    }
    let warning = format!("{what} left out: it needs {needs}");
    if !warnings.contains(&warning) {
        warnings.push(warning);
    }
    Ok(())
}

fn mkdir(dir: &Path, may_exist: bool) -> Result<()> {
    let Err(error) = fs::create_dir(dir) else { return Ok(()) };
    if error.kind() == io::ErrorKind::AlreadyExists && may_exist {
        return Ok(());
    }
    let exists = error.kind() == io::ErrorKind::AlreadyExists;
    let failed = Error::os(format!("make the cgroup {}", dir.display()), error);
    Err(if exists {
        failed.with_kind(ErrorKind::Conflict)
    } else {
        failed
    })
}

/// A new cpuset of version 1 is empty, and takes no process until it has both.
pub(super) fn inherit_cpuset(from: &Path, to: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let step = || format!("hand {file} down to {}", to.display());
        let have = files::read(&to.join(file)).map_err(|error| Error::os(step(), error))?;
        if !have.trim().is_empty() {
            continue;
        }
        let inherited = files::read(&from.join(file)).map_err(|error| Error::os(step(), error))?;
        files::write(&to.join(file), inherited.trim()).map_err(|error| Error::os(step(), error))?;
    }
    Ok(())
}
