//! `start`: mounts from the storage driver, the process from the runtime, pumps and a monitor on the driver.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::cdi;
use super::connect::Places;
use super::devices;
use super::etc;
use super::feed;
use super::health::Health;
use super::local::{Live, Place, Shared, Slot};
use super::monitor::{Begun, Streams};
use super::peer;
use super::plan;
use super::record::{ExitRecord, Record, now_ns};
use super::spec::NamespaceMode;
use super::state::{ContainerState, Move, Verb, decide};
use super::stubs;
use super::{AttachOptions, Attached, ContainerSpec};
use crate::driver::{Cancel, closed};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::logs::{LogSink, LogStream};
use crate::runtime::{Launch, Restore, Started, Task};
use crate::storage::snapshot::SnapshotKey;
use crate::sys::blocking::blocking;
use crate::types::{ExitStatus, Outcome, Signal};

/// Where the files are of what is to be started.
#[derive(Debug, Clone)]
pub(super) struct Ground {
    /// The writable snapshot.
    pub(super) key: SnapshotKey,
    /// A directory for what is shown in `/etc`.
    pub(super) dir: PathBuf,
    /// Whether its variables may be written down: those of a build's command may be secrets.
    pub(super) tells_env: bool,
    /// Whether a container that runs sees those files: what is there stays as it is.
    pub(super) in_use: bool,
}

impl Shared {
    pub(crate) async fn start(self: &Arc<Self>, name: &str, cancel: &Cancel) -> Result<Outcome> {
        let (id, slot) = match self.place_of(name).await? {
            Place::Here(id, slot) => (id, slot),
            Place::Elsewhere(elsewhere) => return cancel.or(elsewhere.start()).await,
        };
        let _turn = self.turn(&id, &slot).await?;
        let record = self.read_in_turn(&id, &slot).await?;
        if decide(&record.id, record.state, Verb::Start)? == Move::Already {
            return Ok(Outcome::Already);
        }
        self.start_anew(record, &slot, cancel).await?;
        Ok(Outcome::Done)
    }

    /// Attaches to a container and starts it: in one turn, and told with one write, where it is one of ours that ends with us.
    pub(crate) async fn start_attached(
        self: &Arc<Self>,
        name: &str,
        options: AttachOptions,
        cancel: &Cancel,
    ) -> Result<(Attached, Outcome)> {
        if let Some((id, slot)) = self.known_slot(name).filter(|(_, slot)| !slot.is_detached()) {
            let _turn = self.turn(&id, &slot).await?;
            let record = self.read_in_turn(&id, &slot).await?;
            if decide(&record.id, record.state, Verb::Start)? != Move::Already {
                let attached = self.streams_of(&record, &slot, options)?;
                slot.owe(self.event(&record, "attach"));
                self.start_anew(record, &slot, cancel).await?;
                return Ok((attached, Outcome::Done));
            }
        }
        let attached = self.attach(name, options).await?;
        let outcome = self.start(name, cancel).await?;
        Ok((attached, outcome))
    }

    /// Starts a container because somebody asked for it.
    async fn start_anew(self: &Arc<Self>, mut record: Record, slot: &Arc<Slot>, cancel: &Cancel) -> Result<()> {
        record.body.restarts = 0;
        slot.begin_anew();
        let started = self.start_now(record.clone(), slot, cancel).await;
        if let Err(error) = &started {
            for event in slot.take_owed() {
                self.tell(event).await;
            }
            self.note_failure(record, error).await;
        }
        started
    }

