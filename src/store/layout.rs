//! The root directory: who may use it, and where things are.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::statfs::statfs;
use nix::unistd::{AccessFlags, access, geteuid};

use super::owners::is_old;
use super::{Locks, Owners};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::types::{ContainerId, OwnerId};

/// Version of the directory's layout. The databases count their own.
const VERSION: u32 = 1;
const VERSION_FILE: &str = "version";
const ID_FILE: &str = "id";
const TEMPORARY: &str = ".new.";
/// How names of files begin that record a backend.
const BACKEND: &str = "backend.";
const DIRECTORIES: [&str; 6] = ["content", "snapshots", "containers", "volumes", "owners", "locks"];

/// File systems where locks or mapped memory are not the same for everybody: SQLite's WAL and flock cannot be trusted.
/// Magic numbers from statfs(2) and linux/magic.h. virtiofs reports FUSE.
const NETWORK_FILE_SYSTEMS: [(i64, &str); 11] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "FUSE"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x0bd0_0bd0, "Lustre"),
];

/// An engine's root directory, checked to be ours. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Root {
    path: Arc<PathBuf>,
}

impl Root {
    /// Opens a root directory, and makes it (mode 0700) where there is none. Blocking: a dozen system calls, however
    /// much the root holds.
    ///
    /// # Errors
    /// - `InvalidArgument`: not a directory, or one with foreign files in it, which is never adopted
    /// - `Denied`: it belongs to another user
    /// - `Unsupported`: it is on a network file system
    /// - `ReadOnly`: it cannot be written
    /// - `NewerVersion`: a newer version of this crate made it
    /// - `Corrupt`: its version file makes no sense
    pub fn open(path: &Path) -> Result<Self> {
        open(path).map_err(|error| match error.object() {
            Some(_) => error,
            None => error.with_object(ObjectKind::Root, path.display().to_string()),
        })
    }

    /// The directory itself: absolute, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where blobs are.
    pub fn content(&self) -> PathBuf {
        self.path.join("content")
    }

    /// Where snapshotters keep layers; each has a directory of its own name below.
    pub fn snapshots(&self) -> PathBuf {
        self.path.join("snapshots")
    }

    /// Where containers' directories are.
    pub fn containers(&self) -> PathBuf {
        self.path.join("containers")
    }

    /// Where volumes' directories are.
    pub fn volumes(&self) -> PathBuf {
        self.path.join("volumes")
    }

    /// Where is written down what drivers of an embedder's own have of networks: a directory per network, there once one is made.
    #[cfg(feature = "network")]
    pub(crate) fn networks(&self) -> PathBuf {
        self.path.join("networks")
    }

    /// Where the caches are that commands of builds mount: a directory each.
    pub fn caches(&self) -> PathBuf {
        self.path.join("caches")
    }

    /// Where builds that are under way keep what they need on disk: a directory each, `<owner>-…`.
    pub fn builds(&self) -> PathBuf {
        self.path.join("builds")
    }

    /// The directory of a container: its logs, and whatever else it needs on disk.
    pub fn container(&self, id: &ContainerId) -> PathBuf {
        self.containers().join(id.as_str())
    }

    /// The database of what survives power loss.
    pub fn store_db(&self) -> PathBuf {
        self.path.join("store.db")
    }

    /// The database of what dies with the boot.
    pub fn run_db(&self) -> PathBuf {
        self.path.join("run.db")
    }

    /// The owners of this root.
    pub fn owners(&self) -> Owners {
        Owners::new(self.path.join("owners"))
    }

    /// Keyed locks that all processes of this root see. Clones share their queues, so keep one per engine.
    pub fn locks(&self) -> Locks {
        Locks::new(self.path.join("locks"))
    }

