//! Files in and out of a directory that this process serves to a container by FUSE (`owned`). The kernel lets nobody in but
//! processes of the engine's user namespace, which this one is not. So they are read and written in the directory itself,
//! with the caller's own rights, as everything is that the container does there.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::OFlag;

use super::local::Shared;
use super::mounts::{MountFrom, MountPoint};
use super::record::Record;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::storage::layer::Sight;
use crate::sys::blocking::blocking;

/// What is to be done at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Read,
    Write,
}

/// A place in such a directory.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) directory: OwnedFd,
    /// In the directory.
    pub(super) path: String,
    /// What the directory is called in the container, where the path is the directory itself.
    pub(super) name: Option<String>,
    user: (u32, u32),
}

impl Served {
    /// Shows the owners of files as the container sees them.
    pub(super) fn sight(&self, sight: Arc<dyn Sight>) -> Arc<dyn Sight> {
        let user = self.user;
        Arc::new(Swapped { sight, user })
    }
}

/// A place by its path alone.
#[derive(Debug, PartialEq, Eq)]
struct Place<'a> {
    source: &'a Path,
    rest: String,
    name: Option<String>,
}

impl Shared {
    /// Whether this process serves directories to the container.
    pub(super) fn serves(&self, record: &Record) -> bool {
        self.parts.ownership == "mapped" && record.body.mounts.iter().any(is_given)
    }

    /// The place in a directory that is served, if a path leads to one.
    pub(super) async fn served(&self, record: &Record, path: &str, purpose: Purpose) -> Result<Option<Served>> {
        if !self.serves(record) {
            return Ok(None);
        }
        let Some(Place { source, rest, name }) = place_of(&record.body.mounts, path, purpose)? else {
            return Ok(None);
        };
        let user = self.user_of(record).await?;
        let source = source.to_owned();
        let opened = blocking(move || {
            let flags = libc::O_PATH | libc::O_DIRECTORY;
            let opened = File::options().read(true).custom_flags(flags).open(&source);
            match opened {
                Ok(directory) => Ok(Some(directory)),
                // A single file has no files in it.
                Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => Ok(None),
                Err(error) => Err(Error::os("open the source of a mount", error)),
            }
        });
        Ok(opened.await?.map(|directory| Served {
            directory: directory.into(),
            path: rest,
            name,
            user,
        }))
    }
}

/// The caller and the container's user change places.
#[derive(Debug)]
struct Swapped {
    sight: Arc<dyn Sight>,
    user: (u32, u32),
}

impl Sight for Swapped {
    fn open(&self, dir: BorrowedFd<'_>, path: &CStr, flags: OFlag) -> io::Result<OwnedFd> {
        self.sight.open(dir, path, flags)
    }

    fn attribute(&self, file: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<Vec<u8>>> {
        self.sight.attribute(file, name)
    }

    fn ids_inside(&self, uid: u32, gid: u32) -> (u32, u32) {
        let (uid, gid) = self.sight.ids_inside(uid, gid);
        let swap = |id: u32, user: u32| match id {
            0 => user,
            id if id == user => 0,
            id => id,
        };
        (swap(uid, self.user.0), swap(gid, self.user.1))
    }
}

fn is_given(point: &MountPoint) -> bool {
    matches!(&point.spec.source, MountFrom::Bind(bind) if bind.container_user)
}

/// Which directory a path of the container leads to, where that is one that is served.
fn place_of<'a>(points: &'a [MountPoint], asked: &str, purpose: Purpose) -> Result<Option<Place<'a>>> {
    let Some(path) = clean(asked) else { return Ok(None) };
    let above = points
        .iter()
        .filter(|point| path.starts_with(&point.spec.target))
        .max_by_key(|point| point.spec.target.components().count());
    let Some(point) = above.filter(|point| is_given(point)) else {
        return Ok(None);
    };
    let MountFrom::Bind(bind) = &point.spec.source else {
        return Ok(None);
    };
    if purpose == Purpose::Write && point.spec.read_only {
        let error = Error::new(ErrorKind::ReadOnly, "the mount is read-only");
        return Err(error.with_object(ObjectKind::Option, path.display().to_string()));
    }
    let below = |other: &&MountPoint| other.spec.target != path && other.spec.target.starts_with(&path);
    if let Some(other) = points.iter().find(|other| below(other) && !std::ptr::eq(*other, point)) {
        let (shown, other) = (path.display().to_string(), other.spec.target.display());
        let what = format!("a copy of all of {shown}, below which {other} is mounted");
        let error = Error::unsupported(what, "a directory with no other mount below it");
        return Err(error.with_object(ObjectKind::Option, shown));
    }
    let rest = path.strip_prefix(&point.spec.target).unwrap_or(Path::new(""));
    // Whether the directory is meant, or what is in it, is in how the path ends.
    let end = ["/.", "/"].into_iter().find(|end| asked.ends_with(end)).unwrap_or("");
    let name = path.file_name().filter(|_| rest.as_os_str().is_empty() && end != "/.");
    Ok(Some(Place {
        source: &bind.source,
        rest: format!("{}{end}", rest.display()),
        name: name.map(|name| name.to_string_lossy().into_owned()),
    }))
}

