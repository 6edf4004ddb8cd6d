//! The in-process container manager: what its verbs share.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use super::asking::{Elsewhere, FarExecs};
use super::execs::Execs;
use super::listed::Listed;
use super::policy::RestartPolicy;
use super::promote::Handing;
use super::record::{Body, ExitRecord, Record};
use super::runtimes::Runtimes;
use super::state::ContainerState;
use super::stdin::Stdin;
use super::stubs;
use super::sweep::Swept;
use super::{
    AttachOptions, Attached, BoxStream, CheckpointOptions, CommitOptions, ContainerExit, ContainerInfo,
    ContainerManager, ContainerSpec, ContainerSummary, CopiedOut, CopyInOptions, Created, Exec, ExecInfo, ExecSpec,
    Exiting, Lifetime, Limits, ListOptions, PathStat, Pruned, RemoveOptions, Stats, StatsOptions, StopOptions, Top,
    WaitCondition,
};
use crate::driver::Spawner;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::events::Event;
use crate::images::{ByteStream, ImageManager};
use crate::logs::{LogDrivers, LogEntries, LogQuery, Tee};
use crate::runtime::Task;
use crate::runtime::detached::DetachedTask;
use crate::runtime::native::NativeRuntime;
use crate::storage::ownership::Ownership;
use crate::storage::snapshot::Snapshotter;
use crate::store::{Locks, Owners, Store};
use crate::types::{
    Change, ContainerId, ContainerName, EndpointSpec, ExitStatus, Filter, ImageId, Outcome, OwnerId, Shaping, Signal,
};
use crate::volumes::LocalVolumes;

/// What the engine hands the manager.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) spawner: Spawner,
    pub(crate) store: Store,
    pub(crate) owners: Owners,
    pub(crate) owner: OwnerId,
    pub(crate) images: Arc<dyn ImageManager>,
    pub(crate) snapshotter: Arc<dyn Snapshotter>,
    #[cfg(feature = "network")]
    pub(crate) networks: crate::networks::LocalNetworks,
    pub(crate) runtimes: Arc<Runtimes>,
    pub(crate) logs: LogDrivers,
    /// Holds a directory per container.
    pub(crate) dir: PathBuf,
    /// `direct`, `mapped` or `squashed`.
    pub(crate) ownership: &'static str,
    /// How the owners of files are kept in layers.
    pub(crate) layers: Ownership,
    /// Where an ordinary user's files may belong to other ids: who sees them.
    pub(crate) native: Option<Arc<NativeRuntime>>,
    /// Who makes mounts to look at.
    pub(crate) root: Arc<NativeRuntime>,
    pub(crate) volumes: LocalVolumes,
    /// What all processes see of who has whose turn.
    pub(crate) locks: Locks,
    /// Of containers that do not say.
    pub(crate) lifetime: Lifetime,
    /// Where specifications of devices are; those of the specification, if nothing is said.
    pub(crate) cdi: Option<Arc<[PathBuf]>>,
}

/// Containers of this process, on one root.
#[derive(Clone)]
pub(crate) struct LocalContainers(pub(crate) Arc<Shared>);

/// What all verbs share.
pub(crate) struct Shared {
    /// For what goes on when a verb has answered.
    pub(crate) me: Weak<Shared>,
    pub(crate) parts: Parts,
    slots: Mutex<HashMap<ContainerId, Arc<Slot>>>,
    /// What the last list read.
    pub(super) listed: Listed,
    /// Where the places for mounts are, once they are made.
    stubs: OnceLock<PathBuf>,
    pub(crate) execs: Execs,
    /// Commands in containers of other processes.
    pub(crate) far_execs: FarExecs,
    /// Whether other processes can ask.
    pub(crate) listening: OnceLock<()>,
    /// The engine is about to end: nothing is started any more.
    closing: AtomicBool,
}

