//! Containers where neither namespaces nor mounts are to be had: for root within an ordinary container of Docker's, say. Weak, and
//! never chosen but by name.
//!
//! A container is a directory that its programs have as their root (chroot(2)). They have no capability to leave it by, gain no
//! privileges, keep to the seccomp profile, and where the kernel has Landlock, open nothing outside of it even if they had a way
//! there. [`LOST`] says what is missing compared with a container in namespaces.
//!
//! The helper makes no namespaces (`docs/process-model.md`, "Without namespaces"): it forks a warden per container, which finds
//! whatever the container's programs leave behind.

mod ask;
mod family;
mod ground;
mod host;
mod start;
mod task;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use oci_spec::runtime::LinuxResources;

pub(crate) use self::host::{Host, missing};
use super::native::{NativeOptions, NativeRuntime};
use super::{Launch, Runtime, Started};
use crate::error::Result;
use crate::types::ContainerId;

/// The name of this runtime.
pub const NAME: &str = "chroot";

/// What its containers do without. It is among the warnings of each that was started.
pub const LOST: [&str; 4] = [
    "the runtime chroot keeps files apart and nothing else: users, processes, IPC, host name and network are those around the engine",
    "the runtime chroot mounts nothing: there is no /proc, /sys, /dev/pts and /dev/mqueue; /dev, /dev/shm, /etc/hosts and \
     /etc/resolv.conf are files of the container's own",
    "the runtime chroot takes CAP_SYS_CHROOT and CAP_MKNOD away, and allows no new privileges: setuid programs gain nothing",
    "the runtime chroot ends what a container leaves behind as far as it is found: a killed embedder takes its containers along, \
     unless the engine's helper is killed with it",
];

/// Starts containers by chroot(2), for root without namespaces.
///
/// Mounts of any kind, networks but the host's, devices, sysctls, masks, a read-only root, hooks, user namespaces, capabilities
/// beyond Docker's, detached containers, checkpoints and privileged containers are `Unsupported`, and the error names them. Limits
/// and pauses need a cgroup driver that works. Files must be in a plain directory, as the storage driver `vfs` has them; device
/// nodes that an image brings along are removed from the container's copy.
///
/// Its futures must be polled in a tokio runtime, as those of [`NativeRuntime`].
#[derive(Debug)]
pub struct ChrootRuntime {
    native: Arc<NativeRuntime>,
}

impl ChrootRuntime {
    /// Sets up, without starting anything. Of the options those count that are about the helper, cgroups and the seccomp agent.
    ///
    /// # Errors
    /// `Unsupported` if this process is not root, or lacks a capability that is needed; the error says which.
    pub fn new(options: NativeOptions) -> Result<Self> {
        missing()?;
        Ok(Self::over(Arc::new(NativeRuntime::new(NativeOptions {
            apart: true,
            user_namespace: Some(false),
            ..options
        }))))
    }

    /// With a helper that makes no namespaces.
    pub(crate) fn over(native: Arc<NativeRuntime>) -> Self {
        Self { native }
    }
}

#[async_trait]
impl Runtime for ChrootRuntime {
    fn name(&self) -> &str {
        NAME
    }

    fn foresee(&self, resources: &LinuxResources) -> Vec<String> {
        self.native.foresee(resources)
    }

    fn is_bare(&self) -> bool {
        true
    }

    fn forget(&self, id: &ContainerId, dir: &Path) -> Result<()> {
        self.native.forget(id, dir)
    }

    async fn start(&self, launch: Launch) -> Result<Started> {
        let job = start::Job {
            native: Arc::clone(&self.native),
            host: Host::here(),
        };
        job.run_detached(launch).await
    }
}
