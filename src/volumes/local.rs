//! The in-process volume manager: what its verbs share.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use regex_lite::RegexBuilder;

use super::driver::{VolumeContext, VolumeDriver};
use super::drivers::{local::LocalDriver, tmpfs::TmpfsDriver};
use super::files::Files;
use super::record::{Body, Record};
use super::uses::Use;
use super::{
    ANONYMOUS_LABEL, CreateVolume, PrunedVolumes, RemoveVolumeOptions, VolumeInfo, VolumeManager, VolumeUsage,
};
use crate::driver::{Cancel, Spawner};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::events::{Event, EventKind};
use crate::runtime::native::NativeRuntime;
use crate::storage::ownership::Ownership;
use crate::storage::snapshot::usage_of;
use crate::store::{Locks, Node, NodeKind, Owners, Store};
use crate::sys::blocking::blocking;
use crate::types::{ByteStream, Filter, Outcome, OwnerId, VolumeName};

/// The driver of volumes that ask for none.
pub(crate) const DEFAULT_DRIVER: &str = "local";
/// The other driver that is always there.
const TMPFS: &str = "tmpfs";
const KNOWN_FILTERS: [&str; 5] = ["dangling", "driver", "label", "label!", "name"];

/// Looks for a driver that nobody made known. Blocks, for a moment.
pub(crate) type Finder = Arc<dyn Fn(&str) -> Result<Option<Arc<dyn VolumeDriver>>> + Send + Sync>;

/// What the engine hands the manager.
pub(crate) struct LocalVolumesParts {
    pub(crate) spawner: Spawner,
    pub(crate) store: Store,
    pub(crate) owners: Owners,
    pub(crate) owner: OwnerId,
    pub(crate) locks: Locks,
    /// Holds a directory per volume.
    pub(crate) dir: PathBuf,
    pub(crate) ownership: Ownership,
    pub(crate) native: Arc<NativeRuntime>,
    /// The embedder's own.
    pub(crate) drivers: Arc<BTreeMap<String, Arc<dyn VolumeDriver>>>,
    pub(crate) finder: Option<Finder>,
}

/// Volumes of one root.
#[derive(Clone)]
pub(crate) struct LocalVolumes(pub(crate) Arc<Shared>);

/// What all verbs share.
pub(crate) struct Shared {
    pub(super) parts: LocalVolumesParts,
    pub(super) files: Files,
    pub(super) uses: Mutex<HashMap<VolumeName, Arc<tokio::sync::Mutex<Use>>>>,
    /// Drivers that were looked for.
    found: Mutex<BTreeMap<String, Arc<dyn VolumeDriver>>>,
}

impl fmt::Debug for LocalVolumes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalVolumes")
            .field("owner", &self.0.parts.owner)
            .finish_non_exhaustive()
    }
}

impl LocalVolumes {
    /// Removes a new volume that nobody waits for any more, unless somebody uses it by now.
    fn undo_new(&self) -> impl FnOnce(VolumeInfo) -> futures_util::future::BoxFuture<'static, ()> + Send + use<> {
        let shared = Arc::clone(&self.0);
        move |made| {
            Box::pin(async move {
                let options = RemoveVolumeOptions::default();
                if let Err(error) = shared.remove(&made.name, options, &Cancel::default()).await {
                    tracing::debug!(
                        volume = made.name,
                        error = error.report(),
                        "a volume that nobody waits for stays"
                    );
                }
            })
        }
    }

    /// Blocking.
    #[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
    pub(crate) fn open(parts: LocalVolumesParts) -> Result<Self> {
        let files = Files::open(parts.dir.clone(), parts.owner.clone(), parts.ownership.clone())?;
        Ok(Self(Arc::new(Shared {
            parts,
            files,
            uses: Mutex::default(),
            found: Mutex::default(),
        })))
    }
}

pub(super) fn no_such(name: &str) -> Error {
    Error::not_found(ObjectKind::Volume, name)
}

/// Nanoseconds since 1970 of now.
pub(super) fn now_ns() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

impl Shared {
    pub(super) fn driver(&self, name: &str) -> Result<Arc<dyn VolumeDriver>> {
        if let Some(driver) = self.parts.drivers.get(name) {
            return Ok(Arc::clone(driver));
        }
        match name {
            DEFAULT_DRIVER => return Ok(Arc::new(LocalDriver)),
            TMPFS => return Ok(Arc::new(TmpfsDriver)),
            _ => {}
        }
        if let Some(finder) = &self.parts.finder {
            let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(driver) = found.get(name) {
                return Ok(Arc::clone(driver));
            }
            if let Some(driver) = finder(name)? {
                found.insert(name.to_owned(), Arc::clone(&driver));
                return Ok(driver);
            }
        }
        let mut known: Vec<&str> = self.parts.drivers.keys().map(String::as_str).collect();
        known.extend(
            [DEFAULT_DRIVER, TMPFS]
                .iter()
                .filter(|name| !self.parts.drivers.contains_key(**name)),
        );
        known.sort_unstable();
        let message = format!(
            "no volume driver is called {name:?} (there are {}); make it known with with_volume_driver",
            known.join(", ")
        );
        Err(Error::new(ErrorKind::NotFound, message).with_object(ObjectKind::Backend, name))
    }

