//! Images: pull, push, list, inspect, tag, remove, history, save, load, import, extend, prune.
//!
//! A name stands for the images of one index, one for each platform that is here; pulling another platform of it adds one.
//! An image is a record with names that point at it; its blobs are in the content store, its layers are snapshots. The
//! record is written last, after everything it needs has reached the disk, so an image that is listed is complete, and a
//! pull that fails or is dropped leaves no image. What it had fetched stays for the next attempt where trying again may
//! help, and is removed where it will not.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::types::{ChainId, Descriptor, Filter, ImageId, ImageSource, LayerRef, Outcome, Platform, Reference};

#[cfg(feature = "engine")]
mod adopt;
#[cfg(feature = "engine")]
mod archive;
#[cfg(feature = "engine")]
mod assemble;
#[cfg(feature = "engine")]
mod borrow;
#[cfg(feature = "engine")]
pub(crate) mod changes;
#[cfg_attr(not(feature = "engine"), allow(dead_code, reason = "for the engine in this process"))]
mod config;
#[cfg(feature = "engine")]
mod distribution;
#[cfg(feature = "engine")]
mod extend;
#[cfg(feature = "engine")]
mod history;
#[cfg(feature = "engine")]
mod import;
#[cfg(feature = "engine")]
mod index;
#[cfg(feature = "engine")]
mod inspect;
#[cfg(feature = "engine")]
mod install;
#[cfg(feature = "engine")]
mod list;
#[cfg(feature = "engine")]
mod load;
#[cfg(feature = "engine")]
mod local;
#[cfg(feature = "engine")]
mod login;
#[cfg(feature = "engine")]
mod lookup;
#[cfg(all(feature = "engine", feature = "build"))]
pub(crate) mod making;
#[cfg(all(feature = "engine", feature = "build"))]
pub(crate) mod making_cache;
#[cfg(all(feature = "engine", feature = "build"))]
pub(crate) mod making_out;
#[cfg(feature = "engine")]
mod manifest;
#[cfg(feature = "engine")]
pub(crate) mod merge;
#[cfg(feature = "engine")]
mod origin;
#[cfg(feature = "engine")]
mod pack;
#[cfg(feature = "engine")]
mod prune;
#[cfg(feature = "engine")]
mod pull;
#[cfg(feature = "engine")]
mod push;
#[cfg(feature = "engine")]
mod push_archive;
#[cfg(feature = "engine")]
mod remove;
#[cfg(feature = "engine")]
mod resolve;
#[cfg(feature = "engine")]
mod restore;
#[cfg(feature = "engine")]
mod save;
#[cfg(feature = "engine")]
mod tag;
#[cfg(feature = "engine")]
mod when;

#[cfg(all(test, feature = "engine"))]
mod tests;

#[cfg(feature = "engine")]
pub use self::borrow::AdditionalStore;
pub use self::config::{HealthConfig, HistoryEntry, ImageConfig, MAX_LAYERS, RootFs, RunConfig};
#[cfg(feature = "engine")]
pub use self::local::{LocalImages, LocalImagesParts};
#[cfg(feature = "engine")]
pub use self::manifest::{MAX_BLOB, MAX_CONFIG};
pub use crate::registry::Credentials;

/// When to ask the source for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Pull {
    /// Only where no image of that name is here.
    #[default]
    Missing,
    /// Always: a tag may have moved. What is here already is not fetched again.
    Always,
    /// As `Always`; but where the registry cannot be asked, what is here will do.
    Newer,
    /// Never: an image that is not here is an error. No connection is made.
    Never,
}

/// What to pull, and how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PullRequest {
    /// From where. A layout or an archive on disk is read whatever the policy says. An image of a layout gets the name it
    /// has there (`org.opencontainers.image.ref.name`) if that is a reference, and no name otherwise; one of an archive
    /// gets the name that was asked for, or else all that it has there.
    pub source: ImageSource,
    /// For which platform; `None` is the host's. An image that exists for one platform alone is taken as it is, unless a
    /// platform is asked for here.
    pub platform: Option<Platform>,
    /// When to ask the source.
    pub policy: Pull,
    /// Who asks.
    pub credentials: Option<Credentials>,
}

impl PullRequest {
    /// Pulls for this host if the image is missing.
    pub fn new(source: ImageSource) -> Self {
        Self {
            source,
            platform: None,
            policy: Pull::default(),
            credentials: None,
        }
    }

