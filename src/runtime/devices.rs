//! The host's devices, for containers that may have all of them.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use nix::sys::stat::{major, minor};
use nix::unistd::{AccessFlags, access};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType};

use super::defaults;
use crate::sys::order;

/// What below `/dev` is a container's own, or another's. Source: moby, `daemon/internal/… /devices`, and runc's
/// `libcontainer/devices`.
const LEFT_OUT: [&str; 10] = [
    "pts",
    "shm",
    "fd",
    "mqueue",
    "console",
    "ptmx",
    ".lxc",
    ".lxd-mounts",
    ".udev",
    "hugepages",
];
/// Directories below `/dev` are two or three deep.
const DEEPEST: u32 = 8;

/// The device nodes below `/dev` beside those that every container has; with `usable`, those that this process may open for
/// reading and writing. What goes away while it is looked at is left out. Blocks.
///
/// # Errors
/// `/dev` cannot be listed.
pub fn of_host(usable: bool) -> io::Result<Vec<LinuxDevice>> {
    let mut found = Vec::new();
    collect(Path::new("/dev"), usable, DEEPEST, &mut found)?;
    order::sort_by(&mut found, |one: &LinuxDevice, other| one.path().cmp(other.path()));
    Ok(found)
}

/// The device nodes below a directory, a few levels deep. What goes away while it is looked at is left out. Blocks.
///
/// # Errors
/// The directory cannot be listed.
pub fn below(dir: &Path) -> io::Result<Vec<LinuxDevice>> {
    let mut found = Vec::new();
    collect(dir, false, DEEPEST, &mut found)?;
    order::sort_by(&mut found, |one: &LinuxDevice, other| one.path().cmp(other.path()));
    Ok(found)
}

fn collect(dir: &Path, usable: bool, depth: u32, found: &mut Vec<LinuxDevice>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let Ok(entry) = entry else { continue };
        if LEFT_OUT.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let path = entry.path();
        let Ok(seen) = entry.metadata() else { continue };
        if seen.is_dir() && depth > 0 {
            // One that may not be looked into has nothing that could be used.
            let _ = collect(&path, usable, depth - 1, found);
        }
        let may_open = || access(&path, AccessFlags::R_OK | AccessFlags::W_OK).is_ok();
        if !is_usual(&path) && (!usable || may_open()) {
            found.extend(device(&path, &seen));
        }
    }
    Ok(())
}

fn is_usual(path: &Path) -> bool {
    defaults::devices().iter().any(|device| device.path() == path)
}

/// The device that `seen` is, at `path`; `None` for what is none.
pub fn device(path: &Path, seen: &fs::Metadata) -> Option<LinuxDevice> {
    let kind = seen.file_type();
    let typ = match (kind.is_char_device(), kind.is_block_device()) {
        (true, _) => LinuxDeviceType::C,
        (_, true) => LinuxDeviceType::B,
        _ => return None,
    };
    LinuxDeviceBuilder::default()
        .path(path)
        .typ(typ)
        .major(i64::try_from(major(seen.rdev())).ok()?)
        .minor(i64::try_from(minor(seen.rdev())).ok()?)
        .file_mode(seen.permissions().mode() & 0o777)
        .uid(seen.uid())
        .gid(seen.gid())
        .build()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h10_the_hosts_devices_without_what_every_container_has() {
        let all = of_host(false).unwrap();
        let usable = of_host(true).unwrap();
        assert!(usable.iter().all(|device| all.contains(device)));
        for device in &all {
            assert!(
                !is_usual(device.path()) && !device.path().starts_with("/dev/pts"),
                "{device:?}"
            );
            assert!(matches!(device.typ(), LinuxDeviceType::C | LinuxDeviceType::B));
        }
    }
}