/// A container of ours, from create to remove.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Held while a verb changes the container: starts and removals of one container take turns.
    pub(crate) turn: tokio::sync::Mutex<()>,
    output: Mutex<Tee>,
    /// Its stdin, on this side.
    pub(crate) input: Arc<Stdin>,
    live: Mutex<Option<Live>>,
    /// Whether it is to go with the end of the run that is under way. Changed with `live` in hand.
    goes: AtomicBool,
    /// What is told with its next start, whether that succeeds or not.
    owed: Mutex<Vec<Event>>,
    /// What its row held when this process wrote it last: as text, and as it was.
    known: Mutex<Option<(String, Arc<Body>)>>,
    /// How many restarts are under way.
    pub(crate) restarting: AtomicU32,
    /// Somebody has ended it since its last start: its restart policy has nothing to say.
    halted: AtomicBool,
    /// The pause before the last restart by its policy.
    pause: Mutex<Option<Duration>>,
    /// For waiters.
    pub(crate) life: watch::Sender<Life>,
    /// Whether it outlives its engine: others may have their turn.
    detached: AtomicBool,
    /// Held while its shim is being connected to.
    pub(crate) adopting: tokio::sync::Mutex<()>,
    /// Whether its output comes here from its shim.
    relayed: AtomicBool,
    /// What the shim that was heard last had told.
    told: Mutex<Told>,
    /// Whether this engine takes, or waits to take, the place of its shim.
    standing_in: AtomicBool,
    /// Leads to whoever reads the streams of its present run, or read those of its last.
    handing: Mutex<Option<mpsc::Sender<Handing>>>,
}

/// What waiters must know of a container.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Life {
    /// How often it has ended.
    pub(crate) ends: u64,
    /// When it ended last.
    pub(crate) finished_ns: Option<i64>,
    /// How it ended last.
    pub(crate) exit: Option<ExitRecord>,
    /// Whether its record does not say yet that it has ended, for want of space.
    pub(crate) unrecorded: bool,
    /// Whether it is gone.
    pub(crate) removed: bool,
}

/// What a shim has told of its container's ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Which shim.
    pub(crate) shim: u32,
    /// How many runs have ended.
    pub(crate) ends: u64,
    /// Whether the last of them was the last: a pause before a restart may have been ended.
    pub(crate) over: bool,
    /// When the last of them was: another shim may have the number of a former one.
    pub(crate) finished_ns: Option<i64>,
}

/// Where verbs on a container are done.
pub(crate) enum Place {
    /// Here.
    Here(ContainerId, Arc<Slot>),
    /// In another live process.
    Elsewhere(Elsewhere),
}

/// A container of ours that runs.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) task: Arc<dyn Task>,
    /// The same, of a detached one: what only its shim can do.
    pub(crate) detached: Option<Arc<dyn DetachedTask>>,
}

impl Live {
    /// Whether its shim has hung up.
    pub(crate) fn is_gone(&self) -> bool {
        self.detached.as_ref().is_some_and(|task| task.is_gone())
    }

    fn is(&self, task: &Arc<dyn DetachedTask>) -> bool {
        self.detached.as_ref().is_some_and(|mine| Arc::ptr_eq(mine, task))
    }
}

