//! `RUN --mount`: files of the context, of stages and images; caches; memory; secrets; agents. They are there while the
//! command runs, and are in no layer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::Flock;

use super::Work;
use super::agent::{self, Relay};
use super::stage::Stage;
use crate::build::cache::{self, Key};
use crate::build::context::Tree;
use crate::build::copy::{self, Files, Gathered};
use crate::build::dockerfile::{CacheSharing, Mount, MountKind};
use crate::build::plan::{CopyAction, MountAction, RunAction};
use crate::build::spec::Secret;
use crate::containers::Tmpfs;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::images::making::chain;
use crate::runtime::{LaunchMount, LaunchSource};
use crate::storage::layer::{LayerReader, Limits, apply, open_inside};
use crate::storage::ownership::{OwnerChange, Ownership};
use crate::storage::snapshot::{LayerTarget, SnapshotKey, WritableOptions};
use crate::store::LockGuard;
use crate::sys::blocking::{blocking, elsewhere};
use crate::types::{self, Bytes, ChainId, Digest, MountSource, Propagation};

/// The agent that is meant where none is named.
pub(super) const AGENT: &str = "default";
/// What a secret is called in its own file system.
const SECRET: &str = "secret";
/// The largest secret. Source: BuildKit, `solver/llbsolver/ops/exec.go` (500 KiB).
const LARGEST_SECRET: usize = 500 << 10;

/// Where the files of a mount come from.
pub(super) enum Origin {
    /// Not from files.
    None,
    /// Layers.
    Layers(Option<ChainId>),
    /// A part of a context, which becomes a layer of its own.
    Context(Arc<Gathered>),
}

/// What a command has mounted, and what is to be done when it has ended.
#[derive(Default)]
pub(super) struct Mounted {
    pub(super) mounts: Vec<LaunchMount>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) tmpfs: BTreeMap<PathBuf, Tmpfs>,
    /// Agents that answer meanwhile.
    agents: Vec<Relay>,
    /// Layers that could be written to.
    written: Vec<SnapshotKey>,
    /// Caches that nobody else may use meanwhile.
    _locks: Vec<LockGuard>,
    /// Caches that nobody may remove meanwhile.
    _shares: Vec<Flock<File>>,
}

impl Mounted {
    /// Throws away what was written to what is only shown.
    pub(super) async fn end(self, work: &Work<'_>) {
        for key in &self.written {
            if let Err(error) = work.shared.parts.snapshotter.discard(key).await {
                tracing::warn!(
                    key,
                    error = error.report(),
                    "what was written to a mount could not be discarded"
                );
            }
        }
    }
}

