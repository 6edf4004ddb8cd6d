//! Files in and out of a container, in every state, and what is at a path.
//!
//! A container that runs, or is paused, is looked into by way of its first process (`/proc/PID/root`): all its mounts are
//! there. One that does not run is set up as for a start, with its volumes and directories, by a process that does nothing;
//! that one ends with the copy, and the container cannot start meanwhile.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::sys::statfs::FsType;
use tokio::sync::oneshot;

use super::local::Shared;
use super::mounts::FileSpec;
use super::peer;
use super::record::{ProcessIdentity, Record};
use super::served::{self, Purpose};
use super::spec::{Limits, NamespaceMode, NetworkMode};
use super::users;
use super::{ContainerState, CopiedOut, CopyInOptions, PathStat};
use crate::driver::Cancel;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::images::ByteStream;
use crate::runtime::Task;
use crate::runtime::native::sight::ZygoteSight;
use crate::storage::inflow::on_thread;
use crate::storage::layer::{self, Limits as ArchiveLimits, Plain, Sight, Spot, apply_plain};
use crate::storage::outflow::{on_driver, stream_of};
use crate::storage::ownership::{OwnerChange, Ownership, Privileged};
use crate::storage::room;
use crate::storage::snapshot::LayerSource;
use crate::sys::blocking::blocking;
use crate::types::{IdRange, Signal};

/// A container's files, for as long as this lives.
struct View {
    root: Arc<OwnedFd>,
    ownership: Ownership,
    sight: Option<Arc<dyn Sight>>,
    /// As whom files are made, where the caller's own id has no meaning in the container.
    acting: Option<Acting>,
    /// Tells whoever holds the container that this is over.
    _done: Option<oneshot::Sender<()>>,
}

impl Shared {
    pub(crate) async fn stat_path(self: &Arc<Self>, name: &str, path: &str) -> Result<PathStat> {
        let (_view, spot) = self.spot_of(name, path).await?;
        Ok(looks_of(&spot, path))
    }

    /// What is at a path of a container, and what holds it there.
    async fn spot_of(self: &Arc<Self>, name: &str, path: &str) -> Result<(View, Spot)> {
        let record = self.find(name).await?;
        let mut view = self.view_of(record.id.as_str()).await?;
        let (mut place, mut shown) = (path.to_owned(), None);
        if let Some(served) = self.served(&record, path, Purpose::Read).await? {
            view.sight = view.sight.map(|sight| served.sight(sight));
            (view.root, place, shown) = (Arc::new(served.directory), served.path, served.name);
        }
        let (root, sight) = (Arc::clone(&view.root), view.sight.clone());
        let spot = blocking(move || Spot::open(&root, place.as_bytes(), sight.as_deref())).await;
        let serves = self.serves(&record);
        let mut spot = spot.map_err(|error| if serves { served::refused(error) } else { error })?;
        if let Some(shown) = shown {
            spot.shown = shown.into_bytes();
        }
        Ok((view, spot))
    }

    pub(crate) async fn copy_out(self: &Arc<Self>, name: &str, path: &str) -> Result<CopiedOut> {
        let (view, spot) = self.spot_of(name, path).await?;
        let stat = looks_of(&spot, path);
        let archive = stream_of(
            move |out| {
                // Whatever becomes of the reader, the container is held until here.
                let View { ownership, sight, .. } = &view;
                spot.write(ownership, sight.clone(), out)
            },
            Box::pin(async { Ok(()) }),
        )?;
        Ok(CopiedOut {
            stat,
            archive: on_driver(&self.parts.spawner, archive),
        })
    }

    pub(crate) async fn copy_in(
        self: &Arc<Self>,
        name: &str,
        path: &str,
        archive: ByteStream,
        options: CopyInOptions,
    ) -> Result<()> {
        let record = self.find(name).await?;
        let owner = match options.own_by_user {
            true => self.owner_for(&record).await?,
            false => None,
        };
        let mut view = self.view_of(record.id.as_str()).await?;
        let mut path = path.to_owned();
        let served = self.served(&record, &path, Purpose::Write).await?;
        let no_links = served.is_some();
        if let Some(served) = served {
            (view.root, path) = (Arc::new(served.directory), served.path);
        }
        let (root, place, sight) = (Arc::clone(&view.root), path.clone(), view.sight.clone());
        let there =
            blocking(move || {
                let whole = format!("./{place}/");
                match layer::open_inside(&root, Path::new(&whole), no_links)? {
                    Some(dir) => Ok(dir),
                    None => match Spot::open(&root, place.as_bytes(), sight.as_deref()) {
                        Ok(_) => Err(Error::invalid("extraction point is not a directory")
                            .with_object(ObjectKind::Option, place)),
                        Err(error) => Err(error),
                    },
                }
            });
        let serves = self.serves(&record);
        let refused = |error| if serves { served::refused(error) } else { error };
        drop(there.await.map_err(refused)?);
        let plain = Plain {
            base: path.trim_matches('/').as_bytes().to_vec(),
            keep_kinds: options.keep_kinds,
            // The caller is root in the engine's user namespace.
            owner: if no_links { Some((0, 0)) } else { owner },
            with_root: false,
            no_links,
            upper: self.upper_of(&record).await,
        };
        let copied = on_thread(archive, move |inflow| {
            // This thread ends with the copy.
            if let Some(acting) = view.acting {
                acting.begin();
            }
            let root = PathBuf::from(format!("/proc/self/fd/{}", view.root.as_raw_fd()));
            apply_plain(inflow, &root, plain, &view.ownership, &ArchiveLimits::default())
        });
        copied.await.map_err(refused)
    }

