//! `remove`: the writable layer, the files, the record. The record goes last, so that a removal cut short is taken up again.

use std::io;
use std::path::Path;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::RemoveOptions;
use super::local::{Place, Shared, Slot};
use super::record::Record;
use super::state::{Move, Verb, decide};
use crate::error::{Error, ErrorKind, Result};
use crate::events::Event;
use crate::sys::blocking::blocking;
use crate::types::{ContainerId, Outcome, Signal};

/// How often and after what time a removal that nobody waits for is tried again where the disk is full: a record cannot
/// even be deleted then.
const TRIES: usize = 50;
const RETRY: Duration = Duration::from_millis(200);
/// How often a directory is emptied into which something is still written.
const FILES_TRIES: usize = 8;

/// Repeats what a full disk refuses. In a runtime with time.
pub(crate) async fn patiently<T, W: Future<Output = Result<T>>>(mut work: impl FnMut() -> W) -> Result<T> {
    for _ in 1..TRIES {
        match work().await {
            Err(error) if error.kind() == &ErrorKind::NoSpace => tokio::time::sleep(RETRY).await,
            other => return other,
        }
    }
    work().await
}

impl Shared {
    pub(crate) fn remove<'a>(&'a self, name: &'a str, options: RemoveOptions) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async move {
            let (id, slot) = match self.place_of(name).await? {
                Place::Here(id, slot) => (id, slot),
                Place::Elsewhere(elsewhere) => return elsewhere.remove(options.force, options.volumes).await,
            };
            let verb = if options.force { Verb::RemoveForce } else { Verb::Remove };
            let turn = self.turn(&id, &slot).await?;
            let record = match self.read_in_turn(&id, &slot).await {
                Err(error) if error.is_not_found() => return Ok(Outcome::Already),
                other => other?,
            };
            let mut _kept = None;
            let record = match decide(&record.id, record.state, verb)? {
                Move::KillFirst => {
                    drop(turn);
                    self.signal_if_running(record.id.as_str(), Signal::KILL).await?;
                    let _ = self.until_exited(record.id.as_str()).await;
                    _kept = Some(self.turn(&id, &slot).await?);
                    match self.read_in_turn(&record.id, &slot).await {
                        Err(error) if error.is_not_found() => return Ok(Outcome::Already),
                        other => other?,
                    }
                }
                _ => {
                    _kept = Some(turn);
                    record
                }
            };
            slot.life.send_if_modified(|life| {
                life.exit = life.exit.or(record.body.exit);
                false
            });
            self.delete_with(&record, options.volumes).await?;
            Ok(Outcome::Done)
        })
    }

    /// Removes a container that nobody got to know.
    pub(crate) async fn remove_unwanted(&self, id: &ContainerId) {
        let removed = patiently(|| self.remove(id.as_str(), RemoveOptions::force())).await;
        if let Err(error) = removed
            && !error.is_not_found()
        {
            tracing::warn!(container = %id, error = error.report(), "a container that nobody waits for could not be removed");
        }
    }

    /// Removes everything of a container that does not run. What is gone already is success.
    pub(crate) fn delete<'a>(&'a self, record: &'a Record) -> BoxFuture<'a, Result<()>> {
        self.delete_with(record, false)
    }

    /// The same, with the anonymous volumes of a detached container. Whoever waits for the end of it all is told last.
    fn delete_with<'a>(&'a self, record: &'a Record, volumes: bool) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let destroyed = self.event(record, "destroy");
            self.delete_all_of(record, volumes, vec![destroyed]).await?;
            self.forget(&record.id);
            Ok(())
        })
    }

    /// Removes everything of a container that has just ended, how being in its record only. Both are told as one.
    pub(super) fn delete_ended<'a>(&'a self, record: &'a Record, slot: &'a Slot) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let events = ["die", "destroy"].map(|action| self.event(record, action));
            self.delete_all_of(record, false, events.into()).await?;
            slot.note_ended(record.body.finished_ns, record.body.exit);
            self.forget(&record.id);
            Ok(())
        })
    }

    /// Everything but the place that it has in this process.
    fn delete_all_of<'a>(&'a self, record: &'a Record, volumes: bool, events: Vec<Event>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if record.is_detached() {
                // Whoever began to start it may have been killed.
                self.clear(&record.id).await;
            } else if record.body.spec.cgroup_parent.is_some() {
                self.forget_cgroup(record).await?;
            }
            let layer = self.parts.snapshotter.discard(&record.snapshot_key()).await;
            let files = self.remove_files(record).await;
            layer?;
            files?;
            let id = record.id.clone();
            self.parts
                .store
                .call(move |store| store.delete_container(&id, &events).map(|_| ()))
                .await?;
            self.remove_volumes(record).await;
            if volumes {
                self.remove_anonymous(record).await;
            }
            Ok(())
        })
    }

    /// Where the helper of its owner was killed too, its cgroup is still there, in a parent that others know nothing of.
    async fn forget_cgroup(&self, record: &Record) -> Result<()> {
        let runtime = match self.runtime_of(&record.body.spec) {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::warn!(container = %record.id, error = error.report(), "nobody knows whether a cgroup of it is left");
                return Ok(());
            }
        };
        let (id, dir) = (record.id.clone(), self.dir_of(&record.id));
        blocking(move || runtime.forget(&id, &dir)).await
    }

    async fn remove_files(&self, record: &Record) -> Result<()> {
        let dir = self.dir_of(&record.id);
        blocking(move || remove_dir(&dir).map_err(|error| Error::os("remove a container's files", error))).await
    }
}

/// A log is closed after the end of its container was told, and may leave a mark of that while the rest goes: then once more.
fn remove_dir(dir: &Path) -> io::Result<()> {
    let mut done = Ok(());
    for _ in 0..FILES_TRIES {
        done = std::fs::remove_dir_all(dir);
        match &done {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            _ => return done,
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g1_what_is_written_while_files_go_goes_too() {
        let root = tempfile::tempdir().unwrap();
        for round in 0..200u64 {
            let dir = root.path().join(round.to_string());
            std::fs::create_dir(&dir).unwrap();
            for number in 0..20 {
                std::fs::write(dir.join(number.to_string()), "x").unwrap();
            }
            let late = dir.clone();
            let writer = std::thread::spawn(move || {
                // At another moment of the removal each time.
                for _ in 0..round * 40 {
                    std::hint::spin_loop();
                }
                let _ = std::fs::write(late.join("mark"), "x");
            });
            remove_dir(&dir).unwrap();
            writer.join().unwrap();
            assert!(!dir.exists(), "round {round}");
        }
    }
}
