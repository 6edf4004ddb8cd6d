//! Networks of an embedder's own drivers: who is asked, what is written down before, and what a dead engine left. Nothing of it is
//! there in an engine that was given no driver.

mod ask;
mod clear;
mod journal;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use self::journal::Journal;
use super::driver::{Addressing, EndpointContext, Joined, NetworkContext, NetworkDriver, NetworkSandbox};
use super::spec::{NetworkRecord, NetworkSpec};
use crate::driver::{Driver, Spawner};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::store::{LockGuard, Locks, Owners};
use crate::types::{NetworkId, Outcome, OwnerId};

/// Drivers of ours, or of Docker's, whose names nobody else's can have.
const TAKEN: [&str; 7] = ["bridge", "host", "ipvlan", "macvlan", "none", "null", "overlay"];
/// Those of ours that networks can be made with.
const OURS: [&str; 3] = ["bridge", "ipvlan", "macvlan"];

/// An embedder's drivers, by name.
pub(crate) type Drivers = BTreeMap<String, Arc<dyn NetworkDriver>>;

/// What the engine knows of networks that are not ours.
#[derive(Debug)]
pub(crate) struct Own {
    drivers: Drivers,
    journal: Journal,
    locks: Locks,
    owners: Owners,
    owner: OwnerId,
    /// Where drivers run, from the first question on. Not on the engine's thread, which nobody else's code may hold up; and who waits for an
    /// answer may have taken all threads of the engine's pool, which a driver that blocks would wait for.
    thread: OnceLock<Driver>,
    /// The engine ends: whoever does not answer now is not asked again, however many places and networks of his there are.
    ending: AtomicBool,
    /// Who did not.
    silent: Mutex<BTreeSet<String>>,
}

/// A network, and who makes it.
#[derive(Debug)]
pub(crate) struct Driven {
    own: Arc<Own>,
    driver: Arc<dyn NetworkDriver>,
    pub(crate) network: Arc<NetworkContext>,
}

impl Own {
    /// Looks at names alone: nothing is asked, and nothing is made on the disk.
    ///
    /// # Errors
    /// `InvalidArgument` for a driver's name that is one of ours, or none.
    #[cold]
    #[inline(never)]
    pub(crate) fn new(
        drivers: Drivers,
        dir: PathBuf,
        (locks, owners, owner): (Locks, Owners, OwnerId),
    ) -> Result<Arc<Self>> {
        for name in drivers.keys() {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
            if name.is_empty() || name.len() > 128 || !name.bytes().all(fits) || TAKEN.contains(&name.as_str()) {
                let message = format!(
                    "a network driver of one's own cannot be called {name:?}: letters, digits and _.- are allowed, at most 128, and not {}",
                    TAKEN.join(", ")
                );
                return Err(Error::invalid(message).with_object(ObjectKind::Backend, name.clone()));
            }
        }
        Ok(Arc::new(Self {
            drivers,
            journal: Journal::at(dir),
            locks,
            owners,
            owner,
            thread: OnceLock::new(),
            ending: AtomicBool::new(false),
            silent: Mutex::default(),
        }))
    }

    pub(crate) fn has(&self, driver: &str) -> bool {
        self.drivers.contains_key(driver)
    }

    /// Whether a driver gives addresses itself.
    pub(crate) fn addresses_itself(&self, driver: &str) -> bool {
        let driver = self.drivers.get(driver);
        driver.is_some_and(|driver| driver.addressing() == Addressing::Driver)
    }

    /// The network of a record; `None` for one of ours.
    ///
    /// # Errors
    /// `NotFound` where nobody made its driver known to this engine.
    pub(crate) fn network(self: &Arc<Self>, record: &NetworkRecord) -> Result<Option<Arc<Driven>>> {
        if is_ours(&record.spec.driver) {
            return Ok(None);
        }
        match self.drivers.get(&record.spec.driver) {
            Some(driver) => Ok(Some(self.driven(driver, record))),
            None => Err(unknown(&record.spec.driver, self.drivers.keys())),
        }
    }

    fn driven(self: &Arc<Self>, driver: &Arc<dyn NetworkDriver>, record: &NetworkRecord) -> Arc<Driven> {
        Arc::new(Driven {
            own: Arc::clone(self),
            driver: Arc::clone(driver),
            network: Arc::new(NetworkContext {
                id: record.id.clone(),
                name: record.spec.name.clone(),
                spec: record.spec.clone(),
                dir: self.journal.data(&record.id),
            }),
        })
    }

    /// Whoever makes or removes a network holds this: one at a time, over all processes. Blocks.
    pub(crate) fn turn(&self, network: &NetworkId) -> Result<LockGuard> {
        self.locks.lock_blocking(&format!("network-{network}"))
    }

    fn spawner(&self) -> Result<&Spawner> {
        if let Some(thread) = self.thread.get() {
            return Ok(thread.spawner());
        }
        // One that somebody else was quicker to start makes this one end at once.
        let started = Driver::start()?;
        Ok(self.thread.get_or_init(|| started).spawner())
    }

    /// The engine ends.
    #[cold]
    pub(crate) fn will_end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// A driver did not answer in time.
    fn note_silence(&self, driver: &str) {
        if self.ending.load(Ordering::Relaxed) {
            let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
            silent.insert(driver.to_owned());
        }
    }

    fn is_silent(&self, driver: &str) -> bool {
        let ends = self.ending.load(Ordering::Relaxed);
        ends && self
            .silent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(driver)
    }

