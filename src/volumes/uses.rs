//! Who uses a volume at the moment: its driver hears of the first and of the last.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use super::driver::VolumeSource;
use super::local::Shared;
use super::record::Record;
use crate::driver::Cancel;
use crate::error::{Error, ObjectKind, Result};
use crate::runtime::native::copies_mounts;
use crate::sys::blocking::blocking;
use crate::types::{ContainerId, Mount, MountSource, VolumeName};

/// A volume that is ready for containers.
#[derive(Debug, Clone)]
pub(crate) enum Mounted {
    /// A directory of the host.
    Directory(PathBuf),
    /// A mount that is attached nowhere, to be copied.
    Tree(Arc<OwnedFd>),
    /// A mount that is attached nowhere, and this container's alone.
    Own(Arc<OwnedFd>),
}

/// The containers of this process that use a volume, and what it shows them.
#[derive(Debug, Default)]
pub(super) struct Use {
    pub(super) users: BTreeSet<ContainerId>,
    mounted: Option<Mounted>,
    /// What is mounted anew for each container, where this kernel copies no mount that is attached nowhere.
    again: Option<Mount>,
}

impl Shared {
    /// A volume's turn: who holds it decides alone.
    pub(super) fn turn(&self, name: &VolumeName) -> Arc<tokio::sync::Mutex<Use>> {
        let mut uses = self.uses.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Arc::clone(uses.entry(name.clone()).or_default())
    }

    fn forget_turn(&self, name: &VolumeName) {
        let mut uses = self.uses.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Ours and the map's: nobody waits for it.
        if uses.get(name).is_some_and(|turn| Arc::strong_count(turn) <= 2) {
            uses.remove(name);
        }
    }

    /// Makes a volume ready for a container that is about to start.
    ///
    /// # Errors
    /// `NotFound`; what the driver says.
    ///
    /// # Cancel safety
    /// A dropped call may leave the volume mounted until the engine ends.
    pub(crate) async fn mount(&self, name: &VolumeName, user: &ContainerId, cancel: &Cancel) -> Result<Mounted> {
        let record = self.read(name).await?;
        let turn = self.turn(name);
        let mut held = turn.lock().await;
        if let Some(mounted) = &held.mounted {
            let mounted = match &held.again {
                None => mounted.clone(),
                Some(again) => self.own(again).await.map_err(|error| about(&record, error))?,
            };
            held.users.insert(user.clone());
            return Ok(mounted);
        }
        let (mounted, again) = self
            .mount_now(&record, cancel)
            .await
            .map_err(|error| about(&record, error))?;
        held.mounted = Some(mounted.clone());
        held.again = again;
        held.users.insert(user.clone());
        Ok(mounted)
    }

    async fn mount_now(&self, record: &Record, cancel: &Cancel) -> Result<(Mounted, Option<Mount>)> {
        let (driver, context) = (self.driver(&record.body.driver)?, self.context(record));
        let source = match self.patiently(record, cancel, driver.mount(&context)).await? {
            VolumeSource::Directory(path) => return Ok((Mounted::Directory(path), None)),
            VolumeSource::FileSystem { kind, source, options } => Mount::file_system(kind, source, options),
        };
        let mounted = match is_in_memory(&source) || copies_mounts() {
            true => self.tree(&source).await.map(|tree| (Mounted::Tree(tree), None)),
            false => self.own(&source).await.map(|own| (own, Some(source))),
        };
        if mounted.is_err() {
            let _ = driver.unmount(&context).await;
        }
        mounted
    }

    async fn tree(&self, source: &Mount) -> Result<Arc<OwnedFd>> {
        let (native, wanted) = (Arc::clone(&self.parts.native), source.clone());
        let mounted = blocking(move || native.mount(&[wanted])).await;
        mounted.map(Arc::new).map_err(|error| for_want_of(source, error))
    }

    /// A mount for one container. What is on a disk or a server is the same, however often it is mounted.
    async fn own(&self, source: &Mount) -> Result<Mounted> {
        self.tree(source).await.map(Mounted::Own)
    }

    /// A container has ended that used a volume.
    pub(crate) async fn unmount(&self, name: &VolumeName, user: &ContainerId) {
        let turn = self.turn(name);
        let mut held = turn.lock().await;
        let was = held.users.remove(user);
        if was && held.users.is_empty() && held.mounted.take().is_some() {
            held.again = None;
            let ended = async {
                let record = self.read(name).await?;
                self.driver(&record.body.driver)?.unmount(&self.context(&record)).await
            };
            if let Err(error) = ended.await
                && !error.is_not_found()
            {
                tracing::warn!(volume = %name, error = error.report(), "a volume could not be unmounted");
            }
        }
        let idle = held.users.is_empty();
        drop(held);
        if idle {
            self.forget_turn(name);
        }
    }
}

/// Whether a second mount of it would be another file system.
fn is_in_memory(source: &Mount) -> bool {
    matches!(&source.source, MountSource::FileSystem { kind, .. } if matches!(kind.as_str(), "tmpfs" | "ramfs"))
}

/// What a file system that cannot be mounted lacks. Source: mount(2), `ENODEV` and `EPERM`.
fn for_want_of(source: &Mount, error: Error) -> Error {
    let MountSource::FileSystem { kind, .. } = &source.source else {
        return error;
    };
    let needs = match error.errno() {
        Some(libc::ENODEV) => {
            format!(
                "this kernel has no file system {kind}; root loads what has it with \"modprobe {kind}\", if the kernel has the module"
            )
        }
        Some(libc::EPERM) => {
            format!(
                "the kernel lets nobody but root mount a file system {kind}; root can mount it on the host, for a volume whose device is that directory (type none, o bind)"
            )
        }
        _ => return error,
    };
    Error::unsupported(format!("a volume of type {kind}"), needs).with_source(error)
}

fn about(record: &Record, error: Error) -> Error {
    match error.object() {
        Some(_) => error,
        None => error
            .context(format!("make volume {} ready", record.name))
            .with_object(ObjectKind::Volume, record.name.as_str()),
    }
}
