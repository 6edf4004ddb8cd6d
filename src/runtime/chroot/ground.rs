//! A container's root directory made ready for its programs: as little as they need of what other containers have mounted. Nothing of
//! what an image has there is followed or trusted; no program of the container runs yet. Blocks.

use std::ffi::{CStr, CString, OsStr};
use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, makedev, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use super::ask::Asked;
use crate::error::{Error, ObjectKind, Result};
use crate::runtime::native::apart;
use crate::sys::mode;

/// Character devices that every container has.
const NODES: [(&CStr, u64, u64); 6] = [
    (c"null", 1, 3),
    (c"zero", 1, 5),
    (c"full", 1, 7),
    (c"random", 1, 8),
    (c"urandom", 1, 9),
    (c"tty", 5, 0),
];
/// Links that every container has, and where they lead.
const LINKS: [(&CStr, &CStr); 4] = [
    (c"fd", c"/proc/self/fd"),
    (c"stdin", c"/proc/self/fd/0"),
    (c"stdout", c"/proc/self/fd/1"),
    (c"stderr", c"/proc/self/fd/2"),
];

/// Opens the root directory and lays out what is missing; what there is to tell about it.
///
/// # Errors
/// `InvalidArgument` if the image has something else in the place of a directory, else `Os`.
pub(super) fn lay_out(asked: &Asked) -> Result<(OwnedFd, Vec<String>)> {
    let root = apart::directory(&asked.root)?;
    let mut warnings = Vec::new();
    let removed = remove_devices(&root).map_err(|errno| Error::os("look for device nodes of the image", errno))?;
    if removed > 0 {
        warnings.push(format!(
            "{removed} device nodes of the image are taken away: nothing would keep them from working"
        ));
    }
    let dev = directory_in(&root, "dev")?;
    warnings.extend(fill_dev(&dev).map_err(|errno| Error::os("fill /dev", errno))?);
    for (source, target) in &asked.files {
        put(&root, source, target)?;
    }
    Ok((root, warnings))
}

/// Resolved by the kernel within the root, through no link and into no other file system.
fn open_in(root: &impl AsFd, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
    loop {
        match openat2(root.as_fd(), path, how) {
            // A rename raced with the look-up, on another root's behalf.
            Err(Errno::EAGAIN) => {}
            opened => return opened,
        }
    }
}

/// A directory at the top of the root, which is made if it is missing.
fn directory_in(root: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let open = || open_in(root, Path::new(name), OFlag::O_RDONLY | OFlag::O_DIRECTORY);
    let opened = match open() {
        Err(Errno::ENOENT) => make_directory(root, Path::new(name), 0o755).and_then(|()| open()),
        opened => opened,
    };
    opened.map_err(|errno| match errno {
        Errno::ELOOP | Errno::ENOTDIR => Error::invalid(format!(
            "the image has something else than a directory at /{name}, which the runtime \"chroot\" has to write to"
        ))
        .with_object(ObjectKind::Backend, super::NAME),
        errno => Error::os(format!("open /{name} of the container"), errno),
    })
}

fn make_directory(dir: &OwnedFd, name: &Path, bits: u32) -> nix::Result<()> {
    mkdirat(dir, name, Mode::from_bits_truncate(bits))?;
    // Whatever the umask of this process is, and whatever has the name by now, should a process of an earlier run be left.
    let made = open_in(dir, name, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    mode::set(made.as_fd(), bits)
}

/// A character device. `EEXIST` if something else is there.
fn make_node(dir: &OwnedFd, name: &CStr, device: u64) -> nix::Result<()> {
    const OPEN_TO_ALL: u32 = 0o666;
    mknodat(dir, name, SFlag::S_IFCHR, Mode::from_bits_truncate(OPEN_TO_ALL), device)?;
    let node = open_in(dir, Path::new(OsStr::from_bytes(name.to_bytes())), OFlag::O_PATH)?;
    let stat = fstat(&node)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFCHR || stat.st_rdev != device {
        return Err(Errno::EEXIST);
    }
    mode::set(node.as_fd(), OPEN_TO_ALL)
}

/// Makes the usual nodes, links and `/dev/shm`. Nodes are made anew each time: those of the image are gone.
fn fill_dev(dev: &OwnedFd) -> nix::Result<Option<String>> {
    let mut warning = None;
    for (name, major, minor) in NODES {
        clear(dev, name)?;
        match make_node(dev, name, makedev(major, minor)) {
            // A directory of the image's, which is its own affair.
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(Errno::EPERM) => {
                warning = Some(
                    "/dev has no device nodes: to make them needs CAP_MKNOD, and the initial user namespace".to_owned(),
                );
                break;
            }
            Err(errno) => return Err(errno),
        }
    }
    for (name, target) in LINKS {
        match symlinkat(target, dev, name) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    match make_directory(dev, Path::new("shm"), 0o1777) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno),
    }
    Ok(warning)
}

