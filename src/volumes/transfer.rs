//! `export` and `import`: all that a volume holds as a tar, and a new volume with what a tar holds.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};

use super::local::{Shared, no_such};
use super::record::Record;
use super::uses::Mounted;
use super::whole::taken;
use super::{CreateVolume, VolumeSource};
use crate::driver::Cancel;
use crate::error::{Error, ObjectKind, Result};
use crate::runtime::native::sight::ZygoteSight;
use crate::storage::inflow::on_thread;
use crate::storage::layer::{LayerReader, Limits, Plain, Sight, apply_plain};
use crate::storage::outflow::{on_driver, stream_of};
use crate::sys::blocking::blocking;
use crate::types::{ByteStream, ContainerId, Outcome, VolumeName};

/// Keeps a volume ready for as long as it is read.
struct Held {
    shared: Arc<Shared>,
    name: VolumeName,
    user: ContainerId,
}

impl Drop for Held {
    fn drop(&mut self) {
        let (shared, name, user) = (Arc::clone(&self.shared), self.name.clone(), self.user.clone());
        let spawner = self.shared.parts.spawner.clone();
        spawner.detach(async move { shared.unmount(&name, &user).await });
    }
}

impl Shared {
    pub(super) async fn export(self: &Arc<Self>, name: &str) -> Result<ByteStream> {
        let record = self.find(name).await?;
        if self.is_dead(&record).await? {
            return Err(no_such(name));
        }
        // As a container would use it: its driver makes it ready, and hears of the end.
        let held = Held {
            shared: Arc::clone(self),
            name: record.name.clone(),
            user: ContainerId::random(),
        };
        let mounted = self.mount(&held.name, &held.user, &Cancel::default()).await?;
        let (ownership, sight) = (self.parts.ownership.clone(), self.sight());
        let reader = blocking(move || Ok(LayerReader::of_tree(open(mounted)?, &ownership, sight))).await?;
        let shared = Arc::clone(self);
        let closing = async move {
            // One that is removed meanwhile has lost files that should be in the archive.
            shared.read(&record.name).await?;
            shared.tell(shared.event(&record, "export")).await;
            Ok(())
        };
        let write = move |out: &mut _| {
            let _held = held;
            reader.write_tree(out)
        };
        Ok(on_driver(&self.parts.spawner, stream_of(write, Box::pin(closing))?))
    }

    /// Who opens what an ordinary user's engine may not.
    fn sight(&self) -> Option<Arc<dyn Sight>> {
        let native = &self.parts.native;
        let inside = native.uses_user_namespace();
        inside.then(|| Arc::new(ZygoteSight::new(Arc::clone(native))) as Arc<dyn Sight>)
    }

    pub(super) async fn import(&self, into: CreateVolume, archive: ByteStream, cancel: &Cancel) -> Result<Record> {
        let record = self.asked(into, None)?;
        let filling = Box::pin(self.import_into(&record, archive, cancel));
        self.make_whole(&record, filling).await?;
        Ok(record)
    }

    async fn import_into(&self, record: &Record, archive: ByteStream, cancel: &Cancel) -> Result<()> {
        let (driver, context) = (self.driver(&record.body.driver)?, self.context(record));
        let made = self.patiently(record, cancel, driver.create(&context)).await?;
        if made == Outcome::Already {
            return Err(taken(&record.name));
        }
        let filled = match self.patiently(record, cancel, driver.mount(&context)).await {
            Ok(source) => {
                let filled = self.fill_with(record, source, archive, cancel).await;
                let unmounted = driver.unmount(&context).await;
                filled.and(unmounted)
            }
            Err(error) => Err(error),
        };
        if filled.is_err() {
            self.unmake_driven(record).await;
        }
        filled
    }

    async fn fill_with(
        &self,
        record: &Record,
        source: VolumeSource,
        archive: ByteStream,
        cancel: &Cancel,
    ) -> Result<()> {
        let VolumeSource::Directory(place) = source else {
            let needs = "a driver whose files are in a directory of the host, as those of local";
            let error = Error::unsupported("filling a volume that is a file system of its own", needs);
            return Err(error.with_object(ObjectKind::Volume, record.name.as_str()));
        };
        let ownership = self.parts.ownership.clone();
        let written = on_thread(until(cancel.clone(), archive), move |inflow| {
            let plain = Plain {
                with_root: true,
                ..Plain::default()
            };
            apply_plain(inflow, &place, plain, &ownership, &Limits::default())
        });
        written.await.map_err(|error| match error.object() {
            Some(_) => error,
            None => error.with_object(ObjectKind::Volume, record.name.as_str()),
        })
    }
}

/// What a container would see, to be read.
fn open(mounted: Mounted) -> Result<OwnedFd> {
    let failed = |e| Error::os("open a volume", e);
    match mounted {
        Mounted::Tree(tree) | Mounted::Own(tree) => tree.try_clone().map_err(failed),
        Mounted::Directory(path) => open_directory(&path),
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let opened = File::options().read(true).custom_flags(flags).open(path);
    let opened = opened.map_err(|e| Error::os(format!("open {}", path.display()), e))?;
    Ok(opened.into())
}

/// The bytes of a stream, up to where their caller goes away: whoever reads them hears of it, and ends.
fn until(cancel: Cancel, bytes: ByteStream) -> ByteStream {
    let pieces = stream::try_unfold((bytes, cancel), |(mut bytes, cancel)| async move {
        let next = cancel.or(async { bytes.next().await.transpose() }).await?;
        Ok(next.map(|piece| (piece, (bytes, cancel))))
    });
    pieces.boxed()
}