    /// Starts a container that does not run. Whoever calls this has its turn.
    pub(crate) fn start_now<'a>(
        self: &'a Arc<Self>,
        record: Record,
        slot: &'a Arc<Slot>,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, Result<()>> {
        self.start_from(record, slot, cancel, None)
    }

    /// The same, from a checkpoint if there is one.
    pub(super) fn start_from<'a>(
        self: &'a Arc<Self>,
        record: Record,
        slot: &'a Arc<Slot>,
        cancel: &'a Cancel,
        from: Option<Restore>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if record.is_detached() {
                return self.start_under_shim(record, slot, cancel).await;
            }
            cancel.check()?;
            if self.is_closing() {
                return Err(closed());
            }
            let id = record.id.clone();
            let (launch, places) = match self.launch_with_places(&record, cancel).await {
                Ok(launched) => launched,
                Err(error) => {
                    self.end_mounts(&record).await;
                    return Err(error);
                }
            };
            let started = self.start_launched(record, slot, cancel, (launch, from), places).await;
            if started.is_err() {
                self.leave_networks(&id).await;
            }
            started
        })
    }

    async fn start_launched(
        self: &Arc<Self>,
        mut record: Record,
        slot: &Arc<Slot>,
        cancel: &Cancel,
        (launch, from): (Launch, Option<Restore>),
        places: Places,
    ) -> Result<()> {
        (record.body.endpoints, record.body.ports) = (places.endpoints, places.ports);
        // Not dropped when the caller goes away: the container's files are in use until its process is gone, and the verb
        // that comes next removes them. The log is opened while the container is being set up.
        let runtime = match self.runtime_of(&record.body.spec) {
            Ok(runtime) => runtime,
            Err(error) => {
                self.end_mounts(&record).await;
                return Err(about(&record, error));
            }
        };
        let starting = match from {
            None => runtime.start(launch),
            Some(from) => runtime.restore(launch, from),
        };
        let (started, sink) = futures_util::join!(starting, self.log_sink(&record));
        let started = match started {
            Ok(started) => started,
            Err(error) => {
                self.end_mounts(&record).await;
                return Err(about(&record, error));
            }
        };
        let task = Arc::clone(&started.task);
        let warnings = started.warnings.clone();
        let streams = match streams(started, slot, sink).and_then(|streams| cancel.check().map(|()| streams)) {
            Ok(streams) => streams,
            Err(error) => {
                let error = abandon(&*task, error).await;
                self.end_mounts(&record).await;
                return Err(error);
            }
        };
        slot.set_live(Some(Live {
            task: Arc::clone(&task),
            detached: None,
        }));
        let users = record.clone();
        // Its output is read from now on: what follows on its end may be all that is waited for.
        let (tell, recorded) = oneshot::channel();
        let (shared, begun) = (Arc::clone(self), Begun::of(&record));
        let monitor = shared.monitor(recorded, begun, Arc::clone(slot), Arc::clone(&task), streams);
        let recording = self.record_running(record, slot, Arc::clone(&task), warnings);
        let monitoring = async { self.parts.spawner.background(monitor) };
        let (recorded, _) = futures_util::join!(recording, monitoring);
        let record = match recorded {
            Ok(record) => record,
            Err(error) => {
                // Whoever wanted it to go with this run's end waits for another's.
                slot.end_run();
                let error = abandon(&*task, error).await;
                self.end_mounts(&users).await;
                return Err(error);
            }
        };
        self.watch_health(&record, slot, &task);
        let _ = tell.send(record);
        Ok(())
    }

    async fn record_running(
        &self,
        mut record: Record,
        slot: &Arc<Slot>,
        task: Arc<dyn Task>,
        warnings: Vec<String>,
    ) -> Result<Record> {
        record.body.warnings = warnings;
        record.body.started_ns = Some(now_ns());
        record.body.finished_ns = None;
        record.body.exit = None;
        record.body.error = None;
        let check = record.health_check().plan(&record.body.image.shell);
        record.body.health = check.map(|_| Health::default());
        let mut events = slot.take_owed();
        events.push(self.event(&record, "start"));
        let from = record.state.as_str();
        record.state = ContainerState::Running;
        let slot = Arc::clone(slot);
        self.parts
            .store
            .call(move |store| {
                record.body.process = peer::identity_of(&*task);
                let (to, body) = (record.state.as_str(), record.body.to_json()?);
                slot.know(&body, &record.body);
                store.update_container(&record.id, from, to, &body, &events)?;
                Ok(record)
            })
            .await
    }

    /// Makes a container's files, and says what the runtime needs to know.
    /// As it would be started, on no network: for whoever only looks.
    pub(super) async fn launch(self: &Arc<Self>, record: &Record, cancel: &Cancel) -> Result<Launch> {
        self.launch_in(record, &Places::default(), false, cancel).await
    }

    /// The same, of one that runs, and does not notice.
    pub(super) async fn launch_in_use(self: &Arc<Self>, record: &Record, cancel: &Cancel) -> Result<Launch> {
        self.launch_in(record, &Places::default(), true, cancel).await
    }

    async fn launch_with_places(self: &Arc<Self>, record: &Record, cancel: &Cancel) -> Result<(Launch, Places)> {
        let places = self.join_networks(record).await?;
        match self.launch_in(record, &places, false, cancel).await {
            Ok(launch) => Ok((launch, places)),
            Err(error) => {
                self.leave_networks(&record.id).await;
                Err(error)
            }
        }
    }

    fn launch_in<'a>(
        self: &'a Arc<Self>,
        record: &'a Record,
        places: &'a Places,
        in_use: bool,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, Result<Launch>> {
        Box::pin(async move {
            let ground = Ground {
                key: record.snapshot_key(),
                dir: self.dir_of(&record.id),
                tells_env: true,
                in_use,
            };
            self.launch_on(record, ground, places, cancel).await
        })
    }

    /// As it would be started on files that are elsewhere than a container's.
    pub(super) fn launch_on<'a>(
        self: &'a Arc<Self>,
        record: &'a Record,
        ground: Ground,
        places: &'a Places,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, Result<Launch>> {
        Box::pin(async move {
            let rootfs = self.parts.snapshotter.mounts(&ground.key).await?;
            let namespaces = self.shared_namespaces(&record.body.spec).await?;
            let mounts = self.ready_mounts(record, cancel).await?;
            let (shared, mut record) = (Arc::clone(self), record.clone());
            if let Some(name) = self.hostname_of_peer(&record.body.spec).await? {
                record.body.spec.hostname = Some(name);
            }
            let seen = etc::Seen::new(&record.body.spec, places, self.dir_of_peer(&record.body.spec));
            let mut launch = blocking(move || shared.launch_of(&record, &ground, rootfs, &seen)).await?;
            launch.shared = namespaces;
            launch.shared.extend(places.namespace());
            plan::make_room(&mut launch.spec, mounts.iter().map(|mount| mount.target.as_path()));
            launch.mounts = mounts;
            Ok(launch)
        })
    }

    /// Blocking.
    fn launch_of(
        &self,
        record: &Record,
        ground: &Ground,
        mut rootfs: Vec<crate::types::Mount>,
        seen: &etc::Seen,
    ) -> Result<Launch> {
        let (spec, image) = (&record.body.spec, &record.body.image);
        let mut scratch = self.parts.snapshotter.directories(&ground.key);
        scratch.push(ground.dir.clone());
        scratch.extend(self.scratch_of_volumes(record));
        stubs::put_below(&mut rootfs, self.stubs()?);
        if let Some(root) = rootfs.first_mut() {
            root.read_only |= spec.read_only;
        }
        let edits = self.cdi_edits(spec)?;
        let gids = edits.gids.iter().map(u32::to_string);
        let extra_groups = spec.groups.iter().cloned().chain(gids).collect();
        Ok(Launch {
            id: record.id.clone(),
            spec: self.oci_spec(record, ground, seen, &edits)?,
            user: plan::user(spec, image),
            extra_groups,
            rootfs,
            stdio: plan::stdio(spec),
            init: spec.init,
            scratch,
            best_effort_limits: spec.limits.best_effort,
            shared: Vec::new(),
            privileged: devices::are_made(spec),
            mounts: Vec::new(),
            hold: false,
            bundle: Some(ground.dir.clone()),
            name: None,
            // The usual ones are found by their owner.
            notes: spec.cgroup_parent.is_some().then(|| ground.dir.clone()),
        })
    }

    /// The plan, with the files for `/etc` shown over the image's. Blocking.
    fn oci_spec(
        &self,
        record: &Record,
        ground: &Ground,
        seen: &etc::Seen,
        edits: &cdi::Edits,
    ) -> Result<oci_spec::runtime::Spec> {
        let (spec, image) = (&record.body.spec, &record.body.image);
        let mut planned = plan::oci_spec(&record.id, spec, image)?;
        let hostname = plan::hostname(spec, &record.id);
        let files = etc::write((&ground.dir, ground.in_use), spec, &hostname, seen)?;
        let mut mounts = planned.mounts().clone().unwrap_or_default();
        for (file, place) in files {
            mounts.push(plan::bind_mount(&file, &place, false)?);
        }
        if spec.ipc_mode == NamespaceMode::Host && self.parts.ownership != "direct" {
            // Only whoever owns an IPC namespace may mount its message queues.
            let queues = Path::new("/dev/mqueue");
            mounts.retain(|mount| mount.destination() != queues);
            if queues.is_dir() {
                mounts.push(plan::bind_mount(queues, queues, false)?);
            }
        }
        planned.set_mounts(Some(mounts));
        cdi::apply(&mut planned, edits)?;
        devices::add(&mut planned, spec, &edits.nodes, self.parts.ownership == "direct")?;
        cdi::write_bundle(&planned, ground)?;
        Ok(planned)
    }

    /// What the devices of a container change in it. Blocking.
    fn cdi_edits(&self, spec: &ContainerSpec) -> Result<cdi::Edits> {
        match spec.cdi_devices.as_slice() {
            [] => Ok(cdi::Edits::default()),
            names => self.cdi().edits(names),
        }
    }

    /// Where specifications of devices are.
    pub(crate) fn cdi_directories(&self) -> Vec<PathBuf> {
        let said = self.parts.cdi.as_deref().map(<[PathBuf]>::to_vec);
        said.unwrap_or_else(|| cdi::DIRECTORIES.map(PathBuf::from).into())
    }

    /// The devices that there are. Blocking.
    pub(crate) fn cdi(&self) -> cdi::Registry {
        cdi::Registry::load(&self.cdi_directories())
    }

    /// A container that could not be started stays as it was, with the reason and Docker's exit code noted.
    async fn note_failure(&self, mut record: Record, error: &Error) {
        record.body.error = Some(error.report());
        if error.kind() != &ErrorKind::Cancelled {
            record.body.exit = Some(ExitRecord {
                status: ExitStatus::exited(exit_code(error)),
                oom_killed: None,
            });
        }
        let state = record.state;
        if let Err(error) = self.record_state(&mut record, state, "die").await {
            tracing::warn!(container = %record.id, error = error.report(), "a failed start could not be noted");
        }
    }
}

