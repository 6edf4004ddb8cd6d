//! `create`: check, record, make the writable layer.

use std::sync::Arc;

use super::bare;
use super::local::Shared;
use super::plan::{self, ImageDefaults};
use super::record::{Body, Record, now_ns};
use super::spec::Lifetime;
use super::state::ContainerState;
use super::validate::validate;
use super::{ContainerSpec, Created, lsm, names, users, zone};
use crate::driver::{Cancel, closed};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::images::ImageInfo;
use crate::runtime::foreign::is_run_here;
use crate::storage::snapshot::WritableOptions;
use crate::store::{ContainerRow, Insert, Uses};
use crate::sys::blocking::blocking;
use crate::types::{ContainerId, ContainerName, Platform};

/// How often a name is tried again after a dead owner's container was swept out of its way.
const NAME_TRIES: usize = 8;

impl Shared {
    pub(crate) async fn create(self: &Arc<Self>, mut spec: ContainerSpec, cancel: &Cancel) -> Result<Created> {
        let lifetime = *spec.lifetime.get_or_insert(self.parts.lifetime);
        validate(&spec)?;
        self.check_log(&spec.log)?;
        let runtime = self.name_runtime(&mut spec)?;
        let bare = runtime.is_bare();
        if bare {
            bare::check(&spec)?;
        }
        lsm::check(&spec, runtime.name())?;
        if lifetime == Lifetime::Detached {
            self.check_detached(&spec)?;
        }
        self.name_peers(&mut spec).await?;
        self.name_networks(&mut spec).await?;
        zone::check(&spec).await?;
        let image = cancel.or(self.image_for(&spec)).await?;
        let mut record = self.new_record(spec, &image)?;
        plan::check(&record.id, &record.body.spec, &record.body.image)?;
        let mut warnings = runtime.foresee(&plan::resources(&record.body.spec.limits)?);
        warnings.extend(foreign(&image));
        if bare {
            warnings.extend(bare::warnings(&image));
        }
        let mounts = self.mounts_of(&record.body.spec, &image, bare, cancel).await?;
        record.body.mounts.clone_from(&mounts.points);
        let slot = self.slot_of(&record);
        // Whoever removes it meanwhile waits: what is made of it after that would be nobody's.
        let _turn = self.turn(&record.id, &slot).await?;
        if !record.is_detached() {
            self.listen();
        }
        let made = self.record_and_prepare(&record, &mounts.uses, cancel).await;
        if made.is_err() {
            self.undo_create(&record).await;
            self.undo_mounts(&mounts).await;
        }
        made.map(|()| Created {
            id: record.id,
            warnings,
        })
    }

    /// The image, for the platform if one is asked for.
    async fn image_for(&self, spec: &ContainerSpec) -> Result<ImageInfo> {
        let Some(platform) = &spec.platform else {
            return self.parts.images.inspect(&spec.image).await;
        };
        let all = self.parts.images.variants(&spec.image).await?;
        let here: Vec<String> = all.iter().map(|image| image.platform.to_string()).collect();
        let fit = all.into_iter().find(|image| platform.accepts(&image.platform));
        fit.ok_or_else(|| {
            let (image, here) = (&spec.image, here.join(", "));
            let message = format!("{image} is not here for {platform}; available platforms: {here}");
            Error::new(ErrorKind::NotFound, message).with_object(ObjectKind::Image, image.clone())
        })
    }

    fn new_record(&self, spec: ContainerSpec, image: &ImageInfo) -> Result<Record> {
        let (id, spec_lifetime) = (ContainerId::random(), spec.lifetime);
        let name = match &spec.name {
            Some(name) => name.parse()?,
            None => names::from_id(&id),
        };
        let body = Body::new(spec, image.id, image.chain, defaults_of(image));
        let owner = (spec_lifetime == Some(Lifetime::Bound)).then(|| self.parts.owner.clone());
        Ok(Record {
            id,
            name,
            owner,
            state: ContainerState::Created,
            created_ns: now_ns(),
            body,
        })
    }