    /// Removes temporary files that killed processes left; returns how many. Blocking.
    ///
    /// # Errors
    /// `Os` where the directory cannot be read.
    pub fn tidy(&self) -> Result<usize> {
        let entries = fs::read_dir(&*self.path).map_err(|error| Error::os("list the root directory", error))?;
        let old = entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(TEMPORARY) && is_old(entry));
        Ok(old.filter(|entry| fs::remove_file(entry.path()).is_ok()).count())
    }

    /// Has the directories of builds removed whose owner is dead; returns how many. Blocking.
    ///
    /// # Errors
    /// `Os` where they cannot be listed; what `remove` says.
    pub fn sweep_builds(&self, alive: impl Fn(&str) -> bool, remove: impl Fn(&Path) -> Result<()>) -> Result<usize> {
        let failed = |error| Error::os("list what builds left", error);
        let entries = match fs::read_dir(self.builds()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            entries => entries.map_err(failed)?,
        };
        let mut swept = 0;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.split_once('-').is_none_or(|(owner, _)| !alive(owner)) {
                remove(&entry.path())?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// A name for this root that stays: 64 hex digits, made by the first who asks. Of several processes that ask at once
    /// all get the same.
    ///
    /// # Errors
    /// `Os` where it can be neither read nor written.
    pub fn id(&self) -> Result<String> {
        let file = self.path.join(ID_FILE);
        let damaged = || {
            let message = format!(
                "{} makes no sense; delete it, and the root gets another id",
                file.display()
            );
            Error::new(ErrorKind::Corrupt, message).with_object(ObjectKind::Root, self.path.display().to_string())
        };
        let text = match read_if_there(&file)? {
            Some(text) => Some(text),
            None => {
                create_atomically(&file, OwnerId::random().as_str().as_bytes())?;
                read_if_there(&file)?
            }
        };
        let id: OwnerId = text
            .as_deref()
            .unwrap_or("")
            .trim_ascii()
            .parse()
            .map_err(|_| damaged())?;
        Ok(id.into())
    }

    /// The backend recorded for a seam (`snapshotter`, `cgroup`, …), if one was chosen yet.
    ///
    /// # Errors
    /// `Os` where the record cannot be read.
    pub fn backend(&self, seam: &str) -> Result<Option<String>> {
        backend_in(self.path(), seam)
    }

    /// Records the first choice of a backend; later calls check that the choice is the same. Of several processes that
    /// choose at once one wins.
    ///
    /// # Errors
    /// `Conflict`, naming both backends, where another one is recorded.
    pub fn recorded_backend(&self, seam: &str, name: &str) -> Result<()> {
        let recorded = match self.backend(seam)? {
            Some(recorded) => recorded,
            None => {
                create_atomically(&self.backend_file(seam), name.as_bytes())?;
                let chosen = self.backend(seam)?.unwrap_or_default();
                // What is chosen cannot be told from what it made, so it is kept twice.
                let copy = self.content().join(format!("{BACKEND}{seam}"));
                create_atomically(&copy, chosen.as_bytes())?;
                chosen
            }
        };
        if recorded == name {
            return Ok(());
        }
        let message = format!(
            "the root directory {} was set up with the {seam} {recorded:?}, and {name:?} was asked for: use {recorded:?}, or another root",
            self.path.display()
        );
        Err(Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Backend, name))
    }

    /// Writes recorded choices again that are missing, from their copies; and copies that are missing. Returns which choices.
    pub(super) fn repair_backends(&self) -> Result<Vec<String>> {
        let (root, copies) = (self.path().to_owned(), self.content());
        let mut written = Vec::new();
        for (from, to, lost) in [(&copies, &root, true), (&root, &copies, false)] {
            for name in file_names(from)? {
                if !name.starts_with(BACKEND) || to.join(&name).exists() {
                    continue;
                }
                let text = fs::read(from.join(&name)).map_err(|error| Error::os("read a recorded backend", error))?;
                create_atomically(&to.join(&name), &text)?;
                if lost {
                    written.push(name.trim_start_matches(BACKEND).to_owned());
                }
            }
        }
        Ok(written)
    }

    fn lost_records_file(&self) -> PathBuf {
        self.content().join("lost-records")
    }

    /// Notes that images must be found by what their blobs say.
    pub(super) fn note_lost_records(&self) -> Result<()> {
        create_atomically(&self.lost_records_file(), b"the records of images were lost\n")
    }

    /// Whether that was noted, and not done yet.
    ///
    /// # Errors
    /// `Os`.
    pub fn lacks_records(&self) -> Result<bool> {
        Ok(read_if_there(&self.lost_records_file())?.is_some())
    }

    /// Notes that it is done.
    ///
    /// # Errors
    /// `Os`.
    pub fn has_records(&self) -> Result<()> {
        match fs::remove_file(self.lost_records_file()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::os("remove a note", error)),
            _ => Ok(()),
        }
    }

    /// Whether any backend was recorded: then an engine was open here.
    pub(super) fn has_backends(&self) -> Result<bool> {
        let failed = |error| Error::os("list the root directory", error);
        for entry in fs::read_dir(self.path()).map_err(failed)? {
            if entry
                .map_err(failed)?
                .file_name()
                .as_bytes()
                .starts_with(BACKEND.as_bytes())
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn backend_file(&self, seam: &str) -> PathBuf {
        self.path.join(format!("{BACKEND}{seam}"))
    }
}

/// Writes the file that says the version, where it is missing or makes no sense in what is a root by all else. Whether it was.
pub(super) fn repair_version(path: &Path) -> Result<bool> {
    let file = path.join(VERSION_FILE);
    if let Some(text) = read_if_there(&file)? {
        match accept_version(path, &text) {
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt) => {}
            other => return other.map(|()| false),
        }
    }
    if DIRECTORIES.iter().any(|name| !path.join(name).is_dir()) {
        let message = format!("{} is not an engine's root directory", path.display());
        return Err(Error::invalid(message));
    }
    let metadata = fs::metadata(path).map_err(|error| Error::os("look at the root directory", error))?;
    refuse_other_user(path, metadata.uid())?;
    match fs::remove_file(&file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::os("remove the version file", error));
        }
        _ => {}
    }
    create_atomically(&file, version_text().as_bytes())?;
    Ok(true)
}

