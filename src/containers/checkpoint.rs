//! `checkpoint`: a running container's processes, written down; and `start` from there. Images lie in the container's own
//! directory, and go with it, or in one that the caller names.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::CheckpointOptions;
use super::local::Shared;
use super::plan;
use super::record::Record;
use super::spec::{NamespaceMode, NetworkMode};
use super::state::{ContainerState, Move, Refusal, Verb, decide, refuse};
use crate::driver::Cancel;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::runtime::{Dump, Restore};
use crate::sys::blocking::blocking;
use crate::types::{ContainerId, ContainerName, Outcome};

/// How the name of what is not complete ends. The directory may be the caller's, with hidden things of others in it.
const PART: &str = ".longshore-part";

/// One that is being written: nobody else sweeps it while its lock is held.
struct Part {
    path: PathBuf,
    _lock: File,
}

impl Shared {
    pub(crate) async fn checkpoint(&self, name: &str, checkpoint: &str, options: CheckpointOptions) -> Result<()> {
        let (id, slot) = self.own_slot(name, "checkpoint").await?;
        let turn = self.turn(&id, &slot).await?;
        let record = self.read_in_turn(&id, &slot).await?;
        decide(&record.id, record.state, Verb::Checkpoint)?;
        possible(&record)?;
        if !record.body.spec.cdi_devices.is_empty() {
            let needs = "a container without devices of the Container Device Interface";
            return Err(Error::unsupported("a checkpoint with such devices", needs));
        }
        let whole = self.checkpoint_place(&id, checkpoint, options.directory)?;
        let live = self.live(&record, &slot).await?;
        let live = live.ok_or_else(|| refuse(&id, ContainerState::Exited, Verb::Checkpoint, Refusal::NotRunning))?;
        let spec = plan::oci_spec(&id, &record.body.spec, &record.body.image)?;
        let (target, short) = (whole.clone(), id.short().to_owned());
        let part = blocking(move || Part::begin(&target, &short)).await?;
        let dump = Dump {
            spec,
            directory: part.path.clone(),
            work: self.dir_of(&id).join("criu"),
            leave_running: options.leave_running,
        };
        let dumped = live.task.checkpoint(dump).await;
        let done = blocking(move || part.end(&whole, dumped)).await;
        done.map_err(|error| error.with_object(ObjectKind::Container, id.as_str()))?;
        if options.leave_running {
            return self.noted(&record).await;
        }
        // Its policy has its say under the turn, which is held here until this is known.
        slot.halt();
        drop(turn);
        self.noted(&record).await?;
        self.until_exited(id.as_str()).await.map(drop)
    }

    async fn noted(&self, record: &Record) -> Result<()> {
        self.tell(self.event(record, "checkpoint")).await;
        Ok(())
    }

    pub(crate) async fn checkpoints(&self, name: &str, directory: Option<PathBuf>) -> Result<Vec<String>> {
        let record = self.find(name).await?;
        let directory = self.checkpoint_directory(&record.id, directory)?;
        blocking(move || list(&directory)).await
    }

    pub(crate) async fn remove_checkpoint(
        &self,
        name: &str,
        checkpoint: &str,
        directory: Option<PathBuf>,
    ) -> Result<()> {
        let (id, slot) = self.own_slot(name, "remove a checkpoint of").await?;
        let _turn = self.turn(&id, &slot).await?;
        let whole = self.checkpoint_place(&id, checkpoint, directory)?;
        let checkpoint = checkpoint.to_owned();
        blocking(move || {
            must_be_there(&whole, &checkpoint)?;
            fs::remove_dir_all(&whole).map_err(|error| Error::os("remove a checkpoint", error))
        })
        .await
    }

    /// Starts it from there. One that cannot go on is as it was before.
    pub(crate) async fn restore(
        self: &Arc<Self>,
        name: &str,
        checkpoint: &str,
        directory: Option<PathBuf>,
        cancel: &Cancel,
    ) -> Result<Outcome> {
        let (id, slot) = self.own_slot(name, "start from a checkpoint").await?;
        let _turn = self.turn(&id, &slot).await?;
        let mut record = self.read_in_turn(&id, &slot).await?;
        if decide(&record.id, record.state, Verb::Start)? == Move::Already {
            return Ok(Outcome::Already);
        }
        possible(&record)?;
        let whole = self.checkpoint_place(&id, checkpoint, directory)?;
        let (looked, checkpoint) = (whole.clone(), checkpoint.to_owned());
        blocking(move || must_be_there(&looked, &checkpoint)).await?;
        record.body.restarts = 0;
        slot.begin_anew();
        let from = Restore {
            directory: whole,
            work: self.dir_of(&id).join("criu"),
        };
        self.start_from(record, &slot, cancel, Some(from)).await?;
        Ok(Outcome::Done)
    }

    fn checkpoint_directory(&self, id: &ContainerId, wanted: Option<PathBuf>) -> Result<PathBuf> {
        match wanted {
            None => Ok(self.dir_of(id).join("checkpoints")),
            Some(directory) if directory.is_absolute() => Ok(directory),
            Some(directory) => Err(Error::invalid(format!(
                "the directory of checkpoints {}: an absolute path is needed",
                directory.display()
            ))),
        }
    }

