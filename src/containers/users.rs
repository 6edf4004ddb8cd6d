//! Users and groups by name, looked up in an image's layers before a container of it is there to be started.
//!
//! The answer that counts is the start's, in the container's own root. What can be known without a mount is said at create:
//! a name that no file of the image has. Where that cannot be told (a link, a file that this process may not read, something
//! mounted over it), nothing is said here.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use super::plan::{self, ImageDefaults};
use super::spec::ContainerSpec;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::runtime::native::helper::passwd::{self, Problem};
use crate::sys::xattr;
use crate::types::{Mount, MountSource};

const PASSWD: &str = "passwd";
const GROUP: &str = "group";
/// As the helper has it.
const LARGEST: u64 = 4 << 20;

/// Whether a user or group is named, so that there is something to look up: numbers need no entry.
pub(crate) fn are_named(spec: &ContainerSpec, image: &ImageDefaults) -> bool {
    let user = plan::user(spec, image);
    let mut words = user
        .iter()
        .flat_map(|user| user.split(':'))
        .chain(spec.groups.iter().map(String::as_str));
    words.any(|word| word.bytes().any(|byte| !byte.is_ascii_digit()))
}

/// Refuses a user or group that the image does not have, as far as that can be told. Blocks.
///
/// # Errors
/// `NotFound` or `InvalidArgument`, with the user as the object.
pub(crate) fn check(spec: &ContainerSpec, image: &ImageDefaults, rootfs: &[Mount]) -> Result<()> {
    if !are_named(spec, image) || covered(spec) {
        return Ok(());
    }
    let layers = layers(rootfs);
    let (Some(passwd), Some(group)) = (look(&layers, PASSWD), look(&layers, GROUP)) else {
        return Ok(());
    };
    if let Some(user) = plan::user(spec, image) {
        passwd::user(user.as_bytes(), &passwd, &group).map_err(|problem| refusal(problem, &user, "user"))?;
    }
    for name in &spec.groups {
        passwd::group_id(name.as_bytes(), &group).map_err(|problem| refusal(problem, name, "group"))?;
    }
    Ok(())
}

/// The ids of a container's user. `None`: they cannot be told before the start. Blocks.
///
/// # Errors
/// As [`check`].
pub(crate) fn ids(spec: &ContainerSpec, image: &ImageDefaults, rootfs: &[Mount]) -> Result<Option<(u32, u32)>> {
    let Some(user) = plan::user(spec, image) else {
        return Ok(Some((0, 0)));
    };
    let whole = user.split_once(':').is_some_and(|(user, group)| {
        let digits = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
        digits(user) && digits(group)
    });
    let (passwd, group) = match (whole, covered(spec)) {
        (true, _) => (Some(Vec::new()), Some(Vec::new())),
        (false, true) => (None, None),
        (false, false) => {
            let layers = layers(rootfs);
            (look(&layers, PASSWD), look(&layers, GROUP))
        }
    };
    let (Some(passwd), Some(group)) = (passwd, group) else {
        return Ok(None);
    };
    let found = passwd::user(user.as_bytes(), &passwd, &group).map_err(|problem| refusal(problem, &user, "user"))?;
    Ok(Some((found.uid, found.gid)))
}

/// Whether something is mounted where the files are.
fn covered(spec: &ContainerSpec) -> bool {
    let targets = spec.targets();
    let hidden = spec.masked_paths.iter().flatten().map(PathBuf::as_path);
    targets
        .chain(hidden)
        // With `..` in it, it could be anywhere.
        .any(|path| path.starts_with("/etc") || path == Path::new("/") || path.components().count() < 2)
}

/// The directories that make the root, from the top.
fn layers(rootfs: &[Mount]) -> Vec<PathBuf> {
    match rootfs.first().map(|mount| &mount.source) {
        Some(MountSource::Bind { path }) => vec![path.clone()],
        Some(MountSource::Overlay { lower, upper, .. }) => upper.iter().chain(lower).cloned().collect(),
        Some(MountSource::FileSystem { .. }) | None => Vec::new(),
    }
}

/// What one layer says of a file.
enum Found {
    Text(Vec<u8>),
    /// It is not there, nor in any layer below.
    Gone,
    /// The layers below say.
    Below,
    /// It cannot be told.
    Unknown,
}

/// The text of a file in `/etc`, empty if there is none. `None`: it cannot be told.
fn look(layers: &[PathBuf], name: &str) -> Option<Vec<u8>> {
    for layer in layers {
        match look_in(layer, name) {
            Found::Text(text) => return Some(text),
            Found::Gone => return Some(Vec::new()),
            Found::Below => {}
            Found::Unknown => return None,
        }
    }
    Some(Vec::new())
}

fn look_in(layer: &Path, name: &str) -> Found {
    let Ok(root) = open(
        layer,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    ) else {
        return Found::Unknown;
    };
    let etc = match entry(&root, "etc") {
        Entry::There(etc) => etc,
        other => return other.into_found(),
    };
    match fs::metadata(path_of(&etc)) {
        Ok(seen) if seen.is_dir() => {}
        _ => return Found::Unknown,
    }
    let file = match entry(&etc, name) {
        Entry::There(file) => file,
        Entry::Missing => return below(&etc),
        other => return other.into_found(),
    };
    read(&file).map_or(Found::Unknown, Found::Text)
}

enum Entry {
    There(OwnedFd),
    Missing,
    WhitedOut,
    Unreadable,
}