    /// The file system that a container's own files are on, where that can be told: it is a help and no more.
    async fn upper_of(&self, record: &Record) -> Option<FsType> {
        let source = self.parts.snapshotter.source(&record.snapshot_key()).await.ok()?;
        let LayerSource::Overlay { upper, .. } = source else {
            return None;
        };
        blocking(move || Ok(room::kind_of(&upper))).await.ok()?
    }

    /// Puts the files that were asked for into a container that is being made.
    pub(super) async fn put_files(&self, record: &Record) -> Result<()> {
        let files = record.body.spec.files.clone();
        if files.is_empty() {
            return Ok(());
        }
        let rootfs = self.parts.snapshotter.mounts(&record.snapshot_key()).await?;
        let (native, layers) = (Arc::clone(&self.parts.root), self.parts.layers.clone());
        blocking(move || {
            let tar = tar_of(&files)?;
            let root = native.mount(&rootfs)?;
            let root = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
            // The descriptor lives to the end of this block.
            apply_plain(
                tar.as_slice(),
                &root,
                Plain::default(),
                &layers,
                &ArchiveLimits::default(),
            )
        })
        .await
    }

    /// The ids of the container's user, for what is copied in.
    async fn owner_for(&self, record: &Record) -> Result<Option<(u32, u32)>> {
        let (spec, image) = (record.body.spec.clone(), record.body.image.clone());
        let rootfs = self.parts.snapshotter.mounts(&record.snapshot_key()).await?;
        let ids = blocking(move || users::ids(&spec, &image, &rootfs)).await?;
        match ids {
            Some(ids) => Ok(Some(ids)),
            None => Err(Error::new(
                ErrorKind::Unsupported {
                    needs: "a user by number: UID:GID".into(),
                },
                "the ids of the container's user cannot be told from outside",
            )),
        }
    }

    async fn view_of(self: &Arc<Self>, name: &str) -> Result<View> {
        let record = self.find(name).await?;
        match record.state {
            ContainerState::Running | ContainerState::Paused => match self.view_of_running(&record).await {
                // It ended meanwhile.
                Err(error) if error.kind() == &ErrorKind::InvalidState => self.view_of_held(&record).await,
                view => view,
            },
            ContainerState::Removing => Err(super::local::no_such(name)),
            _ => self.view_of_held(&record).await,
        }
    }

    async fn view_of_running(&self, record: &Record) -> Result<View> {
        let ended = || Error::new(ErrorKind::InvalidState, "the container's process has ended");
        let process = record.body.process.ok_or_else(ended)?;
        self.view_at(process, record).await
    }

    /// The files as a process sees them.
    async fn view_at(&self, process: ProcessIdentity, record: &Record) -> Result<View> {
        let (layers, apart) = (self.parts.layers.clone(), record.body.spec.user_namespace);
        let native = self.parts.native.clone();
        blocking(move || {
            let opened = File::open(format!("/proc/{}/root", process.pid));
            let maps = ["uid_map", "gid_map"].map(|file| {
                let text = std::fs::read_to_string(format!("/proc/{}/{file}", process.pid)).unwrap_or_default();
                IdRange::parse_map(&text)
            });
            if peer::identify(process.pid) != Some(process) {
                return Err(Error::new(ErrorKind::InvalidState, "the container's process has ended"));
            }
            let root = opened.map_err(|e| Error::os("open the container's root", e))?;
            let (ownership, sight, acting) = match (layers, apart) {
                (Ownership::Direct, true) => {
                    let ids = Arc::new(Ids::new(maps)?);
                    let (sight, acting) = (Arc::clone(&ids) as Arc<dyn Sight>, ids.root);
                    (Ownership::Mapped(ids as Arc<dyn Privileged>), Some(sight), Some(acting))
                }
                (layers, _) => {
                    let sight = native.map(|native| Arc::new(ZygoteSight::new(native)) as Arc<dyn Sight>);
                    (layers, sight, None)
                }
            };
            Ok(View {
                root: Arc::new(root.into()),
                ownership,
                sight,
                acting,
                _done: None,
            })
        })
        .await
    }

