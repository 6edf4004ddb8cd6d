//! Running as an ordinary user: user namespaces, and more than one id in them.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{User, geteuid};

use super::kernel::BLOCKED;
use super::{Feature, sysctl};
use crate::runtime::native::hidden::Hidden;
use crate::sys::attempt;

/// Where distributions put the programs that map ids. `PATH` is the embedder's and is not asked.
const PROGRAM_DIRS: [&str; 6] = [
    "/usr/bin",
    "/bin",
    "/usr/sbin",
    "/sbin",
    "/usr/local/bin",
    "/run/wrappers/bin",
];

pub(super) fn features() -> Vec<Feature> {
    let user = Who::running();
    vec![
        user_namespaces(),
        most_namespaces(),
        unprivileged(&user),
        apparmor(&user),
        ids(&user, "subuid", "/etc/subuid"),
        ids(&user, "subgid", "/etc/subgid"),
        mapper(&user, "newuidmap"),
        mapper(&user, "newgidmap"),
        own_proc(),
        fuse(&user),
    ]
}

/// The user who runs this program.
struct Who {
    uid: u32,
    name: Option<String>,
}

impl Who {
    fn running() -> Self {
        let name = User::from_uid(geteuid()).ok().flatten().map(|user| user.name);
        Self {
            uid: geteuid().as_raw(),
            name,
        }
    }

    fn is_root(&self) -> bool {
        self.uid == 0
    }
}

fn user_namespaces() -> Feature {
    const NAME: &str = "user_namespaces";
    let Err(error) = attempt::namespaces() else {
        return Feature::yes(NAME, "a child was born in new user, mount and pid namespaces");
    };
    let remedy = remedy(error.raw_os_error(), sysctl(DEBIAN), sysctl(UBUNTU));
    Feature::no(NAME, error.to_string(), remedy)
}

/// What makes user namespaces to be had, by the errno of a try and the settings of Debian's and Ubuntu's kernels.
fn remedy(errno: Option<i32>, debian: Option<i64>, ubuntu: Option<i64>) -> String {
    let text = match errno {
        Some(libc::ENOSPC) => "as root, `sysctl -w user.max_user_namespaces=15000`",
        Some(libc::EPERM | libc::EACCES) if debian == Some(0) => {
            "as root, `sysctl -w kernel.unprivileged_userns_clone=1`"
        }
        Some(libc::EPERM | libc::EACCES) if ubuntu == Some(1) => {
            let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/path/of/this/program"));
            return profile_for(&program);
        }
        Some(libc::EPERM | libc::EACCES) => BLOCKED,
        _ => "boot a kernel with CONFIG_USER_NS=y, CONFIG_PID_NS=y",
    };
    text.to_owned()
}

/// The profile of AppArmor that lets a program make user namespaces, and what to do with it. Source: apparmor.d(5), and Ubuntu's
/// release notes of 24.04, "Unprivileged user namespace restrictions".
fn profile_for(program: &Path) -> String {
    format!(
        "as root, write `abi <abi/4.0>, include <tunables/global> profile longshore {:?} flags=(unconfined) {{ userns, }}` to \
         /etc/apparmor.d/longshore, each statement on a line of its own, and load it with `apparmor_parser -r \
         /etc/apparmor.d/longshore`; or lift the restriction for all programs: `sysctl -w \
         kernel.apparmor_restrict_unprivileged_userns=0`",
        program.display().to_string()
    )
}

/// Whether containers can have a `/proc` of their own, or share that of the container around this process.
fn own_proc() -> Feature {
    const NAME: &str = "own_proc";
    if !Hidden::matters() || !Hidden::here().proc {
        return Feature::yes(NAME, "containers see the processes of their own");
    }
    Feature::no(
        NAME,
        "/proc is partly hidden, so that containers have it as this process has it: they see the processes around it",
        "take the masks off the container around this process (`--security-opt systempaths=unconfined`, or `procMount: Unmasked`)",
    )
}

fn most_namespaces() -> Feature {
    const NAME: &str = "max_user_namespaces";
    match sysctl("user.max_user_namespaces") {
        Some(0) => Feature::no(
            NAME,
            "0: none may be made",
            "as root, `sysctl -w user.max_user_namespaces=15000`",
        ),
        Some(most) => Feature::yes(NAME, most.to_string()),
        None => Feature::unknown(NAME, "user.max_user_namespaces cannot be read"),
    }
}

/// A patch of Debian and others.
const DEBIAN: &str = "kernel.unprivileged_userns_clone";
/// A patch of Ubuntu.
const UBUNTU: &str = "kernel.apparmor_restrict_unprivileged_userns";

fn unprivileged(user: &Who) -> Feature {
    const NAME: &str = "unprivileged_userns_clone";
    match sysctl(DEBIAN) {
        Some(0) if !user.is_root() => Feature::no(
            NAME,
            "0: only root may make user namespaces",
            "as root, `sysctl -w kernel.unprivileged_userns_clone=1`",
        ),
        Some(value) => Feature::yes(
            NAME,
            format!("{value}{}", if user.is_root() { ", and this is root" } else { "" }),
        ),
        None => Feature::yes(NAME, "this kernel has no such restriction"),
    }
}