    /// Chooses a platform.
    #[must_use]
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = Some(platform);
        self
    }

    /// Says when to ask the source.
    #[must_use]
    pub fn policy(mut self, policy: Pull) -> Self {
        self.policy = policy;
        self
    }

    /// Signs in.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }
}

/// Everything about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageInfo {
    /// The image's id: the digest of its config.
    pub id: ImageId,
    /// Names with a tag, sorted.
    pub tags: Vec<Reference>,
    /// Names with a digest, sorted.
    pub digests: Vec<Reference>,
    /// The manifest it came with.
    pub manifest: Descriptor,
    /// What it runs on.
    pub platform: Platform,
    /// Its config.
    pub config: ImageConfig,
    /// The snapshot that containers stand on; none for an image without layers.
    pub chain: Option<ChainId>,
    /// Its layers, the lowest first.
    pub layers: Vec<LayerRef>,
    /// What its layers take on disk, in bytes.
    pub size_bytes: u64,
    /// When it came here.
    pub pulled_at: SystemTime,
}

/// A line of a list of images.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageSummary {
    /// The image's id.
    pub id: ImageId,
    /// Names with a tag, sorted. None: the image is dangling.
    pub tags: Vec<Reference>,
    /// Names with a digest, sorted.
    pub digests: Vec<Reference>,
    /// What it runs on.
    pub platform: Platform,
    /// When it was built (RFC 3339), as its config says.
    pub created: Option<String>,
    /// What its layers take on disk, in bytes.
    pub size_bytes: u64,
    /// When it came here.
    pub pulled_at: SystemTime,
    /// The additional store that has it, which is only read; none for an image of the root itself.
    pub lent_by: Option<PathBuf>,
}

/// Options of [`ImageManager::remove`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoveImageOptions {
    /// Remove an image by id although it has several names; take the last name of an image although a container uses it.
    pub force: bool,
    /// Only what the name stands for on this platform; `None` is all that it stands for.
    pub platform: Option<Platform>,
}

impl RemoveImageOptions {
    /// Chooses whether to insist.
    #[must_use]
    pub fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }

    /// Leaves what the name stands for on other platforms.
    #[must_use]
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = Some(platform);
        self
    }
}

/// The document that a name stands for: an image's manifest, or an index of several.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageDocument {
    /// Its media type, digest and size.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub bytes: Bytes,
    /// The manifests in it: those of an index, or the manifest itself.
    pub manifests: Vec<ListedManifest>,
}

/// A manifest of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListedManifest {
    /// The manifest, with the platform and the annotations that the index gives it.
    pub descriptor: Descriptor,
    /// The image, if it is here.
    pub image: Option<ImageId>,
}

/// An image of an index to make.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexEntry {
    /// The image, which is here. A name stands for its images of all platforms.
    pub image: String,
    /// What the index says that it runs on; `None` is what it says of itself.
    pub platform: Option<Platform>,
    /// Notes beside it in the index.
    pub annotations: BTreeMap<String, String>,
}

impl IndexEntry {
    /// An image as it is.
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            platform: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Says what it runs on.
    #[must_use]
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = Some(platform);
        self
    }

    /// Adds a note.
    #[must_use]
    pub fn annotation(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }
}

/// An index to make.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexRequest {
    /// Its name, with a tag.
    pub name: Reference,
    /// What is in it.
    pub entries: Vec<IndexEntry>,
    /// Notes on the whole.
    pub annotations: BTreeMap<String, String>,
}

impl IndexRequest {
    /// An index of these images.
    pub fn new(name: Reference, entries: impl IntoIterator<Item = IndexEntry>) -> Self {
        Self {
            name,
            entries: entries.into_iter().collect(),
            annotations: BTreeMap::new(),
        }
    }

    /// Adds a note on the whole.
    #[must_use]
    pub fn annotation(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }
}

/// A part of what a removal did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Removed {
    /// A name was taken away.
    Untagged(Reference),
    /// The image was deleted.
    Deleted(ImageId),
    /// A layer that nothing else uses was deleted.
    DeletedLayer(ChainId),
}

/// A step of an image's making, as `history` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryLine {
    /// The image that ended with this step, where that is known: the first line's.
    pub id: Option<ImageId>,
    /// When (RFC 3339).
    pub created: Option<String>,
    /// What made it.
    pub created_by: String,
    /// Names of that image.
    pub tags: Vec<Reference>,
    /// What its layer takes on disk, in bytes; 0 for a step without one.
    pub size_bytes: u64,
    /// A remark.
    pub comment: String,
}