    pub(super) fn context(&self, record: &Record) -> VolumeContext {
        VolumeContext {
            name: record.name.clone(),
            dir: self.files.path(&record.name),
            options: record.body.options.clone(),
        }
    }

    /// The record of a name.
    pub(crate) fn read<'a>(&'a self, name: &'a VolumeName) -> BoxFuture<'a, Result<Record>> {
        Box::pin(async move {
            let wanted = name.clone();
            let row = self.parts.store.call(move |store| store.volume(&wanted)).await?;
            row.map_or_else(|| Err(no_such(name.as_str())), Record::from_row)
        })
    }

    /// The record of a word that should be a name.
    pub(super) fn find<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Record>> {
        Box::pin(async move {
            match name.parse::<VolumeName>() {
                Ok(name) => self.read(&name).await,
                Err(_) => Err(no_such(name)),
            }
        })
    }

    pub(super) async fn tell(&self, event: Event) {
        let told = self.parts.store.call(move |store| store.record_event(&event)).await;
        if let Err(error) = told {
            tracing::warn!(error = error.report(), "an event could not be written");
        }
    }

    pub(super) fn event(&self, record: &Record, action: &str) -> Event {
        let event = Event::now(EventKind::Volume, action, record.name.as_str());
        event.with("driver", record.body.driver.as_str())
    }

    pub(super) fn key(name: &VolumeName) -> String {
        format!("volume-{name}")
    }

    /// What is asked for, checked.
    pub(super) fn asked(&self, request: CreateVolume, owner: Option<OwnerId>) -> Result<Record> {
        let anonymous = request.name.is_none();
        let name = match &request.name {
            Some(name) => name.parse()?,
            None => VolumeName::random(),
        };
        let mut labels = request.labels;
        if anonymous {
            labels.insert(ANONYMOUS_LABEL.to_owned(), String::new());
        }
        let driver = request.driver.filter(|driver| !driver.is_empty());
        let driver = driver.unwrap_or_else(|| DEFAULT_DRIVER.to_owned());
        self.driver(&driver)?;
        Ok(Record {
            name,
            owner,
            created_ns: now_ns(),
            body: Body {
                driver,
                options: request.options,
                labels,
                anonymous,
            },
        })
    }