    /// Sets a container up that does not run; its turn is taken until the view is dropped.
    async fn view_of_held(self: &Arc<Self>, record: &Record) -> Result<View> {
        self.must_be_ours(record, "copy from or to")?;
        let (shared, id, detached) = (Arc::clone(self), record.id.clone(), record.is_detached());
        let (mut ready, wait) = oneshot::channel();
        self.parts.spawner.detach(async move {
            let slot = shared.slot(&id);
            if detached {
                slot.set_detached();
            }
            let _turn = shared.turn(&id, &slot).await;
            let cancel = Cancel::default();
            let mut hold = std::pin::pin!(shared.hold(&id, &cancel));
            let held = tokio::select! {
                held = &mut hold => held,
                // What waits for others need not wait any longer.
                () = ready.closed() => {
                    cancel.set();
                    hold.await
                }
            };
            let (answer, task) = match held {
                Ok((view, task)) => (Ok(view), task),
                Err(error) => (Err(error), None),
            };
            let (done, over) = oneshot::channel();
            let answer = answer.map(|view| View {
                _done: Some(done),
                ..view
            });
            if ready.send(answer).is_ok() {
                let _ = over.await;
            }
            let Some((task, record)) = task else { return };
            let _ = task.signal(Signal::KILL, true).await;
            let _ = task.wait().await;
            let _ = task.remove().await;
            shared.end_mounts(&record).await;
        });
        let gone = || {
            Error::new(
                ErrorKind::Cancelled,
                "the engine ended before the container's files were there",
            )
        };
        wait.await.map_err(|_| gone())?
    }

    /// A process that has the container's mounts and does nothing. In the container's turn.
    async fn hold(
        self: &Arc<Self>,
        id: &crate::types::ContainerId,
        cancel: &Cancel,
    ) -> Result<(View, Option<(Arc<dyn Task>, Record)>)> {
        let record = self.read(id).await?;
        if record.state.is_alive() {
            // It was started meanwhile.
            return Ok((self.view_of_running(&record).await?, None));
        }
        let mut quiet = record.clone();
        let spec = &mut quiet.body.spec;
        spec.network = NetworkMode::None;
        for mode in [
            &mut spec.pid_mode,
            &mut spec.ipc_mode,
            &mut spec.uts_mode,
            &mut spec.cgroup_mode,
        ] {
            *mode = NamespaceMode::Private;
        }
        spec.limits = Limits::default();
        (spec.tty, spec.open_stdin, spec.init) = (false, false, false);
        (spec.groups, spec.ulimits, spec.oom_score_adj) = (Vec::new(), Vec::new(), None);
        spec.sysctls.clear();
        spec.devices.clear();
        spec.device_rules.clear();
        spec.seccomp = super::Seccomp::Unconfined;
        let started = match self.hold_now(&quiet, cancel).await {
            Ok(started) => started,
            Err(error) => {
                self.end_mounts(&record).await;
                let short = record.id.short();
                return Err(error.context(format!("show the files of container {short}")));
            }
        };
        let view = match peer::identify(started.pid()) {
            Some(process) => self.view_at(process, &record).await,
            None => Err(Error::internal("a container that was set up has no process")),
        };
        match view {
            Ok(view) => Ok((view, Some((started, record)))),
            Err(error) => {
                let _ = started.signal(Signal::KILL, true).await;
                let _ = started.wait().await;
                let _ = started.remove().await;
                self.end_mounts(&record).await;
                Err(error)
            }
        }
    }

    async fn hold_now(self: &Arc<Self>, record: &Record, cancel: &Cancel) -> Result<Arc<dyn Task>> {
        // Devices may be gone since: files are looked at without.
        let mut record = record.clone();
        record.body.spec.cdi_devices.clear();
        let mut launch = self.launch(&record, cancel).await?;
        launch.hold = true;
        // Mounts are the container's user's; what waits here is nobody's.
        launch.user = Some("0:0".to_owned());
        Ok(self.parts.runtimes.usual.start(launch).await?.task)
    }
}