/// The backend that a root has recorded for a seam.
pub(super) fn backend_in(root: &Path, seam: &str) -> Result<Option<String>> {
    match fs::read_to_string(root.join(format!("{BACKEND}{seam}"))) {
        Ok(name) => Ok(Some(name.trim_ascii().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::os("read the recorded backend", error)),
    }
}

/// Whose root a directory is; refuses what is none, and what this program does not know.
pub(super) fn check_other(path: &Path) -> Result<u32> {
    let Some(text) = read_if_there(&path.join(VERSION_FILE))? else {
        let message = format!("{} is not an engine's root directory", path.display());
        return Err(Error::invalid(message));
    };
    version_and_user(path, &text)
}

/// A name for a file in a root that is there for a moment.
pub(super) fn temporary_in(root: &Path) -> Result<PathBuf> {
    temporary_beside(&root.join(VERSION_FILE))
}

fn version_text() -> String {
    format!("longshore root\nversion {VERSION}\nuid {}\n", geteuid().as_raw())
}

fn open(path: &Path) -> Result<Root> {
    let path = std::path::absolute(path)
        .map_err(|error| Error::invalid("the root directory's path is empty").with_source(error))?;
    refuse_network_file_system(&path)?;
    let path = create_directory(&path)?;
    let metadata = fs::metadata(&path).map_err(|error| Error::os("look at the root directory", error))?;
    if !metadata.is_dir() {
        return Err(Error::invalid(format!("{} is not a directory", path.display())));
    }
    refuse_other_user(&path, metadata.uid())?;
    refuse_read_only(&path)?;
    check_version(&path)?;
    for name in DIRECTORIES {
        make_private_directory(&path.join(name))?;
    }
    Ok(Root { path: Arc::new(path) })
}

/// Looks at the nearest ancestor that exists, so that nothing is made on a file system that is then refused.
fn refuse_network_file_system(path: &Path) -> Result<()> {
    for ancestor in path.ancestors() {
        let found = match statfs(ancestor) {
            Ok(found) => found,
            Err(Errno::ENOENT) => continue,
            Err(Errno::ENOTDIR) => return Err(Error::invalid(format!("{} is not a directory", path.display()))),
            Err(errno) => return Err(Error::os("look at the root's file system", errno)),
        };
        #[allow(clippy::unnecessary_cast, reason = "the type differs between C libraries")]
        return refuse_magic(found.filesystem_type().0 as i64, path);
    }
    Ok(())
}

pub(super) fn refuse_magic(magic: i64, path: &Path) -> Result<()> {
    // On some processors the field is a signed 32-bit number; only the low half counts.
    let found = NETWORK_FILE_SYSTEMS
        .iter()
        .find(|(number, _)| *number == magic & 0xffff_ffff);
    match found {
        None => Ok(()),
        Some((_, name)) => {
            let needs = format!(
                "a directory on a local file system ({} is on {name}, where locks and shared memory are not reliable)",
                path.display()
            );
            Err(Error::unsupported("a root directory on a network file system", needs))
        }
    }
}

fn create_directory(path: &Path) -> Result<PathBuf> {
    if let Err(error) = DirBuilder::new().mode(0o700).create(path) {
        match error.kind() {
            io::ErrorKind::AlreadyExists => {}
            io::ErrorKind::NotFound => create_with_parents(path)?,
            // A root on a read-only file system that exists already: the checks below say it better.
            _ if path.exists() => {}
            _ => return Err(Error::os("make the root directory", error)),
        }
    }
    fs::canonicalize(path).map_err(|error| Error::os("resolve the root directory's path", error))
}

fn create_with_parents(path: &Path) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| Error::os("make the root directory's parents", error))?;
    }
    make_private_directory(path)
}

