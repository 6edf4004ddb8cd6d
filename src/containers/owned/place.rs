//! Opening what the kernel asks for, beneath the shown directory and never through a symlink.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

/// A way is walked in pieces: the kernel takes 4,096 bytes at a time (path_resolution(7), `PATH_MAX`).
const PIECE: usize = 3500;

type Result<T> = std::result::Result<T, Errno>;

fn how(flags: OFlag) -> OpenHow {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    OpenHow::new()
        .flags(flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(resolve)
}

/// Opens a name in a directory.
pub(super) fn open_in(dir: impl AsFd, name: &OsStr, flags: OFlag) -> Result<OwnedFd> {
    openat2(dir, name.as_bytes(), how(flags))
}

/// Makes a file of that name, or opens the one that is there.
pub(super) fn create_in(dir: impl AsFd, name: &OsStr, flags: OFlag, mode: Mode) -> Result<OwnedFd> {
    let how = how(flags | OFlag::O_CREAT).mode(mode);
    openat2(dir, name.as_bytes(), how)
}

/// A descriptor that stands for a place and reads nothing.
pub(super) fn walk(root: &File, way: &[OsString]) -> Result<File> {
    // It may be a file.
    if way.is_empty() {
        return root.try_clone().map_err(|error| errno(&error));
    }
    let mut at: Option<OwnedFd> = None;
    let mut rest = way;
    loop {
        let (piece, count) = piece_of(rest);
        let from = at.as_ref().map_or(root.as_fd(), AsFd::as_fd);
        at = Some(open_in(from, &piece, OFlag::O_PATH)?);
        rest = rest.get(count..).unwrap_or(&[]);
        if rest.is_empty() {
            return at.map(File::from).ok_or(Errno::EINVAL);
        }
    }
}

/// As many names as go into one call, and how many they are.
fn piece_of(way: &[OsString]) -> (OsString, usize) {
    let mut piece = OsString::new();
    let mut count = 0;
    for name in way {
        if count > 0 && piece.len() + name.len() > PIECE {
            break;
        }
        if count > 0 {
            piece.push("/");
        }
        piece.push(name);
        count += 1;
    }
    (piece, count)
}

pub(super) fn look(file: &File) -> Result<Metadata> {
    file.metadata().map_err(|error| errno(&error))
}

pub(super) fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// The way to a place for calls that know no empty path.
pub(super) fn shown_by_proc(place: &File) -> String {
    format!("/proc/self/fd/{}", place.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn j7_symlinks_are_places_and_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/f"), "x").unwrap();
        std::os::unix::fs::symlink("d", dir.path().join("l")).unwrap();
        let root = File::open(dir.path()).unwrap();
        let way = |text: &str| text.split('/').map(OsString::from).collect::<Vec<_>>();
        assert!(look(&walk(&root, &way("d/f")).unwrap()).unwrap().is_file());
        assert!(look(&walk(&root, &way("l")).unwrap()).unwrap().is_symlink());
        assert_eq!(walk(&root, &way("l/f")).unwrap_err(), Errno::ELOOP);
        assert_eq!(walk(&root, &way("../d")).unwrap_err(), Errno::EXDEV);
        assert!(look(&walk(&root, &[]).unwrap()).unwrap().is_dir());
    }

    #[test]
    fn j7_ways_longer_than_the_kernel_takes() {
        let dir = tempfile::tempdir().unwrap();
        let root = File::open(dir.path()).unwrap();
        let name = OsString::from("n".repeat(200));
        let mut way = Vec::new();
        for _ in 0..30 {
            let at = walk(&root, &way).unwrap();
            nix::sys::stat::mkdirat(&at, name.as_os_str(), Mode::from_bits_truncate(0o755)).unwrap();
            way.push(name.clone());
        }
        assert!(look(&walk(&root, &way).unwrap()).unwrap().is_dir());
    }
}