    async fn record_and_prepare(&self, record: &Record, uses: &Uses, cancel: &Cancel) -> Result<()> {
        self.insert(record, uses).await?;
        cancel.check()?;
        // An engine that ends removes those that it finds recorded.
        if self.is_closing() {
            return Err(closed());
        }
        let options = WritableOptions {
            // What outlives this process may be wanted after a loss of power.
            volatile: !record.is_detached(),
            size_bytes: record.body.spec.storage_size.map(crate::types::Bytes::get),
        };
        let (key, chain) = (record.snapshot_key(), record.body.chain.as_ref());
        let snapshotter = &self.parts.snapshotter;
        match snapshotter.create_writable(&key, chain, options).await {
            Err(error) if error.is_not_found() => {
                // Its layers were not on the disk yet when power was lost.
                let image = record.body.image_id.to_string();
                cancel.or(self.parts.images.restore(&image)).await?;
                snapshotter.create_writable(&key, chain, options).await?;
                self.settle();
            }
            made => drop(made?),
        }
        cancel.check()?;
        self.check_users(record).await?;
        cancel.check()?;
        self.put_files(record).await?;
        self.fill_volumes(record).await?;
        cancel.check()
    }

    /// A name that the image has not is refused now, where that can be told, and not only at the start.
    async fn check_users(&self, record: &Record) -> Result<()> {
        let (spec, image) = (record.body.spec.clone(), record.body.image.clone());
        if !users::are_named(&spec, &image) {
            return Ok(());
        }
        let rootfs = self.parts.snapshotter.mounts(&record.snapshot_key()).await?;
        blocking(move || users::check(&spec, &image, &rootfs)).await
    }

    /// Puts layers that were unpacked on the disk, with nobody waiting.
    pub(super) fn settle(&self) {
        let snapshotter = Arc::clone(&self.parts.snapshotter);
        self.parts.spawner.detach(async move {
            if let Err(error) = snapshotter.sync().await {
                tracing::warn!(error = error.report(), "layers could not be written to the disk");
            }
        });
    }

    /// Takes the name. A container of a dead owner that has it is swept first.
    async fn insert(&self, record: &Record, uses: &Uses) -> Result<()> {
        for _ in 0..NAME_TRIES {
            let (row, image) = (record.to_row()?, record.body.image_id);
            self.slot(&record.id).know(&row.body, &record.body);
            let (event, uses) = (self.event(record, "create"), uses.clone());
            let taken = match self
                .parts
                .store
                .call(move |store| store.insert_container_with(&row, Some(&image), &uses, Some(&event)))
                .await?
            {
                Insert::Done => return Ok(()),
                Insert::Taken { by } => by,
            };
            if !self.sweep_if_dead(&Record::from_row(taken.clone())?).await? {
                return Err(name_taken(&record.name, &taken));
            }
        }
        Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "the name {} is taken again and again by containers that die",
                record.name
            ),
        ))
    }

    async fn undo_create(self: &Arc<Self>, record: &Record) {
        let id = record.id.clone();
        if let Err(error) = self.parts.snapshotter.discard(&record.snapshot_key()).await {
            tracing::warn!(container = %id, error = error.report(), "a writable layer could not be discarded");
        }
        let deleted = self.parts.store.call({
            let id = id.clone();
            move |store| store.delete_container(&id, &[])
        });
        if let Err(error) = deleted.await {
            tracing::warn!(container = %id, error = error.report(), "a record could not be deleted yet");
            let shared = Arc::clone(self);
            self.parts
                .spawner
                .detach(async move { shared.remove_unwanted(&id).await });
            return;
        }
        self.forget(&id);
    }
}

fn name_taken(name: &ContainerName, by: &ContainerRow) -> Error {
    let message = format!(
        "the container name {name:?} is already in use by container {}; remove or rename that one to use the name again",
        by.id,
        name = name.as_str()
    );
    Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Container, name.as_str())
}

/// What an image's config says of its containers.
/// What is said of an image whose programs nobody here can run. It may say the wrong thing of itself, so that it is not refused.
fn foreign(image: &ImageInfo) -> Option<String> {
    let (platform, host) = (&image.platform, Platform::host());
    let told = !platform.architecture.is_empty() && !is_run_here(platform);
    told.then(|| {
        format!(
            "the image is for {platform}, and this host runs programs for {host}: for others its kernel needs an emulator \
             (binfmt_misc, with the flag F: qemu-user-static registers them)"
        )
    })
}

fn defaults_of(image: &ImageInfo) -> ImageDefaults {
    let config = &image.config.config;
    ImageDefaults {
        entrypoint: config.entrypoint.clone().unwrap_or_default(),
        command: config.cmd.clone().unwrap_or_default(),
        env: config.env.clone().unwrap_or_default(),
        working_dir: config.working_dir.clone(),
        user: config.user.clone(),
        labels: config.labels.clone().unwrap_or_default(),
        stop_signal: config.stop_signal.clone(),
        exposed: config.exposed_ports.iter().flatten().cloned().collect(),
        health: config.healthcheck.clone(),
        shell: config.shell.clone().unwrap_or_default(),
    }
}
