//! Limits and accounting: the [`CgroupDriver`] seam and its backends.
//!
//! A driver serves one owner. All its cgroups lie in one parent, `longshore-<owner>`, each named by the container's id, so
//! that whoever finds them can tell whose they are. The parent goes with the driver: made and removed with each container, it
//! would cost as much as the container's own.
//!
//! All calls block for at most a few milliseconds, except [`Cgroup::remove`] and [`Cgroup::kill`], which wait (bounded) for
//! processes to be gone; call them on the blocking pool.

#[cfg(feature = "cgroups-rs")]
mod cgroups_rs;
mod convert;
mod devices;
mod files;
mod group;
pub(crate) mod layout;
mod native;
mod none;
pub(crate) mod parent;
pub(crate) mod place;
#[cfg(any(test, feature = "conformance"))]
pub mod suite;

use std::fmt::{self, Debug};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use oci_spec::runtime::LinuxResources;

use crate::error::{Error, ObjectKind, Result};
use crate::types::{CgroupParent, ContainerId};

#[cfg(feature = "cgroups-rs")]
pub use self::cgroups_rs::CgroupsRs;
pub use self::native::NativeCgroups;
pub use self::none::NoCgroups;

/// How the host lays its cgroups out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CgroupMode {
    /// One hierarchy of version 2 with all controllers.
    V2,
    /// Version 1 only: one hierarchy per controller.
    V1,
    /// Controllers in hierarchies of version 1, and a hierarchy of version 2 without controllers for the rest.
    Hybrid,
    /// No cgroup that this process may use.
    None,
}

impl CgroupMode {
    /// The word used in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V1 => "v1",
            Self::Hybrid => "hybrid",
            Self::None => "none",
        }
    }
}

impl fmt::Display for CgroupMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Makes cgroups for the containers of one owner.
pub trait CgroupDriver: Debug + Send + Sync + 'static {
    /// The backend's name.
    fn name(&self) -> &str;

    /// What the driver found on this host.
    fn mode(&self) -> CgroupMode;

    /// Makes a container's cgroup with its limits set, before any process is in it.
    ///
    /// With `best_effort`, limits that the host cannot set become [`Cgroup::warnings`].
    ///
    /// # Errors
    /// `Unsupported` if a limit cannot be set here, with the remedy; `InvalidArgument` if the kernel refuses its value;
    /// `Conflict` if the cgroup exists. Nothing is left behind.
    fn create(&self, id: &ContainerId, resources: &LinuxResources, best_effort: bool) -> Result<Box<dyn Cgroup>>;

    /// The same in a parent that the caller names, in every hierarchy that the driver may use: so the parent's limits hold. What is
    /// missing of the parent is made, and goes again when nothing is in it any more ([`Cgroup::remove`]); what was there stays.
    ///
    /// # Errors
    /// As [`Self::create`]; `Unsupported` where the parent cannot be made or written to, and by drivers that know no parents;
    /// `InvalidArgument` if its path leads through something that is no cgroup.
    fn create_in(
        &self,
        parent: &CgroupParent,
        _id: &ContainerId,
        _resources: &LinuxResources,
        _best_effort: bool,
    ) -> Result<Box<dyn Cgroup>> {
        let needs = format!("the cgroup driver `native`: this one is {:?}", self.name());
        Err(Error::unsupported(format!("the cgroup parent {parent}"), needs)
            .with_object(ObjectKind::Option, "cgroup_parent"))
    }

    /// What [`Self::create_in`] would make: the container's directories, and after them those of the parent that are missing or go
    /// once they are empty, children before parents. Makes nothing. It is noted before they are made: a process can be killed in
    /// the middle of that.
    ///
    /// # Errors
    /// As [`Self::create_in`].
    fn directories_in(&self, _parent: &CgroupParent, _id: &ContainerId) -> Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    /// What of these limits [`Self::create`] would leave out, as far as that can be told without making anything.
    fn foresee(&self, _resources: &LinuxResources) -> Vec<String> {
        Vec::new()
    }

    /// Opens the cgroup of a container that an earlier call, perhaps of another process, has made.
    ///
    /// # Errors
    /// `NotFound` if nothing of it exists.
    fn open(&self, id: &ContainerId) -> Result<Box<dyn Cgroup>>;

    /// The same of a container that a process in another cgroup may have started, which puts its containers elsewhere: these are
    /// its [`Cgroup::directories`]. A driver whose places do not depend on that needs nothing else than [`Self::open`].
    ///
    /// # Errors
    /// As [`Self::open`].
    fn open_at(&self, id: &ContainerId, _directories: &[PathBuf]) -> Result<Box<dyn Cgroup>> {
        self.open(id)
    }

    /// The owner's parent in every hierarchy that the driver may use, whether it is there or not. Makes nothing. Whoever
    /// outlives this process removes them: a process can be killed between making a cgroup and telling of it.
    fn owner_directories(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Kills and removes whatever is left of the owner: all containers' cgroups and the parent. What is gone already is
    /// no error.
    ///
    /// # Errors
    /// `Os` if something cannot be removed within the bound; everything else has been removed then.
    fn remove_owner(&self) -> Result<()>;
}