impl Work<'_> {
    /// Where the mounts of a command come from; the key knows it, too, but for what may change without a step being done
    /// anew: caches, secrets and agents.
    pub(super) async fn sources(&self, stage: &Stage, run: &RunAction, key: &mut Key) -> Result<Vec<Origin>> {
        let mut sources = Vec::with_capacity(run.mounts.len());
        for action in &run.mounts {
            key.text(&format!("{:?}", action.mount));
            let has_files = match action.mount.kind {
                MountKind::Bind => true,
                MountKind::Cache => action.from.is_some(),
                _ => false,
            };
            if !has_files {
                sources.push(Origin::None);
                continue;
            }
            let source = match self.layers_of(action.from.as_ref()).await? {
                Some(layers) => {
                    let chain = chain(&layers);
                    key.maybe(chain.as_ref().map(ToString::to_string).as_deref());
                    Origin::Layers(chain)
                }
                None => self.part_of_context(stage, action, key).await?,
            };
            sources.push(source);
        }
        Ok(sources)
    }

    async fn part_of_context(&self, _stage: &Stage, action: &MountAction, key: &mut Key) -> Result<Origin> {
        let path = relative(&action.mount)?;
        let path = path.map_or_else(|| ".".to_owned(), |path| path.to_string_lossy().into_owned());
        let mut copy = CopyAction::new([literal(&path)], "/");
        // At its own path.
        copy.parents = path != ".";
        let source = self.origin(action.from.as_ref()).await?;
        let gathering = copy::gather(Files::Copy(copy), source, &self.services);
        let gathered = Arc::new(self.cancel.or(gathering).await?);
        key.text(&self.digest_of(&gathered).await?.to_string());
        Ok(Origin::Context(gathered))
    }

    /// Makes a command's mounts ready.
    pub(super) async fn mount(&self, stage: &Stage, run: &RunAction, sources: &[Origin]) -> Result<Mounted> {
        let mut mounted = Mounted::default();
        let made = self.mount_all(stage, run, sources, &mut mounted).await;
        if let Err(error) = made {
            mounted.end(self).await;
            return Err(error);
        }
        Ok(mounted)
    }

    async fn mount_all(&self, stage: &Stage, run: &RunAction, sources: &[Origin], mounted: &mut Mounted) -> Result<()> {
        if let Some(script) = &run.script {
            let (path, text) = (self.place.path("script"), script.content.clone());
            let file = path.clone();
            blocking(move || write_script(&file, &text).map_err(|e| Error::os("write a script", e))).await?;
            let mount = plain(&script.path, LaunchSource::Host(path), true);
            mounted.mounts.push(mount);
        }
        self.lock_caches(run, sources, mounted).await?;
        let mut agents = 0;
        for (action, source) in run.mounts.iter().zip(sources) {
            let mount = &action.mount;
            match mount.kind {
                MountKind::Bind => self.bind(stage, mount, source, mounted).await?,
                MountKind::Cache => self.cache_mount(mount, source, mounted).await?,
                MountKind::Tmpfs => {
                    let options = Tmpfs {
                        size: mount.size_bytes.map(Bytes::new),
                        exec: true,
                        ..Tmpfs::default()
                    };
                    mounted.tmpfs.insert(target(mount)?.into(), options);
                }
                MountKind::Secret => self.secret(mount, mounted).await?,
                MountKind::Ssh => {
                    self.agent(mount, agents, mounted).await?;
                    agents += 1;
                }
            }
        }
        Ok(())
    }

    async fn bind(&self, stage: &Stage, mount: &Mount, source: &Origin, mounted: &mut Mounted) -> Result<()> {
        let chain = match source {
            Origin::None => None,
            Origin::Layers(chain) => *chain,
            Origin::Context(gathered) => {
                let files = self.write_files(stage, &[], gathered, None).await?;
                chain(files.layer.as_slice())
            }
        };
        let target = target(mount)?;
        let Some(chain) = chain else {
            let empty = self.place.path("empty");
            let dir = empty.clone();
            blocking(move || fs::create_dir(&dir).map_err(|e| Error::os("make an empty directory", e))).await?;
            mounted
                .mounts
                .push(plain(target, LaunchSource::Host(empty), mount.read_only));
            return Ok(());
        };
        let snapshotter = &self.shared.parts.snapshotter;
        let view = if mount.read_only {
            snapshotter.view(&chain).await?
        } else {
            let owner = self.shared.parts.owner.as_str();
            let key = format!("build-{owner}-{}", crate::storage::files::random_name(16)?);
            let options = WritableOptions {
                volatile: true,
                ..WritableOptions::default()
            };
            let made = snapshotter.create_writable(&key, Some(&chain), options).await?;
            mounted.written.push(key);
            made
        };
        let view = view
            .into_iter()
            .next()
            .ok_or_else(|| Error::internal("layers without a mount"))?;
        let mut made = plain(target, LaunchSource::Mount(view), mount.read_only);
        made.subpath = relative(mount)?;
        mounted.mounts.push(made);
        Ok(())
    }

    async fn secret(&self, mount: &Mount, mounted: &mut Mounted) -> Result<()> {
        let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let last = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
        let of_target = || some(&mount.target).map(|target| last(&target));
        let id = some(&mount.id).or_else(|| some(&mount.source)).or_else(of_target);
        let id = id.ok_or_else(|| Error::invalid("a secret without a name"))?;
        let Some(secret) = self.spec.secrets.get(&id) else {
            if !mount.required {
                return Ok(());
            }
            let message = format!("the secret {id:?} is needed and was not given: give it with BuildSpec::secret");
            return Err(Error::new(ErrorKind::NotFound, message).with_object(ObjectKind::Option, id));
        };
        if secret.0.len() > LARGEST_SECRET {
            let message = format!("the secret {id:?} is larger than {LARGEST_SECRET} bytes");
            return Err(Error::invalid(message));
        }
        if let Some(name) = &mount.env {
            let name = if name.is_empty() { &id } else { name };
            let text = std::str::from_utf8(&secret.0).ok().filter(|text| !text.contains('\0'));
            let text = text.ok_or_else(|| {
                Error::invalid(format!(
                    "the secret {id:?} is no text, and cannot be a variable; mount it as a file"
                ))
            })?;
            mounted.env.insert(name.clone(), text.to_owned());
            if mount.target.is_none() {
                return Ok(());
            }
        }
        let target = some(&mount.target).unwrap_or_else(|| format!("/run/secrets/{}", last(&id)));
        let (root, layers, secret) = (
            Arc::clone(&self.shared.parts.root),
            self.shared.parts.layers.clone(),
            secret.clone(),
        );
        let (mode, owner) = (
            mount.mode.unwrap_or(0o400),
            (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0)),
        );
        let tree = blocking(move || {
            // In memory: a disk could keep it.
            let tree = root.mount(&[memory()])?;
            write_secret(&tree, &secret, mode, owner, &layers)?;
            Ok(tree)
        })
        .await?;
        let mut made = plain(&target, LaunchSource::Tree(Arc::new(tree)), true);
        made.subpath = Some(SECRET.into());
        mounted.mounts.push(made);
        Ok(())
    }

    async fn agent(&self, mount: &Mount, number: usize, mounted: &mut Mounted) -> Result<()> {
        let id = mount
            .id
            .clone()
            .filter(|id| !id.is_empty())
            .unwrap_or_else(|| AGENT.to_owned());
        let Some(socket) = self.spec.agents.get(&id) else {
            if !mount.required {
                return Ok(());
            }
            let message = format!("the agent {id:?} is needed and was not given: give it with BuildSpec::ssh_agent");
            return Err(Error::new(ErrorKind::NotFound, message).with_object(ObjectKind::Option, id));
        };
        let given = mount.target.clone().filter(|target| !target.is_empty());
        let target = given.unwrap_or_else(|| format!("/run/buildkit/ssh_agent.{number}"));
        let (place, layers) = (self.place.path("agent"), &self.shared.parts.layers);
        let relay = agent::relay(&id, socket, mount, place, layers).await?;
        mounted
            .mounts
            .push(plain(&target, LaunchSource::Host(relay.socket.clone()), true));
        mounted.agents.push(relay);
        mounted.env.entry("SSH_AUTH_SOCK".to_owned()).or_insert(target);
        Ok(())
    }

    /// Takes the turns of all caches that a command has for itself, each once and in one order: who waits for one has none that
    /// somebody else waits for who has that.
    async fn lock_caches(&self, run: &RunAction, sources: &[Origin], mounted: &mut Mounted) -> Result<()> {
        let mut names = BTreeSet::new();
        for (action, source) in run.mounts.iter().zip(sources) {
            let mount = &action.mount;
            if mount.kind == MountKind::Cache && mount.sharing == Some(CacheSharing::Locked) {
                names.insert(cache_name(mount, source)?);
            }
        }
        for name in names {
            let locks = &self.shared.parts.locks;
            let lock = self.cancel.or(locks.lock(&format!("cache-{name}"))).await?;
            mounted._locks.push(lock);
        }
        Ok(())
    }

    async fn cache_mount(&self, mount: &Mount, source: &Origin, mounted: &mut Mounted) -> Result<()> {
        let target = target(mount)?;
        let (name, lock) = self.turn_of(mount, cache_name(mount, source)?).await?;
        mounted._locks.extend(lock);
        let tree = match source {
            Origin::Layers(chain) => self.tree(chain.as_ref()).await?,
            Origin::Context(_) => {
                return Err(Error::unsupported(
                    "a cache that begins with files of a context",
                    "from= a stage or an image",
                ));
            }
            Origin::None => None,
        };
        let (dir, layers) = (self.shared.parts.caches.join(&name), self.shared.parts.layers.clone());
        let place = dir.clone();
        let (first, wanted) = (relative(mount)?, mount.clone());
        let guard = self.shared.parts.locks.lock(&format!("cache-made-{name}")).await?;
        let share = elsewhere(move || {
            let _guard = guard;
            ready_cache(&place, &wanted, tree.as_ref(), first.as_deref(), &layers)?;
            cache::share(&place)
        })
        .await?;
        mounted._shares.push(share);
        mounted
            .mounts
            .push(plain(target, LaunchSource::Host(dir.join("files")), mount.read_only));
        Ok(())
    }

    /// Which directory a cache is, and what keeps others from it meanwhile.
    async fn turn_of(&self, mount: &Mount, name: String) -> Result<(String, Option<LockGuard>)> {
        match mount.sharing.unwrap_or(CacheSharing::Shared) {
            // Those that are locked were, before any was mounted.
            CacheSharing::Shared | CacheSharing::Locked => Ok((name, None)),
            CacheSharing::Private => {
                let locks = self.shared.parts.locks.clone();
                blocking(move || {
                    for number in 0.. {
                        let one = match number {
                            0 => name.clone(),
                            number => format!("{name}-{number}"),
                        };
                        if let Some(lock) = locks.try_lock(&format!("cache-{one}"))? {
                            return Ok((one, Some(lock)));
                        }
                    }
                    Err(Error::internal("there is no end of numbers"))
                })
                .await
            }
        }
    }
}

