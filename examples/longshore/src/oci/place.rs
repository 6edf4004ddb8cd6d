//! Where a container's state is: a directory of its own, named by what it is called.
//!
//! ```text
//! state.json    what `state` prints, but for the end of the process that has the container
//! lock          held by that process: whoever finds it free knows that the container has ended
//! ctl           the socket that it listens at
//! cgroups       what is to be removed if it was killed together with its helper
//! ```

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use longshore::{ContainerId, Error, ErrorKind, ObjectKind};
use serde_json::{Value, json};

const STATE: &str = "state.json";
const LOCK: &str = "lock";
/// The socket's name.
pub const SOCKET: &str = "ctl";
/// The longest name: that of a directory, with room for those of temporary ones.
const LONGEST: usize = 240;

/// The directory of all containers.
#[derive(Debug, Clone)]
pub struct Root(PathBuf);

impl Root {
    /// A directory of choice; made if it is not there, for its owner alone.
    pub fn at(path: PathBuf) -> Result<Self, Error> {
        let path = std::path::absolute(path).map_err(|error| Error::os("find the state's directory", error))?;
        Ok(Self(path))
    }

    /// Where runtimes of the host keep it: below `/run`, or what the session has for that.
    pub fn usual() -> Result<Self, Error> {
        if rustix::process::geteuid().is_root() {
            return Ok(Self("/run/longshore-oci".into()));
        }
        match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(dir) if Path::new(&dir).is_absolute() => Ok(Self(Path::new(&dir).join("longshore-oci"))),
            _ => Err(Error::invalid("XDG_RUNTIME_DIR is not set: say --root DIR")),
        }
    }

    /// As it is said to another process.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A container that is there.
    ///
    /// # Errors
    /// `NotFound`, in runc's words.
    pub fn container(&self, id: &str) -> Result<Place, Error> {
        let place = self.place(id)?;
        if place.dir.is_dir() {
            Ok(place)
        } else {
            Err(missing(id))
        }
    }

    /// Where a container would be.
    pub fn place(&self, id: &str) -> Result<Place, Error> {
        check_name(id)?;
        Ok(Place {
            id: id.to_owned(),
            dir: self.0.join(id),
        })
    }

    /// All containers, by name.
    pub fn all(&self) -> Result<Vec<Place>, Error> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| Error::os("read the state's directory", error))?,
        };
        let names = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok());
        let mut places: Vec<Place> = names.filter_map(|name| self.place(&name).ok()).collect();
        places.retain(|place| place.dir.is_dir());
        places.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(places)
    }
}

fn missing(id: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("container {id:?} does not exist")).with_object(ObjectKind::Container, id)
}

/// As runc has it: letters, digits, `_`, `+`, `-` and `.`. Source: `validateID` of libcontainer.
fn check_name(id: &str) -> Result<(), Error> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-' | b'.');
    if !id.is_empty() && id.len() <= LONGEST && id.bytes().all(plain) && !matches!(id, "." | "..") {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "invalid container id {id:?}: 1 to {LONGEST} letters, digits, '_', '+', '-' and '.'"
    )))
}

/// What a container is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Created,
    Running,
    Stopped,
}

impl Status {
    /// The specification's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Stopped => "stopped",
        }
    }

    fn of(word: &str) -> Option<Self> {
        [Self::Created, Self::Running, Self::Stopped]
            .into_iter()
            .find(|status| status.as_str() == word)
    }
}

/// A container's state.
#[derive(Debug, Clone)]
pub struct State {
    pub version: String,
    pub id: String,
    pub status: Status,
    /// 0 once it has stopped.
    pub pid: u32,
    pub bundle: PathBuf,
    pub annotations: Value,
    /// When it was created, in RFC 3339.
    pub created: String,
    /// The library's id of it.
    pub inner: ContainerId,
}

impl State {
    /// What `state` prints. Source: the specification, `runtime.md`, "State".
    pub fn to_json(&self) -> Value {
        let mut state = json!({
            "ociVersion": self.version, "id": self.id, "status": self.status.as_str(), "pid": self.pid,
            "bundle": self.bundle, "created": self.created,
        });
        if self.annotations.is_object() {
            state["annotations"] = self.annotations.clone();
        }
        state
    }

    fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let word = |key: &str| value[key].as_str().map(str::to_owned);
        Some(Self {
            version: word("ociVersion")?,
            id: word("id")?,
            status: Status::of(&word("status")?)?,
            pid: u32::try_from(value["pid"].as_u64()?).ok()?,
            bundle: word("bundle")?.into(),
            annotations: value["annotations"].clone(),
            created: word("created")?,
            inner: word("longshore")?.parse().ok()?,
        })
    }
}

/// A container's directory.
#[derive(Debug, Clone)]
pub struct Place {
    pub id: String,
    pub dir: PathBuf,
}

