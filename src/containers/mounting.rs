//! From the mounts that are asked for to those that a container has: names for volumes, ids for images, and what the runtime
//! must know of each at a start.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use super::ContainerSpec;
use super::local::Shared;
use super::mounts::{BindFrom, MountFrom, MountPoint, MountSpec, VolumeFrom};
use super::owned::{self, Ids};
use super::plan;
use super::record::Record;
use super::spec::Lifetime;
use super::users;
use super::zone;
use crate::driver::Cancel;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::images::ImageInfo;
use crate::runtime::native::sight::{ZygoteSight, maps_of};
use crate::runtime::{IdSwap, LaunchMount, LaunchSource};
use crate::storage::layer::{LayerReader, Limits, Sight, apply};
use crate::storage::snapshot::LayerTarget;
use crate::store::{Uses, VolumeRow};
use crate::sys::blocking::blocking;
use crate::types::{Mount, Propagation, VolumeName};
use crate::volumes::{Content, CreateVolume, Mounted};

/// What a container is to have.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    pub(super) points: Vec<MountPoint>,
    pub(super) uses: Uses,
    /// Volumes that were made for it, to be undone with it.
    made: Vec<VolumeName>,
    /// For a container that outlives this engine: so does what is made for it.
    detached: bool,
}

impl Shared {
    /// Makes out what a container will have mounted, and makes the volumes that are not there. A `bare` one has no volumes for places
    /// that its image names: what is written there is the container's own.
    pub(super) async fn mounts_of(
        &self,
        spec: &ContainerSpec,
        image: &ImageInfo,
        bare: bool,
        cancel: &Cancel,
    ) -> Result<Mounts> {
        let mut mounts = Mounts {
            detached: spec.lifetime == Some(Lifetime::Detached),
            ..Mounts::default()
        };
        let places = image.config.config.volumes.iter().flatten().filter(|_| !bare);
        let places: Vec<&String> = places.collect();
        let added = self.add_mounts(spec, &places, &mut mounts, cancel).await;
        if let Err(error) = added {
            self.undo_mounts(&mounts).await;
            return Err(error);
        }
        Ok(mounts)
    }

    async fn add_mounts(
        &self,
        spec: &ContainerSpec,
        of_image: &[&String],
        mounts: &mut Mounts,
        cancel: &Cancel,
    ) -> Result<()> {
        for mount in &spec.mounts {
            self.add_mount(mount.clone(), false, mounts, cancel).await?;
        }
        for name in &spec.volumes_from {
            self.add_from(name, spec, mounts).await?;
        }
        for place in of_image {
            let place = clean(Path::new(place))?;
            let taken = |target: &Path| clean(target).is_ok_and(|target| target == place);
            if !spec.targets().any(taken) && !mounts.points.iter().any(|point| taken(&point.spec.target)) {
                self.add_mount(MountSpec::anonymous(place), true, mounts, cancel)
                    .await?;
            }
        }
        Ok(())
    }

    async fn add_mount(
        &self,
        mut mount: MountSpec,
        of_image: bool,
        mounts: &mut Mounts,
        cancel: &Cancel,
    ) -> Result<()> {
        let mut point = MountPoint::new(mount.clone());
        match &mut mount.source {
            MountFrom::Bind(bind) => {
                ready(bind).await?;
                point.source = Some(bind.source.clone());
            }
            MountFrom::Tmpfs(_) => {}
            MountFrom::Image(name) => {
                let image = self.parts.images.inspect(name).await?;
                mounts.uses.images.push(image.id);
                *name = image.id.to_string();
            }
            MountFrom::Volume(volume) => {
                let record = match &volume.name {
                    None if mounts.detached => {
                        point.anonymous = true;
                        let record = match &volume.copy_of {
                            Some(other) => self.parts.volumes.0.snapshot(other, asked(volume)).await?,
                            None => self.parts.volumes.0.create(asked(volume), cancel).await?.0,
                        };
                        mounts.made.push(record.name.clone());
                        mounts.uses.volumes.push(record.name.clone());
                        record
                    }
                    None => {
                        let record = match &volume.copy_of {
                            Some(other) => self.parts.volumes.0.make_bound_copy(other).await?,
                            None => self.parts.volumes.0.make_bound(asked(volume), cancel).await?,
                        };
                        mounts.uses.fresh.push(record.to_row()?);
                        point.bound = true;
                        record
                    }
                    Some(_) => {
                        let (record, made) = self.parts.volumes.0.create(asked(volume), cancel).await?;
                        if made {
                            mounts.made.push(record.name.clone());
                        }
                        mounts.uses.volumes.push(record.name.clone());
                        record
                    }
                };
                volume.name = Some(record.name.to_string());
                point.driver = Some(record.body.driver.clone());
                point.source = self.parts.volumes.0.place(&record);
            }
        }
        point.of_image = of_image;
        point.spec = mount;
        mounts.points.push(point);
        Ok(())
    }

