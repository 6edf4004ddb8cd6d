//! Who a process is, by the container's own files: runtimes take numbers alone. Files are opened beneath the container's root,
//! whatever links are in it, with bounds, and only if they are regular.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use oci_spec::runtime::User;

use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::runtime::native::helper::passwd::{self, Problem};

/// Largest file that is read, as the helper has it.
const LARGEST: u64 = 4 << 20;

/// Ids of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
}

/// Who is asked for: as in [`crate::runtime::Launch`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) user: Option<&'a str>,
    pub(super) extra: &'a [String],
    pub(super) usual: &'a User,
}

impl Wanted<'_> {
    /// Whether files must be looked at.
    pub(super) fn needs_files(&self) -> bool {
        self.user.is_some() || !self.extra.is_empty()
    }
}

/// Looks the user up; `root` is the container's root, needed where [`Wanted::needs_files`] says so. Blocking.
///
/// # Errors
/// `NotFound` and `InvalidArgument` with the user as the object; `Os` where a file cannot be read.
pub(super) fn look_up(wanted: Wanted<'_>, root: Option<BorrowedFd<'_>>) -> Result<Identity> {
    let text = |name: &str| root.map_or(Ok(Vec::new()), |root| read(root, name));
    match wanted.needs_files() {
        true => resolve(wanted, &text("etc/passwd")?, &text("etc/group")?),
        false => resolve(wanted, &[], &[]),
    }
}

fn resolve(wanted: Wanted<'_>, passwd: &[u8], group: &[u8]) -> Result<Identity> {
    let mut identity = Identity {
        uid: wanted.usual.uid(),
        gid: wanted.usual.gid(),
        groups: wanted.usual.additional_gids().clone().unwrap_or_default(),
    };
    if let Some(text) = wanted.user {
        let user = passwd::user(text.as_bytes(), passwd, group).map_err(|problem| refusal(problem, text, "user"))?;
        (identity.uid, identity.gid) = (user.uid, user.gid);
        // Without it, leaving the group would be a way around its negative permissions (CVE-2022-36109).
        identity.add(user.gid);
        if let (Some(name), false) = (user.name, user.group_given) {
            passwd::memberships(name, group).for_each(|gid| identity.add(gid));
        }
    }
    for name in wanted.extra {
        let gid = passwd::group_id(name.as_bytes(), group).map_err(|problem| refusal(problem, name, "group"))?;
        identity.add(gid);
    }
    Ok(identity)
}

impl Identity {
    fn add(&mut self, gid: u32) {
        if !self.groups.contains(&gid) {
            self.groups.push(gid);
        }
    }

    /// Where one id is mapped there is no other group to have.
    pub(super) fn alone(mut self) -> Self {
        self.groups.retain(|gid| *gid != self.gid);
        self
    }
}

fn refusal(problem: Problem, name: &str, what: &str) -> Error {
    let error = match problem {
        Problem::Unknown => Error::new(ErrorKind::NotFound, format!("no such {what} in the container: {name}")),
        Problem::Malformed => Error::invalid(format!("invalid {what}: {name:?}")),
    };
    error.with_object(ObjectKind::User, name).with_step("look the user up")
}

/// The text of a file, empty if there is none.
fn read(root: BorrowedFd<'_>, name: &str) -> Result<Vec<u8>> {
    let os = |error: std::io::Error| Error::os("read the container's users", error);
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(resolve);
    let found: OwnedFd = match openat2(root, name, how) {
        Ok(found) => found,
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(Vec::new()),
        Err(errno) => return Err(os(errno.into())),
    };
    // Not opened yet, as it may be anything: a FIFO, a device.
    let path = format!("/proc/self/fd/{}", found.as_fd().as_raw_fd());
    let seen = std::fs::metadata(&path).map_err(os)?;
    if !seen.is_file() {
        return Err(Error::invalid(format!("{name} of the container is no regular file")));
    }
    if seen.len() > LARGEST {
        return Err(Error::invalid(format!(
            "{name} of the container has more than {LARGEST} bytes"
        )));
    }
    let mut text = Vec::new();
    File::open(&path)
        .map_err(os)?
        .take(LARGEST)
        .read_to_end(&mut text)
        .map_err(os)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:::\napp:x:7:8::/home/app:\n";
    const GROUP: &[u8] = b"root:x:0:\nstaff:x:50:app,other\nwheel:x:10:root\n";

    fn who(user: Option<&str>, extra: &[&str]) -> Result<Identity> {
        let extra: Vec<String> = extra.iter().map(|name| (*name).to_owned()).collect();
        let usual = User::default();
        let wanted = Wanted {
            user,
            extra: &extra,
            usual: &usual,
        };
        resolve(wanted, PASSWD, GROUP)
    }

    #[test]
    fn h21_users_are_numbers_for_a_runtime() {
        let ids = |user, extra: &[&str]| {
            let found = who(user, extra).unwrap();
            (found.uid, found.gid, found.groups)
        };
        assert_eq!(ids(None, &[]), (0, 0, vec![]));
        assert_eq!(ids(Some("app"), &[]), (7, 8, vec![8, 50]));
        assert_eq!(ids(Some("app:wheel"), &["staff"]), (7, 10, vec![10, 50]));
        assert_eq!(ids(Some("12"), &["13"]), (12, 0, vec![0, 13]));
        assert_eq!(who(Some("nobody"), &[]).unwrap_err().kind(), &ErrorKind::NotFound);
        assert_eq!(who(None, &["nobody"]).unwrap_err().kind(), &ErrorKind::NotFound);
        assert_eq!(who(Some("a:b:c"), &[]).unwrap_err().kind(), &ErrorKind::InvalidArgument);
        assert_eq!(who(Some("app"), &[]).unwrap().alone().groups, [50]);
    }

    #[test]
    fn h21_files_of_users_are_read_beneath_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = File::open(dir.path()).unwrap();
        let etc = dir.path().join("etc");
        fs::create_dir(&etc).unwrap();
        let text = || read(root.as_fd(), "etc/passwd");
        assert_eq!(text().unwrap(), b"");
        // Absolute, and with dots: it stays in the root.
        fs::write(dir.path().join("inside"), "x").unwrap();
        symlink("/../../inside", etc.join("passwd")).unwrap();
        assert_eq!(text().unwrap(), b"x");
        fs::remove_file(etc.join("passwd")).unwrap();
        nix::unistd::mkfifo(&etc.join("passwd"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(text().unwrap_err().kind(), &ErrorKind::InvalidArgument);
    }
}
