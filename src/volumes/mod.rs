//! Volumes: what containers keep when they go. [`VolumeManager`] is what an engine can do with them, [`VolumeDriver`] is who
//! keeps their files.
//!
//! A volume of the driver `local` is a directory below the root: `volumes/NAME/_data`, and beside it `volume.json`, which says
//! again what the record says, so that a lost database loses no volume. What is being removed is first renamed
//! (`volumes/.gone.OWNER.…`), what is being filled lies beside (`volumes/NAME/.fill`): a name that counts always shows the whole.
//!
//! A volume that an image or a container asks for without a name is anonymous; one of a bound container belongs to the
//! container's owner, as it does, and goes with the container.

#[cfg(feature = "engine")]
mod driver;
#[cfg(feature = "engine")]
mod drivers;
#[cfg(feature = "engine")]
mod files;
#[cfg(feature = "engine")]
mod fill;
#[cfg(feature = "engine")]
mod local;
mod manager;
#[cfg(feature = "plugins")]
mod plugin;
#[cfg(feature = "engine")]
mod prune;
#[cfg(feature = "engine")]
mod record;
#[cfg(feature = "engine")]
mod remove;
#[cfg(feature = "engine")]
mod snapshot;
#[cfg(feature = "engine")]
mod sweep;
#[cfg(all(test, feature = "conformance"))]
mod tests;
#[cfg(feature = "engine")]
mod transfer;
#[cfg(feature = "engine")]
mod uses;
#[cfg(feature = "engine")]
mod whole;

#[cfg(feature = "engine")]
pub use self::driver::{VolumeContext, VolumeDriver, VolumeSource};
#[cfg(feature = "engine")]
pub(crate) use self::fill::Content;
#[cfg(feature = "engine")]
pub(crate) use self::local::{Finder, LocalVolumes, LocalVolumesParts};
pub use self::manager::{CreateVolume, PrunedVolumes, RemoveVolumeOptions, VolumeInfo, VolumeManager, VolumeUsage};
#[cfg(feature = "plugins")]
pub(crate) use self::plugin::finder;
#[cfg(feature = "plugins")]
pub use self::plugin::{PluginPlaces, VolumePlugin, VolumeScope};
#[cfg(feature = "engine")]
pub(crate) use self::uses::Mounted;

/// The label that Docker gives volumes that nobody named.
pub(crate) const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";