    /// Makes a volume, unless there is one; whether there was none.
    pub(crate) async fn create(&self, request: CreateVolume, cancel: &Cancel) -> Result<(Record, bool)> {
        let chosen = request.driver.as_ref().is_some_and(|driver| !driver.is_empty());
        let record = self.asked(request, None)?;
        let _held = self.parts.locks.lock(&Self::key(&record.name)).await?;
        match self.read(&record.name).await {
            Ok(there) => return Self::same(there, &record, chosen).map(|there| (there, false)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        let made = self.make(&record, cancel).await?;
        let (row, event) = (record.to_row()?, self.event(&record, "create"));
        let inserted = self
            .parts
            .store
            .call(move |store| store.insert_volume(&row, Some(&event)))
            .await;
        match inserted {
            Ok(None) => Ok((record, true)),
            Ok(Some(there)) => Ok((Self::same(Record::from_row(there)?, &record, chosen)?, false)),
            Err(error) => {
                self.undo(&record, made).await;
                Err(error)
            }
        }
    }

    /// One that is there is the one that is asked for, unless somebody else is chosen to keep it.
    fn same(there: Record, asked: &Record, chosen: bool) -> Result<Record> {
        if !chosen || there.body.driver == asked.body.driver {
            return Ok(there);
        }
        let message = format!(
            "the volume {} is there already, kept by the driver {:?} and not by {:?}; take another name",
            there.name, there.body.driver, asked.body.driver
        );
        Err(Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Volume, there.name.as_str()))
    }

    /// Makes a volume of a bound container, which has no record yet: it gets it with the container.
    pub(crate) async fn make_bound(&self, request: CreateVolume, cancel: &Cancel) -> Result<Record> {
        let record = self.asked(request, Some(self.parts.owner.clone()))?;
        self.make(&record, cancel).await?;
        Ok(record)
    }

    /// Its directory, whole; whether nobody had made it before.
    async fn make(&self, record: &Record, cancel: &Cancel) -> Result<Outcome> {
        let (files, name) = (self.files.clone(), record.name.clone());
        let driver = self.driver(&record.body.driver)?;
        blocking(move || files.begin(&name)).await?;
        let context = self.context(record);
        let made = match self.patiently(record, cancel, driver.create(&context)).await {
            Ok(made) => made,
            Err(error) => {
                self.forget_late(record, driver, context);
                let (files, name) = (self.files.clone(), record.name.clone());
                blocking(move || files.remove_unsettled(&name)).await?;
                return Err(error);
            }
        };
        let (files, settled) = (self.files.clone(), record.clone());
        if let Err(error) = blocking(move || files.settle(&settled)).await {
            self.undo(record, made).await;
            return Err(error);
        }
        Ok(made)
    }

    /// Waits for a driver as long as the caller does. Our own is never waited for long, and blocks.
    pub(super) async fn patiently<T>(
        &self,
        record: &Record,
        cancel: &Cancel,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match record.body.driver == DEFAULT_DRIVER {
            true => work.await,
            false => cancel.or(work).await,
        }
    }

    /// What a driver may have made of a volume that it failed to make. Under a name that somebody chose it is found when
    /// they ask again; under one that nobody chose it would never be.
    fn forget_late(&self, record: &Record, driver: Arc<dyn VolumeDriver>, context: VolumeContext) {
        if !record.body.anonymous || record.body.driver == DEFAULT_DRIVER {
            return;
        }
        self.parts.spawner.background(async move {
            if let Err(error) = driver.remove(&context).await {
                tracing::warn!(volume = %context.name, error = error.report(), "a volume that was not made may be there");
            }
        });
    }

    /// Undoes what a call made that failed. What was there before is not its to remove.
    async fn undo(&self, record: &Record, made: Outcome) {
        if made == Outcome::Done {
            self.unmake(record).await;
        }
    }

    /// Undoes what has no record.
    pub(crate) async fn unmake(&self, record: &Record) {
        let removed = async {
            self.driver(&record.body.driver)?.remove(&self.context(record)).await?;
            let (files, name) = (self.files.clone(), record.name.clone());
            blocking(move || files.remove(&name)).await
        };
        if let Err(error) = removed.await {
            tracing::warn!(volume = %record.name, error = error.report(), "a volume that nobody wants could not be removed");
        }
    }

    /// Everything about one.
    pub(super) async fn info(&self, record: &Record) -> Result<VolumeInfo> {
        let node = Node::volume(&record.name);
        let users = self.parts.store.call(move |store| store.holders(&node)).await?;
        let mut info = record.info();
        info.users = users
            .into_iter()
            .filter(|user| user.kind == NodeKind::Container)
            .map(|user| user.id)
            .collect();
        if let Ok(driver) = self.driver(&record.body.driver) {
            info.mountpoint = driver.directory(&self.context(record));
        }
        Ok(info)
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<VolumeInfo>> {
        check_filter(filter, &KNOWN_FILTERS)?;
        let names = filter.values("name").iter().map(|text| {
            let built = RegexBuilder::new(text).size_limit(1 << 20).build();
            built.map_err(|error| bad_filter(format!("invalid filter name={text}: {error}")))
        });
        let names = names.collect::<Result<Vec<_>>>()?;
        let dangling = filter
            .values("dangling")
            .iter()
            .map(|word| truth("dangling", word))
            .collect::<Result<Vec<_>>>()?;
        let mut found = Vec::new();
        for row in self.parts.store.call(|store| store.volumes()).await? {
            let record = Record::from_row(row)?;
            let drivers = filter.values("driver");
            let fits = (names.is_empty() || names.iter().any(|name| name.is_match(record.name.as_str())))
                && (drivers.is_empty() || drivers.contains(&record.body.driver))
                && has_labels(&record.body.labels, filter);
            if !fits || self.is_dead(&record).await? {
                continue;
            }
            let info = self.info(&record).await?;
            if dangling.is_empty() || dangling.contains(&info.users.is_empty()) {
                found.push(info);
            }
        }
        Ok(found)
    }

    /// A volume's own directory.
    pub(crate) fn directory(&self, name: &VolumeName) -> PathBuf {
        self.files.path(name)
    }

    /// Where a volume's files are at any time.
    pub(crate) fn place(&self, record: &Record) -> Option<PathBuf> {
        self.driver(&record.body.driver).ok()?.directory(&self.context(record))
    }

    /// Whether a volume is empty, and may begin with an image's content.
    pub(crate) async fn may_fill(&self, name: &VolumeName) -> Result<bool> {
        let record = self.read(name).await?;
        let Some(place) = self.place(&record).filter(|_| record.body.driver == DEFAULT_DRIVER) else {
            return Ok(false);
        };
        blocking(move || super::files::is_empty(&place)).await
    }

    /// Undoes a volume that was made for nothing, if nobody uses it.
    pub(crate) async fn discard(&self, name: &VolumeName) {
        match self.read(name).await {
            Ok(_) => self.remove_bound(std::slice::from_ref(name)).await,
            Err(_) => {
                let (files, name) = (self.files.clone(), name.clone());
                let removed = blocking(move || files.remove(&name)).await;
                if let Err(error) = removed {
                    tracing::warn!(error = error.report(), "an unwanted volume could not be removed");
                }
            }
        }
    }

    /// What each takes on disk.
    pub(crate) async fn usage(&self) -> Result<Vec<VolumeUsage>> {
        let mut all = Vec::new();
        for info in self.list(&Filter::new()).await? {
            let place = info.mountpoint.clone();
            let bytes =
                blocking(move || Ok(place.and_then(|place| usage_of(&place).ok()).map(|usage| usage.bytes))).await?;
            all.push(VolumeUsage::new(info.name, bytes, info.users.len()));
        }
        Ok(all)
    }

    /// Whether it belonged to containers of an engine that is gone.
    pub(super) async fn is_dead(&self, record: &Record) -> Result<bool> {
        let Some(owner) = record.owner.clone().filter(|owner| *owner != self.parts.owner) else {
            return Ok(false);
        };
        let owners = self.parts.owners.clone();
        Ok(!blocking(move || owners.is_alive(&owner)).await?)
    }
}

pub(super) fn bad_filter(message: String) -> Error {
    Error::invalid(message).with_object(ObjectKind::Option, "filter")
}

pub(super) fn check_filter(filter: &Filter, known: &[&str]) -> Result<()> {
    match filter.keys().find(|key| !known.contains(key)) {
        Some(key) => Err(bad_filter(format!(
            "invalid filter {key:?}; known are {}",
            known.join(", ")
        ))),
        None => Ok(()),
    }
}

/// Docker's words for yes and no. Source: moby, `filters.GetBoolOrDefault`.
pub(super) fn truth(key: &str, word: &str) -> Result<bool> {
    match word {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(bad_filter(format!("invalid filter {key}={word}: true or false"))),
    }
}

pub(super) fn has_labels(labels: &BTreeMap<String, String>, filter: &Filter) -> bool {
    let has = |wanted: &String| match wanted.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|known| known == value),
        None => labels.contains_key(wanted),
    };
    filter.values("label").iter().all(has) && !filter.values("label!").iter().any(has)
}

