//! Places for the mounts that every container gets, as the lowest layer of its overlay: an image that lacks them would have
//! them made in the container's own layer, at every start. What the image has, or has taken away, hides them.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use super::etc;
use crate::error::{Error, Result};
use crate::types::{Mount, MountSource};

/// Puts the places below a root file system that is an overlay with a layer to write to.
pub(crate) fn put_below(rootfs: &mut [Mount], stubs: &Path) {
    if let Some(Mount {
        source: MountSource::Overlay {
            lower, upper: Some(_), ..
        },
        ..
    }) = rootfs.first_mut()
    {
        lower.push(stubs.to_owned());
    }
}

/// Makes the places. Whoever finds some of them made finds them as they shall be: nothing changes once it is there, since
/// another process may have it mounted. Blocking.
pub(crate) fn make(dir: &Path) -> Result<()> {
    let failed = |error| Error::os("make the places for a container's mounts", error);
    directory(dir).map_err(failed)?;
    for name in ["dev", "etc", "proc", "sys"] {
        directory(&dir.join(name)).map_err(failed)?;
    }
    for (_, place) in etc::FILES {
        file(&dir.join(place.trim_start_matches('/'))).map_err(failed)?;
    }
    Ok(())
}

fn directory(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o755)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn file(path: &Path) -> io::Result<()> {
    match fs::File::create_new(path) {
        Ok(file) => file.set_permissions(fs::Permissions::from_mode(0o644)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_twice_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let stubs = dir.path().join("stubs");
        make(&stubs).unwrap();
        make(&stubs).unwrap();
        for (_, place) in etc::FILES {
            let there = fs::metadata(stubs.join(place.trim_start_matches('/'))).unwrap();
            assert_eq!((there.len(), there.permissions().mode() & 0o7777), (0, 0o644));
        }
    }

    #[test]
    fn only_an_overlay_that_is_written_to_gets_them() {
        let overlay = |upper: Option<&str>| Mount {
            source: MountSource::Overlay {
                lower: vec!["/l".into()],
                upper: upper.map(Into::into),
                work: upper.map(|_| "/w".into()),
                user_xattr: false,
                volatile: false,
            },
            read_only: false,
        };
        for (mount, layers) in [(overlay(Some("/u")), 2), (overlay(None), 1)] {
            let mut rootfs = [mount];
            put_below(&mut rootfs, Path::new("/stubs"));
            let MountSource::Overlay { lower, .. } = &rootfs[0].source else {
                unreachable!("an overlay stays one");
            };
            assert_eq!(lower.len(), layers);
        }
        let mut bind = [Mount::bind("/l", false)];
        put_below(&mut bind, Path::new("/stubs"));
        assert_eq!(bind, [Mount::bind("/l", false)]);
    }
}
