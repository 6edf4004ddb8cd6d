//! Small verbs on cgroup files and directories, each with an errno that callers can branch on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::AtFlags;
use nix::unistd::AccessFlags;

use crate::error::{Error, ErrorKind, Result};
use crate::sys::pidfd;
use crate::types::ContainerId;

/// How long removal and killing wait for processes to be gone.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// Writes a value in one call, as cgroup files want it. Never creates a file.
pub(crate) fn write(path: &Path, value: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(value.as_bytes())
}

/// Reads a small file.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// Opens a directory.
pub(crate) fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open(path)?
        .into())
}

/// Opens a file for writing; who writes is checked now, not at the write.
pub(crate) fn open_write(path: &Path) -> io::Result<OwnedFd> {
    Ok(OpenOptions::new().write(true).open(path)?.into())
}

/// Whether this process may write there, with the file system writable.
pub(crate) fn writable(path: &Path) -> bool {
    nix::unistd::faccessat(nix::fcntl::AT_FDCWD, path, AccessFlags::W_OK, AtFlags::AT_EACCESS).is_ok()
}

/// The words of a space-separated file; none if it cannot be read.
pub(crate) fn words(path: &Path) -> Vec<String> {
    read(path)
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

/// The number that follows a key in a file of `key number` lines.
pub(crate) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// A directory and all below it, children before parents.
pub(crate) fn subtree(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![top.to_path_buf()];
    let mut next = 0;
    while next < found.len() {
        let entries = fs::read_dir(&found[next]).into_iter().flatten().flatten();
        let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        found.extend(directories.map(|entry| entry.path()));
        next += 1;
    }
    found.reverse();
    found
}

/// Removes a cgroup and what was made inside it, waiting until `deadline` for dying processes.
pub(crate) fn remove_tree(top: &Path, deadline: Instant) -> io::Result<()> {
    let mut pause = Duration::from_micros(50);
    loop {
        match remove_once(top) {
            Err(error) if is_busy(&error) && Instant::now() < deadline => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            done => return done,
        }
    }
}

fn remove_once(top: &Path) -> io::Result<()> {
    match remove_dir(top) {
        Err(error) if is_busy(&error) => {}
        done => return done,
    }
    // Processes, or cgroups that the container made inside its own.
    subtree(top).iter().try_for_each(|dir| remove_dir(dir))
}

/// Removes one directory; that it is gone is no error.
pub(crate) fn remove_dir(dir: &Path) -> io::Result<()> {
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Whether processes or other cgroups are still inside.
pub(crate) fn is_busy(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY))
}

/// Kills all processes of a cgroup of version 2 and below it.
pub(crate) fn kill_v2(dir: &Path) -> io::Result<()> {
    match write(&dir.join("cgroup.kill"), "1") {
        // The file came with Linux 5.14.
        Err(error) if error.kind() == io::ErrorKind::NotFound && dir.exists() => kill_by_walk(dir),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // It was removed between the file's opening and this: nobody is in it.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        done => done,
    }
}

/// Freezes or thaws by way of the first of a container's directories that can (those that bear its id: the parents are
/// shared): `cgroup.freeze` of version 2 (Linux 5.2), or
/// the freezer of version 1. Waits until the kernel says that it is so. Source: Documentation/admin-guide/cgroup-v2.rst,
/// cgroup-v1/freezer-subsystem.rst. A cgroup that is gone with its container's end is thawed.
pub(crate) fn freeze(directories: &[PathBuf], id: &ContainerId, frozen: bool) -> Result<()> {
    let own = |dir: &&PathBuf| dir.file_name().is_some_and(|name| name == id.as_str());
    let own: Vec<&PathBuf> = directories.iter().filter(own).collect();
    let result = freeze_first(&own, frozen);
    let gone = result.is_err() && !own.is_empty() && own.iter().all(|dir| !dir.exists());
    match gone {
        true if frozen => Err(Error::new(ErrorKind::InvalidState, "the container has ended")),
        true => Ok(()),
        false => result,
    }
}