/// A path without `.`; none for one with `..`, which the kernel has to follow.
fn clean(path: &str) -> Option<PathBuf> {
    let mut clean = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

/// What the kernel's refusal means where a container has such directories.
pub(super) fn refused(error: Error) -> Error {
    if !matches!(error.errno(), Some(libc::EACCES | libc::EXDEV)) {
        return error;
    }
    let needs = "a copy to or from the mount's own path: this process may not go through a mount that it serves itself";
    Error::unsupported(
        "a copy through a directory that is given to the container's user",
        needs,
    )
    .with_object(ObjectKind::Option, "container_user")
    .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::MountSpec;

    fn points() -> Vec<MountPoint> {
        [
            MountSpec::bind("/home/me/src", "/src").map_to_container_user(),
            MountSpec::bind("/home/me/deep", "/src/deep").map_to_container_user(),
            MountSpec::bind("/home/me/plain", "/plain"),
            MountSpec::bind("/home/me/in", "/plain/in").map_to_container_user(),
            MountSpec::bind("/home/me/ro", "/ro")
                .map_to_container_user()
                .read_only(),
        ]
        .map(MountPoint::new)
        .into()
    }

    #[test]
    fn j7_the_nearest_mount_above_a_path_counts() {
        let points = points();
        let place = |path| {
            let found = place_of(&points, path, Purpose::Write).unwrap();
            found.map(|place| {
                format!(
                    "{}|{}|{}",
                    place.source.display(),
                    place.rest,
                    place.name.unwrap_or_default()
                )
            })
        };
        for (path, expected) in [
            ("/src/a/./b", Some("/home/me/src|a/b|")),
            ("/src/a/b/", Some("/home/me/src|a/b/|")),
            ("/src/a/b/.", Some("/home/me/src|a/b/.|")),
            ("src/deep", Some("/home/me/deep||deep")),
            ("/src/deep/.", Some("/home/me/deep|/.|")),
            ("/src/deep/c", Some("/home/me/deep|c|")),
            ("/plain/in/x", Some("/home/me/in|x|")),
            ("/plain/x", None),
            ("/srcs", None),
            ("/", None),
            // Where these lead is the kernel's to say.
            ("/src/../plain", None),
        ] {
            assert_eq!(place(path).as_deref(), expected, "{path}");
        }
        let read_only = place_of(&points, "/ro/x", Purpose::Write).unwrap_err();
        assert_eq!(read_only.kind(), &ErrorKind::ReadOnly);
        assert!(place_of(&points, "/ro/x", Purpose::Read).unwrap().is_some());
        let above = place_of(&points, "/src", Purpose::Write).unwrap_err();
        assert!(matches!(above.kind(), ErrorKind::Unsupported { .. }), "{above:?}");
    }
}