impl Entry {
    fn into_found(self) -> Found {
        match self {
            Self::Missing => Found::Below,
            Self::WhitedOut => Found::Gone,
            Self::There(_) | Self::Unreadable => Found::Unknown,
        }
    }
}

/// An entry of a directory, not followed if it is a link, and not opened yet: it may be anything.
fn entry(dir: &impl AsFd, name: &str) -> Entry {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let found = match openat(dir, name, flags, Mode::empty()) {
        Ok(found) => found,
        Err(nix::errno::Errno::ENOENT) => return Entry::Missing,
        Err(_) => return Entry::Unreadable,
    };
    match fs::metadata(path_of(&found)) {
        Ok(seen) if seen.file_type().is_char_device() && seen.rdev() == 0 => Entry::WhitedOut,
        Ok(_) => Entry::There(found),
        Err(_) => Entry::Unreadable,
    }
}

/// The thing itself, whatever lies at its path by now.
fn path_of(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// A regular file's text. An empty one may stand for a file that is gone, in an overlay without root.
fn read(file: &OwnedFd) -> Option<Vec<u8>> {
    let seen = fs::metadata(path_of(file)).ok()?;
    if !seen.is_file() || seen.len() == 0 || seen.len() > LARGEST {
        return None;
    }
    let mut text = Vec::new();
    let file = File::open(path_of(file)).ok()?;
    file.take(LARGEST).read_to_end(&mut text).ok()?;
    Some(text)
}

/// Whether the layers below a directory count: not if it hides those of the same name.
fn below(dir: &OwnedFd) -> Found {
    let Ok(dir) = File::open(path_of(dir)) else {
        return Found::Unknown;
    };
    let marks = [c"trusted.overlay.opaque", c"user.overlay.opaque"];
    let opaque = marks.map(|mark| xattr::get(&dir, mark));
    match opaque.iter().any(|value| matches!(value, Ok(Some(_)))) {
        true => Found::Gone,
        false => Found::Below,
    }
}

fn refusal(problem: Problem, name: &str, what: &str) -> Error {
    let error = match problem {
        Problem::Unknown => Error::new(ErrorKind::NotFound, format!("no such {what} in the image: {name}")),
        Problem::Malformed => Error::invalid(format!("invalid {what}: {name:?}")),
    };
    error.with_object(ObjectKind::User, name).with_step("look the user up")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const PEOPLE: &str = "root:x:0:0:::\napp:x:7:7:::\n";

    fn layer(etc: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        for (name, text) in etc {
            fs::write(dir.path().join("etc").join(name), text).unwrap();
        }
        dir
    }

    fn refused(user: &str, layers: &[&tempfile::TempDir]) -> Option<ErrorKind> {
        let source = MountSource::Overlay {
            lower: layers.iter().map(|dir| dir.path().to_owned()).collect(),
            upper: None,
            work: None,
            user_xattr: false,
            volatile: false,
        };
        let mount = Mount {
            source,
            read_only: false,
        };
        let spec = ContainerSpec::image("x").user(user);
        let refused = check(&spec, &ImageDefaults::default(), &[mount]).err();
        refused.map(|error| error.kind().clone())
    }

    #[test]
    fn h2_the_topmost_layer_that_has_a_file_says() {
        let base = layer(&[("passwd", PEOPLE), ("group", "staff:x:50:\n")]);
        let top = layer(&[("hosts", "")]);
        let other = layer(&[("passwd", "other:x:1:1:::\n")]);
        assert_eq!(refused("app", &[&top, &base]), None);
        assert_eq!(refused("app:staff", &[&top, &base]), None);
        assert_eq!(refused("nobody", &[&top, &base]), Some(ErrorKind::NotFound));
        assert_eq!(refused("app:nobody", &[&base]), Some(ErrorKind::NotFound));
        assert_eq!(refused("app", &[&other, &base]), Some(ErrorKind::NotFound));
        assert_eq!(refused("other", &[&other, &base]), None);
        assert_eq!(refused("a:b:c", &[&base]), Some(ErrorKind::InvalidArgument));
        // No layer has one, so that there is no user but by number.
        assert_eq!(refused("app", &[&top]), Some(ErrorKind::NotFound));
        assert_eq!(refused("12:13", &[&top]), None);
    }

    #[test]
    fn h2_what_cannot_be_told_is_left_to_the_start() {
        let base = layer(&[("passwd", PEOPLE), ("group", "")]);
        let linked = layer(&[]);
        symlink("/somewhere", linked.path().join("etc/passwd")).unwrap();
        let empty = layer(&[("passwd", "")]);
        let away = tempfile::tempdir().unwrap();
        symlink("usr/etc", away.path().join("etc")).unwrap();
        for top in [&linked, &empty, &away] {
            assert_eq!(refused("nobody", &[top, &base]), None);
        }
        let spec = ContainerSpec::image("x").user("nobody").bind("/x", "/etc/passwd");
        let mount = Mount::bind(base.path(), false);
        assert!(check(&spec, &ImageDefaults::default(), &[mount]).is_ok());
    }

    #[test]
    fn h2_a_pipe_in_the_place_of_a_file_holds_nothing_up() {
        let layer = layer(&[("passwd", PEOPLE)]);
        nix::unistd::mkfifo(&layer.path().join("etc/group"), Mode::S_IRWXU).unwrap();
        assert_eq!(refused("nobody", &[&layer]), None);
    }
}
