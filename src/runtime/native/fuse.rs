//! A FUSE mount in the engine's user namespace, whose files somebody else serves. Source: mount.fuse(8), and Linux,
//! `Documentation/filesystems/fuse.rst`.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use nix::fcntl::OFlag;

use super::NativeRuntime;
use super::helper::wire::op;
use super::plan::root_record;
use super::sight::ZygoteSight;
use crate::error::{Error, Result};
use crate::storage::layer::Sight as _;
use crate::types::Mount;

/// A mount that is attached nowhere, and the device on which the kernel asks for what is in it.
#[derive(Debug)]
pub(crate) struct Fuse {
    pub(crate) mount: OwnedFd,
    pub(crate) device: OwnedFd,
}

impl NativeRuntime {
    /// Mounts a FUSE whose root has this mode, in octal. The kernel looks up by mode and owner who may do what. Blocks.
    ///
    /// # Errors
    /// `Os` where `/dev/fuse` is missing, or not for this user.
    pub(crate) fn fuse(self: &Arc<Self>, mode: &str) -> Result<Fuse> {
        self.needs_namespaces("a FUSE")?;
        let devices = File::open("/dev").map_err(|error| Error::os("open /dev", error))?;
        // The mount and its device must be of one user namespace.
        let device = ZygoteSight::new(Arc::clone(self))
            .open(devices.as_fd(), c"fuse", OFlag::O_RDWR | OFlag::O_CLOEXEC)
            .map_err(|error| Error::os("open /dev/fuse", error))?;
        let root = format!("rootmode={mode}");
        let options = [&root, "user_id=0", "group_id=0", "allow_other", "default_permissions"];
        let mount = Mount::file_system("fuse", "longshore", options.map(str::to_owned).to_vec());
        let mut blob = Vec::new();
        root_record(&mount)?.write(&mut blob)?;
        let reply = self.zygote()?.call_blocking(op::MOUNT, &blob, &[device.as_fd()])?;
        let mount = reply.descriptor("take a mount of the helper")?;
        Ok(Fuse { mount, device })
    }
}
