//! Containers made by an external OCI runtime: runc, crun, or another program with their command line.
//!
//! The program runs as a tool of the native runtime's helper (`docs/process-model.md`): in the helper's pid namespace, so that
//! what it leaves behind is the helper's child, whose end and status nobody can miss, and which cannot outlive the engine. It
//! sees the container's mounts laid out in a memory file system of its own, and no path of the caller's. The rest is the
//! engine's: the cgroup with its limits, streams, terminals, and the files of users and groups.

mod bundle;
mod call;
mod cgroup;
mod console;
mod create;
mod exec;
mod identity;
mod said;
mod task;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use oci_spec::runtime::{LinuxNamespaceType, LinuxResources};

use self::call::Program;
use super::native::NativeRuntime;
use super::native::seccomp;
use super::{Launch, Runtime, SharedNamespace, Started};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::types::{ContainerId, Propagation};

/// The runtimes that are known by name, wherever the host has them.
pub const KNOWN: [&str; 2] = ["runc", "crun"];

/// Where hosts have them.
const PLACES: [&str; 4] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];

/// Starts containers with a program that has runc's command line.
///
/// It has neither detached containers, nor checkpoints, nor the small init ([`Launch::init`]), nor user namespaces of a
/// container's own, nor processes and IPC of another container: each is `Unsupported`, and says so. What a command has started
/// and that has left its session outlives [`super::ExecTask::kill_all`]. A host with one id for an ordinary user has what the
/// program makes of it: no change of owner succeeds.
#[derive(Debug)]
pub struct OciRuntime {
    native: Arc<NativeRuntime>,
    name: String,
    program: Program,
}

impl OciRuntime {
    /// Runs a program at an absolute path. One whose file name has `crun` in it is called as crun, any other as runc.
    pub fn new(native: Arc<NativeRuntime>, name: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        Self {
            native,
            name: name.into(),
            program: Program::at(program.into()),
        }
    }

    /// Looks for one of [`KNOWN`] where hosts have it.
    ///
    /// # Errors
    /// `Unsupported` if the host does not have it.
    pub fn installed(native: Arc<NativeRuntime>, name: &str) -> Result<Self> {
        Ok(Self::new(native, name, find(name, &PLACES)?))
    }
}

fn find(name: &str, places: &[&str]) -> Result<PathBuf> {
    let mut paths = places.iter().map(|place| Path::new(place).join(name));
    paths.find(|path| path.is_file()).ok_or_else(|| {
        let needs = format!(
            "the program {name} in one of {} (Debian's package {name:?})",
            places.join(", ")
        );
        Error::unsupported(format!("the runtime {name:?}"), needs).with_object(ObjectKind::Backend, name)
    })
}

#[async_trait]
impl Runtime for OciRuntime {
    fn name(&self) -> &str {
        &self.name
    }

    fn foresee(&self, resources: &LinuxResources) -> Vec<String> {
        self.native.foresee(resources)
    }

    fn forget(&self, id: &ContainerId, dir: &Path) -> Result<()> {
        self.native.forget(id, dir)
    }

    async fn start(&self, launch: Launch) -> Result<Started> {
        self.refuse(&launch)?;
        let job = create::Job {
            bench: self.native.bench().await?,
            native: Arc::clone(&self.native),
            name: self.name.clone(),
            program: self.program.clone(),
        };
        job.run_detached(launch).await
    }
}

impl OciRuntime {
    /// What cannot be had of an external runtime.
    fn refuse(&self, launch: &Launch) -> Result<()> {
        let no = |what: &str| {
            Err(Error::unsupported(
                format!("{what} with the runtime {:?}", self.name),
                "the native runtime",
            ))
        };
        if launch.init {
            return no("an init that is the engine's");
        }
        if launch.hold {
            return no("a container that runs nothing");
        }
        if launch.rootfs.len() != 1 {
            return Err(Error::invalid(format!(
                "{} mounts for the root; one is needed",
                launch.rootfs.len()
            )));
        }
        for shared in &launch.shared {
            match shared {
                SharedNamespace::Of(LinuxNamespaceType::Network, _) | SharedNamespace::Host(_) => {}
                SharedNamespace::Of(kind, _) => return no(&format!("the {kind} namespace of another container")),
                SharedNamespace::SharedMemory(_) => return no("the shared memory of another container"),
            }
        }
        let linux = launch.spec.linux().as_ref();
        let namespaces = linux.and_then(|linux| linux.namespaces().as_deref());
        if namespaces.is_some_and(|all| all.iter().any(|one| one.typ() == LinuxNamespaceType::User)) {
            return no("a user namespace of the container's own");
        }
        let sysctls = linux.and_then(|linux| linux.sysctl().as_ref());
        let of_network = |name: &String| name.starts_with("net.");
        if joins_network(launch) && sysctls.is_some_and(|all| all.keys().any(of_network)) {
            return no("a sysctl of a network that the engine has made");
        }
        let profile = linux.and_then(|linux| linux.seccomp().as_ref());
        if profile.map(seccomp::notifies).transpose()?.unwrap_or(false) {
            return no("the seccomp action SCMP_ACT_NOTIFY");
        }
        let shared = |propagation| matches!(propagation, Propagation::Shared | Propagation::Rshared);
        if launch.mounts.iter().any(|mount| shared(mount.propagation)) {
            return no("mounts that are seen on the host (rshared)");
        }
        Ok(())
    }
}

/// Whether its network is one that was made before it.
fn joins_network(launch: &Launch) -> bool {
    let network = |one: &SharedNamespace| matches!(one, SharedNamespace::Of(LinuxNamespaceType::Network, _));
    launch.shared.iter().any(network)
}

fn gone() -> Error {
    Error::new(ErrorKind::Cancelled, "the runtime of the engine was shut down")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h21_a_runtime_that_is_not_installed_is_named() {
        let missing = find("runc", &["/nowhere"]).unwrap_err();
        assert!(missing.is_unsupported());
        assert!(missing.report().contains("/nowhere"), "{}", missing.report());
        assert_eq!(
            find("self", &["/nowhere", "/proc"]).unwrap_err().object().unwrap().1,
            "self"
        );
        assert_eq!(find("exe", &["/proc/self"]).unwrap(), Path::new("/proc/self/exe"));
    }
}