/// The exit code of a container that could not start. Source: moby, daemon/start.go and daemon/errors.go.
pub(super) fn exit_code(error: &Error) -> u8 {
    match (error.kind(), error.errno()) {
        (ErrorKind::CommandNotFound, _) | (_, Some(libc::ENOTDIR)) => 127,
        (ErrorKind::CommandNotExecutable, _) | (_, Some(libc::EACCES)) => 126,
        _ => 128,
    }
}

/// The container that the error is about, unless it says already.
fn about(record: &Record, error: Error) -> Error {
    let short = record.id.short().to_owned();
    match (error.kind(), error.object()) {
        (ErrorKind::CommandNotFound | ErrorKind::CommandNotExecutable, _) => error,
        // The user that is missing, say: "not found" must not sound as if the container were.
        (_, Some((ObjectKind::User, _))) => error.context(format!("start container {short}")),
        _ => error
            .context(format!("start container {short}"))
            .with_object(ObjectKind::Container, record.id.as_str()),
    }
}

/// Ends what was started in vain.
async fn abandon(task: &dyn Task, error: Error) -> Error {
    let _ = task.signal(Signal::KILL, true).await;
    let _ = task.wait().await;
    let _ = task.remove().await;
    error
}

/// Our ends of the standard streams.
fn streams(started: Started, slot: &Slot, sink: Result<Arc<dyn LogSink>>) -> Result<Streams> {
    let mut outputs = Vec::new();
    let mut input = None;
    if let Some(terminal) = started.terminal {
        let writer = terminal
            .try_clone()
            .map_err(|error| Error::os("duplicate the terminal", error))?;
        input = Some(feed::writable(writer)?);
        outputs.push((terminal, LogStream::Stdout));
    }
    outputs.extend(started.stdout.map(|fd| (fd, LogStream::Stdout)));
    outputs.extend(started.stderr.map(|fd| (fd, LogStream::Stderr)));
    if let Some(fd) = started.stdin {
        input = Some(feed::writable(fd)?);
    }
    let feed = input.map(|fd| (fd, slot.input.begin()));
    Ok(Streams {
        outputs,
        feed,
        sink,
        output: slot.next_output(),
        asked: slot.next_handing(),
    })
}