impl fmt::Debug for LocalContainers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalContainers")
            .field("owner", &self.0.parts.owner)
            .finish_non_exhaustive()
    }
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            turn: tokio::sync::Mutex::default(),
            output: Mutex::default(),
            input: Arc::default(),
            live: Mutex::default(),
            goes: AtomicBool::new(false),
            owed: Mutex::default(),
            known: Mutex::default(),
            restarting: AtomicU32::new(0),
            halted: AtomicBool::new(false),
            pause: Mutex::default(),
            life: watch::Sender::new(Life::default()),
            detached: AtomicBool::new(false),
            adopting: tokio::sync::Mutex::default(),
            relayed: AtomicBool::new(false),
            told: Mutex::default(),
            standing_in: AtomicBool::new(false),
            handing: Mutex::default(),
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    /// Its output, for attached readers.
    pub(crate) fn output(&self) -> Tee {
        lock(&self.output).clone()
    }

    /// Its output from the next start on: a container that has ended gets new streams, once.
    pub(crate) fn next_output(&self) -> Tee {
        let mut output = lock(&self.output);
        if output.is_closed() {
            *output = Tee::new();
        }
        output.clone()
    }

    pub(crate) fn live(&self) -> Option<Live> {
        lock(&self.live).clone()
    }

    pub(crate) fn set_live(&self, live: Option<Live>) {
        *lock(&self.live) = live;
    }

    /// For whoever reads the streams of a run that begins: somebody may ask for them, from this moment on.
    pub(crate) fn next_handing(&self) -> mpsc::Receiver<Handing> {
        let (sender, receiver) = mpsc::channel(1);
        *lock(&self.handing) = Some(sender);
        receiver
    }

    /// Where whoever reads its streams is asked for them. Closed once its run is over.
    pub(crate) fn handing(&self) -> Option<mpsc::Sender<Handing>> {
        lock(&self.handing).clone()
    }

    /// As [`Self::live`], unless its shim has hung up.
    pub(crate) fn heard(&self) -> Option<Live> {
        self.live().filter(|live| !live.is_gone())
    }

    /// Forgets a connection that has ended, unless there is another already.
    pub(crate) fn let_go_of(&self, task: &Arc<dyn DetachedTask>) {
        let mut live = lock(&self.live);
        if live.as_ref().is_none_or(|live| live.is(task)) {
            *live = None;
        }
    }

    /// Has it go with the end of the run that is under way. False if none is.
    pub(crate) fn go_with_end(&self) -> bool {
        let live = lock(&self.live);
        self.goes.store(live.is_some(), Ordering::Release);
        live.is_some()
    }

    /// It does not run any more. Whether it is to go with that.
    pub(crate) fn end_run(&self) -> bool {
        let mut live = lock(&self.live);
        *live = None;
        self.goes.swap(false, Ordering::AcqRel)
    }

    /// Has an event told with the start that is about to be tried, by whoever has its turn.
    pub(crate) fn owe(&self, event: Event) {
        lock(&self.owed).push(event);
    }

    /// Keeps what is about to be written down of it, so that it need not be understood when it is read again.
    pub(crate) fn know(&self, text: &str, body: &Body) {
        *lock(&self.known) = Some((text.to_owned(), Arc::new(body.clone())));
    }

    /// What a row's text says, if this process has written it.
    fn known(&self, text: &str) -> Option<Arc<Body>> {
        let known = lock(&self.known);
        known
            .as_ref()
            .filter(|(of, _)| of == text)
            .map(|(_, body)| Arc::clone(body))
    }

    pub(crate) fn take_owed(&self) -> Vec<Event> {
        std::mem::take(&mut lock(&self.owed))
    }

    /// Somebody ends it: its restart policy does not start it again.
    pub(crate) fn halt(&self) {
        self.halted.store(true, Ordering::Release);
    }

    pub(crate) fn is_halted(&self) -> bool {
        self.halted.load(Ordering::Acquire)
    }

    /// Whether a call of `restart` is at it.
    pub(crate) fn is_restarted(&self) -> bool {
        self.restarting.load(Ordering::Acquire) > 0
    }

    /// Somebody starts it: what its restart policy has done before does not count.
    pub(crate) fn begin_anew(&self) {
        self.halted.store(false, Ordering::Release);
        *lock(&self.pause) = None;
    }

    /// The next pause before a restart, after the last.
    pub(crate) fn next_pause(&self, next: impl FnOnce(Option<Duration>) -> Duration) -> Duration {
        let mut pause = lock(&self.pause);
        let next = next(*pause);
        *pause = Some(next);
        next
    }

    pub(crate) fn is_detached(&self) -> bool {
        self.detached.load(Ordering::Acquire)
    }

    pub(crate) fn set_detached(&self) {
        self.detached.store(true, Ordering::Release);
    }

    /// False if it is so already.
    pub(crate) fn begin_standing_in(&self) -> bool {
        !self.standing_in.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn end_standing_in(&self) {
        self.standing_in.store(false, Ordering::Release);
    }

    pub(crate) fn is_relayed(&self) -> bool {
        self.relayed.load(Ordering::Acquire)
    }

    pub(crate) fn set_relayed(&self, relayed: bool) {
        self.relayed.store(relayed, Ordering::Release);
    }

    /// Tells waiters of the ends of a shim's container that they have not been told of.
    pub(crate) fn tell_ends(&self, now: Told, exit: Option<ExitRecord>) {
        let mut told = lock(&self.told);
        let before = match told.shim == now.shim {
            true => *told,
            // A new one under the same run goes on with what the one before had told.
            false => Told {
                finished_ns: told.finished_ns,
                ..Told::default()
            },
        };
        *told = now;
        drop(told);
        let another = now.ends > 0 && now.finished_ns != before.finished_ns;
        if another || (now.over && !before.over) || self.life.borrow().unrecorded {
            self.tell_ended(now.finished_ns, exit, true);
        }
    }

    /// As [`Self::tell_ends`], of a shim that another has followed: tells those who wait for the end of that run still.
    pub(crate) fn tell_former_end(&self, former: Told, exit: Option<ExitRecord>) {
        let told = *lock(&self.told);
        let awaited = told.shim == 0 || told.shim == former.shim && !told.over;
        if former.over && awaited {
            self.tell_ends(former, exit);
        }
    }

    /// As [`Self::tell_ends`], of a container whose end somebody else has put down.
    pub(crate) fn tell_row(&self, record: &Record) {
        if record.state != ContainerState::Exited {
            return;
        }
        let mark = record.body.mark.unwrap_or_default();
        let told = Told {
            shim: mark.shim,
            ends: mark.ends,
            over: true,
            finished_ns: record.body.finished_ns,
        };
        self.tell_ends(told, record.body.exit);
    }

    /// A shim that nobody has been told of an end of.
    pub(crate) fn begin_shim(&self, shim: u32) {
        let mut told = lock(&self.told);
        if told.shim != shim {
            *told = Told {
                shim,
                ..Told::default()
            };
        }
    }

    /// Takes over from a shim that was found: how its container ended before is nothing that anybody waits for.
    pub(crate) fn adopt(&self, shim: u32, ends: u64, finished_ns: i64, exit: Option<ExitRecord>) {
        let mut told = lock(&self.told);
        if told.shim == shim || ends == 0 {
            return;
        }
        *told = Told {
            shim,
            ends,
            over: false,
            finished_ns: Some(finished_ns),
        };
        drop(told);
        self.life.send_if_modified(|life| {
            (life.finished_ns, life.exit) = (Some(finished_ns), exit);
            false
        });
    }

    /// The shim has gone: nothing more comes from it. The next run's may be there already, whose streams these are then.
    pub(crate) fn end_connection(&self, task: &Arc<dyn DetachedTask>) {
        self.let_go_of(task);
        self.end_streams();
    }

    /// Its run is over, unless another has begun: who reads its output or writes its stdin comes to an end.
    pub(crate) fn end_streams(&self) {
        if self.live().is_some() {
            return;
        }
        self.input.end();
        if !self.is_relayed() {
            self.output().close();
        }
    }

    /// Tells waiters that it has ended, and whether that could be recorded. One end may be told again once it could.
    pub(crate) fn tell_ended(&self, finished_ns: Option<i64>, exit: Option<ExitRecord>, recorded: bool) {
        self.life.send_modify(|life| {
            life.ends += u64::from(!life.unrecorded);
            life.unrecorded = !recorded;
            life.finished_ns = finished_ns;
            life.exit = exit;
        });
    }

    /// Notes an end that is told with the removal that follows.
    pub(crate) fn note_ended(&self, finished_ns: Option<i64>, exit: Option<ExitRecord>) {
        self.life.send_if_modified(|life| {
            life.ends += 1;
            (life.finished_ns, life.exit) = (finished_ns, exit);
            false
        });
    }
}