impl Place {
    /// Makes the directory of a new container.
    ///
    /// # Errors
    /// `Conflict` if there is one of that name.
    pub fn make(&self) -> Result<(), Error> {
        let failed = |error| Error::os(format!("make {}", self.dir.display()), error);
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        if let Some(root) = self.dir.parent() {
            builder.recursive(true).create(root).map_err(failed)?;
        }
        match builder.recursive(false).create(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let message = format!("container with id exists: {}", self.id);
                Err(Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Container, self.id.as_str()))
            }
            made => made.map_err(failed),
        }
    }

    /// Takes the lock, for as long as the file is open.
    ///
    /// # Errors
    /// `Conflict` if somebody has it.
    pub fn hold(&self) -> Result<File, Error> {
        let failed = |error| Error::os("take a container's lock", error);
        let mut options = File::options();
        let file = options
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.dir.join(LOCK));
        let file = file.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                Err(Error::new(ErrorKind::Conflict, "the container has a process already"))
            }
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Whether the process that has it lives.
    pub fn is_held(&self) -> Result<bool, Error> {
        let failed = |error| Error::os("look at a container's lock", error);
        let file = match File::open(self.dir.join(LOCK)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file.map_err(failed)?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Its state as it is now.
    ///
    /// # Errors
    /// `NotFound` if it was never created to the end; `Corrupt`.
    pub fn state(&self) -> Result<State, Error> {
        // Before the file is read: who has ended since has written its end.
        let held = self.is_held()?;
        let text = match fs::read_to_string(self.dir.join(STATE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing(&self.id)),
            text => text.map_err(|error| Error::os("read a container's state", error))?,
        };
        let damaged = || {
            Error::new(
                ErrorKind::Corrupt,
                format!("the state of container {:?} is damaged", self.id),
            )
        };
        let mut state = State::parse(&text).ok_or_else(damaged)?;
        if !held {
            (state.status, state.pid) = (Status::Stopped, 0);
        }
        Ok(state)
    }

    /// Writes its state down: all of it, or what was there stays.
    pub fn write(&self, state: &State) -> Result<(), Error> {
        let mut value = state.to_json();
        value["longshore"] = json!(state.inner.as_str());
        write_whole(&self.dir.join(STATE), value.to_string().as_bytes())
    }

    /// Removes all of it.
    pub fn remove(&self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done.map_err(|error| Error::os(format!("remove {}", self.dir.display()), error)),
        }
    }

    /// A path of a file in it that fits into the address of a socket, whatever its length, while the directory is open.
    pub fn short(&self, name: &str) -> Result<(File, PathBuf), Error> {
        let dir = File::open(&self.dir).map_err(|error| Error::os("open a container's state", error))?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()));
        Ok((dir, path))
    }
}

/// Writes a file of which nobody sees a part. Whatever else is in its directory is not followed: others may write there, too.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = |error| Error::os(format!("write {}", path.display()), error);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = create_new(&fresh).and_then(|mut file| file.write_all(bytes));
    let done = written.and_then(|()| fs::rename(&fresh, path));
    if done.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    done.map_err(failed)
}

/// In the place of what a process of the same number has left there.
fn create_new(path: &Path) -> io::Result<File> {
    match File::create_new(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            File::create_new(path)
        }
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> (Root, PathBuf) {
        let path = std::env::temp_dir().join(format!(
            "longshore-oci-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        (Root::at(path.clone()).unwrap(), path)
    }

    #[test]
    fn oci_names_are_those_of_directories() {
        let (root, _) = root();
        for good in ["a", "web-1", "a.b+c_d", "..a"] {
            root.place(good).unwrap();
        }
        let long = "a".repeat(241);
        for bad in ["", ".", "..", "a/b", "../a", "a b", "a\0", "ä", long.as_str()] {
            assert_eq!(
                root.place(bad).unwrap_err().kind(),
                &ErrorKind::InvalidArgument,
                "{bad:?}"
            );
        }
    }

    #[test]
    fn oci_a_state_is_read_as_it_was_written() {
        let (root, path) = root();
        assert!(root.container("box").unwrap_err().is_not_found());
        let place = root.place("box").unwrap();
        place.make().unwrap();
        assert!(place.make().unwrap_err().is_conflict());
        assert!(place.state().unwrap_err().is_not_found());
        let state = State {
            version: "1.0.2".into(),
            id: "box".into(),
            status: Status::Running,
            pid: 7,
            bundle: "/b".into(),
            annotations: json!({"a": "b"}),
            created: "now".into(),
            inner: ContainerId::random(),
        };
        place.write(&state).unwrap();
        // Without a process that has it, it has stopped.
        let read = place.state().unwrap();
        assert_eq!((read.status, read.pid), (Status::Stopped, 0));
        let held = place.hold().unwrap();
        assert!(place.hold().unwrap_err().is_conflict());
        let read = place.state().unwrap();
        assert_eq!(read.to_json(), state.to_json());
        assert_eq!((read.inner, read.status), (state.inner, Status::Running));
        drop(held);
        assert!(!place.is_held().unwrap());
        let names: Vec<String> = root.all().unwrap().into_iter().map(|place| place.id).collect();
        assert_eq!(names, ["box"]);
        fs::write(place.dir.join(STATE), "{").unwrap();
        assert_eq!(place.state().unwrap_err().kind(), &ErrorKind::Corrupt);
        place.remove().unwrap();
        place.remove().unwrap();
        fs::remove_dir(path).unwrap();
    }
}
