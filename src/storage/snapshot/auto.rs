//! Which backend works here, and why.

use std::path::Path;
use std::sync::Arc;

use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};

use super::overlayfs::Overlayfs;
use super::vfs::Vfs;
use super::{Snapshotter, delete, records};
use crate::error::{Error, Result};
use crate::storage::files::{self, random_name};
use crate::storage::ownership::Ownership;
use crate::types::{Mount, MountSource};

/// Picks overlayfs where it works on this very directory, else vfs, and says why. `probe` makes the given mounts where
/// containers' mounts are made, undoes them, and says whether the kernel took them. Blocking.
///
/// The choice is to be recorded: the trees of one backend are not those of the other.
///
/// # Errors
/// `ReadOnly`, `Denied`, `NoSpace` or `Os` if `dir` cannot be used at all.
pub fn auto(
    dir: impl AsRef<Path>,
    user_xattr: bool,
    ownership: Ownership,
    probe: &dyn Fn(&[Mount]) -> Result<()>,
) -> Result<(Arc<dyn Snapshotter>, String)> {
    let dir = dir.as_ref();
    files::make_dirs(dir)?;
    match refusal(dir, user_xattr, probe)? {
        None => {
            let why = format!("overlayfs: an overlay on {} was mounted and unmounted", dir.display());
            Ok((Arc::new(Overlayfs::open(dir, user_xattr, ownership)?), why))
        }
        Some(reason) => {
            let why = format!(
                "vfs, every container is a copy: overlayfs does not work on {}: {reason}",
                dir.display()
            );
            Ok((Arc::new(Vfs::open(dir, ownership)?), why))
        }
    }
}

/// Why overlayfs cannot be used on a directory, if so.
fn refusal(dir: &Path, user_xattr: bool, probe: &dyn Fn(&[Mount]) -> Result<()>) -> Result<Option<String>> {
    let below = statfs(dir).map_err(|e| Error::os("statfs", e))?.filesystem_type();
    if below == OVERLAYFS_SUPER_MAGIC {
        return Ok(Some(
            "it lies on an overlay itself, which the kernel does not take for a writable layer (put it on a volume)"
                .into(),
        ));
    }
    let scratch = dir.join(format!("probe-{}", random_name(12)?));
    let tried = try_mount(&scratch, user_xattr, probe);
    delete::tree(&scratch)?;
    match tried? {
        Ok(()) => Ok(None),
        Err(error) if is_refusal(&error) => Ok(Some(error.report())),
        Err(error) => Err(error),
    }
}

/// Whether the kernel says that it cannot do this. A full disk, or a helper that was killed in the middle, says nothing of
/// overlays, and must not decide what a root uses for ever. Sources: mount(2), and the kernel's fs/overlayfs/super.c.
fn is_refusal(error: &Error) -> bool {
    const REFUSALS: [i32; 6] = [
        libc::EINVAL,
        libc::EPERM,
        libc::EACCES,
        libc::ENODEV,
        libc::EOPNOTSUPP,
        libc::ENOSYS,
    ];
    error.is_unsupported() || error.errno().is_some_and(|errno| REFUSALS.contains(&errno))
}

fn try_mount(scratch: &Path, user_xattr: bool, probe: &dyn Fn(&[Mount]) -> Result<()>) -> Result<Result<()>> {
    for part in ["a", "b", "u", "w"] {
        files::make_dirs(&scratch.join(part))?;
        records::set_mode(&scratch.join(part), 0o755)?;
    }
    let scratch = scratch
        .canonicalize()
        .map_err(|e| Error::os("resolve probe directory", e))?;
    let source = MountSource::Overlay {
        lower: vec![scratch.join("a"), scratch.join("b")],
        upper: Some(scratch.join("u")),
        work: Some(scratch.join("w")),
        user_xattr,
        volatile: false,
    };
    Ok(probe(&[Mount {
        source,
        read_only: false,
    }]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_it_chose_and_why() {
        let dir = tempfile::tempdir().unwrap();
        let (chosen, why) = auto(dir.path(), true, Ownership::Squashed, &|mounts| {
            assert!(matches!(&mounts[0].source, MountSource::Overlay { upper: Some(upper), .. } if upper.is_dir()));
            Ok(())
        })
        .unwrap();
        assert_eq!((chosen.name(), why.contains("overlayfs")), ("overlayfs", true));
        let (chosen, why) = auto(dir.path(), true, Ownership::Squashed, &|_| {
            Err(Error::unsupported("overlay", "a newer kernel"))
        })
        .unwrap();
        assert_eq!((chosen.name(), why.contains("a newer kernel")), ("vfs", true));
        for other in [
            std::io::Error::from_raw_os_error(libc::ENOSPC),
            std::io::Error::other("the end"),
        ] {
            let other = std::cell::Cell::new(Some(Error::os("mount", other)));
            let failed = auto(dir.path(), true, Ownership::Squashed, &|_| Err(other.take().unwrap()));
            assert!(failed.is_err(), "what says nothing of overlays chooses nothing");
        }
        assert!(
            !std::fs::read_dir(dir.path())
                .unwrap()
                .any(|e| { e.unwrap().file_name().to_string_lossy().starts_with("probe") })
        );
    }
}
