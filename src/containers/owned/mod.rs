//! A directory of the caller's, shown in a container as if it belonged to the container's user.
//!
//! For root the kernel does this with an id-mapped mount. An ordinary user may not ask for one: ids are mapped for the owner
//! of a whole file system alone (mount_setattr(2), `MOUNT_ATTR_IDMAP`). So the directory is served by FUSE, which a user
//! namespace may mount (user_namespaces(7)): the kernel asks this process, and this process does what is asked for with its
//! own rights, which are the caller's. Whatever is made is therefore the caller's, and nothing can be reached that the caller
//! could not reach.
//!
//! A thread serves each mount and ends with it. Where this process dies, the mount has nobody to ask and the container
//! ends anyway.

mod attributes;
mod files;
mod nodes;
mod place;
mod serve;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use fuser::{Config, Session, SessionACL};
use nix::fcntl::OFlag;

pub(super) use self::attributes::Ids;
use self::serve::Shown;
use crate::error::{Error, ObjectKind, Result};
use crate::runtime::native::NativeRuntime;

/// Shows `source`, whose owner is the caller, with these ids. The mount is attached nowhere; its thread ends when nobody has
/// it any more. Blocks.
///
/// # Errors
/// `Unsupported` where this user may not open `/dev/fuse`.
pub(super) fn show(runtime: &Arc<NativeRuntime>, source: &Path, ids: Ids) -> Result<Arc<OwnedFd>> {
    let looking = |error| Error::os("look at the source of a mount", error);
    let root = File::options()
        .read(true)
        .custom_flags((OFlag::O_PATH | OFlag::O_CLOEXEC).bits())
        .open(source)
        .map_err(looking)?;
    let is_dir = root.metadata().map_err(looking)?.is_dir();
    let served = runtime
        .fuse(if is_dir { "40000" } else { "100000" })
        .map_err(|error| needs(error, source))?;
    let shown = Shown::new(root, ids).map_err(looking)?;
    let mut config = Config::default();
    config.acl = SessionACL::All;
    // The kernel's first question is there since the file system was made.
    let session = Session::from_fd(shown, served.device, SessionACL::All, config)
        .map_err(|error| Error::os("answer the kernel's FUSE", error))?;
    std::thread::Builder::new()
        .name("longshore-owner".into())
        .spawn(move || {
            // It ends when the last mount goes: nobody is left to tell of how.
            let _ = session.run();
        })
        .map_err(|error| Error::os("start a thread for a mount", error))?;
    Ok(Arc::new(served.mount))
}

/// What the host must have for it.
fn needs(error: Error, source: &Path) -> Error {
    let missing = match error.errno() {
        Some(libc::EACCES | libc::EPERM) => {
            "a /dev/fuse that this user may open: as root, `chmod 666 /dev/fuse`, as distributions have it"
        }
        Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => {
            "FUSE of the kernel: as root, `modprobe fuse` (CONFIG_FUSE_FS), and /dev/fuse"
        }
        _ => return error.context("show a directory with another owner"),
    };
    Error::unsupported(format!("giving {} to the container's user", source.display()), missing)
        .with_object(ObjectKind::Option, "container_user")
        .with_source(error)
}