/// The cgroup of one container.
pub trait Cgroup: Debug + Send + Sync + 'static {
    /// How this cgroup is made up.
    fn mode(&self) -> CgroupMode;

    /// The directory in the hierarchy of version 2, for `CLONE_INTO_CGROUP`.
    fn v2_dir(&self) -> Option<BorrowedFd<'_>>;

    /// Open `cgroup.procs` files of version 1, into which a process writes `0` to join. Only hierarchies that a limit
    /// needs are here, because each such move costs about 11 ms.
    fn v1_procs(&self) -> &[OwnedFd];

    /// All directories, children before parents, to be removed if the owner dies. Those that bear the container's id are its own;
    /// the parents, which it shares with others, come last, and can be removed only once they are empty. A parent that was there
    /// before ([`CgroupDriver::create_in`]) is not among them.
    fn directories(&self) -> &[PathBuf];

    /// Kills every process of the cgroup.
    ///
    /// # Errors
    /// `Unsupported` where no cgroup holds the processes (neither [`Self::v2_dir`] nor [`Self::v1_procs`]).
    fn kill(&self) -> Result<()>;

    /// Changes limits while processes run; absent values stay as they are. Returns warnings about values left out.
    ///
    /// # Errors
    /// `Unsupported` if a limit cannot be set here; `InvalidArgument` if the kernel refuses its value.
    fn update(&self, resources: &LinuxResources) -> Result<Vec<String>>;

    /// Stops every process where it is, or lets them go on. Twice the same is no error.
    ///
    /// # Errors
    /// `Unsupported` where no freezer holds the processes.
    fn freeze(&self, _frozen: bool) -> Result<()> {
        Err(Error::unsupported("pausing", "a cgroup driver with a freezer"))
    }

    /// How many processes the kernel has killed for memory. `None`: there is no counter.
    ///
    /// # Errors
    /// `Os` if the counter cannot be read.
    fn oom_kills(&self) -> Result<Option<u64>>;

    /// Waits (at most two seconds) until no process is left, and removes the directories. What is gone is no error. The
    /// counters are gone then too.
    ///
    /// # Errors
    /// `InvalidState` if processes are still there after the wait.
    fn remove(&self) -> Result<()>;

    /// What was asked for and left out under `best_effort`.
    fn warnings(&self) -> &[String];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::OwnerId;

    /// Prints what a host cannot show, so that a skip is seen.
    fn run(name: &str, make: suite::Make<'_>) {
        for skipped in suite::all(make) {
            std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("skipped with {name}: {skipped}\n").as_bytes(),
            )
            .ok();
        }
    }

    #[test]
    fn native_passes_the_suite() {
        run("native", &|| Box::new(NativeCgroups::new(&OwnerId::random())));
    }

    #[cfg(feature = "cgroups-rs")]
    #[test]
    fn cgroups_rs_passes_the_suite() {
        run("cgroups-rs", &|| Box::new(CgroupsRs::new(&OwnerId::random())));
    }

    #[test]
    fn none_passes_the_suite() {
        run("none", &|| Box::new(NoCgroups::new()));
    }
}