/// What to push, and how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PushRequest {
    /// The image's name here, which says where it goes.
    pub name: Reference,
    /// Where it goes instead: to another name in a registry, into an OCI layout on disk (which is made where there is none; a
    /// name in it goes to this image), or into a new archive, in the place of a file of that name. On disk an image keeps
    /// its name, unless another is given.
    pub to: Option<ImageSource>,
    /// For which platform; `None` is every one that is here.
    pub platform: Option<Platform>,
    /// Who pushes.
    pub credentials: Option<Credentials>,
}

impl PushRequest {
    /// Pushes an image to where its name says.
    pub fn new(name: Reference) -> Self {
        Self {
            name,
            to: None,
            platform: None,
            credentials: None,
        }
    }

    /// Sends it elsewhere than its name says.
    #[must_use]
    pub fn to(mut self, to: ImageSource) -> Self {
        self.to = Some(to);
        self
    }

    /// Chooses a platform.
    #[must_use]
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = Some(platform);
        self
    }

    /// Signs in.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }
}

/// What a push ended with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pushed {
    /// The manifest as the registry has it now.
    pub manifest: Descriptor,
}

/// The form of an archive of images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArchiveFormat {
    /// An OCI layout in a tar that also holds Docker's `manifest.json`, so that every reader takes it. What Docker writes.
    #[default]
    Docker,
    /// An OCI layout in a tar.
    Oci,
}

/// What `load` found in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loaded {
    /// The image.
    pub id: ImageId,
    /// The names it got.
    pub tags: Vec<Reference>,
}

/// What becomes of an image and a layer more.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ExtendRequest {
    /// The image below: its id or name.
    pub base: String,
    /// The new image's name; none without.
    pub name: Option<Reference>,
    /// What containers of it run; nothing is taken over from the image below.
    pub config: RunConfig,
    /// Who made it.
    pub author: String,
    /// A remark in its history.
    pub message: String,
    /// What made the layer, for its history.
    pub created_by: String,
}

impl ExtendRequest {
    /// Over that image, without a name.
    pub fn new(base: impl Into<String>, config: RunConfig) -> Self {
        Self {
            base: base.into(),
            config,
            ..Self::default()
        }
    }
}

/// What becomes of the root file system of an `import`.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ImportRequest {
    /// The image's name; none without.
    pub name: Option<Reference>,
    /// A remark in its history.
    pub message: String,
    /// Dockerfile instructions for its config: `CMD`, `ENV`, `ENTRYPOINT`, `EXPOSE`, `LABEL`, `ONBUILD`, `USER`, `VOLUME`,
    /// `WORKDIR`, `STOPSIGNAL`, `HEALTHCHECK`.
    pub changes: Vec<String>,
    /// What it runs on; `None` is the host's.
    pub platform: Option<Platform>,
}

impl ImportRequest {
    /// An image without a name, for the host's platform.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the image.
    #[must_use]
    pub fn name(mut self, name: Reference) -> Self {
        self.name = Some(name);
        self
    }

    /// Leaves a remark in its history.
    #[must_use]
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// Applies a Dockerfile instruction to its config.
    #[must_use]
    pub fn change(mut self, change: impl Into<String>) -> Self {
        self.changes.push(change.into());
        self
    }

    /// Says what it runs on.
    #[must_use]
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = Some(platform);
        self
    }
}

/// What a prune of images removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrunedImages {
    /// What was removed.
    pub removed: Vec<Removed>,
    /// What that gave back on disk, in bytes.
    pub reclaimed_bytes: u64,
}

pub use crate::types::ByteStream;

/// What a registry holds under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Distribution {
    /// The manifest or index.
    pub descriptor: Descriptor,
    /// What it is for: those that an index names, in its order, or the one of an image's config.
    pub platforms: Vec<Platform>,
}

impl Distribution {
    /// What an implementation of its own found.
    pub fn new(descriptor: Descriptor, platforms: Vec<Platform>) -> Self {
        Self { descriptor, platforms }
    }
}

