//! What a container sees beside its root: directories of the host, volumes, memory, images.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::spec::{ContainerSpec, Tmpfs};
use crate::types::Propagation;

/// Something to mount, with everything that can be said of it. [`ContainerSpec::bind`], [`ContainerSpec::volume`] and
/// [`ContainerSpec::tmpfs`] are shorter where the defaults will do.
///
/// ```
/// use longshore::{ContainerSpec, MountSpec};
/// let spec = ContainerSpec::image("postgres:16")
///     .volume("pgdata", "/var/lib/postgresql/data")
///     .mount(MountSpec::bind("/home/me/src", "/src").map_to_container_user())
///     .mount(MountSpec::image("assets:latest", "/assets").subpath("public"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MountSpec {
    /// Absolute path in the container; made if it is missing.
    pub target: PathBuf,
    /// What is shown there.
    pub source: MountFrom,
    /// Whether the container may not write. An image's files never change.
    #[serde(default)]
    pub read_only: bool,
    /// A part of a volume or an image: a relative path. A link that leads out of it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subpath: Option<PathBuf>,
    /// Whether it was asked for in Docker's short form, `SOURCE:TARGET`. The engine makes no difference; the Engine API shows
    /// it again so.
    #[serde(default)]
    pub short: bool,
}

/// What a [`MountSpec`] shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MountFrom {
    /// A directory or file of the host.
    Bind(BindFrom),
    /// A volume.
    Volume(VolumeFrom),
    /// A memory file system.
    Tmpfs(Tmpfs),
    /// An image, by name or id: all that its layers show.
    Image(String),
}

/// A directory or file of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BindFrom {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Whether a missing source is made, as a directory. Otherwise it is an error.
    #[serde(default)]
    pub create: bool,
    /// Whether mounts that are made later on one side are seen on the other.
    #[serde(default)]
    pub propagation: Propagation,
    /// Whether what is mounted below the source is left out.
    #[serde(default)]
    pub non_recursive: bool,
    /// Of a read-only mount: whether what is mounted below the source can be written nevertheless.
    #[serde(default)]
    pub read_only_top: bool,
    /// Of a read-only mount: that what is mounted below the source must be read-only too. It always is, unless
    /// `read_only_top` says otherwise.
    #[serde(default)]
    pub read_only_all: bool,
    /// Whether setuid programs in it work. Default not.
    #[serde(default)]
    pub setuid: bool,
    /// Whether files that the container's user makes belong to the owner of the source on the host, and the other way round:
    /// the two ids change places. For root this is an id-mapped mount. For an ordinary user, who may not make one, the
    /// directory, which must be the caller's, is served by FUSE from this process unless the container's user is root: all that
    /// is made in it is the caller's, owners cannot be changed, and each access costs a question of the kernel to this process.
    #[serde(default)]
    pub container_user: bool,
}

/// A volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VolumeFrom {
    /// Its name; made if there is none of it. Without a name it is anonymous, and goes with the container.
    pub name: Option<String>,
    /// Whether an empty volume stays empty, instead of beginning with what the image has at the target.
    #[serde(default)]
    pub no_copy: bool,
    /// Of an anonymous one: the volume that it begins as a copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_of: Option<String>,
    /// Who keeps it, if it is made.
    #[serde(default)]
    pub driver: Option<String>,
    /// What the driver is told, if it is made.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// Its labels, if it is made.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A mount of a container, as it is: every volume has its name, every image its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MountPoint {
    /// Where and what.
    pub spec: MountSpec,
    /// Of a volume: who keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Where its files are on the host, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<PathBuf>,
    /// Whether it is a volume that goes with its container.
    #[serde(default)]
    pub bound: bool,
    /// Whether it is an anonymous volume because the image says so.
    #[serde(default)]
    pub of_image: bool,
    /// Whether it is an anonymous volume of a detached container: it goes with it where that is asked for, or where the container
    /// goes by itself.
    #[serde(default)]
    pub anonymous: bool,
}

impl MountPoint {
    /// A mount of which nothing else is known.
    pub fn new(spec: MountSpec) -> Self {
        Self {
            spec,
            driver: None,
            source: None,
            bound: false,
            of_image: false,
            anonymous: false,
        }
    }

    /// Of a volume: its name.
    pub fn volume(&self) -> Option<&str> {
        match &self.spec.source {
            MountFrom::Volume(volume) => volume.name.as_deref(),
            _ => None,
        }
    }
}