fn freeze_first(directories: &[&PathBuf], frozen: bool) -> Result<()> {
    let failed = |error| Error::os("freeze the cgroup", error);
    for dir in directories {
        let (v2, v1) = (dir.join("cgroup.freeze"), dir.join("freezer.state"));
        if v2.exists() {
            write(&v2, if frozen { "1" } else { "0" }).map_err(failed)?;
            let wanted = u64::from(frozen);
            return settle(|| Ok(keyed(&read(&dir.join("cgroup.events"))?, "frozen") == Some(wanted))).map_err(failed);
        }
        if v1.exists() {
            let word = if frozen { "FROZEN" } else { "THAWED" };
            write(&v1, word).map_err(failed)?;
            return settle(|| Ok(read(&v1)?.trim() == word)).map_err(failed);
        }
    }
    Err(Error::unsupported(
        "pausing",
        "a cgroup of version 2 that this process may write, with Linux 5.2, or the freezer of version 1 with the container in it",
    ))
}

/// Waits, at most [`PATIENCE`]. A process in an uninterruptible system call freezes when it comes back.
fn settle(is_so: impl Fn() -> io::Result<bool>) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so()? {
        if Instant::now() > deadline {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// Kills what `cgroup.procs` lists until nothing is listed, for at most [`PATIENCE`]: a process may fork between the
/// reading and the signal.
pub(crate) fn kill_by_walk(dir: &Path) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let opened: Vec<_> = members(dir)
            .into_iter()
            .filter_map(|pid| Some((pid, pidfd::open(pid).ok()?)))
            .collect();
        // Who is listed again now was inside when it was opened, so no number that was given anew is hit.
        let still = members(dir);
        if still.is_empty() {
            return Ok(());
        }
        for (_, process) in opened.iter().filter(|(pid, _)| still.contains(pid)) {
            // It may be gone by now, which is what is wanted.
            let _ = pidfd::send_signal(process.as_fd(), libc::SIGKILL);
        }
        if Instant::now() > deadline {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn members(dir: &Path) -> Vec<u32> {
    subtree(dir).iter().flat_map(|dir| pids(dir)).collect()
}

/// The processes of a cgroup. 0 stands for one outside this pid namespace, which cannot be signalled.
fn pids(dir: &Path) -> Vec<u32> {
    let numbers = words(&dir.join("cgroup.procs"));
    numbers
        .iter()
        .filter_map(|word| word.parse().ok())
        .filter(|pid| *pid != 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_that_is_gone_is_thawed_and_not_frozen() {
        let top = tempfile::tempdir().unwrap();
        let id = ContainerId::random();
        let dirs = [top.path().join(id.as_str())];
        freeze(&dirs, &id, false).unwrap();
        let ended = freeze(&dirs, &id, true).unwrap_err();
        assert_eq!(ended.kind(), &ErrorKind::InvalidState);
        // There, and without a freezer.
        fs::create_dir(&dirs[0]).unwrap();
        assert!(freeze(&dirs, &id, false).unwrap_err().is_unsupported());
        assert!(freeze(&[], &id, false).unwrap_err().is_unsupported());
    }

    #[test]
    fn keyed_numbers() {
        let text = "oom 3\noom_kill 7\noom_group_kill 9\n";
        assert_eq!(keyed(text, "oom"), Some(3));
        assert_eq!(keyed(text, "oom_kill"), Some(7));
        assert_eq!(keyed(text, "max"), None);
    }

    #[test]
    fn subtrees_list_children_first() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("a/b")).unwrap();
        let found = subtree(top.path());
        assert_eq!(
            found,
            [top.path().join("a/b"), top.path().join("a"), top.path().to_path_buf()]
        );
        remove_tree(top.path(), Instant::now()).unwrap();
        remove_tree(top.path(), Instant::now()).unwrap();
        assert!(!top.path().exists());
    }
}
