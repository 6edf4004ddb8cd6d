//! No cgroups at all: for hosts without any, and for those who want none. Limits are refused, or left out with a warning.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use oci_spec::runtime::LinuxResources;

use super::convert;
use super::native::leave_out;
use super::{Cgroup, CgroupDriver, CgroupMode};
use crate::error::{Error, Result};
use crate::types::ContainerId;

const NEEDS: &str = "a cgroup driver: this engine was opened with `none`";

/// Makes no cgroups.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct NoCgroups;

impl NoCgroups {
    /// The driver that makes none.
    pub const fn new() -> Self {
        Self
    }
}

impl CgroupDriver for NoCgroups {
    fn name(&self) -> &str {
        "none"
    }

    fn mode(&self) -> CgroupMode {
        CgroupMode::None
    }

    fn create(&self, _id: &ContainerId, resources: &LinuxResources, best_effort: bool) -> Result<Box<dyn Cgroup>> {
        Ok(Box::new(NoCgroup {
            warnings: refuse(resources, best_effort)?,
        }))
    }

    fn open(&self, _id: &ContainerId) -> Result<Box<dyn Cgroup>> {
        Ok(Box::new(NoCgroup { warnings: Vec::new() }))
    }

    fn remove_owner(&self) -> Result<()> {
        Ok(())
    }
}

/// Every limit that is asked for; values that mean "no limit" are granted.
fn refuse(resources: &LinuxResources, best_effort: bool) -> Result<Vec<String>> {
    let plan = convert::plan_v1(resources)?;
    let settings = plan
        .settings
        .iter()
        .filter(|setting| !setting.lifts)
        .map(|setting| setting.what);
    let mut warnings = plan.warnings.clone();
    for what in settings.chain(plan.refusals.iter().map(|refusal| refusal.what)) {
        leave_out(what, NEEDS.to_owned(), best_effort, &mut warnings)?;
    }
    Ok(warnings)
}

#[derive(Debug)]
struct NoCgroup {
    warnings: Vec<String>,
}

impl Cgroup for NoCgroup {
    fn mode(&self) -> CgroupMode {
        CgroupMode::None
    }

    fn v2_dir(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn v1_procs(&self) -> &[OwnedFd] {
        &[]
    }

    fn directories(&self) -> &[PathBuf] {
        &[]
    }

    fn kill(&self) -> Result<()> {
        Err(Error::unsupported("killing by cgroup", NEEDS))
    }

    fn update(&self, resources: &LinuxResources) -> Result<Vec<String>> {
        refuse(resources, false)
    }

    fn oom_kills(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    fn remove(&self) -> Result<()> {
        Ok(())
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }
}