impl MountSpec {
    fn of(target: impl Into<PathBuf>, source: MountFrom) -> Self {
        Self {
            target: target.into(),
            source,
            read_only: false,
            subpath: None,
            short: false,
        }
    }

    /// A directory or file of the host.
    pub fn bind(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        let from = BindFrom {
            source: source.into(),
            ..BindFrom::default()
        };
        Self::of(target, MountFrom::Bind(from))
    }

    /// A volume by name.
    pub fn volume(name: impl Into<String>, target: impl Into<PathBuf>) -> Self {
        let from = VolumeFrom {
            name: Some(name.into()),
            ..VolumeFrom::default()
        };
        Self::of(target, MountFrom::Volume(from))
    }

    /// A new volume without a name.
    pub fn anonymous(target: impl Into<PathBuf>) -> Self {
        Self::of(target, MountFrom::Volume(VolumeFrom::default()))
    }

    /// A memory file system.
    pub fn tmpfs(target: impl Into<PathBuf>, options: Tmpfs) -> Self {
        Self::of(target, MountFrom::Tmpfs(options))
    }

    /// An image that is here.
    pub fn image(image: impl Into<String>, target: impl Into<PathBuf>) -> Self {
        Self::of(target, MountFrom::Image(image.into()))
    }

    /// The container may not write, nor below.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// A part of a volume or an image.
    #[must_use]
    pub fn subpath(mut self, path: impl Into<PathBuf>) -> Self {
        self.subpath = Some(path.into());
        self
    }

    /// Of a volume: an empty one stays empty.
    #[must_use]
    pub fn no_copy(mut self) -> Self {
        if let MountFrom::Volume(volume) = &mut self.source {
            volume.no_copy = true;
        }
        self
    }

    /// Of a directory of the host: a missing one is made.
    #[must_use]
    pub fn create_source(mut self) -> Self {
        if let MountFrom::Bind(bind) = &mut self.source {
            bind.create = true;
        }
        self
    }

    /// Of a directory of the host: what becomes of later mounts.
    #[must_use]
    pub fn propagation(mut self, propagation: Propagation) -> Self {
        if let MountFrom::Bind(bind) = &mut self.source {
            bind.propagation = propagation;
        }
        self
    }

    /// Of a directory of the host: files that the container's user makes in it belong to its owner on the host, instead of to
    /// a stray id; see [`BindFrom::container_user`].
    #[must_use]
    pub fn map_to_container_user(mut self) -> Self {
        if let MountFrom::Bind(bind) = &mut self.source {
            bind.container_user = true;
        }
        self
    }

    /// Docker's word for what it is.
    pub fn kind(&self) -> &'static str {
        match self.source {
            MountFrom::Bind(_) => "bind",
            MountFrom::Volume(_) => "volume",
            MountFrom::Tmpfs(_) => "tmpfs",
            MountFrom::Image(_) => "image",
        }
    }
}

impl ContainerSpec {
    /// Mounts a volume, which is made if there is none of that name.
    #[must_use]
    pub fn volume(self, name: impl Into<String>, target: impl Into<PathBuf>) -> Self {
        self.mount(MountSpec::volume(name, target))
    }

    /// Mounts something.
    #[must_use]
    pub fn mount(mut self, mount: MountSpec) -> Self {
        self.mounts.push(mount);
        self
    }

    /// Takes the volumes and directories of another container, by name or id; `NAME:ro` that nothing of them is written.
    #[must_use]
    pub fn volumes_from(mut self, container: impl Into<String>) -> Self {
        self.volumes_from.push(container.into());
        self
    }

    /// Puts a file into the container before its first process runs: owned by root, with these permission bits. Directories
    /// that are missing are made.
    #[must_use]
    pub fn with_file(mut self, path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>, mode: u32) -> Self {
        self.files.insert(
            path.into(),
            FileSpec {
                bytes: bytes.into(),
                mode,
            },
        );
        self
    }

    /// Where something is asked to be mounted.
    #[cfg(feature = "engine")]
    pub(crate) fn targets(&self) -> impl Iterator<Item = &std::path::Path> {
        let binds = self.binds.iter().map(|bind| bind.target.as_path());
        let mounts = self.mounts.iter().map(|mount| mount.target.as_path());
        binds.chain(mounts).chain(self.tmpfs.keys().map(PathBuf::as_path))
    }
}

/// A file to put into a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FileSpec {
    /// What is in it.
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}