    /// Takes what another container has; what is asked for at the same place counts. Source: moby,
    /// `daemon/volumes.go`, `registerMountPoints`.
    async fn add_from(&self, text: &str, spec: &ContainerSpec, mounts: &mut Mounts) -> Result<()> {
        let (name, read_only) = match text.rsplit_once(':') {
            Some((name, "ro")) => (name, true),
            Some((name, "rw")) => (name, false),
            Some((_, mode)) => {
                let message = format!("invalid mode {mode:?} of volumes_from (ro or rw)");
                return Err(Error::invalid(message).with_object(ObjectKind::Option, "volumes_from"));
            }
            None => (text, false),
        };
        let other = self.find(name).await?;
        let foreign = !self.is_ours(&other);
        let binds = other.body.spec.binds.iter().map(|bind| {
            let mut mount = MountSpec::bind(&bind.source, &bind.target);
            mount.read_only = bind.read_only;
            MountPoint::new(mount)
        });
        for mut point in other.body.mounts.iter().cloned().chain(binds) {
            if matches!(point.spec.source, MountFrom::Tmpfs(_) | MountFrom::Image(_)) {
                continue;
            }
            let target = point.spec.target.clone();
            if spec.targets().any(|known| known == target) {
                continue;
            }
            if point.bound && foreign {
                let message = format!(
                    "an anonymous volume of container {} goes with another live process; give the volume a name",
                    other.id.short()
                );
                return Err(Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Container, name));
            }
            if let Some(volume) = point.volume() {
                mounts.uses.volumes.push(volume.parse()?);
            }
            point.spec.read_only |= read_only;
            point.of_image = false;
            mounts.points.retain(|known| known.spec.target != target);
            mounts.points.push(point);
        }
        Ok(())
    }

    /// Removes volumes that were made for a container that is not to be.
    pub(super) async fn undo_mounts(&self, mounts: &Mounts) {
        let fresh = mounts.uses.fresh.iter().map(|row: &VolumeRow| &row.name);
        for name in fresh.chain(&mounts.made) {
            self.parts.volumes.0.discard(name).await;
        }
    }

    /// Fills empty volumes with what the image has at their places.
    pub(super) async fn fill_volumes(&self, record: &Record) -> Result<()> {
        for point in &record.body.mounts {
            let MountFrom::Volume(volume) = &point.spec.source else {
                continue;
            };
            let Some(name) = volume.name.as_deref() else { continue };
            if volume.no_copy || point.spec.subpath.is_some() || !self.parts.volumes.0.may_fill(&name.parse()?).await? {
                continue;
            }
            let rootfs = self.parts.snapshotter.mounts(&record.snapshot_key()).await?;
            let content = self.content(rootfs, &point.spec.target);
            self.parts.volumes.0.fill(&name.parse()?, &record.id, content).await?;
        }
        Ok(())
    }

    /// What a root file system has at a place.
    fn content(&self, rootfs: Vec<Mount>, target: &Path) -> Content {
        let (native, layers, target) = (
            Arc::clone(&self.parts.root),
            self.parts.layers.clone(),
            target.to_owned(),
        );
        let sight = self.parts.native.clone();
        Box::new(move |to| {
            let root = native.mount(&rootfs)?;
            let Some(from) = crate::storage::layer::open_inside(&root, &target, false)? else {
                return Ok(());
            };
            let sight = sight.map(|native| Arc::new(ZygoteSight::new(native)) as Arc<dyn Sight>);
            let reader = LayerReader::of_tree(from, &layers, sight);
            let pipe = pipe2(OFlag::O_CLOEXEC).map_err(|e| Error::os("make a pipe", e));
            let (read, write) = pipe.map(|(read, write)| (File::from(read), File::from(write)))?;
            std::thread::scope(|scope| {
                let writing = scope.spawn(move || reader.write_tree(std::io::BufWriter::new(write)));
                let target = LayerTarget::Merged {
                    dir: to.to_owned(),
                    owners: None,
                };
                let read = std::io::BufReader::with_capacity(1 << 18, read);
                let applied = apply(read, &target, &layers, &Limits::default());
                let written = writing
                    .join()
                    .unwrap_or_else(|_| Err(Error::internal("reading an image panicked")));
                // A reader that gives up makes the writer fail: its own reason counts.
                applied?;
                written
            })
        })
    }

    /// What the runtime must know of a container's mounts; volumes are ready from here on.
    pub(super) async fn ready_mounts(self: &Arc<Self>, record: &Record, cancel: &Cancel) -> Result<Vec<LaunchMount>> {
        let mut all = Vec::new();
        for bind in &record.body.spec.binds {
            let mut mount = MountSpec::bind(&bind.source, &bind.target);
            mount.read_only = bind.read_only;
            all.push(self.ready_mount(record, &MountPoint::new(mount), cancel).await?);
        }
        for point in &record.body.mounts {
            if !matches!(point.spec.source, MountFrom::Tmpfs(_)) {
                all.push(self.ready_mount(record, point, cancel).await?);
            }
        }
        if let Some(point) = zone::mount_of(&record.body.spec) {
            all.push(self.ready_mount(record, &point, cancel).await?);
        }
        Ok(all)
    }

    fn ready_mount<'a>(
        self: &'a Arc<Self>,
        record: &'a Record,
        point: &'a MountPoint,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, Result<LaunchMount>> {
        Box::pin(async move {
            let spec = &point.spec;
            let mut mount = LaunchMount {
                target: spec.target.clone(),
                source: LaunchSource::Host(PathBuf::new()),
                subpath: spec.subpath.clone(),
                read_only: spec.read_only,
                read_only_below: true,
                recursive: true,
                no_suid: false,
                devices: false,
                propagation: Propagation::Rprivate,
                swap: None,
            };
            match &spec.source {
                MountFrom::Bind(bind) => {
                    mount.source = LaunchSource::Host(bind.source.clone());
                    mount.propagation = self.propagation(bind).await?;
                    mount.recursive = !bind.non_recursive;
                    mount.read_only_below = !bind.read_only_top;
                    mount.no_suid = !bind.setuid;
                    if bind.container_user {
                        self.give(record, bind, &mut mount).await?;
                    }
                }
                MountFrom::Volume(volume) => {
                    let name = volume.name.as_deref().unwrap_or_default().parse()?;
                    mount.source = match self.parts.volumes.0.mount(&name, &record.id, cancel).await? {
                        Mounted::Directory(path) => LaunchSource::Host(path),
                        Mounted::Tree(tree) => LaunchSource::Tree(tree),
                        Mounted::Own(tree) => LaunchSource::Given(tree),
                    };
                }
                MountFrom::Image(image) => {
                    mount.source = LaunchSource::Mount(self.view(image).await?);
                    mount.read_only = true;
                }
                MountFrom::Tmpfs(_) => {
                    return Err(Error::internal("a memory file system among the runtime's own mounts"));
                }
            }
            Ok(mount)
        })
    }

    /// An image's files.
    async fn view(&self, image: &str) -> Result<Mount> {
        let info = self.parts.images.inspect(image).await?;
        let Some(chain) = info.chain else {
            return Err(
                Error::invalid("an image without layers has nothing to show").with_object(ObjectKind::Image, image)
            );
        };
        let mounts = match self.parts.snapshotter.view(&chain).await {
            Err(error) if error.is_not_found() => {
                self.parts.images.restore(image).await?;
                self.parts.snapshotter.view(&chain).await?
            }
            mounts => mounts?,
        };
        let mut mounts = mounts.into_iter();
        let first = mounts.next();
        first.ok_or_else(|| Error::internal("a storage driver that shows an image by no mount"))
    }

    /// A container's mounts can be seen on the host only where the source is a shared mount there. Source: moby,
    /// `daemon/oci_linux.go`, `ensureShared`.
    async fn propagation(&self, bind: &BindFrom) -> Result<Propagation> {
        if !bind.propagation.is_shared() {
            return Ok(bind.propagation);
        }
        let word = bind.propagation.as_str();
        if self.parts.ownership != "direct" {
            let needs =
                "root: what an ordinary user's container mounts is in a user namespace, and never seen on the host";
            return Err(Error::unsupported(format!("the propagation {word}"), needs)
                .with_object(ObjectKind::Option, "propagation"));
        }
        let source = bind.source.clone();
        match blocking(move || is_shared(&source)).await? {
            true => Ok(bind.propagation),
            false => {
                let shown = bind.source.display();
                let message = format!(
                    "the propagation {word} needs a shared mount, and {shown} is not on one; mount --make-shared makes it one"
                );
                Err(Error::invalid(message).with_object(ObjectKind::Option, "propagation"))
            }
        }
    }

    /// Makes the container's user the owner of the source.
    async fn give(&self, record: &Record, bind: &BindFrom, mount: &mut LaunchMount) -> Result<()> {
        // Every file is the caller's.
        if self.parts.ownership == "squashed" {
            return Ok(());
        }
        let inside = self.user_of(record).await?;
        let path = bind.source.clone();
        let found =
            blocking(move || std::fs::metadata(&path).map_err(|e| Error::os("look at the source of a mount", e)));
        let found = found.await?;
        let outside = (found.uid(), found.gid());
        if self.parts.ownership != "mapped" {
            mount.swap = (inside != outside).then_some(IdSwap { outside, inside });
            return Ok(());
        }
        let own = nix::unistd::geteuid().as_raw();
        if outside.0 != own {
            return Err(Error::unsupported(
                format!(
                    "giving {}, which belongs to user {}, to the container's user {}",
                    bind.source.display(),
                    outside.0,
                    inside.0
                ),
                format!("root, or a directory of your own (user {own})"),
            )
            .with_object(ObjectKind::Option, "container_user"));
        }
        // Root in the container is the caller on the host as it is.
        if inside.0 != 0 {
            mount.source = LaunchSource::Given(self.show_as(bind, inside).await?);
        }
        Ok(())
    }

    /// A directory of the caller's, shown as the container's user's.
    async fn show_as(&self, bind: &BindFrom, user: (u32, u32)) -> Result<Arc<OwnedFd>> {
        let runtime = self.parts.native.clone();
        let runtime = runtime.ok_or_else(|| Error::internal("ids are mapped by the native runtime alone"))?;
        let source = bind.source.clone();
        blocking(move || {
            let [uids, gids] = maps_of(&runtime);
            owned::show(&runtime, &source, Ids::new(uids, gids, user))
        })
        .await
    }

    /// The ids of a container's user.
    pub(super) async fn user_of(&self, record: &Record) -> Result<(u32, u32)> {
        let (spec, image) = (record.body.spec.clone(), record.body.image.clone());
        let rootfs = self.parts.snapshotter.mounts(&record.snapshot_key()).await?;
        blocking(move || {
            users::ids(&spec, &image, &rootfs)?.ok_or_else(|| {
                let user = plan::user(&spec, &image).unwrap_or_default();
                let message = format!(
                    "the ids of the user {user:?} cannot be told before the start; give it by number, as UID:GID"
                );
                Error::invalid(message).with_object(ObjectKind::User, user)
            })
        })
        .await
    }

    /// A container has ended: its volumes have one user less.
    pub(super) async fn end_mounts(&self, record: &Record) {
        for point in &record.body.mounts {
            if let Some(Ok(name)) = point.volume().map(str::parse::<VolumeName>) {
                self.parts.volumes.0.unmount(&name, &record.id).await;
            }
        }
    }

    /// Removes the volumes that go with a container.
    pub(super) async fn remove_volumes(&self, record: &Record) {
        let bound = record.body.mounts.iter().filter(|point| point.bound);
        let names: Vec<VolumeName> = bound.filter_map(|point| point.volume()?.parse().ok()).collect();
        self.parts.volumes.0.remove_bound(&names).await;
    }

    /// Removes the anonymous volumes of a detached container that no other one uses.
    pub(super) async fn remove_anonymous(&self, record: &Record) {
        let anonymous = record.body.mounts.iter().filter(|point| point.anonymous);
        let names: Vec<VolumeName> = anonymous.filter_map(|point| point.volume()?.parse().ok()).collect();
        self.parts.volumes.0.remove_bound(&names).await;
    }

    /// Directories that go with a container if its engine dies.
    pub(super) fn scratch_of_volumes(&self, record: &Record) -> Vec<PathBuf> {
        let bound = record.body.mounts.iter().filter(|point| point.bound);
        bound
            .filter_map(|point| Some(self.parts.volumes.0.directory(&point.volume()?.parse().ok()?)))
            .collect()
    }
}

