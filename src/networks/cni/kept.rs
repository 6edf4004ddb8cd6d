//! What is kept of a network, in the driver's own directory of it: the list that it was made with, and of each place the result of its
//! plugins, which CHECK and DEL are told again. Blocks. Source: the CNI specification 1.0.0, section 3.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;

use super::list::List;
use crate::error::{Error, ErrorKind, Result};

const LIST: &str = "network.conflist";
/// More than any file of a list, or a result, has.
const LARGEST: u64 = 1 << 20;
/// How often a lock is tried again.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

fn os(step: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| Error::os(step, error)
}

/// A file of at most [`LARGEST`] bytes; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let mut text = Vec::new();
    match File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut text)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(os("read a file of CNI"))?,
    };
    if text.len() as u64 > LARGEST {
        return Err(Error::invalid(format!(
            "{} has more than {LARGEST} bytes",
            path.display()
        )));
    }
    Ok(Some(text))
}

fn write(path: &Path, text: &[u8]) -> Result<()> {
    let mut unborn = path.as_os_str().to_owned();
    unborn.push(".new");
    let unborn = PathBuf::from(unborn);
    let written = File::create(&unborn).and_then(|mut file| {
        file.write_all(text)?;
        file.sync_all()
    });
    written
        .and_then(|()| fs::rename(&unborn, path))
        .map_err(os("keep what a CNI plugin needs again"))
}

/// The list that a network was made with.
pub(super) fn list(dir: &Path) -> Result<Option<List>> {
    read(&dir.join(LIST))?.map(|text| List::parse(&text)).transpose()
}

pub(super) fn keep_list(dir: &Path, text: &[u8]) -> Result<()> {
    write(&dir.join(LIST), text)
}

/// What is kept of one place.
#[derive(Debug)]
pub(super) struct Place {
    result: PathBuf,
    stdin: PathBuf,
}

impl Place {
    pub(super) fn of(dir: &Path, endpoint: &str) -> Self {
        Self {
            result: dir.join(format!("{endpoint}.result")),
            stdin: dir.join(format!("{endpoint}.in")),
        }
    }

    /// The file that plugins read, for this caller alone. A plugin has it open to its end: one that an engine left behind which was
    /// killed is waited for.
    ///
    /// # Errors
    /// `Timeout`.
    pub(super) fn lock(&self, until: Instant) -> Result<Flock<File>> {
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.stdin);
        let mut file = open.map_err(os("make the file that a CNI plugin reads"))?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(locked) => return Ok(locked),
                Err((_, errno)) if errno != Errno::EWOULDBLOCK => {
                    return Err(Error::os("lock the file that a CNI plugin reads", errno));
                }
                Err((_, _)) if Instant::now() >= until => {
                    let message = "a CNI plugin that an engine left behind does not end";
                    return Err(Error::new(ErrorKind::Timeout, message));
                }
                Err((back, _)) => file = back,
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// The result of its plugins, if they came to their end.
    pub(super) fn result(&self) -> Result<Option<Value>> {
        let Some(text) = read(&self.result)? else {
            return Ok(None);
        };
        let parsed = serde_json::from_slice(&text);
        parsed.map(Some).map_err(|error| {
            let message = format!("{} is unreadable", self.result.display());
            Error::new(ErrorKind::Corrupt, message).with_source(error)
        })
    }

    pub(super) fn keep(&self, result: &Value) -> Result<()> {
        write(&self.result, result.to_string().as_bytes())
    }

    /// Forgets it. The file that plugins read goes last: it says that there is something to take back.
    pub(super) fn forget(&self) -> Result<()> {
        for path in [&self.result, &self.stdin] {
            match fs::remove_file(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(os("forget the result of a CNI plugin"))?,
            }
        }
        Ok(())
    }

    /// Whether any plugin was run for it.
    pub(super) fn is_known(&self) -> bool {
        self.stdin.exists() || self.result.exists()
    }
}

/// The files of a directory that are lists, by name.
pub(super) fn lists(dir: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let failed = os("list the directory of CNI network configurations");
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(&failed)? {
        let path = entry.map_err(&failed)?.path();
        if path.extension().is_some_and(|extension| extension == "conflist")
            && let Some(text) = read(&path)?
        {
            found.push((path.display().to_string(), text));
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn k8_what_is_kept_of_a_place() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::of(dir.path(), "e");
        assert!(!place.is_known() && place.result().unwrap().is_none());
        let held = place.lock(Instant::now()).unwrap();
        assert!(place.is_known());
        let busy = place.lock(Instant::now() + Duration::from_millis(30)).unwrap_err();
        assert_eq!(busy.kind(), &ErrorKind::Timeout);
        // Who has a copy of it holds the lock, too.
        let copy = held.try_clone().unwrap();
        drop(copy);
        place.keep(&serde_json::json!({"a": 1})).unwrap();
        assert_eq!(place.result().unwrap().unwrap()["a"], 1);
        drop(held);
        drop(place.lock(Instant::now()).unwrap());
        place.forget().unwrap();
        place.forget().unwrap();
        assert!(!place.is_known());
        fs::write(dir.path().join("e.result"), "{").unwrap();
        assert_eq!(place.result().unwrap_err().kind(), &ErrorKind::Corrupt);
    }

    #[test]
    fn k8_only_lists_are_read_and_no_endless_ones() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("b.conflist"), "{}").unwrap();
        fs::write(dir.path().join("a.conf"), "{}").unwrap();
        let found = lists(dir.path()).unwrap();
        assert_eq!(found.len(), 1);
        File::create(dir.path().join("c.conflist"))
            .unwrap()
            .set_len(LARGEST + 1)
            .unwrap();
        assert_eq!(lists(dir.path()).unwrap_err().kind(), &ErrorKind::InvalidArgument);
        assert!(lists(&dir.path().join("none")).is_err());
    }
}
