//! Forks: any number of independent copies of a container that was prepared once.

use super::{Container, Engine};
use crate::containers::{CommitOptions, ContainerSpec, ContainerState, MountFrom, MountSpec};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::images::RemoveImageOptions;
use crate::types::ImageId;
use crate::volumes::{CreateVolume, RemoveVolumeOptions};

/// A container as it was at a moment, to be forked: its files as an image of their own, its volumes as copies. Forks share
/// what they do not change. It stays until [`Template::remove`], or until images and volumes without a name are pruned.
#[derive(Debug, Clone)]
pub struct Template {
    engine: Engine,
    spec: ContainerSpec,
    image: ImageId,
    volumes: Vec<String>,
}

impl Container {
    /// Takes a template of it, to be forked. It must stand still: stopped, or paused.
    ///
    /// # Errors
    /// `InvalidState` while it runs; as [`ContainerManager::commit`](crate::ContainerManager::commit) and
    /// [`VolumeManager::snapshot`](crate::VolumeManager::snapshot).
    ///
    /// # Cancel safety
    /// A dropped call removes what was kept so far; an image without a name may be left, which a prune removes.
    pub async fn template(&self) -> Result<Template> {
        let info = self.inspect().await?;
        if info.state == ContainerState::Running {
            let message = "it runs, so that its files may be half written; stop or pause it, and fork it then";
            return Err(
                Error::new(ErrorKind::InvalidState, message).with_object(ObjectKind::Container, self.id().as_str())
            );
        }
        let engine = self.engine().clone();
        let image = engine
            .containers()
            .commit(self.id().as_str(), CommitOptions::new())
            .await?;
        let mut making = Making(Some(Template {
            engine,
            spec: info.spec,
            image,
            volumes: Vec::new(),
        }));
        let template = making.template()?;
        template.spec.image = image.to_string();
        template.spec.name = None;
        template.spec.mounts.clear();
        template.spec.volumes_from.clear();
        for point in info.mounts {
            let mount = template.copied(point.spec).await?;
            template.spec.mounts.push(mount);
        }
        making.done()
    }
}

/// A template that is not whole: it goes, on the driver, if it does not become so.
struct Making(Option<Template>);

impl Making {
    fn template(&mut self) -> Result<&mut Template> {
        self.0
            .as_mut()
            .ok_or_else(|| Error::internal("a template that is gone"))
    }

    fn done(mut self) -> Result<Template> {
        self.0.take().ok_or_else(|| Error::internal("a template that is gone"))
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let Some(mut template) = self.0.take() else { return };
        template.engine = template.engine.unlimited();
        let engine = template.engine.clone();
        engine.detach(async move {
            if let Err(error) = template.remove().await {
                tracing::warn!(
                    error = error.report(),
                    "a template that nobody waits for could not be removed"
                );
            }
        });
    }
}

impl Template {
    /// A mount of the forks: a volume is one of their own.
    async fn copied(&mut self, mut mount: MountSpec) -> Result<MountSpec> {
        if let MountFrom::Volume(volume) = &mut mount.source
            && let Some(name) = volume.name.take()
        {
            let frozen = self
                .engine
                .volumes()
                .snapshot(&name, CreateVolume::default())
                .await?
                .name;
            self.volumes.push(frozen.clone());
            volume.copy_of = Some(frozen);
            volume.no_copy = true;
        }
        Ok(mount)
    }

    /// What a fork is created of; change it for one that differs, and hand it to [`Engine::create`] or [`Engine::run`].
    pub fn spec(&self) -> ContainerSpec {
        self.spec.clone()
    }

    /// A new container that is as this one was, with volumes of its own.
    ///
    /// # Errors
    /// As [`Engine::create`].
    ///
    /// # Cancel safety
    /// As there.
    pub async fn fork(&self) -> Result<Container> {
        self.engine.create(self.spec()).await
    }

    /// Removes what was kept for forks. Those that are there stay as they are; the image goes with the last of them.
    ///
    /// # Errors
    /// `Conflict` while a fork uses the image.
    pub async fn remove(self) -> Result<()> {
        for name in &self.volumes {
            self.engine.volumes().remove(name, RemoveVolumeOptions::force()).await?;
        }
        let image = self.image.to_string();
        match self.engine.images().remove(&image, RemoveImageOptions::default()).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }
}