/// The name of a cache's directory.
fn cache_name(mount: &Mount, source: &Origin) -> Result<String> {
    let id = mount.id.as_deref().filter(|id| !id.is_empty());
    let id = match id {
        Some(id) => id,
        None => target(mount)?,
    };
    let from = match source {
        Origin::Layers(Some(chain)) => chain.to_string(),
        _ => String::new(),
    };
    Ok(Digest::of(format!("{id}\0{from}").as_bytes()).hex())
}

fn target(mount: &Mount) -> Result<&str> {
    let target = mount.target.as_deref().filter(|target| !target.is_empty());
    target.ok_or_else(|| Error::invalid("a mount without a target"))
}

/// The path within what is mounted; `None` is all of it. Links out of it are the kernel's to refuse.
fn relative(mount: &Mount) -> Result<Option<PathBuf>> {
    let source = mount.source.as_deref().unwrap_or_default();
    let mut clean = PathBuf::new();
    for part in source.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                // Above its root there is nothing.
                clean.pop();
            }
            part if part.contains('\0') => return Err(Error::invalid("a path with a NUL byte")),
            part => clean.push(part),
        }
    }
    Ok((!clean.as_os_str().is_empty()).then_some(clean))
}

/// A path as a pattern that means just it.
fn literal(path: &str) -> String {
    path.chars().fold(String::new(), |mut text, c| {
        if matches!(c, '*' | '?' | '[' | '\\') {
            text.push('\\');
        }
        text.push(c);
        text
    })
}