    /// The names of all drivers.
    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.drivers.keys()
    }
}

/// Whether networks of a driver are made by the engine itself.
pub(crate) fn is_ours(driver: &str) -> bool {
    TAKEN.contains(&driver)
}

/// The error for a driver that nobody knows, with those that there are.
pub(crate) fn unknown<'a>(driver: &str, own: impl Iterator<Item = &'a String>) -> Error {
    let mut known: Vec<&str> = OURS.into_iter().chain(own.map(String::as_str)).collect();
    known.sort_unstable();
    // Docker's words, and more.
    let message = format!(
        "could not find plugin {driver} in v1 plugin registry: plugin not found (there are {}; make it known with with_network_driver)",
        known.join(", ")
    );
    Error::new(ErrorKind::NotFound, message).with_object(ObjectKind::Backend, driver)
}

/// Takes in what the engine understands of a network's options; the rest is the driver's.
///
/// # Errors
/// `InvalidArgument` for their values.
pub(crate) fn checked(mut spec: NetworkSpec) -> Result<NetworkSpec> {
    for (name, value) in spec.options.clone() {
        if matches!(
            name.as_str(),
            "com.docker.network.driver.mtu" | "com.docker.network.enable_ipv4" | "com.docker.network.enable_ipv6"
        ) {
            spec.take_option(&name, &value)?;
        }
    }
    Ok(spec)
}

impl Driven {
    /// The driver's name.
    pub(crate) fn driver(&self) -> &str {
        &self.network.spec.driver
    }

    pub(crate) fn addresses_itself(&self) -> bool {
        self.driver.addressing() == Addressing::Driver
    }

    /// Whether the driver publishes ports of containers on the network.
    pub(crate) fn publishes(&self) -> bool {
        self.driver.publishes(&self.network)
    }

    /// Whoever makes or removes the network holds this. Blocks.
    pub(crate) fn turn(&self) -> Result<LockGuard> {
        self.own.turn(&self.network.id)
    }

    /// Makes the network for the first time. What fails leaves nothing, or what a later reconcile takes back once the record is gone.
    /// The caller has its turn. Blocks.
    pub(crate) fn make(&self, record: &NetworkRecord) -> Result<()> {
        self.own.journal.begin(record, &self.own.owner)?;
        let made = self.create();
        if made.is_err()
            && let Err(error) = self.remove().and_then(|()| self.own.journal.forget(&self.network.id))
        {
            tracing::warn!(
                network = %self.network.id,
                error = error.report(),
                "something of a network that could not be made may be there; reconcile removes it"
            );
        }
        made.map(drop)
    }

    /// Has the network there, for this engine's first container on it; what dead engines had on it goes first. The caller has its turn.
    pub(crate) fn settle(&self, record: &NetworkRecord) -> Result<()> {
        // It may have been made by an engine that is gone, and its directory lost with a disk.
        self.own.journal.begin(record, &self.own.owner)?;
        self.leave_all(false)?;
        self.create().map(drop)
    }

    /// Removes the network, and what is written down of it; `recorded` removes the record in between. The caller has its turn.
    pub(crate) fn end(&self, recorded: impl FnOnce() -> Result<Outcome>) -> Result<Outcome> {
        self.leave_all(true)?;
        self.remove()?;
        let outcome = recorded()?;
        self.own.journal.forget(&self.network.id)?;
        Ok(outcome)
    }

    fn create(&self) -> Result<Outcome> {
        let (driver, network) = (Arc::clone(&self.driver), Arc::clone(&self.network));
        self.ask("create", async move { driver.create(&network).await })
    }

    fn remove(&self) -> Result<()> {
        let (driver, network) = (Arc::clone(&self.driver), Arc::clone(&self.network));
        self.ask("remove", async move { driver.remove(&network).await })
    }

    /// Has the driver make a container's link. It is written down before, until [`Driven::leave`]. Blocks.
    pub(crate) fn join(&self, endpoint: &Arc<EndpointContext>, sandbox: &NetworkSandbox) -> Result<Joined> {
        self.own.journal.note(&self.network.id, endpoint, &self.own.owner)?;
        let (driver, network) = (Arc::clone(&self.driver), Arc::clone(&self.network));
        let (endpoint, sandbox) = (Arc::clone(endpoint), sandbox.clone());
        self.ask("join", async move {
            driver
                .join(&network, &endpoint, &sandbox)
                .await
                .and_then(super::driver::checked)
        })
    }

    /// Has the driver take it back. Blocks.
    pub(crate) fn leave(&self, endpoint: Arc<EndpointContext>, sandbox: Option<NetworkSandbox>) -> Result<()> {
        let (driver, network) = (Arc::clone(&self.driver), Arc::clone(&self.network));
        let id = endpoint.id.clone();
        self.ask("leave", async move {
            driver.leave(&network, &endpoint, sandbox.as_ref()).await
        })?;
        self.own.journal.forget_place(&self.network.id, &id)
    }

    /// Has the driver look at a container's link. Blocks.
    pub(crate) fn check(&self, endpoint: Arc<EndpointContext>, sandbox: NetworkSandbox) -> Result<()> {
        let (driver, network) = (Arc::clone(&self.driver), Arc::clone(&self.network));
        self.ask(
            "check",
            async move { driver.check(&network, &endpoint, &sandbox).await },
        )
    }
}
