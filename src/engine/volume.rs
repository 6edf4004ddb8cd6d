//! A handle of a volume.

use super::Engine;
use crate::error::Result;
use crate::types::{ByteStream, Outcome};
use crate::volumes::{CreateVolume, RemoveVolumeOptions, VolumeInfo};

/// A volume of an engine. Cheap to clone; dropping it changes nothing.
#[derive(Debug, Clone)]
pub struct Volume {
    engine: Engine,
    name: String,
}

impl Volume {
    pub(super) fn new(engine: Engine, name: String) -> Self {
        Self { engine, name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Everything about it.
    ///
    /// # Errors
    /// `NotFound` once it is removed.
    pub async fn inspect(&self) -> Result<VolumeInfo> {
        self.engine.volumes().inspect(&self.name).await
    }

    /// Removes it.
    ///
    /// # Errors
    /// As [`VolumeManager::remove`](crate::VolumeManager::remove).
    pub async fn remove(&self) -> Result<Outcome> {
        let options = RemoveVolumeOptions::default();
        self.engine.volumes().remove(&self.name, options).await
    }

    /// A new volume with what it holds at this moment.
    ///
    /// # Errors
    /// As [`VolumeManager::snapshot`](crate::VolumeManager::snapshot).
    ///
    /// # Cancel safety
    /// As there.
    pub async fn snapshot(&self, into: CreateVolume) -> Result<Self> {
        let info = self.engine.volumes().snapshot(&self.name, into).await?;
        Ok(Self::new(self.engine.clone(), info.name))
    }
    /// All that it holds, as an uncompressed tar. [`Engine::import_volume`] makes a volume of one.
    ///
    /// # Errors
    /// As [`VolumeManager::export`](crate::VolumeManager::export).
    ///
    /// # Cancel safety
    /// As there.
    pub async fn export(&self) -> Result<ByteStream> {
        self.engine.volumes().export(&self.name).await
    }
}