fn plain(target: &str, source: LaunchSource, read_only: bool) -> LaunchMount {
    LaunchMount {
        target: target.into(),
        source,
        subpath: None,
        read_only,
        read_only_below: read_only,
        recursive: false,
        no_suid: false,
        devices: false,
        propagation: Propagation::Rprivate,
        swap: None,
    }
}

fn memory() -> types::Mount {
    types::Mount {
        source: MountSource::FileSystem {
            kind: "tmpfs".to_owned(),
            source: "tmpfs".to_owned(),
            options: ["mode=0700", "size=1m"].map(str::to_owned).into(),
        },
        read_only: false,
    }
}

/// Blocking.
fn write_secret(tree: &OwnedFd, secret: &Secret, mode: u32, owner: (u32, u32), layers: &Ownership) -> Result<()> {
    let failed = |error| Error::os("write a secret", error);
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SECRET}", tree.as_raw_fd()));
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    file.write_all(&secret.0).map_err(failed)?;
    give(file, mode, owner, layers)
}

/// Sets the owner and the mode of a file or a directory of ours. Blocking.
fn give(file: File, mode: u32, owner: (u32, u32), layers: &Ownership) -> Result<()> {
    let failed = |error| Error::os("set the owner of what is mounted", error);
    match layers {
        Ownership::Direct => {
            std::os::unix::fs::fchown(&file, Some(owner.0), Some(owner.1)).map_err(failed)?;
            file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed)
        }
        Ownership::Mapped(privileged) if owner != (0, 0) => {
            let change = OwnerChange {
                uid: owner.0,
                gid: owner.1,
                mode: Some(mode),
                xattrs: Vec::new(),
            };
            privileged.change_owners(vec![(file.into(), change)])
        }
        // All ids are one.
        _ => file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed),
    }
}