impl LocalContainers {
    #[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new_cyclic(|me| Shared {
            me: Weak::clone(me),
            parts,
            slots: Mutex::default(),
            listed: Listed::default(),
            stubs: OnceLock::new(),
            execs: Execs::default(),
            far_execs: FarExecs::default(),
            listening: OnceLock::new(),
            closing: AtomicBool::new(false),
        }))
    }
}

impl Shared {
    /// Nothing is started from now on.
    pub(crate) fn begin_to_close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// The slot of a container of ours.
    pub(crate) fn slot(&self, id: &ContainerId) -> Arc<Slot> {
        Arc::clone(lock(&self.slots).entry(id.clone()).or_default())
    }

    /// The slot of a container of ours that is known by its whole id; without a look at the records.
    pub(crate) fn known_slot(&self, name: &str) -> Option<(ContainerId, Arc<Slot>)> {
        let id: ContainerId = name.parse().ok()?;
        let slot = lock(&self.slots).get(&id).map(Arc::clone)?;
        Some((id, slot))
    }

    /// Where verbs on a container are done: the slot of one of ours.
    pub(crate) async fn place_of(&self, name: &str) -> Result<Place> {
        if let Some((id, slot)) = self.known_slot(name) {
            return Ok(Place::Here(id, slot));
        }
        let record = self.find(name).await?;
        if let Some(elsewhere) = self.elsewhere(&record) {
            return Ok(Place::Elsewhere(elsewhere));
        }
        let slot = self.slot_of(&record);
        Ok(Place::Here(record.id, slot))
    }

    /// The slot of a container that must be ours.
    pub(crate) async fn own_slot(&self, name: &str, verb: &'static str) -> Result<(ContainerId, Arc<Slot>)> {
        if let Some(known) = self.known_slot(name) {
            return Ok(known);
        }
        let record = self.find(name).await?;
        self.must_be_ours(&record, verb)?;
        Ok((record.id.clone(), self.slot_of(&record)))
    }