/// What can be done with images. Every verb has a default body, so a verb that is added breaks no implementation.
///
/// Where a verb takes the name of an image, that is a reference (`latest` is assumed), `repository@digest`, an id, or the
/// beginning of an id, tried in this order except that a whole id comes first.
#[async_trait]
pub trait ImageManager: Debug + Send + Sync + 'static {
    /// Fetches an image and unpacks it. Progress ends with exactly one of `Done` and `Failed`.
    ///
    /// # Errors
    /// - `NotFound`: no such image, tag or platform (the message lists the platforms there are), or it is not here and the
    ///   policy is [`Pull::Never`]
    /// - `Denied`, `RateLimited`, `Unavailable`, `Timeout`: the registry
    /// - `DigestMismatch`, `UnsafeArchive`, `InvalidArgument`: the image is damaged or hostile
    /// - `Unsupported`: schema 1, artifacts, encrypted layers
    /// - `NoSpace`, `ReadOnly`, `Os`
    ///
    /// # Cancel safety
    /// A dropped pull leaves no image. What it had fetched whole stays for the next attempt.
    async fn pull(&self, request: PullRequest, progress: Progress) -> Result<ImageInfo> {
        let _ = (request, progress);
        Err(Error::unsupported_verb("images.pull"))
    }

    /// Images that are here, the newest first. Filters: `reference` (a pattern), `dangling`, `label`,
    /// `label!`, `before` and `since` (an image), `until` (a moment).
    ///
    /// # Errors
    /// `InvalidArgument` for a filter that does not exist.
    async fn list(&self, filter: Filter) -> Result<Vec<ImageSummary>> {
        let _ = filter;
        Err(Error::unsupported_verb("images.list"))
    }

    /// Everything about an image; of those that a name stands for on several platforms, the host's, or else the newest.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` where several ids begin like that.
    async fn inspect(&self, image: &str) -> Result<ImageInfo> {
        let _ = image;
        Err(Error::unsupported_verb("images.inspect"))
    }

    /// All images that a name stands for, one for each platform that is here; the one that [`ImageManager::inspect`] gives
    /// comes first.
    ///
    /// # Errors
    /// As [`ImageManager::inspect`].
    async fn variants(&self, image: &str) -> Result<Vec<ImageInfo>> {
        Ok(vec![self.inspect(image).await?])
    }

    /// The manifest of an image, or the index that its name stands for.
    ///
    /// # Errors
    /// As [`ImageManager::inspect`]; `Corrupt` where it is damaged or gone.
    async fn document(&self, image: &str) -> Result<ImageDocument> {
        let _ = image;
        Err(Error::unsupported_verb("images.document"))
    }

    /// Makes an index of images that are here, each for another platform, and gives it a name; pushing that name pushes the
    /// index with all of them. Making it again with other entries replaces it.
    ///
    /// # Errors
    /// `NotFound` for an image that is not here; `InvalidArgument` for a name without a tag, for none or too many entries,
    /// and for two of one platform.
    ///
    /// # Cancel safety
    /// Done whole or not at all.
    async fn make_index(&self, request: IndexRequest) -> Result<Descriptor> {
        let _ = request;
        Err(Error::unsupported_verb("images.make_index"))
    }

    /// Points a name at an image; whatever image had the name loses it.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for a name without a tag, or with a digest.
    ///
    /// # Cancel safety
    /// Done whole or not at all.
    async fn tag(&self, image: &str, name: &Reference) -> Result<Outcome> {
        let _ = (image, name);
        Err(Error::unsupported_verb("images.tag"))
    }

    /// Takes a name away, and deletes the image with the last one: its record, and the layers and blobs that nothing else
    /// uses. By id, an image with one name at most is deleted.
    ///
    /// # Errors
    /// - `NotFound`
    /// - `ReadOnly`: it is in an additional store
    /// - `Conflict`: a container uses it (the message names one), or it has several names and was given by id. With
    ///   [`RemoveImageOptions::force`] the names go in both cases, and the image too where no container uses it.
    ///
    /// # Cancel safety
    /// The removal goes on to its end.
    async fn remove(&self, image: &str, options: RemoveImageOptions) -> Result<Vec<Removed>> {
        let _ = (image, options);
        Err(Error::unsupported_verb("images.remove"))
    }

    /// Makes an image's layers whole again: those that were not on the disk when power was lost are unpacked anew, from
    /// its blobs. Making a container does so by itself.
    ///
    /// # Errors
    /// As [`ImageManager::inspect`]; `Corrupt` where a blob is lost too, and the image must be pulled again; `NoSpace`,
    /// `ReadOnly`, `Os`.
    ///
    /// # Cancel safety
    /// Layers that were finished stay so.
    async fn restore(&self, image: &str) -> Result<Outcome> {
        let _ = image;
        Err(Error::unsupported_verb("images.restore"))
    }

    /// The steps an image was made in, the newest first.
    ///
    /// # Errors
    /// As [`ImageManager::inspect`].
    async fn history(&self, image: &str) -> Result<Vec<HistoryLine>> {
        let _ = image;
        Err(Error::unsupported_verb("images.history"))
    }

    /// Sends what a name stands for to the registry that it says, or to [`PushRequest::to`]; of several platforms all that are
    /// here, with their index. Blobs go as the very bytes they came as; those that the registry
    /// has are not sent. Layers that were made here and that no registry knows are compressed first, for good: the image
    /// keeps its id, and gets another manifest. Progress ends with exactly one of `Done` and `Failed`.
    ///
    /// # Errors
    /// `NotFound`; `Denied`, `RateLimited`, `Unavailable`, `Timeout`: the registry.
    ///
    /// # Cancel safety
    /// A dropped push leaves the registry without the manifest; blobs that arrived whole stay there.
    async fn push(&self, request: PushRequest, progress: Progress) -> Result<Pushed> {
        let _ = (request, progress);
        Err(Error::unsupported_verb("images.push"))
    }

    /// Asks a registry, by its host, whether it takes credentials. A registry that asks nobody to sign in takes any. Nothing
    /// is kept: pulls and pushes bring their own.
    ///
    /// # Errors
    /// `Denied` where it does not take them; `InvalidArgument` without any, and for a host that is none; `RateLimited`,
    /// `Unavailable`, `Timeout`: the registry.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    async fn login(&self, registry: &str, credentials: Credentials) -> Result<()> {
        let _ = (registry, credentials);
        Err(Error::unsupported_verb("images.login"))
    }

    /// Asks a registry what it holds under a name, and takes nothing of it but the manifest and, of an image for one platform,
    /// its config.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, `RateLimited`, `Unavailable`, `Timeout`: the registry; `DigestMismatch`, `InvalidArgument`,
    /// `Unsupported`: what it sent.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    async fn distribution(&self, image: &Reference, credentials: Credentials) -> Result<Distribution> {
        let _ = (image, credentials);
        Err(Error::unsupported_verb("images.distribution"))
    }

    /// Images as one archive. An image named by a reference keeps that name in it.
    ///
    /// # Errors
    /// `NotFound`; in the stream: `Corrupt`, `Os`.
    ///
    /// # Cancel safety
    /// Nothing changes. The images cannot be removed while the stream is read.
    async fn save(&self, images: &[String], platform: Option<Platform>, format: ArchiveFormat) -> Result<ByteStream> {
        let _ = (images, platform, format);
        Err(Error::unsupported_verb("images.save"))
    }

    /// Takes images from an archive, in either form, plain or compressed. Progress ends with exactly one of `Done` and
    /// `Failed`.
    ///
    /// # Errors
    /// `InvalidArgument`, `UnsafeArchive`, `DigestMismatch`: the archive; `NotFound` for a platform that it lacks;
    /// `NoSpace`, `ReadOnly`, `Os`.
    ///
    /// # Cancel safety
    /// A dropped call has loaded images of the archive whole or not at all.
    async fn load(&self, archive: ByteStream, platform: Option<Platform>, progress: Progress) -> Result<Vec<Loaded>> {
        let _ = (archive, platform, progress);
        Err(Error::unsupported_verb("images.load"))
    }

    /// Makes an image of one layer from a tar of a root file system, plain or compressed.
    ///
    /// # Errors
    /// `InvalidArgument` (a change that is not understood), `UnsafeArchive`, `NoSpace`, `ReadOnly`, `Os`.
    ///
    /// # Cancel safety
    /// A dropped call leaves no image.
    async fn import(&self, archive: ByteStream, request: ImportRequest, progress: Progress) -> Result<ImageId> {
        let _ = (archive, request, progress);
        Err(Error::unsupported_verb("images.import"))
    }

    /// Makes an image of another one and a layer more: an uncompressed tar with whiteouts. Without anything in it, no layer
    /// is added.
    ///
    /// # Errors
    /// `NotFound` for the image below; `UnsafeArchive`, `NoSpace`, `ReadOnly`, `Os`.
    ///
    /// # Cancel safety
    /// A dropped call leaves no image.
    async fn extend(&self, layer: ByteStream, request: ExtendRequest) -> Result<ImageId> {
        let _ = (layer, request);
        Err(Error::unsupported_verb("images.extend"))
    }

    /// Removes images that no container uses: without filters those without a name. Filters: `dangling`, `until`, `label`,
    /// `label!`.
    ///
    /// # Errors
    /// `InvalidArgument` for a filter that does not exist.
    ///
    /// # Cancel safety
    /// What was removed stays removed.
    async fn prune(&self, filter: Filter) -> Result<PrunedImages> {
        let _ = filter;
        Err(Error::unsupported_verb("images.prune"))
    }
}
