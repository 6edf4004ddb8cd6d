//! One place in a container's files, found as the container's own programs would find it, and what is there.

use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;

use super::LayerReader;
use super::ground::{Ground, Owners, Sight};
use super::write::Archive;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::storage::layer::name::show;
use crate::storage::layer::tree::{is_dir, resolve, stat};
use crate::storage::ownership::Ownership;

/// A path that was resolved, with the directory that it is in held open: what is swapped meanwhile is not followed.
#[derive(Debug)]
pub(crate) struct Spot {
    /// What is there, if it is a directory; else the directory that it is in.
    place: OwnedFd,
    /// Of something else: its name.
    name: Option<Vec<u8>>,
    /// What it is called.
    pub(crate) shown: Vec<u8>,
    /// What it looks like, as stat(2) says.
    pub(crate) looks: nix::sys::stat::FileStat,
    /// Of a symbolic link: its text.
    pub(crate) link: Option<Vec<u8>>,
}

impl Spot {
    /// Finds a path beneath a root. A last symbolic link is the thing itself, unless the path ends with `/` or `/.`.
    ///
    /// # Errors
    /// `NotFound`; `Denied`, `Os`.
    pub(crate) fn open(root: &OwnedFd, path: &[u8], sight: Option<&dyn Sight>) -> Result<Self> {
        let failed = |e: Errno| match e {
            Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP => no_such(path),
            e => Error::os(format!("open {}", show(path)), e),
        };
        if path.contains(&0) || path.len() >= libc::PATH_MAX as usize {
            return Err(
                Error::invalid("a path that is too long, or with a NUL byte").with_object(ObjectKind::Option, "path")
            );
        }
        let directory = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let (above, last, whole) = split(path);
        if whole {
            let place = find(root, path, directory, sight).map_err(failed)?;
            let looks = nix::sys::stat::fstat(&place).map_err(failed)?;
            return Ok(Self {
                place,
                name: None,
                shown: last.to_vec(),
                looks,
                link: None,
            });
        }
        let above = find(root, above, directory, sight).map_err(failed)?;
        let looks = match (stat(&above, last), sight) {
            (Err(Errno::EACCES), Some(_)) => {
                let handle = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let handle = by_sight(&above, last, handle, sight).map_err(failed)?;
                nix::sys::stat::fstat(&handle)
            }
            (own, _) => own,
        };
        let looks = looks.map_err(failed)?;
        if is_dir(&looks) {
            let flags = directory | OFlag::O_NOFOLLOW;
            let place = match openat(&above, last, flags, Mode::empty()) {
                Err(Errno::EACCES) => by_sight(&above, last, flags, sight),
                own => own,
            };
            let place = place.map_err(failed)?;
            return Ok(Self {
                place,
                name: None,
                shown: last.to_vec(),
                looks,
                link: None,
            });
        }
        let link = match looks.st_mode & libc::S_IFMT {
            libc::S_IFLNK => Some(match readlinkat(&above, last) {
                Err(Errno::EACCES) => {
                    let handle = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                    let handle = by_sight(&above, last, handle, sight).map_err(failed)?;
                    readlinkat(&handle, "").map_err(failed)?
                }
                own => own.map_err(failed)?,
            }),
            _ => None,
        };
        Ok(Self {
            place: above,
            name: Some(last.to_vec()),
            shown: last.to_vec(),
            looks,
            link: link.map(std::os::unix::ffi::OsStringExt::into_vec),
        })
    }

    /// Writes what is there as a tar, under its name; what a directory shows at `/.` under none. Blocking.
    ///
    /// # Errors
    /// As [`LayerReader::write_tree`].
    pub(crate) fn write(self, ownership: &Ownership, sight: Option<Arc<dyn Sight>>, out: impl Write) -> Result<()> {
        let ground = Ground::of(self.place, Owners::of(ownership), sight).crossing();
        let Some(name) = self.name else {
            let reader = LayerReader::of_ground(ground);
            let mut archive = Archive::new(out).below(&self.shown);
            reader.write_all(&mut archive)?;
            return archive.finish();
        };
        let mut archive = Archive::new(out);
        if let Some(dir) = ground.dir(b"")? {
            archive.entry(&dir, &name, &self.shown)?;
        }
        archive.finish()
    }
}

/// As a program of the container finds it. Where this process may not look, another does, who follows no link.
fn find(root: &OwnedFd, path: &[u8], flags: OFlag, sight: Option<&dyn Sight>) -> Result<OwnedFd, Errno> {
    match resolve(root, if path.is_empty() { b"/" } else { path }, flags, false) {
        Err(Errno::EACCES) => by_sight(root, path, flags, sight),
        own => own,
    }
}

fn by_sight(dir: &OwnedFd, path: &[u8], flags: OFlag, sight: Option<&dyn Sight>) -> Result<OwnedFd, Errno> {
    let Some(sight) = sight else { return Err(Errno::EACCES) };
    let from = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
    let path = CString::new(&path[from..]).map_err(|_| Errno::EINVAL)?;
    let found = sight.open(dir.as_fd(), &path, flags);
    found.map_err(|e| e.raw_os_error().map_or(Errno::EACCES, Errno::from_raw))
}

fn no_such(path: &[u8]) -> Error {
    let shown = show(path);
    let message = format!("no such file or directory in the container: {shown}");
    Error::new(ErrorKind::NotFound, message).with_object(ObjectKind::Option, shown)
}

/// The directory, the name, and whether the whole is meant as a directory.
fn split(path: &[u8]) -> (&[u8], &[u8], bool) {
    let bare = match path.iter().rposition(|byte| *byte != b'/') {
        Some(end) => &path[..=end],
        None => return (b"", b"", true),
    };
    let (above, last) = match bare.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&bare[..=at], &bare[at + 1..]),
        None => (&b""[..], bare),
    };
    match last {
        b"." | b".." => (b"", b"", true),
        last => (above, last, bare.len() != path.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g6_paths_and_what_they_mean() {
        for (path, expected) in [
            ("/", ("", "", true)),
            ("", ("", "", true)),
            ("/etc", ("/", "etc", false)),
            ("/etc/", ("/", "etc", true)),
            ("/etc/.", ("", "", true)),
            ("/a/..", ("", "", true)),
            ("a/b", ("a/", "b", false)),
        ] {
            let (above, last, whole) = expected;
            assert_eq!(
                split(path.as_bytes()),
                (above.as_bytes(), last.as_bytes(), whole),
                "{path}"
            );
        }
    }

    #[test]
    fn g6_links_lead_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("in")).unwrap();
        std::fs::write(dir.path().join("in/file"), "x").unwrap();
        std::os::unix::fs::symlink("/in", dir.path().join("absolute")).unwrap();
        std::os::unix::fs::symlink("../../../../etc", dir.path().join("out")).unwrap();
        let root: OwnedFd = std::fs::File::open(dir.path()).unwrap().into();
        let found = Spot::open(&root, b"/absolute/file", None).unwrap();
        assert_eq!((found.looks.st_size, found.link), (1, None));
        let link = Spot::open(&root, b"/out", None).unwrap();
        assert_eq!(link.link.as_deref(), Some(&b"../../../../etc"[..]));
        for none in ["/out/passwd", "/out/", "/in/file/", "/nope/x"] {
            assert!(
                Spot::open(&root, none.as_bytes(), None).unwrap_err().is_not_found(),
                "{none}"
            );
        }
    }
}
