//! Actions as they are made in Rust.

use super::paths;
use super::step::{AddAction, CopyAction, FileContent, MountAction, Origin, RunAction};
use crate::build::dockerfile::{CacheSharing, DeviceFlag, Mount, MountKind, NetworkFlag, SecurityFlag, Span, agree};
use crate::error::{Error, Result};

impl RunAction {
    /// A program with its arguments, and nothing else.
    pub fn new<S: Into<String>>(args: impl IntoIterator<Item = S>) -> Self {
        Self {
            args: args.into_iter().map(Into::into).collect(),
            script: None,
            mounts: Vec::new(),
            network: NetworkFlag::Default,
            security: SecurityFlag::Sandbox,
            devices: Vec::new(),
        }
    }

    /// Something that is there while the command runs. Called again, one more.
    #[must_use]
    pub fn mount(mut self, mount: MountAction) -> Self {
        self.mounts.push(mount);
        self
    }

    /// Its network.
    #[must_use]
    pub fn network(mut self, network: NetworkFlag) -> Self {
        self.network = network;
        self
    }

    /// Its privileges.
    #[must_use]
    pub fn security(mut self, security: SecurityFlag) -> Self {
        self.security = security;
        self
    }

    /// A device that it needs, by its name in CDI's manner: `vendor.com/class=name`. Called again, one more.
    #[must_use]
    pub fn device(self, name: impl Into<String>) -> Self {
        self.with_device(name.into(), true)
    }

    /// The same of a device that it does without where there is none.
    #[must_use]
    pub fn optional_device(self, name: impl Into<String>) -> Self {
        self.with_device(name.into(), false)
    }

    fn with_device(mut self, name: String, required: bool) -> Self {
        self.devices.push(DeviceFlag {
            name,
            required,
            span: Span::default(),
        });
        self
    }
}

impl CopyAction {
    /// Paths of the context, and where to. A relative destination is one of the working directory.
    pub fn new<S: Into<String>>(sources: impl IntoIterator<Item = S>, destination: impl Into<String>) -> Self {
        let written = destination.into();
        Self {
            from: None,
            owner: None,
            permissions: None,
            link: false,
            parents: false,
            excludes: Vec::new(),
            sources: sources.into_iter().map(|path| FileContent::Path(path.into())).collect(),
            destination: paths::destination("/", &written),
            written,
        }
    }

    /// Copies from an earlier stage, by name or number; else from a named context; else from an image.
    #[must_use]
    pub fn from(mut self, name: impl Into<String>) -> Self {
        self.from = Some(Origin::Named(name.into()));
        self
    }

    /// Who owns the copies: `USER[:GROUP]`, by name or number.
    #[must_use]
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = Some(owner.into());
        self
    }

    /// Their permissions, octal or symbolic.
    #[must_use]
    pub fn permissions(mut self, mode: impl Into<String>) -> Self {
        self.permissions = Some(mode.into());
        self
    }

    /// Whether the copies are a layer that does not depend on what is below.
    #[must_use]
    pub fn link(mut self, link: bool) -> Self {
        self.link = link;
        self
    }

    /// Leaves out what a pattern matches. Called again, what one more matches.
    #[must_use]
    pub fn exclude(mut self, pattern: impl Into<String>) -> Self {
        self.excludes.push(pattern.into());
        self
    }
}

impl AddAction {
    /// Paths, URLs and repositories, and where to. A relative destination is one of the working directory.
    pub fn new<S: Into<String>>(sources: impl IntoIterator<Item = S>, destination: impl Into<String>) -> Self {
        let written = destination.into();
        Self {
            owner: None,
            permissions: None,
            link: false,
            keep_git_dir: None,
            checksum: None,
            unpack: None,
            excludes: Vec::new(),
            sources: sources.into_iter().map(|path| FileContent::Path(path.into())).collect(),
            destination: paths::destination("/", &written),
            written,
        }
    }
}

impl MountAction {
    /// Files of the context, or of what [`from`](Self::from) names, read-only.
    pub fn bind(target: impl Into<String>) -> Self {
        Self::of(MountKind::Bind, true).target(target)
    }

    /// A directory that builds share; its id is the target, unless one is given.
    pub fn cache(target: impl Into<String>) -> Self {
        Self::of(MountKind::Cache, false).target(target)
    }

    /// Memory.
    pub fn tmpfs(target: impl Into<String>) -> Self {
        Self::of(MountKind::Tmpfs, false).target(target)
    }

    /// A secret, at `/run/secrets/ID` unless a target is given.
    pub fn secret(id: impl Into<String>) -> Self {
        Self::of(MountKind::Secret, true).id(id)
    }

    /// The socket of an SSH agent.
    pub fn ssh() -> Self {
        Self::of(MountKind::Ssh, true)
    }

    fn of(kind: MountKind, read_only: bool) -> Self {
        let mut made = Self::default();
        made.mount.kind = kind;
        made.mount.read_only = read_only;
        made
    }

    /// Takes files from an earlier stage; else from a named context; else from an image.
    #[must_use]
    pub fn from(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.from = Some(Origin::Named(name.clone()));
        self.mount.from = Some(name);
        self
    }

    /// A path in there.
    #[must_use]
    pub fn source(mut self, path: impl Into<String>) -> Self {
        self.mount.source = Some(path.into());
        self
    }

    /// Where it is mounted.
    #[must_use]
    pub fn target(mut self, path: impl Into<String>) -> Self {
        self.mount.target = Some(path.into());
        self
    }

    /// Whether it can be written to. What is written to files of a stage or an image is thrown away.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.mount.read_only = read_only;
        self
    }

    /// The name of a cache, a secret or an agent.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.mount.id = Some(id.into());
        self
    }

    /// How builds share a cache.
    #[must_use]
    pub fn sharing(mut self, sharing: CacheSharing) -> Self {
        self.mount.sharing = Some(sharing);
        self
    }

    /// Whether the step fails where the secret or the agent is missing.
    #[must_use]
    pub fn required(mut self, required: bool) -> Self {
        self.mount.required = required;
        self
    }
}

/// Makes the target absolute. Secrets and agents have places of their own where none is given.
pub(super) fn place(mount: &mut Mount, directory: &str) -> std::result::Result<(), &'static str> {
    let given = mount.target.as_deref().filter(|target| !target.is_empty());
    if given.is_none() && matches!(mount.kind, MountKind::Secret | MountKind::Ssh) {
        return Ok(());
    }
    let target = paths::absolute(directory, given.unwrap_or_default());
    if target == "/" {
        return Err("a mount upon the root");
    }
    mount.target = Some(target);
    Ok(())
}

/// A mount as a Dockerfile gives it.
pub(super) fn check(action: &mut MountAction, directory: &str) -> Result<()> {
    agree(&action.mount).map_err(|(problem, expected)| Error::invalid(format!("{problem}: {expected}")))?;
    place(&mut action.mount, directory).map_err(Error::invalid)
}
