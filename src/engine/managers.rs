//! The managers an engine stands on.

use std::sync::Arc;

#[cfg(all(feature = "engine", feature = "build"))]
use crate::build::ImageBuilder;
use crate::containers::ContainerManager;
use crate::images::ImageManager;
#[cfg(feature = "network")]
use crate::networks::NetworkManager;
use crate::system::SystemManager;
use crate::volumes::VolumeManager;

/// The managers an engine stands on: those of a root directory, of another machine, wrappers, fakes. What is not given
/// answers `Unsupported`.
#[derive(Debug, Clone)]
pub struct Managers {
    pub(crate) images: Arc<dyn ImageManager>,
    pub(crate) containers: Arc<dyn ContainerManager>,
    #[cfg(feature = "network")]
    pub(crate) networks: Arc<dyn NetworkManager>,
    pub(crate) volumes: Arc<dyn VolumeManager>,
    pub(crate) system: Arc<dyn SystemManager>,
    #[cfg(all(feature = "engine", feature = "build"))]
    pub(crate) builds: Arc<dyn ImageBuilder>,
}

/// Has no verbs of its own.
#[derive(Debug)]
struct Missing;

impl ImageManager for Missing {}
impl ContainerManager for Missing {}
#[cfg(feature = "network")]
impl NetworkManager for Missing {}
impl VolumeManager for Missing {}
impl SystemManager for Missing {}
#[cfg(all(feature = "engine", feature = "build"))]
impl ImageBuilder for Missing {}

impl Default for Managers {
    fn default() -> Self {
        Self {
            images: Arc::new(Missing),
            containers: Arc::new(Missing),
            #[cfg(feature = "network")]
            networks: Arc::new(Missing),
            volumes: Arc::new(Missing),
            system: Arc::new(Missing),
            #[cfg(all(feature = "engine", feature = "build"))]
            builds: Arc::new(Missing),
        }
    }
}

impl Managers {
    /// The managers of an engine, to wrap some of them.
    pub fn of(engine: &super::Engine) -> Self {
        engine.inner.managers.clone()
    }

    /// Takes this one for images.
    #[must_use]
    pub fn images(mut self, manager: Arc<dyn ImageManager>) -> Self {
        self.images = manager;
        self
    }

    /// Takes this one for containers.
    #[must_use]
    pub fn containers(mut self, manager: Arc<dyn ContainerManager>) -> Self {
        self.containers = manager;
        self
    }

    /// Takes this one for networks.
    #[cfg(feature = "network")]
    #[must_use]
    pub fn networks(mut self, manager: Arc<dyn NetworkManager>) -> Self {
        self.networks = manager;
        self
    }

    /// Takes this one for volumes.
    #[must_use]
    pub fn volumes(mut self, manager: Arc<dyn VolumeManager>) -> Self {
        self.volumes = manager;
        self
    }

    /// Takes this one for builds.
    #[cfg(all(feature = "engine", feature = "build"))]
    #[must_use]
    pub fn builds(mut self, builder: Arc<dyn ImageBuilder>) -> Self {
        self.builds = builder;
        self
    }

    /// Takes this one for the engine as a whole.
    #[must_use]
    pub fn system(mut self, manager: Arc<dyn SystemManager>) -> Self {
        self.system = manager;
        self
    }
}