/// Makes a directory of mode 0700; one that is there already is left as it is.
pub(super) fn make_private_directory(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Error::os(format!("make directory {}", path.display()), error)),
    }
}

fn refuse_other_user(path: &Path, owner: u32) -> Result<()> {
    let me = geteuid().as_raw();
    if owner == me {
        return Ok(());
    }
    let message = format!(
        "the root directory {} belongs to uid {owner}, and this process runs as uid {me}",
        path.display()
    );
    Err(Error::new(ErrorKind::Denied, message))
}

fn refuse_read_only(path: &Path) -> Result<()> {
    match access(path, AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) => Ok(()),
        Err(errno @ (Errno::EROFS | Errno::EACCES | Errno::EPERM)) => {
            let message = format!("the root directory {} cannot be written", path.display());
            Err(Error::new(ErrorKind::ReadOnly, message).with_source(io::Error::from(errno)))
        }
        Err(errno) => Err(Error::os("check access to the root directory", errno)),
    }
}

#[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
fn check_version(path: &Path) -> Result<()> {
    let file = path.join(VERSION_FILE);
    if let Some(text) = read_if_there(&file)? {
        return accept_version(path, &text);
    }
    let foreign = first_foreign_entry(path)?;
    // Between the two looks another process may have begun this very root.
    if let Some(text) = read_if_there(&file)? {
        return accept_version(path, &text);
    }
    if let Some(name) = foreign {
        let message = format!(
            "{} is not an engine's root directory and not empty (it has {name:?}); give an empty one or a new path",
            path.display()
        );
        return Err(Error::invalid(message));
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        .map_err(|error| Error::os("make the root directory private", error))?;
    create_atomically(&file, version_text().as_bytes())?;
    match read_if_there(&file)? {
        Some(text) => accept_version(path, &text),
        None => {
            let message = format!("{} is being removed by somebody; try again", path.display());
            Err(Error::new(ErrorKind::Unavailable, message))
        }
    }
}

fn accept_version(path: &Path, text: &str) -> Result<()> {
    refuse_other_user(path, version_and_user(path, text)?)
}

/// Whose root it is, if this program knows its version.
fn version_and_user(path: &Path, text: &str) -> Result<u32> {
    let corrupt = || {
        Error::new(
            ErrorKind::Corrupt,
            format!("{} makes no sense", path.join(VERSION_FILE).display()),
        )
    };
    let mut lines = text.lines();
    if lines.next() != Some("longshore root") {
        return Err(corrupt());
    }
    let mut field = |name: &str| -> Result<u32> {
        let value = lines
            .next()
            .and_then(|line| line.strip_prefix(name))
            .and_then(|value| value.trim_ascii().parse().ok());
        value.ok_or_else(corrupt)
    };
    let version = field("version")?;
    if version > VERSION {
        let message = format!(
            "the root directory {} has version {version}, and this program knows up to {VERSION}",
            path.display()
        );
        return Err(Error::new(ErrorKind::NewerVersion, message));
    }
    field("uid")
}

fn file_names(dir: &Path) -> Result<Vec<String>> {
    let failed = |error| Error::os(format!("list {}", dir.display()), error);
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        names.extend(entry.map_err(failed)?.file_name().into_string().ok());
    }
    Ok(names)
}

fn read_if_there(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Some(String::new())),
        Err(error) => Err(Error::os(format!("read {}", path.display()), error)),
    }
}

/// A file that no engine put there. What a half-made root holds (temporary files) and what a fresh file system holds
/// are no obstacle.
fn first_foreign_entry(path: &Path) -> Result<Option<String>> {
    let entries = fs::read_dir(path).map_err(|error| Error::os("list the root directory", error))?;
    for entry in entries {
        let entry = entry.map_err(|error| Error::os("list the root directory", error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "lost+found" && !name.starts_with(TEMPORARY) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Makes a file with its whole content at once, unless it is there: then nothing happens. Synced before it is named.
pub(super) fn create_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let step = |error| Error::os(format!("write {}", path.display()), error);
    let temporary = temporary_beside(path)?;
    let written = write_synced(&temporary, bytes).and_then(|()| match fs::hard_link(&temporary, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    });
    let removed = fs::remove_file(&temporary);
    written.map_err(step)?;
    removed.map_err(step)
}

fn temporary_beside(path: &Path) -> Result<PathBuf> {
    let mut raw = [0u8; 8];
    crate::sys::random::fill(&mut raw)?;
    Ok(path.with_file_name(format!("{TEMPORARY}{}", hex::encode(raw))))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_data()
}