fn asked(volume: &VolumeFrom) -> CreateVolume {
    let mut request = CreateVolume::default();
    request.name.clone_from(&volume.name);
    request.driver.clone_from(&volume.driver);
    request.options.clone_from(&volume.options);
    request.labels.clone_from(&volume.labels);
    request
}

/// A path without `.`, and without `..`, which an image's entry may not have either.
fn clean(path: &Path) -> Result<PathBuf> {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::RootDir | Component::CurDir => {}
            _ => {
                let message = format!(
                    "the image asks for a volume at {}, which is no place in a container",
                    path.display()
                );
                return Err(Error::invalid(message).with_object(ObjectKind::Image, path.display().to_string()));
            }
        }
    }
    if out == Path::new("/") {
        return Err(
            Error::invalid("a volume at the root of a container").with_object(ObjectKind::Option, "mount target")
        );
    }
    Ok(out)
}

/// A source that is there, or is made.
async fn ready(bind: &BindFrom) -> Result<()> {
    let bind = bind.clone();
    blocking(move || match std::fs::metadata(&bind.source) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && bind.create => {
            let made = std::fs::create_dir_all(&bind.source);
            made.map_err(|e| Error::os(format!("make {}", bind.source.display()), e))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let message = format!("bind source path does not exist: {}", bind.source.display());
            Err(Error::invalid(message).with_object(ObjectKind::Option, "mount source"))
        }
        Err(error) => Err(Error::os(format!("look at {}", bind.source.display()), error)),
    })
    .await
}

/// Whether a path is on a shared mount. Source: proc_pid_mountinfo(5).
fn is_shared(path: &Path) -> Result<bool> {
    let failed = |e| Error::os("read the list of mounts", e);
    let path = std::fs::canonicalize(path).map_err(|e| Error::os("resolve the source of a mount", e))?;
    let table = std::fs::read_to_string("/proc/self/mountinfo").map_err(failed)?;
    let mut found = (0, false);
    for line in table.lines() {
        let (head, _) = line.split_once(" - ").unwrap_or((line, ""));
        let mut fields = head.split(' ').skip(4);
        let place = crate::runtime::cgroups::layout::unescape(fields.next().unwrap_or("/"));
        let place = Path::new(&place);
        if path.starts_with(place) && place.components().count() >= found.0 {
            found = (
                place.components().count(),
                fields.any(|field| field.starts_with("shared:")),
            );
        }
    }
    Ok(found.1)
}