/// What a spot looks like.
fn looks_of(spot: &Spot, path: &str) -> PathStat {
    let name = match spot.shown.as_slice() {
        b"" if path.trim_matches('/').is_empty() => "/".to_owned(),
        b"" => ".".to_owned(),
        name => String::from_utf8_lossy(name).into_owned(),
    };
    let mut stat = PathStat::new(name);
    stat.size = u64::try_from(spot.looks.st_size).unwrap_or(0);
    stat.mode = spot.looks.st_mode;
    let seconds = u64::try_from(spot.looks.st_mtime).unwrap_or(0);
    let nanos = u32::try_from(spot.looks.st_mtime_nsec).unwrap_or(0);
    stat.modified = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
    stat.link_target = spot.link.as_ref().map(|link| {
        let link = String::from_utf8_lossy(link).into_owned();
        let from = Path::new("/").join(path.trim_start_matches('/'));
        let led = from.parent().unwrap_or(Path::new("/")).join(link);
        let mut clean = PathBuf::from("/");
        for part in led.components() {
            match part {
                std::path::Component::Normal(part) => clean.push(part),
                std::path::Component::ParentDir => drop(clean.pop()),
                _ => {}
            }
        }
        clean.display().to_string()
    });
    stat
}

fn tar_of(files: &BTreeMap<PathBuf, FileSpec>) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| Error::internal("files that make no archive").with_source(e);
    let mut archive = tar::Builder::new(Vec::new());
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    for (path, file) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(file.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(now.as_secs());
        header.set_size(file.bytes.len() as u64);
        let path = path.strip_prefix("/").unwrap_or(path);
        archive
            .append_data(&mut header, path, file.bytes.as_slice())
            .map_err(failed)?;
    }
    archive.into_inner().map_err(failed)
}

/// As whom a thread makes files. Through id-mapped mounts only the container's ids can be written down. Source: setfsuid(2).
#[derive(Debug, Clone, Copy)]
struct Acting(u32, u32);

impl Acting {
    /// Of this thread alone.
    fn begin(self) {
        nix::unistd::setfsgid(nix::unistd::Gid::from_raw(self.1));
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(self.0));
    }
}

/// The ids of a container with a user namespace of its own, for an engine of root's.
#[derive(Debug)]
struct Ids {
    maps: [Vec<IdRange>; 2],
    root: Acting,
}

impl Ids {
    fn new(maps: [Vec<IdRange>; 2]) -> Result<Self> {
        let root = Acting(Self::outside(&maps[0], 0)?, Self::outside(&maps[1], 0)?);
        Ok(Self { maps, root })
    }

    fn outside(ranges: &[IdRange], id: u32) -> Result<u32> {
        let range = ranges
            .iter()
            .find(|range| id >= range.inside && id - range.inside < range.count);
        let outside = range.map(|range| range.outside + (id - range.inside));
        outside.ok_or_else(|| {
            Error::invalid(format!("the container has no id {id}")).with_object(ObjectKind::User, id.to_string())
        })
    }

    fn inside(ranges: &[IdRange], id: u32) -> u32 {
        let range = ranges
            .iter()
            .find(|range| id >= range.outside && id - range.outside < range.count);
        range.map_or(65_534, |range| range.inside + (id - range.outside))
    }
}

impl Sight for Ids {
    fn open(
        &self,
        _dir: std::os::fd::BorrowedFd<'_>,
        _path: &std::ffi::CStr,
        _flags: nix::fcntl::OFlag,
    ) -> std::io::Result<OwnedFd> {
        Err(std::io::Error::from_raw_os_error(libc::EACCES))
    }

    fn attribute(
        &self,
        _file: std::os::fd::BorrowedFd<'_>,
        _name: &std::ffi::CStr,
    ) -> std::io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn ids_inside(&self, uid: u32, gid: u32) -> (u32, u32) {
        (Self::inside(&self.maps[0], uid), Self::inside(&self.maps[1], gid))
    }
}

impl Privileged for Ids {
    fn change_owners(&self, changes: Vec<(OwnedFd, OwnerChange)>) -> Result<()> {
        use nix::fcntl::AtFlags;
        use nix::unistd::{Gid, Uid, fchownat};
        // Giving files away is the engine's own right.
        Acting(0, 0).begin();
        for (fd, change) in changes {
            let (uid, gid) = (
                Self::outside(&self.maps[0], change.uid)?,
                Self::outside(&self.maps[1], change.gid)?,
            );
            let ids = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            fchownat(&fd, "", ids.0, ids.1, AtFlags::AT_EMPTY_PATH).map_err(|e| Error::os("fchownat", e))?;
            if let Some(mode) = change.mode {
                let mode = nix::sys::stat::Mode::from_bits_truncate(mode);
                nix::sys::stat::fchmod(&fd, mode).map_err(|e| Error::os("fchmod", e))?;
            }
            for (name, value) in &change.xattrs {
                let name =
                    std::ffi::CString::new(name.as_str()).map_err(|_| Error::internal("an attribute with a NUL"))?;
                crate::sys::xattr::set(&fd, &name, value).map_err(|e| Error::os("set extended attribute", e))?;
            }
        }
        self.root.begin();
        Ok(())
    }

    fn remove_tree(&self, path: &Path) -> Result<()> {
        crate::storage::snapshot::delete_tree(path)
    }
}