    fn checkpoint_place(&self, id: &ContainerId, name: &str, wanted: Option<PathBuf>) -> Result<PathBuf> {
        if name.parse::<ContainerName>().is_err() {
            let message = format!("Invalid checkpoint ID ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed");
            return Err(Error::invalid(message));
        }
        Ok(self.checkpoint_directory(id, wanted)?.join(name))
    }
}

/// Whether there is a chance. What CRIU cannot write down of the rest, it says itself.
fn possible(record: &Record) -> Result<()> {
    let spec = &record.body.spec;
    let plain = [&spec.pid_mode, &spec.ipc_mode, &spec.uts_mode, &spec.cgroup_mode]
        .into_iter()
        .all(|mode| matches!(mode, NamespaceMode::Private | NamespaceMode::Shareable));
    let needs = match () {
        () if record.is_detached() => "a container that ends with its engine: the other ones are under their shim",
        () if spec.tty => "a container without a terminal",
        () if spec.init => "a container without an init of the engine's",
        () if spec.user_namespace => "a container in the host's user namespace",
        () if !plain => "a container with processes, IPC, host name and cgroups of its own",
        () if !matches!(spec.network, NetworkMode::None | NetworkMode::Named(_)) => {
            "a container with a network of its own"
        }
        () => return Ok(()),
    };
    Err(Error::unsupported("checkpoints of this container", needs)
        .with_object(ObjectKind::Container, record.id.as_str()))
}

fn not_there(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("checkpoint {name} does not exist"))
}

/// Blocking.
fn must_be_there(whole: &Path, name: &str) -> Result<()> {
    match fs::symlink_metadata(whole) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(not_there(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(not_there(name)),
        Err(error) => Err(Error::os("look for a checkpoint", error)),
    }
}

/// The names of those that are complete. Blocking.
fn list(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.map_err(|error| Error::os("list checkpoints", error))?,
    };
    let directories = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let names = directories.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.parse::<ContainerName>().is_ok()).collect();
    names.sort_unstable();
    Ok(names)
}

impl Part {
    /// Blocking.
    fn begin(whole: &Path, container: &str) -> Result<Self> {
        let os = |error| Error::os("make a checkpoint's directory", error);
        let (Some(directory), Some(name)) = (whole.parent(), whole.file_name().and_then(|name| name.to_str())) else {
            return Err(Error::internal("a checkpoint without a name"));
        };
        fs::create_dir_all(directory).map_err(os)?;
        sweep(directory);
        if fs::symlink_metadata(whole).is_ok() {
            let message = format!("checkpoint with name {name} already exists for container {container}");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let path = directory.join(format!(".{name}.{container}{PART}"));
        // What is in the memory of processes is for nobody else to read.
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(os)?;
        let lock = File::open(&path).map_err(os)?;
        lock.lock().map_err(os)?;
        Ok(Self { path, _lock: lock })
    }

    /// Makes it whole, or nothing of it. Blocking.
    fn end(self, whole: &Path, dumped: Result<()>) -> Result<()> {
        let ended =
            dumped.and_then(|()| fs::rename(&self.path, whole).map_err(|error| Error::os("keep a checkpoint", error)));
        if ended.is_err() {
            let _ = fs::remove_dir_all(&self.path);
        }
        ended
    }
}

/// Removes what somebody who was killed has left. Blocking.
fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_part = name
            .to_str()
            .is_some_and(|name| name.starts_with('.') && name.ends_with(PART));
        let left = is_part && File::open(entry.path()).is_ok_and(|lock| lock.try_lock().is_ok());
        if left {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g13_a_checkpoint_is_there_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let whole = root.path().join("all").join("one");
        assert_eq!(list(&root.path().join("all")).unwrap(), Vec::<String>::new());
        let part = Part::begin(&whole, "abc").unwrap();
        assert!(list(&root.path().join("all")).unwrap().is_empty());
        part.end(&whole, Err(Error::invalid("no"))).unwrap_err();
        assert_eq!(fs::read_dir(root.path().join("all")).unwrap().count(), 0);
        Part::begin(&whole, "abc").unwrap().end(&whole, Ok(())).unwrap();
        assert_eq!(list(&root.path().join("all")).unwrap(), ["one"]);
        let again = Part::begin(&whole, "abc").map(drop).unwrap_err();
        assert!(again.is_conflict(), "{}", again.report());
        must_be_there(&whole, "one").unwrap();
        assert!(
            must_be_there(&root.path().join("two"), "two")
                .unwrap_err()
                .is_not_found()
        );
    }

    #[test]
    fn g13_what_a_killed_one_left_is_swept_and_a_live_one_s_is_not() {
        let root = tempfile::tempdir().unwrap();
        let alive = Part::begin(&root.path().join("one"), "abc").unwrap();
        let left = root.path().join(format!(".old.gone{PART}"));
        let foreign = root.path().join(".download.part");
        fs::create_dir(&left).unwrap();
        fs::create_dir(&foreign).unwrap();
        fs::write(left.join("pages-1.img"), "x").unwrap();
        let other = Part::begin(&root.path().join("two"), "def").unwrap();
        assert!(!left.exists());
        assert!(foreign.exists(), "it is somebody else's");
        assert!(alive.path.exists() && other.path.exists());
    }
}