/// Everybody may read it, and run it.
fn write_script(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o700).open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(fs::Permissions::from_mode(0o755))
}

/// Makes a cache's directory, with what it begins with, unless it is there. In its lock. Blocking.
fn ready_cache(dir: &Path, mount: &Mount, tree: Option<&Tree>, first: Option<&Path>, layers: &Ownership) -> Result<()> {
    let failed = |error| Error::os("make a cache's directory", error);
    let files = dir.join("files");
    if files.is_dir() {
        return Ok(());
    }
    let private = |dir: &Path| fs::DirBuilder::new().mode(0o700).recursive(true).create(dir);
    private(dir).map_err(failed)?;
    let fresh = dir.join("new");
    match layers {
        Ownership::Mapped(privileged) => privileged.remove_tree(&fresh)?,
        _ => match fs::remove_dir_all(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        },
    }
    private(&fresh).map_err(failed)?;
    if let Some(tree) = tree {
        fill(&fresh, tree, first, layers)?;
    }
    let owner = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
    let made = File::open(&fresh).map_err(failed)?;
    give(made, mount.mode.unwrap_or(0o755), owner, layers)?;
    // It is there when it is whole.
    fs::rename(&fresh, &files).map_err(failed)
}

fn fill(dir: &Path, tree: &Tree, first: Option<&Path>, layers: &Ownership) -> Result<()> {
    let from = first.unwrap_or(Path::new("/"));
    let Some(root) = open_inside(&tree.root, from, false)? else {
        let message = format!("a cache begins with {}, which is no directory there", from.display());
        return Err(Error::invalid(message));
    };
    let reader = LayerReader::of_tree(root, &tree.ownership, tree.sight.clone());
    let (read, write) = io::pipe().map_err(|e| Error::os("make a pipe", e))?;
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || reader.write_tree(io::BufWriter::new(write)));
        let target = LayerTarget::Merged {
            dir: dir.to_owned(),
            owners: None,
        };
        let read = io::BufReader::with_capacity(1 << 18, read);
        let applied = apply(read, &target, layers, &Limits::default());
        let written = writing
            .join()
            .unwrap_or_else(|_| Err(Error::internal("reading files panicked")));
        applied?;
        written
    })
}