#[async_trait]
impl VolumeManager for LocalVolumes {
    async fn create(&self, request: CreateVolume) -> Result<VolumeInfo> {
        let shared = Arc::clone(&self.0);
        let work = |cancel| async move {
            let (record, _) = shared.create(request, &cancel).await?;
            shared.info(&record).await
        };
        self.0.parts.spawner.tail(work, |_| async {}).await
    }

    async fn inspect(&self, name: &str) -> Result<VolumeInfo> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        let work = async move {
            let record = shared.find(&name).await?;
            if shared.is_dead(&record).await? {
                return Err(no_such(&name));
            }
            shared.info(&record).await
        };
        self.0.parts.spawner.call(work).await
    }

    async fn list(&self, filter: Filter) -> Result<Vec<VolumeInfo>> {
        let shared = Arc::clone(&self.0);
        self.0
            .parts
            .spawner
            .call(async move { shared.list(&filter).await })
            .await
    }

    async fn remove(&self, name: &str, options: RemoveVolumeOptions) -> Result<Outcome> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        let work = |cancel| async move { shared.remove(&name, options, &cancel).await };
        self.0.parts.spawner.tail(work, |_| async {}).await
    }

    async fn prune(&self, filter: Filter) -> Result<PrunedVolumes> {
        let shared = Arc::clone(&self.0);
        let work = |cancel| async move { shared.prune(&filter, &cancel).await };
        self.0.parts.spawner.tail(work, |_| async {}).await
    }

    async fn export(&self, name: &str) -> Result<ByteStream> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        self.0
            .parts
            .spawner
            .call(async move { shared.export(&name).await })
            .await
    }

    async fn import(&self, into: CreateVolume, archive: ByteStream) -> Result<VolumeInfo> {
        let shared = Arc::clone(&self.0);
        let work = |cancel| async move {
            let record = shared.import(into, archive, &cancel).await?;
            shared.info(&record).await
        };
        self.0.parts.spawner.tail(work, self.undo_new()).await
    }

    async fn snapshot(&self, name: &str, into: CreateVolume) -> Result<VolumeInfo> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        let work = |_| async move {
            let record = shared.snapshot(&name, into).await?;
            shared.info(&record).await
        };
        self.0.parts.spawner.tail(work, self.undo_new()).await
    }
}