fn apparmor(user: &Who) -> Feature {
    const NAME: &str = "apparmor_userns";
    match sysctl(UBUNTU) {
        Some(1) if !user.is_root() => Feature::no(
            NAME,
            "AppArmor takes the capabilities in user namespaces",
            remedy(Some(libc::EPERM), None, Some(1)),
        ),
        Some(_) => Feature::yes(NAME, "AppArmor does not restrict this user"),
        None => Feature::yes(NAME, "no restriction by AppArmor"),
    }
}

/// A range of at least 65536 ids, as images need.
fn ids(user: &Who, name: &'static str, file: &str) -> Feature {
    if user.is_root() {
        return Feature::yes(name, "root needs no range");
    }
    let text = fs::read_to_string(file).unwrap_or_default();
    let who = user.name.clone().unwrap_or_else(|| user.uid.to_string());
    match largest_range(&text, &who, user.uid) {
        Some((first, count)) if count >= 65536 => Feature::yes(name, format!("{count} ids from {first} for {who}")),
        found => Feature::no(
            name,
            found.map_or_else(
                || format!("{file} has no line for {who}"),
                |(_, count)| format!("only {count} ids for {who}"),
            ),
            format!(
                "as root, `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {who}` with a range that is free"
            ),
        ),
    }
}

/// The largest range of a user, by name or number, see subuid(5).
fn largest_range(text: &str, name: &str, uid: u32) -> Option<(u64, u64)> {
    let ranges = text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        if owner != name && owner.parse() != Ok(uid) {
            return None;
        }
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    ranges.max_by_key(|(_, count)| *count)
}

/// Binds that belong to the container's user are served by it, for ordinary users. Source: fuse(4).
fn fuse(user: &Who) -> Feature {
    const NAME: &str = "fuse";
    if user.is_root() {
        return Feature::yes(NAME, "root needs none");
    }
    let device = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    let Err(error) = device else {
        return Feature::yes(NAME, "/dev/fuse can be opened");
    };
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => "as root, `chmod 666 /dev/fuse`, as distributions have it",
        _ => "as root, `modprobe fuse`, on a kernel with CONFIG_FUSE_FS",
    };
    Feature::no(NAME, format!("/dev/fuse: {error}"), remedy)
}

/// The program that writes id maps for ordinary users: it must be setuid root or have file capabilities.
fn mapper(user: &Who, name: &'static str) -> Feature {
    if user.is_root() {
        return Feature::yes(name, "root needs no such program");
    }
    let found: Option<PathBuf> = PROGRAM_DIRS
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.is_file());
    let Some(path) = found else {
        return Feature::no(
            name,
            "not installed",
            "as root, `apt-get install uidmap` or `dnf install shadow-utils`",
        );
    };
    match privileges(&path) {
        Ok(Some(how)) => Feature::yes(name, format!("{}, {how}", path.display())),
        Ok(None) => Feature::no(
            name,
            format!("{} is neither setuid root nor has file capabilities", path.display()),
            format!("as root, `chown root:root {0} && chmod u+s {0}`", path.display()),
        ),
        Err(error) => Feature::unknown(name, format!("{}: {error}", path.display())),
    }
}

fn privileges(path: &Path) -> io::Result<Option<&'static str>> {
    let meta = fs::metadata(path)?;
    if meta.uid() == 0 && meta.permissions().mode() & 0o4000 != 0 {
        return Ok(Some("setuid root"));
    }
    Ok(attempt::has_file_capabilities(path).then_some("with file capabilities"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_by_name_and_number() {
        let text = "alice:100000:65536\nbob:1:x\n1001:300000:1000\nalice:200000:70000\n\n:::\n";
        assert_eq!(largest_range(text, "alice", 7), Some((200_000, 70_000)));
        assert_eq!(largest_range(text, "carol", 1001), Some((300_000, 1000)));
        assert_eq!(largest_range(text, "bob", 5), None);
        assert_eq!(largest_range("", "bob", 5), None);
    }

    #[test]
    fn p12_a_block_by_apparmor_is_told_apart_and_its_profile_is_printed() {
        for errno in [libc::EPERM, libc::EACCES] {
            let text = remedy(Some(errno), Some(1), Some(1));
            assert!(text.contains("flags=(unconfined) { userns, }"), "{text}");
            // For this program, wherever it is.
            let program = std::env::current_exe().unwrap();
            assert!(
                text.contains(&format!("profile longshore {:?} ", program.display().to_string())),
                "{text}"
            );
            assert!(text.contains("apparmor_parser -r"), "{text}");
        }
        let of = |errno, debian, ubuntu| remedy(Some(errno), debian, ubuntu);
        assert!(of(libc::EPERM, Some(0), Some(1)).contains("unprivileged_userns_clone=1"));
        assert!(of(libc::EPERM, None, Some(0)).contains("security profile"));
        assert!(of(libc::EPERM, None, None).contains("security profile"));
        assert!(of(libc::ENOSPC, None, Some(1)).contains("max_user_namespaces"));
        assert!(remedy(None, None, Some(1)).contains("CONFIG_USER_NS"));
    }

    #[test]
    fn p12_a_path_with_blanks_is_one_word_of_a_profile() {
        let text = profile_for(Path::new("/opt/my tools/a\"b"));
        assert!(
            text.contains(r#"profile longshore "/opt/my tools/a\"b" flags"#),
            "{text}"
        );
    }

    #[test]
    fn a_program_without_privileges_is_told_apart() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(privileges(file.path()).unwrap(), None);
        assert!(privileges(Path::new("/nonexistent")).is_err());
    }
}