/// Removes what is not a directory.
fn clear(dir: &OwnedFd, name: &CStr) -> nix::Result<()> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT | Errno::EISDIR | Errno::EPERM) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Puts a file into a directory at the top of the root, in the place of whatever file or link is there.
fn put(root: &OwnedFd, source: &Path, target: &Path) -> Result<()> {
    let failed = |error: io::Error| Error::os(format!("write {} of the container", target.display()), error);
    let content = std::fs::read(source).map_err(failed)?;
    let parts = target.parent().and_then(Path::file_name).zip(target.file_name());
    let Some((directory, name)) = parts else {
        return Err(Error::internal(
            "a file of the engine's that is not in a directory of the container's",
        ));
    };
    let directory = directory_in(root, &directory.to_string_lossy())?;
    let name = CString::new(name.as_bytes()).map_err(|_| Error::internal("a NUL in a file's name"))?;
    clear(&directory, &name).map_err(|errno| failed(errno.into()))?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = openat(&directory, name.as_c_str(), flags, Mode::from_bits_truncate(0o644));
    let mut file = File::from(made.map_err(|errno| failed(errno.into()))?);
    file.write_all(&content).map_err(failed)?;
    file.set_permissions(Permissions::from_mode(0o644)).map_err(failed)
}

/// Removes every device node beneath the root, and says how many there were beside the usual ones. Nothing would keep them from
/// working, as a mount without devices does for other containers; and the container cannot make new ones.
///
/// # Errors
/// The first that happened, `ENAMETOOLONG` for a tree too deep to be looked through.
fn remove_devices(root: &OwnedFd) -> nix::Result<usize> {
    let mut removed = 0;
    let mut directories = vec![PathBuf::from(".")];
    while let Some(path) = directories.pop() {
        let opened = open_in(root, &path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        let listed = opened.try_clone().map_err(|error| from_io(&error))?;
        for entry in Dir::from_fd(listed)?.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            match kind(&opened, name, entry.file_type())? {
                Some(Type::Directory) => directories.push(path.join(OsStr::from_bytes(name.to_bytes()))),
                Some(Type::CharacterDevice | Type::BlockDevice) => {
                    unlinkat(&opened, name, UnlinkatFlags::NoRemoveDir)?;
                    let usual = path == Path::new("./dev") && NODES.iter().any(|(known, ..)| *known == name);
                    removed += usize::from(!usual);
                }
                _ => {}
            }
        }
    }
    Ok(removed)
}

fn from_io(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// What an entry is. Some file systems do not say it in their lists.
fn kind(dir: &OwnedFd, name: &CStr, told: Option<Type>) -> nix::Result<Option<Type>> {
    if told.is_some() {
        return Ok(told);
    }
    let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok(match stat.st_mode & libc::S_IFMT {
        libc::S_IFDIR => Some(Type::Directory),
        libc::S_IFCHR => Some(Type::CharacterDevice),
        libc::S_IFBLK => Some(Type::BlockDevice),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn opened(root: &Path) -> OwnedFd {
        File::open(root).unwrap().into()
    }

    #[test]
    fn h21_links_of_an_image_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        for made in [&root, &outside] {
            fs::create_dir(made).unwrap();
        }
        symlink(&outside, root.join("dev")).unwrap();
        symlink("../outside", root.join("etc")).unwrap();
        for name in ["dev", "etc"] {
            let refused = directory_in(&opened(&root), name).unwrap_err();
            assert!(refused.to_string().contains(name), "{}", refused.report());
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }

    #[test]
    fn h21_a_file_replaces_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(&outside, "kept").unwrap();
        symlink(&outside, root.join("etc/hosts")).unwrap();
        let source = dir.path().join("hosts");
        fs::write(&source, "127.0.0.1\tlocalhost\n").unwrap();
        for _ in 0..2 {
            put(&opened(&root), &source, Path::new("/etc/hosts")).unwrap();
        }
        let made = fs::symlink_metadata(root.join("etc/hosts")).unwrap();
        assert!(made.is_file() && made.permissions().mode() & 0o777 == 0o644);
        assert_eq!(fs::read_to_string(outside).unwrap(), "kept");
    }

    #[test]
    fn h21_device_nodes_go_wherever_they_are() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::create_dir(dir.path().join("dev")).unwrap();
        fs::write(dir.path().join("a/file"), "stays").unwrap();
        let root = opened(dir.path());
        let mode = Mode::from_bits_truncate(0o666);
        let made = mknodat(&root, "a/b/disk", SFlag::S_IFBLK, mode, makedev(8, 0));
        assert_eq!(remove_devices(&root).unwrap(), usize::from(made.is_ok()));
        assert!(!dir.path().join("a/b/disk").exists() && dir.path().join("a/file").exists());
        let dev = directory_in(&root, "dev").unwrap();
        assert_eq!(fill_dev(&dev).unwrap().is_none(), made.is_ok());
        fill_dev(&dev).unwrap();
        assert_eq!(
            fs::read_link(dir.path().join("dev/stdin")).unwrap(),
            Path::new("/proc/self/fd/0")
        );
        let shm = fs::metadata(dir.path().join("dev/shm")).unwrap();
        assert_eq!(shm.permissions().mode() & 0o7777, 0o1777);
        assert_eq!(remove_devices(&root).unwrap(), 0);
        assert!(!dir.path().join("dev/null").exists());
    }
}