    /// The slot of a container on which this engine may act.
    pub(crate) fn slot_of(&self, record: &Record) -> Arc<Slot> {
        let slot = self.slot(&record.id);
        if record.is_detached() {
            slot.set_detached();
        }
        slot
    }

    pub(crate) fn forget(&self, id: &ContainerId) {
        self.execs.forget_of(id);
        #[cfg(feature = "network")]
        self.parts.networks.forget(id);
        if let Some(slot) = lock(&self.slots).remove(id) {
            slot.output().close();
            slot.life.send_modify(|life| life.removed = true);
        }
    }

    /// All containers that run and end with this engine.
    pub(crate) fn all_bound(&self) -> Vec<Live> {
        let live = |slot: &Arc<Slot>| slot.live().filter(|live| live.detached.is_none());
        lock(&self.slots).values().filter_map(live).collect()
    }

    /// The slots of all containers of ours that a verb has touched.
    pub(crate) fn all_slots(&self) -> Vec<Arc<Slot>> {
        lock(&self.slots).values().cloned().collect()
    }

    pub(crate) fn is_ours(&self, record: &Record) -> bool {
        record.owner.as_ref() == Some(&self.parts.owner)
    }

    /// Directory of a container's files.
    pub(crate) fn dir_of(&self, id: &ContainerId) -> PathBuf {
        self.parts.dir.join(id.as_str())
    }

    /// The directory with places for mounts; made at the first call. Blocking.
    pub(crate) fn stubs(&self) -> Result<&Path> {
        if let Some(made) = self.stubs.get() {
            return Ok(made);
        }
        let dir = self.parts.dir.with_file_name("stubs");
        stubs::make(&dir)?;
        Ok(self.stubs.get_or_init(|| dir))
    }

    /// The record of a name, an id, or a prefix of an id. One whose owner died is swept on the way and not found.
    pub(crate) fn find<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Record>> {
        Box::pin(async move {
            let wanted = name.to_owned();
            let row = self.parts.store.call(move |store| look_up(store, &wanted)).await?;
            let record = Record::from_row(row)?;
            // The verb's span was opened with the name that the caller gave.
            tracing::Span::current().record("container", record.id.as_str());
            let record = match self.sweep(&record).await? {
                Swept::Living => record,
                Swept::Gone => return Err(no_such(name)),
                Swept::Kept => self.read(&record.id).await?,
            };
            self.settled(record).await?.ok_or_else(|| no_such(name))
        })
    }

    /// The record of an id, now.
    pub(crate) fn read<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<Record>> {
        Box::pin(async move {
            let wanted = id.clone();
            let row = self.parts.store.call(move |store| store.container(&wanted)).await?;
            let row = row.ok_or_else(|| no_such(id.as_str()))?;
            let slot = lock(&self.slots).get(id).map(Arc::clone);
            match slot.and_then(|slot| slot.known(&row.body)) {
                Some(body) => Record::with_body(row, Body::clone(&body)),
                None => Record::from_row(row),
            }
        })
    }

    /// Refuses what only the container's own process can do.
    pub(crate) fn must_be_ours(&self, record: &Record, verb: &'static str) -> Result<()> {
        if self.is_ours(record) || record.is_detached() {
            return Ok(());
        }
        let message = format!(
            "cannot {verb} container {}: it belongs to another live process; ask that one",
            record.id.short()
        );
        // It is in use, whatever its state: Docker's 409.
        Err(Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Container, record.id.as_str()))
    }
}

pub(crate) fn no_such(name: &str) -> Error {
    Error::not_found(ObjectKind::Container, name)
}

/// Full id, then name, then prefix: Docker's order.
fn look_up(store: &Store, name: &str) -> Result<crate::store::ContainerRow> {
    if let Ok(id) = name.parse::<ContainerId>()
        && let Some(row) = store.container(&id)?
    {
        return Ok(row);
    }
    if let Ok(name) = name.parse::<ContainerName>()
        && let Some(row) = store.container_by_name(&name)?
    {
        return Ok(row);
    }
    if name.is_empty() || !name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(no_such(name));
    }
    let mut found = store.containers_by_prefix(name)?;
    match (found.pop(), found.is_empty()) {
        (Some(row), true) => Ok(row),
        (None, _) => Err(no_such(name)),
        (Some(_), false) => Err(Error::invalid(format!(
            "several containers have an id that begins with {name}; give more of it"
        ))
        .with_object(ObjectKind::Container, name)),
    }
}

#[async_trait]
impl ContainerManager for LocalContainers {
    async fn create(&self, spec: ContainerSpec) -> Result<Created> {
        let (shared, undoing) = (Arc::clone(&self.0), Arc::clone(&self.0));
        let undo = move |made: Created| async move { undoing.remove_unwanted(&made.id).await };
        let work = |cancel| async move { shared.create(spec, &cancel).await };
        self.0.parts.spawner.tail(work, undo).await
    }

    async fn start(&self, name: &str) -> Result<Outcome> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        let (undoing, started) = (Arc::clone(&self.0), name.clone());
        let undo = move |outcome| async move {
            if outcome == Outcome::Done {
                let _ = undoing.signal_if_running(&started, Signal::KILL).await;
            }
        };
        let work = |cancel| async move { shared.start(&name, &cancel).await };
        self.0.parts.spawner.tail(work, undo).await
    }

    async fn start_attached(&self, name: &str, options: AttachOptions) -> Result<Attached> {
        if options.logs {
            // Where the log is cut, the pumps must stand still.
            let attached = self.attach(name, options).await?;
            self.start(name).await?;
            return Ok(attached);
        }
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        let (undoing, started) = (Arc::clone(&self.0), name.clone());
        let undo = move |(_, outcome)| async move {
            if outcome == Outcome::Done {
                let _ = undoing.signal_if_running(&started, Signal::KILL).await;
            }
        };
        let work = |cancel| async move { shared.start_attached(&name, options, &cancel).await };
        let (attached, _) = self.0.parts.spawner.tail(work, undo).await?;
        Ok(attached)
    }

    async fn wait(&self, name: &str, condition: WaitCondition) -> Result<Exiting> {
        self.0.parts.spawner.check_fork()?;
        if let Some(exiting) = self.0.wait_for_running(name, condition) {
            return Ok(exiting);
        }
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        let registering = async move { shared.wait(&name, condition).await };
        self.0.parts.spawner.call_blocking(registering).await
    }

    async fn wait_and_remove(&self, name: &str) -> Result<ContainerExit> {
        self.0.parts.spawner.check_fork()?;
        let exit = match self.0.go_with_end(name) {
            Some(ending) => match ending.await? {
                (exit, true) => return Ok(exit),
                (exit, false) => exit,
            },
            None => self.wait(name, WaitCondition::Exited).await?.await?,
        };
        self.remove(name, RemoveOptions::force()).await?;
        Ok(exit)
    }

    async fn kill(&self, name: &str, signal: Signal) -> Result<()> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        self.0
            .parts
            .spawner
            .call_blocking(async move { shared.kill(&name, signal).await })
            .await
    }

    async fn stop(&self, name: &str, options: StopOptions) -> Result<Outcome> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        self.0
            .parts
            .spawner
            .call_blocking(async move { shared.stop(&name, options).await })
            .await
    }

    async fn remove(&self, name: &str, options: RemoveOptions) -> Result<Outcome> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        let work = |_| async move { shared.remove(&name, options).await };
        self.0.parts.spawner.tail(work, |_| async {}).await
    }

    async fn inspect(&self, name: &str) -> Result<ContainerInfo> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        self.0
            .parts
            .spawner
            .call_blocking(async move { shared.inspect(&name).await })
            .await
    }

    async fn list(&self, options: ListOptions) -> Result<Vec<ContainerSummary>> {
        let shared = Arc::clone(&self.0);
        self.0
            .parts
            .spawner
            .call_blocking(async move { shared.list(&options).await })
            .await
    }

    async fn logs(&self, name: &str, query: LogQuery) -> Result<LogEntries> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        self.0
            .parts
            .spawner
            .call_blocking(async move { shared.logs(&name, query).await })
            .await
    }

    async fn attach(&self, name: &str, options: AttachOptions) -> Result<Attached> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        let attaching = async move { shared.attach(&name, options).await };
        match options.logs {
            // On the driver from the first: where the log is cut, the pumps, which run there, must stand still.
            true => self.0.parts.spawner.call(attaching).await,
            false => self.0.parts.spawner.call_blocking(attaching).await,
        }
    }

    async fn resize(&self, name: &str, rows: u16, columns: u16) -> Result<()> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        self.0
            .parts
            .spawner
            .call_blocking(async move { shared.resize(&name, rows, columns).await })
            .await
    }

    async fn promote(&self, name: &str) -> Result<Outcome> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        let work = |_| async move { shared.promote(&name).await };
        self.0.parts.spawner.tail(work, |_| async {}).await
    }

    async fn set_restart(&self, name: &str, policy: RestartPolicy) -> Result<()> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        let work = |_| async move { shared.set_restart(&name, policy).await };
        self.0.parts.spawner.tail(work, |()| async {}).await
    }

    async fn checkpoint(&self, name: &str, checkpoint: &str, options: CheckpointOptions) -> Result<()> {
        let (shared, name, checkpoint) = (Arc::clone(&self.0), name.to_owned(), checkpoint.to_owned());
        let work = |_| async move { shared.checkpoint(&name, &checkpoint, options).await };
        self.0.parts.spawner.tail(work, |()| async {}).await
    }

    async fn checkpoints(&self, name: &str, directory: Option<PathBuf>) -> Result<Vec<String>> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        let work = async move { shared.checkpoints(&name, directory).await };
        self.0.parts.spawner.call_blocking(work).await
    }

    async fn remove_checkpoint(&self, name: &str, checkpoint: &str, directory: Option<PathBuf>) -> Result<()> {
        let (shared, name, checkpoint) = (Arc::clone(&self.0), name.to_owned(), checkpoint.to_owned());
        let work = |_| async move { shared.remove_checkpoint(&name, &checkpoint, directory).await };
        self.0.parts.spawner.tail(work, |()| async {}).await
    }

    async fn restore(&self, name: &str, checkpoint: &str, directory: Option<PathBuf>) -> Result<Outcome> {
        let (shared, name, checkpoint) = (Arc::clone(&self.0), name.to_owned(), checkpoint.to_owned());
        let (undoing, started) = (Arc::clone(&self.0), name.clone());
        let undo = move |outcome| async move {
            if outcome == Outcome::Done {
                let _ = undoing.signal_if_running(&started, Signal::KILL).await;
            }
        };
        let work = |cancel| async move { shared.restore(&name, &checkpoint, directory, &cancel).await };
        self.0.parts.spawner.tail(work, undo).await
    }

    async fn restart(&self, name: &str, options: StopOptions) -> Result<()> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        let work = |cancel| async move { shared.restart(&name, options, &cancel).await };
        self.0.parts.spawner.tail(work, |()| async {}).await
    }

    async fn pause(&self, name: &str) -> Result<()> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        let work = |_| async move { shared.pause(&name).await };
        self.0.parts.spawner.tail(work, |()| async {}).await
    }

    async fn unpause(&self, name: &str) -> Result<()> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        let work = |_| async move { shared.unpause(&name).await };
        self.0.parts.spawner.tail(work, |()| async {}).await
    }

    async fn rename(&self, name: &str, new_name: &str) -> Result<()> {
        let (shared, name, new_name) = (Arc::clone(&self.0), name.to_owned(), new_name.to_owned());
        let work = |_| async move { shared.rename(&name, &new_name).await };
        self.0.parts.spawner.tail(work, |()| async {}).await
    }

    async fn update(&self, name: &str, limits: Limits) -> Result<Vec<String>> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        let work = |_| async move { shared.update(&name, limits).await };
        self.0.parts.spawner.tail(work, |_| async {}).await
    }

    async fn top(&self, name: &str, arguments: &[String]) -> Result<Top> {
        let (shared, name, arguments) = (Arc::clone(&self.0), name.to_owned(), arguments.to_vec());
        self.0
            .parts
            .spawner
            .call(async move { shared.top(&name, arguments).await })
            .await
    }

    async fn stats(&self, name: &str, options: StatsOptions) -> Result<BoxStream<Result<Stats>>> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        self.0
            .parts
            .spawner
            .call(async move { shared.stats(&name, options).await })
            .await
    }

    async fn connect(&self, name: &str, network: &str, endpoint: EndpointSpec) -> Result<()> {
        let (shared, name, network) = (Arc::clone(&self.0), name.to_owned(), network.to_owned());
        let work = |_| async move { shared.connect(&name, &network, endpoint).await };
        self.0.parts.spawner.tail(work, |()| async {}).await
    }

    async fn disconnect(&self, name: &str, network: &str) -> Result<Outcome> {
        let (shared, name, network) = (Arc::clone(&self.0), name.to_owned(), network.to_owned());
        let work = |_| async move { shared.disconnect(&name, &network).await };
        self.0.parts.spawner.tail(work, |_| async {}).await
    }

    async fn shape(&self, name: &str, network: &str, shaping: Shaping) -> Result<()> {
        let (shared, name, network) = (Arc::clone(&self.0), name.to_owned(), network.to_owned());
        let work = |_| async move { shared.shape(&name, &network, shaping).await };
        self.0.parts.spawner.tail(work, |()| async {}).await
    }

    async fn partition(&self, name: &str, other: &str) -> Result<()> {
        let (shared, name, other) = (Arc::clone(&self.0), name.to_owned(), other.to_owned());
        let work = |_| async move { shared.keep_apart(&name, &other, true).await };
        self.0.parts.spawner.tail(work, |()| async {}).await
    }

    async fn heal(&self, name: &str, other: &str) -> Result<()> {
        let (shared, name, other) = (Arc::clone(&self.0), name.to_owned(), other.to_owned());
        let work = |_| async move { shared.keep_apart(&name, &other, false).await };
        self.0.parts.spawner.tail(work, |()| async {}).await
    }

    async fn prune(&self, filter: Filter) -> Result<Pruned> {
        let shared = Arc::clone(&self.0);
        let work = |_| async move { shared.prune(&filter).await };
        self.0.parts.spawner.tail(work, |_| async {}).await
    }

    async fn diff(&self, name: &str) -> Result<Vec<Change>> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        self.0.parts.spawner.call(async move { shared.diff(&name).await }).await
    }

    async fn export(&self, name: &str) -> Result<ByteStream> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        self.0
            .parts
            .spawner
            .call(async move { shared.export(&name).await })
            .await
    }

    async fn stat_path(&self, name: &str, path: &str) -> Result<PathStat> {
        let (shared, name, path) = (Arc::clone(&self.0), name.to_owned(), path.to_owned());
        self.0
            .parts
            .spawner
            .call(async move { shared.stat_path(&name, &path).await })
            .await
    }

    async fn copy_out(&self, name: &str, path: &str) -> Result<CopiedOut> {
        let (shared, name, path) = (Arc::clone(&self.0), name.to_owned(), path.to_owned());
        self.0
            .parts
            .spawner
            .call(async move { shared.copy_out(&name, &path).await })
            .await
    }

    async fn copy_in(&self, name: &str, path: &str, archive: ByteStream, options: CopyInOptions) -> Result<()> {
        let (shared, name, path) = (Arc::clone(&self.0), name.to_owned(), path.to_owned());
        self.0
            .parts
            .spawner
            .call(async move { shared.copy_in(&name, &path, archive, options).await })
            .await
    }

    async fn commit(&self, name: &str, options: CommitOptions) -> Result<ImageId> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        let work = |cancel| async move { shared.commit(&name, options, &cancel).await };
        self.0.parts.spawner.tail(work, |_| async {}).await
    }

    async fn exec_create(&self, name: &str, spec: ExecSpec) -> Result<Exec> {
        let (shared, undoing, name) = (Arc::clone(&self.0), Arc::clone(&self.0), name.to_owned());
        let undo = move |made: Exec| async move { undoing.exec_forget(&made.id).await };
        let work = |_| async move { shared.exec_create(&name, spec).await };
        self.0.parts.spawner.tail(work, undo).await
    }

    async fn exec_start(&self, exec: &str, options: AttachOptions) -> Result<Attached> {
        let (shared, undoing, id) = (Arc::clone(&self.0), Arc::clone(&self.0), exec.to_owned());
        let unwanted = id.clone();
        let undo = move |_| async move { undoing.exec_kill(&unwanted).await };
        let work = |cancel| async move { shared.exec_start(&id, options, &cancel).await };
        self.0.parts.spawner.tail(work, undo).await
    }

    async fn exec_wait(&self, exec: &str) -> Result<ExitStatus> {
        let (shared, id) = (Arc::clone(&self.0), exec.to_owned());
        self.0
            .parts
            .spawner
            .call(async move { shared.exec_wait(&id).await })
            .await
    }

    async fn exec_inspect(&self, exec: &str) -> Result<ExecInfo> {
        let near = self.0.execs.get(exec);
        if let (Err(_), Some(far)) = (&near, self.0.far_execs.get(exec)) {
            return self.0.parts.spawner.call(async move { far.inspect().await }).await;
        }
        near?.info()
    }

    async fn exec_resize(&self, exec: &str, rows: u16, columns: u16) -> Result<()> {
        let (shared, id) = (Arc::clone(&self.0), exec.to_owned());
        self.0
            .parts
            .spawner
            .call(async move { shared.exec_resize(&id, rows, columns).await })
            .await
    }
}
